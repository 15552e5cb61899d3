"""Trajectory modes: quick success, delayed success, failure; and a path of each (PTRM Figure 2).

The trajectories are those of the deterministic TRM. The paper names the modes and states no rule;
here s* is the first step from whose answer on all answers to the last are right:

- quick success: s* is at most `Settings.quick`; delayed success: s* is later;
- failure: the last answer is wrong. Of the last `Settings.last` answers of a failure, it
  - settles, if they are all the same,
  - oscillates, if it comes back to one that it had left; with a period p, if each is the one p
    steps before it, over two periods at least,
  - wanders otherwise;
- lost: a failure with a right answer at an earlier step.

Whoever is right at the last step alone counts as a delayed success; a larger depth tells.

Shape letters: B puzzles, D supervision steps, L positions, C channels.
"""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.analysis.pca import Plane, principal_plane
from ptrm_jax.analysis.study import Trajectories
from ptrm_jax.config import check_int

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import PathCollection
    from matplotlib.figure import Figure

MODES = ("quick", "delayed", "failed")
ENDINGS = ("settled", "oscillates", "wanders")
_TITLES = {"quick": "quick success", "delayed": "delayed success", "failed": "failure"}
_MARKS = (("o", "right answer"), ("x", "wrong answer"))
_STYLES = {"quick": (0, ""), "delayed": (2, "//"), "failed": (1, ""), "lost": (1, "xx")}
_STYLES |= {"settled": (1, "--"), "oscillates": (1, "//"), "wanders": (1, "..")}
"""Colour and hatch."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Deterministic trajectories by their mode; rollouts, sigma and seeds change nothing.

    Raises:
      ValueError: when built, for a setting of its own that breaks its rule.
    """

    num_puzzles: int | None = 256
    """The first so many puzzles of the data; None for all."""
    depth: int = 32
    """D: supervision steps of each trajectory."""
    quick: int = 4
    """A success is quick if it is there to stay after so many steps."""
    last: int = 8
    """A failure's last answers, so many, say whether it settles, oscillates or wanders."""

    def __post_init__(self) -> None:
        check_int("quick", self.quick, 1)
        check_int("last", self.last, 2)


def solved_at(correct: np.ndarray) -> np.ndarray:
    """s*, the first step (from 1) from which on every answer is right: [B] int, 0 where none is.

    Args:
      correct: [B, D] bool.
    """
    steps = correct.shape[1]
    right_to_the_end = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1)
    return np.where(right_to_the_end > 0, steps - right_to_the_end + 1, 0)


def modes(correct: np.ndarray, *, quick: int) -> np.ndarray:
    """The mode of each trajectory, of `MODES`: [B] strings.

    Args:
      correct: [B, D] bool.
      quick: the largest s* of a quick success.
    """
    step = solved_at(correct)
    return np.select([step == 0, step <= quick], ["failed", "quick"], "delayed")


def lost(correct: np.ndarray) -> np.ndarray:
    """Right at some step and wrong after the last: [B] bool, of `correct` [B, D] bool."""
    return correct.any(axis=1) & ~correct[:, -1]


