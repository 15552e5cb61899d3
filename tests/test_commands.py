"""Commands as a user meets them: what they print, their exit status, what they leave behind."""

import ast
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pytest
from conftest import load_experiment, random_params, small_checkpoint

import ptrm_jax.__main__ as ptrm_command
from ptrm_jax import ModelConfig, console, files, load, mesh, puzzle_text, read_dataset, save
from ptrm_jax.checkpoint import read_manifest
from ptrm_jax.errors import InputError, PtrmError, StorageError
from ptrm_jax.solver import Solution
from ptrm_jax.sweep import clock, pictures, report
from ptrm_jax.sweep.plan import Unit
from ptrm_jax.tasks import maze, ppbench, sudoku

ROOT = Path(__file__).parents[1]
SMALL = [
    *("--checkpoint", small_checkpoint(), "--data", "sudoku6", "--num-puzzles", "3"),
    *("--rollouts", "2", "--depth", "2"),
]


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


def answer(name: str, row: int = 0) -> str:
    return sudoku.decode(read_dataset(name).labels[row])


# --- Puzzles and solutions as text ---------------------------------------------------------------


def test_reads_a_puzzle_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text(f"{puzzle('sudoku6')}\n\n{puzzle('sudoku6', 1)}\n")
    task, inputs = puzzle_text.read(str(path))
    assert task.name == "sudoku"
    np.testing.assert_array_equal(inputs, read_dataset("sudoku6").puzzles.inputs[:2])
    path = tmp_path / "set.csv"
    path.write_text(f"source,question,answer,rating\nx,{puzzle('sudoku6')},{answer('sudoku6')},0\n")
    _, inputs = puzzle_text.read(str(path))
    np.testing.assert_array_equal(inputs, read_dataset("sudoku6").puzzles.inputs[:1])
    board = maze.decode(read_dataset("maze11").puzzles.inputs[1])
    task, inputs = puzzle_text.read(board)
    assert task.name == "maze" and maze.decode(inputs[0]) == board
    loaded = ptrm_command.Solve(board).load()
    assert (loaded.checkpoint, loaded.model.config.seq_len) == ("maze11", 121)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n \n", "must hold puzzles, such as one per line; it is empty"),
        ("1" * 10**7, "must have lines of at most 10,000 characters; one has 10,000,000"),
        (
            f"{'.' * 36}\n{'.' * 81}",
            ":2: a file must hold puzzles of one size; .*; use one file per size",
        ),
    ],
)
def test_refuses_files(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        puzzle_text.read(str(path))


def solution(answers: list[str], q_logits: list[float], finite: list[bool]) -> Solution:
    """Of one 4x4 Sudoku, with the best Q chosen."""
    tokens = np.stack([sudoku.encode(answer) for answer in answers])
    q = np.where(finite, q_logits, -np.inf)
    best = int(q.argmax()) if any(finite) else -1
    return Solution(
        answer=tokens[best],
        q_logit=q[best],
        rollout=np.int32(best),
        step=np.int32(16 if any(finite) else 0),
        rollout_answers=tokens,
        rollout_q_logits=np.array(q_logits),
        rollout_finite=np.array(finite),
        rollout_step=np.full(len(answers), 16, np.int32),
        trajectory=None,
    )


RIGHT, WRONG = "1234341221434321", "1234341221434323"


def test_solution_text() -> None:
    """Sorted by Q, those that are not finite last, equal answers named by their first rollout."""
    clues = sudoku.encode(RIGHT[:12] + "....")
    shown = solution([WRONG, RIGHT, RIGHT, RIGHT], [-1.0, 9.0, 0.5, 1.5], [True, False, True, True])
    assert puzzle_text.solution_text(sudoku.TASK, clues, shown) == "\n".join(
        [
            "puzzle",
            sudoku.TASK.draw(clues),
            "",
            "rollout       Q  answer",
            f"      3   +1.50  {RIGHT}  chosen, rules hold, = rollout 1",
            f"      2   +0.50  {RIGHT}  rules hold, = rollout 1",
            f"      0   -1.00  {WRONG}  rules broken",
            f"      1   +9.00  {RIGHT}  rules hold, not finite",
            "",
            "chosen: rollout 3, Q +1.50 (the model's own probability of being right: 81.8 %),",
            "given by 3 of 4 rollouts; the rules hold",
            sudoku.TASK.draw(sudoku.encode(RIGHT), clues=clues),
        ]
    )


@pytest.mark.parametrize(
    ("clues", "answers", "finite", "message"),
    [
        (RIGHT[:12] + "....", WRONG, True, "the rules are BROKEN"),
        (RIGHT[:12] + "....", RIGHT, False, "no rollout was finite: nothing to choose"),
        ("." * 16, RIGHT, True, "(it has several solutions)"),
        ("123....4........", RIGHT, True, "(it has no solution)"),
    ],
)
def test_solution_text_says(clues: str, answers: str, finite: bool, message: str) -> None:
    shown = solution([answers], [1.0], [finite])
    text = puzzle_text.solution_text(sudoku.TASK, sudoku.encode(clues), shown)
    assert message in text and ("it has" in text) == ("it has" in message)


# --- python -m ptrm_jax --------------------------------------------------------------------------

ROWS = (0, 1)
SETTINGS = "sudoku6: K=3, D=2, sigma=0.3 on z, seed 0"


@pytest.fixture(scope="module")
def argv(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two puzzles and settings; the same for all tests, for their compiled program."""
    path = tmp_path_factory.mktemp("puzzles") / "puzzles.txt"
    path.write_text("\n".join(puzzle("sudoku6", row) for row in ROWS))
    return [str(path), "--rollouts", "3", "--depth", "2"]


def test_solve_and_watch(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Both show the chosen rollout; in plain text where there is no terminal."""
    argv = [*argv, "--stop-q", "None"]
    assert ptrm_command.main(["solve", *argv]) == 0
    solved = capsys.readouterr().out
    assert solved.endswith(f"\n{SETTINGS}\n") and "BROKEN" not in solved
    assert solved.count("rules hold") == 8  # three rollouts and the choice, twice
    assert ptrm_command.main(["watch", *argv]) == 0
    watched = capsys.readouterr().out
    assert "\x1b" not in watched
    assert watched.endswith(f"\n\nx clue not kept, ? confidence below 90 %; {SETTINGS}\n")
    assert watched.count(", step ") == 4 and watched.count("cells changed: ") == 2
    choices, ends = solved.split("chosen: rollout ")[1:], watched.split("step 2 of 2, Q ")
    for row, choice, before, end in zip(ROWS, choices, ends[:-1], ends[1:], strict=True):
        assert answer("sudoku6", row) in solved
        assert before.endswith(f"rollout {choice.split(',')[0]}, ")
        board = end.splitlines()[1:9]  # with two lines between boxes
        assert "".join(c for line in board for c in line if c in "123456") == answer("sudoku6", row)


def test_solve_stops_when_sure(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With a threshold that a step reaches, and with one that none does."""
    for q, words in (("-9", "sure after 1 rollout-steps: rollout 0, step 1, Q "), ("99", "never")):
        assert ptrm_command.main(["solve", *argv, "--stop-q", q]) == 0
        solved = capsys.readouterr().out
        assert solved.endswith(f"\n{SETTINGS}, stops at Q >= {q}\n")
        assert solved.count(words) == 2
    assert solved.count("never sure; the best of 6 rollout-steps: rollout ") == 2
    assert all(answer("sudoku6", row) in re.sub("[^1-6]", "", solved) for row in ROWS)


def test_watch_redraws_on_a_terminal(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(ptrm_command.time, "sleep", waited.append)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes any stream for a terminal
    monkeypatch.setenv("TERM", "xterm-256color")
    assert ptrm_command.main(["watch", *argv, "--delay", "0.25"]) == 0
    in_place = capsys.readouterr().out
    assert waited == [0.25] * 4 and "\x1b[1A" in in_place  # one board over the other
    assert ptrm_command.main(["watch", *argv, "--delay", "0"]) == 0
    followed = capsys.readouterr().out
    assert len(waited) == 4 and "\x1b[1m" in followed and "\x1b[1A" not in followed


def test_nothing_finite_to_watch(
    argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = types.SimpleNamespace(rollout=np.array([-1]))
    monkeypatch.setattr(ptrm_command.Solve, "choose", lambda *_: nothing)
    assert ptrm_command.main(["watch", *argv]) == 0
    assert "no rollout was finite: nothing to watch" in capsys.readouterr().out


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert ptrm_command.main(["info", "sudoku9"]) == 0
    out = capsys.readouterr().out
    digest = read_manifest("sudoku9")["digest"]
    assert out.startswith(f"sudoku9: 522,626 parameters, digest {digest}\nconfig:\n")
    assert "\n  H_cycles: 2\n" in out and "\n  trained_by: ptrm_jax\n" in out
    assert "\n  start:\n    digest: d453" in out  # nested provenance is indented
    assert ptrm_command.main(["info", "sudoku9", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["parameters"], facts["digest"]) == (522626, digest)
    assert facts["config"]["seq_len"] == 81 and facts["provenance"]["trained_by"] == "ptrm_jax"


@pytest.mark.parametrize("command", ["solve", "watch", "info", "arc-folder"])
def test_help_is_readable(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(ptrm_command.main, [command, "--help"]) == 0
    out = capsys.readouterr().out
    assert "{None}" not in out and " STR" not in out and "[STR" not in out


# --- Signals, flags and text, of every command ---------------------------------------------------

COMMANDS = [
    *sorted((ROOT / "experiments").glob("*.py")),
    *(ROOT / package / "__main__.py" for package in ("ptrm_jax", "convert")),
]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_signals_are_caught_before_anything_else_is_imported(path: Path) -> None:
    """And flags are parsed where errors become one line, not by tyro alone."""
    first, *_ = (
        node for node in ast.parse(path.read_text()).body if not isinstance(node, ast.Expr)
    )
    assert ast.unparse(first) == (
        "if __name__ == '__main__':\n    from ptrm_jax import interrupts\n    interrupts.catch()"
    )
    assert "tyro.cli(" not in path.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_process_with_one_line(number: signal.Signals, tmp_path: Path) -> None:
    """From the first import on; what it was writing is removed."""
    (tmp_path / "half").mkdir()
    code = f"""
import os, sys
from ptrm_jax import interrupts
interrupts.catch()
assert not {{"jax", "numpy", "rich"}} & sys.modules.keys()
print("begun", end="")
with interrupts.unfinished("half"):
    os.kill(os.getpid(), {int(number)})
    print("survived")
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (128 + number, "begun")
    assert run.stderr == f"stopped by {number.name}\n"
    assert list(tmp_path.iterdir()) == []


def test_the_second_signal_ends_what_stops_gracefully() -> None:
    code = """
import os, signal
from ptrm_jax import console
def command():
    with console.signals("unit") as stop:
        stop.seconds_left = lambda: 12.3
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
raise SystemExit(console.run_command(command))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    said = "stopping after this unit (about 12 s); again to stop now\nstopped by SIGINT\n"
    assert (run.returncode, run.stderr) == (130, said)


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags that check themselves."""

    path: str = ""
    number: int = 1

    def __post_init__(self) -> None:
        if self.number < 0:
            raise InputError(f"number must be >= 0; got {self.number}")


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("~/x", "/home/me/x"),
        ("--path=~/x", "/home/me/x"),
        ("--path=~", "/home/me"),
        ("--path=a~/x", "a~/x"),
        ("--path=~nobody-of-this-name/x", "~nobody-of-this-name/x"),
    ],
)
def test_a_tilde_is_the_home_folder(word: str, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    argv = [word] if word.startswith("--") else ["--path", word]
    assert console.parse(Flags, argv).path == path


def test_flags_that_refuse_themselves_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        console.parse(Flags, ["--number", "-3"])

    assert console.run_command(command) == 2
    assert capsys.readouterr() == ("", "error: number must be >= 0; got -3\n")
    for argv, status, stream in ((["--number", "x"], 2, 1), (["--help"], 0, 0)):
        with pytest.raises(SystemExit) as stop:
            console.parse(Flags, argv)
        assert stop.value.code == status and "--number" in capsys.readouterr()[stream]


def test_text_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[red]a\x1b[2J\x1b]0;title\x07\u202eb\udc80 ok: x\nσ"
    console.output().print(text)
    assert capsys.readouterr().out == ("[red]a\\x1b[2J\\x1b]0;title\\x07\\u202eb\\udc80 ok: x\nσ\n")


def test_info_of_a_foreign_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, params = load("sudoku6")
    save(tmp_path / "m", model.config, params, provenance={"by": "\x1b[31mme", "[bold]": "[/x]"})
    for argv in (["info", str(tmp_path / "m")], ["info", str(tmp_path / "m"), "--json"]):
        assert ptrm_command.main(argv) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out and "[bold]" in out


@pytest.mark.parametrize("place", ["file", "file/x", "/proc/x", "/dev/null"])
def test_an_output_that_cannot_be_written_is_said_first(
    place: str,
    ptrm_sweep: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Before anything is loaded, with the path and a status of its own."""
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr(ptrm_sweep.sweep, "prepare", lambda config: pytest.fail("it was loaded"))
    output = str(tmp_path / place)
    assert ptrm_sweep.main([*SMALL, "--output", output]) == 4
    err = capsys.readouterr().err
    assert err.startswith(f"error: {output} cannot be written: ") and err.count("\n") == 1
    assert "nothing was changed" in err
    with pytest.raises(StorageError, match="cannot be written"):
        files.check_writable(output)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_report_without_room_keeps_the_units(
    ptrm_sweep: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "a[b]"
    argv = [*SMALL, "--sigmas", "0.3", "--output", str(out)]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(report, "write_bytes", full)
        assert ptrm_sweep.main(argv) == 4
    printed, err = capsys.readouterr()
    assert "best-Q@2" in printed and "No space left on device; all units are kept" in err
    assert ptrm_sweep.main(argv) == 0
    assert "0 of 2 work units to run" in capsys.readouterr().out


class Mishap(PtrmError):
    exit_status = 5
    label = "oh dear"


@pytest.mark.parametrize(
    ("outcome", "status", "message"),
    [
        (None, 0, ""),
        (4, 4, ""),
        (Mishap("what  ':x:'\n to [red]do"), 5, "oh dear: what  ':x:' to [red]do\n"),
        (ValueError("v" * 200), 2, f"error: {'v' * 200}\n"),
        (OSError("disk"), 2, "error: disk\n"),
    ],
)
def test_run_command(
    outcome: object, status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> int | None:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[return-value]

    assert console.run_command(command) == status
    assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError(), "(JAX_PLATFORMS is {}): no such platform is installed; set"),
        (RuntimeError("Unable to initialize backend 'tpu': held\nby 123"), "'tpu': held; set"),
    ],
)
def test_a_missing_device_is_one_line(
    error: Exception,
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The checkpoint is not to blame; nor is anything else that needed a device first."""

    def none() -> None:
        raise error

    def needs_one() -> None:
        assert none()

    monkeypatch.setattr(jax, "local_devices", none)
    reason = reason.format(jax.config.jax_platforms or "not set")
    for command in (lambda: ptrm_command.main(["solve", "." * 36]), needs_one):
        status = command() if command is not needs_one else console.run_command(needs_one)
        out, err = capsys.readouterr()
        assert (status, out) == (2, "") and err.count("\n") == 1
        assert err.startswith("error: JAX has no device to run on") and reason in err


def test_a_device_without_memory_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory\nwhile trying")

    assert console.run_command(command) == 2
    assert "error: a device has no memory left: RESOURCE_EX" in (err := capsys.readouterr().err)
    assert "--lane-tile" in err and err.count("\n") == 1


def test_progress_without_a_terminal_is_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "LINE_EVERY", 0.02)
    with console.progress("rollout-steps") as bar:
        console.updating(bar, 5000)(1234, "PTRM sigma 0.3")
        time.sleep(0.2)
    first = capsys.readouterr().err.splitlines()[0]
    assert re.fullmatch(r"PTRM sigma 0\.3: 1,234 of 5,000 rollout-steps, 0 s(, \d+ s left)?", first)


def test_a_clock_knows_what_a_unit_still_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And has the second to the fourth unit traced."""
    now, traced, passed_on = [0.0], [], []
    monkeypatch.setattr(clock.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(jax.profiler, "start_trace", lambda place, **_: traced.append(place))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: traced.append("end"))
    units = [Unit(0.3, 0, 4, (0, n), (0, 1), (n, 1)) for n in (1, 2, 2, 8, 8)]
    watch = clock.Clock(units, lambda *call: passed_on.append(call), tmp_path)
    at = []
    for number, unit in enumerate(units[:4]):
        watch(0, "begun")
        at.append((number, watch.seconds_left(), len(traced)))
        now[0] += unit.rollout_steps
        watch(unit.rollout_steps, "done")
    assert at == [(0, None, 0), (1, 8, 1), (2, 8, 1), (3, 32, 1)]
    assert traced == [tmp_path, "end"] and len(passed_on) == 8
    watch(0, "begun")
    now[0] += 30
    assert watch.seconds_left() == 2
    with clock.Clock(units[:1], lambda *call: None, tmp_path).running():
        assert len(traced) == 2
    alone = clock.Clock(units[:1], lambda *call: None, tmp_path)
    with pytest.raises(SystemExit), alone.running():
        alone(0, "the only one")
        raise SystemExit
    assert traced[2:] == [tmp_path, "end"]


PYTHON = """#!/usr/bin/env bash
echo "$*" >> "$LOG"
if [[ $1 == -c ]]; then exec {python} "$@"; fi
if [[ $1 == -m && $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; sleep 0.2; fi
"""


def test_two_workers_of_one_host_install_once(tmp_path: Path) -> None:
    """With a stand-in for Python that writes down how it is called."""
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    cache = str(tmp_path / "cache")
    own = {"LOG": str(tmp_path / "log"), "PYTHON": str(python), "PTRM_CACHE": cache}
    script = str(ROOT / "experiments" / "run_tpu.sh")
    workers = [subprocess.Popen([script, "--depth", "4"], env=os.environ | own) for _ in "ab"]
    assert [worker.wait() for worker in workers] == [0, 0]
    calls = (tmp_path / "log").read_text().splitlines()
    assert sum("-m venv" in call for call in calls) == 1
    assert sum("-m pip install" in call for call in calls) == 1
    runs = [call for call in calls if "experiments/ptrm_sweep.py --distributed" in call]
    assert len(runs) == 2 and all(run.endswith("/compiled --depth 4") for run in runs)
    (needed,) = (tmp_path / "cache").glob("*/requirements.txt")
    for name in ("jax[tpu]", "flax", "gcsfs"):
        assert re.search(rf"^{re.escape(name)}\W", needed.read_text(), re.MULTILINE)
    # Of an older Python nothing is asked but its version.
    python.write_text('#!/usr/bin/env bash\n[[ $1 == --version ]] && echo "Python 3.10.12"\n')
    old = subprocess.run([script], env=os.environ | own, capture_output=True, text=True)
    assert (old.returncode, old.stdout) == (2, "")
    assert "error: Python >= 3.11 is needed;" in old.stderr and "is Python 3.10.12" in old.stderr


def test_run_command_passes_bugs_on() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run_command(lambda: 1 // 0)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["watch", "123"], "a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells"),
        (["watch", "." * 36, "--depth", "0"], "depth must be a whole number >= 1"),
        (["solve", "123"], "a puzzle must have 16 (4x4), 36 (6x6) or 81 (9x9) cells"),
        (["solve", "x" * 81], "must be written in digits"),
        (["solve", "11" + "." * 79], "must not repeat a digit"),
        (["solve", "." * 16], "no bundled model solves puzzles of 16 cells of task 'sudoku'"),
        (["solve", "." * 36, "--checkpoint", "sudoku9"], "must have shape [B, 81]"),
        (["solve", "S   G   #"], "no bundled model solves puzzles of 9 cells of task 'maze'"),
        (["solve", "S#  G"], "a maze must be square"),
        (["solve", "S# ## G  "], "a maze must have a path from S to G"),
        (["solve", "https://puzz.link/p?akari/7/7/i"], "no bundled model solves puzzles of 100"),
        (["solve", "https://puzz.link/p?chess/3/3/i"], "chess"),
        (["solve", "." * 36, "--checkpoint", "nowhere"], "no checkpoint at 'nowhere'"),
        (["solve", "." * 36, "--rollouts", "0"], "max_rollouts must be a whole number >= 1"),
        (["solve", "." * 36, "--depth", "0"], "depth must be a whole number >= 1"),
        (["solve", "." * 36, "--sigma", "nan"], "sigma must be finite and >= 0; got nan"),
        (["solve", "." * 36, "--sigma", "-1"], "sigma must be finite and >= 0; got -1"),
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


PENCIL = {
    "sudoku/4/4/2m1h2h3g": "2 . . .",
    "akari/4/4/g1n2h1h": ". 1 . .",
    "nurikabe/4/4/3o1g3i": "3 . . .",
    "heyawake/4/4/vuo8300k": "0",
    "tapa/4/4/j5hadk5g3": "  5   .   . 1,2",
    "shakashaka/4/4/g.g.j.k.g": ". ■ . ■",
}


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model for boards of up to 6x6 cells that solves nothing."""
    config = ModelConfig(
        **{"seq_len": 36, "vocab_size": ppbench.of_side(6).size, "hidden_size": 8},
        **{"num_layers": 1, "H_cycles": 1, "L_cycles": 1, "variant": "mlp_t", "mlp_width": 8},
        **{"mlp_t_width": 8, "prefix_len": 0, "puzzle_emb_ndim": 0, "forward_dtype": "float32"},
    )
    folder = tmp_path_factory.mktemp("untrained") / "model"
    save(folder, config, random_params(config))
    return str(folder)


def test_pencil_puzzles_of_every_type_are_solved_from_their_urls(
    untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "puzzles.txt"
    path.write_text("".join(f"https://puzz.link/p?{url}\n" for url in PENCIL))
    argv = ["solve", str(path), "--checkpoint", untrained, "--rollouts", "1", "--depth", "1"]
    assert ptrm_command.main(argv) == 0
    shown = capsys.readouterr().out.split("puzzle\n")[1:]
    for part, row in zip(shown, PENCIL.values(), strict=True):
        assert row in part and "the rules are BROKEN" in part


def test_pencil_puzzles_that_do_not_fit_are_refused(
    untrained: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for url, message in (
        ("akari/8/8/zzz", "a board must fit 6x6 cells; the largest has 8x8"),
        ("sudoku/9/9/zzzzz", "a board must fit 6x6 cells; the largest has 9x9"),
        ("yajilin/6/6/zz", "the type one of sudoku"),
        ("akari/v:/6/6/zz", "has the variant 'v:'"),
    ):
        assert (
            ptrm_command.main(["solve", f"https://puzz.link/p?{url}", "--checkpoint", untrained])
            == 2
        )
        out, err = capsys.readouterr()
        assert out == "" and message in " ".join(err.split())


def test_sweep_writes_and_prints(
    ptrm_sweep: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A short table; rerun with --verbose, the finished sweep prints the long one."""
    out = tmp_path / "out"
    argv = [*SMALL, "--sigmas", "0.3", "--output", str(out)]
    assert ptrm_sweep.main(argv) == 0
    printed = capsys.readouterr().out
    assert "best-Q@2" in printed and "mode@2" not in printed
    assert (out / "accuracy_against_width.png").exists() and (out / "report.html").exists()
    monkeypatch.setattr(pictures, "PICTURES", {})  # drawn once is enough
    assert ptrm_sweep.main([*argv, "--verbose"]) == 0
    assert (out / "table.txt").read_text() in capsys.readouterr().out
    assert json.loads((out / "results.jsonl").read_text().splitlines()[1])["sigma"] == 0.3


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sigmas", "-1"], "error: sigma must be finite and >= 0; got -1.0"),
        (["--sigmas", "nan"], "sigma must be finite and >= 0; got nan"),
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


def test_as_a_process(tmp_path: Path) -> None:
    """A fresh process configures its devices before their first use."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"  # compiles in half the time
    command = [sys.executable, "-m", "ptrm_jax", "solve", puzzle("sudoku6"), "--depth", "2"]
    run = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "the rules hold" in run.stdout and list(tmp_path.iterdir()) == []
