"""Means over puzzles with their confidence intervals, puzzles being what is resampled.

Letters: B puzzles, R seeds. Values are one float per puzzle.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from ptrm_jax.errors import InputError

Floats = NDArray[np.float64]

_DYADIC = 2**20  # sums of multiples of 1 / _DYADIC are exact in float64


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
    check_resampling(confidence, num_resamples)
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
    return Interval(ratio, *ends(resampled, ratio, bounds, number, confidence), number)


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


def _bootstrap_mean(
    values: Floats,
    bounds: tuple[float, float],
    confidence: float,
    num_resamples: int,
    seed: int,
) -> Interval:
    """Mean of [B] values that lie within `bounds`, with the interval of `interval`."""
    check_resampling(confidence, num_resamples)
    # Drawing n puzzles with replacement draws the counts of their distinct values from a
    # multinomial: the same distribution, at a cost that hardly grows with n.
    distinct, counts = np.unique(values, return_counts=True)
    rng = np.random.default_rng(seed)
    n = values.size
    drawn = rng.multinomial(n, counts / n, size=num_resamples)
    if (np.rint(distinct * _DYADIC) == distinct * _DYADIC).all():
        sums = drawn @ distinct  # exact, whatever the order of the terms
    else:  # one order of summation for every number of resamples
        sums = np.array([row @ distinct for row in drawn])
    means = sums / n
    mean = float(values.mean())
    return Interval(mean, *ends(means, mean, bounds, n, confidence), n)


def ends(
    resampled: Floats,
    estimate: float,
    bounds: tuple[float, float] | None,
    num_puzzles: int,
    confidence: float,
) -> tuple[float, float]:
    """Ends of the percentile interval, or of `interval`'s rule where resampling says nothing."""
    # Below this only rounding tells values apart.
    if bounds is None or (resampled.size and np.ptp(resampled) > 1e-12):
        tail = (1 - confidence) / 2
        low, high = np.quantile(resampled, [tail, 1 - tail])
        return float(low), float(high)
    other = _wilson_upper(num_puzzles, confidence)
    kept = (1 - other) * estimate
    return kept + other * bounds[0], kept + other * bounds[1]


def _wilson_upper(n: int, confidence: float) -> float:
    """Upper end of Wilson's interval for 0 of n.

    In the order of operations of `scipy.stats.binomtest`, whose module takes a second to import.
    """
    z = float(ndtri(0.5 + 0.5 * confidence))
    denominator = 2 * (n + z**2)
    return z**2 / denominator + z / denominator * math.sqrt(z**2)


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


def at_least_one(name: str, value: int) -> None:
    """Raises InputError unless value is a whole number >= 1."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{name} must be a whole number >= 1; got {value!r}; pass 1 or more")


def check_resampling(confidence: float, num_resamples: int) -> None:
    """Raises InputError for settings of a bootstrap that are out of range."""
    if not 0 < confidence < 1:
        raise InputError(
            f"confidence must be a fraction in (0, 1); got {confidence!r}; pass 0.95 for 95 %"
        )
    at_least_one("num_resamples", num_resamples)
