"""Labelled puzzles from folders, files and the package; puzzles checked against a model."""

import dataclasses
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ptrm_jax import DataError, ModelConfig, Puzzles, data, make_puzzles, read_dataset
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
LONGEST_MESSAGE = 1000


def refusal(
    error: type[Exception], call: Callable[..., Any], *args: Any, says: tuple[str, ...] = ()
) -> str:
    """The message of the error that `call` raises: one short line with all of `says`."""
    with pytest.raises(error) as caught:
        call(*args)
    message = str(caught.value)
    assert len(message) < LONGEST_MESSAGE
    assert "\n" not in message
    assert [words for words in says if words not in message] == []
    return message


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
    assert read_dataset(tmp_path / "train").digest == digests["train"]
    assert read_dataset(str(tmp_path / "train"), split="test").digest == digests["train"]
    refusal(
        DataError,
        lambda: read_dataset(tmp_path, split="dev"),
        says=("dev/dataset.json is missing",),
    )


def test_a_data_set_may_count_every_label(tmp_path: Path) -> None:
    assert read_dataset(write_folder(tmp_path, {"ignore_label_id": None})).ignore_label is None


def test_a_puzzle_may_have_no_examples(tmp_path: Path) -> None:
    write_folder(tmp_path, puzzle_indices=np.array([0, 2, 2, 6]))
    identifiers = read_dataset(tmp_path).puzzles.puzzle_identifiers
    np.testing.assert_array_equal(identifiers, [5, 5, 8, 8, 8, 8])


@pytest.mark.parametrize(
    "dtype",
    [
        *("int8", "int16", "uint16", "uint32", "int64", ">i4"),
        pytest.param("uint64"),
    ],
)
def test_the_digest_and_the_arrays_do_not_depend_on_the_dtype_on_disk(
    dtype: str, tmp_path: Path
) -> None:
    plain = read_dataset(write_folder(tmp_path / "plain"))
    arrays = {name: array.astype(dtype) for name, array in arrays_of_a_set().items()}
    other = read_dataset(write_folder(tmp_path / "other", **arrays))
    assert other.digest == plain.digest
    assert other.puzzles.inputs.dtype == np.int32
    np.testing.assert_array_equal(other.puzzles.puzzle_identifiers, [5, 5, 2, 8, 8, 8])


def test_the_digest_does_not_depend_on_the_order_in_memory(tmp_path: Path) -> None:
    plain = read_dataset(write_folder(tmp_path / "plain"))
    fortran = {name: np.asfortranarray(array) for name, array in arrays_of_a_set().items()}
    assert read_dataset(write_folder(tmp_path / "other", **fortran)).digest == plain.digest


def test_the_digest_changes_with_every_value(tmp_path: Path) -> None:
    digests = {read_dataset(write_folder(tmp_path)).digest}
    for field in ("inputs", "labels", "puzzle_identifiers"):
        size = arrays_of_a_set()[field].size
        for position in range(size):
            array = arrays_of_a_set()[field]
            array.flat[position] = (array.flat[position] + 1) % 7
            digests.add(read_dataset(write_folder(tmp_path, **{field: array})).digest)
    # The same identifiers, another number of examples each.
    digests.add(read_dataset(write_folder(tmp_path, puzzle_indices=np.array([0, 1, 3, 6]))).digest)
    assert len(digests) == 1 + 24 + 24 + 3 + 1


def test_the_digest_tells_shapes_apart(tmp_path: Path) -> None:
    """3 puzzles of 4 tokens and 9 of 1 have 27 numbers alike: inputs, labels and identifiers."""
    digests = set()
    for count, seq_len in ((3, 4), (9, 1)):
        zeros = np.zeros((count, seq_len), np.uint8)
        folder = write_folder(
            tmp_path / str(count),
            {"seq_len": seq_len},
            inputs=zeros,
            labels=zeros,
            puzzle_identifiers=np.zeros(1, np.int32),
            puzzle_indices=np.array([0, count]),
        )
        digests.add(read_dataset(folder).digest)
    assert len(digests) == 2


