"""Rates of full-size models on devices, as shares of their peak."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from ptrm_jax import chips, mesh, timing
from ptrm_jax.config import ModelConfig, Precision
from ptrm_jax.model import TRM, Params, flops_per_rollout_step, init_params
from ptrm_jax.puzzles import make_puzzles
from ptrm_jax.training import presets

GPU_PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "NVIDIA B200": 2250e12,
}
"""Dense bfloat16 operations per second by how JAX names a GPU; the longest name that the device's
begins with counts. From NVIDIA's data sheets; those of TPUs are in `ptrm_jax.chips`."""

DEPTH = 4
"""Supervision steps of a timed call."""

Rival = Callable[[ModelConfig, str, Params, int], Callable[[], object] | str]
"""Another implementation of a supervision step: given the architecture, the dtype, the parameters
and a number of rollouts, a call that waits for its result; or why there is none."""


class Rate(NamedTuple):
    """A model on all devices of this process.

    Attributes:
      model: name of the model.
      dtype: of activations; matrix products at precision "highest".
      tile: rollouts that pass through the network together on a device.
      steps_per_second: rollout-steps; None where it could not be measured.
      share: of the devices' bfloat16 peak, by the operations of matrix products; None if unknown.
      first_seconds: of the first call: compilation, and one run.
      peak_bytes: largest use of a device's memory by this process so far; None if not reported.
      rival_steps_per_second: of the rival with as many rollouts; None if it was not run.
      note: why something is missing.
    """

    model: str
    dtype: str
    tile: int
    steps_per_second: float | None = None
    share: float | None = None
    first_seconds: float | None = None
    peak_bytes: int | None = None
    rival_steps_per_second: float | None = None
    note: str = ""


def full_size() -> dict[str, ModelConfig]:
    """Published architectures, by benchmark; of PPBench's, the cycles are an assumption."""
    ppbench = dataclasses.replace(
        presets.load("sudoku_extreme_attention").model, seq_len=100, vocab_size=294
    )
    return {
        "sudoku-extreme": presets.load("sudoku_extreme").model,
        "ppbench": ppbench,
        "maze-hard": presets.load("maze_hard").model,
    }


def peak(device: jax.Device) -> float | None:
    """Bfloat16 operations per second of a device; None if its kind is not known."""
    if chip := chips.chip_of(device.device_kind):
        return chip.peak
    kinds = [kind for kind in GPU_PEAKS if device.device_kind.startswith(kind)]
    return GPU_PEAKS[max(kinds, key=len)] if kinds else None


def random_params(config: ModelConfig) -> Params:
    """Finite parameters, drawn without compiling `init_params`."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: init_params(TRM(config), jax.random.key(0)))
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32) * leaf.shape[0] ** -0.5, shapes
    )


def rate(
    name: str,
    config: ModelConfig,
    dtype: str,
    tile: int,
    params: Params,
    devices: Sequence[jax.Device],
    *,
    seconds: float,
    rival: Rival | None = None,
) -> Rate:
    """Times calls of `mesh.solve` with a tile on each device, for about `seconds` in all.

    Args:
      name: of the model.
      config: its architecture.
      dtype: "float32" or "bfloat16".
      tile: rollouts that pass through the network together.
      params: on the devices.
      devices: to use.
      seconds: of calls, without the first two; at least one is timed.
      rival: timed as well, with as many rollouts.
    """
    lanes = tile * len(devices)
    rng = np.random.default_rng(1)
    tokens = rng.integers(1, config.vocab_size, (lanes, config.seq_len), dtype=np.int32)
    puzzles = make_puzzles(tokens)
    model = TRM(config, Precision("bfloat16" if dtype == "bfloat16" else "float32"))
    key = jax.random.key(0, impl="threefry2x32")

    def solve() -> object:
        return mesh.solve(
            model,
            params,
            key,
            puzzles,
            num_rollouts=1,
            depth=DEPTH,
            lane_tile=tile,
            devices=devices,
        )

    found = Rate(name, dtype, tile)
    try:
        first, per_second = _timed(solve, lanes * DEPTH, seconds)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return found._replace(note="does not fit the device's memory")
    most = peak(devices[0])
    stats = devices[0].memory_stats() or {}
    found = found._replace(
        steps_per_second=per_second,
        share=per_second * flops_per_rollout_step(config) / (most * len(devices)) if most else None,
        first_seconds=first,
        peak_bytes=stats.get("peak_bytes_in_use"),
    )
    if rival is None:
        return found
    call = rival(config, dtype, params, lanes)
    if isinstance(call, str):
        return found._replace(note=call)
    return found._replace(rival_steps_per_second=_timed(call, lanes, seconds)[1])


def _timed(call: Callable[[], object], work: int, seconds: float) -> tuple[float, float]:
    """Seconds of the first call; and units of work per second, the median of those that follow."""
    first = timing.seconds(call)
    warm = timing.seconds(call)
    runs = [timing.seconds(call) for _ in range(min(20, max(1, round(seconds / warm))))]
    return first, work / statistics.median(runs)
