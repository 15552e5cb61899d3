"""Selection of one rollout per puzzle, without labels.

A selection is a function (rollout_answers [B, K, S] int32, rollout_q_logits [B, K] float32,
rollout_finite [B, K] bool) -> rollout [B] integer; pass your own to `solve(..., select=...)`.
It must choose a finite rollout, or -1 for a puzzle that has none.

It is static and traced: write it in jax.numpy, and pass the same function object each time. A new
one, such as a lambda in a loop, compiles the choice again (but not the network).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ptrm_jax.errors import InputError

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


BY_NAME: dict[str, Selection] = {"best_q": best_q, "mode": mode}


def named(select: Selection | str) -> Selection:
    """The selection that was asked for, by its name or as a function.

    Raises:
      InputError: it is neither a name nor a hashable function.
    """
    known = BY_NAME.get(select) if isinstance(select, str) else select
    if known is None or not callable(known):
        raise InputError(
            f"select must be {', '.join(map(repr, BY_NAME))} or a function of (rollout_answers, "
            f"rollout_q_logits, rollout_finite); got {repr(select)[:80]}"
        )
    try:
        hash(known)
    except TypeError:
        raise InputError(
            f"select must be hashable, because it is static; got a {type(known).__name__}; pass a "
            "plain function"
        ) from None
    return known


def check_selection(
    select: Selection | str, num_puzzles: int, num_rollouts: int, seq_len: int
) -> Selection:
    """A selection for B puzzles with K rollouts of S tokens, traced once to check it.

    Raises:
      InputError: as `named` and `apply`.
    """
    select = named(select)
    if select not in BY_NAME.values():
        arrays = [
            jax.ShapeDtypeStruct((num_puzzles, num_rollouts, *more), dtype)
            for more, dtype in (((seq_len,), jnp.int32), ((), jnp.float32), ((), jnp.bool_))
        ]
        apply.eval_shape(select, *arrays)
    return select


@functools.partial(jax.jit, static_argnums=0)
def apply(
    select: Selection,
    rollout_answers: jax.Array,
    rollout_q_logits: jax.Array,
    rollout_finite: jax.Array,
) -> jax.Array:
    """What a selection chooses, [B] int32, after checking its shape and type.

    Raises:
      InputError: it does not return [B] integers, or computes with numpy or Python's `if` what
        must be traced.
    """
    num_puzzles = rollout_q_logits.shape[0]
    try:
        rollout: Any = select(rollout_answers, rollout_q_logits, rollout_finite)
    except jax.errors.JAXTypeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"select must be traceable by JAX: {reason[:200]}; write it in jax.numpy, without `if` "
            "on values"
        ) from error
    got = type(rollout).__name__
    if isinstance(rollout, (jax.Array, np.ndarray)):
        if rollout.shape == (num_puzzles,) and jnp.issubdtype(rollout.dtype, jnp.integer):
            return jnp.asarray(rollout, jnp.int32)
        got = f"{rollout.dtype} {list(rollout.shape)}"
    raise InputError(
        f"select must return the chosen rollouts as integers of shape [{num_puzzles}], one per "
        f"puzzle; it returned {got}"
    )


def check_range(rollout: jax.Array, num_rollouts: int) -> None:
    """Raises InputError unless chosen rollouts [B] lie in -1..K-1, where their values are known."""
    if isinstance(rollout, jax.core.Tracer):
        return
    values = np.asarray(rollout)
    wrong = np.flatnonzero((values < -1) | (values >= num_rollouts))
    if wrong.size:
        raise InputError(
            f"select must return rollouts in 0..{num_rollouts - 1}, or -1 for none; it returned "
            f"{values[wrong[0]]} for puzzle {wrong[0]} and {wrong.size - 1} more out of range"
        )
