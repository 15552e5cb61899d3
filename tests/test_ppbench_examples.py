"""Sets of small puzzles: chunks, the test set, and the training set with its states."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from conftest import load_experiment

from ptrm_jax import read_dataset
from ptrm_jax.errors import DataError, InputError
from ptrm_jax.tasks import ppbench
from ptrm_jax.tasks.ppbench import examples

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pysat") is None, reason="needs python-sat"
)
COUNTS = {"sudoku": 30, "lightup": 16}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two chunks of each of two types, of which one type has more puzzles."""
    folder = tmp_path_factory.mktemp("pencil")
    for pid, count in COUNTS.items():
        for seed in (1, 0):
            assert examples.write_chunk(folder, pid, 4, count, seed) is not None
    return folder


@pytest.fixture(scope="module")
def collected(directory: Path) -> examples.Collected:
    return examples.collect(directory, num_test=6, seed=0)


def test_a_chunk_is_made_once(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "make_chunk", None)
    assert examples.write_chunk(directory, "lightup", 4, 16, 0) is None
    assert not list(directory.rglob("*partial*"))


def test_the_sets_share_no_puzzle(directory: Path, collected: examples.Collected) -> None:
    test = read_dataset(directory / "test.jsonl")
    train = read_dataset(directory, split="train")
    plain = train.take(np.arange(0, len(train), 1 + examples.NUM_STATES))
    keys = [
        ppbench.puzzle_keys(ppbench.resize(d.puzzles.inputs, 10), d.labels) for d in (test, plain)
    ]
    assert not set(keys[0].tolist()) & set(keys[1].tolist())
    assert len(set(keys[0].tolist())) == len(test) == sum(collected.test.values())
    assert set(test.strata["type"].tolist()) <= set(COUNTS)
    assert {kind: n for kind, n in collected.test.items()}.keys() == {(p, 4) for p in COUNTS}
    assert all(0 < n <= COUNTS[pid] * 2 for (pid, _), n in collected.train.items())


def test_no_type_drowns_and_states_lead_to_the_solution(
    directory: Path, collected: examples.Collected
) -> None:
    train = read_dataset(directory, split="train")
    group = 1 + examples.NUM_STATES
    assert train.ignore_label == ppbench.PAD and train.vocab_size == ppbench.of_side(6).size
    assert train.group_of is not None and train.puzzle_of is not None
    np.testing.assert_array_equal(train.group_of, np.arange(len(train)) // group)
    types = ppbench.of_side(6).types[train.puzzles.inputs[::group, 0]]
    assert np.bincount(types).tolist() == [len(types) // 2] * 2
    inputs, labels = train.puzzles.inputs, train.labels
    # Every state keeps the puzzle and shows a part of the solution, never all of it.
    assert ppbench.satisfies_rules(labels, inputs).all()
    plain = np.repeat(inputs[::group], group, axis=0)
    shown = (inputs != plain).sum(axis=1).reshape(-1, group)
    still_open = (inputs != labels).sum(axis=1)
    assert (shown[:, 0] == 0).all() and (shown[:, 1:] > 0).all() and (still_open > 0).all()
    assert len(np.unique(shown)) > 5


def test_puzzles_get_more_clues_than_they_need(
    directory: Path, collected: examples.Collected, tmp_path: Path
) -> None:
    """In proportion to the area; without any, the puzzles are those of the chunks."""
    (tmp_path / "chunks").symlink_to(directory / "chunks")
    examples.collect(tmp_path, num_test=6, seed=0, extra_clues=0)
    tokens = read_dataset(tmp_path, split="train").puzzles.inputs[:: 1 + examples.NUM_STATES]
    chunk = examples.read_chunk(examples.chunk_path(directory, "lightup", 4, 0))
    of_chunks = {row.tobytes() for row in ppbench.resize(chunk.inputs.astype(np.int32), 6)}
    assert len(of_chunks & {row.tobytes() for row in tokens}) > 5
    few, more = (
        {
            puzzle.name: np.array(puzzle.problem)
            for puzzle in ppbench.read_jsonl(folder / "test.jsonl")
        }
        for folder in (tmp_path, directory)
    )
    added = [int((few[name] != problem).sum()) for name, problem in more.items()]
    assert 0 < max(added) <= examples.EXTRA_CLUES * 16 // 36
    with pytest.raises(InputError, match="extra_clues must be"):
        examples.collect(tmp_path, num_test=6, seed=0, extra_clues=-1)


@pytest.mark.parametrize(
    ("flag", "says"),
    [("--extra-clues=-1", "extra_clues must be"), ("--num-test=5", "num_test must")],
)
def test_the_command_refuses_before_it_generates(
    flag: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_experiment("pencil_data").main([str(tmp_path / "made"), flag]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "made").exists()


def test_states_follow_the_trajectory() -> None:
    inputs, labels = np.array([0, 1, 1, 1, 9]), np.array([0, 2, 3, 4, 9])
    ranks = np.array([255, 2, 0, 1, 255])
    found = examples.states(inputs, labels, ranks, np.random.default_rng(0))
    assert found.shape == (10, 5) and (found[0] == inputs).all()
    assert {tuple(row) for row in found[1:].tolist()} == {(0, 1, 3, 1, 9), (0, 1, 3, 4, 9)}


def test_bad_input_is_refused(directory: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none; generate some"):
        examples.collect(tmp_path, num_test=6, seed=0)
    with pytest.raises(InputError, match=r"num_test must be at least 6.*; got 5"):
        examples.collect(directory, num_test=5, seed=0)
    path = examples.chunk_path(tmp_path, "tapa", 4, 0)
    path.parent.mkdir()
    path.write_bytes(b"PK")
    with pytest.raises(DataError, match=r"tapa_4x4_0\.npz is not a chunk.*; delete it"):
        examples.collect(tmp_path, num_test=6, seed=0)
