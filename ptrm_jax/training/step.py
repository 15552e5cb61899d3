"""One optimiser step as a pure function: replace halted rows, differentiate, update, halt.

A row is one puzzle in progress. It stays for one supervision step after another, an optimiser step
each, until its Q head (or the limit) halts it; then the next puzzle takes its place. Rows go
through the network in micro-batches, lanes in the middle ([L, T, C]), and gradients are summed.

Shape letters: B rows in all, b of this device, T of a micro-batch, S tokens, L positions, C
channels, E width of the puzzle embedding.

Source: upstream `pretrain.py` (train_batch), `models/losses.py`,
`models/recursive_reasoning/trm.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ptrm_jax import mesh
from ptrm_jax.config import Precision
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Carry, Params, init_params, recur, rounded
from ptrm_jax.tasks.symmetry import Augment, show_clues
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.loss import RowLosses, row_losses
from ptrm_jax.training.optimizer import ema_decay, make_optimizer, schedule, sign_sgd_rows

_FROZEN = ("H_init", "L_init")
_TABLE = "puzzle_emb"


class Examples(NamedTuple):
    """Labelled puzzles.

    Attributes:
      inputs: [B, S] int32 tokens.
      labels: [B, S] int32 tokens.
      puzzle_identifiers: [B] int32 rows of the puzzle embedding.
    """

    inputs: jax.Array
    labels: jax.Array
    puzzle_identifiers: jax.Array


class Rows(NamedTuple):
    """The batch in progress (upstream's carry).

    Attributes:
      carry: y and z, [B, L, C] each in the compute dtype, detached.
      steps: [B] int32, supervision steps the present puzzle has had.
      halted: [B] bool, the row takes a new puzzle next.
      examples: the puzzles.
    """

    carry: Carry
    steps: jax.Array
    halted: jax.Array
    examples: Examples


class TrainState(NamedTuple):
    """Everything that one step changes.

    Attributes:
      step: [] int32, optimiser steps done.
      params: all parameters, float32.
      ema: averages of the trained ones; without the puzzle embedding and the initial states.
      opt_state: of optax, like `ema`.
      rows: the batch in progress.
    """

    step: jax.Array
    params: Params
    ema: Params
    opt_state: Any
    rows: Rows


class StepMetrics(NamedTuple):
    """Sums over the batch, scalars; those over halted rows leave out rows without labels.

    Attributes:
      loss: mean over rows of the differentiated loss.
      lm_loss: mean over rows.
      q_loss: mean over rows.
      halted: rows that halted in this step.
      cell_accuracy: sum over halted rows.
      exact: halted rows whose answer is right.
      q_right: halted rows whose halt logit has the right sign.
      steps: supervision steps of the halted rows.
      grad_norm: of the trained weights.
    """

    loss: jax.Array
    lm_loss: jax.Array
    q_loss: jax.Array
    halted: jax.Array
    cell_accuracy: jax.Array
    exact: jax.Array
    q_right: jax.Array
    steps: jax.Array
    grad_norm: jax.Array


def trained(params: Params) -> Params:
    """The parameters that the optimiser and the average see."""
    return {name: p for name, p in params.items() if name not in (*_FROZEN, _TABLE)}


def averaged(state: TrainState) -> Params:
    """All parameters, the trained ones averaged: what a checkpoint ships and evaluation uses."""
    return {**state.params, **state.ema}


def init_state(model: TRM, config: TrainConfig, params: Params | None = None) -> TrainState:
    """The state before the first step: every row halted.

    Args:
      model: the network.
      config: the run.
      params: weights to start from; freshly initialised from `config.seed` otherwise.
    """
    if params is None:
        params = init_params(model, jax.random.key(config.seed, impl="threefry2x32"))
    cfg, num_rows = model.config, config.batch_size
    # Each leaf its own buffer, since the state is donated.
    weights = jax.tree.map(jnp.copy, trained(params))
    shape = (num_rows, cfg.length, cfg.hidden_size)
    tokens = (num_rows, cfg.seq_len)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=jax.tree.map(jnp.copy, params),
        ema=weights,
        opt_state=_optimizer(config).init(weights),
        rows=Rows(
            carry=Carry(*(jnp.zeros(shape, model.precision.dtype) for _ in Carry._fields)),
            steps=jnp.zeros(num_rows, jnp.int32),
            halted=jnp.ones(num_rows, bool),
            examples=Examples(
                *(jnp.zeros(tokens, jnp.int32) for _ in range(2)), jnp.zeros(num_rows, jnp.int32)
            ),
        ),
    )


def place(state: TrainState, devices: Sequence[jax.Device]) -> TrainState:
    """The state on devices: weights whole on each, rows split over them."""
    whole, split = (mesh.sharding(devices, split=s) for s in (False, True))
    return TrainState(*jax.device_put(state[:-1], whole), jax.device_put(state.rows, split))


def _learning_rate(config: TrainConfig, peak: float) -> optax.Schedule:
    return schedule(peak, config.warmup_steps, config.steps, config.min_learning_rate_ratio)


def _optimizer(config: TrainConfig) -> optax.GradientTransformation:
    rate = _learning_rate(config, config.learning_rate)
    return make_optimizer(
        config.optimizer, rate, weight_decay=config.weight_decay, betas=config.betas
    )


def make_step(
    model: TRM,
    config: TrainConfig,
    augment: Augment | None,
    ignore_label: int | None,
    devices: Sequence[jax.Device],
) -> Callable[[TrainState, Examples], tuple[TrainState, StepMetrics]]:
    """The jitted step over `devices`, which donates its state.

    Everything random in step t is a function of (config.seed, t, row) by `fold_in`.

    Args:
      model: the network.
      config: the run; `batch_size` a multiple of the devices, each share one of `micro_batch`.
      augment: symmetry to draw for every new puzzle, or None.
      ignore_label: label of positions that do not count.
      devices: to spread the rows over.

    Returns:
      step(state, batch): `batch` has B new puzzles, of which the halted rows take theirs.

    Raises:
      ValueError: the batch cannot be split so.
    """
    unit = len(devices) * config.micro_batch
    if config.batch_size % unit:
        raise InputError(
            f"batch_size must be a multiple of devices x micro_batch, {len(devices)} x "
            f"{config.micro_batch}; got {config.batch_size}; change it or micro_batch"
        )
    step = functools.partial(_step, model, config, augment, ignore_label)
    split = TrainState(step=False, params=False, ema=False, opt_state=False, rows=True)
    return mesh.data_parallel(step, devices, inputs=(split, True), outputs=(split, False))


def _step(
    model: TRM,
    config: TrainConfig,
    augment: Augment | None,
    ignore_label: int | None,
    state: TrainState,
    batch: Examples,
) -> tuple[TrainState, StepMetrics]:
    """The step as one device sees it, with b of the B rows."""
    num_rows = batch.inputs.shape[0]
    ids = lax.axis_index(mesh.AXIS) * num_rows + jnp.arange(num_rows, dtype=jnp.int32)
    key = jax.random.key(config.seed, impl="threefry2x32")
    key = jax.random.fold_in(key, state.step)
    new_puzzle_key, halt_key = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)

    batch = _augmented(config, augment, new_puzzle_key, ids, batch)
    rows = replace_halted(model, state.params, state.rows, batch)
    grads, table_grads, carry, q_halt, losses = _gradients(
        model, config, ignore_label, state.params, rows
    )

    weights = trained(state.params)
    grads = lax.psum(grads, mesh.AXIS)
    updates, opt_state = _optimizer(config).update(grads, state.opt_state, weights)
    weights = optax.apply_updates(weights, updates)
    decay = ema_decay(state.step, config.ema, warmup=config.ema_warmup)
    params = {**state.params, **weights}
    if _TABLE in params:
        rate = _learning_rate(config, config.puzzle_emb_learning_rate)(state.step)
        # Every device needs every row's gradient: rows of one identifier may be anywhere.
        touched, table_grads = (
            lax.all_gather(x, mesh.AXIS, tiled=True)
            for x in (rows.examples.puzzle_identifiers, table_grads)
        )
        table = sign_sgd_rows(
            params[_TABLE]["embedding"],
            *(touched, table_grads, rate, config.puzzle_emb_weight_decay),
        )
        params[_TABLE] = {"embedding": table}

    explore, least = jax.vmap(lambda row: _exploration(config, jax.random.fold_in(halt_key, row)))(
        ids
    )
    steps = rows.steps + 1
    halted = halts(steps, q_halt, explore, least, config.halt_max_steps)
    new_state = TrainState(
        step=state.step + 1,
        params=params,
        ema=optax.incremental_update(weights, state.ema, 1.0 - decay),
        opt_state=opt_state,
        rows=Rows(carry, steps, halted, rows.examples),
    )
    metrics = _metrics(config, losses, q_halt, steps, halted)
    return new_state, metrics._replace(grad_norm=optax.tree.norm(grads))


# --- New puzzles ---------------------------------------------------------------------------------


def _augmented(
    config: TrainConfig,
    augment: Augment | None,
    key: jax.Array,
    ids: jax.Array,
    batch: Examples,
) -> Examples:
    def one(row: jax.Array, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        symmetry_key, clue_key = jax.random.split(jax.random.fold_in(key, row))
        if augment is not None:
            inputs, labels = augment(symmetry_key, inputs, labels)
        if config.extra_clues:
            inputs = show_clues(clue_key, inputs, labels, config.extra_clues)
        return inputs, labels

    inputs, labels = jax.vmap(one)(ids, batch.inputs, batch.labels)
    return batch._replace(inputs=inputs, labels=labels)


def replace_halted(model: TRM, params: Params, rows: Rows, batch: Examples) -> Rows:
    """The rows, the halted ones with their new puzzle from `batch`, the initial carry, 0 steps."""
    initial = model.apply({"params": params}, method=TRM.initial_carry)

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        halted = rows.halted.reshape(-1, *(1,) * (old.ndim - 1))
        return jnp.where(halted, jnp.broadcast_to(new, old.shape), old)

    return Rows(
        carry=jax.tree.map(pick, jax.tree.map(lambda x: x[None], initial), rows.carry),
        steps=jnp.where(rows.halted, 0, rows.steps),
        halted=rows.halted,
        examples=jax.tree.map(pick, batch, rows.examples),
    )


# --- Gradients -----------------------------------------------------------------------------------


class _Tile(NamedTuple):
    """T rows; `table_rows` [T, E] are their rows of the puzzle embedding, or None."""

    carry: Carry
    examples: Examples
    table_rows: jax.Array | None


def _gradients(
    model: TRM, config: TrainConfig, ignore_label: int | None, params: Params, rows: Rows
) -> tuple[Params, jax.Array | None, Carry, jax.Array, RowLosses]:
    """Gradients of the loss summed over rows and divided by B, and what the rows came to.

    Returns:
      gradients of the trained parameters; [b, E] gradients of the rows' puzzle embedding, or None;
      the new carry; halt logits [b] float32; losses [b].
    """
    has_table = _TABLE in params
    # In a micro-batch row i has row i of a table of its own: its gradient is then [T, E], however
    # many puzzles the real table has.
    tile_config = dataclasses.replace(
        model.config, num_puzzle_identifiers=config.micro_batch if has_table else 1
    )
    tile_model = TRM(tile_config, model.precision)

    def loss(
        weights: Params, table_rows: jax.Array | None, tile: _Tile
    ) -> tuple[jax.Array, tuple[Carry, jax.Array, RowLosses]]:
        all_params = {**params, **weights}
        if has_table:
            all_params[_TABLE] = {"embedding": table_rows}
        carry, logits, q_halt = supervision_step(tile_model, all_params, tile.carry, tile.examples)
        losses = row_losses(
            logits, q_halt, tile.examples.labels, ignore_label=ignore_label, loss=config.loss
        )
        total = jnp.sum(losses.lm + 0.5 * losses.q_halt) / config.batch_size
        return total, (carry, q_halt, losses)

    weights = trained(params)
    table_rows = None
    if has_table:
        table_rows = params[_TABLE]["embedding"][rows.examples.puzzle_identifiers]
    tiles = jax.tree.map(
        lambda x: x.reshape(-1, config.micro_batch, *x.shape[1:]),
        _Tile(rows.carry, rows.examples, table_rows),
    )

    def add(total: Params, tile: _Tile) -> tuple[Params, Any]:
        differentiate = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
        (_, aux), (grads, table_grads) = differentiate(weights, tile.table_rows, tile)
        return jax.tree.map(jnp.add, total, grads), (table_grads, *aux)

    grads, outcome = lax.scan(add, jax.tree.map(jnp.zeros_like, weights), tiles)
    return grads, *jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outcome)


def supervision_step(
    model: TRM, params: Params, carry: Carry, examples: Examples
) -> tuple[Carry, jax.Array, jax.Array]:
    """One deep recursion of T rows, differentiable through its last latent recursion alone.

    Args:
      model: the network, with T rows in its puzzle embedding, one for each row.
      params: its parameters.
      carry: y and z, [T, L, C] each.
      examples: T puzzles; their identifiers are not used.

    Returns:
      carry, detached; logits [T, S, V]; halt logits [T] float32.
    """

    def network(params: Params) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return functools.partial(model.apply, {"params": params}, method=TRM.f)

    apply = functools.partial(model.apply, {"params": params})
    num_rows = examples.inputs.shape[0]
    x = jax.vmap(functools.partial(apply, method=TRM.embed), out_axes=1)(
        examples.inputs, jnp.arange(num_rows, dtype=jnp.int32)
    )
    carry = Carry(*(jnp.swapaxes(state, 0, 1) for state in carry))
    cfg = model.config
    carry = recur(
        network(lax.stop_gradient(params)),
        carry,
        lax.stop_gradient(x),
        cfg.H_cycles - 1,
        cfg.L_cycles,
    )
    y, z = carry
    # Unrolled: a loop would copy what the derivative needs of every turn into one stack.
    injection = rounded(y + x)
    for _ in range(cfg.L_cycles):
        z = network(params)(z, injection)
    y = network(params)(y, z)
    heads = apply(y, method=TRM.heads)
    new_carry = Carry(*(lax.stop_gradient(jnp.swapaxes(state, 0, 1)) for state in (y, z)))
    return new_carry, jnp.swapaxes(heads.logits, 0, 1), heads.q_logits[:, 0]


# --- Halting -------------------------------------------------------------------------------------


def _exploration(config: TrainConfig, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a row explores in this step, and its least number of steps, 2..halt_max_steps."""
    explore_key, least_key = jax.random.split(key)
    explore = jax.random.bernoulli(explore_key, config.halt_exploration_prob)
    return explore, jax.random.randint(least_key, (), 2, max(3, config.halt_max_steps + 1))


def halts(
    steps: jax.Array,
    q_halt: jax.Array,
    explore: jax.Array,
    least: jax.Array,
    halt_max_steps: int,
) -> jax.Array:
    """Which rows halt: Q says right, or the limit; not before `least` steps where they explore.

    Args:
      steps: [T] int32, supervision steps done.
      q_halt: [T] float32 halt logits.
      explore: [T] bool.
      least: [T] int32.
      halt_max_steps: the limit.

    Returns:
      [T] bool.

    Source: upstream `trm.py`, TinyRecursiveReasoningModel_ACTV1.forward, `no_ACT_continue`.
    """
    last = steps >= halt_max_steps
    if halt_max_steps == 1:
        return last
    return (last | (q_halt > 0)) & (~explore | (steps >= least))


def _metrics(
    config: TrainConfig,
    losses: RowLosses,
    q_halt: jax.Array,
    steps: jax.Array,
    halted: jax.Array,
) -> StepMetrics:
    ended = halted & losses.counted

    def over_ended(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(ended, x.astype(jnp.float32), 0.0))

    lm, q_loss = jnp.sum(losses.lm), jnp.sum(losses.q_halt)
    sums = StepMetrics(
        loss=(lm + 0.5 * q_loss) / config.batch_size,
        lm_loss=lm / config.batch_size,
        q_loss=q_loss / config.batch_size,
        halted=over_ended(jnp.ones_like(q_halt)),
        cell_accuracy=over_ended(losses.cell_accuracy),
        exact=over_ended(losses.exact),
        q_right=over_ended((q_halt >= 0) == losses.exact),
        steps=over_ended(steps),
        grad_norm=jnp.zeros(()),
    )
    return lax.psum(sums, mesh.AXIS)


def make_model(config: TrainConfig) -> TRM:
    """The network of a run, in its precision."""
    return TRM(config.model, Precision(config.compute_dtype, config.matmul_precision))
