"""What all commands share: how they print, and how they turn an error into an exit status."""

from collections.abc import Callable

from rich.console import Console

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
