"""Fits a Q head that reads all positions to a trained model, whose other weights stay the same.

    python experiments/fit_q_head.py sudoku9 --data generate:sudoku9:1024 --output runs/pooled
    python experiments/figures.py q_head --checkpoint runs/pooled --data sudoku9
    python experiments/figures.py langevin --checkpoint runs/pooled --data sudoku9

The answers of the new checkpoint are those of the old one; the answer chosen may differ. With
--q-pooling first it fits a head that reads the first position, the control.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from pathlib import Path

import jax
import tyro

from ptrm_jax import checkpoint, console, mesh
from ptrm_jax.config import QPooling
from ptrm_jax.errors import InputError
from ptrm_jax.files import check_writable
from ptrm_jax.training.examples import read_source
from ptrm_jax.training.fit_q_head import fit_q_head


@dataclasses.dataclass(frozen=True)
class Fit:
    """Rollouts and optimiser."""

    q_pooling: QPooling = "attention"
    """Positions that the new head reads: all, or the first."""
    rollouts: int = 4
    """K: noisy rollouts of each puzzle in one pass over the data."""
    depth: int = 16
    """D: supervision steps; the states after all of them are used."""
    sigma: float = 0.3
    """Noise scale."""
    steps: int = 500
    """Optimiser steps."""
    batch_size: int = 256
    """States per optimiser step."""
    learning_rate: float = 1e-2
    """Learning rate of Adam."""
    seed: int = 0
    """Seed of puzzles, noise and order."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Fit a Q head."""

    checkpoint: tyro.conf.Positional[str]
    """A bundled name or a directory."""
    data: str
    """Puzzles to fit on, as for `experiments/train.py`: generate:sudoku9:1024, a file, a folder."""
    output: str
    """Directory of the new checkpoint; it must not exist."""
    fit: tyro.conf.OmitArgPrefixes[Fit] = Fit()


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    return console.run_command(lambda: _fit(console.parse(Arguments, argv, description=__doc__)))


def _fit(arguments: Arguments) -> int:
    mesh.use_cpu_cores()
    if Path(arguments.output).exists():
        raise InputError(f"output {arguments.output} exists; pass another")
    check_writable(arguments.output)
    manifest = checkpoint.read_manifest(arguments.checkpoint)
    model, params = checkpoint.load(arguments.checkpoint)
    fit = arguments.fit
    puzzles = read_source(arguments.data, seed=fit.seed)
    puzzles.check_fits(model.config)
    model, params = fit_q_head(
        model,
        params,
        puzzles.puzzles,
        puzzles.labels,
        jax.random.key(fit.seed, impl="threefry2x32"),
        ignore_label=puzzles.ignore_label,
        q_pooling=fit.q_pooling,
        num_rollouts=fit.rollouts,
        depth=fit.depth,
        sigma=fit.sigma,
        steps=fit.steps,
        batch_size=fit.batch_size,
        learning_rate=fit.learning_rate,
    )
    provenance = {
        "fitted_by": "ptrm_jax.q_head",
        "from": {"name": arguments.checkpoint, "digest": manifest["digest"]},
        "data": {"name": arguments.data, "digest": puzzles.digest},
        "settings": vars(fit),
    }
    checkpoint.save(arguments.output, model.config, params, provenance=provenance)
    digest = checkpoint.read_manifest(arguments.output)["digest"]
    console.output().print(f"wrote {arguments.output}, digest {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
