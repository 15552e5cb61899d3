"""A training run: what it writes, what it survives, what it refuses."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from conftest import load_experiment
from jax.experimental.compilation_cache import compilation_cache

import ptrm_jax
from ptrm_jax import ModelConfig, checkpoint, mesh
from ptrm_jax.model import param_shapes
from ptrm_jax.tasks import sudoku
from ptrm_jax.training import TrainConfig, loop, presets
from ptrm_jax.training.step import init_state, make_model

ROOT = Path(__file__).parents[1]

MODEL = ModelConfig(
    variant="mlp_t",
    vocab_size=6,
    seq_len=16,
    hidden_size=16,
    num_layers=1,
    H_cycles=2,
    L_cycles=1,
    mlp_width=16,
    mlp_t_width=16,
    prefix_len=1,
    puzzle_emb_ndim=16,
    forward_dtype="float32",
)
STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every run compiles its own step; a cache of programs makes that quick."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("programs")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # or it would not look at the directory again
    yield Path(settings["jax_compilation_cache_dir"])
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve 4x4 puzzles to score on."""
    path = tmp_path_factory.mktemp("puzzles") / "test.csv"
    sudoku.write_csv(path, *sudoku.generate(4, 12, seed=5, split="test"))
    return str(path)


@pytest.fixture(scope="module")
def config(puzzles: str) -> TrainConfig:
    """A run of a second, its intervals all different."""
    return TrainConfig(
        model=MODEL,
        data=("generate:sudoku4:100",),
        evaluation=puzzles,
        task="sudoku",
        steps=STEPS,
        batch_size=8,
        micro_batch=4,
        learning_rate=1e-3,
        warmup_steps=5,
        ema=0.9,
        log_every=2,
        checkpoint_every=4,
        eval_every=5,
        eval_puzzles=8,
        eval_depth=3,
        eval_rollouts=2,
    )


class Weights(NamedTuple):
    """What a run ends with: averaged weights as exported, and the whole state as saved."""

    digest: str
    state: str


def weights(directory: Path) -> Weights:
    last = max((directory / "state").glob("[0-9]*"), key=lambda path: int(path.name))
    notes = json.loads((last / "notes" / "metadata").read_text())
    return Weights(checkpoint.read_manifest(directory / "model")["digest"], notes["digest"])


def train(config: TrainConfig, directory: Path, **arguments: Any) -> bool:
    return loop.train(loop.prepare(config, directory, num_devices=1), **arguments)


def after(steps: int) -> Callable[[], bool]:
    """Says stop after so many steps of this process."""
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


def steps_of(directory: Path, kind: str) -> list[int]:
    return [r["step"] for r in loop.read_log(directory / "log.jsonl") if r["kind"] == kind]


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from beginning to end."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    assert train(config, directory)
    return directory


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return shutil.copytree(whole, tmp_path / "copy")


# --- What it writes ------------------------------------------------------------------------------


