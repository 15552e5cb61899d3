"""Algorithm 1: it computes its definition, and nothing else changes a bit of a result."""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_puzzles, small_model

from ptrm_jax import (
    TRM,
    Carry,
    Langevin,
    Precision,
    Puzzles,
    Save,
    deep_recursion,
    initial_carry,
    load,
    mesh,
    read_dataset,
    solve,
    step,
)
from ptrm_jax.config import LoopSettings
from ptrm_jax.errors import InputError
from ptrm_jax.solver import (
    LaneResults,
    Lanes,
    Solution,
    add_noise,
    choose,
    energy,
    langevin_chain,
    langevin_key,
    langevin_update,
    noise_key,
    run_lanes,
)
from ptrm_jax.solver.noise import Noise, perturb

ALL = Save(answers=True, q_logits=True, latents=True)
KEY = jax.random.key(7)
EVERY = slice(None)

# Programs are shared: most tests solve 5 puzzles with 6 rollouts of 3 steps and save everything, or
# 5 puzzles with 2 rollouts of one step and save nothing.
DTYPES = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
BOTH = pytest.mark.parametrize(
    ("variant", "dtype"), [("mlp_t", "float32"), ("attention", "bfloat16")]
)


def same(a: object, b: object) -> None:
    """Equal to the last bit, leaf by leaf."""
    leaves_a, leaves_b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert len(leaves_a) == len(leaves_b) > 0
    for x, y in zip(leaves_a, leaves_b, strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.shape == y.shape and x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


def rollouts_of(solution: Solution, puzzles: object, rollouts: object) -> list[np.ndarray]:
    """Everything per rollout, of some puzzles and rollouts, as a list of arrays [B', K', ...]."""
    per_rollout = (
        solution.rollout_answers,
        solution.rollout_q_logits,
        solution.rollout_finite,
        solution.trajectory,
    )
    return [np.asarray(x)[puzzles][:, rollouts] for x in jax.tree.leaves(per_rollout)]


@functools.cache
def thin(variant: str, dtype: str = "float32") -> tuple:
    """Model of one layer, parameters, 3 puzzles, and a state of theirs in which energies differ."""
    precision = Precision(compute_dtype=dtype)
    model, params = small_model(variant, precision, num_layers=1, L_cycles=2)
    # A Q head that leaves -log sigmoid neither flat nor straight.
    params["q_head"] = {
        "kernel": 0.3 * jax.random.normal(jax.random.key(5), (32, 2)),
        "bias": jnp.array([0.5, 0.0]),
    }
    states = jax.random.normal(jax.random.key(6), (2, 3, 11, 32)).astype(dtype)
    return model, params, random_puzzles(model, 3), Carry(*states)


def solve_all(variant: str, dtype: str = "float32", **settings: object) -> Solution:
    model, params, *_ = thin(variant, dtype)
    settings = {"puzzles": random_puzzles(model, 5), "num_rollouts": 6} | settings
    return solve(model, params, KEY, depth=3, save=ALL, **settings)


@functools.cache
def reference(variant: str, dtype: str = "float32") -> tuple:
    """Model, parameters, 5 puzzles, and their 6 rollouts of 3 steps with everything saved."""
    model, params, *_ = thin(variant, dtype)
    return model, params, random_puzzles(model, 5), solve_all(variant, dtype)


def solve_one_step(puzzles: Puzzles, key: jax.Array = KEY, **settings: object) -> Solution:
    model, params, *_ = thin("mlp_t")
    settings = {"params": params, "num_rollouts": 2} | settings
    return solve(model, settings.pop("params"), key, puzzles, depth=1, **settings)


# --- The algorithm -------------------------------------------------------------------------------


def test_rollouts_differ_and_noise_matters(variant: str) -> None:
    *_, solution = reference(variant)
    z = np.asarray(solution.trajectory.z)
    assert len({z[b, k, 0].tobytes() for b in range(5) for k in range(6)}) == 30
    assert bool(np.all(solution.rollout_finite))


@DTYPES
def test_solve_is_single_steps(variant: str, dtype: str) -> None:
    model, params, puzzles, solution = reference(variant, dtype)
    for k in (0, 3):
        carry = initial_carry(model, params, 5)
        for t in range(1, 4):
            carry, heads = step(model, params, KEY, carry, puzzles, rollout=k, t=t, sigma=0.3)
            same(carry.z, solution.trajectory.z[:, k, t - 1])
            same(carry.y, solution.trajectory.y[:, k, t - 1])
            same(heads.q_logits[:, 0], solution.trajectory.q_logits[:, k, t - 1])
        same(jnp.argmax(heads.logits, -1).astype(jnp.int32), solution.rollout_answers[:, k])


@pytest.mark.parametrize(
    ("variant", "dtype", "noise_on"),
    [
        *((v, d, "z") for v in ("mlp_t", "attention") for d in ("float32", "bfloat16")),
        ("mlp_t", "float32", "y"),
        ("mlp_t", "bfloat16", "both"),
        ("attention", "float32", "both"),
    ],
)
def test_sigma_zero_is_plain_trm(variant: str, dtype: str, noise_on: str) -> None:
    model, params, puzzles, _ = reference(variant, dtype)
    solution = solve_all(variant, dtype, sigma=0.0, noise_on=noise_on)
    carry = initial_carry(model, params, 5)
    for t in range(3):
        carry, heads = deep_recursion(model, params, carry, puzzles)
        for k in range(6):
            same(carry.z, solution.trajectory.z[:, k, t])
            same(carry.y, solution.trajectory.y[:, k, t])
            same(heads.q_logits[:, 0], solution.trajectory.q_logits[:, k, t])
    same(heads.q_logits[:, 0], solution.q_logit)


def test_step_adds_this_noise_to_this_state() -> None:
    """The noise by its definition, written out: keys by fold_in, float32 normal, sigma * eps."""
    model, params, puzzles, _ = thin("mlp_t")
    puzzles = puzzles._replace(index=np.array([4, 9, 2]))
    carry = initial_carry(model, params, 3)
    shape = carry.z.shape[1:]

    def eps(index: int, target: int) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, index), 5), 2)
        return jax.random.normal(jax.random.fold_in(key, target), shape, jnp.float32)

    for noise_on, targets in {"z": ["z"], "y": ["y"], "both": ["z", "y"]}.items():
        noisy = carry
        for target in targets:
            noise = jnp.stack([eps(i, ["z", "y"].index(target)) for i in (4, 9, 2)])
            state = getattr(carry, target) + 0.5 * noise
            noisy = noisy._replace(**{target: state})
        expected, _ = deep_recursion(model, params, noisy, puzzles)
        got, _ = step(
            model, params, KEY, carry, puzzles, rollout=5, t=2, sigma=0.5, noise_on=noise_on
        )
        np.testing.assert_allclose(got.z, expected.z, atol=2e-4)
        np.testing.assert_allclose(got.y, expected.y, atol=2e-4)


