"""A sweep in its folder: it survives, goes on on any layout, and is never mixed with another."""

import contextlib
import csv
import dataclasses
import errno
import functools
import io
import json
import os
import random
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
from conftest import load_experiment, small_checkpoint, start_command
from etils.epath import backend as epath_backend
from fsspec.implementations.memory import MemoryFileSystem

from ptrm_jax import files, load, mesh, metrics, save, sweep
from ptrm_jax.config import Backend
from ptrm_jax.errors import IncompleteError, InputError, StorageError, SweepError
from ptrm_jax.files import signed, unsigned
from ptrm_jax.sweep import Result, Shard, SweepConfig, compare, journal, pictures, report, scores
from ptrm_jax.sweep.result import assemble_outcome
from ptrm_jax.sweep.run import estimate, work

ROOT = Path(__file__).parents[1]

CONFIG = SweepConfig(
    checkpoint=small_checkpoint(),
    data="sudoku6",
    sigmas=(0.3, 1.0),
    rollouts=4,
    depth=2,
    seeds=(0, 1),
    num_puzzles=5,
    lane_tile=1,
    unit_steps=1,  # as small as can be: 8 lanes
    devices=2,
)
"""Twelve units, four runs of 3 (a block of 2, 2 and 1 puzzles) and one of 1."""


prepare = functools.cache(sweep.prepare)
"""Loading a checkpoint takes longer than most of these sweeps."""


def go_on(
    config: SweepConfig,
    folder: Path | str,
    *,
    shard: Shard = Shard(),  # noqa: B008
    most: int = 99,
) -> int:
    """Runs up to `most` units of a sweep in its folder; returns how many it ran."""
    done: list[int] = []
    with contextlib.suppress(IncompleteError):
        sweep.resume(
            prepare(config),
            folder,
            shard=shard,
            progress=lambda steps, what: done.extend([steps] if steps else []),
            stop=lambda: len(done) >= most,
        )
    return len(done)


