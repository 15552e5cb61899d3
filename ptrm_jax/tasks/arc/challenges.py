"""Challenges of ARC-AGI and the JSON files they are read from.

ARC-AGI calls a challenge a task: a few examples, and test inputs whose outputs are to be found.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from etils import epath

from ptrm_jax.errors import InputError
from ptrm_jax.reading import read_text, shown
from ptrm_jax.tasks.arc.grids import MAX_SIZE, NUM_COLORS

SEPARATOR = "|||"
"""Divides the parts of upstream's names of augmented challenges."""
BLANK_NAME = "<blank>"
"""The name of identifier 0, which belongs to padding."""

T = TypeVar("T")

# What the JSON files hold, as msgspec checks it.
_Color = Annotated[int, msgspec.Meta(ge=0, le=NUM_COLORS - 1)]
_Row = Annotated[list[_Color], msgspec.Meta(min_length=1, max_length=MAX_SIZE)]
_Grid = Annotated[list[_Row], msgspec.Meta(min_length=1, max_length=MAX_SIZE)]


class _TestInput(msgspec.Struct, kw_only=True):  # other keys are ignored
    input: _Grid
    output: _Grid | None = None


class _Example(_TestInput, kw_only=True):
    output: _Grid


class _Challenge(msgspec.Struct):
    train: Annotated[list[_Example], msgspec.Meta(min_length=1)]
    test: Annotated[list[_TestInput], msgspec.Meta(min_length=1)]


_REMEDY = (
    "correct the file: a task has lists train and test of {input, output}, a grid 1 to 30 rows of "
    "one length, 1 to 30, of colours 0 to 9"
)


class Pair(NamedTuple):
    """An input and its output, [h, w] int32 each; the output of a test input may be unknown."""

    input: np.ndarray
    output: np.ndarray | None


@dataclasses.dataclass(frozen=True, eq=False)
class Challenge:
    """A challenge of ARC-AGI.

    Attributes:
      name: its id, such as "00576224".
      subset: the set it was read from, such as "evaluation".
      train: its examples, at least one.
      test: its test inputs, at least one, with output None where unknown.
      test_first: whether the file names "test" before "train"; training rows follow this order.
    """

    name: str
    subset: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]
    test_first: bool = False


def read_challenges(
    folder: str | os.PathLike[str], subsets: Sequence[str]
) -> tuple[Challenge, ...]:
    """Challenges of subsets, in order: ``arc-agi_<subset>_challenges.json`` and ``_solutions``.

    A file of challenges holds ``{id: {"train": [{"input": grid, "output": grid}, ...], "test":
    [{"input": grid}, ...]}}``; a test input may have its output. The file of solutions is optional:
    ``{id: [grid, ...]}``, one per test input. Its outputs take precedence over those in the
    challenges; the outputs of a challenge in neither file, and null, are unknown.

    A subset may also be a folder ``<subset>`` or ``data/<subset>`` with a file for each challenge,
    ``<id>.json``, as ARC-AGI's repositories have it, or with folders of these, as ConceptARC's
    ``corpus``, which is the subset "concept" or "corpus".

    Args:
      folder: where the files are.
      subsets: names such as "training", "evaluation2".

    Raises:
      InputError: a subset is missing, a file is malformed (the message begins with its path), or
        a challenge is in two subsets, so that training on one would reveal the answers of the
        other.
      OSError: a file cannot be read.
    """
    root = epath.Path(folder)
    if isinstance(subsets, str) or not subsets:
        raise InputError(f"subsets must be a list of at least one name; got {subsets!r}")
    challenges: dict[str, Challenge] = {}
    for subset in subsets:
        path = root / f"arc-agi_{subset}_challenges.json"
        solutions = root / f"arc-agi_{subset}_solutions.json"
        read = read_file(path, subset) if path.exists() else _read_folder(root, subset, path)
        if not read:
            raise InputError(f"{path}: it must hold at least one task; it has none")
        if path.exists() and solutions.exists():
            read |= _with_solutions(read, path, solutions)
        if shared := challenges.keys() & read.keys():
            name = min(shared)
            raise InputError(
                f"a task must be in one subset only; {name} is in {challenges[name].subset!r} and "
                f"in {subset!r}; leave one of them out"
            )
        challenges |= read
    return tuple(challenges.values())


def read_file(path: epath.Path, subset: str) -> dict[str, Challenge]:
    """The challenges of one file by name, in its order; see `read_challenges`.

    Raises:
      InputError: the file is malformed. The message begins with the path.
      OSError: it cannot be read.
    """
    tasks = read_json(path, dict[str, Any])
    try:
        return {name: _challenge(name, value, subset) for name, value in tasks.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}; {_REMEDY}") from None


