"""A sweep: a run per (sigma, seed), deterministic TRM beside it, every metric from the record.

Rollouts and steps nest: the run at the largest K and D holds every smaller k and d, so curves cost
nothing beyond it. What the rollouts did is kept per rollout and step (`Record`), without the
answers themselves, and all metrics are computed from that, on the host.

The work falls into units (`ptrm_jax.sweep.plan`). Given a folder, each finished one goes into a
journal there, and the same sweep goes on from what it holds, on any number of devices and
processes.
"""

import dataclasses
import functools
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import tyro

from ptrm_jax import checkpoint, data, mesh, metrics, tasks
from ptrm_jax.config import (
    Backend,
    DType,
    KeepAnswers,
    Langevin,
    MatmulPrecision,
    NoiseOn,
    NoiseWhen,
    Precision,
    Save,
    check_choice,
    check_int,
)
from ptrm_jax.data import Dataset, read_dataset
from ptrm_jax.errors import DataError, IncompleteError, InputError, PtrmError
from ptrm_jax.metrics import Interval
from ptrm_jax.model import TRM, Params, flops_per_energy_gradient, flops_per_rollout_step
from ptrm_jax.provenance import environment
from ptrm_jax.solver import check_sigma
from ptrm_jax.sweep.plan import Finished, Measured, Unit, assemble, measure, plan

