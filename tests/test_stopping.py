"""`Stop` and `metrics.replay` against the rule as a loop over rollouts and steps."""

import math
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st

from ptrm_jax import Stop, metrics
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Rollouts

NAN, INF = math.nan, math.inf


def by_hand(q, finite, answers, stop):
    """(rollout, step, Q, stopped, rollout-steps) of one puzzle, [K, D], one step at a time."""
    cap = INF if stop.max_rollout_steps is None else stop.max_rollout_steps
    steps, in_favour, best = 0, {}, (-1, 0, -INF)
    for k, qs in enumerate(q):
        streak = 0
        for d, value in enumerate(qs):
            if steps == cap:
                return *best, False, steps
            steps += 1
            usable = finite[k][d] and math.isfinite(value)
            if usable and (best[0] < 0 or value > best[2]):
                best = (k, d + 1, value)
            streak = streak + 1 if usable and value >= stop.q_logit else 0
            if streak >= stop.patience and d + 1 >= stop.min_depth:
                in_favour[answers[k][d]] = in_favour.get(answers[k][d], 0) + 1
                if in_favour[answers[k][d]] == stop.agree:
                    return k, d + 1, value, True, steps
                break
    return *best, False, steps


SIZES = st.tuples(st.integers(1, 5), st.integers(1, 6))


@st.composite
def rules(draw, most):
    cap = draw(st.none() | st.integers(1, most + 2))
    threshold = draw(st.sampled_from([-INF, -1, 0, 0.5, 1, INF]))
    patience, min_depth, agree = (draw(st.integers(1, 4)) for _ in range(3))
    return Stop(threshold, patience, min_depth, agree, cap)


@given(st.data(), SIZES, st.integers(0, 2**32))
def test_replay_is_the_rule(data, size, seed):
    stop = data.draw(rules(math.prod(size)))
    rng = np.random.default_rng(seed)
    shape = (20, *size)
    # Few values, so that every kind of tie turns up.
    q = rng.choice(np.array([-1, 0, 0.5, 1, 2, NAN, INF, -INF], np.float32), size=shape)
    q[0] = NAN
    finite, answers = rng.random(shape) < 0.8, rng.integers(2, size=shape)
    replayed = metrics.replay(q, finite, stop, answers=answers)
    assert [field.dtype for field in replayed] == ["i4", "i4", "f4", "?", "i4"]
    for b, got in enumerate(zip(*replayed, strict=True)):
        assert got == by_hand(q[b], finite[b], answers[b], stop)


def test_a_rule_by_hand():
    q = np.array([[[0, 3, 1], [2, 0, 3], [0, 3, 3]]], np.float32)
    finite, answers = np.ones(q.shape, bool), np.array([[[5, 7, 8], [9, 9, 9], [5, 7, 9]]])

    def of(*rule):
        replayed = metrics.replay(q, finite, Stop(*rule), answers=answers)
        return tuple(field.item() for field in replayed), replayed.of(answers).item()

    assert of(2.0) == ((0, 2, 3.0, True, 2), 7)
    assert of(2.0, 2) == ((2, 3, 3.0, True, 9), 9)
    assert of(2.0, 1, 3) == ((1, 3, 3.0, True, 6), 9)
    assert of(2.0, 1, 1, 2) == ((2, 2, 3.0, True, 5), 7)
    assert of(2.0, 1, 1, 2, 4) == ((0, 2, 3.0, False, 4), 7)
    assert of(INF) == ((0, 2, 3.0, False, 9), 7)
    finite[:] = False
    assert of(-INF) == ((-1, 0, -INF, False, 9), 0)


def test_the_threshold_is_compared_in_float32():
    q = np.full((1, 1, 1), 0.1, np.float32)
    assert metrics.replay(q, q > 0, Stop(0.1)).stopped.all()
    assert not metrics.replay(q, q > 0, Stop(1e300)).stopped.any()


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        ({"q_logit": NAN}, "q_logit must be a number, not NaN"),
        ({"q_logit": "2"}, "q_logit must be a number"),
        ({"q_logit": True}, "q_logit must be a number"),
        ({"patience": 0}, "patience must be a whole number >= 1"),
        ({"min_depth": 1.0}, "min_depth must be a whole number >= 1"),
        ({"agree": True}, "agree must be a whole number >= 1"),
        ({"max_rollout_steps": 0}, "max_rollout_steps must be a whole number >= 1"),
    ],
)
def test_a_rule_out_of_range_is_refused(bad, rule):
    with pytest.raises(InputError, match=re.escape(rule)):
        Stop(**{"q_logit": 1.0} | bad)


