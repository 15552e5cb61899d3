"""What sweeps, the trainer, figures and commands know about a kind of puzzle."""

import dataclasses
import functools
import hashlib
import math
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.symmetry import Augment
from ptrm_jax.tasks.text import Lines, one_per_line


class Labelled(NamedTuple):
    """Puzzles of a file, or made by a generator.

    Attributes:
      inputs: [B, S] int32 tokens, 0 for padding.
      labels: [B, S] int32, the answers.
      strata: by name, the kind of each puzzle, by which results are split: [B] strings.
    """

    inputs: np.ndarray
    labels: np.ndarray
    strata: Mapping[str, np.ndarray]


class Look(NamedTuple):
    """How a cell of a puzzle looks on paper.

    Attributes:
      text: clue or digit.
      fill: "", "black" or "shaded".
      shape: "", "dot", "bulb", or the black corner of a triangle: "upper left", "upper right",
        "lower right", "lower left".
      walls: sum of 1, 2, 4 and 8 for thick lines above, right, below and left.
    """

    text: str = ""
    fill: str = ""
    shape: str = ""
    walls: int = 0


Generate = Callable[..., tuple[np.ndarray, np.ndarray]]
"""``generate(size, count, *, seed, split, **options) -> (inputs, labels)``, [count, S] int32."""


def integers(values: Any, name: str, *, ndim: int | None = None) -> np.ndarray:
    """`values` as an array of integers with `ndim` axes, by default at least one.

    Raises:
      InputError: it has other axes or another dtype; `name` says what they are.
    """
    array = np.asarray(values)
    ndim_fits = array.ndim > 0 if ndim is None else array.ndim == ndim
    if not ndim_fits or not np.issubdtype(array.dtype, np.integer):
        axes = "at least one axis" if ndim is None else f"{ndim} axes"
        raise InputError(
            f"{name} must be integer tokens with {axes}, the last of cells; {name} has shape "
            f"{array.shape} and dtype {array.dtype}; pass tokens, as encode makes them from text"
        )
    return array


def image_key(image: bytes) -> int:
    """The 8-byte BLAKE2b hash of a puzzle's canonical image, as a little-endian number."""
    return int.from_bytes(hashlib.blake2b(image, digest_size=8).digest(), "little")


# Defaults of a Task: tokens are shown as numbers, and puzzles are equal only to themselves.


def _encode(text: str) -> np.ndarray:
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise InputError(
            "a puzzle must be written as the numbers of its tokens, separated by spaces; got "
            f"{text[:80]!r}"
        )
    return np.array([int(word) for word in words], np.int32)


def _symbols(tokens: Any) -> list[str]:
    return [str(token) for token in np.asarray(tokens).tolist()]


def _draw(tokens: Any, *, clues: Any | None = None) -> str:
    symbols = _symbols(tokens)
    width, side = max(map(len, symbols), default=0), math.isqrt(len(symbols))
    columns = side if side and side**2 == len(symbols) else max(len(symbols), 1)
    cells = [symbol.rjust(width) for symbol in symbols]
    return "\n".join(" ".join(cells[i : i + columns]) for i in range(0, len(cells), columns))


