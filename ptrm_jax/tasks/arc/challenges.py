"""ARC-AGI-1 and -2: tasks from JSON, grids as tokens, augmentations, rows to train on and to solve.

A grid is [h, w] int32, h and w in 1..30, colours 0..9; 0 is black. Its tokens are the S = 900 cells
of a page of 30x30, row by row: ``PAD`` 0, ``EOS`` 1 along the right and the lower edge of the grid
where there is room (not at the corner where they meet), colour c as c + 2.

Translation. Upstream moves grids on their page in the training split alone: of each augmented task
all pairs but one, drawn at random, input and output by the same offset. What is solved stands at
the upper left, and so must its answer: `crop` starts there, and of a grid moved by even one cell it
finds nothing. Translation is therefore never inverted.

Augmentations. A task is turned or mirrored and its colours but black are permuted. Every augmented
task has its own row of the puzzle embedding, so a checkpoint works only with the identifiers it was
trained with. `make_set` and `write_folder` repeat upstream's draws, of numpy's legacy generator,
which numpy keeps for good. From the same challenge and solution files, in the same order of subsets
and with the same seed and number, identifiers and test rows are upstream's; so are training rows,
but for their offsets where the first subset is a test subset: those depend there on the hash seed
of upstream's Python. All tasks share one generator: an edited, missing or added task changes what
is drawn for those behind it, and so does a missing solution where it makes two augmentations look
alike (here and upstream the grid ``[[0]]`` stands in for it when they are compared). Who has the
folder that a checkpoint was trained on reads it, by `read_set`, and need not rely on any of this.

Sources: upstream TRM, commit e7b6871, ``dataset/build_arc_dataset.py``, ``dataset/common.py``,
``evaluators/arc.py``. Everything here runs on the host in numpy. N is the number of rows.
"""

import dataclasses
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ptrm_jax.data import DataError, read_dataset
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_bytes, write_text
from ptrm_jax.puzzles import Puzzles, make_puzzles

PAD = 0
EOS = 1
FIRST_COLOR = 2
NUM_COLORS = 10
VOCAB_SIZE = FIRST_COLOR + NUM_COLORS
MAX_SIZE = 30
SEQ_LEN = MAX_SIZE * MAX_SIZE

_NUM_TRANSFORMS = 8
_INVERSE = (0, 3, 2, 1, 4, 5, 6, 7)
_SEPARATOR = "|||"
_BLANK_NAME = "<blank>"  # identifier 0 belongs to padding
_TRIES = 5  # draws per augmentation asked for, duplicates included
_CHUNK = 1024  # rows worked on at once, to bound the memory
_GRID_RULE = "a grid must have 1 to 30 rows of one length, 1 to 30, and colours 0 to 9"


# Tasks.


