"""Results on PPBench, aggregated as in the PTRM paper (arXiv 2605.19943, Table 1 and A.3).

The aggregate is over five types: every puzzle has the same weight, and shakashaka, which a plain
TRM solves entirely, is left out. The cost is that of an H100 at $2.50 per hour.
"""

import numpy as np
from numpy.typing import ArrayLike

from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, interval
from ptrm_jax.tasks.ppbench.puzzle import TYPES

REPORTED = TYPES[:5]
"""The types in the aggregate: all but shakashaka."""
DOLLARS_PER_HOUR = 2.5


def by_type(correct: ArrayLike, types: ArrayLike) -> dict[str, Interval]:
    """Accuracy on each type that occurs, in the order of `TYPES`, with its interval.

    Args:
      correct: [B] or [R, B] bool or float in [0, 1], R seeds, as `metrics.interval` takes them:
        one value per puzzle, which may be the expected accuracy of a choice such as best-Q@K.
      types: [B] integer, indices into `TYPES`.

    Raises:
      InputError: shapes disagree, a type is not one of the six, or as `metrics.interval`.
    """
    correct, types = _checked(correct, types)
    return {
        pid: interval(correct[..., types == index])
        for index, pid in enumerate(TYPES)
        if (types == index).any()
    }


def aggregate(correct: ArrayLike, types: ArrayLike) -> Interval:
    """Accuracy on the puzzles of the five reported types, with equal weight for each puzzle.

    Args:
      correct: as for `by_type`.
      types: as for `by_type`.

    Raises:
      InputError: as for `by_type`; or there is no puzzle of a reported type.
    """
    correct, types = _checked(correct, types)
    reported = types < len(REPORTED)
    if not reported.any():
        raise InputError(
            f"an aggregate must have puzzles of {', '.join(REPORTED)}; there are {len(types)} "
            "puzzles, none of these; use by_type"
        )
    return interval(correct[..., reported])


def dollars_per_puzzle(
    seconds_per_puzzle: float, *, dollars_per_hour: float = DOLLARS_PER_HOUR
) -> float:
    """The cost of one puzzle in dollars, from seconds on an accelerator and its hourly rate.

    Raises:
      InputError: an argument is negative or not finite.
    """
    if not (0 <= seconds_per_puzzle < np.inf and 0 <= dollars_per_hour < np.inf):
        raise InputError(
            f"seconds and hourly rate must be finite and at least 0; seconds_per_puzzle is "
            f"{seconds_per_puzzle} and dollars_per_hour {dollars_per_hour}; pass measured values"
        )
    return seconds_per_puzzle * dollars_per_hour / 3600


def _checked(correct: ArrayLike, types: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    correct, types = np.asarray(correct), np.asarray(types)
    if correct.ndim not in (1, 2) or types.shape != correct.shape[-1:]:
        raise InputError(
            "correct must be [B] or [R, B], and types [B]; their shapes are "
            f"{correct.shape} and {types.shape}; pass one value and one type per puzzle"
        )
    if not np.issubdtype(types.dtype, np.integer) or ((types < 0) | (types >= len(TYPES))).any():
        raise InputError(
            f"types must be integers 0 to {len(TYPES) - 1}; types holds {np.unique(types)}; pass "
            "indices into TYPES"
        )
    return correct, types
