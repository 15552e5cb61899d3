"""`Puzzles`, the input of the solver, and its check on the host."""

import math
from collections.abc import Iterable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

from ptrm_jax.config import ModelConfig
from ptrm_jax.errors import InputError

Array = jax.Array | np.ndarray

ArrayT = TypeVar("ArrayT", bound=Array)
"""Carriers are generic in it: `solve` returns a `Solution[jax.Array]`, `mesh.solve` a
`Solution[np.ndarray]`."""


class _Fields(NamedTuple, Generic[ArrayT]):
    inputs: ArrayT
    puzzle_identifiers: ArrayT
    index: ArrayT  # type: ignore[assignment]  # a tuple's method


class Puzzles(_Fields[ArrayT]):
    """A batch of puzzles, without labels; `len` is their number.

    Attributes:
      inputs: [B, S] integer tokens.
      puzzle_identifiers: [B] integer rows of the puzzle embedding; all 0 if it has one row.
      index: [B] integer rows in the data set. Noise depends on it, so a puzzle keeps its noise in
        every order, batch and shard. It is not the identifier, which many puzzles may share.
    """

    __slots__ = ()

    def __len__(self) -> int:
        return int(self.inputs.shape[0])

    @classmethod
    def _make(cls, iterable: Iterable[Any]) -> "Puzzles[Any]":  # type: ignore[override]
        return cls(*iterable)  # a named tuple's own compares `len` with the number of fields

    def take(self, rows: slice | np.ndarray) -> "Puzzles[ArrayT]":
        """The puzzles at `rows` of the batch, a slice or an index array."""
        return jax.tree.map(lambda field: field[rows], self)


def make_puzzles(inputs: Any, puzzle_identifiers: Array | None = None) -> Puzzles[Any]:
    """Puzzles in data-set order: identifiers 0 unless given, index 0..B-1.

    Args:
      inputs: [B, S] integer tokens, or [B, rows, columns], whose rows are joined.
      puzzle_identifiers: [B] integer, or None.

    Raises:
      InputError: `inputs` has fewer axes, or rows of several lengths.
    """
    if not hasattr(inputs, "dtype"):
        try:
            inputs = np.asarray(inputs)
        except ValueError as error:
            raise InputError(f"inputs must be an array of tokens [B, S]: {error}") from None
    if inputs.ndim < 2:
        raise InputError(
            "inputs must be tokens [B, S], a row per puzzle, or [B, rows, columns]; got shape "
            f"{list(inputs.shape)}; add an axis, inputs[None], for one puzzle"
        )
    num_puzzles, *cells = inputs.shape
    if len(cells) > 1:
        inputs = inputs.reshape(num_puzzles, math.prod(cells))
    if puzzle_identifiers is None:
        puzzle_identifiers = np.zeros(num_puzzles, np.int32)
    return Puzzles(inputs, puzzle_identifiers, np.arange(num_puzzles, dtype=np.int32))


def check_puzzles(config: ModelConfig, puzzles: Puzzles) -> None:
    """Checks that puzzles fit the model; values are checked unless they are traced.

    Raises:
      InputError: wrong shape or dtype, an empty batch, a token outside the vocabulary, an
        identifier outside the puzzle embedding, a negative index.
    """
    if not isinstance(puzzles, Puzzles):
        shape = f" of shape {list(np.shape(puzzles))}" if hasattr(puzzles, "dtype") else ""
        remedy = "its .puzzles" if hasattr(puzzles, "puzzles") else "make_puzzles(inputs)"
        raise InputError(
            f"puzzles must be Puzzles; got a {type(puzzles).__name__}{shape}; pass {remedy}"
        )
    for name in Puzzles._fields:
        if not hasattr(getattr(puzzles, name), "dtype"):
            raise InputError(
                f"puzzles.{name} must be a numpy or jax array; got "
                f"{type(getattr(puzzles, name)).__name__}; wrap it in numpy.asarray"
            )
    shape = puzzles.inputs.shape
    if len(shape) != 2 or shape[1] != config.seq_len:
        raise InputError(
            f"puzzles.inputs must have shape [B, {config.seq_len}] for this model; got "
            f"{list(shape)}"
        )
    if shape[0] == 0:
        raise InputError("puzzles must hold at least one puzzle; got an empty batch")
    for name in ("puzzle_identifiers", "index"):
        got = getattr(puzzles, name).shape
        if got != shape[:1]:
            raise InputError(
                f"puzzles.{name} must have shape [{shape[0]}], one per row of inputs; got "
                f"{list(got)}"
            )
    limits = {
        "inputs": (config.vocab_size, "tokens of the vocabulary"),
        "puzzle_identifiers": (
            # Without a puzzle embedding the identifier is not used.
            config.num_puzzle_identifiers if config.prefix_len else 2**31,
            "rows of the puzzle embedding",
        ),
        "index": (2**31, "rows of the data set"),
    }
    for name, (limit, meaning) in limits.items():
        value = getattr(puzzles, name)
        if not np.issubdtype(value.dtype, np.integer):
            raise InputError(f"puzzles.{name} must be integers ({meaning}); got {value.dtype}")
        if isinstance(value, jax.core.Tracer):
            continue
        value = np.asarray(value)
        bad = np.argwhere((value < 0) | (value >= limit))
        if bad.size:
            at = tuple(int(i) for i in bad[0])
            raise InputError(
                f"puzzles.{name} must lie in 0..{limit - 1} ({meaning}); got {value[at]} at "
                f"{list(at)} and {len(bad) - 1} more"
            )
