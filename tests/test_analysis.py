"""Studies, exhibits, their command, and the figures that are made from sweeps alone."""

import dataclasses
import json
import math
import re

import jax
import numpy as np
import pytest
from conftest import load_experiment

import ptrm_jax
from ptrm_jax import analysis, mesh, metrics, solver
from ptrm_jax.analysis import cost, exhibit, langevin, q_head, sigma, study, width
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.config import Langevin, Save
from ptrm_jax.errors import InputError
from ptrm_jax.files import signed
from ptrm_jax.metrics import Interval
from ptrm_jax.model import Carry, flops_per_rollout_step
from ptrm_jax.sweep.config import Numerics

figures = load_experiment("figures")

SMALL = "--checkpoint sudoku6 --num-puzzles 4 --rollouts 2 --depth 2 --sigma 6 --devices 1"
SMALL += " --lane-tile 8"  # with so much noise some rollouts fail


@pytest.fixture(scope="module", autouse=True)
def backend_as_it_is():
    """The command would set up the backend, which runs already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mesh, "use_cpu_cores", lambda: None)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the figures of this file are made, so that they share their sweeps."""
    return tmp_path_factory.mktemp("figures")


def small_study(folder, name="q_head", **own):
    """A study with the settings of `SMALL`."""
    kind = analysis.load(name).Settings
    defaults = kind()
    search = dataclasses.replace(defaults.search, rollouts=2, depth=2, sigma=6.0)
    inputs = dataclasses.replace(defaults.inputs, checkpoint="sudoku6", num_puzzles=4)
    numerics = Numerics(lane_tile=8, devices=1)
    settings = kind(inputs=inputs, search=search, numerics=numerics, **own)
    return study.Study(name, settings, folder, defaults=defaults)


# --- Q against the truth -------------------------------------------------------------------------


def test_by_step_pools_the_rollouts_of_a_puzzle():
    values = np.array([[[1.0, 2.0], [3.0, np.inf]], [[8.0, 0.0], [5.0, 7.0]]])
    chosen = np.array([[True, True], [True, False]])
    first, second = q_head.by_step(values, chosen)
    assert first.mean == pytest.approx((1 + 3 + 8) / 3)
    assert second.mean == pytest.approx((2 + 0) / 2)  # what is not finite does not count
    # Resampling two puzzles gives one, the other or both.
    assert (first.low, first.high) == (2.0, 8.0)
    assert np.isnan(q_head.by_step(values, np.zeros((2, 2), bool))[0].mean)


def test_reliability_by_hand():
    # Two bins: Q = 0 says one half and is right once in four; a large Q says 1 and is.
    q = np.array([[0.0, 0.0, 50.0], [0.0, 0.0, 50.0]])
    correct = np.array([[True, False, True], [False, False, True]])
    finite = np.ones((2, 3), bool)
    diagram = q_head.reliability(correct, q, finite=finite, num_bins=4)
    np.testing.assert_allclose(diagram.said, [0.5, 1.0])
    assert [rate.mean for rate in diagram.right] == [0.25, 1.0]
    assert diagram.num_rollouts.tolist() == [4, 2]
    assert diagram.error == pytest.approx((4 * 0.25 + 2 * 0.0) / 6)
    finite[0] = False  # half of one wrong; the other puzzle alone
    diagram = q_head.reliability(correct, q, finite=finite, num_bins=4)
    assert diagram.num_rollouts.tolist() == [2, 1]
    assert diagram.error == pytest.approx(2 * 0.5 / 3)


def test_coverage_by_hand():
    correct = np.array([True, False, True, True, False])
    q = np.array([3.0, 1.0, 1.0, 2.0, -np.inf])
    curve = q_head.coverage(correct, q)
    assert curve.threshold.tolist() == [3.0, 2.0, 1.0]
    # Equal Qs are answered together; where there is no answer, none is given.
    np.testing.assert_allclose(curve.covered, [0.2, 0.4, 0.8])
    assert [rate.mean for rate in curve.right] == [1.0, 1.0, 0.75]
    assert len(q_head.coverage(correct, np.full(5, -np.inf)).threshold) == 0


# --- Width and depth -----------------------------------------------------------------------------


