"""The settings of a sweep, in groups: what to run, how it is computed, what is kept."""

import dataclasses
import math
from typing import Annotated

import tyro

from ptrm_jax import tasks
from ptrm_jax.config import (
    Backend,
    DType,
    KeepAnswers,
    Langevin,
    MatmulPrecision,
    NoiseOn,
    NoiseWhen,
    Precision,
    Read,
    Stop,
    check_choice,
    check_int,
    check_precision,
    check_step_size,
)
from ptrm_jax.errors import InputError
from ptrm_jax.solver import check_sigma

DEFAULT_NUM_PUZZLES = 80


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Model and puzzles."""

    checkpoint: Annotated[str, tyro.conf.arg(metavar="NAME|DIR")] = "maze11"
    """A bundled checkpoint (`python -m ptrm_jax info` lists them), or a directory written by
    `python -m convert` or `experiments/train.py`."""
    data: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE|DIR")] = None
    """A bundled puzzle set, a CSV or JSON-lines file, or a folder in upstream's layout. Default:
    the bundled set named like the checkpoint."""
    split: str = "test"
    """Sub-folder of an upstream data folder."""
    num_puzzles: Annotated[int | None, tyro.conf.arg(metavar="INT|None")] = DEFAULT_NUM_PUZZLES
    """Number of puzzles, taken from the start of the data; None for all. The default takes all of a
    smaller set."""
    task: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Puzzle type whose rules answers are checked against. Default: that of the data, which an
    upstream folder does not state."""


@dataclasses.dataclass(frozen=True)
class Size:
    """Width, depth and seeds."""

    rollouts: int = 8
    """K, width: noisy rollouts of each puzzle."""
    depth: int = 16
    """D: supervision steps of each rollout."""
    seeds: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = (0,)
    """Every sigma is run once with each seed."""

    def __post_init__(self) -> None:
        check_int("rollouts", self.rollouts, 1)
        check_int("depth", self.depth, 1)
        _check_distinct("seeds", self.seeds)
        for seed in self.seeds:
            check_int("seeds", seed, 0)


