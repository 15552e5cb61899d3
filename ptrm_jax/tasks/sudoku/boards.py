"""Sudoku of 4x4, 6x6 and 9x9 cells: text, files, rules, an exact solver and a generator.

Tokens are those of upstream TRM (``dataset/build_sudoku_dataset.py``): ``PAD`` 0, ``BLANK`` 1,
digit ``d`` is ``d + 1``. A board is the vector of its cells, row by row. In the shapes below S is
the number of cells (16, 36 or 81), n the size (4, 6 or 9), B the number of puzzles, K of rollouts.

Arrays of any integer type are accepted, token arrays returned are int32, and messages call the cell
in row 2, column 7 ``r2c7``. All runs on the host but what `augment` gives. The solver, the
generator and the canonical forms are compiled by numba, which is imported when one of them is first
called.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import csv_format
from ptrm_jax.tasks.symmetry import Augment
from ptrm_jax.tasks.task import Labelled, Task, bands

PAD = 0
BLANK = 1
FIRST_DIGIT = 2  # the token of digit 1

_BLANK_CHARACTERS = ".0_"
_TOKEN_OF = dict.fromkeys(_BLANK_CHARACTERS, BLANK) | {str(d): d + 1 for d in range(1, 10)}
_RULING = "|+-"  # the characters `draw` puts between boxes
_MAX_REDRAWS = 1000
_CHUNK = 512  # puzzles of one call of the compiled generator


@dataclass(frozen=True)
class Board:
    """Geometry of one board size.

    Attributes:
        size: n, the number of rows, of columns, of boxes and of digits.
        box_rows: rows of one box.
        box_cols: columns of one box.

    Raises:
        ValueError: a box does not hold `size` cells.
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
        """Cell indices of the rows, the columns and the boxes, in this order: [3n, n] int64."""
        cells = np.arange(self.num_cells).reshape(self.size, self.size)
        boxes = cells.reshape(self.box_cols, self.box_rows, self.box_rows, self.box_cols)
        boxes = boxes.swapaxes(1, 2).reshape(self.size, self.size)
        units = np.concatenate([cells, cells.T, boxes])
        units.flags.writeable = False  # one array serves every caller
        return units


_BOARDS = {board.num_cells: board for board in (Board(4, 2, 2), Board(6, 2, 3), Board(9, 3, 3))}


def board_for(num_cells: int) -> Board:
    """The board with `num_cells` cells.

    Raises:
        ValueError: `num_cells` is not 16, 36 or 81.
    """
    if num_cells not in _BOARDS:
        raise InputError(
            f"a Sudoku must have 16 (4x4), 36 (6x6) or 81 (9x9) cells; num_cells ({num_cells}) is "
            "none of these; pass one whole board, row by row"
        )
    return _BOARDS[num_cells]


