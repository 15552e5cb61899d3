"""Reading files that may be damaged, or made to do harm.

What a file declares is compared with its size, and with bounds, before anything of that size is
allocated. Only regular files are opened, so that a pipe or a device in place of one does not block
or never end. Every error is an `InputError` whose message begins with the path; readers turn it
into their own.
"""

import codecs
import contextlib
import errno
import io
import json
import math
import os
import reprlib
import stat
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, AnyStr, BinaryIO

import numpy as np
import yaml
from etils import epath

from ptrm_jax.errors import InputError

MEBIBYTE = 2**20
MAX_TEXT = 256 * MEBIBYTE
"""Largest file of text or JSON, unless a reader states less."""
_MAX_DEPTH = 64
_MAX_NODES = 100_000
_MAX_HEADER = 10_000

_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxdict, _REPR.maxlist, _REPR.maxtuple = 2, 4, 6, 6
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 100


def shown(value: object) -> str:
    """`repr` of a value from a file, of bounded length, also of one that contains itself."""
    return _REPR.repr(value)


def file_size(path: str | os.PathLike[str]) -> int:
    """Bytes of a regular file, or of one that a link leads to.

    Raises:
      InputError: it is a folder, a pipe, a device or a socket.
      OSError: there is none, or it cannot be examined.
    """
    name = os.fspath(path)
    if "://" in name:
        return epath.Path(name).stat().length
    try:
        found = os.stat(name)
        if stat.S_ISREG(found.st_mode):
            return found.st_size
    except OSError as error:
        if error.errno != errno.ELOOP:  # a link to itself
            raise
    raise InputError(f"{name} must be a regular file; it is none; pass another path")


def read_bytes(path: str | os.PathLike[str], most: int = MAX_TEXT) -> bytes:
    """The contents of a regular file of at most `most` bytes.

    Raises:
      InputError: it is no regular file, or larger.
      OSError: it cannot be read.
    """
    size = file_size(path)
    if size > most:
        raise InputError(
            f"{os.fspath(path)} must have at most {most:,} bytes; it has {size:,}; pass another "
            "file"
        )
    with epath.Path(path).open("rb") as file:
        return file.read(size)  # not `most`, which Python would allocate


def encoding_of(start: bytes) -> str:
    """The encoding that the first bytes of a text state by a byte-order mark; UTF-8 without one."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return "utf-8-sig"


def read_text(path: str | os.PathLike[str], most: int = MAX_TEXT) -> str:
    """The text of a file as `read_bytes` reads it, in the encoding of `encoding_of`.

    Raises:
      InputError, OSError: as `read_bytes`; or it is not text.
    """
    data = read_bytes(path, most)
    try:
        return data.decode(encoding_of(data))
    except UnicodeDecodeError as error:
        raise InputError(f"{os.fspath(path)} is not text in UTF-8: {error}") from None


def lines(file: IO[AnyStr], path: str | os.PathLike[str]) -> Iterator[AnyStr]:
    """The lines of an open file, which may be larger than the memory.

    Raises:
      InputError: one has more than a million characters.
    """
    while line := file.readline(MEBIBYTE + 1):
        if len(line) > MEBIBYTE:
            raise InputError(f"{os.fspath(path)}: a line must have at most {MEBIBYTE:,} characters")
        yield line


def read_json(path: str | os.PathLike[str], most: int = MAX_TEXT) -> Any:
    """The JSON of a file as `read_text` reads it, nested at most 64 deep.

    Raises:
      InputError, OSError: as `read_text`; or it is not JSON.
    """
    text = read_text(path, most)
    try:
        value = json.loads(text)
        level = [value]
        for _ in range(_MAX_DEPTH):
            level = [item for parent in level for item in _items(parent)]
            if not level:
                return value
    except ValueError as error:
        raise InputError(f"{os.fspath(path)} is not JSON: {error}") from None
    except RecursionError:
        pass
    raise InputError(f"{os.fspath(path)} is not JSON as expected: it is nested too deeply")


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def read_yaml(path: str | os.PathLike[str]) -> Any:
    """The YAML of a file of at most 32 KiB, as plain containers, strings and numbers.

    Raises:
      InputError: it is no such file, or one whose aliases repeat more than 100,000 values.
      OSError: it cannot be read.
    """
    text = read_text(path, 2**15)  # parsing takes a second per 10,000 values
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if _expanded(root, {}) <= _MAX_NODES:
            return None if root is None else loader.construct_document(root)
        reason = "its aliases repeat too much"
    except (yaml.YAMLError, ValueError) as error:  # a date may be none
        reason = " ".join(str(error).split())[:200]
    except RecursionError:
        reason = "it is nested too deeply, or contains itself"
    raise InputError(f"{os.fspath(path)} is not readable YAML: {reason}")


def _expanded(node: Any, sizes: dict[int, float]) -> float:
    """Nodes of a YAML tree with every alias written out; infinite where one contains itself."""
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # until it is known
        children = node.value if isinstance(node, yaml.CollectionNode) else ()
        pairs = isinstance(node, yaml.MappingNode)
        nodes = [part for pair in children for part in pair] if pairs else children
        sizes[id(node)] = 1 + sum(_expanded(child, sizes) for child in nodes)
    return sizes[id(node)]


def check_inside(path: str) -> None:
    """Raises InputError unless a path, relative to some folder, stays in it: no .. and no //."""
    parts = path.replace("\\", "/").split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise InputError(f"a path must not contain '..', '.' or '//'; got {shown(path)}")


