"""Basin escape: do noisy rollouts solve what the deterministic TRM gets wrong? (PTRM Figure 5)

Trajectories of one failed puzzle; escapes counted over rollouts; how the chance to escape differs
among failed puzzles, and the pass@k that follows from it.

Shape letters: B puzzles, F of them failed, K rollouts, D supervision steps.
"""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize, special

from ptrm_jax import charts, metrics, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, NothingToShow
from ptrm_jax.analysis.pca import Plane, principal_plane
from ptrm_jax.analysis.q_head import by_step, pooled
from ptrm_jax.metrics import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TYPICAL = 0.08
"""Escapes per rollout of the puzzle in the paper's figure: 8 of 100."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Rollouts of the puzzles that the deterministic TRM gets wrong."""


def shown_puzzle(escapes: np.ndarray, stuck: np.ndarray) -> int:
    """The puzzle to look at: escapes nearest to the paper's 8 % of rollouts, among those with any.

    Args:
      escapes: [F, K] bool.
      stuck: [F] bool, puzzles preferred to all others if they have an escape: TRM is never right.

    Returns:
      Its row; the lowest of equals, and row 0 if no rollout of any puzzle escapes.
    """
    share = escapes.mean(axis=1)
    some = share > 0
    if (some & stuck).any():
        some &= stuck
    return int(np.where(some, np.abs(share - TYPICAL), np.inf).argmin())


def first_escape(escapes: np.ndarray) -> int | None:
    """Number, from 1, of the first of [K] rollouts that escapes; None where none does."""
    return int(escapes.argmax()) + 1 if escapes.any() else None