def encode(text: str) -> np.ndarray:
    """Tokens of a written puzzle: [S] int32.

    Args:
        text: S cells, row by row. A digit is a clue; ``.``, ``0`` and ``_`` are blanks. White space
            and box lines of ``|``, ``+`` and ``-`` are skipped, so a drawn board can be pasted.

    Raises:
        ValueError: a foreign character, a number of cells that is no board, or a digit above n.
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
    if len(tokens) not in _BOARDS:
        raise InputError(
            f"a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells; text has {len(tokens)}; "
            "write one character per cell, '.' for a blank"
        )
    board = board_for(len(tokens))
    if max(tokens) >= board.vocab_size:
        cell = next(cell for cell, token in enumerate(tokens) if token >= board.vocab_size)
        raise InputError(
            f"digits must be 1 to {board.size} on a board of {len(tokens)} cells; text has "
            f"{cells[cell]} in {_name(board, cell)}; correct the digit, or write the whole of a "
            "larger board"
        )
    return np.array(tokens, np.int32)


def decode(tokens: Any) -> str:
    """One line of S characters: digits, ``.`` for a blank, ``?`` for any other token.

    Args:
        tokens: [S] integer; model outputs may hold any value.

    Raises:
        ValueError: `tokens` is not one board of integers.
    """
    board, values = _one_board(tokens)
    characters = {BLANK: "."} | {d + 1: str(d) for d in range(1, board.size + 1)}
    return "".join(characters.get(token, "?") for token in values)


def draw(tokens: Any, *, clues: Any | None = None) -> str:
    """The board as lines of text with its boxes ruled, without a final newline.

    Args:
        tokens: [S] integer, a puzzle or an answer.
        clues: [S] integer, the puzzle that `tokens` answers. Clues are then drawn as ``[5]``, and
            cells that were blank as they are. Where the answer changes a clue, its own digit is
            drawn as ``!5!``.

    Raises:
        ValueError: `tokens` or `clues` is not one board of integers, or their sizes differ.
    """
    board, values = _one_board(tokens)
    clue_board, clue_values = _one_board(tokens if clues is None else clues, "clues")
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


def check_clues(tokens: Any) -> None:
    """Refuses a puzzle in which two clues contradict each other.

    A puzzle that passes may still have no solution; `solve_exact` tells.

    Args:
        tokens: [S] integer, blanks and digits only.

    Raises:
        ValueError: the same digit stands twice in a row, column or box, or `tokens` is not one
            puzzle of blanks and digits.
    """
    board, values = _one_puzzle(tokens)
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
                    f"{_name(board, first_cell[token])} and in {_name(board, cell)}; correct or "
                    "blank one of them"
                )
            first_cell[token] = cell


def satisfies_rules(answers: Any, inputs: Any) -> np.ndarray:
    """Whether each answer is a solution of its puzzle: [...] bool.

    True where every row, column and box holds each digit once and every clue is kept. It needs no
    label: for a uniquely solvable puzzle, the label is the one answer of which it is true.

    Args:
        answers: [..., S] integer, any leading axes, any token values.
        inputs: [..., S] integer, the puzzles, broadcast to `answers` as numpy does; for rollouts
            [B, K, S] pass ``inputs[:, None]``. Pads and blanks ask for nothing.

    Raises:
        ValueError: either array is not integer, S is no board, or `inputs` does not broadcast.
    """
    answers, inputs = _integers(answers, "answers"), _integers(inputs, "inputs")
    board = board_for(answers.shape[-1])
    try:
        inputs = np.broadcast_to(inputs, answers.shape)
    except ValueError:
        raise InputError(
            f"inputs must broadcast to answers; inputs has shape {inputs.shape} and answers "
            f"{answers.shape}; for rollouts [B, K, S] pass inputs[:, None]"
        ) from None

    satisfied = np.asarray(((inputs < FIRST_DIGIT) | (answers == inputs)).all(axis=-1))
    # Bit t for token t, bit 0 for tokens that are no digit: a unit of n cells is right exactly when
    # the union of its bits is the n digits. Cells lead, so that each step runs over all answers;
    # units go one by one, since gathering all would take three times the memory of the bits.
    is_digit = (answers >= FIRST_DIGIT) & (answers < board.vocab_size)
    tokens = np.moveaxis(np.where(is_digit, answers, PAD).astype(np.uint16), -1, 0)
    bits = np.left_shift(np.uint16(1), tokens, order="C")
    digits = (1 << board.vocab_size) - (1 << FIRST_DIGIT)
    for unit in board.units:
        satisfied &= np.bitwise_or.reduce(bits[unit], axis=0) == digits
    return satisfied


def count_solutions(tokens: Any, limit: int = 2) -> int:
    """The number of solutions of a puzzle, counted up to `limit`.

    With the default, 1 means that the solution is unique. Contradicting clues give 0.

    Args:
        tokens: [S] integer, blanks and digits only.
        limit: where to stop, at least 1; an empty 9x9 board has more than 10**21 solutions.

    Raises:
        ValueError: `tokens` is not one puzzle of blanks and digits, or `limit` is below 1.
    """
    if limit < 1:
        raise InputError(f"limit must be at least 1; limit is {limit}; pass 2 to test uniqueness")
    # No computer counts beyond an int64.
    return _solve(tokens, min(limit, np.iinfo(np.int64).max))[0]


def solve_exact(tokens: Any) -> np.ndarray | None:
    """A solution of the puzzle, [S] int32, or None where there is none.

    Args:
        tokens: [S] integer, blanks and digits only. If several solutions exist, which of them is
            returned is unspecified but always the same.

    Raises:
        ValueError: `tokens` is not one puzzle of blanks and digits.
    """
    found, solution = _solve(tokens, 1)
    return solution if found else None


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
    the solution stays unique. The puzzle left is minimal: without any one of its clues it has
    several solutions. Neither step is exactly uniform, over all boards or over all minimal puzzles.

    Puzzle i depends on `size`, `seed`, `extra_clues`, `split` and i alone, so a longer run begins
    with the shorter one. If it equals an earlier puzzle of the run it is drawn again, so no puzzle
    occurs twice. Solutions may repeat (there are 288 of 4x4), and puzzles that differ by a symmetry
    are distinct. The streams do not depend on the versions of numpy and numba.

    One core makes 6500 minimal 9x9 puzzles per second, 5000 of the training split, 1500 of the test
    split (AMD EPYC, once compiled).

    The bundled ``assets/puzzles/sudoku6.csv`` and ``sudoku9.csv`` are
    ``generate(6, 512, seed=2026, split="test")`` and ``generate(9, 512, seed=2026, split="test")``.

    Args:
        size: 4, 6 or 9.
        count: number of puzzles.
        seed: any integer from 0.
        extra_clues: solution cells to show, drawn at random, beyond those of the minimal puzzle; at
            most half of the board. Puzzles with extra clues are easier and no longer minimal.
        split: draw again until `in_test_split` of the minimal puzzle is true ("test") or false
            ("train"). No seed and count then make a training puzzle that is equivalent to a test
            puzzle, in the sense of `canonical`; on 9x9 not even with extra clues in either.
        workers: threads to draw with; the puzzles do not depend on it.

    Raises:
        ValueError: an argument is out of its range, or `count` is more than the small boards offer.
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

    kernels = _kernels()
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
                    f"count must not exceed the distinct puzzles; count is {count}, and {redraw} "
                    f"draws of puzzle {index} gave earlier ones; pass a smaller count or a larger "
                    "size"
                )
            draw(index, index + 1, redraw)
        seen.add(puzzle)
    return inputs, labels


def canonical(inputs: Any, labels: Any) -> np.ndarray:
    """One representative of each puzzle and all puzzles equivalent to it: [B, 2S] uint8.

    Equivalent are puzzles that become equal by renaming digits, permuting bands (rows of boxes),
    rows in a band, stacks (columns of boxes) and columns in a stack, and by transposing the board
    where boxes are square (4x4 and 9x9). Two puzzles are equivalent exactly when these rows are
    equal, their solutions exactly when the first S values are.

    Of all transformed solutions, the first S values are the lexicographically least, in digits 1 to
    n; they begin with 1, 2, ..., n. The other S values are 1 for a clue and 0 for a blank, the
    least of all that belong to this solution. A 9x9 puzzle takes 35 microseconds.

    Args:
        inputs: [B, S] integer, puzzles with one solution each, which is not checked.
        labels: [B, S] integer, the solutions.

    Raises:
        ValueError: shapes differ or are no boards, a token of `inputs` is neither blank nor digit,
            or a label does not solve its puzzle.
    """
    board, inputs, labels = _solved_puzzles(inputs, labels)
    kernels = _kernels()
    forms = np.empty((len(inputs), 2 * board.num_cells), np.uint8)
    kernels.canonical_forms(kernels.symmetries(board), inputs, labels, forms)
    return forms


def puzzle_keys(inputs: Any, labels: Any) -> np.ndarray:
    """A 64-bit hash of the `canonical` form of each puzzle: [B] uint64, on all machines the same.

    Equivalent puzzles have equal keys. That any two of a million others have equal keys has a
    probability of 3e-8.

    Args:
        inputs: see `canonical`.
        labels: see `canonical`.

    Raises:
        ValueError: see `canonical`.
    """
    forms = canonical(inputs, labels)
    kernels = _kernels()
    keys = np.empty(len(forms), np.uint64)
    kernels.hashes(forms, keys)
    return keys


def in_test_split(inputs: Any, labels: Any) -> np.ndarray:
    """Whether each minimal puzzle belongs to the test split of `generate`: [B] bool.

    A hash decides, and gives one class in eight to the test split. On 9x9 it is the hash of the
    `canonical` solution, so that training and test puzzles have different solutions whatever their
    clues are, minimal or not. Solved 4x4 and 6x6 boards have but 2 and 49 classes; there it is the
    hash of the `canonical` puzzle, and solutions are shared. Of the 36 classes of minimal 4x4
    puzzles 4 are for testing.

    Args:
        inputs: [B, S] integer, see `canonical`; 4x4 and 6x6 puzzles as they were before extra clues
            were added.
        labels: see `canonical`.

    Raises:
        ValueError: see `canonical`.
    """
    forms = canonical(inputs, labels)
    kernels = _kernels()
    members = np.empty(len(forms), bool)
    kernels.in_test(forms, members)
    return members


def augment(num_cells: int) -> Augment:
    """What draws one of the symmetries of a board of `num_cells` cells, uniformly.

    The group permutes the digits, the bands, the rows within each band, the stacks, the columns
    within each stack, and, where boxes are square, transposes the board. It maps puzzles to puzzles
    and their solutions to the solutions. Pads and blanks stay pads and blanks.
    """
    board = board_for(num_cells)
    n, box_rows, box_cols = board.size, board.box_rows, board.box_cols

    def line_order(key: jax.Array, lines_per_box: int) -> jax.Array:
        """Which old row (or column) stands in each new one: [n]."""
        band_key, line_key = jax.random.split(key)
        bands = jax.random.permutation(band_key, n // lines_per_box)
        lines = jnp.tile(jnp.arange(lines_per_box), (n // lines_per_box, 1))
        lines = jax.random.permutation(line_key, lines, axis=1, independent=True)
        return (bands[:, None] * lines_per_box + lines).reshape(n)

    def draw_one(
        key: jax.Array, inputs: jax.Array, labels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        digit_key, row_key, column_key, transpose_key = jax.random.split(key, 4)
        digits = jax.random.permutation(digit_key, n) + FIRST_DIGIT
        tokens = jnp.concatenate([jnp.arange(FIRST_DIGIT), digits]).astype(inputs.dtype)
        rows, columns = line_order(row_key, box_rows), line_order(column_key, box_cols)
        cells = rows[:, None] * n + columns[None, :]
        if box_rows == box_cols:
            cells = jnp.where(jax.random.bernoulli(transpose_key), cells.T, cells)
        cells = cells.reshape(-1)
        return tokens[inputs[cells]], tokens[labels[cells]]

    return draw_one


def read_csv(
    path: str | os.PathLike[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Puzzles of a file in the format of Sudoku-Extreme: inputs, labels, ratings, sources.

    Every answer is checked to solve its puzzle; that it is the only solution is not.

    Args:
        path: a UTF-8 CSV file with the columns ``source,question,answer,rating``, all boards of one
            size; questions and answers as in `encode`, ratings finite numbers.

    Returns:
        inputs: [B, S] int32, the puzzles.
        labels: [B, S] int32, their solutions.
        ratings: [B] float64, difficulty as the source gives it; -1 where unknown.
        sources: B strings, where each puzzle is from.

    Raises:
        ValueError: the file has no rows or other columns, a row is malformed or of another size
            than the first, or an answer does not solve its puzzle. The message begins
            ``path:line:``.
        OSError: the file cannot be read.
    """
    return csv_format.read_csv(path, encode, satisfies_rules, _wrong_answer)


