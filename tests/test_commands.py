"""Commands as a user meets them: what they print, their exit status, what they leave behind."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from conftest import load_experiment

import ptrm_jax.__main__ as ptrm_command
from ptrm_jax import mesh, read_dataset
from ptrm_jax.tasks import maze, sudoku

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def backend_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test process has its devices already; commands ask for them once, at their start."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)


@pytest.fixture(scope="module")
def ptrm_sweep() -> ModuleType:
    """The command, as a module."""
    return load_experiment("ptrm_sweep")


def exit_status(main: object, argv: list[str]) -> int:
    """Of a main that returns it or exits with it."""
    try:
        return main(argv)  # type: ignore[operator]
    except SystemExit as stop:
        return int(stop.code or 0)


def puzzle(name: str, row: int = 0) -> str:
    return sudoku.decode(read_dataset(name).puzzles.inputs[row])


def test_solve_shows_the_solution(capsys: pytest.CaptureFixture[str]) -> None:
    assert ptrm_command.main(["solve", puzzle("sudoku6"), "--rollouts", "3"]) == 0
    out = capsys.readouterr().out
    assert sudoku.decode(read_dataset("sudoku6").labels[0]) in out
    assert "the rules hold" in out and "BROKEN" not in out
    assert "chosen: rollout" in out and "sudoku6: K=3, D=16, sigma=0.3 on z, seed 0" in out
    assert out.count("rules hold") == 4  # three rollouts and the choice


def test_solve_says_when_the_rules_are_broken(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        ptrm_command.main(["solve", puzzle("sudoku9", 1), "--rollouts", "2", "--depth", "1"]) == 0
    )
    assert "the rules are BROKEN" in capsys.readouterr().out


def test_solve_draws_mazes(capsys: pytest.CaptureFixture[str]) -> None:
    text = maze.decode(read_dataset("maze11").puzzles.inputs[1])
    assert ptrm_command.main(["solve", text, "--rollouts", "2", "--depth", "2"]) == 0
    out = capsys.readouterr().out
    assert "\n".join(text[row : row + 11] for row in range(0, 121, 11)) in out
    assert "maze11: K=2, D=2" in out and "the rules" in out


def test_solve_reads_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{puzzle('sudoku6')}\n\n{puzzle('sudoku6', 1)}\n")
    assert ptrm_command.main(["solve", str(path), "--rollouts", "1"]) == 0
    out = capsys.readouterr().out
    for row in (0, 1):
        assert sudoku.decode(read_dataset("sudoku6").labels[row]) in out


def test_watch_shows_every_step(capsys: pytest.CaptureFixture[str]) -> None:
    """Plain text where there is no terminal; the last board is the answer that `solve` chooses."""
    argv = [puzzle("sudoku6"), "--rollouts", "3", "--depth", "2"]
    assert ptrm_command.main(["watch", *argv]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert out.count(", step ") == 2 and "step 2 of 2, Q " in out and "cells changed: " in out
    assert "sudoku6: K=3, D=2, sigma=0.3 on z, seed 0" in out
    assert ptrm_command.main(["solve", *argv]) == 0
    solved = capsys.readouterr().out
    chosen = solved.split("chosen: rollout ")[1].split(",")[0]
    answer = next(
        line.split()[2] for line in solved.splitlines() if line.startswith(f"{chosen:>7}  ")
    )
    assert f"rollout {chosen}, step 2 of 2" in out
    board = out.split("step 2 of 2")[1].splitlines()[1:7]
    assert "".join(char for line in board for char in line if char in "123456") == answer


def test_watch_waits_and_colours_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(ptrm_command.time, "sleep", waited.append)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes anything for a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    argv = ["watch", puzzle("sudoku6"), "--rollouts", "3", "--depth", "2"]
    assert ptrm_command.main([*argv, "--delay", "0.25"]) == 0
    in_place = capsys.readouterr().out
    assert waited == [0.25, 0.25] and "\x1b[1A" in in_place  # one board over the other
    assert ptrm_command.main([*argv, "--delay", "0"]) == 0
    followed = capsys.readouterr().out
    assert len(waited) == 2 and "\x1b[1m" in followed and "\x1b[1A" not in followed


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert ptrm_command.main(["info", "sudoku9"]) == 0
    out = capsys.readouterr().out
    assert "522,626 values" in out and "H_cycles: 2" in out and "trained_by: ptrm_jax" in out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["solve", "123"], "a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells"),
        (["solve", "x" * 81], "must be written in digits"),
        (["solve", "11" + "." * 79], "must not repeat a digit"),
        (["solve", "." * 16], "no bundled model solves puzzles of 16 cells of task 'sudoku'"),
        (["solve", "." * 36, "--checkpoint", "sudoku9"], "must have shape [B, 81]"),
        (["solve", "S   G   #"], "no bundled model solves puzzles of 9 cells of task 'maze'"),
        (["solve", "S#  G"], "a maze must be square"),
        (["solve", "S# ## G  "], "a maze must have a path from S to G"),
        (["solve", "https://puzz.link/p?akari/3/3/i"], "no bundled model solves puzzles of 100"),
        (["solve", "https://puzz.link/p?chess/3/3/i"], "chess"),
        (["solve", "." * 36, "--checkpoint", "nowhere"], "no checkpoint at 'nowhere'"),
        (["solve", "." * 36, "--rollouts", "0"], "num_rollouts must be a whole number >= 1"),
        (["solve", "." * 36, "--depth", "0"], "depth must be a whole number >= 1"),
        (["solve", "." * 36, "--sigma", "nan"], "sigma must be finite and >= 0; got nan"),
        (["solve", "." * 36, "--sigma", "-1"], "sigma must be finite and >= 0; got -1"),
        (["watch", "123"], "a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells"),
        (["watch", "." * 36, "--checkpoint", "sudoku9"], "must have shape [B, 81]"),
        (["watch", "." * 36, "--rollouts", "0"], "num_rollouts must be a whole number >= 1"),
        (["watch", "." * 36, "--depth", "0"], "depth must be a whole number >= 1"),
        (["watch", "." * 36, "--delay", "-1"], "delay must be finite and >= 0 seconds; got -1"),
        (["watch", "." * 36, "--delay", "nan"], "delay must be finite and >= 0 seconds; got nan"),
        (["info", "nowhere"], "no checkpoint at 'nowhere'"),
        (["solve", "." * 36, "--noise-on", "x"], "invalid choice"),
        (["sulve"], "Available subcommands: solve, watch, info"),
    ],
)
def test_bad_input_is_one_error_and_status_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(ptrm_command.main, argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in " ".join(err.split())
    assert "Traceback" not in err


SMALL = ["--checkpoint", "sudoku6", "--rollouts", "2", "--depth", "2", "--num-puzzles", "3"]


def test_sweep_writes_and_prints(
    ptrm_sweep: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert ptrm_sweep.main([*SMALL, "--sigmas", "0.3", "--output", str(out)]) == 0
    printed = capsys.readouterr().out
    assert (out / "table.txt").read_text() in printed
    assert json.loads((out / "results.jsonl").read_text().splitlines()[1])["sigma"] == 0.3
    assert (out / "accuracy_against_width.png").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sigmas", "-1"], "sigma must be finite and >= 0; got -1.0"),
        (["--rollouts", "0"], "rollouts must be a whole number >= 1; got 0"),
        (["--depth", "-3"], "depth must be a whole number >= 1; got -3"),
        (["--checkpoint", "sudoku7"], "no checkpoint at 'sudoku7'"),
        (["--data", "nothing.csv"], "no data at 'nothing.csv'"),
        (["--data", "sudoku9"], "does not fit this checkpoint"),
        (["--num-puzzles", "513"], "num_puzzles must be between 1 and 512"),
        (["--devices", "99"], "devices must be at most 8"),
    ],
)
def test_sweep_refuses_and_leaves_nothing(
    ptrm_sweep: ModuleType,
    argv: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = tmp_path / "parent" / "out"
    assert exit_status(ptrm_sweep.main, [*SMALL, *argv, "--output", str(output)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in " ".join(err.split()) and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_sweep_leaves_other_folders_alone(
    ptrm_sweep: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("years of work")
    assert ptrm_sweep.main([*SMALL, "--output", str(tmp_path)]) == 2
    assert "holds something other than a sweep" in " ".join(capsys.readouterr().err.split())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_as_processes(tmp_path: Path) -> None:
    """A fresh process each: devices are asked for before they are used, and the status is real."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    run = subprocess.run(
        [sys.executable, "-m", "ptrm_jax", "solve", puzzle("sudoku6"), "--rollouts", "2"],
        **{"capture_output": True, "text": True, "env": environment, "cwd": tmp_path},
    )
    assert run.returncode == 0, run.stderr
    assert "the rules hold" in run.stdout
    run = subprocess.run(
        [sys.executable, str(ROOT / "experiments" / "ptrm_sweep.py"), "--sigmas", "nan"],
        **{"capture_output": True, "text": True, "env": environment, "cwd": tmp_path},
    )
    assert run.returncode == 2
    assert "sigma must be finite" in run.stderr and "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
