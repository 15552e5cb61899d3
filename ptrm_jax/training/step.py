"""One optimiser step as a pure function: replace halted rows, differentiate, update, halt.

A row is one puzzle in progress. It takes one supervision step per optimiser step until its Q head,
or the limit, halts it; then the next puzzle replaces it. Rows pass through the network in
micro-batches, lanes in the middle ([L, T, C]), and gradients are summed.

Shape letters: B rows in all, b of this device, T of a micro-batch, S tokens, L positions, C
channels, E width of the puzzle embedding.

Source: upstream `pretrain.py` (train_batch), `models/losses.py`,
`models/recursive_reasoning/trm.py`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from ptrm_jax import mesh
from ptrm_jax.config import Precision
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Carry, Params, init_params, recur, rounded
from ptrm_jax.puzzles import ArrayT
from ptrm_jax.tasks.symmetry import Augment, show_clues
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.loss import RowLosses, row_losses
from ptrm_jax.training.optimizer import ema_decay, make_optimizer, schedule, sign_sgd_rows

_FROZEN = ("H_init", "L_init")
_TABLE = "puzzle_emb"


class Examples(NamedTuple, Generic[ArrayT]):
    """Labelled puzzles.

    Attributes:
      inputs: [B, S] int32 tokens.
      labels: [B, S] int32 tokens.
      puzzle_identifiers: [B] int32 rows of the puzzle embedding.
    """

    inputs: ArrayT
    labels: ArrayT
    puzzle_identifiers: ArrayT


class Rows(NamedTuple):
    """The batch in progress (upstream's carry).

    Attributes:
      carry: y and z, [B, L, C] each in the compute dtype, detached.
      steps: [B] int32, supervision steps of the present puzzle so far.
      halted: [B] bool, the row takes a new puzzle in the next step.
      examples: the puzzles.
    """

    carry: Carry
    steps: jax.Array
    halted: jax.Array
    examples: Examples


class TrainState(NamedTuple):
    """Everything that a step changes.

    Attributes:
      step: [] int32, optimiser steps done.
      params: all parameters, float32.
      ema: averages of the parameters that the optimiser trains: all but the puzzle embedding and
        the initial states.
      opt_state: state of the optax optimiser, over the same parameters.
      rows: the batch in progress.
    """

    step: jax.Array
    params: Params
    ema: Params
    opt_state: Any
    rows: Rows


class StepMetrics(NamedTuple):
    """Scalars of one step over the whole batch.

    Attributes:
      loss: mean over all rows of the differentiated loss.
      lm_loss: mean over all rows of the tokens' loss.
      q_loss: mean over all rows of the Q head's loss.
      halted: number of rows that halted in this step and have labels. The next four are sums over
        these rows.
      cell_accuracy: fraction of labelled cells that are right.
      exact: whether the answer is right.
      q_right: whether the halt logit has the right sign.
      steps: supervision steps.
      grad_norm: norm of the gradient of the trained parameters.
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


_SPLIT = TrainState._make(name == "rows" for name in TrainState._fields)
"""Which parts of the state are split over devices."""


def trained(params: Params) -> Params:
    """The parameters that the optimiser updates and `ema` averages."""
    return {name: p for name, p in params.items() if name not in (*_FROZEN, _TABLE)}


def averaged(state: TrainState) -> Params:
    """All parameters, the trained ones averaged, as evaluated and exported."""
    return {**state.params, **state.ema}


def init_state(model: TRM, config: TrainConfig, params: Params | None = None) -> TrainState:
    """The state before the first step: every row halted.

    Args:
      model: the network.
      config: settings of the run.
      params: initial parameters; by default drawn from `config.seed`.
    """
    if params is None:
        params = init_params(model, jax.random.key(config.seed, impl="threefry2x32"))
    cfg, num_rows = model.config, config.batch_size
    # Each leaf has its own buffer, because the state is donated.
    copy = functools.partial(jax.device_put, may_alias=False)
    weights = copy(trained(params))
    shape = (num_rows, cfg.length, cfg.hidden_size)
    tokens = (num_rows, cfg.seq_len)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=copy(params),
        ema=weights,
        opt_state=_optimizer(config).init(weights),
        rows=Rows(
            carry=Carry(
                jnp.zeros(shape, model.precision.dtype), jnp.zeros(shape, model.precision.dtype)
            ),
            steps=jnp.zeros(num_rows, jnp.int32),
            halted=jnp.ones(num_rows, bool),
            examples=Examples(
                jnp.zeros(tokens, jnp.int32),
                jnp.zeros(tokens, jnp.int32),
                jnp.zeros(num_rows, jnp.int32),
            ),
        ),
    )


