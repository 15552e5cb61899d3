"""Labelled puzzles from folders, files and the package; puzzles checked against a model."""

import dataclasses
import functools
import json
import pickle
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptrm_jax import DataError, ModelConfig, Puzzles, data, make_puzzles, read_dataset
from ptrm_jax.data import make_dataset
from ptrm_jax.errors import InputError
from ptrm_jax.puzzles import check_puzzles
from ptrm_jax.tasks import bundled_sets, sudoku

FIELDS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices")
METADATA = {
    "seq_len": 4,
    "vocab_size": 7,
    "num_puzzle_identifiers": 9,
    "ignore_label_id": 0,
    "pad_id": 0,
    "sets": ["all"],
}


def refuses(call: Callable[..., Any], *args: Any, says: tuple[str, ...] = ()) -> None:
    """`call` raises a DataError, one short line with all of `says`."""
    with pytest.raises(DataError) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message) < 1000 and "\n" not in message
    assert [words for words in says if words not in message] == []


# --- Upstream's folders --------------------------------------------------------------------------


def arrays_of_a_set() -> dict[str, np.ndarray]:
    """Three puzzles (identifiers 5, 2, 8) of 2, 1 and 3 examples."""
    inputs = np.arange(24, dtype=np.uint8).reshape(6, 4) % 7
    return {
        "inputs": inputs,
        "labels": inputs[:, ::-1].copy(),
        "puzzle_identifiers": np.array([5, 2, 8], np.int32),
        "puzzle_indices": np.array([0, 2, 3, 6], np.int32),
    }


