"""An exact solver, and a generator of puzzles with exactly one solution.

numba compiles both; it is imported at the first call.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.sudoku.boards import board_for, one_puzzle

_MAX_REDRAWS = 1000
_CHUNK = 512  # puzzles of one call of the compiled generator


def count_solutions(tokens: Any, limit: int = 2) -> int:
    """The number of solutions of a puzzle, counted up to `limit`.

    With the default, 1 means that the solution is unique. Contradicting clues give 0.

    Args:
      tokens: [S] integer, blanks and digits only.
      limit: where to stop, at least 1; an empty 9x9 board has more than 10**21 solutions.

    Raises:
      InputError: `tokens` is not one puzzle of blanks and digits, or `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"limit must be at least 1; limit is {limit}; pass 2 to test uniqueness")
    # No computer counts beyond an int64.
    return _solve(tokens, min(limit, np.iinfo(np.int64).max))[0]


def solve_exact(tokens: Any) -> np.ndarray | None:
    """A solution of the puzzle, [S] int32, or None if there is none.

    Args:
      tokens: [S] integer, blanks and digits only. Of several solutions, an unspecified but always
        the same one is returned.

    Raises:
      InputError: `tokens` is not one puzzle of blanks and digits.
    """
    found, solution = _solve(tokens, 1)
    return solution if found else None


def _solve(tokens: Any, limit: int) -> tuple[int, np.ndarray]:
    """The number of solutions, up to `limit`, and the last one found, [S] int32."""
    from ptrm_jax.tasks.sudoku import kernels  # imports numba, which takes 0.2 s

    board, values = one_puzzle(tokens)
    solution = np.empty(board.num_cells, np.int32)
    found = kernels.solve(kernels.geometry(board), np.array(values, np.int32), limit, solution)
    return found, solution


def generate(
    size: int,
    count: int,
    seed: int,
    *,
    extra_clues: int = 0,
    split: Literal["train", "test"] | None = None,
    workers: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """Random uniquely solvable puzzles and their solutions: inputs, labels, each [count, S] int32.

    A board is filled at random by backtracking, then its cells are blanked in random order wherever
    the solution stays unique. The resulting puzzle is minimal: without any one of its clues it has
    several solutions. Neither step is exactly uniform, over all boards or over all minimal puzzles.

    Puzzle i depends only on `size`, `seed`, `extra_clues`, `split` and i, so a shorter run is a
    prefix of a longer one. A puzzle equal to an earlier one of the run is drawn again, so all are
    distinct. Solutions may repeat (there are 288 of 4x4), and puzzles that differ by a symmetry
    count as distinct. The streams do not depend on the versions of numpy and numba.

    One core makes 6500 minimal 9x9 puzzles per second, 5000 of the training split, 1500 of the test
    split (AMD EPYC, once compiled).

    The bundled ``assets/puzzles/sudoku6.csv`` and ``sudoku9.csv`` are
    ``generate(6, 512, seed=2026, split="test")`` and ``generate(9, 512, seed=2026, split="test")``.

    Args:
      size: 4, 6 or 9.
      count: number of puzzles.
      seed: any integer >= 0.
      extra_clues: number of randomly drawn solution cells to reveal beyond the minimal puzzle; at
        most half of the board. Puzzles with extra clues are easier and no longer minimal.
      split: keep only minimal puzzles inside ("test") or outside ("train") `in_test_split`.
        Whatever the seeds and counts, no training puzzle is then equivalent to a test puzzle, in
        the sense of `canonical`; on 9x9 not even if extra clues are added to either.
      workers: threads to draw with; the puzzles do not depend on it.

    Raises:
      InputError: an argument is out of its range, or fewer than `count` distinct puzzles were
        found.
    """
    if size not in (4, 6, 9):
        raise InputError(f"size must be 4, 6 or 9; size is {size}; pass one of these")
    board = board_for(size**2)
    # Minimal puzzles leave this many blanks: at most 6 clues are known on 4x4 and 40 on 9x9, and
    # those made here on 6x6 have about 10.
    half = board.num_cells // 2
    if count < 0 or seed < 0 or not 0 <= extra_clues <= half:
        raise InputError(
            f"count and seed must be at least 0, and extra_clues 0 to {half} on a {size}x{size} "
            f"board; count is {count}, seed {seed}, extra_clues {extra_clues}; pass values in range"
        )
    if split not in (None, "train", "test"):
        raise InputError(
            f"split must be 'train', 'test' or None; split is {split!r}; pass None for any puzzle"
        )
    if workers < 1:
        raise InputError(f"workers must be at least 1; workers is {workers}; pass 1 for one thread")

    from ptrm_jax.tasks.sudoku import kernels  # imports numba, which takes 0.2 s

    inputs = np.empty((count, board.num_cells), np.int32)
    labels = np.empty_like(inputs)
    # The numbers of SeedSequence are the same in all versions of numpy.
    run = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    accepted = {None: kernels.ANY, "train": kernels.TRAIN, "test": kernels.TEST}[split]
    tables = kernels.geometry(board), kernels.symmetries(board)

    def draw(start: int, stop: int, redraw: int = 0) -> None:
        rows = slice(start, stop)
        out = inputs[rows], labels[rows]
        kernels.draw(*tables, run, start, redraw, extra_clues, accepted, *out)

    starts = range(0, count, _CHUNK)
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(draw, starts, [min(start + _CHUNK, count) for start in starts]))

    seen: set[bytes] = set()
    for index in range(count):
        redraw = 0
        while (puzzle := inputs[index].astype(np.uint8).tobytes()) in seen:
            redraw += 1
            if redraw == _MAX_REDRAWS:
                raise InputError(
                    "count must not exceed the number of distinct puzzles; count is "
                    f"{count}, and {redraw} draws of puzzle {index} gave earlier ones; pass a "
                    "smaller count or a larger size"
                )
            draw(index, index + 1, redraw)
        seen.add(puzzle)
    return inputs, labels
