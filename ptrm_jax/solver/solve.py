"""PTRM as pure functions: Algorithm 1 for one tile of lanes, then for any lanes, puzzles or steps.

Shape letters: B puzzles, K rollouts, D supervision steps, N = B * K lanes, T lanes of a tile, S
tokens, L = P + S positions, C channels, V vocabulary. `ptrm_jax.mesh` distributes lanes over
devices.

Source: PTRM, arXiv 2605.19943, Figure 4 and Section 5.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ptrm_jax.config import (
    DEFAULT_LANE_TILE,
    Langevin,
    LoopSettings,
    NoiseOn,
    NoiseWhen,
    Read,
    Save,
    check_int,
)
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Carry, Heads, Params
from ptrm_jax.puzzles import Array, Puzzles
from ptrm_jax.solver import checks, selection
from ptrm_jax.solver.langevin import langevin_steps
from ptrm_jax.solver.noise import Noise, perturb
from ptrm_jax.solver.results import LaneResults, Solution, Trajectory
from ptrm_jax.solver.selection import Selection, best_q
from ptrm_jax.solver.tiles import Lanes, TileModel, make_lanes, map_tiles, swap_lanes, tile_model

# --- Algorithm 1 ---------------------------------------------------------------------------------


def run_tile(net: TileModel, x: jax.Array, noise: Noise, settings: LoopSettings) -> LaneResults:
    """Algorithm 1 for a tile: D noisy supervision steps from the initial carry, then the heads.

    Read at the best step, the heads follow every step, and the reading of highest Q is kept.
    """
    num_lanes = noise.rollout.shape[0]
    best = settings.read == "best"

    def supervision_step(
        state: tuple[Carry, Reading | None], t: jax.Array
    ) -> tuple[tuple[Carry, Reading | None], Trajectory | None]:
        carry, reading = state
        carry = advance(net, carry, x, t, noise, settings)
        if reading is not None:
            reading = better(reading, reading_of(net, carry, t))
        return (carry, reading), snapshot(net, carry, settings.save)

    carry = net.initial_carry(num_lanes)
    if settings.noise_when == "first":
        carry = perturb(carry, noise, jnp.int32(1), settings.noise_on)
    steps = jnp.arange(1, settings.depth + 1, dtype=jnp.int32)
    state = carry, no_reading(num_lanes, net.seq_len) if best else None
    (carry, reading), trajectory = lax.scan(supervision_step, state, steps)
    if reading is None:
        reading = reading_of(net, carry, steps[-1])
    return LaneResults(*reading, swap_lanes(trajectory))


def advance(
    net: TileModel, carry: Carry, x: jax.Array, t: jax.Array, noise: Noise, settings: LoopSettings
) -> Carry:
    """One iteration of its loop: the carry ([L, T, C] each) after noise and step t, from 1.

    t is a scalar, or [T] where the lanes of a tile are at different steps.
    """
    if settings.langevin is not None:
        carry = langevin_steps(net, carry, x, t, noise, settings.langevin)
    if settings.noise_when == "every":
        carry = perturb(carry, noise, t, settings.noise_on)
    return net.deep_recursion(carry, x)


class Reading(NamedTuple):
    """What the heads say of T lanes at one step of each.

    Attributes:
      answers: [T, S] int32.
      q_logits: [T] float32 logits.
      finite: [T] bool, whether all logits and Q are finite.
      step: [T] int32, from 1.
    """

    answers: jax.Array
    q_logits: jax.Array
    finite: jax.Array
    step: jax.Array


def reading_of(net: TileModel, carry: Carry, t: jax.Array) -> Reading:
    """What the heads say of a tile after step t: scalar, or [T], one for each lane."""
    answers, q_logits, finite = read_heads(net.heads(carry.y))
    return Reading(answers, q_logits, finite, jnp.broadcast_to(t, q_logits.shape))


def no_reading(num_lanes: int, seq_len: int) -> Reading:
    """What `better` starts from."""
    return Reading(
        answers=jnp.zeros((num_lanes, seq_len), jnp.int32),
        q_logits=jnp.full((num_lanes,), -jnp.inf, jnp.float32),
        finite=jnp.zeros((num_lanes,), bool),
        step=jnp.zeros((num_lanes,), jnp.int32),
    )


def better(best: Reading, new: Reading) -> Reading:
    """Lane by lane the finite reading of higher Q; ties go to the earlier step."""
    wins = new.finite & (new.q_logits > best.q_logits)
    return jax.tree.map(
        lambda a, b: jnp.where(wins.reshape(-1, *[1] * (a.ndim - 1)), b, a), best, new
    )


def read_heads(heads: Heads) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Answers [T, S] int32, halt logits [T] float32 and finite [T] bool, from a tile's heads."""
    answers = jnp.argmax(heads.logits, axis=-1).astype(jnp.int32)
    q_logits = heads.q_logits[:, 0]
    finite = jnp.all(jnp.isfinite(heads.logits), axis=(1, 2)) & jnp.isfinite(q_logits)
    return answers, q_logits, finite