def same(first: Result, second: Result) -> bool:
    """All records, bit for bit."""
    found = compare.compare(first, second)
    assert not found.apart and len(found.runs) == len(first.runs) + 1
    shapes = [run.rollouts.correct.shape for run in (first.deterministic, *first.runs)]
    assert [run.shape for run in found.runs] == shapes
    return found.identical


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sweeps") / "whole"
    assert go_on(CONFIG, directory) == 13
    return directory


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """The same, to spoil."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_what_is_kept_is_what_a_sweep_in_memory_finds(whole: Path) -> None:
    assert same(sweep.read(whole), sweep.run(prepare(CONFIG)))


def test_right_answers_are_kept(tmp_path: Path) -> None:
    """Of a trained model: the random one of the other tests has none."""
    config = dataclasses.replace(CONFIG, checkpoint="sudoku6", sigmas=(0.3,), seeds=(0,))
    go_on(config, tmp_path / "run")
    found = sweep.read(tmp_path / "run")
    assert found.runs[0].rollouts.correct.any() and not found.runs[0].rollouts.correct.all()
    assert same(found, sweep.run(prepare(config)))


@pytest.mark.parametrize(("devices", "backend"), [(1, "pmap"), (8, "mesh")])
def test_layouts_make_one_sweep(
    devices: int, backend: Backend, whole: Path, tmp_path: Path
) -> None:
    """Begun on two devices under pmap, ended on others."""
    assert go_on(CONFIG, tmp_path / "run", most=5) == 5
    other = dataclasses.replace(CONFIG, devices=devices, backend=backend)
    assert go_on(other, tmp_path / "run") == 8
    assert go_on(other, tmp_path / "run") == 0
    assert same(sweep.read(tmp_path / "run"), sweep.read(whole))


def test_shards_make_one_sweep(whole: Path, tmp_path: Path) -> None:
    """In one folder, and in folders of their own."""
    for index in (1, 0):
        assert go_on(CONFIG, tmp_path / "shared", shard=Shard(index, 2)) == (6, 7)[index]
        go_on(CONFIG, tmp_path / f"own-{index}", shard=Shard(index, 2))
    assert same(sweep.read(tmp_path / "shared"), sweep.read(whole))
    assert same(sweep.read(tmp_path / "own-0", tmp_path / "own-1"), sweep.read(whole))
    with pytest.raises(IncompleteError, match="7 of 13 units of the sweep are missing"):
        sweep.read(tmp_path / "own-0")


def test_other_shards_may_go_on(whole: Path, tmp_path: Path) -> None:
    """Three processes begin, two end it."""
    for index in range(3):
        go_on(CONFIG, tmp_path / "run", shard=Shard(index, 3), most=2)
    assert sum(go_on(CONFIG, tmp_path / "run", shard=Shard(index, 2)) for index in (0, 1)) == 7
    assert same(sweep.read(tmp_path / "run"), sweep.read(whole))


def test_a_folder_of_0_4_0_is_read() -> None:
    """Its report, made anew from its journal, is the one that 0.4.0 wrote."""
    folder = ROOT / "tests" / "data" / "sweep_0.4.0"
    scored = scores.compute(sweep.read(folder))
    rows = list(csv.DictReader(io.StringIO(report.summary_csv(scored))))
    before = list(csv.DictReader(io.StringIO((folder / "summary.csv").read_text())))
    # 0.4.0 read rollouts after the last step only, and did not say so.
    added = rows[0].keys() - before[0].keys()
    assert added == {"read", "rollout_steps", "stop_q"}
    text = io.StringIO()
    writer = csv.DictWriter(text, list(before[0]), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in rows if row["read"] == "last")
    assert text.getvalue() == (folder / "summary.csv").read_text()
    assert report.results_jsonl(scored) == (folder / "results.jsonl").read_text()


def test_a_sweep_that_stops_is_resumed_and_sharded(tmp_path: Path) -> None:
    """20 puzzles in units of 7: whole, interrupted after each unit, and in two shards."""
    config = dataclasses.replace(
        CONFIG, sigmas=(0.3,), seeds=(0,), num_puzzles=20, stop_q=-5.0, equal_compute=False
    )
    assert go_on(config, tmp_path / "whole") == 6
    for _ in range(6):
        assert go_on(config, tmp_path / "parts", most=1) == 1
    for i, units in ((0, 2), (1, 4)):  # units that may stop count for less
        assert go_on(config, tmp_path / "shards", shard=Shard(i, 2)) == units
    whole = sweep.read(tmp_path / "whole")
    chosen = whole.runs[0].chosen
    assert chosen is not None and len(set(chosen.rollout_steps.tolist())) > 1
    for name in ("parts", "shards"):
        other = sweep.read(tmp_path / name)
        assert same(whole, other)
        for a, b in zip(chosen, other.runs[0].chosen or (), strict=True):
            np.testing.assert_array_equal(a, b)
    with pytest.raises(SweepError, match=r"stop_q was -5\.0 and is 2\.0"):
        go_on(dataclasses.replace(config, stop_q=2.0), tmp_path / "whole")


class Bucket(MemoryFileSystem):
    """Stands in for Google's: objects in memory, under names that begin with gs://."""

    protocol = ("gs", "gcs")
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return super()._strip_protocol(os.fspath(path).removeprefix("gs://"))


