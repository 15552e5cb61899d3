"""The rows of the paper by name: the paper's settings, and from data to report on tiny models."""

import dataclasses
import json
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from conftest import load_experiment, random_params

from ptrm_jax import mesh, metrics, paper as benchmarks, read_dataset, save, sweep
from ptrm_jax.__main__ import main as ptrm_main
from ptrm_jax.config import ModelConfig
from ptrm_jax.sweep import SweepConfig, pictures
from ptrm_jax.tasks import arc, maze, ppbench
from ptrm_jax.tasks.arc import vote as arc_vote

CASES = Path(__file__).parent / "data" / "cases"
PAPER = {
    "arc-agi-2": (25, 16, 0.2),
    "maze-hard": (100, 16, 1.0),
    "ppbench": (100, 48, 0.2),
    "sudoku-extreme": (100, 64, 0.3),
}
"""K, D, sigma of the paper's table."""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`experiments/ptrm_sweep.py`, without pictures, which take longer than these sweeps."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(pictures, "PICTURES", {})
    return load_experiment("ptrm_sweep")


@pytest.mark.parametrize("name", benchmarks.NAMES)
def test_settings_are_the_papers(name: str) -> None:
    config = benchmarks.load(name)
    assert (config.rollouts, config.depth, *config.sigmas) == PAPER[name]
    assert config.num_puzzles is None and config.equal_compute
    described = benchmarks.describe(name)
    assert f"ptrm_sweep.py {name} --checkpoint DIR --data DATA" in described
    assert "Paper:" in described and "H100" in described
    for number in (f"K = {config.rollouts}", f"D = {config.depth}"):
        assert number in described.splitlines()[0]


def test_the_papers_grid_goes_as_far_as_width_and_depth() -> None:
    asked = dataclasses.replace(benchmarks.load("ppbench"), benchmark="ppbench")
    found = benchmarks.with_grid(asked)
    assert (found.grid_rollouts, found.grid_depths) == ((1, 5, 10, 25, 100), (16, 48))
    smaller = benchmarks.with_grid(dataclasses.replace(asked, rollouts=9, depth=16))
    assert (smaller.grid_rollouts, smaller.grid_depths) == ((1, 5), (16,))
    own = dataclasses.replace(asked, grid_rollouts=(2,), grid_depths=(3,))
    assert benchmarks.with_grid(own) == own
    for config in (SweepConfig(), dataclasses.replace(asked, benchmark="arc-agi-2")):
        assert benchmarks.with_grid(config) == config


def test_unknown_names_and_missing_data_are_refused(
    command: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["maze-easy"]) == 2
    assert "benchmark must be one of" in capsys.readouterr().err
    with pytest.raises(SystemExit) as status:
        command.main(["maze-hard"])
    assert status.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--checkpoint" in said and "--data" in said


