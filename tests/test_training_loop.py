"""A training run: what it writes, how it resumes, what it refuses; its command, its model card."""

import dataclasses
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import load_experiment, random_params, start_command

import ptrm_jax
from ptrm_jax import TRM, CheckpointError, ModelConfig, checkpoint, mesh, sweep
from ptrm_jax.errors import StorageError, TrainingError
from ptrm_jax.tasks import sudoku
from ptrm_jax.training import TrainConfig, loop, presets
from ptrm_jax.training.card import model_card
from ptrm_jax.training.config import Records
from ptrm_jax.training.examples import Position, augmentation, read_source
from ptrm_jax.training.log import read_log
from ptrm_jax.training.run import TrainingRun, prepare
from ptrm_jax.training.stages import Stage, plan
from ptrm_jax.training.states import States
from ptrm_jax.training.step import TrainState, averaged, init_state, make_model, make_step

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
LEARNING = 800


@pytest.fixture(scope="module", autouse=True)
def compiled_once() -> Iterator[None]:
    """Runs share a compiled step where they may; the curves are drawn of one of them."""
    steps: dict[Any, Any] = {}

    def make_once(model: TRM, config: TrainConfig, *others: Any) -> Any:
        same = {field.name: field.default for field in dataclasses.fields(Records)}
        same |= {"data": ("none",), "evaluation": None, "start_from": None}
        if config.min_learning_rate_ratio == 1:  # the number of steps decides nothing
            same["steps"] = LEARNING
        config = dataclasses.replace(config, **same)
        key = (config, *others[1:])
        if key not in steps:
            steps[key] = make_step(model, config, *others)
        return steps[key]

    draw = loop.draw_curves

    def draw_whole(log: Path, picture: Path) -> None:
        if log.parent.name == "whole":
            draw(log, picture)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "make_step", make_once)
        patch.setattr(loop, "draw_curves", draw_whole)
        yield


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Fifty 4x4 puzzles to evaluate on."""
    path = tmp_path_factory.mktemp("puzzles") / "test.csv"
    sudoku.write_csv(path, *sudoku.generate(4, 50, seed=5, split="test"))
    return str(path)


@pytest.fixture(scope="module")
def config(puzzles: str) -> TrainConfig:
    """A run of a second, whose intervals all differ.

    Rows halt and epochs end within it, so that the position in the data matters.
    """
    return TrainConfig(
        model=MODEL,
        data=("generate:sudoku4:40",),
        evaluation=puzzles,
        task="sudoku",
        steps=STEPS,
        batch_size=8,
        micro_batch=4,
        halt_max_steps=4,
        loss="softmax",
        learning_rate=1e-2,
        warmup_steps=5,
        weight_decay=0.0,
        ema=0.99,
        log_every=2,
        checkpoint_every=4,
        eval_every=5,
        eval_puzzles=48,
        eval_depth=3,
        eval_rollouts=2,
    )


class Weights(NamedTuple):
    """Digests of a run's averaged weights as exported, and of its state as saved."""

    digest: str
    state: str


def weights(directory: Path, step: int | None = None) -> Weights:
    """Of the end, or of the snapshot of a step."""
    exported = "model" if step is None else f"snapshots/step_{step:06d}"
    last = step or max(int(path.name) for path in (directory / "state").glob("[0-9]*"))
    notes = json.loads((directory / "state" / str(last) / "notes" / "metadata").read_text())
    return Weights(checkpoint.read_manifest(directory / exported)["digest"], notes["digest"])


def train(config: TrainConfig, directory: Path, devices: int = 1, **arguments: Any) -> bool:
    return loop.train(prepare(config, directory, num_devices=devices), **arguments)


def after(steps: int) -> Callable[[], bool]:
    """A `stop` that returns True after so many steps."""
    left = iter(range(steps - 1, -1, -1))
    return lambda: next(left) == 0


def flags(config: TrainConfig) -> list[str]:
    """The arguments of `experiments/train.py` for this run."""
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
    with States(prepare(config, directory, num_devices=1)) as states:
        return states.restore()[0]


