"""Anytime PTRM: rollouts of each puzzle in order, until one is sure enough.

A pool of lanes works through a queue of rollouts on the device. A lane holds one rollout at its
own step; when the rollout ends, or is no longer needed, the lane takes the next one from the queue:
the first rollouts of all puzzles before the second ones. Rollouts of one puzzle may run side by
side before the earlier ones have ended, so some run in vain; what is returned counts and reads only
those that the rule of `Stop` needs. It is a function of the rollouts' trajectories and the rule,
not of the pool, and equals `ptrm_jax.metrics.replay` on the trajectories that `solve` keeps.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens, P lanes of the pool in P / T
tiles of T, L positions, C channels.
"""

from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from ptrm_jax.config import (
    DEFAULT_LANE_TILE,
    Langevin,
    LoopSettings,
    NoiseOn,
    NoiseWhen,
    Stop,
    check_int,
)
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Carry, Params
from ptrm_jax.puzzles import ArrayT, Puzzles
from ptrm_jax.solver import checks
from ptrm_jax.solver.noise import Noise, perturb
from ptrm_jax.solver.solve import Reading, advance, no_reading, reading_of
from ptrm_jax.solver.tiles import TileModel, tile_model


class AnytimeSolution(NamedTuple, Generic[ArrayT]):
    """The answers of a stopping rule, and the compute that it needs.

    Attributes:
      answer: [B, S] int32; all 0 (PAD) where no reading was finite.
      q_logit: [B] float32, its halt logit; -inf where no reading was finite.
      rollout: [B] int32, the rollout that answers; -1 where no reading was finite.
      step: [B] int32, the supervision step at which it is read, from 1; 0 where none was finite.
      stopped: [B] bool, whether the rule stopped; otherwise the reading of highest Q answers.
      rollout_steps: [B] int32, supervision steps that the rule needs. What ran beside them in vain
        is not counted, because it depends on the pool.
    """

    answer: ArrayT
    q_logit: ArrayT
    rollout: ArrayT
    step: ArrayT
    stopped: ArrayT
    rollout_steps: ArrayT


class PoolUse(NamedTuple, Generic[ArrayT]):
    """How a device used its pool, in rollout-steps; [B], the same for every puzzle of a device.

    Attributes:
      run: steps of lanes that held a rollout, whether the rule needed it or not.
      idle: steps of lanes without one while rollouts were waiting in the queue.
      drained: steps of lanes without one after the queue was empty.
    """

    run: ArrayT
    idle: ArrayT
    drained: ArrayT


class Rule(NamedTuple):
    """The numbers of a `Stop`, as traced scalars: another threshold needs no compilation.

    Attributes:
      q_logit: float32.
      patience: int32.
      min_depth: int32.
      max_rollout_steps: int32.
    """

    q_logit: jax.Array
    patience: jax.Array
    min_depth: jax.Array
    max_rollout_steps: jax.Array


class _Lanes(NamedTuple):
    """The lanes of the pool, [P] each.

    Attributes:
      row: int32, the puzzle.
      rollout: int32 id.
      step: int32, supervision steps done.
      limit: int32, steps after which the rollout ends.
      streak: int32, consecutive steps so far whose Q reaches the threshold.
      busy: bool, whether the lane holds a rollout.
    """

    row: jax.Array
    rollout: jax.Array
    step: jax.Array
    limit: jax.Array
    streak: jax.Array
    busy: jax.Array


class _Ledger(NamedTuple):
    """What is known of every puzzle. A rollout fires when its Q has been high enough.

    Attributes:
      stop: [B] int32, the lowest rollout known to stop its puzzle; K where none is, and 0 for rows
        that only fill a batch up.
      steps: [B, K] int32, steps of the rollouts that have ended, 0 for others.
      fired: [B, K] bool.
      fired_answers: [B, R, S] int32; R = K where rollouts must agree, otherwise 1, the answer of
        `stop`.
      fired_q_logits: [B, R] float32.
      best: of highest Q so far, [B].
      best_rollout: [B] int32.
    """

    stop: jax.Array
    steps: jax.Array
    fired: jax.Array
    fired_answers: jax.Array
    fired_q_logits: jax.Array
    best: Reading
    best_rollout: jax.Array


