"""Random symmetries of grids on the device, for training: a new image for every new puzzle.

An `Augment` takes ONE puzzle, tokens [S] int32, and a typed JAX key, holds no Python control flow
over values and so runs under `jax.jit` and `jax.vmap`. What it draws depends on its key alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Augment = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
"""``augment(key, inputs, labels) -> (inputs, labels)``, one symmetry for both, [S] int32."""


def dihedral_cells(height: int, width: int) -> np.ndarray:
    """The rotations and reflections that keep the shape of a grid: [G, S] int64.

    ``tokens[..., dihedral_cells(height, width)[g]]`` is image g, image 0 the grid itself. G is 8
    for a square and 4 otherwise.
    """
    cells = np.arange(height * width).reshape(height, width)
    images = [np.rot90(start, turns) for start in (cells, cells.T) for turns in range(4)]
    return np.stack([image.ravel() for image in images if image.shape == cells.shape])


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
