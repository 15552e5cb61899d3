"""What a sweep leaves behind: a table to read, files to compute with, pictures to look at."""

import csv
import io
import json
import math
import os
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from ptrm_jax import charts, metrics
from ptrm_jax.files import write_bytes
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import (
    CHOICE_NAMES,
    Result,
    Row,
    Sweep,
    baselines,
    best_q,
    has_rules,
    mode_at,
    over_seeds,
    pass_at,
    run_metrics,
    runs_of,
    summary,
    widths,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# --- The table -----------------------------------------------------------------------------------


def table(result: Result) -> str:
    """The summary as plain text: accuracy in percent with 95 % intervals over puzzles."""
    config = result.config
    several = len(config.seeds) > 1
    lines = [*headline(result), ""]
    titles = ["", "solved %", "95 % interval", f"vs TRM D={config.depth}"]
    titles += [f"vs TRM D={config.baseline_depth}"] if config.equal_compute else []
    titles += ["rules hold %"] if has_rules(result) else []
    titles += ["sd of seeds"] if several else []
    rows: list[list[str]] = [titles]
    summed = summary(result)
    best = max((row for row in summed if row.choice == "best_q"), key=lambda row: row.accuracy.mean)
    for row in summed:
        if row.choice == "mean":
            rows.append([f"PTRM, sigma {row.sigma:g}"])
        cells = [_label(row), f"{100 * row.accuracy.mean:.1f}", _ends(row.accuracy)]
        cells.append(_gain(row.gain_equal_depth))
        cells += [_gain(row.gain_equal_compute)] if config.equal_compute else []
        if row.validity is not None:
            cells.append(row.validity.brief())
        if several:
            cells.append("" if math.isnan(row.seed_spread) else f"{100 * row.seed_spread:.1f}")
        rows.append(cells)
    sizes = [max(len(row[i]) for row in rows if i < len(row)) for i in range(len(titles))]
    for row in rows:
        cells = [row[0].ljust(sizes[0])]
        cells += [cell.rjust(size) for cell, size in zip(row[1:], sizes[1:], strict=False)]
        lines.append("  ".join(cells).rstrip())
    lines += ["", *_reading(result, best), *_strata(result, best.sigma), *_grid(result)]
    return "\n".join(lines) + "\n"


def _strata(result: Result, sigma: float) -> list[str]:
    """The kinds of puzzle at one sigma, a block for each way to split them."""
    config = result.config
    runs = runs_of(result, sigma)
    columns = {
        f"TRM D={config.depth}": over_seeds([result.deterministic], pass_at, 1, config.depth),
        f"best-Q@{config.rollouts}": over_seeds(runs, best_q, config.rollouts, config.depth),
        f"pass@{config.rollouts}": over_seeds(runs, pass_at, config.rollouts, config.depth),
    }
    lines: list[str] = []
    for name, kinds in result.strata.items():
        lines += ["", f"by {name}, sigma {sigma:g}, solved %"]
        lines.append(f"{'':<12}{'puzzles':>8}" + "".join(f"{title:>22}" for title in columns))
        # In the order of their first numbers, or of their names.
        for kind in sorted(set(kinds.tolist()), key=_number_first):
            rows = kinds == kind
            cells = [metrics.interval(values[:, rows]) for values in columns.values()]
            texts = [cell.brief() for cell in cells]
            lines.append(f"{kind:<12}{rows.sum():>8}" + "".join(f"{text:>22}" for text in texts))
    return lines


def _number_first(kind: str) -> tuple[float, str]:
    number = re.match("[0-9.]+", kind)
    return (float(number[0]) if number else math.inf, kind)


def _grid(result: Result) -> list[str]:
    """Best-Q by width and depth, a block per sigma; nothing where no grid was asked for."""
    config = result.config
    lines: list[str] = []
    if not (config.grid_rollouts and config.grid_depths):
        return lines
    for sigma in config.sigmas:
        runs = runs_of(result, sigma)
        lines += ["", f"best-Q by width and depth, sigma {sigma:g}, solved %"]
        lines.append(
            "".join(f"{title:>22}" for title in ["K", *(f"D={d}" for d in config.grid_depths)])[16:]
        )
        for k in config.grid_rollouts:
            cells = [metrics.interval(over_seeds(runs, best_q, k, d)) for d in config.grid_depths]
            texts = [cell.brief() for cell in cells]
            lines.append(f"{k:>6}" + "".join(f"{text:>22}" for text in texts))
    return lines


def headline(result: Result | Sweep) -> list[str]:
    """Checkpoint and data, then settings: two lines, and a third for Langevin updates.

    Args:
      result: of a sweep, or one that is prepared.
    """
    config, source = result.config, result.provenance
    when = "every step" if config.noise_when == "every" else "the first step"
    seeds = ", ".join(str(seed) for seed in config.seeds)
    model, data = source["checkpoint"], source["data"]
    langevin, more = config.langevin, []
    if langevin is not None:
        updates = "update" if langevin.num_updates == 1 else "updates"
        more.append(
            f"PTRM with {langevin.num_updates} Langevin {updates} of z between steps, step size "
            f"{langevin.step_size:g}" + ("" if langevin.gradient else ", noise without gradient")
        )
    return [
        f"{model['name']} ({model['digest'][:8]}) on {data['name']} ({data['digest'][:8]}), "
        f"{data['num_puzzles']} of {data['of']} puzzles",
        f"K={config.rollouts}, D={config.depth}, noise on {config.noise_on} before {when}, "
        f"{'seeds' if len(config.seeds) > 1 else 'seed'} {seeds}",
        *more,
    ]


def _label(row: Row) -> str:
    if row.choice == "deterministic":
        return f"TRM, D={row.depth}"
    if row.choice == "mean":
        return "  one rollout (mean)"
    mark = {"valid_then_q": " (*)", "pass": " (bound)"}.get(row.choice, "")
    return f"  {CHOICE_NAMES[row.choice]}@{row.rollouts}{mark}"


def _ends(interval: Interval) -> str:
    return f"[{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _gain(interval: Interval | None) -> str:
    return "" if interval is None else interval.brief("+")


def _reading(result: Result, best: Row) -> list[str]:
    """The best best-Q row in words, at equal depth and at equal compute; and Q's AUC."""
    config = result.config
    runs = runs_of(result, best.sigma)
    final = [run.record.at(config.depth) for run in runs]
    auc = np.mean([metrics.q_auc(at.correct, at.q_logit, finite=at.finite) for at in final])
    picked = "Best of these sigmas, picked on these same puzzles (which flatters it)"
    equal = "equal depth and compute" if config.rollouts == 1 else "equal depth"
    lines = ["Differences are paired by puzzle. pass@K needs the labels: it bounds every choice."]
    if has_rules(result):
        lines.append("(*) prefers answers that satisfy the rules: PTRM has no such verifier.")
    lines += [
        f"{picked if len(config.sigmas) > 1 else 'Sigma'}: {best.sigma:g}.",
        f"At {equal} PTRM {_verdict(best.gain_equal_depth)}.",
    ]
    if best.gain_equal_compute is not None and config.rollouts > 1:
        lines.append(
            f"At equal compute (TRM for {config.baseline_depth} steps) PTRM "
            f"{_verdict(best.gain_equal_compute)}."
        )
    if not np.isnan(auc):
        lines.append(f"AUC of Q over its rollouts: {auc:.3f}.")
    return lines


def _verdict(gain: Interval | None) -> str:
    assert gain is not None
    if gain.low > 0:
        return f"bought {100 * gain.mean:.1f} points"
    if gain.high < 0:
        return f"lost {-100 * gain.mean:.1f} points"
    return f"made no difference these puzzles can show ({100 * gain.mean:+.1f} points)"


# --- Files ---------------------------------------------------------------------------------------


def write(result: Result, directory: str | os.PathLike[str]) -> epath.Path:
    """Writes the report of a sweep into a folder, each file whole or not at all.

    results.jsonl (one record per sigma and seed, the deterministic run first), summary.csv,
    table.txt, and the pictures.

    Args:
      result: of `sweep.collect`.
      directory: made if need be; files of these names are replaced.
    """
    directory = epath.Path(directory)
    # All is made before anything is written.
    runs = (result.deterministic, *result.runs)
    files = {
        "results.jsonl": "".join(_json(run_metrics(result, run)) + "\n" for run in runs).encode(),
        "summary.csv": _csv(summary(result)).encode(),
        "table.txt": table(result).encode(),
    }
    for name, draw in PICTURES.items():
        files[f"{name}.png"] = charts.png(draw(result))
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        write_bytes(directory / name, data)
    return directory


def _json(value: Any, indent: int | None = None) -> str:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None  # JSON has no NaN
        return value

    return json.dumps(plain(value), indent=indent, allow_nan=False)


def _csv(rows: list[Row]) -> str:
    columns = ["method", "sigma", "choice", "rollouts", "depth", "seed_spread"]
    intervals = ["accuracy", "gain_equal_depth", "gain_equal_compute", "validity"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*columns, "num_puzzles"]
        + [f"{name}{end}" for name in intervals for end in ("", "_low", "_high")]
    )
    for row in rows:
        values = [getattr(row, name) for name in columns]
        values[-1] = "" if math.isnan(values[-1]) else values[-1]
        values.append(row.accuracy.num_puzzles)
        for name in intervals:
            interval = getattr(row, name)
            values += ["", "", ""] if interval is None else interval[:3]
        writer.writerow(values)
    return text.getvalue()


