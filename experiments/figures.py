"""The paper's analyses on any checkpoint: a picture each, with its data and findings.

    python experiments/figures.py all                        # about 12 minutes on two CPU cores
    python experiments/figures.py q_head
    python experiments/figures.py q_head --checkpoint DIR --data DATA --sigma 0.3 --rollouts 100

Names: modes, q_head, basins, width, frontier, sigma, langevin, cost, dynamics, movie. Each uses
bundled models by default; `NAME --help` lists its settings. `all` takes the settings that they
share; where one is not given, each figure has its own default (`all --help` shows those of modes).
Writes NAME.png, the data that are drawn (.npz, .csv), NAME.json with every number and its interval,
and index.html, which opens without a server. The sweeps are kept in the same folder: if
interrupted, rerun the same command to resume.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from typing import Any

import tyro
from etils import epath

from ptrm_jax import analysis, console, mesh
from ptrm_jax.analysis import exhibit
from ptrm_jax.analysis.study import Settings, Study
from ptrm_jax.files import check_writable, write_text
from ptrm_jax.sweep.run import Progress


@dataclasses.dataclass(frozen=True)
class Output:
    """Where figures go."""

    output: str = "runs/figures"
    """Folder, made if it does not exist; figures of these names are replaced."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 for bad input."""
    argv = sys.argv[1:] if argv is None else argv
    return console.run_command(lambda: _figures(argv))


def _figures(argv: list[str]) -> int:
    mesh.use_cpu_cores()
    name = argv[0] if argv and not argv[0].startswith("-") else "all"
    rest = argv[1:] if argv[:1] == [name] else argv
    names = analysis.NAMES if name == "all" else (name,)
    # All settings are checked before the first figure is made.
    wanted = [(each, *_parse(each, rest, alone=name != "all")) for each in names]
    directory = epath.Path(wanted[0][2])
    check_writable(directory)
    output = console.output()
    missing = {}
    for each, settings, _ in wanted:
        try:
            shown = _make(each, settings, directory)
        except exhibit.NothingToShow as error:
            if len(names) == 1:
                raise
            missing[each] = str(error)
            output.print(f"{each}: {error}")
            continue
        shown.write(directory)
        output.print(f"\n{shown.title}", style="bold")
        for sentence in shown.reading:
            output.print(sentence)
    page = exhibit.index(exhibit.read(directory, analysis.NAMES), missing)
    write_text(directory / "index.html", page)
    output.print(f"written to {directory}; open {directory}/index.html")
    return 0


def _parse(name: str, argv: list[str], *, alone: bool) -> tuple[Settings, str]:
    """The settings of a figure, and the folder.

    Args:
      name: of the figure.
      argv: flags.
      alone: whether flags of this figure alone are allowed.
    """
    defaults = analysis.load(name).Settings()
    kind = type(defaults) if alone else Settings
    shared = {field.name: getattr(defaults, field.name) for field in dataclasses.fields(kind)}
    # A subclass, so that the flags of the figure come first in the help.
    arguments: Any = dataclasses.make_dataclass(
        "Arguments", [("output", Output, Output())], bases=(kind,), frozen=True
    )
    given = console.parse(
        arguments,
        argv,
        prog=f"experiments/figures.py {name if alone else 'all'}",
        default=arguments(**shared),
        description=analysis.load(name).__doc__ if alone else __doc__,
        config=(tyro.conf.OmitArgPrefixes,),
    )
    changes = {field: getattr(given, field) for field in shared}
    return dataclasses.replace(defaults, **changes), given.output.output


def _make(name: str, settings: Settings, directory: epath.Path) -> exhibit.Exhibit:
    module = analysis.load(name)
    with console.progress("rollout-steps") as bar:

        def progress(total: int) -> Progress:
            for task in bar.task_ids:  # one line, of the sweep that is running
                bar.remove_task(task)
            return console.updating(bar, total, name)

        defaults = module.Settings()
        return module.make(Study(name, settings, directory, defaults=defaults, progress=progress))


if __name__ == "__main__":
    sys.exit(main())
