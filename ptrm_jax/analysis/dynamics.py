"""The recursion as a dynamical system: does it settle, do differences grow, where does it end?

For rollouts that are right and wrong in the end: how far the states move in each supervision step
and how much a small change of them grows (the largest finite-time Lyapunov exponent); which answers
and states have settled at the end; and the basins, groups of rollouts that end in one place.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens, F entries of a state.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study, tangent
from ptrm_jax.analysis.exhibit import Exhibit, Finding, FindingUnit, NothingToShow
from ptrm_jax.analysis.q_head import by_step
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.config import check_int
from ptrm_jax.data import Dataset
from ptrm_jax.metrics import Interval, Rollouts
from ptrm_jax.sweep.config import Inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COMMON = 0.95
"""Fraction of right rollouts, or of pairs of them, within a threshold that is taken from them."""

_LABELS = {
    "right": "rollout, right in the end",
    "wrong": "rollout, wrong in the end",
    "trm_right": "deterministic, right",
    "trm_wrong": "deterministic, wrong",
}
_QUANTITIES = ("move_y", "move_z", "log_growth")


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Rollouts with one tangent each, several times the work of plain ones."""

    inputs: Inputs = Inputs("maze11", num_puzzles=48)
    search: OneSigma = OneSigma(rollouts=8)
    late: int = 4
    """Number of last steps that decide what has settled; all if there are fewer."""

    def __post_init__(self) -> None:
        check_int("late", self.late, 1)


# --- Functions of arrays -------------------------------------------------------------------------


def keeps_answer(answers: np.ndarray, late: int) -> np.ndarray:
    """Whether all of the last `late` steps give one answer: [B, K] bool, of [B, K, D, S]."""
    last = answers[:, :, -late:]
    return (last == last[:, :, -1:]).all(axis=(2, 3))


def late_mean(values: np.ndarray, late: int) -> np.ndarray:
    """Mean over the last `late` steps: [B, K] float64, of [B, K, D]."""
    return values[:, :, -late:].mean(axis=2, dtype=np.float64)


def calm(move: np.ndarray, right: np.ndarray) -> float:
    """The 95 % quantile of the moves of right rollouts; NaN if there are none.

    Args:
      move: [B, K] float.
      right: [B, K] bool.
    """
    return float(np.quantile(move[right], COMMON)) if right.any() else np.nan


def noise_spread(states: np.ndarray, right: np.ndarray) -> float:
    """The 95 % quantile of the distances between right rollouts of one puzzle at the end.

    They give the same answer, so their distance is due to the noise.

    Args:
      states: [B, K, F] float.
      right: [B, K] bool.

    Returns:
      Root mean square over F of the difference of two states; NaN if no puzzle has two.
    """
    pairs = [_apart(x[which]) for x, which in zip(states, right, strict=True) if which.sum() > 1]
    return float(np.quantile(np.concatenate(pairs), COMMON)) if pairs else np.nan


def basins(states: np.ndarray, threshold: float) -> np.ndarray:
    """Groups of end states of one puzzle by single linkage: chains of close neighbours.

    Args:
      states: [K, F] float.
      threshold: the largest distance of neighbours, root mean square over F.

    Returns:
      [K] int, the basin of each, from 1.
    """
    if len(states) < 2:
        return np.ones(len(states), int)
    return hierarchy.fcluster(hierarchy.linkage(_apart(states), "single"), threshold, "distance")


def _apart(states: np.ndarray) -> np.ndarray:
    """Root mean square differences of all pairs of [K, F], in scipy's order of pairs."""
    return distance.pdist(states.astype(np.float64)) / np.sqrt(states.shape[1])


def together(basin: np.ndarray, chosen: np.ndarray) -> Interval:
    """Probability that two chosen rollouts of one puzzle end in the same basin, over all pairs.

    Unlike the number of basins it does not grow with the number of rollouts.

    Args:
      basin: [B, K] int, of each rollout within its puzzle.
      chosen: [B, K] bool.
    """
    both = chosen[:, :, None] & chosen[:, None, :] & ~np.eye(chosen.shape[1], dtype=bool)
    same = both & (basin[:, :, None] == basin[:, None, :])
    return metrics.ratio_interval(same.sum(axis=(1, 2)), both.sum(axis=(1, 2)), bounds=(0, 1))


def rate(values: np.ndarray, chosen: np.ndarray) -> Interval:
    """Mean of the finite values of chosen rollouts, [B, K] each, with its interval over puzzles."""
    chosen = chosen & np.isfinite(values)
    sums = np.where(chosen, values, 0).sum(axis=1), chosen.sum(axis=1)
    return metrics.ratio_interval(*sums, bounds=(0, 1) if values.dtype == bool else None)


