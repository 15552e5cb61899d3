"""Shared by all commands: flags, printing, progress bars, signals, errors as exit statuses."""

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import tyro
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

from ptrm_jax import devices, files, interrupts
from ptrm_jax.errors import DeviceError, PtrmError

T = TypeVar("T")

LINE_EVERY = 30.0
"""Seconds between lines of progress where standard error is no terminal."""


class _Plain(Console):
    """Prints strings as they are, except for what would control the terminal."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(soft_wrap=True, markup=False, highlight=False, emoji=False, **settings)

    def print(self, *objects: Any, **settings: Any) -> None:
        super().print(*(printable(o) if isinstance(o, str) else o for o in objects), **settings)


def output() -> Console:
    """Standard output. Prints text as it is: without markup, highlighting, emoji or wrapping."""
    return _Plain()


def messages() -> Console:
    """Standard error, likewise."""
    return _Plain(stderr=True)


def printable(text: str) -> str:
    r"""Text with control and invisible characters as escapes, such as \x1b; line ends stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text
    )


def parse(kind: type[T], argv: Sequence[str] | None = None, **settings: Any) -> T:
    """Flags as an instance of a dataclass.

    ~ at the start of a path is the home folder, also where shells leave it, as in --output=~/x.

    Args:
      kind: the dataclass.
      argv: words of the command line; by default those of this process.
      **settings: of `tyro.cli`.

    Raises:
      PtrmError: raised by the dataclass for a value that it refuses.
      SystemExit: after help (0), or a message about flags that cannot be parsed (2).
    """
    words = [_with_home(word) for word in (sys.argv[1:] if argv is None else argv)]
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return tyro.cli(kind, args=words, console_outputs=False, **settings)
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None:  # tyro frames a ValueError, and drops its type
            if isinstance(error, PtrmError):
                raise error from None
            error = error.__cause__ or error.__context__
    return tyro.cli(kind, args=words, **settings)  # prints help or message, and exits


def _with_home(word: str) -> str:
    return re.sub("^(--[A-Za-z0-9_.-]+=)?(~[^/]*)", lambda m: _expanded(*m.groups("")), word)


def _expanded(flag: str, home: str) -> str:
    return flag + os.path.expanduser(home)


def run_command(command: Callable[[], int | None]) -> int:
    """Runs a command and returns its exit status.

    An error that the user can fix becomes one line on standard error: any `PtrmError`, and the
    OSError and ValueError that Python and libraries raise. So does an exception of any kind where
    JAX has no device, a device no memory, or a path no file system; others are bugs and propagate.
    SIGINT and SIGTERM end the process with a line, and 130 or 143 (`ptrm_jax.interrupts`).

    Args:
      command: parses its flags, works, and returns its exit status, or None for success.

    Returns:
      The command's own status; that of a `PtrmError`; 2 for the other errors.
    """
    try:
        with interrupts.caught(interrupts.end):
            return command() or 0
    except Exception as error:
        told = error if isinstance(error, PtrmError) else _explained(error)
        if told is None and not isinstance(error, (OSError, ValueError)):
            raise
        told = told or PtrmError(str(error))
        text = " ".join(line.strip() for line in str(told).splitlines())
        messages().print(f"{told.label}: {text}", style="red")
        return told.exit_status


def _explained(error: Exception) -> PtrmError | None:
    """What the user can mend of an exception of a library."""
    if found := files.missing_file_system(error):
        return found
    if "RESOURCE_EXHAUSTED" in str(error):
        return DeviceError(
            f"a device has no memory left: {str(error).splitlines()[0][:300]}; let fewer lanes or "
            "rows go through the network together (--lane-tile, --micro-batch), or end the "
            "process that holds the memory"
        )
    if isinstance(error, (RuntimeError, AssertionError)):
        try:
            devices.local()
        except DeviceError as no_device:
            return no_device
    return None


class Stop:
    """Returns, when called, whether SIGINT or SIGTERM was received.

    Attributes:
      signal: the signal's number, 0 for none.
      seconds_left: estimates after how many seconds the work in flight ends; None if it cannot.
    """

    signal: int = 0
    seconds_left: Callable[[], float | None] = staticmethod(lambda: None)

    def __call__(self) -> bool:
        return self.signal != 0


@contextlib.contextmanager
def signals(what: str) -> Iterator[Stop]:
    """Makes the first SIGINT or SIGTERM set the yielded `Stop`, and the second end the process.

    The first prints at once what is waited for.

    Args:
      what: goes on to its end after the first signal, such as "unit".
    """
    stop = Stop()

    def handle(number: int, frame: object) -> None:
        if stop():
            interrupts.end(number)
        stop.signal = number
        left = stop.seconds_left()
        about = "" if left is None else f" (about {duration(max(left, 1))})"
        line = f"stopping after this {what}{about}; again to stop now\n"
        # Not by print, which the signal may have interrupted; a bar ends where the line begins.
        os.write(2, (b"\n" if os.isatty(2) else b"") + line.encode())

    with interrupts.caught(handle):
        yield stop


def progress(unit: str, shown: bool = True) -> Progress:
    """A progress bar on standard error; where that is no terminal, a line every 30 seconds.

    Args:
      unit: unit of the count.
      shown: whether to show it.
    """
    return _Progress(
        unit,
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
        # What is printed goes above the bar, but not to standard error if output is redirected.
        redirect_stdout=sys.stdout.isatty(),
    )


def updating(bar: Progress, total: int, name: str = "") -> Callable[[int, str], None]:
    """Adds a task to a bar; returns a callback (steps just finished, description) to advance it."""
    task = bar.add_task(name, total=total)
    prefix = f"{name}: " if name else ""
    return lambda steps, what: bar.update(task, advance=steps, description=f"{prefix}{what}")


class _Progress(Progress):
    """A bar on a terminal, and lines elsewhere."""

    def __init__(self, unit: str, *columns: ProgressColumn, **settings: Any) -> None:
        super().__init__(*columns, **settings)
        self._unit, self._ended = unit, threading.Event()

    def start(self) -> None:
        super().start()
        if not (self.disable or self.console.is_terminal):
            threading.Thread(target=self._say, daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        super().stop()

    def _say(self) -> None:
        while not self._ended.wait(LINE_EVERY):
            for task in self.tasks:
                if task.started and not task.finished:
                    self.console.print(self._line(task))

    def _line(self, task: Task) -> str:
        left = task.time_remaining
        return (
            f"{task.description}: {task.completed:,.0f} of {task.total or 0:,.0f} {self._unit}, "
            f"{duration(task.elapsed or 0)}" + (f", {duration(left)} left" if left else "")
        )


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
