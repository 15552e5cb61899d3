"""Sets of small puzzles to train and test on, collected from chunks that a generator wrote.

A chunk is a file of puzzles of one type and size with the trajectories of their solutions. Chunks
are made independently of each other, so any number of processes may write them, and one that is
killed loses a chunk at most. `collect` makes of all chunks a test set and a training set that share
no puzzle, turned or not. The training set has the examples of the PTRM paper (A.3): of each puzzle
the plain one, and states on the way to its solution, all with the whole solution as label.
"""

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ptrm_jax.config import check_int
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.files import write_text
from ptrm_jax.tasks.ppbench.clues import with_more_clues
from ptrm_jax.tasks.ppbench.formats import write_jsonl
from ptrm_jax.tasks.ppbench.generator import deduce, generate
from ptrm_jax.tasks.ppbench.puzzle import TYPES
from ptrm_jax.tasks.ppbench.task import SMALL_SIDE, puzzle_keys
from ptrm_jax.tasks.ppbench.vocabulary import PAD, decode, encode, of_side, resize
from ptrm_jax.tasks.task import in_test_split

SIZES: Mapping[str, Mapping[int, int]] = {
    pid: {4: 20, 6: 100} if pid == "sudoku" else {4: 20, 5: 50, 6: 60} for pid in TYPES
}
"""Puzzles of a chunk, by type and side of the board."""
TEST_SHARES = dict.fromkeys((4, 5, 6), 1 / 3)
"""Shares of the sides in the test set; the other sides take what a type does not have."""
EXTRA_CLUES = 12
"""Most clues that a puzzle of 6x6 cells gets beside those it needs; how many is uniform from 0."""
NUM_STATES = 9
"""States of a puzzle, beside the plain one: the paper's."""


class Chunk(NamedTuple):
    """Puzzles of one type and size, N of them, on PPBench's grid of S = 100 cells.

    Attributes:
      inputs: [N, S] uint16.
      labels: [N, S] uint16.
      ranks: [N, S] uint8, the place of each cell on the way to the solution; 255 if the cell is not
        decided.
      lookaheads: [N] int32, as `generator.Deduction`.
      guesses: [N] int32, as `generator.Deduction`.
    """

    inputs: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    lookaheads: np.ndarray
    guesses: np.ndarray


_UNDECIDED = 255  # of `Chunk.ranks`
_REDRAWS = 20


def make_chunk(pid: str, size: int, count: int, seed: int) -> Chunk:
    """Random puzzles with their trajectories; arguments and errors as of `generator.generate`."""
    inputs, labels = encode(generate(pid, size, count, seed))
    return _with_ranks(inputs, labels, seed)


def _with_ranks(inputs: np.ndarray, labels: np.ndarray, seed: int) -> Chunk:
    ranks = np.full(inputs.shape, _UNDECIDED, np.uint8)
    effort = np.zeros((2, len(inputs)), np.int32)
    rng = np.random.default_rng(seed)
    for row, (puzzle_tokens, answer) in enumerate(zip(inputs, labels, strict=True)):
        puzzle = decode(puzzle_tokens, answer)
        found = deduce(puzzle, rng)
        inside = np.flatnonzero(puzzle_tokens != PAD)
        ranks[row, inside[[cell for cell, _ in found.moves]]] = np.arange(len(found.moves))
        effort[:, row] = found.lookaheads, found.guesses
    return Chunk(inputs.astype(np.uint16), labels.astype(np.uint16), ranks, *effort)


def chunk_path(directory: Path, pid: str, size: int, seed: int) -> Path:
    """Where `write_chunk` puts a chunk."""
    return directory / "chunks" / f"{pid}_{size}x{size}_{seed}.npz"