def write_set(folder: Path, name: str = "all", **changes: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for field, array in (arrays_of_a_set() | changes).items():
        np.save(folder / f"{name}__{field}.npy", array)


def write_metadata(folder: Path, **changes: Any) -> None:
    fields = {name: value for name, value in (METADATA | changes).items() if value is not ...}
    (folder / "dataset.json").write_text(json.dumps(fields))


def write_folder(folder: Path, metadata: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A folder in upstream's layout, one set; returns where to read it."""
    write_set(folder / "test", **changes)
    write_metadata(folder / "test", **metadata or {})
    return folder


def test_examples_of_a_folder_come_in_order_with_their_puzzles_identifier(tmp_path: Path) -> None:
    dataset = read_dataset(write_folder(tmp_path))
    expected = arrays_of_a_set()
    np.testing.assert_array_equal(dataset.puzzles.inputs, expected["inputs"])
    np.testing.assert_array_equal(dataset.labels, expected["labels"])
    np.testing.assert_array_equal(dataset.puzzles.puzzle_identifiers, [5, 5, 2, 8, 8, 8])
    np.testing.assert_array_equal(dataset.puzzles.index, [0, 1, 2, 3, 4, 5])
    assert {array.dtype for array in (*dataset.puzzles, dataset.labels)} == {np.dtype(np.int32)}
    assert (dataset.name, dataset.ignore_label, dataset.vocab_size) == (str(tmp_path), 0, 7)
    assert len(dataset) == 6


def test_sets_of_a_folder_follow_each_other(tmp_path: Path) -> None:
    """The index counts on through the sets; each set's indices start from 0."""
    other = np.full((3, 4), 6, np.uint8)
    write_folder(tmp_path, {"sets": ["hard", "all"]})
    write_set(
        tmp_path / "test",
        "hard",
        inputs=other,
        labels=other - 1,
        puzzle_identifiers=np.array([7, 1]),
        puzzle_indices=np.array([0, 1, 3]),
    )
    dataset = read_dataset(tmp_path)
    expected = arrays_of_a_set()
    np.testing.assert_array_equal(
        dataset.puzzles.inputs, np.concatenate([other, expected["inputs"]])
    )
    np.testing.assert_array_equal(dataset.labels, np.concatenate([other - 1, expected["labels"]]))
    np.testing.assert_array_equal(dataset.puzzles.puzzle_identifiers, [7, 1, 1, 5, 5, 2, 8, 8, 8])
    np.testing.assert_array_equal(dataset.puzzles.index, np.arange(9))


def test_only_the_sets_that_dataset_json_names_are_read(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_set(tmp_path / "test", "other")
    assert len(read_dataset(tmp_path)) == 6


def test_a_split_is_a_sub_folder_or_the_folder_itself(tmp_path: Path) -> None:
    write_folder(tmp_path)
    write_set(tmp_path / "train", labels=arrays_of_a_set()["inputs"])
    write_metadata(tmp_path / "train")
    digests = {split: read_dataset(tmp_path, split=split).digest for split in ("test", "train")}
    assert digests["test"] != digests["train"]
    assert read_dataset(tmp_path).digest == digests["test"]
    assert read_dataset(str(tmp_path / "train"), split="test").digest == digests["train"]
    named = data.read_upstream(tmp_path, "train", name="mine")
    assert (named.name, named.digest) == ("mine", digests["train"])
    refuses(data.read_upstream, tmp_path, "dev", says=("dev/dataset.json is missing",))


def test_a_data_set_may_count_every_label(tmp_path: Path) -> None:
    assert read_dataset(write_folder(tmp_path, {"ignore_label_id": None})).ignore_label is None


def test_a_puzzle_may_have_no_examples(tmp_path: Path) -> None:
    write_folder(tmp_path, puzzle_indices=np.array([0, 2, 2, 6]))
    identifiers = read_dataset(tmp_path).puzzles.puzzle_identifiers
    np.testing.assert_array_equal(identifiers, [5, 5, 8, 8, 8, 8])


@pytest.mark.parametrize(
    "dtype", ["int8", "int16", "uint16", "uint32", "int64", ">i4", "uint64", "fortran"]
)
def test_the_digest_does_not_depend_on_how_arrays_are_stored(dtype: str, tmp_path: Path) -> None:
    plain = read_dataset(write_folder(tmp_path / "plain"))
    arrays = {
        name: np.asfortranarray(array) if dtype == "fortran" else array.astype(dtype)
        for name, array in arrays_of_a_set().items()
    }
    other = read_dataset(write_folder(tmp_path / "other", **arrays))
    assert other.digest == plain.digest
    assert other.puzzles.inputs.dtype == np.int32
    np.testing.assert_array_equal(other.puzzles.puzzle_identifiers, [5, 5, 2, 8, 8, 8])


def test_the_digest_changes_with_every_value(tmp_path: Path) -> None:
    arrays = arrays_of_a_set()
    boards = {name: arrays[name].astype(np.int32) for name in ("inputs", "labels")}
    digests = {data.make_dataset("same", **boards, vocab_size=7).digest}
    for name, array in boards.items():
        for position in range(24):
            changed = array.copy()
            changed.flat[position] = (changed.flat[position] + 1) % 7
            dataset = data.make_dataset("same", **boards | {name: changed}, vocab_size=7)
            digests.add(dataset.digest)
    # Identifiers, to all 32 bits; the same identifiers with another number of examples each.
    identifiers = [(5, 2, 8), (4, 2, 8), (5, 3, 8), *((5, 2, 1 + 2**bits) for bits in (8, 16, 24))]
    metadata = {"num_puzzle_identifiers": 2**30}
    for row in identifiers:
        write_folder(tmp_path, metadata, puzzle_identifiers=np.array(row))
        digests.add(read_dataset(tmp_path).digest)
    write_folder(tmp_path, metadata, puzzle_indices=np.array([0, 1, 3, 6]))
    digests.add(read_dataset(tmp_path).digest)
    # 3 puzzles of 4 tokens and 9 of 1 have 27 numbers alike: inputs, labels and identifiers.
    for shape in ((3, 4), (9, 1)):
        zeros = np.zeros(shape, np.int32)
        digests.add(data.make_dataset("same", zeros, zeros, 7).digest)
    assert len(digests) == 1 + 24 + 24 + 6 + 1 + 2


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "all__labels.npy").unlink()
    refuses(read_dataset, tmp_path, says=(str(tmp_path), "incomplete: all__labels.npy missing"))
    for file in (tmp_path / "test").glob("*.npy"):
        file.unlink()
    refuses(read_dataset, tmp_path, says=tuple(f"all__{field}.npy" for field in FIELDS))
    (tmp_path / "test" / "dataset.json").unlink()
    refuses(read_dataset, tmp_path, says=("dataset.json is missing",))


@pytest.mark.parametrize(
    ("field", "array", "says"),
    [
        ("inputs", np.zeros(24, np.uint8), "[24] and [6, 4]"),
        ("inputs", np.zeros((6, 5), np.uint8), "[6, 5] and [6, 4]"),
        ("inputs", np.zeros((6, 4, 1), np.uint8), "[6, 4, 1] and [6, 4]"),
        ("labels", np.zeros((5, 4), np.uint8), "[6, 4] and [5, 4]"),
        ("puzzle_identifiers", np.zeros(2, np.int32), "[2] and [4]"),
        ("puzzle_identifiers", np.zeros(4, np.int32), "[4] and [4]"),
        ("puzzle_identifiers", np.zeros((3, 1), np.int32), "[3, 1] and [4]"),
        ("puzzle_indices", np.array([0, 2, 3]), "[3] and [3]"),
        ("puzzle_indices", np.zeros(0, np.int32), "[3] and [0]"),
        ("puzzle_indices", np.array(6), "[3] and []"),
        ("puzzle_indices", np.array([[0, 2, 3, 6]]), "[3] and [1, 4]"),
        ("puzzle_indices", np.array([0, 2, 3, 5]), "they go from 0 to 5"),
        ("puzzle_indices", np.array([0, 2, 3, 7]), "they go from 0 to 7"),
        ("puzzle_indices", np.array([1, 2, 3, 6]), "they go from 1 to 6"),
        ("puzzle_indices", np.array([0, 4, 3, 6]), "and fall in between"),
        ("puzzle_indices", np.array([0, 4, 3, 6], np.uint8), "and fall in between"),
        ("group_indices", np.array([0, 4, 3]), "must be [G + 1] and rise; got shape (3,)"),
        ("group_indices", np.array([[0, 3]]), "must be [G + 1] and rise; got shape (1, 2)"),
        ("group_indices", np.array([0, 2]), "must go from 0 to 3"),
        ("inputs", np.zeros((6, 4), np.float32), "must hold integers; got float32"),
        ("labels", np.zeros((6, 4), bool), "must hold integers; got bool"),
        ("puzzle_identifiers", np.zeros(3), "must hold integers; got float64"),
        ("puzzle_indices", np.array([0.0, 2, 3, 6]), "must hold integers; got float64"),
        ("inputs", np.full((6, 4), 7, np.uint8), "inputs must lie in 0..6 by dataset.json"),
        ("inputs", np.full((6, 4), -1, np.int8), "inputs must lie in 0..6 by dataset.json"),
        ("inputs", np.full((6, 4), 2**32 + 1), "inputs must lie in 0..6 by dataset.json"),
        ("labels", np.full((6, 4), 7, np.uint8), "labels must lie in 0..6 by dataset.json"),
        ("labels", np.full((6, 4), -99), "labels must lie in 0..6 by dataset.json"),
        ("puzzle_identifiers", np.array([5, 9, 8]), "puzzle_identifiers must lie in 0..8"),
        ("puzzle_identifiers", np.array([5, -1, 8]), "puzzle_identifiers must lie in 0..8"),
    ],
)
def test_arrays_that_contradict_each_other_or_dataset_json_are_refused(
    field: str, array: np.ndarray, says: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, **{field: array})
    refuses(read_dataset, tmp_path, says=(str(tmp_path), says))


def test_sets_of_another_width_than_dataset_json_says_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"seq_len": 5})
    refuses(read_dataset, tmp_path, says=("4 columns", "seq_len 5"))
    write_metadata(tmp_path / "test", sets=["all", "wide"])
    wide = np.zeros((6, 5), np.uint8)
    write_set(tmp_path / "test", "wide", inputs=wide, labels=wide)
    refuses(read_dataset, tmp_path, says=("5 columns", "seq_len 4"))


