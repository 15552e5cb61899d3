"""PTRM as pure functions: one supervision step, one noisy step, the whole of Algorithm 1.

This is the only module that draws random numbers, and it knows nothing of devices: distributing
is placing its inputs (`ptrm_jax.mesh`). Work is done in lanes, (puzzle, rollout) pairs, and lanes
run in tiles of one constant size, so that the shapes of the arithmetic, and with them the bits of
a rollout, do not depend on how many rollouts or puzzles run beside it.

Shape letters: B puzzles, K rollouts, D supervision steps, N = B * K lanes, S tokens, L = P + S
positions, C channels, V vocabulary.

Source: PTRM, arXiv 2605.19943, Figure 4 and Section 5.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ptrm_jax.config import (
    DEFAULT_LANE_TILE,
    Langevin,
    LoopSettings,
    NoiseOn,
    NoiseWhen,
    Save,
    check_int,
)
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Carry, Heads, Params, param_shapes, path_name, recur, rounded
from ptrm_jax.puzzles import ArrayT, Puzzles, check_puzzles
from ptrm_jax.solver import selection


class Lanes(NamedTuple, Generic[ArrayT]):
    """Which work to do: lane i is rollout `rollout[i]` of the puzzle in row `row[i]` of a batch.

    Attributes:
      row: [N] int32.
      rollout: [N] int32.
    """

    row: ArrayT
    rollout: ArrayT


class Trajectory(NamedTuple, Generic[ArrayT]):
    """Per supervision step, after it; a field is None unless `Save` asked for it.

    Leading axes are [N, D] from `run_lanes` and [B, K, D] in a `Solution`.

    Attributes:
      finite: [...] bool, logits and Q of the step are finite; always there.
      answers: [..., S] int32.
      q_logits: [...] float32 logits.
      y: [..., L, C] in the compute dtype.
      z: [..., L, C] in the compute dtype.
    """

    finite: ArrayT
    answers: ArrayT | None
    q_logits: ArrayT | None
    y: ArrayT | None
    z: ArrayT | None


class LaneResults(NamedTuple, Generic[ArrayT]):
    """What N lanes ended with.

    Attributes:
      answers: [N, S] int32.
      q_logits: [N] float32 logits.
      finite: [N] bool, all logits and Q are finite.
      trajectory: per step, or None.
    """

    answers: ArrayT
    q_logits: ArrayT
    finite: ArrayT
    trajectory: Trajectory[ArrayT] | None


class Solution(NamedTuple, Generic[ArrayT]):
    """The chosen answers and the rollouts they were chosen from.

    Attributes:
      answer: [B, S] int32; all 0 (PAD) where no rollout was finite.
      q_logit: [B] float32, the chosen rollout's halt logit; -inf where none was finite.
      rollout: [B] int32, position of the chosen rollout among the K; -1 where none was finite.
      rollout_answers: [B, K, S] int32.
      rollout_q_logits: [B, K] float32 logits.
      rollout_finite: [B, K] bool; a rollout that is not finite is never chosen.
      trajectory: what `save` asked for, with leading axes [B, K, D], or None.
    """

    answer: ArrayT
    q_logit: ArrayT
    rollout: ArrayT
    rollout_answers: ArrayT
    rollout_q_logits: ArrayT
    rollout_finite: ArrayT
    trajectory: Trajectory[ArrayT] | None


# --- Noise -------------------------------------------------------------------------------------


def noise_key(key: jax.Array, index: jax.Array, rollout: jax.Array, t: jax.Array) -> jax.Array:
    """Key of the noise before step t (1..D) of one rollout of the puzzle at data-set row `index`.

    A chain of `fold_in`, so the noise is a function of these four alone: not of K, the order of
    puzzles, the batch, the tile, the device or the host.
    """
    return functools.reduce(jax.random.fold_in, (index, rollout, t), key)


def add_noise(state: jax.Array, eps: jax.Array, sigma: jax.Array | float) -> jax.Array:
    """state + sigma * eps: the noise is scaled in float32, cast to the dtype of `state`, added.

    Args:
      state: [..., L, C]; its root mean square is 1 after a norm, the unit of sigma.
      eps: [..., L, C] float32 standard normal.
      sigma: scalar noise scale.

    Source: PTRM Figure 4, `z += eps`. The dtype of the noise is unstated in the paper.
    """
    return rounded(state + rounded((sigma * eps).astype(state.dtype)))


def _perturb(
    carry: Carry,
    key: jax.Array,
    index: jax.Array,
    rollout: jax.Array,
    t: jax.Array,
    sigma: jax.Array,
    noise_on: NoiseOn,
) -> Carry:
    """Noise on one lane's carry ([L, C] each), the prefix included."""
    key = noise_key(key, index, rollout, t)
    z_key, y_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)

    def noisy(state: jax.Array, state_key: jax.Array) -> jax.Array:
        # float32 for every compute dtype: a bfloat16 draw is another stream.
        return add_noise(state, jax.random.normal(state_key, state.shape, jnp.float32), sigma)

    return Carry(
        y=noisy(carry.y, y_key) if noise_on in ("y", "both") else carry.y,
        z=noisy(carry.z, z_key) if noise_on in ("z", "both") else carry.z,
    )


