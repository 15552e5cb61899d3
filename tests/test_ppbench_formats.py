"""PPBench's records, URLs, pzprv3 text and JSON lines."""

import base64
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import formats
from ptrm_jax.tasks.ppbench.records import TYPES, Record, rooms_of, rooms_to_walls, tapa_clue

BENCHMARKS = Path(
    os.environ.get("PTRM_BENCHMARKS", Path(__file__).parents[2] / "shared" / "benchmarks")
)
FILES = {"janko_dev": 544, "golden_other_sizes": 29, "misc_samples": 33}
needs_data = pytest.mark.skipif(
    not (BENCHMARKS / "ppbench").is_dir(),
    reason="needs ppbench/ in PTRM_BENCHMARKS or ../shared/benchmarks",
)


def rows(text: str) -> tuple[tuple[str, ...], ...]:
    """Rows between slashes, cells between spaces."""
    return tuple(tuple(row.split()) for row in text.split("/"))


def random_record(pid: str, rng: np.random.Generator) -> Record:
    """Any givens and answers that the form allows, with no regard to the rules."""
    height, width = (9, 9) if pid == "sudoku" else rng.integers(1, 13, 2).tolist()
    givens = {
        "sudoku": "123456789",
        "lightup": "-01234",
        "nurikabe": ["-", "1", "2", "15", "16", "255", "256", "999"],
        "heyawake": ["0", "3", "15", "16", "300"],
        "tapa": ppbench.records.tapa_clues(),
        "shakashaka": "501234",
    }[pid]
    share = rng.choice([0.02, 0.3, 0.7])
    problem = np.full((height, width), ".", dtype=object)
    walls = None
    if pid == "heyawake":
        walls = rooms_to_walls(np.cumsum(rng.random((height, width)) < 0.4, axis=1).tolist())
        rooms = rooms_of(np.array(walls))
        for room in range(rooms.max() + 1):
            if rng.random() < share:
                column, row = np.argwhere(rooms.T == room)[0]
                problem[row, column] = str(rng.choice(list(givens)))
    else:
        for cell in itertools.product(range(height), range(width)):
            if rng.random() < share:
                problem[cell] = str(rng.choice(list(givens)))
    record = Record(pid, tuple(map(tuple, problem)), walls=walls)
    answer = np.full((height, width), ".", dtype=object)
    for cell in record.open_cells:
        symbols = ppbench.records.STATES[pid][1:]
        answer[divmod(cell, width)] = str(rng.choice(list(symbols)))
    return replace(record, answer=tuple(map(tuple, answer)))


# Records


def test_runs_of_tapa_are_put_in_order():
    assert [tapa_clue(runs) for runs in ("2,1,2", "-,3,-", "-", "1")] == [
        "1,2,2",
        "3,-,-",
        "-",
        "1",
    ]
    record = Record("tapa", rows("2,1 . ./. . ./. . -,1"))
    assert record.problem == rows("1,2 . ./. . ./. . 1,-")


def test_givens_of_sudoku_may_be_left_out_of_the_answer():
    problem = rows("1 . . ./. . . ./. . . ./. . . .")
    answer = rows(". 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1")
    assert Record("sudoku", problem, answer).answer[0] == ("1", "2", "3", "4")


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
        (("yajilin", rows(". .")), "pid is 'yajilin'"),
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
def test_what_is_no_puzzle_in_form_is_refused(arguments, says):
    with pytest.raises(ValueError, match=says):
        Record(*arguments)


# URLs and text


@pytest.mark.parametrize("pid", TYPES)
def test_urls_and_texts_go_there_and_back(pid):
    rng = np.random.default_rng(3)
    for _ in range(40):
        record = random_record(pid, rng)
        back = ppbench.from_url(ppbench.to_url(record))
        assert (back.pid, back.problem, back.walls) == (pid, record.problem, record.walls)
        assert ppbench.from_pzprv3(ppbench.to_pzprv3(record)) == record
        unsolved = replace(record, answer=None)
        if record.open_cells:
            assert ppbench.from_pzprv3(ppbench.to_pzprv3(unsolved)) == unsolved


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


@pytest.mark.parametrize(
    ("pid", "problem", "body"),
    [
        # A number takes up to two empty cells behind it, and those beyond the board.
        ("lightup", ". 2 . 3 . . . 4 -", "g7dg4."),
        ("lightup", ". . 2", "hc"),
        ("shakashaka", "5 5 1", "..b"),
        ("nurikabe", "- 9 . 10 16 256" + " ." * 21, ".9ga-10+100zg"),
        ("tapa", "2,1 . - 1,1,1,1", "a8g.9"),  # 360 + 1 * 6 + 2 is 10 * 36 + 8
    ],
)
def test_urls_are_written_as_pzpr_writes_them(pid, problem, body):
    assert ppbench.to_url(Record(pid, rows(problem))).split("/")[-1] == body


