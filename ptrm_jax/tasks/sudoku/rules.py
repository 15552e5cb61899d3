"""The rules of Sudoku: which answers are solutions, which clues contradict each other."""

from typing import Any

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.sudoku.boards import (
    BLANK,
    FIRST_DIGIT,
    PAD,
    Board,
    board_for,
    cell_name,
    check_puzzles,
    one_puzzle,
)
from ptrm_jax.tasks.sudoku.text import decode
from ptrm_jax.tasks.task import integers


def check_clues(tokens: Any) -> None:
    """Refuses a puzzle in which two clues contradict each other.

    A puzzle that passes may still have no solution; see `solve_exact`.

    Args:
      tokens: [S] integer, blanks and digits only.

    Raises:
      InputError: a digit occurs twice in a row, column or box, or `tokens` is not one puzzle of
        blanks and digits.
    """
    board, values = one_puzzle(tokens)
    for index, unit in enumerate(board.units.tolist()):
        first_cell: dict[int, int] = {}
        for cell in unit:
            token = values[cell]
            if token == BLANK:
                continue
            if token in first_cell:
                kind = ("row", "column", "box")[index // board.size]
                raise InputError(
                    f"clues must not repeat a digit within a {kind}; tokens has {token - 1} in "
                    f"{cell_name(board, first_cell[token])} and in {cell_name(board, cell)}; "
                    "correct or blank one of them"
                )
            first_cell[token] = cell


def satisfies_rules(answers: Any, inputs: Any) -> np.ndarray:
    """Whether each answer is a solution of its puzzle: [...] bool.

    True where every row, column and box holds each digit once and every clue is kept. No label is
    needed: if the solution is unique, the label is the only answer that satisfies the rules.

    Args:
      answers: [..., S] integer, any leading axes, any token values.
      inputs: [..., S] integer, the puzzles, broadcast to `answers` as in numpy; for rollouts
        [B, K, S] pass ``inputs[:, None]``. Pads and blanks allow any digit.

    Raises:
      InputError: either array is not integer, S is no board, or `inputs` does not broadcast.
    """
    answers, inputs = integers(answers, "answers"), integers(inputs, "inputs")
    board = board_for(answers.shape[-1])
    try:
        inputs = np.broadcast_to(inputs, answers.shape)
    except ValueError:
        raise InputError(
            f"inputs must broadcast to answers; inputs has shape {inputs.shape} and answers "
            f"{answers.shape}; for rollouts [B, K, S] pass inputs[:, None]"
        ) from None

    satisfied = np.asarray(((inputs < FIRST_DIGIT) | (answers == inputs)).all(axis=-1))
    # Bit t stands for token t, bit 0 for tokens that are no digit: a unit of n cells is right
    # exactly when the union of its bits is the n digits. Cells lead, so that each step covers all
    # answers; units are checked one by one, since gathering all would triple the memory.
    is_digit = (answers >= FIRST_DIGIT) & (answers < board.vocab_size)
    tokens = np.moveaxis(np.where(is_digit, answers, PAD).astype(np.uint16), -1, 0)
    bits = np.left_shift(np.uint16(1), tokens, order="C")
    digits = (1 << board.vocab_size) - (1 << FIRST_DIGIT)
    for unit in board.units:
        satisfied &= np.bitwise_or.reduce(bits[unit], axis=0) == digits
    return satisfied


def solved_puzzles(inputs: Any, labels: Any) -> tuple[Board, np.ndarray, np.ndarray]:
    """The board of puzzles and solutions, and both as checked arrays, [B, S] int32."""
    inputs, labels = integers(inputs, "inputs"), integers(labels, "labels")
    if inputs.ndim != 2 or inputs.shape != labels.shape:
        raise InputError(
            f"inputs and labels must have one shape [B, S]; inputs has shape {inputs.shape} and "
            f"labels {labels.shape}; pass one row per puzzle"
        )
    board = check_puzzles(inputs)
    wrong = np.flatnonzero(~satisfies_rules(labels, inputs))
    if wrong.size:
        raise InputError(f"row {wrong[0]}: {wrong_answer(labels[wrong[0]])}")
    return board, np.ascontiguousarray(inputs, np.int32), np.ascontiguousarray(labels, np.int32)


def wrong_answer(answer: np.ndarray) -> str:
    """The message that refuses an answer [S] which is not a solution."""
    return (
        "an answer must keep the clues and hold each digit once in every row, column and box; "
        f"answer {decode(answer)} does not; correct or remove the row"
    )
