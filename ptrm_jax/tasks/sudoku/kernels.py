"""Compiled parts of `ptrm_jax.tasks.sudoku`: exact search, random puzzles, canonical forms.

Written for numba, which makes about 70 times as many puzzles per second as the same search in plain
Python, installs as a wheel and needs no compiler. This module is imported at the first call that
needs it, since importing numba takes 0.2 s. Compiling takes 3 s for the solver and 5 s more for the
generator; the machine code is then cached beside this file or in the user's cache directory.

A state of the search holds `places`, [n, bands] int64: bit c of ``places[d, b]`` says that digit
d + 1 may be in cell c of band b. A band is a row of boxes, at most 27 cells, and one operation on a
word acts on all of them. Random numbers are SplitMix64, implemented here because the streams of
numba and numpy may change between versions.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from ptrm_jax.tasks.sudoku.boards import BLANK, FIRST_DIGIT, Board

CONTRADICTION, STUCK, SOLVED = range(3)
ANY, TRAIN, TEST = range(3)  # splits


class Geometry(NamedTuple):
    """A board as the search needs it."""

    size: int  # n
    band_rows: int
    bands: int
    band: int  # the cells of a band, as bits
    row: int  # the cells of the first row of a band
    units: np.ndarray  # [2 * band_rows] int64, the rows and the boxes of a band
    unseen: np.ndarray  # [S, bands] int64, the cells that share no unit with a cell, and itself


class Symmetries(NamedTuple):
    """A board as canonical forms need it: its P orders of columns that keep stacks together.

    They are sorted by the columns moved to place 0 and to place `box_cols`, then by the others.
    """

    size: int  # n
    band_rows: int
    square: bool  # whether boxes are square, so that the board can be transposed
    orders: np.ndarray  # [P, n] int64, the column moved to a place
    places: np.ndarray  # [P, n] int64, the place a column is moved to
    first: np.ndarray  # [n, n] int64, by the columns at 0 and box_cols: the first such order
    following: np.ndarray  # [P, n] int64, by order and c: the next to differ at 0, ..., c, box_cols


@functools.cache
def geometry(board: Board) -> Geometry:
    """The `Geometry` of a board."""
    num_bands = board.size // board.box_rows
    band_cells = board.num_cells // num_bands
    weights = 1 << np.arange(band_cells)

    def words(masks: np.ndarray) -> np.ndarray:
        """[..., S] bool to [..., bands] int64."""
        return masks.reshape(*masks.shape[:-1], num_bands, band_cells) @ weights

    members = np.zeros((len(board.units), board.num_cells), bool)
    np.put_along_axis(members, board.units, True, axis=1)
    seen = np.stack([members[members[:, cell]].any(axis=0) for cell in range(board.num_cells)])
    rows, _, boxes = np.split(words(members)[:, 0], 3)
    return Geometry(
        size=board.size,
        band_rows=board.box_rows,
        bands=num_bands,
        band=(1 << band_cells) - 1,
        row=(1 << board.size) - 1,
        units=np.concatenate([rows[: board.box_rows], boxes[: board.box_rows]]),
        unseen=words(~seen | np.eye(board.num_cells, dtype=bool)),
    )


@functools.cache
def symmetries(board: Board) -> Symmetries:
    """The `Symmetries` of a board."""
    n, width = board.size, board.box_cols
    stacks = np.split(np.arange(n), n // width)
    orders = np.array(
        [
            np.concatenate(columns)
            for order in itertools.permutations(stacks)
            for columns in itertools.product(*map(itertools.permutations, order))
        ]
    )
    orders = orders[np.lexsort([*orders.T[:0:-1], orders[:, width], orders[:, 0]])]
    first = np.full((n, n), len(orders))
    np.minimum.at(first, (orders[:, 0], orders[:, width]), np.arange(len(orders)))
    following = np.empty_like(orders)
    for c in range(n):
        beginnings = np.column_stack([orders[:, width], orders[:, : c + 1]])
        block = len(orders) // len(np.unique(beginnings, axis=0))
        following[:, c] = (np.arange(len(orders)) // block + 1) * block
    return Symmetries(
        size=n,
        band_rows=board.box_rows,
        square=board.box_rows == width,
        orders=orders,
        places=np.argsort(orders, axis=1),
        first=first,
        following=following,
    )


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, compiled when first called; it releases the GIL."""
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no directory can hold the cache: each process compiles again
        return numba.njit(nogil=True)(function)


