"""PTRM in JAX: noisy rollouts of a trained Tiny Recursive Model, and the answer its Q head picks.

    model, params = ptrm_jax.load("sudoku6")
    puzzles = ptrm_jax.make_puzzles(inputs)                  # [B, S] tokens
    solution = ptrm_jax.solve(model, params, jax.random.key(0), puzzles, num_rollouts=16)

The names in `__all__` are stable; everything else may change between versions. Names and modules
are imported when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ptrm_jax.version import __version__

if TYPE_CHECKING:
    from ptrm_jax import analysis, mesh, metrics, paper, solver, sweep, tasks, training
    from ptrm_jax.checkpoint import load, save
    from ptrm_jax.config import Langevin, ModelConfig, Precision, Save, Stop
    from ptrm_jax.errors import CheckpointError, DataError, InputError, PtrmError
    from ptrm_jax.model import TRM, Carry, Heads
    from ptrm_jax.puzzles import Puzzles, make_puzzles
    from ptrm_jax.solver import (
        AnytimeSolution,
        Solution,
        best_q,
        deep_recursion,
        initial_carry,
        mode,
        solve,
        solve_anytime,
        step,
    )
    from ptrm_jax.tasks import read_dataset

__all__ = [
    # the solver
    "solve",
    "Solution",
    "solve_anytime",
    "AnytimeSolution",
    "Save",
    "Stop",
    "Langevin",
    "best_q",
    "mode",
    # its parts
    "initial_carry",
    "deep_recursion",
    "step",
    "Carry",
    "Heads",
    # models and puzzles
    "load",
    "save",
    "TRM",
    "ModelConfig",
    "Precision",
    "Puzzles",
    "make_puzzles",
    "read_dataset",
    # exceptions
    "PtrmError",
    "InputError",
    "CheckpointError",
    "DataError",
    # modules
    "analysis",
    "mesh",
    "metrics",
    "paper",
    "solver",
    "sweep",
    "tasks",
    "training",
    "__version__",
]

_HOMES = {
    "checkpoint": ("load", "save"),
    "config": ("Langevin", "ModelConfig", "Precision", "Save", "Stop"),
    "data": (),
    "errors": ("CheckpointError", "DataError", "InputError", "PtrmError"),
    "model": ("TRM", "Carry", "Heads"),
    "puzzles": ("Puzzles", "make_puzzles"),
    "solver": (
        "AnytimeSolution",
        "Solution",
        "best_q",
        "deep_recursion",
        "initial_carry",
        "mode",
        "solve",
        "solve_anytime",
        "step",
    ),
    "tasks": ("read_dataset",),
}
_MODULES = ("analysis", "mesh", "metrics", "paper", "sweep", "tasks", "training")
_DEPRECATED = ("q_head", "store")


def __getattr__(name: str) -> Any:
    if name in (*_MODULES, *_HOMES, *_DEPRECATED):
        return importlib.import_module(f"{__name__}.{name}")
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_HOMES})
