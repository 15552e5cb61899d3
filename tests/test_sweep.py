"""A sweep from flags to files, on a small random model and puzzles made for it."""

import csv
import dataclasses
import html.parser
import json
import math
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import random_params, small_model

from ptrm_jax import DataError, Langevin, Save, load, mesh, read_dataset, save, solve, sweep
from ptrm_jax.config import ModelConfig
from ptrm_jax.errors import PtrmError, SweepError
from ptrm_jax.metrics import Rollouts
from ptrm_jax.model import flops_per_energy_gradient, flops_per_rollout_step
from ptrm_jax.sweep import Result, Run, SweepConfig, pictures, report, scores, web
from ptrm_jax.sweep.config import powers_of_two
from ptrm_jax.sweep.plan import Unit
from ptrm_jax.sweep.result import assemble_outcome, kept_answers
from ptrm_jax.sweep.run import calibrate, estimate, work


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A checkpoint, and a data folder whose labels are what the model answers at some rollout."""
    folder = tmp_path_factory.mktemp("sweep")
    model, params = small_model("mlp_t", num_layers=1)
    save(folder / "model", model.config, params)
    data = folder / "data" / "test"
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 7, (11, 9)).astype(np.uint8)
    from ptrm_jax import make_puzzles

    puzzles = make_puzzles(inputs.astype(np.int32), np.zeros(11, np.int32))
    answers = solve(
        model, params, jax.random.key(0), puzzles, num_rollouts=4, depth=3, sigma=0.5
    ).rollout_answers
    labels = np.array([answers[b, b % 4] for b in range(11)])
    labels[:3] += 1  # never answered
    labels[labels == 0] = 1  # 0 is the ignored label
    labels[10] = 0  # padding row
    np.save(data / "all__inputs.npy", inputs)
    np.save(data / "all__labels.npy", (labels % 7).astype(np.uint8))
    np.save(data / "all__puzzle_identifiers.npy", np.zeros(11, np.int32))
    np.save(data / "all__puzzle_indices.npy", np.arange(12, dtype=np.int32))
    (data / "dataset.json").write_text(
        json.dumps(
            {
                "seq_len": 9,
                "vocab_size": 7,
                "num_puzzle_identifiers": 1,
                "ignore_label_id": 0,
                "sets": ["all"],
            }
        )
    )
    return {"checkpoint": str(folder / "model"), "data": str(folder / "data")}


@pytest.fixture(scope="module")
def config(files: dict[str, str]) -> SweepConfig:
    return SweepConfig(
        **files,
        sigmas=(0.5, 0.0),
        rollouts=4,
        depth=3,
        seeds=(0, 1),
        num_puzzles=None,
        lane_tile=2,
        devices=2,
    )


@pytest.fixture(scope="module")
def result(config: SweepConfig) -> Result:
    return sweep.run(sweep.prepare(config))


def test_padding_rows_do_not_count(config: SweepConfig, result: Result) -> None:
    assert result.provenance["data"]["num_puzzles"] == 10
    assert result.provenance["data"]["of"] == 11
    for run in (result.deterministic, *result.runs):
        assert len(run.rollouts.correct) == 10


def test_puzzles_without_labels_may_be_solved_and_never_count(
    config: SweepConfig, result: Result, tmp_path: Path
) -> None:
    asked = dataclasses.replace(config, unlabelled=True, keep_answers="last")
    found = sweep.run(sweep.prepare(asked))
    assert found.provenance["data"]["num_puzzles"] == 11
    for run, expected in zip(found.runs, result.runs, strict=True):
        assert run.measured.tokens.shape == (11, 4, 1, 9)
        for name in ("correct", "q_logit", "finite", "valid", "answer_id", "digest"):
            got, other = (getattr(r.rollouts, name) for r in (run, expected))
            np.testing.assert_array_equal(got, other)
    # With no label at all nothing could be said in the end, so nothing is begun unless it is asked.
    folder = shutil.copytree(config.data, tmp_path / "data")
    np.save(folder / "test" / "all__labels.npy", np.zeros((11, 9), np.uint8))
    nothing = dataclasses.replace(config, data=str(folder))
    with pytest.raises(DataError, match="must have a label for at least one of the puzzles"):
        sweep.prepare(nothing)
    blind = dataclasses.replace(nothing, unlabelled=True)
    assert len(sweep.prepare(blind).puzzles) == 11


def test_records_are_what_the_solver_says(files: dict[str, str], result: Result) -> None:
    """Blocks, padding and devices leave no trace: the record of a plain solve, computed apart."""
    model, params = load(files["checkpoint"])
    data = read_dataset(files["data"]).head(10)
    for run in result.runs:
        solution = solve(
            *(model, params, jax.random.key(run.seed), data.puzzles),
            num_rollouts=4,
            depth=3,
            sigma=run.sigma,
            lane_tile=2,
            save=Save(answers=True, q_logits=True),
        )
        answers = np.asarray(solution.trajectory.answers)
        counts = data.labels != 0
        for b, k, d in np.ndindex(10, 4, 3):
            hits = answers[b, k, d][counts[b]] == data.labels[b][counts[b]]
            assert run.rollouts.correct[b, k, d] == hits.all()
            assert run.rollouts.cell_accuracy[b, k, d] == np.float32(hits.mean())
        np.testing.assert_array_equal(run.rollouts.q_logit, solution.trajectory.q_logits)
    assert any(run.rollouts.correct.any() and not run.rollouts.correct.all() for run in result.runs)


def test_rules_are_checked_where_the_task_is_known(tmp_path: Path, result: Result) -> None:
    """On mazes with several shortest paths right and valid differ; both stand in every report."""
    from ptrm_jax.tasks import maze

    model = {"vocab_size": 6, "seq_len": 9, "hidden_size": 16, "mlp_t_width": 16, "mlp_width": 16}
    checkpoint = ModelConfig(
        **model, H_cycles=1, L_cycles=1, num_layers=1, variant="mlp_t", forward_dtype="float32"
    )
    save(tmp_path / "model", checkpoint, random_params(checkpoint))
    inputs = np.stack([maze.encode(text) for text in ("S      G ", "S#  # G  ", " G    S  ")])
    maze.write_csv(tmp_path / "mazes.csv", inputs, maze.label(inputs))
    prepared = sweep.prepare(
        SweepConfig(
            checkpoint=str(tmp_path / "model"),
            data=str(tmp_path / "mazes.csv"),
            **{"sigmas": (0.5,), "rollouts": 3, "depth": 2, "num_puzzles": None, "devices": 1},
            keep_answers="all",
        )
    )
    assert prepared.identity["data"]["task"] == "maze"
    finished = work(prepared)
    for unit, part in finished.items():
        rows = inputs[slice(*unit.puzzles)][:, None, None]
        expected = maze.satisfies_rules(part.measured.tokens.astype(np.int32), rows)
        np.testing.assert_array_equal(part.measured.valid, expected & part.measured.finite)

    # A model that takes the other of two shortest paths through one maze is valid and wrong.
    made = assemble_outcome(
        prepared,
        {
            unit: part._replace(
                measured=part.measured._replace(
                    correct=np.zeros_like(part.measured.correct),
                    valid=np.broadcast_to(
                        (np.arange(*unit.puzzles) == 1)[:, None, None], part.measured.valid.shape
                    ),
                )
            )
            for unit, part in finished.items()
        },
    )
    assert isinstance(made, Result)
    rows = scores.summary(made)
    assert [row.choice for row in rows if row.read == "last"] == [
        *("deterministic", "deterministic", "mean", "best_q", "mode", "valid_then_q", "pass")
    ]
    assert rows[-1].choice == "stop"
    assert all(row.accuracy.mean == 0 and row.validity.mean == 1 / 3 for row in rows)
    table = report.table(scores.compute(made))
    assert "rules hold %" in table and "valid-then-Q@3 (*)" in table and "33.3 [" in table
    assert "by steps" in table
    # Where no task is known, nothing is said of rules.
    assert result.provenance["data"]["task"] is result.task is None
    assert all(row.validity is None for row in scores.summary(result))
    assert "rules" not in report.table(scores.compute(result))


def test_results_are_split_by_strata(result: Result) -> None:
    kinds = np.array(["10-20", "9", *["unrated"] * 8])
    text = report.table(scores.compute(dataclasses.replace(result, strata={"rating": kinds})))
    block = text[text.index("by rating") :].splitlines()
    assert [line.split()[:2] for line in block[2:5]] == [
        *(["9", "1"], ["10-20", "1"], ["unrated", "8"])
    ]
    best = max(
        (row for row in scores.summary(result) if row.choice == "best_q"),
        key=lambda row: row.accuracy.mean,
    )
    found = scores.over_seeds(result.runs_of(best.sigma), scores.best_q, 4, 3)[:, 2:].mean()
    assert f"{100 * found:.1f} [" in block[4]


def test_bands_hold_about_a_fifth_each() -> None:
    from ptrm_jax.tasks.task import bands

    assert bands(np.array([3, 1, 3])).tolist() == ["3", "1", "3"]
    values = np.random.default_rng(0).integers(17, 37, 5000)
    names = bands(values)
    kinds, counts = np.unique(names, return_counts=True)
    assert len(kinds) == 5 and counts.min() > 700
    for value, name in zip(values, names, strict=True):
        low, _, high = name.partition("-")
        assert int(low) <= value <= int(high or low)


def test_sigma_zero_is_the_deterministic_run(result: Result) -> None:
    for run in result.runs_of(0.0):
        for k in range(4):
            np.testing.assert_array_equal(
                run.rollouts.q_logit[:, k], result.deterministic.rollouts.q_logit[:, 0, :3]
            )


def test_langevin_updates_are_of_ptrm_alone(
    config: SweepConfig, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quiet run is the same bits; runs, journals, cost and report are others."""
    settings = {"langevin_updates": 2, "langevin_step_size": 0.05}
    asked = dataclasses.replace(config, **{"sigmas": (0.0,), "seeds": (0,), "rollouts": 1})
    plain = sweep.prepare(dataclasses.replace(asked, equal_compute=False))
    moved = sweep.prepare(dataclasses.replace(plain.config, **settings))
    # With K = 1 and sigma 0 the two runs of `plain` are one piece of work, those of `moved` two.
    assert len(plain.units) == len(moved.units) / 2
    assert plain.units == moved.units[: len(plain.units)]
    assert not any("langevin" in name for name in plain.identity["settings"])
    assert settings.items() <= moved.identity["settings"].items()
    digests = [{unit.digest(s.identity) for unit in s.units} for s in (plain, moved)]
    assert not digests[0] & digests[1] and len(digests[1]) == len(moved.units)

    solved, asked_of = mesh.solve, []
    monkeypatch.setattr(
        mesh, "solve", lambda *a, **k: (asked_of.append(k["langevin"]), solved(*a, **k))[1]
    )
    found = sweep.resume(moved, tmp_path / "out")
    assert asked_of == [None] * len(plain.units) + [Langevin(2, 0.05)] * len(plain.units)
    assert found.config.langevin == Langevin(2, 0.05)
    with pytest.raises(SweepError, match=r"settings\.langevin_updates was 2 and is None"):
        sweep.inspect(plain, tmp_path / "out")
    np.testing.assert_array_equal(
        found.deterministic.rollouts.q_logit, result.deterministic.rollouts.q_logit[:, :, :3]
    )
    (run,) = found.runs
    first = [r.rollouts.q_logit[:, :, 0] for r in (run, found.deterministic)]
    np.testing.assert_array_equal(*first)
    assert (run.rollouts.q_logit[:, :, 1:] != found.deterministic.rollouts.q_logit[:, :, 1:]).all()

    line = "PTRM with 2 Langevin updates of z between steps, step size 0.05"
    scored = scores.compute(found)
    assert scored.headline[2] == line and report.table(scored).splitlines()[2] == line
    control = dataclasses.replace(found.config, langevin_gradient=False, langevin_updates=1)
    assert scores.headline(control, found.provenance)[2] == (
        "PTRM with 1 Langevin update of z between steps, step size 0.05, noise without gradient"
    )
    assert len(scores.headline(result.config, result.provenance)) == 2
    said = [run.langevin for run in scored.runs]
    assert said == [None, {"num_updates": 2, "step_size": 0.05, "gradient": True}]

    model = moved.model
    steps, gradients = 2 * 10 * 3, 10 * 2 * 2  # 10 puzzles, 2 gaps between 3 steps, N = 2
    assert estimate(moved).rollout_steps == steps
    assert estimate(moved).flops == (
        steps * flops_per_rollout_step(model.config)
        + gradients * flops_per_energy_gradient(model.config)
    )
    noise = sweep.prepare(dataclasses.replace(moved.config, langevin_gradient=False))
    assert estimate(noise).flops == steps * flops_per_rollout_step(model.config)
    assert noise.identity != moved.identity