def test_a_folder_without_puzzles_is_refused(tmp_path: Path) -> None:
    nothing = {name: array[:0] for name, array in arrays_of_a_set().items()}
    write_folder(tmp_path, **nothing | {"puzzle_indices": np.zeros(1, np.int32)})
    refuses(read_dataset, tmp_path, says=("holds no puzzles",))


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("field", FIELDS)
def test_a_file_that_is_no_array_is_refused_and_not_run(field: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    file = tmp_path / "data" / "test" / f"all__{field}.npy"
    intact = file.read_bytes()
    for kept in {*range(0, len(intact), 11), len(intact) - 1}:
        file.write_bytes(intact[:kept])
        refuses(read_dataset, tmp_path / "data", says=(file.name, "cannot be read"))
    np.save(file, np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    refuses(read_dataset, tmp_path / "data", says=(file.name, "cannot be read"))
    assert not (tmp_path / "sprung").exists()
    with file.open("wb") as stream:
        np.savez(stream, inputs=arrays_of_a_set()["inputs"])
    refuses(read_dataset, tmp_path / "data", says=(file.name, "cannot be read"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *((text, "dataset.json is not JSON") for text in (b"", b"{", b"{'a': 4}")),
        (b"\xff\xfe\x00", "dataset.json is not text in UTF-8"),
        (b"[" * 10**5, "nested too deeply"),
        *((text, "must hold an object") for text in (b"[]", b'"text"', b"3", b"null")),
        (b"{}", "lacks seq_len, vocab_size, num_puzzle_identifiers, ignore_label_id, sets"),
    ],
)
def test_a_broken_dataset_json_is_refused(text: bytes, says: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").write_bytes(text)
    refuses(read_dataset, tmp_path, says=("dataset.json", says))


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        *((field, ..., f"lacks {field}") for field in METADATA if field != "pad_id"),
        *(("sets", value, "sets must be a list") for value in ([], None, [1])),
        ("seq_len", "4", "seq_len must be a whole number >= 1; got '4'"),
        ("seq_len", True, "seq_len must be a whole number >= 1; got True"),
        ("vocab_size", "7", "vocab_size must be a whole number"),
        ("vocab_size", None, "vocab_size must be a whole number"),
        ("num_puzzle_identifiers", [9], "num_puzzle_identifiers must be a whole number"),
        ("ignore_label_id", "0", "ignore_label_id must be a whole number or null; got '0'"),
    ],
)
def test_a_bad_field_of_dataset_json_is_refused(
    field: str, value: Any, says: str, tmp_path: Path
) -> None:
    refuses(read_dataset, write_folder(tmp_path, {field: value}), says=("dataset.json", says))


# --- Files and names -----------------------------------------------------------------------------

QUESTION, ANSWER = "1.3.34..2.4.4.21", "1234341221434321"


def write_csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["source,question,answer,rating", *rows, ""]))
    return path


