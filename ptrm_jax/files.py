"""Writing files whole or not at all, JSON, digests; on a file system or in a bucket (etils.epath).

What this package writes and reads back carries its own digest (`signed`), since no file system
reports every flipped bit.
"""

import contextlib
import hashlib
import json
import logging
import math
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import fsspec.config
from etils import epath

from ptrm_jax import interrupts
from ptrm_jax.errors import InputError, PtrmError, StorageError
from ptrm_jax.reading import file_size

# A client that keeps listings would not see what other processes write to a bucket.
for _scheme in ("gs", "s3"):
    fsspec.config.conf.setdefault(_scheme, {}).setdefault("use_listings_cache", False)
# Clients log every retry, with a traceback; what comes of it is said once, by the exception.
logging.getLogger("gcsfs").addHandler(logging.NullHandler())

_SUFFIX = ".partial"
_DIGEST = "sha256"


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes or replaces a file atomically: no reader sees a part of it.

    Raises:
      StorageError: it cannot be written; an existing file is kept.
    """
    target = epath.Path(path)
    # An object store writes whole objects; a file system needs the rename. The process id
    # separates processes that write the same file.
    temporary = target.with_name(f".{target.name}.{os.getpid()}{_SUFFIX}")
    with writing(target), interrupts.unfinished(temporary):
        temporary.write_bytes(data)
        temporary.replace(target)


@contextlib.contextmanager
def writing(path: str | os.PathLike[str], safe: str = "what was there is kept") -> Iterator[None]:
    """Turns any error but a `PtrmError` into one line that names the path.

    Args:
      path: what is written.
      safe: what is not lost, for the message.

    Raises:
      StorageError: instead of the error, which may be of a library that reports a full disk in
        pages of text.
    """
    try:
        yield
    except StorageError as error:
        raise error if safe in str(error) else StorageError(f"{error}; {safe}") from None
    except PtrmError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = (reason.strip().splitlines() or [type(error).__name__])[0][:200]
        raise StorageError(f"{os.fspath(path)} cannot be written: {line}; {safe}") from error


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Checks that files can be written in a folder, which need not exist yet; leaves nothing.

    Of a bucket it checks that it can be reached: whether it can be written shows with the first
    file, which is written before anything is computed.

    Raises:
      InputError: the file system of a bucket is unknown, not installed or out of reach.
      StorageError: they cannot: no permission, no room, not a folder, no such place.
    """
    if "://" in os.fspath(folder):
        return _check_bucket(os.fspath(folder))
    name = os.path.abspath(folder)
    while not os.path.exists(name):
        name = os.path.dirname(name)
    with writing(folder, "nothing was changed; pass another folder, or make room"):
        # Tried, since permissions alone do not tell: root may do anything, but not write to /proc.
        handle, probe = tempfile.mkstemp(prefix=".", suffix=_SUFFIX, dir=name)
        with interrupts.unfinished(probe):
            with open(handle, "wb") as file:
                file.write(bytes(2**16))
                file.flush()
                os.fsync(file.fileno())
            os.unlink(probe)


def _check_bucket(name: str) -> None:
    try:
        epath.Path(name).exists()
    except Exception as error:
        told = missing_file_system(error)
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise told or InputError(
            f"{name} cannot be reached: {reason[:300]}; check its name, the network, and the "
            "credentials (of Google's, `gcloud auth application-default login`)"
        ) from error


def missing_file_system(error: Exception) -> InputError | None:
    """What to do where etils or fsspec know no file system for a path; None for other errors."""
    text = str(error)
    if isinstance(error, KeyError) and text.endswith("://'"):
        return InputError(
            f"a path must be a folder, or begin with gs://, s3:// or az://; got {error.args[0]}"
        )
    if isinstance(error, ImportError) and "install gcsfs" in text:
        return InputError("gs:// needs gcsfs, which is not installed; pip install -e '.[gcs]'")
    if isinstance(error, ImportError) and ("nstall s3fs" in text or "nstall adlfs" in text):
        return InputError(f"the file system of a bucket is not installed: {text}")
    return None


def listed(folder: str | os.PathLike[str], prefix: str = "", suffix: str = "") -> list[epath.Path]:
    """What a folder contains by prefix and suffix, sorted; nothing if it does not exist.

    Unlike a glob pattern, this takes the name of the folder as it is, brackets included.
    """
    directory = epath.Path(folder)
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(p for p in found if p.name.startswith(prefix) and p.name.endswith(suffix))


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


def signed(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields, as JSON holds them, with a digest of all of them under `sha256`."""
    plain = json.loads(json_text(dict(fields)))
    return {**plain, _DIGEST: json_digest(plain)}


def unsigned(fields: Any) -> dict[str, Any]:
    """The fields of `signed`, without their digest; fields without one as they are.

    Raises:
      InputError: they are not an object, or their digest is that of others.
    """
    if not isinstance(fields, dict):
        raise InputError(f"it must be a JSON object; it is a {type(fields).__name__}")
    rest = {name: value for name, value in fields.items() if name != _DIGEST}
    if _DIGEST in fields and fields[_DIGEST] != json_digest(rest):
        raise InputError("it is damaged: its digest is not that of its contents")
    return rest


def json_digest(value: Any) -> str:
    """SHA-256 of a JSON value, 64 hex digits; the order of names does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a regular file, 64 hex digits.

    Raises:
      InputError: it is no regular file.
      OSError: it cannot be read.
    """
    file_size(path)
    digest = hashlib.sha256()
    with epath.Path(path).open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def is_partial(path: str | os.PathLike[str]) -> bool:
    """Whether this is what a process leaves that was killed while writing."""
    name = os.path.basename(path)
    return name.startswith(".") and name.endswith(_SUFFIX)
