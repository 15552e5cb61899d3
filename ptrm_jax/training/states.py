"""The saved states of a training run, by Orbax, with SHA-256 digests of state and files."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from ptrm_jax.errors import TrainingError
from ptrm_jax.files import file_digest, json_digest, signed, unsigned, write_text, writing
from ptrm_jax.reading import read_json
from ptrm_jax.training.examples import Position
from ptrm_jax.training.log import SAFE, not_finite
from ptrm_jax.training.run import TrainingRun
from ptrm_jax.training.step import TrainState, init_state, place

_DIGESTS = "digests.json"
"""In the folder of a saved state: SHA-256 of its files, and of this file. If it is damaged itself,
the state is read, and compared with the digest of its arrays that was saved with it."""


class States:
    """The saved states of a run; a context manager."""

    def __init__(self, run: TrainingRun) -> None:
        import orbax.checkpoint as ocp  # takes 0.8 s to import

        self._run, self._ocp = run, ocp
        with writing(run.directory / "state", SAFE):
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
          TrainingError: it is not finite.
          StorageError: it cannot be written; the last saved state is kept.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        leaves = jax.tree.leaves(state)
        if not all(np.isfinite(leaf).all() for leaf in leaves):
            raise TrainingError(not_finite("the state", step))
        folder = self._run.directory / "state" / str(step)
        args = self._ocp.args
        notes = {
            "position": list(position),
            "seconds": seconds,
            "digest": _digest(state),
            "run": json_digest(self._run.decisive),
        }
        with writing(folder, SAFE):
            # Orbax reports this too, but in pages of text.
            if shutil.disk_usage(folder.parent).free < sum(leaf.nbytes for leaf in leaves):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._manager.save(
                step,
                args=args.Composite(state=args.StandardSave(state), notes=args.JsonSave(notes)),
            )
            write_json(folder / _DIGESTS, signed({"files": _file_digests(folder)}))

    def restore(self) -> tuple[TrainState, Position, float]:
        """The newest state, its position in the data and its training time; or the first state.

        Raises:
          TrainingError: the newest state is damaged, or of another run.
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
        if notes.get("run", own := json_digest(run.decisive)) != own:
            raise TrainingError(f"{folder} is of another run; pass another output")
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
    """Files that differ from their digests; none if these are damaged or were not written."""
    try:
        stated = unsigned(read_json(folder / _DIGESTS))["files"]
    except (OSError, ValueError, KeyError):  # those of version 0.4 have no digest of themselves
        return []
    found = _file_digests(folder)
    return sorted(n for n in stated.keys() | found.keys() if stated.get(n) != found.get(n))


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def write_json(path: Path, value: Any) -> None:
    """Writes a file of JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