def _keys(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    rows = np.ascontiguousarray(inputs, "<i4")
    return np.array([image_key(row.tobytes()) for row in rows], np.uint64)


def _augment(num_cells: int) -> Augment:
    def same(key: jax.Array, inputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        return inputs, labels

    return same


def _refuse(task: str, field: str, *args: Any, **options: Any) -> Any:
    raise InputError(f"task {task!r} has no `{field}`, which this needs; pass {field} to its Task")


_MISSING: Any = object()
"""Of a field without which some uses are refused."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of puzzle.

    `name` and `satisfies_rules` suffice to train on and sweep puzzles of a folder in upstream's
    layout. Other fields add files and text, better pictures, symmetries, a generator. A missing
    function without a default raises InputError when it is called.

    Attributes:
      name: what commands call it: lower-case letters, digits, - and _.
      satisfies_rules: for answers [..., S] and inputs that broadcast to them, whether each answer
        satisfies the rules, any token values allowed: [...] bool. It needs no label.
      vocab_size: V of boards of S cells; raises InputError if there are none. No default.
      reads: whether a file holds this task, from its name and beginning. Default: never.
      read: puzzles of a file; raises InputError with ``path:line:``. No default.
      named: loaders of sets from other packages, by name; raise ImportError. Default: none.
      is_text: whether a text, of one puzzle or several, is of this task. Default: never.
      lines: the puzzles of a text's lines. Default: one per line.
      encode: tokens [S] of one of these; raises InputError, also for contradicting clues. Default:
        reads token numbers separated by spaces.
      decode: a board of tokens [S] as one line of text. Default: token numbers.
      draw: a board of tokens [S] as lines of text; given `clues`, the puzzle, an answer's clues are
        marked. Default: token numbers, in a square if S is a square number, without marks.
      symbols: a board of tokens [S] as short texts, one per cell, "" for an empty one. Default:
        token numbers.
      looks: for a board of tokens [S] and its puzzle [S], how each cell looks on paper. None if its
        symbol says it all.
      given: for puzzles [..., S], the cells that are part of the puzzle rather than of the answer:
        [..., S] bool. Default: none.
      box: for boards of S cells, rows and columns of a box, drawn with a thicker outline. Default:
        None, no boxes.
      resize: a board of tokens [S] on a grid of another number of cells; raises InputError if it
        does not fit. None if boards of different sizes are different puzzles.
      bundled: name of the bundled model for boards of S cells. Default: "", none.
      count_solutions: the number of solutions of a puzzle [S], up to 2; None if not available.
      puzzle_keys: for inputs and labels [B, S], numbers that are equal for puzzles which training
        and evaluation must not share, such as symmetric ones: [B] uint64; raises InputError if they
        are not puzzles of this task. Default: equal for equal inputs.
      augment: for boards of S cells, a function that draws a random symmetry; raises InputError.
        Default: the identity.
      generate: random puzzles and their answers, of the split "train" or "test". No default.
      options: arguments of `generate` that a command may set, with their types. Default: none.

    Raises:
      InputError: the name breaks its rule.
    """

    name: str
    satisfies_rules: Callable[[Any, Any], np.ndarray]
    vocab_size: Callable[[int], int] = _MISSING
    reads: Callable[[str | os.PathLike[str]], bool] = lambda path: False
    read: Callable[[str | os.PathLike[str]], Labelled] = _MISSING
    named: Mapping[str, Callable[[], Labelled]] = dataclasses.field(default_factory=dict)
    is_text: Callable[[str], bool] = lambda text: False
    lines: Callable[[list[str]], Lines] = one_per_line
    encode: Callable[[str], np.ndarray] = _encode
    decode: Callable[[Any], str] = lambda tokens: " ".join(_symbols(tokens))
    draw: Callable[..., str] = _draw
    symbols: Callable[[Any], list[str]] = _symbols
    looks: Callable[[Any, Any], list[Look]] | None = None
    given: Callable[[Any], np.ndarray] = lambda tokens: np.zeros(np.shape(tokens), bool)
    box: Callable[[int], tuple[int, int] | None] = lambda num_cells: None
    resize: Callable[[Any, int], np.ndarray] | None = None
    bundled: Callable[[int], str] = lambda num_cells: ""
    count_solutions: Callable[[Any], int] | None = None
    puzzle_keys: Callable[[Any, Any], np.ndarray] = _keys
    augment: Callable[[int], Augment] = _augment
    generate: Generate = _MISSING
    options: Mapping[str, type] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]*", self.name) or self.name == "none":
            raise InputError(
                "a task's name must be lower-case letters, digits, - and _, begin with a letter, "
                f"and not be 'none'; got {self.name!r}"
            )
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is _MISSING:
                refuse = functools.partial(_refuse, self.name, field.name)
                object.__setattr__(self, field.name, refuse)


def in_test_split(keys: np.ndarray | int) -> np.ndarray | bool:
    """Whether puzzles belong to the test split, one in eight, by their `image_key`: [...] bool."""
    return keys % _TEST_SHARE == 0


_TEST_SHARE = 8
_MOST_BANDS = 5


def bands(values: np.ndarray) -> np.ndarray:
    """Numbers as a few kinds, by which results are split: [B] strings, such as "24" or "24-26".

    More than five distinct values are grouped with their neighbours, so that each band holds about
    a fifth of the puzzles.

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
