"""Estimates from the K rollouts of each puzzle: how often a choice is right, and how well Q judges.

Letters: B puzzles, K rollouts. Accuracies are fractions in [0, 1]. Rollouts are ranked as the
solver ranks them: larger Q first, ties to the lower rollout id. A non-finite rollout is never
chosen and never votes.

Sources: the choices best-Q@K, mode@K and pass@K are the paper's (arXiv 2605.19943, Section 5); the
unbiased estimator of pass@k is that of Chen et al. 2021 (arXiv 2107.03374, eq. 1).
"""

import itertools
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ptrm_jax.errors import InputError
from ptrm_jax.metrics.intervals import Interval, at_least_one, check_resampling, ends
from ptrm_jax.metrics.rollouts import Rollouts, check_correct

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


def pass_at_k(correct: ArrayLike, k: int) -> Floats:
    """Probability that k of the K rollouts, drawn without replacement, include a right one.

    With c right rollouts it is 1 - C(K-c, k) / C(K, k), unbiased for the probability with k fresh
    rollouts (Chen et al. 2021, eq. 1); counted in integers, rounded once. Choosing so needs the
    labels: it is an upper bound for every choice among the rollouts.

    Args:
      correct: [B, K] bool. To leave out non-finite rollouts, pass ``correct & finite``.
      k: rollouts in the draw, 1..K.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      InputError: `correct` is not a [B, K] bool array, or `k` is outside 1..K.
    """
    correct = check_correct(correct)
    _one_step(correct)
    num_rollouts = correct.shape[1]
    _check_k(k, num_rollouts)
    draws = math.comb(num_rollouts, k)
    chance = [(draws - math.comb(num_rollouts - c, k)) / draws for c in range(num_rollouts + 1)]
    return np.array(chance)[correct.sum(axis=1)]


def best_q_at_k(rollouts: Rollouts, k: int, *, prefer_valid: bool = False) -> Floats:
    """Expected correctness of the best-Q choice among k of the K rollouts.

    The expectation over all subsets of size k is exact: the rollout of rank r (from 0; non-finite
    rollouts last) is chosen by the C(K-1-r, k-1) subsets, of C(K, k), that contain it and no better
    one. A subset of non-finite rollouts only has no choice and counts as wrong.

    Args:
      rollouts: [B, K].
      k: rollouts in the subset, 1..K.
      prefer_valid: estimate valid-then-Q instead: rollouts whose answers satisfy the rules come
        first, whatever their Q. It needs a verifier, which the paper's setting does not have.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      InputError: `rollouts` has steps, `k` is outside 1..K, or `valid` is missing.
    """
    correct, finite = _one_step(rollouts.correct), rollouts.eligible
    num_rollouts = correct.shape[1]
    _check_k(k, num_rollouts)
    if prefer_valid and rollouts.valid is None:
        raise InputError(
            "valid must be there for prefer_valid; got None; check the answers with a task's "
            "satisfies_rules"
        )
    preferred = rollouts.valid if prefer_valid else None
    subsets = math.comb(num_rollouts, k)
    # Beyond rank K-k fewer than k-1 rollouts follow, too few to fill a subset.
    ranks = range(num_rollouts - k + 1)
    weight = np.array([math.comb(num_rollouts - 1 - r, k - 1) / subsets for r in ranks])
    order = _by_rank(rollouts.q_logit, finite, preferred)[:, : len(ranks)]
    right = np.take_along_axis(correct & finite, order, axis=1)
    # The weights sum to 1 up to rounding; a puzzle that cannot fail is to score exactly 1.
    return np.where(right.all(axis=1), 1.0, right @ weight)


def mode_at_k(rollouts: Rollouts, k: int, *, num_subsets: int = 64, seed: int = 0) -> Floats:
    """Estimated correctness of the most frequent answer among k of the K rollouts.

    Whole answers are counted. Among answers with equally many votes the one that contains the best
    ranked rollout wins: the higher best Q, then the lower id of the rollouts that reach it.

    The mean over `num_subsets` subsets of size k, drawn uniformly and without replacement within a
    subset: unbiased, with a standard deviation per puzzle of at most ``0.5 / sqrt(num_subsets)``.
    All C(K, k) subsets are taken instead, and the result is exact, when they number at most
    ``max(num_subsets, K)``; so it is for k = 1 and k = K. Every puzzle sees the same subsets, and
    the drawn ones of a larger k contain those of a smaller k.

    Args:
      rollouts: [B, K], with `answer_id`.
      k: rollouts in the subset, 1..K.
      num_subsets: subsets to draw.
      seed: of the drawing.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      InputError: `rollouts` has steps or no `answer_id`, `k` is outside 1..K, or `num_subsets` is
        less than 1.
    """
    num_rollouts = _one_step(rollouts.correct).shape[1]
    _check_k(k, num_rollouts)
    at_least_one("num_subsets", num_subsets)
    if math.comb(num_rollouts, k) <= max(num_subsets, num_rollouts):
        members = np.array(list(itertools.combinations(range(num_rollouts), k)))
    else:
        every = np.tile(np.arange(num_rollouts), (num_subsets, 1))
        members = np.random.default_rng(seed).permuted(every, axis=1)[:, :k]
    subsets = np.zeros((len(members), num_rollouts), bool)
    np.put_along_axis(subsets, members, True, axis=1)
    return _mode_over(subsets, rollouts)


# The Q head as a judge of its own answers.