def test_the_digest_sees_all_32_bits(tmp_path: Path) -> None:
    digests = set()
    for identifier in (1, 1 + 2**8, 1 + 2**16, 1 + 2**24):
        identifiers = np.array([5, 2, identifier])
        write_folder(tmp_path, {"num_puzzle_identifiers": 2**30}, puzzle_identifiers=identifiers)
        digests.add(read_dataset(tmp_path).digest)
    assert len(digests) == 4


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_file_is_named(field: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / f"all__{field}.npy").unlink()
    refusal(DataError, read_dataset, tmp_path, says=(str(tmp_path), f"all__{field}.npy missing"))


def test_every_missing_file_is_named_at_once(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for file in (tmp_path / "test").glob("*.npy"):
        file.unlink()
    refusal(DataError, read_dataset, tmp_path, says=tuple(f"all__{field}.npy" for field in FIELDS))


def test_a_folder_without_dataset_json_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").unlink()
    refusal(DataError, read_dataset, tmp_path, says=("dataset.json is missing",))


@pytest.mark.parametrize(
    ("field", "array", "says"),
    [
        ("inputs", np.zeros(24, np.uint8), "[24] and [6, 4]"),
        ("inputs", np.zeros((6, 5), np.uint8), "[6, 5] and [6, 4]"),
        ("inputs", np.zeros((6, 4, 1), np.uint8), "[6, 4, 1] and [6, 4]"),
        ("labels", np.zeros((5, 4), np.uint8), "[6, 4] and [5, 4]"),
        ("puzzle_identifiers", np.zeros(2, np.int32), "puzzle_indices"),
        ("puzzle_identifiers", np.zeros(4, np.int32), "puzzle_indices"),
        ("puzzle_indices", np.array([0, 2, 3]), "puzzle_indices"),
        ("puzzle_indices", np.array([0, 2, 3, 5]), "puzzle_indices"),
        ("puzzle_indices", np.array([0, 2, 3, 7]), "puzzle_indices"),
        ("puzzle_indices", np.array([0, 4, 3, 6]), "puzzle_indices"),
        pytest.param(*("puzzle_indices", np.array([1, 2, 3, 6]), "puzzle_indices")),
        pytest.param(*("puzzle_indices", np.array([0, 4, 3, 6], np.uint8), "puzzle_indices")),
        ("puzzle_indices", np.zeros(0, np.int32), "puzzle_indices"),
        pytest.param(*("puzzle_indices", np.array(6), "puzzle_indices")),
        ("puzzle_indices", np.array([[0, 2, 3, 6]]), "puzzle_indices"),
        pytest.param(*("puzzle_identifiers", np.zeros((3, 1), np.int32), "puzzle_identifiers")),
        ("inputs", np.zeros((6, 4), np.float32), "must hold integers; got float32"),
        ("labels", np.zeros((6, 4), bool), "must hold integers; got bool"),
        ("puzzle_identifiers", np.zeros(3), "must hold integers; got float64"),
        ("puzzle_indices", np.array([0.0, 2, 3, 6]), "must hold integers; got float64"),
        ("inputs", np.full((6, 4), 7, np.uint8), "inputs must lie in 0..6 by dataset.json"),
        ("inputs", np.full((6, 4), -1, np.int8), "inputs must lie in 0..6 by dataset.json"),
        pytest.param(
            *("inputs", np.full((6, 4), 2**32 + 1), "inputs must lie in 0..6 by dataset.json")
        ),
        ("labels", np.full((6, 4), 7, np.uint8), "labels must lie in 0..6 by dataset.json"),
        ("labels", np.full((6, 4), -100), "labels must lie in 0..6 by dataset.json"),
        ("puzzle_identifiers", np.array([5, 9, 8]), "puzzle_identifiers must lie in 0..8"),
        ("puzzle_identifiers", np.array([5, -1, 8]), "puzzle_identifiers must lie in 0..8"),
    ],
)
def test_arrays_that_contradict_each_other_or_dataset_json_are_refused(
    field: str, array: np.ndarray, says: str, tmp_path: Path
) -> None:
    write_folder(tmp_path, **{field: array})
    refusal(DataError, read_dataset, tmp_path, says=(str(tmp_path), says))


def test_another_seq_len_than_dataset_json_says_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"seq_len": 5})
    refusal(DataError, read_dataset, tmp_path, says=("4 columns", "seq_len 5"))


