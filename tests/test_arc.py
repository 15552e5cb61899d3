"""ARC-AGI: grids and tokens, augmentations, tasks and folders, the vote and its score."""

import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptrm_jax import DataError, make_puzzles, read_dataset
from ptrm_jax.metrics import interval
from ptrm_jax.tasks import arc
from ptrm_jax.tasks.arc import EOS, PAD, PLAIN, ArcSet, Augmentation, Pair, Task, vote as arc_vote

PER_ROW = ("labels", "task_of", "test_of", "transform_of", "colors_of")


def random_grid(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    return rng.integers(0, 10, (height, width))


def random_augmentation(rng: np.random.Generator) -> Augmentation:
    return Augmentation(int(rng.integers(8)), (0, *(1 + rng.permutation(9)).tolist()))


def brute_crop(tokens: np.ndarray) -> np.ndarray:
    """The first of the largest rectangles of colours at the upper left, by trying all of them."""
    page = tokens.reshape(30, 30)
    colored = (page >= 2) & (page <= 11)
    best = (0, 0)
    for height, width in itertools.product(range(1, 31), repeat=2):
        if height * width > best[0] * best[1] and colored[:height, :width].all():
            best = (height, width)
    return page[: best[0], : best[1]] - 2


def plain_turn(grid: np.ndarray, transform: int) -> np.ndarray:
    """The symmetries one by one, as numpy names them."""
    return [
        grid,
        np.rot90(grid),
        np.rot90(grid, 2),
        np.rot90(grid, 3),
        np.fliplr(grid),
        np.flipud(grid),
        np.transpose(grid),
        np.fliplr(np.rot90(grid)),
    ][transform]


def brute_invert(grid: np.ndarray, transform: int, colors: tuple[int, ...]) -> np.ndarray:
    """The grid that the augmentation takes to this one, found by trying all symmetries."""
    back = {color: c for c, color in enumerate(colors)}
    old = np.array([back[color] for color in grid.ravel().tolist()], int).reshape(grid.shape)
    (undo,) = (
        inverse
        for inverse in range(8)
        if np.array_equal(
            plain_turn(plain_turn(np.arange(12).reshape(3, 4), transform), inverse),
            np.arange(12).reshape(3, 4),
        )
    )
    return plain_turn(old, undo)


# --- Grids and tokens ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [(0, 0), (2, 3), None], ids=["upper left", "moved", "corner"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (1, 30), (30, 4), (30, 30), (29, 29)])
def test_tokens_of_a_grid_are_its_colours_and_an_edge(
    shape: tuple[int, int], place: tuple[int, int] | None
) -> None:
    height, width = shape
    room = (30 - height, 30 - width)
    row, column = room if place is None else (min(place[0], room[0]), min(place[1], room[1]))
    grid = random_grid(np.random.default_rng(0), height, width)
    tokens = arc.encode(grid, row, column)
    expected = []
    for i, j in itertools.product(range(30), repeat=2):
        inside = row <= i < row + height, column <= j < column + width
        if all(inside):
            expected.append(grid[i - row, j - column] + 2)
        elif (inside[0] and j == column + width) or (inside[1] and i == row + height):
            expected.append(EOS)
        else:
            expected.append(PAD)
    assert tokens.dtype == np.int32
    assert tokens.tolist() == expected
    if (row, column) != (0, 0):
        assert arc.crop(tokens).shape == (0, 0)  # what is moved is not found


def test_crop_takes_the_largest_rectangle_at_the_upper_left() -> None:
    rng = np.random.default_rng(1)
    pages = rng.integers(2, 12, (120, 900))
    for page, share in zip(pages, rng.choice([0, 1, 3, 30, 600], 120), strict=True):
        page[rng.integers(0, 900, share)] = rng.choice([0, 1, 12, -1, 258, 2**40], share)
    pages[0] = 2  # no edge
    pages[1, 0] = EOS  # no grid
    heights, widths = arc.crop_sizes(pages.reshape(4, 30, 900))
    assert heights.shape == widths.shape == (4, 30)
    plain = np.zeros(len(pages), int), np.tile(np.arange(10), (len(pages), 1))
    for page, height, width, packed in zip(
        pages, heights.ravel(), widths.ravel(), arc.restore(pages, *plain), strict=True
    ):
        expected = brute_crop(page)
        assert (height, width) == expected.shape
        np.testing.assert_array_equal(arc.crop(page), expected)
        np.testing.assert_array_equal(arc.unpack(packed), expected)
    # Where two are as large the lower one counts: 1 x 6 before 2 x 3.
    tie = np.zeros((30, 30), int)
    tie[0, :6] = tie[1, :3] = 2
    assert arc.crop(tie.ravel()).shape == (1, 6)


def test_grids_of_all_shapes_survive_augmentation_and_its_inverse() -> None:
    rng = np.random.default_rng(2)
    grids = [random_grid(rng, h, w) for h, w in itertools.product(range(1, 31), repeat=2)]
    augmentations = [random_augmentation(rng) for _ in grids]
    pages = np.stack([arc.encode(a.apply(g)) for a, g in zip(augmentations, grids, strict=True)])
    transforms = np.array([a.transform for a in augmentations])
    packed = arc.restore(pages, transforms, np.array([a.colors for a in augmentations]))
    for grid, augmentation, page, found in zip(grids, augmentations, pages, packed, strict=True):
        np.testing.assert_array_equal(augmentation.invert(arc.crop(page)), grid)
        np.testing.assert_array_equal(arc.unpack(found), grid)
        assert arc.pack(grid) == found


def test_a_packed_grid_tells_shapes_and_colours_apart() -> None:
    grids = [np.zeros(shape, int) for shape in ((2, 3), (3, 2), (1, 6), (0, 0))]
    grids.append(np.array([[0, 0, 0], [0, 1, 0]]))
    assert len({arc.pack(grid) for grid in grids}) == len(grids)


def test_drawing_shows_colours_and_where_a_page_holds_what() -> None:
    grid = [[0, 1, 2], [9, 8, 7]]
    assert arc.draw(grid) == "012\n987"
    assert arc.draw(arc.encode(grid)) == "012|\n987|\n|||."
    assert arc.draw(arc.encode(grid, 1, 2)) == "......\n..012|\n..987|\n..|||."
    assert arc.draw(np.where(np.arange(900) == 1, 77, PAD)) == ".?"
    assert arc.draw(np.zeros(900, int)) == ""


@pytest.mark.parametrize("transform", range(8))
def test_symmetries_are_numbered_as_upstream_numbers_them(transform: int) -> None:
    grid = np.array([[1, 2, 3], [4, 5, 6]])
    permuted = (0, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    augmentation = Augmentation(transform, permuted)
    np.testing.assert_array_equal(augmentation.apply(grid), 10 - plain_turn(grid, transform))
    np.testing.assert_array_equal(augmentation.invert(augmentation.apply(grid)), grid)
    empty = np.zeros((0, 0), int)
    assert augmentation.invert(empty).shape == augmentation.apply(empty).shape == (0, 0)


def test_names_say_how_to_undo_an_augmentation() -> None:
    rng = np.random.default_rng(3)
    drawn = [random_augmentation(rng) for _ in range(50)]
    for augmentation in [*drawn, PLAIN, Augmentation(3, PLAIN.colors)]:
        assert arc.parse_name(augmentation.name("00576224")) == ("00576224", augmentation)
    assert PLAIN.name("a") == "a"
    assert Augmentation(5, (0, 2, 1, *range(3, 10))).name("a b") == "a b|||t5|||0213456789"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "<blank>",
        "<blank>|||t1|||0123456789",
        "a|||t1",
        "a|||t8|||0123456789",
        "a|||1|||0123456789",
        "a|||t1|||0123456788",
        "a|||t1|||012345678",
        "|||t1|||0123456789",
        "a|||b|||t1|||0123456789",
    ],
)
def test_names_that_name_no_augmentation_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"a permutation of 0123456789>; it is "):
        arc.parse_name(name)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: arc.encode([[0, 10]]), "grid has colours 0..10"),
        (lambda: arc.encode([[-1]]), "grid has colours -1..-1"),
        (lambda: arc.encode([0, 1]), r"grid has shape \(2,\)"),
        (lambda: arc.encode([[0.0]]), "float64"),
        (lambda: arc.encode(np.zeros((0, 3), int)), r"shape \(0, 3\)"),
        (lambda: arc.encode(np.zeros((31, 3), int)), r"shape \(31, 3\)"),
        (lambda: arc.encode([[1]], 30, 0), "row 30, column 0; pass at most 29 and 29"),
        (lambda: arc.encode([[1]], 0, -1), "row 0, column -1"),
        (lambda: PLAIN.apply(np.full((2, 2), 11)), "colours 11..11"),
        (lambda: PLAIN.invert([[-3]]), "colours -3..-3"),
        (lambda: arc.crop(np.zeros(899, int)), r"\[900\] integers; they have shape \(899,\)"),
        (lambda: arc.crop(np.zeros((1, 900), int)), r"shape \(1, 900\)"),
        (lambda: arc.crop(np.zeros(900)), "float64"),
        (lambda: arc.crop_sizes(np.zeros((2, 9), int)), r"\[..., 900\]"),
        (lambda: arc.draw([[12]]), "colours 12..12"),
        (lambda: arc.draw(np.zeros(5, int)), r"shape \(5,\)"),
    ],
)
def test_what_is_no_grid_is_refused(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


# --- Tasks from JSON -----------------------------------------------------------------------------


def invented(seed: int, colors: int, *pairs: tuple[int, int, int, int]) -> list[dict[str, Any]]:
    """Examples with random grids of few colours, by heights and widths."""
    rng = np.random.RandomState(seed)
    return [
        {
            "input": rng.randint(0, colors, (h, w)).tolist(),
            "output": rng.randint(0, colors, (i, j)).tolist(),
        }
        for h, w, i, j in pairs
    ]


def write_invented(folder: Path) -> Path:
    """Subset "lessons", three tasks, and "exam", two tasks with three test inputs and solutions."""
    blank = [{"input": [[0, 0]], "output": [[0], [0]]}]
    subsets = {
        "lessons": {
            "first": {"test": invented(0, 3, (3, 3, 2, 2)), "train": invented(1, 3, (2, 5, 5, 2))},
            # Three turns look alike here, and colours do not count: few distinct augmentations.
            "second": {"train": blank, "test": [{"input": [[0]], "output": [[0, 0]]}]},
            "third": {
                "train": invented(2, 10, (30, 30, 30, 29), (7, 1, 1, 4)),
                "test": invented(3, 10, (4, 4, 30, 1)),
            },
        },
        "exam": {
            "fourth": {
                "test": invented(4, 4, (3, 4, 2, 2), (5, 5, 3, 6)),
                "train": invented(5, 4, (2, 2, 2, 2), (3, 3, 3, 3), (6, 2, 1, 1)),
            },
            "fifth": {
                "train": invented(6, 10, (9, 12, 3, 3)),
                "test": invented(7, 10, (30, 8, 8, 30)),
            },
        },
    }
    for subset, tasks in subsets.items():
        solutions = {
            name: [example.pop("output") for example in task["test"]]
            for name, task in tasks.items()
        }
        (folder / f"arc-agi_{subset}_challenges.json").write_text(json.dumps(tasks))
        (folder / f"arc-agi_{subset}_solutions.json").write_text(json.dumps(solutions))
    return folder


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def without_outputs(task: Task, *which: int) -> Task:
    test = [Pair(x, None if i in which else y) for i, (x, y) in enumerate(task.test)]
    return Task(task.name, task.subset, task.train, tuple(test), task.test_first)


@pytest.fixture
def tasks(tmp_path: Path) -> tuple[Task, ...]:
    (tmp_path / "json").mkdir()
    return arc.read_tasks(write_invented(tmp_path / "json"), ["lessons", "exam"])


def test_tasks_are_read_in_order_with_their_solutions(tmp_path: Path) -> None:
    write_invented(tmp_path)
    tasks = arc.read_tasks(tmp_path, ["exam", "lessons"])
    assert [t.name for t in tasks] == ["fourth", "fifth", "first", "second", "third"]
    assert [t.subset for t in tasks] == ["exam"] * 2 + ["lessons"] * 3
    assert [t.test_first for t in tasks] == [True, False, True, False, False]
    wanted = {"train": invented(5, 4, (2, 2, 2, 2), (3, 3, 3, 3), (6, 2, 1, 1))}
    wanted["test"] = invented(4, 4, (3, 4, 2, 2), (5, 5, 3, 6))
    for kind, pairs in (("train", tasks[0].train), ("test", tasks[0].test)):
        assert [p.input.tolist() for p in pairs] == [e["input"] for e in wanted[kind]]
        assert [p.output.tolist() for p in pairs] == [e["output"] for e in wanted[kind]]
    assert tasks[0].test[0].output.dtype == np.int32


def test_a_solution_may_be_missing_or_stand_in_the_challenges(tmp_path: Path) -> None:
    write_invented(tmp_path)
    challenges, solutions = (
        tmp_path / f"arc-agi_exam_{x}s.json" for x in ("challenge", "solution")
    )
    edit(solutions, lambda s: s.pop("fourth"))
    edit(challenges, lambda c: c["fourth"]["test"][1].update(output=[[7]]))
    edit(challenges, lambda c: c["fifth"]["test"][0].update(output=[[7]]))
    fourth, fifth = arc.read_challenges(challenges, solutions, "exam")
    assert fourth.test[0].output is None
    assert fourth.test[1].output.tolist() == [[7]]
    assert fifth.test[0].output.shape == (8, 30)  # the solutions count
    solutions.unlink()
    fourth, fifth = arc.read_tasks(tmp_path, ["exam"])
    assert fourth.test[0].output is None
    assert fifth.test[0].output.tolist() == [[7]]


GRID = "a grid must have 1 to 30 rows of one length"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["fifth"]["train"][0].update(input=[[1, 2], [3]]), "input has rows of lengths"),
        (lambda c: c["fifth"]["train"][0].update(output=[]), f"{GRID}.*fifth, train 0, output"),
        (lambda c: c["fifth"]["train"][0].update(output=[[]]), "output has rows of lengths"),
        (lambda c: c["fifth"]["train"][0].update(output=[[1], 2]), "output is no list of rows"),
        (lambda c: c["fifth"]["train"][0].update(output=None), "output is no list of rows"),
        (lambda c: c["fifth"]["test"][0].update(input=[[10]]), "test 0, input has a cell '10'"),
        (lambda c: c["fifth"]["test"][0].update(input=[[-1]]), "has a cell '-1'"),
        (lambda c: c["fifth"]["test"][0].update(input=[[1.0]]), "has a cell '1.0'"),
        (lambda c: c["fifth"]["test"][0].update(input=[[True]]), "has a cell 'True'"),
        (lambda c: c["fifth"]["test"][0].update(input=[["a"]]), "has a cell 'a'"),
        (lambda c: c["fifth"]["test"][0].update(input=[[0]] * 31), "has 31x1 cells"),
        (lambda c: c["fifth"]["test"][0].update(input=[[0] * 31]), "has 1x31 cells"),
        (lambda c: c["fifth"]["train"][0].pop("output"), 'train 0 must have "input" and "output"'),
        (lambda c: c["fifth"]["test"][0].pop("input"), "test 0 must have"),
        (lambda c: c["fifth"]["test"][0].update(x=1), "test 0 must have"),
        (lambda c: c["fifth"].pop("test"), 'fifth must have "train" and "test"'),
        (lambda c: c["fifth"].update(name="x"), "it has .'name', 'test', 'train'."),
        (lambda c: c["fifth"].update(test=[]), "fifth: test must be a list of at least one"),
        (lambda c: c["fifth"].update(train={}), "fifth: train must be a list"),
        (lambda c: c["fifth"].update(train=[1]), "fifth, train 0 must be a JSON object"),
        (lambda c: c.update(fifth=[]), "task fifth must be a JSON object; it is a list"),
        (lambda c: c.update({"a|||t": c["fifth"]}), r"id must not .*'a\|\|\|t'"),
        (lambda c: c.update({"": c["fifth"]}), "id must not be empty"),
        (lambda c: c.clear(), "at least one task"),
    ],
)
def test_malformed_challenges_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = write_invented(tmp_path) / "arc-agi_exam_challenges.json"
    edit(path, change)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{says}"):
        arc.read_tasks(tmp_path, ["exam"])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda s: s["fourth"].pop(), "fourth must have one output per test input, 2; got 1"),
        (lambda s: s.update(fourth=3), "fourth must have one output per test input, 2; got int"),
        (lambda s: s.update(other=[[[1]]]), "lacks task other and 0 more"),
        (lambda s: s["fourth"].__setitem__(1, [[11]]), "fourth, 1 has a cell '11'"),
    ],
)
def test_malformed_solutions_are_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = write_invented(tmp_path) / "arc-agi_exam_solutions.json"
    edit(path, change)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{says}"):
        arc.read_tasks(tmp_path, ["exam"])


