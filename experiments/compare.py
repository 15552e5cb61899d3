"""Compares two sweeps: whether they are equal bit for bit, where they differ, and by how much.

    python experiments/compare.py runs/sudoku9 runs/sudoku9-002

Exit status 0 if they are identical in everything that both have, 1 if not, 2 for bad input.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys

import tyro

from ptrm_jax import console, sweep
from ptrm_jax.sweep import compare


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare two sweeps."""

    first: tyro.conf.Positional[str]
    """Folder that `experiments/ptrm_sweep.py` wrote."""
    second: tyro.conf.Positional[str]
    """Another, of the same puzzles."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    return console.run_command(
        lambda: _compare(console.parse(Arguments, argv, description=__doc__))
    )


def _compare(arguments: Arguments) -> int:
    found = compare.compare(sweep.read(arguments.first), sweep.read(arguments.second))
    console.output().print(compare.text(found), end="")
    return 0 if found.identical else 1


if __name__ == "__main__":
    sys.exit(main())
