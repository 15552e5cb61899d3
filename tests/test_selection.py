"""Choices without labels, on cases small enough to count by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptrm_jax import best_q, metrics, mode
from ptrm_jax.errors import InputError
from ptrm_jax.solver import LaneResults, check_selection, choose

NAN, INF = float("nan"), float("inf")
A, B, C = [1, 1], [1, 2], [2, 2]


def arrays(answers: list, q_logits: list, finite: list | None = None) -> tuple[jax.Array, ...]:
    """One puzzle's rollouts as the [1, K, ...] arrays that selections take."""
    return (
        jnp.array([answers], jnp.int32),
        jnp.array([q_logits], jnp.float32),
        jnp.array([[True] * len(q_logits) if finite is None else finite]),
    )


@pytest.mark.parametrize(
    ("q_logits", "finite", "expected"),
    [
        ([1.0, 3.0, 2.0, -1.0], None, 1),
        ([2.0, 3.0, 3.0, 3.0], None, 1),  # ties go to the lowest id
        ([-5.0, -6.0, -7.0, -8.0], None, 0),
        ([NAN, 1.0, 2.0, NAN], [False, True, True, False], 2),
        ([9.0, 1.0, INF, 2.0], [False, True, False, True], 3),
        ([-1e30, -INF, 0.0, 0.0], [True, False, False, False], 0),
        ([1.0, 2.0, 3.0, 4.0], [False] * 4, -1),
    ],
)
def test_best_q(q_logits: list, finite: list | None, expected: int) -> None:
    rollout = best_q(*arrays([A, B, C, A], q_logits, finite))
    assert rollout.dtype == jnp.int32
    assert rollout.tolist() == [expected]


@pytest.mark.parametrize(
    ("answers", "q_logits", "finite", "expected"),
    [
        ([A, B, B, C], [9.0, 1.0, 2.0, 8.0], None, 2),  # most votes, then its best Q
        ([A, B, B, A], [1.0, 5.0, 2.0, 4.0], None, 1),  # equal votes: the higher Q
        ([A, B, B, A], [5.0, 5.0, 2.0, 4.0], None, 0),  # equal Q too: the lower id
        ([A, B, C, C], [0.0, 0.0, NAN, NAN], [True, True, False, False], 0),  # NaN has no vote
        ([B, B, B, A], [1.0, 2.0, 3.0, 0.0], [False, False, True, True], 2),
        ([A, A, A, A], [0.0] * 4, [False] * 4, -1),
    ],
)
def test_mode(answers: list, q_logits: list, finite: list | None, expected: int) -> None:
    rollout = mode(*arrays(answers, q_logits, finite))
    assert rollout.dtype == jnp.int32
    assert rollout.tolist() == [expected]


def test_choices_agree_with_the_metrics_of_the_same_rollouts() -> None:
    """The solver's choice and the metrics' account of it are two programs with one rule."""
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 2, (200, 7, 2)).astype(np.int32)
    q_logits = rng.integers(-2, 3, (200, 7)).astype(np.float32)  # many ties
    finite = rng.random((200, 7)) < 0.8
    right = (answers == 1).all(-1)
    rollouts = metrics.Rollouts(
        right, q_logits, finite=finite, answer_id=metrics.answer_ids(answers)
    )
    for select, account in (
        (best_q, metrics.best_q_at_k(rollouts, 7)),
        (mode, metrics.mode_at_k(rollouts, 7)),
    ):
        rollout = np.asarray(select(*map(jnp.asarray, (answers, q_logits, finite))))
        chosen = np.where(rollout >= 0, right[np.arange(200), rollout], False)
        np.testing.assert_array_equal(chosen, account)


def test_choose_gathers_the_chosen_rollout() -> None:
    results = LaneResults(
        answers=jnp.array([A, B, C, C, B, A], jnp.int32),
        q_logits=jnp.array([1.0, 7.0, NAN, 0.0, -1.0, -2.0]),
        finite=jnp.array([True, True, False, True, True, True]),
        step=jnp.array([4, 2, 3, 1, 4, 4], jnp.int32),
        trajectory=None,
    )
    solution = choose(results, 2)
    np.testing.assert_array_equal(solution.rollout, [1, 0])
    np.testing.assert_array_equal(solution.answer, [B, C])
    np.testing.assert_array_equal(solution.q_logit, [7.0, 0.0])
    np.testing.assert_array_equal(solution.step, [2, 1])
    assert solution.rollout_answers.shape == (2, 3, 2)


# --- Selections of a user's own ------------------------------------------------------------------


def results_of(*q_logits: float) -> LaneResults:
    """Rollouts of two puzzles."""
    num_lanes = len(q_logits)
    return LaneResults(
        answers=jnp.arange(2 * num_lanes, dtype=jnp.int32).reshape(num_lanes, 2),
        q_logits=jnp.array(q_logits, jnp.float32),
        finite=jnp.ones(num_lanes, bool),
        step=jnp.ones(num_lanes, jnp.int32),
        trajectory=None,
    )


def test_selections_have_names() -> None:
    results = results_of(1.0, 2.0, 4.0, 3.0)
    for name, function in (("best_q", best_q), ("mode", mode)):
        np.testing.assert_array_equal(
            choose(results, 2, name).rollout, choose(results, 2, function).rollout
        )


@pytest.mark.parametrize("rollout", [2, 7, -2, 2**31 - 1])
def test_a_rollout_out_of_range_is_refused(rollout: int) -> None:
    """Where a value can be seen; under jit the number stays beside an answer of 0."""
    results = results_of(1.0, 2.0, 4.0, 3.0)

    def select(*rollouts: jax.Array) -> jax.Array:
        return jnp.array([1, rollout], jnp.int32)

    with pytest.raises(InputError, match=rf"in 0\.\.1, or -1 .*returned {rollout} for puzzle 1"):
        choose(results, 2, select)
    solution = jax.jit(lambda: choose(results, 2, select))()
    np.testing.assert_array_equal(solution.rollout, [1, rollout])
    np.testing.assert_array_equal(solution.answer, [[2, 3], [0, 0]])
    np.testing.assert_array_equal(solution.q_logit, [2.0, -np.inf])


class Unhashable:
    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *rollouts: jax.Array) -> jax.Array:
        return best_q(*rollouts)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        ("majority", "'best_q', 'mode' or a function .*got 'majority'"),
        (None, "got None"),
        (jnp.zeros(2, jnp.int32), "or a function"),
        (Unhashable(), "must be hashable.*Unhashable"),
        (lambda a, q, f: jnp.argmax(q), r"integers of shape \[2\].*returned int32 \[\]"),
        (lambda a, q, f: jnp.zeros((2, 3), jnp.int32), r"returned int32 \[2, 3\]"),
        (lambda a, q, f: q[:, 0], r"returned float32 \[2\]"),
        (lambda a, q, f: [0, 0], "returned list"),
        (lambda a, q, f: np.asarray(q).argmax(axis=1), "must be traceable by JAX"),
        (lambda a, q, f: a[0] if q[0, 0] > 0 else a[1], "must be traceable by JAX"),
    ],
)
def test_what_is_no_selection_is_refused_before_anything_runs(select: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_selection(select, 2, 3, 4)
