"""How accuracy grows with width and depth, and at equal compute (PTRM Figure 6, Tables 1 and 5).

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, interval_columns
from ptrm_jax.analysis.study import OneSigma, Solved, Study
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import scores
from ptrm_jax.sweep.config import powers_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CHOICES = {"pass@k (bound)": "pass", "best-Q@k": "best_q", "mode@k": "mode"}
"""Choices of `scores.CHOICES` by their name in the figure."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Width and depth."""

    search: OneSigma = OneSigma(rollouts=32, depth=32)


def at_equal_compute(
    accuracy: np.ndarray, rollouts: list[int], depths: list[int]
) -> dict[int, tuple[int, int]]:
    """The best width and depth for every compute K * D of a map.

    Args:
      accuracy: [len(rollouts), len(depths)].
      rollouts: K of the rows.
      depths: D of the columns.

    Returns:
      (K, D) by compute, ascending; of equally good pairs the one with the smallest K.
    """
    best: dict[int, tuple[float, int, int]] = {}
    for i, k in enumerate(rollouts):
        for j, d in enumerate(depths):
            candidate = (accuracy[i, j], k, d)
            if k * d not in best or candidate[0] > best[k * d][0] + 1e-12:
                best[k * d] = candidate
    return {compute: best[compute][1:] for compute in sorted(best)}


class Measured(NamedTuple):
    """Accuracy by width and depth.

    Attributes:
      solved: by PTRM, and by the deterministic TRM up to equal compute.
      best_q: accuracy of best-Q at every width and depth, [len(widths), len(depths)].
      chosen: the best (K, D) for every compute of that map.
      curves: (compute in rollout-steps per puzzle, accuracy) of four ways to spend it.
      widths: powers of two, and K.
      depths: powers of two, and D.
      trm_depths: powers of two, and K * D.
    """

    solved: Solved
    best_q: np.ndarray
    chosen: Mapping[int, tuple[int, int]]
    curves: Mapping[str, tuple[list[int], list[Interval]]]
    widths: list[int]
    depths: list[int]
    trm_depths: list[int]

    @property
    def full(self) -> tuple[int, int]:
        """Full width K and depth D."""
        return self.widths[-1], self.depths[-1]


def measure(study: Study[Settings]) -> Measured:
    """Runs the sweep and scores it at every width and depth."""
    solved = Solved(study.sweep(equal_compute=True), study.settings.search.sigma)
    config = solved.result.config
    widths, depths = config.widths, powers_of_two(config.depth)
    trm_depths, shallow = powers_of_two(config.baseline_depth), min(16, config.depth)

    def ptrm(choice: str, k: int, depth: int) -> Interval:
        return metrics.interval(solved.ptrm(choice, k, depth))

    best_q = np.array([[solved.ptrm("best_q", k, d).mean() for d in depths] for k in widths])
    chosen = at_equal_compute(best_q, widths, depths)
    curves = {
        "TRM, depth alone": (trm_depths, [metrics.interval(solved.trm(d)) for d in trm_depths]),
        f"best-Q, D={shallow}, width alone": (
            [k * shallow for k in widths],
            [ptrm("best_q", k, shallow) for k in widths],
        ),
        "one noisy rollout, depth alone": (depths, [ptrm("pass", 1, d) for d in depths]),
        "best-Q, best K x D": (list(chosen), [ptrm("best_q", *kd) for kd in chosen.values()]),
    }
    return Measured(solved, best_q, chosen, curves, widths, depths, trm_depths)


def draw(measured: Measured, caption: str) -> "Figure":
    """pass, best-Q and mode by K; the map of best-Q over K and D; accuracy at equal compute."""
    figure, axes = charts.new_figure(caption, columns=3, size=(4.8, 4.6), margin=0.2)
    left, middle, right = axes[0]
    width, depth = measured.full
    for style, (name, choice) in enumerate(CHOICES.items()):
        curve = [metrics.interval(measured.solved.ptrm(choice, k, depth)) for k in measured.widths]
        charts.points(left, np.array(measured.widths) * 1.03 ** (style - 1), curve, style, name)
    for d, line in ((depth, ":"), (width * depth, "--")):
        accuracy = measured.solved.trm(d).mean()
        left.axhline(accuracy, color=charts.GREY, linestyle=line, label=f"TRM, D={d}")
    left.set_xscale("log", base=2)
    left.set_xticks(measured.widths, [str(k) for k in measured.widths])
    left.set(xlabel=f"k, rollouts (D={depth})", ylabel="puzzles solved exactly (%)")
    _draw_map(middle, measured)
    for style, (name, (compute, curve)) in enumerate(measured.curves.items()):
        x = np.array(compute) * 1.02 ** (style - 1)
        charts.points(right, x, curve, style, name, linestyle="--" if style == 3 else "-")
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set(xlabel="compute, rollout-steps per puzzle", ylabel="puzzles solved exactly (%)")
    for ax in (left, right):
        charts.percent(ax)
        charts.legend_below(ax)
    return figure


