"""Tokens of the six types: one vocabulary, boards of 10x10 cells, symmetries and training examples.

A puzzle is the vector of 100 cells, row by row; a smaller board stands at the top left and `PAD`
fills the rest. A token is typed: apart from `PAD` none serves two types, so the type of a puzzle
can be read from its tokens. It says everything about its cell, what is given and what has been
decided. The vocabulary is a closed list of 796 tokens, in this order:

- `PAD`.
- sudoku, 10: undecided, digits 1 to 9. A given digit and a found one are the same token.
- lightup, 9: undecided, bulb, no bulb; black, black with 0 to 4.
- nurikabe, 104: undecided, shaded, unshaded; islands of any size, of 1 to 100 cells.
- heyawake, 615: for each of the 16 masks of walls, undecided, shaded and unshaded; and the same
  three with a number 0 to 20, for the 9 masks with walls on two sides that meet. A number stands in
  a corner of its room, in one that touches the wall on two such sides, however the board is turned.
- tapa, 45: undecided, shaded, unshaded; the 42 clues for which the ring of eight has room.
- shakashaka, 12: undecided, white, 4 triangles; black, black with 0 to 4.

Of heyawake, numbers up to 35 could occur in 10x10 cells; those above 20 are left out for size, and
11 is the largest in the puzzles at hand. Everything else is complete. The paper has 294 tokens
(arXiv 2605.19943, A.3) and does not list them, so its numbering cannot be reproduced.

Token arrays returned are int32; any integer type is accepted.
"""

