"""Flipped bits in every kind of file that is read back: an error of the reader, or nothing changes.

`pytest -n 0 tests/test_fuzz.py --fuzz-rounds 300` tries more of them.
"""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from convert import ConversionError, read_state
from convert.files import read_config, read_dataset as read_upstream_json
from ptrm_jax import CheckpointError, DataError, InputError, puzzle_text, read_dataset
from ptrm_jax.analysis import exhibit
from ptrm_jax.checkpoint import load, tree_digest
from ptrm_jax.errors import PtrmError, SweepError
from ptrm_jax.files import file_digest, json_digest, signed
from ptrm_jax.sweep import folder, report, scores
from ptrm_jax.tasks import arc

ROOT = Path(__file__).parents[1]
TORCH = ROOT / "tests" / "data" / "torch_trm" / "wide_puzzle_emb_padded"


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is read back, and how.

    Attributes:
      make: writes the files into a folder.
      read: what the reader makes of the folder; a flipped bit must not change it.
      error: of the reader.
      share: of the suite's rounds; readers take from microseconds to a second.
    """

    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    error: type[PtrmError]
    share: float = 1.0


def a_sweep(to: Path) -> None:
    """The sweep of 0.4.0, with the digests that are written since."""
    shutil.copytree(ROOT / "tests" / "data" / "sweep_0.4.0", to, dirs_exist_ok=True)
    strata = json.loads((to / "strata.json").read_text())
    stored = json.loads((to / "config.json").read_text()) | {"strata": json_digest(strata)}
    (to / "config.json").write_text(json.dumps(signed(stored), indent=1))
    for name in ("results.jsonl", "summary.csv"):
        (to / name).unlink()


def the_report(of: Path) -> str:
    return report.results_jsonl(found := scores.compute(folder.read(of))) + report.table(found)


def an_upstream_folder(to: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, labels = rng.integers(1, 6, (2, 8, 16), np.int32)
    arrays = {"inputs": inputs, "labels": labels, "puzzle_identifiers": np.zeros(8, np.int32)}
    arrays["puzzle_indices"] = arrays["group_indices"] = np.arange(9)
    for name, array in arrays.items():
        np.save(to / f"all__{name}.npy", array)
    names = ("seq_len", "vocab_size", "num_puzzle_identifiers", "ignore_label_id")
    about = dict(zip(names, (16, 6, 1, 0), strict=True)) | {"sets": ["all"]}
    (to / "dataset.json").write_text(json.dumps(about))


def copied(*names: str, source: Path = TORCH) -> Callable[[Path], None]:
    def copy(to: Path) -> None:
        for name in names:
            shutil.copy(source / name, to / name)

    return copy


def with_digest(read: Callable[[Path], Any], name: str) -> Callable[[Path], Any]:
    """Of a file that others wrote, without a digest: results carry that of what was read."""

    def reads(of: Path) -> Any:
        read(of / name)
        return None

    return reads


def puzzles(to: Path) -> None:
    bundled = ROOT / "ptrm_jax" / "assets" / "puzzles" / "sudoku6.csv"
    (to / "x.csv").write_text("".join(bundled.read_text().splitlines(keepends=True)[:20]))


def challenges(to: Path) -> None:
    grid = [[1, 2], [3, 4]]
    one = {"train": [{"input": grid, "output": grid}], "test": [{"input": grid}]}
    (to / "arc-agi_x_challenges.json").write_text(json.dumps({"one": one, "two": one}))


READERS = {
    "checkpoint": Reader(
        lambda to: shutil.copytree(
            ROOT / "ptrm_jax" / "assets" / "sudoku6", to, dirs_exist_ok=True
        ),
        lambda of: tree_digest((loaded := load(of))[0].config, loaded[1]),
        CheckpointError,
        share=0.1,
    ),
    "sweep": Reader(a_sweep, the_report, SweepError, share=0.5),
    "figure": Reader(
        copied("width.json", source=ROOT / "experiments" / "results" / "sudoku9"),
        lambda of: exhibit.read(of, ["width"]),
        InputError,
    ),
    "data": Reader(an_upstream_folder, lambda of: read_dataset(of).digest, DataError),
    "csv": Reader(puzzles, lambda of: read_dataset(of / "x.csv").digest, DataError),
    "text": Reader(
        puzzles, with_digest(lambda path: puzzle_text.read(str(path)), "x.csv"), InputError
    ),
    "arc": Reader(challenges, lambda of: str(arc.read_challenges(of, ["x"])), InputError),
    "torch": Reader(
        copied("step_1000"),
        lambda of: sorted((n, x.tobytes()) for n, x in read_state(of / "step_1000").items()),
        ConversionError,
    ),
    "safetensors": Reader(
        lambda to: safetensors_numpy.save_file(
            {"a": np.ones(9, np.float32), "b": np.ones((2, 2))}, to / "x.safetensors"
        ),
        with_digest(read_state, "x.safetensors"),
        ConversionError,
    ),
    "yaml": Reader(
        copied("all_config.yaml"), with_digest(read_config, "all_config.yaml"), ConversionError
    ),
    "dataset.json": Reader(
        copied("dataset.json"), with_digest(read_upstream_json, "dataset.json"), ConversionError
    ),
}
WITHOUT_DIGEST = ("data", "csv", "arc")
"""Others wrote them, so any of their values may be right; what is read has its own digest."""


def flips(of: Path, rounds: int) -> Iterator[None]:
    """Flips a random bit of a random file in a folder, for a moment each."""
    rng = random.Random(0)
    files = sorted(path for path in of.rglob("*") if path.is_file() and path.stat().st_size)
    for _ in range(rounds):
        path = rng.choice(files)
        intact = path.read_bytes()
        damaged = bytearray(intact)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        yield
        path.write_bytes(intact)


@pytest.mark.parametrize("name", READERS)
def test_a_flipped_bit_is_an_error_or_changes_nothing(
    name: str, tmp_path: Path, fuzz_rounds: int
) -> None:
    reader = READERS[name]
    reader.make(tmp_path)
    expected = reader.read(tmp_path)
    refused = 0
    for _ in flips(tmp_path, max(4, round(fuzz_rounds * reader.share))):
        try:
            found = reader.read(tmp_path)
            assert found == expected or name in WITHOUT_DIGEST
        except reader.error as error:
            assert "\n" not in str(error) and len(str(error)) < 2000
            refused += 1
    print(f"{name}: {refused} refused")
    assert reader.read(tmp_path) == expected


def test_digests_of_files_differ(tmp_path: Path) -> None:
    """What a conversion records of a source whose bits nothing else protects."""
    copied("step_1000")(tmp_path)
    intact = file_digest(tmp_path / "step_1000")
    assert all(file_digest(tmp_path / "step_1000") != intact for _ in flips(tmp_path, 3))
