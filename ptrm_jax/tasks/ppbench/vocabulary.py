"""Tokens of the six types on a square grid: vocabulary, encoding, drawing, the rules on tokens.

A puzzle is a vector of side x side cells, row by row, the side from 1 to 10; a smaller board is
placed at the top left and padded with `PAD`. The side, and with it the vocabulary, follows from the
number of cells. No token except `PAD` belongs to two types, so the type of a puzzle can be read
from its tokens. A token describes its cell completely: what is given and what has been decided.
Each side n has a closed list of tokens, in this order, the counts being those of n = 10 and of
n = 6, 796 and 540 in all:

- `PAD`.
- sudoku, 10 and 7: undecided, digits 1 to n, at most 9. A given digit and a found one are the same
  token.
- lightup, 9: undecided, bulb, no bulb; black, black with 0 to 4.
- nurikabe, 104 and 40: undecided, shaded, unshaded; islands of any size, of 1 to n^2 cells.
- heyawake, 615 and 426: for each of the 16 masks of walls, undecided, shaded and unshaded; and the
  same three with a number from 0 to n^2 // 3 + 1, at most 20, for the 9 masks with walls on two
  adjacent sides. A number stands in a corner of its room, with walls on two such sides, in whatever
  orientation.
- tapa, 45: undecided, shaded, unshaded; the 42 clues that fit into the ring of eight cells.
- shakashaka, 12: undecided, white, 4 triangles; black, black with 0 to 4.

A heyawake of n x n cells has at most n^2 // 3 + 1 shaded ones. With k of them there are n^2 - k
others, which are connected and so have n^2 - k - 1 neighbouring pairs or more, out of
2n(n - 1) - 4k + b, where b counts the neighbours that shaded cells lack at the rim. No two shaded
cells touch, so b is at most 2(n - 1) + 4, and 3k at most n^2 + 3. Only at n = 8 and above is this
more than 20. The larger numbers are omitted to keep the vocabulary small (the largest in PPBench's
golden set and janko.at's puzzles is 11). Everything else is complete. The paper has 294 tokens
(arXiv 2605.19943, A.3) and does not list them, so its numbering cannot be reproduced.

Token arrays returned are int32; any integer type is accepted.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.ppbench.puzzle import (
    BOTTOM,
    LEFT,
    OPEN,
    RIGHT,
    STATES,
    TOP,
    TYPES,
    PencilPuzzle,
    rooms_to_walls,
    takes_answer,
    tapa_clues,
)
from ptrm_jax.tasks.ppbench.rules import NO_CLUE, check, clue_code
from ptrm_jax.tasks.sudoku import board_for
from ptrm_jax.tasks.task import Look

SIDE = 10
"""The largest side, and PPBench's: the default of functions that make tokens."""
PAD = 0
_MAX_ROOM_NUMBER = 20

_CHUNK = 4096  # boards checked at once, to bound the memory


class VocabularyError(InputError):
    """A puzzle that the vocabulary or the grid of 10x10 cells cannot express."""


