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
from ptrm_jax.reading import MEBIBYTE
from ptrm_jax.tasks.ppbench.formats import (
    from_url,
    paper_filter,
    read_full,
    read_golden,
    read_jsonl,
)
from ptrm_jax.tasks.ppbench.generator import generate
from ptrm_jax.tasks.ppbench.puzzle import TYPES, PencilPuzzle
from ptrm_jax.tasks.ppbench.symmetry import (
    NUM_IMAGES,
    UPRIGHT,
    dihedral_cells,
    dihedral_tokens,
    turn,
)
from ptrm_jax.tasks.ppbench.vocabulary import (
    PAD,
    SIDE,
    draw,
    encode,
    encode_problem,
    is_given,
    looks,
    of_cells,
    resize,
    satisfies_rules,
    symbols,
)
from ptrm_jax.tasks.symmetry import Augment
from ptrm_jax.tasks.task import Labelled, Task, image_key, in_test_split

SMALL_SIDE = 6
"""The side of the grid of small boards, which a model of their own solves."""


def _reads(path: str | os.PathLike[str]) -> bool:
    return os.path.splitext(path)[1].lower() == ".jsonl"


def _read(path: str | os.PathLike[str]) -> Labelled:
    """The solved puzzles of a file of the paper's sizes; if it has none, its small ones."""
    with open(path, encoding="utf-8-sig") as file:
        line = file.readline(MEBIBYTE)
    try:
        encoded = "solution_enc" in json.loads(line)
    except (ValueError, TypeError, RecursionError):  # the reader reports what is wrong
        encoded = False
    return _labelled((read_full if encoded else read_jsonl)(path), os.fspath(path))


def _golden() -> Labelled:
    return _labelled(read_golden(), "the golden set")


def _labelled(puzzles: Iterable[PencilPuzzle], name: str) -> Labelled:
    solved = [puzzle for puzzle in puzzles if puzzle.answer is not None]
    kept, side = paper_filter(solved), SIDE
    if not kept:
        kept, side = [p for p in solved if _fitting_side(p) == SMALL_SIDE], SMALL_SIDE
    if not kept:
        raise InputError(
            f"{name} must hold a solved puzzle of a size that PTRM keeps, 9x9 of sudoku or 10x10 "
            f"of the other types, or of up to {SMALL_SIDE}x{SMALL_SIDE} cells; it has none; pass "
            "another file"
        )
    inputs, labels = encode(kept, side)
    return Labelled(inputs, labels, {"type": np.array([puzzle.pid for puzzle in kept])})


def _fitting_side(puzzle: PencilPuzzle) -> int:
    """The side of the grid of a puzzle on its own: that of small boards if it fits."""
    return SMALL_SIDE if max(puzzle.height, puzzle.width) <= SMALL_SIDE else SIDE


def _encode(text: str) -> np.ndarray:
    puzzle = from_url(text)
    return encode_problem(puzzle, _fitting_side(puzzle))


def _decode(tokens: Any) -> str:
    """A board as one line: cells between spaces, ``_`` for padding, ``?`` for other values."""
    tokens = np.asarray(tokens)
    vocabulary = of_cells(len(tokens))
    symbols = []
    for token in tokens.tolist():
        if not 0 <= token < vocabulary.size:
            symbols.append("?")
        elif token == PAD:
            symbols.append("_")
        else:
            symbol = vocabulary.symbols[token]
            symbols.append(symbol.state if symbol.state != "." else symbol.given)
    return " ".join(symbols)


