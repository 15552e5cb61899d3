"""Sudoku boards as text."""

import re
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
from ptrm_jax.tasks.text import Lines

_TOKEN_OF = dict.fromkeys(".0_", BLANK) | {str(d): d + 1 for d in range(1, 10)}
_RULING = "|+-=*"  # the characters that `draw` and others put between boxes


def encode(text: str) -> np.ndarray:
    """Tokens of a written puzzle: [S] int32.

    Args:
      text: S cells, row by row. A digit is a clue; ``.``, ``0`` and ``_`` are blanks. White space
        and box lines of ``|``, ``+`` and ``-`` are skipped, so a drawn board can be pasted.

    Raises:
      InputError: a foreign character, a number of cells that is no board, or a digit above n.
    """
    cells = _cells(text)
    tokens = [_TOKEN_OF.get(char, PAD) for char in cells]
    if PAD in tokens:
        char = cells[tokens.index(PAD)]
        before = text[: text.index(char)].split("\n")
        line = f"line {len(before)}, " if "\n" in text else ""
        raise InputError(
            "a puzzle must be written in digits, with '.', '0' or '_' for blanks; text has "
            f"{char!r} at {line}column {len(before[-1]) + 1}; remove or replace it"
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


_ROWS = tuple(board.size for board in BOARDS.values())
_SECTION = re.compile(r"\[(\w+)\]")
_COMMENT = re.compile(r"(?:^|\s)(?:#|;|//).*")


def lines(text: list[str]) -> Lines:
    """The puzzles of a text's lines, each on one of them or on one for each of its rows.

    Comments (#, ;, //), empty lines, box lines and, of .sdk files, all sections but [Puzzle] are
    skipped; so is what stands beside a board that is a word of its line (ids, ratings, solutions).
    What is neither is left for `encode` to refuse.
    """
    found: Lines = []
    rows: Lines = []
    section = "puzzle"

    def end_of_rows() -> None:
        found.extend([(rows[0][0], "\n".join(row for _, row in rows))] if rows else [])
        rows.clear()

    for number, line in enumerate(text, start=1):
        if match := _SECTION.fullmatch(line.strip()):
            section = match[1].lower()
            continue
        line = _COMMENT.sub("", line)
        cells = _cells(line)
        if section != "puzzle" or not cells:
            continue
        if set(cells) <= _TOKEN_OF.keys() and len(cells) in _ROWS:
            if rows and len(_cells(rows[0][1])) != len(cells):
                end_of_rows()
            rows.append((number, line))
            if len(rows) == len(cells):
                end_of_rows()
            continue
        end_of_rows()  # incomplete, which `encode` refuses
        words = [word for word in re.split(r"[\s,;]+", line) if _is_board(word)]
        is_whole = len(cells) in BOARDS and set(cells) <= _TOKEN_OF.keys()
        found.append((number, line if is_whole or not words else max(words, key=_open_cells)))
    end_of_rows()
    return found


def _is_board(word: str) -> bool:
    return len(word) in BOARDS and set(word) <= _TOKEN_OF.keys()


def _open_cells(board: str) -> tuple[int, int]:
    """Larger for larger boards, and for a puzzle than for its solution."""
    return len(board), sum(_TOKEN_OF[char] == BLANK for char in board)


def _cells(text: str) -> list[str]:
    return [char for char in text if not (char.isspace() or char in _RULING)]


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
