"""PPBench's puzzles, URLs and JSON lines."""

import base64
import dataclasses
import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from ppbench_boards import board, rows, tokens

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle, formats
from ptrm_jax.tasks.ppbench.puzzle import rooms_of, rooms_to_walls, tapa_clue, tapa_clues

BENCHMARKS = Path(
    os.environ.get("PTRM_BENCHMARKS", Path(__file__).parents[2] / "shared" / "benchmarks")
)
FILES = {"janko_dev": 544, "golden_other_sizes": 29, "misc_samples": 33}
needs_data = pytest.mark.skipif(
    not (BENCHMARKS / "ppbench").is_dir(),
    reason="needs ppbench/ in PTRM_BENCHMARKS or ../shared/benchmarks",
)


# Puzzles


def test_runs_of_tapa_are_put_in_order():
    clues = {"2,1,2": "1,2,2", "-,3,-": "3,-,-", "-": "-", "1": "1"}
    assert [tapa_clue(runs) for runs in clues] == list(clues.values())
    assert board("tapa", "2,1 . ./. . -,1").problem == rows("1,2 . ./. . 1,-")


def test_givens_of_sudoku_may_be_left_out_of_the_answer():
    puzzle = board(
        "sudoku", "1 . . ./" + ". . . ./" * 2 + ". . . .", ". 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1"
    )
    assert puzzle.answer[0] == ("1", "2", "3", "4")


def test_rooms_are_numbered_by_their_first_cell():
    rooms = [[7, 7, 2], [5, 7, 2], [5, 5, 2]]
    walls = np.array(rooms_to_walls(rooms))
    assert walls.tolist() == [[13, 3, 11], [11, 14, 10], [12, 7, 14]]
    np.testing.assert_array_equal(rooms_of(walls), [[0, 0, 1], [2, 0, 1], [2, 2, 1]])
    stack = rooms_of(np.stack([walls, np.array(rooms_to_walls([[0] * 3] * 3))]))
    assert stack[1].min() == stack[1].max() == 3


ROOMS = rooms_to_walls([[0, 0], [1, 1]])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("yajilin", rows(". .")), "got 'yajilin'"),
        (("tapa", rows(". ./.")), r"2 rows of lengths \[1, 2\]"),
        (("tapa", ()), "0 rows"),
        (("sudoku", rows(". ./. .")), "4x4, 6x6 or 9x9 cells; problem has 2x2"),
        (("lightup", rows(". 5")), "r1c2 is '5'"),
        (("lightup", rows("04 .")), "r1c1 is '04'"),
        (("nurikabe", rows("0 .")), "r1c1 is '0'"),
        (("nurikabe", rows("² .")), "r1c1 is '²'"),
        (("tapa", rows(". ./6,1 .")), "r2c1 is '1,6'"),
        (("shakashaka", rows("6 .")), "r1c1 is '6'"),
        (("tapa", rows(". ."), rows(". .")), r"r1c1 is '.', allowed is one of '#\+'"),
        (("tapa", rows("1 ."), rows("# #")), "r1c1 is '#', allowed is one of '.'"),
        (("tapa", rows("1 ."), rows(". # #")), r"lengths \[3\]"),
        (("tapa", rows(". ."), rows("## +")), "r1c1 is '##'"),
        (("heyawake", rows(". ./. .")), "walls are missing"),
        (("tapa", rows(". ./. ."), None, ROOMS), "pid is tapa and walls given"),
        (("heyawake", rows(". ."), None, ROOMS), r"lengths \[2, 2\]"),
        (("heyawake", rows(". ./. ."), None, ((13, 7), (13, 3))), "agree between neighbours"),
        (("heyawake", rows(". ./. ."), None, ((8, 2), (12, 6))), "close the rim"),
        (("tapa", rows(". ."), rows("# #"), None, ((0, "#"),)), "these 1 moves"),
        (("tapa", rows(". ."), rows("# #"), None, ((0, "#"), (1, "+"))), "these 2 moves"),
        (("tapa", rows(". ."), None, None, ((0, "#"), (1, "#"))), "these 2 moves"),
        (("tapa", rows("1 ."), rows(". #"), None, ((0, "#"), (1, "#"))), "these 2 moves"),
    ],
)
def test_malformed_puzzles_are_refused(arguments, says):
    with pytest.raises(InputError, match=says):
        PencilPuzzle(*arguments)


# URLs


GIVENS = {
    "sudoku": list("123456789"),
    "lightup": list("-01234"),
    "nurikabe": ["-", "1", "2", "15", "16", "255", "256", "999"],
    "tapa": list(tapa_clues()),
    "shakashaka": list("501234"),
}


