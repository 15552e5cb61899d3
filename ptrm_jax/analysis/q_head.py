"""Does Q know? Q and cell accuracy by step, Q at the end, calibration, abstention (PTRM Figure 3).

Shape letters: B puzzles, K rollouts, D supervision steps.
"""

import dataclasses
from typing import NamedTuple

import numpy as np

from ptrm_jax import charts, metrics, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Record


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Q against the truth."""


def by_step(
    values: np.ndarray, chosen: np.ndarray, bounds: tuple[float, float] | None = None
) -> list[Interval]:
    """Mean over chosen rollouts after every step, with intervals over puzzles.

    Args:
      values: [B, K, D] float, such as Q logits.
      chosen: [B, K] bool, rollouts to average over at all steps.
      bounds: as for `metrics.ratio_interval`.

    Returns:
      D intervals; of a step without finite values three NaN.
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
    """How often answers are right that Q says are right with some probability.

    Attributes:
      said: [N] mean probability, sigmoid of Q, of the rollouts in each bin that has some.
      right: N intervals of the fraction of them that are right.
      count: [N] rollouts.
      error: expected calibration error, mean of |said - right| weighted by rollouts.
    """

    said: np.ndarray
    right: list[Interval]
    count: np.ndarray
    error: float


def reliability(
    correct: np.ndarray, q_logit: np.ndarray, *, finite: np.ndarray, num_bins: int = 10
) -> Reliability:
    """A reliability diagram: bins of equal width in the probability that Q states.

    Args:
      correct: [B, K] bool.
      q_logit: [B, K] float.
      finite: [B, K] bool, rollouts that take part.
      num_bins: between 0 and 1.

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
    return Reliability(
        np.array(means), rates, np.array(counts), float(gaps @ counts / max(1, sum(counts)))
    )


class Coverage(NamedTuple):
    """Answering only from a threshold of Q on.

    Attributes:
      threshold: [N] logits, falling: each distinct Q of an answer.
      covered: [N] fraction of puzzles answered, Q at or above the threshold.
      right: N intervals of the fraction of those that are answered right.
    """

    threshold: np.ndarray
    covered: np.ndarray
    right: list[Interval]


def coverage(correct: np.ndarray, q_logit: np.ndarray, *, points: int = 50) -> Coverage:
    """Accuracy of those puzzles that are answered, against how many are (abstention).

    Args:
      correct: [B] bool, of one answer per puzzle.
      q_logit: [B] float; -inf where there is no answer, which is never given.
      points: thresholds at the most, spread evenly over the distinct Qs.

    Source: El-Yaniv & Wiener 2010 (selective classification); LDT, arXiv 2605.08605, asks for it.
    """
    thresholds = np.unique(q_logit[np.isfinite(q_logit)])[::-1]
    keep = np.unique(np.linspace(0, len(thresholds) - 1, points).round().astype(int))
    thresholds = thresholds[keep] if len(thresholds) else thresholds
    answered = q_logit >= thresholds[:, None]
    rates = [_share(row & correct, row) for row in answered]
    return Coverage(thresholds, answered.mean(axis=1) if len(answered) else thresholds, rates)


def chosen_answer(record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Of the best-Q rollout after the last step: right [B] bool, and its Q [B], -inf if none."""
    _, num_rollouts, depth = record.correct.shape
    at = record.at(depth)
    right = sweep.best_q(record, num_rollouts, depth) == 1
    return right, np.where(at.finite, at.q_logit, -np.inf).max(axis=1)


def pooled(result: sweep.Result, sigma: float) -> Record:
    """The rollouts of all seeds at one sigma together: fields [B, R * K, D]."""
    records = [run.record for run in sweep.runs_of(result, sigma)]
    return Record(*(np.concatenate(parts, axis=1) for parts in zip(*records, strict=True)))


def _rise(values: np.ndarray, chosen: np.ndarray) -> Interval:
    """From the first step to the last, over chosen rollouts."""
    change = values[:, :, -1:].astype(np.float64) - values[:, :, :1]
    return by_step(change, chosen)[0]