class Pair(NamedTuple):
    """An example: input and output [h, w] int32; the output of a test input may be unknown."""

    input: np.ndarray
    output: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A task of ARC-AGI.

    Attributes:
        name: its id, such as "00576224".
        subset: what it was read from, such as "evaluation".
        train: its examples, at least one.
        test: its test inputs, at least one, outputs None where they are unknown.
        test_first: whether the file names "test" before "train"; training rows follow this order.
    """

    name: str
    subset: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    test_first: bool = False


def read_tasks(folder: str | os.PathLike[str], subsets: Sequence[str]) -> tuple[Task, ...]:
    """Tasks of subsets, in order: ``arc-agi_<subset>_challenges.json``, and ``_solutions`` if any.

    Args:
        folder: where the files are.
        subsets: names such as "training", "evaluation2".

    Raises:
        ValueError: a subset is missing, a file is malformed, or a task is in two subsets, so that
            training on one would show the answers of the other.
        OSError: a file cannot be read.
    """
    folder = epath.Path(folder)
    if isinstance(subsets, str) or not subsets:
        raise InputError(f"subsets must be a list of at least one name; it is {subsets!r}")
    tasks: dict[str, Task] = {}
    for subset in subsets:
        challenges = folder / f"arc-agi_{subset}_challenges.json"
        solutions = folder / f"arc-agi_{subset}_solutions.json"
        if not challenges.exists():
            found = sorted(path.name for path in folder.glob("arc-agi_*_challenges.json"))
            raise InputError(
                f"subset {subset!r} must have a file {challenges}, and there is none; the folder "
                f"has {', '.join(found) or 'no challenges'}"
            )
        for task in read_challenges(challenges, solutions if solutions.exists() else None, subset):
            if task.name in tasks:
                raise InputError(
                    f"a task must be in one subset only; {task.name} is in "
                    f"{tasks[task.name].subset!r} and in {subset!r}; leave one of them out"
                )
            tasks[task.name] = task
    return tuple(tasks.values())


def read_challenges(
    challenges: str | os.PathLike[str], solutions: str | os.PathLike[str] | None, subset: str
) -> tuple[Task, ...]:
    """Tasks of a file of challenges, in its order.

    Args:
        challenges: JSON, ``{id: {"train": [{"input": grid, "output": grid}, ...], "test":
            [{"input": grid}, ...]}}``; a test input may bring its output.
        solutions: JSON, ``{id: [grid, ...]}``, one per test input, or None. The outputs of tasks
            that it lacks are unknown; of those it has, its grids count.
        subset: name that the tasks carry.

    Raises:
        ValueError: a file is malformed, a grid breaks the rules, `solutions` has a task that
            `challenges` lacks or another number of outputs. The message begins with the path.
        OSError: a file cannot be read.
    """
    try:
        tasks = _object(_read_json(challenges), "the file")
        if not tasks:
            raise InputError("a file of challenges must hold at least one task; it has none")
        parsed = [_parse_task(name, value, subset) for name, value in tasks.items()]
    except ValueError as error:
        raise InputError(f"{os.fspath(challenges)}: {error}") from None
    if solutions is None:
        return tuple(parsed)
    try:
        outputs = _object(_read_json(solutions), "the file")
        if foreign := [name for name in outputs if name not in tasks]:
            raise InputError(
                f"solutions must belong to the challenges; {os.fspath(challenges)} lacks task "
                f"{foreign[0]} and {len(foreign) - 1} more; pass the two files of one subset"
            )
        return tuple(
            _with_outputs(task, outputs[task.name]) if task.name in outputs else task
            for task in parsed
        )
    except ValueError as error:
        raise InputError(f"{os.fspath(solutions)}: {error}") from None


def _parse_task(name: str, value: Any, subset: str) -> Task:
    if not name or _SEPARATOR in name or name == _BLANK_NAME:
        raise InputError(f"a task's id must not be empty, {_BLANK_NAME} or hold ||| ; got {name!r}")
    value = _object(value, f"task {name}")
    if set(value) != {"train", "test"}:
        raise InputError(f'task {name} must have "train" and "test" alone; it has {sorted(value)}')
    pairs: dict[str, tuple[Pair, ...]] = {}
    for kind, examples in value.items():
        if not isinstance(examples, list) or not examples:
            raise InputError(f"task {name}: {kind} must be a list of at least one example")
        pairs[kind] = tuple(
            _parse_pair(example, f"task {name}, {kind} {i}", kind == "train")
            for i, example in enumerate(examples)
        )
    return Task(name, subset, pairs["train"], pairs["test"], next(iter(value)) == "test")


def _parse_pair(value: Any, where: str, needs_output: bool) -> Pair:
    value = _object(value, where)
    if not {"input"} | ({"output"} if needs_output else set()) <= set(value) <= {"input", "output"}:
        wanted = '"input" and "output"' if needs_output else '"input", and "output" if known,'
        raise InputError(f"{where} must have {wanted} alone; it has {sorted(value)}")
    output = _parse_grid(value["output"], f"{where}, output") if "output" in value else None
    return Pair(_parse_grid(value["input"], f"{where}, input"), output)


def _with_outputs(task: Task, outputs: Any) -> Task:
    if not isinstance(outputs, list) or len(outputs) != len(task.test):
        got = len(outputs) if isinstance(outputs, list) else type(outputs).__name__
        raise InputError(
            f"task {task.name} must have one output per test input, {len(task.test)}; got {got}"
        )
    grids = [_parse_grid(grid, f"task {task.name}, {i}") for i, grid in enumerate(outputs)]
    test = tuple(Pair(pair.input, grid) for pair, grid in zip(task.test, grids, strict=True))
    return dataclasses.replace(task, test=test)


def _parse_grid(value: Any, where: str) -> np.ndarray:
    fault = ""
    if not isinstance(value, list) or not all(isinstance(row, list) for row in value):
        fault = "is no list of rows"
    elif not value or len({len(row) for row in value}) != 1 or not value[0]:
        fault = f"has rows of lengths {sorted({len(row) for row in value})}"
    elif max(len(value), len(value[0])) > MAX_SIZE:
        fault = f"has {len(value)}x{len(value[0])} cells"
    else:
        # bool is an int to Python; JSON's true is not a colour.
        bad = [x for row in value for x in row if type(x) is not int or not 0 <= x < NUM_COLORS]
        fault = f"has a cell {str(bad[0])[:40]!r}" if bad else ""
    if fault:
        raise InputError(f"{_GRID_RULE}; {where} {fault}; correct the file")
    return np.array(value, np.int32)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} must be a JSON object; it is a {type(value).__name__}")
    return value


def _read_json(path: str | os.PathLike[str]) -> Any:
    try:
        return json.loads(epath.Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"line {error.lineno} is not JSON: {error.msg}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"it is not UTF-8: {error}") from None


# Grids and tokens.


def encode(grid: Any, row: int = 0, column: int = 0) -> np.ndarray:
    """Tokens of a grid: [900] int32.

    Args:
        grid: [h, w] integer, colours 0..9, h and w in 1..30.
        row: rows of padding above it.
        column: columns of padding to its left.

    Raises:
        ValueError: `grid` is no such grid, or it does not fit on the page at this offset.
    """
    grid = _check_grid(grid)
    height, width = grid.shape
    if not (0 <= row <= MAX_SIZE - height and 0 <= column <= MAX_SIZE - width):
        raise InputError(
            f"a grid of {height}x{width} cells must stand within 30x30; it is put at row {row}, "
            f"column {column}; pass at most {MAX_SIZE - height} and {MAX_SIZE - width}"
        )
    tokens = np.zeros(SEQ_LEN, np.int32)
    _put(tokens, grid, row, column)
    return tokens


def crop_sizes(tokens: Any) -> tuple[np.ndarray, np.ndarray]:
    """Heights and widths of the grids in pages: two [...] int32 arrays.

    The largest rectangle of colours that begins at the upper left; of several the lowest in height.
    Both are 0 where the first token is no colour.

    Args:
        tokens: [..., 900] integer, any values.

    Raises:
        ValueError: `tokens` is not [..., 900] integer.
    """
    tokens = _check_tokens(tokens)
    pages = tokens.reshape(*tokens.shape[:-1], MAX_SIZE, MAX_SIZE)
    colored = (pages >= FIRST_COLOR) & (pages < VOCAB_SIZE)
    runs = np.where(colored.all(-1), MAX_SIZE, colored.argmin(-1))
    widths = np.minimum.accumulate(runs, axis=-1)  # of the rectangle down to each row
    areas = widths * np.arange(1, MAX_SIZE + 1)
    last = areas.argmax(-1)
    width = np.take_along_axis(widths, last[..., None], axis=-1)[..., 0]
    return np.where(width > 0, last + 1, 0).astype(np.int32), width.astype(np.int32)


def crop(tokens: Any) -> np.ndarray:
    """The grid at the upper left of a page, as upstream's evaluator reads it: [h, w] int32.

    Inverts `encode` at offset 0. At any other offset the first token is no colour, and the grid is
    empty: [0, 0]. See `crop_sizes`.

    Args:
        tokens: [900] integer; model outputs may hold any value.

    Raises:
        ValueError: `tokens` is not [900] integer.
    """
    tokens = _check_tokens(tokens, ndim=1)
    height, width = crop_sizes(tokens)
    page = tokens.reshape(MAX_SIZE, MAX_SIZE)
    return (page[:height, :width] - FIRST_COLOR).astype(np.int32)


def draw(grid: Any) -> str:
    """A grid or a page as lines of text, without a final newline.

    Colours are digits. Of a page ``|`` is EOS, ``.`` PAD and ``?`` any other token; the lines and
    columns below and right of the last token that is not PAD are left out.

    Args:
        grid: [h, w] integer colours or [900] integer tokens.

    Raises:
        ValueError: it is neither.
    """
    if np.ndim(grid) == 2:
        return "\n".join("".join(map(str, row)) for row in _check_grid(grid).tolist())
    page = _check_tokens(grid, ndim=1).reshape(MAX_SIZE, MAX_SIZE)
    chars = dict(enumerate(".|0123456789"))
    lines = ["".join(chars.get(token, "?") for token in row) for row in page.tolist()]
    used = page != PAD
    height, width = (np.flatnonzero(used.any(axis)).max(initial=-1) + 1 for axis in (1, 0))
    return "\n".join(line[:width] for line in lines[:height])


def pack(grid: np.ndarray) -> bytes:
    """A grid as bytes: height, width, cells row by row; equal bytes mean equal grids."""
    return bytes(grid.shape) + grid.astype(np.uint8).tobytes()


def unpack(packed: bytes) -> np.ndarray:
    """The grid of `pack`: [h, w] int32."""
    cells = np.frombuffer(packed, np.uint8, offset=2)
    return cells.reshape(packed[0], packed[1]).astype(np.int32)


def _put(tokens: np.ndarray, grid: np.ndarray, row: int, column: int) -> None:
    """Writes a grid into [900] zeros."""
    page = tokens.reshape(MAX_SIZE, MAX_SIZE)
    bottom, right = row + grid.shape[0], column + grid.shape[1]
    page[row:bottom, column:right] = grid + FIRST_COLOR
    # Slices one cell thick: they are empty where the grid ends at the edge of the page.
    page[bottom : bottom + 1, column:right] = EOS
    page[row:bottom, right : right + 1] = EOS


def _check_grid(grid: Any, *, may_be_empty: bool = False) -> np.ndarray:
    array = np.asarray(grid)
    fault = ""
    if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
        fault = f"has shape {array.shape} and type {array.dtype}"
    elif max(array.shape) > MAX_SIZE or not (may_be_empty or array.size):
        fault = f"has shape {array.shape}"
    elif ((array < 0) | (array >= NUM_COLORS)).any():
        fault = f"has colours {array.min()}..{array.max()}"
    if fault:
        raise InputError(f"{_GRID_RULE}, as [h, w] integers; grid {fault}; crop tokens first")
    return array


def _check_tokens(tokens: Any, *, ndim: int | None = None) -> np.ndarray:
    array = np.asarray(tokens)
    fits = array.ndim == ndim if ndim else array.ndim > 0
    if not fits or array.shape[-1] != SEQ_LEN or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"tokens must be {'[900]' if ndim else '[..., 900]'} integers; they have shape "
            f"{array.shape} and type {array.dtype}; encode grids first"
        )
    return array


# Augmentations.


class Augmentation(NamedTuple):
    """A symmetry of the square with a permutation of the colours.

    Attributes:
        transform: 0 as it is, 1 to 3 quarter turns counterclockwise, 4 left and right swapped,
            5 top and bottom swapped, 6 transposed, 7 transposed along the other diagonal.
        colors: ten colours; `colors[c]` is what colour c becomes.
    """

    transform: int
    colors: tuple[int, ...]

    def apply(self, grid: Any) -> np.ndarray:
        """The grid augmented: [h, w] or [w, h] int32. ValueError where it is no grid."""
        grid = _check_grid(grid, may_be_empty=True)
        return np.array(self.colors, np.int32)[_turn(grid, self.transform)]

    def invert(self, grid: Any) -> np.ndarray:
        """The grid whose augmented image this is; the inverse of `apply`."""
        grid = _check_grid(grid, may_be_empty=True)
        return np.argsort(self.colors).astype(np.int32)[_turn(grid, _INVERSE[self.transform])]

    def name(self, task: str) -> str:
        """Upstream's name of a task so augmented, as in ``identifiers.json``."""
        if self == PLAIN:
            return task
        return _SEPARATOR.join((task, f"t{self.transform}", "".join(map(str, self.colors))))