# Random numbers.

_U = np.uint64
_STEP, _FACTOR_1, _FACTOR_2 = _U(0x9E3779B97F4A7C15), _U(0xBF58476D1CE4E5B9), _U(0x94D049BB133111EB)
_27, _30, _31, _32, _61 = _U(27), _U(30), _U(31), _U(32), _U(61)


@_compiled
def _mix(z):
    """The output function of SplitMix64, a bijection of 64 bits."""
    z = (z ^ (z >> _30)) * _FACTOR_1
    z = (z ^ (z >> _27)) * _FACTOR_2
    return z ^ (z >> _31)


@_compiled
def _below(rng, n):
    """A random integer from 0 to n - 1; its bias of n / 2**32 does not matter here."""
    rng[0] += _STEP
    return np.int64(((_mix(rng[0]) >> _32) * _U(n)) >> _32)


@_compiled
def _shuffle(rng, order):
    """Makes `order` a random order of 0, 1, ..., whatever it was."""
    for k in range(len(order)):
        other = _below(rng, k + 1)
        order[k] = order[other]
        order[other] = k


# Search.

# 2 is a primitive root of 37: the powers up to 2**35 leave different remainders, so that a table
# gives the position of a single bit.
_POSITION = np.zeros(37, np.int64)
_POSITION[[(1 << k) % 37 for k in range(36)]] = np.arange(36)


@_compiled
def _propagate(geometry, state):
    """Fills cells that have one candidate and digits that have one place in a unit, repeatedly.

    Args:
      geometry: of the board.
      state: [2n + 1, bands] int64, changed in place: `places`; the places of each digit when it
        was last searched for units in which it has one place; the cells whose digit has been
        removed from all cells that share a unit with them.

    Returns:
      `CONTRADICTION`, `SOLVED`, or `STUCK` if neither is shown.
    """
    n, rows, bands = geometry.size, geometry.band_rows, geometry.bands
    units, unseen = geometry.units, geometry.unseen
    while True:
        changed, solved = False, True
        for b in range(bands):
            once = twice = 0  # cells with at least 1, 2 candidates
            for d in range(n):
                twice |= once & state[d, b]
                once |= state[d, b]
            if once != geometry.band:
                return CONTRADICTION
            new = once & ~twice & ~state[2 * n, b]
            if new:
                changed = True
                state[2 * n, b] |= new
                for d in range(n):
                    cells = state[d, b] & new
                    while cells:
                        bit = cells & -cells
                        cells ^= bit
                        cell = b * n * rows + _POSITION[bit % 37]
                        for other in range(bands):
                            state[d, other] &= unseen[cell, other]
            solved &= state[2 * n, b] == geometry.band
        if changed:
            continue
        if solved:
            return SOLVED

        for d in range(n):
            same = True
            once = twice = 0  # columns with at least 1, 2 places
            for b in range(bands):
                where = state[d, b]
                same &= where == state[n + d, b]
                state[n + d, b] = where
                for r in range(rows):
                    columns = (where >> (n * r)) & geometry.row
                    twice |= once & columns
                    once |= columns
            if same:
                continue
            if once != geometry.row:
                return CONTRADICTION
            for b in range(bands):
                where = state[d, b]
                only = 0
                for r in range(rows):
                    only |= where & (once & ~twice) << (n * r)
                for k in range(2 * rows):
                    cells = where & units[k]
                    if cells == 0:
                        return CONTRADICTION
                    if cells & (cells - 1) == 0:
                        only |= cells
                only &= ~state[2 * n, b]
                if only:
                    changed = True
                    for other in range(n):
                        if other != d:
                            state[other, b] &= ~only
        if not changed:
            return STUCK


