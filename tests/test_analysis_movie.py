"""Trajectories to watch: what cells are, what is shown of whom, the GIF, the page, the text."""

import html
import io
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from ptrm_jax import load, make_puzzles, read_dataset, solve, tasks
from ptrm_jax.analysis import movie
from ptrm_jax.analysis.exhibit import NothingToShow
from ptrm_jax.analysis.movie import GIVEN, OPEN, RIGHT, UNUSED, WRONG, Film
from ptrm_jax.analysis.study import Study
from ptrm_jax.sweep import Record
from ptrm_jax.tasks import maze, ppbench, sudoku
from ptrm_jax.tasks.ppbench.vocabulary import encode_answer, encode_problem

PUZZLE = sudoku.encode("1... ..3. .4.. ...2")
LABEL = sudoku.encode("1324 4231 2413 3142")


def small_film(**changes: object) -> Film:
    """Two steps of a 4x4 Sudoku; step 1 has a wrong cell, a clue overwritten and two doubts."""
    answers = np.stack([sudoku.encode("1324 4232 2313 3142"), LABEL])
    confidence = np.full((2, 16), 0.95)
    confidence[0, [1, 7]] = 0.4
    q_logit = np.array([-1.5, 2.5], np.float32)
    known = {"label": LABEL, "ignore_label": 0, **changes}
    return movie.film(tasks.load("sudoku"), PUZZLE, answers, confidence, q_logit, **known)


def test_cells_by_hand() -> None:
    shown = small_film()
    expected = np.full((2, 16), RIGHT)
    expected[:, [0, 6, 9, 15]] = GIVEN
    expected[0, 7] = expected[0, 9] = WRONG  # a 2 for 1, and the given 4 lost
    np.testing.assert_array_equal(shown.kind, expected)
    assert shown.width == 4 and "".join(shown.symbols[0]) == "1324423223133142"

    # Without a label only clues tell right from wrong.
    expected = np.where(expected == RIGHT, OPEN, expected)
    expected[0, 7] = OPEN
    np.testing.assert_array_equal(small_film(label=None).kind, expected)


def test_cells_that_do_not_count() -> None:
    label = LABEL.copy()
    label[:2] = 0
    kind = small_film(label=label).kind
    assert (kind[:, :2] == UNUSED).all() and (kind[:, 2:] != UNUSED).all()
    puzzle = np.array([0, 3, 2])
    arrays = (np.array([[1, 3, 3]]), np.ones((1, 3)), np.zeros(1))
    shown = movie.film(None, puzzle, *arrays)  # no task: nothing is given, tokens are numbers
    assert shown.kind.tolist() == [[UNUSED, OPEN, OPEN]]
    assert shown.symbols == [["1", "3", "3"]] and shown.width == 2


def test_margins_are_left_out() -> None:
    """A puzzle of 2x3 cells with a hole in it, somewhere on a board of 4x4."""
    puzzle = np.array([[0, 0, 0, 0], [0, 2, 3, 4], [0, 5, 0, 6], [0, 0, 0, 0]]).ravel()
    sure = np.arange(16.0)[None] / 16
    shown = movie.film(None, puzzle, puzzle[None], sure, np.zeros(1))
    assert shown.width == 3 and shown.symbols == [["2", "3", "4", "5", "0", "6"]]
    assert shown.kind.tolist() == [[OPEN, OPEN, OPEN, OPEN, UNUSED, OPEN]]
    np.testing.assert_array_equal(16 * shown.confidence, [[5, 6, 7, 9, 10, 11]])
    # Three rows of four do not fill up with eleven cells.
    shown = movie.film(None, np.ones(11, int), np.ones((1, 11), int), sure[:, :11], np.zeros(1))
    assert shown.width == 4 and len(shown.symbols[0]) == 11
    movie.still({"x": shown}, "")


