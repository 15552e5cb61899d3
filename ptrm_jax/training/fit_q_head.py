"""Fits a Q head to a frozen model, on the states that its own noisy rollouts pass through.

The trained Q head reads the first position. One that pools y over all positions
(`ModelConfig.q_pooling`) can be had without training the model again: everything else stays, and so
do the answers. Fitting the head "first" anew, on the same rollouts, is the control.

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
    """A model with a new Q head, fitted to tell right answers from wrong ones at every step.

    Rollouts run in chunks of puzzles with their latents kept; the states of a chunk, shuffled, make
    batches of one optimiser step of Adam each. The loss is the binary cross-entropy of the halt
    logit against the whole answer being right, as in training. Each pass over the puzzles is in
    another order and takes new rollouts. The head starts at zero. Equal arguments give equal bits
    where `mesh.solve` does.

    Memory on the host is that of one chunk: chunk_puzzles * num_rollouts * depth states of y and z,
    [L, C] each.

    Args:
      model: the network, whose own q_pooling does not matter.
      params: its parameters.
      puzzles: B puzzles to fit on.
      labels: [B, S] int32.
      key: typed threefry key of noise and order.
      ignore_label: label of positions that do not count.
      q_pooling: of the new head; "first" for a control.
      num_rollouts: K, of each puzzle in a pass.
      depth: D, supervision steps; every one gives a state.
      sigma: noise scale.
      steps: optimiser steps.
      batch_size: states of each.
      learning_rate: of Adam.
      chunk_puzzles: puzzles whose rollouts are held at once.
      **settings: of `mesh.solve`: `noise_on`, `noise_when`, `langevin`, `lane_tile`, `devices`.

    Returns:
      model, whose config has the `q_pooling` asked for; params, those given but for the Q head. Its
      continue logit, which nothing reads, is 0.

    Raises:
      ValueError: for any argument out of range or that does not fit the model; for rollouts that
        are all right or all wrong, from which nothing can be learnt.
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
    solve = functools.partial(mesh.solve, depth=depth, sigma=sigma, save=save, **settings)

    def roll_out(rows: np.ndarray, rollouts: np.ndarray) -> Trajectory:
        return solve(model, params, key, puzzles.take(rows), rollouts=rollouts).trajectory

    new_model = TRM(dataclasses.replace(model.config, q_pooling=q_pooling), model.precision)
    size = model.config.hidden_size
    head = {"q_head": {"kernel": jnp.zeros((size, 2)), "bias": jnp.zeros(2)}}
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
    roll_out: Callable[[np.ndarray, np.ndarray], Trajectory],
    labels: np.ndarray,
    ignore_label: int | None,
    num_rollouts: int,
    chunk_puzzles: int,
    rng: np.random.Generator,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Finite states without end, a chunk at a time: y [R, L, C] and right [R] bool."""
    size = min(chunk_puzzles, len(labels))
    for epoch in itertools.count():
        rollouts = np.arange(num_rollouts, dtype=np.int32) + epoch * num_rollouts
        order = rng.permutation(len(labels))
        total = num_right = 0
        for first in range(0, len(order), size):
            rows = order[first : first + size]
            # The last chunk is filled up, so that one program does for all.
            found = roll_out(np.resize(rows, size), rollouts)
            finite, answers, y = (x[: len(rows)] for x in (found.finite, found.answers, found.y))
            right = metrics.exact(answers, labels[rows], ignore_label=ignore_label)[finite]
            total, num_right = total + len(right), num_right + int(right.sum())
            yield y[finite], right
        _check_both_kinds(num_right, total)


def _batches(num_states: int, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """All states once, shuffled; the last batch is filled up with the first ones: [n, R] rows."""
    num_batches = -(-num_states // batch_size)
    return np.resize(rng.permutation(num_states), (num_batches, batch_size))


def _check_both_kinds(num_right: int, total: int) -> None:
    if num_right in (0, total):
        raise InputError(
            "puzzles must have right and wrong answers to tell apart; got "
            f"{num_right} right ones among {total} states; pass other puzzles, a lower depth or "
            "another sigma"
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
    """One step of Adam: the head, and the optimiser's state."""

    def loss(head: Params) -> jax.Array:
        states = jnp.swapaxes(y, 0, 1)  # lanes in the middle
        q_logits = model.apply({"params": rest | head}, states, method=TRM.q_logits)[:, 0]
        return jnp.mean(jax.nn.softplus(jnp.where(right, -q_logits, q_logits)))

    updates, opt_state = optax.adam(learning_rate).update(jax.grad(loss)(head), opt_state)
    return optax.apply_updates(head, updates), opt_state
