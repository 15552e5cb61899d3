"""Labelled puzzles, and the reader of folders in upstream's layout."""

import dataclasses
import hashlib
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ptrm_jax.config import ModelConfig
from ptrm_jax.errors import DataError
from ptrm_jax.puzzles import Puzzles, check_puzzles, make_puzzles
from ptrm_jax.reading import MEBIBYTE, read_json, read_npy, shown


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Puzzles with their labels.

    Attributes:
      name: what the user called it.
      puzzles: B puzzles, in data-set order.
      labels: [B, S] int32 tokens.
      ignore_label: label of positions that are not scored, or None.
      digest: SHA-256 over inputs, labels and identifiers of the whole set, 64 hex digits.
      vocab_size: V of the data set.
      puzzle_of: [B] int32, ascending: rows of one puzzle (such as the examples of an ARC-AGI task)
        share a number; training draws whole puzzles. None if every row is a puzzle.
      group_of: [B] int32, ascending: puzzles of one group (the augmentations of one original)
        share a number; training draws one of them. None if every puzzle is a group.
      task: name of the task whose rules apply, if known.
      strata: by name, the kind of each puzzle, by which results are split: [B] strings.
    """

    name: str
    puzzles: Puzzles
    labels: np.ndarray
    ignore_label: int | None
    digest: str
    vocab_size: int
    puzzle_of: np.ndarray | None = None
    group_of: np.ndarray | None = None
    task: str | None = None
    strata: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, num_puzzles: int | None) -> "Dataset":
        """The first `num_puzzles`, or all; the digest remains that of the whole set.

        Raises:
          DataError: the set is smaller, or num_puzzles < 1.
        """
        if num_puzzles is None:
            return self
        if not 1 <= num_puzzles <= len(self.labels):
            raise DataError(
                f"num_puzzles must be between 1 and {len(self.labels)}, the size of {self.name}; "
                f"got {num_puzzles}; pass fewer, or None for all"
            )
        return self.take(slice(num_puzzles))

    def take(self, rows: slice | np.ndarray) -> "Dataset":
        """Some of the rows; each keeps its index, and therefore its noise."""
        return dataclasses.replace(
            self,
            puzzles=self.puzzles.take(rows),
            labels=self.labels[rows],
            puzzle_of=None if self.puzzle_of is None else self.puzzle_of[rows],
            group_of=None if self.group_of is None else self.group_of[rows],
            strata={name: kinds[rows] for name, kinds in self.strata.items()},
        )

    def check_fits(self, config: ModelConfig, *, in_training: bool = False) -> None:
        """Raises DataError unless the model can read these puzzles.

        Args:
          config: its architecture.
          in_training: it is a setting of a run, rather than that of a checkpoint.
        """
        sizes = self.puzzles.inputs.shape[1], self.vocab_size
        if in_training and (sizes[0] != config.seq_len or sizes[1] > config.vocab_size):
            raise DataError(
                f"{self.name} does not fit the model to train: it has puzzles of {sizes[0]} tokens "
                f"out of {sizes[1]}, the model reads {config.seq_len} out of {config.vocab_size}; "
                f"pass --model.seq-len {sizes[0]} --model.vocab-size {sizes[1]}, or other data"
            )
        model = "the model to train" if in_training else "this checkpoint"
        try:
            check_puzzles(config, self.puzzles)
        except ValueError as error:
            raise DataError(f"{self.name} does not fit {model}: {error}") from error
        if self.vocab_size > config.vocab_size:
            raise DataError(
                f"{self.name} has {self.vocab_size} tokens, the checkpoint {config.vocab_size}; "
                "use the data set it was trained on"
            )


def make_dataset(
    name: str,
    inputs: np.ndarray,
    labels: np.ndarray,
    vocab_size: int,
    *,
    task: str | None = None,
    strata: Mapping[str, np.ndarray] | None = None,
) -> Dataset:
    """A data set of arrays in which token 0 is padding, as in all tasks of this package.

    Args:
      name: what the user called it.
      inputs: [B, S] int32, the puzzles.
      labels: [B, S] int32, their answers.
      vocab_size: V.
      task: as `Dataset.task`.
      strata: as `Dataset.strata`.
    """
    dataset = _dataset(name, make_puzzles(inputs), labels, 0, vocab_size)
    return dataclasses.replace(dataset, task=task, strata=strata or {})


def _dataset(
    name: str, puzzles: Puzzles, labels: np.ndarray, ignore_label: int | None, vocab_size: int
) -> Dataset:
    digest = hashlib.sha256()
    for array in (puzzles.inputs, labels, puzzles.puzzle_identifiers):
        digest.update(str(array.shape).encode())
        digest.update(np.ascontiguousarray(array, np.int32).tobytes())
    return Dataset(name, puzzles, labels, ignore_label, digest.hexdigest(), vocab_size)


def read_upstream(
    path: str | os.PathLike[str], split: str = "test", *, name: str | None = None
) -> Dataset:
    """A folder in the layout of upstream TRM (`puzzle_dataset.py`, `dataset/build_*.py`).

    Args:
      path: a folder with `dataset.json` and the arrays, or with a sub-folder `split` of these.
      split: that sub-folder.
      name: what the user called it; by default the folder.

    Raises:
      DataError: the folder is incomplete or malformed, or its files disagree.
    """
    folder = epath.Path(path)
    if not (folder / "dataset.json").exists():
        folder = folder / split
    metadata = _read_metadata(folder / "dataset.json")
    vocab_size = metadata["vocab_size"]
    parts = [_read_set(folder, set_name, metadata["seq_len"]) for set_name in metadata["sets"]]
    inputs, labels, identifiers, puzzle_of, group_of = (
        np.concatenate(arrays) for arrays in zip(*parts, strict=True)
    )
    if not len(inputs):
        raise DataError(f"{folder} holds no puzzles")
    ignore_label, labels = _ignored(metadata["ignore_label_id"], labels)
    for what, array, limit in (
        ("inputs", inputs, vocab_size),
        ("labels", labels if ignore_label is None else labels[labels != ignore_label], vocab_size),
        ("puzzle_identifiers", identifiers, metadata["num_puzzle_identifiers"]),
    ):
        if array.size and not (0 <= array.min() and array.max() < limit):
            raise DataError(
                f"{folder}: {what} must lie in 0..{limit - 1} by dataset.json; they span "
                f"{array.min()}..{array.max()}"
            )
    # After the check: a value beyond 32 bits would wrap around into the range.
    inputs, labels, identifiers = (x.astype(np.int32) for x in (inputs, labels, identifiers))
    # Each set numbers its puzzles and groups from 0; the first row of a set begins a new one.
    sets = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    dataset = _dataset(
        name or os.fspath(path),
        make_puzzles(inputs, identifiers),
        labels,
        ignore_label,
        vocab_size,
    )
    return dataclasses.replace(
        dataset, puzzle_of=_runs(sets, puzzle_of), group_of=_runs(sets, group_of)
    )


_ALWAYS_IGNORED = -100
"""Upstream's `IGNORE_LABEL_ID` (`models/losses.py`), to which it maps `ignore_label_id`."""


