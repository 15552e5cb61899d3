"""Text files as people have them: byte order marks, comments, puzzles on one or several lines."""

import os
from collections.abc import Callable, Iterable

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.reading import encoding_of

Lines = list[tuple[int, str]]
"""Puzzles of a text: of each the number of its first line, from 1, and its text."""


def file_encoding(path: str | os.PathLike[str]) -> str:
    """`encoding_of` a file."""
    with open(path, "rb") as file:
        return encoding_of(file.read(4))


def one_per_line(lines: Iterable[str]) -> Lines:
    """Puzzles that stand on a line each; empty lines and those that begin with # are skipped."""
    return [
        (number, line)
        for number, line in enumerate(lines, start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def encode_all(
    puzzles: Lines,
    encode: Callable[[str], np.ndarray],
    name: str = "",
    resize: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Tokens of puzzles, all of one size.

    Args:
      puzzles: as `Lines`.
      encode: tokens [S] of one; raises InputError.
      name: of the file that they are from, which messages then begin with.
      resize: tokens of one for a larger number of cells; puzzles may then differ in size.

    Raises:
      InputError: a puzzle is malformed, or has another size than the first.
    """
    boards: list[np.ndarray] = []
    for number, text in puzzles:
        where = f"{name}:{number}: " if name else ""
        try:
            board = encode(text)
        except InputError as error:
            raise InputError(f"{where}{error}") from None
        if boards and resize is None and len(board) != len(boards[0]):
            raise InputError(
                f"{where}a file must hold puzzles of one size; this one has {len(board)} cells, "
                f"the first {len(boards[0])}; use one file per size"
            )
        boards.append(board)
    if resize is not None:
        largest = max(map(len, boards))
        boards = [resize(board, largest) for board in boards]
    return boards