def test_noise_first_is_noise_on_the_initial_latent_only() -> None:
    model, params, puzzles, _ = reference("mlp_t")
    solution = solve_all("mlp_t", noise_when="first")
    carry = initial_carry(model, params, 5)
    carry, _ = step(model, params, KEY, carry, puzzles, rollout=1, t=1, sigma=0.3)
    same(carry.z, solution.trajectory.z[:, 1, 0])
    for t in (1, 2):
        carry, _ = deep_recursion(model, params, carry, puzzles)
        same(carry.z, solution.trajectory.z[:, 1, t])


def test_noise_is_standard_normal_and_independent() -> None:
    def draw(index: int, rollout: int, t: int) -> np.ndarray:
        key = jax.random.fold_in(noise_key(KEY, index, rollout, t), 0)
        return np.asarray(jax.random.normal(key, (64, 64))).ravel()

    base = draw(3, 1, 2)
    assert abs(base.mean()) < 0.06 and abs(base.std() - 1) < 0.05
    for other in (draw(4, 1, 2), draw(3, 2, 2), draw(3, 1, 3), draw(1, 3, 2), draw(2, 1, 3)):
        assert abs(np.corrcoef(base, other)[0, 1]) < 0.06


def test_noise_reaches_the_prefix_and_leaves_the_other_state() -> None:
    model, params, *_ = thin("mlp_t")
    one = jax.tree.map(lambda x: x[0][:, None], initial_carry(model, params, 1))  # [L, 1, C]
    ids = jnp.zeros(1, jnp.int32)
    noise = Noise(KEY, index=ids, rollout=ids, sigma=jnp.float32(1.0))
    noisy = perturb(one, noise, jnp.int32(1), "z")
    same(noisy.y, one.y)
    assert bool(jnp.all(noisy.z[: model.config.prefix_len] != one.z[: model.config.prefix_len]))
    noisy = perturb(one, noise, jnp.int32(1), "y")
    same(noisy.z, one.z)
    assert bool(jnp.all(noisy.y != one.y))


