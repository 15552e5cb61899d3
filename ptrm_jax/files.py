"""Atomic writes, JSON and digests of files, on a file system or in a bucket (etils.epath)."""

import hashlib
import json
import math
import os
from typing import Any

from etils import epath

_SUFFIX = ".partial"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes or replaces a file atomically: no reader sees a part of it.

    Raises:
      OSError: it cannot be written; an existing file is kept.
    """
    target = epath.Path(path)
    # An object store writes whole objects; a file system needs the rename. The process id
    # separates processes that write the same file.
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_SUFFIX}")
    try:
        temporary.write_bytes(data)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as strict JSON: NaN and infinities become null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(item) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return None
        return value

    return json.dumps(plain(value), indent=indent, allow_nan=False)


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def is_partial(path: str | os.PathLike[str]) -> bool:
    """Whether this is the temporary file of a process that was killed while writing."""
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_SUFFIX)
