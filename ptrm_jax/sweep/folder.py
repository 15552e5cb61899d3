"""The folder of a sweep: settings, journals of finished units, and at the end the report.

    DIR/config.json       settings, provenance, and the identity that decides the result
    DIR/strata.json       the strata of its puzzles, by which results are split
    DIR/journal/*         finished units, one journal for each process
    DIR/...               what `ptrm_jax.sweep.report` writes when all units are there

config.json has a digest of itself and of strata.json; records have theirs. Where 0.4.0 wrote none,
what the file says twice is compared, and with the names of the finished units.

A sweep is resumed in its folder with any number of devices and processes; another sweep is refused.
Paths may be anything that etils.epath knows, `gs://` included.
"""

import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TypedDict

import msgspec
import numpy as np
from etils import epath

from ptrm_jax import files, mesh
from ptrm_jax.errors import IncompleteError, SweepError
from ptrm_jax.files import is_partial, json_digest, signed, unsigned, write_text
from ptrm_jax.provenance import differences
from ptrm_jax.reading import MEBIBYTE, open_npz, read_json, shown
from ptrm_jax.sweep import journal
from ptrm_jax.sweep.config import SweepConfig
from ptrm_jax.sweep.measure import Chosen, Finished, Measured
from ptrm_jax.sweep.plan import Shard, Unit, digests, plan_runs
from ptrm_jax.sweep.prepare import Sweep, steps_to_keep
from ptrm_jax.sweep.result import Result, assemble_result
from ptrm_jax.sweep.run import Progress, remaining, work

CONFIG = "config.json"
_JOURNALS = "journal"
_STRATA = "strata.json"
_REMEDY = (
    "delete the file and rerun the command that made the sweep, which writes it anew; finished "
    "units are kept"
)
_SAFE = "finished units are kept; make room and rerun the same command"
_MOST_TOKENS = 2**14
"""Cells of the largest puzzle whose answers a record may hold."""


class _Checkpoint(TypedDict):
    name: str
    digest: str


class _Data(TypedDict):
    name: str
    digest: str
    num_puzzles: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    of: int
    task: str | None


class _Provenance(TypedDict):
    """What is read of provenance; there is more in it."""

    checkpoint: _Checkpoint
    data: _Data
    precision: dict[str, str | None]
    lane_tile: Annotated[int, msgspec.Meta(ge=1, le=2**31)]
    key: dict[str, Any]
    versions: dict[str, str]
    platform: dict[str, Any]


class _Stored(TypedDict):
    """config.json, without its digest."""

    config: dict[str, Any]
    provenance: _Provenance
    identity: dict[str, Any]


_FIELDS = {"config", "provenance", "identity"}
_FIELDS_SIGNED = _FIELDS | {"strata", "sha256"}


class _About(TypedDict):
    """What a record says of its unit."""

    digest: str
    unit: list[Any]
    seconds: float
    compile_seconds: float


_Kind = Annotated[str, msgspec.Meta(max_length=200)]

_DTYPES = {
    "correct": np.dtype(bool),
    "cell_accuracy": np.dtype(np.float32),
    "q_logit": np.dtype(np.float32),
    "finite": np.dtype(bool),
    "valid": np.dtype(bool),
    "answer": np.dtype(np.uint64),
}
"""Of the arrays [b, k, D] of a record."""


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
    finished, damaged = _finished([directory], sweep.config, sweep.identity, sweep.units)
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
      StorageError: the folder cannot be written; finished units are kept.
      OSError: it cannot be read.
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
    config, provenance = _config(folders[0], stored[0]["config"]), stored[0]["provenance"]
    data = provenance["data"]
    runs = plan_runs(
        *(config, data["num_puzzles"], provenance["lane_tile"], config.unit_steps),
        version=identity.get("plan", 1),
    )
    units = [unit for run in runs for unit in run]
    finished, _ = _finished(folders, config, identity, units)
    strata = _strata(folders[0], data["num_puzzles"], stored[0].get("strata"))
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
        # Somebody may have deleted a damaged config.json; units of another sweep are refused.
        has_units = files.listed(directory / _JOURNALS, suffix=journal.SUFFIX)
        if not (has_units or all(map(is_partial, there))):
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
    """Makes the folder and writes what the sweep is; files that exist and are intact stay."""
    with files.writing(directory, _SAFE):
        directory.mkdir(parents=True, exist_ok=True)
        strata = {name: values.tolist() for name, values in sweep.puzzles.strata.items()}
        try:
            _strata(directory, len(sweep.puzzles), json_digest(strata))
        except (OSError, SweepError):
            write_text(directory / _STRATA, json.dumps(strata) + "\n")
        if not (directory / CONFIG).exists():
            stored = {
                "config": dataclasses.asdict(sweep.config),
                "provenance": sweep.provenance,
                "identity": sweep.identity,
                "strata": json_digest(strata),
            }
            write_text(directory / CONFIG, json.dumps(signed(stored), indent=1) + "\n")


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