def place(state: TrainState, devices: Sequence[jax.Device]) -> TrainState:
    """The state on devices: rows split over them, everything else whole on each."""
    return jax.device_put(
        state, jax.tree.map(lambda split: mesh.sharding(devices, split=split), _SPLIT)
    )


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

    Every random draw of step t is a function of (config.seed, t, row), by `fold_in`.

    Args:
      model: the network.
      config: settings of the run; `batch_size` must be a multiple of devices x `micro_batch`.
      augment: draws a symmetry for every new puzzle; None for no augmentation.
      ignore_label: label of positions that do not count.
      devices: the rows are split over them.

    Returns:
      step(state, batch): `batch` has B new puzzles; halted rows take the puzzle of their index.

    Raises:
      InputError: the batch cannot be split over the devices.
    """
    unit = len(devices) * config.micro_batch
    if config.batch_size % unit:
        raise InputError(
            f"batch_size must be a multiple of devices x micro_batch, {len(devices)} x "
            f"{config.micro_batch}; got {config.batch_size}; change it or micro_batch"
        )
    step = functools.partial(_step, model, config, augment, ignore_label)
    return mesh.data_parallel(step, devices, inputs=(_SPLIT, True), outputs=(_SPLIT, False))


def _step(
    model: TRM,
    config: TrainConfig,
    augment: Augment | None,
    ignore_label: int | None,
    state: TrainState,
    batch: Examples,
) -> tuple[TrainState, StepMetrics]:
    """The step of one device, on its b of the B rows."""
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
        # Every device needs all gradients: rows with one identifier may be on any device.
        touched, table_grads = (
            lax.all_gather(x, mesh.AXIS, tiled=True)
            for x in (rows.examples.puzzle_identifiers, table_grads)
        )
        table = sign_sgd_rows(
            params[_TABLE]["embedding"],
            touched,
            table_grads,
            rate,
            config.puzzle_emb_weight_decay,
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
    """The rows; halted ones start over with a puzzle of `batch` and the initial carry."""
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
    """T rows of a micro-batch; `table_rows` are their puzzle embeddings, [T, E], or None."""

    carry: Carry
    examples: Examples
    table_rows: jax.Array | None


def _gradients(
    model: TRM, config: TrainConfig, ignore_label: int | None, params: Params, rows: Rows
) -> tuple[Params, jax.Array | None, Carry, jax.Array, RowLosses]:
    """Gradients of the loss, which is summed over the b rows and divided by B.

    Returns:
      Gradients of the trained parameters; gradients of the rows' puzzle embeddings [b, E], or None;
      the new carry; halt logits [b] float32; losses [b].
    """
    has_table = _TABLE in params
    # The model of a micro-batch has a table of T rows, one for each row of the micro-batch: its
    # gradient is [T, E], independently of the size of the real table.
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
    table_grads, carry, q_halt, losses = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[2:]), outcome
    )
    return grads, table_grads, carry, q_halt, losses


def supervision_step(
    model: TRM, params: Params, carry: Carry, examples: Examples
) -> tuple[Carry, jax.Array, jax.Array]:
    """One deep recursion of T rows; gradients flow through its last latent recursion only.

    Args:
      model: the network, whose puzzle embedding has T rows, one for each row here.
      params: its parameters.
      carry: y and z, [T, L, C] each.
      examples: T puzzles; their identifiers are ignored.

    Returns:
      The carry, detached; logits [T, S, V]; halt logits [T] float32.
    """

    def network(params: Params) -> Callable[[jax.Array, jax.Array], Any]:
        return functools.partial(model.apply, {"params": params}, method=TRM.f)

    apply: Callable[..., Any] = functools.partial(model.apply, {"params": params})
    num_rows = examples.inputs.shape[0]
    x = jax.vmap(functools.partial(apply, method=TRM.embed), out_axes=1)(
        examples.inputs, jnp.arange(num_rows, dtype=jnp.int32)
    )
    carry = jax.tree.map(lambda state: jnp.swapaxes(state, 0, 1), carry)
    cfg = model.config
    carry = recur(
        network(lax.stop_gradient(params)),
        carry,
        lax.stop_gradient(x),
        cfg.H_cycles - 1,
        cfg.L_cycles,
    )
    y, z = carry
    # Unrolled: a loop would copy the residuals of every iteration into one stack.
    injection = rounded(y + x)
    for _ in range(cfg.L_cycles):
        z = network(params)(z, injection)
    y = network(params)(y, z)
    heads = apply(y, method=TRM.heads)
    new_carry = jax.tree.map(lambda x: lax.stop_gradient(jnp.swapaxes(x, 0, 1)), Carry(y, z))
    return new_carry, jnp.swapaxes(heads.logits, 0, 1), heads.q_logits[:, 0]


# --- Halting -------------------------------------------------------------------------------------


def _exploration(config: TrainConfig, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Whether a row explores in this step, and its minimum number of steps, 2..halt_max_steps."""
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
    """Which rows halt: at a positive halt logit or at the limit, unless exploration forbids it.

    Args:
      steps: [T] int32, supervision steps done.
      q_halt: [T] float32 halt logits.
      explore: [T] bool, rows that may not halt before `least` steps.
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
    """The network of a run, with its precision."""
    return TRM(config.model, Precision(config.compute_dtype, config.matmul_precision))
