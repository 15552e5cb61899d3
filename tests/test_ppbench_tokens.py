"""PPBench's vocabulary, drawing, symmetries and training examples."""

import itertools
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import symmetry, vocabulary
from ptrm_jax.tasks.ppbench.records import BOTTOM, LEFT, RIGHT, TOP, TYPES, Record, rooms_to_walls


def rows(text: str) -> tuple[tuple[str, ...], ...]:
    """Rows between slashes, cells between spaces."""
    return tuple(tuple(row.split()) for row in text.split("/"))


ROOMS = rooms_to_walls(rows("0 0 1 2/0 0 1 2/3 3 3 3"))
PUZZLES = [
    Record(
        "sudoku",
        rows("1 . . ./. . . 2/. 1 . ./. . . ."),
        rows("1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1"),
    ),
    Record("lightup", rows(". . ./. 2 ./. - ."), rows("+ # +/# . +/+ . #")),
    Record("nurikabe", rows(". . -/. . ./2 . ."), rows("# + ./# # #/. + #")),
    Record("nurikabe", rows("2 . . 1"), rows(". + # .")),
    Record("heyawake", rows("1 . . ./. . . ./. . . ."), rows("# + + #/+ + # +/+ + + +"), ROOMS),
    Record("tapa", rows("3 . . ./. . . ./. . . ."), rows(". # # #/# # + +/+ + + +")),
    Record("tapa", rows(". . ./1,- . ./. . ."), rows("# # #/. + +/# # #")),
    Record("shakashaka", rows("2 . ./. . ./. . ."), rows(". 5 4/5 + 3/2 3 +")),
    Record("shakashaka", rows(". . . 5/. . . ."), rows("5 4 + ./2 3 + +")),
]
SOLVED = [record for record in PUZZLES if ppbench.is_solved(record)]


def pair(record: Record) -> tuple[np.ndarray, np.ndarray]:
    return ppbench.encode_problem(record), ppbench.encode_answer(record)


# Tokens


def test_the_vocabulary_is_the_documented_list():
    counts = Counter(symbol.pid for symbol in vocabulary.VOCABULARY)
    assert [counts[pid] for pid in TYPES] == [10, 9, 104, 615, 45, 12]
    assert counts[""] == 1 and vocabulary.VOCABULARY[ppbench.PAD].pid == ""
    assert ppbench.VOCAB_SIZE == len(set(vocabulary.VOCABULARY)) == 796
    masks = Counter(s.walls for s in vocabulary.VOCABULARY if s.given == "20" and s.walls)
    assert sum(masks.values()) == 27  # 9 masks with a corner, 3 states


@pytest.mark.parametrize("record", PUZZLES, ids=lambda record: record.pid)
def test_puzzles_become_tokens_and_again_puzzles(record):
    inputs, labels = pair(record)
    assert inputs.shape == labels.shape == (100,) and inputs.dtype == labels.dtype == np.int32
    assert ppbench.decode(inputs, labels) == record
    assert ppbench.decode(inputs.astype(np.uint16)) == replace(record, answer=None)
    assert TYPES[ppbench.type_of(inputs)] == record.pid
    inside = (inputs != ppbench.PAD).reshape(10, 10)
    assert inside[: record.height, : record.width].all()
    assert inside.sum() == record.height * record.width


def test_givens_and_states_are_told_apart_in_every_cell():
    """Two puzzles that differ anywhere have other tokens there, in the same cell."""
    for record in PUZZLES:
        inputs, labels = pair(record)
        for cell in record.open_cells:
            row, column = divmod(cell, record.width)
            state = {cell: record.answer[row][column]}
            partial = vocabulary.encode_state(record, state)
            assert np.flatnonzero(partial != inputs).tolist() == [10 * row + column]
            assert partial[10 * row + column] == labels[10 * row + column]


def test_decided_cells_of_inputs_are_read_as_open():
    record = PUZZLES[5]
    partial = vocabulary.encode_state(record, {1: "#", 4: "#"})
    assert ppbench.decode(partial) == replace(record, answer=None)


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (Record("tapa", ((".",) * 11,)), "must fit 10x10 cells; .* has 1x11"),
        (Record("nurikabe", rows("101 . .")), r"'101' .* in r1c1 \(nurikabe\)"),
        (
            Record("heyawake", rows("21 ."), walls=rooms_to_walls([[0, 0]])),
            r"'21' with state '.' and walls 13 in r1c1 \(heyawake\)",
        ),
        (
            Record("heyawake", rows(". . ./. 1 ./. . ."), walls=rooms_to_walls([[0] * 3] * 3)),
            "walls 0 in r2c2 .* in a corner",
        ),
    ],
)
def test_what_has_no_token_is_refused(record, says):
    with pytest.raises(ppbench.VocabularyError, match=says):
        ppbench.encode_problem(record)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: ppbench.encode_answer(replace(PUZZLES[0], answer=None)), "has none; solve"),
        (lambda x, y: ppbench.decode(x, np.roll(y, 10)), "labels must keep .* in r1c1 where"),
        (lambda x, y: ppbench.decode(x, y - 900), "labels must keep"),
        (lambda x, y: ppbench.decode(x, x), "must decide every cell"),
        (lambda x, y: ppbench.decode(x[:9]), r"inputs must be integer tokens \[100\]"),
        (lambda x, y: ppbench.decode(x[None]), r"shape \(1, 100\)"),
        (lambda x, y: ppbench.draw(x[:9]), r"tokens must be integer"),
        (lambda x, y: ppbench.draw(y, clues=x * 0), "rectangle at the top left"),
    ],
)
def test_what_is_no_board_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call(*pair(PUZZLES[5]))


# Drawing


