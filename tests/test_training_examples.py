"""Training examples: their sources, the puzzles that are excluded, and their order."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from ptrm_jax import DataError
from ptrm_jax.data import Dataset, make_dataset
from ptrm_jax.tasks import maze, names, read_dataset, sudoku
from ptrm_jax.training import TrainConfig, presets
from ptrm_jax.training.examples import (
    Position,
    Stream,
    augmentation,
    puzzle_keys,
    read_examples,
    read_source,
)

SIZES = (4, 6, 9)


def make_config(
    num_cells: int, vocab_size: int, data: tuple[str, ...] = ("none",), **changes: Any
) -> TrainConfig:
    """A run of a model for so many cells and tokens."""
    base = presets.load("sudoku6")
    model = dataclasses.replace(base.model, seq_len=num_cells, vocab_size=vocab_size)
    config = dataclasses.replace(base, model=model, evaluation=None)
    return dataclasses.replace(config, data=data, **changes)


def sudoku_config(size: int, *data: str, **changes: Any) -> TrainConfig:
    return make_config(size**2, size + 2, data, **{"task": "sudoku"} | changes)


def maze_config(side: int, *data: str, **changes: Any) -> TrainConfig:
    return make_config(side**2, maze.VOCAB_SIZE, data, **{"task": "maze"} | changes)


def write_sudokus(path: Path, dataset: Dataset) -> str:
    sudoku.write_csv(path, dataset.puzzles.inputs, dataset.labels)
    return str(path)


def write_folder(
    folder: Path,
    inputs: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    vocab_size: int,
    split: str = "train",
    ignore_label: int | None = 0,
    indices: list[int] | None = None,
    groups: list[int] | None = None,
) -> str:
    """Upstream's layout; every row is a puzzle and a group of its own unless told otherwise."""
    indices = list(range(len(inputs) + 1)) if indices is None else indices
    groups = list(range(len(indices))) if groups is None else groups
    arrays = {
        "inputs": inputs,
        "labels": inputs if labels is None else labels,
        "puzzle_identifiers": np.zeros(len(indices) - 1),
        "puzzle_indices": np.array(indices),
        "group_indices": np.array(groups),
    }
    part = folder / split
    part.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(part / f"all__{name}.npy", array.astype(np.int32))
    metadata = {
        "seq_len": inputs.shape[1],
        "vocab_size": vocab_size,
        "num_puzzle_identifiers": 1,
        "ignore_label_id": ignore_label,
        "sets": ["all"],
    }
    (part / "dataset.json").write_text(json.dumps(metadata))
    return str(folder)