def test_files_that_are_no_json_or_missing_are_refused(tmp_path: Path) -> None:
    write_invented(tmp_path)
    path = tmp_path / "arc-agi_exam_challenges.json"
    with pytest.raises(ValueError, match=r"'test'.* the folder has arc-agi_exam_challenges.json, "):
        arc.read_tasks(tmp_path, ["test"])
    with pytest.raises(ValueError, match="the folder has no challenges"):
        arc.read_tasks(tmp_path / "nowhere", ["exam"])
    for subsets in ([], "exam"):
        with pytest.raises(ValueError, match="subsets must be a list of at least one"):
            arc.read_tasks(tmp_path, subsets)
    edit(tmp_path / "arc-agi_lessons_challenges.json", lambda c: c.update(fifth=c["third"]))
    with pytest.raises(ValueError, match="fifth is in 'lessons' and in 'exam'"):
        arc.read_tasks(tmp_path, ["lessons", "exam"])
    for content, says in ((b"{\n1", "line 2 is not JSON"), (b"\xff", "not UTF-8"), (b"1", "a int")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: .*{says}"):
            arc.read_challenges(path, None, "exam")


# --- Augmented rows ------------------------------------------------------------------------------


def assert_same_rows(a: ArcSet, b: ArcSet) -> None:
    for name in PER_ROW:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for x, y in zip(a.puzzles, b.puzzles, strict=True):
        np.testing.assert_array_equal(x, y)
    assert [t.name for t in a.tasks] == [t.name for t in b.tasks]


# SHA-256, cut to 16 digits, of what upstream's own builder (commit e7b6871) wrote for
# `write_invented`: subsets lessons and exam, test set exam, 6 augmentations, seed 5. They change
# only where upstream does.
UPSTREAM = {
    "identifiers.json": "3e1161abed29cda0",
    "test/all__group_indices.npy": "3615e45205b7d646",
    "test/all__inputs.npy": "33f7da4fec185287",
    "test/all__labels.npy": "09bd9e44a5cc7492",
    "test/all__puzzle_identifiers.npy": "bd85dbc9aec8ddf7",
    "test/all__puzzle_indices.npy": "3a7007eb4fd828f4",
    "test/dataset.json": "bd76b0140fc0f323",
    "test_puzzles.json": "380c318ed73149c9",
    "train/all__group_indices.npy": "dcff500c183ad47f",
    "train/all__inputs.npy": "13aadc636c9853ed",
    "train/all__labels.npy": "28e14b40a1987fe5",
    "train/all__puzzle_identifiers.npy": "fc61c51ccdab20da",
    "train/all__puzzle_indices.npy": "cf0d3dbef25faab5",
    "train/dataset.json": "370041dd467924da",
}


def test_a_folder_is_what_upstreams_builder_writes(tmp_path: Path, tasks: tuple[Task, ...]) -> None:
    arc.write_folder(tmp_path / "out", tasks, ["exam"], num_augmentations=6, seed=5)
    written = {}
    for path in sorted((tmp_path / "out").rglob("*.*")):
        name = path.relative_to(tmp_path / "out").as_posix()
        if path.suffix == ".json":
            content = json.dumps(json.loads(path.read_text())).encode()
        else:
            array = np.load(path)
            content = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
        written[name] = hashlib.sha256(content).hexdigest()[:16]
    assert written == UPSTREAM


def test_augmentations_are_distinct_and_follow_the_seed(tasks: tuple[Task, ...]) -> None:
    made = arc.make_set(tasks, ["exam"], num_augmentations=40, seed=1)
    again = arc.make_set(tasks, ["exam"], num_augmentations=40, seed=1)
    other = arc.make_set(tasks, ["exam"], num_augmentations=40, seed=2)
    assert_same_rows(made, again)
    assert not np.array_equal(made.colors_of, other.colors_of)
    assert (made.colors_of[:, 0] == 0).all()
    identifiers = made.puzzles.puzzle_identifiers
    effects = {}
    for row in range(len(made)):
        key = (made.task_of[row], made.transform_of[row], *made.colors_of[row].tolist())
        assert effects.setdefault(key, identifiers[row]) == identifiers[row]
    assert len(effects) == len(np.unique(identifiers)) == 2 * 41
    assert identifiers.max() < made.num_puzzle_identifiers
    # Two cells side by side and two upright: nothing but turning by 90 degrees tells them apart.
    second = [task for task in tasks if task.name == "second"]
    assert arc.make_set(second, ["lessons"], num_augmentations=40).num_puzzle_identifiers == 1 + 2
    # A mirror takes these two pairs to each other: 9 colours, lying or upright.
    pairs = [Pair(np.array(x), np.array([[1]])) for x in ([[1, 0]], [[0, 1]])]
    mirrored = Task("mirrored", "exam", (pairs[0],), (pairs[1],))
    assert arc.make_set([mirrored], ["exam"]).num_puzzle_identifiers == 1 + 18
    plain = arc.make_set(tasks, ["exam"], num_augmentations=0)
    assert len(plain) == 3
    assert plain.num_puzzle_identifiers == 1 + 5


def test_rows_show_the_augmented_test_inputs_and_outputs(tasks: tuple[Task, ...]) -> None:
    made = arc.make_set(tasks, ["exam"], num_augmentations=9, seed=3)
    assert len(made) == 10 * 3
    assert made.puzzles.inputs.dtype == made.labels.dtype == np.int32
    for row in range(len(made)):
        x, y = made.tasks[made.task_of[row]].test[made.test_of[row]]
        undo = made.transform_of[row], tuple(made.colors_of[row].tolist())
        for tokens, grid in ((made.puzzles.inputs[row], x), (made.labels[row], y)):
            np.testing.assert_array_equal(brute_invert(arc.crop(tokens), *undo), grid)
            np.testing.assert_array_equal(arc.encode(arc.crop(tokens)), tokens)
    some = made.take(np.array([7, 2]))
    assert_same_rows(some, made.take(slice(2, 8)).take(np.array([5, 0])))
    assert some.puzzles.index.tolist() == [7, 2]
    assert len(some.tasks) == 2


def test_a_written_folder_is_read_back(tmp_path: Path, tasks: tuple[Task, ...]) -> None:
    folder = tmp_path / "out"
    arc.write_folder(folder, tasks, ["exam"], num_augmentations=6, seed=5)
    made, found = arc.make_set(tasks, ["exam"], num_augmentations=6, seed=5), arc.read_set(folder)
    assert_same_rows(made, found)
    assert made.num_puzzle_identifiers == found.num_puzzle_identifiers
    dataset = read_dataset(folder)
    np.testing.assert_array_equal(dataset.puzzles.inputs, found.puzzles.inputs)
    np.testing.assert_array_equal(dataset.labels, found.labels)
    assert (dataset.ignore_label, dataset.vocab_size) == (PAD, 12)

    names = json.loads((folder / "identifiers.json").read_text())
    assert len(set(names)) == len(names) == found.num_puzzle_identifiers
    train = read_dataset(folder, split="train")
    assert train.group_of.max() == len(tasks) - 1
    # Undone and moved back, the rows are the examples, and the test inputs of the lessons.
    expected = {
        task.name: [(x.tolist(), y.tolist()) for x, y in task.train]
        + [(x.tolist(), y.tolist()) for x, y in task.test if task.subset == "lessons"]
        for task in tasks
    }
    for puzzle in range(train.puzzle_of.max() + 1):
        rows = np.flatnonzero(train.puzzle_of == puzzle)
        (identifier,) = set(train.puzzles.puzzle_identifiers[rows].tolist())
        name, augmentation = arc.parse_name(names[identifier])
        examples, unmoved = [], 0
        for row in rows:
            pages = [x[row].reshape(30, 30) for x in (train.puzzles.inputs, train.labels)]
            at = [tuple(np.argwhere(page > EOS).min(axis=0)) for page in pages]
            assert at[0] == at[1]
            unmoved += at[0] == (0, 0)
            grids = []
            for page in pages:
                used = np.argwhere(page > EOS)
                grid = page[at[0][0] : used[:, 0].max() + 1, at[0][1] : used[:, 1].max() + 1] - 2
                np.testing.assert_array_equal(arc.encode(grid, *at[0]), page.ravel())
                grids.append(brute_invert(grid, *augmentation).tolist())
            examples.append(tuple(grids))
        assert unmoved >= 1
        assert sorted(examples) == sorted(expected[name])


def test_unknown_outputs_are_ignored_labels_and_no_training_rows(
    tmp_path: Path, tasks: tuple[Task, ...]
) -> None:
    hidden = {"third": (0,), "fourth": (1,), "fifth": (0,)}
    partly = [without_outputs(task, *hidden.get(task.name, ())) for task in tasks]
    arc.write_folder(tmp_path / "out", partly, ["exam"], num_augmentations=2)
    found = arc.read_set(tmp_path / "out")
    assert_same_rows(found, arc.make_set(partly, ["exam"], num_augmentations=2))
    for row in range(len(found)):
        output = found.tasks[found.task_of[row]].test[found.test_of[row]].output
        assert (output is None) == (found.labels[row] == PAD).all()
    assert {t.name: [p.output is None for p in t.test] for t in found.tasks} == {
        "fourth": [False, True],
        "fifth": [True],
    }
    train = read_dataset(tmp_path / "out", split="train")
    assert (train.labels > PAD).any(axis=1).all()
    full = sum(len(t.train) + (len(t.test) if t.subset == "lessons" else 0) for t in tasks)
    assert len(train) == (full - 1) * 3 - 2  # `second` has one augmentation, of two pairs
    assert found.num_puzzle_identifiers == 1 + 5 * 3 - 1


def test_equal_test_inputs_of_a_task_keep_their_places(tmp_path: Path) -> None:
    """The order of rows tells them apart."""
    same = np.array([[1, 2]])
    test = tuple(Pair(x, np.array([[y]])) for x, y in ((same, 3), (same.T, 4), (same, 5)))
    task = Task("twins", "exam", (Pair(same, same),), test)
    arc.write_folder(tmp_path / "out", [task], ["exam"], num_augmentations=3)
    found = arc.read_set(tmp_path / "out")
    assert found.test_of.tolist() == [0, 1, 2] * 4


def test_a_folder_may_hold_training_alone_and_must_be_empty(
    tmp_path: Path, tasks: tuple[Task, ...]
) -> None:
    arc.write_folder(tmp_path / "out", tasks, [], num_augmentations=1)
    assert not (tmp_path / "out" / "test").exists()
    assert json.loads((tmp_path / "out" / "test_puzzles.json").read_text()) == {}
    with pytest.raises(ValueError, match=r"out must be empty"):
        arc.write_folder(tmp_path / "out", tasks, [], num_augmentations=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"test_subsets": ["other"]},
            r"subsets of tasks, \['exam', 'lessons'\]; it is \['other'\]",
        ),
        ({"test_subsets": "exam"}, "test_subsets must be a list"),
        ({"num_augmentations": -1}, "num_augmentations must be a whole number"),
        ({"num_augmentations": 1.5}, "it is 1.5"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
    ],
)
def test_arguments_out_of_range_are_refused(
    tmp_path: Path, tasks: tuple[Task, ...], changes: dict[str, Any], says: str
) -> None:
    arguments = {"test_subsets": ["exam"], "num_augmentations": 1} | changes
    with pytest.raises(ValueError, match=says):
        arc.make_set(tasks, **arguments)
    with pytest.raises(ValueError, match=says):
        arc.write_folder(tmp_path / "out", tasks, **arguments)
    assert not (tmp_path / "out").exists()