def test_boards_are_drawn():
    inputs, labels = pair(PUZZLES[1])
    assert ppbench.draw(inputs) == ". . .\n. 2 .\n. - ."
    assert ppbench.draw(labels, clues=inputs) == "+ # +\n# 2 +\n+ - #"
    labels[[0, 1, 11, 20, 99]] = -1, inputs[1], inputs[21], labels[11], 3
    assert ppbench.draw(labels, clues=inputs).splitlines() == ["?!  .  +", " # -!  +", "2!  -  #"]


def test_walls_are_drawn():
    inputs, labels = pair(PUZZLES[4])
    drawn = ppbench.draw(labels, clues=inputs).splitlines()
    assert [line.split() for line in drawn] == [
        "1#  +| +| #".split(),
        [],
        "+  +| #| +".split(),
        ["--"] * 4,
        ["+"] * 4,
    ]
    assert ppbench.draw(inputs).splitlines()[0] == "1 .|.|."


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

    tokens = symmetry.dihedral_tokens()
    for token, symbol in enumerate(vocabulary.VOCABULARY):
        for image in range(8):
            start = picture(symbol).T if image >= 4 else picture(symbol)
            turned = vocabulary.VOCABULARY[tokens[image, token]]
            np.testing.assert_array_equal(picture(turned), np.rot90(start, image % 4))
            kept = ("pid", "given") if symbol.pid == "shakashaka" else ("pid", "given", "state")
            assert all(getattr(turned, name) == getattr(symbol, name) for name in kept)


@pytest.mark.parametrize("record", SOLVED, ids=lambda record: record.pid)
def test_turned_answers_stay_right(record):
    assert len(SOLVED) >= 7
    size = {"height": record.height, "width": record.width}
    inputs, labels = pair(record)
    images = [ppbench.turn(np.stack([inputs, labels]), image, **size) for image in range(8)]
    for image, (x, y) in enumerate(images):
        assert ppbench.satisfies_rules(y, x)
        turned = ppbench.decode(x, y)
        is_upright = image % 2 == image // 4
        expected = (record.height, record.width) if is_upright else (record.width, record.height)
        assert (turned.height, turned.width) == expected
        assert ppbench.is_solved(turned)


def test_a_board_turned_by_hand():
    record = Record("shakashaka", rows("5 . ."), rows(". 4 +"))
    inputs, labels = pair(record)
    size = {"height": 1, "width": 3}
    turned = [
        ppbench.decode(*(ppbench.turn(t, g, **size) for t in (inputs, labels))) for g in range(8)
    ]
    # A quarter anticlockwise: the right end comes up, and the upper right corner upper left.
    assert [record.answer for record in turned] == [
        rows(". 4 +"),
        rows("+/5/."),
        rows("+ 2 ."),
        rows("./3/+"),
        rows("./2/+"),
        rows(". 3 +"),
        rows("+/4/."),
        rows("+ 5 ."),
    ]


# Training examples


@pytest.mark.parametrize("record", SOLVED, ids=lambda record: record.pid)
def test_examples_are_states_on_the_way_to_the_solution(record):
    rng = np.random.default_rng(0)
    inputs, labels = ppbench.training_examples(record, rng, 60)
    assert inputs.shape == labels.shape == (60, 100) and inputs.dtype == np.int32
    plain = pair(record)
    np.testing.assert_array_equal(inputs[0], plain[0])
    np.testing.assert_array_equal(labels[0], plain[1])
    assert ppbench.satisfies_rules(labels, inputs).all()
    assert not ppbench.satisfies_rules(inputs, inputs).any()
    num_decided = len(record.open_cells) - (inputs != labels).sum(-1)
    assert num_decided[0] == 0
    assert set(num_decided[1:]) <= set(range(len(record.open_cells)))
    assert len(set(num_decided)) > len(record.open_cells) // 2
    assert len({label.tobytes() for label in labels}) > 1
    again = ppbench.training_examples(record, np.random.default_rng(0), 60)
    np.testing.assert_array_equal(inputs, again[0])


def test_known_moves_are_followed():
    moves = tuple((cell, symbol) for cell, symbol in zip((2, 0, 1), "#+#", strict=True))
    record = Record("heyawake", rows(". . ."), rows("+ # #"), rooms_to_walls([[0, 0, 0]]), moves)
    seen = set()
    for x in ppbench.training_examples(record, np.random.default_rng(0), 200)[0]:
        states = [vocabulary.VOCABULARY[token].state for token in x[x != ppbench.PAD]]
        seen.add("".join(states))
    # Turned round or not, after none, one or two of the three moves.
    assert seen == {"...", "..#", "#..", "+.#", "#.+"}


def test_unknown_moves_are_drawn_in_every_order():
    """Of four cells, every set of up to three is decided in some example."""
    record = Record("nurikabe", rows("1 . . . ."), rows(". # + + +"))
    seen = set()
    for x, y in zip(*ppbench.training_examples(record, np.random.default_rng(0), 400), strict=True):
        if np.array_equal(y, ppbench.encode_answer(record)):
            seen.add(tuple(np.flatnonzero(x != y).tolist()))
    cells = range(1, 5)
    assert seen == {c for n in range(1, 5) for c in itertools.combinations(cells, n)}


def test_a_solved_puzzle_has_examples_too():
    full = rows("1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1")
    inputs, labels = ppbench.training_examples(
        Record("sudoku", full, full), np.random.default_rng(0), 5
    )
    np.testing.assert_array_equal(inputs, labels)


def test_no_examples_are_not_made():
    with pytest.raises(ValueError, match="count is 0"):
        ppbench.training_examples(PUZZLES[0], np.random.default_rng(0), 0)
