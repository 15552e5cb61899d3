"""Does Q predict whether an answer is right? Q by step, calibration, abstention (PTRM Figure 3).

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.analysis.study import Study
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.sweep import Result, scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Q compared with the truth."""


def by_step(
    values: np.ndarray, chosen: np.ndarray, bounds: tuple[float, float] | None = None
) -> list[Interval]:
    """Mean over chosen rollouts after every step, with intervals over puzzles.

    Args:
      values: [B, K, D] float, such as Q logits.
      chosen: [B, K] bool, the rollouts to average, the same at all steps.
      bounds: as for `metrics.ratio_interval`.

    Returns:
      D intervals; three NaN for a step without finite values.
    """
    known = chosen[:, :, None] & np.isfinite(values)
    sums = np.where(known, values, 0.0).sum(axis=1, dtype=np.float64)
    counts = known.sum(axis=1)
    steps = zip(sums.T, counts.T, strict=True)
    return [metrics.ratio_interval(*pair, bounds=bounds) for pair in steps]


def _share(part: np.ndarray, whole: np.ndarray) -> Interval:
    """A fraction of rollouts or puzzles, [B] each."""
    return metrics.ratio_interval(part, whole, bounds=(0.0, 1.0))


class Reliability(NamedTuple):
    """How often rollouts are right, by the probability that Q states.

    Attributes:
      said: [N] mean probability, sigmoid of Q, of the rollouts in each non-empty bin.
      right: N intervals of the fraction of them that are right.
      num_rollouts: [N] int.
      error: expected calibration error, mean of |said - right| weighted by rollouts.
    """

    said: np.ndarray
    right: list[Interval]
    num_rollouts: np.ndarray
    error: float


def reliability(
    correct: np.ndarray, q_logit: np.ndarray, *, finite: np.ndarray, num_bins: int = 10
) -> Reliability:
    """A reliability diagram: bins of equal width in the probability that Q states.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float.
      finite: [B, K] bool, rollouts that are counted.
      num_bins: number of bins between 0 and 1.

    Source: Guo et al., arXiv 1706.04599, equation 3 (expected calibration error).
    """
    said = 1 / (1 + np.exp(-np.where(finite, q_logit, 0.0).astype(np.float64)))
    which = np.where(finite, np.minimum((said * num_bins).astype(int), num_bins - 1), -1)
    means, rates, counts = [], [], []
    for number in np.unique(which[finite]):
        inside = which == number
        means.append(said[inside].mean())
        rates.append(_share((inside & correct).sum(axis=1), inside.sum(axis=1)))
        counts.append(int(inside.sum()))
    gaps = np.abs(np.array(means) - np.array([rate.mean for rate in rates]))
    error = float(gaps @ counts / max(1, sum(counts)))
    return Reliability(np.array(means), rates, np.array(counts), error)


class Coverage(NamedTuple):
    """Accuracy when a puzzle is answered only if its Q reaches a threshold.

    Attributes:
      threshold: [N] logits, descending: each distinct Q of an answer.
      covered: [N] fraction of puzzles answered, with Q at or above the threshold.
      right: N intervals of the fraction of the answered puzzles that are right.
    """

    threshold: np.ndarray
    covered: np.ndarray
    right: list[Interval]


def coverage(correct: np.ndarray, q_logit: np.ndarray, *, points: int = 50) -> Coverage:
    """Accuracy of the answered puzzles against the fraction that is answered (abstention).

    Args:
      correct: [B] bool, of one answer per puzzle.
      q_logit: [B] float; -inf where there is no answer; such puzzles are never answered.
      points: maximum number of thresholds, spread evenly over the distinct Qs.

    Source: El-Yaniv & Wiener 2010 (selective classification); recommended by LDT, arXiv 2605.08605.
    """
    thresholds = np.unique(q_logit[np.isfinite(q_logit)])[::-1]
    keep = np.unique(np.linspace(0, len(thresholds) - 1, points).round().astype(int))
    thresholds = thresholds[keep] if len(thresholds) else thresholds
    answered = q_logit >= thresholds[:, None]
    rates = [_share(row & correct, row) for row in answered]
    return Coverage(thresholds, answered.mean(axis=1) if len(answered) else thresholds, rates)


def chosen_answer(rollouts: Rollouts) -> tuple[np.ndarray, np.ndarray]:
    """The best-Q rollout after the last step: right [B] bool, and its Q [B], -inf if none."""
    _, num_rollouts, depth = rollouts.correct.shape
    end = rollouts.at(depth)
    right = scores.best_q(rollouts, num_rollouts, depth) == 1
    return right, np.where(end.eligible, end.q_logit, -np.inf).max(axis=1)


