"""The recursion as a dynamical system: does it settle, does it expand, how many ends does it have?

Per supervision step how far the states move and how much a small change of them grows (the largest
finite-time Lyapunov exponent), for rollouts right and wrong in the end; at the end, what has
settled, and the basins: groups of rollouts that have ended in one place.

Shape letters: B puzzles, K rollouts, D supervision steps, S tokens, F numbers of a state.
"""

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial import distance

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study, tangent
from ptrm_jax.analysis.exhibit import Exhibit, Finding, NothingToShow
from ptrm_jax.analysis.q_head import by_step
from ptrm_jax.config import check_int
from ptrm_jax.data import Dataset
from ptrm_jax.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COMMON = 0.95
"""Share of right rollouts, or of pairs of them, that a threshold taken from them lets pass."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Rollouts with a tangent each, several times the work of plain ones."""

    num_puzzles: int | None = 48
    rollouts: int = 8
    late: int = 4
    """The last so many steps, by which it is told what has settled; all if there are fewer."""

    def __post_init__(self) -> None:
        check_int("late", self.late, 1)


def keeps_answer(answers: np.ndarray, late: int) -> np.ndarray:
    """Whether all of the last `late` steps give one answer: [B, K] bool, of [B, K, D, S]."""
    last = answers[:, :, -late:]
    return (last == last[:, :, -1:]).all(axis=(2, 3))


def late_mean(values: np.ndarray, late: int) -> np.ndarray:
    """Mean over the last `late` steps: [B, K] float64, of [B, K, D]."""
    return values[:, :, -late:].mean(axis=2, dtype=np.float64)


def calm(move: np.ndarray, right: np.ndarray) -> float:
    """How much right rollouts move at the most, all but 5 % of them; NaN if there are none.

    Args:
      move: [B, K] float.
      right: [B, K] bool.
    """
    return float(np.quantile(move[right], COMMON)) if right.any() else np.nan


def noise_spread(states: np.ndarray, right: np.ndarray) -> float:
    """How far apart right rollouts of one puzzle end, all but 5 % of their pairs.

    They give the same answer, so what is between them is the noise.

    Args:
      states: [B, K, F] float.
      right: [B, K] bool.

    Returns:
      Root mean square over F of the difference of two states; NaN if no puzzle has two.
    """
    pairs = [_apart(x[which]) for x, which in zip(states, right, strict=True) if which.sum() > 1]
    return float(np.quantile(np.concatenate(pairs), COMMON)) if pairs else np.nan


def basins(states: np.ndarray, threshold: float) -> np.ndarray:
    """Groups of end states of one puzzle: chains of steps no longer than a threshold.

    Args:
      states: [K, F] float.
      threshold: on the root mean square over F of the difference of two states.

    Returns:
      [K] int, the basin of each, from 1.

    Single linkage; the one basin of a lone state is 1.
    """
    if len(states) < 2:
        return np.ones(len(states), int)
    return hierarchy.fcluster(hierarchy.linkage(_apart(states), "single"), threshold, "distance")


def _apart(states: np.ndarray) -> np.ndarray:
    """Root mean square differences of all pairs of [K, F], as scipy orders pairs."""
    return distance.pdist(states.astype(np.float64)) / np.sqrt(states.shape[1])


def together(basin: np.ndarray, chosen: np.ndarray) -> Interval:
    """Chance that two chosen rollouts of one puzzle have ended in the same basin.

    Unlike a number of basins it does not grow with the number of rollouts.

    Args:
      basin: [B, K] int, of each rollout within its puzzle.
      chosen: [B, K] bool.

    Returns:
      The chance, over all pairs, with its interval over puzzles.
    """
    both = chosen[:, :, None] & chosen[:, None, :] & ~np.eye(chosen.shape[1], dtype=bool)
    same = both & (basin[:, :, None] == basin[:, None, :])
    return metrics.ratio_interval(same.sum(axis=(1, 2)), both.sum(axis=(1, 2)), bounds=(0, 1))


def rate(what: np.ndarray, chosen: np.ndarray) -> Interval:
    """Mean over chosen rollouts, [B, K] each, with its interval over puzzles.

    What is not finite takes no part.
    """
    chosen = chosen & np.isfinite(what)
    sums = np.where(chosen, what, 0).sum(axis=1), chosen.sum(axis=1)
    return metrics.ratio_interval(*sums, bounds=(0, 1) if what.dtype == bool else None)


def number_of(labels: np.ndarray, finite: np.ndarray) -> np.ndarray:
    """How many different labels each row of [B, K] has where `finite`: [B]."""
    return np.array([len(np.unique(row[f])) for row, f in zip(labels, finite, strict=True)])


