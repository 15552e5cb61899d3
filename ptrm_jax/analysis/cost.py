"""What an answer costs: seconds, rollout-steps, operations, dollars (PTRM Table 2).

The paper prices an H100 at 2.50 dollars per hour: seconds per puzzle times 2.50 / 3600.

Shape letters: B puzzles, R seeds, K rollouts, D supervision steps.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ptrm_jax import charts, metrics, sweep
from ptrm_jax.analysis import study
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.metrics import Interval
from ptrm_jax.model import TRM, Params, flops_per_rollout_step
from ptrm_jax.tasks import ppbench


@dataclasses.dataclass(frozen=True)
class Settings(study.Settings):
    """What TRM and PTRM cost."""

    dollars_per_hour: float = 2.5
    """What the hardware costs; by default the paper's rate of an H100, whatever runs this."""

    def __post_init__(self) -> None:
        self.price(0.0)  # checks the rate

    def price(self, seconds: float) -> float:
        """Dollars for so many seconds of the hardware."""
        return ppbench.dollars_per_puzzle(seconds, dollars_per_hour=self.dollars_per_hour)


class Cost(NamedTuple):
    """What one way of solving takes, per puzzle and per puzzle that it gets right.

    Attributes:
      rollout_steps: supervision steps of single rollouts per puzzle.
      seconds: per puzzle.
      accuracy: fraction of puzzles solved.
      steps_per_right: rollout-steps per puzzle solved; NaN where none is.
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
      solved: [R, B] chance in [0, 1] that the answer is right; seeds are averaged.
      rollout_steps: per puzzle.
      steps_per_second: rollout-steps that the hardware does in a second.
    """
    chance = solved.mean(axis=0)
    steps = metrics.ratio_interval(np.full(len(chance), rollout_steps), chance)
    steps = steps._replace(num_puzzles=len(chance))  # those never solved cost too
    return Cost(
        rollout_steps,
        rollout_steps / steps_per_second,
        metrics.interval(solved),
        steps,
        Interval(*(value / steps_per_second for value in steps[:3]), len(chance)),
    )


def compiled_flops_per_rollout_step(model: TRM, params: Params, lane_tile: int) -> float:
    """Operations of one supervision step of one rollout, by XLA's count of compiled programs.

    XLA counts the body of a loop once, whatever its turns. So the network and the heads are
    compiled by themselves, on a tile of lanes as in the solver, and counted as often as they run.
    Elementwise operations are in it; noise, embedding and argmax are not.

    Args:
      model: the network.
      params: its parameters.
      lane_tile: rollouts that go through the network together.
    """
    config = model.config
    state = jax.ShapeDtypeStruct(
        (config.length, lane_tile, config.hidden_size), model.precision.dtype
    )

    def count(method: Callable[..., Any], *states: jax.ShapeDtypeStruct, **axes: int) -> float:
        lane = functools.partial(model.apply, {"params": params}, method=method)
        compiled = jax.jit(jax.vmap(lane, in_axes=1, **axes)).lower(*states).compile()
        return compiled.cost_analysis()["flops"] / lane_tile

    network, heads = count(TRM.f, state, state, out_axes=1), count(TRM.heads, state)
    return config.H_cycles * (config.L_cycles + 1) * network + heads


