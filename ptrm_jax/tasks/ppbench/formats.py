"""Puzzles of Pencil Puzzle Bench in files: puzz.link URLs, pzprv3 text and JSON lines.

The encodings are those of pzpr.js, the program behind puzz.link. PPBench's own files hold, for each
puzzle, the URL and the clicks of a solution, base64 of JSON XORed with a repeating key. Its golden
set of 300 puzzles comes with the package ``ppbench`` (``pip install ppbench``); its full set,
62,231 puzzles, is ``full_dataset.jsonl`` of bluecoconut/pencil-puzzle-bench on the Hugging Face
hub. Puzzles of other types than the six are skipped in both.
"""

import base64
import binascii
import importlib.util
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

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
    Masks,
    Record,
    Rows,
    rooms_of,
    rooms_to_walls,
    to_rows,
)
from ptrm_jax.tasks.ppbench.rules import is_solved

_KEY = b"ppbench"
_ALIASES = {"akari": "lightup"}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_MAX_SKIP = 20  # "z"; "g" skips one cell


# Sets of puzzles.


def read_jsonl(path: str | os.PathLike[str]) -> list[Record]:
    """Solved puzzles with problem and answer written out, a JSON object per line.

    Keys: ``pid``, ``width``, ``height``, ``puzzlink_url``, ``problem`` and ``answer`` (a string per
    row, symbols as in `Record` between spaces), ``rooms`` (ids, heyawake only), ``id``, ``source``
    and ``unique``. The walls are read from the URL, since a grid of rooms has no place for walls
    that end inside a room; URL, rows, rooms and size must agree.

    Raises:
        ValueError: a line is malformed, its parts disagree, or its answer is wrong. The message
            begins ``path:line:``.
        OSError: the file cannot be read.
    """
    return _read_lines(path, _parse_written)


def read_golden() -> list[Record]:
    """The puzzles of the six types in PPBench's golden set, with their moves: 90.

    Only the file of the installed package is read: its code, which needs node, does not run.

    Raises:
        ImportError: the package ``ppbench`` is not installed.
        ValueError: see `read_full`.
        OSError: the package lacks its file.
    """
    spec = importlib.util.find_spec("ppbench")
    if spec is None or spec.origin is None:
        raise ImportError(
            "the golden set comes with the package ppbench, which is not installed; "
            "pip install ppbench, or pass PPBench's own file to read_full"
        )
    return read_full(Path(spec.origin).parent / "bundled" / "golden_300.jsonl")


def read_full(path: str | os.PathLike[str]) -> list[Record]:
    """The puzzles of the six types in a file in PPBench's own format, with answers and moves.

    The answer is what the moves lead to, and it is checked against the rules. A puzzle without a
    solution in the file has neither.

    Args:
        path: a JSON object per line, with the keys ``pid``, ``puzzlink_url``, ``width``, ``height``
            and ``solution_enc``.

    Raises:
        ValueError: a line is malformed, its parts disagree, or its moves do not solve the puzzle.
            The message begins ``path:line:``.
        OSError: the file cannot be read.
    """
    return _read_lines(path, _parse_encoded)


def paper_filter(records: Iterable[Record]) -> list[Record]:
    """The puzzles of the sizes that PTRM keeps: 9x9 of sudoku, 10x10 of the other types.

    Of the golden set these are 61: 15 sudoku, 8 lightup, 9 nurikabe, 7 heyawake, 10 tapa and 12
    shakashaka (arXiv 2605.19943, A.3).
    """
    kept = []
    for record in records:
        side = 9 if record.pid == "sudoku" else 10
        if (record.height, record.width) == (side, side):
            kept.append(record)
    return kept


def _read_lines(
    path: str | os.PathLike[str], parse: Callable[[dict[str, Any]], Record | None]
) -> list[Record]:
    records = []
    number = 0
    with open(path, encoding="utf-8") as file:
        try:
            for line in file:
                number += 1
                record = parse(_json_object(line)) if line.strip() else None
                if record is None:
                    continue
                if record.answer is not None and not is_solved(record):
                    raise InputError(
                        f"an answer must satisfy the rules of {record.pid}; that of "
                        f"{record.name or 'this puzzle'} does not; correct or remove the line"
                    )
                records.append(record)
        except UnicodeDecodeError as error:
            raise InputError(
                f"{os.fspath(path)}:{number + 1}: a puzzle file must be UTF-8; reading stopped "
                f"with {str(error)!r}; correct the encoding"
            ) from None
        except KeyError as error:
            raise InputError(
                f"{os.fspath(path)}:{number}: a puzzle must have the key {error}; add it or pass a "
                "file of another format to its own reader"
            ) from None
        except (TypeError, AttributeError) as error:
            raise InputError(
                f"{os.fspath(path)}:{number}: the keys of a puzzle must hold text, numbers and "
                f"lists of rows as documented; reading stopped with {str(error)!r}; correct the "
                "line"
            ) from None
        except ValueError as error:
            raise InputError(f"{os.fspath(path)}:{number}: {error}") from None
    return records


