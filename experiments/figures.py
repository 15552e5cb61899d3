"""The paper's analyses on any checkpoint: a picture each, with its data and what it says.

    python experiments/figures.py all                        # about 12 minutes on two CPU cores
    python experiments/figures.py q_head
    python experiments/figures.py q_head --checkpoint DIR --data DATA --sigma 0.3 --rollouts 100

Names: modes, q_head, basins, width, sigma, langevin, cost, dynamics, movie. Each takes bundled
models unless told otherwise, and `NAME --help` says what it can be told; `all` takes what they have
in common. Writes NAME.png, the data that are drawn (.npz, .csv), NAME.json with every number and
its interval, and index.html, which opens without a server. The sweeps behind them are kept in the
same folder: broken off, the same command goes on.
"""

import dataclasses
import sys
from typing import Annotated, Any

import tyro
from etils import epath
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ptrm_jax import analysis, mesh, sweep
from ptrm_jax.analysis import exhibit
from ptrm_jax.analysis.study import Settings, Study
from ptrm_jax.config import MatmulPrecision
from ptrm_jax.files import write_text
from ptrm_jax.sweep import folder as store

_ERRORS = (*sweep.INPUT_ERRORS, store.SweepError, store.JournalError)


@dataclasses.dataclass(frozen=True)
class Common:
    """Settings of all figures; what is not given stays as each has it."""

    checkpoint: str | None = None
    """A bundled checkpoint, or a directory that `python -m convert` or `experiments/train.py`
    wrote."""
    data: str | None = None
    """As for `experiments/ptrm_sweep.py`; by default the bundled set of the checkpoint's name."""
    split: str | None = None
    """Sub-folder of an upstream data folder."""
    num_puzzles: int | None = None
    """The first so many puzzles of the data."""
    rollouts: int | None = None
    """K, width."""
    depth: int | None = None
    """D, supervision steps of each rollout."""
    sigma: float | None = None
    """Noise scale, in units of the latent's root mean square."""
    seeds: tuple[int, ...] | None = None
    """One independent run for each."""
    matmul_precision: MatmulPrecision | None = None
    """Precision of every matrix product."""
    lane_tile: int | None = None
    """Rollouts that go through the network together."""
    devices: int | None = None
    """How many local devices to use."""


@dataclasses.dataclass(frozen=True)
class Output:
    """Where figures go."""

    output: str = "runs/figures"
    """Folder, made if need be; figures of these names are replaced."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    console, errors = Console(soft_wrap=True), Console(stderr=True)
    argv = sys.argv[1:] if argv is None else argv
    mesh.use_cpu_cores()
    try:
        wanted, directory = _wanted(argv)
        missing = {}
        for name, settings, defaults in wanted:
            try:
                _make(name, settings, defaults, directory, console, errors)
            except exhibit.NothingToShow as error:
                if len(wanted) == 1:
                    raise
                missing[name] = str(error)
                console.print(f"{name}: {error}", markup=False)
    except _ERRORS as error:
        errors.print(f"error: {error}", style="red", highlight=False, markup=False, soft_wrap=True)
        return 2
    records = exhibit.read(directory, analysis.NAMES)
    write_text(directory / "index.html", exhibit.index(records, missing))
    console.print(f"written to {directory}; open {directory}/index.html", highlight=False)
    return 0


def _wanted(argv: list[str]) -> tuple[list[tuple[str, Settings, Settings]], epath.Path]:
    """Names with their settings and their defaults, and the folder."""
    name = argv[0] if argv and not argv[0].startswith("-") else "all"
    rest = argv[1:] if argv and argv[0] == name else argv
    names = analysis.NAMES if name == "all" else (name,)
    defaults = {name: analysis.load(name).Settings() for name in names}
    kind: Any = Common if name == "all" else type(defaults[name])
    given, output = tyro.cli(
        tuple[Annotated[kind, tyro.conf.arg(name="")], Annotated[Output, tyro.conf.arg(name="")]],
        prog=f"experiments/figures.py {name}",
        args=rest,
        description=__doc__ if name == "all" else analysis.load(name).__doc__,
    )
    if name == "all":
        changes = {k: v for k, v in dataclasses.asdict(given).items() if v is not None}
        settings = {name: dataclasses.replace(value, **changes) for name, value in defaults.items()}
    else:
        settings = {name: given}
    wanted = [(name, settings[name], defaults[name]) for name in names]
    return wanted, epath.Path(output.output)


def _make(
    name: str,
    settings: Settings,
    defaults: Settings,
    directory: epath.Path,
    console: Console,
    errors: Console,
) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task(name, total=None)

        def progress(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=f"{name}: {what}")

        study = Study(name, settings, directory, defaults=defaults, progress=progress)
        exhibits = analysis.load(name).make(study)
    for shown in exhibits:
        shown.write(directory)
        console.print(f"\n{shown.title}", style="bold", markup=False, highlight=False)
        for sentence in shown.reading:
            console.print(sentence, markup=False, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
