"""Files that are written whole or not at all, on a file system or in a bucket (etils.epath)."""

import json
import math
import os
from typing import Any

from etils import epath

_SUFFIX = ".partial"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file, or replaces it; no reader ever finds a part of it under this name.

    Raises:
      OSError: it cannot be written; what was there stays.
    """
    path = epath.Path(path)
    # An object store writes whole objects; a file system needs the rename. The number of the
    # process keeps those apart that write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}{_SUFFIX}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON, which has no NaN and no infinity: both become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(plain(value), indent=indent, allow_nan=False)


def is_partial(path: str | os.PathLike[str]) -> bool:
    """Whether this is what a process that was killed while writing has left."""
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_SUFFIX)
