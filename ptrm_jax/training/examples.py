"""Training examples: their sources, the puzzles that are excluded, and their order.

The order depends only on (seed, epoch), so a run resumes from a position of two integers. Examples
stay on the host: a data set may be larger than a device's memory.
"""

import dataclasses
import re
from typing import Any, NamedTuple

import numpy as np

from ptrm_jax import tasks
from ptrm_jax.data import Dataset, make_dataset
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.tasks import Task, maze, read_dataset
from ptrm_jax.tasks.symmetry import Augment
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.step import Examples

_GENERATE = re.compile(r"generate:([^:]*[^:\d])(\d{1,9}):(\d{1,99})(?::(.*))?")

_MOST = 10**8
"""Puzzles of one generated source; a larger number is taken for a typing error."""


class Position(NamedTuple):
    """A position in the stream of examples.

    Attributes:
      epoch: from 0.
      offset: rows of the epoch that have been read.
    """

    epoch: int = 0
    offset: int = 0


def read_source(source: str, *, seed: int) -> Dataset:
    """Training puzzles of one source.

    Args:
      source: `generate:<task><size>:<number>[:<name>=<value>,...]`, drawn from the training split
        of the task's generator; or a source of `read_dataset`, whose split "train" is read.
      seed: seed of the generator, unless the source states one.

    Raises:
      DataError: the source is unknown, or the generator refuses its arguments.
    """
    if not source.startswith("generate:"):
        return read_dataset(source, split="train")
    match = _GENERATE.fullmatch(source)
    if match is None or match[1] not in tasks.names():
        raise DataError(
            "a generated source must read generate:<task><size>:<number>[:<name>=<value>,...] "
            f"with task {' or '.join(tasks.names())}; got {source!r}"
        )
    task, (size, count), options = tasks.load(match[1]), map(int, match.group(2, 3)), match[4]
    if count > _MOST:
        raise DataError(f"{source}: the number of puzzles must be at most {_MOST:,}; got {count}")
    try:
        arguments = {"seed": seed} | ({} if options is None else _arguments(task, options))
        inputs, labels = task.generate(size, count, split="train", **arguments)
        vocab_size = task.vocab_size(inputs.shape[1])
        return make_dataset(source, inputs, labels, vocab_size, task=task.name)
    except (ValueError, TypeError) as error:
        raise DataError(f"{source}: {error}") from error


def _arguments(task: Task, options: str) -> dict[str, Any]:
    """Parses options: "seed=1,kind=braided" gives {"seed": 1, "kind": "braided"}.

    Raises:
      InputError: an option is not the task's, has no value, is repeated, or is text where the task
        expects a number.
    """
    arguments: dict[str, Any] = {}
    for option in options.split(","):
        name, _, value = option.partition("=")
        # `split` is no option: the test split must not be available for training.
        if name not in task.options or not value or name in arguments:
            raise InputError(
                f"options must read name=value, each name once, with names of "
                f"{', '.join(task.options)}; got {options!r}"
            )
        number = re.fullmatch("-?[0-9]+", value)
        if task.options[name] is int and not number:
            raise InputError(f"{name} must be a whole number; got {value!r}")
        arguments[name] = int(value) if number else value
    return arguments


def read_examples(config: TrainConfig, evaluation: Dataset | None) -> Dataset:
    """All sources of a run as one set, without the puzzles that are evaluated on or excluded.

    Raises:
      DataError: a source cannot be read, does not fit the model or the others, or nothing is left.
    """
    sources = [read_source(source, seed=config.seed) for source in config.data]
    held_out = [read_dataset(source) for source in config.exclude]
    held_out += [] if evaluation is None else [evaluation]
    for dataset in (*sources, *held_out):
        dataset.check_fits(config.model, in_training=True)
        if dataset.ignore_label != sources[0].ignore_label:
            raise DataError(
                f"all data must ignore one label; {sources[0].name} ignores "
                f"{sources[0].ignore_label} and {dataset.name} {dataset.ignore_label}"
            )
    if len(sources) > 1 and any(source.group_of is not None for source in sources):
        raise DataError("an upstream folder must be the only source; got several")
    if config.task != "none":
        if (sources[0].ignore_label or 0) < 0:
            raise DataError(
                f"symmetries of task {config.task!r} need labels that are tokens; labels of "
                f"{sources[0].name} are {sources[0].ignore_label} where they do not count; pass "
                "--task none"
            )
        nothing = np.zeros(0, np.uint64)
        forbidden = [nothing, *(puzzle_keys(config.task, dataset) for dataset in held_out)]
        # The keys are computed even if nothing is held out: they refuse data of another task.
        sources = [
            source.take(~np.isin(puzzle_keys(config.task, source), np.concatenate(forbidden)))
            for source in sources
        ]
    if len(sources) == 1:
        merged = sources[0]
    else:
        merged = make_dataset(
            " + ".join(source.name for source in sources),
            np.concatenate([source.puzzles.inputs for source in sources]),
            np.concatenate([source.labels for source in sources]),
            config.model.vocab_size,
            task=sources[0].task,
        )
    if not len(merged):
        raise DataError(
            "nothing is left to train on: every puzzle is also in evaluation or exclude; add data"
        )
    return _relabelled(merged) if config.relabel else merged


