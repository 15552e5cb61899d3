"""A training run on disk: starts, logs, evaluates, survives being killed, exports.

    RUN/config.json             what was asked, data digests
    RUN/log.jsonl               a line per `log_every` steps, per evaluation, per start
    RUN/curves.png              drawn from it
    RUN/state/<step>/           the whole state, by Orbax; the newest is where a killed run goes on
    RUN/snapshots/step_<n>/     a checkpoint of the averaged weights at every evaluation
    RUN/model/                  the last of them, once the run is complete

The state, the position in the data and the seed decide everything that follows. So a run that was
killed, at any moment, ends with the bits of one that was not.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from ptrm_jax import checkpoint, mesh, metrics, sweep
from ptrm_jax.config import ModelConfig
from ptrm_jax.data import Dataset
from ptrm_jax.errors import TrainingError
from ptrm_jax.files import is_partial, write_text
from ptrm_jax.model import TRM, Params
from ptrm_jax.provenance import differences, environment
from ptrm_jax.tasks import read_dataset
from ptrm_jax.training.config import TrainConfig
from ptrm_jax.training.curves import draw_curves
from ptrm_jax.training.examples import Position, Stream, augmentation, read_examples
from ptrm_jax.training.step import (
    Examples,
    StepMetrics,
    TrainState,
    averaged,
    init_state,
    make_model,
    make_step,
    place,
)

_MAY_CHANGE = (
    *("log_every", "checkpoint_every", "keep", "eval_every"),
    *("eval_puzzles", "eval_depth", "eval_rollouts", "eval_sigma"),
)
"""Settings that a run may go on with otherwise than it began: they do not touch the weights."""


_DIGESTS = "digests.json"
"""In the folder of a saved state: SHA-256 of its files."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run ready to start or to go on: everything checked and loaded, nothing compiled.

    Attributes:
      config: what was asked.
      directory: where it lives.
      model: the network.
      examples: what it trains on.
      evaluation: what it is scored on, or None.
      initial: weights to start from, or None.
      start: the checkpoint they are from, its digest and provenance, or None.
      devices: where it runs.
    """

    config: TrainConfig
    directory: Path
    model: TRM
    examples: Dataset
    evaluation: Dataset | None
    initial: Params | None
    start: dict[str, Any] | None
    devices: tuple[jax.Device, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the weights; a directory holds runs of one identity only."""
        return json.loads(
            json.dumps(
                {
                    "config": self.config.to_dict(),
                    "data": {
                        "digest": self.examples.digest,
                        "num_examples": len(self.examples),
                    },
                    "evaluation": None if self.evaluation is None else self.evaluation.digest,
                    "start": None if self.start is None else self.start["digest"],
                }
            )
        )


def prepare(
    config: TrainConfig, directory: str | os.PathLike[str], *, num_devices: int | None = None
) -> Run:
    """Loads and checks everything, before anything is compiled or written.

    Args:
      config: the run.
      directory: where it lives, or will.
      num_devices: local devices to use; by default as many as divide the batch.

    Raises:
      DataError, CheckpointError, TrainingError, ValueError: what is wrong with data, the checkpoint
        to start from, the directory, or the settings.
    """
    directory = Path(directory)
    _check_writable(directory)
    model, devices = make_model(config), _devices(config, num_devices)
    # Builds, and so checks, without compiling.
    make_step(model, config, augmentation(config), None, devices)
    evaluation = None
    if config.evaluation is not None:
        evaluation = read_dataset(config.evaluation)
        evaluation = evaluation.take(metrics.valid_rows(evaluation.labels, evaluation.ignore_label))
        evaluation.check_fits(config.model)
    initial, start = (None, None) if config.start_from is None else _load_initial(config)
    examples = read_examples(config, evaluation)
    run = Run(
        config,
        directory,
        model,
        examples,
        evaluation and evaluation.head(min(config.eval_puzzles, len(evaluation))),
        initial,
        start,
        devices,
    )
    _check_same_run(run)
    return run


def _devices(config: TrainConfig, num_devices: int | None) -> tuple[jax.Device, ...]:
    if num_devices is not None:
        return mesh.local_devices(num_devices)
    everything = mesh.local_devices()
    for count in range(len(everything), 0, -1):
        if config.batch_size % (count * config.micro_batch) == 0:
            return everything[:count]
    return everything[:1]  # `make_step` says what is wrong


def _load_initial(config: TrainConfig) -> tuple[Params, dict[str, Any]]:
    manifest = checkpoint.read_manifest(config.start_from)
    asked, there = vars(config.model), vars(ModelConfig.from_dict(manifest["config"]))
    different = [
        f"{name} is {there[name]!r} there and {value!r} here"
        for name, value in asked.items()
        # How often and in what they are applied does not change what the weights are.
        if name not in ("H_cycles", "L_cycles", "forward_dtype") and there[name] != value
    ]
    if different:
        raise checkpoint.CheckpointError(
            f"start_from {config.start_from!r} is a checkpoint of another model: "
            + "; ".join(different)
        )
    start = {name: manifest[name] for name in ("digest", "provenance")}
    return checkpoint.load(config.start_from)[1], start