class _Pool(NamedTuple):
    """The state of the loop.

    Attributes:
      lanes: of the pool.
      carry: [P / T, L, T, C] each.
      cursor: [] int32, items of the queue taken or passed over. Item i is rollout i // B of puzzle
        i % B.
      ledger: of the puzzles.
      use: [] int32 each.
    """

    lanes: _Lanes
    carry: Carry
    cursor: jax.Array
    ledger: _Ledger
    use: PoolUse


def run_pool(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    active: jax.Array,
    sigma: jax.Array,
    rule: Rule,
    *,
    max_rollouts: int,
    agree: int,
    num_tiles: int,
    settings: LoopSettings,
) -> tuple[AnytimeSolution, PoolUse]:
    """Solves B puzzles with one pool; checks nothing.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key.
      puzzles: B puzzles.
      active: [B] bool; the others only fill the batch up and take no rollout.
      sigma: scalar noise scale.
      rule: when to stop.
      max_rollouts: K.
      agree: rollouts with one answer that stop a puzzle.
      num_tiles: tiles of the pool.
      settings: the static settings.
    """
    net = tile_model(model, params)
    num_puzzles, tile = puzzles.index.shape[0], settings.lane_tile
    num_items = num_puzzles * max_rollouts

    def supervise(pool: _Pool) -> _Pool:
        before = pool.cursor
        pool = _refill(pool, rule, agree, settings.depth)
        lanes = pool.lanes
        tiles = jax.tree.map(lambda x: x.reshape(num_tiles, tile), lanes)

        def of_tile(work: tuple[_Lanes, Carry]) -> tuple[Carry, Reading]:
            lanes, carry = work

            def run(carry: Carry) -> tuple[Carry, Reading]:
                return _step(net, key, puzzles, sigma, settings, lanes, carry)

            def rest(carry: Carry) -> tuple[Carry, Reading]:
                return carry, no_reading(tile, net.seq_len)

            return lax.cond(jnp.any(lanes.busy), run, rest, carry)

        carry, readings = lax.map(of_tile, (tiles, pool.carry))
        readings = jax.tree.map(lambda x: x.reshape(num_tiles * tile, *x.shape[2:]), readings)
        lanes, ledger = _record(lanes, readings, pool.ledger, rule, agree)
        run = jnp.sum(pool.lanes.busy, dtype=jnp.int32)
        idle = jnp.where(jnp.any(pool.lanes.busy), num_tiles * tile - run, 0)
        waiting = before < num_items
        use = PoolUse(
            run=pool.use.run + run,
            idle=pool.use.idle + jnp.where(waiting, idle, 0),
            drained=pool.use.drained + jnp.where(waiting, 0, idle),
        )
        return _Pool(lanes, carry, pool.cursor, ledger, use)

    def goes_on(pool: _Pool) -> jax.Array:
        return jnp.any(pool.lanes.busy) | (pool.cursor < num_items)

    start = _start(net, active, num_tiles, tile, max_rollouts, agree)
    pool = lax.while_loop(goes_on, supervise, start)
    use = jax.tree.map(lambda x: jnp.broadcast_to(x, (num_puzzles,)), pool.use)
    return _answers(pool.ledger), use


