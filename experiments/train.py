"""Trains a TRM; if interrupted, rerun the same command to resume.

    python experiments/train.py sudoku6
    python experiments/train.py sudoku9 --data generate:sudoku9:100000 SUDOKU_EXTREME.csv

Flags change the settings of a preset. Writes a folder (`--output`) with log, curves, snapshots and,
at the end, `model/`, a checkpoint that all other commands read. A preset may have earlier stages,
from whose weights its own run starts; flags of settings that a stage does not have of its own
change these runs too. `--start-from` replaces them, `--no-stages` leaves them out.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from ptrm_jax import console, mesh
from ptrm_jax.config import ModelConfig, group
from ptrm_jax.training import TrainConfig, loop, presets, stages
from ptrm_jax.training.config import Data, Numerics, Recipe, Records
from ptrm_jax.training.log import Record
from ptrm_jax.training.run import TrainingRun, check_folder, prepare


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Train a TRM."""

    data: tyro.conf.OmitArgPrefixes[Data]
    recipe: tyro.conf.OmitArgPrefixes[Recipe]
    numerics: tyro.conf.OmitArgPrefixes[Numerics]
    records: tyro.conf.OmitArgPrefixes[Records]
    model: ModelConfig
    output: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder of the run, new or to be resumed."""
    devices: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Local devices to use. Default: the largest number that divides the batch."""
    stages: bool = True
    """Run the earlier stages of the preset first, if it has any."""

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        parts = (self.data, self.recipe, self.numerics, self.records)
        return TrainConfig(model=self.model, **{k: v for p in parts for k, v in vars(p).items()})


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 for bad input, 1 for a run that failed,
    4 if something cannot be written.
    """
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        console.output().print(_overview())
        return 0
    return console.run_command(lambda: _train_stages(argv[0], _arguments(argv[0], argv[1:])))


def _overview() -> str:
    lines = [f"{name:24} {presets.describe(name).splitlines()[0]}" for name in presets.NAMES]
    flags = "The flags: python experiments/train.py PRESET --help"
    return "\n".join([__doc__ or "", *lines, "", flags])


def _arguments(preset: str, argv: list[str]) -> Arguments:
    config = presets.load(preset)
    return console.parse(
        Arguments,
        argv,
        prog=f"experiments/train.py {preset}",
        default=Arguments(
            group(config, Data),
            group(config, Recipe),
            group(config, Numerics),
            group(config, Records),
            config.model,
            Path("runs") / f"train-{preset}",
        ),
        description=presets.describe(preset),
    )


def _train_stages(preset: str, arguments: Arguments) -> int:
    mesh.use_cpu_cores()
    output = console.output()
    earlier = presets.stages(preset) if arguments.stages else ()
    runs = stages.plan(arguments.config, earlier, arguments.output)
    check_folder(arguments.output)
    for number, (config, directory) in enumerate(runs, 1):
        run = prepare(config, directory, num_devices=arguments.devices)
        stage = f"stage {number} of {len(runs)}: " if len(runs) > 1 else ""
        output.print(f"{stage}{len(run.examples):,} puzzles to train on; {run.directory}")
        if number < len(runs) and run.complete:
            continue  # exported again, its checkpoint would state the versions of now
        if signal := _train(run):
            output.print(f"stopped; rerun the same command to resume: {run.directory}")
            return 128 + signal
        output.print(f"written to {run.directory / 'model'}")
    return 0


def _train(run: TrainingRun) -> int:
    """Trains a run to its end, or until a signal comes; returns its number, or 0."""
    with console.signals("step") as stop, console.progress("steps") as bar:
        complete = loop.train(run, progress=_show(bar, run.config.steps), stop=stop)
    return 0 if complete else stop.signal


def _show(bar: Progress, steps: int) -> Callable[[Record], None]:
    """A callback that moves the bar forward, and prints evaluations above it."""
    task, output = bar.add_task("compiling", total=steps), console.output()

    def show(record: Record) -> None:
        if record["kind"] == "eval":
            output.print(_evaluation(record))
        else:
            bar.update(task, completed=record["step"])
        for line in record.get("dropped_lines", ()):
            console.messages().print(f"log.jsonl, line {line}: damaged, dropped", style="yellow")
        if record["kind"] == "train":
            bar.update(task, description=f"loss {record['loss']:.3f}")

    return show


def _evaluation(record: Record) -> str:
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


if __name__ == "__main__":
    sys.exit(main())
