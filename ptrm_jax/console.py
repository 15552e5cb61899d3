"""Shared by all commands: printing, progress bars, signals, and errors as exit statuses."""

import contextlib
import signal
from collections.abc import Callable, Iterator

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

from ptrm_jax.errors import PtrmError


def output() -> Console:
    """Standard output. Prints text as it is: without markup, highlighting, emoji or wrapping."""
    return Console(soft_wrap=True, markup=False, highlight=False, emoji=False)


def messages() -> Console:
    """Standard error, likewise."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False, emoji=False)


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status.

    An error that the user can fix becomes one line on standard error: any `PtrmError`, and the
    OSError and ValueError that Python and libraries raise. Other exceptions are bugs and propagate.

    Args:
      command: returns its exit status, or None for success.

    Returns:
      The command's own status; that of a `PtrmError`; 2 for the other errors.
    """
    try:
        return command() or 0
    except (PtrmError, OSError, ValueError) as error:
        kind = error if isinstance(error, PtrmError) else PtrmError
        text = " ".join(line.strip() for line in str(error).splitlines())
        messages().print(f"{kind.label}: {text}", style="red")
        return kind.exit_status


class Stop:
    """Returns, when called, whether SIGINT or SIGTERM was received.

    Attributes:
      signal: the signal's number, 0 for none.
    """

    signal: int = 0

    def __call__(self) -> bool:
        return self.signal != 0


@contextlib.contextmanager
def signals() -> Iterator[Stop]:
    """Makes the first SIGINT or SIGTERM set the yielded `Stop`, and the second end the process."""
    stop = Stop()

    def handle(number: int, frame: object) -> None:
        if stop():
            raise SystemExit(128 + number)
        stop.signal = number

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def progress(unit: str, shown: bool = True) -> Progress:
    """A progress bar on standard error.

    Args:
      unit: unit of the count.
      shown: whether to show it.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=messages(),
        disable=not shown,
    )


def updating(bar: Progress, total: int, name: str = "") -> Callable[[int, str], None]:
    """Adds a task to a bar; returns a callback (steps just finished, description) to advance it."""
    task = bar.add_task(name, total=total)
    prefix = f"{name}: " if name else ""
    return lambda steps, what: bar.update(task, advance=steps, description=f"{prefix}{what}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def duration(seconds: float) -> str:
    """Formats seconds, as s, min or h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: float) -> str:
    """Formats bytes, as MB or GB."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:,.1f} GB"
