"""A sweep: a run per (sigma, seed), deterministic TRM beside it, every metric from the record.

Rollouts and steps nest: the run at the largest K and D holds every smaller k and d, so curves cost
nothing beyond it. What the rollouts did is kept per rollout and step (`Record`), without the
answers themselves, and all metrics are computed from that, on the host.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from ptrm_jax import checkpoint, data, mesh, metrics
from ptrm_jax.config import (
    Backend,
    DType,
    MatmulPrecision,
    NoiseOn,
    NoiseWhen,
    Precision,
    Save,
    check_choice,
    check_int,
)
from ptrm_jax.data import DataError, Dataset, read_dataset
from ptrm_jax.metrics import Interval
from ptrm_jax.model import TRM, Params
from ptrm_jax.provenance import environment
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.solver import check_sigma

INPUT_ERRORS = (ValueError, OSError, checkpoint.CheckpointError, DataError)
"""What bad input raises before anything is compiled; commands turn them into exit status 2."""


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What to run. Each attribute is a flag of `experiments/ptrm_sweep.py`.

    Raises:
      ValueError: when built, for the first setting that breaks its rule.
    """

    checkpoint: str = "sudoku9"
    """A bundled checkpoint (sudoku6, sudoku9) or a directory that `python -m convert` wrote."""
    data: str | None = None
    """A bundled puzzle set, a Sudoku CSV file, or a folder in upstream's layout; by default the
    bundled set of the checkpoint's name."""
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
    devices: int | None = None
    """How many local devices to use; by default all. Without effect on the result."""
    backend: Backend = "pmap"
    """How work is spread over them: pmap, or mesh (jit of shard_map). Without effect as well."""

    def __post_init__(self) -> None:
        check_int("rollouts", self.rollouts, 1)
        check_int("depth", self.depth, 1)
        for name in ("num_puzzles", "lane_tile", "devices"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        check_choice("noise_on", self.noise_on, NoiseOn)
        check_choice("noise_when", self.noise_when, NoiseWhen)
        check_choice("backend", self.backend, Backend)
        for name, values in (("sigmas", self.sigmas), ("seeds", self.seeds)):
            if not values:
                raise ValueError(f"{name} must hold at least one value; got none")
            if len(set(values)) != len(values):
                raise ValueError(f"{name} must differ from each other; got {values}")
        for sigma in self.sigmas:
            check_sigma(sigma)
        for seed in self.seeds:
            check_int("seeds", seed, 0)
        Precision(self.compute_dtype or "float32", self.matmul_precision, self.q_dtype)

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
      answer_id: [B, K, D] int32, lowest rollout with the identical answer at that step.
    """

    correct: np.ndarray
    cell_accuracy: np.ndarray
    q_logit: np.ndarray
    finite: np.ndarray
    answer_id: np.ndarray

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
      record: what happened.
      seconds: wall time, compilation included.
    """

    sigma: float
    seed: int
    record: Record
    seconds: float

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
    """

    config: SweepConfig
    provenance: dict[str, Any]
    deterministic: Run
    runs: tuple[Run, ...]


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

    @property
    def rollout_steps(self) -> int:
        """Supervision steps of single rollouts that the sweep takes."""
        config = self.config
        ptrm = len(config.sigmas) * len(config.seeds) * config.rollouts * config.depth
        return len(self.puzzles) * (ptrm + config.baseline_depth)


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
    # Rows whose every label is ignored are padding of the file.
    chosen = whole.take(metrics.valid_rows(whole.labels, whole.ignore_label))
    chosen = chosen.head(config.num_puzzles)
    chosen.check_fits(model.config)
    lane_tile = config.lane_tile or mesh.default_lane_tile()
    provenance = {
        "checkpoint": {"name": config.checkpoint, "digest": manifest["digest"]},
        "data": {
            "name": chosen.name,
            "digest": chosen.digest,
            "num_puzzles": len(chosen),
            "of": len(whole),
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
    raise ValueError(
        f"data must be given with a checkpoint of your own; got none for {checkpoint_name!r}; pass "
        f"a bundled set ({', '.join(data.bundled())}), a CSV file or an upstream folder"
    )


def run(sweep: Sweep, *, progress: Callable[[int, str], None] = lambda steps, what: None) -> Result:
    """Runs a prepared sweep.

    Args:
      sweep: of `prepare`.
      progress: called with (rollout-steps just finished, what runs now).
    """
    config = sweep.config
    deterministic = _run_one(sweep, 0.0, 0, 1, config.baseline_depth, "TRM", progress)
    runs = tuple(
        _run_one(sweep, sigma, seed, config.rollouts, config.depth, "PTRM", progress)
        for sigma in config.sigmas
        for seed in config.seeds
    )
    return Result(config, sweep.provenance, deterministic, runs)


def _run_one(
    sweep: Sweep,
    sigma: float,
    seed: int,
    rollouts: int,
    depth: int,
    what: str,
    progress: Callable[[int, str], None],
) -> Run:
    what = f"{what} sigma {sigma:g}" + (f" seed {seed}" if len(sweep.config.seeds) > 1 else "")
    progress(0, what)
    start = time.perf_counter()
    key = jax.random.key(seed, impl="threefry2x32")
    parts = []
    for rows, padded in _blocks(sweep, rollouts):
        solution = mesh.solve(
            sweep.model,
            sweep.params,
            key,
            padded,
            num_rollouts=rollouts,
            depth=depth,
            sigma=sigma,
            noise_on=sweep.config.noise_on,
            noise_when=sweep.config.noise_when,
            save=Save(answers=True, q_logits=True),
            lane_tile=sweep.lane_tile,
            devices=sweep.devices,
            backend=sweep.config.backend,
        )
        labels = sweep.puzzles.labels[rows]
        num_puzzles = len(labels)
        trajectory = jax.tree.map(lambda x, n=num_puzzles: x[:n], solution.trajectory)
        parts.append(_record(trajectory, labels, sweep.puzzles.ignore_label))
        progress(num_puzzles * rollouts * depth, what)
    record = Record(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return Run(sigma, seed, record, time.perf_counter() - start)


def _blocks(sweep: Sweep, rollouts: int) -> Iterator[tuple[slice, Puzzles]]:
    """Slices of the data, and their puzzles padded to one block size, so that one program does."""
    lanes = 8 * sweep.lane_tile * len(sweep.devices)  # a few seconds of work on a CPU
    num_puzzles = len(sweep.puzzles)
    num_blocks = math.ceil(num_puzzles / max(1, lanes // rollouts))
    size = math.ceil(num_puzzles / num_blocks)
    for start in range(0, num_puzzles, size):
        rows = slice(start, min(start + size, num_puzzles))
        # The last block repeats its last puzzle; its results are cut off again.
        padded = np.minimum(np.arange(start, start + size), num_puzzles - 1)
        yield rows, sweep.puzzles.puzzles.take(padded)


def _record(trajectory: Any, labels: np.ndarray, ignore_label: int | None) -> Record:
    answers = trajectory.answers  # [B, K, D, S]
    finite = trajectory.finite
    ids = [metrics.answer_ids(answers[:, :, d]) for d in range(answers.shape[2])]
    return Record(
        correct=metrics.exact(answers, labels, ignore_label=ignore_label) & finite,
        cell_accuracy=metrics.cell_accuracy(answers, labels, ignore_label=ignore_label).astype(
            np.float32
        ),
        q_logit=trajectory.q_logits,
        finite=finite,
        answer_id=np.stack(ids, axis=2),
    )


# --- Metrics of a result -------------------------------------------------------------------------


def best_q(record: Record, k: int, depth: int) -> np.ndarray:
    """Expected best-Q@k of every puzzle after step `depth`: [B] float64."""
    at = record.at(depth)
    return metrics.best_q_at_k(at.correct, at.q_logit, k, finite=at.finite)


def pass_at(record: Record, k: int, depth: int) -> np.ndarray:
    """Unbiased pass@k of every puzzle after step `depth`: [B] float64. Needs labels: a bound."""
    return metrics.pass_at_k(record.at(depth).correct, k)


def mode_at(record: Record, k: int, depth: int) -> np.ndarray:
    """Expected mode@k of every puzzle after step `depth`: [B] float64."""
    at = record.at(depth)
    return metrics.mode_at_k(at.correct, at.q_logit, at.answer_id, k, finite=at.finite)


CHOICES: dict[str, Callable[[Record, int, int], np.ndarray]] = {
    "best_q": best_q,
    "mode": mode_at,
    "pass": pass_at,
}
"""How one answer is chosen among k rollouts; "pass" is the bound that labels would give."""


def over_seeds(
    runs: list[Run], metric: Callable[[Record, int, int], np.ndarray], k: int, depth: int
) -> np.ndarray:
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


def summary(result: Result) -> list[Row]:
    """The table: deterministic TRM at equal depth and compute, then PTRM by sigma and choice."""
    config = result.config
    base = baselines(result)
    rows = [
        Row("TRM", 0.0, "deterministic", 1, depth, metrics.interval(values), math.nan, None, None)
        for depth, values in zip((config.depth, config.baseline_depth), base.values(), strict=False)
    ]
    for sigma in config.sigmas:
        runs = runs_of(result, sigma)
        metrics_at = {"mean": (pass_at, 1)} | {
            name: (metric, config.rollouts) for name, metric in CHOICES.items()
        }
        for choice, (metric, k) in metrics_at.items():
            values = over_seeds(runs, metric, k, config.depth)
            gains = {
                name: metrics.paired_difference(values, np.broadcast_to(other, values.shape))
                for name, other in base.items()
            }
            rows.append(
                Row(
                    "PTRM",
                    sigma,
                    choice,
                    k,
                    config.depth,
                    metrics.interval(values),
                    metrics.seed_spread(values.mean(axis=1)),
                    gains["equal_depth"],
                    gains.get("equal_compute"),
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
    for name, metric in CHOICES.items():
        for k in widths(num_rollouts):
            figures[f"{name}@{k}"] = metrics.interval(metric(run.record, k, depth))._asdict()
    return {
        "method": "TRM" if run is result.deterministic else "PTRM",
        "sigma": run.sigma,
        "seed": run.seed,
        "rollouts": num_rollouts,
        "depth": depth,
        "noise_on": result.config.noise_on,
        "noise_when": result.config.noise_when,
        "seconds": round(run.seconds, 3),
        "rollout_steps_per_second": round(run.record.correct.size / run.seconds, 1),
        "metrics": figures,
        "provenance": result.provenance,
    }
