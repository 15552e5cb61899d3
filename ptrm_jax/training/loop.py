"""Trains a run: logs, saves, evaluates, exports, and resumes after a kill.

    RUN/config.json             settings, and digests of the data
    RUN/log.jsonl               a line per `log_every` steps, per evaluation, per start
    RUN/curves.png              drawn from the log
    RUN/state/<step>/           the whole state, by Orbax; a killed run resumes from the newest
    RUN/snapshots/step_<n>/     a checkpoint of the averaged weights at every evaluation
    RUN/model/                  the last of them, once the run is complete

State, position in the data and seed decide everything that follows. So a run that was killed, at
any moment, ends with the bits of one that was not.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ptrm_jax import checkpoint, mesh, metrics, sweep
from ptrm_jax.files import signed, writing
from ptrm_jax.model import Params
from ptrm_jax.provenance import environment
from ptrm_jax.sweep import scores
from ptrm_jax.training.curves import draw_curves
from ptrm_jax.training.examples import Stream, augmentation
from ptrm_jax.training.log import SAFE, Log, Meter, Record
from ptrm_jax.training.run import TrainingRun
from ptrm_jax.training.states import States, write_json
from ptrm_jax.training.step import Examples, averaged, make_step


def train(
    run: TrainingRun,
    *,
    progress: Callable[[Record], None] = lambda record: None,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Trains until `config.steps` are done, from the newest saved state.

    Args:
      run: of `prepare`.
      progress: called with every record of the log.
      stop: called after every step; when it returns True, the state is saved and the call returns.

    Returns:
      Whether the run is complete.

    Raises:
      TrainingError: the loss is not finite, or the saved state is damaged. The last saved state is
        kept.
      StorageError: something cannot be written. The last saved state is kept.
    """
    config = run.config
    with writing(run.directory, SAFE):
        run.directory.mkdir(parents=True, exist_ok=True)
        for pattern in (".model.*", "snapshots/.step_*"):  # left by a killed export
            for leftover in run.directory.glob(pattern):
                shutil.rmtree(leftover)
        write_json(run.config_path, signed(run.identity))
    with States(run) as states:
        state, position, seconds = states.restore()
        done = int(state.step)
        log = Log(run.directory / "log.jsonl", done, progress)
        dropped = {"dropped_lines": log.damaged} if log.damaged else {}
        log.write({"kind": "start", "step": done, **dropped, **environment(run.devices)})
        step = make_step(
            run.model, config, augmentation(config), run.examples.ignore_label, run.devices
        )
        stream = Stream(run.examples, config.seed, position)
        rows = mesh.sharding(run.devices, split=True)
        meter = Meter(config, done, seconds)

        def export_and_evaluate(name: str) -> None:
            params = averaged(state)
            export(run, params, run.directory / name, done)
            _evaluate_and_log(run, params, done, log)
            with writing(run.directory, SAFE):
                draw_curves(log.path, run.directory / "curves.png")

        def evaluate_when_due() -> None:
            if config.eval_every and 0 < done < config.steps and done % config.eval_every == 0:
                meter.flush(log, done)
                with meter.pause():
                    export_and_evaluate(f"snapshots/step_{done:06d}")

        evaluate_when_due()  # a run may have been killed between saving its state and this
        while done < config.steps:
            batch: Examples = jax.device_put(stream.take(config.batch_size), rows)
            state, step_metrics = step(state, batch)
            done += 1
            meter.add(step_metrics)
            if done % config.log_every == 0:
                meter.flush(log, done)
            stopping = stop()
            if stopping or done % config.checkpoint_every == 0 or done == config.steps:
                meter.flush(log, done)
                states.save(state, stream.position, meter.seconds)
            if stopping and done < config.steps:
                return False
            evaluate_when_due()
        export_and_evaluate("model")
    return True


def export(run: TrainingRun, params: Params, directory: Path, step: int) -> None:
    """Writes a checkpoint of these weights that `ptrm_jax.load` reads.

    Raises:
      StorageError: it cannot be written.
    """
    provenance = {
        "trained_by": "ptrm_jax",
        "step": step,
        **run.identity,
        **environment(run.devices),
        "start": run.start,
    }
    with writing(directory, SAFE):
        checkpoint.save(
            directory,
            run.config.model,
            jax.tree.map(np.asarray, params),
            provenance=_portable(provenance),
            overwrite=True,
        )


def _portable(tree: Any) -> Any:
    """The tree with absolute paths, which are true of this machine only, cut to two names."""
    if isinstance(tree, dict):
        return {name: _portable(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [_portable(value) for value in tree]
    if isinstance(tree, str) and Path(tree).is_absolute():
        return "/".join(Path(tree).parts[-2:])
    return tree


def evaluate(run: TrainingRun, params: Params) -> Record:
    """Scores weights on the run's evaluation set: deterministic TRM, and PTRM.

    Returns:
      JSON: accuracies as (mean, low, high, num_puzzles), the AUC of Q, deterministic accuracy by
      depth.
    """
    config = run.config
    assert run.evaluation is not None
    search = sweep.Search(
        sigmas=(config.eval_sigma,),
        rollouts=config.eval_rollouts,
        depth=config.eval_depth,
        equal_compute=False,
    )
    outcome = sweep.evaluate(run.model, params, run.evaluation, search, devices=run.devices)
    accuracies = {
        "deterministic" if line.method == "TRM" else line.choice: tuple(line.accuracy)
        for line in scores.summary(outcome)
        if line.read == "last"
    }
    by_depth = outcome.deterministic.rollouts.correct[:, 0].mean(axis=0)
    return {
        **accuracies,
        "q_auc": metrics.q_auc(outcome.runs[0].rollouts.at(config.eval_depth)),
        "by_depth": [round(float(x), 4) for x in by_depth],
        **{name: getattr(config, name) for name in ("eval_depth", "eval_rollouts", "eval_sigma")},
    }


def _evaluate_and_log(run: TrainingRun, params: Params, step: int, log: Log) -> None:
    if run.evaluation is None or log.has("eval", step):
        return
    start = time.perf_counter()
    figures = evaluate(run, params)
    seconds = round(time.perf_counter() - start, 1)
    log.write({"kind": "eval", "step": step, **figures, "eval_seconds": seconds})
