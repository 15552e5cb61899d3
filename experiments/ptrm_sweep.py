"""What noise and width buy a trained TRM: accuracy against sigma, K and D, with intervals.

    python experiments/ptrm_sweep.py
    python experiments/ptrm_sweep.py --checkpoint DIR --data DATA --sigmas 0.1 0.3 --rollouts 100
    python experiments/ptrm_sweep.py --distributed                  # a process of many: TPU, Slurm
    python experiments/ptrm_sweep.py --shard 0/4                    # or one that knows no other
    python experiments/ptrm_sweep.py merge DIR [DIR ...]            # what shards have left
    python experiments/ptrm_sweep.py maze-hard --checkpoint DIR --data DATA   # a row of the paper


The rows of the paper are arc-agi-2, maze-hard, ppbench and sudoku-extreme; `... maze-hard --help`
says what they take. Without arguments: the bundled `sudoku9` model on the first 64 of its bundled
puzzles, about two minutes on two CPU cores. Prints one table; writes settings, journals and
pictures. Broken off at any moment, the same command goes on where it was, with any number of
devices and processes.
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro
from etils import epath
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ptrm_jax import mesh, paper as benchmarks, sweep
from ptrm_jax.errors import InputError
from ptrm_jax.sweep import folder as store, report

_ERRORS = (*sweep.INPUT_ERRORS, store.SweepError, store.JournalError)


@dataclasses.dataclass(frozen=True)
class Arguments:
    """What noise and width buy a trained TRM."""

    config: Annotated[sweep.SweepConfig, tyro.conf.arg(name="")]
    output: str | None = None
    """Folder of the sweep, to start or to go on; by default runs/ and the names of
    benchmark and checkpoint."""
    new: bool = False
    """Start anew beside what is there, in a folder with -002 and so on behind its name."""
    dry_run: bool = False
    """Say what it would cost, and stop."""
    shard: str | None = None
    """i/n: do every n-th work unit, from the i-th on, knowing no other process."""
    distributed: bool = False
    """One of several processes that find each other as their platform says (TPU, Slurm)."""
    coordinator: str | None = None
    """address:port of process 0, where no platform says; with the next two."""
    num_processes: int | None = None
    """How many processes there are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    compilation_cache: str | None = None
    """Folder to keep compiled programs in. Whoever can write there can run code here."""


@dataclasses.dataclass(frozen=True)
class Merge:
    """Report on finished shards."""

    directories: tyro.conf.Positional[tuple[str, ...]]
    """Folders of one sweep."""
    output: str | None = None
    """Folder for the report; by default the first one."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 for bad input, 3 where units are missing."""
    console, errors = Console(soft_wrap=True), Console(stderr=True)
    argv = sys.argv[1:] if argv is None else argv
    mesh.use_cpu_cores()
    try:
        if argv[:1] == ["merge"]:
            return _merge(tyro.cli(Merge, args=argv[1:]), console)
        arguments = _arguments(argv)
        if arguments.compilation_cache:
            mesh.use_compilation_cache(arguments.compilation_cache)
        shard = _shard(arguments)
        prepared = sweep.prepare(arguments.config)
        benchmarks.check(prepared)
        place = store.Store(_output(arguments), prepared)
        finished, damaged = place.read()
    except _ERRORS as error:
        return _refuse(error, errors)
    for where in damaged:
        errors.print(f"damaged, will be done again: {where}", style="yellow", soft_wrap=True)
    mine = sweep.left(prepared, finished, shard)
    if shard.index == 0:
        _say_cost(prepared, mine, finished, console)
    if arguments.dry_run:
        return 0

    stopped: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        # The first ends the sweep after the unit in flight, the second at once.
        signal.signal(number, lambda number, frame: _stop(number, stopped))
    place.create()
    try:
        with place.writer(shard) as keeper, _progress(errors, disable=shard.index > 0) as bar:
            task = bar.add_task("", total=sum(unit.rollout_steps for unit in mine))
            sweep.work(
                prepared,
                finished=finished,
                keep=keeper.keep,
                shard=shard,
                progress=lambda steps, what: bar.update(task, advance=steps, description=what),
                stop=lambda: bool(stopped),
            )
    except store.JournalError as error:
        return _refuse(error, errors)
    if stopped:
        console.print(f"stopped; the same command goes on: {place.directory}", highlight=False)
        return 128 + stopped[0]
    if arguments.shard is None:
        mesh.wait_for_all()
        if shard.index > 0:
            return 0
    try:
        return _report([str(place.directory)], str(place.directory), console)
    except _ERRORS as error:  # the data may have gone since; the journals are there
        return _refuse(error, errors)