INPUT_ERRORS = (PtrmError, ValueError, OSError)
"""What bad input raises before anything is compiled; commands turn them into exit status 2."""


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What to run. Each attribute is a flag of `experiments/ptrm_sweep.py`.

    Raises:
      ValueError: when built, for the first setting that breaks its rule.
    """

    checkpoint: str = "sudoku9"
    """A bundled checkpoint (maze11, sudoku6, sudoku9), or a directory that `python -m convert` or
    `experiments/train.py` wrote."""
    data: str | None = None
    """A bundled puzzle set, a CSV or JSON-lines file, or a folder in upstream's layout; by default
    the bundled set of the checkpoint's name."""
    split: str = "test"
    """Sub-folder of an upstream data folder."""
    sigmas: tuple[float, ...] = (0.1, 0.3, 1.0)
    """Noise scales, in units of the latent's root mean square."""
    rollouts: int = 8
    """K, width: noisy rollouts of each puzzle."""
    depth: int = 16
    """D: supervision steps of each rollout."""
    seeds: tuple[int, ...] = (0,)
    """One independent run of every sigma for each."""
    num_puzzles: int | None = 64
    """The first so many puzzles of the data; None for all."""
    noise_on: NoiseOn = "z"
    """State that gets the noise: z (the paper's algorithm), y, or both."""
    noise_when: NoiseWhen = "every"
    """Before every supervision step, or only the first."""
    langevin_updates: int = 0
    """N: Langevin updates of z between supervision steps, beside the noise of sigma, in all runs
    but the deterministic TRM's. 0 for none."""
    langevin_step_size: float | None = None
    """eta of these updates, which the paper does not state."""
    langevin_gradient: bool = True
    """Without it the updates are their noise alone, the paper's control."""
    equal_compute: bool = True
    """Also run the deterministic TRM for K * D steps, the compute of K rollouts."""
    compute_dtype: DType | None = None
    """Dtype of activations; by default the one the checkpoint was trained with."""
    matmul_precision: MatmulPrecision = "highest"
    """jax.lax.Precision of every matrix product."""
    q_dtype: DType | None = None
    """Dtype of the Q head; by default the compute dtype, as upstream."""
    lane_tile: int | None = None
    """Rollouts that go through the network together; by default what suits the backend."""
    unit_steps: int | None = None
    """Rollout-steps of a work unit, about: what a failure can cost. By default what suits the
    backend, some seconds of work."""
    task: str | None = None
    """Kind of puzzle, whose rules answers are checked against; by default what the data are known
    to be, which an upstream folder does not say."""
    keep_answers: KeepAnswers = "none"
    """Keep the answers of the last step (of TRM after D and after K * D), or of all, not only their
    digests: S bytes each, before compression."""
    unlabelled: tyro.conf.Suppress[bool] = False
    """Also solve puzzles whose label is not known, for what reads the answers; no metric counts
    them."""
    grid_rollouts: tuple[int, ...] = ()
    """Also report these widths, each with every depth of `grid_depths`; they cost nothing more."""
    grid_depths: tuple[int, ...] = ()
    """Also report these depths."""
    devices: int | None = None
    """How many local devices to use; by default all. Without effect on the result."""
    backend: Backend = "pmap"
    """How work is spread over them: pmap, or mesh (jit of shard_map). Without effect as well."""
    benchmark: tyro.conf.Suppress[str | None] = None
    """Name in `ptrm_jax.paper`, whose report is to be made too."""

    def __post_init__(self) -> None:
        check_int("rollouts", self.rollouts, 1)
        check_int("depth", self.depth, 1)
        for name in ("num_puzzles", "lane_tile", "unit_steps", "devices"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        check_choice("noise_on", self.noise_on, NoiseOn)
        check_choice("noise_when", self.noise_when, NoiseWhen)
        check_int("langevin_updates", self.langevin_updates, 0)
        if (self.langevin_updates == 0) != (self.langevin_step_size is None):
            raise InputError(
                "langevin_updates >= 1 and langevin_step_size go together; got "
                f"{self.langevin_updates} and {self.langevin_step_size}; pass both or neither"
            )
        if not (self.langevin_gradient or self.langevin_updates):
            raise InputError(
                "langevin_gradient is of Langevin updates; got False and langevin_updates 0; pass "
                "langevin_updates and langevin_step_size too"
            )
        _ = self.langevin
        check_choice("backend", self.backend, Backend)
        check_choice("keep_answers", self.keep_answers, KeepAnswers)
        if self.task is not None:
            tasks.load(self.task)
        for name, values in (("sigmas", self.sigmas), ("seeds", self.seeds)):
            if not values:
                raise InputError(f"{name} must hold at least one value; got none")
            if len(set(values)) != len(values):
                raise InputError(f"{name} must differ from each other; got {values}")
        for grid, name in (("grid_rollouts", "rollouts"), ("grid_depths", "depth")):
            for value in getattr(self, grid):
                check_int(grid, value, 1)
                if value > getattr(self, name):
                    raise InputError(
                        f"{grid} must be at most {name} ({getattr(self, name)}), whose parts they "
                        f"are; got {value}; raise {name}"
                    )
        for sigma in self.sigmas:
            check_sigma(sigma)
        for seed in self.seeds:
            check_int("seeds", seed, 0)
        Precision(self.compute_dtype or "float32", self.matmul_precision, self.q_dtype)

    @property
    def langevin(self) -> Langevin | None:
        """The Langevin updates of PTRM's runs.

        Raises:
          ValueError: step size or gradient out of range.
        """
        if not self.langevin_updates:
            return None
        return Langevin(self.langevin_updates, self.langevin_step_size, self.langevin_gradient)

    def keep_steps(self, depth: int) -> range | list[int]:
        """Supervision steps, from 1, of a run to `depth` whose answers are kept."""
        last = sorted({min(self.depth, depth), depth})
        return {"none": [], "last": last, "all": range(1, depth + 1)}[self.keep_answers]

    @property
    def baseline_depth(self) -> int:
        """Depth of the deterministic run: K * D for equal compute, D within it."""
        return self.depth * self.rollouts if self.equal_compute else self.depth


class Record(NamedTuple):
    """What every rollout of one (sigma, seed) did at every step; enough for every metric.

    Attributes:
      correct: [B, K, D] bool, the whole answer is right.
      cell_accuracy: [B, K, D] float32, fraction of counted positions.
      q_logit: [B, K, D] float32 logits.
      finite: [B, K, D] bool.
      valid: [B, K, D] bool, the answer satisfies the rules; all False where the task has none.
      answer_id: [B, K, D] int32, lowest rollout with the identical answer at that step.
      answer: [B, K, D] uint64, digest of the answer (`units.answer_digest`).
    """

    correct: np.ndarray
    cell_accuracy: np.ndarray
    q_logit: np.ndarray
    finite: np.ndarray
    valid: np.ndarray
    answer_id: np.ndarray
    answer: np.ndarray

    def at(self, depth: int) -> "Record":
        """The record after step `depth` (1..D): fields [B, K]."""
        return Record(*(field[:, :, depth - 1] for field in self))


def run_name(sigma: float, seed: int) -> str:
    """What files call a run."""
    return f"sigma{sigma:g}_seed{seed}"


@dataclasses.dataclass(frozen=True)
class Run:
    """One (sigma, seed) of a sweep; the deterministic one has sigma 0 and one rollout.

    Attributes:
      sigma: noise scale.
      seed: the user's integer.
      record: what happened, on the puzzles that have labels.
      seconds: wall time of its units, summed, without compilation.
      compile_seconds: time of compilation.
      measured: the same of all puzzles, with the answers of `SweepConfig.keep_steps`.
    """

    sigma: float
    seed: int
    record: Record
    seconds: float
    compile_seconds: float
    measured: Measured

    @property
    def name(self) -> str:
        return run_name(self.sigma, self.seed)


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished sweep.

    Attributes:
      config: what was asked.
      provenance: everything that decides the result, JSON.
      deterministic: TRM without noise, one rollout, to `config.baseline_depth` steps.
      runs: PTRM, ordered by sigma as asked, then seed.
      task: whose rules answers were checked against, or None.
      strata: as `Dataset.strata`, of its puzzles.
    """

    config: SweepConfig
    provenance: dict[str, Any]
    deterministic: Run
    runs: tuple[Run, ...]
    task: str | None = None
    strata: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep ready to run: everything checked and loaded, nothing compiled."""

    config: SweepConfig
    model: TRM
    params: Params
    puzzles: Dataset
    devices: tuple[jax.Device, ...]
    lane_tile: int
    provenance: dict[str, Any]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the bits of the result, and nothing else, as JSON."""
        config, source = self.config, self.provenance
        names = ("sigmas", "seeds", "rollouts", "depth", "equal_compute")
        names += ("noise_on", "noise_when", "keep_answers", "unlabelled")
        if config.langevin is not None:  # else the identity is what it was before there were any
            names += ("langevin_updates", "langevin_step_size", "langevin_gradient")
        identity = {
            "checkpoint": source["checkpoint"]["digest"],
            "data": {name: source["data"][name] for name in ("digest", "num_puzzles", "task")},
            "settings": {name: getattr(config, name) for name in names},
            "unit_steps": self.unit_steps,
            "precision": source["precision"],
            "lane_tile": self.lane_tile,
            "key": source["key"],
            "versions": {n: source["versions"][n] for n in ("ptrm_jax", "jax", "jaxlib")},
            "platform": {n: source["platform"][n] for n in ("backend", "device_kind", "machine")},
        }
        return json.loads(json.dumps(identity))

    @property
    def unit_steps(self) -> int:
        """Rollout-steps of a work unit, about."""
        return unit_steps(self.config, self.lane_tile)

    @functools.cached_property
    def runs(self) -> list[list[Unit]]:
        """As `plan_runs`."""
        return plan_runs(self.config, len(self.puzzles), self.lane_tile)

    @property
    def units(self) -> list[Unit]:
        """All work, in order."""
        return list(dict.fromkeys(unit for run in self.runs for unit in run))

    @property
    def rollout_steps(self) -> int:
        """Supervision steps of single rollouts that the sweep takes."""
        return sum(unit.rollout_steps for unit in self.units)


def unit_steps(config: SweepConfig, lane_tile: int) -> int:
    """Rollout-steps of a work unit, about."""
    return config.unit_steps or 512 * lane_tile


def plan_runs(config: SweepConfig, num_puzzles: int, lane_tile: int) -> list[list[Unit]]:
    """The units of every run: the deterministic TRM, then PTRM by sigma as asked, then seed."""
    runs = [(0.0, 0, config.baseline_depth, 1, False)]
    runs += [
        (sigma, seed, config.depth, config.rollouts, config.langevin is not None)
        for sigma in config.sigmas
        for seed in config.seeds
    ]
    return [
        plan(
            sigma=sigma,
            seed=seed,
            depth=depth,
            rollouts=rollouts,
            num_puzzles=num_puzzles,
            lanes=max(8 * lane_tile, unit_steps(config, lane_tile) // depth),
            langevin=langevin,
        )
        for sigma, seed, depth, rollouts, langevin in runs
    ]


def prepare(config: SweepConfig) -> Sweep:
    """Loads and checks everything a sweep needs, before anything is compiled.

    Raises:
      CheckpointError, DataError, ValueError: what is wrong with checkpoint, data or settings.
    """
    manifest = checkpoint.read_manifest(config.checkpoint)
    precision = Precision(
        config.compute_dtype or manifest["config"]["forward_dtype"],
        config.matmul_precision,
        config.q_dtype,
    )
    devices = mesh.local_devices(config.devices)
    model, params = checkpoint.load(config.checkpoint, precision=precision)
    whole = read_dataset(config.data or _data_of(config.checkpoint), split=config.split)
    # Rows whose every label is ignored are padding of the file, or not for us to know.
    labelled = metrics.valid_rows(whole.labels, whole.ignore_label)
    chosen = whole if config.unlabelled else whole.take(labelled)
    chosen = chosen.head(config.num_puzzles)
    if config.task is not None and chosen.task not in (None, config.task):
        raise InputError(
            f"task must be that of the data; {chosen.name} is of {chosen.task!r}; got "
            f"{config.task!r}; pass other data"
        )
    chosen = dataclasses.replace(chosen, task=config.task or chosen.task)
    if not metrics.valid_rows(chosen.labels, chosen.ignore_label).any():
        raise DataError(
            f"{chosen.name} must have a label for at least one of the puzzles to solve; it has "
            "none for these; pass other data or more of them"
        )
    chosen.check_fits(model.config)
    lane_tile = config.lane_tile or mesh.default_lane_tile()
    provenance = {
        "checkpoint": {"name": config.checkpoint, "digest": manifest["digest"]},
        "data": {
            "name": chosen.name,
            "digest": chosen.digest,
            "num_puzzles": len(chosen),
            "of": len(whole),
            "task": chosen.task,
        },
        "precision": dataclasses.asdict(precision),
        "lane_tile": lane_tile,
        "key": {
            "impl": "threefry2x32",
            "draw_dtype": "float32",
            "jax_threefry_partitionable": bool(jax.config.jax_threefry_partitionable),
        },
        **environment(devices),
    }
    return Sweep(
        config, model, mesh.replicate(params, devices), chosen, devices, lane_tile, provenance
    )


def _data_of(checkpoint_name: str) -> str:
    if checkpoint_name in data.bundled():
        return checkpoint_name
    raise InputError(
        f"data must be given with a checkpoint of your own; got none for {checkpoint_name!r}; pass "
        f"a bundled set ({', '.join(data.bundled())}), a CSV file or an upstream folder"
    )


class Shard(NamedTuple):
    """Which part of the units a process does: every `count`-th, from the `index`-th on."""

    index: int = 0
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Of "i/n".

        Raises:
          ValueError: it is not, or i is not in 0..n-1.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise InputError(f"shard must be i/n with i in 0..n-1; got {text!r}")
        return cls(int(index), int(count))


class Cost(NamedTuple):
    """What a sweep takes.

    Attributes:
      units: work units.
      rollout_steps: supervision steps of single rollouts.
      flops: multiplications and additions of their matrix products.
      output_bytes: of the journals at the most, before compression.
      grid_ratio: rollout-steps of one PTRM run over those of every (width, depth) of the grid run
        by itself; None without a grid.
    """

    units: int
    rollout_steps: int
    flops: int
    output_bytes: int
    grid_ratio: float | None


def cost(sweep: Sweep, units: Sequence[Unit] | None = None) -> Cost:
    """The cost of units; of all, unless given."""
    config = sweep.config
    units = sweep.units if units is None else units
    steps = sum(unit.rollout_steps for unit in units)
    each = sum(np.dtype(kind).itemsize for kind in ("bool", "f4", "f4", "bool", "bool", "u8"))
    model = sweep.model.config
    answer = np.min_scalar_type(model.vocab_size - 1).itemsize * model.seq_len
    kept = sum(unit.lanes * len(config.keep_steps(unit.depth)) for unit in units)
    ratio = None
    if config.grid_rollouts and config.grid_depths:
        whole = config.rollouts * config.depth
        ratio = whole / (sum(config.grid_rollouts) * sum(config.grid_depths))
    return Cost(len(units), steps, _flops(sweep, units), steps * each + kept * answer, ratio)


def _flops(sweep: Sweep, units: Sequence[Unit]) -> int:
    model, langevin = sweep.model.config, sweep.config.langevin
    flops = sum(unit.rollout_steps for unit in units) * flops_per_rollout_step(model)
    if langevin is not None and langevin.gradient:
        between = sum(unit.lanes * (unit.depth - 1) for unit in units if unit.langevin)
        flops += between * langevin.num_updates * flops_per_energy_gradient(model)
    return flops


def calibrate(sweep: Sweep) -> float:
    """Rollout-steps of this sweep per second on this machine, from a few of them.

    Compiles a shallow program; nothing of it is kept.
    """
    lanes, depth = 2 * sweep.lane_tile * len(sweep.devices), 4
    langevin = sweep.config.langevin is not None
    unit = Unit(0.0, 0, depth, (0, 1), (0, lanes), (1, lanes), langevin)
    first = _run_unit(sweep, unit)
    # The first run has overheads of its own, which do not matter where the model is slow.
    measured = first if first.seconds > 1 else _run_unit(sweep, unit)
    # By FLOP, for the steps of a sweep with Langevin updates are not all as dear.
    flops_per_step = _flops(sweep, sweep.units) / sweep.rollout_steps
    return _flops(sweep, [unit]) / measured.seconds / flops_per_step


def left(sweep: Sweep, finished: Mapping[Unit, Finished], shard: Shard) -> list[Unit]:
    """The units of a shard that are not finished."""
    return [unit for unit in sweep.units[shard.index :: shard.count] if unit not in finished]


def work(
    sweep: Sweep,
    *,
    finished: Mapping[Unit, Finished] | None = None,
    keep: Callable[[Finished], None] = lambda part: None,
    shard: Shard = Shard(),  # noqa: B008 (immutable)
    progress: Callable[[int, str], None] = lambda steps, what: None,
    stop: Callable[[], bool] = lambda: False,
) -> dict[Unit, Finished]:
    """Does the units of a prepared sweep that are not finished.

    Args:
      sweep: of `prepare`.
      finished: what is there already.
      keep: called with every unit as it is finished.
      shard: the part that this process does.
      progress: called with (rollout-steps just finished, what runs now and how it went so far).
      stop: asked after every unit; if it says so, the call returns.

    Returns:
      The finished units, those given included.
    """
    done = dict(finished or {})
    for unit in left(sweep, done, shard):
        progress(0, _describe(sweep, unit, done))
        done[unit] = part = _run_unit(sweep, unit)
        keep(part)
        progress(unit.rollout_steps, _describe(sweep, unit, done))
        if stop():
            break
    return done


def _describe(sweep: Sweep, unit: Unit, done: Mapping[Unit, Finished]) -> str:
    """What runs, and how many rollouts of the same kind were right so far."""
    run = next(run for run in sweep.runs if unit in run)
    text = "TRM" if run is sweep.runs[0] else f"PTRM sigma {unit.sigma:g}"
    if len(sweep.config.seeds) > 1 and run is not sweep.runs[0]:
        text += f" seed {unit.seed}"
    ends = [done[part].measured.correct[:, :, -1] for part in run if part in done]
    if ends:
        right = sum(int(end.sum()) for end in ends) / sum(end.size for end in ends)
        text += f", {100 * right:.1f} % right so far"
    return text


def collect(
    config: SweepConfig,
    provenance: dict[str, Any],
    runs: Sequence[Sequence[Unit]],
    finished: Mapping[Unit, Finished],
    task: str | None,
    strata: Mapping[str, np.ndarray],
) -> Result:
    """The result of all units of a sweep.

    Args:
      config: of the sweep.
      provenance: of the sweep.
      runs: of `plan_runs`.
      finished: what is there.
      task: as `Dataset.task`.
      strata: as `Dataset.strata`, of its puzzles.

    Raises:
      IncompleteError: some are missing.
    """
    units = {unit for run in runs for unit in run}
    if missing := len(units - finished.keys()):
        raise IncompleteError(
            f"{missing} of {len(units)} units of the sweep are missing; run the same command "
            "again, or the shards that have not ended"
        )
    first, *others = (_as_run([finished[unit] for unit in run]) for run in runs)
    labelled = _labelled(first.measured)
    strata = {name: kinds[labelled] for name, kinds in strata.items()}
    return Result(config, provenance, first, tuple(others), task, strata)


def run(sweep: Sweep, *, progress: Callable[[int, str], None] = lambda steps, what: None) -> Result:
    """Runs a prepared sweep from beginning to end, and keeps nothing on disk.

    Args:
      sweep: of `prepare`.
      progress: as for `work`.
    """
    finished, puzzles = work(sweep, progress=progress), sweep.puzzles
    return collect(
        *(sweep.config, sweep.provenance, sweep.runs, finished),
        *(puzzles.task, puzzles.strata),
    )


def _labelled(measured: Measured) -> np.ndarray:
    """[B] bool: puzzles whose answers can be right or wrong."""
    return ~np.isnan(measured.cell_accuracy[:, 0, 0])


def _as_run(parts: list[Finished]) -> Run:
    measured, unit = assemble(parts), parts[0].unit
    labelled = _labelled(measured)
    fields = (name for name in Record._fields if name != "answer_id")
    known = {name: getattr(measured, name)[labelled] for name in fields}
    answers = known["answer"][..., None].view(np.uint32)  # two tokens of a digest each
    ids = [metrics.answer_ids(answers[:, :, d]) for d in range(answers.shape[2])]
    return Run(
        unit.sigma,
        unit.seed,
        Record(**known, answer_id=np.stack(ids, axis=2)),
        sum(part.seconds for part in parts),
        sum(part.compile_seconds for part in parts),
        measured,
    )


def _run_unit(sweep: Sweep, unit: Unit) -> Finished:
    config = sweep.config
    start, compiled = time.perf_counter(), mesh.compile_seconds()
    # Filled up by repeating the last puzzle and the last rollout.
    rows, rollouts = (
        np.minimum(np.arange(first, first + size, dtype=np.int32), stop - 1)
        for (first, stop), size in zip((unit.puzzles, unit.rollouts), unit.shape, strict=True)
    )
    solution = mesh.solve(
        sweep.model,
        sweep.params,
        jax.random.key(unit.seed, impl="threefry2x32"),
        sweep.puzzles.puzzles.take(rows),
        rollouts=rollouts,
        depth=unit.depth,
        sigma=unit.sigma,
        noise_on=config.noise_on,
        noise_when=config.noise_when,
        langevin=config.langevin if unit.langevin else None,
        save=Save(answers=True, q_logits=True),
        lane_tile=sweep.lane_tile,
        devices=sweep.devices,
        backend=config.backend,
    )
    (first, stop), (first_rollout, stop_rollout) = unit.puzzles, unit.rollouts
    trajectory = jax.tree.map(
        lambda x: x[: stop - first, : stop_rollout - first_rollout], solution.trajectory
    )
    answers = np.asarray(trajectory.answers)
    valid = None
    if sweep.puzzles.task is not None:
        inputs = sweep.puzzles.puzzles.inputs[first:stop, None, None]
        valid = tasks.load(sweep.puzzles.task).satisfies_rules(answers, inputs)
    measured = measure(
        *(answers, trajectory.q_logits, trajectory.finite),
        sweep.puzzles.labels[first:stop],
        sweep.puzzles.ignore_label,
        valid=valid,
        keep_steps=config.keep_steps(unit.depth),
    )
    compiled = mesh.compile_seconds() - compiled
    return Finished(unit, measured, time.perf_counter() - start - compiled, compiled)


# --- Metrics of a result -------------------------------------------------------------------------


def best_q(record: Record, k: int, depth: int) -> np.ndarray:
    """Expected best-Q@k of every puzzle after step `depth`: [B] float64."""
    at = record.at(depth)
    return metrics.best_q_at_k(at.correct, at.q_logit, k, finite=at.finite)


def valid_then_q(record: Record, k: int, depth: int) -> np.ndarray:
    """Expected valid-then-Q@k of every puzzle after step `depth`: [B] float64.

    The best Q among answers that satisfy the rules, if there are any. Not PTRM: it has a verifier.
    """
    at = record.at(depth)
    return metrics.best_q_at_k(at.correct, at.q_logit, k, finite=at.finite, valid=at.valid)


def pass_at(record: Record, k: int, depth: int) -> np.ndarray:
    """Unbiased pass@k of every puzzle after step `depth`: [B] float64. Needs labels: a bound."""
    return metrics.pass_at_k(record.at(depth).correct, k)


def mode_at(record: Record, k: int, depth: int) -> np.ndarray:
    """Expected mode@k of every puzzle after step `depth`: [B] float64."""
    at = record.at(depth)
    return metrics.mode_at_k(at.correct, at.q_logit, at.answer_id, k, finite=at.finite)


Choice = Callable[[Record, int, int], np.ndarray]
"""Of a record, k and a depth: how often the answer chosen is right, [B] float64."""

CHOICES: dict[str, Choice] = {
    "best_q": best_q,
    "mode": mode_at,
    "valid_then_q": valid_then_q,
    "pass": pass_at,
}
"""How one answer is chosen among k rollouts; "pass" is the bound that labels would give, and
"valid_then_q" is there where the rules are known."""


CHOICE_NAMES = {"best_q": "best-Q", "mode": "mode", "valid_then_q": "valid-then-Q", "pass": "pass"}
"""What tables call them."""


def has_rules(result: Result) -> bool:
    """Whether the rules of the puzzles are known."""
    return result.task is not None


def choices(result: Result) -> dict[str, Choice]:
    """Those of CHOICES that a result has."""
    names = [name for name in CHOICES if has_rules(result) or name != "valid_then_q"]
    return {name: CHOICES[name] for name in names}


def validity(metric: Choice) -> Choice:
    """How often the answer that `metric` scores satisfies the rules, right or not."""
    return lambda record, k, depth: metric(record._replace(correct=record.valid), k, depth)


def over_seeds(runs: list[Run], metric: Choice, k: int, depth: int) -> np.ndarray:
    """A metric per seed and puzzle: [R, B] float64."""
    return np.stack([metric(run.record, k, depth) for run in runs])


def runs_of(result: Result, sigma: float) -> list[Run]:
    """The runs of one sigma, a seed each."""
    return [run for run in result.runs if run.sigma == sigma]


def widths(rollouts: int) -> list[int]:
    """k = 1, 2, 4, ... and K itself."""
    return sorted({2**i for i in range(rollouts.bit_length()) if 2**i <= rollouts} | {rollouts})


def baselines(result: Result) -> dict[str, np.ndarray]:
    """Deterministic TRM per puzzle at equal depth and, if it ran, at equal compute: [B] float64."""
    config = result.config
    depths = {"equal_depth": config.depth}
    if config.equal_compute:
        depths["equal_compute"] = config.baseline_depth
    return {
        name: result.deterministic.record.at(depth).correct[:, 0].astype(np.float64)
        for name, depth in depths.items()
    }


class Row(NamedTuple):
    """One line of the summary.

    Attributes:
      method: "TRM" or "PTRM".
      sigma: noise scale, 0 for TRM.
      choice: how the answer is chosen: "deterministic", "mean" of the rollouts, or one of CHOICES.
      rollouts: k.
      depth: supervision steps.
      accuracy: fraction of puzzles solved exactly, over puzzles, mean over seeds.
      seed_spread: standard deviation over seeds of that fraction; NaN for one seed.
      gain_equal_depth: accuracy minus deterministic TRM's at D, paired by puzzle; None for TRM.
      gain_equal_compute: accuracy minus deterministic TRM's at K * D, paired; None where not run.
      validity: fraction of puzzles whose answer satisfies the rules, be it the label or not; None
        where the task has none.
    """

    method: str
    sigma: float
    choice: str
    rollouts: int
    depth: int
    accuracy: Interval
    seed_spread: float
    gain_equal_depth: Interval | None
    gain_equal_compute: Interval | None
    validity: Interval | None


def summary(result: Result) -> list[Row]:
    """The table: deterministic TRM at equal depth and compute, then PTRM by sigma and choice."""
    config = result.config
    base = baselines(result)

    def rules(runs: list[Run], metric: Choice, k: int, depth: int) -> Interval | None:
        if not has_rules(result):
            return None
        return metrics.interval(over_seeds(runs, validity(metric), k, depth))

    rows = [
        Row(
            *("TRM", 0.0, "deterministic", 1, depth, metrics.interval(values), math.nan),
            *(None, None, rules([result.deterministic], pass_at, 1, depth)),
        )
        for depth, values in zip((config.depth, config.baseline_depth), base.values(), strict=False)
    ]
    for sigma in config.sigmas:
        runs = runs_of(result, sigma)
        metrics_at = {"mean": (pass_at, 1)} | {
            name: (metric, config.rollouts) for name, metric in choices(result).items()
        }
        for choice, (metric, k) in metrics_at.items():
            values = over_seeds(runs, metric, k, config.depth)
            gains = {
                name: metrics.paired_difference(values, np.broadcast_to(other, values.shape))
                for name, other in base.items()
            }
            rows.append(
                Row(
                    *("PTRM", sigma, choice, k, config.depth),
                    metrics.interval(values),
                    metrics.seed_spread(values.mean(axis=1)),
                    *(gains["equal_depth"], gains.get("equal_compute")),
                    rules(runs, metric, k, config.depth),
                )
            )
    return rows


def run_metrics(result: Result, run: Run) -> dict[str, Any]:
    """Every figure of one run at its full width and depth, as JSON: a line of `results.jsonl`."""
    num_rollouts, depth = run.record.correct.shape[1:]
    at = run.record.at(depth)
    mean = metrics.pass_at_k(at.correct, 1)
    figures: dict[str, Any] = {
        "mean": metrics.interval(mean)._asdict(),
        "cell_accuracy": metrics.interval(at.cell_accuracy.mean(axis=1, dtype=float))._asdict(),
        "q_auc": metrics.q_auc_interval(at.correct, at.q_logit, finite=at.finite)._asdict(),
        "q_sign_accuracy": metrics.q_sign_accuracy(at.correct, at.q_logit, finite=at.finite),
        "not_finite": int((~at.finite).sum()),
    }
    if has_rules(result):
        figures["rules_hold"] = metrics.interval(at.valid.mean(axis=1))._asdict()
    for name, metric in choices(result).items():
        for k in widths(num_rollouts):
            figures[f"{name}@{k}"] = metrics.interval(metric(run.record, k, depth))._asdict()
    deterministic = run is result.deterministic
    langevin = None if deterministic else result.config.langevin
    return {
        "method": "TRM" if deterministic else "PTRM",
        "sigma": run.sigma,
        "seed": run.seed,
        "rollouts": num_rollouts,
        "depth": depth,
        "noise_on": result.config.noise_on,
        "noise_when": result.config.noise_when,
        "langevin": None if langevin is None else dataclasses.asdict(langevin),
        "seconds": round(run.seconds, 3),
        "compile_seconds": round(run.compile_seconds, 3),
        "rollout_steps_per_second": round(run.record.correct.size / run.seconds, 1),
        "metrics": figures,
        "provenance": result.provenance,
    }