def write_csv(
    path: str | os.PathLike[str],
    inputs: Any,
    labels: Any,
    sources: Sequence[str] | None = None,
    ratings: Any | None = None,
) -> None:
    """Writes puzzles in the format `read_csv` reads; checks everything before it opens the file.

    Args:
        path: file to write, replaced if it exists.
        inputs: [B, S] integer, blanks and digits only, B at least 1.
        labels: [B, S] integer, the solutions.
        sources: B strings; empty where not given.
        ratings: [B] finite numbers; -1, unknown, where not given.

    Raises:
        ValueError: shapes or lengths disagree, a token is neither blank nor digit, a label does not
            solve its puzzle, or a rating is not finite.
        OSError: the file cannot be written.
    """
    csv_format.write_csv(
        path,
        _integers(inputs, "inputs"),
        _integers(labels, "labels"),
        sources,
        ratings,
        decode=decode,
        check_inputs=_check_puzzles,
        satisfies_rules=satisfies_rules,
        wrong_answer=_wrong_answer,
    )


def _kernels() -> ModuleType:
    """The compiled functions, imported late because numba takes 0.2 s to import."""
    from ptrm_jax.tasks.sudoku import kernels as _sudoku_kernels

    return _sudoku_kernels


def _solve(tokens: Any, limit: int) -> tuple[int, np.ndarray]:
    """How many solutions there are, up to `limit`, and the last of these, [S] int32."""
    board, values = _one_puzzle(tokens)
    kernels = _kernels()
    solution = np.empty(board.num_cells, np.int32)
    found = kernels.solve(kernels.geometry(board), np.array(values, np.int32), limit, solution)
    return found, solution