def test_bfloat16_noise_is_the_float32_draw_cast() -> None:
    state = jnp.full((4, 8), 3.0, jnp.bfloat16)
    eps = jax.random.normal(KEY, (4, 8), jnp.float32)
    noise = (np.float32(0.3) * np.asarray(eps)).astype(jnp.bfloat16)
    expected = (3.0 + noise.astype(np.float32)).astype(jnp.bfloat16)
    for add in (add_noise, jax.jit(add_noise)):
        got = add(state, eps, jnp.float32(0.3))
        assert got.dtype == jnp.bfloat16
        np.testing.assert_array_equal(np.asarray(got, np.float32), expected.astype(np.float32))


# --- Nothing else changes a bit ------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("rows", "ids"),
    [
        ([4, 2, 0, 1, 3], range(6)),  # another order
        ([0, 1, 2, 3, 4], range(5)),  # K = 5, ragged tiles
        ([3], [3, 1, 4, 5]),
        ([2, 2], [5, 0]),
    ],
)
def test_order_batch_and_chunks_of_rollouts_change_nothing(
    variant: str, dtype: str, rows: list[int], ids: list[int]
) -> None:
    *_, puzzles, whole = reference(variant, dtype)
    rows, ids = np.array(rows), np.array(ids)
    part = solve_all(variant, dtype, puzzles=puzzles.take(rows), rollouts=ids)
    same(rollouts_of(part, EVERY, EVERY), rollouts_of(whole, rows, ids))
    if len(ids) == 6:
        same(part.answer, whole.answer[rows])
    if ids.tolist() == [*range(len(ids))]:
        few = solve_all(variant, dtype, puzzles=puzzles.take(rows), num_rollouts=len(ids))
        same(few, part)


@pytest.mark.parametrize("depth", [1, 2])
def test_shallow_runs_are_the_start_of_deep_ones(variant: str, depth: int) -> None:
    model, params, puzzles, deep = reference(variant)
    shallow = solve(model, params, KEY, puzzles, num_rollouts=2, depth=depth, sigma=0.3)
    assert shallow.trajectory is None
    same(shallow.rollout_answers, deep.trajectory.answers[:, :2, depth - 1])
    same(shallow.rollout_q_logits, deep.trajectory.q_logits[:, :2, depth - 1])


def test_another_index_key_or_rollout_is_other_noise() -> None:
    model, params, puzzles, whole = reference("mlp_t")
    other_key = solve(model, params, jax.random.key(8), puzzles, num_rollouts=6, depth=3, save=ALL)
    for other in (
        other_key,
        solve_all("mlp_t", puzzles=puzzles._replace(index=puzzles.index + 1)),
        solve_all("mlp_t", rollouts=np.arange(6, 12)),
    ):
        assert not np.any(np.asarray(other.trajectory.z) == np.asarray(whole.trajectory.z))


@pytest.mark.parametrize("tile", [1, 64])
def test_other_tiles_agree_to_rounding(tile: int) -> None:
    """A tile's size decides shapes, so the last bits; after one step no more than that."""
    *_, puzzles, whole = reference("mlp_t")
    z = solve_one_step(puzzles, lane_tile=tile, save=Save(latents=True)).trajectory.z
    np.testing.assert_allclose(z, whole.trajectory.z[:, :2, :1], atol=1e-4, rtol=0)


# --- Langevin dynamics ---------------------------------------------------------------------------


def chains(langevin: Langevin, start: float, curvature: float = 1.0) -> np.ndarray:
    """Where 40,000 chains in the energy curvature * z^2 / 2 end, from one start."""
    end = langevin_chain(
        jnp.full(40_000, start, jnp.float32),
        lambda z: jnp.float32(curvature) * z,
        lambda n: jax.random.normal(jax.random.fold_in(KEY, n), (40_000,), jnp.float32),
        langevin,
    )
    return np.asarray(end, np.float64)


def check_normal(values: np.ndarray, mean: float, variance: float) -> None:
    """Mean and variance within 4.5 of their standard errors, and so the fourth moment."""
    count, centred = len(values), values - mean
    assert abs(centred.mean()) < 4.5 * math.sqrt(variance / count)
    assert abs((centred**2).mean() - variance) < 4.5 * variance * math.sqrt(2 / count)
    assert abs((centred**4).mean() - 3 * variance**2) < 4.5 * variance**2 * math.sqrt(96 / count)


