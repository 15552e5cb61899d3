"""How well rollouts and choices do, measured against the labels.

Three steps: compare answers with labels (`exact`, `cell_accuracy`), estimate from the K rollouts
of each puzzle how often a choice would be right (`pass_at_k`, `best_q_at_k`, `mode_at_k` and the
`first_k_*`), and average over puzzles with an uncertainty (`interval`, `paired_difference`).
Between the steps stands one float64 per puzzle, so a caller drops padding rows once:
``values[valid_rows(labels, ignore_label)]``.

Letters: B puzzles, K rollouts, S tokens, R seeds. Accuracies are fractions in [0, 1]. Rollouts are
ranked as the solver ranks them: larger Q first, ties to the lower rollout id. A non-finite rollout
is never chosen and never votes. The solver's flags look at the logits of the answer too; without
them, ``finite=None``, Q alone tells: ``isfinite(q_logit)``.

Sources: the choices best-Q@K, mode@K and pass@K are the paper's (arXiv 2605.19943, Section 5), the
unbiased estimator of pass@k is that of Chen et al. 2021 (arXiv 2107.03374, eq. 1).
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from ptrm_jax.errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


# Answers against labels.


def token_mask(labels: ArrayLike, ignore_label: int | None = None) -> Bools:
    """Positions that count.

    Args:
      labels: [B, S] integer.
      ignore_label: the label of positions that do not count; None counts every position.

    Returns:
      [B, S] bool.

    Raises:
      ValueError: `labels` is not a [B, S] array of integers.
    """
    labels = _integers("labels", labels, 2, "[B, S]")
    return np.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label


def valid_rows(labels: ArrayLike, ignore_label: int | None = None) -> Bools:
    """Puzzles with at least one position that counts; the others are padding.

    Args:
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B] bool.

    Raises:
      ValueError: `labels` is not a [B, S] array of integers.
    """
    return token_mask(labels, ignore_label).any(axis=1)


def exact(answers: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None) -> Bools:
    """Whether an answer is right at every position that counts.

    Args:
      answers: [B, ..., S] integer; between B and S any dimensions, such as K or K, D.
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B, ...] bool; False for a padding row (see `valid_rows`), which no answer solves.

    Raises:
      ValueError: the arrays are not integers, or their B or S differ.
    """
    right, mask = _compare(answers, labels, ignore_label)
    right |= ~mask
    return right.all(axis=-1) & mask.any(axis=-1)


def cell_accuracy(
    answers: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None
) -> Floats:
    """Fraction of the positions that count at which an answer is right.

    Args:
      answers: [B, ..., S] integer; between B and S any dimensions, such as K or K, D.
      labels: [B, S] integer.
      ignore_label: as in `token_mask`.

    Returns:
      [B, ...] float64 in [0, 1]; NaN for a padding row (see `valid_rows`).

    Raises:
      ValueError: the arrays are not integers, or their B or S differ.
    """
    right, mask = _compare(answers, labels, ignore_label)
    right &= mask
    num_counted = mask.sum(axis=-1).astype(np.float64)
    return right.sum(axis=-1) / np.where(num_counted > 0, num_counted, np.nan)


def answer_ids(answers: ArrayLike) -> Ints:
    """Names every answer by the lowest rollout id that gave it, token for token.

    Args:
      answers: [B, K, S] integer.

    Returns:
      [B, K] int32 in 0..K-1; equal ids mean equal answers, exactly (no hash decides).

    Raises:
      ValueError: `answers` is not a [B, K, S] array of integers.
    """
    answers = _integers("answers", answers, 3, "[B, K, S]")
    ids = np.empty(answers.shape[:2], np.int32)
    for row, rollouts in zip(ids, answers, strict=True):
        # A dict compares keys that share a hash, so the bytes themselves decide.
        first: dict[bytes, int] = {}
        row[:] = [first.setdefault(answer.tobytes(), k) for k, answer in enumerate(rollouts)]
    return ids


# Expected correctness of a choice, puzzle by puzzle.


def pass_at_k(correct: ArrayLike, k: int) -> Floats:
    """Chance that k of the K rollouts, drawn without replacement, hold a right one.

    With c right rollouts it is 1 - C(K-c, k) / C(K, k), unbiased for the chance with k fresh
    rollouts (Chen et al. 2021, eq. 1); counted in integers, rounded once. Its choice needs the
    labels, so it bounds what any choice among the rollouts can reach.

    Args:
      correct: [B, K] bool. To leave out non-finite rollouts, pass ``correct & finite``.
      k: rollouts in the draw, 1..K.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      ValueError: `correct` is not a [B, K] bool array, or `k` is outside 1..K.
    """
    correct = _correct(correct)
    num_rollouts = _rollouts_for(k, correct)
    draws = math.comb(num_rollouts, k)
    chance = [(draws - math.comb(num_rollouts - c, k)) / draws for c in range(num_rollouts + 1)]
    return np.array(chance)[correct.sum(axis=1)]


def best_q_at_k(
    correct: ArrayLike,
    q_logit: ArrayLike,
    k: int,
    *,
    finite: ArrayLike | None = None,
    valid: ArrayLike | None = None,
) -> Floats:
    """Expected correctness of the best-Q choice among k of the K rollouts.

    With `valid` it is that of valid-then-Q: rollouts whose answers satisfy the puzzle's rules come
    first, each kind by Q. It uses a verifier that the paper's setting does not have.

    The expectation over all subsets of size k is exact: the rollout of rank r (from 0; non-finite
    rollouts last) is chosen by the C(K-1-r, k-1) subsets that hold it and no better one, of
    C(K, k). A subset of non-finite rollouts only has no choice and counts as wrong.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      k: rollouts in the subset, 1..K.
      finite: [B, K] bool, rollouts that may be chosen.
      valid: [B, K] bool, rollouts that are preferred whatever their Q.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      ValueError: a shape or dtype does not fit, or `k` is outside 1..K.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    num_rollouts = _rollouts_for(k, correct)
    preferred = np.zeros_like(correct) if valid is None else _flags("valid", valid, correct)
    subsets = math.comb(num_rollouts, k)
    # Beyond rank K-k fewer than k-1 rollouts follow, too few to fill a subset.
    ranks = range(num_rollouts - k + 1)
    weight = np.array([math.comb(num_rollouts - 1 - r, k - 1) / subsets for r in ranks])
    order = _by_rank(q_logit, finite, preferred)[:, : len(ranks)]
    right = np.take_along_axis(correct & finite, order, axis=1)
    # The weights sum to 1 up to rounding; a puzzle that cannot fail is to score exactly 1.
    return np.where(right.all(axis=1), 1.0, right @ weight)