def test_the_best_width_and_depth_of_equal_compute():
    values = np.array([[0.1, 0.2, 0.5], [0.2, 0.4, 0.6]])
    best = width.at_equal_compute(values, [1, 2], [1, 2, 4])
    # 2 rollout-steps: both are as good, the narrowest is taken; 4: one deep rollout is better.
    assert best == {1: (1, 1), 2: (1, 2), 4: (1, 4), 8: (2, 4)}


# --- Noise ---------------------------------------------------------------------------------------


def test_the_best_sigma_is_the_smallest_of_the_best():
    values = {0.3: 0.8, 0.1: 0.8, 1.0: 0.2}
    chosen = sigma.best_sigma({s: Interval(v, 0, 1, 4) for s, v in values.items()})
    assert chosen == 0.1


def test_the_sigma_of_the_sentences_is_run():
    settings = sigma.Settings(search=study.OneSigma(sigma=0.15), sigmas=(1.0, 0.1))
    assert settings.scales == (0.1, 0.15, 1.0)


# --- Cost ----------------------------------------------------------------------------------------


def test_the_cost_of_an_answer_by_hand():
    # One of four puzzles always, one half of the time (over two seeds): 1.5 of 4 solved.
    solved = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    way = cost.cost(solved, 30, steps_per_second=10.0)
    assert way.seconds == 3.0
    assert way.accuracy.mean == 0.375
    assert way.steps_per_right.mean == pytest.approx(30 * 4 / 1.5)
    assert way.seconds_per_right.mean == pytest.approx(3 * 4 / 1.5)
    assert way.steps_per_right.low < 80 < way.steps_per_right.high
    assert way.steps_per_right.num_puzzles == 4
    assert np.isnan(cost.cost(np.zeros((1, 4)), 30, 10.0).steps_per_right.mean)
    # The paper's Table 2: a dollar buys 1,440 seconds of an H100 at 2.50 an hour.
    assert cost.Settings(dollars_per_hour=2.5).price(1440) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["sudoku6", "maze11"])
def test_xla_counts_the_matrix_products_and_a_little_more(name):
    model, params = ptrm_jax.load(name)
    counted = cost.compiled_flops_per_rollout_step(model, params, 4)
    by_hand = flops_per_rollout_step(model.config)
    assert by_hand < counted < 1.1 * by_hand


# --- Langevin dynamics; their law is tested with the solver --------------------------------------


def test_step_sizes_have_the_variance_of_plain_noise():
    settings = langevin.Settings(search=study.OneSigma(sigma=0.3), updates=(1, 4))
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
        (
            {"search": study.OneSigma(sigma=0.0)},
            "sigma must be > 0 where the step size follows from it",
        ),
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


# --- Studies -------------------------------------------------------------------------------------


def test_a_sweep_is_run_once_and_replayed_to_the_bit(tmp_path):
    small, steps = small_study(tmp_path), []
    small.progress = lambda total: lambda done, what: steps.append((done, total))
    result = small.sweep()
    # The deterministic TRM has a rollout too.
    assert sum(done for done, _ in steps) == steps[0][1] == 4 * 2 * (2 + 1)
    steps.clear()
    again = small.sweep()
    assert not steps
    rollouts = result.runs[0].rollouts
    for field in dataclasses.fields(rollouts):
        first, second = (getattr(r, field.name) for r in (rollouts, again.runs[0].rollouts))
        np.testing.assert_array_equal(first, second)

    path = small.replay([2, 0], [1, 0])
    np.testing.assert_array_equal(path.q_logit, rollouts.q_logit[[2, 0]][:, [1, 0]])
    np.testing.assert_array_equal(path.correct, rollouts.correct[[2, 0]][:, [1, 0]])
    cells = path.cell_accuracy.astype(np.float32)
    np.testing.assert_array_equal(cells, rollouts.cell_accuracy[[2, 0]][:, [1, 0]])
    quiet, config = small.replay([3, 1], [1, 0], sigma=0.0), small.prepared.model.config
    without = result.deterministic.rollouts.q_logit[[3, 1]]
    np.testing.assert_array_equal(quiet.q_logit, np.repeat(without, 2, axis=1))
    assert quiet.y.shape == quiet.z.shape == (2, 2, 2, config.length, config.hidden_size)
    # After the norm the latent's root mean square is 1, the unit of sigma.
    np.testing.assert_allclose(np.square(quiet.z).mean(-1), 1, atol=1e-3)