def test_data_of_another_kind_are_refused(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = ["--output", str(tmp_path / "run")]
    small = ["--rollouts", "1", "--depth", "1", "--num-puzzles", "1"]
    shakashaka = ppbench_line("shakashaka", [" ".join("54" * 5), " ".join("23" * 5)] * 5)
    (tmp_path / "uncounted.jsonl").write_text(shakashaka)
    model = tiny_model(tmp_path / "model", 100, ppbench.VOCAB_SIZE)
    for argv, message in (
        (["maze-hard", "--checkpoint", "sudoku6", "--data", "sudoku6"], "is of 'sudoku'; got"),
        (["ppbench", "--checkpoint", "sudoku6", "--data", "sudoku6"], "is of 'sudoku'; got"),
        (["arc-agi-2", "--checkpoint", "sudoku6", "--data", "sudoku6"], "must hold ARC-AGI"),
        (
            ["ppbench", "--checkpoint", model, "--data", str(tmp_path / "uncounted.jsonl")],
            "data must have puzzles of sudoku, lightup, nurikabe, heyawake, tapa",
        ),
    ):
        assert command.main([*argv, *small, *output]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "run").exists()


def tiny_model(directory: Path, seq_len: int, vocab_size: int, identifiers: int = 1) -> str:
    """A random model whose time goes into nothing."""
    config = ModelConfig(
        **{"seq_len": seq_len, "vocab_size": vocab_size, "hidden_size": 8, "num_layers": 1},
        **{"H_cycles": 1, "L_cycles": 1, "variant": "mlp_t", "mlp_width": 8, "mlp_t_width": 8},
        **{"prefix_len": 1, "puzzle_emb_ndim": 8, "num_puzzle_identifiers": identifiers},
        forward_dtype="float32",
    )
    params = random_params(config)
    table = params["puzzle_emb"]["embedding"]
    params["puzzle_emb"]["embedding"] = jax.random.normal(jax.random.key(1), table.shape)
    save(directory, config, params)
    return str(directory)


def test_mazes_are_judged_by_label_and_by_rule(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inputs = np.full((3, 25), maze.FREE)
    inputs[:, 0], inputs[:, -1] = maze.START, maze.GOAL
    inputs[1, 3], inputs[2, 20] = maze.WALL, maze.WALL
    maze.write_csv(tmp_path / "mazes.csv", inputs, maze.label(inputs))
    argv = ["maze-hard", "--checkpoint", tiny_model(tmp_path / "model", 25, 6)]
    argv += ["--data", str(tmp_path / "mazes.csv"), "--rollouts", "2", "--depth", "2"]
    argv += ["--output", str(tmp_path / "run"), "--devices", "1", "--verbose"]
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    for part in ("rules hold %", "valid-then-Q@2 (*)", "by steps", "3 of 3 puzzles", "TRM, D=4"):
        assert part in out
    assert sweep.read(tmp_path / "run").config.benchmark == "maze-hard"


@pytest.mark.parametrize("flag", [["--checkpoint", "pencil6"], ["--checkpoint=pencil6"]])
def test_a_bundled_checkpoint_has_settings_of_its_own(command: ModuleType, flag: list[str]) -> None:
    """The data, too; flags come before them, and another checkpoint has the paper's."""
    config = command._arguments(["ppbench", *flag, "--num-puzzles", "4"]).config
    assert (config.benchmark, config.checkpoint, config.data) == ("ppbench", "pencil6", "pencil6")
    assert (config.rollouts, config.num_puzzles, len(config.sigmas)) == (64, 4, 3)
    argv = ["ppbench", "--checkpoint", "sudoku6", "--data", "sudoku6"]
    assert command._arguments(argv).config.rollouts == 100


def ppbench_line(pid: str, answer: list[str]) -> str:
    """A board of 10x10 cells without givens, as a line of a file."""
    problem = [" ".join("." * 10)] * 10
    about = {"pid": pid, "width": 10, "height": 10, "id": pid, "source": "", "unique": None}
    about |= {"puzzlink_url": f"?{pid}/10/10/zzzzz", "problem": problem, "answer": answer}
    return json.dumps(about) + "\n"


def test_ppbench_has_the_papers_table(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lightup counts in the aggregate, shakashaka does not."""
    bulbs = [" ".join("#" if r == c else "+" for c in range(10)) for r in range(10)]
    diamonds = [" ".join("54" * 5), " ".join("23" * 5)] * 5
    lines = [ppbench_line("lightup", bulbs), ppbench_line("shakashaka", diamonds)]
    (tmp_path / "puzzles.jsonl").write_text("".join(lines))
    argv = ["ppbench", "--checkpoint", tiny_model(tmp_path / "model", 100, ppbench.VOCAB_SIZE)]
    argv += ["--data", str(tmp_path / "puzzles.jsonl"), "--rollouts", "3", "--depth", "2"]
    argv += ["--grid-rollouts", "3", "--grid-depths", "1", "2", "--seeds", "0", "1"]
    argv += ["--devices", "1", "--verbose"]
    assert command.main([*argv, "--output", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "| lightup (1) | shakashaka (1) |" in out and "by type" in out
    for depth in (1, 2, 6):
        assert f"| TRM, D={depth} | 0.0 %" in out
    found = json.loads((tmp_path / "run" / "ppbench.json").read_text())
    best = found["methods"]["sigma 0.2, D=2, best-Q@3"]
    assert best["aggregate"]["num_puzzles"] == 1 and set(best["types"]) == {"lightup", "shakashaka"}
    runs = sweep.read(tmp_path / "run").runs
    seconds = np.mean([run.seconds for run in runs]) / 2
    assert found["seconds_per_puzzle"] == pytest.approx(seconds) and seconds > 0
    assert found["dollars_per_puzzle"] == pytest.approx(seconds * 2.5 / 3600)


def test_arc_votes_and_submits(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From JSON to a submission; one output is not known, and still answered."""

    def pair(seed: int) -> dict[str, list[list[int]]]:
        grids = np.random.default_rng(seed).integers(0, 10, (2, 3, 4)).tolist()
        return {"input": grids[0], "output": grids[1]}

    challenges = {
        name: {
            "train": [pair(seed), pair(seed + 1)],
            "test": [{"input": pair(seed + 2 + i)["input"]} for i in range(count)],
        }
        for name, seed, count in (("aaaaaaaa", 0, 2), ("bbbbbbbb", 10, 1), ("cccccccc", 20, 1))
    }
    solutions = {"aaaaaaaa": [pair(30)["output"], [[3]]], "cccccccc": [[[1]]]}
    (tmp_path / "arc-agi_some_challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "arc-agi_some_solutions.json").write_text(json.dumps(solutions))
    folder, options = str(tmp_path / "data"), ["--subsets", "some", "--test-subsets", "some"]
    source = ["arc-folder", str(tmp_path), folder, *options, "--augmentations", "3"]
    assert ptrm_main(source) == 0
    assert "3 tasks, 16 rows to solve" in capsys.readouterr().out
    assert ptrm_main(source) == 2
    assert "must be empty" in capsys.readouterr().err

    model = tiny_model(tmp_path / "model", arc.SEQ_LEN, arc.VOCAB_SIZE, 13)
    argv = ["arc-agi-2", "--checkpoint", model, "--data", folder, "--rollouts", "3"]
    argv += ["--depth", "3", "--devices", "1", "--sigmas", "1", "--output", str(tmp_path / "run")]
    assert command.main(argv) == 0
    out = capsys.readouterr().out
    assert "3 tasks, 3 test inputs with known outputs, 1 without" in out
    assert "16 of 16 puzzles" in out and "all vote, by Q@3" in out

    answers = json.loads((tmp_path / "run" / "submission.json").read_text())
    assert {name: len(inputs) for name, inputs in answers.items()} == {
        **{"aaaaaaaa": 2, "bbbbbbbb": 1, "cccccccc": 1}
    }
    result = sweep.read(tmp_path / "run")
    (run,) = result.runs
    assert len(run.rollouts.correct) == 12 and run.measured.tokens.shape == (16, 3, 1, 900)
    rows = arc.read_set(folder)
    ballot = arc_vote.vote(rows, run.measured.tokens[:, :, 0], run.measured.q_logit[:, :, 2])
    assert answers == json.loads(json.dumps(arc_vote.submission(ballot)))
    scores = json.loads((tmp_path / "run" / "arc_scores.json").read_text())["scores"]
    assert [(s.get("vote", "rows"), s["depth"]) for s in scores] == [
        *(("TRM, D=3", 3), ("TRM, D=9", 9), ("sigma 1, best-Q@3", 3)),
        *(("sigma 1, all vote@3", 3), ("sigma 1, all vote, by Q@3", 3)),
        *(("rows", 3), ("rows", 9), ("rows", 3)),
    ]
    # TRM's votes are those of its answers after D and after K * D steps.
    dataset = read_dataset(folder)
    for place, depth in ((0, 3), (1, 9)):
        measured = result.deterministic.measured
        right = metrics.exact(measured.tokens[:, :, place], dataset.labels, ignore_label=0)
        np.testing.assert_array_equal(right, measured.correct[:, :, depth - 1])

    # A sample has the tasks that it reaches.
    assert command.main([*argv, "--num-puzzles", "9"]) == 2
    assert "num_puzzles was 16 and is 9; pass --new" in " ".join(capsys.readouterr().err.split())
    assert command.main([*argv, "--num-puzzles", "9", "--new"]) == 0
    assert "2 tasks, 2 test inputs with known outputs, 1 without" in capsys.readouterr().out
    assert (tmp_path / "run-002" / "submission.json").exists()


def test_a_blind_set_is_answered(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From tasks in files of their own, none of whose test outputs is known, to a submission."""
    source, folder = CASES / "arc" / "github", str(tmp_path / "data")
    options = ["--subsets", "training", "evaluation", "--test-subsets", "evaluation"]
    made = ["arc-folder", str(source), folder, *options, "--augmentations", "3"]
    assert ptrm_main(made) == 0
    model = tiny_model(tmp_path / "model", arc.SEQ_LEN, arc.VOCAB_SIZE, 9)
    argv = ["arc-agi-2", "--checkpoint", model, "--data", folder, "--rollouts", "2"]
    argv += ["--depth", "1", "--devices", "1", "--output", str(tmp_path / "run")]
    for _ in range(2):  # run, and again from its folder
        assert command.main(argv) == 0
        printed = capsys.readouterr().out
        assert "no answer is known: nothing to score" in printed
        assert (
            "for each of 1 test inputs of 1 tasks, by best-Q@2 at sigma 0.2; 0 have no" in printed
        )
    answers = json.loads((tmp_path / "run" / "submission.json").read_text())
    assert answers.keys() == {"aa"} and len(answers["aa"]) == 1
    for attempt in ("attempt_1", "attempt_2"):
        grid = np.array(answers["aa"][0][attempt])
        assert grid.ndim == 2 and set(grid.ravel()) <= set(range(10))
    rows, result = arc.read_set(folder), sweep.read(tmp_path / "run")
    (run,) = result.runs
    assert result.is_blind and run.measured.tokens.shape == (len(rows), 2, 1, 900)
    ballot = arc_vote.vote(rows, run.measured.tokens[:, :, 0], run.measured.q_logit[:, :, 0])
    assert answers == json.loads(json.dumps(arc_vote.submission(ballot)))
