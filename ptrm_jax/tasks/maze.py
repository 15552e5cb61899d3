"""Mazes on rectangular grids: text, files, rules, labels, symmetries and a generator.

Tokens are those of upstream TRM (``dataset/build_maze_dataset.py``): ``PAD`` 0, then the characters
``# SGo``: wall, free cell, start, goal, and, in answers, a cell of the path between them. Steps go
up, down, left and right. A maze is the vector of its cells, row by row. In the shapes below S is
the number of cells, B the number of mazes. A maze is square unless its number of columns is given
as `width`.

Everything here runs on the host in numpy. Functions accept arrays of any integer type and return
tokens as int32. Messages call the cell in row 2, column 7 ``r2c7``.
"""

import math
import os
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from ptrm_jax.errors import InputError
from ptrm_jax.tasks import symmetry
from ptrm_jax.tasks.csv_format import CsvFormat, first_question
from ptrm_jax.tasks.symmetry import Augment, dihedral_cells
from ptrm_jax.tasks.task import Labelled, Task, bands, image_key, in_test_split, integers
from ptrm_jax.tasks.text import Lines

PAD = 0
WALL = 1
FREE = 2
START = 3
GOAL = 4
PATH = 5
VOCAB_SIZE = 6

_CHARSET = "# SGo"  # token 1 and up
_TOKEN_OF = {char: token for token, char in enumerate(_CHARSET, start=1)}
_MAX_REDRAWS = 10_000
_CHUNK = 1024  # answers checked at once, to bound the memory


def encode(text: str) -> np.ndarray:
    """Tokens of a written maze or answer: [S] int32.

    Args:
      text: S characters out of ``# SGo``, row by row, with or without line breaks. Spaces are
        cells, also at the ends of lines. ``.`` or ``_`` for free cells, a full block for walls, and
        other letters for S and G are understood where they leave no doubt.

    Raises:
      InputError: a foreign character, lines of different lengths, or no cell at all.
    """
    lines = _usual(text).splitlines()
    if len({len(line) for line in lines}) != 1 or not lines[0]:
        raise InputError(
            f"a maze must have at least one cell and lines of one length; text has {len(lines)} "
            f"lines of lengths {sorted({len(line) for line in lines})}; keep the spaces at the "
            "ends of its lines, they are cells"
        )
    for number, line in enumerate(lines, start=1):
        for column, char in enumerate(line, start=1):
            if char not in _TOKEN_OF:
                raise InputError(
                    f"a maze must be written in the characters {_CHARSET!r}; text has {char!r} at "
                    f"line {number}, column {column}; remove or replace it"
                )
    return np.array([_TOKEN_OF[char] for line in lines for char in line], np.int32)


_WALLS, _FREES = "#\u2588", " ._"
_ENDS = {"S": "G", "s": "gGeE", "A": "B", "a": "b"}
"""Letters for the start, and for the goal beside each; S goes with every letter."""


def _usual(text: str) -> str:
    """A written maze in the usual characters, if it leaves no doubt; else as it is."""
    chars = set(text) - {"\n", "\r"}
    if chars <= _TOKEN_OF.keys():
        return text
    free = chars & set(_FREES)
    if chars & set(_WALLS) and len(free) <= 1:
        text = re.sub(f"[{_WALLS}]", "#", text)
        text = re.sub(f"[{re.escape(_FREES)}]", " ", text)
    once = [char for char in sorted(chars) if char.isalpha() and text.count(char) == 1]
    for start, goals in _ENDS.items():
        rest = [char for char in once if char not in (start, "o")]
        if start in once and len(rest) == 1 and (start == "S" or rest[0] in goals):
            text = text.translate(str.maketrans(start + rest[0], "SG"))
    return text


def is_text(text: str) -> bool:
    """Whether a text is of mazes: walls, free cells and few letters, in lines or in one."""
    letters = {char for char in text if char.isalpha() and char not in _WALLS}
    if "\n" not in text and {"S", "G"} <= letters:
        return True
    chars = set(text) - letters - {"\n", "\r"}
    return bool(chars & set(_WALLS)) and chars <= {*_WALLS, *_FREES} and 2 <= len(letters) <= 4