def test_mazes_and_pads_know_what_is_given() -> None:
    task = tasks.load("maze")
    inputs, labels = (maze.encode(text) for text in ("S #  # G#", "So# o# G#"))
    assert task.symbols(labels) == ["S", "o", "#", "", "o", "#", "", "G", "#"]
    assert task.given(inputs).tolist() == [char != " " for char in "S #  # G#"]
    answers = np.stack([labels, inputs])
    shown = movie.film(task, inputs, answers, np.ones((2, 9)), np.zeros(2), labels, ignore_label=0)
    assert shown.kind.tolist() == [
        [GIVEN, RIGHT, GIVEN, RIGHT, RIGHT, GIVEN, RIGHT, GIVEN, GIVEN],
        [GIVEN, WRONG, GIVEN, RIGHT, WRONG, GIVEN, RIGHT, GIVEN, GIVEN],
    ]


def test_ppbench_cells() -> None:
    """Givens of a type that takes no answers there, and of one whose numbers are shaded too."""
    task = tasks.load("ppbench")
    nurikabe = ppbench.PencilPuzzle("nurikabe", ("2.", ".."), (".+", "##"))
    heyawake = ppbench.PencilPuzzle("heyawake", ("1.", ".."), ("#+", "++"), ((9, 3), (12, 6)))
    for record, given, symbols in (
        (nurikabe, [True, False, False, False], ["2", "+", "#", "#"]),
        (heyawake, [False] * 4, ["1#", "+", "+", "+"]),
    ):
        inputs, label = encode_problem(record), encode_answer(record)
        board = [0, 1, 10, 11]
        assert task.given(inputs)[board].tolist() == given
        assert task.given(inputs).sum() == sum(given)  # pads are no clues
        assert [task.symbols(label)[cell] for cell in board] == symbols
        shown = movie.film(
            *(task, inputs, np.stack([label]), np.ones((1, 100)), np.zeros(1), label),
            ignore_label=ppbench.vocabulary.PAD,
        )
        assert shown.width == 2 and shown.symbols == [symbols]
        assert (shown.kind == [np.where(given, GIVEN, RIGHT)]).all()
    foreign = np.full(100, 10**6)
    assert task.symbols(foreign) == ["?"] * 100
    sudokus = encode_problem(ppbench.PencilPuzzle("sudoku", ("1...", "....", "....", "....")))
    assert np.flatnonzero(task.given(sudokus)).tolist() == [0]


def test_every_bundled_puzzle_keeps_what_is_given() -> None:
    for name in ("sudoku6", "maze11"):
        data = read_dataset(name)
        given = tasks.load(data.task).given(data.puzzles.inputs)
        assert (data.labels == data.puzzles.inputs)[given].all()
        assert 0 < given.mean() < 1


def test_confidence_is_the_softmax_of_the_answer() -> None:
    model, params = load("sudoku6")
    y = np.random.default_rng(0).normal(size=(2, 3, 37, 64)).astype(np.float32)
    got = movie.confidence(model, params, y)
    assert got.shape == (2, 3, 36) and got.dtype == np.float32
    for place in np.ndindex(2, 3):
        weights = np.exp(y[place][1:] @ np.asarray(params["lm_head"]["kernel"], np.float64))
        answer = weights.argmax(axis=-1)
        expected = weights[np.arange(36), answer] / weights.sum(axis=-1)
        np.testing.assert_allclose(got[place], expected, rtol=1e-4)


def record(correct: list, q: list, answer: list, cells: list) -> Record:
    """Of rollouts [B, K] after one step; or of two steps, the first of them never right."""
    fields = (np.array(correct, bool), np.array(cells, np.float32), np.array(q, np.float32))
    right, cells_right, q_logit = (x[:, :, None] for x in fields)
    finite, digest = np.isfinite(q_logit), np.array(answer, np.uint64)[:, :, None]
    return Record(right, cells_right, q_logit, finite, right, digest.astype(np.int32), digest)