def write_chunk(directory: Path, pid: str, size: int, count: int, seed: int) -> float | None:
    """Makes a chunk unless there is one; returns puzzles per second, None if there was one.

    Raises:
      ImportError, InputError: as `generator.generate`.
      OSError: it cannot be written; nothing is left under its name.
    """
    path = chunk_path(directory, pid, size, seed)
    if path.exists():
        return None
    start = time.perf_counter()
    chunk = make_chunk(pid, size, count, seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial.npz")
    np.savez_compressed(temporary, **chunk._asdict())
    temporary.replace(path)
    return count / (time.perf_counter() - start)


def read_chunk(path: Path) -> Chunk:
    """A chunk.

    Raises:
      DataError: it is not one.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return Chunk(**arrays)
    except (TypeError, ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} is not a chunk: {error}; delete it") from error


@dataclasses.dataclass(frozen=True)
class Collected:
    """What `collect` found, by type and side of the board.

    Attributes:
      train: puzzles to train on, without their states.
      test: puzzles to test on.
      lookaheads: mean of the lookaheads of all puzzles.
      guesses: mean of the guesses of all puzzles.
    """

    train: dict[tuple[str, int], int]
    test: dict[tuple[str, int], int]
    lookaheads: dict[tuple[str, int], float]
    guesses: dict[tuple[str, int], float]


def collect(
    directory: Path,
    *,
    num_test: int,
    seed: int,
    side: int = SMALL_SIDE,
    extra_clues: int = EXTRA_CLUES,
) -> Collected:
    """Writes `test.jsonl` and the folder `train`, in upstream's layout, from all chunks.

    Test puzzles are the first of each type and size that belong to the test split by their key, as
    many of each type. Every type has as many training puzzles as the most frequent one: those of
    the others are repeated, with other states. A group of the folder is a puzzle with its states,
    of which an epoch has one. The number of cells that a state shows is uniform.

    The puzzles of chunks have no clue that can be left out. `extra_clues` sets how difficult those
    of the sets are: one of 6x6 cells gets 0 to this many more, uniformly, as far as its type has
    them, and a smaller one fewer, in proportion to its area; nurikabe has none. A puzzle belongs to
    the test split by its key without them, and a training puzzle that they make equal to one of the
    test set is left out.

    Args:
      directory: holds `chunks`.
      num_test: puzzles of the test set; fewer if there are not enough.
      seed: of the extra clues, the choice of states, and the order of the test set.
      side: of the grid.
      extra_clues: most clues of a puzzle of 6x6 cells that could be left out.

    Raises:
      DataError: there is no chunk, or one is damaged.
      InputError: a number is out of range, or a puzzle does not fit the grid.
      OSError: it cannot be written.
    """
    check_settings(num_test, extra_clues)
    found = _read_all(directory)
    train: dict[str, list[_Solved]] = {pid: [] for pid in TYPES}
    test: list[_Solved] = []
    for place, pid in enumerate(TYPES):
        wanted = num_test // len(TYPES) + (place < num_test % len(TYPES))
        sizes = [size for (of, size), puzzles in found.items() if of == pid and puzzles]
        shares = np.cumsum([TEST_SHARES[size] for size in sizes])
        quotas = np.diff(np.rint(shares / shares[-1:] * wanted), prepend=0).astype(int)
        for size, quota in zip(sizes, quotas.tolist(), strict=True):
            puzzles = found[pid, size]
            test += [puzzle for puzzle in puzzles if puzzle.is_test][:quota]
            train[pid] += [puzzle for puzzle in puzzles if not puzzle.is_test]
    rng = np.random.default_rng(seed)
    if extra_clues:
        test = _distinct(test, extra_clues, rng)
        known = set(_keys(test))
        for pid in TYPES:
            easier = [_with_more_clues(puzzle, extra_clues, rng) for puzzle in train[pid]]
            train[pid] = [
                puzzle
                for puzzle, key in zip(easier, _keys(easier), strict=True)
                if key not in known
            ]
    _write_test(directory / "test.jsonl", test, rng)
    _write_train(directory / "train", train, side, rng)
    kinds = {(pid, size): puzzles for (pid, size), puzzles in found.items() if puzzles}
    return Collected(
        {kind: sum(not puzzle.is_test for puzzle in kinds[kind]) for kind in kinds},
        {kind: sum((p.pid, p.size) == kind for p in test) for kind in kinds},
        {kind: float(np.mean([p.lookaheads for p in kinds[kind]])) for kind in kinds},
        {kind: float(np.mean([p.guesses for p in kinds[kind]])) for kind in kinds},
    )


def check_settings(num_test: int, extra_clues: int) -> None:
    """Checks what `collect` is told, which can be done before there are chunks.

    Raises:
      InputError: a number is out of range.
    """
    if num_test < len(TYPES):
        raise InputError(f"num_test must be at least {len(TYPES)}, one per type; got {num_test}")
    check_int("extra_clues", extra_clues, 0)


class _Solved(NamedTuple):
    """A puzzle of a chunk: [100] each, and where it is from."""

    inputs: np.ndarray
    labels: np.ndarray
    ranks: np.ndarray
    lookaheads: int
    guesses: int
    pid: str
    size: int
    name: str
    is_test: bool


def _with_more_clues(puzzle: _Solved, most: int, rng: np.random.Generator) -> _Solved:
    number = int(rng.integers(most * puzzle.size**2 // SMALL_SIDE**2 + 1))
    tokens, answer = puzzle.inputs.astype(np.int32), puzzle.labels.astype(np.int32)
    inputs, labels = encode([with_more_clues(decode(tokens, answer), number, rng)])
    undecided = inputs[0] != labels[0]
    ranks = np.full_like(puzzle.ranks, _UNDECIDED)
    ranks[undecided] = puzzle.ranks[undecided].argsort().argsort()  # without gaps, in this order
    return puzzle._replace(
        inputs=inputs[0].astype(np.uint16), labels=labels[0].astype(np.uint16), ranks=ranks
    )


def _distinct(puzzles: list[_Solved], most: int, rng: np.random.Generator) -> list[_Solved]:
    """The puzzles with more clues, drawn again where two would be the same."""
    found: dict[int, _Solved] = {}
    for puzzle in puzzles:
        for _ in range(_REDRAWS):
            drawn = _with_more_clues(puzzle, most, rng)
            if found.setdefault(_keys([drawn])[0], drawn) is drawn:
                break
    return list(found.values())


def _keys(puzzles: list[_Solved]) -> list[int]:
    if not puzzles:
        return []
    inputs = np.stack([puzzle.inputs for puzzle in puzzles]).astype(np.int32)
    return puzzle_keys(inputs, np.stack([puzzle.labels for puzzle in puzzles])).tolist()


def _read_all(directory: Path) -> dict[tuple[str, int], list[_Solved]]:
    """The distinct puzzles of all chunks in the order of their seeds, by type and size."""
    found: dict[tuple[str, int], list[_Solved]] = {}
    for pid, sizes in SIZES.items():
        for size in sizes:
            paths = directory.glob(chunk_path(Path(), pid, size, 0).as_posix().replace("_0", "_*"))
            seeds = sorted(int(path.stem.rpartition("_")[2]) for path in paths)
            puzzles: dict[int, _Solved] = {}
            for seed in seeds:
                path = chunk_path(directory, pid, size, seed)
                chunk = read_chunk(path)
                keys = puzzle_keys(chunk.inputs.astype(np.int32), chunk.labels)
                in_test = np.asarray(in_test_split(keys))
                for row, parts in enumerate(zip(*chunk, strict=True)):
                    name, is_test = f"{path.stem}_{row}", bool(in_test[row])
                    puzzle = _Solved(*parts, pid=pid, size=size, name=name, is_test=is_test)
                    puzzles.setdefault(int(keys[row]), puzzle)
            found[pid, size] = list(puzzles.values())
    if not any(found.values()):
        raise DataError(f"{directory} must have chunks of puzzles; it has none; generate some")
    return found


def _write_test(path: Path, puzzles: list[_Solved], rng: np.random.Generator) -> None:
    # Types in turn and sizes in random order, so that the first puzzles are like all of them.
    shuffled = [puzzles[row] for row in rng.permutation(len(puzzles))]
    counts = dict.fromkeys(TYPES, 0)
    places = []
    for puzzle in shuffled:
        places.append((counts[puzzle.pid], TYPES.index(puzzle.pid)))
        counts[puzzle.pid] += 1
    rows = sorted(range(len(shuffled)), key=places.__getitem__)
    solved = (
        dataclasses.replace(
            decode(shuffled[row].inputs.astype(np.int32), shuffled[row].labels.astype(np.int32)),
            name=shuffled[row].name,
            source="ptrm_jax/generate",
            unique=True,
        )
        for row in rows
    )
    write_jsonl(path, solved)


def _write_train(
    folder: Path, puzzles: dict[str, list[_Solved]], side: int, rng: np.random.Generator
) -> None:
    most = max(len(of_type) for of_type in puzzles.values())
    inputs: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for of_type in puzzles.values():
        if of_type:
            for number in range(most):
                puzzle = of_type[number % len(of_type)]
                inputs.append(states(puzzle.inputs, puzzle.labels, puzzle.ranks, rng))
                labels.append(np.tile(puzzle.labels, (1 + NUM_STATES, 1)))
    arrays = {
        "inputs": resize(np.concatenate(inputs).astype(np.int32), side).astype(np.uint16),
        "labels": resize(np.concatenate(labels).astype(np.int32), side).astype(np.uint16),
    }
    num_rows = len(arrays["inputs"])
    arrays["puzzle_identifiers"] = np.zeros(num_rows, np.int32)
    arrays["puzzle_indices"] = np.arange(num_rows + 1, dtype=np.int32)
    arrays["group_indices"] = np.arange(0, num_rows + 1, 1 + NUM_STATES, dtype=np.int32)
    folder.mkdir(exist_ok=True)
    metadata = folder / "dataset.json"
    metadata.unlink(missing_ok=True)  # without it the folder is not read
    for name, array in arrays.items():
        np.save(folder / f"all__{name}.npy", array)
    about = {
        "seq_len": side**2,
        "vocab_size": of_side(side).size,
        "pad_id": PAD,
        "ignore_label_id": PAD,
        "blank_identifier_id": 0,
        "num_puzzle_identifiers": 1,
        "total_groups": num_rows // (1 + NUM_STATES),
        "mean_puzzle_examples": 1,
        "sets": ["all"],
    }
    write_text(metadata, json.dumps(about, indent=1) + "\n")


def states(
    inputs: np.ndarray, labels: np.ndarray, ranks: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """A puzzle, and states on the way to its solution: [1 + NUM_STATES, S].

    Args:
      inputs: [S] tokens.
      labels: [S] tokens.
      ranks: [S], as `Chunk.ranks`.
      rng: of the numbers of cells that are shown, uniform from 1 to all but one.
    """
    num_open = int((ranks != _UNDECIDED).sum())
    shown = rng.integers(1, max(num_open, 2), NUM_STATES)
    return np.where(ranks < np.array([0, *shown])[:, None], labels, inputs)