def test_tasks_must_be_there_once(tasks: tuple[Task, ...]) -> None:
    with pytest.raises(ValueError, match="fifth occurs twice"):
        arc.make_set([*tasks, tasks[-1]], ["exam"])
    with pytest.raises(ValueError, match="there is none"):
        arc.make_set([], [])
    with pytest.raises(ValueError, match="test_subsets must name a subset to solve"):
        arc.make_set(tasks, [])


def rewrite(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    return lambda path: path.write_text(json.dumps(change(json.loads(path.read_text()))))


def change_input(path: Path) -> None:
    inputs = np.load(path)
    inputs[4, 0] = 11 if inputs[4, 0] != 11 else 10
    np.save(path, inputs)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("identifiers.json", Path.unlink, "identifiers.json is missing"),
        ("test_puzzles.json", Path.unlink, "test_puzzles.json is missing"),
        ("identifiers.json", lambda p: p.write_text("["), "identifiers.json: line 1 is not JSON"),
        ("identifiers.json", rewrite(lambda n: {}), "must be a list of names"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], 3]), "must be a list of names"),
        ("identifiers.json", rewrite(lambda n: n[:-1]), "has 10 names; the test rows ask for 10"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], "<blank>"]), "it is '<blank>'"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], "x"]), "task x of identifier 10 is no"),
        ("test_puzzles.json", rewrite(lambda p: []), "must be a JSON object"),
        ("test_puzzles.json", rewrite(lambda p: p | {"fifth": {}}), "fifth must have"),
        ("test/all__inputs.npy", change_input, "row 4 of the test split must show a test input"),
        ("test/dataset.json", Path.unlink, "dataset.json is missing"),
        (
            "test/dataset.json",
            rewrite(lambda m: m | {"vocab_size": 13}),
            "must hold ARC-AGI, 900 tokens out of 12; it has 900 out of 13",
        ),
    ],
)
def test_folders_that_disagree_are_refused(
    tmp_path: Path,
    tasks: tuple[Task, ...],
    file: str,
    change: Callable[[Path], Any],
    says: str,
) -> None:
    arc.write_folder(tmp_path / "out", tasks, ["exam"], num_augmentations=1)
    arc.read_set(tmp_path / "out")
    change(tmp_path / "out" / file)
    with pytest.raises(DataError, match=says):
        arc.read_set(tmp_path / "out")


