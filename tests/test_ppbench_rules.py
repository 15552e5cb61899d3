"""The rules of the six types: boards made by hand, brute force, and many boards in one call."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from ppbench_boards import board, random_puzzle, rows

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
    inputs, labels = ppbench.encode_problem(puzzle), ppbench.encode_answer(puzzle)
    assert ppbench.satisfies_rules(labels, inputs) == right


# Brute force: the rules again, cell by cell.


def grid_cells(puzzle: PencilPuzzle) -> list[tuple[int, int]]:
    return list(itertools.product(range(puzzle.height), range(puzzle.width)))


def neighbours(cell, cells):
    row, column = cell
    around = [(row - 1, column), (row, column + 1), (row + 1, column), (row, column - 1)]
    return [other for other in around if other in cells]


def flood(cells, passable=lambda a, b: True):
    """Areas of a set of cells."""
    left, areas = set(cells), []
    while left:
        area, stack = set(), [next(iter(left))]
        while stack:
            cell = stack.pop()
            if cell not in area:
                area.add(cell)
                stack += [other for other in neighbours(cell, left) if passable(cell, other)]
        areas.append(area)
        left -= area
    return areas


def obeys(puzzle: PencilPuzzle) -> bool:
    given = {cell: puzzle.problem[cell[0]][cell[1]] for cell in grid_cells(puzzle)}
    state = {cell: puzzle.answer[cell[0]][cell[1]] for cell in grid_cells(puzzle)}
    marked = {cell for cell, symbol in state.items() if symbol == "#"}
    return globals()[f"obeys_{puzzle.pid}"](puzzle, given, state, marked)


def obeys_lightup(puzzle, given, state, marked):
    white = {cell for cell, symbol in given.items() if symbol == "."}
    for cell in white:
        bulbs = 0
        for step in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            other = (cell[0] + step[0], cell[1] + step[1])
            while other in white:
                bulbs += other in marked
                other = (other[0] + step[0], other[1] + step[1])
        if bulbs > 0 if cell in marked else bulbs == 0:
            return False
    return all(
        symbol in ".-" or int(symbol) == len(marked & set(neighbours(cell, given)))
        for cell, symbol in given.items()
    )


def squares(marked):
    return any({(r, c), (r + 1, c), (r, c + 1), (r + 1, c + 1)} <= marked for r, c in marked)


def obeys_nurikabe(puzzle, given, state, marked):
    if squares(marked) or len(flood(marked)) > 1:
        return False
    for island in flood(set(given) - marked):
        clues = [given[cell] for cell in island if given[cell] != "."]
        if len(clues) != 1 or clues[0] not in ("-", str(len(island))):
            return False
    return True


def obeys_heyawake(puzzle, given, state, marked):
    if not marked or any(set(neighbours(cell, given)) & marked for cell in marked):
        return False
    if len(flood(set(given) - marked)) > 1:
        return False

    def walled(cell, other):
        side = {(-1, 0): 1, (0, 1): 2, (1, 0): 4, (0, -1): 8}
        step = (other[0] - cell[0], other[1] - cell[1])
        return bool(puzzle.walls[cell[0]][cell[1]] & side[step])

    for room in flood(given, lambda a, b: not walled(a, b)):
        for cell in room:
            if given[cell] != "." and int(given[cell]) != len(room & marked):
                return False
    for cell in given:
        for step in ((0, 1), (1, 0)):
            crossed, here = 0, cell
            while here in given and here not in marked:
                after = (here[0] + step[0], here[1] + step[1])
                if crossed > 1:
                    return False
                crossed += after in given and walled(here, after)
                here = after
    return True


def obeys_tapa(puzzle, given, state, marked):
    if not marked or squares(marked) or len(flood(marked)) > 1:
        return False
    for (row, column), symbol in given.items():
        if symbol == ".":
            continue
        ring = [(-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1)]
        text = "".join("#" if (row + r, column + c) in marked else " " for r, c in ring)
        turns = [text[turn:] + text[:turn] for turn in range(8)]
        # Some turn of the ring does not cut a run.
        runs = min((turn.split() for turn in turns), key=len)
        lengths = sorted(len(run) for run in runs) or [0]
        wanted = symbol.split(",")
        if not any(
            all(want in ("-", str(length)) for want, length in zip(wanted, order, strict=True))
            for order in itertools.permutations(lengths)
            if len(order) == len(wanted)
        ):
            return False
    return True


def obeys_shakashaka(puzzle, given, state, marked):
    """By areas: each fills the box around it, upright or turned by 45 degrees."""
    triangles = {cell for cell, symbol in state.items() if symbol in "2345"}
    if not triangles:
        return False
    for cell, symbol in given.items():
        if symbol not in ".5" and int(symbol) != len(set(neighbours(cell, given)) & triangles):
            return False

    # Quarters of cells, by the side on which they lie, and the sides that are black.
    opposite = {(-1, 0): (1, 0), (1, 0): (-1, 0), (0, 1): (0, -1), (0, -1): (0, 1)}
    black = {"+": [], "5": [(-1, 0), (0, -1)], "4": [(-1, 0), (0, 1)]}
    black |= {"3": [(1, 0), (0, 1)], "2": [(1, 0), (0, -1)], ".": list(opposite)}
    left = {(cell, side) for cell in state for side in opposite if side not in black[state[cell]]}
    while left:
        area, stack = set(), [left.pop()]
        while stack:
            (row, column), side = quarter = stack.pop()
            area.add(quarter)
            beyond = ((row + side[0], column + side[1]), opposite[side])
            turned = [
                ((row, column), other) for other in opposite if side not in (other, opposite[other])
            ]
            found = left & {beyond, *turned}
            left -= found
            stack += found
        points = set()
        for (row, column), (down, right) in area:
            y, x = 2 * row + 1, 2 * column + 1  # the middle of the cell
            points |= {
                (y, x),
                (y + down + right, x + right + down),
                (y + down - right, x + right - down),
            }
        boxes = []
        for turn, double in ((lambda y, x: (y, x), 1), (lambda y, x: (y + x, y - x), 2)):
            ends = np.array([turn(*point) for point in points])
            boxes.append(np.ptp(ends, axis=0).prod() == double * len(area))
        if not any(boxes):
            return False
    return True


SIZES = {
    "lightup": [(3, 4), (2, 5)],
    "nurikabe": [(3, 4), (4, 3)],
    "heyawake": [(3, 4), (4, 3)],
    "tapa": [(3, 4), (4, 3)],
    "shakashaka": [(2, 3), (3, 2)],
}


@pytest.mark.parametrize("pid", SIZES)
def test_every_answer_to_small_puzzles(pid):
    """All ways to decide the cells of random boards, against the rules cell by cell."""
    rng = np.random.default_rng(0)
    agreed = [0, 0]
    for height, width in SIZES[pid] * 3:
        puzzle = random_puzzle(pid, height, width, rng)
        cells = list(puzzle.open_cells)
        symbols = STATES[pid][1:]
        choices = list(itertools.product(symbols, repeat=len(cells)))
        picked = rng.choice(len(choices), min(len(choices), 200), replace=False)
        for index in picked:
            flat = np.full(height * width, ".", dtype=object)
            flat[cells] = choices[index]
            answer = tuple(map(tuple, flat.reshape(height, width)))
            solved = replace(puzzle, answer=answer)
            expected = obeys(solved)
            assert ppbench.is_solved(solved) == expected
            agreed[expected] += 1
    assert agreed[False] > 500


def near_solutions(pid: str, rng: np.random.Generator) -> PencilPuzzle:
    """A right answer of 4x5 cells, with clues that fit, perhaps with one or two cells changed."""
    while True:
        puzzle = random_puzzle(pid, 4, 5, rng)
        solution = next(generator.solutions(puzzle), None)
        if solution is not None:
            break
    answer = [list(row) for row in solution]
    for cell in rng.choice(puzzle.open_cells, rng.integers(0, 3)).tolist():
        answer[cell // 5][cell % 5] = str(rng.choice(list(STATES[pid][1:])))
    return replace(puzzle, answer=tuple(map(tuple, answer)))


@pytest.mark.parametrize("pid", SIZES)
def test_answers_that_are_right_or_nearly(pid):
    """Right answers, which are rare at random, come from a solver."""
    pytest.importorskip("pysat", reason="needs python-sat")
    rng = np.random.default_rng(1)
    puzzles = [near_solutions(pid, rng) for _ in range(40)]
    expected = [obeys(puzzle) for puzzle in puzzles]
    assert 10 < sum(expected) < 39
    assert [ppbench.is_solved(puzzle) for puzzle in puzzles] == expected
    num_encoded = 0
    for puzzle, right in zip(puzzles, expected, strict=True):
        try:
            inputs, labels = stacked([puzzle])
        except ppbench.VocabularyError:
            continue  # the number of a room that is not in a corner
        assert ppbench.satisfies_rules(labels, inputs).tolist() == [right]
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
    puzzles = list(puzzles)
    inputs = np.stack([ppbench.encode_problem(puzzle) for puzzle in puzzles])
    return inputs, np.stack([ppbench.encode_answer(puzzle) for puzzle in puzzles])


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
        tokens = np.arange(-1, ppbench.VOCAB_SIZE + 1)
        answers = np.tile(labels, (len(tokens), 1))
        answers[:, cell] = tokens
        satisfied = ppbench.satisfies_rules(answers, shown)
        np.testing.assert_array_equal(satisfied, tokens == labels[0, cell])


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
