"""Results on PPBench summed up as in the PTRM paper (arXiv 2605.19943, Table 1 and A.3).

The aggregate is over five types: every puzzle weighs the same, and shakashaka, which a plain TRM
solves entirely, is left out. The cost is that of an H100 at $2.50 per hour.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, interval
from ptrm_jax.tasks.ppbench.records import TYPES

REPORTED = TYPES[:5]
"""The types that count in the aggregate: all but shakashaka."""
DOLLARS_PER_HOUR = 2.5


def by_type(correct: ArrayLike, types: ArrayLike) -> dict[str, Interval]:
    """Accuracy on each type that occurs, in the order of `TYPES`, with its interval.

    Args:
        correct: [B] or [R, B] bool or float in [0, 1], R seeds, as `metrics.interval` takes them:
            one value per puzzle, which may be the chance of a choice such as best-Q@K.
        types: [B] integer, as `type_of` gives them.

    Raises:
        ValueError: shapes disagree, a type is none of the six, or what `metrics.interval` refuses.
    """
    correct, types = _checked(correct, types)
    return {
        pid: interval(correct[..., types == index])
        for index, pid in enumerate(TYPES)
        if (types == index).any()
    }


def aggregate(correct: ArrayLike, types: ArrayLike) -> Interval:
    """Accuracy on the puzzles of the five reported types, each puzzle weighing the same.

    Args:
        correct: as `by_type`.
        types: as `by_type`.

    Raises:
        ValueError: as `by_type`; or there is no puzzle of a reported type.
    """
    correct, types = _checked(correct, types)
    reported = types < len(REPORTED)
    if not reported.any():
        raise InputError(
            f"an aggregate must have puzzles of {', '.join(REPORTED)}; there are {len(types)} "
            "puzzles, none of these; use by_type"
        )
    return interval(correct[..., reported])


def table(methods: Mapping[str, ArrayLike], types: ArrayLike) -> str:
    """A Markdown table of accuracies in percent: a row per method, a column per type.

    Args:
        methods: what `by_type` takes as `correct`, by the name of the method.
        types: as `by_type`, the same puzzles for all methods.

    Raises:
        ValueError: as `aggregate`; or there is no method.
    """
    if not methods:
        raise InputError("a table must have at least one method; there are 0; pass some")
    rows = []
    for name, correct in methods.items():
        total, scores = aggregate(correct, types), by_type(correct, types)
        rows.append([name, total.percent(), *(f"{100 * s.mean:.1f}" for s in scores.values())])
    columns = [f"{pid} ({score.num_puzzles})" for pid, score in scores.items()]
    header = ["method", f"aggregate of {len(REPORTED)} types", *columns]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def dollars_per_puzzle(
    seconds_per_puzzle: float, *, dollars_per_hour: float = DOLLARS_PER_HOUR
) -> float:
    """Dollars that one puzzle costs: seconds on the accelerator at its rent.

    Raises:
        ValueError: an argument is negative or not finite.
    """
    if not (0 <= seconds_per_puzzle < np.inf and 0 <= dollars_per_hour < np.inf):
        raise InputError(
            f"seconds and rent must be finite and at least 0; seconds_per_puzzle is "
            f"{seconds_per_puzzle} and dollars_per_hour {dollars_per_hour}; pass what was measured"
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
            "what type_of gives"
        )
    return correct, types