@_compiled
def _branch(geometry, state, rng):
    """A digit, a band and a bit to try: a candidate of a cell that has the fewest.

    With a non-empty `rng` it is drawn from all of these. Otherwise it is the first; but if no cell
    has only two candidates, it is one of the two places of some digit, if there is such a digit,
    since contradictory boards would otherwise be searched for seconds.
    """
    n, units, shuffled = geometry.size, geometry.units, len(rng) > 0
    digit = band = bit = ties = 0
    fewest = n + 1
    for b in range(geometry.bands):
        once = twice = thrice = 0
        for d in range(n):
            thrice |= twice & state[d, b]
            twice |= once & state[d, b]
            once |= state[d, b]
        pairs = twice & ~thrice
        cells = pairs if pairs else geometry.band & ~state[2 * n, b]
        while cells and (fewest > 2 or shuffled):
            low = cells & -cells
            cells ^= low
            count = 0
            for d in range(n):
                count += state[d, b] & low != 0
            if count < fewest:
                fewest, ties = count, 0
            if count == fewest:
                ties += 1
                if ties == 1 or (shuffled and _below(rng, ties) == 0):
                    band, bit = b, low
    if fewest > 2 and not shuffled:
        for d in range(n):
            for b in range(geometry.bands):
                for k in range(len(units)):
                    more = state[d, b] & units[k]
                    more &= more - 1
                    if more and more & (more - 1) == 0:
                        return d, b, more
    skip = _below(rng, fewest) if shuffled else 0
    while skip or not state[digit, band] & bit:
        skip -= state[digit, band] & bit != 0
        digit += 1
    return digit, band, bit


@_compiled
def search(geometry, places, limit, rng):
    """The number of solutions within `places`, up to `limit`; `places` becomes the last one found.

    The order of solutions is random if `rng` is a [1] uint64 state, fixed if it is empty. Pass
    `limit` as an int64: numba would compile everything again for a literal.
    """
    n, bands = geometry.size, geometry.bands
    states = np.empty((n * n + 1, 2 * n + 1, bands), np.int64)  # every level fills a cell
    for k in range(2 * n + 1):
        for b in range(bands):
            states[0, k, b] = places[k, b] if k < n else 0
    found = level = 0
    while level >= 0:
        status = _propagate(geometry, states[level])
        if status == STUCK:
            digit, band, bit = _branch(geometry, states[level], rng)
            for k in range(2 * n + 1):
                for b in range(bands):
                    states[level + 1, k, b] = states[level, k, b]
            # The next level places the digit; this one then continues without that candidate.
            for other in range(n):
                if other != digit:
                    states[level + 1, other, band] &= ~bit
            states[level, digit, band] &= ~bit
            level += 1
            continue
        if status == SOLVED:
            found += 1
            for d in range(n):
                for b in range(bands):
                    places[d, b] = states[level, d, b]
            if found == limit:
                break
        level -= 1
    return found