def mode_at_k(
    correct: ArrayLike,
    q_logit: ArrayLike,
    answer_id: ArrayLike,
    k: int,
    *,
    finite: ArrayLike | None = None,
    num_subsets: int = 64,
    seed: int = 0,
) -> Floats:
    """Estimated correctness of the most frequent answer among k of the K rollouts.

    The mean over `num_subsets` subsets of size k, drawn uniformly and without replacement within a
    subset: unbiased, with a standard deviation per puzzle of at most ``0.5 / sqrt(num_subsets)``.
    All C(K, k) subsets are taken instead, and the result is exact, when they number at most
    ``max(num_subsets, K)``; so it is for k = 1 and k = K. Every puzzle sees the same subsets, and
    the drawn ones of a larger k contain those of a smaller k. Ties go as in `first_k_mode`.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      answer_id: [B, K] integer, from `answer_ids`.
      k: rollouts in the subset, 1..K.
      finite: [B, K] bool, rollouts that may vote.
      num_subsets: subsets to draw.
      seed: of the drawing.

    Returns:
      [B] float64 in [0, 1].

    Raises:
      ValueError: a shape, a dtype or `answer_id` does not fit, `k` is outside 1..K, or
        `num_subsets` is less than 1.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    num_rollouts = _rollouts_for(k, correct)
    _at_least_one("num_subsets", num_subsets)
    if math.comb(num_rollouts, k) <= max(num_subsets, num_rollouts):
        members = np.array(list(itertools.combinations(range(num_rollouts), k)))
    else:
        every = np.tile(np.arange(num_rollouts), (num_subsets, 1))
        members = np.random.default_rng(seed).permuted(every, axis=1)[:, :k]
    subsets = np.zeros((len(members), num_rollouts), bool)
    np.put_along_axis(subsets, members, True, axis=1)
    return _mode_over(subsets, correct, q_logit, answer_id, finite)


def first_k_pass(correct: ArrayLike, k: int) -> Floats:
    """Whether rollouts 0..k-1 hold a right one: pass@k of one run with K = k.

    Args:
      correct: [B, K] bool.
      k: rollouts in the run, 1..K.

    Returns:
      [B] float64, 0 or 1.

    Raises:
      ValueError: `correct` is not a [B, K] bool array, or `k` is outside 1..K.
    """
    correct = _correct(correct)
    _rollouts_for(k, correct)
    return correct[:, :k].any(axis=1).astype(np.float64)


def first_k_best_q(
    correct: ArrayLike, q_logit: ArrayLike, k: int, *, finite: ArrayLike | None = None
) -> Floats:
    """Whether the best-Q choice among rollouts 0..k-1 is right: best-Q@k of one run with K = k.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      k: rollouts in the run, 1..K.
      finite: [B, K] bool, rollouts that may be chosen; with none of them the choice is wrong.

    Returns:
      [B] float64, 0 or 1.

    Raises:
      ValueError: a shape or dtype does not fit, or `k` is outside 1..K.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    _rollouts_for(k, correct)
    best = _by_rank(q_logit[:, :k], finite[:, :k])[:, :1]
    return np.take_along_axis(correct & finite, best, axis=1)[:, 0].astype(np.float64)


