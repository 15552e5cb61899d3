"""Accuracy against compute: fixed widths and depths, and rules that stop when Q is high enough.

All of it is read off the kept steps of one sweep; with `--sweep DIR` nothing is solved.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, interval_columns
from ptrm_jax.analysis.study import Study, kept
from ptrm_jax.config import Read, Stop
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval, Replayed, Rollouts
from ptrm_jax.metrics.calibration import halves, replay_on
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import powers_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

READS: tuple[Read, ...] = ("last", "best")

FAMILIES = {
    "stop at Q": Stop(math.inf),
    "stop at Q, twice in a row": Stop(math.inf, patience=2),
    "stop at Q, two rollouts agree": Stop(math.inf, agree=2),
}
"""Rules by their name in the figure; `THRESHOLDS` take the place of infinity."""

THRESHOLDS = tuple(x / 2 for x in range(-4, 21))
"""Thresholds of the rules that are drawn, logits; those that stop nothing are left out."""


@dataclasses.dataclass(frozen=True)
class Settings(study.KeptSettings):
    """What an answer costs if rollouts stop when Q is high enough."""

    q_logit: float = 2.0
    """Threshold on Q of the rule that the sentences and the right panel are about, a logit."""

    def __post_init__(self) -> None:
        Stop(self.q_logit)


@dataclasses.dataclass(frozen=True, eq=False)
class Point:
    """A way to spend compute.

    Attributes:
      name: what it is, within its curve.
      solved: [R, B] how often the answer is right.
      steps: [R, B] rollout-steps.
    """

    name: str
    solved: np.ndarray
    steps: np.ndarray

    @functools.cached_property
    def accuracy(self) -> Interval:
        """Fraction of puzzles solved."""
        return metrics.interval(self.solved)

    @functools.cached_property
    def cost(self) -> Interval:
        """Rollout-steps per puzzle."""
        steps = self.steps.mean(axis=0)
        return metrics.ratio_interval(steps, np.ones(len(steps)))


class Measured(NamedTuple):
    """Everything that is drawn.

    Attributes:
      result: the sweep.
      fixed: by name, the curves of fixed width and depth. Those of PTRM are the best splits of each
        compute, selected on these puzzles.
      grid: all widths and depths of PTRM, by how they are read.
      rules: by name, the families of stop rules.
      giving_up: by name, the rule `q_logit` with less compute for puzzles that do not stop.
      stop: that rule without a limit.
    """

    result: Result
    fixed: Mapping[str, Sequence[Point]]
    grid: Mapping[str, Sequence[Point]]
    rules: Mapping[str, Sequence[Point]]
    giving_up: Mapping[str, Sequence[Point]]
    stop: Point

    @property
    def widths(self) -> list[int]:
        """Widths of the grid, and caps of `giving_up` in rollouts."""
        return self.result.config.widths

    @property
    def half(self) -> int:
        """The shorter rollouts of the sentences, in steps: at most D / 2."""
        depth = self.full[1]
        return max(d for d in powers_of_two(depth) if d <= max(1, depth // 2))

    @property
    def few(self) -> int:
        """The cap of the sentences, in rollouts: at most an eighth of K."""
        return max(k for k in self.widths if k <= max(1, self.widths[-1] // 8))

    @property
    def full(self) -> tuple[int, int]:
        """Width K and depth D."""
        return self.result.config.rollouts, self.result.config.depth


def envelope(points: Sequence[Point]) -> list[Point]:
    """The best point of each compute, where it is better than all that are cheaper."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.steps.mean(), -point.solved.mean())):
        if not best or point.solved.mean() > best[-1].solved.mean():
            best.append(point)
    return best


def shared_budget(rollouts: Rollouts, stop: Stop, capped: Replayed) -> Replayed | None:
    """A rule whose puzzles share the steps that a cap would have spent.

    The chance that a rollout helps is fitted on one half of the puzzles and used on the other, both
    ways. None where a half has nothing to fit.

    Args:
      rollouts: [B, K, D].
      stop: the rule, without a cap.
      capped: what it does with a cap of at least D steps.
    """
    parts = halves(len(rollouts.correct))
    shared = jax.tree.map(np.array, capped)
    for fitted, used in (parts, parts[::-1]):
        one, other = rollouts.part(fitted), rollouts.part(used)
        total = int(capped.rollout_steps[used].sum())
        try:
            chance = metrics.fit_chance(one.q_logit, one.eligible, stop)
        except InputError:
            return None
        allocated = metrics.allocate(other.q_logit, other.eligible, stop, chance, total)
        for field, values in zip(shared, allocated, strict=True):
            field[used] = values
    return shared


