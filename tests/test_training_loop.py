"""A training run: what it writes, what it survives, what it refuses."""

import dataclasses
import json
import os
import re
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
from ptrm_jax import TRM, CheckpointError, ModelConfig, checkpoint, mesh
from ptrm_jax.model import init_params, param_shapes
from ptrm_jax.tasks import sudoku
from ptrm_jax.training import TrainConfig, loop, presets
from ptrm_jax.training.examples import augmentation, read_source
from ptrm_jax.training.step import TrainState, averaged, init_state, make_model, make_step

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
    """A run of a second, its intervals all different.

    Rows halt and epochs end within it: otherwise the position in the data would decide nothing.
    """
    return TrainConfig(
        model=MODEL,
        data=("generate:sudoku4:40",),
        evaluation=puzzles,
        task="sudoku",
        steps=STEPS,
        batch_size=8,
        micro_batch=4,
        halt_max_steps=3,
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


def flags(config: TrainConfig) -> list[str]:
    """What `experiments/train.py` is called with for this run."""
    settings, default = config.to_dict(), presets.load("sudoku6").to_dict()
    pairs = [(name, value, default[name]) for name, value in settings.items() if name != "model"]
    pairs += [(f"model.{k}", v, default["model"][k]) for k, v in settings["model"].items()]
    argv = ["sudoku6"]
    for name, value, preset in pairs:
        if value != preset:
            values = value if isinstance(value, tuple) else (value,)
            if isinstance(value, bool):
                argv.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
            else:
                argv += [f"--{name.replace('_', '-')}", *map(str, values)]
    return argv


def saved(config: TrainConfig, directory: Path) -> TrainState:
    """The newest state of a run."""
    with loop._States(loop.prepare(config, directory, num_devices=1)) as states:
        return states.restore()[0]


def losses_of(directory: Path) -> list[tuple[int, float]]:
    """Step and loss of every line of training."""
    records = loop.read_log(directory / "log.jsonl")
    return [(r["step"], r["loss"]) for r in records if r["kind"] == "train"]


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
        assert len(said["data"]["digest"]) == 64 and "commit" in said
        assert said["versions"]["jax"] == jax.__version__
        digests.add(checkpoint.tree_digest(model.config, params))
    assert len(digests) == 3


def test_every_export_is_the_average_in_the_state(config: TrainConfig, tmp_path: Path) -> None:
    """Every leaf of it, also of the snapshots; the weights themselves are elsewhere."""
    directory = tmp_path / "run"
    sharp = dataclasses.replace(config, checkpoint_every=5, keep=3, evaluation=None)
    assert train(sharp, directory)
    for name in ("model", "snapshots/step_000010", "snapshots/step_000005"):
        state = saved(sharp, directory)
        _, exported = ptrm_jax.load(directory / name)
        jax.tree.map(np.testing.assert_array_equal, exported, averaged(state))
        weights_now = {part: state.params[part] for part in state.ema}
        moved = jax.tree.map(lambda x, y: bool((x != y).any()), state.ema, weights_now)
        assert all(jax.tree.leaves(moved))
        shutil.rmtree(directory / "state" / str(int(state.step)))


@pytest.fixture(scope="module")
def learned(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> loop.Run:
    """A run until it solves most of 48 puzzles, with an evaluation half-way."""
    path = tmp_path_factory.mktemp("learned")
    sudoku.write_csv(path / "test.csv", *sudoku.generate(4, 48, seed=5, split="test"))
    longer = dataclasses.replace(
        config,
        **{
            "data": ("generate:sudoku4:100",),
            "steps": 800,
            "learning_rate": 1e-2,
            "weight_decay": 0.0,
            "ema": 0.99,
        },
        **{"loss": "softmax", "halt_max_steps": 4, "evaluation": str(path / "test.csv")},
        **{"log_every": 40, "checkpoint_every": 800, "eval_every": 400, "eval_puzzles": 48},
    )
    run = loop.prepare(longer, path / "run", num_devices=1)
    assert loop.train(run)
    return run


def test_evaluations_are_of_what_is_exported(learned: loop.Run) -> None:
    """Line and checkpoint of one step belong together."""
    log = loop.read_log(learned.directory / "log.jsonl")
    lines = {r["step"]: r for r in log if r["kind"] == "eval"}
    assert list(lines) == [400, 800]
    scores = {
        step: json.loads(json.dumps(loop.evaluate(learned, ptrm_jax.load(path)[1])))
        for step, path in (
            (400, learned.directory / "snapshots/step_000400"),
            (800, learned.directory / "model"),
        )
    }
    for step, line in lines.items():
        assert scores[step] == {name: line[name] for name in scores[step]}
        assert line["by_depth"][-1] == round(line["deterministic"][0], 4)
        assert line["pass"][0] >= max(line["best_q"][0], line["mean"][0])
        assert 0 <= line["q_auc"] <= 1
    assert scores[400] != scores[800]


def test_provenance_has_the_digest_of_the_data(whole: Path, config: TrainConfig) -> None:
    said = checkpoint.read_manifest(whole / "model")["provenance"]
    assert said["data"]["digest"] == read_source(config.data[0], seed=config.seed).digest
    assert said["evaluation"] == ptrm_jax.read_dataset(config.evaluation).digest
    settings = json.loads(json.dumps(config.to_dict()))
    # Of a path on this machine its end alone.
    assert settings.pop("evaluation").endswith(said["config"].pop("evaluation"))
    assert settings == said["config"]


def test_it_learns(learned: loop.Run) -> None:
    """4x4 boards, from guessing to solving most of those it has never seen, turned or not."""
    log = loop.read_log(learned.directory / "log.jsonl")
    losses = [r["lm_loss"] for r in log if r["kind"] == "train"]
    assert losses[-1] < 0.5 * losses[0]
    early, late = (r["deterministic"][0] for r in log if r["kind"] == "eval")
    assert late > early and late > 0.5


def test_a_run_may_start_from_a_checkpoint(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Weights and their average; steps, moments and data begin anew."""
    going_on = dataclasses.replace(config, start_from=str(whole / "model"))
    state = saved(going_on, tmp_path / "run")
    _, params = ptrm_jax.load(whole / "model")
    jax.tree.map(np.testing.assert_array_equal, state.params, params)
    jax.tree.map(np.testing.assert_array_equal, averaged(state), params)
    assert int(state.step) == 0 and all(not np.any(x) for x in jax.tree.leaves(state.opt_state))


def test_a_run_may_start_from_fewer_cycles(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """They are how often the weights are applied, not what these are."""
    model = dataclasses.replace(MODEL, H_cycles=MODEL.H_cycles + 1, L_cycles=MODEL.L_cycles + 2)
    deeper = dataclasses.replace(config, model=model, start_from=str(whole / "model"))
    run = loop.prepare(deeper, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, run.initial, ptrm_jax.load(whole / "model")[1])
    assert run.model.config == model


def test_a_checkpoint_says_what_it_started_from_and_nothing_of_the_machine(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    start = str(whole / "model")
    run = loop.prepare(dataclasses.replace(config, start_from=start), tmp_path / "run")
    params, digest = run.initial, checkpoint.read_manifest(start)["digest"]
    assert params is not None and run.identity["start"] == digest
    loop.export(run, params, tmp_path / "model", 0)
    text = (tmp_path / "model" / "manifest.json").read_text()
    said = json.loads(text)["provenance"]
    assert said["start"]["digest"] == digest and said["start"]["provenance"]["step"] == STEPS
    assert said["config"]["start_from"] == "whole/model"
    assert str(Path(whole).parents[0]) not in text and "test.csv" in said["config"]["evaluation"]
    assert not Path(said["config"]["evaluation"]).is_absolute()


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


def test_a_stopped_run_logs_every_loss_once_and_the_same(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Bit for bit; and a line of several steps is their mean."""
    each = dataclasses.replace(config, log_every=1, evaluation=None, eval_every=0)
    assert train(each, tmp_path / "once")
    for stop in (3, 6):
        assert not train(each, tmp_path / "run", stop=after(stop))
    assert train(each, tmp_path / "run")
    once = losses_of(tmp_path / "once")
    assert [step for step, _ in once] == list(range(1, STEPS + 1))
    assert losses_of(tmp_path / "run") == once
    before = 0
    for step, loss in losses_of(whole):
        assert loss == pytest.approx(np.mean([x for _, x in once[before:step]]), rel=1e-12)
        before = step


def test_two_devices_end_with_the_same_bits_and_nearly_those_of_one(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """The layout is the user's: it may change the last digits, but not from run to run."""
    quiet = dataclasses.replace(config, evaluation=None, eval_every=0)

    def go(name: str, **arguments: Any) -> bool:
        return loop.train(loop.prepare(quiet, tmp_path / name, num_devices=2), **arguments)

    assert go("once")
    assert not go("run", stop=after(7))
    assert go("run")
    assert weights(tmp_path / "run") == weights(tmp_path / "once")
    assert loop.read_log(tmp_path / "run/log.jsonl")[0]["platform"]["devices"] == 2
    one, two = (ptrm_jax.load(path / "model")[1] for path in (whole, tmp_path / "once"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), one, two)


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
    learned: loop.Run, tmp_path: Path, compiled_once: Path
) -> None:
    """SIGKILL, SIGTERM, SIGINT, each somewhere in the middle, then to the end."""
    output = tmp_path / "run"
    config = dataclasses.replace(learned.config, checkpoint_every=40, log_every=5)
    command = [sys.executable, str(ROOT / "experiments" / "train.py"), *flags(config)]
    environment = os.environ | {
        "JAX_NUM_CPU_DEVICES": str(jax.local_device_count()),
        "JAX_COMPILATION_CACHE_DIR": str(compiled_once),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*command, "--devices", "1", "--output", str(output)],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env=environment,
        )

    for number, least in ((signal.SIGKILL, 50), (signal.SIGTERM, 150), (signal.SIGINT, 250)):
        process = start()
        while max(steps_of(output, "train"), default=0) < least:
            assert process.poll() is None, process.communicate()
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -signal.SIGKILL
        else:
            assert process.returncode == 128 + number, err
            assert "stopped and saved; the same command goes on" in out
    process = start()
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "puzzles to train on" in out and "written to" in out
    assert weights(output) == weights(learned.directory)
    starts = steps_of(output, "start")
    assert starts[0] == 0 and starts[1] % 40 == 0
    assert len(starts) == 4 and 0 < starts[1] < starts[2] < starts[3] < 800
    logged = steps_of(output, "train")
    assert logged == sorted(set(logged)) and set(logged) >= set(range(5, 801, 5))


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


def test_nothing_is_compiled_before_a_run_is_checked(config: TrainConfig, tmp_path: Path) -> None:
    """A mistake in a flag is told at once."""
    compiled: list[str] = []

    def note(event: str, seconds: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        loop.prepare(config, tmp_path / "run", num_devices=1)
        assert compiled == [] and list(tmp_path.iterdir()) == []
        jax.jit(lambda x: x * 0.123456)(np.ones(3, np.float32))
        assert compiled  # so the listener hears of it
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


SUDOKU6 = ("sudoku6", "--data", "generate:sudoku6:20")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("sudoku7",), "preset must be one of arc_agi_1, arc_agi_2, maze11, maze_hard, sudoku6"),
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
    assert "H_cycles" not in said  # it is the same
    assert list(tmp_path.iterdir()) == []


def test_a_start_with_another_q_head_is_refused(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """In both directions, though a checkpoint that reads the first position does not say so."""
    pooled = dataclasses.replace(config.model, q_pooling="attention")
    assert "q_pooling" not in config.to_dict()["model"]
    checkpoint.save(tmp_path / "pooled", pooled, init_params(TRM(pooled), jax.random.key(0)))
    for model, start, there, here in (
        (pooled, whole / "model", "first", "attention"),
        (config.model, tmp_path / "pooled", "attention", "first"),
    ):
        asked = dataclasses.replace(config, model=model, start_from=str(start))
        message = f"model: q_pooling is '{there}' there and '{here}' here"
        with pytest.raises(CheckpointError, match=message):
            loop.prepare(asked, tmp_path / "run")
    asked = dataclasses.replace(config, model=pooled, start_from=str(tmp_path / "pooled"))
    assert "q_query" in loop.prepare(asked, tmp_path / "run").initial


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


# --- The command -------------------------------------------------------------------------------


@pytest.fixture
def status_of(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Exit status of the command for a run, in this process."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def status(config: TrainConfig, directory: Path) -> int:
        return command.main([*flags(config), "--devices", "1", "--output", str(directory)])

    yield status
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_command_is_the_run_and_prints_its_evaluations(
    status_of: Callable[..., int],
    whole: Path,
    config: TrainConfig,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert status_of(config, tmp_path / "run") == 0
    assert weights(tmp_path / "run") == weights(whole)
    said = [" ".join(stream.split()) for stream in capsys.readouterr()]
    assert f"written to {tmp_path / 'run' / 'model'}" in said[0]
    for step in (5, 10, 12):
        assert re.search(
            rf"step {step}: TRM D=3 [\d.]+ % \[[\d.]+, [\d.]+\], PTRM best-Q@2 sigma 0.3 [\d.]+ %",
            said[1],
        )
    assert "Q AUC" in said[1] and "n=8" in said[1]


def full(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(directory)
    shutil.rmtree(directory / "state" / "12")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))


def damaged(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory / "state" / "12" / "notes" / "metadata"
    path.write_bytes(path.read_bytes()[:-1])


def no_folder(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(directory / "state")
    (directory / "state").write_text("a file")


def no_checkpoint(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(directory / "model")
    (directory / "model").mkdir()
    (directory / "model" / "mine").write_text("a file")


def no_log(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "log.jsonl").unlink()
    (directory / "log.jsonl").mkdir()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (full, "No space left on device"),
        (damaged, "notes/metadata has changed; delete it to go on from the state before"),
        (no_folder, "state"),
        (no_checkpoint, "model is not a checkpoint; it will not be overwritten"),
        (no_log, "log.jsonl"),
    ],
)
def test_a_run_that_breaks_off_is_one_error_and_status_1(
    spoil: Callable[..., None],
    message: str,
    status_of: Callable[..., int],
    config: TrainConfig,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(copy, monkeypatch)
    assert status_of(config, copy) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 1 and "Traceback" not in err
    assert message in " ".join(err.split())


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


@pytest.mark.parametrize("name", presets.names())
def test_presets_can_begin(name: str, tmp_path: Path) -> None:
    """The state has its shapes, the batch splits, and what is generated fits the model."""
    config = presets.load(name)
    state = jax.eval_shape(lambda: init_state(make_model(config), config))
    assert state.rows.carry.y.shape[0] == config.batch_size
    make_step(make_model(config), config, augmentation(config), None, mesh.local_devices(1))
    if config.data[0].startswith("generate:"):
        data = tuple(re.sub(r":\d+", ":20", source, count=1) for source in config.data)
        few = dataclasses.replace(config, data=data)
        run = loop.prepare(few, tmp_path / "run", num_devices=1)
        assert len(run.examples) == 20 * len(data)
        assert run.evaluation is not None and len(run.evaluation) == config.eval_puzzles


def test_the_command_lists_the_presets(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    assert command.main([]) == 0
    out = capsys.readouterr().out
    for name in presets.names():
        assert f"{name} " in out and presets.describe(name).splitlines()[0] in out