PLAIN = Augmentation(0, tuple(range(NUM_COLORS)))


def parse_name(name: str) -> tuple[str, Augmentation]:
    """Task and augmentation of a name in upstream's ``identifiers.json``.

    Args:
        name: a task's id, alone or as ``<id>|||t<transform>|||<ten digits>``.

    Raises:
        ValueError: it is neither, or the digits are no permutation.
    """
    task, *rest = name.split(_SEPARATOR)
    is_task = task not in ("", _BLANK_NAME)
    if is_task and not rest:
        return task, PLAIN
    if is_task and len(rest) == 2 and rest[0] in [f"t{t}" for t in range(_NUM_TRANSFORMS)]:
        if sorted(rest[1]) == list("0123456789"):
            return task, Augmentation(int(rest[0][1:]), tuple(map(int, rest[1])))
    raise InputError(
        "an identifier's name must be <task> or <task>|||t<0 to 7>|||<a permutation of "
        f"0123456789>; it is {name[:80]!r}"
    )


def _turn(grid: np.ndarray, transform: int) -> np.ndarray:
    """A view of the grid under one of the eight symmetries, numbered as upstream does."""
    if transform in (1, 3, 6, 7):
        grid = grid.T
    if transform in (1, 2, 5, 7):
        grid = grid[::-1]
    if transform in (2, 3, 4, 7):
        grid = grid[:, ::-1]
    return grid