def test_deterministic_run_goes_on_to_equal_compute(result: Result) -> None:
    assert result.deterministic.rollouts.correct.shape == (10, 1, 12)
    lines = [row for row in scores.summary(result) if row.method == "TRM"]
    found = [(row.rollouts, row.depth, row.read) for row in lines]
    assert found == [(1, 3, "last"), (1, 3, "best"), (1, 12, "last"), (1, 12, "best")]
    assert [row.rollout_steps for row in lines] == [3, 3, 12, 12]


def test_rollouts_are_read_at_their_best_step(config: SweepConfig, result: Result) -> None:
    """The records are the same; scores, and the answers kept of a step, are read elsewhere."""
    best = dataclasses.replace(config, sigmas=(0.5,), seeds=(0,), read="best")
    kept = {
        keep: sweep.run(sweep.prepare(dataclasses.replace(best, keep_answers=keep)))
        for keep in ("last", "all")
    }
    run = result.runs[0]
    np.testing.assert_array_equal(kept["last"].runs[0].rollouts.q_logit, run.rollouts.q_logit)
    for k in (3, 12):
        q = result.deterministic.rollouts.q_logit[:, 0, :k].argmax(1)
        right = result.deterministic.rollouts.correct[np.arange(10), 0, q].mean()
        rows = [x for x in scores.summary(result) if (x.depth, x.read) == (k, "best")]
        assert rows[0].accuracy.mean == pytest.approx(right)
    q = run.rollouts.q_logit.reshape(10, 12).argmax(1)
    right = run.rollouts.correct.reshape(10, 12)[np.arange(10), q].mean()
    scored = scores.compute(kept["last"])
    assert scored.line(0.5, "best_q").accuracy.mean == pytest.approx(right)
    assert scored.curves[0.5].best_q_by_depth[-1].mean == pytest.approx(right)
    (last,) = (
        row
        for row in scored.methods
        if (row.method, row.choice, row.read) == ("PTRM", "best_q", "last")
    )
    assert last.accuracy == next(
        row.accuracy
        for row in scores.summary(kept["all"])
        if row.read == "last" and row.rollouts > 1
    )
    for a, b in zip(*(kept_answers(r, r.runs[0], 3) for r in kept.values()), strict=True):
        np.testing.assert_array_equal(a, b)
    assert kept_answers(kept["all"], kept["all"].runs[0], 3)[0].shape == (10, 4, 9)
    assert "read at the best step" in report.table(scored)


