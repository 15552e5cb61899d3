"""The rules of the six types: boards made by hand, brute force, and many boards in one call."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from ppbench_boards import board, random_puzzle, rows, tokens

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle, generator, rules
from ptrm_jax.tasks.ppbench.puzzle import (
    STATES,
    TYPES,
    rooms_to_walls,
    takes_answer,
    tapa_clues,
)

# Boards by hand: the intact board, then each rule broken once.

SUDOKU = "1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 1"
LIGHTUP = ". . ./. 2 ./. . -"
NURIKABE = ". . 2/1 . ./. . 1"
ROOMS = "0 0 1 2/0 0 1 2/3 3 3 3"
HEYAWAKE = "1 . . ./. . . ./. . . ."
TAPA = ". . ./. 3 ./. . ."
WHOLE = "5 . . . 5/. . . . ./5 . . . 5"

BY_HAND = [
    ("sudoku", "1 . . ./" + ". . . ./" * 2 + ". . . .", SUDOKU, True),
    ("sudoku", ". . . ./" * 3 + ". . . .", "1 2 3 4/3 4 1 2/2 1 4 3/4 3 2 2", False),
    # Rows and columns, but not boxes.
    ("sudoku", ". . . ./" * 3 + ". . . .", "1 2 3 4/2 3 4 1/3 4 1 2/4 1 2 3", False),
    # Rows and boxes, but not columns.
    ("sudoku", ". . . ./" * 3 + ". . . .", "1 2 3 4/3 4 1 2/1 2 3 4/3 4 1 2", False),
    ("lightup", LIGHTUP, "+ # +/# . +/+ + .", False),  # two cells dark
    ("lightup", LIGHTUP, "+ # +/+ . #/# + .", True),
    ("lightup", ". . ./. 2 ./. . .", "# + +/+ . #/+ # +", True),
    ("lightup", ". . ./. 2 ./. . .", "+ + #/# . +/+ # +", True),
    ("lightup", ". . ./. 1 ./. . .", "# + +/+ . #/+ # +", False),  # a wrong number
    ("lightup", ". . ./. - ./. . .", "# + +/+ . +/+ + #", True),  # any number
    ("lightup", ". . ./. - ./. . .", "# + #/+ . +/+ + +", False),  # bulbs see each other
    ("lightup", ". . ./. - ./. . .", "# + +/+ . +/+ + +", False),  # dark
    ("lightup", ". - .", "# . #", True),
    ("lightup", ". . .", "# + #", False),
    ("lightup", ". - -", "+ . .", False),
    ("nurikabe", NURIKABE, "# + ./. # #/# # .", False),  # the upper left cell lies apart
    ("nurikabe", ". . 2/. . ./1 . .", "# + ./# # #/. + #", False),  # a wrong size
    ("nurikabe", ". . 2/. . ./2 . .", "# + ./# # #/. + #", True),
    ("nurikabe", ". . -/. . ./2 . .", "# + ./# # #/. + #", True),  # any size
    ("nurikabe", ". . 1/. . ./2 . .", "# + ./# # #/. + #", False),
    ("nurikabe", ". 2 2/. . ./2 . .", "# . ./# # #/. + #", False),  # two clues
    ("nurikabe", ". . ./. . ./2 . .", "# + +/# # #/. + #", False),  # no clue
    ("nurikabe", "2 . ./. . ./. . .", ". + #/# # #/# # #", False),  # a square
    ("nurikabe", ". 1 ./. . ./. . 3", "# . #/# # #/+ + .", True),
    ("nurikabe", ". 1 ./. - ./. 1 .", "# . #/# . #/# . #", False),  # shaded in two
    ("heyawake", HEYAWAKE, "# + + #/+ + # +/+ + + +", True),
    ("heyawake", HEYAWAKE, "# + # +/+ # + +/+ + + +", False),  # 2 where the room says 1
    ("heyawake", "2 . . ./. . . ./. . . .", "# + # +/+ # + +/+ + + +", False),  # cut off
    ("heyawake", HEYAWAKE, "# + + #/+ + # #/+ + + +", False),  # adjacent
    ("heyawake", HEYAWAKE, "# + + +/+ + # +/+ + + +", False),  # the first row crosses two walls
    ("heyawake", HEYAWAKE, "+ + # +/# + + +/+ + + +", False),  # the second row crosses two walls
    ("heyawake", HEYAWAKE, "# + + #/+ + + +/+ + + +", False),
    ("heyawake", ". . . ./. . . ./. . . .", "+ # + #/+ + + +/+ # + +", False),
    ("tapa", TAPA, "# # #/+ . +/+ + +", True),
    ("tapa", TAPA, "# # #/+ . #/+ + +", False),  # a run of 4
    ("tapa", TAPA, "# # +/+ . +/+ + #", False),  # runs of 2 and 1
    ("tapa", ". . ./. 1,3 ./. . ./. . .", "# # #/+ . +/+ # +/+ # +", False),  # two areas
    ("tapa", ". . ./. - ./. . .", "+ + +/+ . +/+ + +", False),  # nothing shaded at all
    ("tapa", "- . . ./. . . ./. . . .", ". + + #/+ + + +/+ + + +", True),  # a lone ? may be none
    ("tapa", "0 . . ./. . . ./. . . .", ". + + #/+ + + +/+ + + +", True),
    ("tapa", "0 . . ./. . . ./. . . .", ". # # #/+ + + +/+ + + +", False),
    ("tapa", "3 . . ./. . . ./. . . .", ". # # #/# # + +/+ + + +", True),
    ("tapa", "3 . . ./. . . ./. . . .", ". # # +/# # # +/+ + + +", False),  # a square
    ("shakashaka", WHOLE, ". 5 + 4 ./5 + + + 4/. + + + .", False),  # cut below
    ("shakashaka", "5 . . 5/. . . ./. . . ./5 . . 5", ". 5 4 ./5 + + 4/2 + + 3/. 2 3 .", True),
    ("shakashaka", ". ./. .", "5 4/2 3", True),
    ("shakashaka", ". ./. .", "3 2/4 5", False),  # corners of 45 degrees
    ("shakashaka", ". ./. .", "5 4/2 +", False),
    ("shakashaka", ". ./. .", "+ +/+ +", False),  # no triangle
    ("shakashaka", ". . ./. . .", "5 4 +/2 3 +", True),  # an upright one beside
    ("shakashaka", ". . 5 . ./. . 5 . .", "+ + . 5 4/+ + . 2 3", True),
    ("shakashaka", ". . 5 . ./. 5 5 . .", "+ + . 5 4/+ . . 2 3", False),  # an L
    ("shakashaka", ". . . . ./. . 5 . .", "+ + + 5 4/+ + . 2 3", False),
    ("shakashaka", "2 . ./. . ./. . .", ". 5 4/5 + 3/2 3 +", True),
    ("shakashaka", "1 . ./. . ./. . .", ". 5 4/5 + 3/2 3 +", False),
    ("shakashaka", "5 . ./. . ./. . .", ". 5 4/+ + 3/2 3 +", False),
]


@pytest.mark.parametrize(("pid", "problem", "answer", "right"), BY_HAND)
def test_boards_by_hand(pid, problem, answer, right):
    puzzle = board(pid, problem, answer, ROOMS if pid == "heyawake" else None)
    assert ppbench.is_solved(puzzle) == right
    inputs, labels = tokens(puzzle)
    assert ppbench.satisfies_rules(labels, inputs) == right


# Brute force for the two types whose rules and solver share tables; for the others see the solver's
# test, which compares all answers of small boards.


def neighbours(cell):
    row, column = cell
    return {(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)}


def is_one_area(cells):
    area, stack = set(), [min(cells)]
    while stack:
        cell = stack.pop()
        area.add(cell)
        stack += (neighbours(cell) & cells) - area
    return area == cells


def obeys_tapa(given, state):
    marked = {cell for cell, symbol in state.items() if symbol == "#"}
    squares = ({(r, c), (r + 1, c), (r, c + 1), (r + 1, c + 1)} <= marked for r, c in marked)
    if not marked or any(squares) or not is_one_area(marked):
        return False
    for (row, column), symbol in given.items():
        if symbol == ".":
            continue
        ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
        text = "".join("#" if (row + r, column + c) in marked else " " for r, c in ring)
        # Some rotation of the ring does not cut a run.
        runs = min(((text[turn:] + text[:turn]).split() for turn in range(8)), key=len)
        lengths, wanted = [len(run) for run in runs] or [0], symbol.split(",")
        if len(lengths) != len(wanted) or not any(
            all(want in ("-", str(length)) for want, length in zip(wanted, order, strict=True))
            for order in itertools.permutations(lengths)
        ):
            return False
    return True


def obeys_shakashaka(given, state):
    """Each white area fills its bounding box, upright or turned by 45 degrees."""
    triangles = {cell for cell, symbol in state.items() if symbol in "2345"}
    clued = {cell: int(symbol) for cell, symbol in given.items() if symbol not in ".5"}
    if not triangles or any(len(neighbours(c) & triangles) != n for c, n in clued.items()):
        return False

    # Quarters of cells by side, and the sides that are black.
    up, down, right, left_side = (-1, 0), (1, 0), (0, 1), (0, -1)
    opposite = {up: down, down: up, right: left_side, left_side: right}
    black = {"+": [], "5": [up, left_side], "4": [up, right], "3": [down, right]}
    black |= {"2": [down, left_side], ".": list(opposite)}
    left = {(cell, side) for cell in state for side in opposite if side not in black[state[cell]]}
    while left:
        points, stack, size = set(), [left.pop()], 0
        while stack:
            (row, column), (dy, dx) = stack.pop()
            size += 1
            side = (dy, dx)
            beside = {((row, column), other) for other in {*opposite} - {side, opposite[side]}}
            found = left & (beside | {((row + dy, column + dx), opposite[side])})
            left -= found
            stack += found
            y, x = 2 * row + 1, 2 * column + 1  # the middle of the cell
            points |= {(y, x), (y + dy + dx, x + dx + dy), (y + dy - dx, x + dx - dy)}
        y, x = np.array(list(points)).T
        if size not in (np.ptp(y) * np.ptp(x), np.ptp(y + x) * np.ptp(y - x) / 2):
            return False
    return True


OBEYS = {"tapa": obeys_tapa, "shakashaka": obeys_shakashaka}


def obeys(puzzle: PencilPuzzle) -> bool:
    cells = list(itertools.product(range(puzzle.height), range(puzzle.width)))
    grids = (puzzle.problem, puzzle.answer)
    return OBEYS[puzzle.pid](*({(r, c): grid[r][c] for r, c in cells} for grid in grids))


def with_answer(puzzle: PencilPuzzle, symbols) -> PencilPuzzle:
    """The puzzle with its open cells decided."""
    flat = np.full(puzzle.height * puzzle.width, ".", dtype=object)
    flat[list(puzzle.open_cells)] = symbols
    return replace(puzzle, answer=tuple(map(tuple, flat.reshape(puzzle.height, puzzle.width))))


@pytest.mark.parametrize(("pid", "shape"), [("tapa", (3, 4)), ("shakashaka", (2, 3))])
def test_random_answers_are_judged_as_by_brute_force(pid, shape):
    rng = np.random.default_rng(0)
    num_wrong = 0
    for height, width in (shape, shape[::-1]) * 3:
        puzzle = random_puzzle(pid, height, width, rng)
        for _ in range(150):
            symbols = rng.choice(list(STATES[pid][1:]), len(puzzle.open_cells))
            solved = with_answer(puzzle, symbols.tolist())
            expected = obeys(solved)
            assert ppbench.is_solved(solved) == expected
            num_wrong += not expected
    assert num_wrong > 500


def near_solution(pid: str, rng: np.random.Generator) -> PencilPuzzle:
    """A right answer of 4x5 cells, perhaps with one or two cells changed."""
    solution = None
    while solution is None:
        puzzle = random_puzzle(pid, 4, 5, rng)
        solution = next(generator.solutions(puzzle), None)
    symbols = np.array(solution, object).ravel()[list(puzzle.open_cells)]
    for place in rng.integers(len(symbols), size=rng.integers(0, 3)):
        symbols[place] = str(rng.choice(list(STATES[pid][1:])))
    return with_answer(puzzle, symbols)


@pytest.mark.parametrize("pid", TYPES[1:])
def test_boards_and_their_tokens_are_judged_alike(pid):
    """Right answers, which are rare at random, come from a solver."""
    pytest.importorskip("pysat", reason="needs python-sat")
    rng = np.random.default_rng(1)
    puzzles = [near_solution(pid, rng) for _ in range(40)]
    verdicts = [ppbench.is_solved(puzzle) for puzzle in puzzles]
    assert 10 < sum(verdicts) < 39
    if pid in OBEYS:
        assert [obeys(puzzle) for puzzle in puzzles] == verdicts
    num_encoded = 0
    for puzzle, right in zip(puzzles, verdicts, strict=True):
        try:
            inputs, labels = tokens(puzzle)
        except ppbench.VocabularyError:
            continue  # the number of a room that is not in a corner
        assert ppbench.satisfies_rules(labels, inputs) == right
        num_encoded += 1
    assert num_encoded > 10


def test_the_ring_of_tapa_has_42_clues():
    """Every clue fits some ring, and every ring has exactly one clue of numbers."""
    table = rules.tapa_table()
    assert table.shape == (42, 256)
    assert table.any(1).all()
    numbers = ["-" not in clue for clue in tapa_clues()]
    assert sum(numbers) == 23
    np.testing.assert_array_equal(table[numbers].sum(0), np.ones(256))


# Many boards, as tokens.

PUZZLES = {
    "sudoku": board("sudoku", "1 . . ./. . . 2/. 1 . ./. . . .", SUDOKU),
    "lightup": board("lightup", ". . ./. 2 ./. - .", "+ # +/# . +/+ . #"),
    "nurikabe": board("nurikabe", ". . 2/. . ./2 . .", "# + ./# # #/. + #"),
    "heyawake": board("heyawake", HEYAWAKE, "# + + #/+ + # +/+ + + +", ROOMS),
    "tapa": board("tapa", "3 . . ./. . . ./. . . .", ". # # #/# # + +/+ + + +"),
    "shakashaka": board("shakashaka", "2 . ./. . ./. . .", ". 5 4/5 + 3/2 3 +"),
}


def stacked(puzzles) -> tuple[np.ndarray, np.ndarray]:
    inputs, labels = zip(*map(tokens, puzzles), strict=True)
    return np.stack(inputs), np.stack(labels)


def test_types_mix_and_rollouts_broadcast(monkeypatch):
    assert set(PUZZLES) == set(TYPES)
    inputs, labels = stacked(PUZZLES.values())
    answers = np.stack([labels, inputs, np.full_like(labels, -5), labels[::-1]], axis=1)
    expected = np.tile([True, False, False, False], (6, 1))
    for chunk in (3, 4096):
        monkeypatch.setattr(ppbench.vocabulary, "_CHUNK", chunk)
        satisfied = ppbench.satisfies_rules(answers.astype(np.int64), inputs[:, None])
        np.testing.assert_array_equal(satisfied, expected)
    assert ppbench.satisfies_rules(labels[0], inputs[0]).shape == ()
    assert ppbench.satisfies_rules(labels[:, None, None], inputs[:, None, None]).shape == (6, 1, 1)


def test_tokens_at_padding_are_ignored():
    inputs, labels = stacked(PUZZLES.values())
    for token in (1, 7, ppbench.VOCAB_SIZE - 1, 12345):
        labels[inputs == ppbench.PAD] = token
        assert ppbench.satisfies_rules(labels, inputs).all()


@pytest.mark.parametrize("pid", TYPES)
def test_givens_walls_and_decided_cells_are_kept(pid):
    """An answer must keep each given, wall and decided cell of its puzzle."""
    inputs, labels = stacked([PUZZLES[pid]])
    for cell in np.flatnonzero(inputs[0] != ppbench.PAD):
        # Every token in this cell, where the puzzle shows the right one.
        shown = inputs.copy()
        shown[0, cell] = labels[0, cell]
        assert ppbench.satisfies_rules(labels, shown).all()
        every = np.arange(-1, ppbench.VOCAB_SIZE + 1)
        answers = np.tile(labels, (len(every), 1))
        answers[:, cell] = every
        satisfied = ppbench.satisfies_rules(answers, shown)
        np.testing.assert_array_equal(satisfied, every == labels[0, cell])


def test_solution_of_a_heyawake_with_other_walls_is_refused():
    puzzle = PUZZLES["heyawake"]
    joined = replace(puzzle, walls=rooms_to_walls(rows("0 0 1 1/0 0 1 1/3 3 3 3")))
    assert ppbench.is_solved(joined)
    answer = ppbench.encode_answer(joined)
    assert not ppbench.satisfies_rules(answer, ppbench.encode_problem(puzzle))


def test_something_must_be_shaded():
    """As pzpr.js has it, also where no rule asks for a shaded cell."""
    walls = rooms_to_walls(rows("0 0"))
    assert ppbench.is_solved(PencilPuzzle("heyawake", rows(". ."), rows("# +"), walls))
    assert not ppbench.is_solved(PencilPuzzle("heyawake", rows(". ."), rows("+ +"), walls))
    assert not ppbench.is_solved(PencilPuzzle("tapa", rows("0 ."), rows(". +")))
    assert not ppbench.is_solved(PencilPuzzle("shakashaka", rows(". ."), rows("+ +")))
    assert ppbench.is_solved(PencilPuzzle("nurikabe", rows("2 ."), rows(". +")))


def test_walls_that_end_inside_a_room_are_crossed():
    """Two such walls make a run of unshaded cells too long, though there is one room only."""
    walls = np.array(rooms_to_walls(rows("0 0 0/0 0 0")))
    answer = rows("+ + +/+ # +")
    puzzle = PencilPuzzle(
        "heyawake", rows(". . ./. . ."), answer, tuple(map(tuple, walls.tolist()))
    )
    assert ppbench.is_solved(puzzle)
    walls[0, :2] |= 2
    walls[0, 1:] |= 8
    assert not ppbench.is_solved(replace(puzzle, walls=tuple(map(tuple, walls.tolist()))))


def test_a_cell_left_open_is_wrong():
    for pid, puzzle in PUZZLES.items():
        inputs, labels = stacked([puzzle])
        cell = puzzle.open_cells[-1]
        row, column = divmod(cell, puzzle.width)
        labels[0, 10 * row + column] = inputs[0, 10 * row + column]
        assert takes_answer(pid, puzzle.problem[row][column])
        assert not ppbench.satisfies_rules(labels, inputs).any()


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda x, y: ppbench.satisfies_rules(y[:, :81], x), r"answers .* shape \(6, 81\)"),
        (lambda x, y: ppbench.satisfies_rules(y.astype(float), x), "float64"),
        (lambda x, y: ppbench.satisfies_rules(y[:3], x), "must broadcast"),
        (lambda x, y: ppbench.satisfies_rules(y, x + 900), r"puzzle 0 has 9\d\d in r1c1"),
        (lambda x, y: ppbench.satisfies_rules(y, x * 0), "rectangle at the top left"),
        (lambda x, y: ppbench.satisfies_rules(y, np.roll(x, 1, -1)), "rectangle at the top left"),
        (lambda x, y: ppbench.satisfies_rules(y, np.where(x == 0, 1, x)), "of one type; puzzle 1"),
        (lambda x, y: ppbench.satisfies_rules(y, 3), "integer tokens"),
    ],
)
def test_malformed_tokens_are_refused(call, says):
    inputs, labels = stacked(PUZZLES.values())
    with pytest.raises(InputError, match=says):
        call(inputs, labels)


def test_a_puzzle_without_an_answer_is_not_checked():
    with pytest.raises(InputError, match="has none; leave it out"):
        ppbench.is_solved(replace(PUZZLES["tapa"], answer=None))