def first_k_mode(
    correct: ArrayLike,
    q_logit: ArrayLike,
    answer_id: ArrayLike,
    k: int,
    *,
    finite: ArrayLike | None = None,
) -> Floats:
    """Whether the most frequent answer among rollouts 0..k-1 is right: mode@k of one run, K = k.

    Whole answers are counted. Among answers with equally many votes the one that holds the best
    ranked rollout wins: the higher best Q, then the lower id of the rollouts that reach it.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      answer_id: [B, K] integer, from `answer_ids`.
      k: rollouts in the run, 1..K.
      finite: [B, K] bool, rollouts that may vote; with none of them the choice is wrong.

    Returns:
      [B] float64, 0 or 1.

    Raises:
      ValueError: a shape, a dtype or `answer_id` does not fit, or `k` is outside 1..K.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    num_rollouts = _rollouts_for(k, correct)
    first = np.arange(num_rollouts)[None] < k
    return _mode_over(first, correct, q_logit, answer_id, finite)


# Means over puzzles, with their uncertainty.


class Interval(NamedTuple):
    """A mean over puzzles and its confidence interval.

    Attributes:
      mean: the estimate, as a fraction.
      low: lower end.
      high: upper end.
      num_puzzles: puzzles behind the estimate.
    """

    mean: float
    low: float
    high: float
    num_puzzles: int

    def percent(self, digits: int = 1) -> str:
        """Mean and ends in percent, such as ``87.5 % [81.2, 92.9] (n=256)``."""
        mean, low, high = (f"{100 * part:.{digits}f}" for part in self[:3])
        return f"{mean} % [{low}, {high}] (n={self.num_puzzles})"

    def brief(self, sign: str = "") -> str:
        """The same for a cell of a table, such as ``87.5 [81.2, 92.9]``; `sign` "+" for gains."""
        mean, low, high = (f"{100 * part:{sign}.1f}" for part in self[:3])
        return f"{mean} [{low}, {high}]"

    def __str__(self) -> str:
        return self.percent()


def interval(
    values: ArrayLike, *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> Interval:
    """Mean over puzzles with its percentile bootstrap interval, puzzles resampled.

    With R seeds a puzzle's value is its mean over seeds, and puzzles are resampled whole. The
    interval then speaks of other puzzles, not of other seeds: report `seed_spread` beside it.

    When all n puzzles have the same value v, resampling them says nothing. Then the rate of unseen
    puzzles with another value is at most u, the upper Wilson bound for 0 of n, and since those have
    values in [0, 1] the mean lies in [(1-u) v, (1-u) v + u]. For v of 0 or 1 this is Wilson's
    interval for 0 or n of n.

    A handful of failures is the bootstrap's weak spot: the interval is then too short.

    Args:
      values: [B] or [R, B] bool or float in [0, 1].
      confidence: coverage aimed at, a fraction.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      The mean and its interval.

    Raises:
      ValueError: `values` is empty, has other dimensions or holds anything outside [0, 1], NaN
        included; `confidence` is outside (0, 1); `num_resamples` is less than 1.
    """
    per_puzzle = _per_puzzle("values", values)
    return _bootstrap_mean(per_puzzle, (0.0, 1.0), confidence, num_resamples, seed)


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Mean of a - b over the same puzzles, with its percentile bootstrap interval.

    A puzzle's two values stay together in every resample, so what makes a puzzle hard for both
    cancels. When all n differences equal d, `interval`'s rule applies with differences in [-1, 1]:
    [(1-u) d - u, (1-u) d + u]. For a equal to b puzzle by puzzle this is [-u, u], u being the upper
    Wilson bound on the rate of puzzles that tell a from b, none of n having done so.

    Args:
      a: [B] or [R, B] bool or float in [0, 1]; seeds are averaged first.
      b: the shape of `a`, the same puzzles in the same order.
      confidence: coverage aimed at, a fraction.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      The mean difference, positive where a is better, and its interval.

    Raises:
      ValueError: the shapes differ, or as in `interval`.
    """
    if np.shape(a) != np.shape(b):
        raise InputError(
            f"a and b must have one shape, the same puzzles; got {np.shape(a)} and {np.shape(b)}; "
            "keep the puzzles that both have"
        )
    difference = _per_puzzle("a", a) - _per_puzzle("b", b)
    return _bootstrap_mean(difference, (-1.0, 1.0), confidence, num_resamples, seed)


