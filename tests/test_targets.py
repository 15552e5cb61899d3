"""Programs compiled for accelerators that are not there, and arranged for them."""

import functools
import importlib.util
import json
import math
import platform
import sys
from typing import Any

import jax
import numpy as np
import pytest
from conftest import load_experiment, random_puzzles, small_model

from ptrm_jax import Precision, Save, chips, hlo, load, mesh, sweep, targets
from ptrm_jax.checks import survey
from ptrm_jax.checks.speed import full_size
from ptrm_jax.config import Backend, LoopSettings
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, trm
from ptrm_jax.solver.langevin import tile_energy
from ptrm_jax.solver.tiles import tile_model
from ptrm_jax.sweep import price

# --- The arrangement for accelerators, on the CPU ------------------------------------------------


@functools.cache
def applied(variant: str, dtype: str, arrangement: str, lanes_together: int = 6) -> np.ndarray:
    """The network on 6 lanes, [L, T, C]."""
    model, params = small_model(variant, Precision(dtype))
    model = model.clone(arrangement=arrangement)
    rng = np.random.default_rng(0)
    shape = (model.config.length, 6, model.config.hidden_size)
    s, injection = (jax.numpy.asarray(rng.standard_normal(shape), dtype) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        bytes_of_a_lane = 4 * model.config.num_heads * model.config.length**2
        patch.setattr(trm, "_SCORES_ON_CHIP", lanes_together * bytes_of_a_lane)

        def f(s: jax.Array, injection: jax.Array) -> jax.Array:
            return model.apply({"params": params}, s, injection, method=TRM.f)

        if arrangement == "cpu":
            f = jax.vmap(f, in_axes=1, out_axes=1)
        return np.asarray(jax.jit(f)(s, injection), np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_arrangement_changes_last_bits_only(variant: str, dtype: str) -> None:
    got, expected = (applied(variant, dtype, kind) for kind in ("accelerator", "cpu"))
    if dtype == "float32":
        np.testing.assert_allclose(got, expected, atol=1e-5)
    else:  # sums in another order round some elements the other way
        assert (got != expected).mean() < 0.05
        np.testing.assert_allclose(got, expected, atol=0.1)


@pytest.mark.parametrize("lanes_together", [1, 4])
def test_attention_in_groups_is_that_of_all_lanes(lanes_together: int) -> None:
    """Of 6 lanes 4 fit, so they go by threes, the largest equal groups."""
    got, expected = (
        applied("attention", "float32", "accelerator", number) for number in (lanes_together, 6)
    )
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_gradients_go_through_attention_in_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trm, "_SCORES_ON_CHIP", 1)
    model, params = small_model("attention", num_layers=1, L_cycles=1, H_cycles=1)
    rng = np.random.default_rng(0)
    shape = (model.config.length, 2, model.config.hidden_size)
    states = [jax.numpy.asarray(rng.standard_normal(shape), "float32") for _ in range(3)]
    (cpu, slope), (other, other_slope) = (
        jax.jit(functools.partial(tile_energy, tile_model(model.clone(arrangement=kind), params)))(
            *states
        )
        for kind in ("cpu", "accelerator")
    )
    np.testing.assert_allclose(other, cpu, rtol=1e-4)
    np.testing.assert_allclose(other_slope, slope, atol=1e-4 * np.abs(slope).max())


def test_the_arrangement_is_chosen_by_the_devices_unless_it_is_given() -> None:
    model, params = small_model(num_layers=1, L_cycles=1)

    class Elsewhere:
        platform = "tpu"
        device_kind = "TPU v5 lite"

    (here,) = mesh.local_devices(1)
    there: Any = Elsewhere()
    assert mesh.arrange(model, [here]).arrangement == "cpu"
    assert mesh.arrange(model, [there]).arrangement == "accelerator"
    given = model.clone(arrangement="accelerator")
    assert mesh.arrange(given, [here]) is given
    args = params, jax.random.key(0), random_puzzles(model, 2)
    settings: dict[str, Any] = {"num_rollouts": 2, "depth": 1, "save": Save(q_logits=True)}
    plain, arranged = (
        mesh.solve(m, *args, **settings, devices=[here]).rollout_q_logits for m in (model, given)
    )
    np.testing.assert_allclose(arranged, plain, atol=1e-4)


# --- Tiles ---------------------------------------------------------------------------------------


def test_lane_tiles_are_those_of_the_model_most_alike() -> None:
    configs = full_size()
    for row in chips.lane_tiles():
        assert row["lane_tile"] >= 1 and row["chip"] in chips.CHIPS
        config = configs[row["model"]]
        kind = chips.CHIPS[row["chip"]].device_kinds[0]
        assert chips.best_lane_tile(kind, config, row["compute_dtype"]) == row["lane_tile"]
    maze = configs["maze-hard"]
    assert chips.best_lane_tile("NVIDIA H100", maze, "bfloat16") == chips.best_lane_tile(
        "TPU v5 lite", maze, "bfloat16"
    )
    assert mesh.default_lane_tile() == mesh.default_lane_tile(TRM(maze)) == 8  # a CPU


@pytest.mark.parametrize(
    ("costs", "start", "best"),
    [
        ({1: 3, 2: 2, 4: 1, 8: 2}, 2, 4),
        ({1: 1, 2: 2, 4: 3, 8: 4}, 4, 1),
        ({2: 2, 4: 1, 8: math.inf}, 4, 4),
    ],
)
def test_the_best_tile_is_found_downhill(costs: dict[int, float], start: int, best: int) -> None:
    assert survey._descend(costs.__getitem__, start) == best


# --- What the compiler writes --------------------------------------------------------------------

TEXT = """HloModule jit_run, is_scheduled=true

%fused (p: bf16[4,4]) -> f32[4,4] {
  %p = bf16[4,4]{1,0} parameter(0)
  ROOT %convolution.1 = f32[4,4]{1,0} convolution(%p, %p), dim_labels=bf_io->bf
}

%inner (s: (s32[], bf16[4,4])) -> (s32[], bf16[4,4]) {
  %s = (s32[]{:T(128)}, bf16[4,4]{1,0}) parameter(0)
  ROOT %fusion.1 = (s32[], bf16[4,4]) fusion(%s), calls=%fused, metadata={op_name="jit(run)/while/\
body/network/layers_1/mlp/dot_general"}, backend_config={"estimated_cycles":"100"}
}

%less (s.1: (s32[], bf16[4,4])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(5)
  %s.1 = (s32[]{:T(128)}, bf16[4,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s.1), index=0
  ROOT %lt = pred[] compare(%i, %constant.1), direction=LT
}

%outer (t: (s32[], bf16[4,4])) -> (s32[], bf16[4,4]) {
  %t = (s32[], bf16[4,4]) parameter(0)
  %copy.1 = bf16[4,4]{0,1} copy(%t), backend_config={"estimated_cycles":"7"}
  ROOT %while.1 = (s32[], bf16[4,4]) while(%t), condition=%less, body=%inner
}

ENTRY %main (a: bf16[4,4]) -> bf16[4,4] {
  %a = bf16[4,4]{1,0} parameter(0)
  %while.2 = (s32[], bf16[4,4]) while(%a), condition=%never, body=%outer, backend_config={\
"known_trip_count":{"n":"3"}}
  ROOT %ar = bf16[4,4] all-reduce-start(%a), backend_config={"estimated_cycles":"1"}
}
"""


def test_cycles_are_summed_over_loops_and_collectives_are_named() -> None:
    program = hlo.Program.parse(TEXT)
    ran = {i.name: (times, i.cycles) for i, times in program.executed()}
    assert ran["fusion.1"] == (15, 100) and ran["copy.1"] == (3, 7) and ran["ar"] == (1, 1)
    assert "convolution.1" not in ran
    assert program.collectives() == ("all-reduce-start",)
    assert program.product_operands() == {"bf16": 1}
    (op_name,) = (i.op_name for i, _ in program.executed() if i.name == "fusion.1")
    assert targets._operation(op_name) == "mlp/dot_general"


def test_a_loop_without_a_bound_is_refused() -> None:
    program = hlo.Program.parse(TEXT.replace("direction=LT", "direction=NE"))
    with pytest.raises(ValueError, match=r"trip count of while\.1 is not in the text"):
        program.executed()


# --- Targets -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["", "v5e", "v5e:", "h100:1x1", "v5e:2x2x1", "v5p:2x2", "v5e:0x1", "v5e:2x99", "v5e:axb"],
)
def test_unknown_targets_are_refused_with_those_that_exist(text: str) -> None:
    with pytest.raises(InputError, match=r"target must be a chip .v5e, v5p, v6e. and a grid"):
        targets.Target.parse(text)


