"""The saved states of a training run, by Orbax, with SHA-256 digests of state and files."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from ptrm_jax.errors import TrainingError
from ptrm_jax.files import file_digest, write_text
from ptrm_jax.training.examples import Position
from ptrm_jax.training.log import not_finite
from ptrm_jax.training.run import TrainingRun
from ptrm_jax.training.step import TrainState, init_state, place

_DIGESTS = "digests.json"
"""In the folder of a saved state: SHA-256 of its files."""


class States:
    """The saved states of a run; a context manager."""

    def __init__(self, run: TrainingRun) -> None:
        import orbax.checkpoint as ocp  # takes 0.8 s to import

        self._run, self._ocp = run, ocp
        self._manager = ocp.CheckpointManager(
            epath.Path(run.directory.absolute() / "state"),
            options=ocp.CheckpointManagerOptions(
                max_to_keep=run.config.keep,
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,  # left by a killed save
            ),
        )

    def __enter__(self) -> "States":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, position: Position, seconds: float) -> None:
        """Saves the state, unless it is saved already.

        Raises:
          TrainingError: it is not finite, or it cannot be written.
          OSError: it cannot be written.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        leaves = jax.tree.leaves(state)
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            raise TrainingError(not_finite("the state", step))
        folder = self._run.directory / "state" / str(step)
        # Orbax reports this too, but in pages of text.
        if shutil.disk_usage(folder.parent).free < sum(leaf.nbytes for leaf in leaves):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        args = self._ocp.args
        notes = {"position": list(position), "seconds": seconds, "digest": _digest(state)}
        with writing(folder):
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(state), notes=args.JsonSave(notes)),
            )
        write_json(folder / _DIGESTS, _file_digests(folder))

    def restore(self) -> tuple[TrainState, Position, float]:
        """The newest state, its position in the data and its training time; or the first state.

        Raises:
          TrainingError: the newest state is damaged.
        """
        run, step = self._run, self._manager.latest_step()
        folder = run.directory / "state" / str(step)
        remedy = "delete it to resume from the state before"
        # Orbax loads a file with a flipped bit, or raises with pages of text.
        if step is not None and (damaged := _damaged_files(folder)):
            raise TrainingError(f"{folder} is damaged: {damaged[0]} has changed; {remedy}")
        fresh = place(init_state(run.model, run.config, run.initial), run.devices)
        if step is None:
            return fresh, Position(), 0.0
        args = self._ocp.args
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), fresh
        )
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
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _DIGESTS
    }


def _damaged_files(folder: Path) -> list[str]:
    """Files that differ from their digests; none if the run was killed before it wrote these."""
    path = folder / _DIGESTS
    if not path.exists():
        return []
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return [_DIGESTS]
    found = _file_digests(folder)
    return sorted(n for n in stated.keys() | found.keys() if stated.get(n) != found.get(n))


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns any error of Orbax and its layers into one line.

    Raises:
      TrainingError: for every error but an OSError, which is passed on.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise TrainingError(
            f"{path} cannot be written: {_line(error)}; the last saved state is kept"
        ) from error


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
