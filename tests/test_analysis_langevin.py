"""The figure of Langevin dynamics; their law is tested with the solver."""

import math

import jax
import numpy as np
import pytest

from ptrm_jax import mesh, metrics, solver
from ptrm_jax.analysis import langevin
from ptrm_jax.analysis.study import OneSigma, Study
from ptrm_jax.config import Langevin, Save
from ptrm_jax.model import Carry
from ptrm_jax.sweep.config import Inputs, Numerics


def test_step_sizes_have_the_variance_of_plain_noise():
    settings = langevin.Settings(search=OneSigma(sigma=0.3), updates=(1, 4))
    for number in settings.updates:
        dynamics = settings.langevin(number, gradient=False)
        assert dynamics == Langevin(number, 0.09 / (2 * number), gradient=False)
        assert dynamics.matched_sigma == pytest.approx(0.3)
    assert langevin.Settings(step_size=0.5).langevin(4).step_size == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": (1, 0)}, "updates must be a whole number >= 1; got 0"),
        ({"updates": ()}, "updates must hold at least one value"),
        ({"search": OneSigma(sigma=0.0)}, "sigma must be > 0 where the step size follows from it"),
        ({"step_size": -1.0}, "step_size must be finite and > 0; got -1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        langevin.Settings(**changes)


def test_the_pull_by_hand():
    # A gradient of length 6 in 4 dimensions, eta 0.5: 3 against sqrt(1 * 4) = 2.
    gradient = np.full((1, 2, 2), 3.0)
    np.testing.assert_allclose(langevin.pull(gradient, 0.5), [1.5])
    # The noise it is compared with is as long as that on average.
    rng = np.random.default_rng(0)
    noise = math.sqrt(2 * 0.5) * rng.standard_normal((2000, 2, 2))
    squares = np.square(noise).sum(axis=(1, 2)).mean()
    assert math.sqrt(squares) == pytest.approx(2.0, rel=0.03)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A small figure."""
    settings = langevin.Settings(
        inputs=Inputs("sudoku6", num_puzzles=4),
        search=OneSigma(rollouts=2, depth=2, sigma=1.0),
        numerics=Numerics(lane_tile=4, devices=1),
        updates=(1,),
    )
    return Study("langevin", settings, tmp_path_factory.mktemp("langevin"))


def test_a_figure_compares_with_its_control_on_the_same_noise(study, tmp_path):
    shown, prepared = langevin.make(study), study.prepared
    shown.write(tmp_path)
    assert (tmp_path / "langevin.png").exists()
    one = {row["method"]: row["accuracy"] for row in shown.rows if row["choice"] == "one"}
    step_size = study.settings.langevin(1).step_size
    for method, sigma, dynamics in (
        ("Langevin", 0.0, Langevin(1, step_size)),
        ("without gradient", 0.0, Langevin(1, step_size, gradient=False)),
        ("plain noise", 1.0, None),
    ):
        solution = mesh.solve(
            prepared.model,
            prepared.params,
            jax.random.key(0, impl="threefry2x32"),
            prepared.puzzles.puzzles,
            num_rollouts=2,
            depth=2,
            sigma=sigma,
            langevin=dynamics,
            # As in a sweep, so that the compiled programs are the sweep's.
            save=Save(answers=True, q_logits=True),
            lane_tile=prepared.lane_tile,
            devices=prepared.devices,
        )
        right = metrics.exact(solution.rollout_answers, prepared.puzzles.labels)
        assert one[method] == pytest.approx(right.mean())
    gain = shown.findings["gradient_gain_one_1"]
    assert gain.value == pytest.approx(one["Langevin"] - one["without gradient"])
    assert {"gradient_gain", "plain_gain", "pull"} <= shown.findings.keys()
    assert "eta=0.5" in shown.findings["gradient_gain"].what


def test_gradients_are_the_solvers(study):
    prepared = study.prepared
    path = study.replay([1], range(2), sigma=0.0, langevin=study.settings.langevin(1))
    gradient = langevin._gradients(study, 1, path)
    carry = Carry(path.y[:, 1, 0], path.z[:, 1, 0])
    puzzles = prepared.puzzles.puzzles.take(np.array([1]))
    _, alone = solver.energy(
        prepared.model, prepared.params, carry, puzzles, lane_tile=prepared.lane_tile
    )
    scale = np.abs(alone).max()
    np.testing.assert_allclose(gradient[1, 0], alone[0], atol=1e-4 * scale)
    assert scale > 0
