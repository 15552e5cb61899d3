"""Cost of an answer in seconds, rollout-steps, operations and dollars (PTRM Table 2).

The paper prices an H100 at 2.50 dollars per hour: seconds per puzzle times 2.50 / 3600.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from ptrm_jax import charts, metrics
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.analysis.study import Solved, Study
from ptrm_jax.metrics import Interval
from ptrm_jax.model import TRM, Params, flops_per_rollout_step
from ptrm_jax.sweep import Result
from ptrm_jax.sweep.config import powers_of_two
from ptrm_jax.tasks import ppbench

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """The cost of TRM and PTRM."""

    dollars_per_hour: float = 2.5
    """Price of the hardware; by default the paper's for an H100, on any hardware."""

    def __post_init__(self) -> None:
        self.price(0.0)  # checks the rate

    def price(self, seconds: float) -> float:
        """Dollars for a number of seconds of the hardware."""
        return ppbench.dollars_per_puzzle(seconds, dollars_per_hour=self.dollars_per_hour)


class Cost(NamedTuple):
    """Cost of one way of solving, per puzzle and per solved puzzle.

    Attributes:
      rollout_steps: supervision steps of single rollouts per puzzle.
      seconds: per puzzle.
      accuracy: fraction of puzzles solved.
      steps_per_right: rollout-steps per puzzle solved; NaN if none is.
      seconds_per_right: seconds per puzzle solved.
    """

    rollout_steps: int
    seconds: float
    accuracy: Interval
    steps_per_right: Interval
    seconds_per_right: Interval


def cost(solved: np.ndarray, rollout_steps: int, steps_per_second: float) -> Cost:
    """The cost of one way of solving.

    Args:
      solved: [R, B] probability that the answer is right; seeds are averaged.
      rollout_steps: per puzzle.
      steps_per_second: rollout-steps per second of the hardware.
    """
    chance = solved.mean(axis=0)
    steps = metrics.ratio_interval(np.full(len(chance), rollout_steps), chance)
    steps = steps._replace(num_puzzles=len(chance))  # unsolved puzzles cost too
    mean, low, high, n = steps
    return Cost(
        rollout_steps,
        rollout_steps / steps_per_second,
        metrics.interval(solved),
        steps,
        Interval(mean / steps_per_second, low / steps_per_second, high / steps_per_second, n),
    )


def compiled_flops_per_rollout_step(model: TRM, params: Params, lane_tile: int) -> float:
    """Operations of one supervision step of one rollout, by XLA's count of compiled programs.

    XLA counts the body of a loop once, however often it runs. So the network and the heads are
    compiled separately, on a tile of lanes as in the solver, and multiplied by how often they run.
    The count includes elementwise operations, but not noise, embedding and argmax.

    Args:
      model: the network.
      params: its parameters.
      lane_tile: rollouts that pass through the network together.
    """
    config = model.config
    state = jax.ShapeDtypeStruct(
        (config.length, lane_tile, config.hidden_size), model.precision.dtype
    )

    def count(method: Callable[..., Any], *states: jax.ShapeDtypeStruct, out_axes: int) -> float:
        lane = functools.partial(model.apply, {"params": params}, method=method)
        compiled = jax.jit(jax.vmap(lane, in_axes=1, out_axes=out_axes)).lower(*states).compile()
        counts = compiled.cost_analysis()
        assert counts is not None
        return counts["flops"] / lane_tile

    network, heads = count(TRM.f, state, state, out_axes=1), count(TRM.heads, state, out_axes=0)
    return config.H_cycles * (config.L_cycles + 1) * network + heads


class Measured(NamedTuple):
    """Cost of several ways of solving.

    Attributes:
      result: the sweep that was timed.
      costs: by method, then by its depth or width.
      trm: of the deterministic TRM at full depth.
      ptrm: of best-Q at full width and depth.
      steps_per_second: rollout-steps per second, without compilation.
      flops: operations per rollout-step in matrix products.
      compiled_flops: operations per rollout-step by XLA's count.
    """

    result: Result
    costs: Mapping[str, Mapping[str, Cost]]
    trm: Cost
    ptrm: Cost
    steps_per_second: float
    flops: int
    compiled_flops: float

    @property
    def hardware(self) -> str:
        """Devices that ran the sweep."""
        where = self.result.provenance["platform"]
        return f"{where['devices']} x {where['device_kind']}"


