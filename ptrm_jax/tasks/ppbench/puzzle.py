"""A puzzle of Pencil Puzzle Bench: its type, givens, walls, solution and moves."""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from ptrm_jax.errors import InputError

TYPES = ("sudoku", "lightup", "nurikabe", "heyawake", "tapa", "shakashaka")
"""The six types of PTRM, in the order of its Table 1; a type index is an index into this tuple."""

OPEN = "."
"""The symbol of a cell without a given, and of an undecided cell."""

STATES = {
    "sudoku": ".123456789",
    "lightup": ".#+",
    "nurikabe": ".#+",
    "heyawake": ".#+",
    "tapa": ".#+",
    "shakashaka": ".+2345",
}
"""The states of a cell, undecided first; the index of a symbol is its code in `rules`."""

TOP, RIGHT, BOTTOM, LEFT = 1, 2, 4, 8
"""Bits of the mask of walls around a cell of heyawake."""

Rows = tuple[tuple[str, ...], ...]
Masks = tuple[tuple[int, ...], ...]


def takes_answer(pid: str, given: str) -> bool:
    """Whether a cell with this given is to be decided; black cells and clues of islands are not."""
    return given == OPEN or pid == "heyawake"


@dataclass(frozen=True)
class PencilPuzzle:
    """A puzzle whose form is checked; `rules.is_solved` tells whether its answer is right.

    The symbols are those of puzz.link's pzprv3 text, one string per cell:

    - sudoku: givens and answers ``1`` to ``9``.
    - lightup: givens ``-`` (black) and ``0`` to ``4`` (black, with a number); answers ``#`` (bulb)
      and ``+`` (no bulb).
    - nurikabe: givens ``-`` (any size) and sizes; answers ``#`` (shaded) and ``+``.
    - heyawake: givens are the numbers of rooms, answers ``#`` and ``+``, in all cells.
    - tapa: givens are the runs around the cell, such as ``1,1,2``, with ``-`` for any length;
      answers ``#`` and ``+``. Runs have no order: they are sorted, ``-`` last.
    - shakashaka: givens ``5`` (black) and ``0`` to ``4`` (black, with a number); answers ``+``
      (white) and triangles, named by their black corner: ``5`` upper left, ``4`` upper right,
      ``3`` lower right, ``2`` lower left.

    Attributes:
      pid: one of `TYPES`.
      problem: [height][width] givens, ``.`` for none.
      answer: [height][width] symbols, ``.`` in cells whose given takes no answer; for sudoku the
        whole board, in which ``.`` at a given is replaced by the given. None if the solution is
        unknown.
      walls: heyawake only, [height][width] masks of `TOP`, `RIGHT`, `BOTTOM`, `LEFT`, the rim
        included. A wall may end inside a room.
      moves: ``(cell, symbol)`` in the order in which a solver decided the cells, cells numbered
        row by row; None if unknown.
      name: its name in the source.
      source: where it is from.
      unique: whether the solution is the only one; None if unknown.

    Raises:
      InputError: an unknown type, rows of different lengths, a symbol the type does not have, an
        answer that is incomplete or changes a given, walls that do not fit, or moves that do
        not lead to the answer.
    """

    pid: str
    problem: Rows
    answer: Rows | None = None
    walls: Masks | None = None
    moves: tuple[tuple[int, str], ...] | None = None
    name: str = ""
    source: str = ""
    unique: bool | None = None

    def __post_init__(self) -> None:
        if self.pid not in TYPES:
            raise InputError(
                f"pid must be one of {', '.join(TYPES)}; got {self.pid!r}; leave other types out"
            )
        widths = {len(row) for row in self.problem}
        if len(widths) != 1 or widths == {0}:
            raise InputError(
                f"a board must have rows of one length, at least 1; problem has {len(self.problem)}"
                f" rows of lengths {sorted(widths)}; write every cell, '.' if it is empty"
            )
        if self.pid == "sudoku" and (self.height, self.width) not in _SUDOKUS:
            raise InputError(
                f"a sudoku must have 4x4, 6x6 or 9x9 cells; problem has {self.height}x{self.width};"
                " leave it out"
            )
        problem = tuple(
            tuple(self._given(symbol, cell) for cell, symbol in enumerate(row, self.width * index))
            for index, row in enumerate(self.problem)
        )
        object.__setattr__(self, "problem", problem)
        self._check_answer()
        self._check_walls()
        self._check_moves()

    @property
    def height(self) -> int:
        """Number of rows."""
        return len(self.problem)

    @property
    def width(self) -> int:
        """Number of columns."""
        return len(self.problem[0])

    @property
    def open_cells(self) -> tuple[int, ...]:
        """The cells to be decided, numbered row by row."""
        givens = enumerate(itertools.chain(*self.problem))
        return tuple(cell for cell, given in givens if takes_answer(self.pid, given))

    def cell_name(self, cell: int) -> str:
        """``r2c7`` for the cell in row 2, column 7."""
        row, column = divmod(cell, self.width)
        return f"r{row + 1}c{column + 1}"

    def _given(self, symbol: str, cell: int) -> str:
        """The given, normalised and checked."""
        if symbol == OPEN:
            return symbol
        if self.pid == "tapa":
            symbol = tapa_clue(symbol)
            is_given = symbol in tapa_clues()
        else:
            is_given = re.fullmatch(_GIVENS[self.pid], symbol) is not None
        if not is_given:
            raise InputError(
                f"a given must be one of {self.pid}; {self.cell_name(cell)} is {symbol!r}; correct "
                "it, or write '.' for none"
            )
        return symbol

    def _check_answer(self) -> None:
        if self.answer is None:
            return
        if [len(row) for row in self.answer] != [self.width] * self.height:
            raise InputError(
                f"an answer must have the cells of its problem, {self.height}x{self.width}; answer "
                f"has rows of lengths {[len(row) for row in self.answer]}; write every cell"
            )
        is_sudoku = self.pid == "sudoku"
        givens, symbols = list(itertools.chain(*self.problem)), []
        for cell, symbol in enumerate(itertools.chain(*self.answer)):
            allowed = STATES[self.pid][1:]
            if not takes_answer(self.pid, givens[cell]):
                allowed = givens[cell] if is_sudoku else OPEN
                symbol = givens[cell] if is_sudoku and symbol == OPEN else symbol
            if len(symbol) != 1 or symbol not in allowed:
                raise InputError(
                    f"an answer must decide every cell whose given leaves it open, and no other; "
                    f"{self.cell_name(cell)} is {symbol!r}, allowed is one of {allowed!r}; correct "
                    "the answer"
                )
            symbols.append(symbol)
        object.__setattr__(self, "answer", to_rows(symbols, self.width))

    def _check_walls(self) -> None:
        if (self.walls is None) == (self.pid == "heyawake"):
            raise InputError(
                "heyawake must have walls, and other types must not; "
                f"pid is {self.pid} and walls {'are missing' if self.walls is None else 'given'}; "
                "pass rooms_to_walls(rooms), or None"
            )
        if self.walls is None:
            return
        if [len(row) for row in self.walls] != [self.width] * self.height:
            raise InputError(
                f"walls must have the cells of their problem, {self.height}x{self.width}; they "
                f"have rows of lengths {[len(row) for row in self.walls]}; pass a mask per cell"
            )
        masks = np.array(self.walls)
        # Each wall is written in both cells beside it, and the rim is walled.
        right, left = (masks & RIGHT > 0), (masks & LEFT > 0)
        bottom, top = (masks & BOTTOM > 0), (masks & TOP > 0)
        agree = (right[:, :-1] == left[:, 1:]).all() and (bottom[:-1] == top[1:]).all()
        rim = left[:, 0].all() and right[:, -1].all() and top[0].all() and bottom[-1].all()
        if not (agree and rim) or masks.min() < 0 or masks.max() > TOP | RIGHT | BOTTOM | LEFT:
            raise InputError(
                "walls must be masks 0 to 15 that agree between neighbours and close the rim; got "
                f"{self.walls}; make them with rooms_to_walls"
            )

    def _check_moves(self) -> None:
        if self.moves is None:
            return
        answer = list(itertools.chain(*(self.answer or ())))
        decided = dict(self.moves)
        if sorted(decided) != list(self.open_cells) or any(
            not answer or symbol != answer[cell] for cell, symbol in decided.items()
        ):
            raise InputError(
                "moves must decide every open cell as the answer does, and no other cell; these "
                f"{len(self.moves)} moves of {self.name or 'a puzzle'} do not; correct or omit them"
            )


