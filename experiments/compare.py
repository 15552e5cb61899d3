"""Are two sweeps the same, bit for bit; and if not, where they part and how much it matters.

    python experiments/compare.py runs/sudoku9 runs/sudoku9-002

Exit status 0 where they are identical in all that both have, 1 where not, 2 for bad input.
"""

import dataclasses
import sys

import tyro
from rich.console import Console

from ptrm_jax import sweep
from ptrm_jax.sweep import compare, folder as store


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare two sweeps."""

    first: tyro.conf.Positional[str]
    """Folder that `experiments/ptrm_sweep.py` wrote."""
    second: tyro.conf.Positional[str]
    """Another, of the same puzzles."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        arguments = tyro.cli(Arguments, args=argv, description=__doc__)
        found = compare.compare(store.read(arguments.first), store.read(arguments.second))
    except (*sweep.INPUT_ERRORS, store.SweepError) as error:
        Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    Console(soft_wrap=True).print(compare.text(found), markup=False, highlight=False, end="")
    return 0 if found.identical else 1


if __name__ == "__main__":
    sys.exit(main())
