"""How a small change of the state grows along a rollout: supervision steps, linearised.

The sweep's rollouts are run again, each with one tangent: a direction in the space of (y, z) that
every step maps by its Jacobian and that is then scaled to norm 1. The mean logarithm of its growth
over many steps is the largest finite-time Lyapunov exponent of the rollout, per supervision step.
The noise is part of the trajectory: it is added and not differentiated. The tangent starts at
random, and the first steps turn it towards the direction that grows most.

Shape letters: B puzzles, K rollouts, D supervision steps, N lanes, S tokens, L positions,
C channels.

Source: Benettin et al. 1980 (Lyapunov exponents by renormalised tangents).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ptrm_jax import mesh, solver
from ptrm_jax.config import DEFAULT_LANE_TILE
from ptrm_jax.model import TRM, Carry, Params
from ptrm_jax.puzzles import ArrayT, Puzzles

TILES = 3
"""Tiles of each device in one call; progress is reported between calls."""


class Followed(NamedTuple, Generic[ArrayT]):
    """Rollouts, and how their steps change distances.

    Attributes:
      log_growth: [B, K, D] float32, natural logarithm of the tangent's growth in each step.
      move_y: [B, K, D] float32, root mean square over L and C of y_t - y_{t-1}; y_0 is the initial
        carry, and the root mean square of a state is 1.
      move_z: [B, K, D] float32, the same for z.
      answers: [B, K, D, S] int32.
      q_logit: [B, K, D] float32.
      finite: [B, K, D] bool, whether the logits and Q of the step are finite.
      y: [B, K, L, C] float32, after the last step.
    """

    log_growth: ArrayT
    move_y: ArrayT
    move_z: ArrayT
    answers: ArrayT
    q_logit: ArrayT
    finite: ArrayT
    y: ArrayT


def jvp(
    fn: Callable[[Any], tuple[Any, Any]], primal: Any, tangent: Any
) -> tuple[tuple[Any, Any], Any]:
    """`jax.jvp`, also for functions that only have a VJP.

    The network's products have custom VJPs, which `jax.jvp` refuses. A VJP is linear in its
    cotangent, and the VJP of this linear map, its transpose, is the JVP.

    Args:
      fn: primal -> (out, other), where `out` is differentiated.
      primal: a pytree of arrays.
      tangent: the same.

    Returns:
      (out, other), and the tangent of `out`.
    """
    out, pullback, other = jax.vjp(fn, primal, has_aux=True)
    zero = jax.tree.map(jnp.zeros_like, out)
    _, push = jax.vjp(lambda cotangent: pullback(cotangent)[0], zero)
    return (out, other), push(tangent)[0]


def lane_norms(tree: Any) -> jax.Array:
    """Euclidean norm of each lane, over all leaves of a pytree of [N, ...] arrays: [N] float32."""
    squares = [
        jnp.sum(jnp.square(x.astype(jnp.float32)).reshape(x.shape[0], -1), axis=1)
        for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def unit(tree: Any) -> Any:
    """A pytree of [N, ...] arrays with every lane scaled to norm 1; lanes of 0 stay 0."""
    norm = lane_norms(tree)
    norm = jnp.where(norm > 0, norm, 1.0)
    return jax.tree.map(
        lambda x: x / norm.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype),
        tree,
    )


def grow(
    step: Callable[[Any, jax.Array], tuple[Any, Any]], state: Any, tangent: Any, times: jax.Array
) -> tuple[Any, Any, Any, jax.Array]:
    """A trajectory with one tangent per lane.

    Args:
      step: (state, time) -> (state, what to keep of the step); lanes must be independent.
      state: pytree of [N, ...] arrays.
      tangent: the same.
      times: [D], passed to `step` in turn.

    Returns:
      The last state; what each step kept, with leading axis D; the move of each leaf of the state
      in each step, root mean square over all but lanes, [D, N]; the logarithm of the growth of the
      tangent in each step, [D, N] float32, -inf where nothing of it is left.
    """

    def turn(carry: tuple[Any, Any], time: jax.Array) -> tuple[tuple[Any, Any], Any]:
        state, tangent = carry
        (new, kept), tangent = jvp(lambda state: step(state, time), state, tangent)
        move = jax.tree.map(
            lambda a, b: (
                lane_norms(a.astype(jnp.float32) - b.astype(jnp.float32))
                / float(np.sqrt(a[0].size))
            ),
            new,
            state,
        )
        return (new, unit(tangent)), (kept, move, jnp.log(lane_norms(tangent)))

    (state, _), (kept, move, log_growth) = lax.scan(turn, (state, unit(tangent)), times)
    return state, kept, move, log_growth


def follow(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    rollouts: Sequence[int] | np.ndarray,
    depth: int,
    sigma: float,
    lane_tile: int = DEFAULT_LANE_TILE,
    devices: Sequence[jax.Device] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Followed[np.ndarray]:
    """Rollouts of `solve`, noise on z before every step, each with one tangent.

    Every step is linearised, which costs several times the work of `solve`. The tangent starts with
    normal entries in y and z, which depend on key, puzzle and rollout and are independent of the
    noise.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key.
      puzzles: B puzzles.
      rollouts: ids, K.
      depth: D.
      sigma: noise scale.
      lane_tile: lanes that go through the network together.
      devices: where to run; all local devices by default.
      progress: called with the rollout-steps just finished.

    Returns:
      Arrays on the host.

    Raises:
      InputError: as `solve`.
    """
    devices = tuple(devices) if devices is not None else mesh.local_devices()
    ids = solver.check_solve(model, params, key, puzzles, sigma, 1, np.asarray(rollouts))
    lanes = solver.make_lanes(len(puzzles.index), np.asarray(ids))
    num_lanes, chunk = len(lanes.row), TILES * lane_tile * len(devices)
    run = _spread(model, depth, lane_tile, devices)
    parts = []
    for start in range(0, num_lanes, chunk):
        # One shape, so one program: the last call repeats the last lane.
        which = np.minimum(np.arange(start, start + chunk), num_lanes - 1)
        batch = jax.tree.map(lambda x: np.asarray(x, np.int32), puzzles.take(lanes.row[which]))
        part = run(
            (params, jax.random.key_data(key), jnp.float32(sigma)), (batch, lanes.rollout[which])
        )
        count = min(chunk, num_lanes - start)
        parts.append([x[:count] for x in part])
        progress(count * depth)
    whole = (np.concatenate(fields) for fields in zip(*parts, strict=True))
    return Followed(*(x.reshape(len(puzzles.index), -1, *x.shape[1:]) for x in whole))


@functools.lru_cache(maxsize=8)
def _spread(
    model: TRM, depth: int, lane_tile: int, devices: tuple[jax.Device, ...]
) -> Callable[..., Followed]:
    """Over devices: ((params, key data, sigma), (puzzles, rollouts) of N lanes) -> Followed."""

    def run_tile(
        params: Params, key: jax.Array, sigma: jax.Array, puzzles: Puzzles, rollout: jax.Array
    ) -> Followed:
        def step(carry: Carry, t: jax.Array) -> tuple[Carry, tuple[jax.Array, ...]]:
            carry, heads = solver.step(
                model,
                params,
                key,
                carry,
                puzzles,
                rollout=rollout,
                t=t,
                sigma=sigma,
                lane_tile=lane_tile,
            )
            return carry, solver.read_heads(heads)

        def start(index: jax.Array, rollout: jax.Array) -> Carry:
            shape = (model.config.length, model.config.hidden_size)
            direction = solver.random_direction(shape, key, index, rollout)
            return jax.tree.map(lambda x: x.astype(model.precision.dtype), direction)

        carry, (answers, q_logits, finite), move, log_growth = grow(
            step,
            solver.initial_carry(model, params, lane_tile),
            jax.vmap(start)(puzzles.index, rollout),
            jnp.arange(1, depth + 1, dtype=jnp.int32),
        )
        by_step = (log_growth, move.y, move.z, answers, q_logits, finite)
        fields = [*(jnp.swapaxes(x, 0, 1) for x in by_step), carry.y.astype(jnp.float32)]
        return Followed(*fields)

    def run(shared: Any, lanes: tuple[Puzzles, jax.Array]) -> Followed:
        params, key_data, sigma = shared
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return solver.map_tiles(lambda tile: run_tile(params, key, sigma, *tile), lanes, lane_tile)

    return mesh.map_lanes(run, devices, tile=lane_tile)
