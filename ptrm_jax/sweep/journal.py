"""Journals: finished work as checksummed records that survive crashes, kills and bad disks.

Each process appends to one journal and reads all of them. On a file system a journal is a file of
consecutive records; on an object store (a path with ``://``), where nothing can be appended, it is
a folder with one object per record. A record is

    magic, 8 bytes | length of the payload, 8 bytes, little endian | SHA-256, 32 bytes | payload

where the digest covers the length and the payload. After damage, reading continues at the next
magic: a flipped byte loses the record that contains it, and a truncated tail the last one.
"""

import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from etils import epath

from ptrm_jax import files
from ptrm_jax.errors import JournalError
from ptrm_jax.reading import file_size

MAGIC = b"\x93PTRMrec"
_HEADER = struct.Struct("<8sQ32s")
SUFFIX = ".journal"
_SAFE = "finished units are kept; make room and rerun the same command"


class Contents(NamedTuple):
    """The records of one journal, or of all journals of a folder.

    Attributes:
      payloads: of the valid records, in order.
      damaged: places that hold anything else, one text each.
    """

    payloads: list[bytes]
    damaged: list[str]


def frame(payload: bytes) -> bytes:
    """A payload as a record."""
    return _HEADER.pack(MAGIC, len(payload), _digest(payload)) + payload


def read(folder: str | os.PathLike[str]) -> Contents:
    """All records of all journals in a folder; none if it does not exist.

    Raises:
      OSError: a journal cannot be read.
    """
    whole = Contents([], [])
    for path in files.listed(folder, suffix=SUFFIX):
        part = read_one(path)
        whole.payloads.extend(part.payloads)
        whole.damaged.extend(part.damaged)
    return whole


def read_one(path: str | os.PathLike[str]) -> Contents:
    """All records of one journal.

    Raises:
      InputError: it is neither a folder nor a regular file.
      OSError: it cannot be read.
    """
    journal = epath.Path(path)
    contents = Contents([], [])
    for part in sorted(journal.iterdir()) if journal.is_dir() else [journal]:
        file_size(part)
        for start, end, payload in _scan(part.read_bytes()):
            if payload is None:
                contents.damaged.append(f"{os.fspath(part)}, bytes {start} to {end}")
            else:
                contents.payloads.append(payload)
    return contents


class Writer:
    """Appends records to the journal `name` of a folder. A context manager.

    Raises:
      JournalError: another process is writing it.
      StorageError: it cannot be written; what is in it is kept.
    """

    def __init__(self, folder: str | os.PathLike[str], name: str) -> None:
        path = epath.Path(folder) / f"{name}{SUFFIX}"
        self._path = path
        self._file: BinaryIO | None = None
        with files.writing(path, _SAFE):
            path.parent.mkdir(parents=True, exist_ok=True)
            if not self._is_remote(path):
                self._file = _open(Path(path))

    def append(self, payload: bytes, name: str) -> None:
        """Adds a record, and returns once it is on disk.

        Args:
          payload: of the record.
          name: of the record's object, where a journal is a folder of objects.
        """
        with files.writing(self._path, _SAFE):
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
            # What could not be written is written again when the file is closed, and fails again.
            with contextlib.suppress(OSError) if error else contextlib.nullcontext():
                self._file.close()


def _open(path: Path) -> BinaryIO:
    """The journal, locked, without a truncated last record, positioned at its end."""
    if path.exists():
        file_size(path)  # a pipe would block
    file = path.open("a+b")
    try:
        _lock(file, path)
        file.seek(0)
        spans = list(_scan(file.read()))
        # Damage before a valid record stays, for inspection.
        if spans and spans[-1][2] is None:
            file.truncate(spans[-1][0])
        file.seek(0, os.SEEK_END)
        _sync_folder(path.parent)
    except BaseException:
        file.close()
        raise
    return file


def _lock(file: BinaryIO, path: Path) -> None:
    """Locks the file until it is closed, also by a kill."""
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
    """Flushes the folder, so that a new file is found after a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _scan(data: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Valid records, and the spans between them, as (start, end, payload or None).

    Raises:
      JournalError: it would take more than linear time.
    """
    position, vain = 0, 0
    while position < len(data):
        payload = _record_at(data, position)
        if payload is not None:
            end = position + _HEADER.size + len(payload)
            yield position, end, payload
        else:
            end = position + 1
            while (end := data.find(MAGIC, end)) != -1 and _record_at(data, end) is None:
                if len(data) - end >= _HEADER.size:
                    vain += min(_HEADER.unpack_from(data, end)[1], len(data))
                if vain > 8 * len(data) + 2**26:  # of damage, there are a few headers in vain
                    raise JournalError("holds headers without records; it is not a journal")
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