def records_of(directory: Path, kind: str) -> list[dict[str, Any]]:
    return [r for r in read_log(directory / "log.jsonl").records if r["kind"] == kind]


def losses_of(directory: Path) -> list[tuple[int, float]]:
    """Step and loss of every training record."""
    return [(r["step"], r["loss"]) for r in records_of(directory, "train")]


def steps_of(directory: Path, kind: str) -> list[int]:
    return [r["step"] for r in records_of(directory, kind)]


@pytest.fixture(scope="module")
def whole(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    directory = tmp_path_factory.mktemp("runs") / "whole"
    assert train(config, directory)
    return directory


@pytest.fixture(scope="module")
def each_step(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with other intervals: every loss logged, every exported state kept."""
    directory = tmp_path_factory.mktemp("runs") / "each_step"
    changes = {"log_every": 1, "checkpoint_every": 5, "keep": 3, "evaluation": None}
    assert train(dataclasses.replace(config, **changes), directory)
    return directory


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of the uninterrupted run, to damage."""
    return shutil.copytree(whole, tmp_path / "copy")


# --- What it writes ------------------------------------------------------------------------------


def test_log_has_every_figure(whole: Path) -> None:
    assert steps_of(whole, "start") == [0]
    assert steps_of(whole, "train") == [2, 4, 5, 6, 8, 10, 12]  # 5: before the evaluation
    assert steps_of(whole, "eval") == [5, 10, 12]
    for record in read_log(whole / "log.jsonl").records:
        if record["kind"] == "train":
            assert record.keys() >= {
                *("loss", "lm_loss", "q_loss", "cell_accuracy", "exact_accuracy", "q_accuracy"),
                *("halting_rate", "mean_steps", "steps_per_second", "seconds_left", "grad_norm"),
            }
            assert record["loss"] > 0 and record["steps_per_second"] > 0
        if record["kind"] == "eval":
            for name in ("deterministic", "best_q", "mode", "mean", "pass"):
                mean, low, high, number = record[name]
                assert 0 <= low <= mean <= high <= 1 and number == 48
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


def test_every_export_is_the_average_in_the_state(
    each_step: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Every leaf, also of the snapshots; the weights themselves differ from it."""
    directory = shutil.copytree(each_step, tmp_path / "run")
    for name in ("model", "snapshots/step_000010", "snapshots/step_000005"):
        state = saved(dataclasses.replace(config, evaluation=None), directory)
        _, exported = ptrm_jax.load(directory / name)
        jax.tree.map(np.testing.assert_array_equal, exported, averaged(state))
        weights_now = {part: state.params[part] for part in state.ema}
        moved = jax.tree.map(lambda x, y: bool((x != y).any()), state.ema, weights_now)
        assert all(jax.tree.leaves(moved))
        shutil.rmtree(directory / "state" / str(int(state.step)))


@pytest.fixture(scope="module")
def learned(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A run that learns to solve most of the 48 puzzles, with an evaluation half-way."""
    longer = dataclasses.replace(
        config,
        data=("generate:sudoku4:100",),
        steps=LEARNING,
        log_every=40,
        checkpoint_every=LEARNING // 2,
        eval_every=LEARNING // 2,
    )
    path = tmp_path_factory.mktemp("learned")
    run = prepare(longer, path / "run", num_devices=1)
    assert loop.train(run)
    return run


def test_evaluations_are_of_what_is_exported(learned: TrainingRun) -> None:
    """The log and the checkpoint of a step have the same scores."""
    lines = {r["step"]: r for r in records_of(learned.directory, "eval")}
    paths = {LEARNING // 2: f"snapshots/step_{LEARNING // 2:06d}", LEARNING: "model"}
    assert list(lines) == list(paths)
    scores = {}
    for step, line in lines.items():
        _, params = ptrm_jax.load(learned.directory / paths[step])
        scores[step] = json.loads(json.dumps(loop.evaluate(learned, params)))
        assert scores[step] == {name: line[name] for name in scores[step]}
        assert line["by_depth"][-1] == round(line["deterministic"][0], 4)
        assert line["pass"][0] >= max(line["best_q"][0], line["mean"][0])
        assert 0 <= line["q_auc"] <= 1
    assert scores[LEARNING // 2] != scores[LEARNING]


def test_provenance_has_the_digest_of_the_data(whole: Path, config: TrainConfig) -> None:
    said = checkpoint.read_manifest(whole / "model")["provenance"]
    assert said["data"]["digest"] == read_source(config.data[0], seed=config.seed).digest
    assert said["evaluation"] == ptrm_jax.read_dataset(config.evaluation).digest
    settings = json.loads(json.dumps(config.to_dict()))
    # Of a path on this machine its end alone.
    assert settings.pop("evaluation").endswith(said["config"].pop("evaluation"))
    assert settings == said["config"]


def test_it_learns(learned: TrainingRun) -> None:
    """4x4 boards: most of the test puzzles are solved in the end."""
    losses = [r["lm_loss"] for r in records_of(learned.directory, "train")]
    assert losses[-1] < 0.5 * losses[0]
    early, late = (r["deterministic"][0] for r in records_of(learned.directory, "eval"))
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
    """The shapes of the weights do not depend on the cycles."""
    model = dataclasses.replace(MODEL, H_cycles=MODEL.H_cycles + 1, L_cycles=MODEL.L_cycles + 2)
    deeper = dataclasses.replace(config, model=model, start_from=str(whole / "model"))
    run = prepare(deeper, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, run.initial, ptrm_jax.load(whole / "model")[1])
    assert run.model.config == model


def test_a_checkpoint_says_what_it_started_from_and_nothing_of_the_machine(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    start = str(whole / "model")
    run = prepare(dataclasses.replace(config, start_from=start), tmp_path / "run")
    params, digest = run.initial, checkpoint.read_manifest(start)["digest"]
    assert params is not None and run.identity["start"] == digest
    loop.export(run, params, tmp_path / "model", 0)
    text = (tmp_path / "model" / "manifest.json").read_text()
    said = json.loads(text)["provenance"]
    assert said["start"]["digest"] == digest and said["start"]["provenance"]["step"] == STEPS
    assert said["config"]["start_from"] == "whole/model"
    before = "12 steps (learning rate 0.01, at most 4 supervision steps, cycles 2 x 1)"
    told = f"| started from | `whole/model`, digest `{digest[:8]}`, {before} |"
    assert told in model_card("run", tmp_path / "model", [])
    assert str(Path(whole).parents[0]) not in text and "test.csv" in said["config"]["evaluation"]
    assert not Path(said["config"]["evaluation"]).is_absolute()


# --- How it resumes ------------------------------------------------------------------------------


def test_an_interrupted_run_ends_with_the_same_bits(
    whole: Path, config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped at the first step, between the intervals, at a save, at an evaluation, after a record
    cut off by a kill, after a full disk, and before the last step."""
    directory = tmp_path / "run"
    for steps in (1, 3, 1, 1):
        assert not train(config, directory, stop=after(steps))

    with (directory / "log.jsonl").open("a") as file:
        # A kill leaves a record of a step that must be repeated, and half of the next line.
        file.write(json.dumps({"kind": "train", "step": 7, "loss": 0.0}) + '\n{"kind": "tr')
    leftovers = [
        directory / "state" / "10.orbax-checkpoint-tmp" / "half",
        directory / "snapshots" / ".step_000010.abc" / "half",
        directory / ".model.abc" / "half",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True)
        path.write_text("half")
    assert not train(config, directory, stop=after(1))
    assert not any(path.parent.exists() for path in leftovers)
    assert all(json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines())

    before = same_files(directory / "state")
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(OSError, match="No space left on device"):
            train(config, directory)
    assert same_files(directory / "state") == before

    assert not train(config, directory, stop=after(4))
    assert train(config, directory)
    assert weights(directory) == weights(whole)
    assert steps_of(directory, "start") == [0, 1, 4, 5, 6, 7, 7, 11]
    assert steps_of(directory, "train") == [1, 2, 4, 5, 6, 7, 8, 10, 11, 12]
    assert steps_of(directory, "eval") == steps_of(whole, "eval")


def test_intervals_change_neither_weights_nor_losses(
    whole: Path, each_step: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """Bit for bit, also when they change in the middle of a run; a record of several steps is
    their mean."""
    other = dataclasses.replace(config, log_every=1, checkpoint_every=5, eval_every=0, keep=1)
    assert not train(config, tmp_path / "run", stop=after(6))
    assert train(other, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(whole) == weights(each_step)
    assert [path.name for path in (tmp_path / "run/state").glob("[0-9]*")] == ["12"]
    once = losses_of(each_step)
    assert [step for step, _ in once] == list(range(1, STEPS + 1))
    assert [x for x in losses_of(tmp_path / "run") if x[0] > 6] == once[6:]
    assert [step for step, _ in losses_of(tmp_path / "run")] == [2, 4, 5, *range(6, STEPS + 1)]
    before = 0
    for step, loss in losses_of(whole):
        assert loss == pytest.approx(np.mean([x for _, x in once[before:step]]), rel=1e-12)
        before = step


def test_two_devices_end_with_the_same_bits_and_nearly_those_of_one(
    whole: Path, config: TrainConfig, tmp_path: Path
) -> None:
    """The number of devices may change the last digits, but not from run to run."""
    short = dataclasses.replace(config, evaluation=None, eval_every=0)
    assert train(short, tmp_path / "once", devices=2)
    assert not train(short, tmp_path / "run", devices=2, stop=after(7))
    assert train(short, tmp_path / "run", devices=2)
    assert weights(tmp_path / "run") == weights(tmp_path / "once")
    assert records_of(tmp_path / "run", "start")[0]["platform"]["devices"] == 2
    one, two = (ptrm_jax.load(path / "model")[1] for path in (whole, tmp_path / "once"))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-5), one, two)


def test_a_finished_run_is_left_as_it_is(whole: Path, config: TrainConfig, copy: Path) -> None:
    before = {path: path.read_bytes() for path in copy.glob("state/**/*") if path.is_file()}
    assert train(config, copy)
    assert weights(copy) == weights(whole)
    assert {path: path.read_bytes() for path in before} == before
    assert steps_of(copy, "train") == steps_of(whole, "train")


def test_a_run_may_become_longer(config: TrainConfig, copy: Path, tmp_path: Path) -> None:
    longer = dataclasses.replace(config, steps=15)
    assert train(longer, copy)
    assert train(longer, tmp_path / "at once")
    assert weights(copy) == weights(tmp_path / "at once")


def test_a_curriculum_is_one_command(
    command: ModuleType,
    whole: Path,
    config: TrainConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Stopped in either stage it ends with the same bits; a finished stage is left as it is."""
    own = {"steps": STEPS, "learning_rate": 1e-2, "halt_max_steps": 4, "L_cycles": 1}
    monkeypatch.setattr(presets, "stages", lambda name: (Stage(**own),))
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    last = dataclasses.replace(config, seed=2**32 - 1, steps=6)  # the stage has the seed after it
    output = tmp_path / "run"
    argv = [*flags(last), "--devices", "1", "--output", str(output)]
    train_on, stops = loop.train, [3, None, 2, None]

    def stopped(run: TrainingRun, *, stop: Any, **others: Any) -> bool:
        steps = stops.pop(0)
        complete = train_on(run, stop=stop if steps is None else after(steps), **others)
        stop.signal = 0 if complete else signal.SIGINT
        return complete

    monkeypatch.setattr(loop, "train", stopped)
    stage = output / "stages" / "1"
    assert command.main(argv) == 130 and not (stage / "model").exists()
    assert not (output / "config.json").exists()
    assert command.main(argv) == 130 and (output / "config.json").exists()
    before = same_files(stage)
    assert command.main(argv) == 0
    assert same_files(stage) == before and stops == []
    assert weights(stage) == weights(whole)
    said = capsys.readouterr().out
    assert "stage 1 of 2: 40 puzzles to train on" in said and f"written to {output}/model" in said

    monkeypatch.setattr(loop, "train", lambda run, **_: run.initial is None)
    assert command.main([*argv, "--no-stages", "--output", str(tmp_path / "alone")]) == 0

    monkeypatch.undo()
    by_hand = dataclasses.replace(last, start_from=str(stage / "model"))
    assert train(by_hand, tmp_path / "by hand")
    assert weights(output) == weights(tmp_path / "by hand")


def test_a_checkpoint_takes_the_place_of_the_earlier_stages(tmp_path: Path) -> None:
    config, earlier = presets.load("pencil6"), presets.stages("pencil6")
    runs = plan(config, earlier, tmp_path)
    assert len(runs) == len(earlier) + 1 and len({c.seed for c, _ in runs}) == len(runs)
    assert [c.start_from for c, _ in runs] == [None, *(str(d / "model") for _, d in runs[:-1])]
    assert runs[-1] == (dataclasses.replace(config, start_from=runs[-1][0].start_from), tmp_path)
    given = dataclasses.replace(config, start_from="pencil6")
    assert plan(given, earlier, tmp_path) == [(given, tmp_path)]


def test_a_command_that_is_killed_and_stopped_ends_with_the_same_bits(
    command: ModuleType,
    learned: TrainingRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """SIGKILL to a process; SIGTERM and SIGINT to this one; then to half of the other run."""
    output = tmp_path / "run"
    half = LEARNING // 2
    shorter = {"steps": half, "checkpoint_every": 40, "log_every": 5, "eval_every": 300}
    config = dataclasses.replace(learned.config, **shorter)
    arguments = [*flags(config), "--devices", "1", "--output", str(output)]
    process = start_command("train", *arguments)
    while max(steps_of(output, "train"), default=0) < 50:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.kill()
    assert "puzzles to train on" in process.communicate()[0]
    assert process.returncode == -signal.SIGKILL
    killed_at = max(steps_of(output, "train"))

    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    train_on = loop.train

    def signalled(number: int, step: int) -> Callable[..., bool]:
        def train(run: TrainingRun, *, progress: Any, stop: Any) -> bool:
            def show(record: dict[str, Any]) -> None:
                progress(record)
                if record["kind"] == "train" and record["step"] == step:
                    os.kill(os.getpid(), number)

            return train_on(run, progress=show, stop=stop)

        return train

    first, second = killed_at // 5 * 5 + 45, killed_at // 5 * 5 + 100
    for number, step in ((signal.SIGTERM, first), (signal.SIGINT, second)):
        monkeypatch.setattr(loop, "train", signalled(number, step))
        assert command.main(arguments) == 128 + number
    monkeypatch.setattr(loop, "train", train_on)
    assert command.main(arguments) == 0
    assert weights(output) == weights(learned.directory, half)
    starts = steps_of(output, "start")
    assert starts[:2] == [0, killed_at // 40 * 40] and starts[2:] == [first, second]
    assert steps_of(output, "train") == list(range(5, half + 1, 5))

    out, err = (" ".join(stream.split()) for stream in capsys.readouterr())
    assert out.count("stopped; rerun the same command to resume") == 2
    assert f"written to {output / 'model'}" in out
    for step in (300, half):
        assert re.search(
            rf"step {step}: TRM D=3 [\d.]+ % \[[\d.]+, [\d.]+\], PTRM best-Q@2 sigma 0.3 [\d.]+ %",
            out,
        )
    assert "Q AUC" in out and "n=48" in out and "Q AUC" not in err


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
        raise AssertionError("it began to train")

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
    """A mistake in a flag is reported at once."""
    compiled: list[str] = []

    def note(event: str, seconds: float, **_: object) -> None:
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        prepare(config, tmp_path / "run", num_devices=1)
        assert compiled == [] and list(tmp_path.iterdir()) == []
        jax.jit(lambda x: x * 0.123456)(np.ones(3, np.float32))
        assert compiled  # the listener works
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"betas": (0.9, 1.0)}, "betas must be two numbers in [0, 1); got (0.9, 1.0)"),
        ({"data": ()}, "data must name at least one source; got none"),
        ({"task": "none", "extra_clues": 2}, "extra_clues needs a task; got 2 with task 'none'"),
        ({"relabel": True}, "relabel is for task 'maze'; got task 'sudoku'"),
        ({"task": "none", "exclude": ("a.csv",)}, "exclude needs a task"),
        ({"seed": 2**32}, "seed must be below 2**32; got 4294967296"),
        ({"compute_dtype": "bfloat16"}, "must be compute_dtype; got float32 and bfloat16"),
        ({"ema": 1.5}, "ema must lie in [0, 1]; got 1.5"),
        ({"loss": "hinge"}, "loss must be one of stablemax, softmax; got 'hinge'"),
    ],
    ids=str,
)
def test_settings_are_checked(changes: dict[str, Any], message: str, config: TrainConfig) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        dataclasses.replace(config, **changes)


SUDOKU6 = ("sudoku6", "--data", "generate:sudoku6:20")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ("sudoku7",),
            "preset must be one of arc_agi_1, arc_agi_2, maze11, maze_hard, pencil6, sudoku6",
        ),
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
    checkpoint.save(tmp_path / "pooled", pooled, random_params(pooled))
    for model, start, there, here in (
        (pooled, whole / "model", "first", "attention"),
        (config.model, tmp_path / "pooled", "attention", "first"),
    ):
        asked = dataclasses.replace(config, model=model, start_from=str(start))
        message = f"model: q_pooling is '{there}' there and '{here}' here"
        with pytest.raises(CheckpointError, match=message):
            prepare(asked, tmp_path / "run")
    asked = dataclasses.replace(config, model=pooled, start_from=str(tmp_path / "pooled"))
    assert "q_query" in prepare(asked, tmp_path / "run").initial


def same_files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 2e-3}, "config.learning_rate was 0.01 and is 0.002"),
        ({"seed": 1}, "config.seed was 0 and is 1"),
        ({"data": ("generate:sudoku4:99",)}, "data.num_examples was"),
        ({"steps": 9}, "has done 12 steps, but steps is 9"),
        ({"model": dataclasses.replace(MODEL, H_cycles=1)}, "config.model.H_cycles was 2 and is 1"),
    ],
    ids=str,
)
def test_another_run_is_not_gone_on_with(
    changes: dict[str, Any], message: str, config: TrainConfig, whole: Path
) -> None:
    before = same_files(whole)
    with pytest.raises(TrainingError) as error:
        prepare(dataclasses.replace(config, **changes), whole)
    assert message in str(error.value) and "pass another output" in str(error.value)
    assert same_files(whole) == before


