"""Writes the model card of a checkpoint that `experiments/train.py` made, from its sweeps.

    python experiments/train.py sudoku6
    python experiments/ptrm_sweep.py --checkpoint runs/train-sudoku6/model --data sudoku6 \\
        --output runs/score6
    python experiments/card.py sudoku6 --model runs/train-sudoku6/model --sweeps runs/score6

Writes `README.md` and the pictures it shows into the checkpoint's folder.
"""

import dataclasses
import sys
from pathlib import Path

import tyro
from rich.console import Console

from ptrm_jax import sweep
from ptrm_jax.sweep import folder as store
from ptrm_jax.training import card


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Write a model card."""

    name: tyro.conf.Positional[str]
    """Of the checkpoint."""
    model: Path
    """Its folder: RUN/model or RUN/snapshots/step_N."""
    sweeps: tuple[Path, ...]
    """Folders that `experiments/ptrm_sweep.py` wrote, of this checkpoint, one per data set."""
    run: Path | None = None
    """Folder of the training run; by default the one that `model` lies in."""
    command: str = ""
    """What trained it; by default the preset's plain command."""
    notes: Path | None = None
    """Markdown file with what else a reader must know."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    try:
        arguments = tyro.cli(Arguments, args=argv, description=__doc__)
        run = arguments.run
        if run is None:
            run = next(p for p in arguments.model.absolute().parents if (p / "log.jsonl").exists())
        results = [store.read(directory) for directory in arguments.sweeps]
        text = card.model_card(
            arguments.name,
            arguments.model,
            results,
            log=run / "log.jsonl",
            command=arguments.command or f"python experiments/train.py {arguments.name}",
            notes=arguments.notes.read_text(encoding="utf-8") if arguments.notes else "",
        )
        card.write_card(
            arguments.model,
            text,
            name=arguments.name,
            curves=run / "curves.png",
            results=results,
        )
    except StopIteration:
        error: Exception = ValueError(f"no log.jsonl above {arguments.model}; pass --run")
    except (*sweep.INPUT_ERRORS, store.SweepError) as caught:
        error = caught
    else:
        print(text)
        return 0
    Console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    return 2


if __name__ == "__main__":
    sys.exit(main())
