"""What sweeps, trainer, figures and commands know of a kind of puzzle."""

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from ptrm_jax.tasks.symmetry import Augment


class Labelled(NamedTuple):
    """Puzzles of a file, or made by a generator.

    Attributes:
      inputs: [B, S] int32 tokens, 0 for padding.
      labels: [B, S] int32, the answers.
      strata: by name, the kind of each puzzle that results are split by: [B] strings.
    """

    inputs: np.ndarray
    labels: np.ndarray
    strata: Mapping[str, np.ndarray]


class Generate(Protocol):
    def __call__(
        self, size: int, count: int, *, seed: int, split: str, **options: Any
    ) -> tuple[np.ndarray, np.ndarray]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of puzzle. A module of `ptrm_jax.tasks` that has one as `TASK` is found by its name.

    Attributes:
      name: what commands call it.
      vocab_size: V of boards of S cells; raises ValueError where there are none.
      reads: whether a file is of this task, from its name and beginning.
      read: puzzles of a file; raises ValueError with ``path:line:``.
      named: sets that other packages bring, by the name that stands for a path; raise ImportError.
      is_text: whether a puzzle written in one line is of this task.
      encode: tokens [S] of such a line; raises ValueError, also for clues that contradict.
      bundled: what the bundled model for boards of S cells would be called.
      satisfies_rules: of answers [..., S] and inputs that broadcast to them, whether each answer
        keeps the rules, any token values allowed: [...] bool. It needs no label.
      draw: a board of tokens [S] as lines of text, with `clues`, the puzzle, marked in an answer.
      decode: a board of tokens [S] as one line of text.
      symbols: a board of tokens [S] as short texts, one per cell, "" for an empty one.
      given: of a puzzle [S], the cells that it does not leave to be decided: [S] bool.
      puzzle_keys: of inputs and labels, numbers that are equal where a symmetry makes puzzles
        equal: [B] uint64; raises ValueError where they are not puzzles of this task.
      augment: for boards of S cells, what draws a random symmetry; raises ValueError.
      generate: random puzzles and their answers, of the split "train" or "test".
      options: arguments of `generate` that a command may set, with their types.
      count_solutions: of a puzzle [S], up to 2; None where nobody counts.
    """

    name: str
    vocab_size: Callable[[int], int]
    reads: Callable[[str | os.PathLike[str]], bool]
    read: Callable[[str | os.PathLike[str]], Labelled]
    is_text: Callable[[str], bool]
    encode: Callable[[str], np.ndarray]
    bundled: Callable[[int], str]
    satisfies_rules: Callable[[np.ndarray, np.ndarray], np.ndarray]
    draw: Callable[..., str]
    decode: Callable[[Any], str]
    symbols: Callable[[Any], list[str]]
    given: Callable[[np.ndarray], np.ndarray]
    puzzle_keys: Callable[[np.ndarray, np.ndarray], np.ndarray]
    augment: Callable[[int], Augment]
    generate: Generate
    options: Mapping[str, type]
    named: Mapping[str, Callable[[], Labelled]] = dataclasses.field(default_factory=dict)
    count_solutions: Callable[[np.ndarray], int] | None = None


def image_key(image: bytes) -> int:
    """The 8-byte BLAKE2b hash of a puzzle's canonical image, read as a little-endian number."""
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little")


def in_test_split(keys: np.ndarray) -> np.ndarray:
    """Which puzzles belong to the test split, one in eight, by their `image_key`: [...] bool."""
    return keys % _TEST_SHARE == 0


_TEST_SHARE = 8
_MOST_BANDS = 5


def bands(values: np.ndarray) -> np.ndarray:
    """Numbers as few kinds, to split results by: [B] strings, such as "24" or "24-26".

    Where there are more than five distinct values, neighbours are put together so that each band
    holds about a fifth of the puzzles.

    Args:
      values: [B] whole numbers.
    """
    distinct, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(distinct) <= _MOST_BANDS:
        band = np.arange(len(distinct))
    else:
        middle = np.cumsum(counts) - counts / 2
        band = (middle * _MOST_BANDS / counts.sum()).astype(int)
    names = np.empty(len(distinct), object)
    for number in np.unique(band):
        low, *_, high = (f"{value:g}" for value in distinct[band == number][[0, 0, -1]])
        names[band == number] = low if low == high else f"{low}-{high}"
    return names[which].astype(str)
