"""Tokens of the six types: one vocabulary, encoding, drawing, and the rules on tokens.

A puzzle is a vector of 100 cells, row by row; a smaller board is placed at the top left and padded
with `PAD`. No token except `PAD` belongs to two types, so the type of a puzzle can be read from its
tokens. A token describes its cell completely: what is given and what has been decided. The
vocabulary is a closed list of 796 tokens, in this order:

- `PAD`.
- sudoku, 10: undecided, digits 1 to 9. A given digit and a found one are the same token.
- lightup, 9: undecided, bulb, no bulb; black, black with 0 to 4.
- nurikabe, 104: undecided, shaded, unshaded; islands of any size, of 1 to 100 cells.
- heyawake, 615: for each of the 16 masks of walls, undecided, shaded and unshaded; and the same
  three with a number 0 to 20, for the 9 masks with walls on two adjacent sides. A number stands in
  a corner of its room, with walls on two such sides, in whatever orientation.
- tapa, 45: undecided, shaded, unshaded; the 42 clues that fit into the ring of eight cells.
- shakashaka, 12: undecided, white, 4 triangles; black, black with 0 to 4.

Numbers of heyawake up to 35 could occur in 10x10 cells; those above 20 are omitted to keep the
vocabulary small (the largest number in PPBench's golden set and janko.at's puzzles is 11).
Everything else is complete. The paper has 294 tokens (arXiv 2605.19943, A.3) and does not list
them, so its numbering cannot be reproduced.

Token arrays returned are int32; any integer type is accepted.
"""

import itertools
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
    takes_answer,
    tapa_clues,
)
from ptrm_jax.tasks.ppbench.rules import NO_CLUE, check, clue_code

SIDE = 10
NUM_CELLS = SIDE**2
PAD = 0
MAX_ISLAND = NUM_CELLS
MAX_ROOM_NUMBER = 20

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


def _symbols() -> list[Symbol]:
    numbers = [str(number) for number in range(MAX_ISLAND + 1)]
    givens = {
        "sudoku": [],
        "lightup": ["-", *"01234"],
        "nurikabe": ["-", *numbers[1:]],
        "tapa": tapa_clues(),
        "shakashaka": ["5", *"01234"],
    }
    symbols = [Symbol("")]
    for pid in TYPES:
        if pid == "heyawake":
            for walls in range(16):
                is_corner = walls & (TOP | BOTTOM) and walls & (LEFT | RIGHT)
                for given in [OPEN, *(numbers[: MAX_ROOM_NUMBER + 1] if is_corner else [])]:
                    symbols += [Symbol(pid, given, state, walls) for state in STATES[pid]]
        else:
            symbols += [Symbol(pid, OPEN, state) for state in STATES[pid]]
            symbols += [Symbol(pid, given) for given in givens[pid]]
    return symbols


VOCABULARY = tuple(_symbols())
"""The symbol of each token."""
VOCAB_SIZE = len(VOCABULARY)

_TOKEN_OF = {symbol: token for token, symbol in enumerate(VOCABULARY)}


# By token: [VOCAB_SIZE] int32; _GIVEN bool.
_TYPE = np.array([TYPES.index(s.pid) if s.pid else -1 for s in VOCABULARY], np.int32)
_BASE = np.array([_TOKEN_OF[s._replace(state=OPEN)] for s in VOCABULARY], np.int32)
_STATE = np.array([STATES[s.pid].index(s.state) if s.pid else 0 for s in VOCABULARY], np.int32)
_CLUE = np.array([clue_code(s.pid, s.given) if s.pid else NO_CLUE for s in VOCABULARY], np.int32)
_WALLS = np.array([s.walls for s in VOCABULARY], np.int32)
_GIVEN = np.array(
    [s.pid != "" and (s.state != OPEN or not takes_answer(s.pid, s.given)) for s in VOCABULARY]
)


# Puzzles to tokens.


def encode_problem(puzzle: PencilPuzzle) -> np.ndarray:
    """Tokens of the puzzle with nothing decided: [100] int32.

    Raises:
      VocabularyError: the board is larger than 10x10, or a given is not in the vocabulary.
    """
    return encode_state(puzzle, {})


def encode_answer(puzzle: PencilPuzzle) -> np.ndarray:
    """Tokens of the solution, givens included: [100] int32.

    Raises:
      VocabularyError: as `encode_problem`.
      InputError: the puzzle has no answer.
    """
    if puzzle.answer is None:
        raise InputError(
            f"a puzzle must have an answer to be a label; {puzzle.name or 'this one'} has none; "
            "leave it out"
        )
    return encode_state(puzzle, dict(enumerate(itertools.chain(*puzzle.answer))))


