"""Runs work units on the devices of this process, and estimates what they take."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ptrm_jax import mesh, tasks
from ptrm_jax.config import Save
from ptrm_jax.data import Dataset
from ptrm_jax.model import TRM, Params, flops_per_energy_gradient, flops_per_rollout_step
from ptrm_jax.sweep.config import Search
from ptrm_jax.sweep.measure import Chosen, Finished, measure
from ptrm_jax.sweep.plan import Shard, Unit, tile_of
from ptrm_jax.sweep.prepare import Workload
from ptrm_jax.sweep.result import Outcome, assemble_outcome

Progress = Callable[[int, str], None]
"""Called with (rollout-steps just finished, what is running and how it went so far)."""


def remaining(workload: Workload, finished: Mapping[Unit, Finished], shard: Shard) -> list[Unit]:
    """The units of a shard that are not finished."""
    return [unit for unit in shard.of(workload.units) if unit not in finished]


def work(
    workload: Workload,
    *,
    finished: Mapping[Unit, Finished] | None = None,
    keep: Callable[[Finished], None] = lambda part: None,
    shard: Shard = Shard(),  # noqa: B008 (immutable)
    progress: Progress = lambda steps, what: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[Unit, Finished]:
    """Runs the units that are not finished.

    Args:
      workload: of `prepare`.
      finished: units that need not be run again.
      keep: called with every unit as it finishes.
      shard: the part that this process runs.
      progress: called before and after every unit.
      stop: called after every unit; when it returns True, no further unit is started.

    Returns:
      The finished units, including those given.
    """
    done = dict(finished or {})
    for unit in remaining(workload, done, shard):
        progress(0, _describe(workload, unit, done))
        done[unit] = part = _run_unit(workload, unit)
        keep(part)
        progress(unit.rollout_steps, _describe(workload, unit, done))
        if stop():
            break
    return done


def _describe(workload: Workload, unit: Unit, done: Mapping[Unit, Finished]) -> str:
    """What is running, and how many rollouts of the same run were right so far."""
    run = next(run for run in workload.runs if unit in run)
    text = "TRM" if run is workload.runs[0] else f"PTRM sigma {unit.sigma:g}"
    if len(workload.search.seeds) > 1 and run is not workload.runs[0]:
        text += f" seed {unit.seed}"
    ends = [done[part].measured.correct[:, :, -1] for part in run if part in done]
    if ends:
        right = sum(int(end.sum()) for end in ends) / sum(end.size for end in ends)
        text += f", {100 * right:.1f} % right so far"
    return text


def _run_unit(workload: Workload, unit: Unit) -> Finished:
    search, puzzles = workload.search, workload.puzzles
    start, compiled = time.perf_counter(), mesh.compile_seconds()
    answers, q_logits, finite, chosen = _solve(workload, unit)
    keep_steps = workload.keep_steps(unit.depth)
    if chosen is not None:  # one answer for each puzzle, at its own step
        keep_steps = [1] if keep_steps else []
    first, last = unit.puzzles
    valid = None
    if puzzles.task is not None:
        inputs = puzzles.puzzles.inputs[first:last, None, None]
        valid = tasks.load(puzzles.task).satisfies_rules(answers, inputs)
    measured = measure(
        answers,
        q_logits,
        finite,
        puzzles.labels[first:last],
        puzzles.ignore_label,
        valid=valid,
        keep_steps=keep_steps,
        read=search.read if workload.keep_answers == "last" and chosen is None else "last",
        chosen=chosen,
    )
    compiled = mesh.compile_seconds() - compiled
    return Finished(unit, measured, time.perf_counter() - start - compiled, compiled)


def _solve(
    workload: Workload, unit: Unit
) -> tuple[np.ndarray, np.ndarray, np.ndarray, Chosen | None]:
    """Answers [b, k, D, S], Q and finite [b, k, D]; with a rule k = D = 1, and what it chose."""
    search, inputs = workload.search, workload.puzzles.puzzles
    args = workload.model, workload.params, jax.random.key(unit.seed, impl="threefry2x32")
    settings: dict[str, Any] = {
        "depth": unit.depth,
        "sigma": unit.sigma,
        "noise_on": search.noise_on,
        "noise_when": search.noise_when,
        "langevin": search.langevin if unit.langevin else None,
        "lane_tile": tile_of(workload.lane_tile, unit.depth),
        "devices": workload.devices,
        "backend": workload.backend,
    }
    (first, last), (first_rollout, last_rollout) = unit.puzzles, unit.rollouts
    if unit.stop is not None:
        found, _ = mesh.solve_anytime_with_use(
            *args,
            inputs.take(np.arange(first, last)),
            stop=unit.stop,
            max_rollouts=last_rollout,
            size=unit.shape[0],
            **settings,
        )
        chosen = Chosen(found.rollout, found.step, found.stopped, found.rollout_steps)
        answers, q_logits = found.answer[:, None, None], found.q_logit[:, None, None]
        return answers, q_logits, found.rollout[:, None, None] >= 0, chosen
    # Padded to the common shape by repeating the last puzzle and the last rollout.
    rows, rollouts = (
        np.minimum(np.arange(start, start + size, dtype=np.int32), stop - 1)
        for (start, stop), size in zip((unit.puzzles, unit.rollouts), unit.shape, strict=True)
    )
    save = Save(answers=True, q_logits=True)
    solution = mesh.solve(*args, inputs.take(rows), rollouts=rollouts, save=save, **settings)
    assert solution.trajectory is not None
    answers, q_logits, finite = (
        np.asarray(x)[: last - first, : last_rollout - first_rollout]
        for x in (
            solution.trajectory.answers,
            solution.trajectory.q_logits,
            solution.trajectory.finite,
        )
    )
    return answers, q_logits, finite, None


def run(workload: Workload, *, progress: Progress = lambda steps, what: None) -> Outcome:
    """Runs everything and keeps nothing on disk.

    Args:
      workload: of `prepare`, or made of a model in memory.
      progress: as for `work`.
    """
    return assemble_outcome(workload, work(workload, progress=progress))


def evaluate(
    model: TRM,
    params: Params,
    puzzles: Dataset,
    search: Search,
    *,
    devices: tuple[jax.Device, ...] | None = None,
    lane_tile: int | None = None,
) -> Outcome:
    """Runs a search on a model in memory: the deterministic TRM, and PTRM by sigma and seed.

    Args:
      model: the network.
      params: its parameters.
      puzzles: what to solve, all labelled.
      search: width, depth and noise.
      devices: where to run; by default all local devices.
      lane_tile: rollouts that pass through the network together; by default chosen for the backend.

    Raises:
      DataError: the puzzles do not fit the model.
    """
    puzzles.check_fits(model.config)
    devices = mesh.local_devices() if devices is None else devices
    return run(
        Workload(
            search=search,
            model=model,
            params=mesh.replicate(params, devices),
            puzzles=puzzles,
            devices=devices,
            lane_tile=lane_tile or mesh.default_lane_tile(model, devices[0]),
        )
    )


class Estimate(NamedTuple):
    """What units take.

    Attributes:
      units: work units.
      rollout_steps: supervision steps of single rollouts.
      flops: multiplications and additions of their matrix products.
      output_bytes: upper bound for the journals, before compression.
      grid_ratio: rollout-steps of one PTRM run divided by those of every (width, depth) of the grid
        run by itself; None without a grid.
    """

    units: int
    rollout_steps: int
    flops: int
    output_bytes: int
    grid_ratio: float | None


def estimate(workload: Workload, units: Sequence[Unit] | None = None) -> Estimate:
    """What units take; all of them, unless given."""
    search = workload.search
    units = workload.units if units is None else units
    steps = sum(unit.rollout_steps for unit in units)
    each = sum(np.dtype(kind).itemsize for kind in ("bool", "f4", "f4", "bool", "bool", "u8"))
    model = workload.model.config
    answer = np.min_scalar_type(model.vocab_size - 1).itemsize * model.seq_len
    kept = sum(unit.lanes * len(workload.keep_steps(unit.depth)) for unit in units)
    ratio = None
    if search.grid_rollouts and search.grid_depths:
        whole = search.rollouts * search.depth
        ratio = whole / (sum(search.grid_rollouts) * sum(search.grid_depths))
    return Estimate(len(units), steps, _flops(workload, units), steps * each + kept * answer, ratio)


def _flops(workload: Workload, units: Sequence[Unit]) -> int:
    model, langevin = workload.model.config, workload.search.langevin
    flops = sum(unit.rollout_steps for unit in units) * flops_per_rollout_step(model)
    if langevin is not None and langevin.gradient:
        between = sum(unit.lanes * (unit.depth - 1) for unit in units if unit.langevin)
        flops += between * langevin.num_updates * flops_per_energy_gradient(model)
    return flops


def calibrate(workload: Workload) -> float:
    """Rollout-steps of this workload per second on this machine, measured on a few of them.

    Compiles a shallow program; nothing of it is kept.
    """
    lanes, depth = 2 * workload.lane_tile * len(workload.devices), 4
    langevin = workload.search.langevin is not None
    unit = Unit(0.0, 0, depth, (0, 1), (0, lanes), (1, lanes), langevin)
    first = _run_unit(workload, unit)
    # The first run has a second or so of overheads, which do not matter where the model is slow.
    measured = first if first.seconds > 10 else _run_unit(workload, unit)
    # By FLOP: steps with Langevin updates cost more than those without.
    flops_per_step = _flops(workload, workload.units) / workload.rollout_steps
    return _flops(workload, [unit]) / measured.seconds / flops_per_step
