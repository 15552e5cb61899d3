"""Basin escape: do noisy rollouts solve what the deterministic TRM gets wrong? (PTRM Figure 5)

Trajectories of one failed puzzle; escapes counted over rollouts; how the probability of an escape
differs between failed puzzles, and the pass@k that follows from it.

Shape letters: B puzzles, F of them failed, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize, special

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, NothingToShow
from ptrm_jax.analysis.pca import Plane, principal_plane
from ptrm_jax.analysis.q_head import by_step, pooled
from ptrm_jax.analysis.study import Study
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import powers_of_two

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPICAL = 0.08
"""Escapes per rollout of the puzzle in the paper's figure: 8 of 100."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Rollouts of the puzzles that the deterministic TRM gets wrong."""


# --- Functions of arrays -------------------------------------------------------------------------


def shown_puzzle(escapes: np.ndarray, stuck: np.ndarray) -> int:
    """The puzzle to show: the one whose share of escapes is nearest to the paper's 8 %, but not 0.

    Args:
      escapes: [F, K] bool.
      stuck: [F] bool, puzzles that TRM has right at no step; one of these if any has an escape.

    Returns:
      Its row, the lowest among equals; 0 if no rollout of any puzzle escapes.
    """
    share = escapes.mean(axis=1)
    some = share > 0
    if (some & stuck).any():
        some &= stuck
    return int(np.where(some, np.abs(share - TYPICAL), np.inf).argmin())


def first_escape(escapes: np.ndarray) -> int | None:
    """Number, from 1, of the first of [K] rollouts that escapes; None if none does."""
    return int(escapes.argmax()) + 1 if escapes.any() else None


class Mixture(NamedTuple):
    """The distribution over puzzles of p, the probability that a rollout escapes.

    Attributes:
      never: fraction of puzzles with p = 0.
      a: first parameter of the beta distribution of p over the other puzzles.
      b: second parameter.
    """

    never: float
    a: float
    b: float

    def counts(self, num_rollouts: int) -> np.ndarray:
        """Probability of 0..K escapes among K rollouts: [K + 1]."""
        chance = (1 - self.never) * np.exp(_log_beta_binomial(num_rollouts, self.a, self.b))
        chance[0] += self.never
        return chance

    def pass_at(self, k: int) -> float:
        """Expected pass@k: (1 - never) (1 - B(a, b + k) / B(a, b))."""
        stay = np.exp(special.betaln(self.a, self.b + k) - special.betaln(self.a, self.b))
        return float((1 - self.never) * (1 - stay))


def _log_beta_binomial(n: int, a: float, b: float) -> np.ndarray:
    """Logarithm of the probability of 0..n escapes among n rollouts: [n + 1]."""
    c = np.arange(n + 1)
    ways = -np.log(n + 1) - special.betaln(c + 1, n - c + 1)
    return ways + special.betaln(c + a, n - c + b) - special.betaln(a, b)