def test_a_csv_file_is_read(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "mine.csv", f"a,{QUESTION},{ANSWER},1", f"b,{ANSWER},{ANSWER},-1")
    dataset = read_dataset(file)
    # Token 0 is padding, 1 a blank, d + 1 the digit d.
    question = [2, 1, 4, 1, 4, 5, 1, 1, 3, 1, 5, 1, 5, 1, 3, 2]
    answer = [2, 3, 4, 5, 4, 5, 2, 3, 3, 2, 5, 4, 5, 4, 3, 2]
    np.testing.assert_array_equal(dataset.puzzles.inputs, [question, answer])
    np.testing.assert_array_equal(dataset.labels, [answer, answer])
    np.testing.assert_array_equal(dataset.puzzles.puzzle_identifiers, [0, 0])
    np.testing.assert_array_equal(dataset.puzzles.index, [0, 1])
    assert (dataset.ignore_label, dataset.vocab_size, len(dataset)) == (0, 6, 2)
    assert read_dataset(str(file)).digest == dataset.digest


def test_the_digest_of_a_csv_file_is_of_its_boards_alone(tmp_path: Path) -> None:
    digest = read_dataset(write_csv(tmp_path / "a.csv", f"a,{QUESTION},{ANSWER},1")).digest
    other_words = read_dataset(write_csv(tmp_path / "b.csv", f"b,{QUESTION},{ANSWER},2"))
    assert other_words.digest == digest
    other_board = read_dataset(write_csv(tmp_path / "c.csv", f"a,{ANSWER},{ANSWER},1"))
    assert other_board.digest != digest