def test_a_command_states_what_is_not_the_default():
    settings = cost.Settings(
        search=study.OneSigma(rollouts=64, sigma=0.3, seeds=(0, 1)),
        numerics=Numerics(lane_tile=8),
        dollars_per_hour=2.0,
    )
    text = study.Study("cost", settings, "x", defaults=cost.Settings()).command
    assert text == (
        "python experiments/figures.py cost --seeds 0 1 --sigma 0.3 --lane-tile 8 "
        "--dollars-per-hour 2.0"
    )
    assert figures._parse("cost", text.split()[3:], alone=True) == (settings, "runs/figures")


def test_settings_of_all_figures_change_only_what_is_given():
    arguments = ["--depth", "3", "--num-puzzles", "None", "--output", "x"]
    for name in ("q_head", "width", "sigma", "langevin", "cost"):
        defaults = analysis.load(name).Settings()
        inputs = dataclasses.replace(defaults.inputs, num_puzzles=None)
        search = dataclasses.replace(defaults.search, depth=3)
        changed = dataclasses.replace(defaults, inputs=inputs, search=search)
        assert figures._parse(name, arguments, alone=False) == (changed, "x")


# --- Exhibits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding.of("", Interval(0.5, 0.25, 0.75, 8)), "50.0 % [25.0, 75.0], n=8"),
        (Finding.of("", Interval(-0.05, -0.1, 0.0, 8), "points"), "-5.0 points [-10.0, +0.0], n=8"),
        (Finding.of("", Interval(1234.5, 900, 2000, 3), "number"), "1,234 [900, 2,000], n=3"),
        (Finding.single("", 0.00123456, "dollars"), "0.00123 dollars"),
        (Finding.single("", 0.0, "number", 5), "0.00, n=5"),
    ],
)
def test_findings_as_text(finding, text):
    assert finding.text() == text


def test_an_exhibit_comes_back_and_is_shown(tmp_path):
    shown = Exhibit(
        name="modes",
        title="A <title>",
        caption="digest, n",
        command="python experiments/figures.py modes",
        reading=["It says & means."],
        findings={"none": Finding.single("nothing", float("nan"), "number", 0)},
        provenance={"data": {"digest": "ab"}, "checkpoint": {"name": "sudoku9"}},
        data={"x": np.arange(3)},
        rows=[{"a": 1, "b": 2.5}],
        files={".gif": b"GIF89a"},
    )
    names = shown.write(tmp_path)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    np.testing.assert_array_equal(np.load(tmp_path / "modes.npz")["x"], [0, 1, 2])
    assert (tmp_path / "modes.csv").read_text() == "a,b\n1,2.5\n"
    (saved,) = exhibit.read(tmp_path, analysis.NAMES)
    assert np.isnan(saved["findings"]["none"].value)
    page = exhibit.index([saved], {"basins": "no puzzle <fails>"})
    assert "A &lt;title&gt;" in page and "It says &amp; means." in page
    assert '<img src="modes.gif"' in page and "no puzzle &lt;fails&gt;" in page
    assert not re.search(r"https?://", page)
    json.loads((tmp_path / "modes.json").read_text(), parse_constant=pytest.fail)
    saved["provenance"]["checkpoint"] = {"name": "maze11"}
    text = exhibit.markdown({"here": [saved]})
    assert r"## A \<title>: maze11" in text and r"![A \<title>](here/modes.gif)" in text


# --- Figures and their command -------------------------------------------------------------------


def foreign(change):
    """The JSON of an exhibit that somebody else wrote, signed."""
    saved = {
        "name": "width",
        "title": "A <script>alert(1)</script>",
        "caption": "[x](javascript:alert(1))",
        "command": "a `b` | c",
        "reading": ["</p><img src=x onerror=alert(1)>"],
        "findings": {},
        "files": ["width.png"],
        "provenance": {"checkpoint": {"name": "<b>|"}},
    }
    return json.dumps(signed({**saved, **change}))


def test_a_foreign_record_is_text_wherever_it_is_shown(tmp_path):
    (tmp_path / "width.json").write_text(foreign({}))
    exhibits = exhibit.read(tmp_path, ["width"])
    page = exhibit.index(exhibits, {"<b>": "<i>"})
    assert not any(tag in page for tag in ("<script", "<img src=x", "<b>", "<i>"))
    shown = exhibit.markdown({"a b": exhibits}).split("## ", 1)[1]
    assert shown == (
        "A \\<script>alert(1)\\</script>: \\<b>\\|\n\n"
        "![A \\<script>alert(1)\\</script>](a%20b/width.png)\n\n"
        "\\</p>\\<img src=x onerror=alert(1)>\n\n"
        "*[x\\](javascript:alert(1)). `` a `b` \\| c ``*\n"
    )