def lines(text: list[str]) -> Lines:
    """The mazes of a text's lines: one per line, or square ones over lines of one length."""
    found: Lines = []
    block: Lines = []
    for number, line in enumerate([*text, ""], start=1):
        if line.strip():
            block.append((number, line))
            continue
        width = len(block[0][1]) if block else 0
        if len(block) > 1 and len(block) % width == 0:
            rows = [block[i : i + width] for i in range(0, len(block), width)]
            found += [(part[0][0], "\n".join(row for _, row in part)) for part in rows]
        elif len(block) > 1 and not all(any(map(str.isalpha, row)) for _, row in block):
            found.append((block[0][0], "\n".join(row for _, row in block)))  # not square
        else:
            found += block
        block = []
    return found


def decode(tokens: Any) -> str:
    """One line of S characters: ``# SGo``, and ``?`` for any other token.

    Args:
      tokens: [S] integer; model outputs may hold any value.

    Raises:
      InputError: `tokens` is not one vector of integers.
    """
    values = integers(tokens, "tokens", ndim=1).tolist()
    return "".join(_CHARSET[token - 1] if 1 <= token < VOCAB_SIZE else "?" for token in values)


def draw(tokens: Any, *, clues: Any | None = None, width: int | None = None) -> str:
    """The maze as lines of text, without a final newline.

    Args:
      tokens: [S] integer, a maze or an answer.
      clues: [S] integer, the maze that `tokens` answers. Cells where the answer differs from it,
        other than by marking a free cell as path, are then drawn as ``!``.
      width: columns of the maze, if it is not square.

    Raises:
      InputError: `tokens` or `clues` is not one maze of integers, or their sizes differ.
    """
    array = integers(tokens, "tokens", ndim=1)
    height, width = _shape(len(array), width)
    text = decode(array)
    if clues is not None:
        clues = integers(clues, "clues", ndim=1)
        if clues.shape != array.shape:
            raise InputError(
                f"clues must belong to the maze drawn; clues has {len(clues)} cells and tokens "
                f"{len(array)}; pass the maze that tokens answers"
            )
        kept = _keeps(array, clues)
        text = "".join(char if keep else "!" for char, keep in zip(text, kept, strict=True))
    return "\n".join(text[row * width : (row + 1) * width] for row in range(height))


def satisfies_rules(answers: Any, inputs: Any, *, width: int | None = None) -> np.ndarray:
    """Whether each answer shows a shortest path through its maze: [...] bool.

    True where the answer differs from the maze only in free cells marked ``o``, and these are
    exactly the cells between S and G of one shortest path. No label is needed: any shortest path is
    accepted, while `label` picks one. If the input does not have exactly one S and one G, or has no
    path, no answer is right.

    Args:
      answers: [..., S] integer, any leading axes, any token values.
      inputs: [..., S] integer, the mazes, broadcast to `answers` as in numpy; for rollouts
        [B, K, S] pass ``inputs[:, None]``.
      width: columns of the mazes, if they are not square.

    Raises:
      InputError: either array is not integer, S does not fit `width`, or `inputs` does not
        broadcast.
    """
    answers, inputs = integers(answers, "answers"), integers(inputs, "inputs")
    height, width = _shape(answers.shape[-1], width)
    # The maze of each answer, so that every maze is searched only once.
    maze_of = np.arange(inputs[..., 0].size).reshape(inputs.shape[:-1])
    fits = inputs.shape[-1] == answers.shape[-1]
    try:
        maze_of = np.broadcast_to(maze_of, answers.shape[:-1]).ravel()
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"inputs must broadcast to answers, cell by cell; inputs has shape {inputs.shape} and "
            f"answers {answers.shape}; for rollouts [B, K, S] pass inputs[:, None]"
        )
    leading, answers = answers.shape[:-1], answers.reshape(-1, height * width)
    inputs = inputs.reshape(-1, height * width)

    distance, _ = _search(inputs, height, width)
    one_each = ((inputs == START).sum(-1) == 1) & ((inputs == GOAL).sum(-1) == 1)
    steps = np.where(one_each, distance.max(-1, where=inputs == GOAL, initial=-1), -1)
    satisfied = np.zeros(len(answers), bool)
    for first in range(0, len(answers), _CHUNK):
        rows = np.s_[first : first + _CHUNK]
        mazes = maze_of[rows]
        satisfied[rows] = _are_shortest_paths(
            answers[rows], inputs[mazes], distance[mazes], steps[mazes], height, width
        )
    return satisfied.reshape(leading)