def ratio_interval(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    bounds: tuple[float, float] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """A ratio of two sums over puzzles, with its percentile bootstrap interval.

    The mean over rollouts that puzzles have different numbers of (their summed values, and how many
    there are), or a cost per correct answer: puzzles are what is drawn, never rollouts. Resamples
    whose denominator is 0 are left out. Where all puzzles have the same ratio, `interval`'s rule
    applies if the ratio has bounds; otherwise the ends meet.

    Args:
      numerator: [B] float, what each puzzle adds.
      denominator: [B] float >= 0.
      bounds: lowest and highest ratio there can be, such as (0, 1) of a fraction; None for none.
      confidence: coverage aimed at, a fraction.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      The ratio, in any unit, and its interval, with the number of puzzles whose denominator is not
      0; three NaN where there is none.

    Raises:
      ValueError: the shapes differ or are not [B], a number is not finite or a denominator
        negative, or as in `interval`.
    """
    _check_resampling(confidence, num_resamples)
    top, bottom = (np.asarray(values).astype(np.float64) for values in (numerator, denominator))
    if top.ndim != 1 or top.shape != bottom.shape:
        raise InputError(
            f"numerator and denominator must be [B], one number per puzzle; got {top.shape} and "
            f"{bottom.shape}; sum over the rollouts of a puzzle"
        )
    if not (np.isfinite(top).all() and np.isfinite(bottom).all() and (bottom >= 0).all()):
        raise InputError(
            "numerator and denominator must be finite, and denominator >= 0; got others; leave out "
            "rollouts that are not finite"
        )
    # A puzzle without a part in either sum cannot be told from one that is not there.
    counts = bottom > 0
    number = int(counts.sum())
    if not number:
        return Interval(math.nan, math.nan, math.nan, 0)
    rng = np.random.default_rng(seed)
    n = top.size
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=num_resamples)
    tops, bottoms = drawn @ top, drawn @ bottom
    some = bottoms > 0
    ratio, resampled = float(top.sum() / bottom.sum()), tops[some] / bottoms[some]
    return Interval(ratio, *_ends(resampled, ratio, bounds, number, confidence), number)


def seed_spread(values: ArrayLike) -> float:
    """Sample standard deviation (ddof 1) of one number per seed; NaN for a single seed.

    Args:
      values: [R] float, such as the accuracy of each seed.

    Returns:
      The standard deviation, in the unit of `values`.

    Raises:
      ValueError: `values` is empty or not one-dimensional.
    """
    values = np.asarray(values).astype(np.float64)
    if values.ndim != 1 or not values.size:
        raise InputError(
            f"values must be [R], one number per seed; got shape {values.shape}; "
            "average over puzzles first"
        )
    return float(values.std(ddof=1)) if values.size > 1 else math.nan