class Symbol(NamedTuple):
    """The meaning of a token.

    Attributes:
      pid: type; empty for `PAD`.
      given: as in `PencilPuzzle.problem`; always ``.`` for sudoku, whose digits are states.
      state: as in `PencilPuzzle.answer`; ``.`` if undecided or if the given takes no answer.
      walls: mask of walls, 0 for types other than heyawake.
    """

    pid: str
    given: str = OPEN
    state: str = OPEN
    walls: int = 0


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of boards of one side; made by `of_side` or `of_cells`.

    Arrays are by token, [size] int32 unless stated.

    Attributes:
      side: rows and columns of the grid.
    """

    side: int

    @property
    def num_cells(self) -> int:
        """S, the length of a vector of tokens."""
        return self.side**2

    @property
    def size(self) -> int:
        """V, the number of tokens."""
        return len(self.symbols)

    @property
    def max_room_number(self) -> int:
        """The largest number of a room of heyawake."""
        return min(_MAX_ROOM_NUMBER, self.num_cells // 3 + 1)

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """The symbol of each token."""
        numbers = [str(number) for number in range(self.num_cells + 1)]
        givens = {
            "lightup": ["-", *"01234"],
            "nurikabe": ["-", *numbers[1:]],
            "tapa": tapa_clues(),
            "shakashaka": ["5", *"01234"],
        }
        rooms = [str(number) for number in range(self.max_room_number + 1)]
        symbols = [Symbol("")]
        for pid in TYPES:
            if pid == "heyawake":
                for walls in range(16):
                    is_corner = walls & (TOP | BOTTOM) and walls & (LEFT | RIGHT)
                    for given in [OPEN, *(rooms if is_corner else [])]:
                        symbols += [Symbol(pid, given, state, walls) for state in STATES[pid]]
            else:
                states = STATES[pid][: self.side + 1] if pid == "sudoku" else STATES[pid]
                symbols += [Symbol(pid, OPEN, state) for state in states]
                symbols += [Symbol(pid, given) for given in givens.get(pid, [])]
        return tuple(symbols)

    @cached_property
    def token_of(self) -> dict[Symbol, int]:
        """The token of each symbol."""
        return {symbol: token for token, symbol in enumerate(self.symbols)}

    @cached_property
    def types(self) -> np.ndarray:
        """Index of the type in `TYPES`; -1 for `PAD`."""
        return np.array([TYPES.index(s.pid) if s.pid else -1 for s in self.symbols], np.int32)

    @cached_property
    def bases(self) -> np.ndarray:
        """The token of the same cell undecided."""
        return np.array([self.token_of[s._replace(state=OPEN)] for s in self.symbols], np.int32)

    @cached_property
    def states(self) -> np.ndarray:
        """Codes of states, as in `rules`."""
        states = [STATES[s.pid].index(s.state) if s.pid else 0 for s in self.symbols]
        return np.array(states, np.int32)

    @cached_property
    def clues(self) -> np.ndarray:
        """Codes of clues, as in `rules`."""
        clues = [clue_code(s.pid, s.given) if s.pid else NO_CLUE for s in self.symbols]
        return np.array(clues, np.int32)

    @cached_property
    def walls(self) -> np.ndarray:
        """Masks of walls."""
        return np.array([s.walls for s in self.symbols], np.int32)

    @cached_property
    def given(self) -> np.ndarray:
        """Whether the cell is decided or takes no answer: [size] bool."""
        return np.array(
            [
                s.pid != "" and (s.state != OPEN or not takes_answer(s.pid, s.given))
                for s in self.symbols
            ]
        )

    def known(self, tokens: np.ndarray) -> np.ndarray:
        """The tokens, with `PAD` in place of values that are not in the vocabulary."""
        return np.where((tokens >= 0) & (tokens < self.size), tokens, PAD)


@cache
def of_side(side: int) -> Vocabulary:
    """The vocabulary of boards of side x side cells.

    Raises:
      InputError: the side is not 1 to 10.
    """
    if side not in range(1, SIDE + 1):
        raise InputError(
            f"a grid of PPBench must have 1 to {SIDE} rows and as many columns; got side {side!r}"
        )
    return Vocabulary(side)


def of_cells(num_cells: int) -> Vocabulary:
    """The vocabulary of boards of `num_cells` cells.

    Raises:
      InputError: this is not the square of 1 to 10.
    """
    side = math.isqrt(num_cells)
    if side**2 != num_cells or not 1 <= side <= SIDE:
        raise InputError(
            f"a board of PPBench has n x n cells, n from 1 to {SIDE}; got {num_cells}; pad boards "
            "to a square, as encode_problem does"
        )
    return of_side(side)


VOCABULARY = of_side(SIDE).symbols
"""The symbol of each token of the largest side."""
VOCAB_SIZE = len(VOCABULARY)


# Puzzles to tokens.


def encode_problem(puzzle: PencilPuzzle, side: int = SIDE) -> np.ndarray:
    """Tokens of the puzzle with nothing decided: [S] int32, S = side x side.

    Raises:
      VocabularyError: the board is larger than the side, or a given is not in the vocabulary.
      InputError: the side is not 1 to 10.
    """
    return encode_state(puzzle, {}, side)


def encode_answer(puzzle: PencilPuzzle, side: int = SIDE) -> np.ndarray:
    """Tokens of the solution, givens included: [S] int32, S = side x side.

    Raises:
      VocabularyError: as `encode_problem`.
      InputError: the puzzle has no answer.
    """
    if puzzle.answer is None:
        raise InputError(
            f"a puzzle must have an answer to be a label; {puzzle.name or 'this one'} has none; "
            "leave it out"
        )
    return encode_state(puzzle, dict(enumerate(itertools.chain(*puzzle.answer))), side)


def encode_state(puzzle: PencilPuzzle, decided: dict[int, str], side: int = SIDE) -> np.ndarray:
    """Tokens of the puzzle with some cells decided: [S] int32, S = side x side.

    Args:
      puzzle: the puzzle.
      decided: symbols as in `PencilPuzzle.answer` by cell, numbered row by row over the board;
        for instance ``dict(puzzle.moves[:n])``. Cells whose given takes no answer are ignored.
      side: of the grid, 1 to 10.

    Raises:
      VocabularyError, InputError: as `encode_problem`.
    """
    vocabulary = of_side(side)
    if max(puzzle.height, puzzle.width) > side:
        raise VocabularyError(
            f"a board must fit {side}x{side} cells; {puzzle.name or 'this puzzle'} has "
            f"{puzzle.height}x{puzzle.width}; leave it out, as paper_filter does"
        )
    grid = np.full((side, side), PAD, np.int32)
    for row in range(puzzle.height):
        for column in range(puzzle.width):
            cell, given = row * puzzle.width + column, puzzle.problem[row][column]
            walls = puzzle.walls[row][column] if puzzle.walls else 0
            state = decided.get(cell, OPEN) if takes_answer(puzzle.pid, given) else OPEN
            symbol = Symbol(puzzle.pid, given, state, walls)
            if puzzle.pid == "sudoku":
                state = given if given != OPEN else decided.get(cell, OPEN)
                symbol = Symbol(puzzle.pid, OPEN, state)
            if symbol not in vocabulary.token_of:
                raise VocabularyError(
                    f"a cell must have a token; {puzzle.name or 'this puzzle'} has {given!r} "
                    f"with state {state!r} and walls {walls} in {puzzle.cell_name(cell)} "
                    f"({puzzle.pid}); islands go up to {vocabulary.num_cells}, numbers of rooms to "
                    f"{vocabulary.max_room_number} and stand in a corner of their room; leave it "
                    "out"
                )
            grid[row, column] = vocabulary.token_of[symbol]
    return grid.reshape(-1)


def encode(puzzles: Sequence[PencilPuzzle], side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of solved puzzles: [B, S] int32 each, S = side x side.

    Raises:
      VocabularyError, InputError: as `encode_answer`.
    """
    empty = np.zeros((0, of_side(side).num_cells), np.int32)
    inputs, labels = (
        np.concatenate([empty, *(tokens(puzzle, side)[None] for puzzle in puzzles)])
        for tokens in (encode_problem, encode_answer)
    )
    return inputs, labels