def read_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of an .npy file, which must be as long as its header says; never unpickled.

    Raises:
      InputError: it is no regular file, or no such array.
      OSError: it cannot be read.
    """
    size = file_size(path)
    with epath.Path(path).open("rb") as file:
        try:
            return _array(file, size)
        except OSError:
            raise
        except Exception as error:  # of numpy and of the parser of Python that it uses
            raise InputError(f"{os.fspath(path)} cannot be read: {_line(error)}") from None


@contextlib.contextmanager
def open_npz(file: str | os.PathLike[str] | BinaryIO, name: str) -> Iterator["Npz"]:
    """An .npz archive, from which arrays are read by name.

    Args:
      file: its path, or the archive itself.
      name: of the archive, in messages.

    Raises:
      InputError: it is no regular file or no archive; also whatever else is raised while it is
        open, except OSError and InputError itself.
    """
    try:
        if not isinstance(file, io.IOBase):
            file_size(file)  # type: ignore[arg-type]
        with zipfile.ZipFile(file) as archive:
            yield Npz(archive)
    except (OSError, InputError):
        raise
    except Exception as error:  # of zipfile, zlib, numpy
        raise InputError(f"{name} cannot be read: {_line(error)}") from None


class Npz:
    """An open .npz archive; see `open_npz`."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive

    @property
    def names(self) -> list[str]:
        """Of the arrays, each once."""
        names = self._archive.namelist()
        return list(dict.fromkeys(name.removesuffix(".npy") for name in names))

    def read(self, name: str, most: int) -> np.ndarray:
        """An array of at most `most` bytes.

        Raises:
          InputError: it is larger.
          Exception: it is missing or damaged; `open_npz` makes an InputError of it.
        """
        member = self._archive.getinfo(f"{name}.npy")
        if member.file_size > most + _MAX_HEADER:
            raise InputError(f"{name} must have at most {most:,} bytes; got {member.file_size:,}")
        with self._archive.open(member) as file:
            return _array(file, member.file_size)


def _array(file: Any, size: int) -> np.ndarray:
    """The array of a file of `size` bytes, positioned at its start.

    Source: numpy, `numpy/lib/_format_impl.py`, "Format Version 1.0" and 2.0.
    """
    version = np.lib.format.read_magic(file)
    read: dict[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
        raise InputError(f"its version is {version}, which is unknown")
    shape, is_fortran, dtype = read[version](file, max_header_size=_MAX_HEADER)
    if dtype.hasobject:
        raise InputError("it holds Python objects, which could run code; nothing was executed")
    if min(shape, default=0) < 0 or dtype.subdtype is not None:
        raise InputError(f"its header is not that of an array: shape {shape}, dtype {dtype}")
    stated = math.prod(shape) * dtype.itemsize  # of Python's integers, which do not overflow
    if file.tell() + stated != size:
        raise InputError(
            f"its header says {dtype}{list(shape)}, {stated:,} bytes; it has {size - file.tell():,}"
        )
    data = bytearray(file.read(stated))
    return np.ndarray(shape, dtype, data, order="F" if is_fortran else "C")


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
