"""The check of an accelerator: rehearsed on the CPU, and what it says where something is wrong."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import load_experiment, random_puzzles, small_model

from ptrm_jax import checks, mesh
from ptrm_jax.checks import agreement, host, speed
from ptrm_jax.errors import InputError
from ptrm_jax.model import Heads
from ptrm_jax.solver import initial_carry


def test_a_rehearsal_ends_with_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mesh, "use_cpu_cores", lambda: None)
    main = load_experiment("accelerator_check").main
    assert main(["--quick", "--devices", "1", "--no-torch", "--output", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "check.json").read_text())
    names = [one["name"] for one in found["agreements"]]
    expected = ["noise", "sigma = 0", "K prefix", "layouts", "parity with the CPU, sudoku6"]
    assert names == expected and all(one["holds"] for one in found["agreements"])
    assert found["agreements"][0]["values"] == {"bits_equal": True, "differ": 0.0, "ulp": 0.0}
    steps = found["agreements"][-1]["values"]["steps"]
    assert {part: len(errors) for part, errors in steps.items()} == dict.fromkeys(steps, 2)
    measured = [(one["model"], one["dtype"], one["tile"]) for one in found["rates"]]
    assert measured == [("maze-hard", "bfloat16", 2), ("maze-hard", "float32", 2)]
    assert all(one["steps_per_second"] > 0 and one["share"] is None for one in found["rates"])
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "the CPU is compared with itself" in table and "A rehearsal" in table
    assert table.count("| not known |") == 2


RATES = {64: 100.0, 16: 400.0, 256: None, 32: 500.0, 128: 300.0, 8: 50.0}
"""By tile; one does not fit."""


def test_the_best_tile_is_found_and_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tiles of every model, then both dtypes at the best of them, then the other tiles."""
    asked = []

    def rate(name: str, config: Any, dtype: str, tile: int, *_: Any, **settings: Any) -> Any:
        asked.append((name, dtype, tile, settings["rival"]))
        note = "" if RATES[tile] else "does not fit the device's memory"
        return checks.Rate(name, dtype, tile, RATES[tile], 0.5, 1.0, 10**9, None, note)

    monkeypatch.setattr(speed, "rate", rate)
    monkeypatch.setattr(speed, "random_params", lambda config: {})
    monkeypatch.setattr(host, "_agreements", lambda *_: iter(()))
    found = checks.check(checks.Settings(devices=1, dollars_per_hour=5.0), rival=len)
    for number, name in enumerate(("sudoku-extreme", "ppbench", "maze-hard")):
        tiles = [(name, "bfloat16", tile, None) for tile in (64, 16, 256)]
        best = [(name, dtype, 16, len) for dtype in ("float32", "bfloat16")]
        assert asked[5 * number : 5 * number + 5] == [*tiles, *best]
    assert [tile for *_, tile, _ in asked[15:]] == [32, 128, 8] * 3
    assert found["best_tile"] == dict.fromkeys(("sudoku-extreme", "ppbench", "maze-hard"), 32)
    costs = {one["benchmark"]: one["seconds_per_puzzle"] for one in found["costs"]}
    expected = {"arc-agi-2": 25 * 16, "maze-hard": 1600, "ppbench": 4800, "sudoku-extreme": 6400}
    assert costs == {name: steps / 500 for name, steps in expected.items()}
    for one in found["costs"]:
        assert one["dollars_per_puzzle"] == pytest.approx(one["seconds_per_puzzle"] * 5 / 3600)
    table = checks.table(found)
    assert "| maze-hard | bfloat16 | 32 (best) | 500.0 | 0.50 | - | 1.00 GB | 1 s |  |" in table
    assert "| 256 | - | 0.50 | - | 1.00 GB | 1 s | does not fit the device's memory |" in table
    assert "arc-agi-2 (as maze-hard) | 25 | 16 | 0.8 |" in table


