"""Symmetries of Sudoku: canonical forms, the split that they decide, random images for training.

numba compiles the canonical forms; it is imported at the first call.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.tasks.sudoku.boards import FIRST_DIGIT, board_for
from ptrm_jax.tasks.sudoku.rules import solved_puzzles
from ptrm_jax.tasks.symmetry import Augment


def canonical(inputs: Any, labels: Any) -> np.ndarray:
    """A representative of each puzzle's equivalence class: [B, 2S] uint8.

    Puzzles are equivalent if they become equal by renaming digits, permuting bands (rows of boxes),
    rows in a band, stacks (columns of boxes) and columns in a stack, and by transposing the board
    if its boxes are square (4x4 and 9x9). Two puzzles are equivalent exactly when these rows are
    equal, and their solutions are exactly when the first S values are.

    The first S values are the lexicographically least of all transformed solutions, in digits 1 to
    n; they begin with 1, 2, ..., n. The other S values are 1 for a clue and 0 for a blank, the
    least of all that belong to this solution. A 9x9 puzzle takes 35 microseconds.

    Args:
      inputs: [B, S] integer, puzzles with one solution each, which is not checked.
      labels: [B, S] integer, the solutions.

    Raises:
      InputError: shapes differ or are no boards, a token of `inputs` is neither blank nor digit, or
        a label does not solve its puzzle.
    """
    from ptrm_jax.tasks.sudoku import kernels  # imports numba, which takes 0.2 s

    board, inputs, labels = solved_puzzles(inputs, labels)
    forms = np.empty((len(inputs), 2 * board.num_cells), np.uint8)
    kernels.canonical_forms(kernels.symmetries(board), inputs, labels, forms)
    return forms


def puzzle_keys(inputs: Any, labels: Any) -> np.ndarray:
    """A 64-bit hash of the `canonical` form of each puzzle: [B] uint64, the same on all machines.

    Equivalent puzzles have equal keys. The probability that any two of a million inequivalent
    puzzles share a key is 3e-8. For arguments and errors see `canonical`.
    """
    from ptrm_jax.tasks.sudoku import kernels

    forms = canonical(inputs, labels)
    keys = np.empty(len(forms), np.uint64)
    kernels.hashes(forms, keys)
    return keys


def in_test_split(inputs: Any, labels: Any) -> np.ndarray:
    """Whether each minimal puzzle belongs to the test split of `generate`: [B] bool.

    A hash assigns one class in eight to the test split. On 9x9 it is the hash of the `canonical`
    solution, so training and test puzzles have different solutions whatever their clues are,
    minimal or not. Solved 4x4 and 6x6 boards have only 2 and 49 classes; there it is the hash of
    the `canonical` puzzle, and solutions are shared. Of the 36 classes of minimal 4x4 puzzles 4 are
    in the test split.

    For arguments and errors see `canonical`; pass 4x4 and 6x6 puzzles without extra clues.
    """
    from ptrm_jax.tasks.sudoku import kernels

    forms = canonical(inputs, labels)
    members = np.empty(len(forms), bool)
    kernels.in_test(forms, members)
    return members


def augment(num_cells: int) -> Augment:
    """A function that draws one of the symmetries of a board of `num_cells` cells, uniformly.

    The group permutes the digits, the bands, the rows within each band, the stacks, the columns
    within each stack, and, if boxes are square, transposes the board. It maps puzzles to puzzles
    and their solutions to the solutions. Pads and blanks stay pads and blanks.
    """
    board = board_for(num_cells)
    n, box_rows, box_cols = board.size, board.box_rows, board.box_cols

    def line_order(key: jax.Array, lines_per_box: int) -> jax.Array:
        """Which old row (or column) each new one is: [n]."""
        band_key, line_key = jax.random.split(key)
        bands = jax.random.permutation(band_key, n // lines_per_box)
        lines = jnp.tile(jnp.arange(lines_per_box), (n // lines_per_box, 1))
        lines = jax.random.permutation(line_key, lines, axis=1, independent=True)
        return (bands[:, None] * lines_per_box + lines).reshape(n)

    def draw_one(
        key: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        digit_key, row_key, column_key, transpose_key = jax.random.split(key, 4)
        digits = jax.random.permutation(digit_key, n) + FIRST_DIGIT
        tokens = jnp.concatenate([jnp.arange(FIRST_DIGIT), digits]).astype(inputs.dtype)
        rows, columns = line_order(row_key, box_rows), line_order(column_key, box_cols)
        cells = rows[:, None] * n + columns[None, :]
        if box_rows == box_cols:
            cells = jnp.where(jax.random.bernoulli(transpose_key), cells.T, cells)
        cells = cells.reshape(-1)
        return tokens[inputs[cells]], tokens[labels[cells]]

    return draw_one