def puzzle_keys(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A key for each puzzle on a square board, the same for all its images: [B] uint64.

    The key is the 8-byte BLAKE2b hash of the least image, read as a little-endian number.

    Args:
      inputs: [B, S] integer puzzles, S = n x n.
      labels: not used; tasks share this signature.

    Raises:
      InputError: they are not puzzles of PPBench.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim != 2 or not (0 <= inputs).all():
        raise InputError(f"puzzles must be [B, S] tokens; got shape {inputs.shape}")
    vocabulary = of_cells(inputs.shape[1])
    if not (inputs < vocabulary.size).all():
        raise InputError(f"tokens must be below {vocabulary.size}; got {inputs.max()}")
    keys = np.empty(len(inputs), np.uint64)
    sides = (inputs[:, : vocabulary.side] != PAD).sum(axis=-1).tolist()
    for row, (puzzle, side) in enumerate(zip(inputs, sides, strict=True)):
        images = (turn(puzzle, g, height=side, width=side) for g in range(NUM_IMAGES))
        least = min(image.astype("<u2").tobytes() for image in images)
        keys[row] = image_key(least)
    return keys


def augment(num_cells: int) -> Augment:
    """A function that draws one of the eight images of a square board, uniformly.

    Of a 6x6 sudoku, whose boxes are not square, it draws one of the four that are sudokus.

    Raises:
      InputError: `num_cells` is not the square of 1 to 10.
    """
    vocabulary = of_cells(num_cells)
    grid = vocabulary.side
    cells = jnp.asarray(
        np.stack([dihedral_cells(side, side, grid) for side in range(grid + 1)]), jnp.int32
    )
    tokens = jnp.asarray(dihedral_tokens(grid))
    is_sudoku = jnp.asarray(vocabulary.types == TYPES.index("sudoku"))
    upright = jnp.asarray(UPRIGHT * 2, jnp.int32)

    def draw_one(
        key: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        image = jax.random.randint(key, (), 0, NUM_IMAGES)
        side = jnp.sum(inputs[:grid] != PAD)
        image = jnp.where(is_sudoku[inputs[0]] & (side == 6), upright[image], image)
        order = cells[side, image]
        return tokens[image, inputs[order]], tokens[image, labels[order]]

    return draw_one


def _generate(
    size: int, count: int, *, seed: int, split: str, type: str = "", side: int = SIDE
) -> tuple[np.ndarray, np.ndarray]:
    """Puzzles of one type, or of all six in turn, of one split, on a grid; see `generate`."""
    if type and type not in TYPES:
        raise InputError(f"type must be one of {', '.join(TYPES)}; got {type!r}")
    types = [type] if type else list(TYPES)
    parts = [
        _split_of(pid, size, -(-(count - place) // len(types)), seed, split, side)
        for place, pid in enumerate(types)
    ]
    # In turn, so that a longer run begins with the shorter one.
    order = [(row, place) for row in range(count) for place in range(len(types))][:count]
    inputs, labels = (
        np.array([parts[place][which][row] for row, place in order], np.int32).reshape(-1, side**2)
        for which in range(2)
    )
    return inputs, labels


def _split_of(
    pid: str, size: int, count: int, seed: int, split: str, side: int
) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` puzzles of a type that belong to a split by their hash."""
    wanted = max(count, 0)
    # The generator starts over for every length, so the first try should usually be long enough.
    mean = wanted * (8 / 7 if split == "train" else 8)
    drawn = math.ceil(mean + 4 * math.sqrt(mean)) + (8 if wanted else 0)
    while True:
        puzzles = generate(pid, size, drawn, seed)
        inputs, labels = encode(puzzles, side)
        # By the key on PPBench's grid, so that the splits do not depend on the side.
        is_test = in_test_split(puzzle_keys(resize(inputs, SIDE), labels))
        rows = np.flatnonzero(is_test == (split == "test"))[:wanted]
        if len(rows) == wanted:
            break
        drawn *= 2
    return inputs[rows], labels[rows]


TASK = Task(
    name="ppbench",
    is_text=lambda text: re.match(r"https?://|[\w.-]+/\S*\?[a-z]", text) is not None,
    encode=_encode,
    resize=lambda tokens, num_cells: resize(tokens, of_cells(num_cells).side),
    bundled=lambda num_cells: f"pencil{of_cells(num_cells).side}",
    vocab_size=lambda num_cells: of_cells(num_cells).size,
    reads=_reads,
    read=_read,
    named={"ppbench-golden": _golden},
    satisfies_rules=satisfies_rules,
    draw=draw,
    decode=_decode,
    symbols=symbols,
    looks=looks,
    given=is_given,
    puzzle_keys=puzzle_keys,
    augment=augment,
    generate=_generate,
    options={"seed": int, "type": str, "side": int},
)