def pooled(result: Result, sigma: float) -> Rollouts:
    """The rollouts of all seeds at one sigma together: fields [B, R * K, D]."""
    runs = [run.rollouts for run in result.runs_of(sigma)]
    names = ("correct", "q_logit", "finite", "cell_accuracy", "digest")
    return Rollouts(**{n: np.concatenate([getattr(r, n) for r in runs], axis=1) for n in names})


class Measured(NamedTuple):
    """Q, cell accuracy and answers of one sweep.

    Attributes:
      result: the sweep.
      end: rollouts of all seeds after the last step, [B, R * K].
      right: [B, R * K] bool, rollouts that end right.
      wrong: [B, R * K] bool, finite rollouts that end wrong.
      curves: mean Q and cell accuracy after every step: "q_right", "q_wrong", "cells_right",
        "cells_wrong", D intervals each.
      rises: "q" and "cells", last step minus first, of rollouts right in the end.
      diagram: calibration of the rollouts after the last step.
      best: the best-Q answer of the first seed: right [B] bool and its Q [B].
      abstain: accuracy by coverage, of best-Q and of TRM.
    """

    result: Result
    end: Rollouts
    right: np.ndarray
    wrong: np.ndarray
    curves: Mapping[str, list[Interval]]
    rises: Mapping[str, Interval]
    diagram: Reliability
    best: tuple[np.ndarray, np.ndarray]
    abstain: Mapping[str, Coverage]


def measure(study: Study[Settings]) -> Measured:
    """Runs the sweep and compares its Q with the truth."""
    search, result = study.settings.search, study.sweep()
    rollouts = pooled(result, search.sigma)
    end = rollouts.at(search.depth)
    right, wrong = end.correct & end.eligible, ~end.correct & end.eligible
    q_logit, cells = rollouts.q_logit, rollouts.cell_accuracy
    assert cells is not None
    best = chosen_answer(result.runs_of(search.sigma)[0].rollouts)
    return Measured(
        result,
        end,
        right,
        wrong,
        curves={
            "q_right": by_step(q_logit, right),
            "q_wrong": by_step(q_logit, wrong),
            "cells_right": by_step(cells, right, (0.0, 1.0)),
            "cells_wrong": by_step(cells, wrong, (0.0, 1.0)),
        },
        rises={"q": _rise(q_logit, right), "cells": _rise(cells, right)},
        diagram=reliability(end.correct, end.q_logit, finite=end.eligible),
        best=best,
        abstain={
            "best-Q": coverage(*best),
            "TRM": coverage(*chosen_answer(result.deterministic.rollouts)),
        },
    )


def _rise(values: np.ndarray, chosen: np.ndarray) -> Interval:
    """Last step minus first, over chosen rollouts."""
    change = values[:, :, -1:].astype(np.float64) - values[:, :, :1]
    return by_step(change, chosen)[0]


def draw(measured: Measured, caption: str) -> "Figure":
    """Q and cell accuracy by step; histogram; reliability; accuracy against coverage."""
    depth = measured.result.config.depth
    figure, axes = charts.new_figure(caption, rows=2, columns=3, size=(4.4, 4.0), margin=0.2)
    (q_ax, cells_ax, histogram), (calibration, covered, thresholds) = axes
    for ax, name in ((q_ax, "q"), (cells_ax, "cells")):
        for style, outcome in enumerate(("right", "wrong")):
            curve = measured.curves[f"{name}_{outcome}"]
            steps = [s for s in range(1, depth + 1) if not np.isnan(curve[s - 1].mean)]
            if steps:
                shown = [curve[s - 1] for s in steps]
                charts.band(ax, np.array(steps), shown, style, f"{outcome} after step {depth}")
    q_ax.set(xlabel="supervision step", ylabel="mean Q (logit)")
    q_ax.axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    cells_ax.set(xlabel="supervision step", ylabel="mean cell accuracy (%)")
    _draw_histogram(histogram, measured)
    _draw_calibration(calibration, measured.diagram)
    _draw_abstention(covered, thresholds, measured)
    for ax in (cells_ax, histogram, calibration, covered, thresholds):
        charts.percent(ax)
    for ax in axes.flat:
        charts.legend_below(ax)
    return figure


def _draw_histogram(ax: "Axes", measured: Measured) -> None:
    end = measured.end
    for style, (name, chosen) in enumerate((("right", measured.right), ("wrong", measured.wrong))):
        ax.hist(
            end.q_logit[chosen],
            bins=np.histogram_bin_edges(end.q_logit[end.eligible], bins=40).tolist(),
            weights=np.full(chosen.sum(), 1 / max(1, end.eligible.sum())),
            color=charts.colour(style),
            alpha=0.7,
            label=f"rollout {name}",
        )
    depth = measured.result.config.depth
    ax.set(xlabel=f"Q after step {depth} (logit)", ylabel="rollouts (%)")