def _follow(study: study.Study, sigma: float) -> tangent.Followed:
    """The rollouts of all seeds, or the deterministic one, with their tangents: [B, R * K, ...]."""
    settings = study.settings
    seeds = settings.seeds if sigma else settings.seeds[:1]
    rollouts = range(settings.rollouts if sigma else 1)
    total = len(seeds) * len(rollouts) * len(study.puzzles) * settings.depth
    done, parts = 0, []

    def progress(steps: int) -> None:
        nonlocal done
        done += steps
        study.progress(done, total, f"tangents, sigma {sigma:g}")

    for seed in seeds:
        parts.append(
            tangent.follow(
                *(study.model, study.params),
                jax.random.key(seed, impl="threefry2x32"),
                study.puzzles.puzzles,
                rollouts=rollouts,
                depth=settings.depth,
                sigma=sigma,
                lane_tile=study.lane_tile,
                devices=study.devices,
                progress=progress,
            )
        )
    return tangent.Followed(*(np.concatenate(x, axis=1) for x in zip(*parts, strict=True)))


def make(study: study.Study) -> list[Exhibit]:
    """Moves, growth of distances, what has settled, basins; and choice by how little moves."""
    settings, puzzles = study.settings, study.puzzles
    late, sigma = min(settings.late, settings.depth), settings.sigma
    noisy, quiet = _follow(study, sigma), _follow(study, 0.0)
    right, wrong = _right_and_wrong(noisy, puzzles)
    quiet_right, quiet_wrong = _right_and_wrong(quiet, puzzles)
    finite = right | wrong
    states = noisy.y.reshape(*right.shape, -1)
    near = noise_spread(states, right)
    if not wrong.any() or np.isnan(near):
        raise NothingToShow(
            "right rollouts are to be compared with wrong ones, by what is between two right ones "
            f"of a puzzle; {right.sum()} of {right.size} are right; pass more rollouts, or puzzles "
            "of which the model solves some"
        )
    basin = np.zeros(right.shape, int)
    for row, which, labels in zip(states, finite, basin, strict=True):
        labels[which] = basins(row[which], near)
    groups = {
        "right": (noisy, right),
        "wrong": (noisy, wrong),
        "trm_right": (quiet, quiet_right),
        "trm_wrong": (quiet, quiet_wrong),
    }
    curves = {
        f"{name}_{who}": by_step(getattr(followed, name), chosen)
        for name in ("move_y", "move_z", "log_growth")
        for who, (followed, chosen) in groups.items()
    }
    still = calm(late_mean(noisy.move_y, late), right)
    ends = {}
    for who, (followed, chosen) in groups.items():
        growth = late_mean(followed.log_growth, late)
        moves = late_mean(followed.move_y, late)
        ends |= {
            f"expansion_{who}": rate(growth, chosen),
            f"expanding_{who}": rate(growth > 0, chosen),
            f"move_{who}": rate(moves, chosen),
            f"settled_{who}": rate(keeps_answer(followed.answers, late), chosen),
            f"calm_{who}": rate(moves <= still, chosen),
        }
    counts = {
        "answers": number_of(metrics.answer_ids(noisy.answers[:, :, -1]), finite),
        "basins": number_of(basin, finite),
    }
    solved = quiet_right[:, 0]
    judged = _judges(noisy, right, finite, late)
    chosen = _choices(noisy, right, finite, settings.rollouts)

    figure, axes = charts.new_figure(
        study.caption(), rows=2, columns=3, size=(4.9, 4.0), margin=0.2
    )
    steps = np.arange(1, settings.depth + 1)
    for ax, name, what in (
        (axes[0, 0], "move_y", "how far y moves (RMS; a state has 1)"),
        (axes[0, 1], "move_z", "how far z moves (RMS; a state has 1)"),
        (axes[0, 2], "log_growth", "growth of a tangent (ln per step)"),
    ):
        for style, (who, label) in enumerate(_LABELS.items()):
            values = curves[f"{name}_{who}"]
            if not np.isnan(values[-1].mean):
                charts.band(ax, steps, values, style, label)
        ax.set(xlabel="supervision step", ylabel=what)
        if name != "log_growth":
            ax.set_yscale("log")
            ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0, 2].axhline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    _histogram(axes[1, 0], late_mean(noisy.log_growth, late), right, wrong)
    axes[1, 0].set(xlabel=f"growth, mean of the last {late} steps (ln per step)")
    _settled(axes[1, 1], ends, late)
    _basins(axes[1, 2], counts["basins"], solved, right.shape[1])
    for ax in (axes[0, 0], *axes[1]):  # the first row has one legend
        ax.legend(fontsize=8)

    findings = _findings(ends, late, sigma)
    for name, what in (("answers", "different answers"), ("basins", "basins")):
        for who, which in (("solved", solved), ("failed", ~solved)):
            mean = metrics.ratio_interval(counts[name] * which, which)
            text = f"{what} of {right.shape[1]} rollouts, puzzles that TRM has {_TRUTH[who]}"
            findings[f"{name}_{who}"] = Finding.of(text, mean, "number")
    findings |= {
        "together_right": Finding.of(
            "pairs of right rollouts in one basin", together(basin, right)
        ),
        "together_wrong": Finding.of(
            "pairs of wrong rollouts in one basin", together(basin, wrong)
        ),
        "basin_threshold": Finding(
            "distance within a basin, RMS of y", near, None, None, None, "number"
        ),
        "calm_threshold": Finding(
            "largest move of y of a calm rollout, RMS", still, None, None, None, "number"
        ),
        **{
            f"auc_{name}": Finding.of(f"AUC of {what} over rollouts", judged[name], "number")
            for name, what in _JUDGES.items()
        },
        "residual_choice": Finding.of(
            f"least move of {settings.rollouts}", metrics.interval(chosen["residual"])
        ),
        "best_q": Finding.of(f"best-Q@{settings.rollouts}", metrics.interval(chosen["q"])),
        "residual_gain": Finding.of(
            "least move against best-Q",
            metrics.paired_difference(chosen["residual"], chosen["q"]),
            "points",
        ),
    }
    return [
        Exhibit(
            name="dynamics",
            title="What right and wrong rollouts do in the end: settle or wander",
            caption=study.caption(),
            command=study.command,
            reading=_reading(findings, late),
            findings=findings,
            provenance=study.provenance,
            figure=figure,
            data={
                "step": steps,
                **{name: np.array(values) for name, values in curves.items()},
                "right": right,
                "finite": finite,
                "basin": basin,
                "solved": solved,
                "log_growth": noisy.log_growth,
                "move_y": noisy.move_y,
                "move_z": noisy.move_z,
            },
            rows=[
                {"rollouts": who, "step": step, "quantity": name}
                | dict(zip(("mean", "low", "high", "puzzles"), value, strict=True))
                for name in ("move_y", "move_z", "log_growth")
                for who in groups
                for step, value in zip(steps, curves[f"{name}_{who}"], strict=True)
            ],
        )
    ]