def fit(histogram: np.ndarray) -> Mixture:
    """The maximum likelihood beta distribution with a point mass at 0.

    Few rollouts hardly distinguish p = 0 from a small p: `never` describes these rollouts and does
    not prove that a puzzle has no escape.

    Args:
      histogram: [K + 1] number of puzzles with 0..K escapes among their K rollouts; may be
        fractions.
    """
    n, total = len(histogram) - 1, histogram.sum()
    c = np.flatnonzero(histogram)
    weight = histogram[c] / total

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log likelihood of (logit never, log a, log b), and its gradient."""
        never, (a, b) = special.expit(x[0]), np.exp(x[1:])
        mixture = Mixture(never, a, b)
        chance = np.maximum(mixture.counts(n)[c], 1e-300)
        escapes = np.where(c == 0, 1 - never / chance, 1.0)  # probability of p > 0, given c
        both = special.digamma(a + b) - special.digamma(n + a + b)
        by_a = a * (special.digamma(c + a) - special.digamma(a) + both)
        by_b = b * (special.digamma(n - c + b) - special.digamma(b) + both)
        gradient = [1 - escapes - never, escapes * by_a, escapes * by_b]
        return -float(weight @ np.log(chance)), -(np.array(gradient) @ weight)

    # Zeros can be due to a point mass or to a small a: start from both.
    none = histogram[0] / total
    starts = ([-4.0, 0.0, 1.0], [special.logit(np.clip(0.9 * none, 0.02, 0.98)), 0.0, 1.0])
    bounds = [(-12.0, 12.0), (-5.0, 5.0), (-5.0, 7.0)]
    found = [optimize.minimize(loss, x, jac=True, method="TNC", bounds=bounds) for x in starts]
    best = min(found, key=lambda result: result.fun).x
    return Mixture(float(special.expit(best[0])), *map(float, np.exp(best[1:])))


class Prediction(NamedTuple):
    """Pass@k of the second half of the rollouts, from escapes of the first half.

    Attributes:
      k: rollouts.
      measured: unbiased pass@k of the second half.
      own: mean of 1 - (1 - p)^k, p each puzzle's share of escapes in the first half; biased low
        for k > 1, since p is an estimate (Jensen).
      fitted: the same mean over the `Mixture` fitted to the first half.
      common: 1 - (1 - p)^k with the mean p for all puzzles; too high if puzzles differ (Jensen).
      own_gap: own - measured, paired by puzzle.
      common_gap: common - measured, over the same resamples of puzzles.
    """

    k: int
    measured: Interval
    own: Interval
    fitted: Interval
    common: Interval
    own_gap: Interval
    common_gap: Interval


def predict(
    first: np.ndarray, second: np.ndarray, widths: list[int], *, num_resamples: int = 200
) -> list[Prediction]:
    """Predicts pass@k of some rollouts from the escapes of others.

    Args:
      first: [F, K1] bool, escapes to predict from.
      second: [F, K2] bool, escapes to predict.
      widths: k, each at most K2.
      num_resamples: resamples of puzzles, for `fitted` and `common_gap`.
    """
    num_puzzles, n = first.shape
    p, counts = first.mean(axis=1), first.sum(axis=1)
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(num_puzzles, np.full(num_puzzles, 1 / num_puzzles), num_resamples)
    mixtures = [
        fit(np.bincount(counts, weights, minlength=n + 1))
        for weights in (np.ones(num_puzzles), *drawn)
    ]
    mean = metrics.interval(p)

    def ends(value: float, resampled: np.ndarray) -> Interval:
        low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
        return Interval(value, low, high, num_puzzles)

    predictions = []
    for k in widths:
        measured, own = metrics.pass_at_k(second, k), 1 - (1 - p) ** k
        together = 1 - (1 - drawn @ p / num_puzzles) ** k
        of_mixtures = np.array([mixture.pass_at(k) for mixture in mixtures])
        value, low, high = (1 - (1 - x) ** k for x in mean[:3])
        predictions.append(
            Prediction(
                k,
                metrics.interval(measured),
                metrics.interval(own),
                ends(float(of_mixtures[0]), of_mixtures[1:]),
                Interval(value, low, high, num_puzzles),
                metrics.paired_difference(own, measured),
                ends(value - measured.mean(), together - drawn @ measured / num_puzzles),
            )
        )
    return predictions


# --- Measure -------------------------------------------------------------------------------------


class Basins(NamedTuple):
    """What the figure shows.

    Attributes:
      result: the sweep.
      wrong: [B] bool, puzzles that TRM fails; F of them.
      stuck: [F] bool, those that TRM has right at no step.
      right_at: [F, R * K, D] bool, rollouts of all seeds that are right after each step.
      chosen: the failed puzzle that is shown, 0..F-1.
      plane: of its states y: K rollouts of the first seed, then TRM, after every step.
      ends: of the same states after the last step alone.
      by_step: fraction of rollouts that are right, by "lost" and "stuck" puzzles, D intervals.
      mixture: fitted to the escapes of all rollouts.
      predictions: pass@k of the second half of the rollouts, from the first half.
      shares: fraction of puzzles "failed"; of failed puzzles "lost", "never" escaping and of their
        rollouts that escape, "escape_share", also of "lost" and "stuck" puzzles alone.
    """

    result: Result
    wrong: np.ndarray
    stuck: np.ndarray
    right_at: np.ndarray
    chosen: int
    plane: Plane
    ends: Plane
    by_step: dict[str, list[Interval]]
    mixture: Mixture
    predictions: list[Prediction]
    shares: dict[str, Interval]

    @property
    def row(self) -> int:
        """The puzzle that is shown, 0..B-1."""
        return int(np.flatnonzero(self.wrong)[self.chosen])

    @property
    def escapes(self) -> np.ndarray:
        """[F, R * K] bool, rollouts that are right after the last step."""
        return self.right_at[:, :, -1]

    @property
    def escaped(self) -> np.ndarray:
        """[K] bool, those of the puzzle that is shown, of the first seed."""
        return self.escapes[self.chosen, : len(self.plane.coordinates) - 1]


def measure(study: Study[Settings]) -> Basins:
    """Sweeps, and runs the rollouts of one failed puzzle again.

    Raises:
      NothingToShow: TRM fails no puzzle, or there is one rollout only.
    """
    search = study.settings.search
    result = study.sweep()
    trm = result.deterministic.rollouts.part(slice(None), 0, slice(search.depth))
    wrong = ~(trm.correct & trm.eligible)[:, -1]
    if not wrong.any():
        raise NothingToShow(
            f"the deterministic TRM solves all {len(wrong)} puzzles, so that there is none to "
            "escape from; pass more or harder puzzles, or a smaller depth"
        )
    if search.rollouts * len(search.seeds) < 2:
        raise NothingToShow("one rollout has no second half to predict; pass more rollouts")
    rollouts = pooled(result, search.sigma)
    right_at = (rollouts.correct & rollouts.eligible)[wrong]
    escapes = right_at[:, :, -1]
    # If TRM was right at an earlier step, rollouts that are right may not have been lost yet.
    stuck = ~np.any(trm.correct[wrong], axis=1)
    chosen = shown_puzzle(escapes[:, : search.rollouts], stuck)  # `replay` runs the first seed
    row = int(np.flatnonzero(wrong)[chosen])
    noisy = study.replay([row], range(search.rollouts)).y[0]
    states = np.concatenate([noisy, study.replay([row], sigma=0.0).y[0]])
    states = states.reshape(*states.shape[:2], -1)
    half = escapes.shape[1] // 2
    return Basins(
        result,
        wrong,
        stuck,
        right_at,
        chosen,
        principal_plane(states),
        principal_plane(states[:, -1]),
        {
            name: by_step(
                right_at[which].astype(np.float64), np.ones_like(escapes[which]), (0.0, 1.0)
            )
            for name, which in (("lost", ~stuck), ("stuck", stuck))
            if which.any()
        },
        fit(np.bincount(escapes.sum(axis=1), minlength=escapes.shape[1] + 1)),
        predict(escapes[:, :half], escapes[:, half:], powers_of_two(half)),
        _shares(wrong, stuck, escapes),
    )


def _shares(wrong: np.ndarray, stuck: np.ndarray, escapes: np.ndarray) -> dict[str, Interval]:
    share = escapes.mean(axis=1)
    shares = {"failed": wrong, "escape_share": share, "lost": ~stuck, "never": share == 0}
    shares |= {
        f"escape_share_{name}": share[which]
        for name, which in (("lost", ~stuck), ("stuck", stuck))
        if which.any()
    }
    return {name: metrics.interval(values) for name, values in shares.items()}


# --- Say -----------------------------------------------------------------------------------------


def find(found: Basins) -> dict[str, Finding]:
    """The numbers of the figure."""
    what = {
        "failed": f"puzzles that TRM gets wrong, D={found.right_at.shape[2]}",
        "escape_share": "rollouts of these that are right",
        "lost": "failed puzzles that TRM has right at an earlier step",
        "never": f"failed puzzles with no escape in {found.escapes.shape[1]} rollouts",
        "escape_share_lost": "rollouts that are right, failed puzzles that TRM has right at an "
        "earlier step",
        "escape_share_stuck": "rollouts that are right, failed puzzles that TRM never has right",
    }
    last = found.predictions[-1]
    pass_k = f"pass@{last.k}"
    return {
        **{name: Finding.of(what[name], share) for name, share in found.shares.items()},
        "never_fitted": Finding.single(
            "failed puzzles with p = 0, fitted", found.mixture.never, "%", len(found.stuck)
        ),
        "pass_measured": Finding.of(f"{pass_k} of failed puzzles", last.measured),
        "pass_predicted": Finding.of(f"{pass_k}, from each puzzle's p", last.own),
        "pass_fitted": Finding.of(f"{pass_k}, from the fitted distribution", last.fitted),
        "pass_common": Finding.of(f"{pass_k}, from one common p", last.common),
        "gap_predicted": Finding.of("each puzzle's p minus measured", last.own_gap, "points"),
        "gap_common": Finding.of("one common p minus measured", last.common_gap, "points"),
    }


def say(found: Basins, findings: Mapping[str, Finding]) -> list[str]:
    """The numbers in sentences."""
    text = {name: finding.text() for name, finding in findings.items()}
    right, last, count = found.escaped, found.predictions[-1], len(found.stuck)
    never = int((~found.escapes.any(axis=1)).sum())
    early = "".join(f", {right[:k].sum()} of the first {k}" for k in (5, 25) if k < len(right))
    first = f"; the first is number {first_escape(right)}" if right.any() else ""
    which = "puzzles that TRM never has right" if found.stuck[found.chosen] else "failed puzzles"
    ends = " and ".join(
        f"{text[f'escape_share_{name}']}, on {what}"
        for name, what in (("lost", "these"), ("stuck", "puzzles that TRM never has right"))
        if f"escape_share_{name}" in text
    )
    if last.common_gap.low > 0:
        differ = "too high: failed puzzles differ in their probability of an escape"
    else:
        differ = "not significantly too high, so that these puzzles may have equal probabilities"
    return [
        f"TRM gets {count} of {len(found.wrong)} puzzles wrong after step "
        f"{found.right_at.shape[2]}. Of their noisy rollouts {text['escape_share']}, are right; "
        f"{never} of the {count} puzzles are solved by none of {found.escapes.shape[1]} rollouts.",
        f"TRM has {text['lost']}, of them right at an earlier step and loses them. In the end, of "
        f"the noisy rollouts {ends}, are right.",
        f"Puzzle {found.row} is shown: of the {which}, its share of escapes is nearest to the "
        f"paper's {100 * TYPICAL:g} %. {int(right.sum())} of its {len(right)} rollouts "
        f"escape{early}{first}.",
        f"Pass@{last.k} of one half of the rollouts is {text['pass_measured']}. The other half "
        f"predicts {text['pass_predicted']}, from each puzzle's own share of escapes, "
        f"{text['pass_fitted']}, from a fitted distribution of it, and {text['pass_common']}, from "
        "one share for all puzzles.",
        f"The prediction from one share for all puzzles is {differ} ({text['gap_common']}).",
    ]


# --- Draw ----------------------------------------------------------------------------------------

_PANELS = (
    "a: y of every step, noisy rollouts and TRM (black); b: y of the last step; c: number of "
    "rollouts that escaped, as they are added\nd: rollouts that are right after each step; e: "
    "failed puzzles by their share of escapes; f: pass@k predicted from half of the rollouts"
)


def draw(found: Basins, caption: str) -> "Figure":
    """One puzzle above: states, last states, count of escapes; below all failed puzzles."""
    figure, axes = charts.new_figure(caption, rows=2, columns=3, size=(4.9, 4.4), margin=0.2)
    _draw_paths(axes[0, 0], found)
    _draw_ends(axes[0, 1], found.ends, found.escaped)
    _label_plane(axes[0, 1], found.ends, f"y of the last step, puzzle {found.row}")
    _draw_count(axes[0, 2], found)
    _draw_by_step(axes[1, 0], found)
    _draw_shares(axes[1, 1], found.escapes, found.mixture)
    _draw_predictions(axes[1, 2], found.predictions)
    for ax in (axes[0, 2], axes[1, 1]):
        ax.yaxis.get_major_locator().set_params(integer=True)
    charts.letters(axes)
    for ax in axes.flat:
        charts.legend_below(ax)
    return figure


def _draw_paths(ax: "Axes", found: Basins) -> None:
    """Noisy rollouts thin, the deterministic one, which is the last, bold; ends marked."""
    points, right = found.plane.coordinates, found.escaped
    for path, escaped in zip(points[:-1], right, strict=True):
        ax.plot(
            *path.T,
            color=charts.colour(2 if escaped else 1),
            linewidth=1.0 if escaped else 0.5,
            alpha=0.8 if escaped else 0.25,
            zorder=3 if escaped else 2,
        )
    ax.plot(*points[-1].T, color="black", linewidth=1.6, zorder=5)
    _draw_ends(ax, found.plane._replace(coordinates=points[:, -1]), right)
    ax.annotate(
        "step 1",
        points[-1, 0],
        xytext=(10, 8),
        textcoords="offset points",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        zorder=7,
    )
    _label_plane(ax, found.plane, f"y over steps, puzzle {found.row}")


def _draw_ends(ax: "Axes", plane: Plane, right: np.ndarray) -> None:
    """End points [K + 1, 2], the last one of the deterministic TRM."""
    ends = plane.coordinates
    for style, marker, name in ((1, "X", "wrong"), (2, "o", "right")):
        which = ends[:-1][right == (name == "right")]
        ax.scatter(
            which[:, 0],
            which[:, 1],
            color=charts.colour(style),
            marker=marker,
            s=34,
            zorder=4,
            edgecolors="white",
            linewidths=0.5,
            label=f"{len(which)} rollouts end {name}",
        )
    label = "deterministic TRM, wrong"
    ax.scatter(ends[-1, 0], ends[-1, 1], color="black", marker="P", s=70, zorder=6, label=label)


def _label_plane(ax: "Axes", plane: Plane, what: str) -> None:
    first, second = (f"{100 * share:.0f} % of variance" for share in plane.share)
    ax.set(xlabel=f"component 1 of {what} ({first})", ylabel=f"component 2 ({second})")


def _draw_count(ax: "Axes", found: Basins) -> None:
    """Escapes among the first k rollouts of the puzzle that is shown."""
    right = found.escaped
    k, share = np.arange(1, len(right) + 1), right.mean()
    ax.step(k, right.cumsum(), where="mid", color=charts.colour(0), label="escaped")
    expected = f"expected at {100 * share:.1f} % each"
    ax.plot(k, k * share, color=charts.GREY, linestyle=":", label=expected)
    ax.set(xlabel=f"first k rollouts, puzzle {found.row}", ylabel="rollouts that escaped")


def _draw_by_step(ax: "Axes", found: Basins) -> None:
    steps = np.arange(1, found.right_at.shape[2] + 1)
    what = {
        "lost": (~found.stuck, "right at an earlier step"),
        "stuck": (found.stuck, "never right"),
    }
    for style, (name, (which, label)) in enumerate(what.items()):
        if name in found.by_step:
            label = f"{which.sum()} puzzles, TRM {label}"
            charts.band(ax, steps, found.by_step[name], style, label)
    of_one = found.right_at[found.chosen, : len(found.escaped)].mean(axis=0)
    ax.plot(steps, of_one, color=charts.colour(2), linestyle="--", label=f"puzzle {found.row}")
    ax.set(xlabel="supervision step", ylabel="rollouts that are right (%)", ylim=(0, None))
    charts.percent(ax)


def _draw_shares(ax: "Axes", escapes: np.ndarray, mixture: Mixture) -> None:
    """Failed puzzles by their share of escapes, with the fitted distribution."""
    num_puzzles, n = escapes.shape
    bins = min(16, n)
    # A bar for 0 alone; (0, 1] in equal bins.
    which = -(-escapes.sum(axis=1) * bins // n)
    expected = np.bincount(-(-np.arange(n + 1) * bins // n), mixture.counts(n))
    x = (np.arange(bins + 1) - 0.5) / bins
    x[0] = -0.5 / bins
    ax.bar(
        x,
        np.bincount(which, minlength=bins + 1),
        width=0.9 / bins,
        color=[charts.GREY] + [charts.colour(0)] * bins,
        label="failed puzzles (grey: no escape)",
    )
    ax.plot(
        x,
        num_puzzles * expected,
        color=charts.colour(1),
        marker="s",
        markersize=4,
        linewidth=1,
        label=f"beta({mixture.a:.2g}, {mixture.b:.2g}), {100 * mixture.never:.0f} % at 0",
    )
    ax.set(xlabel=f"share of {n} rollouts that escape (%)", ylabel="failed puzzles")
    charts.percent(ax, "x")


def _draw_predictions(ax: "Axes", predictions: list[Prediction]) -> None:
    widths = np.array([prediction.k for prediction in predictions])
    labels = {
        "measured": "measured, second half of the rollouts",
        "own": "predicted, each puzzle's own p",
        "common": "predicted, one p for all",
        "fitted": "predicted, beta with a mass at 0",
    }
    for style, (name, label) in enumerate(labels.items()):
        values = [getattr(prediction, name) for prediction in predictions]
        line = "-" if name == "measured" else "--"
        x = widths * 1.03 ** (style - 1.5)
        charts.points(ax, x, values, style, label, linestyle=line)
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(k) for k in widths])
    ax.set(xlabel="k rollouts", ylabel="pass@k of failed puzzles (%)", ylim=(0, None))
    charts.percent(ax)


# --- The figure ----------------------------------------------------------------------------------


def make(study: Study[Settings]) -> Exhibit:
    """One failed puzzle: trajectories, ends, escapes; all: when, how often, predicted pass@k."""
    found = measure(study)
    findings = find(found)
    caption = study.caption(found.result, _PANELS)
    return study.exhibit(
        "Noisy rollouts escape where the deterministic TRM is wrong (PTRM Figure 5)",
        caption=caption,
        result=found.result,
        reading=say(found, findings),
        findings=findings,
        figure=draw(found, caption),
        data={
            "failed": np.flatnonzero(found.wrong),
            "shown": np.array(found.row),
            "stuck": found.stuck,
            "right_at": found.right_at,
            "plane": found.plane.coordinates,
            "plane_share": found.plane.share,
            "ends": found.ends.coordinates,
            "ends_share": found.ends.share,
            "mixture": np.array(found.mixture),
            **{
                name: np.array([getattr(prediction, name) for prediction in found.predictions])
                for name in Prediction._fields
            },
        },
        rows=[
            {"k": prediction.k}
            | {
                f"{name}{end}": getattr(getattr(prediction, name), part)
                for name in ("measured", "own", "fitted", "common")
                for end, part in (("", "mean"), ("_low", "low"), ("_high", "high"))
            }
            for prediction in found.predictions
        ],
    )