@_compiled
def solve(geometry, tokens, limit, solution):
    """`search` for tokens [S], integer; writes a solution, if there is one, to `solution`."""
    n = geometry.size
    band_cells = n * geometry.band_rows
    places = np.zeros((n, geometry.bands), np.int64)
    for cell, token in enumerate(tokens):
        for d in range(n):
            if token == BLANK or token == d + FIRST_DIGIT:
                places[d, cell // band_cells] |= 1 << cell % band_cells
    found = search(geometry, places, limit, np.empty(0, np.uint64))
    if found:
        _write(geometry, places, solution)
    return found


@_compiled
def _write(geometry, places, tokens):
    """Writes the tokens of a state in which every cell has one digit."""
    band_cells = geometry.size * geometry.band_rows
    for cell in range(len(tokens)):
        for d in range(geometry.size):
            if places[d, cell // band_cells] >> (cell % band_cells) & 1:
                tokens[cell] = d + FIRST_DIGIT


# Canonical forms.


@_compiled
def canonical(symmetries, puzzle, solution, best):
    """Writes the canonical form of one puzzle, as `sudoku.canonical` defines it, to `best`.

    The first row is always 1, 2, ..., n, and the second begins with box_cols + 1. So for each
    choice of these two rows and of the column at 0, the column at box_cols is given. The orders of
    the others are tried in turn; if one makes the second row greater than the best so far, all
    orders with the same beginning are skipped.
    """
    n, rows = symmetries.size, symmetries.band_rows
    orders, places = symmetries.orders, symmetries.places
    first_order, following = symmetries.first, symmetries.following
    boards = np.empty((2, n, n), np.int64)  # digits, and whether they are clues
    names = np.empty((2, n), np.int64)  # digits are renamed, the rest is not
    column_of = np.empty(n, np.int64)  # by digit, in the first row
    matches = np.empty(n, np.int64)  # by column of the second row, where the first has its digit
    row_order = np.empty(n, np.int64)
    for cell in range(2 * n * n):
        best[cell] = 255
    for d in range(n):
        names[1, d] = d
    for transposed in range(1 + symmetries.square):
        for r in range(n):
            for c in range(n):
                cell = c * n + r if transposed else r * n + c
                boards[0, r, c] = solution[cell] - FIRST_DIGIT
                boards[1, r, c] = puzzle[cell] != BLANK
        for first in range(n):
            for c in range(n):
                column_of[boards[0, first, c]] = c
            for second in range(first // rows * rows, first // rows * rows + rows):
                if second == first:
                    continue
                for c in range(n):
                    matches[c] = column_of[boards[0, second, c]]
                for start in range(n):
                    k = first_order[start, matches[start]]
                    end = following[k, 0]
                    while k < end:
                        # Inlined: as a function, counting references of its arguments would take
                        # most of the time.
                        c = reach = excess = 0
                        while excess == 0 and c < n:
                            best_place = np.int64(best[n + c]) - 1
                            place = places[k, matches[orders[k, c]]]
                            reach = max(reach, c, min(place, best_place))
                            excess = place - best_place
                            c += 1
                        if excess > 0:
                            k = following[k, reach]
                            continue
                        for d in range(n):
                            names[0, d] = places[k, column_of[d]] + 1
                        _order_rows(rows, names[0], boards[0, :, orders[k, 0]], row_order)
                        _keep_least(boards, names, row_order, orders[k], best)
                        k += 1


@_compiled
def _order_rows(band_rows, names, column, order):
    """The order of rows, in bands and of bands, in which the names of `column` are least."""
    n = len(names)
    row_of = np.empty(n, np.int64)  # by name
    for r in range(n):
        row_of[names[column[r]] - 1] = r
    length = used = 0
    for name in range(n):
        band = row_of[name] // band_rows
        if not used >> band & 1:
            used |= 1 << band
            for other in range(name, n):
                if row_of[other] // band_rows == band:
                    order[length] = row_of[other]
                    length += 1


@_compiled
def _keep_least(boards, names, row_order, column_order, best):
    """Replaces `best` by the renamed and reordered boards if these are less."""
    less = False
    cell = 0
    for k in range(len(boards)):
        for r in row_order:
            for c in column_order:
                value = names[k, boards[k, r, c]]
                if not less and value > best[cell]:
                    return
                less |= value < best[cell]
                if less:
                    best[cell] = value
                cell += 1


@_compiled
def canonical_forms(symmetries, inputs, labels, forms):
    """`canonical` of each row; `forms` is [B, 2S] uint8."""
    for i in range(len(inputs)):
        canonical(symmetries, inputs[i], labels[i], forms[i])


@_compiled
def _hash(values):
    """64 bits that depend on all values and on their order."""
    state = _U(0)
    for value in values:
        state = _mix((state ^ _U(value)) + _STEP)
    return state


@_compiled
def hashes(forms, out):
    """A hash of each canonical form; `out` is [B] uint64."""
    for i in range(len(forms)):
        out[i] = _hash(forms[i])


@_compiled
def _by_solution(num_cells):
    """Whether solutions determine the split; 4x4 and 6x6 boards have too few of them."""
    return num_cells == 81


@_compiled
def _in_test(form):
    num_cells = len(form) // 2
    decisive = form[:num_cells] if _by_solution(num_cells) else form
    return _hash(decisive) >> _61 == _U(0)  # one in eight


@_compiled
def in_test(forms, out):
    """Whether each canonical form belongs to the test split; `out` is [B] bool."""
    for i in range(len(forms)):
        out[i] = _in_test(forms[i])


# Generation.


@_compiled
def draw(geometry, symmetries, run, first, redraw, extra_clues, split, inputs, labels):
    """Puzzles first, first + 1, ... of a run, one per row of `inputs` and `labels`, [B, S] int32.

    Args:
      run: uint64, the seed.
      first: the index of the first puzzle.
      redraw: how often these puzzles were drawn before.
      extra_clues: solution cells to reveal beyond those of the minimal puzzle.
      split: `ANY`, `TRAIN` or `TEST`.
    """
    num_cells = geometry.size**2
    by_solution = _by_solution(num_cells)
    rng = np.empty(1, np.uint64)
    cells = np.empty(num_cells, np.int64)
    form = np.empty(2 * num_cells, np.uint8)
    for i in range(len(inputs)):
        rng[0] = _mix(_mix(run ^ _U(first + i)) ^ _U(redraw))
        puzzle, solution = inputs[i], labels[i]
        while True:
            _fill(geometry, rng, solution)
            # Checked before the clues are removed, which takes most of the time.
            if by_solution and not _belongs(symmetries, solution, solution, split, form):
                continue
            _shuffle(rng, cells)
            _remove_clues(geometry, cells, solution, puzzle)
            if by_solution or _belongs(symmetries, puzzle, solution, split, form):
                break
        _shuffle(rng, cells)
        more = extra_clues
        for cell in cells:
            if more and puzzle[cell] == BLANK:
                puzzle[cell] = solution[cell]
                more -= 1


@_compiled
def _belongs(symmetries, puzzle, solution, split, form):
    """Whether a puzzle belongs to the split; `form`, [2S] uint8, is overwritten."""
    if split == ANY:
        return True
    canonical(symmetries, puzzle, solution, form)
    return _in_test(form) == (split == TEST)


@_compiled
def _fill(geometry, rng, solution):
    """A random solved board."""
    places = np.empty((geometry.size, geometry.bands), np.int64)
    for d in range(geometry.size):
        for b in range(geometry.bands):
            places[d, b] = geometry.band
    search(geometry, places, np.int64(1), rng)
    _write(geometry, places, solution)


@_compiled
def _remove_clues(geometry, order, solution, puzzle):
    """Blanks cells in the given order wherever the solution stays unique."""
    n, bands = geometry.size, geometry.bands
    band_cells = n * geometry.band_rows
    clues = np.zeros((n, bands), np.int64)
    blank = np.zeros(bands, np.int64)
    places = np.empty((n, bands), np.int64)
    no_rng = np.empty(0, np.uint64)
    for cell, token in enumerate(solution):
        puzzle[cell] = token
        clues[token - FIRST_DIGIT, cell // band_cells] |= 1 << cell % band_cells
    # One pass is enough: a clue that is needed now is still needed once others are removed.
    for cell in order:
        digit, band, bit = solution[cell] - FIRST_DIGIT, cell // band_cells, 1 << cell % band_cells
        clues[digit, band] ^= bit
        # The solution stays unique exactly when no other digit can be in this cell.
        for d in range(n):
            for b in range(bands):
                places[d, b] = clues[d, b] | blank[b]
            if d != digit:
                places[d, band] |= bit
        if search(geometry, places, np.int64(1), no_rng):
            clues[digit, band] ^= bit
        else:
            blank[band] |= bit
            puzzle[cell] = BLANK