@pytest.mark.parametrize(
    "change",
    [
        {"name": "sigma"},
        {"files": ["../../etc/passwd"]},
        {"files": ['x" onerror="alert(1)']},
        {"files": "width.png"},
        {"reading": "text"},
        {"findings": {"x": {"what": 1}}},
        {"provenance": {}},
        {"more": 1},
        {"title": "changed", "sha256": "0"},
    ],
    ids=str,
)
def test_a_record_of_another_shape_is_refused(change, tmp_path):
    text = foreign(change) if "sha256" not in change else foreign({}).replace("A <", "B <")
    (tmp_path / "width.json").write_text(text)
    with pytest.raises(InputError, match=r"width.json is not the record of a figure"):
        exhibit.read(tmp_path, ["width"])


@pytest.mark.parametrize("name", ["q_head", "width", "sigma", "langevin", "cost"])
def test_a_figure_is_made(name, folder, tmp_path, monkeypatch):
    compared = {key: sigma.VARIANTS[key] for key in ("z_every", "z_first")}  # a program each
    monkeypatch.setattr(sigma, "VARIANTS", compared)
    own = {"sigma": {"sigmas": (0.1, 6.0)}, "langevin": {"updates": (1,)}}
    shown = analysis.load(name).make(small_study(folder, name, **own.get(name, {})))
    shown.write(tmp_path)
    assert shown.name == name and all(shown.reading)
    digest = shown.provenance["checkpoint"]["digest"]
    for part in (digest[:8], "4 of 512 puzzles", "K=2, D=2", "sigma", "seed 0"):
        assert part in shown.caption
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_makes_figures_and_says_what_cannot_be_shown(folder, monkeypatch, capsys):
    def nothing(study):
        raise exhibit.NothingToShow("no puzzle fails; pass harder ones")

    monkeypatch.setattr(cost, "make", nothing)
    assert figures.main(["cost", "--output", str(folder)]) == 2
    assert "error: no puzzle fails; pass harder ones" in capsys.readouterr().err
    monkeypatch.setattr(analysis, "NAMES", ("cost", "q_head"))
    assert figures.main(["all", *SMALL.split(), "--output", str(folder)]) == 0
    (saved,) = exhibit.read(folder, analysis.NAMES)
    assert saved["command"].startswith("python experiments/figures.py q_head --checkpoint sudoku6")
    out = " ".join(capsys.readouterr().out.split())
    assert " ".join(saved["reading"][0].split()) in out
    page = (folder / "index.html").read_text()
    assert "no puzzle fails; pass harder ones" in page and "q_head.png" in page
    assert saved["title"] in page


def test_a_figure_says_what_the_sweep_says(folder):
    """Numbers of the exhibit, from the scores of the rollouts in other ways."""
    small = small_study(folder, "width")
    shown = width.make(small)
    result = small.sweep(equal_compute=True)
    rollouts, deep = result.runs[0].rollouts, result.deterministic.rollouts.correct[:, 0]
    right = rollouts.correct[:, :, 1]
    assert shown.findings["trm"].value == deep[:, 1].mean()
    assert shown.findings["trm_equal_compute"].value == deep[:, 3].mean()
    assert shown.findings["pass"].value == right.any(axis=1).mean()
    best = rollouts.q_logit[:, :, 1].argmax(axis=1)
    chosen = right[np.arange(4), best]
    assert 0 < right.mean() < 1
    assert shown.findings["best_q"].value == chosen.mean()
    gain = chosen.mean() - deep[:, 3].mean()
    assert shown.findings["gain_equal_compute"].value == pytest.approx(gain)
    rows = {(row["choice"], row["rollouts"], row["depth"]): row["accuracy"] for row in shown.rows}
    assert rows["best-Q@k", 1, 2] == pytest.approx(right.mean())
    np.testing.assert_allclose(
        shown.data["best_q"], [[rows["best-Q@k", k, d] for d in (1, 2)] for k in (1, 2)]
    )