def unpack(
    payload: bytes, unit_of: Callable[[str], tuple[Unit, int] | None] | None = None
) -> tuple[str, Finished]:
    """Inverse of `pack`: the unit's digest, and the unit.

    Args:
      payload: of a record.
      unit_of: what is known by digest: the unit, and of how many steps its answers are kept.

    Raises:
      SweepError: no unit has this digest.
      ValueError: this is no finished unit, or another one than its digest says.
    """
    with open_npz(io.BytesIO(payload), "the record") as arrays:
        about = msgspec.json.decode(arrays.read("about", MEBIBYTE).tobytes(), type=_About)
        unit = Unit.of_plain(about["unit"])
        known = (unit, None) if unit_of is None else unit_of(about["digest"])
        if known is None:
            raise SweepError(
                f"holds a unit of another sweep, {shown(about['digest'])}; pass another --output"
            )
        if known[0] != unit:
            raise ValueError(f"it is of {unit}, its digest of {known[0]}")
        # Checked before it is read: a small record can state any size.
        found = {}
        rows = [stop - first for first, stop in (unit.puzzles, unit.rollouts)]
        depth = unit.depth
        if unit.stop is not None:  # what a rule chose
            rows, depth = [rows[0], 1], 1
        for name, dtype in _DTYPES.items():
            found[name] = arrays.read(name, unit.rollout_steps * dtype.itemsize)
            if (found[name].shape, found[name].dtype) != ((*rows, depth), dtype):
                raise ValueError(f"{name} must be {dtype}{[*rows, depth]}; it is not")
        if "chosen" in arrays.names:  # a journal from before stopping rules has none
            chosen = arrays.read("chosen", 64 * rows[0])
        else:
            chosen = np.zeros((rows[0], 0, len(Chosen._fields)), np.int32)
        shape = (rows[0], int(unit.stop is not None), len(Chosen._fields))
        if (chosen.shape, chosen.dtype) != (shape, np.int32):
            raise ValueError(f"chosen must be int32{list(shape)}; it is not")
        kept = depth if known[1] is None else min(known[1], depth)
        tokens = arrays.read("tokens", unit.lanes * kept * _MOST_TOKENS)
        if tokens.dtype.kind != "u" or [*tokens.shape[:2]] != rows or tokens.ndim != 4:
            raise ValueError(f"tokens must be {[*rows, kept, 'S']}; got {[*tokens.shape]}")
        if tokens.shape[2] > kept or (known[1] is not None and tokens.shape[2] != kept):
            raise ValueError(f"tokens must be of {kept} steps; got {tokens.shape[2]}")
    measured = Measured(**found, tokens=tokens, chosen=chosen)
    return about["digest"], Finished(unit, measured, about["seconds"], about["compile_seconds"])


def _finished(
    folders: Iterable[epath.Path],
    config: SweepConfig,
    identity: dict[str, Any],
    units: Sequence[Unit],
) -> tuple[dict[Unit, Finished], list[str]]:
    """The finished units of a sweep, and the places of damaged records."""
    known = {
        digest: (unit, len(steps_to_keep(config.keep_answers, config.depth, unit.depth)))
        for digest, unit in zip(digests(units, identity), units, strict=True)
    }
    finished: dict[Unit, Finished] = {}
    damaged: list[str] = []
    for folder in folders:
        where = folder / _JOURNALS
        try:
            contents = journal.read(where)
            damaged += contents.damaged
            for payload in contents.payloads:
                _, part = unpack(payload, known.get)
                finished[part.unit] = part
        except SweepError as error:
            raise SweepError(f"{where} {error}") from None
        except (ValueError, TypeError) as error:
            raise SweepError(
                f"{where} holds something other than finished units: {error}; pass another --output"
            ) from error
    return finished, damaged


def _stored(directory: epath.Path) -> dict[str, Any]:
    path = directory / CONFIG
    if not path.exists():
        raise SweepError(f"{directory} is not the folder of a sweep: it has no {CONFIG}")
    try:
        stored = read_json(path, 16 * MEBIBYTE)
        fields = unsigned(stored)
        if stored.keys() not in (_FIELDS, _FIELDS_SIGNED):
            raise ValueError("it lacks config, provenance or identity, or has more")
        msgspec.convert(fields, _Stored)
        if different := differences(_decisive(fields), fields["identity"]):
            raise ValueError(f"it contradicts itself: {'; '.join(different)}")
    except (ValueError, RecursionError) as error:
        raise SweepError(f"{path} is not the record of a sweep: {error}; {_REMEDY}") from error
    return fields


def _decisive(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The identity as config and provenance state it; the plan alone depends on the version."""
    identity, config, provenance = (stored[n] for n in ("identity", "config", "provenance"))

    def same(part: str, source: Mapping[str, Any]) -> dict[str, Any]:
        return {name: source.get(name) for name in identity.get(part, ())}

    return {
        **{name: provenance[name] for name in ("precision", "lane_tile", "key")},
        **{name: same(name, provenance[name]) for name in ("data", "versions", "platform")},
        "checkpoint": provenance["checkpoint"]["digest"],
        "settings": same("settings", config),
        "unit_steps": config.get("unit_steps") or identity.get("unit_steps"),
        **{name: identity[name] for name in ("plan",) if name in identity},
    }


def _strata(
    directory: epath.Path, num_puzzles: int, digest: str | None = None
) -> dict[str, np.ndarray]:
    """The strata, compared with their digest unless 0.4.0 wrote them, which stored none."""
    path = directory / _STRATA
    try:
        strata = msgspec.convert(read_json(path), dict[str, list[_Kind]])
        if digest is not None and json_digest(strata) != digest:
            raise ValueError("it is damaged: its digest is not that of its contents")
        if any(len(kinds) != num_puzzles for kinds in strata.values()):
            raise ValueError(f"it must have a kind for each of {num_puzzles} puzzles")
    except ValueError as error:
        raise SweepError(f"{path} is not the record of a sweep: {error}; {_REMEDY}") from error
    return {name: np.array(kinds) for name, kinds in strata.items()}


def _config(directory: epath.Path, fields: Mapping[str, Any]) -> SweepConfig:
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    try:
        return SweepConfig(**{**fields, **lists})
    except (TypeError, ValueError) as error:  # unknown, missing, of another type, out of range
        raise SweepError(
            f"{directory / CONFIG} is not the record of a sweep: {error}; {_REMEDY}"
        ) from error
