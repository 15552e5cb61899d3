"""Q heads that read all positions: pooling, fitting on a frozen model, and their checkpoints."""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import load_experiment, random_puzzles, small_model

from ptrm_jax import (
    TRM,
    Precision,
    Puzzles,
    Save,
    checkpoint,
    load,
    make_puzzles,
    mesh,
    metrics,
    sweep,
)
from ptrm_jax.checkpoint import CheckpointError
from ptrm_jax.model import Params, init_params, param_shapes
from ptrm_jax.solver import Trajectory, solve
from ptrm_jax.training.fit_q_head import fit_q_head

KEY = jax.random.key(3)


def pooled(
    variant: str = "mlp_t", precision: Precision | None = None, query: float = 2.0
) -> tuple[TRM, Params]:
    """The small model, its Q head over all positions with a random query."""
    model, params = small_model(variant, precision)
    model = TRM(dataclasses.replace(model.config, q_pooling="attention"), model.precision)
    return model, params | {"q_query": query * jax.random.normal(jax.random.key(2), (32,))}


def heads(model: TRM, params: Params, y: jax.Array) -> Any:
    return jax.jit(functools.partial(model.apply, method=TRM.heads))({"params": params}, y)


# --- Pooling -------------------------------------------------------------------------------------


def test_pooling_is_its_formula() -> None:
    """A loop over positions in float64; the query is strong enough to prefer some of them."""
    model, params = pooled()
    y = np.asarray(jax.random.normal(KEY, (11, 32)), np.float64)
    query, head = (jax.tree.map(np.float64, params[name]) for name in ("q_query", "q_head"))
    weights = [np.exp(sum(y[i] * query) / 32**0.5) for i in range(11)]
    mean = sum(w * row for w, row in zip(weights, y, strict=True)) / sum(weights)
    assert max(weights) > 4 * min(weights)
    got = heads(model, params, jnp.asarray(y, jnp.float32))
    np.testing.assert_allclose(got.q_logits, mean @ head["kernel"] + head["bias"], rtol=1e-5)
    assert got.q_logits.dtype == jnp.float32
    # The answer does not depend on the pooling.
    plain, old = small_model()
    np.testing.assert_array_equal(got.logits, heads(plain, old, jnp.asarray(y, jnp.float32)).logits)


def test_a_query_of_zeros_is_the_mean_over_positions() -> None:
    model, params = pooled(query=0.0)
    y = jax.random.normal(KEY, (11, 32))
    head = params["q_head"]
    expected = np.asarray(y).mean(axis=0) @ head["kernel"] + head["bias"]
    np.testing.assert_allclose(heads(model, params, y).q_logits, expected, rtol=1e-5, atol=1e-6)
    fresh = init_params(model, KEY)
    assert not fresh["q_query"].any()
    # All other parameters start as without it.
    jax.tree.map(
        np.testing.assert_array_equal,
        {name: leaf for name, leaf in fresh.items() if name != "q_query"},
        init_params(small_model()[0], KEY),
    )


def test_lanes_are_pooled_each_by_itself() -> None:
    model, params = pooled()
    y = jax.random.normal(KEY, (11, 5, 32))
    together = heads(model, params, y).q_logits
    assert together.shape == (5, 2)
    for lane in range(5):
        np.testing.assert_allclose(
            together[lane], heads(model, params, y[:, lane]).q_logits, atol=1e-6
        )


def test_a_bfloat16_head_rounds_what_a_float32_one_does_not() -> None:
    y = jax.random.normal(KEY, (11, 32)).astype(jnp.bfloat16)
    found = {}
    for q_dtype in (None, "float32"):
        model, params = pooled(precision=Precision("bfloat16", q_dtype=q_dtype))
        found[q_dtype] = np.asarray(heads(model, params, y).q_logits)
    rounded = found[None].astype(jnp.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found[None], rounded)
    assert (found["float32"] != found["float32"].astype(jnp.bfloat16).astype(np.float32)).any()
    np.testing.assert_allclose(found[None], found["float32"], rtol=0.05, atol=0.02)


# --- Fitting -------------------------------------------------------------------------------------

SETTINGS: dict[str, Any] = {"num_rollouts": 8, "depth": 1, "sigma": 0.8, "lane_tile": 8}
ONE_DEVICE = {"devices": tuple(jax.devices()[:1])}
IGNORED = 0
PLACE = 4
"""The one token whose answer counts."""