@pytest.mark.parametrize("agree", [1, 2])
def test_a_sweep_that_stops_is_the_rule_on_one_that_does_not(
    config: SweepConfig, result: Result, agree: int, tmp_path: Path
) -> None:
    q = float(np.quantile(result.runs[0].rollouts.q_logit, 0.7))
    stopping = dataclasses.replace(config, stop_q=q, agree=agree)
    found = sweep.run(sweep.prepare(stopping))
    replayed = [scores.by_rule(run, stopping.rules[0]) for run in result.runs]
    for run, expected in zip(found.runs, replayed, strict=True):
        for got, want in zip(scores.by_rule(run, stopping.rules[0]), expected, strict=True):
            np.testing.assert_array_equal(got, want)
    assert 0 < sum(run.chosen.stopped.sum() for run in found.runs if run.chosen) < 40
    scored = scores.compute(found)
    full = dataclasses.replace(
        result, search=dataclasses.replace(config, replay_q=(q,), agree=agree)
    )
    lines = [row for row in scores.summary(full) if row.choice == "stop"]
    assert [scored.line(s, "stop")[:-1] for s in (0.5, 0.0)] == [row[:-1] for row in lines]
    text = report.table(scored)
    assert f"stop at Q >= {q:g}" in text and "PTRM took" in text
    folder = report.write(scored, tmp_path / "out")
    assert (folder / "solved_by_rollout_steps.png").exists()
    assert not (folder / "accuracy_against_sigma.png").exists()
    runs = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert runs[1]["stop"]["q_logit"] == q and runs[1]["rollouts"] == 4
    with pytest.raises(PtrmError, match="best_q must be scored from rollouts that ran to the full"):
        scored.line(0.5, "best_q")