# The Q head as a judge of its own answers.


def q_auc(correct: ArrayLike, q_logit: ArrayLike, *, finite: ArrayLike | None = None) -> float:
    """Chance that a right rollout has a larger Q than a wrong one, ties counting one half.

    All finite rollouts are pooled, so it also rewards telling easy puzzles from hard ones; for the
    order within each puzzle compare `best_q_at_k` with `pass_at_k`.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits; ±inf takes part only where `finite` is given and True.
      finite: [B, K] bool, rollouts that take part.

    Returns:
      The area under the ROC curve, in [0, 1]; NaN unless there are both right and wrong rollouts.

    Raises:
      ValueError: a shape or dtype does not fit.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    _, level = np.unique(q_logit[finite], return_inverse=True)
    return _auc(level, correct[finite], np.ones(level.size))


def q_auc_interval(
    correct: ArrayLike,
    q_logit: ArrayLike,
    *,
    finite: ArrayLike | None = None,
    confidence: float = 0.95,
    num_resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """`q_auc` with its percentile bootstrap interval, puzzles resampled with all their rollouts.

    Rollouts of one puzzle resemble each other, so puzzles are what is drawn. Resamples without a
    right or without a wrong rollout are left out. When the rest all give the same area, as after a
    perfect separation, `interval`'s rule applies with n the number of puzzles that have a right
    rollout or of those that have a wrong one, whichever is smaller.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      finite: [B, K] bool, rollouts that take part.
      confidence: coverage aimed at, a fraction.
      num_resamples: bootstrap resamples.
      seed: of the resampling.

    Returns:
      The area and its interval, with B puzzles; three NaN unless there are both right and wrong
      rollouts.

    Raises:
      ValueError: a shape or dtype does not fit, `confidence` is outside (0, 1), or `num_resamples`
        is less than 1.
    """
    _check_resampling(confidence, num_resamples)
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    num_puzzles = len(correct)
    area = q_auc(correct, q_logit, finite=finite)
    if math.isnan(area):
        return Interval(math.nan, math.nan, math.nan, num_puzzles)

    # How often a puzzle is drawn weighs its rollouts, so Q is sorted once for all resamples.
    _, level = np.unique(q_logit[finite], return_inverse=True)
    right, puzzle = correct[finite], np.nonzero(finite)[0]
    rng = np.random.default_rng(seed)
    areas = np.empty(num_resamples)
    for i in range(num_resamples):
        drawn = np.bincount(rng.integers(num_puzzles, size=num_puzzles), minlength=num_puzzles)
        areas[i] = _auc(level, right, drawn[puzzle])
    rarer = min(np.unique(puzzle[right]).size, np.unique(puzzle[~right]).size)
    ends = _ends(areas[~np.isnan(areas)], area, (0.0, 1.0), rarer, confidence)
    return Interval(area, *ends, num_puzzles)


def q_sign_accuracy(
    correct: ArrayLike, q_logit: ArrayLike, *, finite: ArrayLike | None = None
) -> float:
    """Fraction of finite rollouts whose Q has the sign of the truth: >= 0 if right, < 0 if wrong.

    Zero counts as a claim to be right, as in upstream's `q_halt_accuracy` (`models/losses.py`).

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float, logits.
      finite: [B, K] bool, rollouts that take part.

    Returns:
      A fraction in [0, 1]; NaN when no rollout is finite.

    Raises:
      ValueError: a shape or dtype does not fit.
    """
    correct, q_logit, finite = _rollouts(correct, q_logit, finite)
    agrees = ((q_logit >= 0) == correct)[finite]
    return float(agrees.mean()) if agrees.size else math.nan


# Shared arithmetic.


def _compare(
    answers: ArrayLike, labels: ArrayLike, ignore_label: int | None
) -> tuple[Bools, Bools]:
    """Positions where [B, ..., S] answers agree with labels, and the mask that broadcasts to it."""
    labels = _integers("labels", labels, 2, "[B, S]")
    answers = _integers("answers", answers, None, "[B, ..., S]")
    if answers.ndim < 2 or (answers.shape[0], answers.shape[-1]) != labels.shape:
        raise InputError(
            f"answers must be [B, ..., S] with the B and S of labels {labels.shape}; "
            f"got {answers.shape}; pass the rows and positions that both have"
        )
    between = tuple(range(1, answers.ndim - 1))
    mask = np.expand_dims(token_mask(labels, ignore_label), between)
    return answers == np.expand_dims(labels, between), mask


def _by_rank(q_logit: Floats, finite: Bools, preferred: Bools | None = None) -> NDArray[np.intp]:
    """[B, K] rollout ids from best to worst: finite first, then preferred, larger Q, lower id."""
    # lexsort is stable, takes its last key first, and NaN must not reach it.
    keys = [-np.where(finite, q_logit, 0.0), ~finite]
    keys[1:1] = [] if preferred is None else [~preferred]
    return np.lexsort(keys, axis=-1)


def _mode_over(
    subsets: Bools, correct: Bools, q_logit: Floats, answer_id: ArrayLike, finite: Bools
) -> Floats:
    """Per puzzle, the share of [M, K] subsets whose most frequent answer is right."""
    answer_id = _first_of_answer(answer_id, correct)
    order = _by_rank(q_logit, finite)
    chosen_right = np.empty(len(correct))
    for b, rank in enumerate(order):
        # In the order of rank, argmax takes the best ranked rollout of the most voted answers.
        voters = subsets[:, rank] & finite[b, rank]
        ids = answer_id[b, rank]
        # float32 for the fast matrix product: counts are exact far beyond any K.
        same = (ids[:, None] == ids).astype(np.float32)
        votes = np.where(voters, voters.astype(np.float32) @ same, 0)
        winner = votes.argmax(axis=1)
        chosen_right[b] = (correct[b, rank][winner] & voters.any(axis=1)).mean()
    return chosen_right


def _auc(level: NDArray[np.intp], right: Bools, weight: NDArray) -> float:
    """Area under the ROC curve of [N] weighted rollouts; `level` counts up their distinct Qs."""
    right_at = np.bincount(level, weight * right)
    wrong_at = np.bincount(level, weight * ~right)
    pairs = right_at.sum() * wrong_at.sum()
    below = np.cumsum(wrong_at) - wrong_at
    return float(right_at @ (below + wrong_at / 2) / pairs) if pairs else math.nan


def _bootstrap_mean(
    values: Floats,
    bounds: tuple[float, float],
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Interval:
    """Mean of [B] values that lie within `bounds`, with the interval of `interval`."""
    _check_resampling(confidence, num_resamples)
    # Drawing n puzzles with replacement draws the counts of their distinct values from a
    # multinomial: the same distribution, at a cost that hardly grows with n.
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    n = values.size
    means = [rng.multinomial(n, counts / n) @ distinct / n for _ in range(num_resamples)]
    mean = float(values.mean())
    return Interval(mean, *_ends(np.array(means), mean, bounds, n, confidence), n)


def _ends(
    resampled: Floats,
    estimate: float,
    bounds: tuple[float, float] | None,
    num_puzzles: int,
    confidence: float,
) -> tuple[float, float]:
    """Ends of the percentile interval, or of `interval`'s rule where resampling says nothing."""
    # Below this only rounding tells values apart.
    if resampled.size and (bounds is None or np.ptp(resampled) > 1e-12):
        tail = (1 - confidence) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return float(low), float(high)
    other = stats.binomtest(0, num_puzzles).proportion_ci(confidence, method="wilson").high
    kept = (1 - other) * estimate
    return kept + other * bounds[0], kept + other * bounds[1]