def q_auc(rollouts: Rollouts) -> float:
    """Probability that a right rollout has a larger Q than a wrong one, ties counting one half.

    All finite rollouts are pooled, so it also rewards telling easy puzzles from hard ones; for the
    order within each puzzle compare `best_q_at_k` with `pass_at_k`.

    Args:
      rollouts: [B, K]; a Q of ±inf takes part only where `finite` says so.

    Returns:
      The area under the ROC curve, in [0, 1]; NaN unless there are both right and wrong rollouts.
    """
    correct, finite = _one_step(rollouts.correct), rollouts.eligible
    _, level = np.unique(rollouts.q_logit[finite], return_inverse=True)
    return _auc(level, correct[finite], np.ones(level.size))


def q_auc_interval(
    rollouts: Rollouts, *, confidence: float = 0.95, num_resamples: int = 500, seed: int = 0
) -> Interval:
    """`q_auc` with its percentile bootstrap interval, puzzles resampled with all their rollouts.

    Rollouts of one puzzle resemble each other, so puzzles are what is drawn. Resamples without a
    right or without a wrong rollout are left out. When the rest all give the same area, as after a
    perfect separation, the rule of `interval` applies, with n the number of puzzles that have a
    right rollout or of those that have a wrong one, whichever is smaller.

    Args:
      rollouts: [B, K].
      confidence: coverage aimed at, a fraction.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      The area and its interval, with B puzzles; three NaN unless there are both right and wrong
      rollouts.

    Raises:
      InputError: `confidence` is outside (0, 1), or `num_resamples` is less than 1.
    """
    check_resampling(confidence, num_resamples)
    area = q_auc(rollouts)
    correct, finite = rollouts.correct, rollouts.eligible
    num_puzzles = len(correct)
    if math.isnan(area):
        return Interval(math.nan, math.nan, math.nan, num_puzzles)

    # How often a puzzle is drawn weighs its rollouts, so Q is sorted once for all resamples.
    _, level = np.unique(rollouts.q_logit[finite], return_inverse=True)
    right, puzzle = correct[finite], np.nonzero(finite)[0]
    rng = np.random.default_rng(seed)
    areas = np.empty(num_resamples)
    for i in range(num_resamples):
        drawn = np.bincount(rng.integers(num_puzzles, size=num_puzzles), minlength=num_puzzles)
        areas[i] = _auc(level, right, drawn[puzzle])
    rarer = min(np.unique(puzzle[right]).size, np.unique(puzzle[~right]).size)
    low, high = ends(areas[~np.isnan(areas)], area, (0.0, 1.0), rarer, confidence)
    return Interval(area, low, high, num_puzzles)


def q_sign_accuracy(rollouts: Rollouts) -> float:
    """Fraction of finite rollouts whose Q has the sign of the truth: >= 0 if right, < 0 if wrong.

    Zero counts as a claim to be right, as in upstream's `q_halt_accuracy` (`models/losses.py`).

    Args:
      rollouts: [B, K].

    Returns:
      A fraction in [0, 1]; NaN when no rollout is finite.
    """
    agrees = ((rollouts.q_logit >= 0) == _one_step(rollouts.correct))[rollouts.eligible]
    return float(agrees.mean()) if agrees.size else math.nan


def _one_step(correct: Bools) -> Bools:
    if correct.ndim != 2:
        raise InputError(
            f"rollouts must be of one supervision step, [B, K]; got {correct.shape}; take one with "
            "Rollouts.at(depth)"
        )
    return correct


def _by_rank(q_logit: NDArray, finite: Bools, preferred: Bools | None = None) -> NDArray[np.intp]:
    """[B, K] rollout ids from best to worst: finite first, then preferred, larger Q, lower id."""
    # lexsort is stable, takes its last key first, and NaN must not reach it.
    keys = [-np.where(finite, q_logit, 0.0), ~finite]
    keys[1:1] = [] if preferred is None else [~preferred]
    return np.lexsort(keys, axis=-1)


def _mode_over(subsets: Bools, rollouts: Rollouts) -> Floats:
    """Per puzzle, the share of [M, K] subsets whose most frequent answer is right."""
    answer_id, finite = rollouts.answer_id, rollouts.eligible
    if answer_id is None:
        raise InputError(
            "answer_id must be there for mode@k; got None; compute it with metrics.answer_ids"
        )
    order = _by_rank(rollouts.q_logit, finite)
    chosen_right = np.empty(len(rollouts.correct))
    for b, rank in enumerate(order):
        # In the order of rank, argmax takes the best ranked rollout of the most voted answers.
        voters = subsets[:, rank] & finite[b, rank]
        ids = answer_id[b, rank]
        # float32 for the fast matrix product: counts are exact far beyond any K.
        same = (ids[:, None] == ids).astype(np.float32)
        votes = np.where(voters, voters.astype(np.float32) @ same, 0)
        winner = votes.argmax(axis=1)
        chosen_right[b] = (rollouts.correct[b, rank][winner] & voters.any(axis=1)).mean()
    return chosen_right


def _auc(level: NDArray[np.intp], right: Bools, weight: NDArray) -> float:
    """Area under the ROC curve of [N] weighted rollouts; `level` counts up their distinct Qs."""
    right_at = np.bincount(level, weight * right)
    wrong_at = np.bincount(level, weight * ~right)
    pairs = right_at.sum() * wrong_at.sum()
    below = np.cumsum(wrong_at) - wrong_at
    return float(right_at @ (below + wrong_at / 2) / pairs) if pairs else math.nan


def _check_k(k: int, num_rollouts: int) -> None:
    """Raises InputError unless k is a whole number in 1..K."""
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= num_rollouts:
        raise InputError(
            f"k must be a whole number in 1..K, K = {num_rollouts}; got {k!r}; run more rollouts"
            " or lower k"
        )