def make(study: study.Study) -> list[Exhibit]:
    """Q and cell accuracy by step; histogram; reliability; accuracy against coverage."""
    sigma, depth = study.settings.sigma, study.settings.depth
    result = study.sweep()
    record = pooled(result, sigma)
    end = record.at(depth)
    right, wrong = end.correct & end.finite, ~end.correct & end.finite
    curves = {
        f"{name}_{who}": by_step(values, rollouts, bounds)
        for name, values, bounds in (
            ("q", record.q_logit, None),
            ("cells", record.cell_accuracy, (0.0, 1.0)),
        )
        for who, rollouts in (("right", right), ("wrong", wrong))
    }
    auc = metrics.q_auc_interval(end.correct, end.q_logit, finite=end.finite)
    agrees = ((end.q_logit >= 0) == end.correct) & end.finite
    sign = _share(agrees.sum(axis=1), end.finite.sum(axis=1))
    diagram = reliability(end.correct, end.q_logit, finite=end.finite)
    first = sweep.runs_of(result, sigma)[0].record
    chosen, chosen_q = chosen_answer(first)
    quiet, quiet_q = chosen_answer(result.deterministic.record)
    abstain = {"best-Q": coverage(chosen, chosen_q), "TRM": coverage(quiet, quiet_q)}

    figure, axes = charts.new_figure(
        study.caption(result), rows=2, columns=3, size=(4.4, 3.6), margin=0.2
    )
    steps = np.arange(1, depth + 1)
    for style, who in enumerate(("right", "wrong")):
        for ax, name in zip(axes[0], ("q", "cells"), strict=False):
            shown = [s for s in steps if not np.isnan(curves[f"{name}_{who}"][s - 1].mean)]
            values = [curves[f"{name}_{who}"][s - 1] for s in shown]
            if values:
                charts.band(ax, np.array(shown), values, style, f"{who} in the end")
        rollouts = right if who == "right" else wrong
        axes[0, 2].hist(
            end.q_logit[rollouts],
            bins=np.histogram_bin_edges(end.q_logit[end.finite], bins=40),
            weights=np.full(rollouts.sum(), 1 / max(1, end.finite.sum())),
            color=charts.colour(style),
            alpha=0.7,
            label=f"rollout {who}",
        )
    axes[0, 0].set(xlabel="supervision step", ylabel="mean Q (logit)")
    axes[0, 0].axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    axes[0, 1].set(xlabel="supervision step", ylabel="mean cell accuracy (%)")
    axes[0, 2].set(xlabel=f"Q after step {depth} (logit)", ylabel="rollouts (%)")
    ax = axes[1, 0]
    ax.plot([0, 1], [0, 1], color=charts.GREY, linestyle=":", label="calibrated")
    charts.points(ax, diagram.said, diagram.right, 0, "rollouts", linestyle="none")
    ax.set(xlabel="probability that Q states (%)", ylabel="rollouts that are right (%)")
    charts.percent(ax, "x")
    for style, (name, curve) in enumerate(abstain.items()):
        if len(curve.covered):
            charts.band(axes[1, 1], curve.covered, curve.right, style, f"{name}, D={depth}")
            axes[1, 2].plot(
                curve.threshold,
                curve.covered,
                color=charts.colour(style),
                label=f"{name}: answered",
            )
    axes[1, 1].set(xlabel="puzzles answered (%)", ylabel="of these right (%)")
    charts.percent(axes[1, 1], "x")
    axes[1, 2].set(xlabel="threshold of Q (logit)", ylabel="puzzles answered (%)")
    for ax in (axes[0, 1], axes[0, 2], *axes[1]):
        charts.percent(ax)
    for ax in axes.flat:
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)

    answered = chosen_q >= 0
    findings = {
        "auc": Finding.of("AUC of Q over rollouts", auc, "number"),
        "sign": Finding.of("rollouts whose sign of Q is right", sign),
        "q_right": Finding.of("mean Q of right rollouts", curves["q_right"][-1], "number"),
        "q_wrong": Finding.of("mean Q of wrong rollouts", curves["q_wrong"][-1], "number"),
        "q_rise": Finding.of(
            f"mean Q of right rollouts, step {depth} minus step 1",
            *(_rise(record.q_logit, right), "number"),
        ),
        "cells_rise": Finding.of(
            f"mean cell accuracy of right rollouts, step {depth} minus step 1",
            *(_rise(record.cell_accuracy, right), "points"),
        ),
        "calibration_error": Finding(
            "expected calibration error", diagram.error, None, None, len(end.correct), "points"
        ),
        "best_q": Finding.of("best-Q, all puzzles answered", metrics.interval(chosen)),
        "answered": Finding.of("puzzles whose best Q is >= 0", metrics.interval(answered)),
        "best_q_answered": Finding.of("best-Q where Q >= 0", _share(answered & chosen, answered)),
    }
    reading = [
        f"After step {depth} right rollouts have a mean Q of {findings['q_right'].text()}, wrong "
        f"ones {findings['q_wrong'].text()}; AUC {findings['auc'].text()}, the sign is right for "
        f"{findings['sign'].text()}.",
        f"Answering only where the best Q is >= 0 covers {findings['answered'].text()} and is "
        f"right for {findings['best_q_answered'].text()}, against {findings['best_q'].text()} when "
        "everything is answered.",
        f"Calibration: the stated probability is off by {100 * diagram.error:.1f} points on "
        "average.",
    ]
    return [
        Exhibit(
            name="q_head",
            title="Q tracks accuracy (PTRM Figure 3); calibration and abstention",
            caption=study.caption(result),
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=figure,
            data={
                "step": steps,
                **{name: np.array(values) for name, values in curves.items()},
                "correct": end.correct,
                "q_logit": end.q_logit,
                "finite": end.finite,
            },
            rows=[
                {"answers": name, "threshold": t, "covered": c, "right": r.mean}
                | {"right_low": r.low, "right_high": r.high}
                for name, curve in abstain.items()
                for t, c, r in zip(*curve, strict=True)
            ],
        )
    ]
