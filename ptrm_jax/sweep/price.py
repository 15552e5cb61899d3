"""What a sweep would take on a target that is not there, by the TPU compiler's static estimates."""

import dataclasses
import math
from collections.abc import Callable

from ptrm_jax import mesh, targets
from ptrm_jax.config import LoopSettings, Save
from ptrm_jax.errors import InputError
from ptrm_jax.sweep.plan import Unit, deal, tile_of
from ptrm_jax.sweep.prepare import Workload


@dataclasses.dataclass(frozen=True)
class Price:
    """A sweep on a target; nothing of it is measured.

    Attributes:
      target: where.
      forecasts: of every program of the sweep.
      rollout_steps: of all units; with a rule the most that there can be.
      units: of each host.
      seconds: that each host computes.
    """

    target: targets.Target
    forecasts: tuple[targets.Forecast, ...]
    rollout_steps: int
    units: tuple[int, ...]
    seconds: tuple[float, ...]

    @property
    def chip_hours(self) -> float:
        """Of all chips, until the last host has finished."""
        return self.target.num_chips * max(self.seconds) / 3600

    @property
    def busy(self) -> float:
        """Fraction of them in which a chip computes."""
        return sum(self.seconds) / (len(self.seconds) * max(self.seconds))


def price(workload: Workload, target: str, lane_tile: int | None = None) -> Price:
    """Compiles the programs of a sweep for one chip of a target, and deals its units to the hosts.

    A host computes a unit on its chips, each of which gets whole tiles of it. Puzzles that stop
    early are counted as if they did not. Time between programs is not counted.

    Args:
      workload: the sweep; its devices do not matter.
      target: as `Target.parse` reads it.
      lane_tile: by default the best known there.

    Raises:
      InputError: an unknown target, no libtpu, or a program that exceeds the target's memory.
    """
    place = targets.Target.parse(target)
    if lane_tile is None:
        lane_tile = mesh.default_lane_tile(workload.model, place.devices()[0])
    workload = dataclasses.replace(workload, lane_tile=lane_tile)
    units = workload.units
    programs = {
        key: targets.forecast(
            workload.model, target, settings=_settings(workload, *key), num_devices=1
        )
        for key in dict.fromkeys(_program(unit) for unit in units)
    }
    chips = min(place.chip.per_host, place.num_chips)

    def seconds(unit: Unit) -> float:
        found = programs[_program(unit)]
        lanes = math.ceil(math.prod(unit.shape) / (chips * found.lane_tile)) * found.lane_tile
        return lanes * unit.depth * found.cycles / place.chip.clock

    shares = deal(units, place.num_hosts)
    return Price(
        target=place,
        forecasts=tuple(programs.values()),
        rollout_steps=workload.rollout_steps,
        units=tuple(map(len, shares)),
        seconds=tuple(sum(map(seconds, share)) for share in shares),
    )


def _program(unit: Unit) -> tuple[int, bool]:
    return unit.depth, unit.langevin


def _settings(workload: Workload, depth: int, langevin: bool) -> LoopSettings:
    search = workload.search
    return LoopSettings(
        depth=depth,
        noise_on=search.noise_on,
        noise_when=search.noise_when,
        langevin=search.langevin if langevin else None,
        save=Save(answers=True, q_logits=True),
        lane_tile=tile_of(workload.lane_tile, depth),
    )


def describe(found: Price, dollars: float | None, duration: Callable[[float], str]) -> str:
    """A price as lines of text.

    Args:
      found: the price.
      dollars: per chip-hour; None to leave them out.
      duration: seconds as text.

    Raises:
      InputError: dollars are not positive.
    """
    if dollars is not None and not (math.isfinite(dollars) and dollars > 0):
        raise InputError(f"dollars_per_chip_hour must be finite and > 0; got {dollars}")
    hosts = len(found.units)
    lines = [f"{found.target}, {found.target.num_chips} chips, {hosts} hosts: {targets.NOTE}"]
    lines += [
        f"D={f.depth}, tile {f.lane_tile}, {f.compute_dtype}: {f.cycles:,.0f} cycles of a chip per "
        f"rollout-step, {f.rate:,.0f} rollout-steps per second, {f.share_of_peak:.2f} of its peak; "
        f"compiled in {f.compile_seconds:.0f} s"
        for f in found.forecasts
    ]
    cost = "" if dollars is None else f", ${dollars * found.chip_hours:,.2f} at ${dollars:g} each"
    return "\n".join(
        [
            *lines,
            f"{found.rollout_steps:,} rollout-steps: {duration(max(found.seconds))}, "
            f"{found.chip_hours:,.3g} chip-hours{cost}; chips are busy "
            f"{100 * found.busy:.1f} % of it",
            f"units per host {min(found.units)} to {max(found.units)}; the last host finishes "
            f"after {max(found.seconds) / (sum(found.seconds) / hosts):.3f} times the mean",
        ]
    )
