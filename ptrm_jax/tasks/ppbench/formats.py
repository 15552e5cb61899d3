"""Puzzles of Pencil Puzzle Bench in files: JSON lines and puzz.link URLs.

The encodings of URLs are those of pzpr.js, the program behind puzz.link. PPBench's own files hold,
for each puzzle, its URL and the clicks of a solution, base64 of JSON XORed with a repeating key.
Its golden set of 300 puzzles comes with the package ``ppbench`` (``pip install ppbench``); its full
set, 62,231 puzzles, is ``full_dataset.jsonl`` of bluecoconut/pencil-puzzle-bench on the Hugging
Face hub. Puzzles of other types than the six are skipped in both.
"""

import base64
import codecs
import importlib.util
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.files import write_text
from ptrm_jax.reading import file_size, lines, shown
from ptrm_jax.tasks.ppbench.puzzle import (
    BOTTOM,
    LEFT,
    OPEN,
    RIGHT,
    TOP,
    TYPES,
    PencilPuzzle,
    Rows,
    rooms_of,
    tapa_clue,
    to_masks,
    to_rows,
)
from ptrm_jax.tasks.ppbench.rules import is_solved

_KEY = b"ppbench"
_LONGEST_URL = 10**5
_ALIASES = {"akari": "lightup"}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


# JSON lines.


class _Line(msgspec.Struct):
    """What every line has; other keys are ignored."""

    pid: str


class _Located(_Line):
    width: int
    height: int
    puzzlink_url: str


class _Written(_Located):
    problem: list[str]
    answer: list[str]
    id: str
    source: str
    unique: bool | None
    rooms: list[str] = []


class _Encoded(_Located):
    solution_enc: str | None = None
    source: dict[str, Any] | None = None


class _Solution(msgspec.Struct):
    moves_full: list[str]


def read_jsonl(path: str | os.PathLike[str]) -> list[PencilPuzzle]:
    """Solved puzzles with problem and answer written out, one JSON object per line.

    Keys: ``pid``, ``width``, ``height``, ``puzzlink_url``, ``problem`` and ``answer`` (a string per
    row, symbols as in `PencilPuzzle` between spaces), ``rooms`` (ids, heyawake only), ``id``,
    ``source`` and ``unique``. The walls are read from the URL, since a grid of rooms cannot express
    walls that end inside a room; URL, rows, rooms and size must agree.

    Raises:
      InputError: a line is malformed, its parts disagree, or its answer is wrong. The message
        begins ``path:line:``.
      OSError: the file cannot be read.
    """
    return _read_lines(path, _parse_written)


def write_jsonl(path: str | os.PathLike[str], puzzles: Iterable[PencilPuzzle]) -> None:
    """Writes what `read_jsonl` reads, whole or not at all.

    Raises:
      InputError: a puzzle has no answer, or as `to_url`.
      OSError: the file cannot be written.
    """
    lines = []
    for puzzle in puzzles:
        if puzzle.answer is None:
            raise InputError(
                f"a puzzle must have an answer to be written; {puzzle.name or 'this one'} has "
                "none; leave it out"
            )
        line = {
            "id": puzzle.name,
            "pid": puzzle.pid,
            "width": puzzle.width,
            "height": puzzle.height,
            "puzzlink_url": to_url(puzzle),
            "problem": [" ".join(row) for row in puzzle.problem],
            "answer": [" ".join(row) for row in puzzle.answer],
            "unique": puzzle.unique,
            "source": puzzle.source,
        }
        if puzzle.walls is not None:
            rooms = rooms_of(np.array(puzzle.walls)).tolist()
            line["rooms"] = [" ".join(map(str, row)) for row in rooms]
        lines.append(msgspec.json.encode(line).decode() + "\n")
    write_text(path, "".join(lines))


