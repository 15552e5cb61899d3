"""What noise buys: accuracy against sigma, by the state and the steps that get it (PTRM Figure 7).

`noise_when="first"`, on the initial latent only, is the baseline of Efstathiou & Balwani (2026) and
of Baek et al. (arXiv 2605.19376), who report that it does not help.
"""

import dataclasses

import numpy as np

from ptrm_jax import charts, metrics, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.config import NoiseOn, NoiseWhen
from ptrm_jax.metrics import Interval

VARIANTS: dict[str, tuple[NoiseOn, NoiseWhen]] = {
    "z_every": ("z", "every"),
    "y_every": ("y", "every"),
    "both_every": ("both", "every"),
    "z_first": ("z", "first"),
    "both_first": ("both", "first"),
}
"""Where and when the noise goes; the first is the paper's."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Noise scales and kinds of noise."""

    num_puzzles: int | None = 64
    rollouts: int = 8
    sigmas: tuple[float, ...] = (0.03, 0.1, 0.3, 0.6, 1.0)
    """Noise scales to compare; the figure draws 0 too."""
    sigma: float = 0.1
    """That of the sentences about the kinds of noise."""

    def __post_init__(self) -> None:
        if self.sigma not in self.sigmas:
            object.__setattr__(self, "sigmas", tuple(sorted({*self.sigmas, self.sigma})))


def words(variant: str) -> str:
    """What legends call a kind of noise."""
    on, when = VARIANTS[variant]
    where = {"z": "z", "y": "y", "both": "z and y"}[on]
    return f"noise on {where}, {'every step' if when == 'every' else 'first step only'}"


def best_sigma(by_sigma: dict[float, Interval]) -> float:
    """The noise scale with the largest mean; the smallest of several."""
    return max(sorted(by_sigma), key=lambda sigma: by_sigma[sigma].mean)


def make(study: study.Study) -> list[Exhibit]:
    """pass, best-Q and mode against sigma, a panel for every kind of noise."""
    settings = study.settings
    width, depth, sigmas = settings.rollouts, settings.depth, sorted(settings.sigmas)
    results = {
        name: study.sweep(sigmas=tuple(sigmas), noise_on=on, noise_when=when)
        for name, (on, when) in VARIANTS.items()
    }
    quiet = results["z_every"].deterministic.record.at(depth).correct[:, 0].astype(float)
    metrics_shown = {
        "pass": (sweep.pass_at, width),
        "best_q": (sweep.best_q, width),
        "mode": (sweep.mode_at, width),
        "one": (sweep.pass_at, 1),
    }

    def values(variant: str, sigma: float, name: str) -> np.ndarray:
        metric, k = metrics_shown[name]
        return sweep.over_seeds(sweep.runs_of(results[variant], sigma), metric, k, depth)

    table = {
        variant: {
            name: {sigma: metrics.interval(values(variant, sigma, name)) for sigma in sigmas}
            for name in metrics_shown
        }
        for variant in VARIANTS
    }
    caption = study.caption(results["z_every"], "where and when the noise goes: in the titles")
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
    x = np.array([0.0, *sigmas])
    rest = metrics.interval(quiet)
    labels = {
        "pass": f"pass@{width} (bound)",
        "best_q": f"best-Q@{width}",
        "mode": f"mode@{width}",
        "one": "one rollout (mean)",
    }
    for ax, (variant, shown) in zip(panels, table.items(), strict=True):
        curves = {name: [rest, *by_sigma.values()] for name, by_sigma in shown.items()}
        for style, (name, curve) in enumerate(curves.items()):
            shift = 0.006 * (style - 1.5) * sigmas[-1]
            charts.points(ax, x + shift, curve, style, labels[name])
        # What a perfect judge of answers would add.
        ax.fill_between(
            x,
            [value.mean for value in curves["best_q"]],
            [value.mean for value in curves["pass"]],
            color=charts.GREY,
            alpha=0.12,
            label="headroom of a verifier",
        )
        ax.axhline(quiet.mean(), color=charts.GREY, linestyle=":", label=f"TRM, D={depth}")
        charts.percent(ax)
        ax.set_title(words(variant), fontsize=9)
        ax.set_xlabel("sigma (RMS of the latent)")
    for ax in axes[:, 0]:
        ax.set_ylabel("puzzles solved exactly (%)")
    spare.legend(*panels[0].get_legend_handles_labels(), loc="center")

    findings = {"trm": Finding.of(f"TRM, D={depth}", rest)}
    reading = []
    for variant in VARIANTS:
        best = best_sigma(table[variant]["best_q"])
        against = metrics.paired_difference(
            chosen := values(variant, best, "best_q"), np.broadcast_to(quiet, chosen.shape)
        )
        findings |= {
            f"{variant}_best_q": Finding.of(
                f"best-Q@{width}, {words(variant)}, sigma {best:g} (the best of {len(sigmas)})",
                table[variant]["best_q"][best],
            ),
            f"{variant}_gain": Finding.of(f"the same minus TRM, D={depth}", against, "points"),
            f"{variant}_sigma": Finding(
                f"best sigma, {words(variant)}", best, None, None, len(quiet), "number"
            ),
        }
        reading.append(
            f"{words(variant).capitalize()}: best-Q@{width} is best at sigma {best:g}, "
            f"{findings[f'{variant}_best_q'].text()}, {findings[f'{variant}_gain'].text()} over "
            "TRM at equal depth (sigma picked on these same puzzles)."
        )
    first = metrics.paired_difference(
        values("z_every", settings.sigma, "best_q"), values("z_first", settings.sigma, "best_q")
    )
    findings["every_minus_first"] = Finding.of(
        f"best-Q@{width}, sigma {settings.sigma:g} on z: every step minus first step only",
        first,
        "points",
    )
    largest = sigmas[-1]
    for name in ("pass", "best_q"):
        change = metrics.paired_difference(
            values("z_every", largest, name), values("z_every", settings.sigma, name)
        )
        findings[f"{name}_change"] = Finding.of(
            f"{labels[name]}, sigma {largest:g} minus {settings.sigma:g} on z before every step",
            *(change, "points"),
        )
    reading.append(
        f"At sigma {settings.sigma:g}: {findings['every_minus_first'].what}: "
        f"{findings['every_minus_first'].text()}."
    )
    return [
        Exhibit(
            name="sigma",
            title="What noise buys (PTRM Figure 7)",
            caption=caption,
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=results["z_every"].provenance,
            figure=figure,
            rows=[
                {"noise_on": VARIANTS[variant][0], "noise_when": VARIANTS[variant][1]}
                | {"sigma": sigma, "choice": name, "num_puzzles": value.num_puzzles}
                | {"accuracy": value.mean, "low": value.low, "high": value.high}
                for variant, shown in table.items()
                for name, by_sigma in shown.items()
                for sigma, value in by_sigma.items()
            ],
        )
    ]