@pytest.mark.parametrize(("curvature", "step_size"), [(1.0, 0.5), (3.0, 0.4), (0.5, 0.2)])
def test_langevin_in_a_quadratic_energy_is_the_exact_law(
    curvature: float, step_size: float
) -> None:
    """z' = a z + sqrt(2 eta) xi, a = 1 - eta lambda: normal at every N, and at rest."""
    a = 1 - step_size * curvature
    at_rest = 1 / (curvature * (1 - step_size * curvature / 2))
    for num_updates in (2, 160):
        check_normal(
            chains(Langevin(num_updates, step_size), 2.0, curvature),
            2.0 * a**num_updates,
            at_rest * (1 - a ** (2 * num_updates)),
        )
    assert abs(a) ** 160 < 1e-7


def test_langevin_without_gradient_is_plain_noise_of_the_matched_sigma() -> None:
    langevin = Langevin(6, 0.03, gradient=False)
    assert langevin.matched_sigma == pytest.approx(0.6)  # sqrt(2 * 0.03 * 6)
    assert Langevin(1, 0.5).matched_sigma == 1.0
    check_normal(chains(langevin, 2.0, curvature=100.0), 2.0, 0.36)


def test_langevin_draws_are_a_stream_of_their_own() -> None:
    """The chain of keys, written out; and no correlation with noise or with other updates."""
    base = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, 3), 1), 4)
    expected = jax.random.fold_in(jax.random.fold_in(base, 2), 5)
    same(
        jax.random.key_data(langevin_key(KEY, 3, 1, 4, 5)),
        jax.random.key_data(expected),
    )
    draws = [
        np.asarray(jax.random.normal(key, (64, 64))).ravel()
        for key in (
            *(langevin_key(KEY, 3, 1, 4, n) for n in (1, 2)),
            *(langevin_key(KEY, *which, 1) for which in ((4, 1, 4), (3, 2, 4), (3, 1, 5))),
            *(jax.random.fold_in(base, state) for state in (0, 1)),
        )
    ]
    assert np.abs(np.corrcoef(draws) - np.eye(7)).max() < 0.07