def decode(inputs: Any, labels: Any) -> PencilPuzzle:
    """The solved puzzle that tokens stand for; its name, source and moves are unknown.

    Args:
      inputs: [S] integer, S = n x n, a puzzle with nothing decided but the digits of a sudoku.
      labels: [S] integer, its answer.

    Raises:
      InputError: they are not a puzzle and an answer of its form.
    """
    inputs, vocabulary = _tokens(inputs, "inputs", ndim=1)
    labels, _ = _tokens(labels, "labels", ndim=1, num_cells=vocabulary.num_cells)
    types, heights, widths = _boards(inputs[None], vocabulary)
    pid, side = TYPES[types[0]], vocabulary.side
    problem, answer = (
        [
            [vocabulary.symbols[token] for token in row]
            for row in vocabulary.known(x).reshape(side, side)[: heights[0], : widths[0]].tolist()
        ]
        for x in (inputs, labels)
    )
    return PencilPuzzle(
        pid,
        tuple(tuple(s.state if pid == "sudoku" else s.given for s in row) for row in problem),
        tuple(tuple(s.state for s in row) for row in answer),
        tuple(tuple(s.walls for s in row) for row in problem) if pid == "heyawake" else None,
    )


def resize(tokens: Any, side: int) -> np.ndarray:
    """Puzzles or answers on a grid of another side: [..., side x side] int32.

    Args:
      tokens: [..., S] integer, S = n x n, valid tokens.
      side: 1 to 10.

    Raises:
      VocabularyError: a board does not fit, or the vocabulary of the side lacks a token.
      InputError: `tokens` are not valid, or the side is not 1 to 10.
    """
    array, here = _tokens(tokens, "tokens")
    there = of_side(side)
    grids = array.reshape(*array.shape[:-1], here.side, here.side)
    if not ((0 <= array) & (array < here.size)).all():
        raise InputError(
            f"tokens must be 0 to {here.size - 1}; they span {array.min()}..{array.max()}"
        )
    if (grids[..., side:, :] != PAD).any() or (grids[..., :, side:] != PAD).any():
        used = grids != PAD
        rows, columns = (
            int(used.any((*range(used.ndim - 2), axis)).nonzero()[0].max()) + 1 for axis in (-1, -2)
        )
        raise VocabularyError(
            f"a board must fit {side}x{side} cells; the largest has {rows}x{columns}; pass a "
            "smaller one, or a checkpoint for larger ones"
        )
    kept = grids[..., :side, :side]
    moved = _moved(here.side, side)[kept]
    if (moved < 0).any():
        symbol = here.symbols[kept[moved < 0][0]]
        raise VocabularyError(
            f"a cell must have a token on a grid of {side}x{side} cells; given {symbol.given!r} "
            f"with state {symbol.state!r} ({symbol.pid}) has none; numbers of rooms go up to "
            f"{there.max_room_number} there, islands to {there.num_cells}; leave it out"
        )
    grown = max(side - here.side, 0)
    padded = np.pad(moved, [(0, 0)] * (moved.ndim - 2) + [(0, grown)] * 2, constant_values=PAD)
    return padded.reshape(*array.shape[:-1], side**2)