def _json_object(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"a line must be JSON; reading stopped with {str(error)!r}; correct or remove it"
        ) from None
    if not isinstance(row, dict):
        raise InputError(
            f"a line must be a JSON object; it is {type(row).__name__}; correct or remove it"
        )
    return row


def _parse_written(row: dict[str, Any]) -> Record:
    linked = from_url(row["puzzlink_url"])
    problem, answer = _split(row["problem"]), _split(row["answer"])
    record = Record(
        pid=row["pid"],
        problem=problem,
        answer=answer,
        walls=linked.walls,
        name=row["id"],
        source=row["source"],
        unique=row["unique"],
    )
    _check_agreement(record, linked, row)
    if record.walls is not None:
        rooms = np.unique(np.array(_split(row["rooms"])), return_inverse=True)[1]
        ids = rooms_of(np.array(record.walls)).ravel()
        # The same partition: each id on one side goes with one on the other.
        pairs = set(zip(rooms.ravel().tolist(), ids.tolist(), strict=True))
        if not len(pairs) == len({room for room, _ in pairs}) == len({room for _, room in pairs}):
            raise InputError(
                "rooms must be those that the walls of the URL make; they are not; correct one"
            )
    return record


def _parse_encoded(row: dict[str, Any]) -> Record | None:
    if row["pid"] not in TYPES:
        return None
    linked = from_url(row["puzzlink_url"])
    source = row.get("source") or {}
    name = f"{row['pid']} {row['puzzlink_url']}"
    answer, moves = None, None
    clicks = _decrypt(row["solution_enc"])["moves_full"] if row.get("solution_enc") else []
    if clicks:
        moves = tuple(_parse_click(linked, click) for click in clicks)
        decided = dict(moves)
        num_cells = linked.height * linked.width
        symbols = [decided.get(cell, OPEN) for cell in range(num_cells)]
        answer = to_rows(symbols, linked.width)
    record = Record(
        pid=row["pid"],
        problem=linked.problem,
        answer=answer,
        walls=linked.walls,
        moves=moves,
        name=name,
        source=source.get("page_url") or "",
    )
    _check_agreement(record, linked, row)
    return record


def _check_agreement(record: Record, linked: Record, row: dict[str, Any]) -> None:
    """Refuses a record that is not what its URL and its size say."""
    size = (row["height"], row["width"])
    if (linked.pid, linked.problem) != (record.pid, record.problem) or size != (
        record.height,
        record.width,
    ):
        raise InputError(
            f"the URL, the size and the rows of a puzzle must agree; the URL gives {linked.pid} of "
            f"{linked.height}x{linked.width}, the line {record.pid} of {size[0]}x{size[1]}, or "
            "their givens differ; correct the line"
        )


