"""Losses of deep supervision for each row, which is one puzzle at one supervision step.

Source: upstream `models/losses.py`, ACTLossHead.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ptrm_jax.config import check_choice
from ptrm_jax.training.config import Loss


class RowLosses(NamedTuple):
    """Losses and outcomes of T rows.

    Attributes:
      lm: [T] float32, mean cross-entropy over the positions that count.
      q_halt: [T] float32, binary cross-entropy of the halt logit against `exact`.
      cell_accuracy: [T] float32, fraction of counted positions that are right.
      exact: [T] bool, all of them are right; True for a row without any, as in upstream.
      counted: [T] bool, the row has a position that counts.
    """

    lm: jax.Array
    q_halt: jax.Array
    cell_accuracy: jax.Array
    exact: jax.Array
    counted: jax.Array


def log_stablemax(logits: jax.Array) -> jax.Array:
    """Logarithm of s(x) / sum s(x) over the last axis; s(x) = x + 1 for x >= 0, else 1 / (1 - x).

    Computed in the dtype of `logits` (upstream uses float64, which TPUs lack).

    Source: upstream `models/losses.py`, `log_stablemax`; Prieto et al., arXiv 2501.04697.
    """
    # The argument of the case that does not apply is set to 0, so that its gradient is not NaN.
    positive = logits >= 0
    log_s = jnp.where(
        positive,
        jnp.log1p(jnp.where(positive, logits, 0.0)),
        -jnp.log1p(jnp.where(positive, 0.0, -logits)),
    )
    return log_s - jnp.log(jnp.sum(jnp.exp(log_s), axis=-1, keepdims=True))


def cross_entropy(logits: jax.Array, labels: jax.Array, loss: Loss) -> jax.Array:
    """Cross-entropy of each position, [...] float32.

    Args:
      logits: [..., V].
      labels: [...] int32 in 0..V-1.
      loss: "stablemax" or "softmax".
    """
    check_choice("loss", loss, Loss)
    log_probability = log_stablemax if loss == "stablemax" else jax.nn.log_softmax
    logs = log_probability(logits.astype(jnp.float32))
    # A sum over one-hot labels: on a CPU its gradient is far cheaper than a gather's scatter.
    hot = labels[..., None] == jnp.arange(logits.shape[-1], dtype=labels.dtype).reshape(
        (1,) * labels.ndim + (-1,)
    )
    return -jnp.sum(jnp.where(hot, logs, 0.0), axis=-1)


def row_losses(
    logits: jax.Array,
    q_halt: jax.Array,
    labels: jax.Array,
    *,
    ignore_label: int | None,
    loss: Loss,
) -> RowLosses:
    """Losses of T rows.

    Args:
      logits: [T, S, V].
      q_halt: [T] float32, halt logit.
      labels: [T, S] int32.
      ignore_label: label of positions that do not count.
      loss: the tokens' cross-entropy.
    """
    mask = jnp.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label
    count = jnp.sum(mask, axis=-1)
    divisor = jnp.maximum(count, 1).astype(jnp.float32)
    token_loss = cross_entropy(logits, labels, loss)
    right = mask & (jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels)
    num_right = jnp.sum(right, axis=-1)
    exact = num_right == count
    return RowLosses(
        lm=jnp.sum(jnp.where(mask, token_loss, 0.0), axis=-1) / divisor,
        # -log sigmoid(q) or -log(1 - sigmoid(q))
        q_halt=jax.nn.softplus(jnp.where(exact, -q_halt, q_halt)),
        cell_accuracy=num_right.astype(jnp.float32) / divisor,
        exact=exact,
        counted=count > 0,
    )