# --- Pictures ------------------------------------------------------------------------------------


def _figure(result: Result, columns: int = 1) -> tuple["Figure", Any]:
    caption = "\n".join(headline(result)) + "; 95 % intervals over puzzles"
    figure, axes = charts.new_figure(caption, columns=columns, sharey=True)
    for ax in axes[0]:
        charts.percent(ax)
    axes[0, 0].set_ylabel("puzzles solved exactly (%)")
    return figure, axes[0]


def _intervals(values: list[np.ndarray]) -> list[Interval]:
    """Over puzzles, of each of values ([B] or [R, B])."""
    return [metrics.interval(value) for value in values]


def _baseline_lines(ax: "Axes", result: Result) -> None:
    styles = {"equal_depth": (":", result.config.depth)}
    styles["equal_compute"] = ("--", result.config.baseline_depth)
    for name, values in baselines(result).items():
        line, depth = styles[name]
        words = name.replace("_", " ")
        ax.axhline(
            values.mean(), color=charts.GREY, linestyle=line, label=f"TRM, D={depth} ({words})"
        )


def accuracy_against_width(result: Result) -> "Figure":
    """pass@k, best-Q@k and mode@k against k, one panel per sigma (PTRM Figure 6)."""
    config = result.config
    figure, axes = _figure(result, len(config.sigmas))
    ks = widths(config.rollouts)
    for ax, sigma in zip(axes, config.sigmas, strict=True):
        runs = runs_of(result, sigma)
        for style, (label, metric) in enumerate(
            {"pass@k (bound)": pass_at, "best-Q@k": best_q, "mode@k": mode_at}.items()
        ):
            values = [over_seeds(runs, metric, k, config.depth) for k in ks]
            charts.points(ax, np.array(ks) * 1.04 ** (style - 1), _intervals(values), style, label)
        _baseline_lines(ax, result)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, [str(k) for k in ks])
        ax.set_title(f"sigma = {sigma:g}", fontsize=10)
        ax.set_xlabel("k, rollouts")
    charts.legend(figure, axes[0])
    return figure