def test_sets_of_different_widths_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, {"sets": ["all", "wide"]})
    wide = np.zeros((6, 5), np.uint8)
    write_set(tmp_path / "test", "wide", inputs=wide, labels=wide)
    refusal(DataError, read_dataset, tmp_path, says=("5 columns", "seq_len 4"))


def test_a_folder_without_puzzles_is_refused(tmp_path: Path) -> None:
    empty = np.zeros((0, 4), np.uint8)
    write_folder(
        tmp_path,
        inputs=empty,
        labels=empty,
        puzzle_identifiers=np.zeros(0, np.int32),
        puzzle_indices=np.zeros(1, np.int32),
    )
    refusal(DataError, read_dataset, tmp_path, says=("holds no puzzles",))


class Trap:
    """Leaves a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("field", FIELDS)
def test_a_pickle_is_refused_and_not_run(field: str, tmp_path: Path) -> None:
    write_folder(tmp_path / "data")
    file = tmp_path / "data" / "test" / f"all__{field}.npy"
    np.save(file, np.array([Trap(tmp_path / "sprung")], object), allow_pickle=True)
    refusal(DataError, read_dataset, tmp_path / "data", says=(file.name, "cannot be read"))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("field", FIELDS)
def test_a_truncated_file_is_refused(field: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    file = tmp_path / "test" / f"all__{field}.npy"
    intact = file.read_bytes()
    for kept in range(len(intact)):
        file.write_bytes(intact[:kept])
        refusal(DataError, read_dataset, tmp_path, says=(file.name, "cannot be read"))


def test_an_archive_in_place_of_an_array_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    file = tmp_path / "test" / "all__inputs.npy"
    with file.open("wb") as stream:
        np.savez(stream, inputs=arrays_of_a_set()["inputs"])
    refusal(DataError, read_dataset, tmp_path, says=("all__inputs.npy",))


@pytest.mark.parametrize("text", ["", "{", "{'seq_len': 4}"])
def test_a_broken_dataset_json_is_refused(text: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").write_text(text)
    refusal(DataError, read_dataset, tmp_path, says=("dataset.json is not JSON",))


def test_a_dataset_json_that_is_not_text_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").write_bytes(b"\xff\xfe\x00")
    refusal(DataError, read_dataset, tmp_path, says=("dataset.json is not JSON",))


@pytest.mark.parametrize("text", ["[]", '"text"', "3", "null"])
def test_a_dataset_json_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").write_text(text)
    refusal(DataError, read_dataset, tmp_path, says=("dataset.json must hold an object",))


def test_a_dataset_json_without_fields_is_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "test" / "dataset.json").write_text("{}")
    needed = set(METADATA) - {"pad_id"}
    refusal(DataError, read_dataset, tmp_path, says=("dataset.json lacks", *needed))


@pytest.mark.parametrize("field", sorted(set(METADATA) - {"pad_id"}))
def test_a_missing_field_of_dataset_json_is_named(field: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {field: ...})
    message = refusal(DataError, read_dataset, tmp_path)
    assert message.endswith(f"dataset.json lacks {field}")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(*("sets", [])),
        pytest.param(*("sets", None)),
        ("sets", [1]),
        ("seq_len", "4"),
        pytest.param(*("vocab_size", "7")),
        pytest.param(*("vocab_size", None)),
        pytest.param(*("num_puzzle_identifiers", [9])),
    ],
)
def test_a_field_of_dataset_json_of_another_kind_is_refused(
    field: str, value: Any, tmp_path: Path
) -> None:
    refusal(DataError, read_dataset, write_folder(tmp_path, {field: value}))


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
    "row", [f"a,{QUESTION},{ANSWER}", f"a,{QUESTION},{ANSWER[4:]}1234,1", "a,12,21,1", ""]
)
def test_a_malformed_csv_file_is_refused_with_its_line(row: str, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "mine.csv", f"a,{QUESTION},{ANSWER},1", row)
    refusal(DataError, read_dataset, file, says=(f"{file}:3:",))


def test_a_csv_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_bytes(b"\xff\xfe\x00")
    refusal(DataError, read_dataset, file, says=(str(file),))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "puzzles.txt"
    file.write_text("1234")
    refusal(DataError, read_dataset, file, says=(str(file), "'.txt'", ".csv"))


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


@pytest.mark.parametrize("row", [f"a,{MAZE},{MAZE},4", f"a,{MAZE},{BELOW[1:]},4", "a,SG,SG,1", "S"])
def test_a_malformed_csv_file_of_mazes_is_refused_with_its_line(row: str, tmp_path: Path) -> None:
    file = write_csv(tmp_path / "m.csv", f"a,{MAZE},{BELOW},4", row)
    refusal(DataError, read_dataset, file, says=(f"{file}:3:",))


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
    assert bundled_sets() == ("maze11", "sudoku6", "sudoku9")
    for unknown in ("sudoku7", str(tmp_path / "nowhere.csv")):
        refusal(
            DataError,
            read_dataset,
            unknown,
            says=(repr(unknown), "sudoku6, sudoku9", "CSV", "dataset.json", "all__inputs.npy"),
        )


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


@pytest.mark.parametrize("count", [0, -1, 7])
def test_head_refuses_more_than_there_are_and_less_than_one(
    count: int, dataset: data.Dataset
) -> None:
    refusal(DataError, dataset.head, count, says=("1 and 6", dataset.name, f"got {count}"))


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
    ("change", "says"),
    [
        ({"seq_len": 5}, ("[B, 5]", "[6, 4]")),
        ({"vocab_size": 6}, ("puzzles.inputs", "0..5", "got 6 at [1, 2]")),
        ({"num_puzzle_identifiers": 8}, ("puzzle_identifiers", "0..7", "got 8 at [3] and 2 more")),
    ],
)
def test_a_data_set_that_a_model_cannot_read_is_refused(
    change: dict[str, int], says: tuple[str, ...], dataset: data.Dataset
) -> None:
    dataset.check_fits(CONFIG)
    config = dataclasses.replace(CONFIG, **change)
    refusal(DataError, dataset.check_fits, config, says=(dataset.name, "does not fit", *says))


def test_a_data_set_of_more_tokens_than_the_model_is_refused_though_none_is_seen(
    dataset: data.Dataset,
) -> None:
    part = dataset.take(np.array([0]))  # tokens 0..3
    config = dataclasses.replace(CONFIG, vocab_size=6)
    refusal(DataError, part.check_fits, config, says=(dataset.name, "7 tokens", "6"))


def test_a_model_may_know_more_than_a_data_set_needs(dataset: data.Dataset) -> None:
    dataset.check_fits(dataclasses.replace(CONFIG, vocab_size=12, num_puzzle_identifiers=100))


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


@pytest.mark.parametrize("wrap", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_good_puzzles_pass(wrap: Callable[..., Any], dtype: type) -> None:
    check_puzzles(CONFIG, Puzzles(*(wrap(field.astype(dtype)) for field in good_puzzles())))


def test_take_of_puzzles_keeps_their_index() -> None:
    for rows in (slice(1, 2), np.array([1])):
        taken = good_puzzles().take(rows)
        assert [field.tolist() for field in taken] == [[[6, 5, 4, 3]], [8], [1]]


BAD = {
    "one axis": ("inputs", np.zeros(4, np.int32), ("shape [B, 4]", "[4]")),
    "three axes": ("inputs", np.zeros((2, 2, 4), np.int32), ("shape [B, 4]", "[2, 2, 4]")),
    "no axis": ("inputs", np.int32(3), ("shape [B, 4]", "[]")),
    "short": ("inputs", np.zeros((2, 3), np.int32), ("shape [B, 4]", "[2, 3]")),
    "long": ("inputs", np.zeros((2, 5), np.int32), ("shape [B, 4]", "[2, 5]")),
    "empty": ("inputs", np.zeros((0, 4), np.int32), ("at least one puzzle",)),
    "float": ("inputs", np.zeros((2, 4), np.float32), ("inputs must be integers", "float32")),
    "bool": ("inputs", np.zeros((2, 4), bool), ("inputs must be integers", "bool")),
    "list": ("inputs", [[0, 1, 2, 3]] * 2, ("inputs", "got list", "numpy.asarray")),
    "few identifiers": ("puzzle_identifiers", np.zeros(1, np.int32), ("shape [2]", "[1]")),
    "identifier column": ("puzzle_identifiers", np.zeros((2, 1), np.int32), ("[2]", "[2, 1]")),
    "identifier number": ("puzzle_identifiers", 0, ("puzzle_identifiers", "got int")),
    "float identifier": ("puzzle_identifiers", np.zeros(2), ("must be integers", "float64")),
    "many indices": ("index", np.arange(3), ("index must have shape [2]", "[3]")),
    "float index": ("index", np.zeros(2, np.float32), ("index must be integers", "float32")),
    "list index": ("index", [0, 1], ("puzzles.index", "got list")),
}
BAD_VALUES = {
    "negative token": (
        "inputs",
        np.array([[0, 1, 2, 3], [0, -1, -2, 3]], np.int32),
        ("inputs must lie in 0..6", "got -1 at [1, 1] and 1 more"),
    ),
    "large token": (
        "inputs",
        np.array([[0, 1, 2, 7], [0, 1, 2, 3]], np.int32),
        ("inputs must lie in 0..6", "got 7 at [0, 3] and 0 more"),
    ),
    "negative identifier": (
        "puzzle_identifiers",
        np.array([0, -1], np.int32),
        ("puzzle_identifiers must lie in 0..8", "got -1 at [1]"),
    ),
    "large identifier": (
        "puzzle_identifiers",
        np.array([9, 0], np.int32),
        ("puzzle_identifiers must lie in 0..8", "got 9 at [0]"),
    ),
    "negative index": (
        "index",
        np.array([3, -4], np.int32),
        ("index must lie in 0..2147483647", "got -4 at [1]"),
    ),
}


@pytest.mark.parametrize(
    ("field", "value", "says"), (BAD | BAD_VALUES).values(), ids=BAD | BAD_VALUES
)
def test_bad_puzzles_are_refused(field: str, value: Any, says: tuple[str, ...]) -> None:
    puzzles = good_puzzles()._replace(**{field: value})
    refusal(ValueError, check_puzzles, CONFIG, puzzles, says=says)


def test_an_index_beyond_32_bits_is_refused() -> None:
    puzzles = good_puzzles()._replace(index=np.array([0, 2**31]))
    refusal(ValueError, check_puzzles, CONFIG, puzzles, says=("index", "got 2147483648 at [1]"))


def test_identifiers_do_not_matter_to_a_model_without_puzzle_embedding() -> None:
    plain = dataclasses.replace(CONFIG, prefix_len=0, puzzle_emb_ndim=0, num_puzzle_identifiers=1)
    check_puzzles(plain, good_puzzles())


def check_traced(puzzles: Puzzles) -> None:
    """check_puzzles while every field is traced."""

    def traced(puzzles: Puzzles) -> jax.Array:
        check_puzzles(CONFIG, puzzles)
        return puzzles.index

    jax.eval_shape(traced, puzzles)


# eval_shape itself refuses what is no array.
TRACEABLE = {name: case for name, case in BAD.items() if hasattr(case[1], "dtype")}


@pytest.mark.parametrize(("field", "value", "says"), TRACEABLE.values(), ids=TRACEABLE)
def test_shapes_and_dtypes_are_checked_under_tracing(
    field: str, value: Any, says: tuple[str, ...]
) -> None:
    puzzles = good_puzzles()._replace(**{field: value})
    # JAX reads 64 bits as 32.
    says = tuple(words.replace("float64", "float32") for words in says)
    refusal(ValueError, check_traced, puzzles, says=says)


@pytest.mark.parametrize(("field", "value", "says"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_values_are_not_checked_under_tracing(
    field: str, value: np.ndarray, says: tuple[str, ...]
) -> None:
    check_traced(good_puzzles()._replace(**{field: value}))


def test_fields_that_are_not_traced_are_checked_beside_those_that_are() -> None:
    @jax.jit
    def solve_with(inputs: jax.Array) -> jax.Array:
        check_puzzles(CONFIG, good_puzzles()._replace(inputs=inputs, index=np.array([0, -1])))
        return inputs

    refusal(ValueError, solve_with, np.zeros((2, 4), np.int32), says=("got -1 at [1]",))


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