def random_direction(
    shape: tuple[int, int], key: jax.Array, index: jax.Array, rollout: jax.Array
) -> Carry:
    """A direction in the space of one lane's carry: standard normal entries, [L, C] float32 each.

    Like the noise, a function of key, puzzle and rollout; from the stream of step 0, which no noise
    uses.
    """
    key = noise_key(key, index, rollout, jnp.int32(0))
    z, y = (jax.random.normal(jax.random.fold_in(key, i), shape, jnp.float32) for i in (0, 1))
    return Carry(y=y, z=z)


# --- Langevin dynamics ---------------------------------------------------------------------------


def langevin_update(
    z: jax.Array, gradient: jax.Array | None, xi: jax.Array, step_size: float
) -> jax.Array:
    """z - eta * gradient + sqrt(2 eta) * xi: one step of the unadjusted Langevin algorithm.

    What is added is made in float32, cast to the dtype of z and added, as by `add_noise`.

    Args:
      z: [..., L, C].
      gradient: of the energy at z, like z; None for the control without it.
      xi: [..., L, C] float32 standard normal.
      step_size: eta.

    Source: PTRM, Appendix C.
    """
    move = math.sqrt(2 * step_size) * xi
    if gradient is not None:
        move = move - step_size * gradient.astype(jnp.float32)
    return rounded(z + rounded(move.astype(z.dtype)))


def langevin_chain(
    z: jax.Array,
    gradient: Callable[[jax.Array], jax.Array],
    draw: Callable[[jax.Array], jax.Array],
    langevin: Langevin,
) -> jax.Array:
    """z after N updates; their stationary law goes to exp(-E), normalised, as eta goes to 0.

    Args:
      z: [..., L, C].
      gradient: of the energy, at z; not called without `langevin.gradient`.
      draw: the normal draws of update n = 1..N, float32, like z.
      langevin: N, eta, and whether the gradient counts.
    """

    def update(z: jax.Array, n: jax.Array) -> tuple[jax.Array, None]:
        slope = gradient(z) if langevin.gradient else None
        return langevin_update(z, slope, draw(n), langevin.step_size), None

    z, _ = lax.scan(update, z, jnp.arange(1, langevin.num_updates + 1, dtype=jnp.int32))
    return z


def langevin_key(
    key: jax.Array, index: jax.Array, rollout: jax.Array, t: jax.Array, n: jax.Array
) -> jax.Array:
    """Key of update n (1..N) after step t of one rollout; `noise_key` and no other stream's."""
    return functools.reduce(jax.random.fold_in, (2, n), noise_key(key, index, rollout, t))


# --- Tiles -------------------------------------------------------------------------------------