def accuracy_against_sigma(result: Result) -> "Figure":
    """Choices and the mean rollout against sigma (PTRM Figure 7); gap to pass@K is headroom."""
    config = result.config
    figure, (ax,) = _figure(result)
    order = sorted(config.sigmas)
    k, depth = config.rollouts, config.depth
    shift = 0.006 * (order[-1] - order[0] or 1.0)
    per_sigma = [runs_of(result, sigma) for sigma in order]
    for style, (label, metric, width) in enumerate(
        [
            (f"pass@{k} (bound)", pass_at, k),
            (f"best-Q@{k}", best_q, k),
            (f"mode@{k}", mode_at, k),
            ("one rollout (mean)", pass_at, 1),
        ]
    ):
        values = [over_seeds(runs, metric, width, depth) for runs in per_sigma]
        charts.points(ax, np.array(order) + shift * (style - 1.5), _intervals(values), style, label)
    _baseline_lines(ax, result)
    ax.set_xlabel("sigma (root mean squares of the latent)")
    charts.legend(figure, ax)
    return figure


def accuracy_against_depth(result: Result) -> "Figure":
    """Best-Q@K and the mean rollout by step, against TRM alone run on to the same compute."""
    config = result.config
    figure, (ax,) = _figure(result)
    record = result.deterministic.record
    steps = np.arange(1, record.correct.shape[2] + 1)
    values = [record.at(int(d)).correct[:, 0].astype(float) for d in steps]
    charts.band(ax, steps, _intervals(values), 6, "TRM (K=1, sigma=0)")
    steps = np.arange(1, config.depth + 1)
    for style, sigma in enumerate(config.sigmas):
        runs = runs_of(result, sigma)
        best = [over_seeds(runs, best_q, config.rollouts, int(d)) for d in steps]
        label = f"best-Q@{config.rollouts}, sigma={sigma:g}"
        charts.band(ax, steps, _intervals(best), style, label)
        mean = [over_seeds(runs, pass_at, 1, int(d)).mean() for d in steps]
        ax.plot(
            steps,
            mean,
            color=charts.colour(style),
            linestyle=":",
            linewidth=1,
        )
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


def q_of_right_and_wrong(result: Result) -> "Figure":
    """Halt logits of right and wrong rollouts after the last step (PTRM Figure 3)."""
    config = result.config
    figure, axes = _figure(result, len(config.sigmas))
    for ax, sigma in zip(axes, config.sigmas, strict=True):
        ends = [run.record.at(config.depth) for run in runs_of(result, sigma)]
        q = np.concatenate([at.q_logit[at.finite] for at in ends])
        right = np.concatenate([at.correct[at.finite] for at in ends])
        bins = np.histogram_bin_edges(q, bins=40) if len(q) else 40
        for style, (label, chosen) in enumerate({"right": right, "wrong": ~right}.items()):
            weights = np.full(chosen.sum(), 1 / max(len(q), 1))
            ax.hist(
                *(q[chosen], bins),
                weights=weights,
                color=charts.colour(style),
                alpha=0.7,
                label=f"rollout {label}",
            )
        ax.axvline(0, color=charts.GREY, linewidth=0.8, linestyle=":", label="halts from here")
        ax.set_title(f"sigma = {sigma:g}", fontsize=10)
        ax.set_xlabel("Q (logit)")
    axes[0].set_ylabel("rollouts (%)")
    charts.legend(figure, axes[0])
    return figure


PICTURES = {
    "accuracy_against_width": accuracy_against_width,
    "accuracy_against_sigma": accuracy_against_sigma,
    "accuracy_against_depth": accuracy_against_depth,
    "q_of_right_and_wrong": q_of_right_and_wrong,
}