@pytest.mark.parametrize(
    ("content", "says"),
    [
        *(
            (f"a,{QUESTION},{ANSWER},1\n{row}\n".encode(), ":3: ")
            for row in (
                f"a,{QUESTION},{ANSWER}",
                f"a,{QUESTION},{ANSWER[4:]}1234,1",
                "a,12,21,1",
                "",
            )
        ),
        (b"\xff\xfe\x00", ":1: "),
    ],
)
def test_a_malformed_csv_file_is_refused_with_its_line(
    content: bytes, says: str, tmp_path: Path
) -> None:
    file = write_csv(tmp_path / "mine.csv")
    file.write_bytes(file.read_bytes() + content)
    refuses(read_dataset, file, says=(f"{file}{says}",))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "puzzles.txt"
    file.write_text("1234")
    refuses(read_dataset, file, says=(str(file), "'.txt'", ".csv"))


MAZE = "  S # G  "
ROUND, BELOW = "ooSo# G  ", "  S #oGoo"


def test_a_csv_file_of_mazes_is_read(tmp_path: Path) -> None:
    """Any shortest path is a label, though a generated one would be BELOW."""
    file = write_csv(tmp_path / "m.csv", f"a,{MAZE},{ROUND},4", f"b,{MAZE},{BELOW},4")
    dataset = read_dataset(file)
    maze = [2, 2, 3, 2, 1, 2, 4, 2, 2]
    np.testing.assert_array_equal(dataset.puzzles.inputs, [maze, maze])
    labels = [[5, 5, 3, 5, 1, 2, 4, 2, 2], [2, 2, 3, 2, 1, 5, 4, 5, 5]]
    np.testing.assert_array_equal(dataset.labels, labels)
    assert {array.dtype for array in (*dataset.puzzles, dataset.labels)} == {np.dtype(np.int32)}
    assert (dataset.ignore_label, dataset.vocab_size, len(dataset)) == (0, 6, 2)


@pytest.mark.parametrize(("name", "seq_len"), [("sudoku6", 36), ("sudoku9", 81)])
def test_bundled_sets_are_read_by_name(name: str, seq_len: int) -> None:
    dataset = read_dataset(name)
    side = int(seq_len**0.5)
    assert dataset.name == name
    assert dataset.labels.shape == dataset.puzzles.inputs.shape == (512, seq_len)
    assert dataset.vocab_size == side + 2
    assert dataset.ignore_label == sudoku.PAD
    assert sudoku.satisfies_rules(dataset.labels, dataset.puzzles.inputs).all()
    assert len(np.unique(dataset.puzzles.inputs, axis=0)) == 512
    np.testing.assert_array_equal(dataset.puzzles.index, np.arange(512))
    assert not dataset.puzzles.puzzle_identifiers.any()


def test_an_unknown_name_lists_the_names_and_the_layout(tmp_path: Path) -> None:
    assert bundled_sets() == ("maze11", "pencil6", "sudoku6", "sudoku9")
    says = ("sudoku6, sudoku9", "CSV", "dataset.json", "all__inputs.npy")
    for unknown in ("sudoku7", str(tmp_path / "nowhere.csv")):
        refuses(read_dataset, unknown, says=(repr(unknown), *says))


# --- Parts of a data set -------------------------------------------------------------------------


@pytest.fixture
def dataset(tmp_path: Path) -> data.Dataset:
    """Six puzzles of four tokens, V = 7."""
    return read_dataset(write_folder(tmp_path))


def test_head_takes_the_first_and_keeps_the_digest(dataset: data.Dataset) -> None:
    for count in (1, 5, 6):
        head = dataset.head(count)
        assert len(head) == count
        assert head.digest == dataset.digest
        for part, whole in zip(head.puzzles, dataset.puzzles, strict=True):
            np.testing.assert_array_equal(part, whole[:count])
        np.testing.assert_array_equal(head.labels, dataset.labels[:count])
    assert dataset.head(None) is dataset