def restore(tokens: np.ndarray, transforms: np.ndarray, colors: np.ndarray) -> list[bytes]:
    """Grids cropped from pages, the augmentations inverted, each as `pack` gives it.

    Args:
        tokens: [M, 900] integer, any values.
        transforms: [M] integer, as in `Augmentation`.
        colors: [M, 10] integer, likewise.
    """
    heights, widths = (sizes.tolist() for sizes in crop_sizes(tokens))
    # Other tokens than colours may wrap around here: there are none within a crop.
    pages = tokens.astype(np.uint8).reshape(-1, MAX_SIZE, MAX_SIZE)
    tables = np.zeros((len(tokens), 256), np.uint8)
    tables[:, FIRST_COLOR:VOCAB_SIZE] = np.argsort(colors, axis=1)
    packed = []
    for page, height, width, transform, table in zip(
        pages, heights, widths, transforms.tolist(), tables, strict=True
    ):
        grid = _turn(page[:height, :width], _INVERSE[transform])
        packed.append(bytes(grid.shape) + grid.tobytes().translate(table.tobytes()))
    return packed


def _draw_augmentations(
    tasks: Sequence[Task], num_augmentations: int, rng: np.random.RandomState
) -> list[tuple[Task, list[Augmentation]]]:
    """Tasks in upstream's order, each with its augmentations, the first of them `PLAIN`."""
    subsets: dict[str, list[Task]] = {}
    for task in tasks:
        subsets.setdefault(task.subset, []).append(task)
    drawn = []
    for subset in subsets.values():
        rng.shuffle(subset)
        drawn += [(task, _distinct_augmentations(task, num_augmentations, rng)) for task in subset]
    return drawn


