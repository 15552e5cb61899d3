"""The solver's noise: every random number that a rollout uses is drawn here.

Keys are a chain of `fold_in`, so the noise depends only on the run's key, the puzzle's index, the
rollout and the step: not on K, the order of puzzles, the batch, the tile, the device or the host.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ptrm_jax.config import NoiseOn
from ptrm_jax.model import Carry, rounded
from ptrm_jax.puzzles import Array


class Noise(NamedTuple):
    """What determines the noise of the T lanes of a tile.

    Attributes:
      key: typed threefry key of the run.
      index: [T] int32, the puzzles' rows in their data set.
      rollout: [T] int32 rollout ids.
      sigma: [] float32 noise scale.
    """

    key: jax.Array
    index: jax.Array  # type: ignore[assignment]  # a tuple's method
    rollout: jax.Array
    sigma: jax.Array


def noise_key(
    key: jax.Array, index: Array | int, rollout: Array | int, t: Array | int
) -> jax.Array:
    """Key of the noise before step t (1..D) of a rollout of the puzzle at data-set row `index`."""
    return _fold(key, index, rollout, t)


def langevin_key(
    key: jax.Array, index: Array | int, rollout: Array | int, t: Array | int, n: Array | int
) -> jax.Array:
    """Key of Langevin update n (1..N) after step t of one rollout: a stream separate from noise."""
    return _fold(noise_key(key, index, rollout, t), 2, n)


def _fold(key: jax.Array, *data: Array | int) -> jax.Array:
    for value in data:
        key = jax.random.fold_in(key, value)
    return key


def _normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # float32 for every compute dtype: a bfloat16 draw is another stream.
    return jax.random.normal(key, shape, jnp.float32)


def add_noise(state: jax.Array, eps: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """state + sigma * eps: the noise is scaled in float32, cast to the dtype of `state`, added.

    Args:
      state: [..., L, C]; its root mean square is 1 after a norm, the unit of sigma.
      eps: [..., L, C] float32 standard normal.
      sigma: scalar noise scale.

    Source: PTRM Figure 4, `z += eps`. The paper does not state the dtype of the noise.
    """
    return rounded(state + rounded((sigma * eps).astype(state.dtype)))


def perturb(carry: Carry, noise: Noise, t: jax.Array, noise_on: NoiseOn) -> Carry:
    """Adds the noise of step t to every position of a tile's carry, prefix included.

    Args:
      carry: y and z, [L, T, C] each.
      noise: of the tile.
      t: number of the step that follows, from 1; scalar, or [T], one for each lane.
      noise_on: the state that gets noise; "z" in the paper's algorithm.
    """

    def of_lane(carry: Carry, index: jax.Array, rollout: jax.Array, t: jax.Array) -> Carry:
        key = noise_key(noise.key, index, rollout, t)
        z_key, y_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)

        def noisy(state: jax.Array, state_key: jax.Array) -> jax.Array:
            return add_noise(state, _normal(state_key, state.shape), noise.sigma)

        return Carry(
            y=noisy(carry.y, y_key) if noise_on in ("y", "both") else carry.y,
            z=noisy(carry.z, z_key) if noise_on in ("z", "both") else carry.z,
        )

    in_lanes = jax.vmap(of_lane, in_axes=(1, 0, 0, _axis(t)), out_axes=1)
    return in_lanes(carry, noise.index, noise.rollout, t)


def langevin_noise(noise: Noise, t: jax.Array, n: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Normal draws of Langevin update n after step t, [L, T, C] float32; `shape` is [L, C]."""
    keys = jax.vmap(
        lambda index, rollout, t: langevin_key(noise.key, index, rollout, t, n),
        in_axes=(0, 0, _axis(t)),
    )
    draw = functools.partial(_normal, shape=shape)
    return jax.vmap(draw, out_axes=1)(keys(noise.index, noise.rollout, t))


def _axis(t: jax.Array) -> int | None:
    """The lane axis of a step number: none of a scalar."""
    return 0 if t.ndim else None


def random_direction(
    shape: tuple[int, int], key: jax.Array, index: jax.Array, rollout: jax.Array
) -> Carry:
    """A direction in the space of one lane's carry: standard normal entries, [L, C] float32 each.

    A function of key, puzzle and rollout, from the stream of step 0, which no noise uses.
    """
    key = noise_key(key, index, rollout, jnp.int32(0))
    z, y = (_normal(jax.random.fold_in(key, i), shape) for i in (0, 1))
    return Carry(y=y, z=z)