@cache
def _moved(here: int, there: int) -> np.ndarray:
    """The token of a side for each token of another, -1 for none: [V] int32."""
    token_of = of_side(there).token_of
    return np.array([token_of.get(symbol, -1) for symbol in of_side(here).symbols], np.int32)


def symbols(tokens: Any) -> list[str]:
    """The given and the state of each cell, as in `PencilPuzzle`: S short strings.

    For example, ``2#`` is a shaded cell with the number of its room. A cell with neither is "";
    `PAD` and values that are not tokens are ``?``.

    Raises:
      InputError: `tokens` is not one vector of S integers.
    """
    array, vocabulary = _tokens(tokens, "tokens", ndim=1)
    texts = []
    for token in vocabulary.known(array).tolist():
        parts = (part for part in vocabulary.symbols[token][1:3] if part != OPEN)
        texts.append("?" if token == PAD else "".join(parts))
    return texts


_CORNERS = {"5": "upper left", "4": "upper right", "3": "lower right", "2": "lower left"}
_TRIANGLES = {"5": "◤", "4": "◥", "3": "◢", "2": "◣"}
_BLACK = "■"


def looks(tokens: Any, clues: Any) -> list[Look]:
    """How each cell of a puzzle or an answer looks on paper: S of them.

    Args:
      tokens: [S] integer, S = n x n; model outputs may hold any value.
      clues: [S] integer, the puzzle, whose walls and boxes are drawn.

    Raises:
      InputError: they are not two vectors of S integers, or `clues` is not a puzzle.
    """
    clues, vocabulary = _tokens(clues, "clues", ndim=1)
    values, _ = _tokens(tokens, "tokens", ndim=1, num_cells=vocabulary.num_cells)
    types, heights, _ = _boards(clues[None], vocabulary)
    walls = vocabulary.walls[clues]
    if TYPES[types[0]] == "sudoku":
        walls = _box_walls(int(heights[0]), vocabulary.side)
    known = vocabulary.known(values).tolist()
    return [
        _look(vocabulary.symbols[token])._replace(walls=mask)
        for token, mask in zip(known, walls.tolist(), strict=True)
    ]


def _look(symbol: Symbol) -> Look:
    if symbol.pid == "":
        return Look("?")
    if symbol.pid == "sudoku":
        return Look("" if symbol.state == OPEN else symbol.state)
    on_black = symbol.pid in ("lightup", "shakashaka") and symbol.given != OPEN
    text = "" if symbol.given == OPEN or (on_black and symbol.given in "-5") else symbol.given
    shape = "dot" if symbol.state == "+" and not text else ""
    if symbol.pid == "shakashaka":
        shape = _CORNERS.get(symbol.state, shape)
    fill = "black" if on_black else ""
    if symbol.state == "#":
        shape, fill = ("bulb", "") if symbol.pid == "lightup" else ("", "shaded")
    return Look(text.replace("-", "?").replace(",", " "), fill, shape)


def _box_walls(size: int, side: int) -> np.ndarray:
    """Masks of the lines around the boxes of a sudoku at the top left of a grid: [S] int."""
    board = board_for(size**2)
    place = np.arange(size)
    boxes = place[:, None] // board.box_rows * size + place // board.box_cols
    walls = np.zeros((side, side), np.int64)
    walls[:size, :size] = rooms_to_walls(boxes)
    return walls.ravel()