def test_summary_is_of_the_records(config: SweepConfig, result: Result) -> None:
    rows = [row for row in scores.summary(result) if row.read == "last"]
    assert [(r.sigma, r.choice) for r in rows[2:]] == [
        (s, c) for s in (0.5, 0.0) for c in ("mean", "best_q", "mode", "pass")
    ]
    runs = result.runs_of(0.5)
    final = np.stack([run.rollouts.correct[:, :, 2] for run in runs])  # [R, B, K]
    q_logit = np.stack([run.rollouts.q_logit[:, :, 2] for run in runs])
    best = np.take_along_axis(final, q_logit.argmax(-1)[..., None], -1)[..., 0]
    expected = {"mean": final.mean(), "best_q": best.mean(), "pass": final.any(-1).mean()}
    for row in rows[2:6]:
        if row.choice in expected:
            assert row.accuracy.mean == pytest.approx(expected[row.choice])
            gain = expected[row.choice] - rows[0].accuracy.mean
            assert row.gain_equal_depth.mean == pytest.approx(gain)
    spread = np.std(best.mean(axis=1), ddof=1)
    assert rows[3].seed_spread == pytest.approx(spread)
    for row in rows[6:]:  # sigma 0: no gain over itself
        assert row.gain_equal_depth.mean == 0


