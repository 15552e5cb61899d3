"""PPBench as a task: files to data sets, keys and images of puzzles, training data."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ptrm_jax import DataError, read_dataset
from ptrm_jax.tasks import load, of_file, ppbench, symmetry
from ptrm_jax.tasks.ppbench.symmetry import NUM_IMAGES, turn
from ptrm_jax.training.examples import read_source

TASK = load("ppbench")


def puzzles(size: int, per_type: int) -> tuple[np.ndarray, np.ndarray]:
    return TASK.generate(size, 6 * per_type, seed=3, split="train")


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray]:
    return puzzles(4, 2)


def test_puzzles_come_in_turn_and_a_longer_run_begins_with_the_shorter(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    inputs, labels = made
    assert ppbench.type_of(inputs).tolist() == [*range(6), *range(6)]
    assert ppbench.satisfies_rules(labels, inputs).all()
    shorter, _ = TASK.generate(4, 5, seed=3, split="train")
    np.testing.assert_array_equal(shorter, inputs[:5])
    tapa, _ = TASK.generate(4, 3, seed=3, split="train", type="tapa")
    assert set(ppbench.type_of(tapa).tolist()) == {ppbench.TYPES.index("tapa")}
    np.testing.assert_array_equal(tapa[:2], inputs[ppbench.TYPES.index("tapa") :: 6])
    assert TASK.generate(4, 0, seed=3, split="train")[0].shape == (0, 100)


def test_splits_share_no_puzzle_turned_or_not(made: tuple[np.ndarray, np.ndarray]) -> None:
    test, _ = TASK.generate(4, 6, seed=3, split="test")
    keys = [set(ppbench.puzzle_keys(part, part).tolist()) for part in (made[0], test)]
    assert not keys[0] & keys[1]
    assert all(key % 8 == 0 for key in keys[1]) and all(key % 8 for key in keys[0])


def test_images_have_one_key_and_the_device_draws_them_all(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    inputs, labels = made
    augment: symmetry.Augment = jax.jit(TASK.augment(100))
    for puzzle, answer in zip(inputs[:6], labels[:6], strict=True):
        images = {
            turn(puzzle, g, height=4, width=4).tobytes(): turn(answer, g, height=4, width=4)
            for g in range(NUM_IMAGES)
        }
        turned = np.stack([np.frombuffer(image, np.int32) for image in images])
        assert len(set(ppbench.puzzle_keys(turned, turned).tolist())) == 1
        drawn = set()
        for seed in range(48):
            image, its_answer = augment(jax.random.key(seed), puzzle, answer)
            drawn.add(np.asarray(image).tobytes())
            assert ppbench.satisfies_rules(np.asarray(its_answer), np.asarray(image))
        assert drawn == images.keys()
    keys = ppbench.puzzle_keys(inputs, labels)
    assert len(set(keys.tolist())) == len(keys)


def test_training_data_by_name() -> None:
    data = read_source("generate:ppbench4:4:type=lightup,seed=1", seed=0)
    assert data.task == "ppbench" and data.vocab_size == ppbench.VOCAB_SIZE and len(data) == 4
    with pytest.raises(DataError, match=r"type must be one of .*; got 'chess'"):
        read_source("generate:ppbench4:4:type=chess", seed=0)


def lightup_line(side: int, name: str) -> str:
    """A field without black cells, lit by bulbs on a diagonal."""
    problem = tuple((".",) * side for _ in range(side))
    answer = [" ".join("#" if r == c else "+" for c in range(side)) for r in range(side)]
    record = {"pid": "lightup", "width": side, "height": side, "id": name, "source": ""}
    record |= {"problem": [" ".join(row) for row in problem], "answer": answer, "unique": False}
    url = ppbench.to_url(ppbench.Record("lightup", problem))
    return json.dumps(record | {"puzzlink_url": url}) + "\n"


def test_a_file_becomes_its_puzzles_of_the_papers_sizes(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.jsonl"
    path.write_text(lightup_line(10, "a") + lightup_line(2, "b"))
    assert of_file(path) is TASK
    data = read_dataset(path)
    assert len(data) == 1 and data.strata["type"].tolist() == ["lightup"]
    assert ppbench.satisfies_rules(data.labels, data.puzzles.inputs).all()
    assert TASK.decode(data.labels[0]).split()[:11] == ["#", *["+"] * 10]
    path.write_text(lightup_line(2, "b"))
    with pytest.raises(DataError, match="must hold a solved puzzle of a size that PTRM keeps"):
        read_dataset(path)
    path.write_text("{\n")
    with pytest.raises(DataError, match=r"puzzles\.jsonl:1:"):
        read_dataset(path)


def test_tokens_that_are_no_puzzle_are_refused() -> None:
    for wrong in (np.zeros(100, int), np.full((1, 100), -1), np.full((1, 100), 796)):
        with pytest.raises(ValueError, match="must be"):
            ppbench.puzzle_keys(wrong, wrong)
    with pytest.raises(ValueError, match="has 100 cells; got 81"):
        TASK.augment(81)
    assert TASK.decode(np.array([-1, 0, 800])) == "? _ ?"