def test_targets_count_chips_and_hosts() -> None:
    counts = {"v5e:1x1": (1, 1), "v5e:16x16": (256, 64), "v5p:2x2x1": (4, 1), "v6e:2x4": (8, 2)}
    for text, expected in counts.items():
        target = targets.Target.parse(text)
        assert (target.num_chips, target.num_hosts) == expected and str(target) == text


def test_libtpu_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    with pytest.raises(InputError, match=r'not installed; pip install -e "\.\[tpu\]"'):
        targets.Target.parse("v5e:2x2").devices()
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="Linux on x86-64 only; this is darwin"):
        targets.Target.parse("v5e:2x2").devices()


def forecast_of(**changes: Any) -> targets.Forecast:
    fields: dict[str, Any] = {
        "target": "v5e:1x1",
        "backend": "pmap",
        "arrangement": "accelerator",
        "compute_dtype": "bfloat16",
        "matmul": "highest",
        "lane_tile": 64,
        "depth": 16,
        "num_devices": 1,
        "cycles": 1000.0,
        "unestimated": (),
        "flops": 65_666_667,
        "bytes": 100.0,
        "argument_bytes": 1,
        "temporary_bytes": 2,
        "output_bytes": 3,
        "code_bytes": 4,
        "collectives": (),
        "product_operands": (("bf16", 3),),
        "operations": (("mlp", 0.75),),
        "compile_seconds": 1.0,
    }
    return targets.Forecast(**fields | changes)