def choose(results: LaneResults, num_puzzles: int, select: Selection | str = best_q) -> Solution:
    """Chooses one rollout per puzzle: puzzle-major results of N = B * K lanes, folded to [B, K].

    Raises:
      InputError: `select` is no selection, or chooses what is no rollout.

    Source: PTRM Figure 4, last line, for `select=best_q`.
    """
    return _choose_once(_fold(results, num_puzzles), selection.named(select))


def _fold(results: LaneResults, num_puzzles: int) -> LaneResults:
    """Results of puzzle-major lanes, their leading axes [B, K] instead of [N]."""
    return jax.tree.map(lambda x: x.reshape(num_puzzles, -1, *x.shape[1:]), results)


def _choose_once(folded: LaneResults, select: Selection) -> Solution:
    """The choice by a program of its own, not one for every operation; then its check.

    Without the trajectory, which may be large and is on the host where `mesh` calls this.
    """
    solution = _choose_jit(folded._replace(trajectory=None), select)
    selection.check_range(solution.rollout, folded.q_logits.shape[1])
    return solution._replace(trajectory=folded.trajectory)


def _choose(folded: LaneResults, select: Selection) -> Solution:
    answers, q_logits, finite, step, trajectory = folded
    if select in selection.BY_NAME.values():
        rollout = select(answers, q_logits, finite)
    else:
        rollout = selection.apply(select, answers, q_logits, finite)
    # A user's selection may return a rollout that is not finite, and under jit one out of range.
    in_range = (rollout >= 0) & (rollout < q_logits.shape[1])
    chosen = jnp.where(in_range, rollout, 0)[:, None]
    valid = in_range & jnp.take_along_axis(finite, chosen, axis=1)[:, 0]
    answer = jnp.take_along_axis(answers, chosen[:, :, None], axis=1)[:, 0]
    q_logit = jnp.take_along_axis(q_logits, chosen, axis=1)[:, 0]
    return Solution(
        answer=jnp.where(valid[:, None], answer, 0),
        q_logit=jnp.where(valid, q_logit, -jnp.inf),
        rollout=jnp.where(in_range & ~valid, -1, rollout),  # out of range stays, to be refused
        step=jnp.where(valid, jnp.take_along_axis(step, chosen, axis=1)[:, 0], 0),
        rollout_answers=answers,
        rollout_q_logits=q_logits,
        rollout_finite=finite,
        rollout_step=step,
        trajectory=trajectory,
    )


# --- Any lanes, whole puzzles --------------------------------------------------------------------


def snapshot(net: TileModel, carry: Carry, save: Save) -> Trajectory | None:
    """What `save` keeps of a tile's step."""
    if save.nothing:
        return None
    answers, q_logits, finite = read_heads(net.heads(carry.y))
    y, z = swap_lanes(carry) if save.latents else (None, None)
    return Trajectory(
        finite=finite,
        answers=answers if save.answers else None,
        q_logits=q_logits if save.q_logits else None,
        y=y,
        z=z,
    )


def run_lanes(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    lanes: Lanes,
    sigma: jax.Array | float,
    settings: LoopSettings,
) -> LaneResults:
    """The loop of Algorithm 1 for any set of (puzzle, rollout) pairs; checks nothing.

    `solve`, chunks, shards and resumed runs are built from it: a lane gets the same bits whichever
    lanes run beside it. Memory beyond the results is that of one tile.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key.
      puzzles: B puzzles that `lanes.row` points into.
      lanes: N lanes.
      sigma: scalar noise scale.
      settings: the static settings.
    """
    net = tile_model(model, params)
    sigma = jnp.asarray(sigma, jnp.float32)

    def of_tile(lanes: Lanes) -> LaneResults:
        noise = Noise(key, puzzles.index[lanes.row], lanes.rollout, sigma)
        x = net.embed(puzzles.inputs[lanes.row], puzzles.puzzle_identifiers[lanes.row])
        return run_tile(net, x, noise, settings)

    return map_tiles(of_tile, lanes, settings.lane_tile)


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
    read: Read = "last",
    select: Selection | str = best_q,
    save: Save = Save(),  # noqa: B008 (frozen)
    rollouts: Array | None = None,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> Solution[jax.Array]:
    """PTRM: K noisy rollouts of D supervision steps for each puzzle, and the choice among them.

    A pure function, compiled once per shape; it can be called under jit, vmap and scan.
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
      noise_when: before "every" step, or only "first", on the initial latent.
      langevin: updates of z by Langevin dynamics between steps, in the energy of `energy`, in
        addition to the noise of `sigma`. The paper updates after every step; the updates after step
        D are omitted here, because the answer is read from y, which they do not change. A
        trajectory holds z before the updates.
      read: the step at which a rollout is read: the "last" (the paper's algorithm), or the "best",
        its step of highest finite Q, ties to the earliest. Memory does not grow with depth.
      select: choice among the K: "best_q", "mode" or a function, which is static; see
        `ptrm_jax.solver.selection`.
      save: what to keep of every step.
      rollouts: rarely needed: [K] rollout ids to run instead of 0..K-1, so that K can be computed
        in pieces; overrides `num_rollouts`.
      lane_tile: rarely needed: lanes that go through the network together. Raise it to hundreds
        on an accelerator.

    Returns:
      The Solution.

    Raises:
      InputError: before anything is compiled, for any argument out of range, puzzles that do not
        fit the model, parameters that are not the model's, or an untyped key; after the rollouts,
        if a selection of your own chooses one out of range. Under a jit of your own nothing can be
        raised: there `rollout` keeps such a number, and the answer is 0, Q -inf.

    Source: PTRM, arXiv 2605.19943, Algorithm in Figure 4; defaults of Section 5; Langevin dynamics
    of Appendix C.
    """
    settings = LoopSettings(
        depth=depth,
        noise_on=noise_on,
        noise_when=noise_when,
        langevin=langevin,
        read=read,
        save=save,
        lane_tile=lane_tile,
    )
    rollouts = checks.check_solve(model, params, key, puzzles, sigma, num_rollouts, rollouts)
    chosen = selection.check_selection(
        select, puzzles.inputs.shape[0], len(rollouts), model.config.seq_len
    )
    sigma = jnp.asarray(sigma, jnp.float32)
    arguments = (model, params, key, puzzles, rollouts, sigma, settings)
    if chosen in selection.BY_NAME.values():
        return _solve(*arguments, chosen)
    # Apart from the network, which then need not be compiled again for every new function.
    return _choose_once(_rollouts(*arguments), chosen)


