"""Selection of one rollout per puzzle, without labels.

A selection is a function (rollout_answers [B, K, S] int32, rollout_q_logits [B, K] float32,
rollout_finite [B, K] bool) -> rollout [B] int32; pass your own to `solve(..., select=...)`.
It must choose a finite rollout, or -1 for a puzzle that has none.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Selection = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def best_q(
    rollout_answers: jax.Array, rollout_q_logits: jax.Array, rollout_finite: jax.Array
) -> jax.Array:
    """The rollout with the largest Q, as PTRM; ties go to the lowest rollout id.

    Args:
      rollout_answers: [B, K, S] int32; unused.
      rollout_q_logits: [B, K] float32 logits.
      rollout_finite: [B, K] bool.

    Returns:
      rollout: [B] int32, -1 where no rollout is finite.

    Source: PTRM, arXiv 2605.19943, Figure 4, last line. The paper states no tie-break; in bfloat16
    exact ties are common.
    """
    del rollout_answers
    masked = jnp.where(rollout_finite, rollout_q_logits, -jnp.inf)
    return _or_none(jnp.argmax(masked, axis=1), rollout_finite)


def mode(
    rollout_answers: jax.Array, rollout_q_logits: jax.Array, rollout_finite: jax.Array
) -> jax.Array:
    """The most frequent answer (mode@K); ties go to the higher Q, then the lower rollout id.

    Args:
      rollout_answers: [B, K, S] int32.
      rollout_q_logits: [B, K] float32 logits.
      rollout_finite: [B, K] bool.

    Returns:
      rollout: [B] int32, the rollout of highest Q among those with the chosen answer; -1 where no
        rollout is finite.
    """

    def votes(answer: jax.Array) -> jax.Array:  # one rollout against all: never [B, K, K, S]
        same = jnp.all(rollout_answers == answer[:, None], axis=-1)
        return jnp.sum(same & rollout_finite, axis=1)

    counts = lax.map(votes, jnp.swapaxes(rollout_answers, 0, 1)).T
    counts = jnp.where(rollout_finite, counts, -1)
    frequent = counts == jnp.max(counts, axis=1, keepdims=True)
    masked = jnp.where(frequent & rollout_finite, rollout_q_logits, -jnp.inf)
    return _or_none(jnp.argmax(masked, axis=1), rollout_finite)


def _or_none(rollout: jax.Array, rollout_finite: jax.Array) -> jax.Array:
    return jnp.where(jnp.any(rollout_finite, axis=1), rollout, -1).astype(jnp.int32)