def _read_folder(root: epath.Path, subset: str, path: epath.Path) -> dict[str, Challenge]:
    """The challenges of a subset with a file for each; `path` is the one file that is missing."""
    names = (subset, f"data/{subset}", *(["corpus"] if subset == "concept" else []))
    folder = next((root / name for name in names if (root / name).is_dir()), None)
    files = [] if folder is None else [*folder.glob("*.json"), *folder.glob("*/*.json")]
    if not files:
        found = [other.name for other in root.glob("arc-agi_*_challenges.json")]
        for place in (root, root / "data"):
            here = (p for p in place.iterdir() if p.is_dir()) if place.is_dir() else ()
            found += [f"{p.name}/" for p in here if any(p.glob("*.json")) or p.name == "corpus"]
        raise InputError(
            f"subset {subset!r} must have a file {path}, which does not exist, or a folder of "
            f"tasks; {root} has {', '.join(sorted(found)) or 'no challenges'}"
        )
    challenges: dict[str, Challenge] = {}
    for file in sorted(files):
        if file.stem in challenges:
            raise InputError(f"{file}: task {file.stem} is in another folder too; leave one out")
        try:
            challenges[file.stem] = _challenge(file.stem, read_json(file, dict[str, Any]), subset)
        except InputError as error:
            text = str(error)
            raise InputError(
                text if text.startswith(str(file)) else f"{file}: {error}; {_REMEDY}"
            ) from None
    return challenges


def read_json(path: epath.Path, kind: type[T]) -> T:
    """A JSON file as a value of a declared type.

    Raises:
      InputError: it is not JSON, or not of this type. The message begins with the path.
      OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(read_text(path), type=kind)
    except (ValueError, RecursionError) as error:  # msgspec's, or text that is not UTF-8
        raise InputError(f"{path}: {error}; correct the file") from None


def as_json(challenge: Challenge) -> dict[str, list[dict[str, Any]]]:
    """A challenge in the form of the JSON files, with the outputs that are known."""
    kinds = [("train", challenge.train), ("test", challenge.test)]
    return {
        kind: [
            {key: grid.tolist() for key, grid in pair._asdict().items() if grid is not None}
            for pair in pairs
        ]
        for kind, pairs in (kinds[::-1] if challenge.test_first else kinds)
    }


def _challenge(name: str, value: Any, subset: str) -> Challenge:
    if not name or SEPARATOR in name or name == BLANK_NAME:
        raise InputError(
            f"the id of a task must not be empty, be {BLANK_NAME} or contain {SEPARATOR}; got "
            f"{shown(name)}"
        )
    where = f"task {name[:99]}"
    found = _convert(value, _Challenge, where)
    train = _pairs(found.train, f"{where}, train")
    test = _pairs(found.test, f"{where}, test")
    return Challenge(name, subset, train, test, next(iter(value)) == "test")


def _pairs(examples: Sequence[_TestInput], where: str) -> tuple[Pair, ...]:
    pairs = []
    for i, example in enumerate(examples):
        output = None
        if example.output is not None:
            output = _array(example.output, f"{where}[{i}].output")
        pairs.append(Pair(_array(example.input, f"{where}[{i}].input"), output))
    return tuple(pairs)


def _with_solutions(
    challenges: dict[str, Challenge], path: epath.Path, solutions: epath.Path
) -> dict[str, Challenge]:
    """The challenges of a file, read from `path`, that have an entry in its file of solutions."""
    outputs = read_json(solutions, dict[str, Any])
    if foreign := [name for name in outputs if name not in challenges]:
        raise InputError(
            f"{solutions}: solutions must belong to the challenges; {path} lacks task {foreign[0]} "
            f"and {len(foreign) - 1} more; pass the two files of one subset"
        )
    try:
        return {
            name: _with_outputs(
                challenges[name], _convert(value, list[_Grid | None], f"task {name}")
            )
            for name, value in outputs.items()
        }
    except InputError as error:
        raise InputError(f"{solutions}: {error}; correct the file") from None


def _with_outputs(challenge: Challenge, outputs: list[_Grid | None]) -> Challenge:
    if len(outputs) != len(challenge.test):
        raise InputError(
            f"task {challenge.name} must have one output per test input, {len(challenge.test)}; "
            f"got {len(outputs)}"
        )
    test = tuple(
        pair if grid is None else Pair(pair.input, _array(grid, f"task {challenge.name}, [{i}]"))
        for i, (pair, grid) in enumerate(zip(challenge.test, outputs, strict=True))
    )
    return dataclasses.replace(challenge, test=test)


def _convert(value: Any, kind: type[T], what: str) -> T:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{what}: {error}") from None


def _array(grid: _Grid, what: str) -> np.ndarray:
    lengths = {len(row) for row in grid}
    if len(lengths) > 1:
        raise InputError(f"{what} has rows of lengths {sorted(lengths)}")
    return np.array(grid, np.int32)
