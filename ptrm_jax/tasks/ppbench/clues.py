"""The clues that a solved puzzle can show, and puzzles with more clues than they need."""

from dataclasses import replace

import numpy as np

from ptrm_jax.config import check_int
from ptrm_jax.errors import InputError
from ptrm_jax.tasks.ppbench.puzzle import OPEN, PencilPuzzle, Rows, rooms_of, tapa_clues, to_rows
from ptrm_jax.tasks.ppbench.rules import RING, tapa_table

BLACK = {"lightup": "-", "shakashaka": "5"}
"""Given of a black cell without a number."""


def all_clues(puzzle: PencilPuzzle) -> Rows:
    """The givens of a solved puzzle with all clues that it can show: [height][width].

    Black cells of lightup and shakashaka and rooms of heyawake get their numbers, these in their
    leftmost, then topmost cell unless another cell has it; unshaded cells of tapa their runs;
    cells of sudoku their digits. Nurikabe has one clue for each island already.

    Raises:
      InputError: the puzzle has no answer.
    """
    if puzzle.answer is None:
        raise InputError(
            f"a puzzle must have an answer to show more of it; {puzzle.name or 'this one'} has "
            "none; leave it out"
        )
    problem, answer = np.array(puzzle.problem, object), np.array(puzzle.answer, object)
    if puzzle.pid == "sudoku":
        shown = np.where(problem == OPEN, answer, problem)
    elif puzzle.pid in BLACK:
        shown = np.where(problem == BLACK[puzzle.pid], _numbers_beside(answer), problem)
    elif puzzle.pid == "heyawake":
        shown = _with_numbers_of_rooms(problem, answer == "#", np.array(puzzle.walls))
    elif puzzle.pid == "tapa":
        shown = np.where((problem == OPEN) & (answer != "#"), _runs(answer == "#"), problem)
    else:
        shown = problem
    return to_rows(shown.ravel().tolist(), puzzle.width)


def _numbers_beside(answer: np.ndarray) -> np.ndarray:
    """How many of the neighbours of each cell are bulbs or triangles: [height, width] object."""
    grid = np.pad(np.isin(answer, ["#", "2", "3", "4", "5"]).astype(int), 1)
    beside = grid[:-2, 1:-1] + grid[2:, 1:-1] + grid[1:-1, :-2] + grid[1:-1, 2:]
    return beside.astype(str).astype(object)


def _with_numbers_of_rooms(
    problem: np.ndarray, shaded: np.ndarray, walls: np.ndarray
) -> np.ndarray:
    rooms = rooms_of(walls)
    counts = np.bincount(rooms.ravel(), weights=shaded.ravel()).astype(int)
    shown = problem.copy()
    for room in set(range(len(counts))).difference(rooms[problem != OPEN].tolist()):
        column, row = np.argwhere(rooms.T == room)[0]
        shown[row, column] = str(counts[room])
    return shown


def _runs(shaded: np.ndarray) -> np.ndarray:
    """The clue that each cell would have: [height, width] object."""
    height, width = shaded.shape
    grid = np.pad(shaded, 1).astype(int)
    ring = sum(
        grid[1 + down : 1 + down + height, 1 + right : 1 + right + width] << bit
        for bit, (down, right) in enumerate(RING)
    )
    exact = [index for index, clue in enumerate(tapa_clues()) if "-" not in clue]
    first = tapa_table()[exact].argmax(0)  # of each ring, the only one that it fits
    return np.array(tapa_clues(), object)[exact][first[ring]]


def with_more_clues(puzzle: PencilPuzzle, number: int, rng: np.random.Generator) -> PencilPuzzle:
    """The puzzle with `number` more of its clues, or with all of them if there are fewer.

    The solution remains the only one. A cell that gets a clue of tapa is no longer to be decided.

    Args:
      puzzle: solved; its moves are dropped.
      number: at least 0.
      rng: of the choice among the clues, each as likely as another.

    Raises:
      InputError: the puzzle has no answer, or number is negative.
    """
    check_int("number", number, 0)
    full = all_clues(puzzle)
    given = np.array(puzzle.problem, object)
    missing = np.argwhere(given != np.array(full, object))
    for row, column in rng.permutation(missing)[:number].tolist():
        given[row, column] = full[row][column]
    return with_givens(puzzle, given)


def with_givens(puzzle: PencilPuzzle, given: np.ndarray) -> PencilPuzzle:
    """The solved puzzle with other givens, [height, width] symbols; its moves are dropped."""
    answer = np.array(puzzle.answer, object)
    if puzzle.pid == "tapa":
        answer[given != OPEN] = OPEN
    problem, solution = (to_rows(cells.ravel().tolist(), puzzle.width) for cells in (given, answer))
    return replace(puzzle, problem=problem, answer=solution, moves=None)