def read_golden() -> list[PencilPuzzle]:
    """The puzzles of the six types in PPBench's golden set, with their moves: 90.

    This reads a file of the installed package and does not run its code, which needs node.

    Raises:
      ImportError: the package ``ppbench`` is not installed.
      InputError: see `read_full`.
      OSError: the package lacks its file.
    """
    spec = importlib.util.find_spec("ppbench")
    if spec is None or spec.origin is None:
        raise ImportError(
            "the golden set is part of the package ppbench, which is not installed; pip install "
            "ppbench, or pass PPBench's own file"
        )
    return read_full(Path(spec.origin).parent / "bundled" / "golden_300.jsonl")


def read_full(path: str | os.PathLike[str]) -> list[PencilPuzzle]:
    """The puzzles of the six types in a file in PPBench's own format, with answers and moves.

    The answer is the result of the moves and is checked against the rules. A puzzle without a
    solution in the file has neither.

    Args:
      path: a JSON object per line, with the keys ``pid``, ``puzzlink_url``, ``width``, ``height``
        and ``solution_enc``.

    Raises:
      InputError: a line is malformed, its parts disagree, or its moves do not solve the puzzle.
        The message begins ``path:line:``.
      OSError: the file cannot be read.
    """
    return _read_lines(path, _parse_encoded)


def paper_filter(puzzles: Iterable[PencilPuzzle]) -> list[PencilPuzzle]:
    """The puzzles of the sizes that PTRM keeps: 9x9 of sudoku, 10x10 of the other types.

    Of the golden set these are 61: 15 sudoku, 8 lightup, 9 nurikabe, 7 heyawake, 10 tapa and 12
    shakashaka (arXiv 2605.19943, A.3).
    """
    kept = []
    for puzzle in puzzles:
        side = 9 if puzzle.pid == "sudoku" else 10
        if (puzzle.height, puzzle.width) == (side, side):
            kept.append(puzzle)
    return kept


def _read_lines(
    path: str | os.PathLike[str], parse: Callable[[bytes], PencilPuzzle | None]
) -> list[PencilPuzzle]:
    puzzles = []
    file_size(path)
    with open(path, "rb") as file:
        for number, line in enumerate(lines(file, path), 1):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                puzzle = parse(line) if line.strip() else None
                if puzzle is None:
                    continue
                if puzzle.answer is not None and not is_solved(puzzle):
                    raise InputError(
                        f"an answer must satisfy the rules of {puzzle.pid}; that of "
                        f"{puzzle.name or 'this puzzle'} does not; correct or remove the line"
                    )
            except InputError as error:
                raise InputError(f"{os.fspath(path)}:{number}: {error}") from None
            except (ValueError, RecursionError) as error:  # msgspec's, or text that is not UTF-8
                raise InputError(
                    f"{os.fspath(path)}:{number}: a line must be a puzzle as JSON in UTF-8: "
                    f"{error}; correct or remove it"
                ) from None
            puzzles.append(puzzle)
    return puzzles


def _parse_written(line: bytes) -> PencilPuzzle:
    row = msgspec.json.decode(line, type=_Written)
    linked = from_url(row.puzzlink_url)
    puzzle = PencilPuzzle(
        pid=row.pid,
        problem=_split(row.problem),
        answer=_split(row.answer),
        walls=linked.walls,
        name=row.id,
        source=row.source,
        unique=row.unique,
    )
    _check_agreement(puzzle, linked, row)
    if puzzle.walls is not None:
        rooms = [room for room_row in row.rooms for room in room_row.split()]
        ids = rooms_of(np.array(puzzle.walls)).ravel().tolist()
        # The same partition: each id on one side corresponds to one on the other.
        pairs = set(zip(rooms, ids, strict=False))
        same = len(pairs) == len({room for room, _ in pairs}) == len({room for _, room in pairs})
        if not same or len(rooms) != len(ids):
            raise InputError(
                "rooms must be those that the walls of the URL make; they are not; correct one"
            )
    return puzzle


