"""Tokens and boards of 4x4, 6x6 and 9x9 cells, and the checks of arrays that hold them.

Tokens are those of upstream TRM (``dataset/build_sudoku_dataset.py``): ``PAD`` 0, ``BLANK`` 1,
digit ``d`` is ``d + 1``. A board is the vector of its cells, row by row. Throughout this package S
is the number of cells (16, 36 or 81), n the size (4, 6 or 9), B the number of puzzles, K the number
of rollouts. Functions accept arrays of any integer type and return tokens as int32. Messages call
the cell in row 2, column 7 ``r2c7``.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.task import integers

PAD = 0
BLANK = 1
FIRST_DIGIT = 2  # the token of digit 1


@dataclass(frozen=True)
class Board:
    """Geometry of one board size.

    Attributes:
      size: n, the number of rows, of columns, of boxes and of digits.
      box_rows: rows of one box.
      box_cols: columns of one box.

    Raises:
      InputError: a box does not hold `size` cells.
    """

    size: int
    box_rows: int
    box_cols: int

    def __post_init__(self) -> None:
        if min(self.box_rows, self.box_cols) < 1 or self.box_rows * self.box_cols != self.size:
            raise InputError(
                f"a box must hold as many cells as a row; box_rows x box_cols ({self.box_rows} x "
                f"{self.box_cols}) is not size ({self.size}); pass factors of size"
            )

    @property
    def num_cells(self) -> int:
        """S, the length of a puzzle in tokens."""
        return self.size**2

    @property
    def vocab_size(self) -> int:
        """Number of tokens: pad, blank and n digits."""
        return self.size + FIRST_DIGIT

    @cached_property
    def units(self) -> np.ndarray:
        """Cell indices of the rows, then the columns, then the boxes: [3n, n] int64."""
        cells = np.arange(self.num_cells).reshape(self.size, self.size)
        boxes = cells.reshape(self.box_cols, self.box_rows, self.box_rows, self.box_cols)
        boxes_by_row = boxes.swapaxes(1, 2).reshape(self.size, self.size)
        units = np.concatenate([cells, cells.T, boxes_by_row])
        units.flags.writeable = False  # one array serves every caller
        return units


BOARDS = {board.num_cells: board for board in (Board(4, 2, 2), Board(6, 2, 3), Board(9, 3, 3))}
"""The boards by their number of cells."""


def board_for(num_cells: int) -> Board:
    """The board with `num_cells` cells.

    Raises:
      InputError: `num_cells` is not 16, 36 or 81.
    """
    if num_cells not in BOARDS:
        raise InputError(
            f"a Sudoku must have 16 (4x4), 36 (6x6) or 81 (9x9) cells; num_cells ({num_cells}) is "
            "none of these; pass one whole board, row by row"
        )
    return BOARDS[num_cells]


def cell_name(board: Board, cell: int) -> str:
    """The name of a cell in messages, such as "r2c7"."""
    row, column = divmod(cell, board.size)
    return f"r{row + 1}c{column + 1}"


def one_board(tokens: Any, name: str = "tokens") -> tuple[Board, list[int]]:
    """The board that `tokens` fills, and its values, which may be any integers."""
    array = integers(tokens, name)
    if array.ndim != 1 or len(array) not in BOARDS:
        raise InputError(
            f"{name} must be one board of 16, 36 or 81 cells; {name} has shape {array.shape}; pass "
            "one puzzle, row by row"
        )
    return board_for(len(array)), array.tolist()


def one_puzzle(tokens: Any) -> tuple[Board, list[int]]:
    """The board that `tokens` fills, and its values, all of them blanks and digits."""
    board, values = one_board(tokens)
    _check_alphabet(board, values, "tokens")
    return board, values


def check_puzzles(inputs: np.ndarray) -> Board:
    """The board of puzzles [B, S]; refuses tokens other than blanks and digits."""
    board = board_for(inputs.shape[1])
    foreign = ((inputs < BLANK) | (inputs >= board.vocab_size)).any(axis=1)
    if foreign.any():
        row = int(foreign.argmax())
        _check_alphabet(board, inputs[row].tolist(), f"inputs[{row}]")
    return board


def _check_alphabet(board: Board, values: list[int], name: str) -> None:
    for cell, token in enumerate(values):
        if not BLANK <= token < board.vocab_size:
            raise InputError(
                f"a {board.size}x{board.size} puzzle must hold tokens {BLANK} (blank) to "
                f"{board.vocab_size - 1} (digit {board.size}); {name} has {token} in "
                f"{cell_name(board, cell)}; note that digit d is token d + 1"
            )
