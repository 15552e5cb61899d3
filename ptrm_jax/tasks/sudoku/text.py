"""Sudoku boards as text."""

from typing import Any

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.sudoku.boards import (
    BLANK,
    BOARDS,
    FIRST_DIGIT,
    PAD,
    board_for,
    cell_name,
    one_board,
)

_TOKEN_OF = dict.fromkeys(".0_", BLANK) | {str(d): d + 1 for d in range(1, 10)}
_RULING = "|+-"  # the characters that `draw` puts between boxes


def encode(text: str) -> np.ndarray:
    """Tokens of a written puzzle: [S] int32.

    Args:
      text: S cells, row by row. A digit is a clue; ``.``, ``0`` and ``_`` are blanks. White space
        and box lines of ``|``, ``+`` and ``-`` are skipped, so a drawn board can be pasted.

    Raises:
      InputError: a foreign character, a number of cells that is no board, or a digit above n.
    """
    cells = [char for char in text if not (char.isspace() or char in _RULING)]
    tokens = [_TOKEN_OF.get(char, PAD) for char in cells]
    if PAD in tokens:
        char = cells[tokens.index(PAD)]
        before = text[: text.index(char)].split("\n")
        raise InputError(
            "a puzzle must be written in digits, with '.', '0' or '_' for blanks; text has "
            f"{char!r} at line {len(before)}, column {len(before[-1]) + 1}; remove or replace it"
        )
    if len(tokens) not in BOARDS:
        raise InputError(
            f"a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells; text has {len(tokens)}; "
            "write one character per cell, '.' for a blank"
        )
    board = board_for(len(tokens))
    if max(tokens) >= board.vocab_size:
        cell = next(cell for cell, token in enumerate(tokens) if token >= board.vocab_size)
        raise InputError(
            f"digits must be 1 to {board.size} on a board of {len(tokens)} cells; text has "
            f"{cells[cell]} in {cell_name(board, cell)}; correct the digit, or write all cells of "
            "a larger board"
        )
    return np.array(tokens, np.int32)


def decode(tokens: Any) -> str:
    """One line of S characters: digits, ``.`` for a blank, ``?`` for any other token.

    Args:
      tokens: [S] integer; model outputs may hold any value.

    Raises:
      InputError: `tokens` is not one board of integers.
    """
    board, values = one_board(tokens)
    characters = {BLANK: "."} | {d + 1: str(d) for d in range(1, board.size + 1)}
    return "".join(characters.get(token, "?") for token in values)


def draw(tokens: Any, *, clues: Any | None = None) -> str:
    """The board as lines of text with its boxes ruled, without a final newline.

    Args:
      tokens: [S] integer, a puzzle or an answer.
      clues: [S] integer, the puzzle that `tokens` answers. A clue is then drawn as ``[5]``, or, if
        the answer changes it, as ``!5!`` with the answer's digit; other cells are drawn unmarked.

    Raises:
      InputError: `tokens` or `clues` is not one board of integers, or their sizes differ.
    """
    board, values = one_board(tokens)
    clue_board, clue_values = one_board(tokens if clues is None else clues, "clues")
    if clue_board != board:
        raise InputError(
            f"clues must belong to the board drawn; clues has {clue_board.num_cells} cells and "
            f"tokens {board.num_cells}; pass the puzzle that tokens answers"
        )
    cells = []
    for char, token, clue in zip(decode(tokens), values, clue_values, strict=True):
        if clues is None or clue < FIRST_DIGIT:
            cells.append(f" {char} ")
        else:
            cells.append(f"[{char}]" if token == clue else f"!{char}!")

    n, width = board.size, board.box_cols
    rule = "+".join(["", *["-" * 3 * width] * (n // width), ""])
    lines = [rule]
    for row in range(n):
        row_cells = cells[row * n : (row + 1) * n]
        groups = ["".join(row_cells[start : start + width]) for start in range(0, n, width)]
        lines.append("|".join(["", *groups, ""]))
        if (row + 1) % board.box_rows == 0:
            lines.append(rule)
    return "\n".join(lines)