@functools.partial(jax.jit, static_argnames=("model", "settings", "select"))
def _solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    rollouts: jax.Array,
    sigma: jax.Array,
    settings: LoopSettings,
    select: Selection,
) -> Solution:
    return _choose(_rollouts(model, params, key, puzzles, rollouts, sigma, settings), select)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _rollouts(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    rollouts: jax.Array,
    sigma: jax.Array,
    settings: LoopSettings,
) -> LaneResults:
    """Results with the leading axes [B, K]."""
    num_puzzles = puzzles.index.shape[0]
    lanes = make_lanes(num_puzzles, rollouts)
    return _fold(run_lanes(model, params, key, puzzles, lanes, sigma, settings), num_puzzles)


_choose_jit = jax.jit(_choose, static_argnames="select")


# --- Single steps --------------------------------------------------------------------------------


def initial_carry(model: TRM, params: Params, batch_size: int) -> Carry:
    """The carry every puzzle starts from: y and z, [B, L, C] each, in the compute dtype.

    Raises:
      InputError: batch_size < 1.
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
    """One supervision step without noise: the carry after it, and the outputs of the heads.

    Args:
      model: the network.
      params: its parameters.
      carry: y and z, [B, L, C] each.
      puzzles: B puzzles.
      lane_tile: puzzles that go through the network together.

    Returns:
      carry, and heads with logits [B, S, V] in the compute dtype and q_logits [B, 2] float32.

    Raises:
      InputError: puzzles or carry that do not fit the model; lane_tile < 1.
    """
    checks.check_carry(model, params, carry, puzzles, lane_tile)
    return _step(model, params, carry, puzzles, None, LoopSettings(lane_tile=lane_tile))


def step(
    model: TRM,
    params: Params,
    key: jax.Array,
    carry: Carry,
    puzzles: Puzzles,
    *,
    rollout: Array | int,
    t: Array | int,
    sigma: jax.Array | float,
    noise_on: NoiseOn = "z",
    langevin: Langevin | None = None,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> tuple[Carry, Heads]:
    """Noise, then one supervision step: one iteration of the loop of Algorithm 1.

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
      InputError: as `deep_recursion`; also a negative rollout, t < 1, sigma negative or not
        finite, an untyped key.
    """
    checks.check_carry(model, params, carry, puzzles, lane_tile)
    checks.check_key(key)
    checks.check_sigma(sigma)
    settings = LoopSettings(noise_on=noise_on, langevin=langevin, lane_tile=lane_tile)
    checks.check_at_least("rollout", rollout, 0)
    checks.check_at_least("t", t, 1)
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
    net = tile_model(model, params)
    rollout = jnp.zeros_like(puzzles.index) if noise is None else noise[1]

    def of_tile(batch: tuple[Carry, Puzzles, jax.Array]) -> tuple[Carry, Heads]:
        carry, puzzles, rollout = batch
        carry = swap_lanes(carry)
        x = net.embed(puzzles.inputs, puzzles.puzzle_identifiers)
        if noise is None:
            carry = net.deep_recursion(carry, x)
        else:
            key, _, t, sigma = noise
            of_lanes = Noise(key, puzzles.index, rollout, sigma)
            carry = advance(net, carry, x, t, of_lanes, settings)
        return swap_lanes(carry), net.heads(carry.y)

    return map_tiles(of_tile, (carry, puzzles, rollout), settings.lane_tile)