def test_a_bucket_is_as_good_as_a_disk(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after five units, resumed by two shards, read, and reported on."""
    bucket = Bucket(finalize_on_close=True)  # as etils makes Google's
    monkeypatch.setattr(epath_backend.fsspec_backend, "_get_filesystem", lambda name: bucket)
    # With a cache, a process would not see what others have written since it last looked.
    assert bucket.storage_options["use_listings_cache"] is False
    bucket.mkdir("gs://bucket")
    files.check_writable("gs://bucket/run")
    done: list[int] = []

    def kill(steps: int, what: str) -> None:
        done.extend([steps] if steps else [])
        if len(done) == 5:
            raise SystemExit

    with pytest.raises(SystemExit):
        sweep.resume(prepare(CONFIG), "gs://bucket/run", progress=kill)
    assert len(bucket.ls("gs://bucket/run/journal/shard-0-of-1.journal")) == 5
    ran = [go_on(CONFIG, "gs://bucket/run", shard=Shard(index, 2)) for index in (0, 1)]
    assert sum(ran) == 8 and all(ran)
    result = sweep.read("gs://bucket/run")
    assert same(result, sweep.read(whole))
    monkeypatch.setattr(pictures, "PICTURES", {})
    report.write(scores.compute(result), "gs://bucket/run")
    assert not [name for name in bucket.find("gs://bucket") if name.endswith(".partial")]
    bad = next(iter(bucket.find("gs://bucket/run/journal")))
    bucket.pipe_file(bad, bucket.cat_file(bad)[:-1])
    assert go_on(CONFIG, "gs://bucket/run") == 1
    with pytest.raises(SweepError, match=r"settings\.depth was 2 and is 3"):
        sweep.inspect(prepare(dataclasses.replace(CONFIG, depth=3)), "gs://bucket/run")


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("gs://b/x", ImportError("Please install gcsfs to access Google Storage"), "'.[gcs]'"),
        ("s3://b/x", ImportError("Install s3fs to access S3"), "Install s3fs"),
        ("gs://b/x", OSError("Anonymous caller\nand more"), "reached: Anonymous caller; check"),
        ("memory://b/x", None, "must be a folder, or begin with gs://, s3:// or az://; got memory"),
    ],
)
def test_a_bucket_out_of_reach_is_one_line(
    name: str,
    error: Exception | None,
    message: str,
    command: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def out_of_reach(scheme: str) -> None:
        assert error is not None
        raise error

    monkeypatch.setattr(epath_backend.fsspec_backend, "_get_filesystem", out_of_reach)
    argvs = [[*ARGUMENTS, "--output", name]]
    argvs += [["merge", name]] if isinstance(error, ImportError) else []
    for argv in argvs:
        assert command.main(argv) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err


@pytest.mark.parametrize("name", ["a[b] [red]x[/red]", "run[1,2]", "$x$_{"])
def test_a_folder_may_have_any_name(name: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / name)
    assert go_on(CONFIG, tmp_path / name) == 0
    assert same(sweep.read(tmp_path / name), sweep.read(whole))


@pytest.mark.parametrize("name", ["config.json", "strata.json"])
def test_a_flipped_bit_in_what_describes_a_sweep_is_found(
    name: str, whole: Path, copy: Path
) -> None:
    """Deleted, the file is written again by the command, and nothing is done again."""
    intact, rng = (copy / name).read_bytes(), random.Random(1)
    expected = report.results_jsonl(scores.compute(sweep.read(whole)))
    refused = 0
    for _ in range(40):
        bad = bytearray(intact)
        bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
        (copy / name).write_bytes(bytes(bad))
        try:
            assert report.results_jsonl(scores.compute(sweep.read(copy))) == expected
        except SweepError as error:
            assert "is not the record of a sweep" in str(error) and "delete the file" in str(error)
            refused += 1
    assert refused > 30
    (copy / name).unlink()
    assert go_on(CONFIG, copy) == 0
    assert (copy / name).read_bytes() == intact


def test_what_0_4_0_says_twice_is_compared(tmp_path: Path) -> None:
    """It wrote no digests; `identity` is compared with the names of units, the rest with it."""
    old = shutil.copytree(ROOT / "tests" / "data" / "sweep_0.4.0", tmp_path / "old")
    stored = json.loads((old / "config.json").read_text())
    for path, value in (
        (("config", "rollouts"), 4),
        (("provenance", "data", "num_puzzles"), 7),
        (("provenance", "checkpoint", "digest"), "0" * 64),
        (("provenance", "versions", "jax"), "9"),
        (("more",), 1),
    ):
        changed = json.loads(json.dumps(stored))
        functools.reduce(lambda at, key: at[key], path[:-1], changed)[path[-1]] = value
        (old / "config.json").write_text(json.dumps(changed))
        with pytest.raises(SweepError, match="is not the record of a sweep"):
            sweep.read(old)


def resigned(directory: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edits config.json and signs it, as one who means harm would."""
    stored = unsigned(json.loads((directory / "config.json").read_text()))
    edit(stored)
    (directory / "config.json").write_text(json.dumps(signed(stored)))


@pytest.mark.parametrize(
    "edit",
    [
        lambda s: s.update(config=[]),
        lambda s: s["provenance"].pop("data"),
        lambda s: s["provenance"]["data"].update(num_puzzles="many"),
        lambda s: s["config"].update(seeds=[[0]]),
        lambda s: s["config"].update(unit_steps={"a": 1}),
        lambda s: s["config"].update(more=1),
        lambda s: [
            (s["provenance"]["data"], s["identity"]["data"])[i].update(num_puzzles=2**31)
            for i in (0, 1)
        ],
        lambda s: (
            [s[part].update(rollouts=10**9) for part in ("config",)]
            + [s["identity"]["settings"].update(rollouts=10**9)]
        ),
    ],
    ids=range(8),
)
def test_a_signed_record_of_another_shape_is_refused(
    edit: Callable[[dict[str, Any]], Any], copy: Path
) -> None:
    resigned(copy, edit)
    with pytest.raises((SweepError, InputError), match=r"config.json is not the|work units"):
        sweep.read(copy)


def test_a_folder_of_another_plan_is_read_and_not_resumed(tmp_path: Path) -> None:
    """With a tile above 8, which 0.4.0 cut into other units, and said nothing of it."""
    large = {"lane_tile": 16, "unit_steps": None, "rollouts": 100, "depth": 16, "num_puzzles": 80}
    prepared = prepare(dataclasses.replace(CONFIG, **large, sigmas=(0.3,), seeds=(0,)))

    def at_once(steps: int, what: str) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        sweep.resume(prepared, tmp_path / "run", progress=at_once)
    assert prepared.identity["plan"] == 2 and "plan" not in prepare(CONFIG).identity
    with pytest.raises(IncompleteError, match="18 of 18 units"):
        sweep.read(tmp_path / "run")
    resigned(tmp_path / "run", lambda s: s["identity"].pop("plan"))
    with pytest.raises(IncompleteError, match="17 of 17 units"):
        sweep.read(tmp_path / "run")
    with pytest.raises(SweepError, match="plan was None and is 2; pass --new"):
        sweep.inspect(prepared, tmp_path / "run")
    resigned(tmp_path / "run", lambda s: s["identity"].update(plan=3))
    with pytest.raises(InputError, match="plan must be 1 or 2; got 3"):
        sweep.read(tmp_path / "run")


def with_member(payload: bytes, name: str, array: np.ndarray) -> bytes:
    with np.load(io.BytesIO(payload)) as arrays:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{**arrays, name: array})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda payload: b"",
        lambda payload: payload[:-40],
        lambda payload: with_member(payload, "correct", np.zeros((1, 1, 1), bool)),
        lambda payload: with_member(payload, "q_logit", np.zeros((2, 4, 2), np.float64)),
        lambda payload: with_member(payload, "answer", np.zeros(2**22, np.uint64)),
        lambda payload: with_member(payload, "tokens", np.zeros((2, 4, 9, 9), np.uint8)),
        lambda payload: with_member(payload, "about", np.frombuffer(b"[]", np.uint8)),
        lambda payload: with_member(payload, "about", np.frombuffer(b"[" * 9999, np.uint8)),
    ],
    ids=range(8),
)
def test_a_signed_record_that_is_no_unit_is_refused(
    spoil: Callable[[bytes], bytes], copy: Path
) -> None:
    (path,) = (copy / "journal").iterdir()
    *others, last = journal.read_one(path).payloads
    path.write_bytes(b"".join(map(journal.frame, [*others, spoil(last)])))
    with pytest.raises(SweepError, match="something other than finished units"):
        sweep.read(copy)