def transformed_sudoku(
    rng: np.random.Generator, size: int, inputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One puzzle under a random symmetry, written apart from the package's own."""
    board = sudoku.board_for(size**2)

    def lines(per_box: int) -> np.ndarray:
        boxes = rng.permutation(size // per_box)
        return np.concatenate([box * per_box + rng.permutation(per_box) for box in boxes])

    digits = np.arange(size + sudoku.FIRST_DIGIT)
    rng.shuffle(digits[sudoku.FIRST_DIGIT :])
    rows, columns = lines(board.box_rows), lines(board.box_cols)
    transpose = board.box_rows == board.box_cols and rng.random() < 0.5
    puzzle, solution = (
        digits[(x.reshape(size, size).T if transpose else x.reshape(size, size))[rows][:, columns]]
        for x in (inputs, labels)
    )
    return puzzle.ravel().astype(np.int32), solution.ravel().astype(np.int32)


def transformed_maze(
    rng: np.random.Generator, inputs: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One square maze turned and reflected at random."""
    side = round(len(inputs) ** 0.5)
    turns, flip = int(rng.integers(4)), rng.random() < 0.5

    def image(x: np.ndarray) -> np.ndarray:
        grid = np.rot90(x.reshape(side, side), turns)
        return (np.fliplr(grid) if flip else grid).ravel()

    return image(inputs), image(labels)


def transformed(dataset: Dataset, seed: int = 0) -> Dataset:
    """Every puzzle under a random symmetry of its own."""
    rng = np.random.default_rng(seed)
    num_cells = dataset.labels.shape[1]
    pairs = []
    for inputs, labels in zip(dataset.puzzles.inputs, dataset.labels, strict=True):
        if dataset.vocab_size == maze.VOCAB_SIZE and num_cells % 2:  # 4x4 Sudokus have 6 too
            pairs.append(transformed_maze(rng, inputs, labels))
        else:
            pairs.append(transformed_sudoku(rng, round(num_cells**0.5), inputs, labels))
    inputs, labels = (np.stack(arrays) for arrays in zip(*pairs, strict=True))
    return make_dataset("transformed", inputs, labels, dataset.vocab_size)


def rows_of(dataset: Dataset) -> list[bytes]:
    """Every row, inputs and labels, as something that compares."""
    inputs, labels = dataset.puzzles.inputs, dataset.labels
    return [row.tobytes() for row in np.concatenate([inputs, labels], axis=1)]


# --- Sources -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_generated_sudokus_are_the_generators_training_split(size: int) -> None:
    dataset = read_source(f"generate:sudoku{size}:12", seed=5)
    inputs, labels = sudoku.generate(size, 12, 5, split="train")
    np.testing.assert_array_equal(dataset.puzzles.inputs, inputs)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert (dataset.vocab_size, dataset.ignore_label) == (size + 2, sudoku.PAD)
    assert not sudoku.in_test_split(inputs, labels).any()


def test_options_reach_the_generators() -> None:
    dataset = read_source("generate:maze13:4:kind=braided,min_path=24", seed=3)
    inputs, labels = maze.generate(13, 13, 4, 3, kind="braided", min_path=24, split="train")
    np.testing.assert_array_equal(dataset.puzzles.inputs, inputs)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.vocab_size == maze.VOCAB_SIZE
    assert ((labels == maze.PATH).sum(axis=1) >= 23).all()

    dataset = read_source("generate:sudoku6:4:extra_clues=5", seed=3)
    inputs, _ = sudoku.generate(6, 4, 3, split="train", extra_clues=5)
    np.testing.assert_array_equal(dataset.puzzles.inputs, inputs)


def test_a_seed_of_the_source_comes_before_the_runs() -> None:
    """So two generated sources of one run can differ."""
    own = read_source("generate:sudoku6:4:seed=7", seed=0)
    assert rows_of(own) == rows_of(read_source("generate:sudoku6:4", seed=7))
    assert rows_of(own) != rows_of(read_source("generate:sudoku6:4", seed=0))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("generate:", "a generated source must read generate:<task><size>:<number>"),
        ("generate:sudoku9", "a generated source must read"),
        ("generate:sudoku:9", "a generated source must read"),
        ("generate:chess8:3", f"with task {' or '.join(names())}; got 'generate:chess8:3'"),
        ("generate:sudoku9:many", "a generated source must read"),
        ("generate:sudoku9:-3", "a generated source must read"),
        (" generate:sudoku9:3", "no data at"),
        ("generate:sudoku5:3", "size must be 4, 6 or 9; size is 5"),
        ("generate:maze8:3", "height and width must be odd"),
        ("generate:sudoku9:3:colour=red", "of seed, extra_clues, workers; got 'colour=red'"),
        ("generate:sudoku9:3:kind=braided", "options must read name=value"),
        ("generate:sudoku9:3:", "options must read name=value"),
        ("generate:sudoku9:3:seed=1,seed=2", "each name once"),
        ("generate:sudoku9:3:seed=1.5", "seed must be a whole number; got '1.5'"),
        ("generate:maze13:99999999999999999999", "must be at most 100,000,000"),
        ("generate:sudoku9:3:extra_clues=-1", "extra_clues -1"),
        ("generate:sudoku9:3:seed=-1", "seed -1"),
        ("generate:sudoku9:3:workers=0", "workers must be at least 1"),
        ("generate:maze13:3:kind=round", "round"),
        ("generate:maze13:3:min_path=far", "min_path must be a whole number; got 'far'"),
        ("generate:maze13:3:min_path", "options must read name=value"),
        # The test split must not be available for training.
        ("generate:sudoku9:3:split=test", "got 'split=test'"),
        ("generate:maze13:3:split=test", "got 'split=test'"),
    ],
)
def test_a_bad_generated_source_is_refused_by_name(source: str, says: str) -> None:
    with pytest.raises(DataError) as caught:
        read_source(source, seed=0)
    message = str(caught.value)
    assert says in message and source.strip() in message and "\n" not in message


def test_files_are_sources_too(tmp_path: Path) -> None:
    wanted = read_source("generate:sudoku6:5", seed=1)
    read = read_source(write_sudokus(tmp_path / "sudokus.csv", wanted), seed=0)
    assert rows_of(read) == rows_of(wanted) and read.vocab_size == 8

    wanted = read_source("generate:maze9:5", seed=1)
    maze.write_csv(tmp_path / "mazes.csv", wanted.puzzles.inputs, wanted.labels)
    read = read_source(str(tmp_path / "mazes.csv"), seed=0)
    assert rows_of(read) == rows_of(wanted) and read.vocab_size == maze.VOCAB_SIZE


def test_a_folder_gives_its_training_split(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.int32).reshape(3, 4) % 5
    write_folder(tmp_path, rows, vocab_size=5, split="test")
    source = write_folder(tmp_path, rows[:, ::-1], vocab_size=5, split="train")
    np.testing.assert_array_equal(read_source(source, seed=0).puzzles.inputs, rows[:, ::-1])
    np.testing.assert_array_equal(read_dataset(source).puzzles.inputs, rows)


# --- Equivalence ---------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["sudoku4:40", "sudoku6:40", "sudoku9:40", "maze9:40"])
def test_keys_are_those_of_the_puzzles_class(source: str) -> None:
    """The same under any symmetry, and different for puzzles that none makes equal."""
    task = "maze" if "maze" in source else "sudoku"
    dataset = read_source(f"generate:{source}", seed=0)
    keys = puzzle_keys(task, dataset)
    assert keys.shape == (40,) and keys.dtype == np.uint64
    for seed in range(3):
        image = transformed(dataset, seed)
        assert rows_of(image) != rows_of(dataset)
        np.testing.assert_array_equal(puzzle_keys(task, image), keys)
    if source != "sudoku4:40":  # there are but 36 classes of 4x4
        assert len(set(keys.tolist())) > 35


@pytest.mark.parametrize("held_out_by", ["evaluation", "exclude"])
@pytest.mark.parametrize(("task", "size"), [*(("sudoku", size) for size in SIZES), ("maze", 13)])
def test_no_puzzle_equivalent_to_one_held_out_is_trained_on(
    task: str, size: int, held_out_by: str, tmp_path: Path
) -> None:
    source = f"generate:{task}{size}:60"
    everything = read_source(source, seed=0)
    held_out = transformed(everything.take(np.array([3, 7, 59])))
    config = (sudoku_config if task == "sudoku" else maze_config)(size, source)
    if held_out_by == "evaluation":
        left = read_examples(config, held_out)
    else:
        path = tmp_path / "held_out.csv"
        write = sudoku.write_csv if task == "sudoku" else maze.write_csv
        write(path, held_out.puzzles.inputs, held_out.labels)
        left = read_examples(dataclasses.replace(config, exclude=(str(path),)), None)
    forms = np.arange(60)[:, None]  # no two of these mazes are equivalent
    if task == "sudoku":
        forms = sudoku.canonical(everything.puzzles.inputs, everything.labels)
        # On 9x9 only the solution, which comes first, is compared.
        forms = forms[:, : size**2] if size == 9 else forms
    stays = [i for i in range(60) if all((forms[i] != forms[j]).any() for j in (3, 7, 59))]
    assert 0 < len(stays) < 58
    assert rows_of(left) == [rows_of(everything)[i] for i in stays]


@pytest.mark.parametrize(("size", "left"), [(6, 10), (9, 9)])
def test_other_clues_of_one_solution_are_the_same_puzzle_on_9x9_alone(size: int, left: int) -> None:
    """Extra clues may make 9x9 puzzles equal; 6x6 solutions are too few to exclude them."""
    everything = read_source(f"generate:sudoku{size}:10", seed=0)
    labels = everything.labels[4:5]
    inputs = labels.copy()
    inputs[0, :2] = sudoku.BLANK
    held_out = make_dataset("easy", inputs, labels, size + 2)
    examples = read_examples(sudoku_config(size, f"generate:sudoku{size}:10"), held_out)
    assert len(examples) == left
    assert (rows_of(everything)[4] in rows_of(examples)) == (size == 6)


def test_without_a_task_nothing_is_left_out(tmp_path: Path) -> None:
    """Folders with their own augmentations also have their own training split."""
    dataset = read_source("generate:sudoku6:4", seed=0)
    source = write_folder(tmp_path, dataset.puzzles.inputs, dataset.labels, vocab_size=8)
    examples = read_examples(sudoku_config(6, source, task="none"), dataset)
    assert rows_of(examples) == rows_of(dataset)


def test_the_digest_is_the_sources_own() -> None:
    """It identifies the data that were read, whatever is excluded from them."""
    source = "generate:sudoku6:10"
    everything = read_source(source, seed=0)
    examples = read_examples(sudoku_config(6, source), everything.take(np.array([1])))
    assert len(examples) == 9 and examples.digest == everything.digest


# --- Several sources -----------------------------------------------------------------------------


def test_rows_of_several_sources_are_equally_likely(tmp_path: Path) -> None:
    extra = read_source("generate:sudoku6:7", seed=9)
    path = write_sudokus(tmp_path / "extra.csv", extra)
    sources = ("generate:sudoku6:5", path, "generate:sudoku6:3:seed=2")
    parts = [read_source(source, seed=0) for source in sources]
    mixed = read_examples(sudoku_config(6, *sources), None)
    assert rows_of(mixed) == [row for part in parts for row in rows_of(part)]
    assert all(source in mixed.name for source in sources)
    drawn = Stream(mixed, 0, Position()).take(15)
    assert sorted(x.tobytes() for x in drawn.inputs) == sorted(
        x.tobytes() for x in mixed.puzzles.inputs
    )

    held_out = transformed(make_dataset("two", *_rows(parts, (0, 1), (1, 4)), 8))
    left = read_examples(sudoku_config(6, *sources), held_out)
    gone = {rows_of(parts[0])[1], rows_of(parts[1])[4]}
    assert rows_of(left) == [row for row in rows_of(mixed) if row not in gone]


def _rows(parts: list[Dataset], *at: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of some rows of some parts."""
    inputs = np.stack([parts[part].puzzles.inputs[row] for part, row in at])
    return inputs, np.stack([parts[part].labels[row] for part, row in at])


def test_mixed_sources_have_a_digest_of_all_of_them() -> None:
    """A run must not resume with another second source."""
    digests = [
        read_examples(sudoku_config(6, "generate:sudoku6:5", second), None).digest
        for second in ("generate:sudoku6:3:seed=2", "generate:sudoku6:3:seed=3")
    ]
    assert digests[0] != digests[1]


def test_relabelled_mazes_are_drawn_one_image_at_a_time() -> None:
    source = "generate:maze5:6:kind=braided"
    plain = read_examples(maze_config(5, source), None)
    config = maze_config(5, source, relabel=True)
    examples = read_examples(config, None)
    assert len(examples) == 8 * len(plain) == 48 and augmentation(config) is None
    np.testing.assert_array_equal(examples.labels, maze.label(examples.puzzles.inputs))
    np.testing.assert_array_equal(examples.puzzles.inputs[::8], plain.puzzles.inputs)
    drawn = Stream(examples, 0, Position()).take(6).inputs
    keys = maze.puzzle_keys(drawn)
    assert sorted(keys.tolist()) == sorted(maze.puzzle_keys(plain.puzzles.inputs).tolist())
    later = Stream(examples, 0, Position(1, 0)).take(6).inputs
    assert {x.tobytes() for x in later} != {x.tobytes() for x in drawn}


def test_a_folder_must_be_the_only_source(tmp_path: Path) -> None:
    """Its groups and the other's rows have no common measure."""
    dataset = read_source("generate:sudoku6:4", seed=0)
    one, two = (
        write_folder(tmp_path / name, dataset.puzzles.inputs, dataset.labels, vocab_size=8)
        for name in ("one", "two")
    )
    for sources in ((one, two), ("generate:sudoku6:4", one)):
        with pytest.raises(DataError, match="an upstream folder must be the only source"):
            read_examples(sudoku_config(6, *sources), None)


# --- Refusals ------------------------------------------------------------------------------------


MAZES, SUDOKUS, SMALL = "generate:maze9:4", "generate:sudoku9:4", "generate:sudoku4:4"
"""Tasks of one shape whose tokens overlap, and a smaller board."""


@pytest.mark.parametrize(
    ("config", "evaluation", "message"),
    [
        (sudoku_config(9, MAZES), None, f"{MAZES} is not data of task 'sudoku'"),
        (sudoku_config(9, SUDOKUS, MAZES), None, f"{MAZES} is not data of task 'sudoku'"),
        (sudoku_config(9, SUDOKUS), MAZES, f"{MAZES} is not data of task 'sudoku'"),
        (
            make_config(81, 11, (SUDOKUS,), task="maze"),
            None,
            f"{SUDOKUS} is not data of task 'maze'",
        ),
        (sudoku_config(6, SMALL), None, f"{SMALL} does not fit .*seq-len 16 --model.vocab-size 6"),
        (sudoku_config(6, "generate:sudoku6:4"), SMALL, f"{SMALL} does not fit"),
        (
            make_config(81, 6, (SUDOKUS,), task="sudoku"),
            None,
            "--model.seq-len 81 --model.vocab-size 11",
        ),
        (sudoku_config(6, "generate:sudoku6:0"), None, "at least one puzzle"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    config: TrainConfig, evaluation: str | None, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(config, evaluation and read_source(evaluation, seed=0))


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        # Even though the tokens that occur would fit.
        ({"vocab_size": 9}, "16 tokens out of 9, the model reads 16 out of 6"),
        # One loss applies to all labels.
        ({"vocab_size": 6, "ignore_label": None}, r"ignores None and generate:sudoku4:4 0$"),
    ],
)
def test_folders_with_other_metadata_are_refused(
    metadata: dict[str, Any], message: str, tmp_path: Path
) -> None:
    dataset = read_source(SMALL, seed=0)
    source = write_folder(tmp_path, dataset.puzzles.inputs, dataset.labels, **metadata)
    with pytest.raises(DataError, match=message):
        read_examples(sudoku_config(4, source), dataset)


def test_labels_that_are_no_tokens_have_no_symmetries(tmp_path: Path) -> None:
    """-100 in an upstream folder: read without a task, refused with one."""
    dataset = read_source(SMALL, seed=0)
    labels = np.where(dataset.labels == dataset.puzzles.inputs, -100, dataset.labels)
    sizes = {"vocab_size": 6, "ignore_label": -100}
    source = write_folder(tmp_path, dataset.puzzles.inputs, labels, **sizes)
    plain = make_config(16, 6, (source,), task="none")
    np.testing.assert_array_equal(read_examples(plain, None).labels, labels)
    with pytest.raises(DataError, match=r"need labels that are tokens; .* are -100 .*--task none"):
        read_examples(sudoku_config(4, source), None)


def test_a_run_without_a_puzzle_is_refused() -> None:
    everything = read_source("generate:sudoku6:6", seed=0)
    with pytest.raises(DataError, match="nothing is left to train on"):
        read_examples(sudoku_config(6, "generate:sudoku6:6"), transformed(everything))


# --- Augmentation --------------------------------------------------------------------------------


def images(config: TrainConfig, inputs: np.ndarray, labels: np.ndarray, count: int) -> list:
    """What the run's augmentation makes of one puzzle with `count` keys."""
    augment = augmentation(config)
    assert augment is not None
    keys = jax.random.split(jax.random.key(0), count)
    pairs = jax.jit(jax.vmap(augment, (0, None, None)))(keys, inputs, labels)
    return list(zip(*(np.asarray(x) for x in pairs), strict=True))


def test_sudokus_are_augmented_by_the_symmetries_of_their_board() -> None:
    dataset = read_source("generate:sudoku6:1", seed=0)
    puzzle = dataset.puzzles.inputs[0], dataset.labels[0]
    drawn = images(sudoku_config(6, "none"), *puzzle, 16)
    inputs, labels = (np.stack(x) for x in zip(*drawn, strict=True))
    assert sudoku.satisfies_rules(labels, inputs).all()
    assert len({row.tobytes() for row in inputs}) == 16  # of 6! * 3! * 2!**3 * 2! * 3!**2
    image = make_dataset("images", inputs, labels, 8)
    assert set(puzzle_keys("sudoku", image)) == set(puzzle_keys("sudoku", dataset))


def test_mazes_are_turned_and_reflected() -> None:
    dataset = read_source("generate:maze9:1", seed=0)
    inputs, labels = dataset.puzzles.inputs[0], dataset.labels[0]
    drawn = {
        x.tobytes() + y.tobytes() for x, y in images(maze_config(9, "none"), inputs, labels, 64)
    }
    grids = [np.rot90(x.reshape(9, 9), turns) for turns in range(4) for x in (inputs, labels)]
    turned = [np.stack(grids[i : i + 2]) for i in range(0, 8, 2)]
    assert drawn == {x.tobytes() for pair in turned for x in (pair, pair[:, :, ::-1])}


def test_what_has_no_symmetries_is_not_augmented_or_refused() -> None:
    assert augmentation(make_config(900, 12, task="none")) is None
    with pytest.raises(ValueError, match="a maze must be square"):
        augmentation(make_config(90, 6, task="maze"))
    with pytest.raises(
        ValueError, match=r"a Sudoku must have 16 .4x4., 36 .6x6. or 81 .9x9. cells"
    ):
        augmentation(make_config(25, 7, task="sudoku"))


# --- Order ---------------------------------------------------------------------------------------


def numbered(count: int) -> Dataset:
    """Rows that say their number."""
    rows = np.repeat(np.arange(count, dtype=np.int32)[:, None], 4, axis=1)
    return make_dataset("numbered", rows, rows + 100, count)


def order(stream: Stream, count: int) -> list[int]:
    """The numbers of the next `count` rows; checks that their fields belong together."""
    taken = stream.take(count)
    assert taken.inputs.shape == (count, 4) and taken.puzzle_identifiers.shape == (count,)
    np.testing.assert_array_equal(taken.labels, taken.inputs + 100)
    return taken.inputs[:, 0].tolist()


def test_every_epoch_is_a_permutation_of_its_own() -> None:
    stream = Stream(numbered(20), 0, Position())
    epochs = [order(stream, 20) for _ in range(5)]
    assert all(sorted(epoch) == list(range(20)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [*epochs, range(20)]}) == 6
    assert stream.position == Position(5, 0)


def test_batches_cross_the_ends_of_epochs() -> None:
    """Nothing is dropped there, and a batch may be larger than the data."""
    whole = order(Stream(numbered(7), 0, Position()), 70)
    stream = Stream(numbered(7), 0, Position())
    parts = [order(stream, count) for count in (1, 5, 1, 20, 3, 40)]
    assert list(itertools.chain(*parts)) == whole
    assert all(sorted(whole[i : i + 7]) == list(range(7)) for i in range(0, 70, 7))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    data = numbered(20)
    start = order(Stream(data, 3, Position()), 100)
    assert order(Stream(data, 3, Position(4, 0)), 20) == start[80:]
    assert order(Stream(numbered(20), 3, Position()), 100) == start
    others = [order(Stream(data, seed, Position()), 100) for seed in (0, 1, 2)]
    for epoch in range(0, 100, 20):
        assert len({tuple(x[epoch : epoch + 20]) for x in [start, *others]}) == 4


@pytest.mark.parametrize("grouped", [False, True])
def test_a_position_is_all_that_a_stream_resumes_from(grouped: bool) -> None:
    """At every point of three epochs, also their ends."""
    data = numbered(9)
    if grouped:
        numbers = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4], np.int32)
        groups = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2], np.int32)
        data = dataclasses.replace(data, puzzle_of=numbers, group_of=groups)
    whole = order(Stream(data, 1, Position()), 40)
    stream = Stream(data, 1, Position())
    positions = set()
    for done in range(30):
        resumed = Stream(data, 1, Position(*json.loads(json.dumps(stream.position))))
        assert order(resumed, 10) == whole[done : done + 10]
        positions.add(stream.position)
        order(stream, 1)
    assert len(positions) == 30 and max(positions).epoch >= 3


