"""Accuracy against sigma, by the state and the steps that receive the noise (PTRM Figure 7).

`noise_when="first"`, on the initial latent only, is the baseline of Efstathiou & Balwani (2026) and
of Baek et al. (arXiv 2605.19376), who report that it does not help.
"""

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
import tyro

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, interval_columns
from ptrm_jax.analysis.study import OneSigma, Solved, Study
from ptrm_jax.config import NoiseOn, NoiseWhen
from ptrm_jax.metrics import Interval
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import Inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VARIANTS: dict[str, tuple[NoiseOn, NoiseWhen]] = {
    "z_every": ("z", "every"),
    "y_every": ("y", "every"),
    "both_every": ("both", "every"),
    "z_first": ("z", "first"),
    "both_first": ("both", "first"),
}
"""State and steps that receive the noise; the first is the paper's."""
METHODS = {
    "pass": "pass@{k} (bound)",
    "best_q": "best-Q@{k}",
    "mode": "mode@{k}",
    "one": "one rollout (mean)",
}
"""Names in legends: choices among all rollouts, and the mean of single ones."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Noise scales and kinds of noise."""

    inputs: Inputs = Inputs("maze11", num_puzzles=64)
    search: OneSigma = OneSigma()
    """Width, depth, seeds, and the noise scale at which the kinds of noise are compared."""
    sigmas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT...")] = (
        0.03,
        0.1,
        0.3,
        0.6,
        1.0,
    )
    """Noise scales; the figure shows these, 0, and that of the comparison."""

    @property
    def scales(self) -> tuple[float, ...]:
        """All noise scales but 0, ascending."""
        return tuple(sorted({*self.sigmas, self.search.sigma}))


def words(variant: str) -> str:
    """The name of a kind of noise in legends."""
    on, when = VARIANTS[variant]
    where = {"z": "z", "y": "y", "both": "z and y"}[on]
    return f"noise on {where}, {'every step' if when == 'every' else 'first step only'}"


def best_sigma(by_sigma: Mapping[float, Interval]) -> float:
    """The noise scale with the largest mean; of equals the smallest."""
    return max(sorted(by_sigma), key=lambda sigma: by_sigma[sigma].mean)


class Measured(NamedTuple):
    """Accuracy by kind of noise and noise scale.

    Attributes:
      results: a sweep over sigma for each of `VARIANTS`.
      table: accuracy, by variant, method of `METHODS`, and sigma.
      trm: of the deterministic TRM, [B] float64.
      sigma: the noise scale at which variants are compared.
    """

    results: Mapping[str, Result]
    table: Mapping[str, Mapping[str, Mapping[float, Interval]]]
    trm: np.ndarray
    sigma: float

    @property
    def sweep(self) -> Result:
        """The sweep of the paper's kind of noise."""
        return self.results["z_every"]

    @property
    def labels(self) -> dict[str, str]:
        """`METHODS` with the width."""
        return {name: text.format(k=self.sweep.config.rollouts) for name, text in METHODS.items()}


def _solved(result: Result, sigma: float, method: str) -> np.ndarray:
    """How often a method's answer is right: [R, B] float64."""
    choice, k = ("pass", 1) if method == "one" else (method, result.config.rollouts)
    return Solved(result, sigma).ptrm(choice, k, result.config.depth)


def measure(study: Study[Settings]) -> Measured:
    """Runs a sweep over sigma for every kind of noise."""
    scales, depth = study.settings.scales, study.settings.search.depth
    results = {
        name: study.sweep(sigmas=scales, noise_on=on, noise_when=when)
        for name, (on, when) in VARIANTS.items()
    }
    table = {
        variant: {
            method: {s: metrics.interval(_solved(result, s, method)) for s in scales}
            for method in METHODS
        }
        for variant, result in results.items()
    }
    sigma = study.settings.search.sigma
    trm = Solved(results["z_every"], sigma).trm(depth)[0]
    return Measured(results, table, trm, sigma)


def draw(measured: Measured, caption: str) -> "Figure":
    """pass, best-Q and mode against sigma, a panel for every kind of noise."""
    figure, axes = charts.new_figure(
        caption,
        rows=len(VARIANTS) // 3 + 1,  # one place more than panels, for the legend
        columns=3,
        size=(4.2, 3.4),
        margin=0.2,
        sharey=True,
    )
    panels, spare = axes.flat[: len(VARIANTS)], axes.flat[-1]
    for ax in axes.flat[len(VARIANTS) :]:
        ax.axis("off")
    for ax, variant in zip(panels, VARIANTS, strict=True):
        _draw_panel(ax, measured, variant)
    for ax in axes[:, 0]:
        ax.set_ylabel("puzzles solved exactly (%)")
    spare.legend(*panels[0].get_legend_handles_labels(), loc="center")
    return figure


