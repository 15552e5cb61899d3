"""PPBench as a task: files to data sets, keys and images of puzzles, training data."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from ptrm_jax import DataError, read_dataset
from ptrm_jax.tasks import load, of_file, ppbench
from ptrm_jax.tasks.ppbench.symmetry import NUM_IMAGES, turn
from ptrm_jax.tasks.ppbench.vocabulary import VOCABULARY
from ptrm_jax.training.examples import read_source

TASK = load("ppbench")


def types_of(inputs: np.ndarray) -> list[str]:
    return [VOCABULARY[token].pid for token in inputs[:, 0]]


@pytest.fixture(scope="module")
def made() -> tuple[np.ndarray, np.ndarray]:
    return TASK.generate(4, 12, seed=3, split="train")


def test_puzzles_come_in_turn_and_a_longer_run_begins_with_the_shorter(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    inputs, labels = made
    assert types_of(inputs) == [*ppbench.TYPES, *ppbench.TYPES]
    assert ppbench.satisfies_rules(labels, inputs).all()
    shorter, _ = TASK.generate(4, 3, seed=3, split="train")
    np.testing.assert_array_equal(shorter, inputs[:3])
    lightup, _ = TASK.generate(4, 3, seed=3, split="train", type="lightup")
    assert types_of(lightup) == ["lightup"] * 3
    np.testing.assert_array_equal(lightup[:2], inputs[1::6])
    assert TASK.generate(4, 0, seed=3, split="train")[0].shape == (0, 100)


def test_splits_share_no_puzzle_turned_or_not(made: tuple[np.ndarray, np.ndarray]) -> None:
    test, _ = TASK.generate(4, 4, seed=3, split="test", type="lightup")
    keys = [set(ppbench.puzzle_keys(part, part).tolist()) for part in (made[0], test)]
    assert not keys[0] & keys[1]
    assert all(key % 8 == 0 for key in keys[1]) and all(key % 8 for key in keys[0])


def test_images_have_one_key_and_the_device_draws_them_all(
    made: tuple[np.ndarray, np.ndarray],
) -> None:
    inputs, labels = made
    augment = jax.jit(jax.vmap(TASK.augment(100), in_axes=(0, None, None)))
    keys = jax.random.split(jax.random.key(0), 48)
    for puzzle, answer in zip(inputs[:6], labels[:6], strict=True):
        images = {
            turn(puzzle, g, height=4, width=4).tobytes(): turn(
                answer, g, height=4, width=4
            ).tobytes()
            for g in range(NUM_IMAGES)
        }
        turned = np.stack([np.frombuffer(image, np.int32) for image in images])
        assert len(set(ppbench.puzzle_keys(turned, turned).tolist())) == 1
        drawn = [np.asarray(x) for x in augment(keys, puzzle, answer)]
        for image, its_answer in zip(*drawn, strict=True):
            assert images[image.tobytes()] == its_answer.tobytes()
        assert ppbench.satisfies_rules(drawn[1], drawn[0]).all()
        assert {image.tobytes() for image in drawn[0]} == images.keys()
    assert len(set(ppbench.puzzle_keys(inputs, labels).tolist())) == len(inputs)


def test_images_of_a_sudoku_with_oblong_boxes_are_sudokus() -> None:
    inputs, labels = TASK.generate(6, 1, seed=0, split="train", type="sudoku", side=6)
    assert inputs.shape == (1, 36)
    augment = jax.jit(jax.vmap(TASK.augment(36), in_axes=(0, None, None)))
    images, answers = augment(jax.random.split(jax.random.key(0), 32), inputs[0], labels[0])
    assert ppbench.satisfies_rules(answers, images).all()
    assert len({np.asarray(image).tobytes() for image in images}) == 4


def test_training_data_by_name() -> None:
    data = read_source("generate:ppbench4:4:type=lightup,seed=1", seed=0)
    assert data.task == "ppbench" and data.vocab_size == ppbench.VOCAB_SIZE and len(data) == 4
    with pytest.raises(DataError, match=r"type must be one of .*; got 'chess'"):
        read_source("generate:ppbench4:4:type=chess", seed=0)


def lightup_line(side: int, name: str) -> str:
    """A field without black cells, lit by bulbs on a diagonal."""
    problem = [" ".join("." * side)] * side
    answer = [" ".join("#" if r == c else "+" for c in range(side)) for r in range(side)]
    line = {"pid": "lightup", "width": side, "height": side, "id": name, "source": ""}
    line |= {"problem": problem, "answer": answer, "unique": False}
    return json.dumps(line | {"puzzlink_url": f"?lightup/{side}/{side}/z"}) + "\n"


def test_a_file_becomes_its_puzzles_of_the_papers_sizes(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.jsonl"
    path.write_text(lightup_line(10, "a") + lightup_line(2, "b"))
    assert of_file(path) is TASK
    data = read_dataset(path)
    assert len(data) == 1 and data.strata["type"].tolist() == ["lightup"]
    assert ppbench.satisfies_rules(data.labels, data.puzzles.inputs).all()
    assert TASK.decode(data.labels[0]).split()[:11] == ["#", *["+"] * 10]
    path.write_text(lightup_line(6, "b") + lightup_line(4, "c") + lightup_line(7, "d"))
    small = read_dataset(path)
    assert small.puzzles.inputs.shape == (2, 36) and small.vocab_size == ppbench.of_side(6).size
    assert ppbench.satisfies_rules(small.labels, small.puzzles.inputs).all()
    path.write_text(lightup_line(7, "b"))
    with pytest.raises(DataError, match="must hold a solved puzzle of a size that PTRM keeps"):
        read_dataset(path)
    path.write_text("{\n")
    with pytest.raises(DataError, match=r"puzzles\.jsonl:1:"):
        read_dataset(path)


def test_tokens_that_are_no_puzzle_are_refused() -> None:
    for wrong in (np.zeros(100, int), np.full((1, 100), -1), np.full((1, 100), 796)):
        with pytest.raises(ValueError, match="must be"):
            ppbench.puzzle_keys(wrong, wrong)
    with pytest.raises(ValueError, match="has n x n cells, n from 1 to 10; got 80"):
        TASK.augment(80)
    assert TASK.decode(np.array([-1, 0, 800, 2])) == "? _ ? 1"