def test_an_epoch_has_one_puzzle_of_each_group_with_all_its_rows(tmp_path: Path) -> None:
    """As upstream trains: the augmentations of an original are its group."""
    rows = np.repeat(np.arange(12)[:, None], 4, axis=1)
    # Puzzles of 2, 1, 3, 0, 1, 4 and 1 rows; groups of 2, 1, 3 and 1 puzzles.
    source = write_folder(
        tmp_path,
        rows,
        rows,
        vocab_size=12,
        indices=[0, 2, 3, 6, 6, 7, 11, 12],
        groups=[0, 2, 3, 6, 7],
    )
    puzzles = [(0, 1), (2,), (3, 4, 5), (6,), (7, 8, 9, 10), (11,)]
    groups = [{(0, 1), (2,)}, {(3, 4, 5)}, {(6,), (7, 8, 9, 10)}, {(11,)}]
    config = make_config(4, 12, (source,), task="none")
    stream = Stream(read_examples(config, None), 0, Position())

    epochs = []
    for number in range(80):
        epoch: list[int] = []
        while stream.position.epoch == number:
            epoch += stream.take(1).inputs[:, 0].tolist()
        epochs.append(epoch)
    seen, first = [], []
    for epoch in epochs:
        blocks = []
        while epoch:
            (block,) = (puzzle for puzzle in puzzles if epoch[0] in puzzle)
            assert sorted(epoch[: len(block)]) == list(block)  # together, in any order
            blocks.append(block)
            epoch = epoch[len(block) :]
        assert [sum(block in group for block in blocks) for group in groups] == [1, 1, 1, 1]
        seen += blocks
        first.append(blocks[0])
    # Drawn at random: within a group, the groups, and the rows of a puzzle.
    assert 20 < seen.count((2,)) < 60 and 20 < seen.count((6,)) < 60
    assert {puzzle for puzzle in puzzles if puzzle in first} == set(puzzles)