@dataclasses.dataclass(frozen=True)
class Stopping:
    """The step at which rollouts are read, and when they stop."""

    read: Read = "last"
    """Read rollouts after the last step, as the paper, or at their best, the step of highest Q. TRM
    and best-Q are reported with both."""
    stop_q: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """Stop the rollouts of a puzzle as soon as Q, a logit, reaches this, and run no others. Without
    it every rollout runs to the full depth."""
    patience: int = 1
    """Steps in a row whose Q must reach the threshold."""
    min_depth: int = 1
    """First step at which a rollout may stop."""
    agree: int = 1
    """Rollouts with one and the same answer that stop a puzzle."""
    max_rollout_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Supervision steps that the rollouts of a puzzle may take together."""
    replay_q: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT...")] = (2.0,)
    """Thresholds at which stopping is reported as well, replayed from rollouts that ran to the full
    depth, at no extra compute."""

    def __post_init__(self) -> None:
        check_choice("read", self.read, Read)
        for name, values in (("replay_q", self.replay_q), ("stop_q", (self.stop_q,))):
            for value in values:
                if value is not None and math.isnan(value):
                    raise InputError(f"{name} must be a number, not NaN; got {value}")
        self._rule(0.0)  # the other settings of a rule

    def _rule(self, q_logit: float) -> Stop:
        return Stop(q_logit, self.patience, self.min_depth, self.agree, self.max_rollout_steps)

    @property
    def stop(self) -> Stop | None:
        """The rule by which puzzles stop while they run."""
        return None if self.stop_q is None else self._rule(self.stop_q)

    @property
    def rules(self) -> list[Stop]:
        """The rules that are reported."""
        return [self._rule(q) for q in (self.replay_q if self.stop_q is None else (self.stop_q,))]


@dataclasses.dataclass(frozen=True)
class Search(Stopping, Size):
    """Width, depth, noise and stopping."""

    sigmas: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT...")] = (0.3,)
    """Noise scales, in units of the latent's root mean square."""
    noise_on: NoiseOn = "z"
    """State that receives the noise: z (the paper's algorithm), y, or both."""
    noise_when: NoiseWhen = "every"
    """Before every supervision step, or before the first only."""
    langevin_updates: int = 0
    """N: Langevin updates of z between supervision steps, in addition to the noise of sigma. The
    deterministic TRM has none. 0 for none."""
    langevin_step_size: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """eta of these updates; the paper does not state it."""
    langevin_gradient: bool = True
    """Without the gradient the updates are noise only, the paper's control."""
    equal_compute: bool = True
    """Also run the deterministic TRM for K * D steps, the compute of K rollouts."""
    grid_rollouts: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = ()
    """Widths to report as well, each at every depth of `grid_depths`, at no extra compute."""
    grid_depths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="INT...")] = ()
    """Depths to report as well."""

    def __post_init__(self) -> None:
        Size.__post_init__(self)
        Stopping.__post_init__(self)
        check_choice("noise_on", self.noise_on, NoiseOn)
        check_choice("noise_when", self.noise_when, NoiseWhen)
        self._check_langevin()
        _check_distinct("sigmas", self.sigmas)
        if self.stop is not None and (self.grid_rollouts or self.grid_depths):
            raise InputError(
                "grid_rollouts and grid_depths need rollouts that run to the full depth; got them "
                "with stop_q; leave one of them out"
            )
        for grid, name in (("grid_rollouts", "rollouts"), ("grid_depths", "depth")):
            if len(set(getattr(self, grid))) != len(getattr(self, grid)):
                raise InputError(f"{grid} must differ from each other; got one of them twice")
            for value in getattr(self, grid):
                check_int(grid, value, 1)
                if value > getattr(self, name):
                    raise InputError(
                        f"{grid} must be at most {name} ({getattr(self, name)}), whose parts they "
                        f"are; got {value}; raise {name}"
                    )
        for sigma in self.sigmas:
            check_sigma(sigma)

    def _check_langevin(self) -> None:
        check_int("langevin_updates", self.langevin_updates, 0)
        if (self.langevin_updates == 0) != (self.langevin_step_size is None):
            raise InputError(
                "langevin_updates >= 1 and langevin_step_size go together; got "
                f"{self.langevin_updates} and {self.langevin_step_size}; pass both or neither"
            )
        if not (self.langevin_gradient or self.langevin_updates):
            raise InputError(
                "langevin_gradient belongs to Langevin updates; got False and langevin_updates 0; "
                "pass langevin_updates and langevin_step_size too"
            )
        if self.langevin_step_size is not None:
            check_step_size(self.langevin_step_size)

    @property
    def langevin(self) -> Langevin | None:
        """The Langevin updates of PTRM's runs."""
        if self.langevin_step_size is None:
            return None
        return Langevin(self.langevin_updates, self.langevin_step_size, self.langevin_gradient)

    @property
    def baseline_depth(self) -> int:
        """Depth of the deterministic run: K * D for equal compute, D within it."""
        return self.depth * self.rollouts if self.equal_compute else self.depth

    @property
    def widths(self) -> list[int]:
        """k = 1, 2, 4, ... and K itself, at which curves are given."""
        return powers_of_two(self.rollouts)


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Precision, and how the work is laid out. Only the first four decide the result."""

    compute_dtype: Annotated[DType | None, tyro.conf.arg(metavar="float32|bfloat16")] = None
    """Dtype of activations. Default: the one that the checkpoint was trained with."""
    matmul_precision: MatmulPrecision = "highest"
    """jax.lax.Precision of every matrix product; bfloat16 rounds the operands of float32
    products."""
    q_dtype: Annotated[DType | None, tyro.conf.arg(metavar="float32|bfloat16")] = None
    """Dtype of the Q head. Default: the compute dtype, as upstream."""
    lane_tile: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Rollouts that pass through the network together; fewer in runs of more than 64 steps, if it
    is above 16. Default: chosen for the backend."""
    unit_steps: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Approximate rollout-steps of a work unit, the most that a failure can lose; at least four
    tiles. Default: some seconds of work."""
    devices: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Local devices to use. Default: all."""
    backend: Backend = "pmap"
    """How work is spread over devices: pmap, or mesh (jit of shard_map)."""


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is kept beside the scores of every rollout and step."""

    keep_answers: KeepAnswers = "none"
    """Keep the answers themselves: of the last step (for TRM, of steps D and K * D), or of all
    steps. Each takes S bytes before compression."""
    unlabelled: tyro.conf.Suppress[bool] = False
    """Also solve puzzles without a known label, for what reads the answers; no metric counts
    them."""
    benchmark: tyro.conf.Suppress[str | None] = None
    """Name in `ptrm_jax.paper` of the benchmark that this sweep is a row of."""


@dataclasses.dataclass(frozen=True)
class SweepConfig(Kept, Numerics, Search, Inputs):
    """A sweep: a run for every (sigma, seed), with the deterministic TRM beside it.

    The attributes are those of `Inputs`, `Search`, `Numerics` and `Kept`; each is a flag of
    `experiments/ptrm_sweep.py`.

    Raises:
      InputError: when built, for the first setting that breaks its rule.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_puzzles", "lane_tile", "unit_steps", "devices"):
            if getattr(self, name) is not None:
                check_int(name, getattr(self, name), 1)
        check_choice("backend", self.backend, Backend)
        check_choice("keep_answers", self.keep_answers, KeepAnswers)
        if self.task is not None:
            tasks.load(self.task)
        # Without a compute dtype the checkpoint's decides; `precision` then checks again.
        check_precision(self.compute_dtype or "float32", self.matmul_precision, self.q_dtype)

    def precision(self, forward_dtype: DType) -> Precision:
        """The precision of a checkpoint that was trained in `forward_dtype`.

        Raises:
          InputError: the settings do not go together.
        """
        return Precision(self.compute_dtype or forward_dtype, self.matmul_precision, self.q_dtype)


def _check_distinct(name: str, values: tuple[float, ...]) -> None:
    if not values:
        raise InputError(f"{name} must hold at least one value; got none")
    if len(set(values)) != len(values):
        raise InputError(f"{name} must differ from each other; got {values}")


def powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to `most`, and `most` itself."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})
