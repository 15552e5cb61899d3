"""The curves of a training run, from its log."""

from pathlib import Path
from typing import Any

from ptrm_jax import charts
from ptrm_jax.files import write_bytes
from ptrm_jax.training.log import read_log

_EVALUATIONS = {
    "deterministic": ("TRM", charts.COLOURS[0]),
    "mean": ("one noisy rollout", "#999999"),
    "best_q": ("PTRM, best-Q", charts.COLOURS[1]),
    "pass": ("PTRM, pass (bound)", charts.COLOURS[2]),
}


def draw_curves(log: Path, picture: Path) -> None:
    """Draws losses, accuracies of training rows and evaluations against optimiser steps.

    Args:
      log: `log.jsonl` of a run.
      picture: PNG file to write.
    """
    records = read_log(log).records
    training = [r for r in records if r["kind"] == "train"]
    evaluations = [r for r in records if r["kind"] == "eval"]
    figure, axes = charts.new_figure(columns=3, size=(4, 3.6), margin=0)
    losses, accuracies, scores = axes[0]

    def line(ax: Any, name: str, label: str, scale: float = 1.0) -> None:
        points = [(r["step"], r[name] * scale) for r in training if r[name] is not None]
        ax.plot(*zip(*points, strict=True) if points else ((), ()), label=label, linewidth=1)

    line(losses, "lm_loss", "tokens")
    line(losses, "q_loss", "Q head")
    losses.set(yscale="log", ylabel="loss per row", title="Training")
    line(accuracies, "cell_accuracy", "cells", 100)
    line(accuracies, "exact_accuracy", "puzzles", 100)
    line(accuracies, "q_accuracy", "sign of Q", 100)
    accuracies.set(ylabel="right when a row halts, %", ylim=(0, 100), title="Training")
    for name, (label, colour) in _EVALUATIONS.items():
        rows = [(r["step"], *r[name][:3]) for r in evaluations]
        if rows:
            steps, mean, low, high = zip(*rows, strict=True)
            percent = [[100 * x for x in part] for part in (mean, low, high)]
            scores.plot(steps, percent[0], marker="o", markersize=3, label=label, color=colour)
            scores.fill_between(steps, percent[1], percent[2], color=colour, alpha=0.15)
    scores.set(ylabel="solved exactly, %", ylim=(0, 100), title="Evaluation, averaged weights")
    if evaluations:
        last = evaluations[-1]
        scores.set_title(
            f"Evaluation, averaged weights\nD={last['eval_depth']}, K={last['eval_rollouts']}, "
            f"sigma {last['eval_sigma']:g}, n={last['deterministic'][3]}, 95 % intervals",
            fontsize=9,
        )
    for ax in (losses, accuracies, scores):
        ax.set_xlabel("optimiser steps")
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize=8)
    write_bytes(picture, charts.png(figure, dpi=120))