# Checks of what callers pass.


def _integers(name: str, array: ArrayLike, ndim: int | None, shape: str) -> NDArray:
    array = np.asarray(array)
    if not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"{name} must be {shape} integer tokens; got {array.dtype}; argmax them")
    if ndim is not None and array.ndim != ndim:
        raise InputError(f"{name} must be {shape}; got shape {array.shape}; reshape to {shape}")
    return array


def _correct(correct: ArrayLike) -> Bools:
    correct = np.asarray(correct)
    if correct.ndim != 2 or not correct.shape[1] or correct.dtype != np.bool_:
        raise InputError(
            f"correct must be [B, K] bool with K >= 1; got {correct.dtype} {correct.shape}; "
            "compute it with metrics.exact"
        )
    return correct


def _rollouts(
    correct: ArrayLike, q_logit: ArrayLike, finite: ArrayLike | None
) -> tuple[Bools, Floats, Bools]:
    """Checked `correct`, `q_logit` in float64, and which rollouts take part, all [B, K]."""
    correct = _correct(correct)
    q_logit = np.asarray(q_logit).astype(np.float64)
    if q_logit.shape != correct.shape:
        raise InputError(
            f"q_logit must have the shape [B, K] of correct, {correct.shape}; got {q_logit.shape}; "
            "pass one Q per rollout"
        )
    if finite is None:
        return correct, q_logit, np.isfinite(q_logit)
    # No flag can make NaN comparable.
    return correct, q_logit, _flags("finite", finite, correct) & ~np.isnan(q_logit)


