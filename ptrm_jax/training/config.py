"""Settings of a training run: frozen, hashable, checked when built."""

import dataclasses
import math
from typing import Any, Literal

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

OptimizerName = Literal["adam_atan2", "adamw"]
Loss = Literal["stablemax", "softmax"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. Each attribute is a flag of `experiments/train.py`.

    The defaults are upstream's recipe where upstream has one (`config/cfg_pretrain.yaml`).

    Raises:
      ValueError: when built, for the first setting that breaks its rule.
    """

    model: ModelConfig
    """Architecture."""
    data: tuple[str, ...]
    """Where the puzzles come from, one or more of: `generate:sudoku9:60000` (task and size, number;
    then `:name=value,...`, arguments of the task's generator), a Sudoku or maze CSV file, an
    upstream folder. Several are mixed, a row each as likely."""
    evaluation: str | None = None
    """Labelled puzzles to score on: a bundled set, a CSV file or an upstream folder. With a task,
    nothing in it is trained on, nor anything equivalent by symmetry."""
    exclude: tuple[str, ...] = ()
    """More sets whose puzzles, and all that are equivalent to them, must not be trained on."""
    task: str = "none"
    """sudoku, maze or ppbench, which says what the symmetries are: augmentation on the fly, and the
    test of equivalence; "none" for folders that hold their augmentations (ARC-AGI)."""
    relabel: bool = False
    """Mazes: label every turned maze by the rule that labels follow. Otherwise the label turns with
    the maze, as upstream's; that is another one where a maze has several shortest paths."""
    extra_clues: int = 0
    """Up to so many open cells are shown, a number drawn anew for each puzzle."""

    steps: int
    """Optimiser steps; one per supervision step."""
    batch_size: int = 768
    """Rows, each a puzzle in progress, over all devices."""
    optimizer: OptimizerName = "adam_atan2"
    """Rule for all weights but the puzzle embedding's."""
    learning_rate: float = 1e-4
    """Peak."""
    warmup_steps: int = 2000
    """Optimiser steps of linear warm-up."""
    min_learning_rate_ratio: float = 1.0
    """Where a half cosine takes the learning rate by the last step; 1 keeps it constant."""
    weight_decay: float = 0.1
    """Decoupled, on every trained weight."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of Adam's moments."""
    puzzle_emb_learning_rate: float = 1e-4
    """Step of sign SGD on the rows of the puzzle embedding."""
    puzzle_emb_weight_decay: float = 0.1
    """Decoupled, on the touched rows."""
    loss: Loss = "stablemax"
    """Cross-entropy of the tokens."""
    halt_max_steps: int = 16
    """Supervision steps after which a row takes a new puzzle at the latest."""
    halt_exploration_prob: float = 0.1
    """Probability that a row must go on to a random least number of steps."""
    ema: float = 0.999
    """Decay of the averaged weights."""
    ema_warmup: bool = False
    """Average over fewer steps at first, min(ema, (1 + t) / (10 + t)); short runs need it."""

    seed: int = 0
    """Of initial weights, order, augmentation and exploration."""
    start_from: str | None = None
    """Checkpoint whose weights to start from: a bundled name or a directory. Its cycles may be
    others: a short recursion learns to look around where a long one does not."""
    compute_dtype: DType = "float32"
    """Dtype of activations; the weights stay float32."""
    matmul_precision: MatmulPrecision = "highest"
    """jax.lax.Precision of every matrix product; or "bfloat16": float32 operands are rounded to it,
    and summed in float32."""
    micro_batch: int = 4
    """Rows of a device that go through the network together; gradients are summed over them. Small
    ones stay in a CPU's cache; an accelerator wants the device's whole share."""

    log_every: int = 20
    """Optimiser steps per line of the log."""
    checkpoint_every: int = 200
    """Optimiser steps between checkpoints of the whole state, from which a killed run goes on."""
    keep: int = 2
    """How many of these are kept."""
    eval_every: int = 0
    """Optimiser steps between evaluations with the averaged weights, each of which also exports a
    checkpoint to `snapshots/`; 0 for none but the last."""
    eval_puzzles: int = 256
    """The first so many puzzles of `evaluation`."""
    eval_depth: int = 16
    """D: supervision steps."""
    eval_rollouts: int = 8
    """K: noisy rollouts of PTRM."""
    eval_sigma: float = 0.3
    """Noise scale of PTRM."""

    def __post_init__(self) -> None:
        for name in (
            *("steps", "batch_size", "halt_max_steps", "micro_batch", "log_every"),
            *("checkpoint_every", "keep", "eval_puzzles", "eval_depth", "eval_rollouts"),
        ):
            check_int(name, getattr(self, name), 1)
        for name in ("extra_clues", "warmup_steps", "seed", "eval_every"):
            check_int(name, getattr(self, name), 0)
        for name, low, high in (
            ("learning_rate", 0.0, math.inf),
            ("puzzle_emb_learning_rate", 0.0, math.inf),
            ("weight_decay", 0.0, math.inf),
            ("puzzle_emb_weight_decay", 0.0, math.inf),
            ("min_learning_rate_ratio", 0.0, 1.0),
            ("halt_exploration_prob", 0.0, 1.0),
            ("ema", 0.0, 1.0),
            ("eval_sigma", 0.0, math.inf),
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise InputError(f"{name} must lie in [{low:g}, {high:g}]; got {value!r}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas must be two numbers in [0, 1); got {self.betas!r}")
        if not self.data:
            raise InputError("data must name at least one source; got none")
        for name, choices in (
            ("optimizer", OptimizerName),
            ("loss", Loss),
            ("compute_dtype", DType),
            ("matmul_precision", MatmulPrecision),
        ):
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
                f"exclude needs a task, whose symmetries say what is equivalent; got {self.exclude}"
            )
        if self.seed >= 2**32:
            raise InputError(f"seed must be below 2**32; got {self.seed}")
        if self.model.forward_dtype != self.compute_dtype:
            raise InputError(
                "model.forward_dtype is what the checkpoint will say it was trained in, so it must "
                f"be compute_dtype; got {self.model.forward_dtype} and {self.compute_dtype}"
            )

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"model": self.model.to_dict()}