def test_head_refuses_more_than_there_are_and_less_than_one(dataset: data.Dataset) -> None:
    for count in (0, -1, 7):
        refuses(dataset.head, count, says=("1 and 6", dataset.name, f"got {count}"))


def test_take_keeps_the_index_of_every_puzzle(dataset: data.Dataset) -> None:
    taken = dataset.take(np.array([4, 0, 4]))
    np.testing.assert_array_equal(taken.puzzles.index, [4, 0, 4])
    np.testing.assert_array_equal(taken.puzzles.inputs, dataset.puzzles.inputs[[4, 0, 4]])
    np.testing.assert_array_equal(taken.puzzles.puzzle_identifiers, [8, 5, 8])
    np.testing.assert_array_equal(taken.labels, dataset.labels[[4, 0, 4]])
    assert taken.digest == dataset.digest
    twice = dataset.take(slice(2, 6)).take(slice(1, 3))
    np.testing.assert_array_equal(twice.puzzles.index, [3, 4])
    np.testing.assert_array_equal(twice.labels, dataset.labels[3:5])


CONFIG = ModelConfig(
    vocab_size=7,
    seq_len=4,
    hidden_size=8,
    num_layers=1,
    H_cycles=1,
    L_cycles=1,
    mlp_width=8,
    variant="mlp_t",
    mlp_t_width=8,
    prefix_len=1,
    puzzle_emb_ndim=8,
    num_puzzle_identifiers=9,
)


@pytest.mark.parametrize(
    ("rows", "change", "says"),
    [
        (6, {"seq_len": 5}, ("does not fit", "[B, 5]", "[6, 4]")),
        (6, {"vocab_size": 6}, ("does not fit", "puzzles.inputs", "0..5", "got 6 at [1, 2]")),
        (6, {"num_puzzle_identifiers": 8}, ("does not fit", "0..7", "got 8 at [3] and 2 more")),
        (1, {"vocab_size": 6}, ("has 7 tokens, the checkpoint 6",)),  # tokens 0..3 occur
    ],
)
def test_a_data_set_that_a_model_cannot_read_is_refused(
    rows: int, change: dict[str, int], says: tuple[str, ...], dataset: data.Dataset
) -> None:
    part = dataset.head(rows)
    part.check_fits(CONFIG)
    part.check_fits(dataclasses.replace(CONFIG, vocab_size=12, num_puzzle_identifiers=100))
    config = dataclasses.replace(CONFIG, **change)
    refuses(part.check_fits, config, says=(dataset.name, *says))


# --- Puzzles -------------------------------------------------------------------------------------


def good_puzzles() -> Puzzles:
    return make_puzzles(np.array([[0, 1, 2, 3], [6, 5, 4, 3]], np.int32), np.array([0, 8]))


def test_make_puzzles_counts_the_rows() -> None:
    inputs = np.zeros((3, 4), np.uint8)
    puzzles = make_puzzles(inputs)
    assert puzzles.inputs is inputs
    np.testing.assert_array_equal(puzzles.puzzle_identifiers, [0, 0, 0])
    np.testing.assert_array_equal(puzzles.index, [0, 1, 2])
    assert puzzles.index.dtype == puzzles.puzzle_identifiers.dtype == np.int32
    np.testing.assert_array_equal(make_puzzles(inputs, np.array([3, 1, 2]))[1], [3, 1, 2])