def test_langevin_is_compared_with_its_control_on_the_same_noise(folder):
    small = small_study(folder, "langevin", updates=(1,))
    shown, prepared = langevin.make(small), small.prepared
    one = {row["method"]: row["accuracy"] for row in shown.rows if row["choice"] == "one"}
    step_size = small.settings.langevin(1).step_size
    assert step_size == 6.0**2 / 2
    for method, scale, dynamics in (
        ("Langevin", 0.0, Langevin(1, step_size)),
        ("without gradient", 0.0, Langevin(1, step_size, gradient=False)),
        ("plain noise", 6.0, None),
    ):
        solution = mesh.solve(
            prepared.model,
            prepared.params,
            jax.random.key(0, impl="threefry2x32"),
            prepared.puzzles.puzzles,
            num_rollouts=2,
            depth=2,
            sigma=scale,
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
    assert "eta=18" in shown.findings["gradient_gain"].what


def test_gradients_are_the_solvers(folder):
    small = small_study(folder, "langevin", updates=(1,))
    prepared, dynamics = small.prepared, small.settings.langevin(1)
    path = small.replay([1], range(2), sigma=0.0, langevin=dynamics)
    gradient = langevin._gradients(small, 1, path)
    # In another order: step by step.
    y, z = (s[0].swapaxes(0, 1).reshape(4, *s.shape[3:]) for s in (path.y, path.z))
    puzzles = prepared.puzzles.puzzles.take(np.full(4, 1))
    _, alone = solver.energy(
        prepared.model, prepared.params, Carry(y, z), puzzles, lane_tile=prepared.lane_tile
    )
    alone = np.asarray(alone).reshape(2, 2, *y.shape[1:]).swapaxes(0, 1)
    scale = np.abs(alone).max()
    np.testing.assert_allclose(gradient, alone, atol=1e-4 * scale)
    assert scale > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "figure must be one of modes, q_head"),
        (["q_head", "--rollouts", "0"], "rollouts must be a whole number >= 1; got 0"),
        (["q_head", "--checkpoint", "none"], "none"),
        (["cost", "--dollars-per-hour", "-1"], "dollars_per_hour -1.0; pass"),
        (["cost", "--dollars-per-hour", "nan"], "dollars_per_hour nan; pass"),
        (["all", "--depth", "0"], "depth must be a whole number >= 1; got 0"),
    ],
)
def test_the_command_refuses(arguments, message, tmp_path, capsys):
    output = tmp_path / "out"
    try:
        status = figures.main([*arguments, "--output", str(output)])
    except SystemExit as stop:  # of the parser, which checks single flags
        status = stop.code
    assert status == 2
    # The parser draws a box, which breaks lines.
    printed = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in printed and printed.lower().count("error") == 1 + printed.count(
        "Error parsing"
    )
    assert not output.exists()


def test_ratio_interval_by_hand():
    value = metrics.ratio_interval([1.0, 3.0, 0.0], [2.0, 2.0, 0.0])
    assert value.mean == 1.0 and value.num_puzzles == 2
    assert value.low == 0.5 and value.high == 1.5  # either puzzle alone
    same = metrics.ratio_interval([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert same[:3] == (0.5, 0.5, 0.5)
    assert metrics.ratio_interval([0.0], [0.0]).num_puzzles == 0
    # A fraction that all puzzles share says as little of others as it does to `interval`.
    all_right = metrics.ratio_interval([2.0, 3.0, 0.0], [2.0, 3.0, 0.0], bounds=(0, 1))
    assert all_right[:3] == metrics.interval(np.ones(2))[:3] and all_right.low < 0.4
    bounded = metrics.ratio_interval([1.0, 3.0], [2.0, 4.0], bounds=(0, 1))
    assert bounded == metrics.ratio_interval([1.0, 3.0], [2.0, 4.0])
    # With equal denominators it is the mean, and its interval the one of the mean.
    rng = np.random.default_rng(0)
    right = rng.random(200) < 0.7
    ours, mean = metrics.ratio_interval(right, np.ones(200)), metrics.interval(right)
    np.testing.assert_allclose(ours[:3], mean[:3], atol=0.01)


@pytest.mark.parametrize(
    ("numerator", "denominator", "message"),
    [
        ([1.0], [1.0, 2.0], "must be \\[B\\]"),
        ([np.nan], [1.0], "must be finite"),
        ([1.0], [-1.0], "denominator >= 0"),
    ],
)
def test_ratio_interval_refuses(numerator, denominator, message):
    with pytest.raises(ValueError, match=message):
        metrics.ratio_interval(numerator, denominator)