def test_steps_are_counted(config: SweepConfig) -> None:
    prepared = sweep.prepare(config)
    seen: list[int] = []
    sweep.run(prepared, progress=lambda steps, what: seen.append(steps))
    assert sum(seen) == prepared.rollout_steps == 10 * (2 * 2 * 4 * 3 + 12)


@pytest.mark.parametrize(("seconds", "counts"), [((2.0, 0.1), 0.1), ((20.0, 0.1), 20.0)])
def test_a_rate_leaves_out_what_the_first_run_alone_takes(
    config: SweepConfig,
    seconds: tuple[float, float],
    counts: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A second or two count in a fast model's estimate, and not in that of a slow one."""
    times = iter(seconds)
    units = []

    def run_unit(_: object, unit: Unit) -> SimpleNamespace:
        units.append(unit)
        return SimpleNamespace(seconds=next(times))

    monkeypatch.setattr(sys.modules[calibrate.__module__], "_run_unit", run_unit)
    rate = calibrate(sweep.prepare(config))
    assert rate == pytest.approx(units[0].rollout_steps / counts)


def test_a_shallow_narrow_sweep_is_part_of_a_deep_wide_one(
    config: SweepConfig, result: Result
) -> None:
    part = dataclasses.replace(config, rollouts=2, depth=2, sigmas=(0.5,), seeds=(1,), devices=1)
    small = sweep.run(sweep.prepare(part)).runs[0].rollouts
    (large,) = (run.rollouts for run in result.runs_of(0.5) if run.seed == 1)
    np.testing.assert_array_equal(small.q_logit, large.q_logit[:, :2, :2])
    np.testing.assert_array_equal(small.correct, large.correct[:, :2, :2])


def test_files(result: Result, config: SweepConfig, tmp_path: Path) -> None:
    folder = report.write(scores.compute(result), tmp_path / "new" / "out")
    lines = [
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
        for line in (folder / "results.jsonl").read_text().splitlines()
    ]
    assert [(x["method"], x["sigma"], x["seed"]) for x in lines] == [
        ("TRM", 0.0, 0),
        ("PTRM", 0.5, 0),
        ("PTRM", 0.5, 1),
        ("PTRM", 0.0, 0),
        ("PTRM", 0.0, 1),
    ]
    for line in lines:
        assert (
            line["provenance"]["checkpoint"]["digest"] == result.provenance["checkpoint"]["digest"]
        )
        assert line["metrics"]["mean"]["num_puzzles"] == 10
    assert lines[1]["metrics"]["best_q@4"]["mean"] == pytest.approx(
        scores.best_q(result.runs[0].rollouts, 4, 3).mean()
    )
    with (folder / "summary.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in table] == [
        row.accuracy.mean for row in scores.summary(result)
    ]
    assert {"checkpoint", "data", "precision", "lane_tile", "key", "versions", "platform"} <= set(
        lines[0]["provenance"]
    )
    for name in pictures.PICTURES:
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "table.txt").read_text()
    assert "best-Q@4" in text and "TRM, D=12" in text and "seed sd" in text
    assert max(map(len, text.splitlines()[1:])) <= 110  # the first line holds paths
    assert sorted(p.name for p in folder.parent.iterdir()) == ["out"]


