"""The check of an accelerator: rehearsed on the CPU, and what it says where something is wrong."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from conftest import load_experiment, random_puzzles, small_model

from ptrm_jax import checks, mesh
from ptrm_jax.checks import agreement, speed
from ptrm_jax.errors import InputError


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
    assert len(measured) == 3 and len(set(measured)) == 3
    assert all(one["share"] is None for one in found["rates"])
    rates = {
        key: one["steps_per_second"] for key, one in zip(measured, found["rates"], strict=True)
    }
    assert min(rates.values()) > 0
    best = found["best_tile"]["maze-hard"]
    assert best == max((2, 4), key=lambda tile: rates["maze-hard", "bfloat16", tile])
    arc, cost = found["costs"]
    assert (arc["benchmark"], arc["model"], cost["benchmark"]) == ("arc-agi-2", *["maze-hard"] * 2)
    assert (cost["rollouts"], cost["depth"]) == (100, 16)
    assert cost["dollars_per_puzzle"] == pytest.approx(cost["seconds_per_puzzle"] * 2.5 / 3600)
    assert ("maze-hard", "float32", best) in measured
    table = (tmp_path / "table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "the CPU is compared with itself" in table and "A rehearsal" in table
    assert table.count("| not known |") == 3
    assert re.search(rf"\| maze-hard \| bfloat16 \| {best} \(best\) \| [\d,.]+ \|", table)


def test_a_device_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = small_model("mlp_t", num_layers=1, L_cycles=1)
    cpu, device = jax.local_devices()[:2]
    right = agreement.step

    def wrong(*args: Any, **settings: Any) -> Any:
        carry, heads = right(*args, **settings)
        off = 0.5 if args[0].arrangement == "accelerator" and settings["t"] == 2 else 0.0
        return carry, heads._replace(logits=heads.logits + off)

    monkeypatch.setattr(agreement, "step", wrong)
    places = (random_puzzles(model, 2), device, cpu)
    found = agreement.parity("toy", model, params, *places, depth=3)
    assert not found.holds
    np.testing.assert_allclose(found.values["steps"]["logits"], [0, 0.5, 0], atol=1e-4)
    assert max(found.values["steps"]["z"]) < 1e-4 and "5.0e-01 (logits)" in found.found


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


def test_time_that_is_over_is_said() -> None:
    settings = checks.Settings(quick=True, minutes=1e-9, devices=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ptrm_jax.checks.host._agreements", lambda *_: iter(()))
        found = checks.check(settings)
    assert found["rates"] == [] and len(found["left_out"]) == 2
    assert "Not measured, for want of time: maze-hard, bfloat16, tile 2;" in checks.table(found)
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
