"""Lanes, which are (puzzle, rollout) pairs, and the tiles of constant size in which they run.

All tiles have one shape, so the shapes of the arithmetic, and with them the bits of a rollout, do
not depend on how many rollouts or puzzles run beside it.
"""

import functools
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.model import TRM, Carry, Heads, Params, recur
from ptrm_jax.puzzles import ArrayT


class Lanes(NamedTuple, Generic[ArrayT]):
    """Lane i is rollout `rollout[i]` of the puzzle in row `row[i]` of a batch.

    Attributes:
      row: [N] int32.
      rollout: [N] int32.
    """

    row: ArrayT
    rollout: ArrayT


def make_lanes(num_puzzles: int, rollouts: ArrayT) -> Lanes[ArrayT]:
    """All pairs of B puzzles and the K rollout ids given, puzzle-major: N = B * K lanes.

    Of numpy arrays they are made by numpy: outside of jit, JAX would compile every operation.
    """
    xp: Any = np if isinstance(rollouts, np.ndarray) else jnp
    ids = xp.asarray(rollouts, xp.int32)
    return Lanes(
        row=xp.repeat(xp.arange(num_puzzles, dtype=xp.int32), len(ids)),
        rollout=xp.tile(ids, num_puzzles),
    )


def map_tiles(fn: Callable[[Any], Any], batch: Any, tile: int) -> Any:
    """Maps fn over tiles of `tile` rows of a pytree with leading axis N; the last tile is padded.

    Padding repeats the last row, so it cannot fail; its results are dropped.
    """
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    padded = -(-num_rows // tile) * tile

    def fold(x: jax.Array) -> jax.Array:
        if padded > num_rows:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], padded - num_rows, axis=0)])
        return x.reshape(-1, tile, *x.shape[1:])

    out = jax.lax.map(fn, jax.tree.map(fold, batch))
    return jax.tree.map(lambda x: x.reshape(padded, *x.shape[2:])[:num_rows], out)


def swap_lanes(tree: Any) -> Any:
    """[L, T, ...] -> [T, L, ...] and back, for every leaf."""
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


class TileModel(NamedTuple):
    """The network on a tile of T lanes, lane axis second: states are [L, T, C].

    With positions first, the position mixing of an mlp_t block is one plain product
    [M, L] x [L, T * C].
    """

    embed: Callable[..., jax.Array]
    deep_recursion: Callable[[Carry, jax.Array], Carry]
    heads: Callable[[jax.Array], Heads]
    initial_carry: Callable[[int], Carry]
    apply: Callable[..., Any]
    L_cycles: int
    seq_len: int


def tile_model(model: TRM, params: Params) -> TileModel:
    """The model's parts, each for a tile."""
    apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
    f: Callable[..., Any] = functools.partial(apply, method=TRM.f)

    def initial_carry(num_lanes: int) -> Carry:
        carry = apply(method=TRM.initial_carry)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], num_lanes, x.shape[1])), carry
        )

    return TileModel(
        embed=jax.vmap(functools.partial(apply, method=TRM.embed), out_axes=1),
        deep_recursion=functools.partial(
            recur,
            f if model.arrangement == "accelerator" else jax.vmap(f, in_axes=1, out_axes=1),
            H_cycles=model.config.H_cycles,
            L_cycles=model.config.L_cycles,
        ),
        heads=jax.vmap(functools.partial(apply, method=TRM.heads), in_axes=1),
        initial_carry=initial_carry,
        apply=apply,
        L_cycles=model.config.L_cycles,
        seq_len=model.config.seq_len,
    )