def test_rates_follow_from_clock_and_peak() -> None:
    """A v5e does 197e12 / 1.5e9 = 131,333 operations a cycle."""
    found = forecast_of()
    assert found.share_of_peak == pytest.approx(0.5) and found.rate == pytest.approx(1.5e6)
    assert found.roofline == pytest.approx(500.0)
    assert forecast_of(bytes=819e9).roofline == pytest.approx(1.5e9)
    assert found.memory == 10 and found.fits
    assert not forecast_of(temporary_bytes=16 * 10**9).fits


def test_a_cache_keeps_forecasts_and_refuses_other_files(tmp_path: Any) -> None:
    path = tmp_path / "found.json"
    targets.Cache(path).put("abc", forecast_of())
    assert targets.Cache(path).get("abc") == forecast_of()
    assert targets.Cache(path).get("other") is None
    assert "no measurement" in json.loads(path.read_text())["note"]
    for text in ("{", "[]", '{"programs": {"a": {}}}', '{"programs": []}'):
        path.write_text(text)
        with pytest.raises(InputError, match="must be a file that this command wrote"):
            targets.Cache(path)


def test_a_survey_is_a_table_and_a_table_of_tiles() -> None:
    rows = [
        survey.Row("maze-hard", forecast_of(lane_tile=1, cycles=1000.0), False, True),
        survey.Row("maze-hard", forecast_of(lane_tile=2, cycles=2000.0), True, False),
    ]
    lines = survey.survey_table(rows).splitlines()
    assert lines[2].split(" | ")[2:5] == ["1, best", "1,000", "0.500"]
    assert lines[3].split(" | ")[2:5] == ["2, default", "2,000", "0.250"]
    assert lines[-1] == "maze-hard, bfloat16: 75 % mlp"
    (row,) = json.loads(survey.table_of_tiles(rows))
    assert row["lane_tile"] == 1 and row["length"] == 916 and row["variant"] == "attention"
    assert row["chip"] == "v5e"
    rows = [row._replace(forecast=forecast_of(target="v6e:1x1")) for row in rows]
    *others, row = json.loads(survey.table_of_tiles(rows))
    assert row["chip"] == "v6e" and others == chips.lane_tiles()