def _relabelled(dataset: Dataset) -> Dataset:
    """All images of the mazes, labelled anew; the images of a maze are a group."""
    inputs, labels = maze.images(dataset.puzzles.inputs)
    made = make_dataset(dataset.name, inputs, labels, dataset.vocab_size, task=dataset.task)
    numbers = np.arange(len(inputs), dtype=np.int32)
    groups = numbers // (len(inputs) // len(dataset))
    return dataclasses.replace(made, puzzle_of=numbers, group_of=groups)


def puzzle_keys(task: str, dataset: Dataset) -> np.ndarray:
    """Keys that equivalent puzzles share, as `Task.puzzle_keys`: [B] uint64.

    Raises:
      DataError: the puzzles are not of this task.
    """
    try:
        return tasks.load(task).puzzle_keys(dataset.puzzles.inputs, dataset.labels)
    except ValueError as error:
        raise DataError(f"{dataset.name} is not data of task {task!r}: {error}") from error


def augmentation(config: TrainConfig) -> Augment | None:
    """The symmetries of a run's puzzles, or None.

    Raises:
      InputError: the task has no boards of this size.
    """
    if config.task == "none" or config.relabel:  # relabelled data contain all images
        return None
    return tasks.load(config.task).augment(config.model.seq_len)


@dataclasses.dataclass
class Stream:
    """An endless stream of examples; every epoch has its own random order.

    An epoch contains one random puzzle of each group, with all its rows. Upstream's
    `puzzle_dataset.py` does the same, but drops the last incomplete batch of an epoch.
    """

    dataset: Dataset
    seed: int
    position: Position

    def __post_init__(self) -> None:
        self._order = self._epoch(self.position.epoch)

    def take(self, count: int) -> Examples[np.ndarray]:
        """The next `count` examples; moves the position."""
        rows: list[np.ndarray] = []
        while count:
            epoch, offset = self.position
            part = self._order[offset : offset + count]
            rows.append(part)
            count -= len(part)
            self.position = Position(epoch, offset + len(part))
            if self.position.offset == len(self._order):
                self.position = Position(epoch + 1, 0)
                self._order = self._epoch(epoch + 1)
        chosen = np.concatenate(rows)
        puzzles = self.dataset.puzzles
        return Examples(
            puzzles.inputs[chosen], self.dataset.labels[chosen], puzzles.puzzle_identifiers[chosen]
        )

    def _epoch(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(epoch,)))
        puzzle_of, group_of = self.dataset.puzzle_of, self.dataset.group_of
        if puzzle_of is None or group_of is None:
            return rng.permutation(len(self.dataset))
        # First row of each puzzle, first puzzle of each group; and the total numbers.
        first_row = _starts(puzzle_of)
        first_puzzle = _starts(group_of[first_row[:-1]])
        chosen = rng.integers(first_puzzle[:-1], first_puzzle[1:])
        return np.concatenate(
            [
                rng.permutation(np.arange(first_row[puzzle], first_row[puzzle + 1]))
                for puzzle in rng.permutation(chosen)
            ]
        )


def _starts(numbers: np.ndarray) -> np.ndarray:
    """Indices at which runs of equal numbers start, then the length: [runs + 1]."""
    return np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1, [len(numbers)]])
