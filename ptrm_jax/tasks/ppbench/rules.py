"""The rules of the six types, on stacks of boards: [N, H, W] arrays to [N] bool.

Boards are given as codes. A clue is `NO_CLUE`, `NO_NUMBER` (a black cell without a number, an
island of any size) or a number; for tapa it is the index into `puzzle.tapa_clues`. A state is the
index of its symbol in `puzzle.STATES`, 0 if the cell is undecided or takes no answer.

The rules are those that PPBench's verifier, pzpr.js, checks. Beyond the usual rules it requires a
shaded cell of heyawake and tapa and a triangle of shakashaka. It does not require that empty cells
be marked; here every cell that takes an answer must be decided.
"""

from functools import cache

import numpy as np
from scipy import ndimage

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import sudoku as sudoku_task
from ptrm_jax.tasks.ppbench.puzzle import (
    BOTTOM,
    IN_PLANE,
    OPEN,
    RIGHT,
    STATES,
    PencilPuzzle,
    rooms_of,
    takes_answer,
    tapa_clues,
)

NO_CLUE = -2
NO_NUMBER = -1

_SHADED = 1
_WHITE = 1  # of shakashaka, whose triangles are 2 to 5


def is_solved(puzzle: PencilPuzzle) -> bool:
    """Whether the answer of the puzzle, of any size, satisfies all rules.

    Raises:
      InputError: the puzzle has no answer.
    """
    if puzzle.answer is None:
        raise InputError(
            f"a puzzle must have an answer to be checked; {puzzle.name or 'this one'} has none; "
            "leave it out"
        )
    clues = [[clue_code(puzzle.pid, given) for given in row] for row in puzzle.problem]
    states = [[STATES[puzzle.pid].index(symbol) for symbol in row] for row in puzzle.answer]
    walls = None if puzzle.walls is None else np.array([puzzle.walls])
    return bool(check(puzzle.pid, np.array([clues]), np.array([states]), walls)[0])


def clue_code(pid: str, given: str) -> int:
    """The code of a given; see the module's docstring."""
    if given == OPEN:
        return NO_CLUE
    if pid == "tapa":
        return tapa_clues().index(given)
    if given == "-" or (pid == "shakashaka" and given == "5"):
        return NO_NUMBER
    return int(given)


def check(
    pid: str, clues: np.ndarray, states: np.ndarray, walls: np.ndarray | None = None
) -> np.ndarray:
    """Whether boards of one type satisfy all its rules: [N] bool.

    Args:
      pid: the type.
      clues: [N, H, W] integer codes.
      states: [N, H, W] integer codes of states of the type.
      walls: [N, H, W] integer masks, for heyawake.
    """
    if pid == "sudoku":
        return _sudoku(clues, states)
    # Cells with a given take no answer, except those with the number of a room.
    answerable = np.full(clues.shape, True) if takes_answer(pid, "0") else clues == NO_CLUE
    right = ((states != 0) == answerable).all((1, 2))
    if pid == "lightup":
        right &= _lightup(clues, states == _SHADED)
    elif pid == "nurikabe":
        right &= _nurikabe(clues, states == _SHADED)
    elif pid == "heyawake":
        right &= _heyawake(clues, states == _SHADED, walls)
    elif pid == "tapa":
        right &= _tapa(clues, states == _SHADED)
    else:
        right &= _shakashaka(clues, states)
    return right


def _sudoku(clues: np.ndarray, states: np.ndarray) -> np.ndarray:
    first = sudoku_task.FIRST_DIGIT - 1
    givens = np.where(clues == NO_CLUE, sudoku_task.BLANK, clues + first)
    # An undecided cell becomes a blank, which no solution has.
    flat = (len(states), -1)
    return sudoku_task.satisfies_rules((states + first).reshape(flat), givens.reshape(flat))


def _lightup(clues: np.ndarray, bulbs: np.ndarray) -> np.ndarray:
    black = clues != NO_CLUE
    lit = bulbs.copy()
    right = _neighbours_match(clues, bulbs)
    for axis in (1, 2):
        for reverse in (False, True):
            # Light travels along the rows or columns up to a black cell.
            seen = np.zeros_like(bulbs.take(0, axis))
            cells = range(bulbs.shape[axis])
            for index in reversed(cells) if reverse else cells:
                here = (slice(None),) * axis + (index,)
                right &= ~(seen & bulbs[here]).any(1)
                lit[here] |= seen
                seen = (seen | bulbs[here]) & ~black[here]
    return right & (lit | black).all((1, 2))


def _nurikabe(clues: np.ndarray, shaded: np.ndarray) -> np.ndarray:
    right = _are_connected(shaded) & ~_has_square(shaded)
    islands, count = ndimage.label(~shaded, IN_PLANE)
    sizes = np.bincount(islands.ravel(), minlength=count + 1)
    num_clues = np.bincount(islands[clues != NO_CLUE], minlength=count + 1)
    right &= (shaded | (num_clues == 1)[islands]).all((1, 2))
    return right & ((clues < 0) | (sizes[islands] == clues)).all((1, 2))


