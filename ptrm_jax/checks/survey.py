"""Every full-size model on a chip that need not be there: the tiles of fewest estimated cycles.

Cycles are the static estimates of the TPU's compiler and no measurement (`ptrm_jax.targets`).
"""

import functools
import json
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from ptrm_jax import markdown, mesh
from ptrm_jax.checks.speed import full_size
from ptrm_jax.chips import CHIPS, lane_tiles
from ptrm_jax.config import DType, LoopSettings, Precision, Save
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM
from ptrm_jax.reading import shown
from ptrm_jax.targets import Cache, Forecast, Target, TooLargeError, compile_program


class Row(NamedTuple):
    """A full-size model on one chip, at one tile.

    Attributes:
      model: name in `speed.full_size`.
      forecast: at this tile.
      is_default: whether it is the tile of the table that the package comes with.
      is_best: whether it takes the fewest cycles of those tried.
    """

    model: str
    forecast: Forecast
    is_default: bool
    is_best: bool


def survey(
    chip: str,
    *,
    models: Sequence[str] | None = None,
    dtypes: Sequence[DType] = ("bfloat16", "float32"),
    cache: Cache | None = None,
    said: Callable[[str], None] = lambda text: None,
) -> list[Row]:
    """Every full-size model on one chip: the default tile, and others until none is better.

    From the default tile the search doubles or halves it for as long as the cycles fall.

    Args:
      chip: its name.
      models: names in `speed.full_size`; by default all.
      dtypes: compute dtypes.
      cache: of earlier forecasts.
      said: called with a line of text before each program is compiled.

    Raises:
      InputError: as `forecast`.
    """
    if chip not in CHIPS:
        raise InputError(f"chip must be one of {', '.join(CHIPS)}; got {shown(chip)}")
    target = f"{chip}:{'1x1x1' if chip == 'v5p' else '1x1'}"
    device = Target.parse(target).devices()[0]
    configs = full_size()
    rows = []
    for dtype in dtypes:
        for name in configs if models is None else models:
            model = TRM(configs[name], Precision(dtype))
            default = mesh.default_lane_tile(model, device)
            found: dict[int, Forecast] = {}
            cycles = functools.partial(_cycles, found, model, target, device, cache, said)
            best = _descend(cycles, default)
            rows += [
                Row(name, row, tile == default, tile == best) for tile, row in sorted(found.items())
            ]
    return rows


def _cycles(
    found: dict[int, Forecast],
    model: TRM,
    target: str,
    device: jax.Device,
    cache: Cache | None,
    said: Callable[[str], None],
    tile: int,
) -> float:
    """Cycles at a tile, infinite where it does not fit; what fits is added to `found`."""
    if tile not in found:
        said(f"L {model.config.length}, {model.precision.compute_dtype}, tile {tile}")
        settings = LoopSettings(lane_tile=tile, save=Save(answers=True, q_logits=True))
        try:
            place = Target.parse(target)
            found[tile] = compile_program(model, place, (device,), settings, "pmap", 64, cache)
        except TooLargeError:
            return math.inf
    return found[tile].cycles


def _descend(cost: Callable[[int], float], start: int) -> int:
    """From `start` doubled, or else halved, for as long as the cost falls."""
    best = start
    while cost(2 * best) < cost(best):
        best *= 2
    if best == start:
        while best > 1 and cost(best // 2) < cost(best):
            best //= 2
    return best


def survey_table(rows: Sequence[Row]) -> str:
    """A survey in Markdown, and where the cycles of the best tiles go, by operation."""
    titles = (
        *("model", "dtype", "tile", "cycles per rollout-step", "share of bfloat16 peak"),
        *("share by operations and bytes", "rollout-steps/s", "memory", "compiled in"),
    )

    def cells(row: Row) -> tuple[str, ...]:
        found = row.forecast
        return (
            row.model,
            found.compute_dtype,
            f"{found.lane_tile}{', default' * row.is_default}{', best' * row.is_best}",
            f"{found.cycles:,.0f}",
            f"{found.share_of_peak:.3f}",
            f"{found.flops / found.roofline / found.chip.flops_per_cycle:.2f}",
            f"{found.rate:,.0f}",
            f"{found.memory / 1e9:.2f} GB",
            f"{found.compile_seconds:.0f} s",
        )

    lines = [markdown.table(titles, map(cells, rows), align_right=True)]
    for row in rows:
        if row.is_best:
            parts = (f"{100 * share:.0f} % {name}" for name, share in row.forecast.operations[:6])
            lines.append(f"{row.model}, {row.forecast.compute_dtype}: {', '.join(parts)}")
    return "\n".join(lines)


def table_of_tiles(rows: Sequence[Row]) -> str:
    """The best tiles of surveys, as `ptrm_jax.chips` reads them: JSON.

    Chips that were not surveyed keep the rows that they have there.
    """
    configs = full_size()
    surveyed = {row.forecast.chip.name for row in rows}
    tiles = [row for row in lane_tiles() if row["chip"] not in surveyed]
    tiles += [
        {
            "chip": row.forecast.chip.name,
            "model": row.model,
            "variant": configs[row.model].variant,
            "length": configs[row.model].length,
            "hidden_size": configs[row.model].hidden_size,
            "compute_dtype": row.forecast.compute_dtype,
            "lane_tile": row.forecast.lane_tile,
        }
        for row in rows
        if row.is_best
    ]
    return "[\n" + ",\n".join(f" {json.dumps(row)}" for row in tiles) + "\n]\n"