def _ignored(ignore_label: int | None, labels: np.ndarray) -> tuple[int | None, np.ndarray]:
    """The one label of positions that do not count, and labels in which it is the only such."""
    always = labels == _ALWAYS_IGNORED
    if not always.any():
        return ignore_label, labels
    if ignore_label is None:
        return _ALWAYS_IGNORED, labels
    return ignore_label, np.where(always, np.int64(ignore_label), labels.astype(np.int64))


def _runs(*numbers: np.ndarray) -> np.ndarray:
    """[B] int32: rows numbered by the runs in which all of `numbers`, [B] each, are constant."""
    changes = np.any([np.diff(array) != 0 for array in numbers], axis=0)
    return np.concatenate([[0], np.cumsum(changes)]).astype(np.int32)


def _read_metadata(path: epath.Path) -> dict[str, Any]:
    if not path.exists():
        raise DataError(
            f"{path} is missing; it belongs beside the .npy files of an upstream folder"
        )
    try:
        metadata = read_json(path, 16 * MEBIBYTE)
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path} must hold an object; got {type(metadata).__name__}")

    def is_int(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool)

    def is_size(value: Any) -> bool:
        return is_int(value) and 1 <= value < 2**31

    def are_names(value: Any) -> bool:
        names = value if isinstance(value, list) else ()
        return 1 <= len(names) <= 999 and all(isinstance(x, str) and "/" not in x for x in names)

    rules = {
        "seq_len": ("a whole number >= 1", is_size),
        "vocab_size": ("a whole number >= 1", is_size),
        "num_puzzle_identifiers": ("a whole number >= 1", is_size),
        "ignore_label_id": ("a whole number or null", lambda x: is_int(x) or x is None),
        "sets": ("a list of at least one name", are_names),
    }
    missing = [field for field in rules if field not in metadata]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}")
    for field, (rule, holds) in rules.items():
        if not holds(metadata[field]):
            raise DataError(f"{path}: {field} must be {rule}; got {shown(metadata[field])}")
    return metadata