def _check_writable(directory: Path) -> None:
    """Raises TrainingError where a run cannot be kept; leaves nothing behind."""
    parent = directory
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise TrainingError(f"{directory} cannot be written: {parent} is no writable folder")
    if not directory.exists() or _config_path(directory).exists():
        return
    # A run may have been killed before it had its first file.
    if not all(map(is_partial, directory.iterdir())):
        raise TrainingError(_foreign(directory))


def _foreign(directory: Path) -> str:
    return f"{directory} holds something other than a training run; pass another output"


def _config_path(directory: Path) -> Path:
    return directory / "config.json"


def _check_same_run(run: Run) -> None:
    path = _config_path(run.directory)
    if not path.exists():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrainingError(f"{path} cannot be read: {error}; pass another output") from error
    if not isinstance(before, dict) or before.keys() != run.identity.keys():
        raise TrainingError(_foreign(run.directory))
    may_change = {f"config.{name}" for name in _MAY_CHANGE}
    if run.config.min_learning_rate_ratio == 1.0:
        may_change.add("config.steps")  # without a schedule towards its end a run may be longer
    different = [
        text
        for text in differences(before, run.identity)
        if text.split(" ", 1)[0] not in may_change
    ]
    if different:
        raise TrainingError(
            f"{run.directory} holds another run: {'; '.join(different)}; pass another output, or "
            "the settings it was started with"
        )
    done = max(_saved_steps(run.directory), default=0)
    if run.config.steps < done:
        raise TrainingError(
            f"{run.directory} has done {done} steps, more than the {run.config.steps} asked for; "
            "pass another output, or more steps"
        )


# --- The run -------------------------------------------------------------------------------------


