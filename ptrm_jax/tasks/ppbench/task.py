"""PPBench as a task: files as tokens, types as strata, random puzzles from the generator."""

import json
import math
import os
import re
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.ppbench.formats import (
    from_url,
    paper_filter,
    read_full,
    read_golden,
    read_jsonl,
)
from ptrm_jax.tasks.ppbench.generator import generate
from ptrm_jax.tasks.ppbench.puzzle import TYPES, PencilPuzzle
from ptrm_jax.tasks.ppbench.symmetry import NUM_IMAGES, dihedral_cells, dihedral_tokens, turn
from ptrm_jax.tasks.ppbench.vocabulary import (
    NUM_CELLS,
    PAD,
    SIDE,
    VOCAB_SIZE,
    VOCABULARY,
    draw,
    encode_answer,
    encode_problem,
    is_given,
    satisfies_rules,
    symbols,
)
from ptrm_jax.tasks.symmetry import Augment
from ptrm_jax.tasks.task import Labelled, Task, image_key, in_test_split


def _vocab_size(num_cells: int) -> int:
    if num_cells != NUM_CELLS:
        raise InputError(f"a board of PPBench has {NUM_CELLS} cells; got {num_cells}")
    return VOCAB_SIZE


def _reads(path: str | os.PathLike[str]) -> bool:
    return os.path.splitext(path)[1].lower() == ".jsonl"


def _read(path: str | os.PathLike[str]) -> Labelled:
    """The puzzles of a file that have an answer and a size that the paper keeps."""
    with open(path, encoding="utf-8-sig") as file:
        line = file.readline()
    try:
        encoded = "solution_enc" in json.loads(line)
    except (ValueError, TypeError):  # the reader reports what is wrong
        encoded = False
    return _labelled((read_full if encoded else read_jsonl)(path), os.fspath(path))


def _golden() -> Labelled:
    return _labelled(read_golden(), "the golden set")


def _labelled(puzzles: Iterable[PencilPuzzle], name: str) -> Labelled:
    kept = [puzzle for puzzle in paper_filter(puzzles) if puzzle.answer is not None]
    if not kept:
        raise InputError(
            f"{name} must hold a solved puzzle of a size that PTRM keeps, 9x9 of sudoku or 10x10 "
            "of the other types; it has none; pass another file"
        )
    inputs, labels = (
        np.stack([encode(r) for r in kept]) for encode in (encode_problem, encode_answer)
    )
    return Labelled(inputs, labels, {"type": np.array([puzzle.pid for puzzle in kept])})


def _decode(tokens: Any) -> str:
    """A board as one line: cells between spaces, ``_`` for padding, ``?`` for other values."""
    symbols = []
    for token in np.asarray(tokens).tolist():
        if not 0 <= token < VOCAB_SIZE:
            symbols.append("?")
        elif token == PAD:
            symbols.append("_")
        else:
            symbol = VOCABULARY[token]
            symbols.append(symbol.state if symbol.state != "." else symbol.given)
    return " ".join(symbols)


def _sides(inputs: np.ndarray) -> np.ndarray:
    """Rows of square boards [..., 100], placed at the upper left: [...] int."""
    return (inputs[..., :SIDE] != PAD).sum(axis=-1)


def puzzle_keys(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A key for each puzzle on a square board, the same for all its images: [B] uint64.

    The key is the 8-byte BLAKE2b hash of the least image, read as a little-endian number.

    Args:
      inputs: [B, 100] integer puzzles.
      labels: not used; tasks share this signature.

    Raises:
      InputError: they are not puzzles of PPBench.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or inputs.shape[1] != NUM_CELLS or not (0 <= inputs).all():
        raise InputError(f"puzzles must be [B, {NUM_CELLS}] tokens; got shape {inputs.shape}")
    if not (inputs < VOCAB_SIZE).all():
        raise InputError(f"tokens must be below {VOCAB_SIZE}; got {inputs.max()}")
    keys = np.empty(len(inputs), np.uint64)
    for row, (puzzle, side) in enumerate(zip(inputs, _sides(inputs).tolist(), strict=True)):
        images = (turn(puzzle, g, height=side, width=side) for g in range(NUM_IMAGES))
        least = min(image.astype("<u2").tobytes() for image in images)
        keys[row] = image_key(least)
    return keys


def augment(num_cells: int) -> Augment:
    """A function that draws one of the eight images of a square board, uniformly.

    Raises:
      InputError: `num_cells` is not 100.
    """
    _vocab_size(num_cells)
    cells = jnp.asarray(
        np.stack([dihedral_cells(side, side) for side in range(SIDE + 1)]), jnp.int32
    )
    tokens = jnp.asarray(dihedral_tokens())

    def draw_one(
        key: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        image = jax.random.randint(key, (), 0, NUM_IMAGES)
        order = cells[jnp.sum(inputs[:SIDE] != PAD), image]
        return tokens[image, inputs[order]], tokens[image, labels[order]]

    return draw_one


def _generate(
    size: int, count: int, *, seed: int, split: str, type: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles of one type, or of all six in turn, of one split; see `generate`."""
    if type and type not in TYPES:
        raise InputError(f"type must be one of {', '.join(TYPES)}; got {type!r}")
    types = [type] if type else list(TYPES)
    parts = [
        _split_of(pid, size, -(-(count - place) // len(types)), seed, split)
        for place, pid in enumerate(types)
    ]
    # In turn, so that a longer run begins with the shorter one.
    order = [(row, place) for row in range(count) for place in range(len(types))][:count]
    inputs, labels = (
        np.array([parts[place][which][row] for row, place in order], np.int32).reshape(
            -1, NUM_CELLS
        )
        for which in range(2)
    )
    return inputs, labels


def _split_of(
    pid: str, size: int, count: int, seed: int, split: str
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` puzzles of a type that belong to a split by their hash."""
    wanted = max(count, 0)
    # The generator starts over for every length, so the first try should usually be long enough.
    mean = wanted * (8 / 7 if split == "train" else 8)
    drawn = math.ceil(mean + 4 * math.sqrt(mean)) + (8 if wanted else 0)
    while True:
        puzzles = generate(pid, size, drawn, seed)
        inputs = np.array([encode_problem(r) for r in puzzles], np.int32).reshape(-1, NUM_CELLS)
        is_test = in_test_split(puzzle_keys(inputs, inputs))
        rows = np.flatnonzero(is_test == (split == "test"))[:wanted]
        if len(rows) == wanted:
            break
        drawn *= 2
    labels = np.array([encode_answer(puzzles[r]) for r in rows], np.int32).reshape(-1, NUM_CELLS)
    return inputs[rows], labels


TASK = Task(
    name="ppbench",
    is_text=lambda text: re.match(r"https?://|[\w.-]+/\S*\?[a-z]", text) is not None,
    encode=lambda text: encode_problem(from_url(text)),
    bundled=lambda num_cells: "ppbench",
    vocab_size=_vocab_size,
    reads=_reads,
    read=_read,
    named={"ppbench-golden": _golden},
    satisfies_rules=satisfies_rules,
    draw=draw,
    decode=_decode,
    symbols=symbols,
    given=is_given,
    puzzle_keys=puzzle_keys,
    augment=augment,
    generate=_generate,
    options={"seed": int, "type": str},
)