# --- The vote ------------------------------------------------------------------------------------


def random_answers(
    rng: np.random.Generator, arc_set: ArcSet, num_rollouts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers that agree often, Q with many ties, and rollouts that are not finite."""
    shape = (len(arc_set), num_rollouts)
    answers = np.empty((*shape, 900), np.int64)
    for row, k in np.ndindex(shape):
        undo = Augmentation(int(arc_set.transform_of[row]), tuple(arc_set.colors_of[row].tolist()))
        guesses = [[[1]], [[1, 2]], [[1], [2]], [[3, 3], [0, 1]]]
        if arc_set.labels[row].any():
            guesses += [undo.invert(arc.crop(arc_set.labels[row]))] * 2
        guess = guesses[rng.integers(len(guesses))]
        answers[row, k] = arc.encode(undo.apply(guess))
        if rng.random() < 0.1:
            answers[row, k, rng.integers(0, 900, 400)] = rng.choice([-5, 0, 1, 2, 7, 99])
    q_logits = rng.choice([-3.0, -1.0, 0.0, 0.5, 2.0], shape)
    finite = rng.random(shape) < 0.8
    q_logits[rng.random(shape) < np.where(finite, 0.05, 0.5)] = np.nan
    finite[rng.integers(shape[0], size=3)] = False
    return answers, q_logits, finite


def plain_vote(
    arc_set: ArcSet, answers: np.ndarray, q_logits: np.ndarray, finite: np.ndarray, rule: str
) -> list[list[list[tuple[list[list[int]], float, float]]]]:
    """The vote once more: for each test input, grids with votes and mean sigmoid(Q), in order."""
    result = []
    for t, task in enumerate(arc_set.tasks):
        result.append([])
        for i in range(len(task.test)):
            voters = []
            for row in range(len(arc_set)):
                if (arc_set.task_of[row], arc_set.test_of[row]) != (t, i):
                    continue
                able = [k for k in range(q_logits.shape[1]) if finite[row, k]]
                if rule == "best_q":
                    able = sorted(able, key=lambda k: (-q_logits[row, k], k))[:1]
                for k in able:
                    undo = int(arc_set.transform_of[row]), tuple(arc_set.colors_of[row].tolist())
                    grid = brute_invert(brute_crop(answers[row, k]), *undo).tolist()
                    voters.append((grid, 1 / (1 + math.exp(-q_logits[row, k]))))
            grids = []
            for grid, _ in voters:
                if grid not in grids:
                    grids.append(grid)
            entries = []
            for place, grid in enumerate(grids):
                chances = [q for other, q in voters if other == grid]
                votes = sum(chances) if rule == "q_weighted" else len(chances)
                entries.append((-votes, -sum(chances) / len(chances), place, grid))
            entries.sort()
            result[-1].append([(grid, -votes, -q) for votes, q, _, grid in entries])
    return result


def exam(tasks: tuple[Task, ...], num_augmentations: int = 12) -> ArcSet:
    """Small grids alone: the fourth task and the first, two test inputs and one."""
    few = [task for task in tasks if task.name in ("first", "fourth")]
    return arc.make_set(few, ["exam", "lessons"], num_augmentations=num_augmentations)


@pytest.mark.parametrize("rule", arc_vote.RULES)
@pytest.mark.parametrize("seed", range(3))
def test_the_vote_counts_as_by_hand(tasks: tuple[Task, ...], rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arc_set = exam(tasks).take(np.sort(rng.permutation(39)[:30]))  # some rows are missing
    answers, q_logits, finite = random_answers(rng, arc_set, 4)
    ballot = arc_vote.vote(arc_set, answers, q_logits, finite=finite, rule=rule)
    expected = plain_vote(arc_set, answers, q_logits, finite & ~np.isnan(q_logits), rule)
    assert [[len(c) for c in inputs] for inputs in ballot.candidates] == [
        [len(c) for c in inputs] for inputs in expected
    ]
    for inputs, wanted in zip(ballot.candidates, expected, strict=True):
        for candidates, entries in zip(inputs, wanted, strict=True):
            assert len(candidates) > 3
            for candidate, (grid, votes, mean_q) in zip(candidates, entries, strict=True):
                assert candidate.grid.tolist() == grid
                assert candidate.votes == pytest.approx(votes, abs=1e-12)
                assert candidate.mean_q == pytest.approx(mean_q, abs=1e-12)


def test_the_vote_does_not_depend_on_the_size_of_pieces(
    tasks: tuple[Task, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    arc_set = exam(tasks)
    answers, q_logits, finite = random_answers(rng, arc_set, 3)
    for rule in arc_vote.RULES:
        results = []
        for size in (8192, 7, 1):
            monkeypatch.setattr(arc_vote, "_CHUNK", size)
            ballot = arc_vote.vote(arc_set, answers, q_logits, finite=finite, rule=rule)
            rows = arc_vote.row_accuracy(arc_set, answers, q_logits, finite=finite)
            results.append((ballot.candidates, rows))
        assert results[0] == results[1] == results[2]


def test_one_rollout_per_row_needs_no_axis_and_makes_all_counts_one(
    tasks: tuple[Task, ...],
) -> None:
    rng = np.random.default_rng(6)
    arc_set = exam(tasks)
    answers, q_logits, finite = random_answers(rng, arc_set, 1)
    wanted = arc_vote.vote(arc_set, answers, q_logits, finite=finite).candidates
    short = answers[:, 0], q_logits[:, 0]
    assert arc_vote.vote(arc_set, *short, finite=finite[:, 0]).candidates == wanted
    assert arc_vote.vote(arc_set, answers, q_logits, finite=finite, rule="all").candidates == wanted
    assert arc_vote.row_accuracy(arc_set, *short, finite=finite[:, 0]) == arc_vote.row_accuracy(
        arc_set, answers, q_logits, finite=finite
    )
    # Without flags Q tells which rollouts are finite.
    q_logits = np.where(finite, q_logits, np.nan)
    assert arc_vote.vote(arc_set, answers, q_logits).candidates == wanted


def test_ties_of_q_go_to_the_lowest_finite_rollout(tasks: tuple[Task, ...]) -> None:
    arc_set = arc.make_set(tasks, ["exam"], num_augmentations=0).take(np.array([0]))
    answers = np.stack([arc.encode([[k]]) for k in range(4)])[None]
    for q, wanted in ((2.0, 1), (-np.inf, 1), (np.inf, 1)):
        q_logits = np.full((1, 4), q)
        finite = np.array([[False, True, True, True]])
        (first, *_), _ = arc_vote.vote(arc_set, answers, q_logits, finite=finite).candidates
        assert [c.grid.tolist() for c in first] == [[[wanted]]]


def ballot_of(outputs: list[list[Any]], places: list[list[int | None]], length: int) -> Any:
    """Tasks with these outputs; `places` is where the right grid stands, None for nobody voted."""
    x = np.array([[1]])
    right, wrong = np.array([[5]]), [np.full((1, w), 6) for w in range(1, length + 1)]
    tasks, candidates = [], []
    for t, (known, ranks) in enumerate(zip(outputs, places, strict=True)):
        test = tuple(Pair(x, right if k else None) for k in known)
        tasks.append(Task(f"t{t}", "exam", (Pair(x, x),), test))
        candidates.append([])
        for rank in ranks:
            grids = [] if rank is None else [*wrong[:rank], right, *wrong[rank:]][:length]
            candidates[-1].append(
                tuple(arc_vote.Candidate(arc.pack(g), 9.0 - i, 0.5) for i, g in enumerate(grids))
            )
    return arc_vote.Ballot(tuple(tasks), tuple(map(tuple, candidates)))


def test_pass_at_k_is_a_mean_over_tasks_of_means_over_known_inputs() -> None:
    ballot = ballot_of(
        [[1, 1], [1], [1, 0], [0], [1]], [[0, 1], [4], [2, 0], [0], [None]], length=4
    )
    by_hand = {1: [0.5, 0, 0, 0], 2: [1, 0, 0, 0], 3: [1, 0, 1, 0], 1000: [1, 0, 1, 0]}
    result = arc_vote.score(ballot, tuple(by_hand))
    assert (result.num_inputs, result.num_unknown, result.num_without_candidates) == (5, 2, 1)
    for k, fractions in by_hand.items():
        assert result.pass_at[k] == interval(fractions)
        per_task = arc_vote.task_pass_at_k(ballot, k)
        np.testing.assert_array_equal(per_task, [*fractions[:3], np.nan, fractions[3]])
    assert tuple(arc_vote.score(ballot).pass_at) == (1, 2, 5, 10, 100, 1000)


def test_scores_that_cannot_be_given_are_refused() -> None:
    with pytest.raises(ValueError, match="no task has any"):
        arc_vote.score(ballot_of([[0], [0, 0]], [[0], [0, 1]], length=2))
    ballot = ballot_of([[1]], [[0]], length=2)
    for k in (0, 1.0, True):
        with pytest.raises(ValueError, match="k must be a whole number"):
            arc_vote.score(ballot, [k])
        with pytest.raises(ValueError, match="k must be a whole number"):
            arc_vote.task_pass_at_k(ballot, k)


def test_row_accuracy_counts_rows_and_leaves_unknown_ones_out(tasks: tuple[Task, ...]) -> None:
    rng = np.random.default_rng(7)
    few = [without_outputs(task, 1) for task in tasks if task.name in ("first", "fourth")]
    arc_set = arc.make_set(few, ["exam", "lessons"], num_augmentations=12)
    answers, q_logits, finite = random_answers(rng, arc_set, 3)
    known = (arc_set.labels > PAD).any(axis=1)
    q_logits[:, 0] += 2 * (known & (answers[:, 0] == arc_set.labels).all(axis=1))
    # What stands where the label is padding does not count.
    answers[:, :, -1] = np.where(arc_set.labels[:, None, -1] == PAD, 7, answers[:, :, -1])
    result = arc_vote.row_accuracy(arc_set, answers, q_logits, finite=finite)
    means, bests, passes = [], [], []
    for row in range(len(arc_set)):
        label = arc_set.labels[row].tolist()
        if not any(label):
            continue
        able = finite[row] & ~np.isnan(q_logits[row])
        right = [
            bool(able[k])
            and all(y in (PAD, a) for a, y in zip(answer.tolist(), label, strict=True))
            for k, answer in enumerate(answers[row])
        ]
        means.append(sum(right) / 3)
        passes.append(any(right))
        order = sorted((-q_logits[row, k], k) for k in range(3) if able[k])
        bests.append(bool(order) and right[order[0][1]])
    assert (result.num_rows, result.num_unknown) == (len(means), 13)
    assert 0 < sum(means) < sum(bests) < sum(passes) < len(means) == 26
    for got, values in zip(result[:3], (means, bests, passes), strict=True):
        assert got.mean == pytest.approx(np.mean(values))
        assert got.low <= got.mean <= got.high
        assert got.num_puzzles == 2


def rows_of_tasks(counts: np.ndarray) -> ArcSet:
    """One task per count, with so many equal rows."""
    x = np.array([[1]])
    tasks = tuple(Task(f"t{t}", "exam", (Pair(x, x),), (Pair(x, x),)) for t in range(len(counts)))
    task_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    page = np.broadcast_to(arc.encode(x), (len(task_of), 900))
    zeros = np.zeros(len(task_of), np.int32)
    colors = np.tile(np.arange(10), (len(task_of), 1))
    return ArcSet(make_puzzles(page, zeros), page, 1, tasks, task_of, zeros, zeros, colors)


@pytest.mark.parametrize("counts", [(1, 1), (25, 25), (9, 2)], ids=str)
def test_intervals_of_row_accuracy_resample_tasks(counts: tuple[int, int]) -> None:
    """Rows of one task say the same again, so their number makes no interval shorter."""
    rng = np.random.default_rng(8)
    rights = rng.random(40) < 0.4
    rows = np.where(rights, *counts)
    arc_set = rows_of_tasks(rows)
    answers = np.where(np.repeat(rights, rows)[:, None], arc_set.labels, 0)
    got = arc_vote.row_accuracy(arc_set, answers, np.zeros(len(arc_set))).best_q
    means = []
    for _ in range(2000):
        drawn = rng.integers(40, size=40)
        means.append(rows[drawn][rights[drawn]].sum() / rows[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(got[:3], [rows[rights].sum() / rows.sum(), low, high], atol=0.03)
    assert got.num_puzzles == 40
    # Where all tasks agree resampling says nothing, and yet not all is certain.
    nothing = arc_vote.row_accuracy(arc_set, np.zeros_like(answers), np.zeros(len(arc_set)))
    assert nothing.best_q == interval(np.zeros(40))


def test_a_submission_has_two_attempts_for_every_test_input(tmp_path: Path) -> None:
    ballot = ballot_of([[1, 0, 1], [0]], [[2, 0, None], [0]], length=4)
    only = ballot.candidates[1][0][:1]
    empty = arc_vote.Candidate(arc.pack(np.zeros((0, 0), int)), 20.0, 0.9)
    many, (top, *_), none = ballot.candidates[0]
    ballot = arc_vote.Ballot(
        ballot.tasks, ((many, (top, empty, *many[:1]), none), ((empty, *only),))
    )
    path = tmp_path / "submission.json"
    arc_vote.write_submission(path, ballot)
    assert json.loads(path.read_text()) == {
        "t0": [
            {"attempt_1": [[6]], "attempt_2": [[6, 6]]},
            {"attempt_1": [[5]], "attempt_2": [[6]]},
            {"attempt_1": [[0, 0], [0, 0]], "attempt_2": [[0, 0], [0, 0]]},
        ],
        "t1": [{"attempt_1": [[5]], "attempt_2": [[5]]}],
    }
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rule": "mode"}, "rule must be one of best_q, all, q_weighted; it is 'mode'"),
        ({"answers": np.zeros((39, 2, 899), int)}, r"got \[39, 2, 899\] and \[39, 2\]"),
        ({"answers": np.zeros((39, 900), int)}, r"got \[39, 900\] and \[39, 2\]"),
        ({"answers": np.zeros((38, 2, 900), int), "q_logits": np.zeros((38, 2))}, "the 39 rows"),
        ({"answers": np.zeros((39, 0, 900), int), "q_logits": np.zeros((39, 0))}, "the 39 rows"),
        ({"q_logits": np.zeros((39, 3))}, r"and \[39, 3\]"),
        ({"answers": np.zeros((39, 2, 900))}, "integer tokens; got float64"),
        (
            {"finite": np.ones((39, 1), bool)},
            r"finite must be bool .*\[39, 2\]; got bool \[39, 1\]",
        ),
        ({"finite": np.ones((39, 2))}, "got float64"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    tasks: tuple[Task, ...], changes: dict[str, Any], says: str
) -> None:
    arguments = {"answers": np.zeros((39, 2, 900), int), "q_logits": np.zeros((39, 2))} | changes
    with pytest.raises(ValueError, match=says):
        arc_vote.vote(exam(tasks), **arguments)
    if "rule" not in changes:
        with pytest.raises(ValueError, match=says):
            arc_vote.row_accuracy(exam(tasks), **arguments)


def test_accuracy_of_rows_without_outputs_is_refused(tasks: tuple[Task, ...]) -> None:
    arc_set = arc.make_set([without_outputs(tasks[-1], 0)], ["exam"], num_augmentations=0)
    with pytest.raises(ValueError, match="no row has any"):
        arc_vote.row_accuracy(arc_set, np.zeros((1, 900), int), np.zeros(1))


# --- The public sets -----------------------------------------------------------------------------

_ROOT = Path(__file__).parents[1]
BENCHMARKS = Path(os.environ.get("PTRM_BENCHMARKS", _ROOT.parent / "shared" / "benchmarks"))
PUBLIC = {  # tasks, examples, test inputs
    "training": (400, 1302, 416),
    "evaluation": (400, 1363, 419),
    "training2": (1000, 3232, 1076),
    "evaluation2": (120, 358, 172),
}
needs_public = pytest.mark.skipif(
    not (BENCHMARKS / "arc-agi").is_dir(),
    reason="no arc-agi folder in PTRM_BENCHMARKS or ../shared/benchmarks",
)


@needs_public
@pytest.mark.parametrize("subset", PUBLIC)
def test_public_grids_survive_augmentation_and_its_inverse(subset: str) -> None:
    rng = np.random.default_rng(9)
    tasks = arc.read_tasks(BENCHMARKS / "arc-agi", [subset])
    counts = (len(tasks), sum(len(t.train) for t in tasks), sum(len(t.test) for t in tasks))
    assert counts == PUBLIC[subset]
    pairs = [pair for task in tasks for pair in (*task.train, *task.test)]
    grids = [grid for pair in pairs for grid in pair if grid is not None]
    undo = [random_augmentation(rng) for _ in grids]
    pages = np.stack([arc.encode(a.apply(g)) for a, g in zip(undo, grids, strict=True)])
    transforms, colors = (np.array(x) for x in zip(*undo, strict=True))
    found = arc.restore(pages, transforms, colors)
    assert found == [arc.pack(grid) for grid in grids]


@needs_public
def test_identifiers_of_arc_agi_1_are_upstreams() -> None:
    """SHA-256 of the first names in the `identifiers.json` that upstream's builder (e7b6871) writes
    for the subsets training, evaluation, concept with 4 augmentations and seed 42."""
    tasks = arc.read_tasks(BENCHMARKS / "arc-agi", ["training", "evaluation"])
    made = arc.make_set(tasks, ["training", "evaluation"], num_augmentations=4)
    names = dict.fromkeys(
        Augmentation(int(made.transform_of[row]), tuple(made.colors_of[row].tolist())).name(
            made.tasks[made.task_of[row]].name
        )
        for row in np.argsort(made.puzzles.puzzle_identifiers, kind="stable")
    )
    assert len(names) == 4000
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "455b5a1d51f1cefbf947ad5ead7ddc0bf4cf7771a5f6f2fd1e935eabd26ab718"