def _read_set(
    folder: epath.Path, set_name: str, seq_len: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of one set: inputs, labels [N, S]; identifiers, puzzle and group numbers [N]; integers."""
    fields = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices")
    paths = {field: folder / f"{set_name}__{field}.npy" for field in fields}
    missing = [path.name for path in paths.values() if not path.exists()]
    if missing:
        raise DataError(f"{folder} is incomplete: {', '.join(missing)} missing")
    inputs, labels, identifiers, indices = (_read_array(paths[field]) for field in fields)
    if inputs.ndim != 2 or labels.shape != inputs.shape:
        raise DataError(
            f"{folder}: {set_name} inputs and labels must be [N, S] alike; got "
            f"{list(inputs.shape)} and {list(labels.shape)}"
        )
    if inputs.shape[1] != seq_len:
        raise DataError(
            f"{folder}: {set_name} inputs have {inputs.shape[1]} columns, dataset.json says "
            f"seq_len {seq_len}"
        )
    # Identifiers are one per puzzle; a puzzle's examples are the rows between two indices.
    if identifiers.ndim != 1 or indices.ndim != 1 or len(indices) != len(identifiers) + 1:
        raise DataError(
            f"{folder}: {set_name} puzzle_identifiers must be [P] and puzzle_indices [P + 1]; got "
            f"{list(identifiers.shape)} and {list(indices.shape)}"
        )
    indices = indices.astype(np.int64)  # differences of unsigned integers wrap around
    counts = np.diff(indices)
    if indices[0] != 0 or indices[-1] != len(inputs) or (counts < 0).any():
        raise DataError(
            f"{folder}: {set_name} puzzle_indices must rise from 0 to {len(inputs)}, the number of "
            f"rows; they go from {indices[0]} to {indices[-1]}"
            + (" and fall in between" if (counts < 0).any() else "")
        )
    puzzles = np.arange(len(counts))
    groups = puzzles  # only training needs groups, so a folder may lack them
    group_path = folder / f"{set_name}__group_indices.npy"
    if group_path.exists():
        bounds = _read_array(group_path).astype(np.int64)
        if bounds.ndim != 1 or not len(bounds) or (np.diff(bounds) < 0).any():
            raise DataError(f"{group_path} must be [G + 1] and rise; got shape {bounds.shape}")
        if bounds[0] != 0 or bounds[-1] != len(counts):
            raise DataError(
                f"{group_path} must go from 0 to {len(counts)}, the number of puzzles; it goes "
                f"from {bounds[0]} to {bounds[-1]}"
            )
        groups = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    identifiers, puzzles, groups = (np.repeat(x, counts) for x in (identifiers, puzzles, groups))
    return inputs, labels, identifiers, puzzles, groups


def _read_array(path: epath.Path) -> np.ndarray:
    try:
        array = read_npy(path)
    except (ValueError, OSError) as error:
        raise DataError(str(error)) from error
    if not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{path} must hold integers; got {array.dtype}")
    return array