def test_choice_is_the_escape_that_takes_longest() -> None:
    quiet = record([[0], [0], [1], [0]], [[0]] * 4, [[1]] * 4, [[0.5], [0.6], [1], [0.7]])
    noisy = record(
        [[0, 1], [1, 0], [1, 1], [0, 1]],
        [[5, 1], [3, 2], [1, 0], [np.nan, 2]],  # of puzzle 3, rollout 0 is not finite
        [[2, 3], [3, 1], [1, 1], [2, 3]],
        [[0.1, 1], [1, 0.2], [1, 1], [0.9, 1]],
    )
    chosen = movie.choose(quiet, noisy)
    assert chosen.escapes.tolist() == [False, True, False, True]
    assert chosen[:2] == (1, 0)  # both at step 1: the first
    # Wrong before the last step: puzzle 1 is solved at step 1, puzzle 3 at step 2.
    early = noisy._replace(correct=np.array([[[0], [1]], [[1], [0]], [[1], [1]], [[0], [0]]], bool))

    def two(first: Record, second: Record) -> Record:
        return Record(*(np.concatenate(x, axis=2) for x in zip(first, second, strict=True)))

    assert movie.choose(two(quiet, quiet), two(early, noisy))[:2] == (3, 1)


def test_choice_without_an_escape() -> None:
    quiet = record([[0], [1], [0]], [[0]] * 3, [[1]] * 3, [[0.5], [1], [0.5]])
    noisy = record(
        [[0, 1], [0, 1], [0, 0]], [[5, 1]] * 3, [[2, 3]] * 3, [[0.6, 1], [0.8, 1], [0.4, 0.9]]
    )
    chosen = movie.choose(quiet, noisy)
    assert chosen[:2] == (1, 0) and not chosen.escapes.any()  # 0.2 apart; the others 0.1
    same = noisy._replace(answer=np.ones_like(noisy.answer))
    broken = noisy._replace(finite=np.zeros_like(noisy.finite))
    for nothing in (same, broken):
        with pytest.raises(NothingToShow, match="ends with the answer of TRM"):
            movie.choose(quiet, nothing)


def test_text_of_two_steps() -> None:
    shown = small_film()
    assert movie.text(shown, 1).plain == "1 3?2 4 \n4 2 3 2x\n2 3x1 3 \n3 1 4 2 "
    assert movie.text(shown, 2).plain == "1 3 2 4 \n4 2 3 1 \n2 4 1 3 \n3 1 4 2 "
    # What colours say, other means say too: wrong is underlined, given is bold.
    styles = {str(span.style) for span in movie.text(shown, 1).spans}
    assert any("underline" in style for style in styles) and "bold" in styles
    blank = shown._replace(symbols=[[""] * 16] * 2, kind=np.full((2, 16), OPEN))
    assert movie.text(blank, 2).plain.split() == ["."] * 16


def test_gif_has_a_frame_for_each_step() -> None:
    still = small_film()
    shown = Film(
        *(still.symbols * 2, *(np.tile(x, (2, 1)) for x in (still.kind, still.confidence))),
        *(np.tile(still.q_logit, 2), still.width),
    )
    data = movie.gif({"TRM": shown, "rollout": shown})
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "GIF" and picture.n_frames == 4 and len(data) < 200_000
    frames, durations = [], []
    for number in range(4):
        picture.seek(number)
        durations.append(picture.info["duration"])
        frames.append(np.asarray(picture.convert("RGB"), int))
    assert durations[:3] == [600] * 3 and durations[3] == 3000
    # Steps 1 and 2 differ in their boards, 1 and 3 in nothing but the number of the step.
    change = [(np.abs(frames[0] - frame).max(axis=-1) > 40).mean() for frame in frames]
    assert change[1] > 0.005 and 0 < change[2] < change[1] / 4


def test_gif_of_one_step() -> None:
    shown = small_film()
    one = Film(shown.symbols[1:], *(x[1:] for x in shown[1:4]), shown.width)
    assert Image.open(io.BytesIO(movie.gif({"TRM": one}))).n_frames == 1
    movie.still({"TRM": one}, "caption")


