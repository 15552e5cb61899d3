"""Does the gradient of Q help? Langevin dynamics, its control, plain noise (PTRM Appendix C).

Between supervision steps z takes N updates z - eta grad E(z) + sqrt(2 eta) xi; the control has the
noise alone; plain noise is PTRM's own, once before every step, with the variance of the N updates.
It comes before the first step too, where there is nothing yet to update.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps, L positions, C channels.
"""

import dataclasses
import math
from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from ptrm_jax import charts, metrics, solver, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.analysis.pca import principal_plane
from ptrm_jax.config import Langevin, check_int
from ptrm_jax.errors import InputError
from ptrm_jax.model import Carry
from ptrm_jax.sweep import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Langevin dynamics and what they are compared with."""

    checkpoint: str = "sudoku9"
    rollouts: int = 8
    depth: int = 8
    sigma: float = 0.3
    """Plain noise before every step; the updates get a step size of the same variance."""
    updates: tuple[int, ...] = (1, 4)
    """N, updates between two steps, compared with each other."""
    step_size: float | None = None
    """eta of all of them; by default sigma^2 / (2 N), the variance of plain noise."""

    def __post_init__(self) -> None:
        for number in self.updates:
            check_int("updates", number, 1)
        if not self.updates:
            raise InputError("updates must hold at least one value; got none; pass 1")
        for number in self.updates:
            _ = self.langevin(number)

    def langevin(self, updates: int, *, gradient: bool = True) -> Langevin:
        """The dynamics of N updates.

        Raises:
          ValueError: sigma is 0 and no step size is given, or the step size is out of range.
        """
        if self.step_size is None and not self.sigma > 0:
            raise InputError(
                f"sigma must be > 0 where the step size follows from it; got {self.sigma}; pass "
                "step_size"
            )
        step_size = self.step_size
        if step_size is None:
            step_size = self.sigma**2 / (2 * updates)
        return Langevin(updates, step_size, gradient)


def pull(gradient: np.ndarray, step_size: float) -> np.ndarray:
    """How long the gradient's part of an update is against the noise's: [...] float.

    |eta grad E| / |sqrt(2 eta) xi|, the expected length of the noise being sqrt(2 eta L C).

    Args:
      gradient: [..., L, C] of the energy.
      step_size: eta.
    """
    number = gradient.shape[-2] * gradient.shape[-1]
    length = np.sqrt(np.square(gradient, dtype=np.float64).sum(axis=(-2, -1)))
    return step_size * length / math.sqrt(2 * step_size * number)


def make(study: study.Study) -> list[Exhibit]:
    """Accuracy with gradient, without, and of plain noise, by N; gradients in a principal plane."""
    settings = study.settings
    width, depth = settings.rollouts, settings.depth
    results: dict[str, dict[int, Result]] = {"gradient": {}, "control": {}, "plain": {}}
    for number in settings.updates:
        dynamics = settings.langevin(number)
        for name in ("gradient", "control"):
            results[name][number] = study.sweep(
                sigmas=(0.0,),
                langevin_updates=number,
                langevin_step_size=dynamics.step_size,
                langevin_gradient=name == "gradient",
            )
        results["plain"][number] = study.sweep(sigmas=(dynamics.matched_sigma,))

    def values(name: str, number: int, metric: sweep.Choice, k: int) -> np.ndarray:
        return sweep.over_seeds(list(results[name][number].runs), metric, k, depth)

    first = results["gradient"][settings.updates[0]]
    quiet = metrics.interval(first.deterministic.record.at(depth).correct[:, 0])
    shown = {"one": (sweep.pass_at, 1), "best_q": (sweep.best_q, width)}
    words = {"gradient": "Langevin", "control": "without gradient", "plain": "plain noise"}
    titles = {"one": "one rollout (mean)", "best_q": f"best-Q@{width}"}
    findings = {"trm": Finding.of(f"TRM, D={depth}", quiet)}
    table = {}
    for choice, (metric, k) in shown.items():
        for name in results:
            for number in settings.updates:
                table[choice, name, number] = metrics.interval(values(name, number, metric, k))
        for number in settings.updates:
            dynamics = settings.langevin(number)
            suffix = (
                ""
                if (choice, number) == ("best_q", settings.updates[-1])
                else (f"_{choice}_{number}")
            )
            for other, label in (("control", "control"), ("plain", "plain noise")):
                gain = metrics.paired_difference(
                    values("gradient", number, metric, k), values(other, number, metric, k)
                )
                what = (
                    f"{titles[choice]}, N={number}, eta={dynamics.step_size:.3g}, D={depth}: "
                    f"gradient minus {label}"
                )
                key = "gradient_gain" if other == "control" else "plain_gain"
                findings[key + suffix] = Finding.of(what, gain, "points")

    row = _shown_puzzle(first)
    number = settings.updates[-1]
    dynamics = settings.langevin(number)
    path = study.replay([row], range(width), sigma=0.0, langevin=dynamics)
    gradient = _gradients(study, row, path)
    strength = pull(gradient, dynamics.step_size)
    findings["pull"] = Finding(
        f"length of the gradient's part of an update over that of its noise, N={number}, median "
        f"over {width} rollouts of puzzle {row} and their steps",
        *(float(np.median(strength)), None, None, 1, "number"),
    )

    more = f"Langevin updates with the variance of sigma {dynamics.matched_sigma:g} per step"
    caption = study.caption(results["plain"][number], more)
    figure, axes = charts.new_figure(caption, rows=2, columns=2, size=(5.2, 3.6), margin=0.2)
    one, best, paths, strengths = axes.flat
    for ax, choice in zip((one, best), shown, strict=True):
        for style, name in enumerate(results):
            x = np.arange(len(settings.updates)) + 0.08 * (style - 1)
            curve = [table[choice, name, number] for number in settings.updates]
            charts.points(ax, x, curve, style, words[name])
        ax.axhline(quiet.mean, color=charts.GREY, linestyle=":", label=f"TRM, D={depth}")
        ax.set_xticks(range(len(settings.updates)), [str(number) for number in settings.updates])
        ax.set(xlabel="N, updates between steps", ylabel="puzzles solved exactly (%)")
        ax.set_title(titles[choice], fontsize=10)
        charts.percent(ax)
        ax.legend(fontsize=8)
    _draw_plane(paths, path.z[0], gradient)
    steps = np.arange(1, depth + 1)
    for k in range(width):
        right = path.correct[0, k, -1]
        strengths.plot(
            *(steps, strength[k]),
            color=charts.colour(0 if right else 1),
            linestyle="-" if right else "--",
            linewidth=1,
        )
    for style, label in enumerate(("right in the end", "wrong in the end")):
        strengths.plot(
            [], [], color=charts.colour(style), linestyle=("-", "--")[style], label=label
        )
    strengths.set(xlabel="after supervision step", ylabel="|gradient part| / |noise part|")
    strengths.set(yscale="log", title=f"pull of the gradient, puzzle {row}")
    strengths.legend(fontsize=8)

    said = {name: found.text() for name, found in findings.items()}
    reading = [
        f"{findings['gradient_gain'].what}: {said['gradient_gain']}. Against plain noise of the "
        f"same variance: {said['plain_gain']}.",
        f"The gradient's part of an update is {findings['pull'].value:.2g} times as long as its "
        f"noise (median over the rollouts of puzzle {row} and their steps).",
    ]
    reading += [
        f"{findings[key].what}: {said[key]}."
        for key in findings
        if key.startswith("gradient_gain_")
    ]
    return [
        Exhibit(
            name="langevin",
            title="Langevin dynamics in Q's energy (PTRM Appendix C, Figure 8)",
            caption=caption,
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=results["plain"][number].provenance,
            figure=figure,
            data={"pull": strength, "correct": path.correct[0], "q_logit": path.q_logit[0]},
            rows=[
                {"choice": choice, "method": words[name], "updates": number}
                | {"step_size": settings.langevin(number).step_size, "num_puzzles": v.num_puzzles}
                | {"accuracy": v.mean, "low": v.low, "high": v.high}
                for (choice, name, number), v in table.items()
            ],
        )
    ]


def _shown_puzzle(result: Result) -> int:
    """A puzzle whose rollouts disagree: as near to half of them right as can be, the first such."""
    share = result.runs[0].record.correct[:, :, -1].mean(axis=1)
    return int(np.abs(share - 0.5).argmin())


def _gradients(study: study.Study, row: int, path: study.Trajectories) -> np.ndarray:
    """Of the energy at every state of the rollouts of one puzzle: [K, D, L, C] float32."""
    lanes = path.y.shape[1] * path.y.shape[2]
    puzzles = study.puzzles.puzzles.take(np.full(lanes, row))
    dtype = study.model.precision.dtype
    states = (jnp.asarray(s.reshape(lanes, *s.shape[3:]), dtype) for s in (path.y, path.z))
    _, gradient = solver.energy(
        study.model, study.params, Carry(*states), puzzles, lane_tile=study.lane_tile
    )
    return np.asarray(gradient, np.float32).reshape(path.z[0].shape)


def _draw_plane(ax: "Axes", z: np.ndarray, gradient: np.ndarray) -> None:
    """Paths of z in their principal plane, and which way -gradient points, all arrows as long."""
    width, depth = z.shape[:2]
    plane = principal_plane(z.reshape(width, depth, -1))
    downhill = -gradient.reshape(width, depth, -1) @ plane.axes.T
    length = np.linalg.norm(downhill, axis=-1, keepdims=True)
    downhill = downhill / np.where(length > 0, length, 1)
    for path in plane.coordinates:
        ax.plot(*path.T, color=charts.GREY, linewidth=0.6, alpha=0.6)
    arrows = ax.quiver(
        *np.moveaxis(plane.coordinates, -1, 0).reshape(2, -1),
        *np.moveaxis(downhill, -1, 0).reshape(2, -1),
        np.tile(np.arange(1, depth + 1), width),
        cmap="viridis",
        angles="xy",
        width=0.005,
    )
    ax.figure.colorbar(arrows, ax=ax, label="after supervision step", pad=0.02)
    for axis, share in zip(("x", "y"), plane.share, strict=True):
        number = 1 if axis == "x" else 2
        ax.set(**{f"{axis}label": f"z, component {number} ({100 * share:.0f} % of the variance)"})
    ax.set_title("where -gradient points", fontsize=10)