_LABELS = {
    "right": "rollout, right in the end",
    "wrong": "rollout, wrong in the end",
    "trm_right": "deterministic, right",
    "trm_wrong": "deterministic, wrong",
}
_TRUTH = {"solved": "right", "failed": "wrong"}
_JUDGES = {"expansion": "little growth", "residual": "little move", "q": "Q"}


def _right_and_wrong(followed: tangent.Followed, puzzles: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """[B, K] bool each, after the last step; a rollout that is not finite is neither."""
    answers = followed.answers[:, :, -1]
    correct = metrics.exact(answers, puzzles.labels, ignore_label=puzzles.ignore_label)
    finite = followed.finite.all(axis=2)
    return correct & finite, ~correct & finite


def _move(followed: tangent.Followed) -> np.ndarray:
    """[B, K, D], of y and z together."""
    return np.sqrt((np.square(followed.move_y) + np.square(followed.move_z)) / 2)


def _judges(
    followed: tangent.Followed, right: np.ndarray, finite: np.ndarray, late: int
) -> dict[str, Interval]:
    """How well growth, move and Q tell right rollouts from wrong ones: AUC."""
    scores = {
        "expansion": -late_mean(followed.log_growth, late),
        "residual": -_move(followed)[:, :, -1],
        "q": followed.q_logit[:, :, -1],
    }
    return {
        name: metrics.q_auc_interval(right, score, finite=finite) for name, score in scores.items()
    }


def _choices(
    followed: tangent.Followed, right: np.ndarray, finite: np.ndarray, rollouts: int
) -> dict[str, np.ndarray]:
    """Whether the rollout that moves least, and that of best Q, is right: [R, B] each, by seed."""
    scores = {"residual": -_move(followed)[:, :, -1], "q": followed.q_logit[:, :, -1]}
    seeds = range(0, right.shape[1], rollouts)
    return {
        name: np.stack(
            [
                metrics.best_q_at_k(
                    *(x[:, first : first + rollouts] for x in (right, score)),
                    rollouts,
                    finite=finite[:, first : first + rollouts],
                )
                for first in seeds
            ]
        )
        for name, score in scores.items()
    }


def _findings(ends: dict[str, Interval], late: int, sigma: float) -> dict[str, Finding]:
    """Of every group of rollouts that has some."""
    said = {
        "expansion": ("growth of a tangent, ln per step", "number"),
        "expanding": ("rollouts in which it grows", "%"),
        "move": ("move of y per step, RMS", "number"),
        "settled": ("rollouts that keep their answer", "%"),
        "calm": ("rollouts that move no more than right ones", "%"),
    }
    found = {}
    for name, interval in ends.items():
        quantity, who = name.split("_", 1)
        what, unit = said[quantity]
        text = f"{what}, last {late} steps; {_LABELS[who]}"
        text += f", sigma {sigma:g}" if who in ("right", "wrong") else ""
        if interval.num_puzzles:
            found[name] = Finding.of(text, interval, unit)
    return found


def _sign(finding: Finding) -> int:
    """Of a number that an interval over five puzzles or more tells from 0; otherwise 0."""
    if (finding.num_puzzles or 0) < 5:
        return 0
    return int(finding.low > 0) - int(finding.high < 0)


def _reading(findings: dict[str, Finding], late: int) -> list[str]:
    def text(name: str) -> str:
        return findings[name].text()

    end = {
        1: "wrong rollouts amplify small differences: they wander, as chaos does",
        -1: "in wrong rollouts small differences shrink as well",
        0: "these puzzles do not tell whether small differences grow in wrong rollouts",
    }[_sign(findings["expansion_wrong"])]
    sentences = [
        f"Over the last {late} steps the logarithm of a small change of the state grows by "
        f"{text('expansion_right')} per step in right rollouts and by {text('expansion_wrong')} in "
        f"wrong ones; {end}.",
        f"In these steps {text('settled_wrong')} of wrong rollouts keep their answer, against "
        f"{text('settled_right')} of right ones; y moves by {text('move_wrong')} per step against "
        f"{text('move_right')}, in units of its root mean square.",
        f"Pairs of wrong rollouts of a puzzle end in one basin for {text('together_wrong')}, pairs "
        f"of right ones for {text('together_right')}; the distance within a basin is taken from "
        f"right pairs, {100 * COMMON:g} % of which are nearer than "
        f"{findings['basin_threshold'].value:.3g}.",
        f"Without labels: AUC {text('auc_expansion')} for little growth, {text('auc_residual')} "
        f"for little move, {text('auc_q')} for Q. Choosing the rollout that moves least (EqR) "
        f"solves {text('residual_choice')}, best-Q {text('best_q')}: a difference of "
        f"{text('residual_gain')}.",
    ]
    quiet = findings.get("expansion_trm_wrong")
    if quiet is not None:
        where = "It takes no noise: where" if _sign(quiet) > 0 else "Where"
        sentences.insert(
            2,
            f"{where} the deterministic TRM is wrong, growth is {quiet.text()}, and "
            f"{text('settled_trm_wrong')} of its answers stay.",
        )
    return sentences


def _histogram(ax: "Axes", growth: np.ndarray, right: np.ndarray, wrong: np.ndarray) -> None:
    known = np.isfinite(growth)
    bins = np.histogram_bin_edges(growth[known & (right | wrong)], bins=30)
    for style, (who, label) in enumerate(((right, "right"), (wrong, "wrong"))):
        ax.hist(
            growth[who & known],
            bins=bins,
            weights=np.full((who & known).sum(), 1 / max(1, (who & known).sum())),
            color=charts.colour(style),
            alpha=0.6,
            label=f"{who.sum()} {label} rollouts",
        )
    ax.axvline(0, color=charts.GREY, linewidth=0.8, linestyle=":")
    ax.set(ylabel="rollouts of the kind (%)")
    charts.percent(ax)


def _settled(ax: "Axes", ends: dict[str, Interval], late: int) -> None:
    """Fractions of rollouts, by group."""
    names = {"settled": "answer stays", "calm": "y calm", "expanding": "tangent grows"}
    for style, (who, label) in enumerate(_LABELS.items()):
        values = [ends[f"{name}_{who}"] for name in names]
        if values[0].num_puzzles:
            x = np.arange(len(names)) + 0.12 * (style - 1.5)
            charts.points(ax, x, values, style, label, linestyle="none")
    ax.set_xticks(range(len(names)), names.values())
    ax.set(ylabel=f"rollouts of the kind, last {late} steps (%)", ylim=(-0.03, 1.03))
    charts.percent(ax)


def _basins(ax: "Axes", number: np.ndarray, solved: np.ndarray, num_rollouts: int) -> None:
    """Puzzles by how many basins their rollouts have ended in."""
    x = np.arange(1, num_rollouts + 1)
    for style, (which, label) in enumerate(((solved, "solved"), (~solved, "not solved"))):
        count = np.bincount(number[which], minlength=num_rollouts + 1)[1:]
        ax.bar(
            x + 0.4 * (style - 0.5),
            count / max(1, which.sum()),
            width=0.38,
            color=charts.colour(style),
            label=f"{which.sum()} puzzles {label} by TRM",
        )
    ax.set(xlabel=f"basins of {num_rollouts} noisy rollouts", ylabel="puzzles of the kind (%)")
    charts.percent(ax)
