"""What is known of the accelerators that a program can be compiled for, and their lane tiles."""

import dataclasses
import functools
import json
import math
from importlib import resources
from typing import Any

from ptrm_jax.config import DType, ModelConfig

LANE_TILES = "lane_tiles.json"
"""The table of lane tiles, in `ptrm_jax/assets`; `experiments/benchmark.py targets` makes it."""


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip, which is one JAX device.

    Attributes:
      name: as in the names of targets.
      device_kinds: `device_kind` of its devices.
      clock: cycles per second of its matrix units.
      peak: bfloat16 operations per second, additions and multiplications.
      memory: bytes of main memory (HBM).
      bandwidth: bytes per second of it.
      per_host: chips of a host in a pod.
    """

    name: str
    device_kinds: tuple[str, ...]
    clock: float
    peak: float
    memory: int
    bandwidth: float
    per_host: int = 4

    @property
    def flops_per_cycle(self) -> float:
        return self.peak / self.clock


# Source: Google Cloud's pages "TPU v5e", "TPU v5p", "TPU v6e" (peak, memory, bandwidth). They do
# not give the clock, which follows from the peak and the number of 128 x 128 units (v5e: 4, v5p: 8
# in two cores) or 256 x 256 units (v6e: 4), each of which multiplies and adds once a cycle.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", ("TPU v5 lite", "TPU v5e"), 1.5e9, 197e12, 16 * 10**9, 819e9),
        Chip("v5p", ("TPU v5", "TPU v5p"), 1.75e9, 459e12, 95 * 10**9, 2765e9),
        Chip("v6e", ("TPU v6 lite", "TPU v6e"), 1.75e9, 918e12, 32 * 10**9, 1640e9),
    )
}


def chip_of(device_kind: str) -> Chip | None:
    """The chip whose devices are of this kind; None where it is not known."""
    return next((chip for chip in CHIPS.values() if device_kind in chip.device_kinds), None)


@functools.cache
def lane_tiles() -> list[dict[str, Any]]:
    """The rows of the table: chip, model, variant, length, hidden_size, compute_dtype, lane_tile.

    Each is the tile of fewest estimated cycles (`ptrm_jax.targets`) for a model on a chip.
    """
    return json.loads(resources.files("ptrm_jax").joinpath("assets", LANE_TILES).read_text())


def best_lane_tile(device_kind: str, config: ModelConfig, compute_dtype: DType) -> int:
    """The lane tile of the table's model that is most like this one.

    Of the rows of the chip (v5e's, the smallest, where the chip is not in the table) and of this
    kind of position mixing, if there are any, the one of nearest size of a state.

    Args:
      device_kind: of the accelerator.
      config: the architecture.
      compute_dtype: of the activations.
    """
    chip = chip_of(device_kind)
    wanted = (
        ("chip", chip.name if chip else "v5e"),
        ("chip", "v5e"),
        ("variant", config.variant),
        ("compute_dtype", compute_dtype),
    )
    rows = lane_tiles()
    for name, value in wanted:
        rows = [row for row in rows if row[name] == value] or rows
    size = config.length * config.hidden_size
    nearest = min(rows, key=lambda row: abs(math.log(row["length"] * row["hidden_size"] / size)))
    return nearest["lane_tile"]
