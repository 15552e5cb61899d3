"""Sudoku of 4x4, 6x6 and 9x9 cells: text, files, rules, an exact solver and a generator.

Tokens are those of upstream TRM (``dataset/build_sudoku_dataset.py``): ``PAD`` 0, ``BLANK`` 1,
digit ``d`` is ``d + 1``. A board is the vector of its cells, row by row. In the shapes below S is
the number of cells (16, 36 or 81), n the size (4, 6 or 9), B the number of puzzles, K of rollouts.

Everything here runs on the host in numpy. Arrays of any integer type are accepted, token arrays
returned are int32, and messages call the cell in row 2, column 7 ``r2c7``.
"""

import csv
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np

PAD = 0
BLANK = 1
FIRST_DIGIT = 2  # the token of digit 1

CSV_COLUMNS = ("source", "question", "answer", "rating")
UNKNOWN_RATING = -1.0

_BLANK_CHARACTERS = ".0_"
_TOKEN_OF = dict.fromkeys(_BLANK_CHARACTERS, BLANK) | {str(d): d + 1 for d in range(1, 10)}
_RULING = "|+-"  # the characters `draw` puts between boxes
_MAX_REDRAWS = 1000


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
            raise ValueError(
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

    @cached_property
    def _unit_bits(self) -> tuple[int, ...]:
        """Per unit, the bit set of its cells."""
        return tuple(sum(1 << cell for cell in unit) for unit in self.units.tolist())

    @cached_property
    def _unseen(self) -> tuple[int, ...]:
        """Per cell, the bit set of the cells that share no unit with it, and of the cell itself."""
        unseen = [(1 << self.num_cells) - 1] * self.num_cells
        for cell in range(self.num_cells):
            for unit in self._unit_bits:
                if unit >> cell & 1:
                    unseen[cell] &= ~unit
            unseen[cell] |= 1 << cell
        return tuple(unseen)


_BOARDS = {board.num_cells: board for board in (Board(4, 2, 2), Board(6, 2, 3), Board(9, 3, 3))}


def board_for(num_cells: int) -> Board:
    """The board with `num_cells` cells.

    Raises:
        ValueError: `num_cells` is not 16, 36 or 81.
    """
    if num_cells not in _BOARDS:
        raise ValueError(
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
        raise ValueError(
            "a puzzle must be written in digits, with '.', '0' or '_' for blanks; text has "
            f"{char!r} at line {len(before)}, column {len(before[-1]) + 1}; remove or replace it"
        )
    if len(tokens) not in _BOARDS:
        raise ValueError(
            f"a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells; text has {len(tokens)}; "
            "write one character per cell, '.' for a blank"
        )
    board = board_for(len(tokens))
    if max(tokens) >= board.vocab_size:
        cell = next(cell for cell, token in enumerate(tokens) if token >= board.vocab_size)
        raise ValueError(
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
        raise ValueError(
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
                raise ValueError(
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
        raise ValueError(
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
        raise ValueError(f"limit must be at least 1; limit is {limit}; pass 2 to test uniqueness")
    board, values = _one_puzzle(tokens)
    return sum(1 for _ in islice(_solutions(board, _places(board, values)), limit))


def solve_exact(tokens: Any) -> np.ndarray | None:
    """A solution of the puzzle, [S] int32, or None where there is none.

    Args:
        tokens: [S] integer, blanks and digits only. If several solutions exist, which of them is
            returned is unspecified but always the same.

    Raises:
        ValueError: `tokens` is not one puzzle of blanks and digits.
    """
    board, values = _one_puzzle(tokens)
    solution = next(_solutions(board, _places(board, values)), None)
    return None if solution is None else np.array(_tokens(board, solution), np.int32)


def generate(
    size: int, count: int, seed: int, *, extra_clues: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Random uniquely solvable puzzles and their solutions: inputs, labels, each [count, S] int32.

    A board is filled at random by backtracking, then its cells are blanked in random order wherever
    the solution stays unique. The puzzle left is minimal: without any one of its clues it has
    several solutions. Neither step is exactly uniform, over all boards or over all minimal puzzles.

    Puzzle i depends on `size`, `seed`, `extra_clues` and i alone, so a longer run begins with the
    shorter one. It is drawn from ``SeedSequence(seed, spawn_key=(i, r))`` with r = 0; if it equals
    an earlier puzzle of the run it is drawn again with r = 1, 2, ..., so no puzzle occurs twice.
    Solutions may repeat (there are 288 of 4x4), and puzzles that differ by a symmetry are distinct.

    The bundled ``assets/puzzles/sudoku6.csv`` and ``sudoku9.csv`` are
    ``generate(6, 512, seed=2026)`` and ``generate(9, 512, seed=2026)``, made with numpy 2.4. A
    numpy that changes the streams of its ``Generator`` makes other puzzles.

    Args:
        size: 4, 6 or 9.
        count: number of puzzles.
        seed: any integer from 0.
        extra_clues: solution cells to show, drawn at random, beyond those of the minimal puzzle; at
            most half of the board. Puzzles with extra clues are easier and no longer minimal.

    Raises:
        ValueError: an argument is out of its range, or `count` is more than the small boards offer.
    """
    if size not in (4, 6, 9):
        raise ValueError(f"size must be 4, 6 or 9; size is {size}; pass one of these")
    board = board_for(size**2)
    # Minimal puzzles leave this many blanks: at most 6 clues are known on 4x4 and 40 on 9x9, and
    # those made here on 6x6 have about 10.
    half = board.num_cells // 2
    if count < 0 or seed < 0 or not 0 <= extra_clues <= half:
        raise ValueError(
            f"count and seed must be at least 0, and extra_clues 0 to {half} on a {size}x{size} "
            f"board; count is {count}, seed {seed}, extra_clues {extra_clues}; pass values in range"
        )

    puzzles: dict[tuple[int, ...], list[int]] = {}  # in order of insertion
    for index in range(count):
        for redraw in range(_MAX_REDRAWS):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, redraw)))
            puzzle, solution = _random_puzzle(board, rng, extra_clues)
            if puzzle not in puzzles:
                break
        else:
            raise ValueError(
                f"count must not exceed the distinct puzzles; count is {count}, and {_MAX_REDRAWS} "
                f"draws of puzzle {index} gave earlier ones; pass a smaller count or a larger size"
            )
        puzzles[puzzle] = solution
    shape = (count, board.num_cells)
    inputs = np.array(list(puzzles), np.int32).reshape(shape)
    return inputs, np.array(list(puzzles.values()), np.int32).reshape(shape)


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
    lines: list[int] = []  # where each row ends
    sources: list[str] = []
    inputs: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    ratings: list[float] = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            _check_header(next(reader, []))
            for row in reader:
                source, question, answer, rating = _parse_row(row)
                num_cells = len(inputs[0]) if inputs else len(question)
                if not len(question) == len(answer) == num_cells:
                    raise ValueError(
                        f"all boards of a file must have one size, here {num_cells} cells; "
                        f"question has {len(question)} and answer {len(answer)}; use one file per "
                        "size"
                    )
                lines.append(reader.line_num)
                sources.append(source)
                inputs.append(question)
                labels.append(answer)
                ratings.append(rating)
            if not inputs:
                raise ValueError(
                    "a puzzle file must hold at least one puzzle; it has 0 rows below its header; "
                    "add rows or pass another path"
                )
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{os.fspath(path)}:{max(reader.line_num, 1)}: a puzzle file must be CSV in UTF-8; "
                f"reading stopped here with {str(error)!r}; correct the quotes or the encoding"
            ) from error
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}:{max(reader.line_num, 1)}: {error}") from None

    puzzles, answers = np.stack(inputs), np.stack(labels)
    wrong = np.flatnonzero(~satisfies_rules(answers, puzzles))
    if wrong.size:
        raise ValueError(f"{os.fspath(path)}:{lines[wrong[0]]}: {_wrong_answer(answers[wrong[0]])}")
    return puzzles, answers, np.array(ratings, np.float64), sources


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
    inputs, labels = _integers(inputs, "inputs"), _integers(labels, "labels")
    if inputs.ndim != 2 or inputs.shape != labels.shape or not len(inputs):
        raise ValueError(
            "inputs and labels must have one shape [B, S] with B at least 1; inputs has shape "
            f"{inputs.shape} and labels {labels.shape}; pass one row per puzzle"
        )
    board = board_for(inputs.shape[1])
    if sources is None:
        sources = [""] * len(inputs)
    if ratings is None:
        ratings = np.full(len(inputs), UNKNOWN_RATING)
    ratings = np.asarray(ratings, np.float64)
    if len(sources) != len(inputs) or ratings.shape != inputs.shape[:1]:
        raise ValueError(
            f"sources and ratings must have one entry per puzzle; there are {len(inputs)} puzzles, "
            f"{len(sources)} sources and ratings of shape {ratings.shape}; pass matching rows"
        )
    if not np.isfinite(ratings).all():
        row = int(np.flatnonzero(~np.isfinite(ratings))[0])
        raise ValueError(
            f"ratings must be finite; row {row} has rating {ratings[row]}; pass {UNKNOWN_RATING:g} "
            "where it is unknown"
        )
    for index, puzzle in enumerate(inputs.tolist()):
        _check_alphabet(board, puzzle, f"inputs[{index}]")
    wrong = np.flatnonzero(~satisfies_rules(labels, inputs))
    if wrong.size:
        raise ValueError(f"row {wrong[0]}: {_wrong_answer(labels[wrong[0]])}")

    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(CSV_COLUMNS)
        for source, puzzle, answer, rating in zip(
            sources, inputs, labels, ratings.tolist(), strict=True
        ):
            number = int(rating) if rating.is_integer() else rating
            writer.writerow([source, decode(puzzle), decode(answer), number])


# The solver. Its state is a list `places` of n bit sets, one per digit: bit c of `places[d]` says
# that digit d + 1 may stand in cell c. One pass over the n integers then counts the candidates of
# every cell at once.


def _solutions(
    board: Board, places: Sequence[int], rng: np.random.Generator | None = None, done: int = 0
) -> Iterator[list[int]]:
    """Yields every way to fill the board within `places`, as places with one digit per cell.

    Settles what is forced: cells with one candidate, then digits with one place in a unit. Branches
    on a cell with two candidates or else a digit with two places, which keeps contradictory boards
    from being searched for minutes; or else on a cell with the fewest candidates.

    Args:
        board: the board.
        places: n bit sets of cells, see above.
        rng: if given, draws which of the equally good branches is taken, and their order.
        done: bit set of the cells whose digit has been taken from all cells that see them.
    """
    places = list(places)
    full = (1 << board.num_cells) - 1
    while True:
        once = twice = thrice = 0  # cells with at least 1, 2, 3 candidates
        for where in places:
            thrice |= twice & where
            twice |= once & where
            once |= where
        if once != full:
            return
        if settled := once & ~twice & ~done:
            done |= settled
            for digit, where in enumerate(places):
                for cell in _bits(where & settled):
                    where &= board._unseen[cell]
                places[digit] = where
            continue
        if done == full:
            yield places
            return
        digit, where = _scarcest(board, places, done)
        if not where:
            return
        if where.bit_count() > 1:
            break
        places = [others & ~where for others in places]
        places[digit] |= where

    pairs = twice & ~thrice
    if not pairs and where.bit_count() == 2:
        branches = [(digit, cell) for cell in _bits(where)]
    else:
        cells = list(_bits(pairs or full & ~done))
        if rng is not None:
            rng.shuffle(cells)
        cell = min(cells, key=lambda cell: sum(where >> cell & 1 for where in places))
        branches = [(digit, cell) for digit, where in enumerate(places) if where >> cell & 1]
    if rng is not None:
        rng.shuffle(branches)
    for digit, cell in branches:
        child = [where & ~(1 << cell) for where in places]
        child[digit] |= 1 << cell
        yield from _solutions(board, child, rng, done)


def _scarcest(board: Board, places: Sequence[int], done: int) -> tuple[int, int]:
    """The unplaced digit with the fewest places in a unit, and the bit set of these places."""
    best, fewest = (0, 0), board.size + 1
    for digit, where in enumerate(places):
        for unit in board._unit_bits:
            cells = where & unit
            if cells & done:  # placed in this unit
                continue
            count = cells.bit_count()
            if count < fewest:
                best, fewest = (digit, cells), count
                if count < 2:
                    return best
    return best


def _random_puzzle(
    board: Board, rng: np.random.Generator, extra_clues: int
) -> tuple[tuple[int, ...], list[int]]:
    """Tokens of one puzzle as `generate` describes it, and of its solution."""
    full = (1 << board.num_cells) - 1
    clues = next(_solutions(board, [full] * board.size, rng))  # the cells where a digit is shown
    solution = _tokens(board, clues)
    blank = 0
    # One pass is enough: a clue that is needed now is needed all the more once others are gone.
    for cell in rng.permutation(board.num_cells).tolist():
        bit, shown = 1 << cell, solution[cell] - FIRST_DIGIT
        # The solution stays unique exactly when no other digit can stand in this cell.
        places = [where | blank | bit for where in clues]
        places[shown] ^= bit
        if next(_solutions(board, places), None) is None:
            clues[shown] ^= bit
            blank |= bit

    hidden = list(_bits(blank))
    assert extra_clues <= len(hidden)
    given_back = set(rng.permutation(hidden)[:extra_clues].tolist())
    puzzle = tuple(
        BLANK if blank >> cell & 1 and cell not in given_back else token
        for cell, token in enumerate(solution)
    )
    return puzzle, solution


def _places(board: Board, values: Sequence[int]) -> list[int]:
    """The solver's state of a puzzle: clues in their cells, every digit in the blanks."""
    places = [0] * board.size
    for cell, token in enumerate(values):
        digits = range(board.size) if token == BLANK else (token - FIRST_DIGIT,)
        for digit in digits:
            places[digit] |= 1 << cell
    return places


def _tokens(board: Board, places: Sequence[int]) -> list[int]:
    """Tokens of a state in which every cell has one digit."""
    tokens = [PAD] * board.num_cells
    for digit, cells in enumerate(places):
        for cell in _bits(cells):
            tokens[cell] = digit + FIRST_DIGIT
    return tokens


def _bits(mask: int) -> Iterator[int]:
    """Positions of the set bits, ascending."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


# Checks and messages.


def _integers(values: Any, name: str) -> np.ndarray:
    """`values` as an array of integers with at least one axis."""
    array = np.asarray(values)
    if array.ndim == 0 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} must be an array of integer tokens; {name} has shape {array.shape} and dtype "
            f"{array.dtype}; pass tokens, as encode makes them from text"
        )
    return array


def _one_board(tokens: Any, name: str = "tokens") -> tuple[Board, list[int]]:
    """The board `tokens` fills and its values, which may be any integers."""
    array = _integers(tokens, name)
    if array.ndim != 1 or len(array) not in _BOARDS:
        raise ValueError(
            f"{name} must be one board of 16, 36 or 81 cells; {name} has shape {array.shape}; pass "
            "one puzzle, row by row"
        )
    return board_for(len(array)), array.tolist()


def _one_puzzle(tokens: Any) -> tuple[Board, list[int]]:
    """The board `tokens` fills and its values, all blanks and digits."""
    board, values = _one_board(tokens)
    _check_alphabet(board, values, "tokens")
    return board, values


def _check_alphabet(board: Board, values: list[int], name: str) -> None:
    for cell, token in enumerate(values):
        if not BLANK <= token < board.vocab_size:
            raise ValueError(
                f"a {board.size}x{board.size} puzzle must hold tokens {BLANK} (blank) to "
                f"{board.vocab_size - 1} (digit {board.size}); {name} has {token} in "
                f"{_name(board, cell)}; note that digit d is token d + 1"
            )


def _check_header(header: list[str]) -> None:
    if tuple(header) != CSV_COLUMNS:
        raise ValueError(
            f"a puzzle file must begin with the columns {','.join(CSV_COLUMNS)}; its header is "
            f"{','.join(header)!r}; add the header or pass another path"
        )


def _parse_row(row: list[str]) -> tuple[str, np.ndarray, np.ndarray, float]:
    if len(row) != len(CSV_COLUMNS):
        raise ValueError(
            f"a row must have the {len(CSV_COLUMNS)} fields {','.join(CSV_COLUMNS)}; it has "
            f"{len(row)}; add or remove fields"
        )
    source, question, answer, rating = row
    try:
        number = float(rating)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"a rating must be a finite number; rating is {rating!r}; write {UNKNOWN_RATING:g} "
            "where it is unknown"
        )
    boards = []
    for column, text in (("question", question), ("answer", answer)):
        try:
            boards.append(encode(text))
        except ValueError as error:
            raise ValueError(f"{column}: {error}") from None
    return source, boards[0], boards[1], number


def _wrong_answer(answer: np.ndarray) -> str:
    return (
        "an answer must keep the clues and hold each digit once in every row, column and box; "
        f"answer {decode(answer)} does not; correct or remove the row"
    )


def _name(board: Board, cell: int) -> str:
    row, column = divmod(cell, board.size)
    return f"r{row + 1}c{column + 1}"
