"""Writes the model card of a checkpoint that `experiments/train.py` made, from its sweeps.

    python experiments/train.py sudoku6
    python experiments/ptrm_sweep.py --checkpoint runs/train-sudoku6/model --data sudoku6 \\
        --output runs/score6
    python experiments/card.py sudoku6 --model runs/train-sudoku6/model --sweeps runs/score6

Writes `README.md` and its pictures into the checkpoint's folder.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from pathlib import Path

import tyro

from ptrm_jax import console, sweep
from ptrm_jax.errors import InputError
from ptrm_jax.sweep import scores
from ptrm_jax.training import card


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a model card."""

    name: tyro.conf.Positional[str]
    """Name of the checkpoint."""
    model: Path
    """Its folder: RUN/model or RUN/snapshots/step_N."""
    sweeps: tuple[Path, ...]
    """Folders that `experiments/ptrm_sweep.py` wrote, of this checkpoint, one for each data set."""
    run: Path | None = None
    """Folder of the training run. Default: the one that contains `model`."""
    command: str = ""
    """Command that trained the checkpoint. Default: that of the preset."""
    notes: Path | None = None
    """Markdown file with further text."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    return console.run_command(lambda: _write(console.parse(Arguments, argv, description=__doc__)))


def _write(arguments: Arguments) -> int:
    run = arguments.run or _run_of(arguments.model)
    sweeps = [scores.compute(sweep.read(directory)) for directory in arguments.sweeps]
    text = card.model_card(
        arguments.name,
        arguments.model,
        sweeps,
        log=run / "log.jsonl",
        command=arguments.command or f"python experiments/train.py {arguments.name}",
        notes=arguments.notes.read_text(encoding="utf-8") if arguments.notes else "",
    )
    card.write_card(
        arguments.model, text, name=arguments.name, curves=run / "curves.png", sweeps=sweeps
    )
    console.output().print(text)
    return 0


def _run_of(model: Path) -> Path:
    for folder in model.absolute().parents:
        if (folder / "log.jsonl").exists():
            return folder
    raise InputError(f"no log.jsonl in the folders that contain {model}; pass --run")


if __name__ == "__main__":
    sys.exit(main())