class Planted(NamedTuple):
    """A model, puzzles to fit on and puzzles to hold out, with labels."""

    model: TRM
    params: Params
    fit: Puzzles
    fit_labels: np.ndarray
    held: Puzzles
    held_labels: np.ndarray
    never: int
    """A token that is never answered."""


@functools.cache
def planted() -> Planted:
    """A model in which no position sees another; one step, since even the first position could
    count several.

    Whether an answer is right depends only on `PLACE`, whose token is one of two that occur nowhere
    else and have different answers, so the first position cannot know it.
    """
    model, params = small_model("attention")
    cycles = {"num_layers": 1, "H_cycles": 1, "L_cycles": 1}
    model = TRM(dataclasses.replace(model.config, **cycles), model.precision)
    layer = params["network"]["layers_0"]
    blind = layer | {"self_attn": layer["self_attn"] | {"o_proj": {"kernel": jnp.zeros((32, 32))}}}
    words = params["lm_head"]["kernel"]
    words = words.at[:, 4].set(words[:, 1])  # token 4 ties with 1 and so is never answered
    params = params | {"network": {"layers_0": blind}, "lm_head": {"kernel": words}}
    rng = np.random.default_rng(0)
    inputs = rng.integers(1, 5, (64, 9)).astype(np.int32)
    inputs[:, PLACE] = rng.integers(5, 7, 64)
    puzzles = make_puzzles(inputs)
    found = mesh.solve(model, params, jax.random.key(9), puzzles, **SETTINGS, **ONE_DEVICE)
    answers = found.rollout_answers[..., PLACE]
    kinds, counts = np.unique(answers[inputs[:, PLACE] == 5], return_counts=True)
    labels = np.full((64, 9), IGNORED, np.int32)
    labels[:, PLACE] = kinds[np.argmax(counts)]
    return Planted(
        *(model, params, puzzles.take(slice(40)), labels[:40], puzzles.take(slice(40, 64))),
        *(labels[40:], int(np.setdiff1d(np.arange(1, 7), answers)[0])),
    )


def fit(q_pooling: str, **changes: Any) -> tuple[TRM, Params]:
    """By default one chunk of all 40 puzzles."""
    model, params, puzzles, labels, *_ = planted()
    settings = SETTINGS | ONE_DEVICE | {"chunk_puzzles": 40}
    settings |= {"steps": 60, "batch_size": 64, "learning_rate": 0.05} | changes
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        return fit_q_head(
            *(model, params, puzzles, labels, KEY),
            ignore_label=IGNORED,
            q_pooling=q_pooling,
            **settings,
        )


def trajectory(model: TRM, params: Params, puzzles: Puzzles) -> Trajectory:
    save = Save(answers=True, latents=True)
    key = jax.random.key(5)
    return mesh.solve(model, params, key, puzzles, **SETTINGS, **ONE_DEVICE, save=save).trajectory


def test_a_fitted_head_knows_what_the_first_position_cannot() -> None:
    """Held-out loss and AUC; the control, fitted alike, learns only how often answers are right."""
    model, params, _, _, held, labels, _ = planted()
    found = trajectory(model, params, held)
    right = metrics.exact(found.answers, labels, ignore_label=IGNORED)
    states = jnp.moveaxis(found.y, -2, 0)  # [L, B, K, D, C]
    loss, auc = {}, {}
    for q_pooling in ("first", "attention"):
        model, params = fit(q_pooling)
        assert model.config.q_pooling == q_pooling
        q = np.asarray(heads(model, params, states).q_logits[..., 0])
        loss[q_pooling] = np.logaddexp(0, np.where(right, -q, q)).mean()
        auc[q_pooling] = metrics.q_auc(metrics.Rollouts(right[:, :, -1], q[:, :, -1]))
    rate = right.mean()
    assert 0.15 < rate < 0.85
    entropy = -rate * np.log(rate) - (1 - rate) * np.log(1 - rate)
    assert loss["first"] > 0.95 * entropy and abs(auc["first"] - 0.5) < 0.15
    assert loss["attention"] < 0.8 * entropy and auc["attention"] > 0.8


