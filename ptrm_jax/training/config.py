"""Settings of a training run, in groups: frozen, hashable, checked when built."""

import dataclasses
import math
from typing import Annotated, Any, Literal

import tyro

from ptrm_jax import tasks
from ptrm_jax.config import (
    DType,
    MatmulPrecision,
    ModelConfig,
    Precision,
    check_choice,
    check_int,
)
from ptrm_jax.errors import InputError

OptimizerName = Literal["adam_atan2", "adamw", "muon"]
Loss = Literal["stablemax", "softmax"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Puzzles to train on and to evaluate on."""

    data: Annotated[tuple[str, ...], tyro.conf.arg(metavar="SOURCE...")]
    """Sources of the training puzzles: `generate:sudoku9:60000` (task, size and number, then
    `:name=value,...` for arguments of the task's generator), a Sudoku or maze CSV file, or an
    upstream folder. Several sources are mixed; all their rows are equally likely."""
    evaluation: Annotated[str | None, tyro.conf.arg(metavar="NAME|FILE|DIR")] = None
    """Labelled puzzles to evaluate on: a bundled set, a CSV file or an upstream folder. With a
    task, these puzzles and their images under its symmetries are excluded from training."""
    exclude: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME|FILE|DIR...")] = ()
    """Further sets whose puzzles, and their images under symmetries, are excluded from
    training."""
    task: Annotated[str, tyro.conf.arg(metavar="NAME")] = "none"
    """sudoku, maze or ppbench: its symmetries augment the puzzles during training and tell which
    puzzles are equivalent. "none" for folders that contain their augmentations (ARC-AGI)."""
    relabel: bool = False
    """Mazes: recompute the label of each image of a maze. Otherwise the label is transformed with
    the maze, as upstream; the two differ where a maze has several shortest paths."""
    extra_clues: int = 0
    """At most this many open cells are revealed, a number drawn anew for each puzzle."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Optimiser, loss and halting."""

    steps: int
    """Optimiser steps; one for each supervision step."""
    batch_size: int = 768
    """Rows over all devices; a row is one puzzle in progress."""
    optimizer: OptimizerName = "adam_atan2"
    """Optimiser of all weights except the puzzle embedding. "muon" is for the matrices of the
    recursion, with AdamW for embeddings and heads; upstream does not have it."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    warmup_steps: int = 2000
    """Optimiser steps of linear warm-up."""
    min_learning_rate_ratio: float = 1.0
    """Learning rate of the last step over the peak, reached along a half cosine; 1 keeps it
    constant."""
    weight_decay: float = 0.1
    """Decoupled weight decay of every trained weight."""
    betas: Annotated[tuple[float, float], tyro.conf.arg(metavar="FLOAT FLOAT")] = (0.9, 0.95)
    """Decay rates of Adam's moments."""
    puzzle_emb_learning_rate: float = 1e-4
    """Learning rate of sign SGD on the rows of the puzzle embedding."""
    puzzle_emb_weight_decay: float = 0.1
    """Decoupled weight decay of the rows that a step updates."""
    loss: Loss = "stablemax"
    """Cross-entropy of the tokens."""
    halt_max_steps: int = 16
    """Supervision steps after which a row always takes a new puzzle."""
    halt_exploration_prob: float = 0.1
    """Probability that a row may not halt before a random number of steps."""
    ema: float = 0.999
    """Decay of the averaged weights."""
    ema_warmup: bool = False
    """Lower the decay at first, to min(ema, (1 + t) / (10 + t)); short runs need it."""

    seed: int = 0
    """Seed of initial weights, order, augmentation and exploration."""
    start_from: Annotated[str | None, tyro.conf.arg(metavar="NAME|DIR")] = None
    """Checkpoint with the initial weights: a bundled name or a directory. Its numbers of cycles may
    differ from the model's: a short recursion can learn what a long one cannot learn from random
    weights."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numerics:
    """Precision, and how the work is laid out."""

    compute_dtype: DType = "float32"
    """Dtype of activations; the weights are float32."""
    matmul_precision: MatmulPrecision = "highest"
    """jax.lax.Precision of every matrix product; bfloat16 rounds the operands of float32 products
    and sums in float32."""
    micro_batch: int = 4
    """Rows of a device that pass through the network together; gradients are summed over them.
    Small ones fit a CPU's cache; on an accelerator, use the device's whole share."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Records:
    """Log, saved states and evaluations. None of these changes the weights."""

    log_every: int = 20
    """Optimiser steps per line of the log."""
    checkpoint_every: int = 200
    """Optimiser steps between saved states, from which a killed run resumes."""
    keep: int = 2
    """Number of saved states to keep."""
    eval_every: int = 0
    """Optimiser steps between evaluations of the averaged weights, each of which also exports a
    checkpoint to `snapshots/`; 0 to evaluate only at the end."""
    eval_puzzles: int = 256
    """Number of puzzles, taken from the start of `evaluation`."""
    eval_depth: int = 16
    """D: supervision steps."""
    eval_rollouts: int = 8
    """K: noisy rollouts of PTRM."""
    eval_sigma: float = 0.3
    """Noise scale of PTRM."""


_AT_LEAST_1 = (
    *("steps", "batch_size", "halt_max_steps", "micro_batch", "log_every", "checkpoint_every"),
    *("keep", "eval_puzzles", "eval_depth", "eval_rollouts"),
)
_AT_LEAST_0 = ("extra_clues", "warmup_steps", "seed", "eval_every")
_UP_TO = {
    "learning_rate": math.inf,
    "puzzle_emb_learning_rate": math.inf,
    "weight_decay": math.inf,
    "puzzle_emb_weight_decay": math.inf,
    "min_learning_rate_ratio": 1.0,
    "halt_exploration_prob": 1.0,
    "ema": 1.0,
    "eval_sigma": math.inf,
}
_CHOICES = {
    "optimizer": OptimizerName,
    "loss": Loss,
    "compute_dtype": DType,
    "matmul_precision": MatmulPrecision,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig(Records, Numerics, Recipe, Data):
    """A training run: the model, and the settings of `Data`, `Recipe`, `Numerics` and `Records`.

    Each is a flag of `experiments/train.py`. The defaults are upstream's where upstream has the
    setting (`config/cfg_pretrain.yaml`).

    Raises:
      InputError: when built, for the first setting that breaks its rule.
    """

    model: ModelConfig
    """Architecture."""

    def __post_init__(self) -> None:
        for minimum, names in ((1, _AT_LEAST_1), (0, _AT_LEAST_0)):
            for name in names:
                check_int(name, getattr(self, name), minimum)
        for name, high in _UP_TO.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= high):
                raise InputError(f"{name} must lie in [0, {high:g}]; got {value!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be two numbers in [0, 1); got {self.betas!r}")
        if not self.data:
            raise InputError("data must name at least one source; got none")
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)
        Precision(self.compute_dtype, self.matmul_precision)  # checks the two together
        if self.task != "none":
            tasks.load(self.task)
        if self.extra_clues and self.task == "none":
            raise InputError(f"extra_clues needs a task; got {self.extra_clues} with task 'none'")
        if self.relabel and self.task != "maze":
            raise InputError(f"relabel is for task 'maze'; got task {self.task!r}")
        if self.exclude and self.task == "none":
            raise InputError(
                "exclude needs a task, whose symmetries tell which puzzles are equivalent; got "
                f"{self.exclude}"
            )
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32; got {self.seed}")
        if self.model.forward_dtype != self.compute_dtype:
            raise InputError(
                "model.forward_dtype, which the checkpoint will state, must be compute_dtype; got "
                f"{self.model.forward_dtype} and {self.compute_dtype}"
            )

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON types."""
        return dataclasses.asdict(self) | {"model": self.model.to_dict()}