def test_a_pipe_in_place_of_a_journal_is_refused(copy: Path) -> None:
    os.mkfifo(copy / "journal" / "shard-1-of-2.journal")
    with pytest.raises(SweepError, match="must be a regular file"):
        sweep.read(copy)


def test_a_full_disk_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the sixth record; the command goes on when there is room."""
    synced: list[int] = []

    def fsync(handle: int) -> None:
        synced.append(handle)
        if len(synced) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(journal.os, "fsync", fsync)
        with pytest.raises(StorageError, match="No space left on device; finished units are kept"):
            go_on(CONFIG, tmp_path / "run")
    assert go_on(CONFIG, tmp_path / "run") <= 13 - 4
    assert same(sweep.read(tmp_path / "run"), sweep.read(whole))


def test_a_damaged_record_alone_is_done_again(whole: Path, copy: Path) -> None:
    (path,) = (copy / "journal").iterdir()
    good = path.read_bytes()
    rng = random.Random(0)
    for position in rng.sample(range(len(good)), 5):
        bad = bytearray(good)
        bad[position] ^= 1 << rng.randrange(8)
        path.write_bytes(bytes(bad))
        damaged = sweep.inspect(prepare(CONFIG), copy).damaged
        assert len(damaged) == 1 and str(path) in damaged[0]
        assert go_on(CONFIG, copy) == 1
        assert same(sweep.read(copy), sweep.read(whole))


def test_a_cut_tail_is_done_again(whole: Path, copy: Path) -> None:
    (path,) = (copy / "journal").iterdir()
    good = path.read_bytes()
    for length in (len(good) - 1, len(good) - 2000, 5, 0):
        path.write_bytes(good[:length])
        assert go_on(CONFIG, copy) >= 1
        assert same(sweep.read(copy), sweep.read(whole))
        assert journal.read(copy / "journal").damaged == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sigmas": (0.3, 0.9)}, "settings.sigmas was [0.3, 1.0] and is [0.3, 0.9]"),
        ({"seeds": (0,)}, "settings.seeds was [0, 1] and is [0]"),
        ({"depth": 3}, "settings.depth was 2 and is 3"),
        ({"rollouts": 5}, "settings.rollouts was 4 and is 5"),
        ({"num_puzzles": 4}, "data.num_puzzles was 5 and is 4"),
        ({"noise_on": "y"}, "settings.noise_on was 'z' and is 'y'"),
        ({"lane_tile": 2}, "lane_tile was 1 and is 2"),
        ({"compute_dtype": "bfloat16"}, "precision.compute_dtype was 'float32' and is 'bfloat16'"),
        ({"matmul_precision": "high"}, "precision.matmul was 'highest' and is 'high'"),
    ],
    ids=str,
)
def test_another_sweep_is_refused(changes: dict[str, Any], message: str, whole: Path) -> None:
    with pytest.raises(SweepError) as error:
        sweep.inspect(prepare(dataclasses.replace(CONFIG, **changes)), whole)
    assert message in str(error.value) and "--new" in str(error.value)


def test_another_checkpoint_version_or_platform_is_refused(whole: Path) -> None:
    prepared = prepare(CONFIG)
    for path, value in (
        (("checkpoint", "digest"), "0" * 64),
        (("data", "digest"), "0" * 64),
        (("versions", "jaxlib"), "9.9"),
        (("versions", "ptrm_jax"), "9.9"),
        (("platform", "device_kind"), "TPU v9"),
    ):
        provenance = json.loads(json.dumps(prepared.provenance))
        provenance[path[0]][path[1]] = value
        other = dataclasses.replace(prepared, provenance=provenance)
        with pytest.raises(SweepError, match=path[0]) as error:
            sweep.inspect(other, whole)
        assert value in str(error.value)
    # What does not decide the result may change.
    provenance = json.loads(json.dumps(prepared.provenance))
    provenance["platform"]["devices"] = 7
    provenance["versions"]["python"] = "3.99"
    sweep.inspect(dataclasses.replace(prepared, provenance=provenance), whole)


def test_foreign_folders_are_left_alone(tmp_path: Path, copy: Path) -> None:
    prepared = prepare(CONFIG)
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("years of work")
    for name, message in (("file", "is a file"), ("mine", "something other than a sweep")):
        with pytest.raises(SweepError, match=message):
            sweep.inspect(prepared, tmp_path / name)
    # What a process leaves that was killed before it had written config.json is nobody's.
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".config.json.123.partial").write_text('{"conf')
    sweep.inspect(prepared, tmp_path / "killed")
    for text in ("{", "[]", '{"config": {}}'):
        (copy / "config.json").write_text(text)
        with pytest.raises(SweepError, match="is not the record of a sweep"):
            sweep.inspect(prepared, copy)
    with pytest.raises(SweepError, match="is not the folder of a sweep"):
        sweep.read(tmp_path / "mine")


def test_a_journal_of_another_sweep_is_refused(copy: Path, tmp_path: Path) -> None:
    """Somebody copied it there."""
    other = dataclasses.replace(CONFIG, sigmas=(0.2,), seeds=(0,))
    go_on(other, tmp_path / "other", most=1)
    shutil.copy(next((tmp_path / "other" / "journal").iterdir()), copy / "journal" / "x.journal")
    with pytest.raises(SweepError, match="holds a unit of another sweep"):
        sweep.inspect(prepare(CONFIG), copy)


@pytest.fixture(scope="module")
def deep() -> Result:
    """Wider and deeper than `whole`, with one seed in common."""
    grid = {"grid_rollouts": (1, 3), "grid_depths": (1, 3)}
    return sweep.run(
        prepare(dataclasses.replace(CONFIG, rollouts=5, depth=3, seeds=(1, 2), **grid))
    )


def test_a_grid_costs_its_largest_point(deep: Result) -> None:
    """And every point equals a sweep of its own, bit for bit."""
    paper = dataclasses.replace(
        CONFIG,
        rollouts=100,
        depth=48,
        grid_rollouts=(1, 5, 10, 25, 100),
        grid_depths=(16, 32, 48),
    )
    assert estimate(prepare(paper)).grid_ratio == pytest.approx(4800 / 13536)
    (large,) = (run for run in deep.runs_of(0.3) if run.seed == 1)
    for k in deep.search.grid_rollouts:
        for depth in deep.search.grid_depths:
            alone = {"rollouts": k, "depth": depth, "sigmas": (0.3,), "seeds": (1,)}
            point = sweep.run(prepare(dataclasses.replace(CONFIG, **alone, equal_compute=False)))
            for name in ("digest", "q_logit", "correct", "finite", "cell_accuracy"):
                got = getattr(large.rollouts, name)[:, :k, :depth]
                assert got.tobytes() == getattr(point.runs[0].rollouts, name).tobytes()


def test_kept_answers_are_the_answers(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, keep_answers="all", sigmas=(0.3,), seeds=(0,))
    prepared = prepare(config)
    finished = work(prepared)
    labels = prepared.puzzles.labels
    for unit, part in finished.items():
        answers = part.measured.tokens
        right = metrics.exact(answers, labels[slice(*unit.puzzles)])
        np.testing.assert_array_equal(right, part.measured.correct)
        assert answers.shape[-1] == 36
    assert estimate(prepared).output_bytes == prepared.rollout_steps * (19 + 36)
    result = assemble_outcome(prepared, finished)
    right = metrics.exact(result.runs[0].measured.tokens, labels)
    np.testing.assert_array_equal(right, result.runs[0].rollouts.correct)


def test_the_last_answers_are_those_of_the_last_step(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, keep_answers="last", sigmas=(0.3,), seeds=(0,))
    prepared = prepare(config)
    result = sweep.run(prepared)
    for run, steps in ((result.deterministic, [2, 8]), (result.runs[0], [2])):
        tokens = run.measured.tokens
        assert tokens.shape == (5, len(run.rollouts.correct[0]), len(steps), 36)
        right = metrics.exact(tokens, prepared.puzzles.labels)
        np.testing.assert_array_equal(right, run.rollouts.correct[:, :, np.array(steps) - 1])
    kept = 5 * (2 * 1 + 4)
    assert estimate(prepared).output_bytes == prepared.rollout_steps * 19 + kept * 36


def test_cost_is_of_what_is_left() -> None:
    prepared = prepare(CONFIG)
    whole, part = estimate(prepared), estimate(prepared, prepared.units[:3])
    assert whole.units == 13 and part.units == 3
    assert whole.rollout_steps == 5 * (4 * 2 + 4 * 4 * 2) == prepared.rollout_steps
    assert whole.flops / whole.rollout_steps == part.flops / part.rollout_steps
    assert whole.grid_ratio is None


def test_shards_are_parsed() -> None:
    assert Shard.parse("2/5") == Shard(2, 5)
    for text in ("5/5", "-1/5", "1", "a/b", "0/0", "1/2/3"):
        with pytest.raises(ValueError, match="shard must be i/n"):
            Shard.parse(text)


# --- The command ---------------------------------------------------------------------------------

ARGUMENTS = [
    *("--checkpoint", small_checkpoint(), "--data", "sudoku6", "--sigmas", "0.3", "1.0"),
    *("--rollouts", "4", "--depth", "2"),
    *("--seeds", "0", "1", "--num-puzzles", "5", "--lane-tile", "1", "--unit-steps", "1"),
]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`experiments/ptrm_sweep.py`, without pictures, which take longer than these sweeps."""
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    monkeypatch.setattr(pictures, "PICTURES", {})
    return load_experiment("ptrm_sweep")