def _draw_calibration(ax: "Axes", diagram: Reliability) -> None:
    ax.plot([0, 1], [0, 1], color=charts.GREY, linestyle=":", label="calibrated")
    charts.points(ax, diagram.said, diagram.right, 0, "rollouts", linestyle="none")
    charts.mark_few(ax, diagram.said, diagram.right, 0, "rollouts")
    ax.set(xlabel="probability that Q states (%)", ylabel="rollouts that are right (%)")
    charts.percent(ax, "x")


def _draw_abstention(covered: "Axes", thresholds: "Axes", measured: Measured) -> None:
    depth = measured.result.config.depth
    for style, (name, curve) in enumerate(measured.abstain.items()):
        if len(curve.covered):
            charts.band(covered, curve.covered, curve.right, style, f"{name}, D={depth}")
            charts.mark_few(covered, curve.covered, curve.right, style, name)
            color = charts.colour(style)
            thresholds.plot(curve.threshold, curve.covered, color=color, label=name)
    covered.set(xlabel="puzzles answered (%)", ylabel="answered puzzles that are right (%)")
    thresholds.set(xlabel="threshold of Q (logit)", ylabel="puzzles answered (%)")
    charts.percent(covered, "x")


def find(measured: Measured) -> dict[str, Finding]:
    """AUC, calibration, and accuracy when answering only above a threshold."""
    depth, end = measured.result.config.depth, measured.end
    curves, rises, (chosen, chosen_q) = measured.curves, measured.rises, measured.best
    agrees = ((end.q_logit >= 0) == end.correct) & end.eligible
    sign = _share(agrees.sum(axis=1), end.eligible.sum(axis=1))
    answered = chosen_q >= 0
    between = f"of right rollouts, step {depth} minus step 1"
    return {
        "auc": Finding.of("AUC of Q over rollouts", metrics.q_auc_interval(end), "number"),
        "sign": Finding.of("rollouts whose sign of Q is right", sign),
        "q_right": Finding.of("mean Q of right rollouts", curves["q_right"][-1], "number"),
        "q_wrong": Finding.of("mean Q of wrong rollouts", curves["q_wrong"][-1], "number"),
        "q_rise": Finding.of(f"mean Q {between}", rises["q"], "number"),
        "cells_rise": Finding.of(f"mean cell accuracy {between}", rises["cells"], "points"),
        "calibration_error": Finding.single(
            "expected calibration error", measured.diagram.error, "points", len(end.correct)
        ),
        "best_q": Finding.of("best-Q, all puzzles answered", metrics.interval(chosen)),
        "answered": Finding.of("puzzles whose best Q is >= 0", metrics.interval(answered)),
        "best_q_answered": Finding.of("best-Q where Q >= 0", _share(answered & chosen, answered)),
    }


def say(measured: Measured, findings: Mapping[str, Finding]) -> list[str]:
    """The findings in sentences."""
    said = {name: finding.text() for name, finding in findings.items()}
    return [
        f"After step {measured.result.config.depth} the mean Q is {said['q_right']} for right "
        f"rollouts and {said['q_wrong']} for wrong ones; its AUC is {said['auc']}, and its sign is "
        f"right for {said['sign']}.",
        f"If only puzzles with a best Q >= 0 are answered, {said['answered']} are answered, and "
        f"{said['best_q_answered']} of these are right, against {said['best_q']} when all are "
        "answered.",
        "Calibration: the stated probability is off by "
        f"{100 * measured.diagram.error:.1f} points on average.",
    ]


def make(study: Study[Settings]) -> Exhibit:
    """The figure of Q against the truth."""
    measured = measure(study)
    caption, findings = study.caption(measured.result), find(measured)
    end = measured.end
    return study.exhibit(
        "Q tracks accuracy (PTRM Figure 3); calibration and abstention",
        caption=caption,
        result=measured.result,
        reading=say(measured, findings),
        findings=findings,
        figure=draw(measured, caption),
        data={
            "step": np.arange(1, measured.result.config.depth + 1),
            **{name: np.array(values) for name, values in measured.curves.items()},
            "correct": end.correct,
            "q_logit": end.q_logit,
            "finite": end.eligible,
        },
        rows=[
            {"answers": name, "threshold": t, "covered": c, "right": r.mean}
            | {"right_low": r.low, "right_high": r.high}
            for name, curve in measured.abstain.items()
            for t, c, r in zip(*curve, strict=True)
        ],
    )