def _draw_panel(ax: "Axes", measured: Measured, variant: str) -> None:
    trm = metrics.interval(measured.trm)
    curves = {m: [trm, *by_sigma.values()] for m, by_sigma in measured.table[variant].items()}
    x = np.array([0.0, *measured.table[variant]["one"]])
    for style, (method, curve) in enumerate(curves.items()):
        shift = 0.006 * (style - 1.5) * x[-1]
        charts.points(ax, x + shift, curve, style, measured.labels[method])
    ax.fill_between(
        x,
        [value.mean for value in curves["best_q"]],
        [value.mean for value in curves["pass"]],
        color=charts.GREY,
        alpha=0.12,
        label="possible gain of a perfect verifier",
    )
    depth = measured.sweep.config.depth
    ax.axhline(measured.trm.mean(), color=charts.GREY, linestyle=":", label=f"TRM, D={depth}")
    charts.percent(ax)
    ax.set_title(words(variant), fontsize=9)
    ax.set_xlabel("sigma (RMS of the latent)")


def find(measured: Measured) -> dict[str, Finding]:
    """The best sigma of every kind of noise, and comparisons at one sigma."""
    config, trm, sigma = measured.sweep.config, measured.trm, measured.sigma
    width, depth = config.rollouts, config.depth
    found = {"trm": Finding.of(f"TRM, D={depth}", metrics.interval(trm))}
    for variant, by_method in measured.table.items():
        best = best_sigma(by_method["best_q"])
        solved, name = _solved(measured.results[variant], best, "best_q"), words(variant)
        gain = metrics.paired_difference(solved, np.broadcast_to(trm, solved.shape))
        found |= {
            f"{variant}_best_q": Finding.of(
                f"best-Q@{width}, {name}, sigma {best:g} (the best of {len(config.sigmas)})",
                by_method["best_q"][best],
            ),
            f"{variant}_gain": Finding.of(f"the same minus TRM, D={depth}", gain, "points"),
            f"{variant}_sigma": Finding.single(f"best sigma, {name}", best, "number", len(trm)),
        }
    found["every_minus_first"] = Finding.of(
        f"best-Q@{width}, sigma {sigma:g} on z: every step minus first step only",
        metrics.paired_difference(
            _solved(measured.sweep, sigma, "best_q"),
            _solved(measured.results["z_first"], sigma, "best_q"),
        ),
        "points",
    )
    largest = config.sigmas[-1]
    for method in ("pass", "best_q"):
        found[f"{method}_change"] = Finding.of(
            f"{measured.labels[method]}, sigma {largest:g} minus {sigma:g} on z before every step",
            metrics.paired_difference(
                _solved(measured.sweep, largest, method),
                _solved(measured.sweep, sigma, method),
            ),
            "points",
        )
    return found


def say(measured: Measured, findings: Mapping[str, Finding]) -> list[str]:
    """The findings in sentences."""
    width, compared = measured.sweep.config.rollouts, findings["every_minus_first"]
    sentences = [
        f"{words(variant).capitalize()}: best-Q@{width} is highest at sigma "
        f"{findings[f'{variant}_sigma'].value:g}, {findings[f'{variant}_best_q'].text()}, "
        f"{findings[f'{variant}_gain'].text()} over TRM at equal depth (sigma selected on these "
        "puzzles, optimistic)."
        for variant in measured.table
    ]
    return [*sentences, f"{compared.what}: {compared.text()}."]


def make(study: Study[Settings]) -> Exhibit:
    """The figure of accuracy against sigma."""
    measured = measure(study)
    caption = study.caption(measured.sweep, "each title names the state and steps with noise")
    findings = find(measured)
    return study.exhibit(
        "Accuracy against the noise scale (PTRM Figure 7)",
        caption=caption,
        result=measured.sweep,
        reading=say(measured, findings),
        findings=findings,
        figure=draw(measured, caption),
        rows=[
            {"noise_on": VARIANTS[variant][0], "noise_when": VARIANTS[variant][1]}
            | {"sigma": sigma, "choice": method, "num_puzzles": value.num_puzzles}
            | interval_columns(value)
            for variant, by_method in measured.table.items()
            for method, by_sigma in by_method.items()
            for sigma, value in by_sigma.items()
        ],
    )
