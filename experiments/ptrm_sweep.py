"""Measures how sigma, K and D change the accuracy of a trained TRM, with confidence intervals.

    python experiments/ptrm_sweep.py
    python experiments/ptrm_sweep.py --checkpoint DIR --data DATA --sigmas 0.1 0.3 --rollouts 100
    python experiments/ptrm_sweep.py --distributed        # one of several processes: TPU, Slurm
    python experiments/ptrm_sweep.py --shard 0/4          # a fourth, independently of the others
    python experiments/ptrm_sweep.py merge DIR [DIR ...]  # report on finished shards
    python experiments/ptrm_sweep.py maze-hard --checkpoint DIR --data DATA   # a row of the paper

The rows of the paper are arc-agi-2, maze-hard, ppbench and sudoku-extreme; `... maze-hard --help`
describes them. Without arguments: the bundled `maze11` model on the first 80 bundled mazes, about
one minute on two CPU cores. Prints a table; writes settings, journals, pictures and
report.html. If interrupted, rerun the same command to resume, with any number of devices and
processes.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import argparse
import dataclasses
import os
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import tyro
from etils import epath

from ptrm_jax import console, mesh, paper, sweep, targets
from ptrm_jax.config import group
from ptrm_jax.errors import IncompleteError, InputError
from ptrm_jax.files import check_writable, writing
from ptrm_jax.sweep import price, report, scores
from ptrm_jax.sweep.clock import Clock
from ptrm_jax.sweep.config import Inputs, Kept, Numerics, Search, SweepConfig
from ptrm_jax.sweep.folder import Progressed, free_output
from ptrm_jax.sweep.plan import speed_up
from ptrm_jax.sweep.run import calibrate, estimate


@dataclasses.dataclass(frozen=True)
class Output:
    """Where results go, and what is printed."""

    output: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder of the sweep, new or to be resumed. Default: runs/ and the names of benchmark and
    checkpoint."""
    new: bool = False
    """Start a new sweep beside existing ones, in a folder with the suffix -002, -003, ..."""
    verbose: bool = False
    """Print every sigma, choice, stratum and grid, as table.txt has them."""
    dry_run: bool = False
    """Print the estimated cost, and what several processes gain, and stop."""
    target: Annotated[str | None, tyro.conf.arg(metavar="CHIP:GRID")] = None
    """With dry_run: the cost on TPUs that need not be there, such as v5e:16x16, by their compiler's
    static estimates. Needs pip install -e ".[tpu]"."""
    dollars_per_chip_hour: Annotated[float | None, tyro.conf.arg(metavar="FLOAT")] = None
    """With target: what a chip-hour costs."""
    profile: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for a trace of three units, by jax.profiler, for XProf, TensorBoard or Perfetto."""
    compilation_cache: Annotated[str | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder for compiled programs. Anyone with write access to it can execute code in this
    process."""


@dataclasses.dataclass(frozen=True)
class Processes:
    """Sweeps over several processes."""

    shard: Annotated[str | None, tyro.conf.arg(metavar="I/N")] = None
    """Run the I-th of N even shares of the work, from 0, independently of other processes."""
    distributed: bool = False
    """Join the other processes as the platform tells (TPU, Slurm)."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT")] = None
    """Address of process 0, where the platform does not tell; requires the next two."""
    num_processes: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Number of processes."""
    process_id: Annotated[int | None, tyro.conf.arg(metavar="INT")] = None
    """Number of this process, from 0."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measure how noise, width and depth change the accuracy of a trained TRM."""

    what: Inputs
    search: Search
    numerics: Numerics
    kept: Kept
    output: Output = Output()
    processes: Processes = Processes()

    @property
    def config(self) -> SweepConfig:
        """The settings of the sweep."""
        settings = SweepConfig(
            **vars(self.what), **vars(self.search), **vars(self.numerics), **vars(self.kept)
        )
        return paper.with_grid(settings)


@dataclasses.dataclass(frozen=True)
class Merge:
    """Report on finished shards."""

    directories: tyro.conf.Positional[tuple[str, ...]]
    """Folders of one sweep."""
    output: str | None = None
    """Folder for the report. Default: the first one."""
    verbose: bool = False
    """Print every sigma, choice, stratum and grid, as table.txt has them."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 2 for bad input, 3 if units are missing, 4 if
    something cannot be written.
    """
    argv = sys.argv[1:] if argv is None else argv
    command = shlex.join(["python", "experiments/ptrm_sweep.py", *argv])
    if argv[:1] == ["merge"]:
        return console.run_command(lambda: _merge(console.parse(Merge, argv[1:]), command))
    return console.run_command(lambda: _sweep(_arguments(argv), command))


