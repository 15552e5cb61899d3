"""What width and depth buy: curves over K, the K x D map, equal compute (PTRM Figure 6, Table 5).

Shape letters: B puzzles, K rollouts, D supervision steps.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ptrm_jax import charts, metrics, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.sweep import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Width against depth."""

    rollouts: int = 32
    depth: int = 32


def accuracy_map(result: Result, sigma: float, metric: sweep.Choice) -> np.ndarray:
    """A metric at every width and depth that are powers of two: [len(ks), len(ds)] fractions."""
    runs = sweep.runs_of(result, sigma)
    config = result.config
    return np.array(
        [
            [sweep.over_seeds(runs, metric, k, d).mean() for d in sweep.widths(config.depth)]
            for k in sweep.widths(config.rollouts)
        ]
    )


def at_equal_compute(
    values: np.ndarray, rollouts: list[int], depths: list[int]
) -> dict[int, tuple[int, int]]:
    """The best width and depth for every compute K * D that the map holds.

    Args:
      values: [len(rollouts), len(depths)] accuracy.
      rollouts: K of the rows.
      depths: D of the columns.

    Returns:
      (K, D) by compute, ascending; where several are as good, the narrowest.
    """
    best: dict[int, tuple[float, int, int]] = {}
    for i, k in enumerate(rollouts):
        for j, d in enumerate(depths):
            candidate = (values[i, j], k, d)
            if k * d not in best or candidate[0] > best[k * d][0] + 1e-12:
                best[k * d] = candidate
    return {compute: best[compute][1:] for compute in sorted(best)}