def test_a_schedule_towards_an_end_cannot_be_longer(config: TrainConfig, tmp_path: Path) -> None:
    """The learning rate so far depends on their number."""
    cosine = dataclasses.replace(config, min_learning_rate_ratio=0.1)
    run = prepare(cosine, tmp_path / "run")
    run.directory.mkdir()
    run.config_path.write_text(json.dumps(run.identity))
    with pytest.raises(TrainingError, match=r"config\.steps was 12 and is 13"):
        prepare(dataclasses.replace(cosine, steps=13), tmp_path / "run")


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
        (file, "cannot be written"),
        (file / "run", "cannot be written"),
    ):
        with pytest.raises((TrainingError, StorageError), match=message):
            prepare(config, path)
    (mine / "config.json").write_text("{")
    with pytest.raises(TrainingError, match="cannot be read"):
        prepare(config, mine)
    (mine / "config.json").write_text('{"a": 1}')
    assert same_files(tmp_path) == before


def test_a_damaged_state_is_named_and_the_one_before_goes_on(
    whole: Path, config: TrainConfig, copy: Path
) -> None:
    """With a flipped byte in any of its files; Orbax loads most of them without an error."""
    state = copy / "state" / "12"
    files = [path for path in state.rglob("*") if path.is_file() and path.stat().st_size]
    files.remove(state / "digests.json")  # needed only if another file is damaged
    assert len(files) > 5
    with States(prepare(config, copy, num_devices=1)) as states:
        for path in files:
            good = path.read_bytes()
            bad = bytearray(good)
            bad[len(bad) // 2] ^= 4
            path.write_bytes(bytes(bad))
            with pytest.raises(TrainingError) as error:
                states.restore()
            assert str(state) in str(error.value) and "delete it to resume" in str(error.value)
            path.write_bytes(good)
    shutil.rmtree(state)
    shutil.rmtree(copy / "model")
    assert train(config, copy)
    assert steps_of(copy, "start") == [0, 8]
    assert weights(copy) == weights(whole)


@pytest.mark.parametrize("name", ["log.jsonl", "config.json", "state/12/digests.json"])
def test_a_flipped_bit_beside_intact_states_stops_nothing(
    name: str, whole: Path, config: TrainConfig, copy: Path
) -> None:
    """A line of the log is dropped, and said; the others are not needed, or written anew."""
    intact, rng = (copy / name).read_bytes(), random.Random(0)
    identity = prepare(config, whole).identity
    expected, records = saved(config, whole), read_log(whole / "log.jsonl").records
    for round in range(12):
        bad = bytearray(intact)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(bytes(bad))
        run = prepare(config, copy, num_devices=1)
        assert run.identity == identity
        found = read_log(copy / "log.jsonl")
        assert all(record in records for record in found.records)
        assert found.damaged or found.records == records
        if not round:
            state = saved(config, copy)
            assert jax.tree.all(jax.tree.map(np.array_equal, state, expected))


def test_a_loss_that_is_not_finite_stops_the_run(
    config: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights overflow in the fifth step; the last saved state is finite."""
    make_once = loop.make_step

    def overflowing(*arguments: Any) -> Any:
        step = make_once(*arguments)

        def run(state: TrainState, batch: Any) -> Any:
            if int(state.step) == 4:
                huge = jax.tree.map(lambda x: 3e38 * jnp.sign(x), state.params["lm_head"])
                state = state._replace(params=state.params | {"lm_head": huge})
            return step(state, batch)

        return run

    monkeypatch.setattr(loop, "make_step", overflowing)
    often = dataclasses.replace(config, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"gradient is not finite at step 5; the last saved st"):
        train(often, tmp_path / "run")
    state = saved(often, tmp_path / "run")
    assert int(state.step) == 4
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (tmp_path / "run" / "model").exists()
    wrong = state._replace(step=jnp.int32(5), ema=jax.tree.map(lambda x: x / 0, state.ema))
    with States(prepare(often, tmp_path / "run", num_devices=1)) as states:
        with pytest.raises(TrainingError, match="the state is not finite at step 5"):
            states.save(wrong, Position(), 0.0)


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture
def status_of(command: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The exit status of the command for a run, in this process."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)

    def status(config: TrainConfig, directory: Path) -> int:
        return command.main([*flags(config), "--devices", "1", "--output", str(directory)])

    return status


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
    ("spoil", "message", "status"),
    [
        (full, "No space left on device; the last saved state is kept", 4),
        (damaged, "notes/metadata has changed; delete it to resume from the state before", 1),
        (no_folder, "state", 4),
        (no_checkpoint, "model is not a checkpoint; it will not be overwritten", 2),
        (no_log, "log.jsonl", 2),
    ],
)
def test_a_run_that_breaks_off_is_one_error_and_a_status(
    spoil: Callable[..., None],
    message: str,
    status: int,
    status_of: Callable[..., int],
    config: TrainConfig,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(copy, monkeypatch)
    assert status_of(config, copy) == status
    err = capsys.readouterr().err
    assert err.count("error: ") == 1 and "Traceback" not in err
    assert message in " ".join(err.split())


# --- Presets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.NAMES)
def test_presets_can_begin(name: str, tmp_path: Path) -> None:
    """The model has its size, the batch splits, and generated data fit the model."""
    config = presets.load(name)
    model = make_model(config)
    state = jax.eval_shape(lambda: init_state(model, config))
    assert state.rows.carry.y.shape[0] == config.batch_size
    sizes = [int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(state.params)]
    expected = {"sudoku_extreme": 5.03e6, "sudoku9": 5.23e5, "sudoku6": 1.57e5}
    if name in expected:
        assert sum(sizes) == pytest.approx(expected[name], rel=0.005)
    assert f"python experiments/train.py {name}" in presets.describe(name)
    assert config.batch_size % config.micro_batch == 0
    assert config.steps >= 1000
    make_step(model, config, augmentation(config), None, mesh.local_devices(1))
    if config.data[0].startswith("generate:"):
        data = tuple(re.sub(r":\d+", ":20", source, count=1) for source in config.data)
        few = dataclasses.replace(config, data=data)
        run = prepare(few, tmp_path / "run", num_devices=1)
        assert len(run.examples) == 20 * len(data)
        assert run.evaluation is not None and len(run.evaluation) == config.eval_puzzles


def test_the_command_lists_the_presets(
    command: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    assert command.main([]) == 0
    out = capsys.readouterr().out
    for name in presets.NAMES:
        assert f"{name} " in out and presets.describe(name).splitlines()[0] in out


# --- Its model card ------------------------------------------------------------------------------


@pytest.fixture
def swept(copy: Path, config: TrainConfig, tmp_path: Path) -> Path:
    """A sweep with the copied run's checkpoint."""
    settings = sweep.SweepConfig(
        checkpoint=str(copy / "model"),
        data=config.evaluation,
        num_puzzles=48,
        sigmas=(0.3,),
        rollouts=2,
        depth=3,
        devices=1,
        equal_compute=False,
    )
    sweep.resume(sweep.prepare(settings), tmp_path / "sweep")
    return tmp_path / "sweep"


def test_a_card_says_how_a_checkpoint_was_trained_and_what_it_scores(
    copy: Path, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.md").write_text("Further *notes*.")
    arguments = ["tiny", "--model", str(copy / "model"), "--sweeps", str(swept)]
    card = load_experiment("card")
    assert card.main([*arguments, "--notes", str(tmp_path / "notes.md")]) == 0
    text = (copy / "model" / "README.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip()
    digest = checkpoint.read_manifest(copy / "model")["digest"]
    last = records_of(copy, "eval")[-1]
    minutes = f"{records_of(copy, 'train')[-1]['seconds'] / 60:.0f} minutes"  # 1 on a busy machine
    solved = {
        name: f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
        for name in ("deterministic", "mean", "best_q")
        for mean, low, high, _ in [last[name]]
    }
    for line in (
        "# tiny",
        f"| digest, size | `{digest[:8]}`, 1,858 parameters |",
        f"| length | 12 optimiser steps of 8 rows, {minutes} without evaluations |",
        "    python experiments/train.py tiny",
        "Further *notes*.",
        "48 of 50 puzzles",
        "--sigmas 0.3 --rollouts 2 --depth 3 --num-puzzles 48 --no-equal-compute",
        "| TRM, D=3 | " + solved["deterministic"],
        "| PTRM sigma 0.3, one rollout (mean) | " + solved["mean"],
        "| PTRM sigma 0.3, best-Q@2 | " + solved["best_q"],
        "| D | 1 | 2 | 3 |",
        f"| TRM | {' | '.join(f'{100 * x:.1f}' for x in last['by_depth'])} |",
        "| K | 1 | 2 |",
        "| sigma | AUC | sign right | mean Q, right | mean Q, wrong |",
    ):
        assert line in text, line
    assert str(tmp_path) not in text
    for picture in re.findall(r"\]\((\w+\.png)\)", text):
        assert (copy / "model" / picture).read_bytes().startswith(b"\x89PNG")


def test_a_card_of_another_checkpoint_is_refused(
    copy: Path, swept: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = load_experiment("card")
    checkpoint.save(tmp_path / "other", MODEL, random_params(MODEL))
    for model, message in (
        (copy / "snapshots" / "step_000005", "sweeps must be of checkpoint"),
        (tmp_path / "other", "no log.jsonl in the folders that contain"),
    ):
        assert card.main(["x", "--model", str(model), "--sweeps", str(swept)]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    arguments = ["x", "--model", str(tmp_path / "other"), "--sweeps", str(swept)]
    assert card.main([*arguments, "--run", str(whole)]) == 2
    assert "was not trained by ptrm_jax" in " ".join(capsys.readouterr().err.split())