def _distinct_augmentations(
    task: Task, num_augmentations: int, rng: np.random.RandomState
) -> list[Augmentation]:
    """`PLAIN` and up to so many others, no two of which give the same set of pairs."""
    unknown = np.zeros((1, 1), np.int32)
    pairs = [(x, unknown if y is None else y) for x, y in (*task.train, *task.test)]
    turned = [
        [tuple(_turn(grid, t).astype(np.uint8) for grid in pair) for pair in pairs]
        for t in range(_NUM_TRANSFORMS)
    ]
    images = [
        [(bytes((*x.shape, *y.shape)), x.tobytes() + y.tobytes()) for x, y in image]
        for image in turned
    ]

    def look(augmentation: Augmentation) -> tuple[bytes, ...]:
        table = bytes(augmentation.colors) + bytes(256 - NUM_COLORS)
        image = images[augmentation.transform]
        return tuple(sorted(shapes + cells.translate(table) for shapes, cells in image))

    distinct = [PLAIN]
    seen = {look(PLAIN)}
    for _ in range(_TRIES * num_augmentations):
        transform = int(rng.randint(0, _NUM_TRANSFORMS))
        others = rng.permutation(np.arange(1, NUM_COLORS, dtype=np.uint8))
        augmentation = Augmentation(transform, (0, *others.tolist()))
        image = look(augmentation)
        if image not in seen:
            seen.add(image)
            distinct.append(augmentation)
        if len(distinct) > num_augmentations:
            break
    return distinct


# Rows to solve and to train on.


@dataclasses.dataclass(frozen=True, eq=False)
class ArcSet:
    """Test inputs under augmentations, a row each, and what it takes to undo them.

    Attributes:
        puzzles: N rows; the identifiers tell augmented tasks apart.
        labels: [N, 900] int32, the augmented outputs; PAD, to be ignored, throughout where unknown.
        num_puzzle_identifiers: rows of the puzzle embedding, that of padding included.
        tasks: the T tasks to solve, whether they have rows or not.
        task_of: [N] int32, row in `tasks`.
        test_of: [N] int32, which of the task's test inputs.
        transform_of: [N] int32, see `Augmentation`.
        colors_of: [N, 10] int32, likewise.
    """

    puzzles: Puzzles
    labels: np.ndarray
    num_puzzle_identifiers: int
    tasks: tuple[Task, ...]
    task_of: np.ndarray
    test_of: np.ndarray
    transform_of: np.ndarray
    colors_of: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: slice | np.ndarray) -> "ArcSet":
        """Some of the rows; all tasks stay."""
        per_row = ("labels", "task_of", "test_of", "transform_of", "colors_of")
        kept = {name: getattr(self, name)[rows] for name in per_row}
        return dataclasses.replace(self, puzzles=self.puzzles.take(rows), **kept)