def measure(study: Study[Settings]) -> Measured:
    """Reads or runs the sweep, and applies every read and rule to its kept steps."""
    solved = kept(study, equal_compute=True)
    result, runs, config = solved.result, solved.rollouts, solved.result.config
    fixed: dict[str, list[Point]] = {}
    grid: dict[str, list[Point]] = {}
    for read in READS:
        trm = [result.deterministic.rollouts.read(read)]
        ptrm = [rollouts.read(read) for rollouts in runs]
        depths = sorted({*powers_of_two(config.baseline_depth), config.depth})
        fixed[f"TRM by depth, read {read}"] = [_fixed(trm, 1, d) for d in depths]
        depths = powers_of_two(config.depth)
        grid[read] = [_fixed(ptrm, k, d) for k in config.widths for d in depths]
        fixed[f"PTRM, best K x D, read {read}"] = envelope(grid[read])
    stop = Stop(study.settings.q_logit)
    short = [_short(runs, stop, d) for d in powers_of_two(config.depth)]
    cap, shared = [], []
    for k in config.widths:
        capped = dataclasses.replace(stop, max_rollout_steps=k * config.depth)
        cap.append(_rule(f"{k} rollouts", runs, [replay_on(each, capped) for each in runs]))
        budgets = [shared_budget(each, stop, replay_on(each, capped)) for each in runs]
        known = [budget for budget in budgets if budget is not None]
        if len(known) == len(runs):
            shared.append(_rule(f"as with a cap of {k} rollouts", runs, known))
    return Measured(
        result,
        fixed,
        grid,
        {name: _family(runs, family) for name, family in FAMILIES.items()},
        {"cap": cap, "shared budget": shared, "shorter rollouts": short},
        _rule(f"Q >= {stop.q_logit:g}", runs, [replay_on(each, stop) for each in runs]),
    )


def _fixed(runs: Sequence[Rollouts], k: int, depth: int) -> Point:
    solved = np.stack([metrics.best_q_at_k(each.at(depth), k) for each in runs])
    return Point(f"K={k}, D={depth}", solved, np.full(solved.shape, k * depth))


def _short(runs: Sequence[Rollouts], stop: Stop, depth: int) -> Point:
    parts = [each.up_to(depth) for each in runs]
    return _rule(f"rollouts of {depth} steps", parts, [replay_on(each, stop) for each in parts])


def _rule(name: str, runs: Sequence[Rollouts], replayed: Sequence[Replayed]) -> Point:
    solved = np.stack([one.of(each.correct) for one, each in zip(replayed, runs, strict=True)])
    return Point(name, solved.astype(float), np.stack([one.rollout_steps for one in replayed]))


def _family(runs: Sequence[Rollouts], family: Stop) -> list[Point]:
    """The rules of a family that stop anything."""
    points = []
    for threshold in THRESHOLDS:
        stop = dataclasses.replace(family, q_logit=threshold)
        replayed = [replay_on(each, stop) for each in runs]
        if any(one.stopped.any() for one in replayed):
            points.append(_rule(f"Q >= {threshold:g}", runs, replayed))
    return points


def draw(measured: Measured, caption: str) -> "Figure":
    """Accuracy against compute: fixed widths and depths beside a rule, and rules by themselves."""
    figure, axes = charts.new_figure(caption, columns=2, size=(6.4, 5.6), margin=0.2)
    left, right = axes[0]
    for style, (name, curve) in enumerate(measured.fixed.items()):
        trm = name.startswith("TRM")
        _draw_curve(left, curve, style, name, linestyle="--" if trm else "-")
        points = [] if trm else measured.grid[name.split()[-1]]
        for point in points:
            place = point.steps.mean(), point.solved.mean()
            left.scatter(*place, s=8, color=charts.colour(style), alpha=0.4, linewidth=0)
    for style, (name, curve) in enumerate(measured.rules.items(), start=len(measured.fixed)):
        for ax in (left, right) if style == len(measured.fixed) else (right,):
            _draw_curve(ax, curve, style, name)
    for style, (name, curve) in enumerate(measured.giving_up.items()):
        _draw_curve(right, curve, style, f"{measured.stop.name}, {name}", linestyle=":")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set(xlabel="compute, rollout-steps per puzzle", ylabel="puzzles solved exactly (%)")
        charts.percent(ax)
        charts.legend_below(ax)
    return figure


def _draw_curve(ax: "Axes", curve: Sequence[Point], style: int, label: str, **line: Any) -> None:
    """Draws points with their intervals of accuracy and, where it varies, of compute."""
    if not curve:
        return
    cost = np.array([point.cost[:3] for point in curve])
    spread = np.maximum((cost[:, 0] - cost[:, 1], cost[:, 2] - cost[:, 0]), 0)
    accuracy = [point.accuracy for point in curve]
    line = {"xerr": spread, "capsize": 0, "markersize": 4, "elinewidth": 0.6, **line}
    charts.points(ax, cost[:, 0], accuracy, style, label, **line)