def _flags(name: str, flags: ArrayLike, correct: Bools) -> Bools:
    flags = np.asarray(flags)
    if flags.shape != correct.shape or flags.dtype != np.bool_:
        raise InputError(
            f"{name} must be bool with the shape [B, K] of correct, {correct.shape}; "
            f"got {flags.dtype} {flags.shape}; pass one flag per rollout, or None"
        )
    return flags


def _first_of_answer(answer_id: ArrayLike, correct: Bools) -> NDArray:
    """Checked [B, K] answer ids: each names the first rollout of its answer, all equally right."""
    answer_id = np.asarray(answer_id)
    if answer_id.shape != correct.shape or not np.issubdtype(answer_id.dtype, np.integer):
        raise InputError(
            f"answer_id must be integer with the shape [B, K] of correct, {correct.shape}; "
            f"got {answer_id.dtype} {answer_id.shape}; compute it with metrics.answer_ids"
        )
    in_range = (answer_id >= 0) & (answer_id <= np.arange(correct.shape[1]))
    first = np.where(in_range, answer_id, 0)
    fits = in_range & (np.take_along_axis(answer_id, first, axis=1) == answer_id)
    if not fits.all():
        b, k = np.argwhere(~fits)[0]
        raise InputError(
            "answer_id must name the lowest rollout id with the same answer; "
            f"got {answer_id[b, k]} at puzzle {b}, rollout {k}; compute it with metrics.answer_ids"
        )
    clash = np.take_along_axis(correct, first, axis=1) != correct
    if clash.any():
        b, k = np.argwhere(clash)[0]
        raise InputError(
            f"rollouts with one answer_id must be equally correct; puzzle {b}, rollouts "
            f"{answer_id[b, k]} and {k} are not; compute both arrays from the same answers"
        )
    return answer_id


def _per_puzzle(name: str, values: ArrayLike) -> Floats:
    """[B] means over seeds of [B] or [R, B] fractions."""
    values = np.asarray(values).astype(np.float64)
    if values.ndim not in (1, 2) or not values.size:
        raise InputError(
            f"{name} must be [B] or [R, B] with at least one puzzle; got shape {values.shape}; "
            "pass one value per puzzle"
        )
    outside = ~((values >= 0) & (values <= 1))
    if outside.any():
        raise InputError(
            f"{name} must be fractions in [0, 1]; got {values[outside][0]}; drop padding rows with "
            "metrics.valid_rows and divide percent by 100"
        )
    return values.reshape(-1, values.shape[-1]).mean(axis=0)


def _rollouts_for(k: int, correct: Bools) -> int:
    """K of [B, K] `correct`, once k is known to be in 1..K."""
    num_rollouts = correct.shape[1]
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= num_rollouts:
        raise InputError(
            f"k must be a whole number in 1..K, K = {num_rollouts}; got {k!r}; run more rollouts"
            " or lower k"
        )
    return num_rollouts


def _at_least_one(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a whole number >= 1; got {value!r}; pass 1 or more")


def _check_resampling(confidence: float, num_resamples: int) -> None:
    if not 0 < confidence < 1:
        raise InputError(
            f"confidence must be a fraction in (0, 1); got {confidence!r}; pass 0.95 for 95 %"
        )
    _at_least_one("num_resamples", num_resamples)