def make(study: study.Study) -> list[Exhibit]:
    """Accuracy against seconds and the price of a right answer: TRM by depth, PTRM by width."""
    settings = study.settings
    depth, width = settings.depth, settings.rollouts
    result = study.sweep()
    runs, quiet = sweep.runs_of(result, settings.sigma), result.deterministic.record
    all_runs = [result.deterministic, *runs]
    steps = sum(run.record.correct.size for run in all_runs)
    rate = steps / sum(run.seconds for run in all_runs)
    by_matmul = flops_per_rollout_step(study.model.config)
    by_xla = compiled_flops_per_rollout_step(study.model, study.params, study.lane_tile)

    costs = {
        "TRM, deterministic": {
            f"D={d}": cost(quiet.at(d).correct[:, 0][None].astype(float), d, rate)
            for d in sweep.widths(depth)
        },
        f"best-Q@k, D={depth}": {
            f"k={k}": cost(sweep.over_seeds(runs, sweep.best_q, k, depth), k * depth, rate)
            for k in sweep.widths(width)
        },
    }
    shallow = max(1, depth // 4)
    costs[f"best-Q@k, D={shallow}"] = {
        f"k={k}": cost(sweep.over_seeds(runs, sweep.best_q, k, shallow), k * shallow, rate)
        for k in sweep.widths(width)
    }
    where = result.provenance["platform"]
    hardware = f"{where['devices']} x {where['device_kind']}"
    caption = study.caption(
        result, f"{rate:,.0f} rollout-steps per second on {hardware}, whatever else it was doing"
    )
    figure, axes = charts.new_figure(caption, columns=2, size=(5.2, 4.2), margin=0.2)
    left, right = axes[0]
    for style, (label, ways) in enumerate(costs.items()):
        x = np.array([way.seconds for way in ways.values()]) * 1.02 ** (style - 1)
        charts.points(left, x, [way.accuracy for way in ways.values()], style, label)
        priced = {n: way for n, way in ways.items() if np.isfinite(way.steps_per_right[:3]).all()}
        if priced:
            x = np.array([way.accuracy.mean for way in priced.values()])
            charts.points(right, x, [w.steps_per_right for w in priced.values()], style, label)
    for ax in (left, right):
        ax.legend(fontsize=8)
    left.set(xscale="log", xlabel="seconds per puzzle", ylabel="puzzles solved exactly (%)")
    charts.percent(left)
    right.set(yscale="log", xlabel="puzzles solved exactly (%)", ylabel="rollout-steps per solved")
    charts.percent(right, "x")

    trm = costs["TRM, deterministic"][f"D={depth}"]
    ptrm = costs[f"best-Q@k, D={depth}"][f"k={width}"]
    findings = {
        "steps_per_second": Finding(
            f"rollout-steps per second, {hardware}", rate, None, None, None, "number"
        ),
        "flops": Finding(
            "million operations per rollout-step, matrix products",
            *(by_matmul / 1e6, None, None, None, "number"),
        ),
        "compiled_flops": Finding(
            "million operations per rollout-step, XLA's count of the compiled network",
            *(by_xla / 1e6, None, None, None, "number"),
        ),
    }
    for name, label, way in (
        ("trm", f"TRM, D={depth}", trm),
        ("ptrm", f"best-Q@{width}, D={depth}", ptrm),
    ):
        price = settings.price(way.seconds)
        findings |= {
            f"{name}_accuracy": Finding.of(label, way.accuracy),
            f"{name}_seconds": Finding(
                f"{label}, seconds per puzzle", way.seconds, None, None, None, "seconds"
            ),
            f"{name}_dollars": Finding(
                f"{label}, per puzzle at {settings.dollars_per_hour:g} dollars per hour",
                *(price, None, None, None, "dollars"),
            ),
            f"{name}_steps_per_right": Finding.of(
                f"{label}, rollout-steps per solved puzzle", way.steps_per_right, "number"
            ),
            f"{name}_seconds_per_right": Finding.of(
                f"{label}, seconds per solved puzzle", way.seconds_per_right, "seconds"
            ),
        }
    said = {name: found.text() for name, found in findings.items()}
    reading = [
        f"TRM at D={depth} takes {depth} rollout-steps ({said['trm_seconds']}) per puzzle and "
        f"solves {said['trm_accuracy']}: {said['trm_steps_per_right']} rollout-steps for each. "
        f"best-Q@{width} takes {width * depth} ({said['ptrm_seconds']}) and solves "
        f"{said['ptrm_accuracy']}: {said['ptrm_steps_per_right']} for each solved.",
        f"At {settings.dollars_per_hour:g} dollars per hour of this hardware a puzzle costs "
        f"{said['trm_dollars']} and {said['ptrm_dollars']}.",
        f"A rollout-step takes {said['flops']} million operations in matrix products; XLA counts "
        f"{said['compiled_flops']} million with everything elementwise.",
    ]
    return [
        Exhibit(
            name="cost",
            title="What an answer costs (PTRM Table 2)",
            caption=caption,
            command=study.command,
            reading=reading,
            findings=findings,
            provenance=result.provenance,
            figure=figure,
            rows=[
                {"way": label, "at": at, "rollout_steps": way.rollout_steps}
                | {"seconds": way.seconds}
                | {"dollars": settings.price(way.seconds)}
                | {"accuracy": way.accuracy.mean, "num_puzzles": way.accuracy.num_puzzles}
                | {"accuracy_low": way.accuracy.low, "accuracy_high": way.accuracy.high}
                | {"steps_per_solved": way.steps_per_right.mean}
                | {"steps_per_solved_low": way.steps_per_right.low}
                | {"steps_per_solved_high": way.steps_per_right.high}
                for label, ways in costs.items()
                for at, way in ways.items()
            ],
        )
    ]
