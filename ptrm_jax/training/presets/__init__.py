"""Named runs: one small file each, whose docstring says command, hardware, time and result."""

import importlib
import pkgutil

from ptrm_jax.config import ModelConfig, swiglu_width
from ptrm_jax.training.config import TrainConfig


def names() -> tuple[str, ...]:
    """Names of all presets."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load(name: str) -> TrainConfig:
    """The settings of a preset.

    Raises:
      ValueError: there is none of this name.
    """
    return _module(name).CONFIG


def describe(name: str) -> str:
    """The docstring of a preset.

    Raises:
      ValueError: there is none of this name.
    """
    return _module(name).__doc__ or ""


def _module(name: str):
    if name not in names():
        raise ValueError(f"preset must be one of {', '.join(names())}; got {name!r}")
    return importlib.import_module(f"{__name__}.{name}")


def architecture(
    *, hidden_size: int, prefix_len: int, seq_len: int, variant: str, expansion: float = 4, **rest
) -> ModelConfig:
    """A ModelConfig with upstream's inner widths and a puzzle embedding that fills its prefix."""
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
