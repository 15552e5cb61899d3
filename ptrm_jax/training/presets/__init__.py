"""Named runs: a small file for each, whose docstring states command, hardware, time and result."""

from types import ModuleType
from typing import Any

from ptrm_jax.config import ModelConfig, Variant, swiglu_width
from ptrm_jax.registry import Registry
from ptrm_jax.training.config import OptimizerName, TrainConfig
from ptrm_jax.training.stages import Stage

NAMES = (
    *("arc_agi_1", "arc_agi_2", "maze11", "maze_hard", "pencil6", "sudoku6", "sudoku9"),
    *("sudoku_extreme", "sudoku_extreme_attention"),
)
"""Names of all presets."""

_REGISTRY = Registry("preset", {name: f"{__name__}.{name}" for name in NAMES}, ModuleType)


def load(name: str) -> TrainConfig:
    """The settings of a preset.

    Raises:
      InputError: no preset has this name.
    """
    return _REGISTRY.load(name).CONFIG


def describe(name: str) -> str:
    """The docstring of a preset.

    Raises:
      InputError: no preset has this name.
    """
    return _REGISTRY.load(name).__doc__ or ""


def stages(name: str) -> tuple[Stage, ...]:
    """The runs that precede that of a preset; most presets have none.

    Raises:
      InputError: no preset has this name.
    """
    return getattr(_REGISTRY.load(name), "STAGES", ())


def upstream(
    *,
    data: str,
    seq_len: int,
    vocab_size: int,
    variant: Variant,
    L_cycles: int,
    **recipe: Any,
) -> TrainConfig:
    """An upstream run at full size, in bfloat16; `recipe` holds settings that are not defaults."""
    model = architecture(
        variant=variant,
        positions="rope" if variant == "attention" else "none",
        vocab_size=vocab_size,
        seq_len=seq_len,
        hidden_size=512,
        num_heads=8,
        prefix_len=16,
        H_cycles=3,
        L_cycles=L_cycles,
        forward_dtype="bfloat16",
    )
    return TrainConfig(
        model=model,
        data=(data,),
        compute_dtype="bfloat16",
        micro_batch=96,
        checkpoint_every=1000,
        **recipe,
    )


PUZZLES = {
    "steps": 65_104,  # 50,000 epochs of 1,000 groups
    "puzzle_emb_learning_rate": 1e-4,
    "weight_decay": 1.0,
    "puzzle_emb_weight_decay": 1.0,
    "eval_every": 6_510,
}
"""Upstream's recipe for Sudoku-Extreme and Maze-Hard."""

ARC = {
    "steps": 400_000,  # approximately; the presets say how to compute it
    "puzzle_emb_learning_rate": 1e-2,
    "weight_decay": 0.1,
    "puzzle_emb_weight_decay": 0.1,
    "eval_every": 40_000,
}
"""Upstream's recipe for ARC-AGI."""


def small(
    *,
    evaluation: str,
    task: str,
    seq_len: int,
    vocab_size: int,
    variant: Variant,
    hidden_size: int,
    num_heads: int = 1,
    rope_theta: float = 10_000.0,
    H_cycles: int = 2,
    L_cycles: int = 3,
    batch_size: int = 128,
    optimizer: OptimizerName = "adamw",
    **recipe: Any,
) -> TrainConfig:
    """A small run for two CPU cores, in float32, evaluated on a bundled set."""
    model = architecture(
        variant=variant,
        positions="rope" if variant == "attention" else "none",
        num_heads=num_heads,
        rope_theta=rope_theta,
        vocab_size=vocab_size,
        seq_len=seq_len,
        hidden_size=hidden_size,
        prefix_len=1,
        H_cycles=H_cycles,
        L_cycles=L_cycles,
        forward_dtype="float32",
    )
    return TrainConfig(
        model=model,
        evaluation=evaluation,
        task=task,
        batch_size=batch_size,
        optimizer=optimizer,
        warmup_steps=200,
        ema_warmup=True,
        **recipe,
    )


def architecture(
    *,
    hidden_size: int,
    prefix_len: int,
    seq_len: int,
    variant: Variant,
    expansion: float = 4,
    **rest: Any,
) -> ModelConfig:
    """A ModelConfig with upstream's inner widths; its puzzle embedding fills the prefix."""
    length = prefix_len + seq_len
    return ModelConfig(
        hidden_size=hidden_size,
        seq_len=seq_len,
        prefix_len=prefix_len,
        puzzle_emb_ndim=hidden_size if prefix_len else 0,
        variant=variant,
        mlp_width=swiglu_width(hidden_size, expansion),
        mlp_t_width=swiglu_width(length, expansion) if variant == "mlp_t" else 0,
        num_layers=2,
        **rest,
    )