def _arguments(argv: list[str]) -> Arguments:
    name = argv[0] if argv and not argv[0].startswith("-") else None
    config = SweepConfig()
    if name is not None:
        config = dataclasses.replace(paper.load(name, _checkpoint(argv)), benchmark=name)
        if config.data is None:  # the user chooses what to solve, and with which checkpoint
            config = dataclasses.replace(config, checkpoint=tyro.MISSING, data=tyro.MISSING)
    return console.parse(
        Arguments,
        argv[1:] if name else argv,
        prog="experiments/ptrm_sweep.py" + (f" {name}" if name else ""),
        default=Arguments(
            group(config, Inputs),
            group(config, Search),
            group(config, Numerics),
            group(config, Kept),
        ),
        description=paper.describe(name) if name else __doc__,
        config=(tyro.conf.OmitArgPrefixes,),
    )


def _checkpoint(argv: list[str]) -> str | None:
    """The checkpoint that flags state, on which the defaults of the others depend."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--checkpoint", nargs="?")
    return parser.parse_known_args(argv)[0].checkpoint


def _sweep(arguments: Arguments, command: str) -> int:
    mesh.use_cpu_cores()
    output = console.output()
    if arguments.output.compilation_cache:
        mesh.use_compilation_cache(arguments.output.compilation_cache)
    config, shard = arguments.config, _shard(arguments.processes)
    folder = _folder(arguments.output, config)
    _check_target(arguments.output)
    if not arguments.output.dry_run:
        check_writable(folder)
        if arguments.output.profile is not None:
            check_writable(arguments.output.profile)
    prepared = sweep.prepare(config)
    paper.check(prepared)
    found = sweep.inspect(prepared, folder, shard)
    for where in found.damaged:
        console.messages().print(f"damaged, will be run again: {where}", style="yellow")
    if arguments.output.target is not None:
        priced = price.price(prepared, arguments.output.target, config.lane_tile)
        rate = arguments.output.dollars_per_chip_hour
        output.print(price.describe(priced, rate, console.duration))
        return 0
    if shard.index == 0:
        output.print(_cost(prepared, found, arguments.output.dry_run))
    if arguments.output.dry_run:
        if shard.index == 0:
            _say_speed_up(prepared, shard.count)
        return 0
    with (
        console.signals("unit") as stop,
        console.progress("rollout-steps", shard.index == 0) as bar,
    ):
        total = sum(unit.rollout_steps for unit in found.remaining)
        clock = Clock(found.remaining, console.updating(bar, total), arguments.output.profile)
        stop.seconds_left = clock.seconds_left
        try:
            with clock.running():
                result = sweep.resume(
                    prepared, folder, shard=shard, found=found, progress=clock, stop=stop
                )
        except IncompleteError:
            if not stop():
                raise
            bar.stop()
            output.print(f"stopped; rerun the same command to resume: {folder}")
            return 128 + stop.signal
    if shard.index > 0 and arguments.processes.shard is None:
        return 0  # process 0 of a distributed run reports
    return _report(result, folder, arguments.output.verbose, command)


def _merge(arguments: Merge, command: str) -> int:
    if not arguments.directories:
        raise InputError("merge needs the folder of a sweep, or those of its shards")
    folder = arguments.output or arguments.directories[0]
    return _report(sweep.read(*arguments.directories), folder, arguments.verbose, command)


def _report(result: sweep.Result, folder: str, verbose: bool, command: str) -> int:
    output = console.output()
    if result.is_blind:
        output.print("\n".join(scores.headline(result.config, result.provenance)))
        output.print("no answer is known: nothing to score\n")
        output.print(f"{paper.report(result, epath.Path(folder))}written to {folder}")
        return 0
    scored = scores.compute(result)
    output.print(report.table(scored) if verbose else report.short_table(scored))
    with writing(folder, "all units are kept; make room and rerun the same command"):
        report.write(scored, folder, command=command)
        more = paper.report(result, epath.Path(folder))
    if more:
        output.print(more)
    ran, compiled = (
        sum(getattr(run, name) for run in scored.runs) for name in ("seconds", "compile_seconds")
    )
    output.print(
        f"written to {folder}: report.html, table.txt (every sigma and choice), pictures, data; "
        f"{console.duration(ran)} of work, {console.duration(compiled)} of compilation"
    )
    return 0


def _folder(output: Output, config: SweepConfig) -> str:
    names = [config.benchmark] if config.benchmark is not None else []
    path = Path("runs", "-".join([*names, Path(config.checkpoint).name]))
    path = epath.Path(output.output or path)
    return os.fspath(free_output(path.parent, path.name) if output.new else path)


def _check_target(output: Output) -> None:
    if output.target is not None and not output.dry_run:
        raise InputError(f"target is for --dry-run; got {output.target!r} without it; pass both")
    if output.dollars_per_chip_hour is not None and output.target is None:
        raise InputError(
            f"dollars_per_chip_hour needs a target; got {output.dollars_per_chip_hour} without; "
            "pass --target, such as v5e:16x16"
        )
    if output.target is not None:
        targets.Target.parse(output.target)


def _shard(processes: Processes) -> sweep.Shard:
    given = (processes.coordinator, processes.num_processes, processes.process_id)
    explicit = [value is not None for value in given]
    if any(explicit) and not all(explicit):
        raise InputError("coordinator, num_processes and process_id must be given together")
    if (processes.distributed or any(explicit)) and processes.shard is not None:
        raise InputError("shard is for independent processes; leave out the other flags")
    if processes.shard is not None:
        return sweep.Shard.parse(processes.shard)
    if processes.distributed or any(explicit):
        where = f"{given[0]}, process {given[2]} of {given[1]}" if given[0] else "as detected"
        console.messages().print(
            f"waiting for the other processes of this run ({where}), for five minutes at most"
        )
        return sweep.Shard(*mesh.join(*given))
    return sweep.Shard()


_SMALL = 1e13
"""FLOP of a sweep that ends about as soon as its time could be estimated."""


def _cost(prepared: sweep.Sweep, found: Progressed, dry_run: bool) -> str:
    """The remaining work, and the time it will take here."""
    cost = estimate(prepared, found.remaining)
    text = f"{cost.units} of {len(prepared.units)} work units to run"
    text += f", {len(found.finished)} are finished" if found.finished else ""
    if found.remaining:
        most = "" if prepared.config.stop is None else "at most "
        text += f": {most}{cost.rollout_steps:,} rollout-steps, {cost.flops / 1e12:,.3g} TFLOP"
    if found.remaining and (dry_run or cost.flops > _SMALL):
        start = time.perf_counter()
        rate = calibrate(prepared)
        took = time.perf_counter() - start
        text += (
            f", {most or 'about '}{console.duration(cost.rollout_steps / rate)} on "
            f"{len(prepared.devices)} x {prepared.devices[0].device_kind} at {rate:,.0f} per "
            f"second (measured in {took:.0f} s), at most {console.size(cost.output_bytes)} of "
            "journal"
        )
    if cost.grid_ratio is not None:
        points = len(prepared.config.grid_rollouts) * len(prepared.config.grid_depths)
        text += (
            f"\nthe grid of {points} widths and depths is part of this run: {cost.grid_ratio:.3f} "
            "of what its points would cost one by one"
        )
    return text


def _say_speed_up(prepared: sweep.Sweep, count: int) -> None:
    """What several processes gain, by the rollout-steps of their shares; `count` of them if > 1."""
    counts = [2**i for i in range(1, 7)] if count == 1 else [count]
    gains = {n: speed_up(prepared.units, n) for n in counts}
    text = ", ".join(f"{n} processes {gain:.2f}" for n, gain in gains.items())
    console.output().print(f"expected speed-up over one process, by rollout-steps: {text}")
    if poor := [n for n, gain in gains.items() if gain < 0.8 * n]:
        say = console.output() if count == 1 else console.messages()  # a hint, or a warning
        say.print(
            f"shares of {poor[0]} processes are uneven: the speed-up is below "
            f"{0.8 * poor[0]:.1f}; pass a smaller --unit-steps, more puzzles or fewer processes",
            style=None if count == 1 else "yellow",
        )


if __name__ == "__main__":
    sys.exit(main())
