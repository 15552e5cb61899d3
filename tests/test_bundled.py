"""The bundled models on the bundled puzzles: the real thing, end to end."""

import jax
import numpy as np
import pytest
from conftest import load_experiment

import ptrm_jax
from ptrm_jax import checkpoint, mesh, metrics
from ptrm_jax.tasks import sudoku

KEY = jax.random.key(0)


@pytest.mark.parametrize(("name", "values"), [("sudoku6", 157_000), ("sudoku9", 522_626)])
def test_what_is_bundled(name: str, values: int) -> None:
    model, params = ptrm_jax.load(name)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert abs(size - values) < 1000
    manifest = checkpoint.read_manifest(name)
    assert manifest["digest"] == checkpoint.tree_digest(model.config, params)
    assert manifest["provenance"]["source_sha256"]
    card = (checkpoint.resolve(name) / "README.md").read_text()
    assert manifest["digest"][:8] in card, "the model card is of another checkpoint"
    assert len(ptrm_jax.read_dataset(name)) == 512


def test_sudoku6_solves_its_puzzles() -> None:
    model, params = ptrm_jax.load("sudoku6")
    data = ptrm_jax.read_dataset("sudoku6").head(48)
    solution = mesh.solve(model, params, KEY, data.puzzles, num_rollouts=1, depth=16, sigma=0.0)
    # Its card says 100 %; one in 48 may go on another platform's rounding.
    assert metrics.exact(solution.answer, data.labels).mean() >= 47 / 48
    assert sudoku.satisfies_rules(solution.answer, data.puzzles.inputs).mean() >= 47 / 48


def test_ptrm_solves_sudoku9_puzzles_that_trm_does_not() -> None:
    """The paper's effect on 32 puzzles: choosing among 8 noisy rollouts beats one quiet one."""
    model, params = ptrm_jax.load("sudoku9")
    data = ptrm_jax.read_dataset("sudoku9").head(32)
    quiet = mesh.solve(model, params, KEY, data.puzzles, num_rollouts=1, depth=8, sigma=0.0)
    noisy = mesh.solve(model, params, KEY, data.puzzles, num_rollouts=8, depth=8, sigma=0.3)
    trm = metrics.exact(quiet.answer, data.labels)
    ptrm = metrics.exact(noisy.answer, data.labels)
    assert 0.5 < trm.mean() < 1.0
    assert ptrm.sum() >= trm.sum() + 2
    correct = metrics.exact(noisy.rollout_answers, data.labels)
    assert metrics.q_auc(correct, noisy.rollout_q_logits) > 0.95
    np.testing.assert_array_equal(
        sudoku.satisfies_rules(noisy.answer, data.puzzles.inputs), ptrm
    )  # every puzzle has one solution


def test_memory_does_not_grow_with_rollouts() -> None:
    """Beyond the answers it returns `solve` holds one tile, whatever K is."""
    footprint = load_experiment("benchmark").footprint
    narrow, wide = footprint(16), footprint(128)
    assert wide["returned"] >= 64 * 128 * 81 * 4
    assert sum(wide.values()) <= 1.1 * (sum(narrow.values()) + wide["returned"])
