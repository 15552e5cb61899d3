"""ARC-AGI: grids and tokens, augmentations, challenges and folders, the vote and its score."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ptrm_jax import DataError, make_puzzles, read_dataset
from ptrm_jax.errors import InputError
from ptrm_jax.metrics import interval
from ptrm_jax.paper import arc_agi_2
from ptrm_jax.tasks import arc
from ptrm_jax.tasks.arc import (
    EOS,
    PAD,
    PLAIN,
    ArcSet,
    Augmentation,
    Challenge,
    Pair,
    vote as arc_vote,
)
from ptrm_jax.tasks.arc.augment import draw_augmentations
from ptrm_jax.tasks.arc.grids import crop_sizes

Challenges = tuple[Challenge, ...]


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
    turns = [np.rot90(grid, k) for k in range(4)]
    return [*turns, np.fliplr(grid), np.flipud(grid), grid.T, np.fliplr(turns[1])][transform]


def brute_invert(grid: np.ndarray, transform: int, colors: tuple[int, ...]) -> np.ndarray:
    """The grid that the augmentation takes to this one, found by trying all symmetries."""
    old = np.vectorize(colors.index, otypes=[int])(grid)
    cells = plain_turn(np.arange(12).reshape(3, 4), transform)
    (undo,) = (i for i in range(8) if (plain_turn(cells, i).ravel() == np.arange(12)).all())
    return plain_turn(old, undo)


def crop(tokens: np.ndarray) -> np.ndarray:
    """The grid at the upper left of one page."""
    return arc.unpack(arc.restore(tokens[None], np.array([0]), np.array([PLAIN.colors]))[0])


def check_round_trip(rng: np.random.Generator, grids: list[np.ndarray]) -> None:
    """Grids survive a random augmentation, encoding and `restore`."""
    augmentations = [random_augmentation(rng) for _ in grids]
    pages = np.stack([arc.encode(a.apply(g)) for a, g in zip(augmentations, grids, strict=True)])
    transforms, colors = (np.array(x) for x in zip(*augmentations, strict=True))
    assert arc.restore(pages, transforms, colors) == [arc.pack(grid) for grid in grids]


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
        assert crop(tokens).shape == (0, 0)  # a moved grid is not found


def test_the_largest_rectangle_at_the_upper_left_is_cropped() -> None:
    rng = np.random.default_rng(1)
    pages = rng.integers(2, 12, (60, 900))
    for page, share in zip(pages, rng.choice([0, 1, 3, 30, 600], 60), strict=True):
        page[rng.integers(0, 900, share)] = rng.choice([0, 1, 12, -1, 258, 2**40], share)
    pages[0] = 2  # no edge
    pages[1, 0] = EOS  # no grid
    heights, widths = crop_sizes(pages.reshape(4, 15, 900))
    assert heights.shape == widths.shape == (4, 15)
    plain = np.zeros(len(pages), int), np.tile(np.arange(10), (len(pages), 1))
    for page, height, width, packed in zip(
        pages, heights.ravel(), widths.ravel(), arc.restore(pages, *plain), strict=True
    ):
        expected = brute_crop(page)
        assert (height, width) == expected.shape
        np.testing.assert_array_equal(arc.unpack(packed), expected)
    # Ties go to the lower height: 1 x 6 before 2 x 3.
    tie = np.zeros((30, 30), int)
    tie[0, :6] = tie[1, :3] = 2
    assert crop(tie.ravel()).shape == (1, 6)


def test_grids_of_all_shapes_survive_augmentation_and_its_inverse() -> None:
    rng = np.random.default_rng(2)
    shapes = itertools.product(range(1, 31), repeat=2)
    check_round_trip(rng, [random_grid(rng, h, w) for h, w in shapes])


def test_packed_grids_differ_by_shape_and_colours() -> None:
    grids = [np.zeros(shape, int) for shape in ((2, 3), (3, 2), (1, 6), (0, 0))]
    grids.append(np.array([[0, 0, 0], [0, 1, 0]]))
    assert len({arc.pack(grid) for grid in grids}) == len(grids)


@pytest.mark.parametrize("transform", range(8))
def test_symmetries_are_numbered_as_upstream_numbers_them(transform: int) -> None:
    grid = np.array([[1, 2, 3], [4, 5, 6]])
    permuted = (0, 9, 8, 7, 6, 5, 4, 3, 2, 1)
    augmentation = Augmentation(transform, permuted)
    np.testing.assert_array_equal(augmentation.apply(grid), 10 - plain_turn(grid, transform))


def test_names_say_how_to_undo_an_augmentation() -> None:
    rng = np.random.default_rng(3)
    drawn = [random_augmentation(rng) for _ in range(50)]
    for augmentation in [*drawn, PLAIN, Augmentation(3, PLAIN.colors)]:
        assert arc.parse_name(augmentation.name("00576224")) == ("00576224", augmentation)
    assert PLAIN.name("a") == "a"
    assert Augmentation(5, (0, 2, 1, *range(3, 10))).name("a b") == "a b|||t5|||0213456789"


@pytest.mark.parametrize(
    "name",
    " <blank> <blank>|||t1|||0123456789 a|||t1 a|||t8|||0123456789 a|||1|||0123456789 "
    "a|||t1|||0123456788 a|||t1|||012345678 |||t1|||0123456789 a|||b|||t1|||0123456789".split(" "),
)
def test_names_without_an_augmentation_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"a permutation of 0123456789>; got "):
        arc.parse_name(name)


# --- Challenges from JSON ------------------------------------------------------------------------


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


def without_outputs(challenge: Challenge, *which: int) -> Challenge:
    test = [Pair(x, None if i in which else y) for i, (x, y) in enumerate(challenge.test)]
    return dataclasses.replace(challenge, test=tuple(test))


@pytest.fixture(scope="module")
def challenges(tmp_path_factory: pytest.TempPathFactory) -> Challenges:
    folder = tmp_path_factory.mktemp("json")
    return arc.read_challenges(write_invented(folder), ["lessons", "exam"])


def test_challenges_are_read_in_order_with_their_solutions(tmp_path: Path) -> None:
    found = arc.read_challenges(write_invented(tmp_path), ["exam", "lessons"])
    assert [c.name for c in found] == ["fourth", "fifth", "first", "second", "third"]
    assert [c.subset for c in found] == ["exam"] * 2 + ["lessons"] * 3
    assert [c.test_first for c in found] == [True, False, True, False, False]
    train = invented(5, 4, (2, 2, 2, 2), (3, 3, 3, 3), (6, 2, 1, 1))
    test = invented(4, 4, (3, 4, 2, 2), (5, 5, 3, 6))
    for pairs, examples in ((found[0].train, train), (found[0].test, test)):
        assert [p.input.tolist() for p in pairs] == [e["input"] for e in examples]
        assert [p.output.tolist() for p in pairs] == [e["output"] for e in examples]
    assert found[0].test[0].output.dtype == np.int32


def test_a_solution_may_be_missing_or_stand_in_the_challenges(tmp_path: Path) -> None:
    write_invented(tmp_path)
    challenges, solutions = (
        tmp_path / f"arc-agi_exam_{x}s.json" for x in ("challenge", "solution")
    )
    edit(solutions, lambda s: s.pop("fourth"))
    edit(challenges, lambda c: c["fourth"]["test"][1].update(output=[[7]]))
    edit(challenges, lambda c: c["fifth"]["test"][0].update(output=[[7]]))
    fourth, fifth = arc.read_challenges(tmp_path, ["exam"])
    assert [pair.output is None for pair in fourth.test] == [True, False]
    assert fifth.test[0].output.shape == (8, 30)  # the solutions take precedence
    solutions.unlink()
    fourth, fifth = arc.read_challenges(tmp_path, ["exam"])
    assert fourth.test[0].output is None
    assert fourth.test[1].output.tolist() == fifth.test[0].output.tolist() == [[7]]


def edited(kind: str, **fields: Any) -> Callable[[dict[str, Any]], Any]:
    """Edits the first example or test input of the task "fifth"."""
    return lambda c: c["fifth"][kind][0].update(fields)


FIFTH = r"task fifth: .* - at `\$\."
CHALLENGES = [
    (edited("train", input=[[1, 2], [3]]), r"fifth, train\[0\].input has rows of lengths \[1, 2\]"),
    (edited("train", output=[[1, 2], []]), FIFTH + r"train\[0\].output\[1\]"),
    (edited("train", output=[]), FIFTH + r"train\[0\].output"),
    (edited("train", output=[[]]), FIFTH + r"train\[0\].output\[0\]"),
    (
        edited("train", output=[[1], 2]),
        r"Expected `array`, got `int` - at `\$.train\[0\].output\[1\]",
    ),
    (edited("train", output=None), r"Expected `array`, got `null` - at `\$.train\[0\].output"),
    (edited("test", output=3), FIFTH.replace("array", "array | null") + r"test\[0\].output"),
    (edited("test", input=[[0], [10]]), r"`int` <= 9 - at `\$.test\[0\].input\[1\]\[0\]"),
    (edited("test", input=[[-1]]), "Expected `int` >= 0"),
    (edited("test", input=[[1.0]]), "Expected `int`, got `float`"),
    (edited("test", input=[[True]]), "Expected `int`, got `bool`"),
    (edited("test", input=[["a"]]), "Expected `int`, got `str`"),
    (edited("test", input=[[0]] * 31), r"length <= 30 - at `\$.test\[0\].input`"),
    (edited("test", input=[[0] * 31]), r"length <= 30 - at `\$.test\[0\].input\[0\]`"),
    (lambda c: c["fifth"]["train"][0].pop("output"), "missing required field `output`"),
    (lambda c: c["fifth"]["test"][0].pop("input"), "missing required field `input`"),
    (lambda c: c["fifth"].pop("test"), "fifth: Object missing required field `test`"),
    (lambda c: c["fifth"].update(test=[]), r"length >= 1 - at `\$.test`"),
    (lambda c: c["fifth"].update(train={}), FIFTH + "train"),
    (lambda c: c["fifth"].update(train=[1]), FIFTH + r"train\[0\]"),
    (lambda c: c.update(fifth=[]), "task fifth: Expected `object`, got `array`"),
    (lambda c: c.update({"a|||t": c["fifth"]}), r"id of a task must not .*'a\|\|\|t'"),
    (lambda c: c.update({"": c["fifth"]}), "id of a task must not be empty"),
    (lambda c: c.update({"<blank>": c["fifth"]}), "got '<blank>'"),
    (lambda c: c.clear(), "at least one task"),
]
SOLUTIONS = [
    (lambda s: s["fourth"].pop(), "fourth must have one output per test input, 2; got 1"),
    (lambda s: s.update(fourth=3), "task fourth: Expected `array`, got `int`; correct"),
    (lambda s: s.update(other=[[[1]]]), "lacks task other and 0 more"),
    (lambda s: s["fourth"].__setitem__(1, [[11]]), r"fourth: .* at `\$\[1\]\[0\]\[0\]"),
    (lambda s: s["fourth"].__setitem__(1, [[1], [1, 2]]), r"fourth, \[1\] has rows of lengths"),
]


@pytest.mark.parametrize(
    ("kind", "change", "says"),
    [*(("challenges", *x) for x in CHALLENGES), *(("solutions", *x) for x in SOLUTIONS)],
)
def test_malformed_files_are_refused(
    tmp_path: Path, kind: str, change: Callable[[dict[str, Any]], Any], says: str
) -> None:
    path = write_invented(tmp_path) / f"arc-agi_exam_{kind}.json"
    edit(path, change)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{says}") as caught:
        arc.read_challenges(tmp_path, ["exam"])
    assert "\n" not in str(caught.value)


def test_missing_files_and_files_that_are_not_json_are_refused(tmp_path: Path) -> None:
    write_invented(tmp_path)
    path = tmp_path / "arc-agi_exam_challenges.json"
    with pytest.raises(InputError, match=r"'test'.* has arc-agi_exam_challenges.json, "):
        arc.read_challenges(tmp_path, ["test"])
    with pytest.raises(InputError, match="nowhere has no challenges"):
        arc.read_challenges(tmp_path / "nowhere", ["exam"])
    for subsets in ([], "exam"):
        with pytest.raises(InputError, match="subsets must be a list of at least one"):
            arc.read_challenges(tmp_path, subsets)
    edit(tmp_path / "arc-agi_lessons_challenges.json", lambda c: c.update(fifth=c["third"]))
    with pytest.raises(InputError, match="fifth is in 'lessons' and in 'exam'"):
        arc.read_challenges(tmp_path, ["lessons", "exam"])
    for content, says in (
        (b'{"a":\n1,}', r"malformed.*\(byte 8\)"),
        (b'{"\xff": 1}', "(?i:utf-8)"),
        (b"1", "Expected `object`, got `int`"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{says}.*; correct"):
            arc.read_challenges(tmp_path, ["exam"])


# --- Augmented rows ------------------------------------------------------------------------------


def made_set(
    folder: Path, challenges: Sequence[Challenge], test_subsets: list[str], **settings: int
) -> ArcSet:
    """The test rows of a folder that is written for them."""
    arc.write_folder(folder, challenges, test_subsets, **settings)
    return arc.read_set(folder)


def undo_of(arc_set: ArcSet, row: int) -> Augmentation:
    return Augmentation(int(arc_set.transform_of[row]), tuple(arc_set.colors_of[row].tolist()))


def names_of(arc_set: ArcSet) -> list[str]:
    """The augmented challenge of each row, as upstream names it."""
    names = [arc_set.challenges[i].name for i in arc_set.challenge_of]
    return [undo_of(arc_set, row).name(name) for row, name in enumerate(names)]


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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, challenges: Challenges) -> Path:
    path = tmp_path_factory.mktemp("folder")
    arc.write_folder(path, challenges, ["exam"], num_augmentations=6, seed=5)
    return path


def test_a_folder_is_what_upstreams_builder_writes(folder: Path) -> None:
    written = {}
    for path in sorted(folder.rglob("*.*")):
        if path.suffix == ".json":
            content = json.dumps(json.loads(path.read_text())).encode()
        else:
            array = np.load(path)
            content = f"{array.dtype} {array.shape} ".encode() + array.tobytes()
        name = path.relative_to(folder).as_posix()
        written[name] = hashlib.sha256(content).hexdigest()[:16]
    assert written == UPSTREAM


def test_augmentations_are_distinct_and_follow_the_seed(challenges: Challenges) -> None:
    def draw(challenges: Sequence[Challenge], count: int, seed: int) -> dict[str, list[str]]:
        drawn = draw_augmentations(challenges, count, np.random.RandomState(seed))
        assert all(a.colors[0] == 0 for _, group in drawn for a in group)
        return {c.name: [a.name(c.name) for a in group] for c, group in drawn}

    drawn = draw(challenges, 40, 1)
    assert drawn == draw(challenges, 40, 1)
    assert drawn != draw(challenges, 40, 2)
    assert all(len(set(names)) == len(names) and names[0] == c for c, names in drawn.items())
    # Two cells side by side and two upright: only a turn by 90 degrees tells them apart.
    assert {c: len(names) for c, names in drawn.items()} == {
        **{"first": 41, "second": 2, "third": 41, "fourth": 41, "fifth": 41}
    }
    # A mirror takes these two pairs to each other: 9 colours, lying or upright.
    pairs = [Pair(np.array(x), np.array([[1]])) for x in ([[1, 0]], [[0, 1]])]
    mirrored = Challenge("mirrored", "exam", (pairs[0],), (pairs[1],))
    assert len(draw([mirrored], 1000, 42)["mirrored"]) == 18
    assert draw(challenges[:1], 0, 1) == {"first": ["first"]}


def test_rows_show_the_augmented_test_inputs_and_outputs(folder: Path) -> None:
    made = arc.read_set(folder)
    assert len(made) == 7 * 3 and len(set(names_of(made))) == 7 * 2
    assert made.puzzles.inputs.dtype == made.labels.dtype == np.int32
    names = json.loads((folder / "identifiers.json").read_text())
    assert len(set(names)) == len(names) == made.num_puzzle_identifiers
    assert [names[i] for i in made.puzzles.puzzle_identifiers] == names_of(made)
    for row in range(len(made)):
        x, y = made.challenges[made.challenge_of[row]].test[made.test_of[row]]
        for tokens, grid in ((made.puzzles.inputs[row], x), (made.labels[row], y)):
            np.testing.assert_array_equal(brute_invert(crop(tokens), *undo_of(made, row)), grid)
            np.testing.assert_array_equal(arc.encode(crop(tokens)), tokens)
    some = made.take(np.array([7, 2]))
    again = made.take(slice(2, 8)).take(np.array([5, 0]))
    for name in ("labels", "challenge_of", "test_of", "transform_of", "colors_of"):
        np.testing.assert_array_equal(getattr(some, name), getattr(again, name))
    np.testing.assert_array_equal(some.puzzles.inputs, again.puzzles.inputs)
    assert some.puzzles.index.tolist() == [7, 2]
    assert len(some.challenges) == 2
    dataset = read_dataset(folder)
    np.testing.assert_array_equal(dataset.puzzles.inputs, made.puzzles.inputs)
    assert (dataset.ignore_label, dataset.vocab_size) == (PAD, 12)


def test_training_rows_are_moved_and_augmented_examples(
    folder: Path, challenges: Challenges
) -> None:
    """Undone and moved back, the rows are the examples, and the test inputs of the lessons."""
    names = json.loads((folder / "identifiers.json").read_text())
    train = read_dataset(folder, split="train")
    assert train.group_of.max() == len(challenges) - 1
    expected = {
        challenge.name: sorted(
            (x.tolist(), y.tolist())
            for x, y in challenge.train + (challenge.test if challenge.subset == "lessons" else ())
        )
        for challenge in challenges
    }
    for puzzle in range(train.puzzle_of.max() + 1):
        rows = np.flatnonzero(train.puzzle_of == puzzle)
        (identifier,) = set(train.puzzles.puzzle_identifiers[rows].tolist())
        name, augmentation = arc.parse_name(names[identifier])
        examples, unmoved = [], 0
        for row in rows:
            places, grids = set(), []
            for tokens in (train.puzzles.inputs[row], train.labels[row]):
                page = tokens.reshape(30, 30)
                used = np.argwhere(page > EOS)
                (top, left), (bottom, right) = used.min(axis=0), used.max(axis=0) + 1
                grid = page[top:bottom, left:right] - 2
                np.testing.assert_array_equal(arc.encode(grid, top, left), tokens)
                places.add((top, left))
                grids.append(brute_invert(grid, *augmentation).tolist())
            assert len(places) == 1
            unmoved += (0, 0) in places
            examples.append(tuple(grids))
        assert unmoved >= 1
        assert sorted(examples) == expected[name]


def test_unknown_outputs_are_ignored_labels_and_no_training_rows(
    tmp_path: Path, challenges: Challenges
) -> None:
    hidden = {"third": (0,), "fourth": (1,), "fifth": (0,)}
    partly = [without_outputs(c, *hidden.get(c.name, ())) for c in challenges]
    found = made_set(tmp_path, partly, ["exam"], num_augmentations=2)
    for row in range(len(found)):
        output = found.challenges[found.challenge_of[row]].test[found.test_of[row]].output
        assert (output is None) == (found.labels[row] == PAD).all()
    assert {c.name: [p.output is None for p in c.test] for c in found.challenges} == {
        "fourth": [False, True],
        "fifth": [True],
    }
    train = read_dataset(tmp_path, split="train")
    assert (train.labels > PAD).any(axis=1).all()
    full = sum(len(c.train) + (len(c.test) if c.subset == "lessons" else 0) for c in challenges)
    assert len(train) == (full - 1) * 3 - 2  # `second` has one augmentation, of two pairs
    assert found.num_puzzle_identifiers == 1 + 5 * 3 - 1


def test_equal_test_inputs_of_a_challenge_keep_their_places(tmp_path: Path) -> None:
    """The order of rows tells them apart."""
    same = np.array([[1, 2]])
    test = tuple(Pair(x, np.array([[y]])) for x, y in ((same, 3), (same.T, 4), (same, 5)))
    twins = Challenge("twins", "exam", (Pair(same, same),), test)
    found = made_set(tmp_path, [twins], ["exam"], num_augmentations=3)
    assert found.test_of.tolist() == [0, 1, 2] * 4


def test_a_folder_may_hold_training_alone_and_must_be_empty(
    tmp_path: Path, challenges: Challenges
) -> None:
    arc.write_folder(tmp_path, challenges, [], num_augmentations=1)
    assert not (tmp_path / "test").exists()
    assert json.loads((tmp_path / "test_puzzles.json").read_text()) == {}
    with pytest.raises(InputError, match=r"must be empty"):
        arc.write_folder(tmp_path, challenges, [], num_augmentations=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"test_subsets": ["other"]}, r"of challenges, \['exam', 'lessons'\]; got \['other'\]"),
        ({"test_subsets": "exam"}, "test_subsets must be a list"),
        ({"num_augmentations": -1}, "num_augmentations must be a whole number"),
        ({"num_augmentations": 1.5}, "got 1.5"),
        ({"seed": 2**32}, "seed must be a whole number"),
        ({"seed": True}, "seed must be a whole number"),
        ({"challenges": [], "test_subsets": []}, "there are none"),
    ],
)
def test_arguments_out_of_range_are_refused(
    tmp_path: Path, challenges: Challenges, changes: dict[str, Any], says: str
) -> None:
    arguments = {"challenges": challenges, "test_subsets": ["exam"]} | changes
    with pytest.raises(InputError, match=says):
        arc.write_folder(tmp_path / "out", **arguments)
    with pytest.raises(InputError, match="first occurs twice"):
        arc.write_folder(tmp_path / "out", [*challenges, challenges[0]], [])
    assert not (tmp_path / "out").exists()


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
        ("identifiers.json", lambda p: p.write_text("["), "identifiers.json: .*truncated"),
        ("identifiers.json", rewrite(lambda n: {}), "Expected `array`, got `object`"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], 3]), "Expected `str`, got `int`"),
        ("identifiers.json", rewrite(lambda n: n[:-1]), "10 names; a test row has number 10"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], "<blank>"]), "got '<blank>'"),
        ("identifiers.json", rewrite(lambda n: [*n[:-1], "x"]), "task x of identifier 10 is not"),
        ("test_puzzles.json", rewrite(lambda p: []), "Expected `object`, got `array`"),
        ("test_puzzles.json", rewrite(lambda p: p | {"fifth": {}}), "fifth: .* `train`"),
        ("test/all__inputs.npy", change_input, "row 4 of the test split must show a test input"),
        ("test/dataset.json", Path.unlink, "dataset.json is missing"),
        (
            "test/dataset.json",
            rewrite(lambda m: m | {"vocab_size": 13}),
            "12; it has 900 out of 13",
        ),
    ],
)
def test_folders_that_disagree_are_refused(
    tmp_path: Path, challenges: Challenges, file: str, change: Callable[[Path], Any], says: str
) -> None:
    made_set(tmp_path, challenges, ["exam"], num_augmentations=1)
    change(tmp_path / file)
    with pytest.raises(DataError, match=says):
        arc.read_set(tmp_path)


# --- The vote ------------------------------------------------------------------------------------


def random_answers(
    rng: np.random.Generator, arc_set: ArcSet, num_rollouts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answers that agree often, Q with many ties, and rollouts that are not finite."""
    shape = (len(arc_set), num_rollouts)
    answers = np.empty((*shape, 900), np.int64)
    others = [np.array(x) for x in ([[1]], [[1, 2]], [[1], [2]], [[3, 3], [0, 1]])]
    for row, k in np.ndindex(shape):
        guesses = [arc.encode(undo_of(arc_set, row).apply(guess)) for guess in others]
        if arc_set.labels[row].any():
            guesses += [arc_set.labels[row]] * 2
        answers[row, k] = guesses[rng.integers(len(guesses))]
        if rng.random() < 0.1:
            answers[row, k, rng.integers(0, 900, 400)] = rng.choice([-5, 0, 1, 2, 7, 99])
    q_logits = rng.choice([-3.0, -1.0, 0.0, 0.5, 2.0], shape)
    finite = rng.random(shape) < 0.8
    q_logits[rng.random(shape) < np.where(finite, 0.05, 0.5)] = np.nan
    finite[rng.integers(shape[0], size=3)] = False
    return answers, q_logits, finite