def test_rows_of_a_puzzle_come_in_random_order() -> None:
    zeros = np.zeros(6, np.int32)
    data = dataclasses.replace(numbered(6), puzzle_of=zeros, group_of=zeros)
    stream = Stream(data, 0, Position())
    epochs = {tuple(order(stream, 6)) for _ in range(10)}
    assert len(epochs) == 10 and all(sorted(epoch) == list(range(6)) for epoch in epochs)


def test_groups_outlive_what_is_held_out(tmp_path: Path) -> None:
    """Rows taken away leave gaps in the numbers of puzzles and groups."""
    dataset = read_source("generate:sudoku6:8", seed=0)
    source = write_folder(
        tmp_path,
        dataset.puzzles.inputs,
        dataset.labels,
        vocab_size=8,
        indices=[0, 2, 3, 4, 6, 8],
        groups=[0, 2, 3, 5],
    )
    # Row 1 of puzzle 0; puzzle 1; and the one puzzle of the group in the middle.
    held_out = transformed(dataset.take(np.array([1, 2, 3])))
    examples = read_examples(sudoku_config(6, source), held_out)
    assert rows_of(examples) == [rows_of(dataset)[i] for i in (0, 4, 5, 6, 7)]
    stream = Stream(examples, 0, Position())
    for _ in range(12):
        epoch = [x.tobytes() for x in stream.take(3).inputs]
        stays = [dataset.puzzles.inputs[i].tobytes() for i in (0, 4, 5, 6, 7)]
        last = set(epoch) - {stays[0]}
        assert stays[0] in epoch and last in (set(stays[1:3]), set(stays[3:]))