def _refuse(error: Exception, errors: Console) -> int:
    errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
    return 2


def _arguments(argv: list[str]) -> Arguments:
    if not argv or argv[0].startswith("-"):
        return tyro.cli(Arguments, args=argv, description=__doc__)
    name = argv[0]
    # What to solve, and with which checkpoint, is for the user to say.
    config = dataclasses.replace(
        benchmarks.load(name), benchmark=name, checkpoint=tyro.MISSING, data=tyro.MISSING
    )
    arguments = tyro.cli(
        Arguments,
        prog=f"experiments/ptrm_sweep.py {name}",
        args=argv[1:],
        default=Arguments(config),
        description=benchmarks.describe(name),
    )
    return dataclasses.replace(arguments, config=benchmarks.with_grid(arguments.config))


def _output(arguments: Arguments) -> str:
    config = arguments.config
    names = [config.benchmark] if config.benchmark is not None else []
    path = Path("runs", "-".join([*names, Path(config.checkpoint).name]))
    path = epath.Path(arguments.output or path)
    return os.fspath(store.free_output(path.parent, path.name) if arguments.new else path)


def _shard(arguments: Arguments) -> sweep.Shard:
    given = (arguments.coordinator, arguments.num_processes, arguments.process_id)
    explicit = [value is not None for value in given]
    if any(explicit) and not all(explicit):
        raise InputError("coordinator, num_processes and process_id must be given together")
    if (arguments.distributed or any(explicit)) and arguments.shard is not None:
        raise InputError("shard is for processes that know no other; leave out the other flags")
    if arguments.shard is not None:
        return sweep.Shard.parse(arguments.shard)
    if arguments.distributed or any(explicit):
        return sweep.Shard(*mesh.join(*given))
    return sweep.Shard()


def _say_cost(prepared: sweep.Sweep, units: list, finished: dict, console: Console) -> None:
    """What is to be done, and how long it will take here."""
    cost = sweep.cost(prepared, units)
    text = f"{cost.units} of {len(prepared.units)} work units to do"
    text += f", {len(finished)} are there" if finished else ""
    if units:
        start = time.perf_counter()
        rate = sweep.calibrate(prepared)
        took = time.perf_counter() - start
        text += (
            f": {cost.rollout_steps:,} rollout-steps, {cost.flops / 1e12:,.3g} TFLOP, about "
            f"{_duration(cost.rollout_steps / rate)} on {len(prepared.devices)} x "
            f"{prepared.devices[0].device_kind} at {rate:,.0f} per second "
            f"(tried for {took:.0f} s), at most {_size(cost.output_bytes)} of journal"
        )
    console.print(text, highlight=False)
    if cost.grid_ratio is not None:
        config = prepared.config
        points = len(config.grid_rollouts) * len(config.grid_depths)
        console.print(
            f"the grid of {points} widths and depths is part of this run: {cost.grid_ratio:.3f} of "
            "what its points would cost one by one",
            highlight=False,
        )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _progress(console: Console, *, disable: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rollout-steps"),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        disable=disable,
    )


def _stop(number: int, stopped: list[int]) -> None:
    if stopped:
        raise SystemExit(128 + number)
    stopped.append(number)


def _merge(arguments: Merge, console: Console) -> int:
    if not arguments.directories:
        raise InputError("merge needs the folder of a sweep, or those of its shards")
    return _report(arguments.directories, arguments.output or arguments.directories[0], console)


def _report(directories: list[str] | tuple[str, ...], output: str, console: Console) -> int:
    try:
        result = store.read(*directories)
    except store.IncompleteError as error:
        console.print(f"not complete yet: {error}", highlight=False)
        return 3
    report.write(result, output)
    console.print(report.table(result), highlight=False, markup=False)
    if result.config.benchmark is not None:
        more = benchmarks.reporter(result.config.benchmark)
        if more is not None:
            console.print(more(result, epath.Path(output)), highlight=False, markup=False)
    runs = (result.deterministic, *result.runs)
    ran, compiled = (sum(getattr(r, name) for r in runs) for name in ("seconds", "compile_seconds"))
    console.print(
        f"written to {output}; {_duration(ran)} of work, {_duration(compiled)} of compilation",
        highlight=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