def to_body(pid: str, symbols: list[str]) -> str:
    """An encoding of cells that pzpr reads, not always the one that it writes."""
    body = ""
    for empty, group in itertools.groupby(symbols, lambda symbol: symbol == "."):
        cells = list(group)
        body += "g" * len(cells) if empty else "".join(to_code(pid, cell) for cell in cells)
    return body


def to_code(pid: str, symbol: str) -> str:
    if symbol == "-" or (pid, symbol) == ("shakashaka", "5"):
        return "."
    if pid == "tapa" and "," in symbol:
        runs = symbol.split(",")
        if len(runs) == 4 and "-" not in runs:
            return "9"
        base, offset = {2: (6, 360), 3: (4, 396), 4: (2, 460)}[len(runs)]
        for power, run in enumerate(reversed(runs)):
            offset += base**power * int(run.replace("-", "0"))
        return np.base_repr(offset, 36).lower()
    number = int(symbol)
    prefix = "" if number < 16 else "-" if number < 256 else "+"
    return prefix + (f"{number:x}" if pid in ("nurikabe", "sudoku", "heyawake") else symbol)


@pytest.mark.parametrize("pid", GIVENS)
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_urls_are_read_as_they_are_written(pid, data):
    width = 9 if pid == "sudoku" else data.draw(st.integers(1, 12))
    size = {"min_size": 81, "max_size": 81} if pid == "sudoku" else {"min_size": 1, "max_size": 9}
    cell = st.one_of(st.just("."), st.sampled_from(GIVENS[pid]))
    symbols = data.draw(st.lists(cell, **size))
    symbols += ["."] * (-len(symbols) % width)
    puzzle = ppbench.from_url(f"?{pid}/{width}/{len(symbols) // width}/{to_body(pid, symbols)}")
    assert puzzle.pid == pid
    assert list(itertools.chain(*puzzle.problem)) == symbols
    assert ppbench.from_url(ppbench.to_url(puzzle)) == puzzle


@settings(max_examples=30, deadline=None)
@given(shape=st.tuples(st.integers(1, 12), st.integers(1, 12)), seed=st.integers(0, 2**32 - 1))
def test_walls_and_numbers_of_rooms_are_read_as_they_are_written(shape, seed):
    rng = np.random.default_rng(seed)
    walls = rooms_to_walls(np.cumsum(rng.random(shape) < 0.4, axis=1))
    rooms = rooms_of(np.array(walls))
    body = ""
    for behind in (rooms[:, 1:] != rooms[:, :-1], rooms[1:] != rooms[:-1]):
        bits = np.pad(behind.ravel(), (0, -behind.size % 5)).reshape(-1, 5)
        body += "".join(np.base_repr(n, 32).lower() for n in bits @ [16, 8, 4, 2, 1])
    numbers = rng.choice([".", "0", "3", "15", "16", "300"], rooms.max() + 1).tolist()
    url = f"heyawake/{shape[1]}/{shape[0]}/{body}{to_body('heyawake', numbers)}"
    expected = np.full(shape, ".", object)
    for room, number in enumerate(numbers):
        column, row = np.argwhere(rooms.T == room)[0]  # the leftmost, then topmost
        expected[row, column] = number
    puzzle = PencilPuzzle("heyawake", tuple(map(tuple, expected)), walls=walls)
    assert ppbench.from_url(url) == puzzle
    assert ppbench.from_url(ppbench.to_url(puzzle)) == puzzle


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # By hand from the letters: g skips one cell, h two; a clue in four carries skips with it.
        ("https://puzz.link/p?akari/4/2/.6b0", "- 1 . 1/. . 0 ."),
        ("https://puzz.link/p?lightup/3/2/g4g./", ". 4 ./- . ."),
        ("http://pzv.jp/p.html?nurikabe/3/2/a-10g.h", "10 16 ./- . ."),
        ("nurikabe/2/2/+100i", "256 ./. ."),
        ("?shakashaka/3/1/.c", "5 2 ."),
        ("?tapa/3/2/9.a6g1g", "1,1,1,1 - 1,-/. 1 ."),
        # 11 * 36 + 20 is 396 + 1 * 16 + 1 * 4 + 0; 13 * 36 is 460 + 1 * 8.
        ("?tapa/2/1/bkd0", "1,1,- 1,-,-,-"),
    ],
)
def test_urls_by_hand(url, expected):
    assert ppbench.from_url(url).problem == rows(expected)


