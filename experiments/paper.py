"""Compares every number of the paper with our results in one table, and writes EXPERIMENTS.md.

    python experiments/figures.py all --output experiments/results/default
    python experiments/paper.py                              # prints the table
    python experiments/paper.py --report EXPERIMENTS.md      # and writes it, with all figures
    python experiments/paper.py --sweeps runs/maze-hard-DIR  # sweeps of full-size checkpoints too

All our values are read from the folders that `experiments/figures.py` and `ptrm_sweep.py NAME`
wrote.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import os
import sys
from pathlib import Path

from ptrm_jax import analysis, console
from ptrm_jax.analysis import exhibit
from ptrm_jax.errors import InputError
from ptrm_jax.files import check_writable, write_text
from ptrm_jax.paper import ledger


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compare the paper with our results."""

    figures: tuple[Path, ...] = ()
    """Folders that `experiments/figures.py` wrote; by default those in `experiments/results`."""
    sweeps: tuple[Path, ...] = ()
    """Folders of finished sweeps of named benchmarks, with full-size checkpoints."""
    report: Path | None = None
    """Markdown file to write: the figures with what they say, then the table."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    return console.run_command(lambda: _paper(console.parse(Arguments, argv, description=__doc__)))


def _paper(arguments: Arguments) -> int:
    folders = arguments.figures or _kept()
    records = [exhibit.read(folder, analysis.NAMES) for folder in folders]
    for folder, found in zip(folders, records, strict=True):
        if not found:
            raise InputError(f"{folder} must hold figures; it has none; run figures.py first")
    if arguments.report is not None:
        check_writable(arguments.report.absolute().parent)
    text = ledger.table(
        [record for found in records for record in found], ledger.full_size(arguments.sweeps)
    )
    if arguments.report is not None:
        base = arguments.report.absolute().parent
        links = [os.path.relpath(folder, base) for folder in folders]
        shown = dict(zip(links, records, strict=True))
        write_text(arguments.report, exhibit.markdown(shown) + "\n## The ledger\n\n" + text)
    console.output().print(text)
    return 0


def _kept() -> list[Path]:
    found = Path(__file__).parent / "results"
    if not found.is_dir():
        raise InputError(f"figures must be given; {found} is not there; pass --figures FOLDER")
    return sorted(path for path in found.iterdir() if path.is_dir())


if __name__ == "__main__":
    sys.exit(main())
