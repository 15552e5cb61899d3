"""Files as people have them: which are read, as what, and what the refusal of others says."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import ptrm_jax.__main__ as ptrm_command
from ptrm_jax import DataError, metrics, puzzle_text, read_dataset
from ptrm_jax.errors import InputError
from ptrm_jax.tasks import arc, maze, sudoku

CASES = Path(__file__).parent / "data" / "cases"
FIRST = (CASES / "text" / "tdoku_comments.txt").read_text().splitlines()[2:]
"""The four Sudokus of most cases."""
ANSWERS = [line.split(",")[1] for line in (CASES / "csv" / "qa_only.csv").read_text().split()[1:]]
MAZE = (CASES / "text" / "maze_crlf.txt").read_text().strip("\n")


def boards(inputs: np.ndarray) -> list[str]:
    return [sudoku.decode(board) for board in inputs]


def read_text(tmp_path: Path, content: str | bytes) -> tuple[str, list[str]]:
    """Task and boards of a text file."""
    path = tmp_path / "puzzles.sdk"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    task, inputs = puzzle_text.read(str(path))
    return task.name, [task.decode(board) for board in inputs]


# --- CSV -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [path.name for path in sorted((CASES / "csv").iterdir())])
def test_columns_are_found_by_name(name: str) -> None:
    dataset = read_dataset(CASES / "csv" / name)
    assert dataset.task == "sudoku"
    assert boards(dataset.puzzles.inputs) == FIRST
    assert boards(dataset.labels) == ANSWERS
    assert ("rating" in dataset.strata) == (name in ("Upper.CSV", "reordered.csv"))


ROW = f"{FIRST[0]},{ANSWERS[0]}"


@pytest.mark.parametrize(
    "content",
    [
        f"puzzle,solution\n{ROW}\n",
        f" Puzzle , Solution \n{ROW}\n",
        f",quizzes,solutions\n0,{ROW}\n",  # an index, as pandas writes it
        f"id,puzzle,solution,clues,difficulty\n1,{ROW},24,2.2\n",
        f"question,answer,rating\n{ROW},\n",
        f"solution,puzzle\n{ANSWERS[0]},{FIRST[0]}\n",
        f'"question","answer"\n"{FIRST[0]}","{ANSWERS[0]}"\n',
        f"question,puzzles,answer\n{FIRST[0]},7,{ANSWERS[0]}\n",  # its own name is preferred
        f"{ROW}\n",  # no header, but two boards
        f"3,{ROW},1.5\n",
        f"\ufeffquizzes,solutions\n{ROW}\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_names_order_and_encodings_of_columns(tmp_path: Path, content: str, encoding: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content.lstrip("\ufeff") if encoding == "utf-16" else content, encoding)
    inputs, labels, ratings, sources = sudoku.read_csv(path)
    assert (boards(inputs), boards(labels), sources) == ([FIRST[0]], [ANSWERS[0]], [""])
    rated = "difficulty" in content
    assert ratings.tolist() == [2.2 if rated else -1.0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,2\n", ":1: .*must begin with the columns question and answer.*header is 'a,b'"),
        (f"puzzle,quiz,answer\n{FIRST[0]},{ROW}\n", ":1: .*puzzle and quiz could be; rename"),
        (f"{ROW},{ANSWERS[0]}\n", ":1: .*must begin with the columns"),  # three boards
        (f"quizzes,solutions\n{ROW},1\n", ":2: .*must have 2 fields, as the first; it has 3"),
        (f"quizzes,solutions\n{ANSWERS[0]},{FIRST[0]}\n", ":2: .*must keep the clues"),
    ],
)
def test_columns_that_leave_doubt_are_refused(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=f"mine.csv{says}"):
        read_dataset(path)


# --- Text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "task", "expected"),
    [
        ("17.sdm", "sudoku", FIRST),
        ("bom_lines.txt", "sudoku", FIRST[:2]),
        ("tdoku_comments.txt", "sudoku", FIRST),
        ("nine_lines.txt", "sudoku", FIRST[:1]),
        ("maze_rows.txt", "maze", [MAZE]),
        ("maze_lower.txt", "maze", [MAZE]),
        ("maze_crlf.txt", "maze", [MAZE]),
    ],
)
def test_texts_of_puzzles(name: str, task: str, expected: list[str]) -> None:
    found, inputs = puzzle_text.read(str(CASES / "text" / name))
    assert (found.name, [found.decode(board) for board in inputs]) == (task, expected)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("third_line_bad.txt", "third_line_bad.txt:3: .*'x' at column 6"),
        ("no_solution.txt", "no_solution.txt:1: clues must not repeat a digit.*r1c5 and in r5c5"),
        ("absent.txt", "^no such file: .*absent.txt"),
        (".", "must be a file of puzzles; it is a folder"),
    ],
)
def test_refused_texts_name_file_and_line(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        puzzle_text.read(str(CASES / "text" / name))


def rows(board: str, between: str = "") -> str:
    return "\n".join(between.join(board[i : i + 9]) for i in range(0, 81, 9))


DRAWN = sudoku.draw(sudoku.encode(FIRST[0]))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"#ASomeone\n#DEasy\n[Puzzle]\n{rows(FIRST[0])}\n[State]\n{rows(ANSWERS[0])}\n", 1),
        (rows(FIRST[0], " "), 1),
        (DRAWN, 1),
        (DRAWN.replace("+", "*").replace("-", "="), 1),
        (f"{rows(FIRST[0])}\n\n{rows(FIRST[1])}\n", 2),
        (f"{rows(FIRST[0])}\n{FIRST[1]}\n", 2),
        (rows(FIRST[0])[:29] + "\n\n" + rows(FIRST[0])[30:], 1),  # gaps between the boxes
        ("".join(f"{i} {board} 9.{i}\n" for i, board in enumerate(FIRST)), 4),
        ("".join(f"name_{i},{board},{i}\n" for i, board in enumerate(FIRST)), 4),
        ("".join(map("{} {}\n".format, FIRST, ANSWERS)), 4),  # a solution beside each
        ("".join(map("{1};{0}\n".format, FIRST, ANSWERS)), 4),
        (f"{FIRST[0]} # the first\n; none\n// none\n{FIRST[1]}\n", 2),
        ("\n".join(FIRST).encode("utf-16"), 4),
        ("\r\n".join(FIRST), 4),
    ],
)
def test_ways_to_write_sudokus(tmp_path: Path, content: str | bytes, expected: int) -> None:
    assert read_text(tmp_path, content) == ("sudoku", FIRST[:expected])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"# one\n{FIRST[0]}\n{FIRST[1][:-1]}\n", ":3: .*text has 80"),
        (f"{FIRST[0]}\n{rows(FIRST[1])[:-10]}\n", ":2: .*text has 72"),  # a row is missing
        (f"{rows(FIRST[0])[:-10]}\n{FIRST[1]}\n", ":1: .*text has 72"),
        (f"{FIRST[0]}\n{'.' * 36}\n", ":2: .*this one has 36 cells, the first 81; use one file"),
        (f"{FIRST[0]}\n7{FIRST[1][1:]}\n", ":2: clues must not repeat"),
        ("# nothing\n", "it has only comments"),
        (b"\xff\xff\xff", "is not text in UTF-8"),
    ],
)
def test_malformed_sudokus_are_named_by_line(
    tmp_path: Path, content: str | bytes, says: str
) -> None:
    with pytest.raises(InputError, match=f"puzzles.sdk.*{says}"):
        read_text(tmp_path, content)


SQUARE = "\n".join(MAZE[i : i + 11] for i in range(0, 121, 11))


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (MAZE, 1),
        (SQUARE, 1),
        (f"{SQUARE}\n\n{SQUARE}\n", 2),
        (f"{SQUARE}\n{SQUARE}\n", 2),
        (f"{MAZE}\n{MAZE}\n", 2),
        (SQUARE.replace("G", "E"), 1),
        (SQUARE.replace("S", "s").replace("G", "e"), 1),
        (SQUARE.replace("S", "A").replace("G", "B"), 1),
        (SQUARE.replace(" ", "."), 1),
        (SQUARE.replace("#", "\u2588").replace(" ", "_"), 1),
    ],
)
def test_ways_to_write_mazes(tmp_path: Path, content: str, count: int) -> None:
    assert read_text(tmp_path, content) == ("maze", [MAZE] * count)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (SQUARE.replace("S", "P").replace("G", "Q"), ":1: .*characters '# SGo'"),  # which is which?
        (SQUARE.replace("S", "s").replace("G", "q"), ":1: .*characters '# SGo'"),
        (SQUARE.replace(" ", ".", 1), ":1: .*'.' at line 2"),  # both kinds of free cell
        (f"{SQUARE[:-2]}\n", ":1: .*lines of one length"),
        (f"{SQUARE}\n\n{SQUARE.replace('G', ' ')}\n", ":13: .*0 G"),
    ],
)
def test_mazes_that_leave_doubt_are_refused(tmp_path: Path, content: str, says: str) -> None:
    with pytest.raises(InputError, match=f"puzzles.sdk{says}"):
        read_text(tmp_path, content)


def test_a_board_may_be_an_argument_of_several_lines() -> None:
    assert boards(puzzle_text.read(rows(FIRST[0]))[1]) == FIRST[:1]
    assert boards(puzzle_text.read(DRAWN)[1]) == FIRST[:1]
    assert maze.decode(puzzle_text.read(SQUARE)[1][0]) == MAZE


def test_a_linked_sudoku_is_solved_by_the_bundled_model() -> None:
    """And by a model of PPBench if that is asked for."""
    url = "https://puzz.link/p?sudoku/9/9/" + "g" * 80 + "5"
    task, inputs = puzzle_text.read(url)
    assert task.name == "sudoku" and boards(inputs) == ["." * 80 + "5"]
    loaded = ptrm_command.Solve(url).load()
    assert (loaded.checkpoint, loaded.task.name) == ("sudoku9", "sudoku")
    assert puzzle_text.read(url, num_cells=100)[0].name == "ppbench"


@pytest.mark.parametrize(
    ("address", "checkpoint", "loaded"),
    [
        ("sudoku/4/4/1l2m3", None, ("pencil6", "ppbench")),  # no model has Sudokus of 4x4 alone
        ("sudoku/6/6/zg5", None, ("sudoku6", "sudoku")),
        ("sudoku/6/6/zg5", "pencil6", ("pencil6", "ppbench")),  # whose boards have 36 cells, too
        ("akari/4/4/i.i2g2h", None, ("pencil6", "ppbench")),
    ],
)
def test_linked_small_puzzles_go_to_a_model_that_reads_them(
    address: str, checkpoint: str | None, loaded: tuple[str, str]
) -> None:
    found = ptrm_command.Solve("https://puzz.link/p?" + address, checkpoint).load()
    assert (found.checkpoint, found.task.name) == loaded
    assert found.puzzles.inputs.shape == (1, 36)
    assert found.puzzles.inputs.max() < found.model.config.vocab_size


# --- Addresses of pzpr ---------------------------------------------------------------------------

BODY = "g" * 80 + "5"


@pytest.mark.parametrize(
    "address",
    [
        f"https://puzz.link/p?sudoku/9/9/{BODY}",
        f"http://pzv.jp/p.html?sudoku/9/9/{BODY}/",
        f"https://pzprxs.vercel.app/p?sudoku_edit/9/9/{BODY}",
        f"https://puzz.link/p?sudoku_play/9/9/{BODY}",
        f"https://puzz.link/p?sudoku/d/9/9/{BODY}",
        f"puzz.link/p?sudoku/9/9/{BODY}",
    ],
)
def test_hosts_and_forms_of_addresses(tmp_path: Path, address: str) -> None:
    assert read_text(tmp_path, f"\ufeff{address}\n")[1] == ["." * 80 + "5"]
    assert boards(puzzle_text.read(address)[1]) == ["." * 80 + "5"]


def test_json_lines_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    row = {"pid": "nurikabe", "width": 10, "height": 10, "id": "one", "source": "", "unique": True}
    row |= {"problem": ["- . . . . . . . . ."] + [". . . . . . . . . ."] * 9}
    row |= {"answer": [". + + + + + + + + +"] + ["+ + + + + + + + + +"] * 9}
    row["puzzlink_url"] = "https://puzz.link/p?nurikabe/10/10/."
    path = tmp_path / "mine.JSONL"
    path.write_text("\ufeff" + json.dumps(row))
    dataset = read_dataset(path)
    assert (dataset.task, len(dataset)) == ("ppbench", 1)


# --- ARC-AGI -------------------------------------------------------------------------------------


def test_tasks_in_files_of_their_own() -> None:
    """As ARC-AGI's repositories have them, in `data/<subset>`, without the outputs to find."""
    found = arc.read_challenges(CASES / "arc" / "github", ["training", "evaluation"])
    assert [(c.name, c.subset) for c in found] == [("bb", "training"), ("aa", "evaluation")]
    assert [pair.output for c in found for pair in c.test] == [None, None]
    with pytest.raises(InputError, match=r"or a folder of tasks; .* has evaluation/, training/"):
        arc.read_challenges(CASES / "arc" / "github", ["evaluation2"])