@functools.cache
def by_hand(variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Energies and gradients of the states of `thin`, one puzzle at a time, by their formula."""
    model, params, puzzles, carry = thin(variant)
    apply = functools.partial(model.apply, {"params": params})

    def of(z: jax.Array, y: jax.Array, inputs: jax.Array, identifier: jax.Array) -> jax.Array:
        injection = y + apply(inputs, identifier, method=TRM.embed)
        for _ in range(2):
            z = apply(z, injection, method=TRM.f)
        q_logit = apply(apply(y, z, method=TRM.f), method=TRM.heads).q_logits[0]
        return -jnp.log(1 / (1 + jnp.exp(-q_logit)))

    of = jax.jit(jax.value_and_grad(of))
    rows = zip(carry.z, carry.y, puzzles.inputs, puzzles.puzzle_identifiers, strict=True)
    return tuple(map(np.stack, zip(*(of(*row) for row in rows), strict=True)))


def test_the_energy_and_its_gradient_are_their_formula(variant: str) -> None:
    energies, gradients = by_hand(variant)
    got_energies, got = energy(*thin(variant)[:2], thin(variant)[3], thin(variant)[2])
    np.testing.assert_allclose(got_energies, energies, rtol=1e-5)
    scale = np.abs(gradients).max(axis=(1, 2), keepdims=True)
    assert scale.min() > 1e-3
    np.testing.assert_allclose(np.asarray(got) / scale, gradients / scale, atol=1e-4)


def test_a_step_with_langevin_is_its_formula() -> None:
    """Draws by written-out keys, the gradient by hand, then noise, then the step."""
    model, params, puzzles, carry = thin("mlp_t")
    _, gradients = by_hand("mlp_t")
    eta, t = 0.1, 3

    def xi(index: int, n: int) -> jax.Array:
        key = KEY
        for data in (index, 4, t - 1, 2, n):
            key = jax.random.fold_in(key, data)
        return jax.random.normal(key, carry.z.shape[1:], jnp.float32)

    def noise(n: int) -> jax.Array:
        return math.sqrt(2 * eta) * jnp.stack([xi(i, n) for i in puzzles.index.tolist()])

    go = functools.partial(step, model, params, KEY, puzzles=puzzles, rollout=4, t=t)
    after = []
    for sigma, langevin, z in (
        (0.0, Langevin(1, eta), carry.z + noise(1) - eta * gradients),
        (0.3, Langevin(1, eta), carry.z + noise(1) - eta * gradients),
        (0.3, Langevin(2, eta, gradient=False), carry.z + noise(1) + noise(2)),
    ):
        expected, _ = go(carry._replace(z=z), sigma=sigma)
        got, _ = go(carry, sigma=sigma, langevin=langevin)
        np.testing.assert_allclose(got.z, expected.z, atol=2e-4)
        np.testing.assert_allclose(got.y, expected.y, atol=2e-4)
        after.append(np.asarray(got.z))
    # The gradient shows; what is tolerated does not hide it.
    without, _ = go(carry._replace(z=carry.z + noise(1)), sigma=0.0)
    assert np.abs(after[0] - without.z).max() > 0.01


LANGEVIN = Langevin(2, 0.02)


@functools.cache
def langevin_run(variant: str, dtype: str = "float32") -> tuple:
    """`solve` with Langevin updates; 3 puzzles, and their 4 rollouts of 3 steps."""
    model, params, puzzles, _ = thin(variant, dtype)
    run = functools.partial(solve, model, params, KEY, sigma=0.3, langevin=LANGEVIN, save=ALL)
    return puzzles, run, run(puzzles, num_rollouts=4, depth=3)


@BOTH
def test_langevin_is_a_function_of_puzzle_rollout_and_step_alone(variant: str, dtype: str) -> None:
    """12 lanes in tiles of 8, against another order, batch, choice of rollouts and depth."""
    puzzles, run, whole = langevin_run(variant, dtype)
    assert np.asarray(whole.rollout_finite).all()
    rows, ids = np.array([2, 0]), np.array([3, 1])
    part = run(puzzles.take(rows), rollouts=ids, depth=2)
    same(part.rollout_answers, whole.trajectory.answers[rows][:, ids, 1])
    for got, expected in zip(part.trajectory, whole.trajectory, strict=True):
        same(got, expected[rows][:, ids, :2])


@BOTH
def test_langevin_in_solve_is_that_of_steps_and_begins_after_the_first(
    variant: str, dtype: str
) -> None:
    model, params, *_ = thin(variant, dtype)
    puzzles, _, whole = langevin_run(variant, dtype)
    go = functools.partial(step, model, params, KEY, puzzles=puzzles, rollout=2, sigma=0.3)
    plain, _ = go(initial_carry(model, params, 3), t=1)
    carry = initial_carry(model, params, 3)
    for t in range(1, 4):
        carry, _ = go(carry, t=t, langevin=LANGEVIN)
        same(carry.z, whole.trajectory.z[:, 2, t - 1])
        same(carry.y, whole.trajectory.y[:, 2, t - 1])
        if t == 1:
            same(carry, plain)
    assert np.abs(go(plain, t=2)[0].z - whole.trajectory.z[:, 2, 1]).max() > 0.01


@BOTH
def test_a_lane_that_is_not_finite_stays_alone(variant: str, dtype: str) -> None:
    model, params, puzzles, carry = thin(variant, dtype)
    go = functools.partial(
        step, model, params, KEY, puzzles=puzzles, rollout=2, t=2, sigma=0.3, langevin=LANGEVIN
    )
    expected, _ = go(carry)
    others = np.array([0, 2])
    for value in (np.nan, np.inf):
        got, heads = go(carry._replace(z=carry.z.at[1, 0, 0].set(value)))
        same(got.z[others], expected.z[others])
        assert np.isfinite(heads.q_logits[others]).all()
        assert not np.isfinite(heads.q_logits[1]).any()


def test_langevin_goes_down_the_energy_of_a_trained_model() -> None:
    """Without noise, by eta |gradient|^2 to first order; another puzzle's gradient does nothing."""
    model, params = load("sudoku6")
    puzzles = read_dataset("sudoku6").head(8).puzzles
    start = initial_carry(model, params, 8)
    before, gradient = energy(model, params, start, puzzles)
    eta = 0.05
    expected = eta * np.sum(np.square(gradient), axis=(1, 2)).mean()
    assert expected > 0.03

    def change(direction: jax.Array) -> np.ndarray:
        z = langevin_update(start.z, direction, jnp.zeros_like(start.z), eta)
        return np.asarray(energy(model, params, start._replace(z=z), puzzles)[0] - before)

    down = change(gradient)
    assert (down < 0).all()
    assert down.mean() == pytest.approx(-expected, rel=0.1)
    assert change(-gradient).mean() == pytest.approx(expected, rel=0.1)
    assert abs(change(jnp.roll(gradient, 1, axis=0)).mean()) < 0.1 * expected


# --- A pure function ---------------------------------------------------------------------------


def test_under_jit_vmap_and_scan() -> None:
    """The caller's vmap reshapes the arithmetic: it agrees to rounding; jit and scan to the bit."""
    *_, puzzles, _ = reference("mlp_t")
    arrays = jax.tree.map(jnp.asarray, puzzles)

    def q_logits(key: jax.Array, puzzles: Puzzles, sigma: jax.Array) -> jax.Array:
        return solve_one_step(puzzles, key, sigma=sigma).rollout_q_logits

    cases = [
        (KEY, arrays, jnp.float32(0.3)),
        (jax.random.key(8), arrays, jnp.float32(0.3)),
        (KEY, arrays.take(np.array([4, 3, 2, 1, 0])), jnp.float32(0.3)),
        (KEY, arrays, jnp.float32(0.0)),
    ]
    plain = [q_logits(*case) for case in cases]
    same(jax.jit(q_logits)(*cases[0]), plain[0])
    sigmas = jnp.array([0.0, 0.3])
    _, scanned = jax.lax.scan(lambda _, s: (None, q_logits(KEY, arrays, s)), None, sigmas)
    same(scanned, jnp.stack([plain[3], plain[0]]))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *cases)
    np.testing.assert_allclose(jax.vmap(q_logits)(*stacked), jnp.stack(plain), atol=1e-3)
    assert not np.allclose(plain[3], plain[0], atol=1e-2)


