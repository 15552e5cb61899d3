"""Tangents against linear maps and finite differences, rollouts against `solve`, ends by hand."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import random_puzzles, small_model

from ptrm_jax import Save, load, make_puzzles, mesh
from ptrm_jax.analysis import dynamics, tangent
from ptrm_jax.analysis.exhibit import NothingToShow
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.data import Dataset
from ptrm_jax.model import TRM, Carry
from ptrm_jax.solver import initial_carry

KEY = jax.random.key(7, impl="threefry2x32")

# --- Tangents ------------------------------------------------------------------------------------


def linear(matrix: np.ndarray):
    """A step of `grow` that maps every lane by a matrix and keeps the time."""
    matrix = jnp.asarray(matrix, jnp.float32)
    return lambda state, time: (state @ matrix.T, time)


def test_growth_of_a_linear_map_is_its_largest_eigenvalue() -> None:
    basis = np.array([[1.0, 0.6], [0.0, 0.8]])  # the eigenvectors are not orthogonal
    matrix = basis @ np.diag([3.0, 0.5]) @ np.linalg.inv(basis)
    start = np.stack([[0.3, -1.0], basis[:, 0], basis[:, 1]]).astype(np.float32)
    state = jnp.ones((3, 2))
    last, kept, _, log_growth = tangent.grow(
        linear(matrix), state, jnp.asarray(start), jnp.arange(4)
    )
    np.testing.assert_allclose(last, np.ones((3, 2)) @ np.linalg.matrix_power(matrix.T, 4), 1e-5)
    np.testing.assert_array_equal(kept, np.arange(4))
    # Along an eigenvector every step; from anywhere else in the end.
    np.testing.assert_allclose(log_growth[:, 1], np.log(3), rtol=1e-5)
    np.testing.assert_allclose(log_growth[0, 2], np.log(0.5), rtol=1e-5)
    far = tangent.grow(linear(matrix), state, jnp.asarray(start), jnp.arange(30))[3]
    np.testing.assert_allclose(far[-1, 0], np.log(3), rtol=1e-5)
    # Together the steps are the growth under their product, however it was made a unit between.
    whole = np.linalg.matrix_power(matrix, 4) @ start[0]
    total = np.linalg.norm(whole) / np.linalg.norm(start[0])
    np.testing.assert_allclose(log_growth[:, 0].sum(), np.log(total), rtol=1e-5)


def test_turning_neither_grows_nor_shrinks_and_zero_ends_it() -> None:
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    state, start = jnp.ones((2, 2)), jnp.asarray([[1.0, 0.0], [2.0, 5.0]])
    np.testing.assert_allclose(
        tangent.grow(linear(2 * turn), state, start, jnp.arange(3))[3], np.log(2), rtol=1e-6
    )
    gone = tangent.grow(linear(0 * turn), state, start, jnp.arange(3))[3]
    assert np.isneginf(gone).all()


def test_moves_are_root_mean_squares_by_leaf_and_lane() -> None:
    def step(state: Carry, time: jax.Array) -> tuple[Carry, None]:
        return Carry(y=state.y + time, z=state.z * 2.0), None

    state = Carry(y=jnp.zeros((2, 3, 4)), z=jnp.asarray([[1.0, 1.0], [3.0, 4.0]]))
    *_, move, _ = tangent.grow(step, state, state._replace(y=state.y + 1.0), jnp.arange(1.0, 4.0))
    np.testing.assert_allclose(move.y, [[1, 1], [2, 2], [3, 3]], rtol=1e-6)
    first = np.sqrt([1.0, 12.5])  # doubling moves by what was there
    np.testing.assert_allclose(move.z, [first, 2 * first, 4 * first], rtol=1e-6)


def test_jvp_is_that_of_jax_where_jax_has_one() -> None:
    def fn(x: dict) -> tuple[dict, jax.Array]:
        return {"a": jnp.sin(x["a"]) * x["b"], "b": x["b"] ** 3}, x["a"] + 1.0

    x = {"a": jnp.asarray([0.3, 1.0]), "b": jnp.asarray([2.0, -1.0])}
    v = {"a": jnp.asarray([1.0, -2.0]), "b": jnp.asarray([0.5, 3.0])}
    (out, other), pushed = tangent.jvp(fn, x, v)
    expected, expected_pushed, expected_other = jax.jvp(fn, (x,), (v,), has_aux=True)
    for got, want in ((out, expected), (pushed, expected_pushed), (other, expected_other)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, want)


@pytest.mark.parametrize("name", ["maze11", "sudoku6"])  # attention and mlp_t
def test_jvp_of_the_network_is_its_finite_difference(name: str) -> None:
    model, params = load(name)
    shape = (3, model.config.length, model.config.hidden_size)
    s, injection, v = (jax.random.normal(key, shape) for key in jax.random.split(KEY, 3))

    @jax.jit
    def f(s: jax.Array) -> jax.Array:
        return model.apply({"params": params}, s[0], injection[0], method=TRM.f)[None]

    _, pushed = jax.jit(lambda s, v: tangent.jvp(lambda s: (f(s), None), s, v))(s[:1], v[:1])
    h = 1e-2
    difference = (f(s + h * v) - f(s - h * v)) / (2 * h)
    assert jnp.linalg.norm(difference - pushed) < 2e-3 * jnp.linalg.norm(pushed)


def test_followed_rollouts_are_those_of_solve() -> None:
    """Also across calls and tiles: 15 lanes in tiles of 2, the last call filled up."""
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1)
    puzzles, rollouts = random_puzzles(model, 5), np.array([4, 0, 7])
    settings = {"rollouts": rollouts, "depth": 2, "lane_tile": 2, "devices": jax.devices()[:1]}
    save = Save(answers=True, q_logits=True, latents=True)
    start = initial_carry(model, params, 1)
    for sigma in (0.3, 0.0):
        done = []
        given = (model, params, KEY, puzzles)
        followed = tangent.follow(*given, sigma=sigma, progress=done.append, **settings)
        path = mesh.solve(*given, sigma=sigma, save=save, **settings).trajectory
        np.testing.assert_array_equal(followed.answers, path.answers)
        np.testing.assert_array_equal(followed.finite, path.finite)
        np.testing.assert_allclose(followed.q_logit, path.q_logits, atol=1e-4)
        np.testing.assert_allclose(followed.y, path.y[:, :, -1], atol=1e-4)
        for name in ("y", "z"):
            before, first, last = getattr(start, name), *np.moveaxis(getattr(path, name), 2, 0)
            steps = np.stack([first - np.asarray(before), last - first], axis=2)
            rms = np.sqrt((steps**2).mean(axis=(3, 4)))
            np.testing.assert_allclose(getattr(followed, f"move_{name}"), rms, atol=1e-4)
        assert sum(done) == 5 * 3 * 2
        # Every rollout has its own tangent, also without noise.
        assert len(np.unique(followed.log_growth[:, :, 0])) == 15


# --- Ends ----------------------------------------------------------------------------------------


def test_an_answer_is_kept_if_it_is_the_same_in_all_late_steps() -> None:
    late = [[5, 5, 5], [5, 5, 4], [5, 4, 4], [4, 5, 4]]
    answers = np.array(late)[None, :, :, None].repeat(2, axis=3)  # [1, 4, 3, 2]
    np.testing.assert_array_equal(dynamics.keeps_answer(answers, 2), [[True, False, True, False]])
    np.testing.assert_array_equal(dynamics.keeps_answer(answers, 3), [[True, False, False, False]])
    answers[0, 0, 1, 1] = 0  # one cell
    assert not dynamics.keeps_answer(answers, 2)[0, 0]


def test_late_means_and_the_move_of_right_rollouts() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_allclose(dynamics.late_mean(values, 2), values[..., 2:].mean(axis=-1))
    move = np.arange(200.0).reshape(2, 100)
    right = np.zeros((2, 100), bool)
    right[0] = True
    assert dynamics.calm(move, right) == pytest.approx(0.95 * 99)
    assert np.isnan(dynamics.calm(move, ~np.ones_like(right)))


def test_rate_ignores_what_is_not_finite_and_weighs_rollouts() -> None:
    what = np.array([[1.0, -np.inf, 4.0], [1.0, 9.0, 9.0]])
    chosen = np.array([[True, True, True], [True, False, False]])
    assert dynamics.rate(what, chosen).mean == pytest.approx(2.0)
    assert dynamics.rate(what, chosen).num_puzzles == 2
    # Two puzzles that agree are no proof about others.
    all_of_them = dynamics.rate(np.ones((2, 3), bool), chosen)
    assert all_of_them.mean == all_of_them.high == 1 and all_of_them.low < 0.5


def test_basins_of_planted_points() -> None:
    """Root mean square distances: neighbours in a chain 1 apart, the others 10 away."""
    chain = np.arange(3.0)[:, None] * np.ones(7)
    states = np.concatenate([chain, chain[:2] + 10.0])[[0, 3, 1, 4, 2]]
    near = dynamics.basins(states, 1.01)
    assert near[0] == near[2] == near[4] != near[1] == near[3]
    assert len(set(dynamics.basins(states, 0.99))) == 5
    assert len(set(dynamics.basins(states, 8.01))) == 1  # from the end of the chain
    np.testing.assert_array_equal(dynamics.basins(states[:1], 1.0), [1])


def test_the_spread_of_the_noise_is_that_of_right_pairs() -> None:
    states = np.zeros((3, 3, 4))
    states[0, :, :] = np.array([0.0, 1.0, 50.0])[:, None]  # the third is wrong
    states[1, :, :] = np.array([0.0, 1.0, 2.0])[:, None]
    right = np.array([[True, True, False], [True, True, True], [True, False, False]])
    # Pairs at 1; 1, 1, 2.
    expected = np.quantile([1, 1, 1, 2], dynamics.COMMON)
    assert dynamics.noise_spread(states, right) == pytest.approx(expected)
    assert np.isnan(dynamics.noise_spread(states[2:], right[2:]))


def test_pairs_in_one_basin_and_how_many_there_are() -> None:
    basin = np.array([[1, 1, 2, 3], [1, 1, 1, 2]])
    chosen = np.array([[True, True, True, False], [True, True, True, True]])
    # Of 3 pairs one, of 6 pairs three.
    assert dynamics.together(basin, chosen).mean == pytest.approx(4 / 9)
    np.testing.assert_array_equal(dynamics.number_of(basin, chosen), [2, 2])
    np.testing.assert_array_equal(dynamics.number_of(basin, chosen & ~chosen), [0, 0])


def test_the_rollout_that_moves_least_is_chosen_by_seed() -> None:
    """Two seeds of two rollouts; y moves and z moves count alike, the last step alone."""
    move_y = np.array([[[9.0, 3.0], [0.0, 4.0], [0.0, 1.0], [0.0, 2.0]]])
    move_z = np.array([[[9.0, 4.0], [0.0, 4.0], [0.0, 1.0], [0.0, 0.0]]])
    followed = tangent.Followed(
        log_growth=np.zeros((1, 4, 2)),
        move_y=move_y,
        move_z=move_z,
        answers=np.zeros((1, 4, 2, 3), np.int32),
        q_logit=np.array([[[0.0, 1.0], [0.0, 2.0], [0.0, 4.0], [0.0, 3.0]]]),
        finite=np.ones((1, 4, 2), bool),
        y=np.zeros((1, 4, 5, 6)),
    )
    right, finite = np.array([[True, False, False, True]]), np.ones((1, 4), bool)
    chosen = dynamics._choices(followed, right, finite, 2)
    np.testing.assert_array_equal(chosen["residual"], [[1], [0]])  # 25 < 32, and 2 < 4
    np.testing.assert_array_equal(chosen["q"], [[0], [0]])
    finite[0, 2] = False
    np.testing.assert_array_equal(
        dynamics._choices(followed, right, finite, 2)["residual"], [[1], [1]]
    )


# --- The figure ----------------------------------------------------------------------------------


def test_late_steps_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="late must be"):
        dynamics.Settings(late=0)


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> tuple[Study, list]:
    """Four puzzles, three rollouts, four steps: of puzzle 0 all rollouts are right, of 1 two.

    Right ones end 0.02 apart and shrink by e every step, wrong ones 1 apart and grow by e; the
    wrong ones of puzzle 3 keep their answer. TRM has puzzles 0 and 1 right.
    """
    study = Study(
        "dynamics", dynamics.Settings(search=OneSigma(rollouts=3, depth=4), late=2), "unused"
    )
    labels = np.ones((4, 6), np.int32)
    data = Dataset("planted", make_puzzles(labels), labels, None, "", 4)
    study.prepared = SimpleNamespace(
        **{"model": None, "params": None, "puzzles": data, "lane_tile": 2, "devices": None},
        provenance={},
    )
    study.caption = lambda more: more
    right = np.zeros((4, 3), bool)
    right[0], right[1, :2] = True, True
    asked = []

    def follow(model, params, key, puzzles, *, rollouts, sigma, **settings) -> tangent.Followed:
        asked.append((len(rollouts), sigma, settings["depth"]))
        good = right[:, : len(rollouts)]
        shape = good.shape
        answers = np.ones((*shape, 4, 6), np.int32)
        answers[~good] += 1
        answers[1:3, :, 2][~good[1:3]] += 1  # puzzle 3 is left alone
        ones = np.where(good, -1.0, 1.0)[..., None] * np.ones(4)
        move = np.where(good, 0.1, 0.5)[..., None] * np.ones(4)
        apart = np.where(good, 0.02, 1.0) * np.arange(shape[1])
        finite = np.ones((*shape, 4), bool)
        y = apart[..., None, None] * np.ones((5, 6))
        return tangent.Followed(ones, move, 2 * move, answers, -ones, finite, y)

    monkeypatch.setattr(tangent, "follow", follow)
    return study, asked


def test_the_figure_says_what_was_planted(study: tuple, tmp_path: Path) -> None:
    dynamical, asked = study
    shown = dynamics.make(dynamical)
    assert asked == [(3, 0.1, 4), (1, 0.0, 4)]
    values = {name: finding.value for name, finding in shown.findings.items()}
    expected = {
        **{"expansion_right": -1, "expansion_wrong": 1, "expansion_trm_wrong": 1},
        **{"expanding_right": 0, "settled_right": 1, "calm_right": 1, "calm_wrong": 0},
        **{"settled_wrong": 3 / 7, "move_wrong": 0.5},
        "basin_threshold": np.quantile([0.02, 0.02, 0.04, 0.02], 0.95),
        # One basin for puzzle 0, two for 1, three each for 2 and 3; one answer for all the wrong.
        **{"basins_solved": 1.5, "basins_failed": 3, "answers_solved": 1.5, "answers_failed": 1},
        **{"together_right": 1, "together_wrong": 0},
        **{"auc_expansion": 1, "auc_residual": 1, "auc_q": 1},
        **{"residual_choice": 0.5, "best_q": 0.5, "residual_gain": 0},
    }
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    assert "do not show" in shown.reading[0]  # three puzzles have wrong rollouts
    grows = shown.findings["expansion_wrong"]._replace(num_puzzles=5)
    assert dynamics._sign(grows) == 1 and dynamics._sign(grows._replace(low=-0.1)) == 0
    assert {"dynamics.png", "dynamics.npz", "dynamics.csv"} < set(shown.write(tmp_path))


def test_nothing_to_show_without_two_right_rollouts(study: tuple) -> None:
    dynamical, _ = study
    dynamical.prepared.puzzles.labels[:] = -1  # which no answer is
    with pytest.raises(NothingToShow, match="are right; pass more rollouts"):
        dynamics.make(dynamical)
