"""Langevin dynamics as a figure; their law is tested with the solver."""

import csv
import math

import jax
import numpy as np
import pytest
from conftest import load_experiment

from ptrm_jax import analysis, mesh, metrics, solver
from ptrm_jax.analysis import exhibit, langevin
from ptrm_jax.analysis.study import Study
from ptrm_jax.config import Langevin, Save

figures = load_experiment("figures")


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The command would set up the backend, which runs already."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)


def test_step_sizes_have_the_variance_of_plain_noise():
    settings = langevin.Settings(sigma=0.3, updates=(1, 4))
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
        ({"sigma": 0.0}, "sigma must be > 0 where the step size follows from it"),
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


ARGUMENTS = "langevin --checkpoint sudoku6 --num-puzzles 6 --rollouts 3 --depth 2 --sigma 1"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a small figure, and its study."""
    folder = tmp_path_factory.mktemp("langevin")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "use_cpu_cores", lambda: None)
        arguments = [*ARGUMENTS.split(), "--updates", "1", "--output", str(folder)]
        assert figures.main(arguments) == 0
    settings = langevin.Settings(
        checkpoint="sudoku6", num_puzzles=6, rollouts=3, depth=2, sigma=1.0, updates=(1,)
    )
    return folder, Study("langevin", settings, folder)


def test_a_figure_compares_with_its_control_on_the_same_noise(made):
    folder, study = made
    with open(folder / "langevin.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["choice"] == "one"]
    one = {row["method"]: float(row["accuracy"]) for row in rows}
    step_size = study.settings.langevin(1).step_size
    for method, sigma, dynamics in (
        ("Langevin", 0.0, Langevin(1, step_size)),
        ("without gradient", 0.0, Langevin(1, step_size, gradient=False)),
        ("plain noise", 1.0, None),
    ):
        solution = mesh.solve(
            study.model,
            study.params,
            jax.random.key(0, impl="threefry2x32"),
            study.puzzles.puzzles,
            num_rollouts=3,
            depth=2,
            sigma=sigma,
            langevin=dynamics,
            save=Save(answers=True, q_logits=True),
            lane_tile=study.lane_tile,
        )
        right = metrics.exact(solution.rollout_answers, study.puzzles.labels)
        assert one[method] == pytest.approx(right.mean())
    (record,) = exhibit.read(folder, analysis.NAMES)
    gain = record["findings"]["gradient_gain_one_1"]
    assert gain.value == pytest.approx(one["Langevin"] - one["without gradient"])
    assert {"gradient_gain", "plain_gain", "pull"} <= record["findings"].keys()
    assert "eta=0.5" in record["findings"]["gradient_gain"].what
    assert (folder / "langevin.png").exists()


def test_gradients_are_the_solvers(made):
    study = made[1]
    path = study.replay([1], range(3), sigma=0.0, langevin=study.settings.langevin(1))
    gradient = langevin._gradients(study, 1, path)
    carry = solver.Carry(path.y[:, 1, 0], path.z[:, 1, 0])
    puzzles = study.puzzles.puzzles.take(np.array([1]))
    _, alone = solver.energy(study.model, study.params, carry, puzzles, lane_tile=study.lane_tile)
    scale = np.abs(alone).max()
    np.testing.assert_allclose(gradient[1, 0], alone[0], atol=1e-4 * scale)
    assert scale > 0