# Checks and messages.


def _integers(values: Any, name: str) -> np.ndarray:
    """`values` as an array of integers with at least one axis."""
    array = np.asarray(values)
    if array.ndim == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"{name} must be an array of integer tokens; {name} has shape {array.shape} and dtype "
            f"{array.dtype}; pass tokens, as encode makes them from text"
        )
    return array


def _one_board(tokens: Any, name: str = "tokens") -> tuple[Board, list[int]]:
    """The board `tokens` fills and its values, which may be any integers."""
    array = _integers(tokens, name)
    if array.ndim != 1 or len(array) not in _BOARDS:
        raise InputError(
            f"{name} must be one board of 16, 36 or 81 cells; {name} has shape {array.shape}; pass "
            "one puzzle, row by row"
        )
    return board_for(len(array)), array.tolist()


def _one_puzzle(tokens: Any) -> tuple[Board, list[int]]:
    """The board `tokens` fills and its values, all blanks and digits."""
    board, values = _one_board(tokens)
    _check_alphabet(board, values, "tokens")
    return board, values


def _solved_puzzles(inputs: Any, labels: Any) -> tuple[Board, np.ndarray, np.ndarray]:
    """The board of puzzles and solutions, and both as checked arrays, [B, S] int32."""
    inputs, labels = _integers(inputs, "inputs"), _integers(labels, "labels")
    if inputs.ndim != 2 or inputs.shape != labels.shape:
        raise InputError(
            f"inputs and labels must have one shape [B, S]; inputs has shape {inputs.shape} and "
            f"labels {labels.shape}; pass one row per puzzle"
        )
    board = _check_puzzles(inputs)
    wrong = np.flatnonzero(~satisfies_rules(labels, inputs))
    if wrong.size:
        raise InputError(f"row {wrong[0]}: {_wrong_answer(labels[wrong[0]])}")
    return board, np.ascontiguousarray(inputs, np.int32), np.ascontiguousarray(labels, np.int32)