def test_own_selection_chooses_and_is_traced_once_per_shape() -> None:
    _, params, puzzles, whole = reference("mlp_t")
    traces = []

    def last(answers: jax.Array, q_logits: jax.Array, finite: jax.Array) -> jax.Array:
        traces.append(answers.shape)
        return jnp.full(answers.shape[0], answers.shape[1] - 1, jnp.int32)

    run = functools.partial(solve_one_step, select=last)
    solution = run(puzzles)
    same(solution.answer, whole.trajectory.answers[:, 1, 0])
    same(solution.q_logit, whole.trajectory.q_logits[:, 1, 0])
    run(puzzles, jax.random.key(9), sigma=0.2)
    run(puzzles.take(np.array([4, 3, 2, 1, 0])), params=jax.tree.map(lambda x: x + 1, params))
    assert traces == [(5, 2, 9)]
    run(puzzles.take(slice(4)), sigma=0.1)
    assert traces == [(5, 2, 9), (4, 2, 9)]


def test_a_new_selection_does_not_compile_the_network_again() -> None:
    *_, puzzles, _ = reference("mlp_t")
    programs = importlib.import_module("ptrm_jax.solver.solve")._rollouts._cache_size
    sizes = []
    for _ in range(2):
        solve_one_step(puzzles, select=lambda a, q, f: jnp.zeros(len(q), jnp.int32))
        sizes.append(programs())
    assert sizes[0] == sizes[1] > 0


def test_a_rollout_out_of_range_is_refused_on_any_device() -> None:
    model, params, puzzles, _ = reference("mlp_t")
    for run in (solve, mesh.solve):
        with pytest.raises(InputError, match=r"rollouts in 0\.\.1, or -1 .* returned 2"):
            run(
                model, params, KEY, puzzles, num_rollouts=2, depth=1, sigma=0.1,
                select=lambda a, q, f: jnp.full(len(q), 2, jnp.int32),
            )  # fmt: skip


