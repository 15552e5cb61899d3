"""The folder of a sweep: settings, journals of finished units, and at the end the report.

    DIR/config.json       settings, provenance, and the identity that decides the result
    DIR/strata.json       the strata of its puzzles, by which results are split
    DIR/journal/*         finished units, one journal for each process
    DIR/...               what `ptrm_jax.sweep.report` writes when all units are there

A sweep is resumed in its folder with any number of devices and processes; another sweep is refused.
Paths may be anything that etils.epath knows, `gs://` included.
"""

import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from ptrm_jax import mesh
from ptrm_jax.errors import IncompleteError, SweepError
from ptrm_jax.files import is_partial, write_text
from ptrm_jax.provenance import differences
from ptrm_jax.sweep import journal
from ptrm_jax.sweep.config import SweepConfig
from ptrm_jax.sweep.measure import Chosen, Finished, Measured
from ptrm_jax.sweep.plan import Shard, Unit, plan_runs
from ptrm_jax.sweep.prepare import Sweep
from ptrm_jax.sweep.result import Result, assemble_result
from ptrm_jax.sweep.run import Progress, remaining, work

CONFIG = "config.json"
_JOURNALS = "journal"
_STRATA = "strata.json"


class Progressed(NamedTuple):
    """How far a sweep has come in its folder.

    Attributes:
      finished: units in the journals.
      damaged: places of damaged journal records, whose units will be run again; one text each.
      remaining: units of this process's shard that are not finished.
    """

    finished: dict[Unit, Finished]
    damaged: list[str]
    remaining: list[Unit]


def inspect(
    sweep: Sweep,
    folder: str | os.PathLike[str],
    shard: Shard = Shard(),  # noqa: B008 (immutable)
) -> Progressed:
    """What is in the folder of a sweep, which need not exist yet; writes nothing.

    Args:
      sweep: prepared.
      folder: its folder.
      shard: the part that this process runs.

    Raises:
      SweepError: the folder holds another sweep, named by what differs, or something else.
      OSError: it cannot be read.
    """
    directory = epath.Path(folder)
    _check_folder(directory, sweep)
    digests = {unit.digest(sweep.identity) for unit in sweep.units}
    finished, damaged = _finished([directory], digests)
    return Progressed(finished, damaged, remaining(sweep, finished, shard))


def resume(
    sweep: Sweep,
    folder: str | os.PathLike[str],
    *,
    shard: Shard = Shard(),  # noqa: B008 (immutable)
    found: Progressed | None = None,
    progress: Progress = lambda steps, what: None,
    stop: Callable[[], bool] = lambda: False,
) -> Result:
    """Runs what is missing of a sweep, keeps every unit in its folder, and reads the result.

    In a distributed run all processes call this, each with its shard, and wait for each other.

    Args:
      sweep: prepared.
      folder: its folder; made if it does not exist.
      shard: the part that this process runs.
      found: of `inspect`, if the caller has called it.
      progress: called before and after every unit.
      stop: called after every unit; when it returns True, no further unit is started.

    Returns:
      The result, of all shards.

    Raises:
      SweepError: the folder holds another sweep, or something else.
      JournalError: another process is running this shard.
      IncompleteError: the call was stopped, or units of other shards are missing.
      OSError: the folder cannot be read or written.
    """
    directory = epath.Path(folder)
    found = inspect(sweep, directory, shard) if found is None else found
    _create(directory, sweep)
    if found.remaining:
        name = f"shard-{shard.index}-of-{shard.count}"
        with journal.Writer(directory / _JOURNALS, name) as writer:

            def keep(finished: Finished) -> None:
                digest = finished.unit.digest(sweep.identity)
                writer.append(pack(digest, finished), digest)

            work(
                sweep,
                finished=found.finished,
                keep=keep,
                shard=shard,
                progress=progress,
                stop=stop,
            )
    if stop():
        raise IncompleteError(f"{os.fspath(directory)}: stopped; rerun the same command to resume")
    mesh.wait_for_all()
    return read(directory)


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
    data = provenance["data"]
    runs = plan_runs(config, data["num_puzzles"], provenance["lane_tile"], config.unit_steps)
    finished, _ = _finished(folders, {unit.digest(identity) for run in runs for unit in run})
    strata = _strata(folders[0])
    try:
        return assemble_result(config, provenance, runs, finished, data["task"], strata)
    except IncompleteError as error:
        raise IncompleteError(f"{', '.join(map(os.fspath, folders))}: {error}") from None


def free_output(parent: str | os.PathLike[str], name: str) -> epath.Path:
    """parent/name, or parent/name-002 and so on: the first that does not exist."""
    number = 1
    while (path := epath.Path(parent) / (name if number == 1 else f"{name}-{number:03d}")).exists():
        number += 1
    return path


def _check_folder(directory: epath.Path, sweep: Sweep) -> None:
    if not directory.exists():
        return
    if not directory.is_dir():
        raise SweepError(f"output {directory} is a file; pass another --output")
    if not (directory / CONFIG).exists():
        there = [path for path in directory.iterdir() if path.name != _STRATA]
        if not all(map(is_partial, there)):
            raise SweepError(
                f"output {directory} holds something other than a sweep; pass another --output"
            )
        return
    before = _stored(directory)["identity"]
    if different := differences(before, sweep.identity):
        raise SweepError(
            f"output {directory} holds another sweep: {'; '.join(different)}; pass --new or "
            "another --output, or the settings it was started with"
        )


def _create(directory: epath.Path, sweep: Sweep) -> None:
    """Makes the folder and writes what the sweep is; files that exist stay."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / CONFIG
    if not path.exists():
        strata = {name: values.tolist() for name, values in sweep.puzzles.strata.items()}
        write_text(directory / _STRATA, json.dumps(strata) + "\n")
        stored = {
            "config": dataclasses.asdict(sweep.config),
            "provenance": sweep.provenance,
            "identity": sweep.identity,
        }
        write_text(path, json.dumps(stored, indent=1) + "\n")


def pack(digest: str, finished: Finished) -> bytes:
    """A finished unit as the payload of a record."""
    about = {
        "digest": digest,
        "unit": finished.unit.plain(),
        "seconds": finished.seconds,
        "compile_seconds": finished.compile_seconds,
    }
    buffer = io.BytesIO()
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(buffer, about=text, **finished.measured._asdict())
    return buffer.getvalue()


def unpack(payload: bytes) -> tuple[str, Finished]:
    """Inverse of `pack`: the unit's digest, and the unit."""
    with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
        about = json.loads(arrays["about"].tobytes())
        fields = {name: arrays[name] for name in Measured._fields if name in arrays}
    if "chosen" not in fields:  # a journal from before stopping rules
        fields["chosen"] = np.zeros((len(fields["correct"]), 0, len(Chosen._fields)), np.int32)
    measured = Measured(**fields)
    unit = Unit.of_plain(about["unit"])
    return about["digest"], Finished(unit, measured, about["seconds"], about["compile_seconds"])


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
    except ValueError as error:
        raise SweepError(f"{path} is not the record of a sweep: {error}") from error
    if not isinstance(stored, dict) or {"config", "provenance", "identity"} - stored.keys():
        raise SweepError(
            f"{path} is not the record of a sweep: it lacks config, provenance or identity"
        )
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