_SUDOKUS = ((4, 4), (6, 6), (9, 9))
_GIVENS = {
    "sudoku": "[1-9]",
    "lightup": "[-0-4]",
    "nurikabe": "-|[1-9][0-9]*",
    "heyawake": "0|[1-9][0-9]*",
    "shakashaka": "[0-5]",
}


def tapa_clue(symbol: str) -> str:
    """A clue of tapa with its runs sorted: numbers ascending, ``-`` last."""
    return ",".join(sorted(symbol.split(","), key=lambda run: (run == "-", len(run), run)))


@cache
def tapa_clues() -> tuple[str, ...]:
    """Every clue of tapa that fits into a ring of eight cells, 42 in all.

    Runs are separated by at least one cell, so several runs take up their lengths plus their
    number.
    """
    clues = ["0", "-", *"12345678"]
    for count in (2, 3, 4):
        for runs in itertools.combinations_with_replacement("12345-", count):
            if sum(1 if run == "-" else int(run) for run in runs) + count <= 8:
                clues.append(",".join(runs))
    return tuple(clues)


def to_rows(symbols: Sequence[str], width: int) -> Rows:
    """Symbols of cells, row by row, as rows of `width`."""
    return tuple(tuple(symbols[start : start + width]) for start in range(0, len(symbols), width))