def label(inputs: Any, *, width: int | None = None) -> np.ndarray:
    """The mazes with one shortest path marked ``o``: [..., S] int32.

    Of several shortest paths, the one that reproduces upstream's labels is marked: a breadth-first
    search from S tries neighbours in the order down, left, right, up; a cell's parent is the cell
    that discovered it first; the path is read back from G.

    Args:
      inputs: [..., S] integer, mazes without ``o``.
      width: columns of the mazes, if they are not square.

    Raises:
      InputError: a maze has other tokens than wall, free, S and G, or not one S and one G, or no
        path from S to G; or S does not fit `width`.
    """
    inputs = integers(inputs, "inputs")
    height, width = _shape(inputs.shape[-1], width)
    mazes = _check_mazes(inputs, width)
    distance, parent = _search(mazes, height, width)
    goals = np.flatnonzero(mazes == GOAL)
    closed = np.flatnonzero(distance.ravel()[goals] < 0)
    if closed.size:
        raise InputError(
            f"a maze must have a path from S to G; inputs has none in maze {closed[0]}; remove it"
        )
    labels = mazes.astype(np.int32).ravel()
    cells = parent.ravel()[goals]
    while (cells := cells[labels[cells] != START]).size:
        labels[cells] = PATH
        cells = parent.ravel()[cells]
    return labels.reshape(inputs.shape)


