"""Sudoku as a task: its files, its strata, puzzles of its generator."""

import os
from typing import Any, Literal

import numpy as np

from ptrm_jax.tasks.csv_format import UNKNOWN_RATING, CsvFormat
from ptrm_jax.tasks.sudoku.boards import FIRST_DIGIT, board_for, check_puzzles
from ptrm_jax.tasks.sudoku.generator import count_solutions, generate
from ptrm_jax.tasks.sudoku.rules import check_clues, satisfies_rules, wrong_answer
from ptrm_jax.tasks.sudoku.symmetry import augment, puzzle_keys
from ptrm_jax.tasks.sudoku.text import decode, draw, encode, lines
from ptrm_jax.tasks.task import Labelled, Task, bands

CSV = CsvFormat(encode, decode, check_puzzles, satisfies_rules, wrong_answer)
"""The format of Sudoku-Extreme; ratings are difficulties as the source gives them."""

read_csv, write_csv = CSV.read, CSV.write


def _read(path: str | os.PathLike[str]) -> Labelled:
    inputs, labels, ratings, _ = read_csv(path)
    strata = {"clues": bands((inputs >= FIRST_DIGIT).sum(axis=1))}
    if (ratings != UNKNOWN_RATING).any():
        strata["rating"] = bands(ratings)
    return Labelled(inputs, labels, strata)


def _training_keys(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`puzzle_keys` of what training and evaluation must not share.

    On 9x9 that is the solution: training reveals extra clues at random, which can make two puzzles
    of one solution equal. Solved 6x6 boards have only 49 classes, so there it is the puzzle; one
    with extra clues is not minimal, and never equals a minimal one.
    """
    return puzzle_keys(labels if inputs.shape[1] == 81 else inputs, labels)


def _generate(
    size: int, count: int, *, seed: int, split: Literal["train", "test"], **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    return generate(size, count, seed, split=split, **{"workers": os.cpu_count() or 1} | options)


def _encode_puzzle(text: str) -> np.ndarray:
    tokens = encode(text)
    check_clues(tokens)
    return tokens


TASK = Task(
    name="sudoku",
    is_text=lambda text: True,
    lines=lines,
    encode=_encode_puzzle,
    bundled=lambda num_cells: f"sudoku{board_for(num_cells).size}",
    count_solutions=count_solutions,
    vocab_size=lambda num_cells: board_for(num_cells).vocab_size,
    reads=lambda path: os.path.splitext(path)[1].lower() == ".csv",
    read=_read,
    satisfies_rules=satisfies_rules,
    draw=draw,
    decode=decode,
    symbols=lambda tokens: [char.strip(".") for char in decode(tokens)],
    box=lambda num_cells: (board_for(num_cells).box_rows, board_for(num_cells).box_cols),
    given=lambda tokens: tokens >= FIRST_DIGIT,
    puzzle_keys=_training_keys,
    augment=augment,
    generate=_generate,
    options={"seed": int, "extra_clues": int, "workers": int},
)