def _parse_encoded(line: bytes) -> PencilPuzzle | None:
    if msgspec.json.decode(line, type=_Line).pid not in TYPES:
        return None
    row = msgspec.json.decode(line, type=_Encoded)
    linked = from_url(row.puzzlink_url)
    answer, moves = None, None
    if clicks := _decrypt(row.solution_enc) if row.solution_enc else []:
        moves = tuple(_parse_click(linked, click) for click in clicks)
        decided = dict(moves)
        symbols = [decided.get(cell, OPEN) for cell in range(linked.height * linked.width)]
        answer = to_rows(symbols, linked.width)
    puzzle = PencilPuzzle(
        pid=row.pid,
        problem=linked.problem,
        answer=answer,
        walls=linked.walls,
        moves=moves,
        name=f"{row.pid} {row.puzzlink_url}",
        source=(row.source or {}).get("page_url") or "",
    )
    _check_agreement(puzzle, linked, row)
    return puzzle


def _check_agreement(puzzle: PencilPuzzle, linked: PencilPuzzle, row: _Located) -> None:
    """Refuses a puzzle that disagrees with its URL or its size."""
    said = (puzzle.pid, puzzle.problem, row.height, row.width)
    if said != (linked.pid, linked.problem, puzzle.height, puzzle.width):
        raise InputError(
            f"the URL, the size and the rows of a puzzle must agree; the URL gives {linked.pid} of "
            f"{linked.height}x{linked.width}, the line {puzzle.pid} of {row.height}x{row.width}, "
            "or their givens differ; correct the line"
        )


def _decrypt(text: str) -> list[str]:
    """The clicks of a solution."""
    try:
        data = base64.b64decode(text, validate=True)
        mixed = bytes(a ^ b for a, b in zip(data, itertools.cycle(_KEY), strict=False))
        return msgspec.json.decode(mixed, type=_Solution).moves_full
    except (ValueError, RecursionError) as error:  # base64's and msgspec's
        raise InputError(
            "solution_enc must be base64 of JSON XORed with PPBench's key; decoding failed with "
            f"{str(error)!r}; download the file again"
        ) from None


_CLICK = re.compile(r"mouse,(left|right),([0-9.]+),([0-9.]+)(?:;key,([1-9]))?")