def find(measured: Measured) -> dict[str, Finding]:
    """Accuracy and compute of the rule, of TRM and of PTRM, and paired differences."""
    (width, depth), stop = measured.full, measured.stop
    trm, deep, ptrm = {}, {}, {}
    for read in READS:
        by_depth = measured.fixed[f"TRM by depth, read {read}"]
        trm[read] = next(point for point in by_depth if point.steps.max() == depth)
        deep[read], ptrm[read] = by_depth[-1], measured.grid[read][-1]
    shown = {f"trm_{read}": (f"TRM, D={depth}, read {read}", trm[read]) for read in READS}
    for read in READS:
        shown[f"deep_{read}"] = (f"TRM, D={deep[read].steps.max()}, read {read}", deep[read])
        shown[f"ptrm_{read}"] = (f"best-Q@{width}, D={depth}, read {read}", ptrm[read])
    shown["stop"] = (f"stop at {stop.name}", stop)
    found = {key: Finding.of(what, point.accuracy) for key, (what, point) in shown.items()}
    found["stop_steps"] = Finding.of(
        f"stop at {stop.name}, rollout-steps per puzzle", stop.cost, "number"
    )
    share = metrics.interval(stop.steps / (width * depth))
    found["stop_share"] = Finding.of(f"stop at {stop.name}, share of K x D", share)
    gains = {
        "read_gain": ("PTRM, read best minus last", ptrm["best"], ptrm["last"]),
        "trm_read_gain": ("TRM, read best minus last", trm["best"], trm["last"]),
        "stop_over_last": (f"stop at {stop.name} minus PTRM read last", stop, ptrm["last"]),
        "stop_over_best": (f"stop at {stop.name} minus PTRM read best", stop, ptrm["best"]),
        "stop_over_deep": (
            f"stop at {stop.name} minus TRM, D={deep['best'].steps.max()}, read best",
            stop,
            deep["best"],
        ),
    }
    at = {f"{measured.few} rollouts", f"as with a cap of {measured.few} rollouts"}
    at.add(f"rollouts of {measured.half} steps")
    for name, curve in measured.giving_up.items():
        for point in curve:
            if point.name in at:
                key = name.split()[-1]
                what = f"stop at {stop.name}, {name}, {point.name}"
                found[f"{key}_share"] = Finding.of(
                    f"{what}, share of K x D", metrics.interval(point.steps / (width * depth))
                )
                gains[f"{key}_over_stop"] = (f"{what}, minus no limit", point, stop)
    for name, (what, one, other) in gains.items():
        difference = metrics.paired_difference(*np.broadcast_arrays(one.solved, other.solved))
        found[name] = Finding.of(what, difference, "points")
    return found


def say(measured: Measured, findings: Mapping[str, Finding]) -> list[str]:
    """The findings in sentences."""
    said = {name: finding.text() for name, finding in findings.items()}
    width, depth = measured.full
    sentences = [
        f"TRM at D={depth} solves {said['trm_last']} read at its last step and {said['trm_best']} "
        f"read at its highest Q; best-Q@{width} {said['ptrm_last']} and {said['ptrm_best']}.",
        f"Stopping at the first {measured.stop.name} solves {said['stop']} "
        f"({said['stop_over_last']} over the last step, {said['stop_over_best']} over the highest "
        f"Q) in {said['stop_steps']} rollout-steps per puzzle, {said['stop_share']} of K x D.",
    ]
    last = measured.grid["last"][-1]
    as_good = [
        point for point in measured.rules["stop at Q"] if point.solved.mean() >= last.solved.mean()
    ]
    if as_good:
        cheapest = min(as_good, key=lambda point: point.steps.mean())
        sentences.append(
            f"The cheapest threshold that solves as many as best-Q@{width} read last, "
            f"{cheapest.name}, takes {cheapest.cost.mean:.1f} rollout-steps per puzzle, "
            f"{last.cost.mean / cheapest.cost.mean:.0f} times fewer (selected on these puzzles, "
            "optimistic)."
        )
    sentences.append(
        f"Giving up rollouts after {measured.half} steps costs {said['rollouts_over_stop']} and "
        f"takes {said['rollouts_share']} of K x D."
    )
    if "budget_over_stop" in said:
        sentences.append(
            f"Giving up puzzles after {measured.few} rollouts costs {said['cap_over_stop']} and "
            f"takes {said['cap_share']} of K x D; the same steps, shared by the chance that one "
            f"more rollout stops, cost {said['budget_over_stop']}."
        )
    return sentences


def make(study: Study[Settings]) -> Exhibit:
    """The figure of accuracy against compute."""
    measured = measure(study)
    caption, findings = study.caption(measured.result), find(measured)
    curves = {**measured.fixed, **measured.rules, **measured.giving_up}
    curves |= {f"PTRM, all K x D, read {read}": points for read, points in measured.grid.items()}
    return study.exhibit(
        "Accuracy against compute, and stopping when Q is high enough",
        caption=caption,
        result=measured.result,
        reading=say(measured, findings),
        findings=findings,
        figure=draw(measured, caption),
        rows=[
            {"curve": name, "point": point.name, "num_puzzles": point.accuracy.num_puzzles}
            | interval_columns(point.accuracy)
            | {"steps": cost.mean, "steps_low": cost.low, "steps_high": cost.high}
            for name, points in curves.items()
            for point in points
            for cost in [point.cost]
        ],
    )