def _decrypt(text: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(text, validate=True)
        return json.loads(bytes(a ^ b for a, b in zip(data, itertools.cycle(_KEY))))
    except (binascii.Error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            "solution_enc must be base64 of JSON XORed with PPBench's key; decoding failed with "
            f"{str(error)!r}; fetch the file again"
        ) from None


_CLICK = re.compile(r"mouse,(left|right),([0-9.]+),([0-9.]+)(?:;key,([1-9]))?")


def _parse_click(puzzle: Record, click: str) -> tuple[int, str]:
    """The cell that a move decides and the symbol it gets."""
    found = _CLICK.fullmatch(click)
    if found is None or (found[4] is None) == (puzzle.pid == "sudoku"):
        raise InputError(
            "a move must be one click, such as 'mouse,left,3,1', with a digit for sudoku, such as "
            f"'mouse,left,3,1;key,5'; it is {click!r}; remove the line"
        )
    # Cells are two units wide; a triangle is put in the corner that is clicked.
    x, y = float(found[2]), float(found[3])
    row, column = int(y // 2), int(x // 2)
    if not (row < puzzle.height and column < puzzle.width):
        raise InputError(
            f"a move must stay on the board of {puzzle.height}x{puzzle.width} cells; it is "
            f"{click!r}; correct or remove the line"
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


# URLs.


def from_url(url: str) -> Record:
    """The puzzle of a puzz.link URL, ``...?<type>/<width>/<height>/<body>``.

    Raises:
        ValueError: it is no such URL, the type is none of the six, or the body does not fit.
    """
    found = re.fullmatch(r"(?:.*\?)?([a-z]+)/([1-9]\d*)/([1-9]\d*)/(.*?)/?", url.strip())
    pid = found and _ALIASES.get(found[1], found[1])
    if found is None or pid not in TYPES:
        raise InputError(
            f"a URL must end in ?<type>/<width>/<height>/<body>, the type one of "
            f"{', '.join(TYPES)}; it is {url!r}; leave other puzzles out"
        )
    width, height, body = int(found[2]), int(found[3]), found[4]
    try:
        if pid == "heyawake":
            return _heyawake_from_body(body, height, width)
        read = {"lightup": _read_four, "shakashaka": _read_four, "tapa": _read_tapa}.get(
            pid, _read_hex
        )
        symbols = _place(read(body), height * width)
        if pid == "shakashaka":
            symbols = ["5" if symbol == "-" else symbol for symbol in symbols]
        return Record(pid, to_rows(symbols, width))
    except ValueError as error:
        raise InputError(f"{url}: {error}") from None


def to_url(record: Record) -> str:
    """The puzz.link URL of a puzzle; inverse of `from_url`.

    A number of heyawake is written for its room, whichever cell it stands in.
    """
    symbols = list(itertools.chain(*record.problem))
    body = ""
    if record.pid == "heyawake":
        body, symbols = _walls_to_body(record), _room_numbers(record)
    if record.pid in ("lightup", "shakashaka"):
        black = "5" if record.pid == "shakashaka" else "-"
        body += _write_four([{OPEN: None, black: "."}.get(s, s) for s in symbols])
    else:
        write = _write_tapa if record.pid == "tapa" else _write_hex
        body += _write_skips([None if symbol == OPEN else write(symbol) for symbol in symbols])
    name = "akari" if record.pid == "lightup" else record.pid
    return f"https://puzz.link/p?{name}/{record.width}/{record.height}/{body}"


def _place(items: Iterator[tuple[int, str]], count: int) -> list[str]:
    """Symbols of `count` cells from (empty cells before, symbol); cells not described are empty."""
    symbols: list[str] = []
    for skipped, symbol in items:
        symbols += [OPEN] * skipped
        if symbol:
            symbols.append(symbol)
    if any(symbol != OPEN for symbol in symbols[count:]):
        raise InputError(
            f"the body of a URL must describe at most {count} cells; it describes {len(symbols)}; "
            "correct the size or the body"
        )
    return symbols[:count] + [OPEN] * (count - len(symbols))


def _skip(char: str) -> int:
    """How many cells a letter of a body skips."""
    if char not in _DIGITS[16:] or not char:
        raise InputError(
            f"the body of a URL must be written in pzpr's code; it has {char!r} out of place; copy "
            "the whole URL"
        )
    return _DIGITS.index(char) - 15


def _read_hex(body: str) -> Iterator[tuple[int, str]]:
    """Numbers of one hex digit, or of two or three after ``-`` or ``+``; ``.`` for an unknown."""
    place = 0
    while place < len(body):
        char = body[place]
        length = {"-": 2, "+": 3}.get(char, 0)
        if char == ".":
            yield 0, "-"
        elif length or char in _DIGITS[:16]:
            digits = body[place + 1 : place + 1 + length] if length else char
            if not re.fullmatch("[0-9a-f]+", digits):
                _skip(char)
            yield 0, str(int(digits, 16))
        else:
            yield _skip(char), ""
        place += 1 + length


def _read_four(body: str) -> Iterator[tuple[int, str]]:
    """Numbers 0 to 4, with 5 added for an empty cell behind, 10 for two; ``.`` for a black cell."""
    for char in body:
        if char == ".":
            yield 0, "-"
        elif char in _DIGITS[:15]:
            behind, number = divmod(_DIGITS.index(char), 5)
            yield 0, str(number)
            yield behind, ""
        else:
            yield _skip(char), ""


def _read_tapa(body: str) -> Iterator[tuple[int, str]]:
    """One run in one character, several in a number of two digits in base 36; see `_TAPA_CODES`."""
    place = 0
    while place < len(body):
        char = body[place]
        length = 2 if char in "abcdef" else 1
        code = body[place : place + length]
        if char == ".":
            yield 0, "-"
        elif char in "012345678":
            yield 0, char
        elif code in _TAPA_CODES:
            yield 0, _TAPA_CODES[code]
        else:
            yield _skip(char), ""
        place += length


def _tapa_codes() -> dict[str, str]:
    """Clues of several runs by their code: runs in base 6, 4 or 2, 0 for any length."""
    codes = {"9": "1,1,1,1"}
    for count, base, offset in ((2, 6, 360), (3, 4, 396), (4, 2, 460)):
        for number, runs in enumerate(itertools.product(range(base), repeat=count), offset):
            code = _DIGITS[number // 36] + _DIGITS[number % 36]
            codes[code] = ",".join(str(run) if run else "-" for run in runs)
    return codes


_TAPA_CODES = _tapa_codes()


def _write_hex(symbol: str) -> str:
    if symbol == "-":
        return "."
    number = int(symbol)
    return ("" if number < 16 else "-" if number < 256 else "+") + f"{number:x}"


def _write_tapa(symbol: str) -> str:
    if "," not in symbol:
        return "." if symbol == "-" else symbol
    return next(code for code, clue in _TAPA_CODES.items() if clue == symbol)


def _write_skips(items: list[str | None]) -> str:
    """Items with letters for the empty cells between them."""
    body, skipped = "", 0
    for item in [*items, ""]:
        if item is not None or skipped == _MAX_SKIP:
            body += _DIGITS[15 + skipped] if skipped else ""
            skipped = 0
        if item is None:
            skipped += 1
        else:
            body += item
    return body


def _write_four(items: list[str | None]) -> str:
    packed: list[str | None] = []
    place = 0
    while place < len(items):
        item = items[place]
        place += 1
        if item is None or item == ".":
            packed.append(item)
            continue
        behind = list(itertools.takewhile(lambda item: item is None, items[place : place + 2]))
        # Pzpr counts cells beyond the board as empty.
        num_behind = 2 if place + len(behind) == len(items) else len(behind)
        packed.append(_DIGITS[int(item) + 5 * num_behind])
        place += num_behind
    return _write_skips(packed)


def _heyawake_from_body(body: str, height: int, width: int) -> Record:
    """Walls, five in a character, upright ones first; then a number or none for each room."""
    upright, level = height * (width - 1), (height - 1) * width
    first = math.ceil(upright / 5)
    second = first + math.ceil(level / 5)
    bits = [
        np.array([[int(bit) for bit in f"{_DIGITS.find(char):05b}"[-5:]] for char in part], bool)
        for part in (body[:first], body[first:second])
    ]
    if len(body) < second or not re.fullmatch("[0-9a-v]*", body[:second]):
        raise InputError(
            f"the walls of a heyawake of {height}x{width} cells must take {second} characters of "
            f"0-9 and a-v; the body is {body!r}; copy the whole URL"
        )
    masks = np.zeros((height, width), np.int64)
    right = bits[0].ravel()[:upright].reshape(height, width - 1)
    below = bits[1].ravel()[:level].reshape(height - 1, width)
    masks[:, :-1] += RIGHT * right
    masks[:, 1:] += LEFT * right
    masks[:-1] += BOTTOM * below
    masks[1:] += TOP * below
    masks[:, -1] += RIGHT
    masks[:, 0] += LEFT
    masks[-1] += BOTTOM
    masks[0] += TOP
    walls = _masks(masks)
    tops = _room_tops(walls)
    symbols = [OPEN] * (height * width)
    for top, number in zip(tops, _place(_read_hex(body[second:]), len(tops)), strict=True):
        symbols[top] = number
    return Record("heyawake", to_rows(symbols, width), walls=walls)


def _walls_to_body(record: Record) -> str:
    masks = np.array(record.walls)
    body = ""
    for part in (masks[:, :-1] & RIGHT > 0, masks[:-1] & BOTTOM > 0):
        bits = part.ravel().astype(int).tolist()
        bits += [0] * (-len(bits) % 5)
        fives = [bits[start : start + 5] for start in range(0, len(bits), 5)]
        body += "".join(_DIGITS[int("".join(map(str, five)), 2)] for five in fives)
    return body


def _room_tops(walls: Masks) -> list[int]:
    """The cell of each room that holds its number: the leftmost, then topmost."""
    rooms = rooms_of(np.array(walls))
    # Column by column, so that the first cell met is the one.
    _, first = np.unique(rooms.T, return_index=True)
    columns, rows = np.divmod(first, rooms.shape[0])
    return (rows * rooms.shape[1] + columns).tolist()


def _room_numbers(record: Record) -> list[str]:
    """The number of each room, ``.`` for none."""
    rooms = rooms_of(np.array(record.walls)).ravel().tolist()
    numbers = [OPEN] * (max(rooms) + 1)
    for room, symbol in zip(rooms, itertools.chain(*record.problem), strict=True):
        if symbol != OPEN:
            numbers[room] = symbol
    return numbers


# Pzprv3 text.


def from_pzprv3(text: str) -> Record:
    """The puzzle of a pzprv3 text, with its answer where every cell is decided.

    Raises:
        ValueError: it is no such text, or the type is none of the six.
    """
    lines = [line.strip() for line in text.strip().splitlines()]
    pid = lines[1] if len(lines) > 2 else ""
    if not lines or not lines[0].startswith("pzprv3") or pid not in TYPES:
        raise InputError(
            f"a pzprv3 text must begin with the lines 'pzprv3' and the type, one of "
            f"{', '.join(TYPES)}; it begins {text[:40]!r}; pass the whole text"
        )
    rest = lines[2:]
    num_sizes = 1 if pid == "sudoku" else 2
    sizes = [int(line) if line.isdecimal() else 0 for line in rest[:num_sizes]]
    height, width = sizes[0], sizes[-1]
    rest = [line.split() for line in rest[num_sizes:]]
    if pid == "heyawake":
        rest = rest[1:]  # the number of rooms
    num_grids = {"heyawake": 3, "sudoku": 2, "shakashaka": 2}.get(pid, 1)
    rows = rest[: num_grids * height]
    if min(sizes) < 1 or [len(row) for row in rows] != [width] * (num_grids * height):
        raise InputError(
            f"a pzprv3 text of {pid} must hold {num_grids} grids of the size it names; it names "
            f"{height}x{width} and has {len(rows)} rows of {sorted({len(row) for row in rows})} "
            "cells; pass the whole text"
        )
    grids = [rows[start : start + height] for start in range(0, len(rows), height)]
    walls = rooms_to_walls(grids.pop(0)) if pid == "heyawake" else None
    problem, answer = grids[0], grids[-1]
    if num_grids == 1:  # both in one
        problem = [[OPEN if symbol in "#+" else symbol for symbol in row] for row in problem]
        answer = [[symbol if symbol in "#+" else OPEN for symbol in row] for row in answer]
    puzzle = Record(pid, _frozen(problem), walls=walls)
    flat = list(itertools.chain(*answer))
    is_decided = all(flat[cell] in STATES[pid][1:] for cell in puzzle.open_cells)
    return Record(pid, puzzle.problem, _frozen(answer) if is_decided else None, walls)


def to_pzprv3(record: Record) -> str:
    """The pzprv3 text of a puzzle, with its answer if it has one.

    This is what pzpr.js opens: ``new pzpr.Puzzle().open(text).check(false).complete``.

    Raises:
        ValueError: heyawake has a wall that ends inside a room, which the text cannot express.
    """
    height, width = record.height, record.width
    problem = [list(row) for row in record.problem]
    blank = [[OPEN] * width] * height
    answer = [list(row) for row in record.answer] if record.answer else blank
    lines = ["pzprv3", record.pid, *([height] if record.pid == "sudoku" else [height, width])]
    if record.pid == "heyawake":
        rooms = rooms_of(np.array(record.walls))
        if rooms_to_walls(rooms) != record.walls:
            raise InputError(
                "a wall must part two rooms to be written as pzprv3 text; "
                f"{record.name or 'this puzzle'} has one that ends inside a room; use to_url"
            )
        lines += [rooms.max() + 1, *(" ".join(map(str, row)) for row in rooms.tolist())]
        numbers = dict(zip(_room_tops(record.walls), _room_numbers(record), strict=True))
        problem = [
            [numbers.get(row * width + column, OPEN) for column in range(width)]
            for row in range(height)
        ]
    elif record.pid == "sudoku":
        answer = [
            [OPEN if given != OPEN else symbol for given, symbol in zip(*pair, strict=True)]
            for pair in zip(problem, answer, strict=True)
        ]
    if record.pid in ("lightup", "nurikabe", "tapa"):
        grids = [
            [given if given != OPEN else symbol for given, symbol in zip(*pair, strict=True)]
            for pair in zip(problem, answer, strict=True)
        ]
    else:
        grids = problem + answer
    return "\n".join([*map(str, lines), *(" ".join(row) for row in grids), ""])


def _split(rows: list[str]) -> Rows:
    return tuple(tuple(row.split()) for row in rows)


def _frozen(rows: list[list[str]]) -> Rows:
    return tuple(tuple(row) for row in rows)


def _masks(masks: np.ndarray) -> Masks:
    return tuple(tuple(row) for row in masks.tolist())