def test_an_output_may_be_null() -> None:
    (found,) = arc.read_challenges(CASES / "arc" / "null_output", ["evaluation"])
    assert found.test[0].output is None and found.train[0].output is not None


TASK = {"train": [{"input": [[1]], "output": [[2]]}], "test": [{"input": [[3]], "output": [[4]]}]}


def test_other_layouts_keys_and_marks(tmp_path: Path) -> None:
    """ConceptARC's folders, solutions that are null, keys of others, byte order marks."""
    for concept in ("Above", "Below"):
        (tmp_path / "corpus" / concept).mkdir(parents=True)
        for number in (1, 2):
            path = tmp_path / "corpus" / concept / f"{concept}{number}.json"
            test = [TASK["test"][0] | {"note": "x"}]
            path.write_text(json.dumps(TASK | {"name": "x", "test": test}))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "cc.json").write_text("\ufeff" + json.dumps(TASK))
    path = tmp_path / "arc-agi_test_challenges.json"
    path.write_text("\ufeff" + json.dumps({"dd": TASK}), "utf-8")
    (tmp_path / "arc-agi_test_solutions.json").write_text('{"dd": [null]}')
    found = arc.read_challenges(tmp_path, ["concept", "evaluation", "test"])
    assert [c.name for c in found] == ["Above1", "Above2", "Below1", "Below2", "cc", "dd"]
    assert {c.test[0].output.item() for c in found if c.test[0].output is not None} == {4}

    (tmp_path / "corpus" / "Below" / "Above1.json").write_text(json.dumps(TASK))
    with pytest.raises(InputError, match="task Above1 is in another folder too"):
        arc.read_challenges(tmp_path, ["concept"])
    (tmp_path / "evaluation" / "cc.json").write_text('{"train": []}')
    with pytest.raises(InputError, match=r"cc\.json: task cc: .*correct the file"):
        arc.read_challenges(tmp_path, ["evaluation"])