def test_fitting_changes_the_head_alone_and_is_reproducible() -> None:
    _, params, *_ = planted()
    few = {"steps": 8}
    model, fitted = fit("attention", **few)
    assert fitted.keys() == params.keys() | {"q_query"}
    for name in params.keys() - {"q_head"}:
        jax.tree.map(np.testing.assert_array_equal, fitted[name], params[name])
    assert fitted["q_query"].any() and fitted["q_head"]["kernel"][:, 0].any()
    assert not fitted["q_head"]["kernel"][:, 1].any() and fitted["q_head"]["bias"][1] == 0
    assert {k: v.shape for k, v in checkpoint_leaves(fitted).items()} == {
        k: v.shape for k, v in param_shapes(model).items()
    }
    jax.tree.map(np.testing.assert_array_equal, fit("attention", **few)[1], fitted)
    two = fit("attention", **few, devices=tuple(jax.devices()[:2]))[1]
    jax.tree.map(np.testing.assert_array_equal, two, fitted)


def checkpoint_leaves(params: Params) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(entry.key for entry in path): leaf for path, leaf in leaves}


def test_every_state_is_used_once_before_any_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two passes in chunks of 16, 16 and 8 puzzles; the second has new rollouts."""
    from ptrm_jax.training import fit_q_head as q_head

    seen = []

    def record(*args: Any) -> tuple[Any, Any]:
        seen.append((np.asarray(args[-2]), np.asarray(args[-1])))
        return args[3], args[4]

    monkeypatch.setattr(q_head, "_update", record)
    fit("attention", depth=2, batch_size=32, steps=2 * 40 * 8 * 2 // 32, chunk_puzzles=16)
    model, params, puzzles, labels, *_ = planted()
    whole = mesh.solve(
        *(model, params, KEY, puzzles),
        **SETTINGS | ONE_DEVICE | {"num_rollouts": 16, "depth": 2},
        save=Save(answers=True, latents=True),
    ).trajectory
    right = metrics.exact(whole.answers, labels, ignore_label=IGNORED)
    expected = {y.tobytes(): r for y, r in zip(flat(whole.y, 2), flat(right), strict=True)}
    assert len(expected) == 2 * 40 * 8 * 2
    got = [(y.tobytes(), r) for ys, rs in seen for y, r in zip(ys, rs, strict=True)]
    assert len(got) == len(expected) and dict(got) == expected
    halves = [{name for name, _ in part} for part in (got[:640], got[640:])]
    assert halves[0] == {y.tobytes() for y in flat(whole.y[:, :8], 2)}


def flat(values: Any, ndim: int = 0) -> np.ndarray:
    """[B, K, D, ...] as [B * K * D, ...]."""
    values = np.asarray(values)
    return values.reshape(-1, *values.shape[values.ndim - ndim :])


@pytest.mark.parametrize("num_right", [0, 64])
def test_answers_of_one_kind_are_refused(num_right: int) -> None:
    """All wrong: a token that is never answered; all right: the token that is always answered."""
    model, params, puzzles, labels, *_, never = planted()
    if num_right:
        constant = jax.tree.map(jnp.zeros_like, params["lm_head"])  # argmax 0 at every position
        params, labels = params | {"lm_head": constant}, np.zeros_like(labels)
    else:
        labels = np.where(labels == IGNORED, IGNORED, never)
    message = f"must have both right and wrong answers; got {num_right} right ones among 64 states"
    with pytest.raises(ValueError, match=message), jax.numpy_dtype_promotion("standard"):
        fit_q_head(
            *(model, params, puzzles, labels, KEY),
            ignore_label=None if num_right else IGNORED,
            **SETTINGS | ONE_DEVICE | {"steps": 1, "batch_size": 64, "chunk_puzzles": 40},
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q_pooling": "mean"}, "q_pooling must be one of first, attention; got 'mean'"),
        ({"steps": 0}, "steps must be a whole number >= 1; got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number >= 1; got 0"),
        ({"chunk_puzzles": 0}, "chunk_puzzles must be a whole number >= 1; got 0"),
        ({"num_rollouts": 0}, "num_rollouts must be a whole number >= 1; got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be finite and > 0; got 0.0"),
        ({"learning_rate": np.nan}, "learning_rate must be finite and > 0; got nan"),
        ({"depth": 0}, "depth must be a whole number >= 1; got 0"),
        ({"sigma": -1.0}, "sigma must be finite and >= 0; got -1.0"),
        ({"labels": np.ones((40, 8), np.int32)}, r"labels must have shape \[40, 9\]"),
        ({"labels": np.zeros((40, 9), np.int32)}, "got none in row 0; leave such puzzles out"),
        ({"key": 0}, "key must be a typed JAX key"),
        ({"params": {}}, "params are not this model's"),
    ],
)
def test_fit_q_head_refuses(change: dict, message: str) -> None:
    model, params, puzzles, labels, *_ = planted()
    given = {"params": params, "labels": labels, "key": KEY, "ignore_label": IGNORED} | change
    params, labels, key = (given.pop(name) for name in ("params", "labels", "key"))
    with pytest.raises(ValueError, match=message):
        fit_q_head(model, params, puzzles, labels, key, **given)


# --- Checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "digest"), [("maze11", "20122cde"), ("sudoku6", "e74c5134"), ("sudoku9", "940d05ee")]
)
def test_digests_are_what_they_were_before_there_was_any_pooling(name: str, digest: str) -> None:
    model, params = load(name)
    assert model.config.q_pooling == "first" and "q_pooling" not in model.config.to_dict()
    assert checkpoint.read_manifest(name)["digest"][:8] == digest
    assert checkpoint.tree_digest(model.config, params)[:8] == digest


def test_a_pooled_model_is_saved_loaded_and_swept(tmp_path: Path) -> None:
    model, params = pooled()
    checkpoint.save(tmp_path / "model", model.config, params)
    again, loaded = load(tmp_path / "model")
    assert again.config == model.config and again.config.to_dict()["q_pooling"] == "attention"
    jax.tree.map(np.testing.assert_array_equal, loaded, params)
    plain, old = small_model()
    assert checkpoint.tree_digest(model.config, params) != checkpoint.tree_digest(plain.config, old)
    with pytest.raises(CheckpointError, match="unexpected q_query"):
        checkpoint.save(tmp_path / "other", plain.config, params)
    with pytest.raises(CheckpointError, match="missing q_query"):
        checkpoint.save(tmp_path / "other", model.config, old)

    puzzles = random_puzzles(model, 4)
    found = solve(model, params, jax.random.key(0), puzzles, num_rollouts=2, depth=2, sigma=0.5)
    prepared = sweep.prepare(
        sweep.SweepConfig(
            checkpoint=str(tmp_path / "model"),
            data=upstream_folder(tmp_path / "data", puzzles),
            **{"sigmas": (0.5,), "rollouts": 2, "depth": 2, "num_puzzles": None, "devices": 1},
            equal_compute=False,
        )
    )
    (run,) = sweep.run(prepared).runs
    np.testing.assert_array_equal(run.rollouts.q_logit[:, :, -1], found.rollout_q_logits)


def upstream_folder(folder: Path, puzzles: Puzzles) -> str:
    (folder / "test").mkdir(parents=True)
    for name, values in {
        "inputs": puzzles.inputs.astype(np.uint8),
        "labels": np.ones((4, 9), np.uint8),
        "puzzle_identifiers": puzzles.puzzle_identifiers,
        "puzzle_indices": np.arange(5, dtype=np.int32),
    }.items():
        np.save(folder / "test" / f"all__{name}.npy", values)
    (folder / "test" / "dataset.json").write_text(
        '{"seq_len": 9, "vocab_size": 7, "num_puzzle_identifiers": 3, "ignore_label_id": 0, '
        '"sets": ["all"]}'
    )
    return str(folder)


def test_the_command_makes_a_checkpoint_with_the_same_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    command = load_experiment("fit_q_head")
    target = tmp_path / "pooled"
    arguments = ["sudoku6", "--data", "generate:sudoku6:16", "--output", str(target)]
    small = ["--rollouts", "2", "--depth", "1", "--sigma", "1", "--steps", "2"]
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it
        assert command.main([*arguments, *small, "--batch-size", "16"]) == 0
    assert checkpoint.read_manifest(target)["digest"] in capsys.readouterr().out
    provenance = checkpoint.read_manifest(target)["provenance"]
    assert provenance["from"]["digest"] == checkpoint.read_manifest("sudoku6")["digest"]
    model, params = load(target)
    assert model.config.q_pooling == "attention" and np.any(params["q_head"]["kernel"])
    _, old = load("sudoku6")
    for name in old.keys() - {"q_head"}:
        jax.tree.map(np.testing.assert_array_equal, params[name], old[name])
    assert command.main([*arguments, *small]) == 2
    assert "exists; pass another" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data", "generate:sudoku9:4"], "does not fit this checkpoint"),
        (["--steps", "0"], "steps must be a whole number >= 1; got 0"),
    ],
)
def test_the_command_refuses(change, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    command = load_experiment("fit_q_head")
    target = tmp_path / "pooled"
    arguments = ["sudoku6", "--data", "generate:sudoku6:4", "--output", str(target), *change]
    assert command.main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not target.exists()