def train(
    run: Run,
    *,
    progress: Callable[[dict[str, Any]], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains until `config.steps` are done, from where the run stands.

    Args:
      run: of `prepare`.
      progress: called with every record of the log.
      stop: asked after every step; if it says so, the state is saved and the call returns.

    Returns:
      Whether the run is complete.

    Raises:
      TrainingError: the loss is no longer finite; the saved state is damaged; or something cannot
        be written. The state saved last stays.
      OSError: something cannot be written; the same.
    """
    config = run.config
    run.directory.mkdir(parents=True, exist_ok=True)
    for pattern in (".model.*", "snapshots/.step_*"):  # what a killed export left
        for litter in run.directory.glob(pattern):
            shutil.rmtree(litter)
    _write_json(_config_path(run.directory), run.identity)
    with _States(run) as states:
        state, position, seconds = states.restore()
        done = int(state.step)
        log = _Log(run.directory / "log.jsonl", done, progress)
        log.write({"kind": "start", "step": done, **environment(run.devices)})
        step = make_step(
            run.model, config, augmentation(config), run.examples.ignore_label, run.devices
        )
        stream = Stream(run.examples, config.seed, position)
        rows = mesh.sharding(run.devices, split=True)
        meter = _Meter(config, done, seconds)

        def save() -> None:
            meter.flush(log, done)
            states.save(state, stream.position, meter.seconds)

        def evaluate_when_due() -> None:
            """Also of a run that was killed between saving its state and this."""
            if config.eval_every and 0 < done < config.steps and done % config.eval_every == 0:
                meter.flush(log, done)
                with meter.pause():
                    export(run, averaged(state), run.directory / f"snapshots/step_{done:06d}", done)
                    _evaluate_and_log(run, averaged(state), done, log)

        evaluate_when_due()
        while done < config.steps:
            batch = Examples(*(jax.device_put(x, rows) for x in stream.take(config.batch_size)))
            state, step_metrics = step(state, batch)
            done += 1
            meter.add(step_metrics)
            if done % config.log_every == 0:
                meter.flush(log, done)
            stopping = stop()
            if stopping or done % config.checkpoint_every == 0 or done == config.steps:
                save()
            if stopping and done < config.steps:
                return False
            evaluate_when_due()
        with meter.pause():
            export(run, averaged(state), run.directory / "model", done)
            _evaluate_and_log(run, averaged(state), done, log)
            draw_curves(log.path, run.directory / "curves.png")
    return True


def export(run: Run, params: Params, directory: Path, step: int) -> None:
    """A checkpoint of these weights, as `ptrm_jax.load` reads it.

    Raises:
      TrainingError, OSError: it cannot be written.
    """
    with _writing(directory):
        checkpoint.save(
            directory,
            run.config.model,
            jax.tree.map(np.asarray, params),
            provenance=_portable(
                {
                    "trained_by": "ptrm_jax",
                    "step": step,
                    **run.identity,
                    **environment(run.devices),
                    "start": run.start,
                }
            ),
            overwrite=True,
        )


def _portable(tree: Any) -> Any:
    """Without what is only true of this machine: of an absolute path the last two names stay."""
    if isinstance(tree, dict):
        return {name: _portable(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_portable(value) for value in tree]
    if isinstance(tree, str) and Path(tree).is_absolute():
        return "/".join(Path(tree).parts[-2:])
    return tree


# --- Evaluation ----------------------------------------------------------------------------------


def evaluate(run: Run, params: Params) -> dict[str, Any]:
    """Scores weights on the run's evaluation set: deterministic TRM, and PTRM beside it.

    Returns:
      JSON: accuracies as (mean, low, high, num_puzzles), the AUC of Q, deterministic accuracy by
      depth.
    """
    config = run.config
    assert run.evaluation is not None
    prepared = sweep.Sweep(
        config=sweep.SweepConfig(
            checkpoint="averaged weights",
            sigmas=(config.eval_sigma,),
            rollouts=config.eval_rollouts,
            depth=config.eval_depth,
            equal_compute=False,
        ),
        model=run.model,
        params=mesh.replicate(params, run.devices),
        puzzles=run.evaluation,
        devices=run.devices,
        lane_tile=mesh.default_lane_tile(),
        provenance={},
    )
    result = sweep.run(prepared)
    rows = {
        "deterministic" if row.method == "TRM" else row.choice: row.accuracy
        for row in sweep.summary(result)
    }
    quiet = result.deterministic.record.correct[:, 0]
    noisy = result.runs[0].record.at(config.eval_depth)
    return {
        **{name: tuple(accuracy) for name, accuracy in rows.items()},
        "q_auc": metrics.q_auc(noisy.correct, noisy.q_logit, finite=noisy.finite),
        "by_depth": [round(float(x), 4) for x in quiet.mean(axis=0)],
        **{name: getattr(config, name) for name in ("eval_depth", "eval_rollouts", "eval_sigma")},
    }


def _evaluate_and_log(run: Run, params: Params, step: int, log: "_Log") -> None:
    if run.evaluation is None or log.has("eval", step):
        return
    start = time.perf_counter()
    scores = evaluate(run, params)
    seconds = round(time.perf_counter() - start, 1)
    log.write({"kind": "eval", "step": step, **scores, "eval_seconds": seconds})
    draw_curves(log.path, run.directory / "curves.png")


# --- Log -----------------------------------------------------------------------------------------


class _Log:
    """The JSON lines of a run; those of steps that have to be done again are dropped."""

    def __init__(self, path: Path, step: int, progress: Callable[[dict[str, Any]], None]) -> None:
        self.path, self._progress = path, progress
        self._kept = [record for record in read_log(path) if record["step"] <= step]
        lines = "".join(json.dumps(record) + "\n" for record in self._kept)
        write_text(path, lines)

    def has(self, kind: str, step: int) -> bool:
        return any(r["kind"] == kind and r["step"] == step for r in self._kept)

    def write(self, record: dict[str, Any]) -> None:
        record = json.loads(json.dumps(_finite(record)))
        self._kept.append(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._progress(record)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a line cut off by a kill is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


def _finite(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _Meter:
    """Collects the metrics of steps without waiting for them, and turns them into log records."""

    def __init__(self, config: TrainConfig, step: int, seconds: float) -> None:
        self._config = config
        self._pending: list[StepMetrics] = []
        self._step, self._before = step, seconds
        self._start = self._last = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time trained, over all processes of this run."""
        return self._before + time.perf_counter() - self._start

    def add(self, step_metrics: StepMetrics) -> None:
        self._pending.append(step_metrics)

    def pause(self) -> "_Pause":
        """A context whose time does not count."""
        return _Pause(self)

    def shift(self, seconds: float) -> None:
        self._start += seconds
        self._last += seconds

    def flush(self, log: _Log, step: int) -> None:
        """Writes the record of the steps since the last one, if there are any.

        Raises:
          TrainingError: one of them was not finite.
        """
        if not self._pending:
            return
        fetched = jax.device_get(self._pending)
        now = time.perf_counter()
        sums = StepMetrics(*(np.array(x, np.float64) for x in zip(*fetched, strict=True)))
        bad = ~(np.isfinite(sums.loss) & np.isfinite(sums.grad_norm))
        if bad.any():
            at = self._step + int(np.argmax(bad)) + 1
            raise TrainingError(_not_finite("the loss or its gradient", at))
        count = len(fetched)
        halted = float(sums.halted.sum())
        per_halted = 1.0 / halted if halted else math.nan
        rate = count / max(now - self._last, 1e-9)
        log.write(
            {
                "kind": "train",
                "step": step,
                "loss": float(sums.loss.mean()),
                "lm_loss": float(sums.lm_loss.mean()),
                "q_loss": float(sums.q_loss.mean()),
                "cell_accuracy": float(sums.cell_accuracy.sum() * per_halted),
                "exact_accuracy": float(sums.exact.sum() * per_halted),
                "q_accuracy": float(sums.q_right.sum() * per_halted),
                "mean_steps": float(sums.steps.sum() * per_halted),
                "halting_rate": halted / (count * self._config.batch_size),
                "grad_norm": float(sums.grad_norm.mean()),
                "steps_per_second": rate,
                "seconds": self.seconds,
                "seconds_left": (self._config.steps - step) / rate,
            }
        )
        self._pending, self._step, self._last = [], step, now


class _Pause:
    def __init__(self, meter: _Meter) -> None:
        self._meter = meter

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._meter.shift(time.perf_counter() - self._start)


# --- State ---------------------------------------------------------------------------------------


class _States:
    """The saved states of a run, by Orbax, each with a digest of its bytes."""

    def __init__(self, run: Run) -> None:
        import orbax.checkpoint as ocp  # 0.8 s to import

        self._run, self._ocp = run, ocp
        self._manager = ocp.CheckpointManager(
            epath.Path(run.directory.absolute() / "state"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=run.config.keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,  # what a killed save left
            ),
        )

    def __enter__(self) -> "_States":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, position: Position, seconds: float) -> None:
        """Saves the state, unless it is saved already.

        Raises:
          TrainingError: it is not finite; or it cannot be written.
          OSError: it cannot be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        leaves = jax.tree.leaves(state)
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            raise TrainingError(_not_finite("the state", step))
        folder = self._run.directory / "state" / str(step)
        # Orbax says so too, but not in one line.
        if shutil.disk_usage(folder.parent).free < sum(leaf.nbytes for leaf in leaves):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        args = self._ocp.args
        notes = {"position": list(position), "seconds": seconds, "digest": _digest(state)}
        with _writing(folder):
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(state), notes=args.JsonSave(notes)),
            )
        _write_json(folder / _DIGESTS, _file_digests(folder))

    def restore(self) -> tuple[TrainState, Position, float]:
        """The newest state, its data position and the seconds behind it; or the beginning.

        Raises:
          TrainingError: it is damaged.
        """
        run = self._run
        fresh = place(init_state(run.model, run.config, run.initial), run.devices)
        step = self._manager.latest_step()
        if step is None:
            return fresh, Position(), 0.0
        args = self._ocp.args
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), fresh
        )
        folder = run.directory / "state" / str(step)
        remedy = "delete it to go on from the state before"
        # Orbax reads on past a flipped bit, or raises with pages of text.
        if damaged := _damaged_files(folder):
            raise TrainingError(f"{folder} is damaged: {damaged[0]} has changed; {remedy}")
        try:
            restored = self._manager.restore(
                step,
                args=args.Composite(state=args.StandardRestore(abstract), notes=args.JsonRestore()),
            )
        except Exception as error:
            raise TrainingError(f"{folder} cannot be read: {_line(error)}; {remedy}") from error
        notes = restored.notes
        if _digest(restored.state) != notes.get("digest"):
            raise TrainingError(f"{folder} is damaged: its digest does not match; {remedy}")
        return restored.state, Position(*notes["position"]), notes["seconds"]


def _digest(state: TrainState) -> str:
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def _file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a saved state, by its name in the folder."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != _DIGESTS:
            with path.open("rb") as file:
                name = path.relative_to(folder).as_posix()
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _damaged_files(folder: Path) -> list[str]:
    """What is not as the digests say; nothing if the run was killed before it wrote them."""
    path = folder / _DIGESTS
    if not path.exists():
        return []
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return [_DIGESTS]
    found = _file_digests(folder)
    return sorted(n for n in stated.keys() | found.keys() if stated.get(n) != found.get(n))


def _saved_steps(directory: Path) -> list[int]:
    return [int(path.name) for path in directory.glob("state/*") if path.name.isdecimal()]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Makes one line of what Orbax raises, which is whatever its layers raise."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{path} cannot be written: {_line(error)}; the state saved last is kept"
        ) from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _not_finite(what: str, step: int) -> str:
    return (
        f"{what} is not finite at step {step}; the state saved last is kept; lower learning_rate, "
        "or go on from a snapshot by start_from"
    )


def _write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


INPUT_ERRORS = sweep.INPUT_ERRORS
"""What bad input raises; commands turn them into exit status 2."""