# --- Folders in upstream's layout ----------------------------------------------------------------


def test_labels_of_minus_100_are_ignored() -> None:
    """As upstream ignores them, whatever `ignore_label_id` is."""
    dataset = read_dataset(CASES / "data" / "minus100_labels")
    assert dataset.ignore_label == -100 and len(dataset) == 4
    assert (dataset.labels == -100).any(axis=1).all() and dataset.labels.dtype == np.int32
    mask = metrics.token_mask(dataset.labels, dataset.ignore_label)
    answers = np.where(mask, dataset.labels, 0)
    assert metrics.exact(answers, dataset.labels, ignore_label=dataset.ignore_label).all()


@pytest.mark.parametrize(("ignored", "expected"), [(0, 0), (None, -100), (5, 5)])
def test_minus_100_beside_another_ignored_label(
    tmp_path: Path, ignored: int | None, expected: int
) -> None:
    folder = shutil.copytree(CASES / "data" / "minus100_labels", tmp_path / "data")
    path = folder / "test" / "dataset.json"
    path.write_text(
        "\ufeff" + json.dumps(json.loads(path.read_text()) | {"ignore_label_id": ignored})
    )
    labels = np.load(folder / "test" / "all__labels.npy")
    dataset = read_dataset(folder)
    assert dataset.ignore_label == expected
    ignores = (labels == -100) | (labels == ignored)
    np.testing.assert_array_equal(dataset.labels == expected, ignores)
    np.save(folder / "test" / "all__labels.npy", np.where(labels == -100, -99, labels))
    with pytest.raises(DataError, match=r"labels must lie in 0\.\.7"):
        read_dataset(folder)
