"""Trains a TRM; killed at any moment, the same command goes on where it was.

    python experiments/train.py sudoku6
    python experiments/train.py sudoku9 --data generate:sudoku9:100000 SUDOKU_EXTREME.csv

Every setting of a preset can be changed by a flag. Writes a folder (`--output`) with log, curves,
snapshots and, in the end, `model/`, a checkpoint that every other command takes.
"""

import dataclasses
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ptrm_jax import mesh
from ptrm_jax.training import TrainConfig, loop, presets


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a TRM."""

    config: Annotated[TrainConfig, tyro.conf.arg(name="")]
    output: Path
    """Folder of the run, to start or to go on."""
    devices: int | None = None
    """How many local devices to use; by default as many as divide the batch."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 for bad input, 1 for a run that broke off."""
    console, errors = Console(soft_wrap=True), Console(stderr=True)
    argv = sys.argv[1:] if argv is None else argv
    mesh.use_cpu_cores()
    try:
        if not argv or argv[0] in ("-h", "--help"):
            console.print(__doc__, markup=False, highlight=False)
            for name in presets.names():
                what = presets.describe(name).splitlines()[0]
                console.print(f"{name:24} {what}", markup=False, highlight=False, soft_wrap=True)
            console.print("\nThe flags: python experiments/train.py PRESET --help", highlight=False)
            return 0
        preset = argv[0]
        default = Arguments(presets.load(preset), Path("runs") / f"train-{preset}")
        arguments = tyro.cli(
            Arguments,
            prog=f"experiments/train.py {preset}",
            args=argv[1:],
            default=default,
            description=presets.describe(preset),
        )
        run = loop.prepare(arguments.config, arguments.output, num_devices=arguments.devices)
    except loop.INPUT_ERRORS as error:
        _print_error(errors, error)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, frame: stopped.append(number))
    console.print(f"{len(run.examples):,} puzzles to train on; {run.directory}", highlight=False)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=errors,
    ) as bar:
        task = bar.add_task("compiling", total=run.config.steps, left="")

        def show(record: dict[str, Any]) -> None:
            if record["kind"] == "start":
                bar.update(task, completed=record["step"])
            elif record["kind"] == "train":
                left = record["seconds_left"] / 60
                bar.update(
                    task,
                    completed=record["step"],
                    description=f"loss {record['loss']:.3f}",
                    left=f"{left:.0f} min left",
                )
            elif record["kind"] == "eval":
                bar.console.print(_evaluation(record), markup=False, highlight=False)

        try:
            complete = loop.train(run, progress=show, stop=lambda: bool(stopped))
        except (loop.TrainingError, OSError) as error:
            _print_error(errors, error)
            return 1
    if not complete:
        console.print(f"stopped and saved; the same command goes on: {run.directory}")
        return 128 + stopped[0]
    console.print(f"written to {run.directory / 'model'}", highlight=False)
    return 0


def _evaluation(record: dict[str, Any]) -> str:
    def percent(name: str) -> str:
        mean, low, high, _ = (100 * x for x in record[name])
        return f"{mean:.1f} % [{low:.1f}, {high:.1f}]"

    auc = "-" if record["q_auc"] is None else f"{record['q_auc']:.3f}"
    return (
        f"step {record['step']}: TRM D={record['eval_depth']} {percent('deterministic')}, "
        f"PTRM best-Q@{record['eval_rollouts']} sigma {record['eval_sigma']:g} "
        f"{percent('best_q')}, pass {percent('pass')}, Q AUC {auc}, "
        f"n={record['deterministic'][3]}"
    )


def _print_error(console: Console, error: Exception) -> None:
    console.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
