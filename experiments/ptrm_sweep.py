"""What noise and width buy a trained TRM: accuracy against sigma, K and D, with intervals.

    python experiments/ptrm_sweep.py
    python experiments/ptrm_sweep.py --checkpoint DIR --data DATA --sigmas 0.1 0.3 --rollouts 100

Without arguments: the bundled `sudoku9` model on the first 64 of its bundled puzzles, about two
minutes on two CPU cores. Prints one table and writes configuration, records and pictures.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ptrm_jax import mesh, report, sweep


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What noise and width buy a trained TRM."""

    config: Annotated[sweep.SweepConfig, tyro.conf.arg(name="")]
    output: Path | None = None
    """Folder to write; must not exist. By default runs/<checkpoint>-NNN."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    console, errors = Console(), Console(stderr=True)
    mesh.use_cpu_cores()
    try:
        arguments = tyro.cli(Arguments, args=argv, description=__doc__)
        output = arguments.output or report.free_output(
            "runs", Path(arguments.config.checkpoint).name
        )
        report.check_output(output)
        prepared = sweep.prepare(arguments.config)
    except sweep.INPUT_ERRORS as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rollout-steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=errors,
    ) as bar:
        task = bar.add_task("", total=prepared.rollout_steps)
        result = sweep.run(
            prepared,
            progress=lambda steps, what: bar.update(task, advance=steps, description=what),
        )
    report.write(result, output)
    console.print(report.table(result), highlight=False, markup=False, soft_wrap=True)
    console.print(f"written to {output}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