@pytest.mark.parametrize(("fits", "remedy"), [(9, "pass at most 8"), (0, "no tile fits")])
def test_a_tile_that_is_too_large_is_refused_with_one_that_fits(
    fits: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(model: TRM, place: Any, devices: Any, settings: LoopSettings, *more: Any) -> Any:
        if settings.lane_tile > fits:
            raise targets.TooLargeError("it needs 17.0 GB")
        return forecast_of()

    monkeypatch.setattr(targets, "compile_program", compiled)
    monkeypatch.setattr(targets.Target, "devices", lambda self: mesh.local_devices(1))
    model, _ = small_model()
    message = rf"lane_tile 64 exceeds the 16 GB of a v5e: it needs 17.0 GB; {remedy}"
    with pytest.raises(InputError, match=message):
        targets.forecast(model, "v5e:1x1", settings=LoopSettings(lane_tile=64))
    assert fits == 0 or targets.forecast(model, "v5e:1x1") == forecast_of()  # tile 8


HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


@pytest.mark.skipif(not HAS_LIBTPU, reason='needs libtpu: pip install -e ".[tpu]"')
@pytest.mark.parametrize("target", ["v5e:2x2", "v5e:16x16"])
@pytest.mark.parametrize("backend", ["pmap", "mesh"])
def test_programs_compile_for_a_host_and_a_pod(target: str, backend: Backend) -> None:
    """The default sweep's program of a bundled model's size, of one layer, two steps."""
    config = load("sudoku6")[0].config
    model = TRM(type(config)(**config.to_dict() | {"num_layers": 1}), Precision("bfloat16"))
    settings = LoopSettings(depth=2, save=Save(answers=True, q_logits=True))
    found = targets.forecast(model, target, settings=settings, backend=backend)
    assert found.num_devices == targets.Target.parse(target).num_chips
    assert found.collectives == () and found.unestimated == ()
    assert found.memory < 64 * 2**20 and found.temporary_bytes > 0
    assert {dtype for dtype, _ in found.product_operands} == {"bf16"}
    assert 0 < found.share_of_peak < 1 and found.cycles > found.roofline
    assert found.arrangement == "accelerator"


# --- The price of a sweep ------------------------------------------------------------------------


@pytest.fixture
def small_sweep() -> sweep.Sweep:
    return sweep.prepare(sweep.SweepConfig(checkpoint="sudoku6", num_puzzles=64, rollouts=4))


def test_a_price_is_that_of_every_host(
    small_sweep: sweep.Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """64 puzzles, D 16: 64 lanes of TRM to K * D = 64, 256 of PTRM to 16, in tiles of 4."""

    def forecast(model: TRM, target: str, *, settings: LoopSettings, num_devices: int) -> Any:
        assert num_devices == 1 and target == "v5e:2x4"
        cycles = {64: 1000.0, 16: 2000.0}[settings.depth]
        return forecast_of(cycles=cycles, depth=settings.depth, lane_tile=settings.lane_tile)

    monkeypatch.setattr(targets, "forecast", forecast)
    monkeypatch.setattr(targets.Target, "devices", lambda self: pytest.fail("tile is given"))
    found = price.price(small_sweep, "v5e:2x4", lane_tile=4)
    assert len(found.forecasts) == 2 and found.rollout_steps == 64 * 64 + 256 * 16
    planned = sum(found.units)
    assert len(found.units) == len(found.seconds) == 2 and planned > 2
    total = (64 / 4 * 64 * 1000 + 256 / 4 * 16 * 2000) / 1.5e9  # four chips to a host
    assert sum(found.seconds) == pytest.approx(total)
    assert found.chip_hours == pytest.approx(8 * max(found.seconds) / 3600)
    text = price.describe(found, 1.2, "{:.3g} s".format)
    assert "no measurement" in text and f"${1.2 * found.chip_hours:,.2f} at $1.2 each" in text
    assert "$" not in price.describe(found, None, str)
    with pytest.raises(InputError, match="dollars_per_chip_hour must be finite and > 0; got -1"):
        price.describe(found, -1.0, str)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "v5e:2x2"], "target is for --dry-run"),
        (["--dry-run", "--dollars-per-chip-hour", "1"], "dollars_per_chip_hour needs a target"),
        (["--dry-run", "--target", "h100:8"], "target must be a chip"),
    ],
)
def test_flags_of_a_price_go_together(
    flags: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("JAX_NUM_CPU_DEVICES", "8")  # those that there are
    assert load_experiment("ptrm_sweep").main(flags) == 2
    error = capsys.readouterr().err
    assert message in " ".join(error.split()) and error.startswith("error: ")


def test_the_arrangement_is_part_of_a_sweeps_identity(
    small_sweep: sweep.Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a CPU it is not stated, so that older folders are resumed."""
    assert "arrangement" not in small_sweep.identity | small_sweep.provenance
    arranged = small_sweep.model.clone(arrangement="accelerator")
    monkeypatch.setattr(mesh, "arrange", lambda model, devices: arranged)
    assert sweep.prepare(small_sweep.config).identity == small_sweep.identity | {
        "arrangement": "accelerator"
    }