def measure(study: Study[Settings]) -> Measured:
    """Times the sweep, and compiles the network to count its operations."""
    prepared, search, result = study.prepared, study.settings.search, study.sweep()
    solved = Solved(result, search.sigma)
    timed = [result.deterministic, *result.runs_of(search.sigma)]
    steps = sum(run.rollouts.correct.size for run in timed)
    rate = steps / sum(run.seconds for run in timed)

    def best_q(k: int, depth: int) -> Cost:
        return cost(solved.ptrm("best_q", k, depth), k * depth, rate)

    trm = {d: cost(solved.trm(d)[:1], d, rate) for d in powers_of_two(search.depth)}
    costs = {"TRM, deterministic": {f"D={d}": way for d, way in trm.items()}}
    for depth in (search.depth, max(1, search.depth // 4)):
        costs[f"best-Q@k, D={depth}"] = {
            f"k={k}": best_q(k, depth) for k in powers_of_two(search.rollouts)
        }
    return Measured(
        result,
        costs,
        trm[search.depth],
        best_q(search.rollouts, search.depth),
        rate,
        flops_per_rollout_step(prepared.model.config),
        compiled_flops_per_rollout_step(prepared.model, prepared.params, prepared.lane_tile),
    )


def draw(measured: Measured, caption: str) -> "Figure":
    """Accuracy against seconds, and rollout-steps per solved puzzle against accuracy."""
    figure, axes = charts.new_figure(caption, columns=2, size=(5.2, 4.2), margin=0.2)
    left, right = axes[0]
    for style, (label, ways) in enumerate(measured.costs.items()):
        x = np.array([way.seconds for way in ways.values()]) * 1.02 ** (style - 1)
        charts.points(left, x, [way.accuracy for way in ways.values()], style, label)
        priced = [way for way in ways.values() if np.isfinite(way.steps_per_right[:3]).all()]
        if priced:
            x = np.array([way.accuracy.mean for way in priced])
            charts.points(right, x, [way.steps_per_right for way in priced], style, label)
    for ax in (left, right):
        charts.legend_below(ax, columns=3)
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    left.set(xlabel="seconds per puzzle", ylabel="puzzles solved exactly (%)")
    charts.percent(left)
    right.set(
        yscale="log",
        xlabel="puzzles solved exactly (%)",
        ylabel="rollout-steps per solved puzzle",
    )
    charts.percent(right, "x")
    return figure


def find(measured: Measured, settings: Settings) -> dict[str, Finding]:
    """Speed, operations, and the cost of TRM and PTRM."""
    depth, width = settings.search.depth, settings.search.rollouts
    per_step = "million operations per rollout-step"
    found = {
        "steps_per_second": Finding.single(
            f"rollout-steps per second, {measured.hardware}", measured.steps_per_second, "number"
        ),
        "flops": Finding.single(f"{per_step}, matrix products", measured.flops / 1e6, "number"),
        "compiled_flops": Finding.single(
            f"{per_step}, XLA's count of the compiled network",
            measured.compiled_flops / 1e6,
            "number",
        ),
    }
    for name, label, way in (
        ("trm", f"TRM, D={depth}", measured.trm),
        ("ptrm", f"best-Q@{width}, D={depth}", measured.ptrm),
    ):
        per_hour = f"{settings.dollars_per_hour:g} dollars per hour"
        found |= {
            f"{name}_accuracy": Finding.of(label, way.accuracy),
            f"{name}_seconds": Finding.single(
                f"{label}, seconds per puzzle", way.seconds, "seconds"
            ),
            f"{name}_dollars": Finding.single(
                f"{label}, per puzzle at {per_hour}", settings.price(way.seconds), "dollars"
            ),
            f"{name}_steps_per_right": Finding.of(
                f"{label}, rollout-steps per solved puzzle", way.steps_per_right, "number"
            ),
            f"{name}_seconds_per_right": Finding.of(
                f"{label}, seconds per solved puzzle", way.seconds_per_right, "seconds"
            ),
        }
    return found


def say(findings: Mapping[str, Finding], settings: Settings) -> list[str]:
    """The findings in sentences."""
    depth, width = settings.search.depth, settings.search.rollouts
    said = {name: found.text() for name, found in findings.items()}
    return [
        f"TRM at D={depth} takes {depth} rollout-steps ({said['trm_seconds']}) per puzzle and "
        f"solves {said['trm_accuracy']}: {said['trm_steps_per_right']} rollout-steps per solved "
        f"puzzle. best-Q@{width} takes {width * depth} ({said['ptrm_seconds']}) and solves "
        f"{said['ptrm_accuracy']}: {said['ptrm_steps_per_right']} per solved puzzle.",
        f"At {settings.dollars_per_hour:g} dollars per hour of this hardware a puzzle costs "
        f"{said['trm_dollars']} with TRM and {said['ptrm_dollars']} with PTRM.",
        f"A rollout-step takes {said['flops']} million operations in matrix products; XLA counts "
        f"{said['compiled_flops']} million, elementwise operations included.",
    ]


def make(study: Study[Settings]) -> Exhibit:
    """The figure of cost."""
    measured, settings = measure(study), study.settings
    speed = f"{measured.steps_per_second:,.0f} rollout-steps per second on {measured.hardware}"
    caption = study.caption(measured.result, f"{speed}, other load on the machine included")
    findings = find(measured, settings)
    return study.exhibit(
        "Cost of an answer (PTRM Table 2)",
        caption=caption,
        result=measured.result,
        reading=say(findings, settings),
        findings=findings,
        figure=draw(measured, caption),
        rows=[
            {
                "way": label,
                "at": at,
                "rollout_steps": way.rollout_steps,
                "seconds": way.seconds,
                "dollars": settings.price(way.seconds),
                "accuracy": way.accuracy.mean,
                "num_puzzles": way.accuracy.num_puzzles,
                "accuracy_low": way.accuracy.low,
                "accuracy_high": way.accuracy.high,
                "steps_per_solved": way.steps_per_right.mean,
                "steps_per_solved_low": way.steps_per_right.low,
                "steps_per_solved_high": way.steps_per_right.high,
            }
            for label, ways in measured.costs.items()
            for at, way in ways.items()
        ],
    )