def number_of(labels: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """How many different labels each row of [B, K] has where `finite`: [B]."""
    return np.array([len(np.unique(row[f])) for row, f in zip(labels, finite, strict=True)])


# --- Measure -------------------------------------------------------------------------------------


Group = tuple[tangent.Followed, np.ndarray]
"""Rollouts of one sigma, fields [B, K, ...], and which of them are in the group, [B, K] bool."""


class Dynamics(NamedTuple):
    """What the figure shows.

    Attributes:
      late: number of last steps that `growth` and `ends` are of.
      groups: by "right", "wrong", "trm_right" and "trm_wrong".
      finite: [B, K] bool, noisy rollouts that are right or wrong.
      basin: [B, K] int, of each noisy rollout, from 1; 0 where not finite.
      num_basins: [B] int, of the noisy rollouts of each puzzle.
      solved: [B] bool, puzzles that TRM has right.
      growth: [B, K] float64, mean log growth of noisy rollouts over the late steps.
      curves: by quantity and group, D intervals.
      ends: by "expansion", "expanding", "move", "settled" and "calm" and group.
      numbers: number of "answers" and "basins" of the puzzles that TRM "solved" and "failed".
      pairs: fraction of pairs of "right" and of "wrong" rollouts that end in one basin.
      aucs: how well "expansion", "residual" and "q" distinguish right from wrong rollouts.
      choices: accuracy of choosing by "residual" and by "q", and their "gain".
      near: largest distance within a basin, root mean square of y.
      still: largest late move of a calm rollout, root mean square of y.
    """

    late: int
    groups: dict[str, Group]
    finite: np.ndarray
    basin: np.ndarray
    num_basins: np.ndarray
    solved: np.ndarray
    growth: np.ndarray
    curves: dict[str, list[Interval]]
    ends: dict[str, Interval]
    numbers: dict[str, Interval]
    pairs: dict[str, Interval]
    aucs: dict[str, Interval]
    choices: dict[str, Interval]
    near: float
    still: float


def measure(study: Study[Settings]) -> Dynamics:
    """Runs rollouts with tangents: of all seeds at the figure's sigma, and the deterministic one.

    Raises:
      NothingToShow: there is no wrong rollout, or no two right ones of one puzzle.
    """
    settings, puzzles = study.settings, study.prepared.puzzles
    noisy, trm = _follow(study, settings.search.sigma), _follow(study, 0.0)
    late = min(settings.late, settings.search.depth)
    right, wrong = _right_and_wrong(noisy, puzzles)
    trm_right, trm_wrong = _right_and_wrong(trm, puzzles)
    finite, solved = right | wrong, trm_right[:, 0]
    groups = {
        "right": (noisy, right),
        "wrong": (noisy, wrong),
        "trm_right": (trm, trm_right),
        "trm_wrong": (trm, trm_wrong),
    }
    states = noisy.y.reshape(*right.shape, -1)
    near = noise_spread(states, right)
    if not wrong.any() or np.isnan(near):
        raise NothingToShow(
            "right rollouts are compared with wrong ones, by the distance between two right ones "
            f"of a puzzle; {right.sum()} of {right.size} are right; pass more rollouts, or puzzles "
            "of which the model solves some"
        )
    basin = np.zeros(right.shape, int)
    for row, which, labels in zip(states, finite, basin, strict=True):
        labels[which] = basins(row[which], near)
    still = calm(late_mean(noisy.move_y, late), right)
    counts = {
        "answers": number_of(metrics.answer_ids(noisy.answers[:, :, -1]), finite),
        "basins": number_of(basin, finite),
    }
    chosen = _choices(noisy, right, finite, settings.search.rollouts)
    gain = metrics.paired_difference(chosen["residual"], chosen["q"])
    return Dynamics(
        late=late,
        groups=groups,
        finite=finite,
        basin=basin,
        num_basins=counts["basins"],
        solved=solved,
        growth=late_mean(noisy.log_growth, late),
        curves={
            f"{name}_{who}": by_step(getattr(followed, name), chosen)
            for name in _QUANTITIES
            for who, (followed, chosen) in groups.items()
        },
        ends=_ends(groups, still, late),
        numbers={
            f"{name}_{who}": metrics.ratio_interval(count * which, which)
            for name, count in counts.items()
            for who, which in (("solved", solved), ("failed", ~solved))
        },
        pairs={"right": together(basin, right), "wrong": together(basin, wrong)},
        aucs=_aucs(noisy, right, finite, late),
        choices={name: metrics.interval(each) for name, each in chosen.items()} | {"gain": gain},
        near=near,
        still=still,
    )


def _follow(study: Study[Settings], sigma: float) -> tangent.Followed:
    """The rollouts of all seeds, or the deterministic one, with their tangents: [B, R * K, ...]."""
    search, prepared = study.settings.search, study.prepared
    seeds = search.seeds if sigma else search.seeds[:1]
    rollouts = range(search.rollouts if sigma else 1)
    report = study.progress(len(seeds) * len(rollouts) * len(prepared.puzzles) * search.depth)
    parts = [
        tangent.follow(
            prepared.model,
            prepared.params,
            jax.random.key(seed, impl="threefry2x32"),
            prepared.puzzles.puzzles,
            rollouts=rollouts,
            depth=search.depth,
            sigma=sigma,
            lane_tile=prepared.lane_tile,
            devices=prepared.devices,
            progress=lambda steps: report(steps, f"tangents, sigma {sigma:g}"),
        )
        for seed in seeds
    ]
    return jax.tree.map(lambda *fields: np.concatenate(fields, axis=1), *parts)


def _right_and_wrong(followed: tangent.Followed, puzzles: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """[B, K] bool each, after the last step; a rollout that is not finite is neither."""
    answers = followed.answers[:, :, -1]
    correct = metrics.exact(answers, puzzles.labels, ignore_label=puzzles.ignore_label)
    finite = followed.finite.all(axis=2)
    return correct & finite, ~correct & finite


def _ends(groups: Mapping[str, Group], still: float, late: int) -> dict[str, Interval]:
    """What each group does in the late steps."""
    ends: dict[str, Interval] = {}
    for who, (followed, chosen) in groups.items():
        growth, moves = late_mean(followed.log_growth, late), late_mean(followed.move_y, late)
        values = {
            "expansion": growth,
            "expanding": growth > 0,
            "move": moves,
            "settled": keeps_answer(followed.answers, late),
            "calm": moves <= still,
        }
        ends |= {f"{name}_{who}": rate(value, chosen) for name, value in values.items()}
    return ends


def _last_scores(followed: tangent.Followed) -> dict[str, np.ndarray]:
    """How little y and z together move in the last step, and Q after it: [B, K] each."""
    move = np.sqrt((np.square(followed.move_y) + np.square(followed.move_z)) / 2)
    return {"residual": -move[:, :, -1], "q": followed.q_logit[:, :, -1]}


def _aucs(
    followed: tangent.Followed, right: np.ndarray, finite: np.ndarray, late: int
) -> dict[str, Interval]:
    """AUC of little growth, little move and Q, as scores of right rollouts against wrong ones."""
    scores = {"expansion": -late_mean(followed.log_growth, late), **_last_scores(followed)}
    return {
        name: metrics.q_auc_interval(Rollouts(right, score, finite))
        for name, score in scores.items()
    }


def _choices(
    followed: tangent.Followed, right: np.ndarray, finite: np.ndarray, num_rollouts: int
) -> dict[str, np.ndarray]:
    """How often the rollout that moves least, and that of best Q, is right: [R, B], by seed."""
    seeds = [slice(i, i + num_rollouts) for i in range(0, right.shape[1], num_rollouts)]

    def choose(rollouts: Rollouts) -> np.ndarray:
        parts = (rollouts.part(slice(None), seed) for seed in seeds)
        return np.stack([metrics.best_q_at_k(part, num_rollouts) for part in parts])

    scores = _last_scores(followed)
    return {name: choose(Rollouts(right, score, finite)) for name, score in scores.items()}


# --- Say -----------------------------------------------------------------------------------------


def find(found: Dynamics, settings: Settings) -> dict[str, Finding]:
    """The numbers of the figure."""
    said: dict[str, tuple[str, FindingUnit]] = {
        "expansion": ("growth of a tangent, ln per step", "number"),
        "expanding": ("rollouts in which a tangent grows", "%"),
        "move": ("move of y per step, RMS", "number"),
        "settled": ("rollouts that keep their answer", "%"),
        "calm": ("rollouts that move no more than right ones", "%"),
    }
    findings = {}
    for name, interval in found.ends.items():
        quantity, who = name.split("_", 1)
        what, unit = said[quantity]
        text = f"{what}, last {found.late} steps; {_LABELS[who]}"
        text += f", sigma {settings.search.sigma:g}" if who in ("right", "wrong") else ""
        if interval.num_puzzles:  # the group is not empty
            findings[name] = Finding.of(text, interval, unit)
    of = f"of {found.finite.shape[1]} rollouts, puzzles that TRM has"
    what_of = {"answers": "different answers", "basins": "basins"}
    for name, interval in found.numbers.items():
        quantity, who = name.split("_")
        truth = "right" if who == "solved" else "wrong"
        findings[name] = Finding.of(f"{what_of[quantity]} {of} {truth}", interval, "number")
    for who, interval in found.pairs.items():
        findings[f"together_{who}"] = Finding.of(f"pairs of {who} rollouts in one basin", interval)
    for name, what, threshold in (
        ("basin", "distance within a basin, RMS of y", found.near),
        ("calm", "largest move of y of a calm rollout, RMS", found.still),
    ):
        findings[f"{name}_threshold"] = Finding.single(what, threshold, "number")
    judges = {"expansion": "little growth", "residual": "little move", "q": "Q"}
    for name, interval in found.aucs.items():
        what = f"AUC of {judges[name]} over rollouts"
        findings[f"auc_{name}"] = Finding.of(what, interval, "number")
    width = settings.search.rollouts
    findings["residual_choice"] = Finding.of(f"least move of {width}", found.choices["residual"])
    findings["best_q"] = Finding.of(f"best-Q@{width}", found.choices["q"])
    findings["residual_gain"] = Finding.of(
        "least move against best-Q", found.choices["gain"], "points"
    )
    return findings


def _sign(finding: Finding) -> int:
    """Sign of a number whose interval, over at least five puzzles, excludes 0; otherwise 0."""
    if (finding.num_puzzles or 0) < 5 or finding.low is None or finding.high is None:
        return 0
    return int(finding.low > 0) - int(finding.high < 0)


def say(findings: Mapping[str, Finding], late: int) -> list[str]:
    """The numbers in sentences."""

    def text(name: str) -> str:
        return findings[name].text()

    end = {
        1: "wrong rollouts amplify small differences, as chaotic systems do",
        -1: "small differences shrink in wrong rollouts, too",
        0: "these puzzles do not show whether small differences grow in wrong rollouts",
    }[_sign(findings["expansion_wrong"])]
    sentences = [
        f"Over the last {late} steps the logarithm of a small change of the state grows by "
        f"{text('expansion_right')} per step in right rollouts and by {text('expansion_wrong')} in "
        f"wrong ones; {end}.",
        f"In these steps {text('settled_wrong')} of wrong rollouts keep their answer, against "
        f"{text('settled_right')} of right ones; y moves by {text('move_wrong')} per step against "
        f"{text('move_right')}, in units of its root mean square.",
        f"Two wrong rollouts of a puzzle end in one basin in {text('together_wrong')} of pairs, "
        f"two right ones in {text('together_right')}. The largest distance within a basin is the "
        f"{100 * COMMON:g} % quantile over pairs of right rollouts, "
        f"{findings['basin_threshold'].value:.3g}.",
        f"Without labels: AUC {text('auc_expansion')} for little growth, {text('auc_residual')} "
        f"for little move, {text('auc_q')} for Q. Choosing the rollout that moves least (EqR) "
        f"solves {text('residual_choice')}, best-Q {text('best_q')}: a difference of "
        f"{text('residual_gain')}.",
    ]
    trm = findings.get("expansion_trm_wrong")
    if trm is not None:
        grows = "Noise is not the cause: where" if _sign(trm) > 0 else "Where"
        sentences.insert(
            2,
            f"{grows} the deterministic TRM is wrong, growth is {trm.text()}, and "
            f"{text('settled_trm_wrong')} of its answers stay.",
        )
    return sentences


# --- Draw ----------------------------------------------------------------------------------------


def draw(found: Dynamics, caption: str) -> "Figure":
    """Curves over steps above; below growth, what has settled, and basins at the end."""
    figure, axes = charts.new_figure(caption, rows=2, columns=3, size=(4.9, 4.2), margin=0.2)
    labels = {
        "move_y": "how far y moves (RMS; a state has 1)",
        "move_z": "how far z moves (RMS; a state has 1)",
        "log_growth": "growth of a tangent (ln per step)",
    }
    for ax, (name, label) in zip(axes[0], labels.items(), strict=True):
        _draw_curves(ax, found.curves, name)
        ax.set(xlabel="supervision step", ylabel=label)
    axes[0, 2].axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    _draw_growth(axes[1, 0], found)
    _draw_settled(axes[1, 1], found)
    _draw_basins(axes[1, 2], found)
    charts.letters(axes)
    for ax in (axes[0, 0], *axes[1]):  # the curves share one legend
        charts.legend_below(ax)
    return figure


def _draw_curves(ax: "Axes", curves: Mapping[str, list[Interval]], name: str) -> None:
    for style, (who, label) in enumerate(_LABELS.items()):
        values = curves[f"{name}_{who}"]
        if not np.isnan(values[-1].mean):
            charts.band(ax, np.arange(1, len(values) + 1), values, style, label)
    if name != "log_growth":
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _draw_growth(ax: "Axes", found: Dynamics) -> None:
    known = np.isfinite(found.growth)
    bins = np.histogram_bin_edges(found.growth[known & found.finite], bins=30)
    for style, name in enumerate(("right", "wrong")):
        _, chosen = found.groups[name]
        count = (chosen & known).sum()
        ax.hist(
            found.growth[chosen & known],
            bins=bins.tolist(),
            weights=np.full(count, 1 / max(1, count)),
            color=charts.colour(style),
            alpha=0.6,
            label=f"{chosen.sum()} {name} rollouts",
        )
    ax.axvline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    ax.set(
        xlabel=f"growth, mean of the last {found.late} steps (ln per step)",
        ylabel="rollouts of the kind (%)",
    )
    charts.percent(ax)


def _draw_settled(ax: "Axes", found: Dynamics) -> None:
    """Fractions of rollouts, by group."""
    names = {"settled": "answer stays", "calm": "y calm", "expanding": "tangent grows"}
    for style, (who, label) in enumerate(_LABELS.items()):
        values = [found.ends[f"{name}_{who}"] for name in names]
        if values[0].num_puzzles:
            x = np.arange(len(names)) + 0.12 * (style - 1.5)
            charts.points(ax, x, values, style, label, linestyle="none")
    ax.set_xticks(range(len(names)), list(names.values()))
    ax.set(ylabel=f"rollouts of the kind, last {found.late} steps (%)", ylim=(-0.03, 1.03))
    charts.percent(ax)


def _draw_basins(ax: "Axes", found: Dynamics) -> None:
    """Puzzles by the number of basins in which their rollouts end."""
    num_rollouts = found.basin.shape[1]
    x = np.arange(1, num_rollouts + 1)
    groups = (("solved", found.solved), ("not solved", ~found.solved))
    for style, (label, which) in enumerate(groups):
        count = np.bincount(found.num_basins[which], minlength=num_rollouts + 1)[1:]
        ax.bar(
            x + 0.4 * (style - 0.5),
            count / max(1, which.sum()),
            width=0.38,
            color=charts.colour(style),
            label=f"{which.sum()} puzzles {label} by TRM",
        )
    ax.set(xlabel=f"basins of {num_rollouts} noisy rollouts", ylabel="puzzles of the kind (%)")
    charts.percent(ax)


# --- The figure ----------------------------------------------------------------------------------

_PANELS = (
    "a, b: root mean square change of y and z in each step; c: growth of a small change; d: its "
    "mean over the last steps\ne: rollouts whose answer stays, whose y moves no more than that of "
    "right rollouts, whose tangent grows; f: groups of rollouts that end close together"
)


def make(study: Study[Settings]) -> Exhibit:
    """Moves, growth of differences, what has settled, basins; choosing what moves least."""
    found = measure(study)
    findings = find(found, study.settings)
    caption = study.caption(more=_PANELS)
    steps = np.arange(1, study.settings.search.depth + 1)
    noisy, right = found.groups["right"]
    return study.exhibit(
        "Right rollouts settle, wrong ones may wander: moves, growth, basins",
        caption=caption,
        reading=say(findings, found.late),
        findings=findings,
        figure=draw(found, caption),
        data={
            "step": steps,
            **{name: np.array(values) for name, values in found.curves.items()},
            "right": right,
            "finite": found.finite,
            "basin": found.basin,
            "solved": found.solved,
            **{name: getattr(noisy, name) for name in _QUANTITIES},
        },
        rows=[
            {"rollouts": who, "step": step, "quantity": name}
            | dict(zip(("mean", "low", "high", "puzzles"), value, strict=True))
            for name in _QUANTITIES
            for who in found.groups
            for step, value in zip(steps, found.curves[f"{name}_{who}"], strict=True)
        ],
    )