def plain_vote(
    arc_set: ArcSet, answers: np.ndarray, q_logits: np.ndarray, finite: np.ndarray, rule: str
) -> list[list[tuple[list[list[int]], float, float]]]:
    """For each test input: grids with votes and mean sigmoid(Q), the best first."""
    result = []
    for t, challenge in enumerate(arc_set.challenges):
        for i in range(len(challenge.test)):
            voters: dict[str, list[float]] = {}
            for row in np.flatnonzero((arc_set.challenge_of == t) & (arc_set.test_of == i)):
                able = np.flatnonzero(finite[row]).tolist()
                if rule == "best_q":
                    able = sorted(able, key=lambda k: (-q_logits[row, k], k))[:1]
                for k in able:
                    grid = brute_invert(brute_crop(answers[row, k]), *undo_of(arc_set, row))
                    chances = voters.setdefault(str(grid.tolist()), [])
                    chances.append(1 / (1 + math.exp(-q_logits[row, k])))
            entries = [
                (json.loads(grid), sum(q) if rule == "q_weighted" else len(q), sum(q) / len(q))
                for grid, q in voters.items()
            ]
            result.append(sorted(entries, key=lambda entry: (-entry[1], -entry[2])))
    return result


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory, challenges: Challenges) -> ArcSet:
    """Small grids alone: the fourth challenge and the first, two test inputs and one."""
    few = [challenge for challenge in challenges if challenge.name in ("first", "fourth")]
    folder = tmp_path_factory.mktemp("exam") / "data"
    return made_set(folder, few, ["exam", "lessons"], num_augmentations=12)