def is_given(inputs: Any) -> np.ndarray:
    """Cells of a puzzle that are already decided, or take no answer: [..., S] bool.

    Args:
      inputs: [..., S] integer, S = n x n.
    """
    return of_cells(np.shape(inputs)[-1]).given[inputs]


def draw(tokens: Any, *, clues: Any | None = None) -> str:
    """The board as lines of text, without a final newline.

    Cells are drawn as by `symbols`, empty ones as ``.``, triangles and black cells as such. Walls
    between rooms are drawn as ``|`` and ``-``. Padding outside the board is left out.

    Args:
      tokens: [S] integer, S = n x n, a puzzle or an answer; model outputs may hold any value.
      clues: [S] integer, the puzzle that `tokens` answers. Its walls are drawn, and a cell is
        followed by ``!`` if the answer does not keep what the puzzle gives there.

    Raises:
      InputError: `tokens` or `clues` is not one vector of S integers, or their S differ.
    """
    values, vocabulary = _tokens(tokens, "tokens", ndim=1)
    frame, side = vocabulary.known(values), vocabulary.side
    if clues is not None:
        frame, _ = _tokens(clues, "clues", ndim=1, num_cells=vocabulary.num_cells)
        _boards(frame[None], vocabulary)  # refuses other tokens than a puzzle's
    texts = np.array([text or OPEN for text in symbols(values)], dtype=object)
    for cell, token in enumerate(vocabulary.known(values).tolist()):
        symbol = vocabulary.symbols[token]
        if symbol.pid == "shakashaka":  # whose black cell and one of its triangles are both 5
            texts[cell] = _BLACK if symbol.given == "5" else texts[cell]
            texts[cell] = _TRIANGLES.get(symbol.state, texts[cell])
    if clues is not None:
        for cell in np.flatnonzero(~_keeps(values, frame, vocabulary)).tolist():
            texts[cell] += "!"

    inside = (frame != PAD).reshape(side, side)
    height, width = (int(extent[0]) for extent in _extents(inside[None]))
    texts = texts.reshape(side, side)[:height, :width]
    walls = vocabulary.walls[frame].reshape(side, side)[:height, :width]
    length = max((len(text) for text in texts.flat), default=1)
    if not walls.any():
        return "\n".join(" ".join(text.rjust(length) for text in row).rstrip() for row in texts)
    lines = []
    for row in range(height):
        if row:
            rule = ["-" * length if mask & TOP else " " * length for mask in walls[row]]
            lines.append(" ".join(rule).rstrip())
        line = "".join(
            text.rjust(length) + ("|" if mask & RIGHT and column < width - 1 else " ")
            for column, (text, mask) in enumerate(zip(texts[row], walls[row], strict=True))
        )
        lines.append(line.rstrip())
    return "\n".join(lines)


def satisfies_rules(answers: Any, inputs: Any) -> np.ndarray:
    """Whether each answer is a solution of its puzzle: [...] bool.

    A solution satisfies every rule of the type, decides every cell, and keeps the givens, walls and
    decided cells of the puzzle. No label is needed: the label of a uniquely solvable puzzle is its
    only solution, up to the tokens at padding of the puzzle, which are ignored.

    Args:
      answers: [..., S] integer, S = n x n, any leading axes, any token values.
      inputs: [..., S] integer, puzzles of any types, broadcast to `answers` as numpy does; for
        rollouts [B, K, S] pass ``inputs[:, None]``.

    Raises:
      InputError: an array does not hold vectors of S integers, a vector of `inputs` is not a
        puzzle of one type at the top left, or `inputs` does not broadcast.
    """
    inputs, vocabulary = _tokens(inputs, "inputs")
    side, num_cells = vocabulary.side, vocabulary.num_cells
    answers, _ = _tokens(answers, "answers", num_cells=num_cells)
    lead, problem_lead = answers.shape[:-1], inputs.shape[:-1]
    # Checked before broadcasting: rollouts share their puzzles.
    boards = [x.reshape(problem_lead) for x in _boards(inputs.reshape(-1, num_cells), vocabulary)]
    try:
        inputs = np.broadcast_to(inputs, answers.shape).reshape(-1, num_cells)
        types, heights, widths = (np.broadcast_to(x, lead).ravel() for x in boards)
    except ValueError:
        raise InputError(
            f"inputs must broadcast to answers; inputs has shape {inputs.shape} and answers "
            f"{answers.shape}; for rollouts [B, K, {num_cells}] pass inputs[:, None]"
        ) from None
    answers = answers.reshape(-1, num_cells)
    satisfied = np.zeros(len(answers), bool)
    for start in range(0, len(answers), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(answers)))
        # Most wrong answers change a given or leave a cell open; only the others need the rules.
        rows = rows[_keeps(answers[rows], inputs[rows], vocabulary).all(-1)]
        kinds = np.stack([types[rows], heights[rows], widths[rows]], -1)
        for kind in np.unique(kinds, axis=0):
            chosen = rows[(kinds == kind).all(-1)]
            pid, height, width = TYPES[kind[0]], kind[1], kind[2]
            problems, solutions = (
                x[chosen].reshape(-1, side, side)[:, :height, :width] for x in (inputs, answers)
            )
            clues, walls = vocabulary.clues[problems], vocabulary.walls[problems]
            satisfied[chosen] = check(pid, clues, vocabulary.states[solutions], walls)
    return satisfied.reshape(lead)