def test_walls_of_a_url_by_hand():
    """Walls right of the cells, 2x2 in five bits, then those below; the rooms' numbers follow."""
    record = ppbench.from_url("https://puzz.link/p?heyawake/3/2/9o2g")
    # 0100 puts a wall behind the second cell of the first row, 110 walls below its first two cells.
    assert record.walls == ((13, 7, 11), (13, 5, 6))
    assert record.problem == rows("2 . ./. . .")
    assert ppbench.to_url(record).endswith("/3/2/8o2g")


def test_walls_that_end_inside_a_room_survive_in_urls_only():
    record = ppbench.from_url("https://puzz.link/p?heyawake/2/2/g03")
    assert record.walls == ((11, 11), (12, 6))
    assert record.problem == rows("3 ./. .")
    assert ppbench.from_url(ppbench.to_url(record)) == record
    with pytest.raises(ValueError, match="ends inside a room"):
        ppbench.to_pzprv3(record)


def test_numbers_of_rooms_are_written_for_their_rooms():
    """After a turn the number stands elsewhere in its room than pzpr puts it."""
    walls = rooms_to_walls([[0, 0], [1, 1]])
    record = Record("heyawake", rows(". 1/. ."), rows("+ #/+ +"), walls)
    assert ppbench.from_url(ppbench.to_url(record)).problem == rows("1 ./. .")
    assert ppbench.from_pzprv3(ppbench.to_pzprv3(record)).problem == rows("1 ./. .")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ppbench.from_url("https://puzz.link/"), "must end in"),
        (lambda: ppbench.from_url("https://puzz.link/p?yajilin/8/8/zz"), "one of sudoku"),
        (lambda: ppbench.from_url("https://puzz.link/p?tapa/0/8/zz"), "must end in"),
        (lambda: ppbench.from_url("?lightup/2/1/..."), "at most 2 cells; it describes 3"),
        (lambda: ppbench.from_url("?lightup/2/1/g!"), r"lightup/2/1/g!: .* '!' out of place"),
        (lambda: ppbench.from_url("?nurikabe/2/1/-g"), "'-' out of place"),
        (lambda: ppbench.from_url("?tapa/2/1/f"), "'f' out of place"),
        (lambda: ppbench.from_url("?tapa/2/1/d8"), "'d' out of place"),
        (lambda: ppbench.from_url("?heyawake/2/2/g"), "must take 2 characters"),
        (lambda: ppbench.from_url("?heyawake/2/2/gz"), "must take 2 characters"),
        (lambda: ppbench.from_pzprv3("pzprv3/tapa"), "must begin with"),
        (lambda: ppbench.from_pzprv3("pzprv3\nyajilin\n1\n1\n."), "one of sudoku"),
        (lambda: ppbench.from_pzprv3("pzprv3\ntapa\n2\n2\n. ."), "names 2x2 and has 1 rows"),
        (lambda: ppbench.from_pzprv3("pzprv3\ntapa\nx\n2\n. ."), "names 0x2"),
    ],
)
def test_what_is_no_url_or_text_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()


# JSON lines

LIGHTUP = {
    "id": "one",
    "pid": "lightup",
    "width": 3,
    "height": 1,
    "puzzlink_url": "https://puzz.link/p?akari/3/1/g.",
    "problem": [". - ."],
    "answer": ["# . #"],
    "unique": True,
    "source": "by hand",
}
HEYAWAKE = {
    "id": "two",
    "pid": "heyawake",
    "width": 2,
    "height": 2,
    "puzzlink_url": "https://puzz.link/p?heyawake/2/2/0o1",
    "problem": ["1 .", ". ."],
    "rooms": ["0 0", "1 1"],
    "answer": ["# +", "+ +"],
    "unique": None,
    "source": "by hand",
}


def encoded(row: dict, moves: list[str]) -> dict:
    text = json.dumps({"moves_full": moves}).encode()
    mixed = bytes(a ^ b for a, b in zip(text, itertools.cycle(b"ppbench"), strict=False))
    keys = ("pid", "width", "height", "puzzlink_url")
    return {key: row[key] for key in keys} | {"solution_enc": base64.b64encode(mixed).decode()}