def endings(answer: np.ndarray, *, last: int) -> tuple[np.ndarray, np.ndarray]:
    """What the last answers of each trajectory do, whether right or wrong.

    Args:
      answer: [B, D] integer, equal where answers are, such as `sweep.Record.answer`.
      last: how many of them to look at; all where there are fewer.

    Returns:
      The ending, of `ENDINGS`: [B] strings; and the period: [B] int, 1 where it settled, 0 where
      there is none.
    """
    window = answer[:, -last:]
    size = window.shape[1]
    period = np.zeros(len(window), int)
    for p in range(size // 2, 1, -1):
        period[(window[:, p:] == window[:, :-p]).all(axis=1)] = p
    period[(window == window[:, :1]).all(axis=1)] = 1
    # Back at an answer that it had left: equal to an earlier one, but not to the one before.
    returned = np.zeros(len(window), bool)
    for gap in range(2, size):
        returned |= (
            (window[:, gap:] == window[:, :-gap]) & (window[:, gap:] != window[:, gap - 1 : -1])
        ).any(axis=1)
    return np.select([period == 1, returned], ["settled", "oscillates"], "wanders"), period


def middle(values: np.ndarray, among: np.ndarray) -> int | None:
    """Row of the (lower) median of `values` [B] over the rows `among` [B] bool, the first of equal.

    None where there is no such row.
    """
    rows = np.flatnonzero(among)
    if not len(rows):
        return None
    return int(rows[np.argsort(values[rows], kind="stable")[(len(rows) - 1) // 2]])


def make(study: study.Study) -> list[Exhibit]:
    """Counts of modes, s*, endings of failures; a path, Q and cell accuracy of one of each mode."""
    settings = study.settings
    # At sigma 0 the one noisy run is the deterministic one, and costs nothing.
    result = study.sweep(sigmas=(0.0,), rollouts=1, seeds=(0,))
    record = result.deterministic.record
    correct, cells = record.correct[:, 0], record.cell_accuracy[:, 0]
    step, mode, was_lost = solved_at(correct), modes(correct, quick=settings.quick), lost(correct)
    ending, period = endings(record.answer[:, 0], last=settings.last)
    finite = record.finite[:, 0].all(axis=1)
    failed = mode == "failed"

    shown = {}
    for name in MODES:
        values = cells[:, -1] if name == "failed" else step
        row = middle(values, (mode == name) & finite)
        if row is not None:
            shown[name] = row
    paths = study.replay(list(shown.values()), sigma=0.0, seed=0)
    planes = {
        name: principal_plane(y[0].reshape(settings.depth, -1))
        for name, y in zip(shown, paths.y, strict=True)
    }

    findings = _findings(mode, was_lost, ending, period, step, settings)
    share = {name: findings[name].text() for name in MODES}
    reading = [
        f"Of {len(mode)} puzzles, without noise: quick success (right to the end from step "
        f"{settings.quick} or sooner) {share['quick']}; delayed success {share['delayed']}; "
        f"failure {share['failed']}.",
    ]
    if (~failed).any():
        reading.append(
            f"Mean s* of the solved, the step from which they stay right: "
            f"{findings['solved_at'].text()}; the latest is step {step.max()} of {settings.depth}."
        )
    if failed.any():
        parts = ", ".join(
            f"{name} {(failed & (ending == name)).sum()} ({findings[name].text()})"
            for name in ENDINGS
        )
        periodic = int((failed & (period > 1)).sum())
        reading.append(
            f"Of the {failed.sum()} failures, over the last {settings.last} answers: {parts}; "
            f"with a period: {periodic}. {was_lost.sum()} had the right answer at some step and "
            f"left it ({findings['lost'].text()} of all puzzles)."
        )
    rule = (
        f"quick: s* <= {settings.quick}; endings over the last {min(settings.last, settings.depth)}"
        " answers; shown: the puzzle with the median s*, of failures the median cell accuracy "
        "after the last step"
    )
    caption = study.caption(result, rule)
    return [
        Exhibit(
            name="modes",
            title="Trajectory modes: quick, delayed, failed (PTRM Figure 2)",
            caption=caption,
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=_figure(caption, mode, ending, step, findings, shown, planes, paths),
            data={
                "solved_at": step,
                "mode": mode,
                "lost": was_lost,
                "ending": np.where(failed, ending, ""),
                "period": np.where(failed, period, 0),
                "correct": correct,
                "cell_accuracy": cells,
                "q_logit": record.q_logit[:, 0],
                **{f"pca_{name}": plane.coordinates for name, plane in planes.items()},
            },
            rows=[
                {
                    "row": row,
                    "index": int(study.puzzles.puzzles.index[row]),
                    "mode": mode[row],
                    "solved_at": step[row],
                    "lost": was_lost[row],
                    "ending": ending[row] if failed[row] else "",
                    "period": period[row] if failed[row] else "",
                    "cell_accuracy": cells[row, -1],
                    "shown": shown.get(mode[row]) == row,
                }
                for row in range(len(mode))
            ],
        )
    ]


def _findings(
    mode: np.ndarray,
    was_lost: np.ndarray,
    ending: np.ndarray,
    period: np.ndarray,
    step: np.ndarray,
    settings: Settings,
) -> dict[str, Finding]:
    of = f"TRM, D={settings.depth}"
    what = {
        "quick": f"quick success, s* <= {settings.quick}; {of}",
        "delayed": f"delayed success, s* > {settings.quick}; {of}",
        "failed": f"failure; {of}",
    }
    findings = {k: Finding.of(v, metrics.interval(mode == k)) for k, v in what.items()}
    findings["lost"] = Finding.of(
        f"right at some step, not after the last; {of}", metrics.interval(was_lost)
    )
    failed = mode == "failed"
    if (~failed).any():
        findings["solved_at"] = Finding.of(
            f"mean s* of the solved; {of}", metrics.ratio_interval(step, ~failed), "number"
        )
    if failed.any():
        those = {name: ending == name for name in ENDINGS} | {"periodic": period > 1}
        for name, rows in those.items():
            findings[name] = Finding.of(
                f"of the failures: {name}, last {settings.last} answers; {of}",
                metrics.interval(rows[failed]),
            )
    return findings


def _figure(
    caption: str,
    mode: np.ndarray,
    ending: np.ndarray,
    step: np.ndarray,
    findings: dict[str, Finding],
    shown: dict[str, int],
    planes: dict[str, Plane],
    paths: Trajectories,
) -> "Figure":
    """Counts above; below a column for each mode: path, cell accuracy, Q."""
    depth = paths.correct.shape[2]
    figure, axes = charts.new_figure(
        caption,
        rows=4,
        columns=3,
        size=(4.2, 2.9),
        margin=0.2,
        gridspec_kw={"height_ratios": (1, 1.3, 0.8, 0.8)},
    )
    titles = {name: title.replace(" ", "\n") for name, title in _TITLES.items()}
    _bars(axes[0, 0], findings, titles | {"lost": "failure,\nonce right"}, len(mode))
    axes[0, 0].set(ylabel="puzzles (%)", title="modes")
    bins = np.arange(0.5, depth + 1)
    for name in ("quick", "delayed"):
        axes[0, 1].hist(
            step[mode == name],
            bins=bins,
            color=charts.colour(_STYLES[name][0]),
            hatch=_STYLES[name][1],
            edgecolor="white",
            label=_TITLES[name],
        )
    axes[0, 1].set(xlabel="s*, first step right to the end", ylabel="puzzles", title="when solved")
    axes[0, 1].legend(fontsize=8)
    failures = {name: name for name in ENDINGS if name in findings}
    _bars(axes[0, 2], findings, failures, int((mode == "failed").sum()))
    axes[0, 2].set(ylabel="failures (%)", title="how failures end")
    if not failures:
        axes[0, 2].text(0.5, 0.5, "no failure", ha="center", transform=axes[0, 2].transAxes)
    steps = np.arange(1, depth + 1)
    for column, name in enumerate(MODES):
        path_ax, cell_ax, q_ax = axes[1:, column]
        if name not in shown:
            for ax in (path_ax, cell_ax, q_ax):
                ax.set_axis_off()
            path_ax.set_axis_on()
            path_ax.set(title=_TITLES[name], xticks=[], yticks=[])
            path_ax.text(0.5, 0.5, "no such puzzle", ha="center", transform=path_ax.transAxes)
            continue
        row = list(shown).index(name)
        right = paths.correct[row, 0]
        where = f"s* = {step[shown[name]]}" if name != "failed" else ending[shown[name]]
        points = _draw_path(path_ax, planes[name], right)
        path_ax.set_title(f"{_TITLES[name]}: puzzle {shown[name]}, {where}")
        for ax, values in ((cell_ax, paths.cell_accuracy[row, 0]), (q_ax, paths.q_logit[row, 0])):
            ax.plot(steps, values, color=charts.GREY, linewidth=1)
            for those, (marker, label) in zip((right, ~right), _MARKS, strict=True):
                ax.scatter(
                    *(steps[those], values[those], 22, charts.colour(_STYLES[name][0])),
                    marker=marker,
                    label=label,
                    zorder=3,
                )
            ax.set(xlim=(0, depth + 1))
        charts.percent(cell_ax)
        q_ax.set(xlabel="supervision step")
        q_ax.axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    axes[2, 0].set_ylabel("cells right (%)")
    axes[3, 0].set_ylabel("Q (logit)")
    if shown:
        figure.colorbar(points, ax=axes[1, :], label="supervision step", shrink=0.9)
        column = MODES.index(next(iter(shown)))
        for ax in (axes[1, column], axes[2, column]):
            ax.legend(fontsize=7)
    for row in (2, 3):
        values = [line.get_ydata() for ax in axes[row] for line in ax.get_lines()[:1]]
        if values:
            low, high = np.min(values), np.max(values)
            pad = 0.08 * (high - low) or 0.05
            for ax in axes[row]:
                ax.set_ylim(low - pad, high + pad)
    return figure


def _bars(ax: "Axes", findings: dict[str, Finding], names: dict[str, str], count: int) -> None:
    """A bar with its interval and number of puzzles for each of these findings."""
    for place, name in enumerate(names):
        value, low, high = findings[name].value, findings[name].low, findings[name].high
        ax.bar(
            place,
            value,
            yerr=np.maximum([[value - low], [high - value]], 0),
            color=charts.colour(_STYLES[name][0]),
            hatch=_STYLES[name][1],
            edgecolor="white",
            capsize=4,
        )
        ax.text(place + 0.04, high, f" {round(value * count)}", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), list(names.values()), fontsize=8)
    ax.margins(y=0.15)
    ax.set_ylim(0, None)
    charts.percent(ax)


def _draw_path(ax: "Axes", plane: Plane, right: np.ndarray) -> "PathCollection":
    """The path, its steps by colour and by whether the answer is right, its start and its end."""
    points = plane.coordinates
    ax.plot(*points.T, color=charts.GREY, linewidth=0.8, alpha=0.6)
    steps = np.arange(1, len(points) + 1)
    for those, (marker, label) in zip((right, ~right), _MARKS, strict=True):
        drawn = ax.scatter(
            *points[those].T,
            c=steps[those],
            s=34,
            cmap="viridis",
            vmin=1,
            vmax=len(points),
            marker=marker,
            label=label,
            zorder=3,
        )
    for place, (marker, label) in {0: ("s", "start"), -1: ("D", "end")}.items():
        ax.scatter(
            *points[place],
            s=110,
            marker=marker,
            facecolors="none",
            edgecolors=charts.COLOURS[1],
            linewidths=1.5,
            label=label,
            zorder=4,
        )
    first, second = (
        f"PC {i + 1} ({100 * share:.0f} % of variance)" for i, share in enumerate(plane.share)
    )
    ax.set(xlabel=first, ylabel=second)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.12)
    return drawn