def _start(
    net: TileModel,
    active: jax.Array,
    num_tiles: int,
    tile: int,
    max_rollouts: int,
    agree: int,
) -> _Pool:
    num_puzzles, seq_len = active.shape[0], net.seq_len
    kept = max_rollouts if agree > 1 else 1
    numbers = jnp.zeros((num_tiles * tile,), jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    carry = net.initial_carry(tile)
    return _Pool(
        lanes=_Lanes(*(numbers,) * 5, busy=numbers > 0),
        carry=jax.tree.map(lambda x: jnp.broadcast_to(x, (num_tiles, *x.shape)), carry),
        cursor=zero,
        ledger=_Ledger(
            stop=jnp.where(active, max_rollouts, 0).astype(jnp.int32),
            steps=jnp.zeros((num_puzzles, max_rollouts), jnp.int32),
            fired=jnp.zeros((num_puzzles, max_rollouts), bool),
            fired_answers=jnp.zeros((num_puzzles, kept, seq_len), jnp.int32),
            fired_q_logits=jnp.zeros((num_puzzles, kept), jnp.float32),
            best=no_reading(num_puzzles, seq_len),
            best_rollout=jnp.full((num_puzzles,), -1, jnp.int32),
        ),
        use=PoolUse(zero, zero, zero),
    )


def _refill(pool: _Pool, rule: Rule, agree: int, depth: int) -> _Pool:
    """Gives the free lanes the next rollouts that are needed, in the order of the queue."""
    lanes, ledger = pool.lanes, pool.ledger
    num_lanes, (num_puzzles, max_rollouts) = lanes.row.shape[0], ledger.steps.shape
    item = pool.cursor + jnp.arange(max(num_puzzles, num_lanes), dtype=jnp.int32)
    row = item % num_puzzles
    exists = item < num_puzzles * max_rollouts
    rollout = jnp.where(exists, item // num_puzzles, 0)

    # What is left for a rollout: one before it that has not ended may yet run to depth D.
    has_ended = ledger.steps > 0
    most = jnp.where(has_ended, ledger.steps, depth)
    limit = jnp.clip(rule.max_rollout_steps - _sum_before(most)[row, rollout], 0, depth)
    needed = exists & (rollout < ledger.stop[row])
    waits = jnp.zeros_like(needed)
    if agree > 1:  # those before it may fire, and so leave more: near the cap, wait for them
        used = _sum_before(ledger.steps)[row, rollout]
        ended = _sum_before(has_ended.astype(jnp.int32))[row, rollout]
        waits = needed & (limit < depth) & (ended < rollout) & (used < rule.max_rollout_steps)
    needed &= (limit > 0) | waits
    open_ = jnp.cumsum(waits) == 0

    free = ~lanes.busy
    rank = jnp.cumsum(needed, dtype=jnp.int32) - 1
    given = needed & open_ & (rank < jnp.sum(free))
    left = needed & ~given
    passed = jnp.where(jnp.any(left), jnp.argmax(left), item.shape[0]).astype(jnp.int32)
    # The lane that is free as the n-th takes the n-th item given.
    items = jnp.full((num_lanes,), -1, jnp.int32)
    places = jnp.arange(item.shape[0], dtype=jnp.int32)
    items = items.at[jnp.where(given, rank, num_lanes)].set(places, mode="drop")
    place = items[jnp.cumsum(free) - 1]
    starts = free & (place >= 0)

    def fill(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(starts, new[place], old)

    zeros = jnp.zeros_like(lanes.step)
    lanes = _Lanes(
        row=fill(row, lanes.row),
        rollout=fill(rollout, lanes.rollout),
        step=jnp.where(starts, zeros, lanes.step),
        limit=fill(limit, lanes.limit),
        streak=jnp.where(starts, zeros, lanes.streak),
        busy=lanes.busy | starts,
    )
    return pool._replace(lanes=lanes, cursor=pool.cursor + passed)


def _sum_before(counts: jax.Array) -> jax.Array:
    """Sums over the rollouts before each: [B, K] int32."""
    return jnp.cumsum(counts, axis=1, dtype=jnp.int32) - counts


def _step(
    net: TileModel,
    key: jax.Array,
    puzzles: Puzzles,
    sigma: jax.Array,
    settings: LoopSettings,
    lanes: _Lanes,
    carry: Carry,
) -> tuple[Carry, Reading]:
    """The next supervision step of every lane of a tile, and what the heads say after it."""
    noise = Noise(key, puzzles.index[lanes.row], lanes.rollout, sigma)
    x = net.embed(puzzles.inputs[lanes.row], puzzles.puzzle_identifiers[lanes.row])
    starts = lanes.step == 0

    def begin(carry: Carry) -> Carry:
        initial = net.initial_carry(starts.shape[0])
        if settings.noise_when == "first":
            initial = perturb(initial, noise, jnp.int32(1), settings.noise_on)
        return jax.tree.map(lambda a, b: jnp.where(starts[None, :, None], a, b), initial, carry)

    carry = lax.cond(jnp.any(starts), begin, lambda carry: carry, carry)
    t = lanes.step + 1
    carry = advance(net, carry, x, t, noise, settings)
    return carry, reading_of(net, carry, t)


def _record(
    lanes: _Lanes, readings: Reading, ledger: _Ledger, rule: Rule, agree: int
) -> tuple[_Lanes, _Ledger]:
    """Enters the readings of a step, and frees the lanes whose rollouts are not needed any more."""
    num_puzzles = ledger.stop.shape[0]
    row, rollout, busy = lanes.row, lanes.rollout, lanes.busy
    step = lanes.step + 1
    sure = readings.finite & (readings.q_logits >= rule.q_logit)
    streak = jnp.where(sure, lanes.streak + 1, 0)
    fires = busy & (streak >= rule.patience) & (step >= rule.min_depth)
    ends = fires | (busy & (step >= lanes.limit))

    def rows(where: jax.Array) -> jax.Array:
        """Rows to write to; none for the other lanes."""
        return jnp.where(where, row, num_puzzles)

    best, best_rollout = _better(ledger, lanes, readings)
    steps = ledger.steps.at[rows(ends), rollout].set(step, mode="drop")
    fired = ledger.fired.at[rows(fires), rollout].set(True, mode="drop")
    if agree > 1:
        writes, slot = fires, rollout
    else:
        stop = ledger.stop.at[rows(fires)].min(rollout, mode="drop")
        writes, slot = fires & (stop[row] == rollout), jnp.zeros_like(rollout)
    answers = ledger.fired_answers.at[rows(writes), slot].set(readings.answers, mode="drop")
    q_logits = ledger.fired_q_logits.at[rows(writes), slot].set(readings.q_logits, mode="drop")
    if agree > 1:
        equal = jnp.all(answers[row] == readings.answers[:, None], axis=-1) & fired[row]
        together = jnp.cumsum(equal, axis=1) == agree
        first = jnp.argmax(together, axis=1).astype(jnp.int32)
        stops = fires & jnp.any(together, axis=1)
        stop = ledger.stop.at[rows(stops)].min(first, mode="drop")
    lanes = lanes._replace(step=step, streak=streak, busy=busy & ~ends & (rollout < stop[row]))
    return lanes, _Ledger(stop, steps, fired, answers, q_logits, best, best_rollout)


def _better(ledger: _Ledger, lanes: _Lanes, new: Reading) -> tuple[Reading, jax.Array]:
    """The readings of highest Q with those of a step; ties go to the lower rollout, then step."""
    old, row = ledger.best, lanes.row
    num_puzzles = ledger.stop.shape[0]
    counts = lanes.busy & new.finite

    def rows(where: jax.Array) -> jax.Array:
        return jnp.where(where, row, num_puzzles)

    q_logits = old.q_logits.at[rows(counts)].max(new.q_logits, mode="drop")
    ties = counts & (new.q_logits == q_logits[row])
    none = jnp.iinfo(jnp.int32).max
    stays = old.finite & (old.q_logits == q_logits)
    rollouts = jnp.where(stays, ledger.best_rollout, none)
    rollouts = rollouts.at[rows(ties)].min(lanes.rollout, mode="drop")
    # Of one rollout the earlier step is there already.
    wins = ties & (lanes.rollout == rollouts[row])
    wins &= ~(stays & (ledger.best_rollout == rollouts))[row]

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[rows(wins)].set(new, mode="drop")

    best = jax.tree.map(write, old, new)
    return best, write(ledger.best_rollout, lanes.rollout)


def _answers(ledger: _Ledger) -> AnytimeSolution:
    max_rollouts = ledger.steps.shape[1]
    stopped = ledger.stop < max_rollouts
    last = jnp.minimum(ledger.stop, max_rollouts - 1)
    slot = jnp.minimum(last, ledger.fired_q_logits.shape[1] - 1)

    def at(table: jax.Array, column: jax.Array) -> jax.Array:
        return jnp.take_along_axis(table, column[:, None], axis=1)[:, 0]

    # A rollout that never started has used nothing.
    needed = jnp.arange(max_rollouts, dtype=jnp.int32)[None] <= last[:, None]
    rollout_steps = jnp.sum(jnp.where(needed, ledger.steps, 0), axis=1, dtype=jnp.int32)
    best = ledger.best
    answer = jnp.take_along_axis(ledger.fired_answers, slot[:, None, None], axis=1)[:, 0]
    return AnytimeSolution(
        answer=jnp.where(stopped[:, None], answer, best.answers),
        q_logit=jnp.where(stopped, at(ledger.fired_q_logits, slot), best.q_logits),
        rollout=jnp.where(stopped, last, ledger.best_rollout),
        step=jnp.where(stopped, at(ledger.steps, last), best.step),
        stopped=stopped,
        rollout_steps=rollout_steps,
    )


def solve_anytime(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    stop: Stop,
    max_rollouts: int = 100,
    depth: int = 16,
    sigma: jax.Array | float = 0.3,
    noise_on: NoiseOn = "z",
    noise_when: NoiseWhen = "every",
    langevin: Langevin | None = None,
    pool: int | None = None,
    lane_tile: int = DEFAULT_LANE_TILE,
) -> AnytimeSolution[jax.Array]:
    """PTRM that stops when it is sure: rollouts one after the other, read after every step.

    The rollouts are those of `solve`, bit for bit. What is returned is a function of them and of
    the rule alone; `Stop(q_logit=math.inf)` gives the choice of `solve(read="best")`. A pure
    function, compiled once per shape: another threshold, patience or cap needs no compilation.

    Args:
      model: the network.
      params: its parameters.
      key: typed threefry key, `jax.random.key(seed)`.
      puzzles: B puzzles.
      stop: when a puzzle is done.
      max_rollouts: K, the most rollouts of a puzzle.
      depth: D, the most supervision steps of a rollout.
      sigma: scalar noise scale, in units of the latent's root mean square; may be traced.
      noise_on: as for `solve`.
      noise_when: as for `solve`.
      langevin: as for `solve`.
      pool: rarely needed: lanes that run side by side, rounded up to whole tiles; by default one
        tile. A larger pool runs more rollouts in vain when few puzzles are left.
      lane_tile: rarely needed: lanes that go through the network together, as for `solve`.

    Returns:
      The AnytimeSolution.

    Raises:
      InputError: as `solve`; also a pool < 1, or a `stop` that is none.

    Source: the paper reads each rollout after its last step and runs K * D steps for every puzzle
    (PTRM Figure 4); the rule is ours.
    """
    settings = LoopSettings(
        depth=depth,
        noise_on=noise_on,
        noise_when=noise_when,
        langevin=langevin,
        lane_tile=lane_tile,
    )
    checks.check_solve(model, params, key, puzzles, sigma, max_rollouts, name="max_rollouts")
    active = jnp.ones((puzzles.index.shape[0],), bool)
    rule = make_rule(stop, max_rollouts, depth)
    sigma = jnp.asarray(sigma, jnp.float32)
    solution, _ = _solve_anytime(
        model,
        params,
        key,
        puzzles,
        active,
        sigma,
        rule,
        max_rollouts=max_rollouts,
        agree=stop.agree,
        num_tiles=tiles_of_pool(pool, lane_tile),
        settings=settings,
    )
    return solution


_solve_anytime = jax.jit(
    run_pool, static_argnames=("model", "max_rollouts", "agree", "num_tiles", "settings")
)


def make_rule(stop: Stop, max_rollouts: int, depth: int) -> Rule:
    """The numbers of a rule as traced scalars.

    Raises:
      InputError: `stop` is not a `Stop`.
    """
    if not isinstance(stop, Stop):
        raise InputError(f"stop must be a ptrm_jax.Stop; got {stop!r}")
    most = max_rollouts * depth
    cap = most if stop.max_rollout_steps is None else min(stop.max_rollout_steps, most)
    return Rule(
        q_logit=jnp.float32(stop.q_logit),
        patience=jnp.int32(min(stop.patience, depth + 1)),  # beyond D it never fires
        min_depth=jnp.int32(min(stop.min_depth, depth + 1)),
        max_rollout_steps=jnp.int32(cap),
    )


def tiles_of_pool(pool: int | None, lane_tile: int) -> int:
    """Whole tiles of a pool.

    Raises:
      InputError: pool < 1.
    """
    if pool is None:
        return 1
    check_int("pool", pool, 1)
    return -(-pool // lane_tile)