def _check_puzzles(inputs: np.ndarray) -> Board:
    """The board of puzzles [B, S], all blanks and digits."""
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
                f"{_name(board, cell)}; note that digit d is token d + 1"
            )


def _wrong_answer(answer: np.ndarray) -> str:
    return (
        "an answer must keep the clues and hold each digit once in every row, column and box; "
        f"answer {decode(answer)} does not; correct or remove the row"
    )


def _name(board: Board, cell: int) -> str:
    row, column = divmod(cell, board.size)
    return f"r{row + 1}c{column + 1}"


# The task.


def _read(path: str | os.PathLike[str]) -> Labelled:
    inputs, labels, ratings, _ = read_csv(path)
    strata = {"clues": bands((inputs >= FIRST_DIGIT).sum(axis=1))}
    if (ratings != csv_format.UNKNOWN_RATING).any():
        strata["rating"] = bands(ratings)
    return Labelled(inputs, labels, strata)


def _reads(path: str | os.PathLike[str]) -> bool:
    return os.path.splitext(path)[1] == ".csv"


def _training_keys(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`puzzle_keys` of what must not be shared by training and scoring.

    On 9x9 the solution decides: training shows extra clues at random, and two puzzles of one
    solution could come to the same. Solved 6x6 boards have but 49 classes, so there it is the
    puzzle; one with extra clues is not minimal, and never equal to one that is.
    """
    return puzzle_keys(labels if inputs.shape[1] == 81 else inputs, labels)


def _generate(
    size: int, count: int, *, seed: int, split: str, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    return generate(size, count, seed, split=split, **{"workers": os.cpu_count() or 1} | options)


def _encode_puzzle(text: str) -> np.ndarray:
    tokens = encode(text)
    check_clues(tokens)
    return tokens


TASK = Task(
    name="sudoku",
    is_text=lambda text: True,
    encode=_encode_puzzle,
    bundled=lambda num_cells: f"sudoku{board_for(num_cells).size}",
    count_solutions=count_solutions,
    vocab_size=lambda num_cells: board_for(num_cells).vocab_size,
    reads=_reads,
    read=_read,
    satisfies_rules=satisfies_rules,
    draw=draw,
    decode=decode,
    symbols=lambda tokens: [char.strip(".") for char in decode(tokens)],
    given=lambda tokens: tokens >= FIRST_DIGIT,
    puzzle_keys=_training_keys,
    augment=augment,
    generate=_generate,
    options={"seed": int, "extra_clues": int, "workers": int},
)