def _draw_map(ax: "Axes", measured: Measured) -> None:
    """A heat map with its numbers written in."""
    best_q, widths, depths = measured.best_q, measured.widths, measured.depths
    ax.grid(False)
    ax.imshow(best_q, origin="lower", cmap="cividis", aspect="auto")
    middle = (best_q.min() + best_q.max()) / 2
    for i, j in np.ndindex(best_q.shape):
        colour = "white" if best_q[i, j] < middle else "black"
        ax.text(j, i, f"{100 * best_q[i, j]:.0f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(depths)), [str(d) for d in depths])
    ax.set_yticks(range(len(widths)), [str(k) for k in widths])
    ax.set(xlabel="D, supervision steps", ylabel="K, rollouts", title="best-Q, solved (%)")


def find(measured: Measured) -> dict[str, Finding]:
    """Accuracy of TRM and PTRM, and paired differences."""
    width, depth = measured.full
    ptrm, compute = measured.solved.ptrm, width * depth
    full = {choice: ptrm(choice, width, depth) for choice in ("best_q", "pass", "mode")}
    best, one, half = full["best_q"], ptrm("best_q", 1, depth), max(1, depth // 2)
    trm, deep = measured.solved.trm(depth), measured.solved.trm(compute)
    accuracies = {
        "trm": (f"TRM, D={depth}", trm),
        "trm_equal_compute": (f"TRM, D={compute}", deep),
        "one": (f"one noisy rollout, D={depth}", ptrm("pass", 1, depth)),
    }
    for choice, solved in full.items():
        accuracies[choice] = (f"{scores.CHOICE_NAMES[choice]}@{width}, D={depth}", solved)
    at, name = f"K={width}, D={depth}", f"best-Q@{width}"
    gains = {
        "width_gain": (f"best-Q, K=1 to {width}, D={depth}", best, one),
        "mode_gain": (f"mode, K=1 to {width}, D={depth}", full["mode"], one),
        "best_q_minus_mode": (f"best-Q minus mode, {at}", best, full["mode"]),
        "pass_gap": (f"pass minus best-Q, {at}", full["pass"], best),
        "gain_equal_depth": (f"{name} minus TRM, D={depth}", best, trm),
        "gain_equal_compute": (f"{name}, D={depth} minus TRM, D={compute}", best, deep),
        "depth_gain": (
            f"{name}, D={depth} minus D={depth // 2}",
            best,
            ptrm("best_q", width, half),
        ),
        "trm_depth_gain": (f"TRM, D={compute} minus D={depth}", deep, trm),
    }
    found = {n: Finding.of(what, metrics.interval(a)) for n, (what, a) in accuracies.items()}
    for name, (what, a, b) in gains.items():
        found[name] = Finding.of(what, metrics.paired_difference(a, b), "points")
    return found


def say(measured: Measured, findings: Mapping[str, Finding]) -> list[str]:
    """The findings in sentences."""
    width, depth = measured.full
    said = {name: found.text() for name, found in findings.items()}
    one = measured.solved.ptrm("best_q", 1, depth).mean()
    compute = next(c for c in measured.chosen if c >= max(measured.chosen) ** 0.5)
    k, d = measured.chosen[compute]
    return [
        f"At D={depth}, {width} rollouts raise best-Q from {100 * one:.1f} to {said['best_q']} "
        f"({said['width_gain']}); mode gains {said['mode_gain']}. pass@{width}, which needs the "
        f"labels, is {said['pass_gap']} above best-Q.",
        f"Gain over TRM at equal depth: {said['gain_equal_depth']}; at equal compute (one "
        f"noise-free rollout of {width * depth} steps): {said['gain_equal_compute']}. Depth alone, "
        f"from {depth} to {width * depth} steps, changes TRM by {said['trm_depth_gain']}.",
        f"The best split of {compute} rollout-steps is K={k}, D={d} (selected on these puzzles, "
        "optimistic).",
    ]


def make(study: Study[Settings]) -> Exhibit:
    """The figure of width and depth."""
    measured = measure(study)
    caption, findings = study.caption(measured.solved.result), find(measured)
    return study.exhibit(
        "Accuracy by width and depth (PTRM Figure 6, Tables 1 and 5)",
        caption=caption,
        result=measured.solved.result,
        reading=say(measured, findings),
        findings=findings,
        figure=draw(measured, caption),
        data={
            "best_q": measured.best_q,
            "rollouts": np.array(measured.widths),
            "depths": np.array(measured.depths),
            "trm_depths": np.array(measured.trm_depths),
            "trm": np.array([measured.solved.trm(d).mean() for d in measured.trm_depths]),
        },
        rows=[
            {"choice": name, "rollouts": k, "depth": d, "num_puzzles": value.num_puzzles}
            | interval_columns(value)
            for name, choice in CHOICES.items()
            for k in measured.widths
            for d in measured.depths
            for value in [metrics.interval(measured.solved.ptrm(choice, k, d))]
        ],
    )
