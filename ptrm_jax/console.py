"""What all commands share: how they print, and how they turn an error into an exit status."""

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
    """Standard output. Text is printed as it is: no markup, no highlighting, no wrapping."""
    return Console(soft_wrap=True, markup=False, highlight=False)


def messages() -> Console:
    """Standard error, likewise."""
    return Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


def run_command(command: Callable[[], int]) -> int:
    """Runs a command and returns its exit status.

    An error that its user can mend becomes one line on standard error: any `PtrmError`, and what
    Python and the libraries raise for files and values (OSError, ValueError). Others are bugs and
    keep their traceback.

    Args:
      command: returns its exit status.

    Returns:
      The command's own status; that of a `PtrmError`; 2 for the other errors.
    """
    try:
        return command()
    except (PtrmError, OSError, ValueError) as error:
        label = error.label if isinstance(error, PtrmError) else PtrmError.label
        messages().print(f"{label}: {error}", style="red")
        return error.exit_status if isinstance(error, PtrmError) else PtrmError.exit_status


class Stop:
    """Whether SIGINT or SIGTERM has arrived; called, it says so.

    Attributes:
      signal: its number, 0 for none.
    """

    signal: int = 0

    def __call__(self) -> bool:
        return self.signal != 0


@contextlib.contextmanager
def signals() -> Iterator[Stop]:
    """Within it the first SIGINT or SIGTERM asks the work to stop, the second ends the process."""
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
      unit: what it counts.
      shown: False for none.
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
    """A callback (steps just finished, description) that moves a new task of a bar forward."""
    task = bar.add_task(name, total=total)
    prefix = f"{name}: " if name else ""
    return lambda steps, what: bar.update(task, advance=steps, description=f"{prefix}{what}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(num_bytes: float) -> str:
    """Bytes in the unit that suits them."""
    return f"{num_bytes / 1e6:,.1f} MB" if num_bytes < 1e9 else f"{num_bytes / 1e9:,.1f} GB"