def _map_tiles(fn: Callable[[Any], Any], batch: Any, tile: int) -> Any:
    """fn over tiles of `tile` rows of a pytree with leading axis N; the last tile is padded.

    Padding repeats the last row, so that it costs time but can neither fail nor be seen.
    """
    num_rows = jax.tree.leaves(batch)[0].shape[0]
    padded = -(-num_rows // tile) * tile

    def fold(x: jax.Array) -> jax.Array:
        if padded > num_rows:
            x = jnp.concatenate([x, jnp.repeat(x[-1:], padded - num_rows, axis=0)])
        return x.reshape(-1, tile, *x.shape[1:])

    out = lax.map(fn, jax.tree.map(fold, batch))
    return jax.tree.map(lambda x: x.reshape(padded, *x.shape[2:])[:num_rows], out)


class _TileModel(NamedTuple):
    """The network on a tile of T lanes, lane axis second: states are [L, T, C].

    Sequence-major, the position mixing of an mlp_t block is one plain product [M, L] x [L, T * C].
    """

    embed: Callable[..., jax.Array]
    deep_recursion: Callable[..., Carry]
    heads: Callable[..., Heads]
    initial_carry: Callable[[int], Carry]
    energy: Callable[..., tuple[jax.Array, jax.Array]]


def _tile_model(model: TRM, params: Params) -> _TileModel:
    apply = functools.partial(model.apply, {"params": params})
    f = jax.vmap(functools.partial(apply, method=TRM.f), in_axes=1, out_axes=1)

    def energy(z: jax.Array, y: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """As `energy` below, of a tile: energies [T], gradients [L, T, C]."""

        def total(z: jax.Array) -> tuple[jax.Array, jax.Array]:
            # Not under vmap: see the head of `ptrm_jax.model`.
            f = functools.partial(apply, method=TRM.f)
            injection = rounded(y + x)
            # Unrolled: a loop would copy what the derivative needs of every turn into one stack.
            for _ in range(model.config.L_cycles):
                z = f(z, injection)
            energies = jax.nn.softplus(-apply(f(y, z), method=TRM.heads).q_logits[:, 0])
            return jnp.sum(energies), energies

        # No lane's energy depends on another's z, so the sum has every lane's own gradient.
        gradient, energies = jax.grad(total, has_aux=True)(z)
        return energies, gradient

    def initial_carry(num_lanes: int) -> Carry:
        carry = apply(method=TRM.initial_carry)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x[:, None], (x.shape[0], num_lanes, x.shape[1])), carry
        )

    return _TileModel(
        embed=jax.vmap(functools.partial(apply, method=TRM.embed), out_axes=1),
        deep_recursion=functools.partial(
            recur, f, H_cycles=model.config.H_cycles, L_cycles=model.config.L_cycles
        ),
        heads=jax.vmap(functools.partial(apply, method=TRM.heads), in_axes=1),
        initial_carry=initial_carry,
        energy=energy,
    )


def _langevin(
    net: _TileModel,
    langevin: Langevin,
    key: jax.Array,
    carry: Carry,
    x: jax.Array,
    lanes: tuple[jax.Array, jax.Array],
    t: jax.Array,
) -> Carry:
    """The updates between step t - 1 and step t of a tile; none before the first step.

    Args:
      net: the network.
      langevin: the updates.
      key: of the run.
      carry: y and z, [L, T, C] each.
      x: [L, T, C].
      lanes: index and rollout, [T] each.
      t: scalar, number of the step that follows.
    """

    def move(carry: Carry) -> Carry:
        def draw(n: jax.Array) -> jax.Array:
            keys = jax.vmap(lambda index, rollout: langevin_key(key, index, rollout, t - 1, n))
            shape = (carry.z.shape[0], carry.z.shape[2])
            normal = functools.partial(jax.random.normal, shape=shape, dtype=jnp.float32)
            return jax.vmap(normal, out_axes=1)(keys(*lanes))

        def gradient(z: jax.Array) -> jax.Array:
            return net.energy(z, carry.y, x)[1]

        return carry._replace(z=langevin_chain(carry.z, gradient, draw, langevin))

    return lax.cond(t > 1, move, lambda carry: carry, carry)


def _lanes_first(tree: Any) -> Any:
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), tree)


# --- Composable level ----------------------------------------------------------------------------


def initial_carry(model: TRM, params: Params, batch_size: int) -> Carry:
    """The carry every puzzle starts from: y and z, [B, L, C] each, in the compute dtype.

    Raises:
      ValueError: batch_size < 1.
    """
    check_int("batch_size", batch_size, 1)
    carry = model.apply({"params": params}, method=TRM.initial_carry)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (batch_size, *x.shape)), carry)


