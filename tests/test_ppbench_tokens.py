"""PPBench's vocabulary, encoding, drawing and symmetries."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ppbench_boards import board, rows, tokens

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import Look, load, ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle, symmetry, vocabulary
from ptrm_jax.tasks.ppbench.puzzle import BOTTOM, LEFT, RIGHT, TOP, TYPES

ROOMS = "0 0 1 2/0 0 1 2/3 3 3 3"
PUZZLES = [
    board("sudoku", "1 . . ./. . . 2/. 1 . ./. . . .", "1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1"),
    board("lightup", ". . ./. 2 ./. - .", "+ # +/# . +/+ . #"),
    board("nurikabe", ". . -/. . ./2 . .", "# + ./# # #/. + #"),
    board("nurikabe", "2 . . 1", ". + # ."),
    board("heyawake", "1 . . ./. . . ./. . . .", "# + + #/+ + # +/+ + + +", ROOMS),
    board("tapa", "3 . . ./. . . ./. . . .", ". # # #/# # + +/+ + + +"),
    board("tapa", ". . ./1,- . ./. . .", "# # #/. + +/# # #"),
    board("shakashaka", "2 . ./. . ./. . .", ". 5 4/5 + 3/2 3 +"),
    board("shakashaka", ". . . 5/. . . .", "5 4 + ./2 3 + +"),
]
SOLVED = [puzzle for puzzle in PUZZLES if ppbench.is_solved(puzzle)]


# Tokens


def test_the_vocabulary_is_the_documented_list():
    counts = Counter(symbol.pid for symbol in vocabulary.VOCABULARY)
    assert [counts[pid] for pid in TYPES] == [10, 9, 104, 615, 45, 12]
    assert counts[""] == 1 and vocabulary.VOCABULARY[ppbench.PAD].pid == ""
    assert ppbench.VOCAB_SIZE == len(set(vocabulary.VOCABULARY)) == 796
    masks = Counter(s.walls for s in vocabulary.VOCABULARY if s.given == "20" and s.walls)
    assert sum(masks.values()) == 27  # 9 masks with a corner, 3 states


def test_each_side_has_a_vocabulary_of_its_own():
    counts = Counter(symbol.pid for symbol in ppbench.of_side(6).symbols)
    assert [counts[pid] for pid in TYPES] == [7, 9, 40, 426, 45, 12]
    assert ppbench.of_cells(36).size == 540
    sizes = [ppbench.of_side(side).size for side in range(1, 11)]
    assert sizes == sorted(set(sizes)) and sizes[-1] == ppbench.VOCAB_SIZE
    assert [ppbench.of_side(side).max_room_number for side in (3, 5, 7, 8)] == [4, 9, 17, 20]


@pytest.mark.parametrize("puzzle", PUZZLES, ids=lambda puzzle: puzzle.pid)
def test_smaller_grids_hold_the_same_puzzles(puzzle):
    """In their own tokens: the answer is right, its images too, and nothing is lost."""
    large = np.stack(tokens(puzzle))
    small = np.concatenate(ppbench.encode([puzzle], 6))
    np.testing.assert_array_equal(ppbench.resize(large, 6), small)
    np.testing.assert_array_equal(ppbench.resize(small, 10), large)
    assert ppbench.decode(*small) == puzzle
    assert ppbench.draw(small[1], clues=small[0]) == ppbench.draw(large[1], clues=large[0])
    right = ppbench.satisfies_rules(large[1], large[0])
    size = {"height": puzzle.height, "width": puzzle.width}
    for image in range(8):
        inputs, labels = ppbench.turn(small, image, **size)
        assert ppbench.satisfies_rules(labels, inputs) == right
        np.testing.assert_array_equal(
            ppbench.resize(np.stack([inputs, labels]), 10), ppbench.turn(large, image, **size)
        )


def test_boards_that_do_not_fit_are_refused():
    wide = ppbench.encode_problem(PencilPuzzle("tapa", ((".",) * 7,)))
    with pytest.raises(ppbench.VocabularyError, match="must fit 6x6 cells; the largest has 1x7"):
        ppbench.resize(np.stack([wide, wide]), 6)
    large = ppbench.encode_problem(board("nurikabe", "37 ."))
    with pytest.raises(ppbench.VocabularyError, match=r"given '37' .*islands to 36"):
        ppbench.resize(large, 6)
    with pytest.raises(ppbench.VocabularyError, match=r"must fit 6x6 cells; .* has 1x7"):
        ppbench.encode_problem(PencilPuzzle("tapa", ((".",) * 7,)), 6)
    with pytest.raises(InputError, match="must be 0 to 795"):
        ppbench.resize(wide - 1, 6)


@pytest.mark.parametrize("puzzle", PUZZLES, ids=lambda puzzle: puzzle.pid)
def test_puzzles_become_tokens_and_again_puzzles(puzzle):
    inputs, labels = tokens(puzzle)
    assert inputs.shape == labels.shape == (100,) and inputs.dtype == labels.dtype == np.int32
    assert ppbench.decode(inputs, labels) == puzzle
    inside = (inputs != ppbench.PAD).reshape(10, 10)
    assert inside[: puzzle.height, : puzzle.width].all()
    assert inside.sum() == puzzle.height * puzzle.width


def test_givens_and_states_are_told_apart_in_every_cell():
    """Two puzzles that differ anywhere have other tokens there, in the same cell."""
    for puzzle in PUZZLES:
        inputs, labels = tokens(puzzle)
        for cell in puzzle.open_cells:
            row, column = divmod(cell, puzzle.width)
            state = {cell: puzzle.answer[row][column]}
            partial = vocabulary.encode_state(puzzle, state)
            assert np.flatnonzero(partial != inputs).tolist() == [10 * row + column]
            assert partial[10 * row + column] == labels[10 * row + column]


@pytest.mark.parametrize(
    ("puzzle", "says"),
    [
        (PencilPuzzle("tapa", ((".",) * 11,)), "must fit 10x10 cells; .* has 1x11"),
        (board("nurikabe", "101 . ."), r"'101' .* in r1c1 \(nurikabe\)"),
        (board("heyawake", "21 .", rooms="0 0"), r"'21' with state '.' and walls 13 in r1c1"),
        (board("heyawake", ". . ./. 1 ./. . .", rooms="0 0 0/0 0 0/0 0 0"), "walls 0 in r2c2 .*"),
    ],
)
def test_puzzles_without_tokens_are_refused(puzzle, says):
    with pytest.raises(ppbench.VocabularyError, match=says):
        ppbench.encode_problem(puzzle)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: tokens(replace(PUZZLES[0], answer=None)), "has none; leave it out"),
        (lambda x, y: ppbench.draw(x[:8]), r"has n x n cells, n from 1 to 10; got 8"),
        (lambda x, y: ppbench.draw(x[None]), r"integer tokens \[S\].* shape \(1, 100\)"),
        (lambda x, y: ppbench.draw(x, clues=y[:36]), r"clues must be integer tokens \[100\]"),
        (lambda x, y: ppbench.encode_answer(PUZZLES[5], 11), "have 1 to 10 rows.*; got side 11"),
        (lambda x, y: ppbench.draw(y, clues=x * 0), "rectangle at the top left"),
    ],
)
def test_other_tokens_than_a_board_are_refused(call, says):
    with pytest.raises(InputError, match=says):
        call(*tokens(PUZZLES[5]))


# Drawing


def test_boards_are_drawn():
    inputs, labels = tokens(PUZZLES[1])
    assert ppbench.draw(inputs) == ". . .\n. 2 .\n. - ."
    assert ppbench.draw(labels, clues=inputs) == "+ # +\n# 2 +\n+ - #"
    labels[[0, 1, 11, 20, 99]] = -1, inputs[1], inputs[21], labels[11], 3
    assert ppbench.draw(labels, clues=inputs).splitlines() == ["?!  .  +", " # -!  +", "2!  -  #"]


def test_walls_are_drawn():
    inputs, labels = tokens(PUZZLES[4])
    drawn = ppbench.draw(labels, clues=inputs).splitlines()
    assert [line.split() for line in drawn] == [
        "1#  +| +| #".split(),
        [],
        "+  +| #| +".split(),
        ["--"] * 4,
        ["+"] * 4,
    ]
    assert ppbench.draw(inputs).splitlines()[0] == "1 .|.|."


def test_triangles_are_told_from_black_cells():
    inputs, labels = tokens(PUZZLES[8])
    assert ppbench.draw(inputs) == ". . . ■\n. . . ."
    assert ppbench.draw(labels, clues=inputs) == "◤ ◥ + ■\n◣ ◢ + +"


def looks_of(puzzle: PencilPuzzle) -> list[Look]:
    """Of the cells of the board, row by row."""
    inputs, labels = np.concatenate(ppbench.encode([puzzle], 6))
    looks = load("ppbench").looks(labels, inputs)
    assert len(looks) == 36 and all(look.text == "?" for look in looks[6 * puzzle.height :])
    return [looks[6 * r + c] for r in range(puzzle.height) for c in range(puzzle.width)]


def test_cells_look_as_on_paper():
    dot, shaded, black = Look(shape="dot"), Look(fill="shaded"), Look(fill="black")
    expected = {
        1: [dot, Look(shape="bulb"), dot, Look(shape="bulb"), Look("2", "black"), dot, dot, black],
        3: [Look("2"), dot, shaded, Look("1")],
        6: [shaded] * 3 + [Look("1 ?"), dot, dot] + [shaded] * 3,
        8: [Look(shape="upper left"), Look(shape="upper right"), dot, black],
    }
    for number, looks in expected.items():
        assert looks_of(PUZZLES[number])[: len(looks)] == looks
    heyawake = looks_of(PUZZLES[4])
    assert heyawake[0] == Look("1", "shaded", walls=TOP | LEFT)
    assert heyawake[2] == Look(shape="dot", walls=TOP | LEFT | RIGHT)
    boxes = [look.walls for look in looks_of(PUZZLES[0])[:4]]
    assert boxes == [TOP | LEFT, TOP | RIGHT, TOP | LEFT, TOP | RIGHT]
    assert looks_of(PUZZLES[0])[0].text == "1"


# Symmetries


def test_the_images_are_the_dihedral_group():
    """Cells and tokens together: every image of an image is an image, with one inverse each."""
    cells, tokens = symmetry.dihedral_cells(10, 10), symmetry.dihedral_tokens()
    assert cells.shape == (8, 100) and tokens.shape == (8, ppbench.VOCAB_SIZE)
    images = {
        (c.tobytes(), t.astype(np.int64).tobytes()): i
        for i, (c, t) in enumerate(zip(cells, tokens, strict=True))
    }
    assert len(images) == 8
    table = np.full((8, 8), -1)
    for first, second in itertools.product(range(8), repeat=2):
        composed = (cells[first][cells[second]], tokens[second][tokens[first]].astype(np.int64))
        table[first, second] = images[composed[0].tobytes(), composed[1].tobytes()]
    for line in (*table, *table.T):
        assert sorted(line) == list(range(8))
    np.testing.assert_array_equal(table[0], np.arange(8))
    assert (table != table.T).any()  # turns and reflections do not commute


def test_tokens_turn_as_their_pictures_do():
    """A cell as 3x3 pixels: walls are pixels on its sides, a triangle is black at three of them."""
    bits = {TOP: (0, 1), RIGHT: (1, 2), BOTTOM: (2, 1), LEFT: (1, 0)}
    corners = {"5": (0, 0), "4": (0, 2), "3": (2, 2), "2": (2, 0)}

    def picture(symbol: vocabulary.Symbol) -> np.ndarray:
        pixels = np.zeros((3, 3), int)
        for wall, place in bits.items():
            pixels[place] = bool(symbol.walls & wall)
        if symbol.pid == "shakashaka" and symbol.state in corners:
            pixels[corners[symbol.state]] = 1
        return pixels

    images = symmetry.dihedral_tokens()
    for token, symbol in enumerate(vocabulary.VOCABULARY):
        for image in range(8):
            start = picture(symbol).T if image >= 4 else picture(symbol)
            turned = vocabulary.VOCABULARY[images[image, token]]
            assert (picture(turned) == np.rot90(start, image % 4)).all()
            kept = ("pid", "given") if symbol.pid == "shakashaka" else ("pid", "given", "state")
            assert all(getattr(turned, name) == getattr(symbol, name) for name in kept)


@pytest.mark.parametrize("puzzle", SOLVED, ids=lambda puzzle: puzzle.pid)
def test_turned_answers_stay_right(puzzle):
    assert len(SOLVED) >= 7
    size = {"height": puzzle.height, "width": puzzle.width}
    inputs, labels = tokens(puzzle)
    images = [ppbench.turn(np.stack([inputs, labels]), image, **size) for image in range(8)]
    for image, (x, y) in enumerate(images):
        assert ppbench.satisfies_rules(y, x)
        turned = ppbench.decode(x, y)
        is_upright = image % 2 == image // 4
        expected = (puzzle.height, puzzle.width) if is_upright else (puzzle.width, puzzle.height)
        assert (turned.height, turned.width) == expected
        assert ppbench.is_solved(turned)


def test_a_board_turned_by_hand():
    inputs, labels = tokens(board("shakashaka", "5 . .", ". 4 +"))
    size = {"height": 1, "width": 3}
    turned = [
        ppbench.decode(*(ppbench.turn(t, g, **size) for t in (inputs, labels))) for g in range(8)
    ]
    # A quarter anticlockwise: the right end moves up, and an upper right corner to the upper left.
    images = [". 4 +", "+/5/.", "+ 2 .", "./3/+", "./2/+", ". 3 +", "+/4/.", "+ 5 ."]
    assert [puzzle.answer for puzzle in turned] == [rows(image) for image in images]
