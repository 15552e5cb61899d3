"""PTRM in JAX: noisy rollouts of a trained Tiny Recursive Model, and the answer its Q head picks.

    model, params = ptrm_jax.load("sudoku6")
    puzzles = ptrm_jax.make_puzzles(inputs)                  # [B, S] tokens
    solution = ptrm_jax.solve(model, params, jax.random.key(0), puzzles, num_rollouts=16)

These names are the stable ones; everything else may change between versions.
"""

from ptrm_jax import mesh, metrics
from ptrm_jax.checkpoint import CheckpointError, load, save
from ptrm_jax.config import Langevin, ModelConfig, Precision, Save
from ptrm_jax.errors import DataError
from ptrm_jax.model import TRM, Carry, Heads
from ptrm_jax.puzzles import Puzzles, make_puzzles
from ptrm_jax.solver import Solution, deep_recursion, initial_carry, solve, step
from ptrm_jax.solver.selection import best_q, mode
from ptrm_jax.tasks import read_dataset
from ptrm_jax.version import __version__

__all__ = [
    # the solver
    "solve",
    "Solution",
    "Save",
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
    "CheckpointError",
    "DataError",
    # modules: many devices; what rollouts are worth
    "mesh",
    "metrics",
    "__version__",
]