def test_a_dry_run_writes_nothing(
    command: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = ["--grid-rollouts", "1", "4", "--grid-depths", "1", "2"]
    output = ["--output", str(tmp_path / "run")]
    assert command.main([*ARGUMENTS, *grid, *output, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "13 of 13 work units to run: 200 rollout-steps" in out
    assert "MB of journal" in out and "per second" in out
    assert "the grid of 4 widths and depths is part of this run: 0.533 of" in out
    assert "2 processes 1.93, 4 processes 3.62, 8 processes 5.80, 16 processes 5.80" in out
    assert list(tmp_path.iterdir()) == []


def test_the_command_resumes_merges_and_refuses(
    command: ModuleType,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([*ARGUMENTS, "--shard", "0/2"]) == 3
    assert "7 of 13 units of the sweep are missing" in capsys.readouterr().err
    assert command.main([*ARGUMENTS, "--shard", "1/2", "--devices", "8"]) == 0
    table = capsys.readouterr().out
    directory = tmp_path / "runs" / "small6"
    assert report.short_table(scores.compute(sweep.read(directory))) in table
    assert same(sweep.read(directory), sweep.read(whole))
    names = {"results.jsonl", "summary.csv", "table.txt", "config.json", "journal"}
    assert names <= {path.name for path in directory.iterdir()}

    written = (directory / "results.jsonl").read_bytes()
    assert command.main(ARGUMENTS) == 0  # nothing is left to do
    assert "0 of 13 work units to run, 13 are finished" in capsys.readouterr().out
    assert command.main(["merge", str(directory), "--output", str(tmp_path / "report")]) == 0
    assert (tmp_path / "report" / "results.jsonl").read_bytes() == written
    assert (tmp_path / "report" / "summary.csv").exists()

    assert command.main([*ARGUMENTS, "--depth", "3"]) == 2
    assert "settings.depth was 2 and is 3" in " ".join(capsys.readouterr().err.split())
    assert command.main([*ARGUMENTS, "--new"]) == 0
    assert (tmp_path / "runs" / "small6-002" / "table.txt").exists()
    for argv, message in (
        (["--shard", "2/2"], "shard must be i/n"),
        (["--coordinator", "a:1"], "must be given together"),
        (["--shard", "0/2", "--distributed"], "shard is for independent processes"),
        (["--distributed"], "cannot join the processes of a distributed run"),
    ):
        assert command.main([*ARGUMENTS, *argv]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_command_interrupted_and_killed_resumes(
    command: ModuleType, whole: Path, tmp_path: Path
) -> None:
    """SIGINT ends it after the unit in flight; SIGKILL at once. Resumed, the result is the same."""
    output = tmp_path / "run"

    def units() -> int:
        return len(journal.read(output / "journal").payloads)

    for number, least in ((signal.SIGINT, 2), (signal.SIGKILL, 5)):
        process = start_command("ptrm_sweep", *ARGUMENTS, "--output", str(output), devices=2)
        while units() < least:
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(number)
        out, err = process.communicate()
        if number == signal.SIGINT:
            assert process.returncode == 128 + number, err
            assert "stopped; rerun the same command to resume" in out
            assert "stopping after this unit (about " in err and "again to stop now" in err
        else:
            assert process.returncode == -number
        assert least <= units() < 13
    assert command.main([*ARGUMENTS, "--output", str(output)]) == 0
    assert same(sweep.read(output), sweep.read(whole))


def test_two_processes_that_know_each_other(whole: Path, tmp_path: Path) -> None:
    """Over the loopback: each its units, process 0 the report."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    shared = [*ARGUMENTS, "--output", str(tmp_path / "run")]
    shared += ["--coordinator", address, "--num-processes", "2", "--process-id"]
    processes = [start_command("ptrm_sweep", *shared, str(i), devices=2) for i in range(2)]
    (out, err), (out_1, err_1) = (process.communicate(timeout=300) for process in processes)
    assert [process.returncode for process in processes] == [0, 0], err + err_1
    assert "best-Q@4" in out and "best-Q@4" not in out_1
    assert f"waiting for the other processes of this run ({address}, process 1 of 2)" in err_1
    journals = sorted(path.name for path in (tmp_path / "run" / "journal").iterdir())
    assert journals == ["shard-0-of-2.journal", "shard-1-of-2.journal"]
    assert same(sweep.read(tmp_path / "run"), sweep.read(whole))


# --- Comparing -----------------------------------------------------------------------------------


def test_compare_finds_the_place(whole: Path) -> None:
    first = sweep.read(whole)
    run = first.runs[2]
    q_logit = run.rollouts.q_logit.copy()
    q_logit[3, 1, 0] += 1e-6 * abs(q_logit[3, 1, 0])
    q_logit[4, 0, 1] += 1.0
    runs = list(first.runs)
    rollouts = dataclasses.replace(run.rollouts, q_logit=q_logit)
    runs[2] = dataclasses.replace(run, rollouts=rollouts)
    second = dataclasses.replace(first, runs=tuple(runs))
    found = compare.compare(first, second)
    assert not found.identical
    places = [run.place for run in found.runs]
    assert places == [None] * 3 + [compare.Place(3, 1, 1, ("q_logit",), 2), None]
    text = compare.text(found)
    assert "differ in 2 puzzles, first in puzzle 3, rollout 1, step 1 (q_logit)" in text
    assert "McNemar" in text and text.count("identical") == 4
    assert compare.compare(first, first).identical


def test_compare_says_what_else_differs(whole: Path, deep: Result) -> None:
    """A wider and deeper sweep agrees where both are; its width and depth are named."""
    found = compare.compare(sweep.read(whole), deep)
    assert found.identical and [run.shape[1:] for run in found.runs[1:]] == [(4, 2)] * 2
    assert found.apart == ("sigma0.3_seed0", "sigma0.3_seed2", "sigma1_seed0", "sigma1_seed2")
    assert "config.rollouts was 4 and is 5" in found.provenance
    provenance = deep.provenance | {"data": deep.provenance["data"] | {"digest": "0" * 64}}
    other = dataclasses.replace(deep, provenance=provenance)
    with pytest.raises(ValueError, match="both sweeps must be of the same puzzles"):
        compare.compare(sweep.read(whole), other)


def test_mcnemar_is_the_sign_test_of_those_that_differ() -> None:
    first = np.array([1] * 9 + [0] + [1] * 20 + [0] * 30, bool)
    second = np.array([0] * 9 + [1] + [1] * 20 + [0] * 30, bool)
    assert compare.mcnemar(first, second) == (9, 1, pytest.approx(2 * 11 / 1024))
    assert compare.mcnemar(first, first) == (0, 0, 1.0)


def test_the_compare_command(
    whole: Path, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main: Callable[[list[str]], int] = load_experiment("compare").main
    assert main([str(whole), str(copy)]) == 0
    assert "The sweeps are identical in what both have." in capsys.readouterr().out
    # Other weights in the same program: another checkpoint.
    model, params = load(CONFIG.checkpoint)
    save(tmp_path / "model", model.config, jax.tree.map(lambda x: 1.01 * x, params))
    other = {"checkpoint": str(tmp_path / "model"), "data": "sudoku6"}
    go_on(dataclasses.replace(CONFIG, **other), tmp_path / "other")
    assert main([str(whole), str(tmp_path / "other")]) == 1
    assert "provenance.checkpoint.digest was" in capsys.readouterr().out
    assert main([str(whole), str(tmp_path / "nothing")]) == 2
    assert "is not the folder of a sweep" in " ".join(capsys.readouterr().err.split())


def test_jax_is_asked_for_what_is_recorded() -> None:
    """The lowered program carries the precision of the settings."""
    for matmul, word in (("highest", "HIGHEST"), ("high", "HIGH"), ("default", "DEFAULT")):
        prepared = prepare(dataclasses.replace(CONFIG, matmul_precision=matmul))
        from ptrm_jax import solve

        lowered = jax.jit(
            lambda params, p=prepared: solve(
                *(p.model, params, jax.random.key(0), p.puzzles.puzzles),
                num_rollouts=1,
                depth=1,
            )
        ).lower(prepared.params)
        products = [line for line in lowered.as_text().splitlines() if "dot_general" in line]
        assert products
        if matmul == "default":
            assert not any("HIGH" in line for line in products)
        else:
            assert all(f"[{word}, {word}]" in line for line in products)