def test_walls_of_a_url_by_hand():
    """Walls right of the cells, 2x2 in five bits, then those below; the rooms' numbers follow."""
    puzzle = ppbench.from_url("https://puzz.link/p?heyawake/3/2/9o2g")
    # 0100 puts a wall behind the second cell of the first row, 110 walls below its first two cells.
    assert puzzle.walls == ((13, 7, 11), (13, 5, 6))
    assert puzzle.problem == rows("2 . ./. . .")
    # A wall may end inside a room.
    puzzle = ppbench.from_url("https://puzz.link/p?heyawake/2/2/g03")
    assert puzzle.walls == ((11, 11), (12, 6))
    assert puzzle.problem == rows("3 ./. .")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://puzz.link/", "must end in"),
        ("https://puzz.link/p?yajilin/8/8/zz", "one of sudoku"),
        ("https://puzz.link/p?tapa/0/8/zz", "must end in"),
        ("https://puzz.link/p?tapa/v:/2/2/i", "usual rules; this one of tapa has the variant 'v:'"),
        ("?lightup/2/1/...", "at most 2 cells; it describes 3"),
        ("?lightup/2/1/g!", r"lightup/2/1/g!': .* '!' out of place"),
        ("?nurikabe/2/1/-g", "'-' out of place"),
        ("?tapa/2/1/f", "'f' out of place"),
        ("?tapa/2/1/d8", "'d' out of place"),
        ("?heyawake/2/2/g", "must take 2 characters"),
        ("?heyawake/2/2/gz", "must take 2 characters"),
    ],
)
def test_malformed_urls_are_refused(url, says):
    with pytest.raises(InputError, match=says):
        ppbench.from_url(url)


# JSON lines


def line(pid: str, size: str, body: str, problem: list[str], answer: list[str], **more) -> dict:
    width, height = map(int, size.split("/"))
    url = f"https://puzz.link/p?{pid}/{size}/{body}"
    about = {"id": f"a {pid}", "pid": pid, "source": "by hand", "unique": None, "width": width}
    about |= {"height": height, "puzzlink_url": url, "problem": problem, "answer": answer}
    return about | more


LIGHTUP = line("lightup", "3/1", "g.", [". - ."], ["# . #"], unique=True)
HEYAWAKE = line("heyawake", "2/2", "0o1", ["1 .", ". ."], ["# +", "+ +"], rooms=["0 0", "1 1"])


def encoded(row: dict, moves: str) -> dict:
    """A line in PPBench's own format; moves between spaces."""
    text = json.dumps({"moves_full": [f"mouse,{move}" for move in moves.split()]}).encode()
    mixed = bytes(a ^ b for a, b in zip(text, itertools.cycle(b"ppbench"), strict=False))
    keys = ("pid", "width", "height", "puzzlink_url")
    return {key: row[key] for key in keys} | {"solution_enc": base64.b64encode(mixed).decode()}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_are_read(tmp_path):
    one, two = ppbench.read_jsonl(written(tmp_path / "a.jsonl", LIGHTUP, HEYAWAKE))
    assert (one.name, one.source) == ("a lightup", "by hand")
    assert (one.unique, two.unique) == (True, None)
    assert one.answer == rows("# . #")
    assert two.walls == ROOMS


def test_ppbenchs_own_lines_are_read(tmp_path):
    sudoku = line("sudoku", "4/4", "g23434122143432g", [], [])
    moves = "left,3.5,0.5 left,0.5,0.5 left,3.5,3.5 left,0.5,3.5"
    path = written(
        tmp_path / "a.jsonl",
        encoded(LIGHTUP, "left,5,1 left,1,1"),
        {"pid": "yajilin", "puzzlink_url": "?"},
        encoded(sudoku, "left,7,7;key,1 left,1,1;key,1"),
        encoded(line("shakashaka", "2/2", "j", [], []), moves),
        encoded(HEYAWAKE, "") | {"solution_enc": None},
        encoded(HEYAWAKE, "right,3,1 right,1,3 right,3,3 left,1,1"),
    )
    lightup, digits, triangles, unsolved, heyawake = ppbench.read_full(path)
    assert lightup.moves == ((2, "#"), (0, "#"))
    assert digits.answer[0] == ("1", "2", "3", "4") and digits.answer[3][3] == "1"
    assert triangles.answer == rows("5 4/2 3")
    assert unsolved.answer is unsolved.moves is None
    assert heyawake.moves[-1] == (0, "#")


