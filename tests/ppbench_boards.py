"""Boards of PPBench's types for the tests: from text, at random, and back from tokens."""

import itertools

import numpy as np

from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import PencilPuzzle
from ptrm_jax.tasks.ppbench.puzzle import rooms_to_walls

Rows = tuple[tuple[str, ...], ...]


def rows(text: str) -> Rows:
    """Rows between slashes, cells between spaces."""
    return tuple(tuple(row.split()) for row in text.split("/"))


def board(
    pid: str, problem: str, answer: str | None = None, rooms: str | None = None
) -> PencilPuzzle:
    """A puzzle whose grids are written as for `rows`."""
    walls = None if rooms is None else rooms_to_walls(rows(rooms))
    return PencilPuzzle(pid, rows(problem), answer and rows(answer), walls)


def random_puzzle(pid: str, height: int, width: int, rng: np.random.Generator) -> PencilPuzzle:
    """Random givens; most of the puzzles have a solution."""
    share, givens = {
        "lightup": (0.3, list("--012")),
        "nurikabe": (0.25, list("--123")),
        "heyawake": (0.15, list("01")),
        "tapa": (0.2, ["-", "1", "2", "3", "1,-", "1,1", "-,-", "1,2", "0"]),
        "shakashaka": (0.25, list("555123")),
    }[pid]
    problem = np.full((height, width), ".", dtype=object)
    for cell in itertools.product(range(height), range(width)):
        if rng.random() < share:
            problem[cell] = str(rng.choice(givens))
    walls = rooms_to_walls(rng.integers(3, size=(height, width))) if pid == "heyawake" else None
    return PencilPuzzle(pid, tuple(map(tuple, problem)), walls=walls)


def tokens(puzzle: PencilPuzzle) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels, [100] int32 each."""
    return ppbench.encode_problem(puzzle), ppbench.encode_answer(puzzle)
