"""Boards of a rollout: kinds of cells, text, GIF, page; and the figure that chooses two of them."""

import html
import io
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import small_model
from PIL import Image

from ptrm_jax import checkpoint, load, make_puzzles, read_dataset, solve, tasks
from ptrm_jax.analysis import boards, movie
from ptrm_jax.analysis.boards import GIVEN, OPEN, RIGHT, UNUSED, WRONG, Film
from ptrm_jax.analysis.exhibit import NothingToShow
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.metrics import Rollouts
from ptrm_jax.sweep.config import Inputs, Numerics
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
    return boards.film(tasks.load("sudoku"), PUZZLE, answers, confidence, q_logit, **known)


def test_cells_by_hand() -> None:
    shown = small_film()
    expected = np.full((2, 16), RIGHT)
    expected[:, [0, 6, 9, 15]] = GIVEN
    expected[0, 7] = expected[0, 9] = WRONG  # a 2 for 1, and the given 4 lost
    np.testing.assert_array_equal(shown.kind, expected)
    assert shown.width == 4 and "".join(shown.symbols[0]) == "1324423223133142"
    assert shown.box == (2, 2)

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
    shown = boards.film(None, puzzle, *arrays)  # no task: nothing is given, tokens are numbers
    assert shown.kind.tolist() == [[UNUSED, OPEN, OPEN]]
    assert shown.symbols == [["1", "3", "3"]] and shown.width == 2


def test_margins_are_left_out() -> None:
    """A puzzle of 2x3 cells with a hole in it, somewhere on a board of 4x4."""
    puzzle = np.array([[0, 0, 0, 0], [0, 2, 3, 4], [0, 5, 0, 6], [0, 0, 0, 0]]).ravel()
    sure = np.arange(16.0)[None] / 16
    shown = boards.film(None, puzzle, puzzle[None], sure, np.zeros(1))
    assert (
        shown.width == 3 and shown.box is None and shown.symbols == [["2", "3", "4", "5", "0", "6"]]
    )
    assert shown.kind.tolist() == [[OPEN, OPEN, OPEN, OPEN, UNUSED, OPEN]]
    np.testing.assert_array_equal(16 * shown.confidence, [[5, 6, 7, 9, 10, 11]])
    # Three rows of four do not fill up with eleven cells.
    shown = boards.film(None, np.ones(11, int), np.ones((1, 11), int), sure[:, :11], np.zeros(1))
    assert shown.width == 4 and len(shown.symbols[0]) == 11
    boards.still({"x": shown}, "")


def test_mazes_and_pads_know_what_is_given() -> None:
    task = tasks.load("maze")
    inputs, labels = (maze.encode(text) for text in ("S #  # G#", "So# o# G#"))
    assert task.symbols(labels) == ["S", "o", "#", "", "o", "#", "", "G", "#"]
    assert task.given(inputs).tolist() == [char != " " for char in "S #  # G#"]
    answers = np.stack([labels, inputs])
    shown = boards.film(task, inputs, answers, np.ones((2, 9)), np.zeros(2), labels, ignore_label=0)
    assert shown.kind.tolist() == [
        [GIVEN, RIGHT, GIVEN, RIGHT, RIGHT, GIVEN, RIGHT, GIVEN, GIVEN],
        [GIVEN, WRONG, GIVEN, RIGHT, WRONG, GIVEN, RIGHT, GIVEN, GIVEN],
    ]