@pytest.mark.parametrize(
    ("q", "finite", "answers", "rule"),
    [
        (np.zeros((2, 3)), np.ones((2, 3), bool), None, "q_logits must be [B, K, D]"),
        (np.zeros((2, 0, 3)), np.ones((2, 0, 3), bool), None, "q_logits must be [B, K, D]"),
        (np.zeros((2, 3, 4), int), np.ones((2, 3, 4), bool), None, "q_logits must be [B, K, D]"),
        (np.zeros((2, 3, 4)), np.ones((2, 3, 5), bool), None, "finite must be bool"),
        (np.zeros((2, 3, 4)), np.ones((2, 3, 4)), None, "finite must be bool"),
        (np.zeros((2, 3, 4)), np.ones((2, 3, 4), bool), None, "for agree > 1; got None"),
        (np.zeros((2, 3, 4)), np.ones((2, 3, 4), bool), np.zeros((2, 3)), "answers must be"),
    ],
)
def test_trajectories_that_do_not_fit_are_refused(q, finite, answers, rule):
    with pytest.raises(InputError, match=re.escape(rule)):
        metrics.replay(q, finite, Stop(1.0, agree=2), answers=answers)


# Rollouts read where their Q was highest.


def random_steps(seed, shape=(12, 5, 6)):
    rng = np.random.default_rng(seed)
    digest = rng.integers(3, size=shape).astype(np.uint64) << np.uint64(62)
    return Rollouts(
        digest == 0,
        rng.choice(np.array([-1, 0, 1, 2, NAN, -INF, INF], np.float32), size=shape),
        finite=rng.random(shape) < 0.6,
        valid=digest <= 1 << 62,
        digest=digest,
        cell_accuracy=rng.random(shape),
    )


def test_entry_d_of_the_best_read_is_the_step_of_highest_q_among_the_first_d():
    steps = random_steps(0)
    best = steps.read("best")
    b, k, num_steps = steps.correct.shape
    for d in range(num_steps):
        for row in np.ndindex(b, k):
            usable = [t for t in range(d + 1) if steps.eligible[row][t]]
            at = max(usable, key=lambda t: steps.q_logit[row][t], default=None)
            assert best.eligible[row][d] == (at is not None)
            if at is not None:
                for name in ("correct", "q_logit", "valid", "digest", "cell_accuracy"):
                    assert getattr(best, name)[row][d] == getattr(steps, name)[row][at]
        assert (best.answer_id[..., d] == metrics.answer_ids(best.digest[..., d, None])).all()
    # A shorter run is a prefix, whichever way it is read.
    shorter = steps.part(slice(None), slice(3), slice(4)).read("best")
    assert (shorter.correct == best.correct[:, :3, :4]).all()
    assert steps.read("last") is steps


def test_the_best_read_of_all_rollouts_is_what_an_infinite_threshold_answers():
    steps = random_steps(1)
    replayed = metrics.replay(steps.q_logit, steps.eligible, Stop(INF))
    finite = steps.eligible & np.isfinite(steps.q_logit)
    only_finite = Rollouts(steps.correct, steps.q_logit, finite=finite, digest=steps.digest)
    at = only_finite.read("best").at(steps.correct.shape[2])
    assert (metrics.best_q_at_k(at, 5) == replayed.of(steps.correct)).all()
    assert (replayed.q_logit == np.where(finite, steps.q_logit, -INF).max(axis=(1, 2))).all()


def test_a_read_needs_steps_and_a_known_name():
    steps = random_steps(2)
    with pytest.raises(InputError, match="rollouts must have steps"):
        steps.at(3).read("best")
    with pytest.raises(InputError, match="read must be one of last, best; got 'first'"):
        steps.read("first")
    fields = {"finite": steps.finite, "answer_id": metrics.digest_ids(steps.digest)}
    without = Rollouts(steps.correct, steps.q_logit, **fields)
    assert without.read("best").answer_id is None
