"""Studies, exhibits, their command, and the analyses that need nothing but a sweep's record."""

import dataclasses
import json
import re

import numpy as np
import pytest
from conftest import load_experiment

import ptrm_jax
from ptrm_jax import analysis, mesh, metrics, sweep
from ptrm_jax.analysis import cost, exhibit, q_head, sigma, study, width
from ptrm_jax.analysis.exhibit import Exhibit, Finding
from ptrm_jax.metrics import Interval
from ptrm_jax.model import flops_per_rollout_step

figures = load_experiment("figures")

SMALL = ["--checkpoint", "sudoku6", "--num-puzzles", "4", "--rollouts", "2", "--depth", "2"]


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """The command would set up the backend, which runs already."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)


def small_study(tmp_path, **settings):
    small = {"checkpoint": "sudoku6", "num_puzzles": 4, "rollouts": 3, "depth": 2, **settings}
    return study.Study("q_head", study.Settings(**small), tmp_path)


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
    assert diagram.count.tolist() == [4, 2]
    assert diagram.error == pytest.approx((4 * 0.25 + 2 * 0.0) / 6)
    finite[0] = False  # half of one wrong; the other puzzle alone
    diagram = q_head.reliability(correct, q, finite=finite, num_bins=4)
    assert diagram.count.tolist() == [2, 1]
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


def test_the_sigma_that_is_talked_of_is_run():
    assert sigma.Settings(sigma=0.15, sigmas=(1.0, 0.1)).sigmas == (0.1, 0.15, 1.0)


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


def test_a_rate_must_be_a_number():
    with pytest.raises(ValueError, match="dollars_per_hour nan"):
        cost.Settings(dollars_per_hour=float("nan"))


# --- Studies -------------------------------------------------------------------------------------


def test_a_sweep_is_made_once_and_replayed_to_the_bit(tmp_path):
    steps = []
    small = small_study(tmp_path)
    small = study.Study(
        *("q_head", small.settings, tmp_path), progress=lambda done, total, what: steps.append(done)
    )
    result = small.sweep()
    assert steps[-1] == 4 * 2 * (3 + 1)  # the deterministic TRM has a rollout too
    steps.clear()
    again = small.sweep()
    assert not steps
    record = result.runs[0].record
    for first, second in zip(record, again.runs[0].record, strict=True):
        np.testing.assert_array_equal(first, second)

    path = small.replay([2, 0], [1, 2])
    np.testing.assert_array_equal(path.q_logit, record.q_logit[[2, 0]][:, [1, 2]])
    np.testing.assert_array_equal(path.correct, record.correct[[2, 0]][:, [1, 2]])
    cells = path.cell_accuracy.astype(np.float32)
    np.testing.assert_array_equal(cells, record.cell_accuracy[[2, 0]][:, [1, 2]])
    quiet = small.replay([3], sigma=0.0)
    np.testing.assert_array_equal(quiet.q_logit[0, 0], result.deterministic.record.q_logit[3, 0])
    length = small.model.config.length
    assert quiet.y.shape == quiet.z.shape == (1, 1, 2, length, small.model.config.hidden_size)
    # After the norm the latent's root mean square is 1, the unit of sigma.
    np.testing.assert_allclose(np.square(quiet.z).mean(-1), 1, atol=1e-3)


def test_a_command_says_what_is_not_the_default():
    settings = cost.Settings(sigma=0.3, seeds=(0, 1), dollars_per_hour=2.5)
    text = study.Study("cost", settings, "x", defaults=cost.Settings()).command
    assert text == "python experiments/figures.py cost --sigma 0.3 --seeds 0 1"
    again = figures._wanted(text.split()[2:])[0]
    assert again == [("cost", settings, cost.Settings())]


# --- Exhibits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finding", "text"),
    [
        (Finding.of("", Interval(0.5, 0.25, 0.75, 8)), "50.0 % [25.0, 75.0], n=8"),
        (Finding.of("", Interval(-0.05, -0.1, 0.0, 8), "points"), "-5.0 points [-10.0, +0.0], n=8"),
        (Finding.of("", Interval(1234.5, 900, 2000, 3), "number"), "1,234 [900, 2,000], n=3"),
        (Finding("", 0.00123456, None, None, None, "dollars"), "0.00123 dollars"),
        (Finding("", 0.0, None, None, 5, "number"), "0.00, n=5"),
    ],
)
def test_findings_as_text(finding, text):
    assert finding.text() == text


def test_an_exhibit_comes_back_and_is_shown(tmp_path):
    shown = Exhibit(
        name="modes_extra",
        title="A <title>",
        caption="digest, n",
        command="python experiments/figures.py modes",
        reading=["It says & means."],
        findings={"none": Finding("nothing", float("nan"), None, None, 0, "number")},
        provenance={"data": {"digest": "ab"}},
        data={"x": np.arange(3)},
        rows=[{"a": 1, "b": 2.5}],
        files={".gif": b"GIF89a"},
    )
    names = shown.write(tmp_path)
    assert sorted(names) == sorted(path.name for path in tmp_path.iterdir())
    np.testing.assert_array_equal(np.load(tmp_path / "modes_extra.npz")["x"], [0, 1, 2])
    assert (tmp_path / "modes_extra.csv").read_text() == "a,b\n1,2.5\n"
    (record,) = exhibit.read(tmp_path, analysis.NAMES)
    assert np.isnan(record["findings"]["none"].value)
    page = exhibit.index([record], {"basins": "no puzzle <fails>"})
    assert "A &lt;title&gt;" in page and "It says &amp; means." in page
    assert '<img src="modes_extra.gif"' in page and "no puzzle &lt;fails&gt;" in page
    assert not re.search(r"https?://", page)
    json.loads((tmp_path / "modes_extra.json").read_text(), parse_constant=pytest.fail)


# --- The command ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["q_head", "width", "sigma", "cost"])
def test_the_command_makes_a_figure(name, tmp_path, capsys, monkeypatch):
    compared = {key: sigma.VARIANTS[key] for key in ("z_every", "z_first")}  # a program each
    monkeypatch.setattr(sigma, "VARIANTS", compared)
    more = ["--sigmas", "0.1", "1.0"] if name == "sigma" else []
    assert figures.main([name, *SMALL, *more, "--output", str(tmp_path)]) == 0
    (record,) = exhibit.read(tmp_path, analysis.NAMES)
    assert record["name"] == name
    out = " ".join(capsys.readouterr().out.split())
    assert " ".join(record["reading"][0].split()) in out
    digest = record["provenance"]["checkpoint"]["digest"]
    for part in (digest[:8], "4 of 512 puzzles", "K=2, D=2", "sigma", "seed 0"):
        assert part in record["caption"]
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert record["title"] in (tmp_path / "index.html").read_text().replace("&#x27;", "'")


def test_what_a_figure_says_is_what_the_sweep_says(tmp_path):
    """Numbers of the exhibit, from the record by other ways."""
    settings = width.Settings(checkpoint="sudoku6", num_puzzles=6, rollouts=4, depth=1, sigma=1.0)
    small = study.Study("width", settings, tmp_path)
    (shown,) = width.make(small)
    result = small.sweep(equal_compute=True)
    record = result.runs[0].record
    deep = result.deterministic.record.correct[:, 0]
    assert shown.findings["trm"].value == deep[:, 0].mean()
    assert shown.findings["trm_equal_compute"].value == deep[:, 3].mean()
    assert shown.findings["pass"].value == record.correct[:, :, 0].any(axis=1).mean()
    best = record.q_logit[:, :, 0].argmax(axis=1)
    chosen = record.correct[np.arange(6), best, 0]
    assert shown.findings["best_q"].value == chosen.mean()
    gain = chosen.mean() - deep[:, 3].mean()
    assert shown.findings["gain_equal_compute"].value == pytest.approx(gain)
    rows = {(row["choice"], row["rollouts"], row["depth"]): row["accuracy"] for row in shown.rows}
    assert rows["best-Q@k", 1, 1] == pytest.approx(record.correct[:, :, 0].mean())
    np.testing.assert_allclose(
        shown.data["best_q"][:, 0], [rows["best-Q@k", k, 1] for k in (1, 2, 4)]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "figure must be one of modes, q_head"),
        (["q_head", "--rollouts", "0"], "rollouts must be a whole number >= 1; got 0"),
        (["q_head", "--checkpoint", "none"], "none"),
        (["cost", "--dollars-per-hour", "-1"], "dollars_per_hour -1.0"),
        (["all", "--depth", "0"], "depth must be a whole number >= 1; got 0"),
    ],
)
def test_the_command_refuses(arguments, message, tmp_path, capsys):
    output = tmp_path / "out"
    assert figures.main([*arguments, "--output", str(output)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("error:") == 1
    assert not output.exists()


def test_a_figure_with_nothing_to_show_says_so(tmp_path, monkeypatch, capsys):
    def nothing(study):
        raise exhibit.NothingToShow("no puzzle fails; pass harder ones")

    monkeypatch.setattr(q_head, "make", nothing)
    assert figures.main(["q_head", "--output", str(tmp_path)]) == 2
    assert "error: no puzzle fails; pass harder ones" in capsys.readouterr().err
    monkeypatch.setattr(analysis, "NAMES", ("q_head", "width"))
    assert figures.main(["all", *SMALL, "--output", str(tmp_path)]) == 0
    page = (tmp_path / "index.html").read_text()
    assert "no puzzle fails; pass harder ones" in page and "width.png" in page


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


def test_settings_of_all_figures_have_what_all_may_set():
    common = {field.name for field in dataclasses.fields(figures.Common)}
    for name in ("q_head", "width", "sigma", "cost"):
        fields = {field.name for field in dataclasses.fields(analysis.load(name).Settings)}
        assert common <= fields
    assert sweep.widths(6) == [1, 2, 4, 6]