def make_set(
    tasks: Sequence[Task],
    test_subsets: Sequence[str],
    *,
    num_augmentations: int = 1000,
    seed: int = 42,
) -> ArcSet:
    """The test inputs of some subsets under augmentations: rows by task, augmentation, test input.

    The rows are those of the test split that `write_folder` writes with the same arguments; see
    above for what they share with upstream's.

    Args:
        tasks: all tasks of the training run, by subset in its order: identifiers count through.
        test_subsets: subsets whose test inputs are to be solved.
        num_augmentations: at most so many per task beside the task itself, distinct in their
            effect; fewer where five times as many draws do not give them.
        seed: 0..2**32 - 1.

    Raises:
        ValueError: an argument is out of range, `test_subsets` names no subset of `tasks`, or a
            task occurs twice.
    """
    _check_arguments(tasks, test_subsets, num_augmentations, seed)
    if not test_subsets:
        raise InputError("test_subsets must name a subset to solve; it is empty")
    drawn = _draw_augmentations(tasks, num_augmentations, np.random.RandomState(seed))
    rows: list[tuple[int, int, int, Augmentation]] = []  # identifier, task, test input
    to_solve = []
    identifier = 1
    for task, augmentations in drawn:
        if task.subset in test_subsets:
            rows += [
                (identifier + i, len(to_solve), j, augmentation)
                for i, augmentation in enumerate(augmentations)
                for j in range(len(task.test))
            ]
            to_solve.append(task)
        identifier += len(augmentations)
    inputs, labels = np.zeros((2, len(rows), SEQ_LEN), np.int32)
    for x, y, (_, task, test, augmentation) in zip(inputs, labels, rows, strict=True):
        _put_pair(x, y, to_solve[task].test[test], augmentation, 0, 0)
    identifiers, task_of, test_of = (
        np.array(column, np.int32) for column in list(zip(*rows, strict=True))[:3]
    )
    return ArcSet(
        make_puzzles(inputs, identifiers),
        labels,
        identifier,
        tuple(to_solve),
        task_of,
        test_of,
        np.array([augmentation.transform for *_, augmentation in rows], np.int32),
        np.array([augmentation.colors for *_, augmentation in rows], np.int32),
    )


def read_set(folder: str | os.PathLike[str]) -> ArcSet:
    """The test split of a folder in upstream's layout, with what undoes its augmentations.

    The folder holds ``identifiers.json``, ``test_puzzles.json`` and ``test/``. A row's task and
    augmentation are those its identifier names; its test input is the one that equals the row's
    grid with the augmentation undone. Of equal test inputs of one task the first is that of its
    first row. A folder that upstream built without solutions has ``[[0]]`` in place of them, which
    nothing tells from a true output.

    Args:
        folder: what upstream's ``dataset/build_arc_dataset.py`` or `write_folder` wrote.

    Raises:
        DataError: the folder is incomplete or malformed, or its files disagree.
    """
    dataset = read_dataset(folder, split="test")
    folder = epath.Path(folder)
    if dataset.puzzles.inputs.shape[1] != SEQ_LEN or dataset.vocab_size != VOCAB_SIZE:
        raise DataError(
            f"{folder} must hold ARC-AGI, {SEQ_LEN} tokens out of {VOCAB_SIZE}; it has "
            f"{dataset.puzzles.inputs.shape[1]} out of {dataset.vocab_size}"
        )
    names, tasks = _read_names(folder / "identifiers.json"), _read_test_tasks(folder)
    number = {task.name: i for i, task in enumerate(tasks)}
    identifiers = dataset.puzzles.puzzle_identifiers
    known: dict[int, tuple[int, Augmentation]] = {}
    for identifier in np.unique(identifiers).tolist():
        try:
            if identifier >= len(names):
                raise InputError(f"it has {len(names)} names; the test rows ask for {identifier}")
            name, augmentation = parse_name(names[identifier])
            if name not in number:
                raise InputError(f"task {name} of identifier {identifier} is no test puzzle")
        except ValueError as error:
            raise DataError(f"{folder / 'identifiers.json'}: {error}") from None
        known[identifier] = number[name], augmentation
    of_row = [known[identifier] for identifier in identifiers.tolist()]
    task_of = np.array([task for task, _ in of_row], np.int32)
    transform_of = np.array([augmentation.transform for _, augmentation in of_row], np.int32)
    colors_of = np.array([augmentation.colors for _, augmentation in of_row], np.int32)
    packed = [
        grid
        for first in range(0, len(of_row), _CHUNK)
        for grid in restore(
            *(x[first : first + _CHUNK] for x in (dataset.puzzles.inputs, transform_of, colors_of))
        )
    ]
    return ArcSet(
        dataset.puzzles,
        dataset.labels,
        len(names),
        tasks,
        task_of,
        _test_inputs(folder, tasks, identifiers, task_of, packed),
        transform_of,
        colors_of,
    )