def test_the_page_is_whole_and_escaped(result: Result) -> None:
    """It names no other file, and what users may name is text, not markup."""
    evil = "<script>alert('x')</script> & co"
    provenance = json.loads(json.dumps(result.provenance))
    provenance["checkpoint"]["name"] = evil
    scored = scores.compute(result)._replace(provenance=provenance)
    drawn = {"accuracy_against_width.png": b"\x89PNG"}
    text = web.page(scored, report.table(scored), drawn, f"python x --checkpoint {evil!r}")
    parsed = _Page()
    parsed.feed(text)
    assert parsed.tags.isdisjoint({"script", "link", "iframe"}) and "img" in parsed.tags
    assert parsed.sources == ["data:image/png;base64,iVBORw=="]
    assert evil in parsed.text and "best-Q@4" in parsed.text
    for name in ("noise_when", "versions.jax", "checkpoint.digest"):
        assert name in parsed.text


class _Page(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_half_written(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scored: scores.Scores) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setitem(pictures.PICTURES, "accuracy_against_depth", broken)
    with pytest.raises(RuntimeError, match="no ink"):
        report.write(scores.compute(result), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_verdict_follows_the_interval(result: Result) -> None:
    """Ten puzzles that PTRM always solves and TRM never does; and the other way round."""

    def rollouts(value: bool, k: int = 4, depth: int = 3) -> Rollouts:
        shape = (10, k, depth)
        return Rollouts(
            correct=np.full(shape, value),
            cell_accuracy=np.full(shape, float(value), np.float32),
            q_logit=np.zeros(shape, np.float32),
            valid=np.zeros(shape, bool),
            answer_id=np.zeros(shape, np.int32),
            digest=np.zeros(shape, np.uint64),
        )

    def table(trm: bool, ptrm: bool) -> str:
        measured = result.deterministic.measured
        made = dataclasses.replace(
            result,
            search=config,
            deterministic=Run(0.0, 0, rollouts(trm, 1, 12), 1.0, 0.0, measured),
            runs=(Run(0.5, 0, rollouts(ptrm), 1.0, 0.0, measured),),
        )
        return report.table(scores.compute(made))

    config = dataclasses.replace(result.config, sigmas=(0.5,), seeds=(0,))
    assert table(False, True).count("gains 100.0 points") == 2
    assert table(True, False).count("loses 100.0 points") == 2
    assert "no significant difference on these puzzles" in table(True, True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rollouts": 0}, "rollouts must be a whole number >= 1; got 0"),
        ({"depth": 0}, "depth must be a whole number >= 1; got 0"),
        ({"num_puzzles": 0}, "num_puzzles must be a whole number >= 1; got 0"),
        ({"lane_tile": 0}, "lane_tile must be"),
        ({"sigmas": ()}, "sigmas must hold at least one value"),
        ({"sigmas": (0.1, -1.0)}, "sigma must be finite and >= 0; got -1.0"),
        ({"sigmas": (math.nan,)}, "sigma must be finite and >= 0; got nan"),
        ({"sigmas": (0.1, 0.1)}, "sigmas must differ"),
        ({"seeds": (-1,)}, "seeds must be a whole number >= 0; got -1"),
        ({"seeds": ()}, "seeds must hold"),
        ({"noise_on": "w"}, "noise_on must be one of"),
        ({"langevin_updates": -1}, "langevin_updates must be a whole number >= 0; got -1"),
        ({"langevin_updates": 1}, "langevin_updates >= 1 and langevin_step_size go together"),
        ({"langevin_step_size": 0.1}, "go together; got 0 and 0.1; pass both or neither"),
        ({"langevin_updates": 1, "langevin_step_size": 0.0}, "step_size must be finite and > 0"),
        ({"langevin_gradient": False}, "got False and langevin_updates 0"),
        ({"task": "chess"}, "task must be one of .*, sudoku; got 'chess'"),
        ({"keep_answers": "some"}, "keep_answers must be one of none, last, all; got 'some'"),
        ({"compute_dtype": "float16"}, "compute_dtype must be one of"),
        ({"matmul_precision": "best"}, "matmul must be one of"),
    ],
)
def test_config_refuses(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepConfig(**change)


def test_prepare_refuses(config: SweepConfig, tmp_path: Path) -> None:
    def prepare(**change: object) -> None:
        sweep.prepare(dataclasses.replace(config, **change))

    with pytest.raises(PtrmError, match="no checkpoint at 'nowhere'"):
        prepare(checkpoint="nowhere")
    with pytest.raises(PtrmError, match="no data at 'nowhere'"):
        prepare(data="nowhere")
    with pytest.raises(PtrmError, match="data must be given with a checkpoint"):
        prepare(data=None)
    with pytest.raises(PtrmError, match="does not fit this checkpoint"):
        prepare(data="sudoku9")
    with pytest.raises(PtrmError, match="num_puzzles must be between 1 and 10"):
        prepare(num_puzzles=12)
    with pytest.raises(PtrmError, match="devices must be at most 8"):
        prepare(devices=9)


def test_precision_is_recorded_and_used(config: SweepConfig) -> None:
    chosen = dataclasses.replace(
        config, compute_dtype="bfloat16", q_dtype="float32", matmul_precision="default"
    )
    prepared = sweep.prepare(chosen)
    assert prepared.provenance["precision"] == {
        "compute_dtype": "bfloat16",
        "matmul": "default",
        "q_dtype": "float32",
    }
    assert prepared.model.precision.compute_dtype == "bfloat16"
    assert isinstance(prepared.model.config, ModelConfig)


def test_widths() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(100) == [1, 2, 4, 8, 16, 32, 64, 100]


def test_mode_needs_ids_of_its_own_depth(result: Result) -> None:
    """answer_id is per step: identical answers early may part later."""
    record = result.runs[0].rollouts
    for d in range(3):
        ids = record.answer_id[:, :, d]
        assert (ids <= np.arange(4)).all()
        assert (np.take_along_axis(ids, ids, 1) == ids).all()
