"""The pictures of a sweep, drawn from its scores. Nothing is computed here."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ptrm_jax import charts
from ptrm_jax.sweep.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_CURVES = {"pass": "pass@{} (bound)", "best_q": "best-Q@{}", "mode": "mode@{}"}


def draw_all(scores: Scores) -> dict[str, bytes]:
    """Every picture as a PNG file, by file name."""
    pictures = dict(STOPPING_PICTURES if scores.stop_curves else PICTURES)
    if len(scores.curves) == 1:  # no curve, only its points beside each other
        pictures.pop("accuracy_against_sigma", None)
    return {f"{name}.png": charts.png(draw(scores)) for name, draw in pictures.items()}


def _new_figure(scores: Scores, columns: int = 1) -> tuple["Figure", Any]:
    figure, axes = charts.new_figure(
        "\n".join(scores.headline) + "; 95 % intervals over puzzles", columns=columns, sharey=True
    )
    for ax in axes[0]:
        charts.percent(ax)
    axes[0, 0].set_ylabel("puzzles solved exactly (%)")
    return figure, axes[0]


def _baselines(ax: "Axes", scores: Scores) -> None:
    styles = zip(scores.baselines, (":", "--"), ("equal depth", "equal compute"), strict=False)
    for line, style, words in styles:
        read = ", read at best" if line.read == "best" else ""
        label = f"TRM, D={line.depth}{read} ({words})"
        ax.axhline(line.accuracy.mean, color=charts.GREY, linestyle=style, label=label)


def accuracy_against_width(scores: Scores) -> "Figure":
    """pass@k, best-Q@k and mode@k against k, one panel per sigma (PTRM Figure 6)."""
    figure, axes = _new_figure(scores, len(scores.curves))
    ks = scores.config.widths
    for ax, (sigma, curves) in zip(axes, scores.curves.items(), strict=True):
        for style, (name, label) in enumerate(_CURVES.items()):
            # Curves often coincide: their points are drawn beside each other.
            x = np.array(ks) * 1.04 ** (style - 1)
            charts.points(ax, x, curves.by_width[name], style, label.format("k"))
        _baselines(ax, scores)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.set_title(f"sigma = {sigma:g}", fontsize=10)
        ax.set_xlabel("k, rollouts")
    charts.legend(figure, axes[0])
    return figure


def accuracy_against_sigma(scores: Scores) -> "Figure":
    """Choices and the mean rollout against sigma (PTRM Figure 7); the gap to pass@K is headroom."""
    figure, (ax,) = _new_figure(scores)
    order = sorted(scores.curves)
    shift = 0.006 * (order[-1] - order[0] or 1.0)
    labels = {n: label.format(scores.config.rollouts) for n, label in _CURVES.items()}
    for style, (choice, label) in enumerate({**labels, "mean": "one rollout (mean)"}.items()):
        values = [scores.line(sigma, choice).accuracy for sigma in order]
        charts.points(ax, np.array(order) + shift * (style - 1.5), values, style, label)
    _baselines(ax, scores)
    ax.set_xlabel("sigma (root mean squares of the latent)")
    charts.legend(figure, ax)
    return figure


def accuracy_against_depth(scores: Scores) -> "Figure":
    """Best-Q@K and the mean rollout by step, and TRM alone, run to the same compute."""
    config = scores.config
    figure, (ax,) = _new_figure(scores)
    steps = np.arange(1, len(scores.trm_by_depth) + 1)
    charts.band(ax, steps, scores.trm_by_depth, 6, "TRM (K=1, sigma=0)")
    steps = np.arange(1, config.depth + 1)
    for style, (sigma, curves) in enumerate(scores.curves.items()):
        label = f"best-Q@{config.rollouts}, sigma={sigma:g}"
        charts.band(ax, steps, curves.best_q_by_depth, style, label)
        colour = charts.colour(style)
        ax.plot(steps, curves.mean_by_depth, color=colour, linestyle=":", linewidth=1)
    ax.plot([], [], color=charts.GREY, linestyle=":", linewidth=1, label="mean rollout of each")
    if config.equal_compute and config.rollouts > 1:
        ax.axvline(config.baseline_depth, color=charts.GREY, linewidth=0.8, linestyle="--")
        ax.annotate(
            "compute of\nK rollouts",
            (config.baseline_depth, 0.03),
            xycoords=("data", "axes fraction"),
            ha="right",
            fontsize=8,
        )
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("D, supervision steps")
    charts.legend(figure, ax)
    return figure


def q_of_right_and_wrong(scores: Scores) -> "Figure":
    """Halt logits of right and wrong rollouts after the last step (PTRM Figure 3).

    Each histogram is scaled to its own highest bin: on one scale, the narrow peak of the right
    rollouts of a good model flattens everything else. The labels give the numbers of rollouts.
    """
    figure, axes = _new_figure(scores, len(scores.curves))
    for ax, sigma in zip(axes, scores.curves, strict=True):
        runs = [run for run in scores.runs if run.method == "PTRM" and run.sigma == sigma]
        right = np.concatenate([run.q_right for run in runs])
        wrong = np.concatenate([run.q_wrong for run in runs])
        both = np.concatenate([right, wrong])
        edges = np.histogram_bin_edges(both, bins=40) if len(both) else np.array([-1.0, 1.0])
        for style, (label, q) in enumerate({"right": right, "wrong": wrong}.items()):
            counts = np.histogram(q, edges)[0]
            ax.stairs(
                counts / max(counts.max(), 1),
                edges,
                fill=True,
                color=charts.colour(style),
                alpha=0.7,
                label=f"{label}, n={len(q)}",
            )
        ax.axvline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
        ax.set_title(f"sigma = {sigma:g}", fontsize=10)
        ax.set_xlabel("Q (logit); halts at Q > 0")
        ax.legend(title="rollouts", fontsize=8, title_fontsize=8, loc="upper center")
    axes[0].set_ylabel("rollouts (% of highest bin)")
    return figure


def solved_by_rollout_steps(scores: Scores) -> "Figure":
    """Puzzles that a stopping rule has solved by the rollout-steps that it needs for each."""
    figure, (ax,) = _new_figure(scores)
    for style, (sigma, curve) in enumerate(scores.stop_curves.items()):
        label = f"stopping, sigma={sigma:g}"
        ax.step(
            curve.rollout_steps, curve.solved, where="post", color=charts.colour(style), label=label
        )
    _baselines(ax, scores)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("rollout-steps of a puzzle")
    charts.legend(figure, ax)
    return figure


STOPPING_PICTURES = {"solved_by_rollout_steps": solved_by_rollout_steps}

PICTURES = {
    "accuracy_against_width": accuracy_against_width,
    "accuracy_against_sigma": accuracy_against_sigma,
    "accuracy_against_depth": accuracy_against_depth,
    "q_of_right_and_wrong": q_of_right_and_wrong,
}