def _test_inputs(
    folder: epath.Path,
    tasks: Sequence[Task],
    identifiers: np.ndarray,
    task_of: np.ndarray,
    packed: Sequence[bytes],
) -> np.ndarray:
    """Which test input of its task each row shows: [N] int32."""
    places: dict[tuple[int, bytes], list[int]] = {}
    for i, task in enumerate(tasks):
        for j, pair in enumerate(task.test):
            places.setdefault((i, pack(pair.input)), []).append(j)
    earlier: Counter[tuple[int, bytes]] = Counter()  # rows of this augmented task with this grid
    test_of = np.empty(len(packed), np.int32)
    for row, key in enumerate(zip(task_of.tolist(), packed, strict=True)):
        if key not in places:
            raise DataError(
                f"{folder}: row {row} of the test split must show a test input of task "
                f"{tasks[key[0]].name} in test_puzzles.json; with its augmentation undone it "
                "equals none"
            )
        place = (int(identifiers[row]), key[1])
        test_of[row] = places[key][earlier[place] % len(places[key])]
        earlier[place] += 1
    return test_of


def _read_names(path: epath.Path) -> list[str]:
    names = _read_data_json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path} must be a list of names, one per row of the puzzle embedding")
    return names


def _read_test_tasks(folder: epath.Path) -> tuple[Task, ...]:
    path = folder / "test_puzzles.json"
    try:
        tasks = _object(_read_data_json(path), "the file")
        return tuple(_parse_task(name, value, "test") for name, value in tasks.items())
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _read_data_json(path: epath.Path) -> Any:
    if not path.exists():
        raise DataError(f"{path} is missing; it lies beside the splits of a folder of ARC-AGI")
    try:
        return _read_json(path)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def write_folder(
    folder: str | os.PathLike[str],
    tasks: Sequence[Task],
    test_subsets: Sequence[str],
    *,
    num_augmentations: int = 1000,
    seed: int = 42,
) -> None:
    """Writes tasks as a folder in upstream's layout, to train on and for `read_set`.

    The training split has the examples of all tasks and the test inputs, with their outputs, of
    those outside `test_subsets`; the test split has the test inputs of the others. A test input
    without a known output is left out of training; in the test split its label is PAD throughout,
    and ``test_puzzles.json`` gives no output. (Upstream writes ``[[0]]`` for both.) See above for
    what the rows share with upstream's. ``dataset.json`` comes last in each split.

    Memory: three bytes per token of the training split, about 10 GB for 1000 augmentations of
    ARC-AGI-1 with ConceptARC.

    Args:
        folder: is made; must be empty where it exists.
        tasks: as for `make_set`.
        test_subsets: as for `make_set`; may be empty, then there is no test split.
        num_augmentations: as for `make_set`.
        seed: as for `make_set`; of the augmentations and the offsets.

    Raises:
        ValueError: as `make_set`, or `folder` is not empty.
        OSError: a file cannot be written.
    """
    _check_arguments(tasks, test_subsets, num_augmentations, seed)
    folder = epath.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(
            f"{folder} must be empty, lest two data sets mix; remove it or pass another"
        )
    rng = np.random.RandomState(seed)
    drawn = _draw_augmentations(tasks, num_augmentations, rng)
    names = [augmentation.name(task.name) for task, group in drawn for augmentation in group]
    train, test, first = [], [], 1
    for task, augmentations in drawn:
        is_test = task.subset in test_subsets
        known = () if is_test else tuple(pair for pair in task.test if pair.output is not None)
        pairs = known + task.train if task.test_first else task.train + known
        train.append((pairs, augmentations, first))
        if is_test:
            test.append((task.test, augmentations, first))
        first += len(augmentations)

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "identifiers.json", json.dumps([_BLANK_NAME, *names]))
    puzzles = {task.name: _as_json(task) for task, _ in drawn if task.subset in test_subsets}
    write_text(folder / "test_puzzles.json", json.dumps(puzzles))
    _write_split(folder / "train", train, len(names) + 1, rng)
    if test:
        _write_split(folder / "test", test, len(names) + 1, None)


_Group = tuple[Sequence[Pair], Sequence[Augmentation], int]  # pairs of a task, its first identifier


