"""Random puzzles made from given ones on the device, for training: symmetries, extra clues.

Each takes ONE puzzle, tokens [S] int32, and a typed JAX key, and has no Python control flow that
depends on values, so it runs under `jax.jit` and `jax.vmap`. Its draw depends only on the key.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

_PAD = 0  # in every task

Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""``augment(key, inputs, labels) -> (inputs, labels)``, one symmetry of both, [S] int32."""


def dihedral_cells(height: int, width: int) -> np.ndarray:
    """The rotations and reflections that keep the shape of a grid: [G, S] int64.

    ``tokens[..., dihedral_cells(height, width)[g]]`` is image g; image 0 is the grid itself. G is 8
    for a square and 4 otherwise.
    """
    cells = np.arange(height * width).reshape(height, width)
    images = [np.rot90(start, turns) for start in (cells, cells.T) for turns in range(4)]
    return np.stack([image.ravel() for image in images if image.shape == cells.shape])


def dihedral_augment(height: int, width: int) -> Augment:
    """A function that draws one of the images of `dihedral_cells`, uniformly.

    If a maze has only one shortest path, the image of its label is the label of its image. If it
    has several, the image of the label is a shortest path, but in general not the one that
    `maze.label` picks, whose tie-break depends on directions.
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
    """A puzzle with up to `max_extra` of its open cells filled in from the solution: [S] int32.

    A cell is open if puzzle and solution differ there: the blanks of a Sudoku, the undecided cells
    of PPBench, whose training puzzles start in a random state on the way to the solution (PTRM A.3,
    which does not say in which order cells are filled).

    Args:
      key: typed key.
      inputs: [S] int32 puzzle.
      labels: [S] int32 solution; padding is never open.
      max_extra: at least 0, may be traced. The number of cells is drawn uniformly from
        0..max_extra, then the cells uniformly. If fewer cells are open, all of them are shown.
    """
    count_key, order_key = jax.random.split(key)
    count = jax.random.randint(count_key, (), 0, max_extra + 1)
    order = jax.random.permutation(order_key, len(inputs))
    is_open = (inputs[order] != labels[order]) & (labels[order] != _PAD)
    shown = is_open & (jnp.cumsum(is_open) <= count)  # the first `count` open ones in this order
    return inputs.at[order].set(jnp.where(shown, labels[order], inputs[order]))