@pytest.mark.parametrize("rule", arc_vote.RULES)
@pytest.mark.parametrize("seed", range(2))
def test_the_vote_counts_as_by_hand(exam: ArcSet, rule: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    arc_set = exam.take(np.sort(rng.permutation(39)[:30]))  # some rows are missing
    answers, q_logits, finite = random_answers(rng, arc_set, 4)
    ballot = arc_vote.vote(arc_set, answers, q_logits, finite=finite, rule=rule)
    expected = plain_vote(arc_set, answers, q_logits, finite & ~np.isnan(q_logits), rule)
    found = list(itertools.chain(*ballot.candidates))
    assert [len(candidates) for candidates in found] == [len(entries) for entries in expected]
    for candidates, entries in zip(found, expected, strict=True):
        assert len(candidates) > 3
        for candidate, (grid, votes, mean_q) in zip(candidates, entries, strict=True):
            assert candidate.grid.tolist() == grid
            assert candidate.votes == pytest.approx(votes, abs=1e-12)
            assert candidate.mean_q == pytest.approx(mean_q, abs=1e-12)


def test_the_vote_does_not_depend_on_the_size_of_chunks(
    exam: ArcSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, q_logits, finite = random_answers(np.random.default_rng(5), exam, 3)
    for rule in arc_vote.RULES:
        results = []
        for size in (8192, 7, 1):
            monkeypatch.setattr(arc_vote, "_CHUNK", size)
            ballot = arc_vote.vote(exam, answers, q_logits, finite=finite, rule=rule)
            rows = arc_vote.row_accuracy(exam, answers, q_logits, finite=finite)
            results.append((ballot.candidates, rows))
        assert results[0] == results[1] == results[2]


def test_one_rollout_per_row_needs_no_axis_and_makes_all_counts_one(exam: ArcSet) -> None:
    answers, q_logits, finite = random_answers(np.random.default_rng(6), exam, 1)
    wanted = arc_vote.vote(exam, answers, q_logits, finite=finite).candidates
    short = answers[:, 0], q_logits[:, 0]
    assert arc_vote.vote(exam, *short, finite=finite[:, 0]).candidates == wanted
    assert arc_vote.vote(exam, answers, q_logits, finite=finite, rule="all").candidates == wanted
    assert arc_vote.row_accuracy(exam, *short, finite=finite[:, 0]) == arc_vote.row_accuracy(
        exam, answers, q_logits, finite=finite
    )
    # Without flags, Q tells which rollouts are finite.
    q_logits = np.where(finite, q_logits, np.nan)
    assert arc_vote.vote(exam, answers, q_logits).candidates == wanted


def test_ties_of_q_go_to_the_lowest_finite_rollout(exam: ArcSet) -> None:
    arc_set = exam.take(np.array([0]))
    assert names_of(arc_set) == ["first"]  # not augmented
    answers = np.stack([arc.encode(np.array([[k]])) for k in range(4)])[None]
    for q, wanted in ((2.0, 1), (-np.inf, 1), (np.inf, 1)):
        q_logits = np.full((1, 4), q)
        finite = np.array([[False, True, True, True]])
        (first,), *_ = arc_vote.vote(arc_set, answers, q_logits, finite=finite).candidates
        assert [c.grid.tolist() for c in first] == [[[wanted]]]


def ballot_of(outputs: list[list[Any]], places: list[list[int | None]], length: int) -> Any:
    """Challenges with these outputs; `places` are ranks of the right grid, None without votes."""
    x = np.array([[1]])
    right, wrong = np.array([[5]]), [np.full((1, w), 6) for w in range(1, length + 1)]
    challenges, candidates = [], []
    for t, (known, ranks) in enumerate(zip(outputs, places, strict=True)):
        test = tuple(Pair(x, right if k else None) for k in known)
        challenges.append(Challenge(f"t{t}", "exam", (Pair(x, x),), test))
        candidates.append([])
        for rank in ranks:
            grids = [] if rank is None else [*wrong[:rank], right, *wrong[rank:]][:length]
            candidates[-1].append(
                tuple(arc_vote.Candidate(arc.pack(g), 9.0 - i, 0.5) for i, g in enumerate(grids))
            )
    return arc_vote.Ballot(tuple(challenges), tuple(map(tuple, candidates)))


def test_pass_at_k_is_a_mean_over_challenges_of_means_over_known_inputs() -> None:
    ballot = ballot_of(
        [[1, 1], [1], [1, 0], [0], [1]], [[0, 1], [4], [2, 0], [0], [None]], length=4
    )
    by_hand = {1: [0.5, 0, 0, 0], 2: [1, 0, 0, 0], 3: [1, 0, 1, 0], 1000: [1, 0, 1, 0]}
    result = arc_vote.score(ballot, tuple(by_hand))
    assert (result.num_inputs, result.num_unknown, result.num_without_candidates) == (5, 2, 1)
    for k, fractions in by_hand.items():
        assert result.pass_at[k] == interval(fractions)
    assert tuple(arc_vote.score(ballot).pass_at) == (1, 2, 5, 10, 100, 1000)


def test_scores_that_cannot_be_given_are_refused() -> None:
    with pytest.raises(InputError, match="no task has any"):
        arc_vote.score(ballot_of([[0], [0, 0]], [[0], [0, 1]], length=2))
    ballot = ballot_of([[1]], [[0]], length=2)
    for k in (0, 1.0, True):
        with pytest.raises(InputError, match="k must be a whole number"):
            arc_vote.score(ballot, [k])


def test_row_accuracy_counts_rows_and_leaves_unknown_ones_out(exam: ArcSet) -> None:
    rng = np.random.default_rng(7)
    # The second test input of the fourth challenge is unknown.
    labels = np.where((exam.test_of == 1)[:, None], PAD, exam.labels)
    arc_set = dataclasses.replace(exam, labels=labels)
    answers, q_logits, finite = random_answers(rng, arc_set, 3)
    known = (labels > PAD).any(axis=1)
    q_logits[:, 0] += 2 * (known & (answers[:, 0] == labels).all(axis=1))
    # Positions where the label is padding do not count.
    answers[:, :, -1] = np.where(labels[:, None, -1] == PAD, 7, answers[:, :, -1])
    result = arc_vote.row_accuracy(arc_set, answers, q_logits, finite=finite)
    able = finite & ~np.isnan(q_logits)
    right = ((labels[:, None] == PAD) | (answers == labels[:, None])).all(-1) & able
    best = np.where(able, q_logits, -np.inf).argmax(axis=1)
    expected = right.mean(axis=1), right[np.arange(39), best], right.any(axis=1)
    assert (result.num_rows, result.num_unknown) == (26, 13) and known.sum() == 26
    sums = [values[known].sum() for values in expected]
    assert 0 < sums[0] < sums[1] < sums[2] < 26
    for got, total in zip(result[:3], sums, strict=True):
        assert got.mean == pytest.approx(total / 26)
        assert got.low <= got.mean <= got.high
        assert got.num_puzzles == 2


def rows_of_challenges(counts: np.ndarray) -> ArcSet:
    """One challenge per count, with that many equal rows."""
    x = np.array([[1]])
    pairs = (Pair(x, x),)
    challenges = tuple(Challenge(f"t{t}", "exam", pairs, pairs) for t in range(len(counts)))
    which = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    page = np.broadcast_to(arc.encode(x), (len(which), 900))
    zeros = np.zeros(len(which), np.int32)
    colors = np.tile(np.arange(10), (len(which), 1))
    return ArcSet(make_puzzles(page, zeros), page, 1, challenges, which, zeros, zeros, colors)


@pytest.mark.parametrize("counts", [(1, 1), (25, 25), (9, 2)], ids=str)
def test_intervals_of_row_accuracy_resample_challenges(counts: tuple[int, int]) -> None:
    """Rows of one challenge repeat each other, so their number does not shorten the interval."""
    rng = np.random.default_rng(8)
    rights = rng.random(40) < 0.4
    rows = np.where(rights, *counts)
    arc_set = rows_of_challenges(rows)
    answers = np.where(np.repeat(rights, rows)[:, None], arc_set.labels, 0)
    got = arc_vote.row_accuracy(arc_set, answers, np.zeros(len(arc_set))).best_q
    means = []
    for _ in range(2000):
        drawn = rng.integers(40, size=40)
        means.append(rows[drawn][rights[drawn]].sum() / rows[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975])
    np.testing.assert_allclose(got[:3], [rows[rights].sum() / rows.sum(), low, high], atol=0.03)
    assert got.num_puzzles == 40
    # If all challenges agree, resampling cannot tell, and the interval still has a width.
    nothing = arc_vote.row_accuracy(arc_set, np.zeros_like(answers), np.zeros(len(arc_set)))
    assert nothing.best_q == interval(np.zeros(40))


def test_a_submission_has_two_attempts_for_every_test_input(tmp_path: Path) -> None:
    ballot = ballot_of([[1, 0, 1], [0]], [[2, 0, None], [0]], length=4)
    only = ballot.candidates[1][0][:1]
    empty = arc_vote.Candidate(arc.pack(np.zeros((0, 0), int)), 20.0, 0.9)
    many, (top, *_), none = ballot.candidates[0]
    ballot = arc_vote.Ballot(
        ballot.challenges, ((many, (top, empty, *many[:1]), none), ((empty, *only),))
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
        ({"rule": "mode"}, "rule must be one of best_q, all, q_weighted; got 'mode'"),
        ({"answers": np.zeros((39, 2, 899), int)}, r"got \[39, 2, 899\] and \[39, 2\]"),
        ({"answers": np.zeros((39, 900), int)}, r"got \[39, 900\] and \[39, 2\]"),
        ({"answers": np.zeros((38, 2, 900), int), "q_logits": np.zeros((38, 2))}, "the 39 rows"),
        ({"answers": np.zeros((39, 0, 900), int), "q_logits": np.zeros((39, 0))}, "the 39 rows"),
        ({"q_logits": np.zeros((39, 3))}, r"and \[39, 3\]"),
        ({"answers": np.zeros((39, 2, 900))}, "integer tokens; got float64"),
        ({"finite": np.ones((39, 1), bool)}, r"finite must be bool .*2\]; got bool \[39, 1\]"),
        ({"finite": np.ones((39, 2))}, "got float64"),
    ],
)
def test_answers_that_do_not_fit_are_refused(
    exam: ArcSet, changes: dict[str, Any], says: str
) -> None:
    arguments = {"answers": np.zeros((39, 2, 900), int), "q_logits": np.zeros((39, 2))} | changes
    with pytest.raises(InputError, match=says):
        arc_vote.vote(exam, **arguments)
    if "rule" not in changes:
        with pytest.raises(InputError, match=says):
            arc_vote.row_accuracy(exam, **arguments)


def test_accuracy_of_rows_without_outputs_is_refused(exam: ArcSet) -> None:
    unknown = dataclasses.replace(exam, labels=np.full_like(exam.labels, PAD))
    with pytest.raises(InputError, match="no row has any"):
        arc_vote.row_accuracy(unknown, np.zeros((39, 900), int), np.zeros(39))


def test_the_benchmark_needs_data() -> None:
    with pytest.raises(DataError, match="arc-agi-2 needs --data"):
        arc_agi_2.check(
            SimpleNamespace(config=arc_agi_2.CONFIG, puzzles=SimpleNamespace(task=None))
        )


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
    found = arc.read_challenges(BENCHMARKS / "arc-agi", [subset])
    counts = (len(found), sum(len(c.train) for c in found), sum(len(c.test) for c in found))
    assert counts == PUBLIC[subset]
    grids = [x for c in found for pair in (*c.train, *c.test) for x in pair if x is not None]
    check_round_trip(np.random.default_rng(9), grids[::4])


@needs_public
def test_identifiers_of_arc_agi_1_are_upstreams() -> None:
    """SHA-256 of the first names in the `identifiers.json` that upstream's builder (e7b6871) writes
    for the subsets training, evaluation, concept with 4 augmentations and seed 42."""
    found = arc.read_challenges(BENCHMARKS / "arc-agi", ["training", "evaluation"])
    drawn = draw_augmentations(found, 4, np.random.RandomState(42))
    names = [a.name(challenge.name) for challenge, group in drawn for a in group]
    assert len(names) == 4000
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    assert digest == "455b5a1d51f1cefbf947ad5ead7ddc0bf4cf7771a5f6f2fd1e935eabd26ab718"
