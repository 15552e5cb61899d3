"""Compares two sweeps: whether their bits are equal, and if not, where and how much it matters."""

from typing import Any, NamedTuple

import numpy as np

from ptrm_jax import metrics
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval
from ptrm_jax.provenance import differences
from ptrm_jax.sweep.result import Result, Run
from ptrm_jax.sweep.scores import best_q

_FIELDS = {
    "answer": "digest",
    "q_logit": "q_logit",
    "correct": "correct",
    "cell_accuracy": "cell_accuracy",
    "finite": "finite",
}
"""What is compared: names in texts, and attributes of `Rollouts`."""


class Place(NamedTuple):
    """Where two runs first differ: the puzzle, in it the rollout, in it the step (from 1).

    Attributes:
      puzzle: row of the data.
      rollout: id.
      step: supervision step.
      fields: what differs there.
      puzzles: how many puzzles differ anywhere.
    """

    puzzle: int
    rollout: int
    step: int
    fields: tuple[str, ...]
    puzzles: int


class RunComparison(NamedTuple):
    """One (sigma, seed) of two sweeps, over the puzzles, rollouts and steps that both have.

    Attributes:
      name: of the run.
      shape: puzzles, rollouts, steps compared.
      place: where they part, or None.
      accuracy: best-Q of the first sweep and of the second, at that width and depth.
      gain: second minus first, paired by puzzle.
      mcnemar: puzzles that only the first solves, only the second, and the p-value.
    """

    name: str
    shape: tuple[int, int, int]
    place: Place | None
    accuracy: tuple[Interval, Interval]
    gain: Interval
    mcnemar: tuple[int, int, float]


class Comparison(NamedTuple):
    """Two sweeps.

    Attributes:
      runs: the (sigma, seed) that both have, the deterministic run first.
      apart: names of runs that only one has.
      provenance: differences in provenance and settings, one text each.
    """

    runs: tuple[RunComparison, ...]
    apart: tuple[str, ...]
    provenance: tuple[str, ...]

    @property
    def identical(self) -> bool:
        """No bit differs in what both have."""
        return all(run.place is None for run in self.runs)


def compare(first: Result, second: Result) -> Comparison:
    """Compares two sweeps, which must be of one data set.

    Raises:
      ValueError: they are not, or have no run in common.
    """
    datas = [result.provenance["data"] for result in (first, second)]
    if datas[0]["digest"] != datas[1]["digest"]:
        raise InputError(
            f"both sweeps must be of the same puzzles; got {datas[0]['name']} "
            f"({datas[0]['num_puzzles']}, digest {datas[0]['digest'][:8]}) and {datas[1]['name']} "
            f"({datas[1]['num_puzzles']}, digest {datas[1]['digest'][:8]})"
        )
    named = [_named(result) for result in (first, second)]
    common = [name for name in named[0] if name in named[1]]
    return Comparison(
        tuple(_compare(name, named[0][name], named[1][name]) for name in common),
        tuple(sorted(named[0].keys() ^ named[1].keys())),
        tuple(differences(_settings(first), _settings(second))),
    )


def _settings(result: Result) -> dict[str, Any]:
    return {"provenance": result.provenance, "config": vars(result.config)}


def _named(result: Result) -> dict[str, Run]:
    runs = {"deterministic": result.deterministic}
    return runs | {run.name: run for run in result.runs}


def _compare(name: str, first: Run, second: Run) -> RunComparison:
    shapes = zip(first.rollouts.correct.shape, second.rollouts.correct.shape, strict=True)
    puzzles, width, depth = (min(sizes) for sizes in shapes)
    index = (slice(puzzles), slice(width), slice(depth))
    parts = [run.rollouts.part(*index) for run in (first, second)]
    solved = [best_q(rollouts, width, depth) for rollouts in parts]
    return RunComparison(
        name,
        (puzzles, width, depth),
        _first_difference(first, second, index),
        (metrics.interval(solved[0]), metrics.interval(solved[1])),
        metrics.paired_difference(solved[1], solved[0]),
        mcnemar(solved[0] == 1, solved[1] == 1),
    )


def _first_difference(one: Run, other: Run, index: tuple[slice, ...]) -> Place | None:
    chosen = [run.chosen for run in (one, other)]
    first, second = (run.rollouts.part(*index) for run in (one, other))
    differs = {
        # Bits, so that a NaN equals itself and 0.0 is not -0.0.
        name: _bits(getattr(first, field)) != _bits(getattr(second, field))
        for name, field in _FIELDS.items()
    }
    if chosen[0] is not None and chosen[1] is not None:  # with stopping rules
        steps = [x.rollout_steps[index[0], None, None] for x in chosen if x is not None]
        differs["rollout_steps"] = steps[0] != steps[1]
    anywhere = np.logical_or.reduce(list(differs.values()))
    if not anywhere.any():
        return None
    puzzle, rollout, step = map(int, np.argwhere(anywhere)[0])
    return Place(
        puzzle=puzzle,
        rollout=rollout,
        step=step + 1,
        fields=tuple(name for name in differs if differs[name][puzzle, rollout, step]),
        puzzles=int(anywhere.any(axis=(1, 2)).sum()),
    )


def _bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """McNemar's exact test of two methods on the same puzzles, two-sided.

    Args:
      first: [B] bool, solved by the first.
      second: [B] bool, solved by the second.

    Returns:
      How many only the first solves, how many only the second, and the p-value: the probability of
      a split at least as uneven of the puzzles that exactly one of them solves.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    total = only_first + only_second
    from scipy import stats  # a second to import

    p = float(stats.binomtest(only_first, total).pvalue) if total else 1.0
    return only_first, only_second, p


def text(comparison: Comparison) -> str:
    """The comparison as plain text."""
    lines = []
    for run in comparison.runs:
        puzzles, rollouts, steps = run.shape
        what = f"{run.name} ({puzzles} puzzles, K={rollouts}, D={steps})"
        if run.place is None:
            lines.append(f"{what}: identical")
            continue
        place = run.place
        lines.append(
            f"{what}: differ in {place.puzzles} puzzles, first in puzzle {place.puzzle}, rollout "
            f"{place.rollout}, step {place.step} ({', '.join(place.fields)})"
        )
        one, other = (f"{100 * a.mean:.1f}" for a in run.accuracy)
        gain, (only_first, only_second, p) = run.gain, run.mcnemar
        lines.append(
            f"  best-Q@{rollouts} {one} % and {other} %, second minus first {100 * gain.mean:+.1f} "
            f"[{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]; only the first solves {only_first}, "
            f"only the second {only_second}, McNemar p = {p:.3g}"
        )
    lines += [f"only in one of them: {name}" for name in comparison.apart]
    lines.append("" if comparison.provenance else "Nothing differs in settings and provenance.")
    lines += ["What differs in settings and provenance:"] if comparison.provenance else []
    lines += [f"  {difference}" for difference in comparison.provenance]
    verdict = "identical" if comparison.identical else "different"
    return "\n".join([f"The sweeps are {verdict} in what both have.", "", *lines]) + "\n"
