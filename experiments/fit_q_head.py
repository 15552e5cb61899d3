"""Fits a Q head that reads all positions to a trained model, which stays as it is otherwise.

    python experiments/fit_q_head.py sudoku9 --data generate:sudoku9:1024 --output runs/pooled
    python experiments/figures.py q_head --checkpoint runs/pooled --data sudoku9
    python experiments/figures.py langevin --checkpoint runs/pooled --data sudoku9

The answers of the new checkpoint are those of the old one; which of them is chosen may differ. With
--q-pooling first it fits a head of the old kind, the control.
"""

import dataclasses
import sys
from pathlib import Path

import jax
import tyro
from rich.console import Console

from ptrm_jax import checkpoint, mesh, sweep
from ptrm_jax.config import QPooling
from ptrm_jax.errors import InputError
from ptrm_jax.training.examples import read_source
from ptrm_jax.training.fit_q_head import fit_q_head


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fit a Q head."""

    checkpoint: tyro.conf.Positional[str]
    """A bundled name or a directory."""
    data: str
    """Puzzles to fit on, as for `experiments/train.py`: generate:sudoku9:1024, a file, a folder."""
    output: str
    """Directory of the new checkpoint; must not exist."""
    q_pooling: QPooling = "attention"
    """What the new head reads: all positions, or the first alone."""
    rollouts: int = 4
    """K, noisy rollouts of each puzzle in a pass over the data."""
    depth: int = 16
    """D; the states after every step are fitted on."""
    sigma: float = 0.3
    """Noise scale."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 256
    """States of each."""
    learning_rate: float = 1e-2
    """Of Adam."""
    seed: int = 0
    """Of puzzles, noise and order."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    arguments = tyro.cli(Arguments, args=argv, description=__doc__)
    mesh.use_cpu_cores()
    try:
        if Path(arguments.output).exists():
            raise InputError(f"output {arguments.output} exists; pass another")
        manifest = checkpoint.read_manifest(arguments.checkpoint)
        model, params = checkpoint.load(arguments.checkpoint)
        puzzles = read_source(arguments.data, seed=arguments.seed)
        puzzles.check_fits(model.config)
        settings = {
            name: getattr(arguments, name)
            for name in ("q_pooling", "depth", "sigma", "steps", "batch_size", "learning_rate")
        }
        model, params = fit_q_head(
            model,
            params,
            puzzles.puzzles,
            puzzles.labels,
            jax.random.key(arguments.seed, impl="threefry2x32"),
            ignore_label=puzzles.ignore_label,
            num_rollouts=arguments.rollouts,
            **settings,
        )
        fitted = {
            "fitted_by": "ptrm_jax.q_head",
            "from": {"name": arguments.checkpoint, "digest": manifest["digest"]},
            "data": {"name": arguments.data, "digest": puzzles.digest},
            "settings": settings | {"rollouts": arguments.rollouts, "seed": arguments.seed},
        }
        checkpoint.save(arguments.output, model.config, params, provenance=fitted)
    except sweep.INPUT_ERRORS as error:
        Console(stderr=True).print(
            f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True
        )
        return 2
    digest = checkpoint.read_manifest(arguments.output)["digest"]
    print(f"wrote {arguments.output}, digest {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
