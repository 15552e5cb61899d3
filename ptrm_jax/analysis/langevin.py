"""Does the gradient of Q help? Langevin dynamics, its control, plain noise (PTRM Appendix C).

Between supervision steps z takes N updates z - eta grad E(z) + sqrt(2 eta) xi. The control has the
noise alone. Plain noise is PTRM's, once before every step, with the variance of the N updates; it
is also added before the first step, when there is nothing to update yet.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps, L positions, C channels.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import tyro

from ptrm_jax import charts, metrics, solver
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding, interval_columns
from ptrm_jax.analysis.pca import principal_plane
from ptrm_jax.analysis.study import OneSigma, Solved, Study, Trajectories
from ptrm_jax.config import Langevin, check_int, check_step_size
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import Interval
from ptrm_jax.model import Carry
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import Inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS = {"gradient": "Langevin", "control": "without gradient", "plain": "plain noise"}
"""Names in legends."""


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """Langevin dynamics and what they are compared with.

    Raises:
      InputError: when built, for `updates` or `step_size` out of range, or if sigma is 0 and
        `step_size` is not given.
    """

    inputs: Inputs = Inputs("sudoku9", num_puzzles=128)
    search: OneSigma = OneSigma(rollouts=8, depth=8, sigma=0.3)
    """Width, depth, seeds, and the scale of the plain noise before every step."""
    updates: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = (1, 4)
    """N, numbers of updates between two steps to compare."""
    step_size: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """eta of all updates; by default sigma^2 / (2 N), so that N updates have the variance of plain
    noise."""

    def __post_init__(self) -> None:
        if not self.updates:
            raise InputError("updates must hold at least one value; got none; pass 1")
        for number in self.updates:
            check_int("updates", number, 1)
        if self.step_size is not None:
            check_step_size(self.step_size)
        elif not self.search.sigma > 0:
            raise InputError(
                "sigma must be > 0 where the step size follows from it; got "
                f"{self.search.sigma}; pass step_size"
            )

    def langevin(self, updates: int, *, gradient: bool = True) -> Langevin:
        """The dynamics of N updates."""
        step_size = self.step_size
        if step_size is None:
            step_size = self.search.sigma**2 / (2 * updates)
        return Langevin(updates, step_size, gradient)


def pull(gradient: np.ndarray, step_size: float) -> np.ndarray:
    """Length of the gradient's part of an update relative to the noise's part: [...] float.

    |eta grad E| / |sqrt(2 eta) xi|, the expected length of the noise being sqrt(2 eta L C).

    Args:
      gradient: [..., L, C] of the energy.
      step_size: eta.
    """
    number = gradient.shape[-2] * gradient.shape[-1]
    length = np.sqrt(np.square(gradient, dtype=np.float64).sum(axis=(-2, -1)))
    return step_size * length / math.sqrt(2 * step_size * number)


class Measured(NamedTuple):
    """Accuracy with and without gradient, and the gradients along the rollouts of one puzzle.

    Attributes:
      results: a sweep by method of `METHODS` and N.
      row: a puzzle on which rollouts disagree.
      path: its rollouts with the last number of updates in the settings.
      gradient: of the energy at each of their states, [K, D, L, C] float32.
      pull: [K, D] float, as `pull`.
    """

    results: Mapping[str, Mapping[int, Result]]
    row: int
    path: Trajectories
    gradient: np.ndarray
    pull: np.ndarray

    @property
    def titles(self) -> dict[str, str]:
        """Names of the choices."""
        width = self.path.correct.shape[1]
        return {"one": "one rollout (mean)", "best_q": f"best-Q@{width}"}

    @property
    def trm(self) -> Interval:
        """Accuracy of the deterministic TRM."""
        first = next(iter(self.results["gradient"].values()))
        return metrics.interval(first.deterministic.rollouts.correct[:, 0, -1])

    def solved(self, choice: str, method: str, updates: int) -> np.ndarray:
        """How often the answer after the last step is right: [R, B] float64."""
        result = self.results[method][updates]
        name, k = ("pass", 1) if choice == "one" else (choice, result.config.rollouts)
        return Solved(result, result.config.sigmas[0]).ptrm(name, k, result.config.depth)

    def accuracy(self) -> dict[tuple[str, str, int], Interval]:
        """By choice, method and number of updates."""
        return {
            (choice, method, number): metrics.interval(self.solved(choice, method, number))
            for choice in self.titles
            for method, by_number in self.results.items()
            for number in by_number
        }


def measure(study: Study[Settings]) -> Measured:
    """Runs all sweeps, and computes the gradients along the rollouts of one puzzle."""
    settings, search = study.settings, study.settings.search
    results: dict[str, dict[int, Result]] = {method: {} for method in METHODS}
    for number in settings.updates:
        dynamics = settings.langevin(number)
        for method in ("gradient", "control"):
            results[method][number] = study.sweep(
                sigmas=(0.0,),
                langevin_updates=number,
                langevin_step_size=dynamics.step_size,
                langevin_gradient=method == "gradient",
            )
        results["plain"][number] = study.sweep(sigmas=(dynamics.matched_sigma,))
    row = _disputed_puzzle(results["gradient"][settings.updates[0]])
    dynamics = settings.langevin(settings.updates[-1])
    path = study.replay([row], range(search.rollouts), sigma=0.0, langevin=dynamics)
    gradient = _gradients(study, row, path)
    return Measured(results, row, path, gradient, pull(gradient, dynamics.step_size))


def _disputed_puzzle(result: Result) -> int:
    """The puzzle with the fraction of right rollouts nearest to half; of equals the first."""
    share = result.runs[0].rollouts.correct[:, :, -1].mean(axis=1)
    return int(np.abs(share - 0.5).argmin())


def _gradients(study: Study[Settings], row: int, path: Trajectories) -> np.ndarray:
    """Of the energy at every state of the rollouts of one puzzle: [K, D, L, C] float32."""
    prepared, lanes = study.prepared, path.y.shape[1] * path.y.shape[2]
    puzzles = prepared.puzzles.puzzles.take(np.full(lanes, row))
    dtype = prepared.model.precision.dtype
    y, z = (jnp.asarray(s.reshape(lanes, *s.shape[3:]), dtype) for s in (path.y, path.z))
    _, gradient = solver.energy(
        prepared.model, prepared.params, Carry(y, z), puzzles, lane_tile=prepared.lane_tile
    )
    return np.asarray(gradient, np.float32).reshape(path.z[0].shape)


def draw(measured: Measured, caption: str) -> "Figure":
    """Accuracy by method and N; gradients in a principal plane; their pull by step."""
    figure, axes = charts.new_figure(caption, rows=2, columns=2, size=(5.2, 4.0), margin=0.2)
    one, best_q, plane, strengths = axes.flat
    accuracy, numbers = measured.accuracy(), list(measured.results["gradient"])
    depth = measured.pull.shape[1]
    for ax, (choice, title) in zip((one, best_q), measured.titles.items(), strict=True):
        for style, (method, name) in enumerate(METHODS.items()):
            x = np.arange(len(numbers)) + 0.05 * (style - 1)
            curve = [accuracy[choice, method, number] for number in numbers]
            charts.points(ax, x, curve, style, name)
        ax.axhline(measured.trm.mean, color=charts.GREY, linestyle=":", label=f"TRM, D={depth}")
        ax.set_xticks(range(len(numbers)), [str(number) for number in numbers])
        ax.set_xlim(-0.5, len(numbers) - 0.5)
        ax.margins(y=0.1)
        ax.set(xlabel="N, updates between steps", ylabel="puzzles solved exactly (%)")
        ax.set_title(title, fontsize=10)
        charts.percent(ax)
        charts.legend_below(ax)
    _draw_plane(plane, measured.path.z[0], measured.gradient)
    _draw_pull(strengths, measured)
    return figure


def _draw_pull(ax: "Axes", measured: Measured) -> None:
    steps = np.arange(1, measured.pull.shape[1] + 1)
    right = measured.path.correct[0, :, -1]
    for style, (chosen, outcome) in enumerate(((right, "right"), (~right, "wrong"))):
        line: dict[str, Any] = {"color": charts.colour(style), "linestyle": ("-", "--")[style]}
        for values in measured.pull[chosen]:
            ax.plot(steps, values, linewidth=1, **line)
        ax.plot([], [], label=f"{outcome} after step {len(steps)}", **line)
    ax.set(xlabel="after supervision step", ylabel="|gradient part| / |noise part|", yscale="log")
    ax.set_title(f"pull of the gradient, puzzle {measured.row}", fontsize=10)
    charts.legend_below(ax)


def _draw_plane(ax: "Axes", z: np.ndarray, gradient: np.ndarray) -> None:
    """Paths of z in their principal plane, with arrows of equal length along -gradient."""
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
    first, second = (f"{100 * share:.0f} % of the variance" for share in plane.share)
    ax.set(xlabel=f"z, component 1 ({first})", ylabel=f"z, component 2 ({second})")
    ax.margins(0.1)  # for the arrows
    ax.set_title("direction of -gradient", fontsize=10)


def find(measured: Measured, settings: Settings) -> dict[str, Finding]:
    """Paired differences with the control and with plain noise; strength of the gradient."""
    width, depth = measured.pull.shape
    last = settings.updates[-1]
    found = {"trm": Finding.of(f"TRM, D={depth}", measured.trm)}
    for choice, title in measured.titles.items():
        for number in settings.updates:
            suffix = "" if (choice, number) == ("best_q", last) else f"_{choice}_{number}"
            eta = settings.langevin(number).step_size
            for key, other, label in (
                ("gradient_gain", "control", "control"),
                ("plain_gain", "plain", "plain noise"),
            ):
                gain = metrics.paired_difference(
                    measured.solved(choice, "gradient", number),
                    measured.solved(choice, other, number),
                )
                what = f"{title}, N={number}, eta={eta:.3g}, D={depth}: gradient minus {label}"
                found[key + suffix] = Finding.of(what, gain, "points")
    found["pull"] = Finding.single(
        f"length of the gradient's part of an update over that of its noise, N={last}, median over "
        f"{width} rollouts of puzzle {measured.row} and their steps",
        np.median(measured.pull),
        "number",
        1,
    )
    return found


def say(measured: Measured, findings: Mapping[str, Finding]) -> list[str]:
    """The findings in sentences."""
    said = {name: found.text() for name, found in findings.items()}
    return [
        f"{findings['gradient_gain'].what}: {said['gradient_gain']}. Compared with plain noise of "
        f"the same variance: {said['plain_gain']}.",
        f"The gradient's part of an update is {findings['pull'].value:.2g} times as long as its "
        f"noise (median over the rollouts of puzzle {measured.row} and their steps).",
        *(
            f"{finding.what}: {said[name]}."
            for name, finding in findings.items()
            if name.startswith("gradient_gain_")
        ),
    ]


def make(study: Study[Settings]) -> Exhibit:
    """The figure of Langevin dynamics."""
    measured, settings = measure(study), study.settings
    last = settings.updates[-1]
    plain, matched = measured.results["plain"][last], settings.langevin(last).matched_sigma
    caption = study.caption(
        plain, f"Langevin updates with the variance of sigma {matched:g} per step"
    )
    findings = find(measured, settings)
    return study.exhibit(
        "Langevin dynamics in Q's energy (PTRM Appendix C, Figure 8)",
        caption=caption,
        result=plain,
        reading=say(measured, findings),
        findings=findings,
        figure=draw(measured, caption),
        data={
            "pull": measured.pull,
            "correct": measured.path.correct[0],
            "q_logit": measured.path.q_logit[0],
        },
        rows=[
            {"choice": choice, "method": METHODS[method], "updates": number}
            | {"step_size": settings.langevin(number).step_size, "num_puzzles": value.num_puzzles}
            | interval_columns(value)
            for (choice, method, number), value in measured.accuracy().items()
        ],
    )