def test_another_batch_on_devices_compiles_the_rollouts_and_the_choice_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where operations run one by one, each is a program, and there would be thirty."""
    model, params, puzzles, _ = reference("mlp_t")
    run = functools.partial(mesh.solve, model, params, KEY, num_rollouts=2, depth=1, sigma=0.1)
    run(puzzles)
    with jax.log_compiles():
        run(puzzles.take(slice(4)))
    messages = [record.getMessage() for record in caplog.records]
    compiled = [message.split()[1] for message in messages if message.startswith("Compiling ")]
    assert len(compiled) == 2 and "jit(_choose)" in compiled


def test_save_keeps_what_it_names() -> None:
    model, _, puzzles, whole = reference("mlp_t")
    answers = solve_one_step(puzzles, save=Save(answers=True)).trajectory
    same(answers.answers, whole.trajectory.answers[:, :2, :1])
    assert answers.q_logits is None and answers.y is None and answers.z is None
    assert answers.finite.shape == (5, 2, 1)
    latents = solve_one_step(puzzles, save=Save(latents=True)).trajectory
    assert latents.answers is None and latents.q_logits is None
    assert latents.z.shape == (5, 2, 1, model.config.length, model.config.hidden_size)
    same(whole.trajectory.answers[:, :, -1], whole.rollout_answers)
    same(whole.trajectory.q_logits[:, :, -1], whole.rollout_q_logits)


def test_memory_does_not_grow_with_rollouts() -> None:
    """Beyond the answers it returns `solve` holds one tile, whatever K is."""
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1, seq_len=81)
    puzzles = random_puzzles(model, 64)

    def footprint(num_rollouts: int) -> tuple[int, int]:
        """Bytes of the returned arrays, and of everything."""
        run = jax.jit(functools.partial(solve, model, num_rollouts=num_rollouts))
        used = run.lower(params, KEY, puzzles).compile().memory_analysis()
        returned = used.output_size_in_bytes
        return returned, used.argument_size_in_bytes + used.temp_size_in_bytes + returned

    (_, narrow), (returned, wide) = footprint(16), footprint(128)
    assert returned >= 64 * 128 * 81 * 4
    assert wide <= 1.1 * (narrow + returned)


# --- Choosing ------------------------------------------------------------------------------------


def lane_results(solution: Solution) -> LaneResults:
    per_rollout = (
        solution.rollout_answers,
        solution.rollout_q_logits,
        solution.rollout_finite,
        solution.rollout_step,
    )
    return LaneResults(*(x.reshape(-1, *x.shape[2:]) for x in per_rollout), None)


def test_a_rollout_that_is_not_finite_is_never_chosen() -> None:
    """With noise near the end of float32 some rollouts overflow and others do not."""
    *_, puzzles, _ = reference("mlp_t")
    for sigma in 10.0 ** np.arange(16, 38, 0.25):
        solution = solve_one_step(puzzles, num_rollouts=32, sigma=sigma)
        finite = np.asarray(solution.rollout_finite)
        if not finite.all():
            break
    assert finite.any() and not finite.all()
    chosen = np.asarray(solution.rollout)
    for b in range(5):
        assert finite[b].any() == (chosen[b] >= 0)
        assert chosen[b] < 0 or finite[b, chosen[b]]
    assert np.isfinite(np.asarray(solution.q_logit)[chosen >= 0]).all()


def test_no_finite_rollout_is_no_choice_even_for_a_selection_of_ones_own() -> None:
    _, params, puzzles, _ = reference("mlp_t")
    broken = params | {"L_init": params["L_init"] * jnp.nan}
    by_q = solve_one_step(puzzles, params=broken)
    by_own = choose(lane_results(by_q), 5, lambda *rollouts: jnp.zeros(5, jnp.int32))
    for solution in (by_q, by_own):
        assert not np.any(solution.rollout_finite)
        np.testing.assert_array_equal(solution.rollout, -1)
        np.testing.assert_array_equal(solution.step, 0)
        np.testing.assert_array_equal(solution.answer, 0)
        np.testing.assert_array_equal(solution.q_logit, -np.inf)


# --- Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_rollouts": 0}, "num_rollouts must be a whole number >= 1; got 0"),
        ({"num_rollouts": 2.0}, "num_rollouts"),
        ({"depth": 0}, "depth must be a whole number >= 1; got 0"),
        ({"depth": True}, "depth"),
        ({"lane_tile": 0}, "lane_tile must be a whole number >= 1; got 0"),
        ({"sigma": -0.1}, "sigma must be finite and >= 0; got -0.1"),
        ({"sigma": float("nan")}, "sigma must be finite and >= 0; got nan"),
        ({"sigma": float("inf")}, "sigma must be finite and >= 0; got inf"),
        ({"sigma": np.array([0.1, 0.2])}, "sigma must be a scalar"),
        ({"noise_on": "x"}, "noise_on must be one of z, y, both; got 'x'"),
        ({"noise_when": "last"}, "noise_when must be one of every, first; got 'last'"),
        ({"langevin": 0.1}, "langevin must be a Langevin or None; got 0.1"),
        ({"rollouts": np.array([], np.int32)}, "rollouts must have shape"),
        ({"rollouts": np.array([0, -1])}, "rollouts must be whole numbers >= 0"),
        ({"rollouts": np.array([0.5])}, "rollouts must be whole numbers >= 0"),
        ({"key": jax.random.PRNGKey(0)}, "key must be a typed JAX key"),
        ({"key": 3}, "key must be a typed JAX key"),
        ({"key": jax.random.split(KEY, 2)}, "key must be a single key"),
        ({"key": jax.random.key(0, impl="rbg")}, "key must be threefry2x32; got"),
    ],
)
def test_solve_refuses(change: dict, message: str) -> None:
    model, params, puzzles, _ = reference("mlp_t")
    arguments = {"key": KEY, "num_rollouts": 2, "depth": 1, "sigma": 0.1} | change

    def never(*args: jax.Array) -> jax.Array:
        raise AssertionError("traced before the input was checked")

    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        solve(model, params, arguments.pop("key"), puzzles, **arguments, select=never)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1), "num_updates must be a whole number >= 1; got 0"),
        ((1.0, 0.1), "num_updates must be a whole number >= 1; got 1.0"),
        ((1, 0.0), "step_size must be finite and > 0; got 0.0"),
        ((1, -0.1), "step_size must be finite and > 0; got -0.1"),
        ((1, math.nan), "step_size must be finite and > 0; got nan"),
        ((1, math.inf), "step_size must be finite and > 0; got inf"),
        ((1, "0.1"), "step_size must be finite and > 0; got '0.1'"),
        ((1, None), "step_size must be finite and > 0; got None"),
        ((1, 0.1, 1), "gradient must be True or False; got 1"),
    ],
)
def test_langevin_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Langevin(*arguments)


def test_params_of_another_model_are_refused_by_name() -> None:
    model, params, puzzles, _ = reference("mlp_t")
    wrong = {k: v for k, v in params.items() if k != "H_init"} | {
        "extra": jnp.zeros(1),
        "L_init": jnp.zeros(5),
    }
    with pytest.raises(ValueError) as caught:
        solve(model, wrong, KEY, puzzles, num_rollouts=1, depth=1)
    for part in ("missing H_init", "unexpected extra", "L_init has shape [5], expected [32]"):
        assert part in str(caught.value)


def test_step_refuses() -> None:
    model, params, puzzles, _ = reference("mlp_t")
    carry = initial_carry(model, params, 5)
    go = functools.partial(step, model, params, KEY, carry, puzzles)
    with pytest.raises(ValueError, match="t must be whole numbers >= 1; got 0"):
        go(rollout=0, t=0, sigma=0.1)
    with pytest.raises(ValueError, match="rollout must be whole numbers >= 0; got -1"):
        go(rollout=-1, t=1, sigma=0.1)
    with pytest.raises(ValueError, match=r"rollout must be a scalar or have shape \[5\]"):
        go(rollout=np.arange(4), t=1, sigma=0.1)
    with pytest.raises(ValueError, match=r"carry\.y must have shape \[5, 11, 32\]"):
        step(model, params, KEY, initial_carry(model, params, 4), puzzles, rollout=0, t=1, sigma=0)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), carry)
    with pytest.raises(ValueError, match=r"carry\.y must be in the compute dtype float32"):
        deep_recursion(model, params, half, puzzles)
    with pytest.raises(ValueError, match="batch_size must be a whole number >= 1; got 0"):
        initial_carry(model, params, 0)


def test_lanes_of_any_mixture() -> None:
    """run_lanes takes (puzzle, rollout) pairs in any order: what chunks and shards are made of."""
    model, params, puzzles, whole = reference("mlp_t")
    lanes = Lanes(row=jnp.array([4, 0, 4]), rollout=jnp.array([1, 5, 0]))
    arrays = Puzzles(*(jnp.asarray(field) for field in puzzles))
    results = jax.jit(
        lambda params: run_lanes(model, params, KEY, arrays, lanes, 0.3, LoopSettings(depth=3))
    )(params)
    same(results.q_logits, whole.rollout_q_logits[lanes.row, lanes.rollout])
    one_each = choose(results, 3)
    assert one_each.rollout_answers.shape == (3, 1, 9)