def test_wrong_cells_differ_from_right_ones_without_colour() -> None:
    """In grey, too: a cell crossed out has other pixels than the same cell in plain orange."""
    shown = small_film()
    crossed, plain = (
        movie.gif({"x": shown._replace(kind=kind)})
        for kind in (np.full((2, 16), WRONG), np.full((2, 16), OPEN))
    )
    dark = [
        (np.asarray(Image.open(io.BytesIO(data)).convert("L"))[50:350, 20:320] < 90).mean()
        for data in (crossed, plain)
    ]
    assert dark[0] > dark[1]


def test_page_holds_every_board_and_needs_nothing_else() -> None:
    shown = small_film()
    text = movie.page({"TRM": shown, "</script> & co": shown}, "A <title>", "a caption @data@")
    (values,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(values)
    assert [board["title"] for board in data["boards"]] == ["TRM", "</script> & co"]
    for board in data["boards"]:
        assert board["symbols"] == shown.symbols and board["width"] == 4
        np.testing.assert_array_equal(board["kind"], shown.kind)
        np.testing.assert_allclose(board["percent"], 100 * shown.confidence, atol=0.5)
        assert board["heading"] == ["step 1   Q -1.50   2 wrong", "step 2   Q +2.50   solved"]
    assert data["kinds"] == list(movie.KINDS)
    assert not re.search(r"https?:|//[a-z]|src=|href=|@import|url\(|fetch\(|import\(", text)
    assert html.escape("A <title>") in text and "a caption @data@" in text
    assert not re.search("@(?!data@)[a-z]+@", text) and text.count("<script") == 2


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A folder that says nothing of its task; its labels are what the best-Q rollouts answer."""
    folder = tmp_path_factory.mktemp("movie")
    model, params = load("sudoku6")
    data = folder / "data" / "test"
    data.mkdir(parents=True)
    inputs = np.random.default_rng(0).integers(1, 8, (6, 36)).astype(np.int32)
    answer = solve(
        *(model, params, jax.random.key(5), make_puzzles(inputs)),
        **{"num_rollouts": 3, "depth": 4, "sigma": 1.0},
    ).answer
    for field, values in {
        "inputs": inputs,
        "labels": np.asarray(answer),
        "puzzle_identifiers": np.zeros(6, np.int32),
        "puzzle_indices": np.arange(7, dtype=np.int32),
    }.items():
        np.save(data / f"all__{field}.npy", values)
    metadata = {"seq_len": 36, "vocab_size": 8, "num_puzzle_identifiers": 1, "sets": ["all"]}
    (data / "dataset.json").write_text(json.dumps({**metadata, "ignore_label_id": None}))
    settings = movie.Settings(
        **{"checkpoint": "sudoku6", "data": str(folder / "data"), "devices": 1},
        **{"num_puzzles": 6, "rollouts": 3, "depth": 4, "sigma": 1.0, "seeds": (5,)},
    )
    return Study("movie", settings, folder)


def test_exhibit_of_a_folder_without_a_task(study: Study, tmp_path: Path) -> None:
    (exhibit,) = movie.make(study)
    names = exhibit.write(tmp_path)
    assert names == [f"movie{suffix}" for suffix in (".gif", ".html", ".png", ".npz", ".json")]
    assert Image.open(tmp_path / "movie.gif").n_frames == 4
    data = np.load(tmp_path / "movie.npz")
    # The rollout replayed is the one that was chosen: its answer is the label, TRM's is not.
    assert set(data["kind_rollout"][-1]) == {RIGHT} and WRONG in data["kind_trm"][-1]
    (row,) = {int(x) for x in re.findall(r"[Pp]uzzle (\d+)", " ".join(exhibit.reading))}
    label = [str(token) for token in study.puzzles.labels[row].tolist()]
    assert data["symbols_rollout"][-1].tolist() == label
    assert "which TRM fails and the best-Q rollout solves" in exhibit.caption
    found = exhibit.findings
    assert 0 < found["escapes"].value <= 1 and found["escapes"].num_puzzles == 6
    assert found["cells_rollout"].value == 1 > found["cells_trm"].value
    result = study.sweep()
    q = result.runs[0].record.q_logit[row, :, -1]
    np.testing.assert_allclose(found["q_rollout"].value, q.max(), rtol=1e-5)
