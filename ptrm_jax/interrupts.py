"""Ctrl-C and SIGTERM end a command with one line and status 130 or 143, at any moment.

Commands call `catch` before they import what takes seconds. Nothing is raised, since an exception
at an arbitrary place ends as a traceback, or is lost in a callback of another library: the process
removes its temporary files and ends. All that it writes is written whole or not at all. What can
stop gracefully, a sweep or a training run, uses `ptrm_jax.console.signals`.

Only the standard library is imported here, so that nothing comes before.
"""

import contextlib
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_unfinished: set[str] = set()


def catch() -> None:
    """Makes SIGINT and SIGTERM end this process as described above."""
    with contextlib.suppress(ValueError):  # not the main thread, which alone can
        for number in SIGNALS:
            signal.signal(number, end)


@contextlib.contextmanager
def caught(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Both signals call `handler` within this context; in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def end(number: int, frame: FrameType | None = None) -> NoReturn:
    """Removes temporary files, prints a line, and ends the process with 128 + `number`."""
    try:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, broken, or in the middle of a write
                stream.flush()
        for path in tuple(_unfinished):
            remove(path)
        # Progress bars hide the cursor.
        cursor = b"\x1b[?25h" if os.isatty(2) else b""
        os.write(2, cursor + f"stopped by {signal.Signals(number).name}\n".encode())
    finally:
        os._exit(128 + number)


@contextlib.contextmanager
def unfinished(path: str | os.PathLike[str]) -> Iterator[None]:
    """Removes a temporary file or folder if this context, or the process, does not end well."""
    name = os.fspath(path)
    _unfinished.add(name)
    try:
        yield
    except BaseException:
        remove(name)
        raise
    finally:
        _unfinished.discard(name)


def remove(path: str) -> None:
    """Removes a file or a folder, if it is there and can be removed."""
    with contextlib.suppress(OSError):
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            os.unlink(path)