def test_a_device_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step that adds 1 to every state, and on the device 0.5 to the second step's logits."""
    model, params = small_model()
    asked = []

    def step(arranged: Any, params: Any, key: Any, carry: Any, *_: Any, t: int, **__: Any) -> Any:
        asked.append((arranged.arrangement, t, float(carry.z.max() - start.max())))
        logits = np.zeros((2, 9, 7), np.float32)
        off = 0.5 if arranged.arrangement == "accelerator" and t == 2 else 0.0
        moved = jax.tree.map(lambda x: np.asarray(x) + 1, carry)
        return moved, Heads(logits + off, np.zeros((2, 2), np.float32))

    monkeypatch.setattr(agreement, "step", step)
    start = np.asarray(initial_carry(model, params, 2).z)
    cpu, device = jax.local_devices()[:2]
    places = (random_puzzles(model, 2), device, cpu)
    found = checks.parity("toy", model, params, *places, depth=3)
    assert not found.holds and "5.0e-01 (logits)" in found.found
    steps = {"y": [0, 0, 0], "z": [0, 0, 0], "logits": [0, 0.5, 0], "q": [0, 0, 0]}
    assert found.values == {"steps": steps, "cells_alike": [1, 1, 1]}
    # Both begin every step from the states of the CPU.
    expected = [(kind, t, t - 1) for t in (1, 2, 3) for kind in ("accelerator", "cpu")]
    np.testing.assert_allclose([at for *_, at in asked], [at for *_, at in expected], atol=1e-5)
    assert [call[:2] for call in asked] == [call[:2] for call in expected]


@pytest.mark.parametrize(("patched", "found"), [("noise_key", "DIFFERENT"), ("perturb", "equal")])
def test_noise_that_differs_is_found(
    patched: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a device whose keys, or whose draws, are those of another step."""
    original, traced = getattr(agreement, patched), []

    def other(*args: Any) -> Any:
        traced.append(args)
        step = {"noise_key": 3, "perturb": 2}[patched]
        return original(*args[:step], args[step] + int(len(traced) == 1), *args[step + 1 :])

    monkeypatch.setattr(agreement, patched, other)
    model, _ = small_model()
    cpu, device = jax.local_devices()[:2]
    seen = checks.noise(model, device, cpu, num_puzzles=2, depth=2)
    assert not seen.holds and f"bits {found}" in seen.found and len(traced) == 2


@pytest.mark.parametrize("defect", ["", "sigma = 0", "K prefix", "layouts"])
def test_bits_that_differ_are_found(defect: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a solver that breaks one promise at a time."""

    def solve(*args: Any, **settings: Any) -> Any:
        width = settings["num_rollouts"]
        q = np.zeros((2, width, 3), np.float32)
        q += 0 if settings["sigma"] == 0 else np.arange(width)[:, None]
        q[0, -1, 2] += defect == "sigma = 0" and settings["sigma"] == 0 and width > 1
        q[0, 0, 1] += defect == "K prefix" and settings["sigma"] > 0 and width == 2
        q[1, 2:, 0] += defect == "layouts" and settings.get("backend") == "mesh"
        answers = np.zeros((2, width, 3, 4), np.int32)
        return SimpleNamespace(trajectory=SimpleNamespace(answers=answers, q_logits=q))

    monkeypatch.setattr(mesh, "solve", solve)
    model, params = small_model()
    devices = jax.local_devices()[:2]
    found = checks.arrangements(model, params, random_puzzles(model, 2), devices, depth=3)
    assert [one.name for one in found if not one.holds] == [defect] * bool(defect)
    if defect == "layouts":
        assert found[2].found.endswith("; NOT mesh on 1, mesh on 2")


def test_a_tile_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def solve(*args: Any, **settings: Any) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(mesh, "solve", solve)
    model, params = small_model()
    device = jax.local_devices()[:1]
    found = checks.rate("toy", model.config, "bfloat16", 4, params, device, seconds=0.0)
    assert found == checks.Rate("toy", "bfloat16", 4, note="does not fit the device's memory")


def test_time_that_is_over_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = checks.Settings(quick=True, minutes=1e-9, devices=1)
    monkeypatch.setattr(host, "_agreements", lambda *_: iter(()))
    found = checks.check(settings)
    assert found["rates"] == [] and len(found["left_out"]) == 1
    assert "Not measured, for want of time: maze-hard, bfloat16, tile 2." in checks.table(found)
    with pytest.raises(InputError, match="minutes must be positive"):
        checks.Settings(minutes=0)


@pytest.mark.parametrize(
    ("kind", "peak"),
    [
        *(("TPU v5 lite", 197e12), ("TPU v5", 459e12), ("NVIDIA H100 80GB HBM3", 989e12)),
        *(("NVIDIA H100 PCIe", 756e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12)),
        *(("cpu", None), ("TPU v9", None)),
    ],
)
def test_peaks_are_found_by_kind(kind: str, peak: float | None) -> None:
    assert speed.peak(SimpleNamespace(device_kind=kind)) == peak  # type: ignore[arg-type]


def test_full_size_models_are_the_published_ones() -> None:
    sizes = {name: (c.length, c.vocab_size, c.variant) for name, c in speed.full_size().items()}
    assert sizes == {
        "sudoku-extreme": (97, 11, "mlp_t"),
        "maze-hard": (916, 6, "attention"),
        "ppbench": (116, 294, "attention"),
    }