@pytest.mark.parametrize("wrap", [np.asarray, jnp.asarray, np.ndarray.tolist])
def test_make_puzzles_takes_boards_as_rows_and_columns(wrap: Callable[..., Any]) -> None:
    boards = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    puzzles = make_puzzles(wrap(boards))
    np.testing.assert_array_equal(puzzles.inputs, boards.reshape(2, 12))


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (np.zeros(4, np.int32), r"got shape \[4\]; add an axis, inputs\[None\]"),
        (3, r"got shape \[\]"),
        ([[1, 2], [3]], "array of tokens"),
    ],
)
def test_make_puzzles_refuses_with_the_remedy(inputs: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        make_puzzles(inputs)


def test_the_length_of_puzzles_is_their_number() -> None:
    """And they are still a named tuple, to Python and to JAX."""
    puzzles = good_puzzles().take(np.array([0, 1, 0, 1]))
    assert len(puzzles) == 4 and len(list(puzzles)) == 3
    assert len(puzzles._replace(inputs=puzzles.inputs[:1])) == 1
    doubled, scanned = jax.jit(
        lambda p: (jax.tree.map(lambda x: 2 * x, p), jax.lax.scan(lambda c, x: (c, x), 0, p)[1])
    )(puzzles)
    for got, factor in ((doubled, 2), (scanned, 1)):
        assert type(got) is Puzzles and len(got) == 4
        jax.tree.map(lambda x, y, n=factor: np.testing.assert_array_equal(x, n * y), got, puzzles)
    assert len(pickle.loads(pickle.dumps(puzzles))) == 4


@pytest.mark.parametrize(
    ("puzzles", "says"),
    [
        (np.zeros((2, 4), np.int32), r"ndarray of shape \[2, 4\]; pass make_puzzles\(inputs\)"),
        (make_dataset("d", np.zeros((2, 4)), np.zeros((2, 4)), 7), r"Dataset; pass its \.puzzles"),
        ("1.3.", "got a str"),
        ((1, 2, 3), "got a tuple"),
    ],
)
def test_what_is_not_puzzles_is_refused_with_the_remedy(puzzles: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_puzzles(CONFIG, puzzles)


@pytest.mark.parametrize("wrap", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_good_puzzles_pass(wrap: Callable[..., Any], dtype: type) -> None:
    check_puzzles(CONFIG, Puzzles(*(wrap(field.astype(dtype)) for field in good_puzzles())))


def test_take_of_puzzles_keeps_their_index() -> None:
    for rows in (slice(1, 2), np.array([1])):
        taken = good_puzzles().take(rows)
        assert [field.tolist() for field in taken] == [[[6, 5, 4, 3]], [8], [1]]


IDENTIFIERS = "puzzle_identifiers"
BAD: list[tuple[str, Any, tuple[str, ...]]] = [
    ("inputs", np.zeros(4, np.int32), ("shape [B, 4]", "[4]")),
    ("inputs", np.zeros((2, 2, 4), np.int32), ("shape [B, 4]", "[2, 2, 4]")),
    ("inputs", np.int32(3), ("shape [B, 4]", "[]")),
    ("inputs", np.zeros((2, 3), np.int32), ("shape [B, 4]", "[2, 3]")),
    ("inputs", np.zeros((2, 5), np.int32), ("shape [B, 4]", "[2, 5]")),
    ("inputs", np.zeros((0, 4), np.int32), ("at least one puzzle",)),
    ("inputs", np.zeros((2, 4), np.float32), ("inputs must be integers", "float32")),
    ("inputs", np.zeros((2, 4), bool), ("inputs must be integers", "bool")),
    ("inputs", [[0, 1, 2, 3]] * 2, ("inputs", "got list", "numpy.asarray")),
    (IDENTIFIERS, np.zeros(1, np.int32), ("shape [2]", "[1]")),
    (IDENTIFIERS, np.zeros((2, 1), np.int32), ("[2]", "[2, 1]")),
    (IDENTIFIERS, 0, ("puzzle_identifiers", "got int")),
    (IDENTIFIERS, np.zeros(2), ("must be integers", "float64")),
    ("index", np.arange(3), ("index must have shape [2]", "[3]")),
    ("index", np.zeros(2, np.float32), ("index must be integers", "float32")),
    ("index", [0, 1], ("puzzles.index", "got list")),
]
BAD_VALUES: list[tuple[str, Any, tuple[str, ...]]] = [
    ("inputs", [[0, 1, 2, 3], [0, -1, -2, 3]], ("in 0..6", "got -1 at [1, 1] and 1 more")),
    ("inputs", [[0, 1, 2, 7], [0, 1, 2, 3]], ("in 0..6", "got 7 at [0, 3] and 0 more")),
    (IDENTIFIERS, [0, -1], ("puzzle_identifiers must lie in 0..8", "got -1 at [1]")),
    (IDENTIFIERS, [9, 0], ("puzzle_identifiers must lie in 0..8", "got 9 at [0]")),
    ("index", [3, -4], ("index must lie in 0..2147483647", "got -4 at [1]")),
    ("index", [0, 2**31], ("index must lie in 0..2147483647", "got 2147483648 at [1]")),
]
BAD_VALUES = [(field, np.array(values), says) for field, values, says in BAD_VALUES]


def refuses_puzzles(call: Callable[..., Any], field: str, value: Any, says: Sequence[str]) -> None:
    with pytest.raises(InputError) as caught:
        call(good_puzzles()._replace(**{field: value}))
    assert [words for words in says if words not in str(caught.value)] == []


@pytest.mark.parametrize(("field", "value", "says"), BAD + BAD_VALUES)
def test_bad_puzzles_are_refused(field: str, value: Any, says: tuple[str, ...]) -> None:
    refuses_puzzles(functools.partial(check_puzzles, CONFIG), field, value, says)


def test_identifiers_do_not_matter_to_a_model_without_puzzle_embedding() -> None:
    plain = dataclasses.replace(CONFIG, prefix_len=0, puzzle_emb_ndim=0, num_puzzle_identifiers=1)
    check_puzzles(plain, good_puzzles())


def check_traced(puzzles: Puzzles) -> None:
    """check_puzzles while every field is traced."""

    def traced(puzzles: Puzzles) -> jax.Array:
        check_puzzles(CONFIG, puzzles)
        return puzzles.index

    jax.eval_shape(traced, puzzles)


def test_only_shapes_and_dtypes_are_checked_under_tracing() -> None:
    for field, value, says in BAD:
        if hasattr(value, "dtype"):  # eval_shape itself refuses what is no array
            # JAX reads 64 bits as 32.
            says = [words.replace("float64", "float32") for words in says]
            refuses_puzzles(check_traced, field, value, says)
    for field, value, _ in BAD_VALUES[:-1]:
        check_traced(good_puzzles()._replace(**{field: value}))


def test_values_are_checked_of_fields_that_are_not_traced() -> None:
    def with_constant_index(puzzles: Puzzles) -> None:
        jax.eval_shape(
            lambda inputs: check_puzzles(CONFIG, puzzles._replace(inputs=inputs)), puzzles.inputs
        )

    refuses_puzzles(with_constant_index, "index", np.array([0, -1]), ["got -1 at [1]"])


# --- The hub -------------------------------------------------------------------------------------


def test_data_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for huggingface_hub: what is asked for, and what failures look like."""
    asked = []

    def snapshot_download(repository: str, **settings: Any) -> str:
        asked.append((repository, settings))
        if repository == "a/gone":
            raise OSError("no route to host\nand a long story")
        return str(tmp_path)

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"pip install 'ptrm-jax\[hub\]'"):
        read_dataset("hf://datasets/a/b/test.csv")
    stand_in = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)

    bundled = read_dataset("sudoku6").head(3)
    sudoku.write_csv(tmp_path / "test.csv", bundled.puzzles.inputs, bundled.labels)
    found = read_dataset("hf://datasets/a/b@v1/test.csv")
    np.testing.assert_array_equal(found.labels, bundled.labels)
    settings = {"repo_type": "dataset", "revision": "v1"}
    assert asked == [("a/b", settings | {"allow_patterns": ["test.csv", "test.csv/*"]})]
    for name, message in (
        ("hf://datasets/a/gone/test.csv", "cannot be read from the hub: no route to host; check"),
        ("hf://a/b/test.csv", "must read hf://datasets/owner/name"),
        ("hf://datasets/a/b/other.csv", "no data at 'hf://datasets/a/b/other.csv'"),
    ):
        with pytest.raises(DataError, match=re.escape(message)) as error:
            read_dataset(name)
        assert "\n" not in str(error.value)
