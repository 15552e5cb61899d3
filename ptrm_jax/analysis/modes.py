"""Trajectory modes: quick success, delayed success, failure; and a path of each (PTRM Figure 2).

The trajectories are those of the deterministic TRM. The paper names the modes but states no rule;
here s* is the first step from which all answers, up to the last, are right:

- quick success: s* is at most `Settings.quick`; delayed success: s* is later;
- failure: the last answer is wrong. Over its last `Settings.last` answers, a failure
  - settles, if they are all the same,
  - oscillates, if it returns to an answer that it had left; with period p, if each answer equals
    the one p steps before it, over at least two periods,
  - wanders otherwise;
- lost: a failure with a right answer at an earlier step.

A puzzle that is right at the last step only counts as a delayed success; a larger depth shows
whether it stays right.

Shape letters: B puzzles, D supervision steps, L positions, C channels.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.analysis.pca import Plane, principal_plane
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.config import check_int
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import Inputs

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
    """Deterministic trajectories by their mode; rollouts, sigma and seeds have no effect.

    Raises:
      InputError: when built, if `quick` or `last` is too small.
    """

    inputs: Inputs = Inputs("maze11", num_puzzles=256)
    search: OneSigma = OneSigma(rollouts=64, depth=32)
    quick: int = 4
    """A success is quick if its answers are right from this step on, or from an earlier one."""
    last: int = 8
    """Number of last answers that decide whether a failure settles, oscillates or wanders."""

    def __post_init__(self) -> None:
        check_int("quick", self.quick, 1)
        check_int("last", self.last, 2)


# --- The rule ------------------------------------------------------------------------------------


def solved_at(correct: np.ndarray) -> np.ndarray:
    """s*, the first step (from 1) from which every answer is right: [B] int, 0 if there is none.

    Args:
      correct: [B, D] bool.
    """
    steps = correct.shape[1]
    right_to_the_end = np.logical_and.accumulate(correct[:, ::-1], axis=1).sum(axis=1)
    return np.where(right_to_the_end > 0, steps - right_to_the_end + 1, 0)


def modes(correct: np.ndarray, *, quick: int) -> np.ndarray:
    """The mode of each trajectory, one of `MODES`: [B] strings.

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
    """How each trajectory ends, right or wrong.

    Args:
      answer: [B, D] integer, equal where answers are, such as `Rollouts.digest`.
      last: number of last answers to look at; all if there are fewer.

    Returns:
      The ending, one of `ENDINGS`: [B] strings; and the period: [B] int, 1 if it settled, 0 if
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
    """Row of the (lower) median of `values` [B] over the rows `among` [B] bool; None without rows.

    Of equal values, the first row.
    """
    rows = np.flatnonzero(among)
    if not len(rows):
        return None
    return int(rows[np.argsort(values[rows], kind="stable")[(len(rows) - 1) // 2]])


# --- Measure -------------------------------------------------------------------------------------


class Modes(NamedTuple):
    """What the figure shows.

    Attributes:
      result: the sweep.
      trajectories: of the deterministic TRM, fields [B, D].
      solved_at: [B] int, s*; 0 for failures.
      mode: [B] strings of `MODES`.
      lost: [B] bool.
      ending: [B] strings of `ENDINGS`, "" for successes.
      period: [B] int, 0 for successes.
      shares: of puzzles in each mode and "lost"; of failures with each ending and "periodic", if
        there are failures; mean "solved_at", if there are successes.
      examples: by each mode that occurs, the row of a puzzle and the plane of its states y.
    """

    result: Result
    trajectories: Rollouts
    solved_at: np.ndarray
    mode: np.ndarray
    lost: np.ndarray
    ending: np.ndarray
    period: np.ndarray
    shares: dict[str, Interval]
    examples: dict[str, tuple[int, Plane]]


def measure(study: Study[Settings]) -> Modes:
    """Sweeps, and computes a trajectory of each mode again."""
    settings = study.settings
    # With sigma 0 the noisy run is the deterministic one and is not computed again.
    result = study.sweep(sigmas=(0.0,), rollouts=1, seeds=(0,))
    trajectories = result.deterministic.rollouts.part(slice(None), 0)
    correct, cells = trajectories.correct, trajectories.cell_accuracy
    assert cells is not None and trajectories.digest is not None
    step, mode, was_lost = solved_at(correct), modes(correct, quick=settings.quick), lost(correct)
    failed = mode == "failed"
    ending, period = endings(trajectories.digest, last=settings.last)
    shares = {name: metrics.interval(mode == name) for name in MODES}
    shares["lost"] = metrics.interval(was_lost)
    if (~failed).any():
        shares["solved_at"] = metrics.ratio_interval(step, ~failed)
    if failed.any():
        shares |= {name: metrics.interval((ending == name)[failed]) for name in ENDINGS}
        shares["periodic"] = metrics.interval((period > 1)[failed])
    finite, rows = trajectories.eligible.all(axis=1), {}
    for name in MODES:
        row = middle(cells[:, -1] if name == "failed" else step, (mode == name) & finite)
        if row is not None:
            rows[name] = row
    paths = study.replay(list(rows.values()), sigma=0.0).y[:, 0]
    planes = [principal_plane(path.reshape(len(path), -1)) for path in paths]
    return Modes(
        result,
        trajectories,
        step,
        mode,
        was_lost,
        np.where(failed, ending, ""),
        np.where(failed, period, 0),
        shares,
        dict(zip(rows, zip(rows.values(), planes, strict=True), strict=True)),
    )


# --- Say -----------------------------------------------------------------------------------------


def find(found: Modes, settings: Settings) -> dict[str, Finding]:
    """The numbers of the figure."""
    what = {
        "quick": f"quick success, s* <= {settings.quick}",
        "delayed": f"delayed success, s* > {settings.quick}",
        "failed": "failure",
        "lost": "right at some step, not after the last",
        "solved_at": "mean s* of the solved",
    }
    what |= {
        name: f"{name}, of the failures, last {settings.last} answers"
        for name in (*ENDINGS, "periodic")
    }
    return {
        name: Finding.of(
            f"{what[name]}; TRM, D={settings.search.depth}",
            share,
            "number" if name == "solved_at" else "%",
        )
        for name, share in found.shares.items()
    }


def say(found: Modes, findings: Mapping[str, Finding], settings: Settings) -> list[str]:
    """The numbers in sentences."""
    text = {name: finding.text() for name, finding in findings.items()}
    sentences = [
        f"Of {len(found.mode)} puzzles, without noise: quick success (right from step "
        f"{settings.quick} or earlier to the end) {text['quick']}; delayed success "
        f"{text['delayed']}; failure {text['failed']}.",
    ]
    if "solved_at" in text:
        sentences.append(
            "Mean s* of the solved puzzles, the step from which they stay right: "
            f"{text['solved_at']}; the latest is step {found.solved_at.max()} of "
            f"{settings.search.depth}."
        )
    if "settled" in text:
        parts = (f"{name} {(found.ending == name).sum()} ({text[name]})" for name in ENDINGS)
        sentences.append(
            f"Of the {(found.mode == 'failed').sum()} failures, over the last {settings.last} "
            f"answers: {', '.join(parts)}; with a period: {(found.period > 1).sum()}. "
            f"{found.lost.sum()} had the right answer at an earlier step and lost it "
            f"(of all puzzles {text['lost']})."
        )
    return sentences


# --- Draw ----------------------------------------------------------------------------------------


def draw(found: Modes, caption: str) -> "Figure":
    """Frequencies above; below a column for each mode: path, cell accuracy, Q."""
    figure, axes = charts.new_figure(
        caption,
        rows=4,
        columns=3,
        size=(4.2, 2.9),
        margin=0.2,
        gridspec_kw={"height_ratios": (1, 1.3, 0.8, 0.8)},
    )
    _draw_frequencies(axes[0], found)
    for column, name in enumerate(MODES):
        if name not in found.examples:
            _leave_empty(axes[1:, column], _TITLES[name])
            continue
        row, plane = found.examples[name]
        path = found.trajectories.part(row)
        assert path.cell_accuracy is not None
        end = f"s* = {found.solved_at[row]}" if name != "failed" else found.ending[row]
        points = _draw_path(axes[1, column], plane, path.correct)
        axes[1, column].set_title(f"{_TITLES[name]}: puzzle {row}, {end}")
        for ax, values in zip(axes[2:, column], (path.cell_accuracy, path.q_logit), strict=True):
            _draw_steps(ax, values, path.correct, charts.colour(_STYLES[name][0]))
        charts.percent(axes[2, column])
        axes[3, column].set(xlabel="supervision step")
        axes[3, column].axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    axes[2, 0].set_ylabel("cells right (%)")
    axes[3, 0].set_ylabel("Q (logit)")
    if found.examples:
        figure.colorbar(points, ax=axes[1, :], label="supervision step", shrink=0.9)
        charts.legend_below(axes[1, MODES.index(next(iter(found.examples)))], columns=4)
    for row in axes[2:]:
        _share_limits(row)
    return figure


def _draw_frequencies(axes: np.ndarray, found: Modes) -> None:
    """How frequent modes are, when puzzles are solved, how failures end."""
    titles = {name: title.replace(" ", "\n") for name, title in _TITLES.items()}
    titles["lost"] = "failure,\nonce right"
    _draw_bars(axes[0], found.shares, titles, len(found.mode))
    axes[0].set(ylabel="puzzles (%)", title="modes")
    bins = np.arange(0.5, found.trajectories.correct.shape[1] + 1)
    for name in ("quick", "delayed"):
        axes[1].hist(
            found.solved_at[found.mode == name],
            bins=bins,
            color=charts.colour(_STYLES[name][0]),
            hatch=_STYLES[name][1],
            edgecolor="white",
        )
    axes[1].set(xlabel="s*, first step right to the end", ylabel="puzzles")
    axes[1].set_title("when solved (colours as on the left)")
    failures = {name: name for name in ENDINGS if name in found.shares}
    _draw_bars(axes[2], found.shares, failures, int((found.mode == "failed").sum()))
    axes[2].set(ylabel="failures (%)", title="how failures end")
    if not failures:
        axes[2].text(0.5, 0.5, "no failure", ha="center", transform=axes[2].transAxes)


def _draw_bars(
    ax: "Axes", shares: Mapping[str, Interval], names: Mapping[str, str], count: int
) -> None:
    """A bar with its interval and number of puzzles for each of these shares."""
    for place, name in enumerate(names):
        mean, low, high = shares[name][:3]
        ax.bar(
            place,
            mean,
            yerr=np.maximum([[mean - low], [high - mean]], 0),
            color=charts.colour(_STYLES[name][0]),
            hatch=_STYLES[name][1],
            edgecolor="white",
            capsize=4,
        )
        ax.text(place + 0.04, high, f" {round(mean * count)}", va="bottom", fontsize=8)
    ax.set_xticks(range(len(names)), list(names.values()), fontsize=8)
    ax.margins(y=0.15)
    ax.set_ylim(0, None)
    charts.percent(ax)


def _leave_empty(axes: np.ndarray, title: str) -> None:
    for ax in axes:
        ax.set_axis_off()
    axes[0].set_axis_on()
    axes[0].set(title=title, xticks=[], yticks=[])
    axes[0].text(0.5, 0.5, "no such puzzle", ha="center", transform=axes[0].transAxes)


def _draw_path(ax: "Axes", plane: Plane, right: np.ndarray) -> "PathCollection":
    """The path with its start and end; steps by colour, right and wrong answers by marker."""
    points = plane.coordinates
    ax.plot(*points.T, color=charts.GREY, linewidth=0.8, alpha=0.6)
    steps = np.arange(1, len(points) + 1)
    for those, (marker, label) in zip((right, ~right), _MARKS, strict=True):
        drawn = ax.scatter(
            points[those, 0],
            points[those, 1],
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
            points[place, 0],
            points[place, 1],
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


def _draw_steps(ax: "Axes", values: np.ndarray, right: np.ndarray, colour: str) -> None:
    """[D] values over the steps, right and wrong answers by marker."""
    steps = np.arange(1, len(values) + 1)
    ax.plot(steps, values, color=charts.GREY, linewidth=1)
    for those, (marker, label) in zip((right, ~right), _MARKS, strict=True):
        ax.scatter(steps[those], values[those], 22, colour, marker=marker, label=label, zorder=3)
    ax.set(xlim=(0, len(values) + 1))


def _share_limits(axes: np.ndarray) -> None:
    """One range of y for all axes with a curve."""
    values = [line.get_ydata() for ax in axes for line in ax.get_lines()[:1]]
    if values:
        low, high = np.min(values), np.max(values)
        pad = 0.08 * (high - low) or 0.05
        for ax in axes:
            ax.set_ylim(low - pad, high + pad)


# --- The figure ----------------------------------------------------------------------------------


def make(study: Study[Settings]) -> Exhibit:
    """How frequent modes, s* and endings are; path, Q and cell accuracy of one puzzle per mode."""
    settings = study.settings
    found = measure(study)
    findings = find(found, settings)
    last = min(settings.last, settings.search.depth)
    caption = study.caption(
        found.result,
        f"quick: s* <= {settings.quick}; endings over the last {last} answers; shown: the puzzle "
        "with the median s*, of failures the median cell accuracy after the last step",
    )
    fields = ("solved_at", "mode", "lost", "ending", "period")
    scores = ("correct", "cell_accuracy", "q_logit")
    index, cells = study.prepared.puzzles.puzzles.index, found.trajectories.cell_accuracy
    assert cells is not None
    return study.exhibit(
        "Trajectory modes: quick, delayed, failed (PTRM Figure 2)",
        caption=caption,
        result=found.result,
        reading=say(found, findings, settings),
        findings=findings,
        figure=draw(found, caption),
        data={name: getattr(found, name) for name in fields}
        | {name: getattr(found.trajectories, name) for name in scores}
        | {f"pca_{name}": plane.coordinates for name, (_, plane) in found.examples.items()},
        rows=[
            {
                "row": row,
                "index": int(index[row]),
                "mode": mode,
                "solved_at": found.solved_at[row],
                "lost": found.lost[row],
                "ending": found.ending[row],
                "period": found.period[row] if mode == "failed" else "",
                "cell_accuracy": cells[row, -1],
                "shown": found.examples.get(mode, (None,))[0] == row,
            }
            for row, mode in enumerate(found.mode)
        ],
    )