class Mixture(NamedTuple):
    """How the chance p of a rollout to escape is spread over puzzles.

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
    """Logarithm of the probability of 0..n of n."""
    c = np.arange(n + 1)
    ways = -np.log(n + 1) - special.betaln(c + 1, n - c + 1)
    return ways + special.betaln(c + a, n - c + b) - special.betaln(a, b)


def fit(histogram: np.ndarray) -> Mixture:
    """The most likely beta distribution with a point mass at 0.

    Few rollouts can hardly tell p = 0 from a small p: `never` is a description of these rollouts,
    not a proof that a puzzle has no way out.

    Args:
      histogram: [K + 1] number of puzzles with 0..K escapes among their K rollouts; weights of a
        resample may be fractions.
    """
    n, total = len(histogram) - 1, histogram.sum()
    c = np.flatnonzero(histogram)
    weight = histogram[c] / total

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log likelihood of (logit never, log a, log b), and its gradient."""
        never, (a, b) = special.expit(x[0]), np.exp(x[1:])
        mixture = Mixture(never, a, b)
        chance = np.maximum(mixture.counts(n)[c], 1e-300)
        escapes = np.where(c == 0, 1 - never / chance, 1.0)  # chance that such a puzzle has p > 0
        both = special.digamma(a + b) - special.digamma(n + a + b)
        by_a = a * (special.digamma(c + a) - special.digamma(a) + both)
        by_b = b * (special.digamma(n - c + b) - special.digamma(b) + both)
        gradient = [1 - escapes - never, escapes * by_a, escapes * by_b]
        return -float(weight @ np.log(chance)), -(np.array(gradient) @ weight)

    # A share of zeros can be a point mass or a small a: begin from both.
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
      own: mean of 1 - (1 - p)^k, p each puzzle's share of escapes in the first half; on average
        too low for k > 1, since p is itself estimated (Jensen).
      fitted: the same mean over the `Mixture` fitted to the first half.
      common: 1 - (1 - p)^k with one p for all, the mean: too high where puzzles differ (Jensen).
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
    """What escapes of some rollouts say about pass@k of others.

    Args:
      first: [F, K1] bool, escapes to learn from.
      second: [F, K2] bool, escapes to predict.
      widths: k, each at most K2.
      num_resamples: of puzzles, for `fitted` and `common_gap`.
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
        return Interval(value, *np.quantile(resampled, [0.025, 0.975]).tolist(), num_puzzles)

    predictions = []
    for k in widths:
        measured, own = metrics.pass_at_k(second, k), 1 - (1 - p) ** k
        together = 1 - (1 - drawn @ p / num_puzzles) ** k
        of_mixtures = np.array([mixture.pass_at(k) for mixture in mixtures])
        common = Interval(*(1 - (1 - x) ** k for x in mean[:3]), num_puzzles)
        predictions.append(
            Prediction(
                k,
                metrics.interval(measured),
                metrics.interval(own),
                ends(float(of_mixtures[0]), of_mixtures[1:]),
                common,
                metrics.paired_difference(own, measured),
                ends(common.mean - measured.mean(), together - drawn @ measured / num_puzzles),
            )
        )
    return predictions


def make(study: study.Study) -> list[Exhibit]:
    """One failed puzzle: trajectories, ends, escapes; all: when, how often, pass@k foretold."""
    sigma, depth = study.settings.sigma, study.settings.depth
    result = study.sweep()
    quiet = result.deterministic.record.at(depth)
    wrong = ~(quiet.correct & quiet.finite)[:, 0]
    failed = np.flatnonzero(wrong)
    if not len(failed):
        raise NothingToShow(
            f"the deterministic TRM solves all {len(quiet.correct)} puzzles, none is left to "
            "escape from; pass more or harder puzzles, or a smaller depth"
        )
    if study.settings.rollouts * len(study.settings.seeds) < 2:
        raise NothingToShow("one rollout has no second half to predict; pass more rollouts")
    record = pooled(result, sigma)
    right_at = (record.correct & record.finite)[failed]
    escapes = right_at[:, :, -1]
    once = escapes[:, : study.settings.rollouts]  # of the first seed, which `replay` runs
    # Where TRM was right before, rollouts that still are have not escaped but not yet been lost.
    stuck = ~result.deterministic.record.correct[failed, 0, :depth].any(axis=1)
    chosen = shown_puzzle(once, stuck)
    row, right = int(failed[chosen]), once[chosen]
    half = escapes.shape[1] // 2
    predictions = predict(escapes[:, :half], escapes[:, half:], sweep.widths(half))
    mixture = fit(np.bincount(escapes.sum(axis=1), minlength=escapes.shape[1] + 1))
    noisy = study.replay([row], range(study.settings.rollouts)).y[0]
    states = np.concatenate([noisy, study.replay([row], sigma=0.0).y[0]])
    states = states.reshape(*states.shape[:2], -1)
    plane, ends = principal_plane(states), principal_plane(states[:, -1])
    steps = np.arange(1, depth + 1)

    figure, axes = charts.new_figure(
        study.caption(result), rows=2, columns=3, size=(4.9, 4.2), margin=0.2
    )
    _trajectories(axes[0, 0], plane, right, row)
    _ends(axes[0, 1], ends, right, row)
    ax = axes[0, 2]
    k = np.arange(1, len(right) + 1)
    ax.step(k, right.cumsum(), where="mid", color=charts.colour(0), label="escaped")
    ax.plot(
        *(k, k * right.mean()),
        color=charts.GREY,
        linestyle=":",
        label=f"expected at {100 * right.mean():.1f} % each",
    )
    ax.set(xlabel=f"first k rollouts, puzzle {row}", ylabel="rollouts that escaped")
    ax = axes[1, 0]
    for style, (which, label) in enumerate(
        ((~stuck, "TRM right at an earlier step"), (stuck, "TRM never right"))
    ):
        if which.any():
            everyone = np.ones_like(escapes[which])
            values = by_step(right_at[which].astype(np.float64), everyone, (0.0, 1.0))
            charts.band(ax, steps, values, style, f"{which.sum()} puzzles, {label}")
    ax.plot(
        *(steps, right_at[chosen, : len(right)].mean(axis=0)),
        color=charts.colour(2),
        linestyle="--",
        label=f"puzzle {row}",
    )
    ax.set(xlabel="supervision step", ylabel="rollouts that are right (%)", ylim=(0, None))
    charts.percent(ax)
    _spread(axes[1, 1], escapes, mixture)
    ax = axes[1, 2]
    widths = np.array([prediction.k for prediction in predictions])
    for style, (name, label) in enumerate(
        {
            "measured": "measured, second half of the rollouts",
            "own": "predicted, each puzzle's own p",
            "common": "predicted, one p for all",
            "fitted": "predicted, beta with a mass at 0",
        }.items()
    ):
        values = [getattr(prediction, name) for prediction in predictions]
        line = {"linestyle": "-" if name == "measured" else "--"}
        charts.points(ax, widths * 1.03 ** (style - 1.5), values, style, label, **line)
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(k) for k in widths])
    ax.set(xlabel="k rollouts", ylabel="pass@k of failed puzzles (%)", ylim=(0, None))
    charts.percent(ax)
    for ax in (axes[0, 2], axes[1, 1]):
        ax.yaxis.get_major_locator().set_params(integer=True)
    for ax in axes.flat:
        ax.legend(fontsize=8)

    last, count = predictions[-1], len(failed)
    never = ~escapes.any(axis=1)
    findings = {
        "failed": Finding.of(
            f"puzzles that TRM gets wrong, D={depth}",
            metrics.interval(wrong),
        ),
        "escape_share": Finding.of(
            "rollouts of these that are right", metrics.interval(escapes.mean(axis=1))
        ),
        "lost": Finding.of(
            "failed puzzles that TRM has right at an earlier step", metrics.interval(~stuck)
        ),
        **{
            f"escape_share_{name}": Finding.of(
                f"rollouts that are right, failed puzzles that TRM {what}",
                metrics.interval(escapes[which].mean(axis=1)),
            )
            for name, which, what in (
                ("lost", ~stuck, "has right at an earlier step"),
                ("stuck", stuck, "never has right"),
            )
            if which.any()
        },
        "never": Finding.of(
            f"failed puzzles with no escape in {escapes.shape[1]} rollouts",
            metrics.interval(never),
        ),
        "never_fitted": Finding(
            "failed puzzles with p = 0, fitted", mixture.never, None, None, count, "%"
        ),
        "pass_measured": Finding.of(f"pass@{last.k} of failed puzzles", last.measured),
        "pass_predicted": Finding.of(f"pass@{last.k}, from each puzzle's p", last.own),
        "pass_fitted": Finding.of(f"pass@{last.k}, from the fitted distribution", last.fitted),
        "pass_common": Finding.of(f"pass@{last.k}, from one common p", last.common),
        "gap_predicted": Finding.of("each puzzle's p against measured", last.own_gap, "points"),
        "gap_common": Finding.of("one common p against measured", last.common_gap, "points"),
    }
    early = "".join(f", {right[:k].sum()} of the first {k}" for k in (5, 25) if k < len(right))
    number = first_escape(right)
    reading = [
        f"TRM gets {count} of {len(quiet.correct)} puzzles wrong after step {depth}; "
        f"{findings['escape_share'].text()} of their noisy rollouts are right, and "
        f"{int(never.sum())} of the {count} are never solved in {escapes.shape[1]} rollouts.",
        f"TRM has {findings['lost'].text()} of them right at an earlier step and loses them. "
        "Of the noisy rollouts "
        + " and ".join(
            f"{findings[f'escape_share_{name}'].text()} are right in the end on {what}"
            for name, what in (("lost", "those"), ("stuck", "puzzles it never has right"))
            if f"escape_share_{name}" in findings
        )
        + ".",
        f"Puzzle {row}, {'never right for TRM, ' if stuck[chosen] else ''}escapes nearest to "
        f"{100 * TYPICAL:g} %: {int(right.sum())} of {len(right)} rollouts escape{early}"
        + (f"; the first is number {number}." if number else "."),
        f"Pass@{last.k} of one half of the rollouts is {findings['pass_measured'].text()}; the "
        f"other half predicts {findings['pass_predicted'].text()} from each puzzle's own share of "
        f"escapes, {findings['pass_fitted'].text()} from a fitted distribution of it, and "
        f"{findings['pass_common'].text()} if all puzzles had one share.",
        _heterogeneity(last),
    ]
    return [
        Exhibit(
            name="basins",
            title="Noisy rollouts escape where the deterministic TRM is wrong (PTRM Figure 5)",
            caption=study.caption(result),
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=figure,
            data={
                "failed": failed,
                "shown": np.array(row),
                "stuck": stuck,
                "right_at": right_at,
                "plane": plane.coordinates,
                "plane_share": plane.share,
                "ends": ends.coordinates,
                "ends_share": ends.share,
                "mixture": np.array(mixture),
                **{
                    name: np.array([getattr(prediction, name) for prediction in predictions])
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
                for prediction in predictions
            ],
        )
    ]


def _heterogeneity(last: Prediction) -> str:
    gap = Finding.of("", last.common_gap, "points").text()
    if last.common_gap.low > 0:
        return f"One common share predicts too much ({gap}): failed puzzles differ in their chance."
    return f"One common share is off by {gap}: these puzzles do not show that chances differ."


def _trajectories(ax: "Axes", plane: Plane, right: np.ndarray, row: int) -> None:
    """Noisy rollouts thin, the deterministic one, which is the last, bold; ends marked."""
    points = plane.coordinates
    for path, escaped in zip(points[:-1], right, strict=True):
        style = 2 if escaped else 1
        ax.plot(
            *path.T,
            color=charts.colour(style),
            linewidth=1.0 if escaped else 0.5,
            alpha=0.8 if escaped else 0.25,
            zorder=3 if escaped else 2,
        )
    ax.plot(*points[-1].T, color="black", linewidth=1.6, zorder=5)
    _mark(ax, points[:, -1], right)
    ax.annotate(
        *("step 1", points[-1, 0]),
        xytext=(10, 8),
        textcoords="offset points",
        fontsize=8,
        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        zorder=7,
    )
    _label(ax, plane, f"y over steps, puzzle {row}")


def _ends(ax: "Axes", plane: Plane, right: np.ndarray, row: int) -> None:
    """Last states alone, in their own plane."""
    _mark(ax, plane.coordinates, right)
    _label(ax, plane, f"y of the last step, puzzle {row}")


def _mark(ax: "Axes", ends: np.ndarray, right: np.ndarray) -> None:
    """End points [K + 1, 2], the last one of the deterministic TRM."""
    for style, marker, name in ((1, "X", "wrong"), (2, "o", "right")):
        which = ends[:-1][right == (name == "right")]
        ax.scatter(
            *which.T,
            color=charts.colour(style),
            marker=marker,
            s=34,
            zorder=4,
            edgecolors="white",
            linewidths=0.5,
            label=f"{len(which)} rollouts end {name}",
        )
    ax.scatter(
        *ends[-1:].T, color="black", marker="P", s=70, zorder=6, label="deterministic TRM, wrong"
    )


def _label(ax: "Axes", plane: Plane, what: str) -> None:
    first, second = (f"{100 * share:.0f} % of variance" for share in plane.share)
    ax.set(xlabel=f"component 1 of {what} ({first})", ylabel=f"component 2 ({second})")


def _spread(ax: "Axes", escapes: np.ndarray, mixture: Mixture) -> None:
    """Failed puzzles by their share of escapes, with the fitted distribution."""
    num_puzzles, n = escapes.shape
    bins = min(16, n)
    # Its own bar for 0; (0, 1] in equal bins.
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
        *(x, num_puzzles * expected),
        color=charts.colour(1),
        marker="s",
        markersize=4,
        linewidth=1,
        label=f"beta({mixture.a:.2g}, {mixture.b:.2g}), {100 * mixture.never:.0f} % at 0",
    )
    ax.set(xlabel=f"share of {n} rollouts that escape (%)", ylabel="failed puzzles")
    charts.percent(ax, "x")