def encode_state(puzzle: PencilPuzzle, decided: dict[int, str]) -> np.ndarray:
    """Tokens of the puzzle with some cells decided: [100] int32.

    Args:
      puzzle: the puzzle.
      decided: symbols as in `PencilPuzzle.answer` by cell, numbered row by row over the board;
        for instance ``dict(puzzle.moves[:n])``. Cells whose given takes no answer are ignored.

    Raises:
      VocabularyError: as `encode_problem`.
    """
    if max(puzzle.height, puzzle.width) > SIDE:
        raise VocabularyError(
            f"a board must fit {SIDE}x{SIDE} cells; {puzzle.name or 'this puzzle'} has "
            f"{puzzle.height}x{puzzle.width}; leave it out, as paper_filter does"
        )
    grid = np.full((SIDE, SIDE), PAD, np.int32)
    for row in range(puzzle.height):
        for column in range(puzzle.width):
            cell, given = row * puzzle.width + column, puzzle.problem[row][column]
            walls = puzzle.walls[row][column] if puzzle.walls else 0
            state = decided.get(cell, OPEN) if takes_answer(puzzle.pid, given) else OPEN
            symbol = Symbol(puzzle.pid, given, state, walls)
            if puzzle.pid == "sudoku":
                state = given if given != OPEN else decided.get(cell, OPEN)
                symbol = Symbol(puzzle.pid, OPEN, state)
            if symbol not in _TOKEN_OF:
                raise VocabularyError(
                    f"a cell must have a token; {puzzle.name or 'this puzzle'} has {given!r} "
                    f"with state {state!r} and walls {walls} in {puzzle.cell_name(cell)} "
                    f"({puzzle.pid}); islands go up to {MAX_ISLAND}, numbers of rooms to "
                    f"{MAX_ROOM_NUMBER} and stand in a corner of their room; leave it out"
                )
            grid[row, column] = _TOKEN_OF[symbol]
    return grid.reshape(-1)


def symbols(tokens: Any) -> list[str]:
    """The given and the state of each cell, as in `PencilPuzzle`: 100 short strings.

    For example, ``2#`` is a shaded cell with the number of its room. A cell with neither is "";
    `PAD` and values that are not tokens are ``?``.

    Raises:
      InputError: `tokens` is not one vector of 100 integers.
    """
    texts = []
    for token in _known(_tokens(tokens, "tokens", ndim=1)).tolist():
        parts = (part for part in VOCABULARY[token][1:3] if part != OPEN)
        texts.append("?" if token == PAD else "".join(parts))
    return texts


def is_given(inputs: Any) -> np.ndarray:
    """Cells of a puzzle that are already decided, or take no answer: [..., 100] bool.

    Args:
      inputs: [..., 100] integer.
    """
    return _GIVEN[inputs]


