"""Fits a new Q head to a frozen model, on the states of the model's own noisy rollouts.

The Q head of training reads the first position. One that pools y over all positions
(`ModelConfig.q_pooling`) does not require training the model again: all other weights, and so the
answers, stay the same. A new head "first", fitted on the same rollouts, is the control.

Shape letters: R states (of any puzzle, rollout and step), L positions, C channels.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ptrm_jax import mesh, metrics
from ptrm_jax.config import QPooling, Save, check_choice, check_int
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.puzzles import Puzzles, check_puzzles
from ptrm_jax.solver import Trajectory, check_key, check_params

_HEAD = ("q_head", "q_query")


def fit_q_head(
    model: TRM,
    params: Params,
    puzzles: Puzzles,
    labels: np.ndarray,
    key: jax.Array,
    *,
    ignore_label: int | None = None,
    q_pooling: QPooling = "attention",
    num_rollouts: int = 4,
    depth: int = 16,
    sigma: float = 0.3,
    steps: int = 500,
    batch_size: int = 256,
    learning_rate: float = 1e-2,
    chunk_puzzles: int = 16,
    **settings: Any,
) -> tuple[TRM, Params]:
    """A model with a new Q head, fitted to tell right answers from wrong ones after every step.

    Rollouts run in chunks of puzzles and keep their latents; the shuffled states of a chunk make
    batches, one for each step of Adam. As in training, the loss is the binary cross-entropy of the
    halt logit against whether the whole answer is right. Each pass over the puzzles has a new order
    and new rollouts. The head starts at zero. Results are as reproducible as those of `mesh.solve`.

    The host holds one chunk at a time: chunk_puzzles * num_rollouts * depth states of y and z,
    [L, C] each.

    Args:
      model: the network, with any q_pooling.
      params: its parameters.
      puzzles: B puzzles to fit on.
      labels: [B, S] int32.
      key: typed threefry key of noise and order.
      ignore_label: label of positions that do not count.
      q_pooling: what the new head reads; "first" for a control.
      num_rollouts: K, rollouts of each puzzle in one pass.
      depth: D, supervision steps; the states after all of them are used.
      sigma: noise scale.
      steps: optimiser steps.
      batch_size: states per optimiser step.
      learning_rate: learning rate of Adam.
      chunk_puzzles: puzzles whose rollouts are held at once.
      **settings: further arguments of `mesh.solve`: `noise_on`, `noise_when`, `langevin`,
        `lane_tile`, `devices`.

    Returns:
      The model with this `q_pooling`; the parameters, of which only the Q head is new. Its continue
      logit, which is not used, is 0.

    Raises:
      InputError: an argument is out of range or does not fit the model, or the rollouts are all
        right or all wrong.
    """
    check_choice("q_pooling", q_pooling, QPooling)
    check_key(key)
    check_params(model, params)
    check_puzzles(model.config, puzzles)
    counts = {
        "num_rollouts": num_rollouts,
        "steps": steps,
        "batch_size": batch_size,
        "chunk_puzzles": chunk_puzzles,
    }
    for name, value in counts.items():
        check_int(name, value, 1)
    if not (np.isfinite(learning_rate) and learning_rate > 0):
        raise InputError(f"learning_rate must be finite and > 0; got {learning_rate!r}")
    if np.shape(labels) != puzzles.inputs.shape:
        raise InputError(
            f"labels must have shape {list(puzzles.inputs.shape)}, one for each token; got "
            f"{list(np.shape(labels))}"
        )
    if not (labelled := metrics.valid_rows(labels, ignore_label)).all():
        raise InputError(
            "labels must have a position that counts in every row; got none in row "
            f"{int(np.argmin(labelled))}; leave such puzzles out"
        )

    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    save = Save(answers=True, latents=True)

    def roll_out(rows: np.ndarray, rollouts: np.ndarray) -> Trajectory[np.ndarray]:
        trajectory = mesh.solve(
            model,
            params,
            key,
            puzzles.take(rows),
            rollouts=rollouts,
            depth=depth,
            sigma=sigma,
            save=save,
            **settings,
        ).trajectory
        assert trajectory is not None
        return trajectory

    new_model = TRM(dataclasses.replace(model.config, q_pooling=q_pooling), model.precision)
    size = model.config.hidden_size
    head: Params = {"q_head": {"kernel": jnp.zeros((size, 2)), "bias": jnp.zeros(2)}}
    if q_pooling == "attention":
        head["q_query"] = jnp.zeros(size)
    rest = {name: leaf for name, leaf in params.items() if name not in _HEAD}
    opt_state = optax.adam(learning_rate).init(head)
    chunks = _chunks(roll_out, np.asarray(labels), ignore_label, num_rollouts, chunk_puzzles, rng)
    batches = (
        (y[rows], right[rows]) for y, right in chunks for rows in _batches(len(y), batch_size, rng)
    )
    num_right = 0
    for y, right in itertools.islice(batches, steps):
        head, opt_state = _update(new_model, learning_rate, rest, head, opt_state, y, right)
        num_right += int(right.sum())
    _check_both_kinds(num_right, steps * batch_size)
    return new_model, rest | head


def _chunks(
    roll_out: Callable[[np.ndarray, np.ndarray], Trajectory[np.ndarray]],
    labels: np.ndarray,
    ignore_label: int | None,
    num_rollouts: int,
    chunk_puzzles: int,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless chunks of the finite states: y [R, L, C] and whether they are right, [R] bool."""
    size = min(chunk_puzzles, len(labels))
    for epoch in itertools.count():
        rollouts = np.arange(num_rollouts, dtype=np.int32) + epoch * num_rollouts
        order = rng.permutation(len(labels))
        total = num_right = 0
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            # The last chunk is padded, so that all chunks share one compiled program.
            found = roll_out(np.resize(rows, size), rollouts)
            finite, answers, y = (
                np.asarray(x)[: len(rows)] for x in (found.finite, found.answers, found.y)
            )
            right = metrics.exact(answers, labels[rows], ignore_label=ignore_label)[finite]
            total, num_right = total + len(right), num_right + int(right.sum())
            yield y[finite], right
        _check_both_kinds(num_right, total)


def _batches(num_states: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffled rows of all states, [n, R]; the last batch is padded with the first rows."""
    num_batches = -(-num_states // batch_size)
    return np.resize(rng.permutation(num_states), (num_batches, batch_size))


def _check_both_kinds(num_right: int, total: int) -> None:
    if num_right in (0, total):
        raise InputError(
            f"puzzles must have both right and wrong answers; got {num_right} right ones among "
            f"{total} states; pass other puzzles, a lower depth or another sigma"
        )


@functools.partial(jax.jit, static_argnames=("model", "learning_rate"))
def _update(
    model: TRM,
    learning_rate: float,
    rest: Params,
    head: Params,
    opt_state: Any,
    y: jax.Array,
    right: jax.Array,
) -> tuple[Params, Any]:
    """One step of Adam: the new head and the new state of the optimiser."""

    def loss(head: Params) -> jax.Array:
        states = jnp.swapaxes(y, 0, 1)  # lanes in the middle
        q_logits: Any = model.apply({"params": rest | head}, states, method=TRM.q_logits)
        q_halt = q_logits[:, 0]
        return jnp.mean(jax.nn.softplus(jnp.where(right, -q_halt, q_halt)))

    updates, opt_state = optax.adam(learning_rate).update(jax.grad(loss)(head), opt_state)
    return optax.apply_updates(head, updates), opt_state
