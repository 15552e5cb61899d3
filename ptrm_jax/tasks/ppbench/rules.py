"""The rules of the six types, on stacks of boards: [N, H, W] arrays to [N] bool.

Boards are given as codes. A clue is `NO_CLUE`, `NO_NUMBER` (a black cell without a number, an
island of any size) or a number; for tapa it is the place in `records.tapa_clues`. A state is the
place of its symbol in `records.STATES`, 0 where the cell is undecided or takes no answer.

The rules are those that PPBench's verifier, pzpr.js, checks. Beyond the rules as they are usually
told it asks of heyawake and tapa for a shaded cell and of shakashaka for a triangle. It does not
ask that empty cells be marked; here every cell that takes an answer must be decided.
"""

from functools import cache

import numpy as np
from scipy import ndimage

from ptrm_jax.tasks import sudoku as sudoku_task
from ptrm_jax.tasks.ppbench.records import (
    BOTTOM,
    IN_PLANE,
    OPEN,
    RIGHT,
    STATES,
    Record,
    rooms_of,
    takes_answer,
    tapa_clues,
)

NO_CLUE = -2
NO_NUMBER = -1

_SHADED = 1
_WHITE = 1  # of shakashaka, whose triangles are 2 to 5


def is_solved(record: Record) -> bool:
    """Whether the answer of the puzzle, of any size, satisfies all rules.

    Raises:
        ValueError: the puzzle has no answer.
    """
    if record.answer is None:
        raise ValueError(
            f"a puzzle must have an answer to be checked; {record.name or 'this one'} has none; "
            "solve it first"
        )
    clues = [[clue_code(record.pid, given) for given in row] for row in record.problem]
    states = [[STATES[record.pid].index(symbol) for symbol in row] for row in record.answer]
    walls = None if record.walls is None else np.array([record.walls])
    return bool(check(record.pid, np.array([clues]), np.array([states]), walls)[0])


def clue_code(pid: str, given: str) -> int:
    """The code of a given; see the module."""
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
        states: [N, H, W] integer codes, all of them ones that the type has.
        walls: [N, H, W] integer masks, for heyawake.
    """
    if pid == "sudoku":
        return _sudoku(clues, states)
    # Cells with a given take no answer, but for the numbers of rooms.
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
            # Light that comes along the rows or columns, and goes on up to a black cell.
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
    shaded = [bool(ring >> bit & 1) for bit in range(8)]
    if all(shaded):
        lengths = [8]
    else:
        # Read from an empty cell on, so that no run is cut.
        start = shaded.index(False)
        text = "".join("#" if cell else " " for cell in shaded[start:] + shaded[:start])
        lengths = [len(run) for run in text.split()] or [0]
    if len(lengths) != len(runs):
        return False
    for run in runs:
        if run != "-":
            if int(run) not in lengths:
                return False
            lengths.remove(int(run))
    return True


def _shakashaka(clues: np.ndarray, states: np.ndarray) -> np.ndarray:
    triangles = states > _WHITE
    right = triangles.any((1, 2)) & _neighbours_match(clues, triangles)
    # A cell is cut by its diagonals into four quarters, and white ones are joined into areas. Three
    # pixels a side stand for a cell: quarters on the sides, corners where two quarters meet.
    quarters = QUARTERS[np.where(clues == NO_CLUE, states, 0)]
    top, right_side, bottom, left = np.moveaxis(quarters, -1, 0)
    corners = (left & top, top & right_side, left & bottom, bottom & right_side)
    middle = np.zeros_like(top)
    pixels = np.stack(
        [corners[0], top, corners[1], left, middle, right_side, corners[2], bottom, corners[3]], -1
    )
    count, height, width = clues.shape
    pixels = pixels.reshape(count, height, width, 3, 3).swapaxes(2, 3)
    areas, num_areas = ndimage.label(pixels.reshape(count, 3 * height, 3 * width), IN_PLANE)
    areas = areas.reshape(count, height, 3, width, 3)
    board, rows, columns, side = np.nonzero(quarters)
    area = areas[board, rows, _SIDES[side, 0], columns, _SIDES[side, 1]]

    # An area fills a box around it, upright or turned by 45 degrees, exactly when it has the size
    # of the box. Lengths are in half cells: a quarter has the size 1.
    size = np.bincount(area, minlength=num_areas + 1)
    down_right = np.stack([2 * rows, 2 * columns], -1)[:, None] + _TRIANGLES[side]
    y, x = down_right[..., 0], down_right[..., 1]
    upright = _extent(y, area, num_areas) * _extent(x, area, num_areas)
    # Along the diagonals lengths grow by the root of 2, and sizes double.
    turned = _extent(y + x, area, num_areas) * _extent(y - x, area, num_areas)
    is_rectangle = (size == upright) | (2 * size == turned)
    right[board[~is_rectangle[area]]] = False
    return right


QUARTERS = np.array(
    [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], bool
)
"""[6, 4]: whether the top, right, bottom and left quarter of a cell is white, by state of
shakashaka; 0 stands for black."""

_SIDES = np.array([[0, 1], [1, 2], [2, 1], [1, 0]])  # the pixels of the quarters
# The corners of the quarters, (down, right) in half cells from the upper left corner.
_TRIANGLES = np.array(
    [
        [[0, 0], [0, 2], [1, 1]],
        [[0, 2], [2, 2], [1, 1]],
        [[2, 0], [2, 2], [1, 1]],
        [[0, 0], [2, 0], [1, 1]],
    ]
)


def _extent(points: np.ndarray, area: np.ndarray, num_areas: int) -> np.ndarray:
    """Length of each area along an axis: points [n, 3] of areas [n] to [num_areas + 1]."""
    low = np.full(num_areas + 1, np.iinfo(np.int64).max)
    high = np.full(num_areas + 1, np.iinfo(np.int64).min)
    np.minimum.at(low, area, points.min(1))
    np.maximum.at(high, area, points.max(1))
    low[0] = high[0] = 0  # no area
    return high - low


def _neighbours_match(clues: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Whether each number is that of the marked cells orthogonally beside it: [N] bool."""
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
    # Each area lies in one board, so boards are counted by the areas' first cells.
    _, first = np.unique(areas, return_index=True)
    boards = first[-count:] // marked[0].size if count else np.zeros(0, int)
    return np.bincount(boards, minlength=len(marked)) <= 1