WRITTEN = [
    ([], "must be a puzzle as JSON in UTF-8: Expected `object`, got `array`; correct"),
    (LIGHTUP | {"answer": ["+ . #"]}, "must satisfy the rules of lightup; that of a lightup"),
    (LIGHTUP | {"answer": ["# . ."]}, "must decide every cell"),
    (LIGHTUP | {"problem": [". . ."], "answer": ["# + +"]}, "must agree; the URL gives"),
    (LIGHTUP | {"width": 4}, "must agree"),
    (LIGHTUP | {"pid": "shakashaka", "problem": [". 5 ."], "answer": ["2 . 3"]}, "must agree"),
    (dict(list(LIGHTUP.items())[1:]), "missing required field `id`"),
    (LIGHTUP | {"problem": 3}, r"Expected `array`, got `int` - at `\$.problem`; correct"),
    (LIGHTUP | {"problem": [3]}, r"Expected `str`, got `int` - at `\$.problem\[0\]`"),
    *(
        (HEYAWAKE | {"rooms": rooms}, "rooms must be those")
        for rooms in (["0 1", "0 1"], ["0 0", "0 0"], ["0 2", "1 1"], ["0 0"])
    ),
]
ENCODED = [
    (encoded(LIGHTUP, "left,1,1 right,5,1"), "must satisfy the rules"),
    (encoded(LIGHTUP, "left,1,1"), "must decide every cell"),
    (encoded(LIGHTUP, "leftx2,1,1"), "must be one click"),
    (encoded(LIGHTUP, "left,1,1;key,1"), "must be one click"),
    (encoded(LIGHTUP, "left,7,1"), "must stay on the board"),
    (encoded(LIGHTUP, "left,1,1 left,3,1 left,5,1"), "decide every"),
    (encoded(LIGHTUP, "") | {"solution_enc": "AAAA"}, "must be base64 of JSON"),
    (encoded(LIGHTUP, "") | {"solution_enc": "A!"}, "must be base64 of JSON"),
    (encoded(LIGHTUP, "") | {"height": 2}, "must agree"),
]


@pytest.mark.parametrize(
    ("read", "first", "wrong", "says"),
    [
        *((ppbench.read_jsonl, LIGHTUP, *x) for x in WRITTEN),
        *((ppbench.read_full, encoded(LIGHTUP, ""), *x) for x in ENCODED),
    ],
)
def test_wrong_lines_are_named(tmp_path, read, first, wrong, says):
    path = written(tmp_path / "a.jsonl", first, wrong)
    with pytest.raises(InputError, match=rf"a\.jsonl:2: .*{says}"):
        read(path)


def test_lines_that_are_not_json_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    for content, line in ((b"\n{", 2), (b'{"pid": "\xff"}\n', 1)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"a\.jsonl:{line}: a line must be a puzzle as JSON"):
            ppbench.read_full(path)


def test_the_golden_set_needs_its_package(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install ppbench"):
        ppbench.read_golden()


def test_the_papers_filter():
    sizes = [("tapa", 10, 10), ("tapa", 9, 10), ("tapa", 9, 9), ("sudoku", 9, 9), ("sudoku", 6, 6)]
    puzzles = [PencilPuzzle(pid, (((".",) * width),) * height) for pid, height, width in sizes]
    assert ppbench.paper_filter(puzzles) == [puzzles[0], puzzles[3]]


# Real puzzles


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_real_files_are_read(name):
    """URL, rows and rooms agree and every answer is right, or reading would raise."""
    puzzles = ppbench.read_jsonl(BENCHMARKS / "ppbench" / f"{name}.jsonl")
    assert len(puzzles) == FILES[name]
    for puzzle in puzzles[::7]:
        if max(puzzle.height, puzzle.width) <= 10:
            expected = PencilPuzzle(puzzle.pid, puzzle.problem, puzzle.answer, puzzle.walls)
            assert ppbench.decode(*tokens(puzzle)) == expected


def test_written_files_are_read(tmp_path):
    puzzles = [
        board("lightup", ". 2/- .", "# ./. #"),
        board("heyawake", "1 . ./. . .", "# + +/+ + +", "0 0 1/0 0 1"),
        board("sudoku", "1 . . ./. . . 2/. 1 . ./. . . .", "1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1"),
        board("shakashaka", ". . . 5/. . . .", "5 4 + ./2 3 + +"),
    ]
    named = [dataclasses.replace(p, name=p.pid, source="here", unique=False) for p in puzzles]
    right = [puzzle for puzzle in named if ppbench.is_solved(puzzle)]
    assert len(right) >= 3
    ppbench.write_jsonl(tmp_path / "puzzles.jsonl", right)
    assert ppbench.read_jsonl(tmp_path / "puzzles.jsonl") == right
    with pytest.raises(InputError, match="has none; leave it out"):
        ppbench.write_jsonl(tmp_path / "none.jsonl", [dataclasses.replace(named[0], answer=None)])
    assert not (tmp_path / "none.jsonl").exists()
    misplaced = board("heyawake", ". 1/. .", rooms="0 0/0 0")
    with pytest.raises(InputError, match="leftmost, then topmost"):
        ppbench.to_url(misplaced)