def test_boards_look_as_on_paper() -> None:
    """Walls as lines, triangles and bulbs as shapes, in text, picture and page."""
    task = tasks.load("ppbench")
    triangles = ppbench.PencilPuzzle("shakashaka", ("...5", "...."), ("54+.", "23++"))
    rooms = ((9, 3, 11), (12, 6, 14))
    heyawake = ppbench.PencilPuzzle("heyawake", ("1..", "..."), ("#++", "+++"), rooms)
    bulb = ppbench.PencilPuzzle("lightup", (".2",), ("#.",))
    expected = ["◤ ◥ · ■ \n◣ ◢ · · ", "1#  · │ · \n ·  · │ · ", "*?2 "]
    for puzzle, text in zip((triangles, heyawake, bulb), expected, strict=True):
        (inputs,), (label,) = ppbench.encode([puzzle], 6)
        sure = np.full((1, 36), 1.0 if puzzle.pid != "lightup" else 0.5)
        film = boards.film(task, inputs, label[None], sure, np.zeros(1), label, ignore_label=0)
        assert boards.text(film, 1).plain == text
        page = boards.page({"x": film}, "", "")
        (values,) = re.findall(r'id="data">(.*?)</script>', page, re.S)
        (shown,) = json.loads(values)["boards"]
        assert shown["looks"][0] == [f"{x.fill} {x.shape}".strip() for x in film.looks[0]]
        assert shown["walls"] == [x.walls for x in film.looks[0]]
        (ax,) = boards.still({"x": film}, "").axes[:1]
        drawn = [type(patch).__name__ for patch in ax.patches]
        assert drawn.count("Polygon") == 4 * (puzzle is triangles)
        assert (
            drawn.count("Rectangle") == {"shakashaka": 1, "heyawake": 1, "lightup": 1}[puzzle.pid]
        )
        assert drawn.count("Circle") == {"shakashaka": 3, "heyawake": 5, "lightup": 1}[puzzle.pid]


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
        shown = boards.film(
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
    got = boards.confidence(model, params, y)
    assert got.shape == (2, 3, 36) and got.dtype == np.float32
    for place in np.ndindex(2, 3):
        weights = np.exp(y[place][1:] @ np.asarray(params["lm_head"]["kernel"], np.float64))
        answer = weights.argmax(axis=-1)
        expected = weights[np.arange(36), answer] / weights.sum(axis=-1)
        np.testing.assert_allclose(got[place], expected, rtol=1e-4)


def rollouts(correct: list, q: list, answer: list, cells: list) -> Rollouts:
    """Of rollouts [B, K] after one step."""
    right, q_logit, digest, cells_right = (
        np.array(x)[:, :, None] for x in (correct, q, answer, cells)
    )
    return Rollouts(
        right.astype(bool), q_logit.astype(float), cell_accuracy=cells_right, digest=digest
    )


def test_choice_is_the_escape_that_takes_longest() -> None:
    trm = rollouts([[0], [0], [1], [0]], [[0]] * 4, [[1]] * 4, [[0.5], [0.6], [1], [0.7]])
    noisy = rollouts(
        [[0, 1], [1, 0], [1, 1], [0, 1]],
        [[5, 1], [3, 2], [1, 0], [np.nan, 2]],  # of puzzle 3, rollout 0 is not finite
        [[2, 3], [3, 1], [1, 1], [2, 3]],
        [[0.1, 1], [1, 0.2], [1, 1], [0.9, 1]],
    )
    chosen = movie.choose(trm, noisy, np.ones(4, bool))
    assert chosen.escapes.tolist() == [False, True, False, True]
    assert chosen[:2] == (1, 0)  # both at step 1: the first
    chosen = movie.choose(trm, noisy, np.array([True, False, True, True]))
    assert chosen.escapes.tolist() == [False, False, False, True] and chosen[:2] == (3, 1)
    # Wrong before the last step: puzzle 1 is solved at step 1, puzzle 3 at step 2.
    early = np.array([[[0], [1]], [[1], [0]], [[1], [1]], [[0], [0]]], bool)

    def after(before: np.ndarray, last: Rollouts) -> Rollouts:
        fields = {name: x for name, x in vars(last).items() if x is not None and name != "correct"}
        twice = {name: np.repeat(x, 2, axis=2) for name, x in fields.items()}
        return Rollouts(np.concatenate([before, last.correct], axis=2), **twice)

    chosen = movie.choose(after(trm.correct, trm), after(early, noisy), np.ones(4, bool))
    assert chosen[:2] == (3, 1)


def test_choice_without_an_escape() -> None:
    trm = rollouts([[0], [1], [0]], [[0]] * 3, [[1]] * 3, [[0.5], [1], [0.5]])
    noisy = {
        "correct": [[0, 1], [0, 1], [0, 0]],
        "q": [[5, 1]] * 3,
        "answer": [[2, 3]] * 3,
        "cells": [[0.6, 1], [0.8, 1], [0.4, 0.9]],
    }
    every = np.ones(3, bool)
    chosen = movie.choose(trm, rollouts(**noisy), every)
    assert chosen[:2] == (1, 0) and not chosen.escapes.any()  # 0.2 apart; the others 0.1
    assert movie.Movie(None, chosen, None, {}).story.startswith("where the two differ most")
    for nothing in ({"answer": [[1, 1]] * 3}, {"q": [[np.nan, np.nan]] * 3}):
        with pytest.raises(NothingToShow, match="ends with the answer of TRM"):
            movie.choose(trm, rollouts(**noisy | nothing), every)


def test_text_of_two_steps() -> None:
    shown = small_film()
    rule = "────┼────"
    assert boards.text(shown, 1).plain == f"1 3?│2 4 \n4 2 │3 2x\n{rule}\n2 3x│1 3 \n3 1 │4 2 "
    plain = shown._replace(box=None)
    assert boards.text(plain, 2).plain == "1 3 2 4 \n4 2 3 1 \n2 4 1 3 \n3 1 4 2 "
    # Not by colour alone: wrong is underlined, given is bold.
    styles = {str(span.style) for span in boards.text(shown, 1).spans}
    assert any("underline" in style for style in styles) and "bold" in styles
    blank = plain._replace(symbols=[[""] * 16] * 2, kind=np.full((2, 16), OPEN))
    assert boards.text(blank, 2).plain.split() == ["."] * 16


def frames(films: dict[str, Film], **settings: float) -> tuple[list[np.ndarray], list[int]]:
    """Frames of a GIF as RGB, and their durations in milliseconds."""
    data = boards.gif(films, **settings)
    picture = Image.open(io.BytesIO(data))
    assert picture.format == "GIF" and len(data) < 200_000
    found, durations = [], []
    for number in range(picture.n_frames):
        picture.seek(number)
        durations.append(picture.info.get("duration"))
        found.append(np.asarray(picture.convert("RGB"), int))
    return found, durations


def test_gif_has_a_frame_for_each_step() -> None:
    once = small_film()
    twice = {name: np.tile(getattr(once, name), (2, 1)) for name in ("kind", "confidence")}
    shown = once._replace(symbols=once.symbols * 2, q_logit=np.tile(once.q_logit, 2), **twice)
    pictures, durations = frames({"TRM": shown, "rollout": shown})
    assert durations == [600, 600, 600, 3000]
    # Boards of steps 1 and 2 differ, those of 1 and 3 do not; the curve of Q does.
    boards_only = np.stack(pictures)[:, 110:390]
    change = (np.abs(boards_only - boards_only[0]).max(axis=-1) > 40).mean(axis=(1, 2))
    assert change[1] > 0.005 and change[2] == 0
    assert (pictures[0] != pictures[2]).any()


def test_gif_of_one_step() -> None:
    shown = small_film()
    one = shown._replace(
        **{name: getattr(shown, name)[1:] for name in ("symbols", "kind", "confidence", "q_logit")}
    )
    assert len(frames({"TRM": one})[0]) == 1
    boards.still({"TRM": one}, "caption")


def test_wrong_cells_differ_from_right_ones_without_colour() -> None:
    """In grey, too: a cell crossed out has other pixels than the same cell in plain orange."""
    shown = small_film()
    dark = [
        (frames({"x": shown._replace(kind=np.full((2, 16), kind))})[0][0].mean(axis=-1) < 60).mean()
        for kind in (WRONG, OPEN)
    ]
    assert dark[0] > dark[1]


def test_page_holds_every_board_and_needs_nothing_else() -> None:
    shown = small_film()
    text = boards.page({"TRM": shown, "</script> & co": shown}, "A <title>", "a caption @data@")
    (values,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    data = json.loads(values)
    assert [board["title"] for board in data["boards"]] == ["TRM", "</script> & co"]
    for board in data["boards"]:
        assert board["symbols"] == shown.symbols and board["width"] == 4
        assert board["looks"] is None and board["walls"][5:7] == [0, 8] and board["walls"][10] == 9
        np.testing.assert_array_equal(board["kind"], shown.kind)
        np.testing.assert_allclose(board["percent"], 100 * shown.confidence, atol=0.5)
        assert board["heading"] == ["step 1   Q -1.50   2 wrong", "step 2   Q +2.50   solved"]
    assert data["kinds"] == list(boards.KINDS)
    assert not re.search(r"https?:|//[a-z]|src=|href=|@import|url\(|fetch\(|import\(", text)
    assert html.escape("A <title>") in text and "a caption @data@" in text
    assert not re.search("@(?!data@)[a-z]+@", text) and text.count("<script") == 2


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A folder without a task; its labels are what the best-Q rollouts answer."""
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1)
    checkpoint.save(tmp_path / "model", model.config, params)
    data = tmp_path / "data" / "test"
    data.mkdir(parents=True)
    inputs = np.random.default_rng(0).integers(1, 7, (6, 9)).astype(np.int32)
    key = jax.random.key(5, impl="threefry2x32")
    settings = {"num_rollouts": 3, "depth": 4, "sigma": 1.0}
    answer = solve(model, params, key, make_puzzles(inputs), **settings).answer
    for field, values in {
        "inputs": inputs,
        "labels": np.asarray(answer),
        "puzzle_identifiers": np.zeros(6, np.int32),
        "puzzle_indices": np.arange(7, dtype=np.int32),
    }.items():
        np.save(data / f"all__{field}.npy", values)
    metadata = {"seq_len": 9, "vocab_size": 7, "num_puzzle_identifiers": 1, "sets": ["all"]}
    (data / "dataset.json").write_text(json.dumps({**metadata, "ignore_label_id": None}))
    inputs = Inputs(str(tmp_path / "model"), str(tmp_path / "data"), num_puzzles=6)
    search = OneSigma(rollouts=3, depth=4, sigma=1.0, seeds=(5,))
    return Study("movie", movie.Settings(inputs, search, Numerics(devices=1)), tmp_path)


def test_figure_of_a_folder_without_a_task(study: Study, tmp_path: Path) -> None:
    exhibit = movie.make(study)
    names = exhibit.write(tmp_path)
    assert names == [f"movie{suffix}" for suffix in (".gif", ".html", ".png", ".npz", ".json")]
    assert Image.open(tmp_path / "movie.gif").n_frames == 4
    data = np.load(tmp_path / "movie.npz")
    # The rollout replayed is the one that was chosen: its answer is the label, TRM's is not.
    assert set(data["kind_rollout"][-1]) == {RIGHT} and WRONG in data["kind_trm"][-1]
    (row,) = {int(x) for x in re.findall(r"[Pp]uzzle (\d+)", " ".join(exhibit.reading))}
    label = [str(token) for token in study.prepared.puzzles.labels[row].tolist()]
    assert data["symbols_rollout"][-1].tolist() == label
    assert "which TRM fails and the best-Q rollout solves" in exhibit.caption
    found = exhibit.findings
    assert 0 < found["escapes"].value <= 1 and found["escapes"].num_puzzles == 6
    assert found["cells_rollout"].value == 1 > found["cells_trm"].value
    q = study.sweep().runs[0].rollouts.q_logit[row, :, -1]
    np.testing.assert_allclose(found["q_rollout"].value, q.max(), rtol=1e-5)