def written(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_lines_are_read(tmp_path):
    one, two = ppbench.read_jsonl(written(tmp_path / "a.jsonl", LIGHTUP, HEYAWAKE))
    assert (one.name, one.source, one.unique, two.unique) == ("one", "by hand", True, None)
    assert one.answer == rows("# . #")
    assert two.walls == ROOMS


def test_ppbenchs_own_lines_are_read(tmp_path):
    sudoku = {"pid": "sudoku", "width": 4, "height": 4}
    sudoku["puzzlink_url"] = "https://puzz.link/p?sudoku/4/4/g23434122143432g"
    shakashaka = {"pid": "shakashaka", "width": 2, "height": 2}
    shakashaka["puzzlink_url"] = "https://puzz.link/p?shakashaka/2/2/j"
    moves = ["mouse,left,3.5,0.5", "mouse,left,0.5,0.5", "mouse,left,3.5,3.5", "mouse,left,0.5,3.5"]
    path = written(
        tmp_path / "a.jsonl",
        encoded(LIGHTUP, ["mouse,left,5,1", "mouse,left,1,1"]),
        {"pid": "yajilin", "puzzlink_url": "?"},
        encoded(sudoku, ["mouse,left,7,7;key,1", "mouse,left,1,1;key,1"]),
        encoded(shakashaka, moves),
        {key: value for key, value in encoded(HEYAWAKE, []).items() if key != "solution_enc"},
        encoded(
            HEYAWAKE,
            [
                f"mouse,{b},{x},{y}"
                for b, x, y in zip(
                    ("right", "right", "right", "left"), (3, 1, 3, 1), (1, 3, 3, 1), strict=True
                )
            ],
        ),
    )
    lightup, digits, triangles, unsolved, heyawake = ppbench.read_full(path)
    assert lightup.moves == ((2, "#"), (0, "#"))
    assert digits.answer[0] == ("1", "2", "3", "4") and digits.answer[3][3] == "1"
    assert triangles.answer == rows("5 4/2 3")
    assert unsolved.answer is unsolved.moves is None
    assert heyawake.moves[-1] == (0, "#")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ([], "must be a JSON object"),
        (LIGHTUP | {"answer": ["+ . #"]}, "must satisfy the rules of lightup; that of one"),
        (LIGHTUP | {"answer": ["# . ."]}, "must decide every cell"),
        (LIGHTUP | {"problem": [". . ."], "answer": ["# + +"]}, "must agree; the URL gives"),
        (LIGHTUP | {"width": 4}, "must agree"),
        (LIGHTUP | {"pid": "shakashaka", "problem": [". 5 ."], "answer": ["2 . 3"]}, "must agree"),
        ({key: value for key, value in LIGHTUP.items() if key != "source"}, "the key 'source'"),
        (LIGHTUP | {"problem": 3}, "lists of rows as documented; .*'int' object"),
        (LIGHTUP | {"problem": [3]}, "lists of rows as documented; .*'int' object"),
        (HEYAWAKE | {"rooms": ["0 1", "0 1"]}, "rooms must be those"),
        (HEYAWAKE | {"rooms": ["0 0", "0 0"]}, "rooms must be those"),
        (HEYAWAKE | {"rooms": ["0 2", "1 1"]}, "rooms must be those"),
    ],
)
def test_wrong_lines_are_named(tmp_path, line, says):
    path = written(tmp_path / "a.jsonl", LIGHTUP, line)
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{says}"):
        ppbench.read_jsonl(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (encoded(LIGHTUP, ["mouse,left,1,1", "mouse,right,5,1"]), "must satisfy the rules"),
        (encoded(LIGHTUP, ["mouse,left,1,1"]), "must decide every cell"),
        (encoded(LIGHTUP, ["mouse,leftx2,1,1"]), "must be one click"),
        (encoded(LIGHTUP, ["mouse,left,1,1;key,1"]), "must be one click"),
        (encoded(LIGHTUP, ["mouse,left,7,1"]), "must stay on the board"),
        (encoded(LIGHTUP, ["mouse,left,1,1", "mouse,left,3,1", "mouse,left,5,1"]), "decide every"),
        (encoded(LIGHTUP, []) | {"solution_enc": "AAAA"}, "must be base64 of JSON"),
        (encoded(LIGHTUP, []) | {"solution_enc": "A!"}, "must be base64 of JSON"),
        (encoded(LIGHTUP, []) | {"height": 2}, "must agree"),
    ],
)
def test_wrong_lines_of_ppbench_are_named(tmp_path, line, says):
    path = written(tmp_path / "a.jsonl", line)
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: .*{says}"):
        ppbench.read_full(path)


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("\n{")
    with pytest.raises(ValueError, match=r"a\.jsonl:2: a line must be JSON"):
        ppbench.read_full(path)
    path.write_bytes(b"\xff\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:1: a puzzle file must be UTF-8"):
        ppbench.read_full(path)


def test_the_golden_set_needs_its_package(monkeypatch):
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install ppbench"):
        ppbench.read_golden()


def test_the_papers_filter():
    sizes = [("tapa", 10, 10), ("tapa", 9, 10), ("tapa", 9, 9), ("sudoku", 9, 9), ("sudoku", 6, 6)]
    records = [Record(pid, (((".",) * width),) * height) for pid, height, width in sizes]
    assert ppbench.paper_filter(records) == [records[0], records[3]]


# Real puzzles


@needs_data
@pytest.mark.parametrize("name", FILES)
def test_real_files_are_read(name):
    """URL, rows and rooms agree and every answer is right, or reading would raise."""
    records = ppbench.read_jsonl(BENCHMARKS / "ppbench" / f"{name}.jsonl")
    assert len(records) == FILES[name]
    for record in records[::7]:
        back = ppbench.from_url(ppbench.to_url(record))
        assert (back.problem, back.walls) == (record.problem, record.walls)
        if max(record.height, record.width) <= 10:
            back = ppbench.decode(ppbench.encode_problem(record), ppbench.encode_answer(record))
            assert back == Record(record.pid, record.problem, record.answer, record.walls)