import itertools
from typing import Any, NamedTuple

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks.ppbench.records import (
    BOTTOM,
    LEFT,
    OPEN,
    RIGHT,
    STATES,
    TOP,
    TYPES,
    Record,
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
    """What a token stands for.

    Attributes:
        pid: type; empty for `PAD`.
        given: as in `Record.problem`; always ``.`` for sudoku, whose digits are states.
        state: as in `Record.answer`; ``.`` where undecided or where the given takes no answer.
        walls: mask of walls, 0 for other types than heyawake.
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


def _table(values: list[int]) -> np.ndarray:
    table = np.array(values, np.int32)
    table.flags.writeable = False  # one array serves every caller
    return table


# Of each token: [VOCAB_SIZE] int32.
_TYPE = _table([TYPES.index(symbol.pid) if symbol.pid else -1 for symbol in VOCABULARY])
_BASE = _table([_TOKEN_OF[symbol._replace(state=OPEN)] for symbol in VOCABULARY])
_STATE = _table([STATES[s.pid].index(s.state) if s.pid else 0 for s in VOCABULARY])
_CLUE = _table([clue_code(s.pid, s.given) if s.pid else NO_CLUE for s in VOCABULARY])
_WALLS = _table([symbol.walls for symbol in VOCABULARY])
_GIVEN = _table(
    [s.pid != "" and (s.state != OPEN or not takes_answer(s.pid, s.given)) for s in VOCABULARY]
)


# Puzzles to tokens and back.


def encode_problem(record: Record) -> np.ndarray:
    """Tokens of the puzzle with nothing decided: [100] int32.

    Raises:
        VocabularyError: the board is larger than 10x10, or a given is not in the vocabulary.
    """
    return encode_state(record, {})


def encode_answer(record: Record) -> np.ndarray:
    """Tokens of the solution, givens included: [100] int32.

    Raises:
        VocabularyError: as `encode_problem`.
        ValueError: the puzzle has no answer.
    """
    if record.answer is None:
        raise InputError(
            f"a puzzle must have an answer to be a label; {record.name or 'this one'} has none; "
            "solve it first, or leave it out"
        )
    return encode_state(record, dict(enumerate(itertools.chain(*record.answer))))


def encode_state(record: Record, decided: dict[int, str]) -> np.ndarray:
    """Tokens of the puzzle with some cells decided: [100] int32.

    Args:
        record: the puzzle.
        decided: symbols as in `Record.answer`, by cell, cells numbered row by row over the board;
            for instance ``dict(record.moves[:n])``. Cells whose given takes no answer are ignored.

    Raises:
        VocabularyError: as `encode_problem`.
    """
    if max(record.height, record.width) > SIDE:
        raise VocabularyError(
            f"a board must fit {SIDE}x{SIDE} cells; {record.name or 'this puzzle'} has "
            f"{record.height}x{record.width}; leave it out, as paper_filter does"
        )
    grid = np.full((SIDE, SIDE), PAD, np.int32)
    for row in range(record.height):
        for column in range(record.width):
            cell, given = row * record.width + column, record.problem[row][column]
            walls = record.walls[row][column] if record.walls else 0
            state = decided.get(cell, OPEN) if takes_answer(record.pid, given) else OPEN
            symbol = Symbol(record.pid, given, state, walls)
            if record.pid == "sudoku":
                state = given if given != OPEN else decided.get(cell, OPEN)
                symbol = Symbol(record.pid, OPEN, state)
            if symbol not in _TOKEN_OF:
                raise VocabularyError(
                    f"a cell must have a token; {record.name or 'this puzzle'} has {given!r} "
                    f"with state {state!r} and walls {walls} in {record.cell_name(cell)} "
                    f"({record.pid}); islands go up to {MAX_ISLAND}, numbers of rooms to "
                    f"{MAX_ROOM_NUMBER} and stand in a corner of their room; leave it out"
                )
            grid[row, column] = _TOKEN_OF[symbol]
    return grid.reshape(-1)


def decode(inputs: Any, labels: Any | None = None) -> Record:
    """The puzzle that tokens stand for; inverse of `encode_problem` and `encode_answer`.

    Args:
        inputs: [100] integer. Decided cells are read as undecided, but for digits of sudoku, which
            are all taken for givens.
        labels: [100] integer, the solution; without it the record has no answer.

    Raises:
        ValueError: `inputs` is not one puzzle, or `labels` not an answer to it in form.
    """
    inputs = _tokens(inputs, "inputs", ndim=1)
    (pid_index,), (height,), (width,) = _boards(inputs[None])
    pid = TYPES[pid_index]
    cells = [
        [VOCABULARY[token] for token in row]
        for row in inputs.reshape(SIDE, SIDE)[:height, :width].tolist()
    ]
    answer = None
    if labels is not None:
        labels = _tokens(labels, "labels", ndim=1)
        inside = inputs != PAD
        known = np.where((labels >= 0) & (labels < VOCAB_SIZE), labels, PAD)
        kept = _BASE[known] == _BASE[inputs]
        if not kept[inside].all():
            cell = int(np.flatnonzero(inside & ~kept)[0])
            raise InputError(
                "labels must keep the givens and walls of inputs; labels has "
                f"{labels[cell]} in {_cell_name(cell)} where inputs has {inputs[cell]}; pass the "
                "solution of this puzzle"
            )
        grid = known.reshape(SIDE, SIDE)[:height, :width].tolist()
        answer = tuple(tuple(VOCABULARY[token].state for token in row) for row in grid)
    givens = tuple(tuple(s.state if pid == "sudoku" else s.given for s in row) for row in cells)
    walls = tuple(tuple(s.walls for s in row) for row in cells) if pid == "heyawake" else None
    return Record(pid, givens, answer, walls)


def symbols(tokens: Any) -> list[str]:
    """Each cell by its given and its state, as in `Record`: 100 short texts.

    So ``2#`` is a shaded cell that holds the number of its room. A cell with neither is "", `PAD`
    and a token of no meaning are ``?``.

    Raises:
        ValueError: `tokens` is not one vector of 100 integers.
    """
    values = _tokens(tokens, "tokens", ndim=1)
    texts = []
    for token in np.where((values >= 0) & (values < VOCAB_SIZE), values, PAD).tolist():
        parts = [
            part for part in (VOCABULARY[token].given, VOCABULARY[token].state) if part != OPEN
        ]
        texts.append("?" if token == PAD else "".join(parts))
    return texts


def is_given(inputs: Any) -> np.ndarray:
    """Cells of a puzzle that are decided already, or take no answer: [..., 100] bool.

    Args:
        inputs: [..., 100] integer.
    """
    return _GIVEN[inputs] != 0


def draw(tokens: Any, *, clues: Any | None = None) -> str:
    """The board as lines of text, without a final newline.

    Cells are drawn as by `symbols`, an empty one as ``.``. Walls between rooms are drawn as ``|``
    and ``-``. Pads outside the board are left out.

    Args:
        tokens: [100] integer, a puzzle or an answer; model outputs may hold any value.
        clues: [100] integer, the puzzle that `tokens` answers. Its walls are drawn then, and a cell
            is followed by ``!`` where the answer does not keep what it gives.

    Raises:
        ValueError: `tokens` or `clues` is not one vector of 100 integers.
    """
    values = _tokens(tokens, "tokens", ndim=1)
    frame = np.where((values >= 0) & (values < VOCAB_SIZE), values, PAD)
    if clues is not None:
        frame = _tokens(clues, "clues", ndim=1)
        _boards(frame[None])  # refuses what is no puzzle
    texts = np.array([text or OPEN for text in symbols(values)], dtype=object)
    if clues is not None:
        for cell in np.flatnonzero(~_keeps(values, frame)).tolist():
            texts[cell] += "!"

    inside = (frame != PAD).reshape(SIDE, SIDE)
    height, width = _extents(inside[None])
    height, width = int(height[0]), int(width[0])
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


def type_of(inputs: Any) -> np.ndarray:
    """The type of each puzzle: [...] int32, an index into `TYPES`.

    Args:
        inputs: [..., 100] integer.

    Raises:
        ValueError: a vector is no puzzle of one type at the top left.
    """
    inputs = _tokens(inputs, "inputs")
    types, _, _ = _boards(inputs.reshape(-1, NUM_CELLS))
    return types.reshape(inputs.shape[:-1])


def satisfies_rules(answers: Any, inputs: Any) -> np.ndarray:
    """Whether each answer is a solution of its puzzle: [...] bool.

    True where the answer satisfies every rule of the type, decides every cell, and keeps the
    givens, walls and decided cells of the puzzle. It needs no label: for a uniquely solvable
    puzzle, the label is the one answer of which it is true, whatever stands at pads of the puzzle.

    Args:
        answers: [..., 100] integer, any leading axes, any token values.
        inputs: [..., 100] integer, the puzzles, types mixed at will, broadcast to `answers` as
            numpy does; for rollouts [B, K, 100] pass ``inputs[:, None]``.

    Raises:
        ValueError: an array does not hold vectors of 100 integers, a vector of `inputs` is no
            puzzle of one type at the top left, or `inputs` does not broadcast.
    """
    answers, inputs = _tokens(answers, "answers"), _tokens(inputs, "inputs")
    lead, problem_lead = answers.shape[:-1], inputs.shape[:-1]
    # Looked at before they are broadcast: rollouts share their puzzles.
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
        # Most wrong answers break a given or leave a cell open; only the others need the rules.
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
    known = np.where((answers >= 0) & (answers < VOCAB_SIZE), answers, PAD)
    kept = (_BASE[known] == _BASE[inputs]) & ((_STATE[inputs] == 0) | (known == inputs))
    return kept | (inputs == PAD)


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
    """Rows and columns up to the last that holds a cell, of [N, 10, 10] bool: [N] int32 each."""
    numbers = np.arange(1, SIDE + 1, dtype=np.int32)
    heights = (inside.any(2) * numbers).max(1)
    widths = (inside.any(1) * numbers).max(1)
    return heights, widths


def _tokens(values: Any, name: str, *, ndim: int | None = None) -> np.ndarray:
    """`values` as an array of integers [..., 100], of `ndim` axes where that is given."""
    array = np.asarray(values)
    ndim_fits = array.ndim > 0 if ndim is None else array.ndim == ndim
    if not ndim_fits or array.shape[-1] != NUM_CELLS or not np.issubdtype(array.dtype, np.integer):
        axes = "[..., 100]" if ndim is None else "[100]"
        raise InputError(
            f"{name} must be integer tokens {axes}; {name} has shape {array.shape} and dtype "
            f"{array.dtype}; pass boards padded to {SIDE}x{SIDE}, as encode_problem makes them"
        )
    return array


def _cell_name(cell: int) -> str:
    row, column = divmod(cell, SIDE)
    return f"r{row + 1}c{column + 1}"
