"""Random puzzles from given ones on the device: symmetries of Sudoku and of grids, extra clues.

Each function takes ONE puzzle, tokens [S] int32, and a typed JAX key, holds no Python control flow
over values and so runs under `jax.jit` and `jax.vmap`. What it draws depends on its key alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.tasks.maze import dihedral_cells
from ptrm_jax.tasks.sudoku import BLANK, FIRST_DIGIT, Board

Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""``augment(key, inputs, labels) -> (inputs, labels)``, one symmetry for both, [S] int32."""


def sudoku_augment(board: Board) -> Augment:
    """Draws one of the symmetries of a Sudoku board, uniformly.

    The group permutes the digits, the bands, the rows within each band, the stacks, the columns
    within each stack, and, where boxes are square, transposes the board. It maps puzzles to puzzles
    and their solutions to the solutions. Pads and blanks stay pads and blanks.
    """
    n, box_rows, box_cols = board.size, board.box_rows, board.box_cols

    def line_order(key: jax.Array, lines_per_box: int) -> jax.Array:
        """Which old row (or column) stands in each new one: [n]."""
        band_key, line_key = jax.random.split(key)
        bands = jax.random.permutation(band_key, n // lines_per_box)
        lines = jnp.tile(jnp.arange(lines_per_box), (n // lines_per_box, 1))
        lines = jax.random.permutation(line_key, lines, axis=1, independent=True)
        return (bands[:, None] * lines_per_box + lines).reshape(n)

    def augment(
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

    return augment


def dihedral_augment(height: int, width: int) -> Augment:
    """Draws one of the rotations and reflections that keep the shape of a grid, uniformly.

    There are 8 for a square and 4 otherwise. A maze with one shortest path keeps a right label.
    With several, the turned label is still a shortest path, but in general not the one that
    `maze.label` picks: that tie-break does not turn with the maze.
    """
    table = np.asarray(dihedral_cells(height, width), np.int32)

    def augment(
        key: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        cells = jnp.asarray(table)[jax.random.randint(key, (), 0, len(table))]
        return inputs[cells], labels[cells]

    return augment


def show_clues(
    key: jax.Array, inputs: jax.Array, labels: jax.Array, max_extra: int | jax.Array
) -> jax.Array:
    """A Sudoku with up to `max_extra` of its blank cells filled in from the solution: [S] int32.

    Args:
        key: typed key.
        inputs: [S] int32 puzzle.
        labels: [S] int32 solution.
        max_extra: at least 0, may be traced. The number of cells is uniform in 0..max_extra; where
            fewer are blank, all of them are shown. The cells are drawn uniformly.
    """
    count_key, order_key = jax.random.split(key)
    count = jax.random.randint(count_key, (), 0, max_extra + 1)
    order = jax.random.permutation(order_key, len(inputs))
    blank = inputs[order] == BLANK
    shown = blank & (jnp.cumsum(blank) <= count)  # the first `count` blanks in this order
    return inputs.at[order].set(jnp.where(shown, labels[order], inputs[order]))