def _heyawake(clues: np.ndarray, shaded: np.ndarray, walls: np.ndarray | None) -> np.ndarray:
    assert walls is not None
    right = shaded.any((1, 2)) & _are_connected(~shaded)
    right &= ~(shaded[:, 1:] & shaded[:, :-1]).any((1, 2))
    right &= ~(shaded[:, :, 1:] & shaded[:, :, :-1]).any((1, 2))
    rooms = rooms_of(walls)
    counts = np.bincount(rooms.ravel(), weights=shaded.ravel())
    right &= ((clues == NO_CLUE) | (counts[rooms] == clues)).all((1, 2))
    for axis, bit in ((1, BOTTOM), (2, RIGHT)):
        # Walls crossed since the last shaded cell.
        crossed = np.zeros(shaded.take(0, axis).shape, int)
        for index in range(shaded.shape[axis]):
            crossed[shaded.take(index, axis)] = 0
            right &= (crossed < 2).all(1)
            crossed += (walls.take(index, axis) & bit > 0) & ~shaded.take(index, axis)
    return right


def _tapa(clues: np.ndarray, shaded: np.ndarray) -> np.ndarray:
    right = shaded.any((1, 2)) & _are_connected(shaded) & ~_has_square(shaded)
    grid = np.pad(shaded, ((0, 0), (1, 1), (1, 1)))
    height, width = shaded.shape[1:]
    ring = np.zeros(shaded.shape, int)
    for bit, (row, column) in enumerate(RING):
        ring |= grid[:, 1 + row :, 1 + column :][:, :height, :width].astype(int) << bit
    fits = tapa_table()[np.maximum(clues, 0), ring]
    return right & ((clues == NO_CLUE) | fits).all((1, 2))


RING = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
"""The eight cells around one, clockwise: (rows down, columns right)."""


@cache
def tapa_table() -> np.ndarray:
    """Whether the ring of a cell fits a clue: [42, 256] bool, bit i of a ring is ``RING[i]``."""
    clues = [clue.split(",") for clue in tapa_clues()]
    return np.array([[_fits(runs, ring) for ring in range(256)] for runs in clues])


def _fits(runs: list[str], ring: int) -> bool:
    lengths = _runs(ring) or [0]
    if len(lengths) != len(runs):
        return False
    for run in runs:
        if run != "-":
            if int(run) not in lengths:
                return False
            lengths.remove(int(run))
    return True


def _runs(ring: int) -> list[int]:
    """Lengths of the runs of set bits among eight in a ring."""
    bits = f"{ring:08b}"
    start = bits.find("0")
    if start < 0:
        return [8]
    # Start at a zero, so that no run is cut.
    return [len(run) for run in (bits[start:] + bits[:start]).split("0") if run]


def _shakashaka(clues: np.ndarray, states: np.ndarray) -> np.ndarray:
    triangles = states > _WHITE
    right = triangles.any((1, 2)) & _neighbours_match(clues, triangles)
    # A white area is a rectangle exactly if all its corners are right angles. Its corners lie at
    # points of the grid, and without reflex corners it has no hole and no more than four corners.
    # So around each point, white eighths of a turn form runs of 2, 4 or all 8.
    quarters = QUARTERS[np.where(clues == NO_CLUE, states, 0)]
    quarters = np.pad(quarters, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = states.shape[1:]
    rings = np.zeros((len(states), height + 1, width + 1), int)
    for bit, (row, column, quarter) in enumerate(EIGHTHS):
        cells = quarters[:, 1 + row :, 1 + column :, quarter][:, : height + 1, : width + 1]
        rings |= cells.astype(int) << bit
    return right & _right_angled()[rings].all((1, 2))


QUARTERS = np.array(
    [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], bool
)
"""[6, 4]: whether the top, right, bottom and left quarter of a cell is white, by state of
shakashaka; 0 stands for black."""

EIGHTHS = (
    *((-1, 0, 3), (-1, 0, 2), (0, 0, 0), (0, 0, 3)),
    *((0, -1, 1), (0, -1, 0), (-1, -1, 2), (-1, -1, 1)),
)
"""The eighths around the upper left corner of a cell, clockwise from above: rows down and columns
right to the cell that contains it, and the index of its quarter in `QUARTERS`."""


@cache
def _right_angled() -> np.ndarray:
    """Whether all runs in a ring of white eighths span 90, 180 or 360 degrees: [256] bool."""
    return np.array([set(_runs(ring)) <= {2, 4, 8} for ring in range(256)])


def _neighbours_match(clues: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Whether each number counts the marked cells orthogonally beside it: [N] bool."""
    grid = np.pad(marked.astype(int), ((0, 0), (1, 1), (1, 1)))
    beside = grid[:, :-2, 1:-1] + grid[:, 2:, 1:-1] + grid[:, 1:-1, :-2] + grid[:, 1:-1, 2:]
    return ((clues < 0) | (beside == clues)).all((1, 2))


def _has_square(marked: np.ndarray) -> np.ndarray:
    """Whether four marked cells form a 2x2: [N] bool."""
    pairs = marked[:, 1:] & marked[:, :-1]
    return (pairs[:, :, 1:] & pairs[:, :, :-1]).any((1, 2))


def _are_connected(marked: np.ndarray) -> np.ndarray:
    """Whether the marked cells are one area, or none: [N] bool."""
    areas, count = ndimage.label(marked, IN_PLANE)
    # Each area lies in one board, that of its first cell.
    _, first = np.unique(areas, return_index=True)
    boards = first[-count:] // marked[0].size if count else np.zeros(0, int)
    return np.bincount(boards, minlength=len(marked)) <= 1