def to_masks(masks: np.ndarray) -> Masks:
    """An array of masks, [height, width], as `PencilPuzzle.walls`."""
    return tuple(tuple(row) for row in masks.tolist())


def rooms_to_walls(rooms: ArrayLike) -> Masks:
    """Masks of the walls between cells of different rooms, and of the rim.

    Args:
      rooms: [height, width] ids of rooms, numbers or strings.
    """
    rooms = np.asarray(rooms)
    _, ids = np.unique(rooms, return_inverse=True)
    ids = np.pad(ids.reshape(rooms.shape), 1, constant_values=-1)
    inner = ids[1:-1, 1:-1]
    beside = {
        TOP: ids[:-2, 1:-1],
        RIGHT: ids[1:-1, 2:],
        BOTTOM: ids[2:, 1:-1],
        LEFT: ids[1:-1, :-2],
    }
    return to_masks(np.sum([bit * (other != inner) for bit, other in beside.items()], axis=0))


def rooms_of(walls: np.ndarray) -> np.ndarray:
    """The room of each cell: [..., H, W] int, rooms numbered from 0 by their first cell.

    Args:
      walls: [..., H, W] integer masks; the rooms of a stack of boards are numbered throughout.
    """
    *lead, height, width = walls.shape
    # Cells and the passages between them, so that labels do not cross walls.
    plan = np.zeros((int(np.prod(lead)), 2 * height - 1, 2 * width - 1), bool)
    masks = walls.reshape(-1, height, width)
    plan[:, ::2, ::2] = True
    plan[:, ::2, 1::2] = masks[:, :, :-1] & RIGHT == 0
    plan[:, 1::2, ::2] = masks[:, :-1] & BOTTOM == 0
    labels, _ = ndimage.label(plan, IN_PLANE)
    cells = labels[:, ::2, ::2]
    _, first, ids = np.unique(cells, return_index=True, return_inverse=True)
    order = np.empty(len(first), np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    return order[ids].reshape(walls.shape)


IN_PLANE = np.zeros((3, 3, 3), bool)
"""Structure for `ndimage.label`: orthogonal neighbours within each board of a stack."""
IN_PLANE[1] = ndimage.generate_binary_structure(2, 1)