def deep_recursion(
    model: TRM,
    params: Params,
    carry: Carry,
    puzzles: Puzzles,
    *,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> tuple[Carry, Heads]:
    """One supervision step without noise: the carry after it, and what the heads read from it.

    Args:
      model: the network.
      params: its parameters.
      carry: y and z, [B, L, C] each.
      puzzles: B puzzles.
      lane_tile: puzzles that go through the network together.

    Returns:
      carry, and heads with logits [B, S, V] in the compute dtype and q_logits [B, 2] float32.

    Raises:
      ValueError: puzzles or carry that do not fit the model; lane_tile < 1.
    """
    _check_step(model, params, carry, puzzles, lane_tile)
    return _step(model, params, carry, puzzles, None, LoopSettings(lane_tile=lane_tile))


def energy(
    model: TRM,
    params: Params,
    carry: Carry,
    puzzles: Puzzles,
    *,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> tuple[jax.Array, jax.Array]:
    """E(z) of Langevin dynamics, and its gradient.

    E(z) = -log sigmoid(f_Q(y')), y' being what ONE latent recursion makes of (x, y, z): L_cycles
    updates of z, then one of y; the piece that training differentiates. The paper says that the
    gradient flows back through the last latent recursion, and not from which state: this is our
    reading. The recursion moves nothing, only the energy is taken from it.

    Args:
      model: the network.
      params: its parameters.
      carry: y and z, [B, L, C] each.
      puzzles: B puzzles.
      lane_tile: puzzles that go through the network together.

    Returns:
      energies [B] float32; gradients with respect to z, [B, L, C] in the compute dtype.

    Raises:
      ValueError: as `deep_recursion`.

    Source: PTRM, Appendix C.
    """
    _check_step(model, params, carry, puzzles, lane_tile)
    return _energy(model, params, carry, puzzles, lane_tile)


@functools.partial(jax.jit, static_argnames=("model", "lane_tile"))
def _energy(
    model: TRM, params: Params, carry: Carry, puzzles: Puzzles, lane_tile: int
) -> tuple[jax.Array, jax.Array]:
    net = _tile_model(model, params)

    def of_tile(batch: tuple[Carry, Puzzles]) -> tuple[jax.Array, jax.Array]:
        carry, puzzles = _lanes_first(batch[0]), batch[1]
        x = net.embed(puzzles.inputs, puzzles.puzzle_identifiers)
        energies, gradient = net.energy(carry.z, carry.y, x)
        return energies, _lanes_first(gradient)

    return _map_tiles(of_tile, (carry, puzzles), lane_tile)


def step(
    model: TRM,
    params: Params,
    key: jax.Array,
    carry: Carry,
    puzzles: Puzzles,
    *,
    rollout: jax.Array | int,
    t: jax.Array | int,
    sigma: jax.Array | float,
    noise_on: NoiseOn = "z",
    langevin: Langevin | None = None,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> tuple[Carry, Heads]:
    """Noise, then one supervision step: one turn of the loop of Algorithm 1.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key of the run; the same at every step, it is folded, not split.
      carry: y and z, [B, L, C] each.
      puzzles: B puzzles.
      rollout: [B] or scalar, rollout id, from 0.
      t: scalar, number of the step, from 1.
      sigma: scalar noise scale, in units of the latent's root mean square.
      noise_on: "z" (the paper's algorithm), "y" or "both".
      langevin: where t > 1, the updates that follow step t - 1 come first; None for none.
      lane_tile: puzzles that go through the network together.

    Returns:
      As `deep_recursion`.

    Raises:
      ValueError: as `deep_recursion`; also a negative rollout, t < 1, sigma negative or not
        finite, an untyped key.
    """
    _check_step(model, params, carry, puzzles, lane_tile)
    check_key(key)
    check_sigma(sigma)
    settings = LoopSettings(noise_on=noise_on, langevin=langevin, lane_tile=lane_tile)
    _check_at_least("rollout", rollout, 0)
    _check_at_least("t", t, 1)
    num_puzzles = puzzles.index.shape[0]
    if jnp.shape(rollout) not in ((), (num_puzzles,)):
        raise InputError(
            f"rollout must be a scalar or have shape [{num_puzzles}]; got {jnp.shape(rollout)}"
        )
    rollout = jnp.broadcast_to(jnp.asarray(rollout, jnp.int32), (num_puzzles,))
    noise = (key, rollout, jnp.asarray(t, jnp.int32), jnp.asarray(sigma, jnp.float32))
    return _step(model, params, carry, puzzles, noise, settings)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _step(
    model: TRM,
    params: Params,
    carry: Carry,
    puzzles: Puzzles,
    noise: tuple[jax.Array, ...] | None,
    settings: LoopSettings,
) -> tuple[Carry, Heads]:
    net = _tile_model(model, params)
    rollout = jnp.zeros_like(puzzles.index) if noise is None else noise[1]

    def tile_step(batch: tuple[Carry, Puzzles, jax.Array]) -> tuple[Carry, Heads]:
        carry, puzzles, rollout = batch
        x = net.embed(puzzles.inputs, puzzles.puzzle_identifiers)
        if noise is not None:
            key, _, t, sigma = noise
            if settings.langevin is not None:
                lanes = (puzzles.index, rollout)
                carry = _lanes_first(
                    _langevin(net, settings.langevin, key, _lanes_first(carry), x, lanes, t)
                )
            carry = jax.vmap(
                lambda carry, index, rollout: _perturb(
                    carry, key, index, rollout, t, sigma, settings.noise_on
                )
            )(carry, puzzles.index, rollout)
        carry = net.deep_recursion(_lanes_first(carry), x)
        return _lanes_first(carry), net.heads(carry.y)

    return _map_tiles(tile_step, (carry, puzzles, rollout), settings.lane_tile)


# --- Algorithm 1 ---------------------------------------------------------------------------------


def run_lanes(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    lanes: Lanes,
    sigma: jax.Array | float,
    settings: LoopSettings,
) -> LaneResults:
    """The loop of Algorithm 1 for any set of (puzzle, rollout) pairs; nothing is checked.

    The unit from which `solve`, chunks, shards and resumed runs are made: equal lanes give equal
    bits in any company. Memory beyond the results is that of one tile.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key.
      puzzles: B puzzles that `lanes.row` points into.
      lanes: N lanes.
      sigma: scalar noise scale.
      settings: the rest, static.
    """
    net = _tile_model(model, params)
    sigma = jnp.asarray(sigma, jnp.float32)

    def run_tile(lanes: Lanes) -> LaneResults:
        index = puzzles.index[lanes.row]
        x = net.embed(puzzles.inputs[lanes.row], puzzles.puzzle_identifiers[lanes.row])

        def perturb(carry: Carry, t: jax.Array) -> Carry:
            return jax.vmap(
                lambda carry, index, rollout: _perturb(
                    carry, key, index, rollout, t, sigma, settings.noise_on
                ),
                in_axes=(1, 0, 0),
                out_axes=1,
            )(carry, index, lanes.rollout)

        def supervision_step(carry: Carry, t: jax.Array) -> tuple[Carry, Trajectory | None]:
            if settings.langevin is not None:
                pairs = (index, lanes.rollout)
                carry = _langevin(net, settings.langevin, key, carry, x, pairs, t)
            if settings.noise_when == "every":
                carry = perturb(carry, t)
            carry = net.deep_recursion(carry, x)
            return carry, None if settings.save.nothing else snapshot(carry)

        def snapshot(carry: Carry) -> Trajectory:
            save = settings.save
            answers, q_logits, finite = read_heads(net.heads(carry.y))
            states = _lanes_first(carry) if save.latents else Carry(None, None)
            return Trajectory(
                finite=finite,
                answers=answers if save.answers else None,
                q_logits=q_logits if save.q_logits else None,
                y=states.y,
                z=states.z,
            )

        carry = net.initial_carry(lanes.row.shape[0])
        if settings.noise_when == "first":
            carry = perturb(carry, jnp.int32(1))
        carry, trajectory = lax.scan(
            supervision_step, carry, jnp.arange(1, settings.depth + 1, dtype=jnp.int32)
        )
        return LaneResults(*read_heads(net.heads(carry.y)), _lanes_first(trajectory))

    return _map_tiles(run_tile, lanes, settings.lane_tile)


def read_heads(heads: Heads) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Answers [T, S] int32, halt logits [T] float32, finite [T] bool, of the heads of T lanes."""
    answers = jnp.argmax(heads.logits, axis=-1).astype(jnp.int32)
    q_logits = heads.q_logits[:, 0]
    finite = jnp.all(jnp.isfinite(heads.logits), axis=(1, 2)) & jnp.isfinite(q_logits)
    return answers, q_logits, finite


def make_lanes(num_puzzles: int, rollouts: jax.Array | np.ndarray) -> Lanes:
    """All pairs of B puzzles and the K rollout ids given, puzzle-major: N = B * K lanes."""
    rollouts = jnp.asarray(rollouts, jnp.int32)
    return Lanes(
        row=jnp.repeat(jnp.arange(num_puzzles, dtype=jnp.int32), rollouts.shape[0]),
        rollout=jnp.tile(rollouts, num_puzzles),
    )


def choose(
    results: LaneResults, num_puzzles: int, select: selection.Selection = selection.best_q
) -> Solution:
    """The Solution of puzzle-major lane results: N = B * K lanes folded to [B, K] and chosen from.

    Source: PTRM Figure 4, last line, for `select=best_q`.
    """
    folded = jax.tree.map(lambda x: x.reshape(num_puzzles, -1, *x.shape[1:]), results)
    answers, q_logits, finite, trajectory = folded
    rollout = select(answers, q_logits, finite)
    # A selection of the user's own must not bring a non-finite rollout in.
    chosen = jnp.maximum(rollout, 0)[:, None]
    valid = (rollout >= 0) & jnp.take_along_axis(finite, chosen, axis=1)[:, 0]
    answer = jnp.take_along_axis(answers, chosen[:, :, None], axis=1)[:, 0]
    q_logit = jnp.take_along_axis(q_logits, chosen, axis=1)[:, 0]
    return Solution(
        answer=jnp.where(valid[:, None], answer, 0),
        q_logit=jnp.where(valid, q_logit, -jnp.inf),
        rollout=jnp.where(valid, rollout, -1),
        rollout_answers=answers,
        rollout_q_logits=q_logits,
        rollout_finite=finite,
        trajectory=trajectory,
    )


def solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    num_rollouts: int = 100,
    depth: int = 16,
    sigma: jax.Array | float = 0.3,
    noise_on: NoiseOn = "z",
    noise_when: NoiseWhen = "every",
    langevin: Langevin | None = None,
    select: selection.Selection = selection.best_q,
    save: Save = Save(),  # noqa: B008 (frozen)
    rollouts: jax.Array | np.ndarray | None = None,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> Solution[jax.Array]:
    """PTRM: K noisy rollouts of D supervision steps for each puzzle, and the choice among them.

    A pure function, compiled once per shape; it also runs under jit, vmap and scan of the caller.
    `sigma=0` is the deterministic TRM, bit for bit (with one H cycle: to rounding; see `recur`).

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key, `jax.random.key(seed)`.
      puzzles: B puzzles.
      num_rollouts: K, width.
      depth: D, supervision steps.
      sigma: scalar noise scale, in units of the latent's root mean square; may be traced.
      noise_on: the state that gets the noise: "z" (the paper's algorithm), "y" or "both".
      noise_when: "every" step, or only "first", on the initial latent.
      langevin: updates of z by Langevin dynamics between steps, in the energy of `energy`, beside
        the noise of `sigma`. Of the paper's updates after every step those after step D are left
        out: the answer is read from y, which they do not move. A trajectory has z before them.
      select: choice among the K, `best_q` by default; see `ptrm_jax.solver.selection`.
      save: what to keep of every step.
      rollouts: rarely needed: [K] rollout ids to run instead of 0..K-1, so that K can be computed
        in pieces; overrides `num_rollouts`.
      lane_tile: rarely needed: lanes that go through the network together. Raise it to hundreds
        on an accelerator.

    Returns:
      The Solution.

    Raises:
      ValueError: before anything is compiled, for any argument out of range, puzzles that do not
        fit the model, parameters that are not the model's, or an untyped key.

    Source: PTRM, arXiv 2605.19943, Algorithm in Figure 4; defaults of Section 5; Langevin dynamics
    of Appendix C.
    """
    settings = LoopSettings(
        depth=depth,
        noise_on=noise_on,
        noise_when=noise_when,
        langevin=langevin,
        save=save,
        lane_tile=lane_tile,
    )
    rollouts = check_solve(model, params, key, puzzles, sigma, num_rollouts, rollouts)
    sigma = jnp.asarray(sigma, jnp.float32)
    return _solve(model, params, key, puzzles, rollouts, sigma, settings, select)


@functools.partial(jax.jit, static_argnames=("model", "settings", "select"))
def _solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    rollouts: jax.Array,
    sigma: jax.Array,
    settings: LoopSettings,
    select: selection.Selection,
) -> Solution:
    num_puzzles = puzzles.index.shape[0]
    lanes = make_lanes(num_puzzles, rollouts)
    results = run_lanes(model, params, key, puzzles, lanes, sigma, settings)
    return choose(results, num_puzzles, select)


# --- Checks, on the host, before anything is traced ----------------------------------------------


def check_key(key: jax.Array) -> None:
    """Raises ValueError unless `key` is one typed threefry key."""
    remedy = "make it with jax.random.key(seed, impl='threefry2x32')"
    if not (hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise InputError(f"key must be a typed JAX key; got {_brief(key)}; {remedy}")
    if key.shape != ():
        raise InputError(f"key must be a single key; got shape {list(key.shape)}")
    if str(jax.random.key_impl(key)) != "threefry2x32":
        # rbg streams depend on vmap and layout, which would break every promise made here.
        raise InputError(f"key must be threefry2x32; got {jax.random.key_impl(key)}; {remedy}")


def check_sigma(sigma: jax.Array | float) -> None:
    """Raises ValueError unless sigma is a scalar, and finite and >= 0 where its value is known."""
    if jnp.shape(sigma) != ():
        raise InputError(
            f"sigma must be a scalar; got shape {list(jnp.shape(sigma))}; use jax.vmap over solve "
            "for several"
        )
    if isinstance(sigma, jax.core.Tracer):
        return
    value = float(sigma)
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"sigma must be finite and >= 0; got {value}")


def check_solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    sigma: jax.Array | float,
    num_rollouts: int,
    rollouts: jax.Array | np.ndarray | None,
) -> jax.Array | np.ndarray:
    """Raises ValueError for arguments that `solve` refuses; returns the rollout ids, [K] int32."""
    check_key(key)
    check_sigma(sigma)
    check_params(model, params)
    check_puzzles(model.config, puzzles)
    if rollouts is None:
        check_int("num_rollouts", num_rollouts, 1)
        return np.arange(num_rollouts, dtype=np.int32)
    if jnp.ndim(rollouts) != 1 or jnp.size(rollouts) == 0:
        raise InputError(f"rollouts must have shape [K], K >= 1; got {list(jnp.shape(rollouts))}")
    _check_at_least("rollouts", rollouts, 0)
    return jnp.asarray(rollouts, jnp.int32)


_param_shapes = functools.lru_cache(maxsize=64)(param_shapes)


def check_params(model: TRM, params: Params) -> None:
    """Raises ValueError naming every missing, unexpected and misshapen parameter."""
    expected = _param_shapes(model)
    got = {
        path_name(path): jnp.shape(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    problems = [f"missing {name}" for name in sorted(expected.keys() - got.keys())]
    problems += [f"unexpected {name}" for name in sorted(got.keys() - expected.keys())]
    problems += [
        f"{name} has shape {list(got[name])}, expected {list(expected[name].shape)}"
        for name in sorted(expected.keys() & got.keys())
        if got[name] != expected[name].shape
    ]
    if problems:
        raise InputError("params are not this model's: " + "; ".join(problems))


def _check_step(model: TRM, params: Params, carry: Carry, puzzles: Puzzles, lane_tile: int) -> None:
    check_int("lane_tile", lane_tile, 1)
    check_params(model, params)
    check_puzzles(model.config, puzzles)
    shape = (puzzles.inputs.shape[0], model.config.length, model.config.hidden_size)
    for name in Carry._fields:
        state = getattr(carry, name)
        if jnp.shape(state) != shape:
            raise InputError(
                f"carry.{name} must have shape {list(shape)}; got {list(jnp.shape(state))}"
            )
        if state.dtype != model.precision.dtype:
            raise InputError(
                f"carry.{name} must be in the compute dtype {model.precision.dtype}; got "
                f"{state.dtype}"
            )


def _check_at_least(name: str, value: jax.Array | np.ndarray | int, minimum: int) -> None:
    if isinstance(value, jax.core.Tracer):
        return
    if not np.issubdtype(np.asarray(value).dtype, np.integer) or np.min(value) < minimum:
        raise InputError(f"{name} must be whole numbers >= {minimum}; got {_brief(value)}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
