"""The folder of a sweep: what was asked, journals of what is finished, at the end the report.

    DIR/config.json       settings, provenance, and the identity that decides the result
    DIR/strata.json       the kinds of its puzzles, that results are split by
    DIR/journal/*         finished units, a journal for each process
    DIR/...               what `ptrm_jax.sweep.report` writes when all units are there

The same sweep goes on in its folder, whatever the number of devices and processes; another one is
refused. Paths may be anything that etils.epath knows, `gs://` included.
"""

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath

from ptrm_jax import sweep
from ptrm_jax.errors import IncompleteError, JournalError, SweepError
from ptrm_jax.files import is_partial, write_text
from ptrm_jax.provenance import differences
from ptrm_jax.sweep import Result, Shard, Sweep, SweepConfig, journal
from ptrm_jax.sweep.plan import Finished, Unit, pack, unpack

__all__ = ["IncompleteError", "JournalError", "Store", "SweepError", "free_output", "read"]

CONFIG = "config.json"
_JOURNALS = "journal"
_STRATA = "strata.json"


class Store:
    """The folder of one sweep.

    Args:
      directory: where; made by `create`.
      sweep: prepared.

    Raises:
      SweepError: the folder holds another sweep, named by what differs, or something else.
      OSError: it cannot be read.
    """

    def __init__(self, directory: str | os.PathLike[str], sweep: Sweep) -> None:
        self.directory, self._sweep = epath.Path(directory), sweep
        if not self.directory.exists():
            return
        if not self.directory.is_dir():
            raise SweepError(f"output {self.directory} is a file; pass another --output")
        if not (self.directory / CONFIG).exists():
            there = [path for path in self.directory.iterdir() if path.name != _STRATA]
            if not all(map(is_partial, there)):
                raise SweepError(
                    f"output {self.directory} holds something other than a sweep; pass another "
                    "--output"
                )
            return
        before = _stored(self.directory)["identity"]
        if different := differences(before, sweep.identity):
            raise SweepError(
                f"output {self.directory} holds another sweep: {'; '.join(different)}; pass --new "
                "or another --output, or the settings it was started with"
            )

    def create(self) -> None:
        """Makes the folder and says in it what the sweep is; what is there stays."""
        self.directory.mkdir(parents=True, exist_ok=True)
        path = self.directory / CONFIG
        if not path.exists():
            strata = self._sweep.puzzles.strata
            kinds = {name: values.tolist() for name, values in strata.items()}
            write_text(self.directory / _STRATA, json.dumps(kinds) + "\n")
            stored = {
                "config": dataclasses.asdict(self._sweep.config),
                "provenance": self._sweep.provenance,
                "identity": self._sweep.identity,
            }
            write_text(path, json.dumps(stored, indent=1) + "\n")

    def read(self) -> tuple[dict[Unit, Finished], list[str]]:
        """The finished units, and the places of damaged records.

        Raises:
          SweepError: a record is of another sweep.
        """
        digests = {unit.digest(self._sweep.identity) for unit in self._sweep.units}
        return _finished([self.directory], digests)

    def writer(self, shard: Shard) -> "_Keeper":
        """Keeps finished units, as a context manager.

        Raises:
          JournalError: another process is doing this shard.
        """
        return _Keeper(self.directory, self._sweep, shard)


class _Keeper:
    def __init__(self, directory: epath.Path, sweep: Sweep, shard: Shard) -> None:
        name = f"shard-{shard.index}-of-{shard.count}"
        self._identity = sweep.identity
        self._writer = journal.Writer(directory / _JOURNALS, name)

    def __enter__(self) -> "_Keeper":
        return self

    def __exit__(self, *error: Any) -> None:
        self._writer.__exit__(*error)

    def keep(self, finished: Finished) -> None:
        """Puts a unit on the disk."""
        digest = finished.unit.digest(self._identity)
        self._writer.append(pack(digest, finished), digest)


def read(*directories: str | os.PathLike[str]) -> Result:
    """The result of a sweep, from its folder, or from the folders of its shards.

    Raises:
      SweepError: they are not of one sweep.
      IncompleteError: units are missing.
      OSError: something cannot be read.
    """
    folders = [epath.Path(directory) for directory in directories]
    stored = [_stored(folder) for folder in folders]
    identity = stored[0]["identity"]
    for folder, other in zip(folders, stored, strict=True):
        if different := differences(identity, other["identity"]):
            raise SweepError(f"{folders[0]} and {folder} hold two sweeps: {'; '.join(different)}")
    config, provenance = _config(stored[0]["config"]), stored[0]["provenance"]
    units = sweep.plan_runs(config, provenance["data"]["num_puzzles"], provenance["lane_tile"])
    finished, _ = _finished(folders, {u.digest(identity) for run in units for u in run})
    task, strata = provenance["data"]["task"], _strata(folders[0])
    try:
        return sweep.collect(config, provenance, units, finished, task, strata)
    except IncompleteError as error:
        raise IncompleteError(f"{', '.join(map(os.fspath, folders))}: {error}") from None


def _finished(
    folders: Iterable[epath.Path], digests: set[str]
) -> tuple[dict[Unit, Finished], list[str]]:
    finished: dict[Unit, Finished] = {}
    damaged: list[str] = []
    for folder in folders:
        contents = journal.read(folder / _JOURNALS)
        damaged += contents.damaged
        for payload in contents.payloads:
            digest, part = unpack(payload)
            if digest not in digests:
                raise SweepError(
                    f"{folder / _JOURNALS} holds a unit of another sweep, {digest}; pass another "
                    "--output"
                )
            finished[part.unit] = part
    return finished, damaged


def _stored(directory: epath.Path) -> dict[str, Any]:
    path = directory / CONFIG
    if not path.exists():
        raise SweepError(f"{directory} is not the folder of a sweep: it has no {CONFIG}")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        _ = [stored[name] for name in ("config", "provenance", "identity")]
    except (ValueError, KeyError, TypeError) as error:
        raise SweepError(f"{path} is not the record of a sweep: {error}") from error
    return stored


def _strata(directory: epath.Path) -> dict[str, np.ndarray]:
    path = directory / _STRATA
    try:
        return {name: np.array(kinds) for name, kinds in json.loads(path.read_text()).items()}
    except (ValueError, AttributeError) as error:
        raise SweepError(f"{path} is not the record of a sweep: {error}") from error


def _config(fields: Mapping[str, Any]) -> SweepConfig:
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return SweepConfig(**{**fields, **lists})


def free_output(parent: str | os.PathLike[str], name: str) -> epath.Path:
    """parent/name, or parent/name-002 and so on, the first that is not taken."""
    number = 1
    while (path := epath.Path(parent) / (name if number == 1 else f"{name}-{number:03d}")).exists():
        number += 1
    return path