def _write_split(
    folder: epath.Path,
    groups: Sequence[_Group],
    num_identifiers: int,
    rng: np.random.RandomState | None,
) -> None:
    """Writes a split; with `rng` all pairs of an augmented task but one are moved."""
    num_rows = sum(len(pairs) * len(augmentations) for pairs, augmentations, _ in groups)
    inputs, labels = np.zeros((2, num_rows, SEQ_LEN), np.uint8)
    puzzle_sizes = []
    identifiers = []
    rows = iter(zip(inputs, labels, strict=True))
    for pairs, augmentations, first in groups:
        for i, augmentation in enumerate(augmentations):
            for pair, (row, column) in zip(pairs, _offsets(pairs, augmentation, rng), strict=True):
                _put_pair(*next(rows), pair, augmentation, row, column)
            puzzle_sizes.append(len(pairs))
            identifiers.append(first + i)
    group_sizes = [len(augmentations) for _, augmentations, _ in groups]
    folder.mkdir(exist_ok=True)
    for name, array in {
        "inputs": inputs,
        "labels": labels,
        "puzzle_identifiers": np.array(identifiers, np.int32),
        "puzzle_indices": np.cumsum([0, *puzzle_sizes], dtype=np.int32),
        "group_indices": np.cumsum([0, *group_sizes], dtype=np.int32),
    }.items():
        buffer = io.BytesIO()
        np.save(buffer, array)
        write_bytes(folder / f"all__{name}.npy", buffer.getvalue())
    metadata = {
        "pad_id": PAD,
        "ignore_label_id": PAD,
        "blank_identifier_id": 0,
        "vocab_size": VOCAB_SIZE,
        "seq_len": SEQ_LEN,
        "num_puzzle_identifiers": num_identifiers,
        "total_groups": len(groups),
        "mean_puzzle_examples": num_rows / len(identifiers),
        "total_puzzles": len(identifiers),
        "sets": ["all"],
    }
    write_text(folder / "dataset.json", json.dumps(metadata))


def _offsets(
    pairs: Sequence[Pair], augmentation: Augmentation, rng: np.random.RandomState | None
) -> Iterator[tuple[int, int]]:
    """Row and column of each pair of an augmented task, drawn in upstream's order."""
    if rng is None:
        yield from [(0, 0)] * len(pairs)
        return
    unmoved = rng.randint(0, len(pairs))
    for i, (x, y) in enumerate(pairs):
        if i == unmoved:
            yield 0, 0
            continue
        shapes = [_turn(grid, augmentation.transform).shape for grid in (x, y)]
        height, width = np.max(shapes, axis=0)
        row = rng.randint(0, MAX_SIZE - height + 1)
        yield row, rng.randint(0, MAX_SIZE - width + 1)


def _put_pair(
    x: np.ndarray, y: np.ndarray, pair: Pair, augmentation: Augmentation, row: int, column: int
) -> None:
    """Writes an augmented pair into two vectors of [900] zeros; an unknown output stays zeros."""
    colors = np.array(augmentation.colors)
    for tokens, grid in zip((x, y), pair, strict=True):
        if grid is not None:
            _put(tokens, colors[_turn(grid, augmentation.transform)], row, column)


def _as_json(task: Task) -> dict[str, list[dict[str, Any]]]:
    kinds = [("train", task.train), ("test", task.test)]
    return {
        kind: [
            {key: grid.tolist() for key, grid in pair._asdict().items() if grid is not None}
            for pair in pairs
        ]
        for kind, pairs in (kinds[::-1] if task.test_first else kinds)
    }


def _check_arguments(
    tasks: Sequence[Task], test_subsets: Sequence[str], num_augmentations: int, seed: int
) -> None:
    subsets = {task.subset for task in tasks}
    if isinstance(test_subsets, str) or not set(test_subsets) <= subsets:
        raise InputError(
            f"test_subsets must be a list out of the subsets of tasks, {sorted(subsets)}; it is "
            f"{test_subsets!r}"
        )
    repeated = [name for name, n in Counter(task.name for task in tasks).items() if n > 1]
    if repeated or not tasks:
        raise InputError(
            "tasks must be at least one, each with its own name; "
            + (f"{repeated[0]} occurs twice; leave one out" if repeated else "there is none")
        )
    for what, value, limit in (
        ("num_augmentations", num_augmentations, 10**6),
        ("seed", seed, 2**32 - 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise InputError(f"{what} must be a whole number in 0..{limit}; it is {value!r}")
