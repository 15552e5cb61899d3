"""Anytime PTRM: whatever the pool does, it returns the rule on the trajectories of `solve`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_puzzles, small_model

from ptrm_jax import (
    AnytimeSolution,
    Langevin,
    Save,
    Stop,
    load,
    mesh,
    metrics,
    read_dataset,
    solve,
    solve_anytime,
)
from ptrm_jax.config import Backend
from ptrm_jax.sweep.measure import answer_digest

KEY = jax.random.key(7)
SIZE = {"depth": 4, "sigma": 0.02, "lane_tile": 2}
RULES = {
    "threshold": {},
    "patience": {"patience": 2},
    "min_depth": {"min_depth": 3},
    "cap": {"max_rollout_steps": 10},
    "agree": {"agree": 2},
    "agree and cap": {"agree": 2, "max_rollout_steps": 10},
}


@functools.cache
def problem(num_puzzles: int = 7) -> tuple:
    """A model whose Q differs by step, its parameters, and puzzles."""
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1)
    params["q_head"] = {
        "kernel": jax.random.normal(jax.random.key(5), (32, 2)),
        "bias": jnp.array([0.5, 0.0]),
    }
    return model, params, random_puzzles(model, num_puzzles)


def replayed(trajectory: object, stop: Stop, rows: object = slice(None)) -> AnytimeSolution:
    """The rule on kept trajectories."""
    answers, q_logits, finite = (
        np.asarray(x)[rows] for x in (trajectory.answers, trajectory.q_logits, trajectory.finite)
    )
    found = metrics.replay(q_logits, finite, stop, answers=answer_digest(answers))
    answer = answers[np.arange(len(answers)), found.rollout, found.step - 1]
    answer = np.where(found.rollout[:, None] >= 0, answer, 0)
    return AnytimeSolution(
        answer, found.q_logit, found.rollout, found.step, found.stopped, found.rollout_steps
    )


def same(got: AnytimeSolution, expected: tuple) -> None:
    """The first fields are equal to the last bit."""
    for name, a, b in zip(got._fields, got, expected, strict=False):
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), (name, a, b)


@functools.cache
def trajectories(num_rollouts: int = 5, **settings: object) -> object:
    """All steps of all rollouts, on the host."""
    model, params, puzzles = problem()
    settings = SIZE | {"save": Save(answers=True, q_logits=True)} | settings
    solution = solve(model, params, KEY, puzzles, num_rollouts=num_rollouts, **settings)
    return jax.tree.map(np.asarray, solution.trajectory)


def threshold(quantile: float) -> float:
    return float(np.quantile(trajectories().q_logits, quantile))


@pytest.mark.parametrize("name", RULES)
def test_the_pool_gives_what_the_rule_gives_on_all_trajectories(name: str) -> None:
    """Four thresholds, two pools; every rule stops some puzzles and not others."""
    model, params, puzzles = problem()
    stopped = set()
    for quantile in (0.0, 0.6, 0.95, 1.0):
        stop = Stop(threshold(quantile), **RULES[name])
        expected = replayed(trajectories(), stop)
        stopped |= set(expected.stopped.tolist())
        for pool in (1, 5) if name in ("threshold", "agree and cap") else (1,):
            got = solve_anytime(
                model, params, KEY, puzzles, stop=stop, max_rollouts=5, pool=pool, **SIZE
            )
            same(got, expected)
    assert stopped == {True, False}


@pytest.mark.parametrize("pool", [2, 6])
@pytest.mark.parametrize("backend", ["pmap", "mesh"])
@pytest.mark.parametrize("num_devices", [1, 2, 8])
def test_layouts_and_order_change_no_bit(num_devices: int, backend: Backend, pool: int) -> None:
    """7 puzzles on up to 8 devices: ragged shares, a device with only padding, two orders."""
    model, params, puzzles = problem()
    stop = Stop(threshold(0.9))
    for rows in (np.arange(7), np.array([4, 6, 2, 0, 3, 1, 5])):
        got, use = mesh.solve_anytime_with_use(
            model,
            params,
            KEY,
            puzzles.take(rows),
            stop=stop,
            max_rollouts=5,
            pool=pool,
            devices=mesh.local_devices(num_devices),
            backend=backend,
            **SIZE,
        )
        expected = replayed(trajectories(), stop, rows)
        same(got, expected)
        assert use.run >= expected.rollout_steps.sum()
    assert 0 < expected.stopped.sum() < 7


@pytest.mark.parametrize(
    ("num_puzzles", "size"),
    [
        (1, {"max_rollouts": 1, "depth": 1}),
        (7, {"pool": 100}),
        (7, {"noise_when": "first", "noise_on": "both"}),
        (7, {"langevin": Langevin(1, 0.05)}),
    ],
    ids=str,
)
def test_an_infinite_threshold_is_the_best_reading(num_puzzles: int, size: dict) -> None:
    model, params, puzzles = problem()
    puzzles = puzzles.take(np.arange(num_puzzles))
    size = SIZE | {"max_rollouts": 3} | size
    got = solve_anytime(model, params, KEY, puzzles, stop=Stop(math.inf), **size)
    size.pop("pool", None)
    num_rollouts = size.pop("max_rollouts")
    best = solve(model, params, KEY, puzzles, num_rollouts=num_rollouts, read="best", **size)
    same(got, (best.answer, best.q_logit, best.rollout, best.step))
    assert not np.any(got.stopped)
    np.testing.assert_array_equal(got.rollout_steps, num_rollouts * size["depth"])


def test_readings_that_are_not_finite_never_answer() -> None:
    """With noise near the end of float32 some rollouts overflow; a broken model always does."""
    model, params, puzzles = problem()
    for sigma in 10.0 ** np.arange(16, 38, 0.25):
        kept = trajectories(sigma=float(sigma))
        if not kept.finite.all():
            break
    assert kept.finite.any() and not kept.finite.all()
    for stop in (Stop(float(np.quantile(kept.q_logits[kept.finite], 0.8))), Stop(math.inf)):
        size = SIZE | {"sigma": float(sigma), "max_rollouts": 5}
        got = solve_anytime(model, params, KEY, puzzles, stop=stop, **size)
        same(got, replayed(kept, stop))
    broken = params | {"L_init": params["L_init"] * jnp.nan}
    got = solve_anytime(model, broken, KEY, puzzles, stop=Stop(-100.0), **size)
    same(got, (np.zeros((7, 9), np.int32), *_nothing(7)))


def _nothing(num_puzzles: int) -> tuple:
    return (
        np.full(num_puzzles, -np.inf, np.float32),
        np.full(num_puzzles, -1, np.int32),
        np.zeros(num_puzzles, np.int32),
        np.zeros(num_puzzles, bool),
    )


def test_lanes_are_idle_only_when_the_queue_is_empty() -> None:
    model, params, puzzles = problem()
    _, use = mesh.solve_anytime_with_use(
        model,
        params,
        KEY,
        puzzles,
        stop=Stop(threshold(0.6)),
        max_rollouts=5,
        pool=6,
        devices=mesh.local_devices(1),
        **SIZE,
    )
    assert use.idle == 0 and use.run > 0 and use.drained >= 0


@pytest.mark.as_users_compile
def test_a_trained_model_in_the_default_tile() -> None:
    model, params = load("sudoku6")
    puzzles = read_dataset("sudoku6").head(20).puzzles
    size = {"depth": 4, "sigma": 0.5}
    save = Save(answers=True, q_logits=True)
    kept = solve(model, params, KEY, puzzles, num_rollouts=3, save=save, **size).trajectory
    stop = Stop(3.0)
    expected = replayed(kept, stop)
    same(solve_anytime(model, params, KEY, puzzles, stop=stop, max_rollouts=3, **size), expected)
    assert 0 < expected.stopped.sum() and expected.rollout_steps.sum() < 20 * 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stop": 2.0}, "stop must be a ptrm_jax.Stop; got 2.0"),
        ({"max_rollouts": 0}, "max_rollouts must be a whole number >= 1; got 0"),
        ({"pool": 0}, "pool must be a whole number >= 1; got 0"),
        ({"sigma": -1.0}, "sigma must be finite and >= 0"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    arguments = {"stop": Stop(1.0), "max_rollouts": 3} | change
    for solver in (solve_anytime, mesh.solve_anytime):
        with pytest.raises(ValueError, match=message):
            solver(*problem()[:2], KEY, problem()[2], **arguments)