def generate(
    height: int,
    width: int,
    count: int,
    seed: int,
    *,
    kind: Literal["perfect", "braided"] = "perfect",
    min_path: int = 1,
    split: Literal["train", "test"] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Random mazes with exactly one shortest path and their labels: each [count, S] int32.

    Rooms are the cells in even rows and columns, counted from 1, such as r2c2; corridors of one
    cell join neighbouring rooms; all other cells are wall. A perfect maze is a spanning tree of the
    rooms, made by a depth-first walk to random neighbours: its corridors, and so its paths, are
    longer and more winding than those of a uniform spanning tree (Wilson). A braided maze is a
    perfect one with loops: half of its dead ends, rounded up, are connected to a random neighbour,
    except those that are no longer dead ends by then. S is a random room, G a random one of the
    rooms that exactly one shortest path of at least `min_path` steps joins to S.

    Maze i depends only on i and the arguments other than `count`, so a shorter run is a prefix of
    a longer one. It is drawn from ``SeedSequence(seed, spawn_key=(i, r))`` with r = 0. If the draw
    has no such G, is of the other split, or equals an earlier maze of the run, it is repeated with
    r = 1, 2, .... All mazes of a run are distinct; symmetric images count as distinct.

    The bundled ``assets/puzzles/maze11.csv`` is ``generate(11, 11, 512, 2026, split="test")``.

    Args:
      height: rows, odd, at least 5.
      width: columns, odd, at least 5.
      count: number of mazes.
      seed: any integer >= 0.
      kind: "perfect" or "braided".
      min_path: least number of steps from S to G; paths between rooms have an even number.
      split: keep only mazes of this split; "test" has those whose `puzzle_keys` are divisible by 8,
        "train" the others. Whatever their seeds, runs of different splits share no maze, not even
        rotated or reflected; they may share walls, with other S and G.

    Raises:
      InputError: an argument is out of its range, or such mazes are too few or too rare.
    """
    if min(height, width) < 5 or height % 2 == 0 or width % 2 == 0:
        raise InputError(
            f"height and width must be odd and at least 5; they are {height} and {width}; pass odd "
            "numbers, with one cell of outer wall on each side"
        )
    if kind not in ("perfect", "braided"):
        raise InputError(f"kind must be 'perfect' or 'braided'; kind is {kind!r}; pass one of them")
    if split not in (None, "train", "test"):
        raise InputError(f"split must be 'train', 'test' or None; split is {split!r}; pass one")
    if count < 0 or seed < 0 or min_path < 1:
        raise InputError(
            f"count and seed must be at least 0 and min_path at least 1; count is {count}, seed "
            f"{seed}, min_path {min_path}; pass values in range"
        )

    symmetries = dihedral_cells(height, width)
    mazes: dict[bytes, None] = {}  # an ordered set
    for index in range(count):
        for redraw in range(_MAX_REDRAWS):
            rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index, redraw)))
            maze = _random_maze(height, width, rng, kind == "braided", min_path)
            if maze is None or maze in mazes:
                continue
            if split is None or in_test_split(image_key(_least_image(maze, symmetries))) == (
                split == "test"
            ):
                break
        else:
            raise InputError(
                f"{count} distinct {kind} mazes of {height}x{width} cells with min_path {min_path} "
                f"and split {split} must exist and not be rare; {_MAX_REDRAWS} draws of maze "
                f"{index} gave none; pass a smaller count or min_path, or a larger size"
            )
        mazes[maze] = None
    inputs = np.frombuffer(b"".join(mazes), np.uint8).astype(np.int32)
    inputs = inputs.reshape(count, height * width)
    return inputs, label(inputs, width=width)


def images(inputs: Any, *, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """All symmetric images of mazes, each with the label of `label`: two [B * G, S] int32.

    The image of a label is a shortest path too, but of several it is not always the one that
    `label` picks. Row b * G + g is image g of maze b, in the order of `dihedral_cells`.

    Args:
      inputs: [B, S] integer mazes.
      width: columns of the mazes, if they are not square.

    Raises:
      InputError: see `label`.
    """
    inputs = integers(inputs, "inputs", ndim=2)
    cells = dihedral_cells(*_shape(inputs.shape[-1], width))
    moved = inputs[:, cells].reshape(-1, inputs.shape[-1]).astype(np.int32)
    return moved, label(moved, width=width)


def puzzle_keys(inputs: Any, labels: Any = None, *, width: int | None = None) -> np.ndarray:
    """A number for each maze, the same for all its symmetric images: [B] uint64.

    It is the `image_key` of the least image, compared token by token, with one byte per cell.

    Args:
      inputs: [B, S] integer mazes.
      labels: not used; tasks share this signature.
      width: columns of the mazes, if they are not square; see `dihedral_cells`.

    Raises:
      InputError: `inputs` is not [B, S], has what `label` refuses, or S does not fit `width`.
    """
    inputs = integers(inputs, "inputs", ndim=2)
    height, width = _shape(inputs.shape[-1], width)
    mazes = _check_mazes(inputs, width).astype(np.uint8)
    symmetries = dihedral_cells(height, width)
    keys = [image_key(_least_image(maze.tobytes(), symmetries)) for maze in mazes]
    return np.array(keys, np.uint64)


# Search and generation.


def _search(inputs: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Breadth-first search from S through [B, S] mazes: distances and parents, [B, S] each.

    The distance of an unreachable cell is -1. A parent is an index into all B * S cells.
    """
    # A ring of pads, which no path enters, makes border checks unnecessary.
    ring = ((0, 0), (1, 1), (1, 1))
    grid = np.pad(inputs.reshape(-1, height, width), ring)
    number = np.pad(np.arange(inputs.size).reshape(-1, height, width), ring).ravel()
    distance = np.full(grid.shape, -1, np.int32)
    parent = np.full(grid.shape, -1)
    flat_distance, flat_parent = distance.reshape(-1), parent.reshape(-1)  # views
    unseen = np.isin(grid, (FREE, GOAL)).ravel()
    row = width + 2
    steps = np.array([row, -1, 1, -row])  # down, left, right, up

    # One step of all mazes at once. Within a maze `front` keeps the order of a queue.
    front, away = np.flatnonzero(grid == START), 0
    while front.size:
        flat_distance[front] = away
        unseen[front] = False
        reached = (front[:, None] + steps).ravel()
        discoverer = np.repeat(front, len(steps))
        fresh = unseen[reached]
        reached, discoverer = reached[fresh], discoverer[fresh]
        flat_parent[reached[::-1]] = discoverer[::-1]  # the first discoverer is written last
        front, away = reached[flat_parent[reached] == discoverer], away + 1

    # Back to cell numbers without the ring.
    flat_parent[:] = np.where(flat_parent < 0, -1, number[flat_parent])
    inner = np.s_[:, 1:-1, 1:-1]
    return distance[inner].reshape(inputs.shape), parent[inner].reshape(inputs.shape)


def _are_shortest_paths(
    answers: np.ndarray,
    inputs: np.ndarray,
    distance: np.ndarray,
    steps: np.ndarray,
    height: int,
    width: int,
) -> np.ndarray:
    """Whether answers [N, S] are right, given distances from S and steps to G, [N], -1 if none."""
    path = answers == PATH
    right = _keeps(answers, inputs).all(-1)
    right &= path.sum(-1) == steps - 1
    # There are steps + 1 marked cells, including S and G. If each but S is next to one that is one
    # step nearer to S, walking back from G meets steps + 1 of them, hence all.
    unmarked = -2  # neither a distance nor one less than a distance
    away = np.where(path | (inputs == START) | (inputs == GOAL), distance, unmarked)
    away = away.reshape(-1, height, width)
    ring = np.pad(away, ((0, 0), (1, 1), (1, 1)), constant_values=unmarked)
    linked = away <= 0
    for beside in (ring[:, :-2, 1:-1], ring[:, 2:, 1:-1], ring[:, 1:-1, :-2], ring[:, 1:-1, 2:]):
        linked |= beside == away - 1
    return right & linked.all((-2, -1))


def _random_maze(
    height: int, width: int, rng: np.random.Generator, braided: bool, min_path: int
) -> bytes | None:
    """One draw of `generate`, a byte per cell; None if no room can be G."""
    steps = (width, -1, 1, -width)
    rooms = [row * width + column for row in range(1, height, 2) for column in range(1, width, 2)]
    tokens = bytearray([WALL]) * (height * width)

    # Two steps from a room lead to a room or, across an edge, to a cell that is not in `untried`.
    orders = rng.permuted(np.tile(steps, (len(rooms), 1)), axis=1).tolist()
    untried = dict(zip(rooms, orders, strict=True))
    walk = [rooms[rng.integers(len(rooms))]]
    tokens[walk[0]] = FREE
    while walk:
        room = walk[-1]
        if not untried[room]:
            walk.pop()
            continue
        step = untried[room].pop()
        other = room + 2 * step
        if other in untried and tokens[other] == WALL:
            tokens[room + step] = tokens[other] = FREE
            walk.append(other)

    if braided:
        dead_ends = [room for room in rooms if sum(tokens[room + s] == FREE for s in steps) == 1]
        chosen = rng.permutation(dead_ends)[: math.ceil(len(dead_ends) / 2)]
        for room in chosen.tolist():
            closed = [s for s in steps if tokens[room + s] == WALL and room + 2 * s in untried]
            if sum(tokens[room + s] == FREE for s in steps) == 1:
                tokens[room + closed[rng.integers(len(closed))]] = FREE

    start = rooms[rng.integers(len(rooms))]
    goals = _goals(tokens, start, steps, min_path)
    if not goals:
        return None
    tokens[start], tokens[goals[rng.integers(len(goals))]] = START, GOAL
    return bytes(tokens)


def _goals(tokens: bytearray, start: int, steps: Sequence[int], min_path: int) -> list[int]:
    """The rooms that exactly one shortest path of at least `min_path` steps joins to `start`."""
    seen = {start}
    front = {start: 1}  # rooms at one distance, and the number of shortest paths to each
    goals: list[int] = []
    distance = 0
    while front:
        if distance >= min_path:
            goals += [room for room, paths in front.items() if paths == 1]
        distance += 2
        following: dict[int, int] = {}
        for room, paths in front.items():
            for step in steps:
                other = room + 2 * step
                if tokens[room + step] == FREE and other not in seen:
                    following[other] = following.get(other, 0) + paths
        seen.update(following)
        front = following
    return goals


def _least_image(maze: bytes, symmetries: np.ndarray) -> bytes:
    """The least of a maze's symmetric images, a byte per cell."""
    images = np.frombuffer(maze, np.uint8)[symmetries]
    return min(image.tobytes() for image in images)


# Checks and messages.


def _keeps(answers: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """Per cell, whether the answer keeps the maze or marks a free cell."""
    return (answers == inputs) | ((answers == PATH) & (inputs == FREE))


def _shape(num_cells: int, width: int | None) -> tuple[int, int]:
    """Rows and columns of a maze."""
    columns = math.isqrt(num_cells) if width is None else width
    rows = num_cells // max(columns, 1)
    if min(rows, columns) < 1 or rows * columns != num_cells or (width is None and rows != columns):
        raise InputError(
            f"a maze must be square or have rows of `width` cells; it has {num_cells} cells and "
            f"width is {width}; pass whole mazes, and width if they are not square"
        )
    return rows, columns


def _check_mazes(inputs: np.ndarray, width: int) -> np.ndarray:
    """`inputs` as [B, S]; refuses all but mazes of walls, free cells, one S and one G."""
    mazes = inputs.reshape(-1, inputs.shape[-1])
    foreign = np.argwhere((mazes < WALL) | (mazes > GOAL))
    if foreign.size:
        maze, cell = foreign[0].tolist()
        row, column = divmod(cell, width)
        raise InputError(
            f"a maze must hold tokens {WALL} (wall) to {GOAL} (goal); it has {mazes[maze, cell]} "
            f"in r{row + 1}c{column + 1} of maze {maze}; pass mazes without paths and pads"
        )
    for token in (START, GOAL):
        counts = (mazes == token).sum(-1)
        wrong = np.flatnonzero(counts != 1)
        if wrong.size:
            raise InputError(
                f"a maze must have one S and one G; maze {wrong[0]} has {counts[wrong[0]]} "
                f"{_CHARSET[token - 1]}; correct or remove it"
            )
    return mazes


def _wrong_answer(answer: np.ndarray) -> str:
    return (
        "a question must have no 'o', and its answer keep the maze and mark with 'o' the cells "
        f"between S and G of one shortest path; this answer, which marks {(answer == PATH).sum()} "
        "cells, does not; correct or remove the row"
    )


# Files and the task.


def file_format(width: int | None = None) -> CsvFormat:
    """The format of files of mazes; answers are checked to be shortest paths.

    Args:
      width: columns of the mazes, if they are not square.
    """

    def check(inputs: np.ndarray) -> None:
        _check_mazes(inputs, _shape(inputs.shape[-1], width)[1])

    def encode_maze(text: str) -> np.ndarray:
        tokens = encode(text)
        check(np.where(tokens == PATH, FREE, tokens))
        return tokens

    return CsvFormat(
        encode_maze, decode, check, partial(satisfies_rules, width=width), _wrong_answer
    )


read_csv, write_csv = file_format().read, file_format().write


def _read(path: str | os.PathLike[str]) -> Labelled:
    inputs, labels, _, _ = read_csv(path)
    return Labelled(inputs, labels, {"steps": bands((labels == PATH).sum(axis=1) + 1)})


def _reads(path: str | os.PathLike[str]) -> bool:
    return bool(set("SG#") & set(first_question(path) or ""))


def _augment(num_cells: int) -> Augment:
    """For square mazes; see `symmetry.dihedral_augment` for what it does to labels."""
    return symmetry.dihedral_augment(*_shape(num_cells, None))


def _generate(
    size: int, count: int, *, seed: int, split: Literal["train", "test"], **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    return generate(size, size, count, seed, split=split, **options)


def _encode_puzzle(text: str) -> np.ndarray:
    tokens = encode(text)
    label(tokens)  # refuses a maze without a path
    return tokens


TASK = Task(
    name="maze",
    is_text=is_text,
    lines=lines,
    encode=_encode_puzzle,
    bundled=lambda num_cells: f"maze{_shape(num_cells, None)[1]}",
    vocab_size=lambda num_cells: VOCAB_SIZE,
    reads=_reads,
    read=_read,
    satisfies_rules=satisfies_rules,
    draw=draw,
    decode=decode,
    symbols=lambda tokens: [char.strip() for char in decode(tokens)],
    given=lambda tokens: tokens != FREE,
    puzzle_keys=puzzle_keys,
    augment=_augment,
    generate=_generate,
    options={"seed": int, "min_path": int, "kind": str},
)