def make(study: study.Study) -> list[Exhibit]:
    """pass, best-Q and mode by K; the map of best-Q over K and D; accuracy at equal compute."""
    sigma, depth, width = (getattr(study.settings, n) for n in ("sigma", "depth", "rollouts"))
    result = study.sweep(equal_compute=True)
    runs, quiet = sweep.runs_of(result, sigma), result.deterministic.record
    ks, ds = sweep.widths(width), sweep.widths(depth)

    def noisy(metric: sweep.Choice, k: int, d: int) -> np.ndarray:
        return sweep.over_seeds(runs, metric, k, d)

    def alone(d: int) -> np.ndarray:
        return np.broadcast_to(quiet.at(d).correct[:, 0].astype(float), (len(runs), len(quiet[0])))

    choices = {"pass@k (bound)": sweep.pass_at, "best-Q@k": sweep.best_q, "mode@k": sweep.mode_at}
    by_k = {n: [metrics.interval(noisy(m, k, depth)) for k in ks] for n, m in choices.items()}
    best = accuracy_map(result, sigma, sweep.best_q)
    chosen = at_equal_compute(best, ks, ds)
    deep = sweep.widths(result.config.baseline_depth)
    curves = {
        "TRM, depth alone": (deep, [metrics.interval(alone(d)) for d in deep]),
        f"best-Q, D={min(16, depth)}, width alone": (
            [k * min(16, depth) for k in ks],
            [metrics.interval(noisy(sweep.best_q, k, min(16, depth))) for k in ks],
        ),
        "one noisy rollout, depth alone": (
            ds,
            [metrics.interval(noisy(sweep.pass_at, 1, d)) for d in ds],
        ),
        "best-Q, best K x D": (
            list(chosen),
            [metrics.interval(noisy(sweep.best_q, *pair)) for pair in chosen.values()],
        ),
    }

    figure, axes = charts.new_figure(study.caption(result), columns=3, size=(4.8, 4.2), margin=0.2)
    left, middle, right = axes[0]
    for style, (name, values) in enumerate(by_k.items()):
        charts.points(left, np.array(ks) * 1.03 ** (style - 1), values, style, name)
    for d, line in ((depth, ":"), (result.config.baseline_depth, "--")):
        left.axhline(alone(d).mean(), color=charts.GREY, linestyle=line, label=f"TRM, D={d}")
    left.set_xscale("log", base=2)
    left.set_xticks(ks, [str(k) for k in ks])
    left.set(xlabel=f"k, rollouts (D={depth})", ylabel="puzzles solved exactly (%)")
    _map(middle, best, ks, ds)
    for style, (name, (compute, values)) in enumerate(curves.items()):
        x = np.array(compute) * 1.02 ** (style - 1)
        charts.points(right, x, values, style, name, linestyle="--" if style == 3 else "-")
    right.set_xscale("log", base=2)
    right.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set(xlabel="compute, rollout-steps per puzzle", ylabel="puzzles solved exactly (%)")
    for ax in (left, right):
        charts.percent(ax)
        ax.legend(fontsize=7, loc="lower right")

    full = noisy(sweep.best_q, width, depth)
    findings = {
        "trm": Finding.of(f"TRM, D={depth}", metrics.interval(alone(depth))),
        "trm_equal_compute": Finding.of(
            f"TRM, D={width * depth}", metrics.interval(alone(width * depth))
        ),
        "one": Finding.of(
            f"one noisy rollout, D={depth}", metrics.interval(noisy(sweep.pass_at, 1, depth))
        ),
    }
    for name, metric in {
        "best_q": sweep.best_q,
        "pass": sweep.pass_at,
        "mode": sweep.mode_at,
    }.items():
        label = f"{sweep.CHOICE_NAMES[name]}@{width}, D={depth}"
        findings[name] = Finding.of(label, metrics.interval(noisy(metric, width, depth)))

    def gain(what: str, a: np.ndarray, b: np.ndarray) -> Finding:
        return Finding.of(what, metrics.paired_difference(a, b), "points")

    one = noisy(sweep.best_q, 1, depth)
    findings |= {
        "width_gain": gain(f"best-Q, K=1 to {width}, D={depth}", full, one),
        "mode_gain": gain(
            f"mode, K=1 to {width}, D={depth}", noisy(sweep.mode_at, width, depth), one
        ),
        "best_q_minus_mode": gain(
            f"best-Q minus mode, K={width}, D={depth}", full, noisy(sweep.mode_at, width, depth)
        ),
        "pass_gap": gain(
            f"pass minus best-Q, K={width}, D={depth}", noisy(sweep.pass_at, width, depth), full
        ),
        "gain_equal_depth": gain(f"best-Q@{width} minus TRM, D={depth}", full, alone(depth)),
        "gain_equal_compute": gain(
            f"best-Q@{width}, D={depth} minus TRM, D={width * depth}", full, alone(width * depth)
        ),
        "depth_gain": gain(
            f"best-Q@{width}, D={depth} minus D={depth // 2}",
            *(full, noisy(sweep.best_q, width, max(1, depth // 2))),
        ),
        "trm_depth_gain": gain(
            f"TRM, D={width * depth} minus D={depth}", alone(width * depth), alone(depth)
        ),
    }
    most = max(chosen)
    middle_compute = next(c for c in chosen if c >= most**0.5)
    said = {name: found.text() for name, found in findings.items()}
    reading = [
        f"At D={depth}, {width} rollouts bring best-Q from {100 * one.mean():.1f} to "
        f"{said['best_q']} ({said['width_gain']}); mode gains {said['mode_gain']}. pass@{width} "
        f"lies {said['pass_gap']} above best-Q: what a perfect judge would add.",
        f"Against TRM at equal depth: {said['gain_equal_depth']}; at equal compute (one quiet "
        f"rollout for {width * depth} steps): {said['gain_equal_compute']}. Depth alone, from "
        f"{depth} to {width * depth} steps, brings TRM {said['trm_depth_gain']}.",
        f"Of {middle_compute} rollout-steps the best use here is K={chosen[middle_compute][0]}, "
        f"D={chosen[middle_compute][1]} (picked on these same puzzles).",
    ]
    rows = [
        {"choice": name, "rollouts": k, "depth": d, "num_puzzles": value.num_puzzles}
        | {"accuracy": value.mean, "low": value.low, "high": value.high}
        for name, metric in choices.items()
        for k in ks
        for d in ds
        for value in [metrics.interval(noisy(metric, k, d))]
    ]
    return [
        Exhibit(
            name="width",
            title="What width and depth buy (PTRM Figure 6, Tables 1 and 5)",
            caption=study.caption(result),
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=figure,
            data={"best_q": best, "rollouts": np.array(ks), "depths": np.array(ds)}
            | {"trm_depths": np.array(deep), "trm": np.array([alone(d).mean() for d in deep])},
            rows=rows,
        )
    ]


def _map(ax: "Axes", values: np.ndarray, ks: list[int], ds: list[int]) -> None:
    """A heat map with its values written in."""
    ax.grid(False)
    ax.imshow(values, origin="lower", cmap="cividis", aspect="auto")
    middle = (values.min() + values.max()) / 2
    for i, j in np.ndindex(values.shape):
        colour = "white" if values[i, j] < middle else "black"
        ax.text(j, i, f"{100 * values[i, j]:.0f}", ha="center", va="center", color=colour)
    ax.set_xticks(range(len(ds)), [str(d) for d in ds])
    ax.set_yticks(range(len(ks)), [str(k) for k in ks])
    ax.set(xlabel="D, supervision steps", ylabel="K, rollouts", title="best-Q, solved (%)")
