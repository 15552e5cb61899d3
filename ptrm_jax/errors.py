"""The exceptions of this package, which all derive from `PtrmError`.

Commands turn them into one line and an exit status (`ptrm_jax.console.run_command`).
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

T = TypeVar("T")


class PtrmError(Exception):
    """Base class of errors that the caller can fix; the message says how.

    Attributes:
      exit_status: of a command that ends with this error.
      label: printed by commands before the message.
    """

    exit_status: ClassVar[int] = 2
    label: ClassVar[str] = "error"


class InputError(PtrmError, ValueError):
    """An invalid argument or setting; raised before anything is compiled."""


class CheckpointError(PtrmError):
    """A checkpoint that cannot be read or written."""


class DataError(PtrmError):
    """A data set that cannot be read or does not fit the model."""


class SweepError(PtrmError):
    """A folder that cannot be used for a sweep."""


class JournalError(SweepError):
    """A journal that cannot be used."""


class IncompleteError(SweepError):
    """A sweep with work units that have not been run yet."""

    exit_status = 3
    label = "not complete yet"


class DeviceError(PtrmError):
    """No device that JAX can use, or none with memory left."""


class TrainingError(PtrmError):
    """A training run that cannot continue."""

    exit_status = 1


class StorageError(PtrmError, OSError):
    """A file or folder that cannot be written: no room, no permission, no such place.

    The message has the path, the reason, and what is safe.
    """

    exit_status = 4


def mismatches(
    expected: Mapping[str, T], got: Mapping[str, T], say: Callable[[str, T, T], str]
) -> list[str]:
    """Every name that is missing, unexpected or has another value: a text for each of up to 50.

    Args:
      expected: values by name.
      got: the same.
      say: the text of a name whose expected value and value got differ.
    """
    both = sorted(expected.keys() & got.keys())
    problems = [
        *(f"missing {name}" for name in sorted(expected.keys() - got.keys())),
        *(f"unexpected {name}" for name in sorted(got.keys() - expected.keys())),
        *(say(name, expected[name], got[name]) for name in both if expected[name] != got[name]),
    ]
    return problems if len(problems) <= 50 else [*problems[:50], f"{len(problems) - 50} more"]