def draw(tokens: Any, *, clues: Any | None = None) -> str:
    """The board as lines of text, without a final newline.

    Cells are drawn as by `symbols`, empty ones as ``.``. Walls between rooms are drawn as ``|`` and
    ``-``. Padding outside the board is left out.

    Args:
      tokens: [100] integer, a puzzle or an answer; model outputs may hold any value.
      clues: [100] integer, the puzzle that `tokens` answers. Its walls are drawn, and a cell is
        followed by ``!`` if the answer does not keep what the puzzle gives there.

    Raises:
      InputError: `tokens` or `clues` is not one vector of 100 integers.
    """
    values = _tokens(tokens, "tokens", ndim=1)
    frame = _known(values)
    if clues is not None:
        frame = _tokens(clues, "clues", ndim=1)
        _boards(frame[None])  # refuses other tokens than a puzzle's
    texts = np.array([text or OPEN for text in symbols(values)], dtype=object)
    if clues is not None:
        for cell in np.flatnonzero(~_keeps(values, frame)).tolist():
            texts[cell] += "!"

    inside = (frame != PAD).reshape(SIDE, SIDE)
    height, width = (int(extent[0]) for extent in _extents(inside[None]))
    texts = texts.reshape(SIDE, SIDE)[:height, :width]
    walls = _WALLS[frame].reshape(SIDE, SIDE)[:height, :width]
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
      answers: [..., 100] integer, any leading axes, any token values.
      inputs: [..., 100] integer, puzzles of any types, broadcast to `answers` as numpy does; for
        rollouts [B, K, 100] pass ``inputs[:, None]``.

    Raises:
      InputError: an array does not hold vectors of 100 integers, a vector of `inputs` is not a
        puzzle of one type at the top left, or `inputs` does not broadcast.
    """
    answers, inputs = _tokens(answers, "answers"), _tokens(inputs, "inputs")
    lead, problem_lead = answers.shape[:-1], inputs.shape[:-1]
    # Checked before broadcasting: rollouts share their puzzles.
    boards = [x.reshape(problem_lead) for x in _boards(inputs.reshape(-1, NUM_CELLS))]
    try:
        inputs = np.broadcast_to(inputs, answers.shape).reshape(-1, NUM_CELLS)
        types, heights, widths = (np.broadcast_to(x, lead).ravel() for x in boards)
    except ValueError:
        raise InputError(
            f"inputs must broadcast to answers; inputs has shape {inputs.shape} and answers "
            f"{answers.shape}; for rollouts [B, K, 100] pass inputs[:, None]"
        ) from None
    answers = answers.reshape(-1, NUM_CELLS)
    satisfied = np.zeros(len(answers), bool)
    for start in range(0, len(answers), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(answers)))
        # Most wrong answers change a given or leave a cell open; only the others need the rules.
        rows = rows[_keeps(answers[rows], inputs[rows]).all(-1)]
        kinds = np.stack([types[rows], heights[rows], widths[rows]], -1)
        for kind in np.unique(kinds, axis=0):
            chosen = rows[(kinds == kind).all(-1)]
            pid, height, width = TYPES[kind[0]], kind[1], kind[2]
            problems, solutions = (
                x[chosen].reshape(-1, SIDE, SIDE)[:, :height, :width] for x in (inputs, answers)
            )
            satisfied[chosen] = check(pid, _CLUE[problems], _STATE[solutions], _WALLS[problems])
    return satisfied.reshape(lead)


# Checks and messages.


def _keeps(answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Per cell, whether the answer keeps what the puzzle gives and has decided: [..., 100] bool."""
    known = _known(answers)
    kept = (_BASE[known] == _BASE[inputs]) & ((_STATE[inputs] == 0) | (known == inputs))
    return kept | (inputs == PAD)


def _known(tokens: np.ndarray) -> np.ndarray:
    """The tokens, with `PAD` in place of values that are not in the vocabulary."""
    return np.where((tokens >= 0) & (tokens < VOCAB_SIZE), tokens, PAD)


def _boards(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Type index, height and width of puzzles [N, 100]: [N] int32 each."""
    foreign = np.argwhere((inputs < 0) | (inputs >= VOCAB_SIZE))
    if foreign.size:
        row, cell = foreign[0].tolist()
        raise InputError(
            f"a puzzle must hold tokens 0 to {VOCAB_SIZE - 1}; puzzle {row} has "
            f"{inputs[row, cell]} in {_cell_name(cell)}; pass puzzles of this vocabulary"
        )
    cell_types = _TYPE[inputs]
    inside = cell_types >= 0
    types = cell_types.max(-1)
    mixed = np.argwhere(inside & (cell_types != types[:, None]))
    if mixed.size:
        row, cell = mixed[0].tolist()
        raise InputError(
            f"a puzzle must hold tokens of one type; puzzle {row} has some of {TYPES[types[row]]} "
            f"and, in {_cell_name(cell)}, of {TYPES[cell_types[row, cell]]}; correct it"
        )
    grids = inside.reshape(-1, SIDE, SIDE)
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
    """Rows and columns of [N, 10, 10] bool up to the last that has a cell: [N] int32 each."""
    numbers = np.arange(1, SIDE + 1, dtype=np.int32)
    heights = (inside.any(2) * numbers).max(1)
    widths = (inside.any(1) * numbers).max(1)
    return heights, widths


def _tokens(values: Any, name: str, *, ndim: int | None = None) -> np.ndarray:
    """`values` as an array of integers [..., 100], of `ndim` axes if given."""
    array = np.asarray(values)
    ndim_fits = array.ndim > 0 if ndim is None else array.ndim == ndim
    if not ndim_fits or array.shape[-1] != NUM_CELLS or not np.issubdtype(array.dtype, np.integer):
        axes = "[..., 100]" if ndim is None else "[100]"
        raise InputError(
            f"{name} must be integer tokens {axes}; {name} has shape {array.shape} and dtype "
            f"{array.dtype}; pass boards padded to {SIDE}x{SIDE}, as by encode_problem"
        )
    return array


def _cell_name(cell: int) -> str:
    row, column = divmod(cell, SIDE)
    return f"r{row + 1}c{column + 1}"
