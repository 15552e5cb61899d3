"""`ptrm_jax.metrics` against hand counts, enumeration of all subsets, and simulation."""

import dataclasses
import functools
import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st
from scipy import stats

from ptrm_jax import metrics
from ptrm_jax.metrics import Rollouts

NAN, INF = math.nan, math.inf


def chosen_best_q(members, q, finite):
    """Rollout id with the largest Q of the finite members, the lowest on ties, or None."""
    usable = [i for i in sorted(members) if finite[i]]
    return max(usable, key=lambda i: q[i], default=None)


def chosen_mode(members, q, ids, finite):
    """Best-Q rollout of the most frequent answer, written as a count and a chain of tie breaks."""
    usable = [i for i in sorted(members) if finite[i]]
    if not usable:
        return None
    holders = {a: [i for i in usable if ids[i] == a] for a in {ids[i] for i in usable}}
    best = {a: max(group, key=lambda i: q[i]) for a, group in holders.items()}
    answer = max(holders, key=lambda a: (len(holders[a]), q[best[a]], -best[a]))
    return best[answer]


def mean_over_subsets(num_rollouts, k, is_right):
    subsets = list(itertools.combinations(range(num_rollouts), k))
    return sum(map(is_right, subsets)) / len(subsets)


def random_rollouts(seed, num_puzzles=40, num_rollouts=6):
    """Rollouts with few distinct answers and Qs, so that every kind of tie turns up."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(3, size=(num_puzzles, num_rollouts, 1))
    labels = rng.integers(3, size=(num_puzzles, 1))
    q = rng.integers(-1, 2, size=(num_puzzles, num_rollouts)).astype(np.float32)
    q = np.where(rng.random(q.shape) < 0.2, rng.choice([NAN, INF, -INF], size=q.shape), q)
    q[0] = NAN
    return Rollouts(metrics.exact(answers, labels), q, answer_id=metrics.answer_ids(answers))


def unpack(rollouts):
    return rollouts.correct, rollouts.q_logit, rollouts.answer_id, rollouts.eligible


# Answers against labels.

LABELS = np.array([[1, 2, 0, 0], [3, 4, 5, 6], [0, 0, 0, 0]])


def test_masks_count_the_labels_that_are_not_ignored():
    mask = metrics.token_mask(LABELS, 0)
    assert mask.tolist() == [[True, True, False, False], [True] * 4, [False] * 4]
    assert metrics.token_mask(LABELS).all()
    assert metrics.valid_rows(LABELS, 0).tolist() == [True, True, False]
    assert metrics.valid_rows(LABELS).tolist() == [True, True, True]


def test_exact_and_cell_accuracy_by_hand():
    answers = np.array(
        [
            [[1, 2, 9, 9], [1, 7, 0, 0]],
            [[3, 4, 5, 6], [3, 4, 0, 0]],
            [[0, 0, 0, 0], [1, 1, 1, 1]],
        ]
    )
    solved = metrics.exact(answers, LABELS, ignore_label=0)
    assert solved.tolist() == [[True, False], [True, False], [False, False]]
    cells = metrics.cell_accuracy(answers, LABELS, ignore_label=0)
    np.testing.assert_array_equal(cells, [[1, 0.5], [1, 0.5], [NAN, NAN]])
    # Without an ignored label the zeros are cells like any other.
    assert metrics.exact(answers, LABELS).tolist() == [[False, False], [True, False], [True, False]]
    np.testing.assert_array_equal(
        metrics.cell_accuracy(answers, LABELS), [[0.5, 0.75], [1, 0.5], [1, 0]]
    )


@pytest.mark.parametrize("between", [(), (2,), (2, 5)])
def test_comparison_broadcasts_over_the_dimensions_between(between):
    answers = np.broadcast_to(LABELS.reshape(3, *[1] * len(between), 4), (3, *between, 4)).copy()
    answers[1, ..., 2] = 0
    solved = metrics.exact(answers, LABELS, ignore_label=0)
    cells = metrics.cell_accuracy(answers, LABELS, ignore_label=0)
    assert solved.shape == cells.shape == (3, *between)
    assert solved[0].all() and not solved[1].any() and not solved[2].any()
    assert (cells[0] == 1).all() and (cells[1] == 0.75).all() and np.isnan(cells[2]).all()


def test_answer_ids_name_the_first_rollout_with_the_answer():
    answers = np.array([[[1, 2], [1, 3], [1, 2], [2, 1], [1, 3]], [[0, 0]] * 5], np.int8)
    ids = metrics.answer_ids(answers)
    assert ids.dtype == np.int32
    assert ids.tolist() == [[0, 1, 0, 3, 1], [0] * 5]
    # A view with strides, as after a transpose, has the same answers.
    strided = np.asfortranarray(answers.astype(np.int64))
    assert metrics.answer_ids(strided).tolist() == ids.tolist()


# Expected correctness of a choice.


def test_pass_at_k_by_hand():
    correct = np.array([[False] * 4, [True, False, False, False], [True] * 4, [False, True] * 2])
    np.testing.assert_array_equal(metrics.pass_at_k(correct, 1), [0, 0.25, 1, 0.5])
    np.testing.assert_allclose(metrics.pass_at_k(correct, 2), [0, 0.5, 1, 5 / 6], rtol=1e-15)
    np.testing.assert_array_equal(metrics.pass_at_k(correct, 4), [0, 1, 1, 1])


@pytest.mark.parametrize("k", range(1, 7))
def test_estimators_equal_enumeration_of_all_subsets(k):
    rollouts = random_rollouts(seed=1)
    correct, q, ids, finite = unpack(rollouts)
    every = {
        "pass": (metrics.pass_at_k(correct, k), lambda s, b: correct[b, list(s)].any()),
        "best_q": (
            metrics.best_q_at_k(rollouts, k),
            lambda s, b: right(b, chosen_best_q(s, q[b], finite[b])),
        ),
        "mode": (
            metrics.mode_at_k(rollouts, k),
            lambda s, b: right(b, chosen_mode(s, q[b], ids[b], finite[b])),
        ),
    }

    def right(b, choice):
        return choice is not None and bool(correct[b, choice])

    for estimate, is_right in every.values():
        for b in range(len(correct)):
            expected = mean_over_subsets(correct.shape[1], k, functools.partial(is_right, b=b))
            assert estimate[b] == pytest.approx(expected)
    # The first k rollouts are a run with K = k, whose choice is certain.
    first = rollouts.part(slice(None), slice(k))
    alone = (
        metrics.pass_at_k(first.correct, k),
        metrics.best_q_at_k(first, k),
        metrics.mode_at_k(first, k),
    )
    for values, (_, is_right) in zip(alone, every.values(), strict=True):
        assert values.tolist() == [is_right(range(k), b) for b in range(len(correct))]


@pytest.mark.parametrize("k", range(1, 7))
def test_valid_rollouts_come_before_any_q(k):
    rollouts = random_rollouts(seed=2)
    correct, q, _, finite = unpack(rollouts)
    valid = np.random.default_rng(0).random(correct.shape) < 0.4
    best = metrics.best_q_at_k(dataclasses.replace(rollouts, valid=valid), k, prefer_valid=True)

    def right(subset, b):
        kept = [r for r in subset if finite[b, r] and valid[b, r]] or subset
        choice = chosen_best_q(kept, q[b], finite[b])
        return choice is not None and bool(correct[b, choice])

    for b in range(len(correct)):
        assert best[b] == pytest.approx(
            mean_over_subsets(correct.shape[1], k, lambda s, b=b: right(s, b))
        )
    # A verifier that knows the labels reaches the bound.
    known = Rollouts(correct & finite, q, finite=finite, valid=correct & finite)
    np.testing.assert_allclose(
        metrics.best_q_at_k(known, k, prefer_valid=True), metrics.pass_at_k(known.correct, k)
    )


def test_random_rollouts_hold_the_cases_that_matter():
    correct, q, ids, finite = unpack(random_rollouts(seed=1))
    assert not finite[0].any() and correct[0].any()
    assert (correct & ~finite)[1:].any()
    rows = [b for b in range(len(q)) if finite[b].any()]
    assert any(np.sum(q[b] == q[b, finite[b]].max()) > 1 for b in rows)
    votes = [np.sort(np.bincount(ids[b, finite[b]])) for b in rows]
    assert any(count.size > 1 and count[-1] == count[-2] for count in votes)


def test_estimators_keep_their_digits_at_many_rollouts():
    correct = np.zeros((3, 1000), bool)
    correct[1, 17] = True
    correct[2] = True
    np.testing.assert_allclose(metrics.pass_at_k(correct, 500), [0, 0.5, 1], rtol=1e-15)
    q = np.zeros((3, 1000))
    q[1, 17] = 1
    np.testing.assert_allclose(
        metrics.best_q_at_k(Rollouts(correct, q), 500), [0, 0.5, 1], rtol=1e-15
    )
    for k in (1, 7, 500, 1000):
        # Exactly 1, so that `interval` sees a certain puzzle as certain.
        assert metrics.best_q_at_k(Rollouts(correct, q), k)[2] == 1
        assert metrics.pass_at_k(correct, k)[2] == 1


def test_best_q_prefers_the_lower_id_on_ties_and_skips_non_finite_rollouts():
    correct = np.array([[True, False, False], [False, True, False], [True, True, True]])
    q = np.array([[2.0, 2.0, 1.0], [INF, 0.0, -1.0], [NAN, NAN, NAN]])
    rollouts = Rollouts(correct, q)
    assert metrics.best_q_at_k(rollouts, 3).tolist() == [1, 1, 0]
    assert metrics.best_q_at_k(rollouts.part(slice(None), slice(1)), 1).tolist() == [1, 0, 0]
    # Of the pairs of puzzle 1, {0, 1} and {1, 2} choose rollout 1.
    np.testing.assert_allclose(metrics.best_q_at_k(rollouts, 2), [2 / 3, 2 / 3, 0])


@pytest.mark.parametrize(
    ("q", "finite", "best"),
    [
        ([INF, 5.0, NAN], None, 1),
        ([INF, 5.0, NAN], [True, True, True], 0),
        ([INF, 5.0, NAN], [False, False, True], 0),
        # -inf with its flag set is a poor rollout, yet better than one that may not be chosen.
        ([7.0, -INF, 7.0], [False, True, False], 1),
    ],
)
def test_finite_flags_overrule_q_except_for_nan(q, finite, best):
    correct = np.array([[False, True, True]])
    flags = None if finite is None else np.array([finite])
    rollouts = Rollouts(correct, np.array([q]), finite=flags)
    assert metrics.best_q_at_k(rollouts, 3).tolist() == [best]


def test_mode_ties_go_to_the_higher_best_q_then_to_the_lower_id():
    answers = np.array([[7, 8, 8, 7, 9]])[..., None]
    is_8 = np.array([[False, True, True, False, False]])

    def mode_is_8(q, finite=None):
        flags = None if finite is None else np.array([finite])
        ids = metrics.answer_ids(answers)
        rollouts = Rollouts(is_8, np.array([q], float), finite=flags, answer_id=ids)
        return metrics.mode_at_k(rollouts, 5).tolist() == [1]

    assert mode_is_8([1, 0, 2, 1, 9])  # two votes each for 7 and 8, one for 9 whatever its Q
    assert not mode_is_8([3, 0, 2, 1, 9])
    assert not mode_is_8([2, 0, 2, 1, 9])  # best Qs tie: rollout 0 before rollout 2
    assert mode_is_8([0, 2, 0, 2, 9])  # best Qs tie: rollout 1 before rollout 3
    assert mode_is_8([NAN, 0, 0, 5, 9])  # a non-finite rollout has no vote
    assert not mode_is_8([0, 5, 5, 0, 0], finite=[True, False, False, True, True])
    assert not mode_is_8([NAN] * 5)


def test_mode_estimate_converges_to_the_enumeration():
    rollouts = random_rollouts(seed=2, num_puzzles=30, num_rollouts=12)
    correct, q, ids, finite = unpack(rollouts)

    def right(subset, b):
        choice = chosen_mode(subset, q[b], ids[b], finite[b])
        return choice is not None and bool(correct[b, choice])

    expected = [mean_over_subsets(12, 5, lambda s, b=b: right(s, b)) for b in range(30)]
    assert np.ptp(expected) > 0.5
    # C(12, 5) = 792 subsets: 600 draws stay an estimate, with a deviation of at most 0.02.
    estimate = metrics.mode_at_k(rollouts, 5, num_subsets=600, seed=3)
    assert 0 < np.abs(estimate - expected).max() < 0.08
    repeated = metrics.mode_at_k(rollouts, 5, num_subsets=600, seed=3)
    np.testing.assert_array_equal(estimate, repeated)
    assert (estimate != metrics.mode_at_k(rollouts, 5, num_subsets=600, seed=4)).any()
    exact = metrics.mode_at_k(rollouts, 5, num_subsets=792)
    np.testing.assert_allclose(exact, expected, atol=1e-12)


def test_mode_is_exact_for_one_and_for_all_rollouts():
    rollouts = random_rollouts(seed=5, num_rollouts=100)
    correct, q, ids, finite = unpack(rollouts)
    one = metrics.mode_at_k(rollouts, 1, num_subsets=8)
    np.testing.assert_allclose(one, (correct & finite).mean(axis=1), atol=1e-12)
    every = metrics.mode_at_k(rollouts, 100, num_subsets=8)
    assert set(every) == {0, 1}
    chosen = [chosen_mode(range(100), *row) for row in zip(q, ids, finite, strict=True)]
    assert every.tolist() == [c is not None and correct[b, c] for b, c in enumerate(chosen)]


@given(st.data())
def test_estimators_are_ordered_and_monotone(data):
    """Of any rollouts: no choice beats pass@k, all agree at k = 1, and pass@k rises with k."""
    num_rollouts = data.draw(st.integers(1, 6))
    size = st.lists(st.integers(0, 2), min_size=num_rollouts, max_size=num_rollouts)
    answers = np.array([data.draw(size)])[..., None]
    q = np.array([data.draw(size)], float)
    ids = metrics.answer_ids(answers)
    rollouts = Rollouts(answers[..., 0] == 1, q, answer_id=ids, valid=answers[..., 0] < 2)
    before = np.zeros(1)
    for k in range(1, num_rollouts + 1):
        bound = metrics.pass_at_k(rollouts.correct, k)
        for value in (
            metrics.best_q_at_k(rollouts, k),
            metrics.best_q_at_k(rollouts, k, prefer_valid=True),
            metrics.mode_at_k(rollouts, k),
        ):
            assert (0 <= value).all() and (value <= bound + 1e-12).all()
            if k == 1:
                np.testing.assert_allclose(value, rollouts.correct.mean(axis=1))
        assert (bound >= before - 1e-12).all()
        before = bound


def test_chance_of_fresh_rollouts_is_estimated_without_bias():
    # Chen et al.'s claim: the mean over runs of K is the chance with k fresh rollouts.
    rng = np.random.default_rng(0)
    correct = rng.random((40_000, 10)) < 0.3
    assert metrics.pass_at_k(correct, 4).mean() == pytest.approx(1 - 0.7**4, abs=0.005)


# Intervals.


def test_interval_formats_as_percent():
    line = metrics.Interval(0.875, 0.8125, 0.9291, 256)
    assert str(line) == "87.5 % [81.2, 92.9] (n=256)"
    assert line.percent(digits=2) == "87.50 % [81.25, 92.91] (n=256)"


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, runs = 0.7, 400
    covered = 0
    for seed in range(runs):
        result = metrics.interval(rng.random(80) < truth, num_resamples=400, seed=seed)
        covered += result.low <= truth <= result.high
    assert 0.90 <= covered / runs <= 0.98


def test_interval_width_is_that_of_the_normal_approximation():
    values = np.repeat([0.0, 1.0], [300, 700])
    result = metrics.interval(values, confidence=0.9)
    assert (result.mean, result.num_puzzles) == (0.7, 1000)
    half = 1.645 * math.sqrt(0.7 * 0.3 / 1000)
    assert result.low == pytest.approx(0.7 - half, abs=0.003)
    assert result.high == pytest.approx(0.7 + half, abs=0.003)
    assert metrics.interval(values, confidence=0.9, seed=1) != result
    assert metrics.interval(values[::-1], confidence=0.9) == result


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (0, 49), (49, 49)])
def test_interval_of_equal_outcomes_is_wilsons(right, n):
    result = metrics.interval(np.full(n, right > 0))
    wilson = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert result.mean == right / n
    assert (result.low, result.high) == pytest.approx((wilson.low, wilson.high), abs=1e-12)


def test_interval_of_equal_fractions_allows_for_other_puzzles():
    result = metrics.interval(np.full(100, 0.5))
    u = 1.959964**2 / (100 + 1.959964**2)
    assert result.mean == 0.5
    assert (result.low, result.high) == pytest.approx((0.5 - u / 2, 0.5 + u / 2), abs=1e-6)


def test_interval_averages_seeds_within_a_puzzle():
    # Each seed solves the other half: per puzzle one in two, for every puzzle.
    seeds = np.array([[1, 0] * 50, [0, 1] * 50])
    assert metrics.interval(seeds) == metrics.interval(np.full(100, 0.5))
    # Ten copies of one seed are not ten times the puzzles.
    values = np.random.default_rng(0).random(100) < 0.6
    assert metrics.interval(np.tile(values, (10, 1))) == metrics.interval(values)


def test_paired_difference_by_hand():
    a = np.array([1, 1, 1, 0])
    b = np.array([0, 1, 1, 0])
    result = metrics.paired_difference(a, b)
    assert (result.mean, result.num_puzzles) == (0.25, 4)
    # One puzzle of four tells them apart: 32 % of resamples miss it, 0.4 % draw it every time.
    assert (result.low, result.high) == (0, 0.75)
    swapped = metrics.paired_difference(b, a)
    assert (swapped.mean, swapped.low, swapped.high) == (-0.25, -0.75, 0)


def test_pairing_narrows_the_interval_of_correlated_puzzles():
    rng = np.random.default_rng(0)
    hardness = rng.random(300)
    a, b = hardness < 0.72, hardness < 0.66
    paired = metrics.paired_difference(a, b)
    assert paired.low > 0
    unpaired = [metrics.interval(v) for v in (a, b)]
    widths = [i.high - i.low for i in unpaired]
    assert paired.high - paired.low < 0.6 * math.hypot(*widths)


def test_paired_difference_of_equal_outcomes_is_not_certain():
    n = 60
    outcomes = np.arange(n) % 2
    u = stats.binomtest(0, n).proportion_ci(0.95, method="wilson").high
    same = metrics.paired_difference(outcomes, outcomes)
    assert same == pytest.approx((0, -u, u, n), abs=1e-12)
    # a always right and b always wrong: a puzzle unlike these could turn the tables.
    apart = metrics.paired_difference(np.ones(n), np.zeros(n))
    assert apart == pytest.approx((1, 1 - 2 * u, 1, n), abs=1e-12)


def test_seed_spread():
    assert metrics.seed_spread([0.8, 0.9, 1.0]) == pytest.approx(0.1)
    assert math.isnan(metrics.seed_spread([0.9]))


# The Q head.


def auc_by_pairs(correct, q, finite):
    rights, wrongs = q[finite & correct], q[finite & ~correct]
    pairs = [(r > w) + 0.5 * (r == w) for r in rights for w in wrongs]
    return sum(pairs) / len(pairs)


def test_q_auc_by_hand():
    correct = np.array([[True, True, False, False]])
    assert metrics.q_auc(Rollouts(correct, np.array([[3.0, 1.0, 2.0, 0.0]]))) == 0.75
    assert metrics.q_auc(Rollouts(correct, np.array([[1.0, 1.0, 1.0, 0.0]]))) == 0.75
    assert metrics.q_auc(Rollouts(correct, np.zeros((1, 4)))) == 0.5
    assert metrics.q_auc(Rollouts(correct, np.array([[0.0, 1.0, 2.0, 3.0]]))) == 0
    assert math.isnan(metrics.q_auc(Rollouts(np.ones((1, 4), bool), np.zeros((1, 4)))))
    assert math.isnan(metrics.q_auc(Rollouts(correct, np.array([[NAN, NAN, 1.0, 2.0]]))))


def test_q_auc_counts_ties_and_infinities_as_pairs_do():
    correct, q, _, _ = unpack(random_rollouts(seed=7, num_puzzles=20))
    q[1:4, :3] = [[INF, -INF, 0], [-INF, INF, NAN], [INF, INF, -INF]]
    finite = np.isfinite(q)
    area = metrics.q_auc(Rollouts(correct, q))
    assert area == pytest.approx(auc_by_pairs(correct, q, finite))
    assert not finite.all() and np.isinf(q).any()
    flags = ~np.isnan(q)
    flagged = metrics.q_auc(Rollouts(correct, q, finite=flags))
    assert flagged == pytest.approx(auc_by_pairs(correct, q, flags)) and flagged != area


def test_q_auc_interval_resamples_whole_puzzles():
    rng = np.random.default_rng(0)
    # All ten rollouts of a puzzle are alike: the evidence is 60 puzzles, not 600 rollouts.
    one = rng.random((60, 1)) < 0.5
    q = np.where(one, 0.8, 0.0) + rng.normal(size=(60, 1))
    single = metrics.q_auc_interval(Rollouts(one, q), seed=1)
    copies = metrics.q_auc_interval(Rollouts(np.tile(one, 10), np.tile(q, 10)), seed=1)
    assert copies == pytest.approx(single, abs=1e-12)
    assert single.mean == pytest.approx(auc_by_pairs(one, q, np.ones_like(one)))
    assert single.low < single.mean < single.high and single.high - single.low > 0.15
    # Reference: every resample gathered and scored pair by pair, from other draws.
    scores = []
    for _ in range(300):
        rows = rng.integers(60, size=60)
        scores.append(auc_by_pairs(one[rows], q[rows], np.ones_like(one)))
    np.testing.assert_allclose(single[1:3], np.quantile(scores, [0.025, 0.975]), atol=0.05)


def test_q_auc_interval_of_a_perfect_separation_is_not_certain():
    correct = np.array([[True, False]] * 10 + [[True, True]] * 30)
    q = np.where(correct, 6.0, -6.0)
    result = metrics.q_auc_interval(Rollouts(correct, q), num_resamples=50)
    # Only ten puzzles have a wrong rollout, and they carry the evidence.
    wilson = stats.binomtest(10, 10).proportion_ci(0.95, method="wilson")
    assert result == pytest.approx((1, wilson.low, 1, 40), abs=1e-12)
    one_puzzle = metrics.q_auc_interval(Rollouts(correct, q).part(slice(1)), num_resamples=50)
    assert one_puzzle.low < 0.3 and one_puzzle.high == 1


def test_q_auc_interval_leaves_out_resamples_of_one_class():
    # Only puzzle 0 has a wrong rollout: a third of the resamples lack it.
    correct = np.array([[False, True], [True, True], [True, True]])
    q = np.array([[1.0, 0.0], [2.0, 0.5], [2.0, 2.0]])
    result = metrics.q_auc_interval(Rollouts(correct, q))
    # The 19 other resamples give 0 once, 0.25, 0.4 and 0.5 thrice, 0.6 six times, 0.8 thrice.
    assert result == pytest.approx((0.6, 0, 0.8, 3))
    # A single resample may be one without puzzle 0, and never tells anything of the spread.
    wilson = stats.binomtest(0, 1).proportion_ci(0.95, method="wilson").high
    for seed in range(10):
        alone = metrics.q_auc_interval(Rollouts(correct, q), num_resamples=1, seed=seed)
        assert alone == pytest.approx((0.6, 0.6 * (1 - wilson), 0.6 + 0.4 * wilson, 3))
    nothing = metrics.q_auc_interval(Rollouts(np.ones((3, 2), bool), q))
    assert all(map(math.isnan, nothing[:3])) and nothing.num_puzzles == 3


def test_q_sign_accuracy_takes_zero_for_a_claim_to_be_right():
    correct = np.array([[True, True, False, True, False]])
    q = np.array([[2.0, -1.0, -3.0, 0.0, NAN]])
    assert metrics.q_sign_accuracy(Rollouts(correct, q)) == 3 / 4
    flags = np.array([[True, True, False, False, False]])
    assert metrics.q_sign_accuracy(Rollouts(correct, q, finite=flags)) == 1 / 2
    assert metrics.q_sign_accuracy(Rollouts(np.zeros((1, 1), bool), np.zeros((1, 1)))) == 0
    assert math.isnan(metrics.q_sign_accuracy(Rollouts(correct, q, finite=np.zeros((1, 5), bool))))


# What is refused.

RIGHT = np.array([[True, False, True], [False, False, True]])
Q = np.zeros((2, 3))
IDS = np.array([[0, 1, 0], [0, 0, 2]])
TOKENS = np.zeros((2, 3), int)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.token_mask(TOKENS[0]), r"labels must be \[B, S\]; got shape \(3,\)"),
        (lambda: metrics.valid_rows(Q), "labels must be .* integer tokens; got float64"),
        (lambda: metrics.exact(Q, TOKENS), "answers must be .* integer tokens; got float64"),
        (lambda: metrics.exact(TOKENS[0], TOKENS), r"answers must be .* got \(3,\)"),
        (lambda: metrics.exact(TOKENS[:1], TOKENS), r"labels \(2, 3\); got \(1, 3\)"),
        (lambda: metrics.cell_accuracy(TOKENS[:, :2], TOKENS), r"\(2, 3\); got \(2, 2\)"),
        (lambda: metrics.answer_ids(TOKENS), r"answers must be \[B, K, S\]; got shape \(2, 3\)"),
        (lambda: metrics.answer_ids(np.zeros((1, 2, 3))), "answers must be .* got float64"),
        (lambda: metrics.pass_at_k(RIGHT[0], 1), r"correct must be .* got bool \(3,\)"),
        (lambda: metrics.pass_at_k(Q, 1), r"correct must be .* got float64 .* metrics.exact"),
        (lambda: metrics.pass_at_k(RIGHT[:, :0], 1), r"K >= 1; got bool \(2, 0\)"),
        (lambda: metrics.pass_at_k(RIGHT, 0), r"k must be .* 1..K, K = 3; got 0"),
        (lambda: metrics.best_q_at_k(Rollouts(RIGHT, Q), 4), r"K = 3; got 4"),
        (lambda: metrics.best_q_at_k(Rollouts(RIGHT, Q), 1.0), r"K = 3; got 1.0"),
        (lambda: metrics.best_q_at_k(Rollouts(RIGHT, Q), True), r"K = 3; got True"),
        (lambda: Rollouts(RIGHT, Q, valid=RIGHT[0]), r"valid must be bool .* \(3,\)"),
        (lambda: Rollouts(RIGHT, Q[:1]), r"q_logit .* \(2, 3\); got float64 \(1, 3\)"),
        (lambda: Rollouts(RIGHT, Q, finite=Q), r"finite must be bool .* got float64"),
        (lambda: Rollouts(RIGHT, Q, finite=RIGHT[:1]), r"finite .* bool \(1, 3\)"),
        (lambda: Rollouts(RIGHT, Q, answer_id=Q), "answer_id must be integer .* got float64"),
        (lambda: Rollouts(RIGHT, Q, answer_id=IDS[:1]), r"answer_id .* got int64 \(1, 3\)"),
        (lambda: Rollouts(RIGHT, Q, answer_id=IDS + 1), "lowest rollout id .* got 1 at puzzle 0"),
        (lambda: Rollouts(RIGHT, Q, answer_id=IDS - 1), "got -1 at puzzle 0, rollout 0"),
        (
            lambda: Rollouts(RIGHT, Q, answer_id=np.array([[0, 0, 1], [0, 0, 2]])),
            "got 1 at puzzle 0, rollout 2",
        ),
        (
            lambda: Rollouts(RIGHT, Q, answer_id=np.array([[0, 1, 0], [0, 0, 0]])),
            "equally correct; puzzle 1, rollouts 0 and 2",
        ),
        (
            lambda: metrics.mode_at_k(Rollouts(RIGHT, Q, answer_id=IDS), 2, num_subsets=0),
            "num_subsets .* got 0",
        ),
        (lambda: metrics.mode_at_k(Rollouts(RIGHT, Q), 1), "answer_id must be there .* got None"),
        (
            lambda: metrics.best_q_at_k(Rollouts(RIGHT, Q), 1, prefer_valid=True),
            "valid must be there .* got None",
        ),
        (lambda: Rollouts(RIGHT, Q).scored_by_rules(), "valid must be there .* got None"),
        (
            lambda: metrics.q_auc(Rollouts(RIGHT[..., None], Q[..., None])),
            r"of one supervision step, .* got \(2, 3, 1\); take one with Rollouts.at",
        ),
        (lambda: metrics.interval([]), r"values must be \[B\] or \[R, B\] .* got shape \(0,\)"),
        (lambda: metrics.interval(np.zeros((2, 2, 2))), r"got shape \(2, 2, 2\)"),
        (lambda: metrics.interval([1, NAN]), r"in \[0, 1\]; got nan; .* metrics.valid_rows"),
        (lambda: metrics.interval([87.5]), r"in \[0, 1\]; got 87.5; .* divide percent by 100"),
        (lambda: metrics.interval([1], confidence=95), r"confidence .* got 95; pass 0.95"),
        (lambda: metrics.interval([1], num_resamples=0), "num_resamples .* got 0"),
        (lambda: metrics.paired_difference([1], [1, 0]), r"got \(1,\) and \(2,\)"),
        (lambda: metrics.paired_difference([1], [-1]), r"b must be fractions .* got -1.0"),
        (lambda: metrics.seed_spread([]), r"values must be \[R\], .* got shape \(0,\)"),
        (lambda: metrics.seed_spread(Q), r"got shape \(2, 3\); average over puzzles"),
        (lambda: metrics.q_auc_interval(Rollouts(RIGHT, Q), confidence=1), "confidence .* got 1"),
        (
            lambda: metrics.q_auc_interval(Rollouts(RIGHT, Q), num_resamples=2.5),
            "num_resamples .* got 2.5",
        ),
    ],
)
def test_misuse_is_one_value_error_that_names_the_value(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert re.search(message, str(error.value)), str(error.value)
    # Rule; value; remedy.
    assert str(error.value).count(";") >= 2