def test_log_has_every_figure(whole: Path) -> None:
    assert steps_of(whole, "start") == [0]
    assert steps_of(whole, "train") == [2, 4, 5, 6, 8, 10, 12]  # 5: before the evaluation
    assert steps_of(whole, "eval") == [5, 10, 12]
    for record in loop.read_log(whole / "log.jsonl"):
        if record["kind"] == "train":
            assert record.keys() >= {
                *("loss", "lm_loss", "q_loss", "cell_accuracy", "exact_accuracy", "q_accuracy"),
                *("halting_rate", "mean_steps", "steps_per_second", "seconds_left", "grad_norm"),
            }
            assert record["loss"] > 0 and record["steps_per_second"] > 0
        if record["kind"] == "eval":
            for name in ("deterministic", "best_q", "mode", "mean", "pass"):
                mean, low, high, number = record[name]
                assert 0 <= low <= mean <= high <= 1 and number == 8
            assert record.keys() >= {"q_auc"} and len(record["by_depth"]) == 3
    assert (whole / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_what_it_exports_loads_and_says_where_it_is_from(whole: Path, config: TrainConfig) -> None:
    digests = set()
    for name, step in {
        "snapshots/step_000005": 5,
        "snapshots/step_000010": 10,
        "model": 12,
    }.items():
        model, params = ptrm_jax.load(whole / name)
        assert model.config == MODEL
        said = checkpoint.read_manifest(whole / name)["provenance"]
        assert said["step"] == step and said["trained_by"] == "ptrm_jax"
        assert said["config"]["seed"] == 0 and said["data"]["num_examples"] <= 100
        assert len(said["data"]["digest"]) == 64 and said["commit"]
        assert said["versions"]["jax"] == jax.__version__
        digests.add(checkpoint.tree_digest(model.config, params))
    assert len(digests) == 3


def test_what_it_exports_is_averaged(config: TrainConfig, tmp_path: Path) -> None:
    """With an average that never moves, the weights at the start; with one of no memory, the
    weights at the end, which have moved."""
    short = dataclasses.replace(config, steps=2, evaluation=None, eval_every=0)
    start = init_state(make_model(short), short).params
    for ema, moved in ((1.0, False), (0.0, True)):
        directory = tmp_path / str(ema)
        assert train(dataclasses.replace(short, ema=ema), directory)
        _, params = ptrm_jax.load(directory / "model")
        kernel = params["lm_head"]["kernel"]
        assert (not np.array_equal(kernel, start["lm_head"]["kernel"])) == moved


def test_it_learns(config: TrainConfig, tmp_path: Path) -> None:
    """Digits of a 4x4 board, from guessing (log 4 = 1.39 at the best without looking) to better."""
    longer = dataclasses.replace(
        config,
        steps=200,
        learning_rate=1e-2,
        loss="softmax",
        evaluation=None,
        eval_every=0,
        log_every=40,
        checkpoint_every=200,
    )
    train(longer, tmp_path / "run")
    losses = [
        r["lm_loss"] for r in loop.read_log(tmp_path / "run/log.jsonl") if r["kind"] == "train"
    ]
    assert losses[-1] < 0.75 * losses[0] and losses[-1] < 1.2


# --- What it survives ----------------------------------------------------------------------------


@pytest.mark.parametrize("stops", [(1,), (7,), (4, 1, 6), (11,)], ids=str)
def test_a_stopped_run_ends_with_the_same_bits(
    stops: tuple[int, ...], whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    for stop in stops:
        assert not train(config, tmp_path / "run", stop=after(stop))
    assert train(config, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)
    for kind in ("train", "eval"):
        logged = steps_of(tmp_path / "run", kind)
        assert logged == sorted(set(logged)) and set(logged) >= set(steps_of(whole, kind))
    ends = np.cumsum(stops).tolist()
    assert steps_of(tmp_path / "run", "start") == [0, *ends]


def test_intervals_do_not_touch_the_weights(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Nor does changing them in the middle of a run."""
    other = dataclasses.replace(
        config, log_every=3, checkpoint_every=5, eval_every=0, keep=1, evaluation=config.evaluation
    )
    assert not train(config, tmp_path / "run", stop=after(6))
    assert train(other, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole)
    assert [path.name for path in (tmp_path / "run/state").glob("[0-9]*")] == ["12"]


def test_a_finished_run_does_nothing_again(whole: Path, config: TrainConfig, copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("state/**/*") if path.is_file()}
    assert train(config, copy)
    assert weights(copy) == weights(whole)
    assert {path: path.read_bytes() for path in before} == before
    assert steps_of(copy, "train") == steps_of(whole, "train")


def test_a_torn_line_of_the_log_is_dropped(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    directory = tmp_path / "run"
    assert not train(config, directory, stop=after(6))
    with (directory / "log.jsonl").open("a") as file:
        # What a kill leaves: a step that has to be done again, and half of the next line.
        file.write(json.dumps({"kind": "train", "step": 7, "loss": 0.0}) + '\n{"kind": "tr')
    assert train(config, directory)
    assert weights(directory) == weights(whole)
    lines = (directory / "log.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)
    assert steps_of(directory, "train") == [2, 4, 5, 6, 8, 10, 12]


def test_what_kills_leave_behind_goes(whole: Path, config: TrainConfig, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    assert not train(config, directory, stop=after(6))
    litter = [
        directory / "state" / "10.orbax-checkpoint-tmp" / "half",
        directory / "snapshots" / ".step_000010.abc" / "half",
        directory / ".model.abc" / "half",
    ]
    for path in litter:
        path.parent.mkdir(parents=True)
        path.write_text("half")
    assert train(config, directory)
    assert weights(directory) == weights(whole)
    assert not any(path.parent.exists() for path in litter)


def test_a_run_may_become_longer(config: TrainConfig, copy: Path, tmp_path: Path) -> None:
    longer = dataclasses.replace(config, steps=15)
    assert train(longer, copy)
    assert train(longer, tmp_path / "at once")
    assert weights(copy) == weights(tmp_path / "at once")


def test_commands_killed_and_stopped_end_with_the_same_bits(
    tmp_path: Path, compiled_once: Path
) -> None:
    """SIGKILL, SIGTERM, SIGINT, each somewhere in the middle, then to the end."""
    command = [
        *(sys.executable, str(ROOT / "experiments" / "train.py"), "sudoku6"),
        *("--data", "generate:sudoku4:100", "--evaluation", "None", "--eval-every", "0"),
        *("--model.seq-len", "16", "--model.vocab-size", "6", "--model.hidden-size", "16"),
        *("--model.mlp-width", "16", "--model.mlp-t-width", "16", "--model.puzzle-emb-ndim", "16"),
        *("--model.L-cycles", "1", "--model.num-layers", "1", "--batch-size", "8"),
        *("--steps", "400", "--checkpoint-every", "40", "--log-every", "5"),
    ]
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(compiled_once),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"

    def start(output: Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "--output", str(output)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env=environment,
        )

    process = start(whole)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "puzzles to train on" in out and "written to" in out

    for number, least in ((signal.SIGKILL, 50), (signal.SIGTERM, 150), (signal.SIGINT, 250)):
        process = start(broken)
        while max(steps_of(broken, "train"), default=0) < least:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 128 + number, err
            assert "stopped and saved; the same command goes on" in out
    process = start(broken)
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert weights(broken) == weights(whole)
    starts = steps_of(broken, "start")
    assert starts[0] == 0 and starts[1] % 40 == 0 and starts == sorted(starts)
    assert len(starts) == 4 and 0 < starts[1] < starts[2] < starts[3] < 400


# --- What it refuses -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def command() -> ModuleType:
    """`experiments/train.py`."""
    return load_experiment("train")


@pytest.fixture
def refused(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Runs a command that must end with status 2 and one error, before it compiles anything."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)

    def compiles(*_: object, **__: object) -> None:
        raise AssertionError("it came to training")

    monkeypatch.setattr(loop, "train", compiles)

    def run(*argv: str) -> str:
        try:
            status = command.main(list(argv))
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        assert status == 2, err
        assert out == "" and "Traceback" not in err
        return " ".join(err.split())

    return run


SUDOKU6 = ("sudoku6", "--data", "generate:sudoku6:20")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("sudoku7",), "preset must be one of arc_agi_1, arc_agi_2, maze13, maze_hard, sudoku6"),
        (("sudoku6", "--learning-rte", "1"), "--learning-rte"),
        (("sudoku6", "--model.widht", "1"), "--model.widht"),
        ((*SUDOKU6, "--steps", "0"), "steps must be a whole number >= 1; got 0"),
        ((*SUDOKU6, "--learning-rate", "nan"), "learning_rate must lie in [0, inf]; got nan"),
        ((*SUDOKU6, "--batch-size", "30", "--micro-batch", "4"), "batch_size must be a multiple"),
        ((*SUDOKU6, "--devices", "99"), "devices must be at most 8"),
        ((*SUDOKU6, "--devices", "3", "--batch-size", "32"), "multiple of devices x micro_batch"),
        (("sudoku6", "--data", "generate:sudoku9:20"), "does not fit"),
        (("sudoku6", "--data", "generate:maze13:20"), "does not fit"),
        (("sudoku6", "--data", "nothing.csv"), "no data at 'nothing.csv'"),
        (("sudoku6", "--data", "generate:sudoku6"), "a generated source must read"),
        ((*SUDOKU6, "--evaluation", "sudoku9"), "does not fit"),
        ((*SUDOKU6, "--task", "maze", "--extra-clues", "0"), "is not data of task 'maze'"),
        ((*SUDOKU6, "--start-from", "nowhere"), "no checkpoint at 'nowhere'"),
        ((*SUDOKU6, "--exclude", "nothing.csv"), "no data at 'nothing.csv'"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    refused: Callable[..., str], argv: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    assert message in refused(*argv, "--output", str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(
    refused: Callable[..., str], whole: Path, tmp_path: Path
) -> None:
    said = refused(
        *SUDOKU6, "--start-from", str(whole / "model"), "--output", str(tmp_path / "run")
    )
    assert "is a checkpoint of another model" in said
    for field in ("hidden_size is 16 there and 64 here", "seq_len is 16 there and 36 here"):
        assert field in said
    assert "puzzle_emb_len" not in said and "H_cycles" not in said
    assert list(tmp_path.iterdir()) == []


def same_files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 2e-3}, "config.learning_rate was 0.001 and is 0.002"),
        ({"seed": 1}, "config.seed was 0 and is 1"),
        ({"data": ("generate:sudoku4:99",)}, "data.num_examples was"),
        ({"steps": 9}, "has done 12 steps, more than the 9 asked for"),
        ({"model": dataclasses.replace(MODEL, H_cycles=1)}, "config.model.H_cycles was 2 and is 1"),
    ],
    ids=str,
)
def test_another_run_is_not_gone_on_with(
    changes: dict[str, Any], message: str, config: TrainConfig, whole: Path
) -> None:
    before = same_files(whole)
    with pytest.raises(loop.TrainingError) as error:
        loop.prepare(dataclasses.replace(config, **changes), whole)
    assert message in str(error.value) and "pass another output" in str(error.value)
    assert same_files(whole) == before


def test_a_schedule_towards_an_end_cannot_be_longer(config: TrainConfig, tmp_path: Path) -> None:
    """What was trained knew when it would end."""
    cosine = dataclasses.replace(config, min_learning_rate_ratio=0.1, evaluation=None, eval_every=0)
    assert not train(cosine, tmp_path / "run", stop=after(2))
    with pytest.raises(loop.TrainingError, match=r"config\.steps was 12 and is 13"):
        loop.prepare(dataclasses.replace(cosine, steps=13), tmp_path / "run")


def test_foreign_folders_are_left_alone(config: TrainConfig, tmp_path: Path, whole: Path) -> None:
    mine, file = tmp_path / "mine", tmp_path / "file"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    (mine / "config.json").write_text('{"a": 1}')
    file.write_text("no folder")
    before = same_files(tmp_path)
    for path, message in (
        (mine, "holds something other than a training run"),
        (whole / "state", "holds something other than a training run"),
        (file, "is no writable folder"),
        (file / "run", "is no writable folder"),
    ):
        with pytest.raises(loop.TrainingError, match=message):
            loop.prepare(config, path)
    (mine / "config.json").write_text("{")
    with pytest.raises(loop.TrainingError, match="cannot be read"):
        loop.prepare(config, mine)
    (mine / "config.json").write_text('{"a": 1}')
    assert same_files(tmp_path) == before


def test_a_full_disk_keeps_the_state_before(
    whole: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "run"
    assert not train(config, directory, stop=after(6))
    before = same_files(directory / "state")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(OSError, match="No space left on device"):
            train(config, directory)
    assert same_files(directory / "state") == before
    assert train(config, directory)
    assert weights(directory) == weights(whole)


def test_a_damaged_state_is_named_and_the_one_before_goes_on(
    whole: Path, config: TrainConfig, copy: Path
) -> None:
    """A flipped byte in any file of it; Orbax would load most of these without a word."""
    state = copy / "state" / "12"
    files = [path for path in state.rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for path in files:
        good = path.read_bytes()
        bad = bytearray(good)
        bad[len(bad) // 2] ^= 4
        path.write_bytes(bytes(bad))
        with pytest.raises(loop.TrainingError) as error:
            train(config, copy)
        assert str(state) in str(error.value) and "delete it to go on" in str(error.value)
        path.write_bytes(good)
    shutil.rmtree(state)
    shutil.rmtree(copy / "model")
    assert train(config, copy)
    assert steps_of(copy, "start") == [0, 8]
    assert weights(copy) == weights(whole)


def test_a_loss_that_is_not_finite_stops_the_run(config: TrainConfig, tmp_path: Path) -> None:
    """The rate rises until the weights overflow; what was saved before is good."""
    wild = dataclasses.replace(
        config,
        learning_rate=1e37,
        warmup_steps=10**9,
        optimizer="adam_atan2",
        weight_decay=0.0,
        steps=40,
        checkpoint_every=1,
        log_every=1,
        evaluation=None,
        eval_every=0,
    )
    with pytest.raises(loop.TrainingError, match=r"not finite at step \d+; the state saved last"):
        train(wild, tmp_path / "run")
    run = loop.prepare(wild, tmp_path / "run", num_devices=1)
    with loop._States(run) as states:
        state, _, _ = states.restore()
    assert 0 < int(state.step) < 40
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (tmp_path / "run" / "model").exists()


# --- Presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.names())
def test_presets_build(name: str) -> None:
    config = presets.load(name)
    model = make_model(config)
    sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(param_shapes(model))]
    expected = {"sudoku_extreme": 5.03e6, "sudoku9": 5.23e5, "sudoku6": 1.57e5}
    if name in expected:
        assert sum(sizes) == pytest.approx(expected[name], rel=0.005)
    described = presets.describe(name)
    assert f"python experiments/train.py {name}" in described
    assert config.batch_size % config.micro_batch == 0
    assert config.steps >= 1000


def test_the_command_lists_the_presets(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    assert command.main([]) == 0
    out = capsys.readouterr().out
    for name in presets.names():
        assert f"{name} " in out and presets.describe(name).splitlines()[0] in out