# Checks and messages.


def _keeps(answers: np.ndarray, inputs: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Per cell, whether the answer keeps what the puzzle gives and has decided: [..., S] bool."""
    known, bases = vocabulary.known(answers), vocabulary.bases
    kept = (bases[known] == bases[inputs]) & ((vocabulary.states[inputs] == 0) | (known == inputs))
    return kept | (inputs == PAD)


def _boards(
    inputs: np.ndarray, vocabulary: Vocabulary
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Type index, height and width of puzzles [N, S]: [N] int32 each."""
    side = vocabulary.side
    foreign = np.argwhere((inputs < 0) | (inputs >= vocabulary.size))
    if foreign.size:
        row, cell = foreign[0].tolist()
        raise InputError(
            f"a puzzle must hold tokens 0 to {vocabulary.size - 1}; puzzle {row} has "
            f"{inputs[row, cell]} in {_cell_name(cell, side)}; pass puzzles of this vocabulary"
        )
    cell_types = vocabulary.types[inputs]
    inside = cell_types >= 0
    types = cell_types.max(-1)
    mixed = np.argwhere(inside & (cell_types != types[:, None]))
    if mixed.size:
        row, cell = mixed[0].tolist()
        raise InputError(
            f"a puzzle must hold tokens of one type; puzzle {row} has some of {TYPES[types[row]]} "
            f"and, in {_cell_name(cell, side)}, of {TYPES[cell_types[row, cell]]}; correct it"
        )
    grids = inside.reshape(-1, side, side)
    heights, widths = _extents(grids)
    whole = inside.any(-1) & (inside.sum(-1) == heights * widths)
    if not whole.all():
        row = int(np.flatnonzero(~whole)[0])
        raise InputError(
            "a puzzle must fill a rectangle at the top left, with pads elsewhere; puzzle "
            f"{row} has {inside[row].sum()} cells within {heights[row]}x{widths[row]}; correct it"
        )
    return types, heights, widths


def _extents(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of [N, n, n] bool up to the last that has a cell: [N] int32 each."""
    numbers = np.arange(1, inside.shape[1] + 1, dtype=np.int32)
    heights = (inside.any(2) * numbers).max(1)
    widths = (inside.any(1) * numbers).max(1)
    return heights, widths


def _tokens(
    values: Any, name: str, *, ndim: int | None = None, num_cells: int | None = None
) -> tuple[np.ndarray, Vocabulary]:
    """`values` as an array of integers [..., S] with its vocabulary; of `ndim` axes if given."""
    array = np.asarray(values)
    ndim_fits = array.ndim > 0 if ndim is None else array.ndim == ndim
    num_cells_fits = ndim_fits and num_cells in (None, array.shape[-1])
    if not num_cells_fits or not np.issubdtype(array.dtype, np.integer):
        axes = f"[{'' if ndim else '..., '}{num_cells or 'S'}]"
        raise InputError(
            f"{name} must be integer tokens {axes}; {name} has shape {array.shape} and dtype "
            f"{array.dtype}; pass boards padded to a square, as by encode_problem"
        )
    try:
        return array, of_cells(array.shape[-1])
    except InputError as error:
        raise InputError(f"{name}, of shape {array.shape}: {error}") from None


def _cell_name(cell: int, side: int) -> str:
    row, column = divmod(cell, side)
    return f"r{row + 1}c{column + 1}"