def _parse_click(puzzle: PencilPuzzle, click: str) -> tuple[int, str]:
    """The cell that a move decides, and its symbol."""
    found = _CLICK.fullmatch(click)
    if found is None or (found[4] is None) == (puzzle.pid == "sudoku"):
        raise InputError(
            "a move must be one click, such as 'mouse,left,3,1', with a digit for sudoku, such as "
            f"'mouse,left,3,1;key,5'; got {click!r}; remove the line"
        )
    # Cells are two units wide; a click in a corner of a cell puts a triangle there.
    x, y = float(found[2]), float(found[3])
    row, column = int(y // 2), int(x // 2)
    if not (row < puzzle.height and column < puzzle.width):
        raise InputError(
            f"a move must stay on the board of {puzzle.height}x{puzzle.width} cells; got {click!r};"
            " correct or remove the line"
        )
    if puzzle.pid == "sudoku":
        symbol = found[4]
    elif found[1] == "right":
        symbol = "+"
    elif puzzle.pid == "shakashaka":
        is_right, is_lower = x > 2 * column + 1, y > 2 * row + 1
        symbol = {(0, 0): "5", (1, 0): "4", (1, 1): "3", (0, 1): "2"}[is_right, is_lower]
    else:
        symbol = "#"
    return row * puzzle.width + column, symbol


def _split(rows: list[str]) -> Rows:
    return tuple(tuple(row.split()) for row in rows)


# URLs.


def from_url(url: str) -> PencilPuzzle:
    """The puzzle of a puzz.link URL, ``...?<type>/<width>/<height>/<body>``, of any host of pzpr.

    The editor's address (``<type>_edit``) is read too, and pzpr's optional flags before the width,
    which tell how a puzzle is drawn, are skipped.

    Raises:
      InputError: it is not such a URL, the type is none of the six, or the body does not fit.
    """
    address = url.strip()[:_LONGEST_URL].rpartition("?")[2]
    found = re.fullmatch(r"([a-z]+)/(v:[^/]*)/[1-9].*", address)
    if found is not None and _ALIASES.get(found[1], found[1]) in TYPES:
        raise InputError(
            f"a URL must be of a puzzle with the usual rules; this one of {found[1]} has the "
            f"variant {found[2]!r}; leave it out"
        )
    # `_edit` and `_play` name pages; a field before the width has flags of the page.
    parts = r"([a-z]+)(?:_edit|_play)?/(?:[^/\d][^/]*/)?([1-9]\d*)/([1-9]\d*)/(.*?)/?"
    found = re.fullmatch(parts, address)
    pid = found and _ALIASES.get(found[1], found[1])
    if found is None or pid not in TYPES:
        raise InputError(
            f"a URL must end in ?<type>/<width>/<height>/<body>, the type one of "
            f"{', '.join(TYPES)}; got {shown(url)}; leave other puzzles out"
        )
    if max(len(found[2]), len(found[3])) > 2:
        raise InputError(
            f"{shown(url)}: width and height must be at most 99; got {found[2][:9]} and "
            f"{found[3][:9]}; pass a smaller puzzle"
        )
    width, height, body = int(found[2]), int(found[3]), found[4]
    try:
        if pid == "heyawake":
            return _heyawake_from_body(body, height, width)
        return PencilPuzzle(pid, to_rows(_symbols(pid, body, height * width), width))
    except InputError as error:
        raise InputError(f"{shown(url)}: {error}") from None


def _symbols(pid: str, body: str, count: int) -> list[str]:
    """The givens of `count` cells; cells that the body does not describe are empty."""
    symbols: list[str] = []
    place = 0
    while place < len(body):
        found = _CODES[pid].match(body, place)
        if found is None:
            raise InputError(
                f"the body of a URL must be in pzpr's encoding; it has {body[place]!r} out of "
                "place; copy the whole URL"
            )
        code, place = found[0], found.end()
        if code == ".":  # a black cell without a number, or a run or an island of any size
            symbols.append("5" if pid == "shakashaka" else "-")
        elif len(code) == 1 and code > "f":
            symbols += [OPEN] * (_DIGITS.index(code) - 15)
        elif pid in ("lightup", "shakashaka"):  # 5 is added per empty cell that follows
            num_empty, number = divmod(int(code, 16), 5)
            symbols += [str(number), *[OPEN] * num_empty]
        elif pid == "tapa":
            symbols.append(_TAPA_CODES.get(code, code))
        else:
            symbols.append(str(int(code.lstrip("-+"), 16)))
    if any(symbol != OPEN for symbol in symbols[count:]):
        raise InputError(
            f"the body of a URL must describe at most {count} cells; it describes {len(symbols)}; "
            "correct the size or the body"
        )
    return symbols[:count] + [OPEN] * (count - len(symbols))


def _tapa_codes() -> dict[str, str]:
    """Clues of several runs by their code: runs in base 6, 4 or 2, 0 for any length."""
    codes = {"9": "1,1,1,1"}
    for count, base, offset in ((2, 6, 360), (3, 4, 396), (4, 2, 460)):
        for number, runs in enumerate(itertools.product(range(base), repeat=count), offset):
            code = _DIGITS[number // 36] + _DIGITS[number % 36]
            codes[code] = ",".join(str(run) if run else "-" for run in runs)
    return codes


_TAPA_CODES = _tapa_codes()
_TAPA_NAMES = {tapa_clue(runs): code for code, runs in _TAPA_CODES.items()}

_HEX = re.compile(r"[0-9a-f]|-[0-9a-f]{2}|\+[0-9a-f]{3}|[.g-z]")
_FOUR = re.compile("[0-9a-e]|[.g-z]")
_CODES = {
    **{"sudoku": _HEX, "nurikabe": _HEX, "heyawake": _HEX, "lightup": _FOUR, "shakashaka": _FOUR},
    "tapa": re.compile("|".join([*_TAPA_CODES, "[0-8]", "[.g-z]"])),
}
"""By type, the codes of a body; the letters g to z skip 1 to 20 cells."""


def to_url(puzzle: PencilPuzzle) -> str:
    """The puzz.link URL of a puzzle, which `from_url` reads; its answer is not part of it.

    Raises:
      InputError: a number of heyawake is not in the leftmost, then topmost cell of its room.
    """
    symbols = list(itertools.chain(*puzzle.problem))
    name = "akari" if puzzle.pid == "lightup" else puzzle.pid
    start = ""
    if puzzle.walls is not None:
        masks = np.array(puzzle.walls)
        for bits in (masks[:, :-1] & RIGHT > 0, masks[:-1] & BOTTOM > 0):
            fives = np.pad(bits.ravel(), (0, -bits.size % 5)).reshape(-1, 5)
            start += "".join(_DIGITS[number] for number in (fives @ [16, 8, 4, 2, 1]).tolist())
        cells = _number_cells(masks)
        if any(symbols[cell] != OPEN for cell in {*range(len(symbols))}.difference(cells)):
            raise InputError(
                "a URL must have the numbers of heyawake in the leftmost, then topmost cells of "
                "their rooms; this puzzle has not; turn it"
            )
        symbols = [symbols[cell] for cell in cells]
    body = "".join(
        _DIGITS[15 + length] if empty else _code(puzzle.pid, symbol)
        for empty, symbol, length in _runs_of_empty(symbols)
    )
    return f"https://puzz.link/p?{name}/{puzzle.width}/{puzzle.height}/{start}{body}"


def _runs_of_empty(symbols: list[str]) -> Iterable[tuple[bool, str, int]]:
    """Empty cells in runs of at most 20, other cells one by one: is empty, symbol, length."""
    for empty, group in itertools.groupby(symbols, lambda symbol: symbol == OPEN):
        cells = list(group)
        step = 20 if empty else 1
        for start in range(0, len(cells), step):
            yield empty, cells[start], len(cells[start : start + step])


def _code(pid: str, symbol: str) -> str:
    if symbol == "-" or (pid, symbol) == ("shakashaka", "5"):
        return "."
    if pid == "tapa":
        return _TAPA_NAMES.get(symbol, symbol)
    number = int(symbol)
    prefix = "" if number < 16 else "-" if number < 256 else "+"
    return f"{prefix}{number:x}"


def _heyawake_from_body(body: str, height: int, width: int) -> PencilPuzzle:
    """Walls, five per character, vertical ones first; then a number or none for each room."""
    vertical, horizontal = height * (width - 1), (height - 1) * width
    first = math.ceil(vertical / 5)
    second = first + math.ceil(horizontal / 5)
    bits = [
        np.array([[int(bit) for bit in f"{_DIGITS.find(char):05b}"[-5:]] for char in part], bool)
        for part in (body[:first], body[first:second])
    ]
    if len(body) < second or not re.fullmatch("[0-9a-v]*", body[:second]):
        raise InputError(
            f"the walls of a heyawake of {height}x{width} cells must take {second} characters of "
            f"0-9 and a-v; got the body {body!r}; copy the whole URL"
        )
    masks = np.zeros((height, width), np.int64)
    right = bits[0].ravel()[:vertical].reshape(height, width - 1)
    below = bits[1].ravel()[:horizontal].reshape(height - 1, width)
    masks[:, :-1] += RIGHT * right
    masks[:, 1:] += LEFT * right
    masks[:-1] += BOTTOM * below
    masks[1:] += TOP * below
    masks[:, -1] += RIGHT
    masks[:, 0] += LEFT
    masks[-1] += BOTTOM
    masks[0] += TOP
    cells = _number_cells(masks)
    symbols = [OPEN] * (height * width)
    for cell, number in zip(cells, _symbols("heyawake", body[second:], len(cells)), strict=True):
        symbols[cell] = number
    return PencilPuzzle("heyawake", to_rows(symbols, width), walls=to_masks(masks))


def _number_cells(masks: np.ndarray) -> list[int]:
    """The cell of each room that holds its number: the first, column by column."""
    height, width = masks.shape
    _, first_cells = np.unique(rooms_of(masks).T, return_index=True)
    columns, rows = np.divmod(first_cells, height)
    return (rows * width + columns).tolist()
