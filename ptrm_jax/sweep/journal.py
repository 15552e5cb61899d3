"""Journals: finished work as checksummed records that a crash, a kill or a bad disk cannot spoil.

A process appends to a journal of its own and reads everybody's. On a file system a journal is one
file of records, one after the other; on an object store (a path with ``://``), where nothing can be
appended, a folder with an object per record. A record is

    magic, 8 bytes | length of the payload, 8 bytes, little endian | SHA-256, 32 bytes | payload

the digest being that of the length and the payload. Reading looks for the magic again after damage,
so that a flipped byte costs the record it hits, and a cut tail the last one.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from etils import epath

from ptrm_jax.errors import JournalError

MAGIC = b"\x93PTRMrec"
_HEADER = struct.Struct("<8sQ32s")
_SUFFIX = ".journal"


class Contents(NamedTuple):
    """What a journal, or all of a folder, hold.

    Attributes:
      payloads: of the good records, in order.
      damaged: places where something else was found, one text each.
    """

    payloads: list[bytes]
    damaged: list[str]


def frame(payload: bytes) -> bytes:
    """A payload as a record."""
    return _HEADER.pack(MAGIC, len(payload), _digest(payload)) + payload


def read(folder: str | os.PathLike[str]) -> Contents:
    """All records of all journals in a folder; none where there is no folder.

    Raises:
      OSError: a journal cannot be read.
    """
    folder = epath.Path(folder)
    whole = Contents([], [])
    for path in sorted(folder.glob(f"*{_SUFFIX}")) if folder.exists() else []:
        for part, into in zip(read_one(path), whole, strict=True):
            into.extend(part)
    return whole


def read_one(path: str | os.PathLike[str]) -> Contents:
    """All records of one journal.

    Raises:
      OSError: it cannot be read.
    """
    path = epath.Path(path)
    contents = Contents([], [])
    for part in sorted(path.iterdir()) if path.is_dir() else [path]:
        for start, end, payload in _scan(part.read_bytes()):
            if payload is None:
                contents.damaged.append(f"{os.fspath(part)}, bytes {start} to {end}")
            else:
                contents.payloads.append(payload)
    return contents


class Writer:
    """Appends records to the journal `name` of a folder; a context manager.

    Raises:
      JournalError: another process is writing it.
      OSError: it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        path = epath.Path(folder) / f"{name}{_SUFFIX}"
        self._path = path
        self._file: BinaryIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_remote(path):
            self._file = _open(Path(path))

    def append(self, payload: bytes, name: str) -> None:
        """Adds a record; when this returns, it is on the disk.

        Args:
          payload: of the record.
          name: of the object that holds it, where a journal is a folder of objects.
        """
        if self._file is None:
            self._path.mkdir(parents=True, exist_ok=True)
            (self._path / name).write_bytes(frame(payload))
            return
        self._file.write(frame(payload))
        self._file.flush()
        os.fsync(self._file.fileno())

    @staticmethod
    def _is_remote(path: epath.Path) -> bool:
        return "://" in os.fspath(path)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> BinaryIO:
    """The journal, locked, its torn tail cut off, at its end."""
    file = path.open("a+b")
    try:
        _lock(file, path)
        file.seek(0)
        spans = list(_scan(file.read()))
        # What is damaged before a good record stays, for whoever wants to look at it.
        if spans and spans[-1][2] is None:
            file.truncate(spans[-1][0])
        file.seek(0, os.SEEK_END)
        _sync_folder(path.parent)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: BinaryIO, path: Path) -> None:
    """Held until the file is closed, by a kill too."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise JournalError(
            f"{path} is being written by another process; wait for it, stop it, or give this one "
            "another --shard or --output"
        ) from error


def _sync_folder(folder: Path) -> None:
    """So that a file made just now is found after a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _scan(data: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Good records, and what lies between them, as (start, end, payload or None)."""
    position = 0
    while position < len(data):
        payload = _record_at(data, position)
        if payload is not None:
            end = position + _HEADER.size + len(payload)
            yield position, end, payload
        else:
            end = position + 1
            while (end := data.find(MAGIC, end)) != -1 and _record_at(data, end) is None:
                end += 1
            end = len(data) if end == -1 else end
            yield position, end, None
        position = end


def _record_at(data: bytes, position: int) -> bytes | None:
    if len(data) - position < _HEADER.size:
        return None
    magic, length, digest = _HEADER.unpack_from(data, position)
    start = position + _HEADER.size
    if magic != MAGIC or length > len(data) - start:
        return None
    payload = data[start : start + length]
    return payload if _digest(payload) == digest else None


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(struct.pack("<Q", len(payload)) + payload).digest()
