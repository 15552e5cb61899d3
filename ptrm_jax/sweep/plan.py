"""Work units: a sweep is split into blocks of puzzles and rollouts that run one at a time.

A unit is a block of puzzles times a block of rollouts at one (sigma, seed), to the full depth. The
split depends only on the settings, so every process of every attempt finds the same units, whatever
its devices.

A unit takes at most `unit_steps` rollout-steps, unless a few tiles take more by their depth alone,
as those of a deterministic TRM of K * D steps do. Such a run is shortened by its tile: beyond 64
steps the tile is halved as the depth doubles, down to 16 lanes, and a unit has at least four of
them, 64 lanes. To cut it in depth the carry would have to be kept: 25 MB for each such unit of the
paper's Sudoku model in float32, at each cut, where the whole record of 1,600 steps is 2 MB; and the
parts of a unit could not run side by side.
Tiles of up to 8 lanes, those of a CPU, are never halved, and eight of them make the smallest unit,
as in 0.4.0. With larger ones the number of units of a run is a multiple of 8 where that leaves four
tiles to each, so that 2, 4 or 8 processes have equal shares.
"""

import dataclasses
import hashlib
import heapq
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from ptrm_jax.config import Stop
from ptrm_jax.errors import InputError
from ptrm_jax.sweep.config import Search

_MOST_UNITS = 2 * 10**5
_SMALL_TILE = 8
"""Up to this tile a sweep is planned as by 0.4.0."""
_SHALLOW = 64
"""Depth up to which a run has the sweep's tile."""
_LEAST_TILE = 16


class Unit(NamedTuple):
    """What to compute, and what is lost if it fails.

    Attributes:
      sigma: noise scale; 0 with `rollouts` 0..1 is the deterministic TRM.
      seed: the user's integer.
      depth: D.
      puzzles: first and stop row of the data.
      rollouts: first and stop rollout id.
      shape: puzzles and rollouts of the largest unit beside it; the last ones are filled up to it,
        so that one program does for all.
      langevin: with the sweep's Langevin updates; the deterministic TRM has none.
      stop: the rule by which puzzles stop; None where all rollouts run to the full depth.
    """

    sigma: float
    seed: int
    depth: int
    puzzles: tuple[int, int]
    rollouts: tuple[int, int]
    shape: tuple[int, int]
    langevin: bool = False
    stop: Stop | None = None

    @property
    def lanes(self) -> int:
        """Rollouts of single puzzles."""
        return math.prod(stop - first for first, stop in (self.puzzles, self.rollouts))

    @property
    def rollout_steps(self) -> int:
        """Supervision steps of single rollouts; with a rule, the most that there can be."""
        return self.lanes * self.depth

    @property
    def cost(self) -> int:
        """Rollout-steps by which units are dealt to processes: with what fills the unit up, and
        with a rule a tenth of the most that there can be, which is what they usually take.
        """
        steps = math.prod(self.shape) * self.depth
        return steps if self.stop is None else -(-steps // 10)

    def digest(self, identity: dict[str, Any]) -> str:
        """Names the unit of a sweep: a digest of everything that decides its result."""
        return digests([self], identity)[0]

    def plain(self) -> list[Any]:
        """As JSON. What a unit does without is left out, so that units keep the names they had."""
        values: list[Any] = list(self[:-2])
        if self.langevin or self.stop:
            values.append(self.langevin)
        if self.stop is not None:
            values.append(dataclasses.astuple(self.stop))
        return values

    @classmethod
    def of_plain(cls, values: Sequence[Any]) -> "Unit":
        """Inverse of `plain`."""
        sigma, seed, depth, puzzles, rollouts, shape, *more = values
        return cls(
            *(sigma, seed, depth, tuple(puzzles), tuple(rollouts), tuple(shape)),
            langevin=more[0] if more else False,
            stop=Stop(*more[1]) if len(more) > 1 else None,
        )


def digests(units: Sequence[Unit], identity: dict[str, Any]) -> list[str]:
    """As `Unit.digest`, of many units: the identity, which they share, is hashed once."""
    begun = hashlib.sha256(f"[{json.dumps(identity, sort_keys=True)}, ".encode())
    found = []
    for unit in units:
        digest = begun.copy()
        digest.update(f"{json.dumps(unit.plain(), sort_keys=True)}]".encode())
        found.append(digest.hexdigest()[:16])
    return found


def plan(
    *,
    sigma: float,
    seed: int,
    depth: int,
    rollouts: int,
    num_puzzles: int,
    lanes: int,
    langevin: bool = False,
    stop: Stop | None = None,
    least: int | None = None,
) -> list[Unit]:
    """The units of one (sigma, seed): at most `lanes` each, and of equal size as near as can be.

    With a rule a unit has all rollouts of `lanes` puzzles, of which few run. Given `least`, the
    number of units is a multiple of 8, 4 or 2, as far as that leaves so many lanes to each.
    """
    width = _even(rollouts, lanes) if stop is None else rollouts
    height = _even(num_puzzles, max(1, lanes // width) if stop is None else lanes)
    if least is not None:
        blocks, across = math.ceil(num_puzzles / height), math.ceil(rollouts / width)
        for share in (8, 4, 2):
            multiple = share // math.gcd(share, across)
            lower = math.ceil(num_puzzles / (math.ceil(blocks / multiple) * multiple))
            if lower * width >= least:
                height = lower
                break
    return [
        Unit(
            *(sigma, seed, depth),
            (puzzle, min(puzzle + height, num_puzzles)),
            (rollout, min(rollout + width, rollouts)),
            (height, width),
            langevin,
            stop,
        )
        for puzzle in range(0, num_puzzles, height)
        for rollout in range(0, rollouts, width)
    ]


def _even(total: int, most: int) -> int:
    """Size of the parts, at most `most`, that `total` falls into most evenly."""
    return math.ceil(total / math.ceil(total / most))


def plan_runs(
    search: Search,
    num_puzzles: int,
    lane_tile: int,
    unit_steps: int | None,
    version: int | None = None,
) -> list[list[Unit]]:
    """The units of every run: the deterministic TRM, then PTRM by sigma as given, then seed.

    Args:
      search: what to run.
      num_puzzles: B.
      lane_tile: rollouts that pass through the network together.
      unit_steps: approximate rollout-steps of a unit; None for the default.
      version: of the plan, for a sweep that was begun; None for that of this package.

    Raises:
      InputError: there are more than 200,000, or the version is not known.
    """
    steps = default_unit_steps(lane_tile) if unit_steps is None else unit_steps
    version = plan_version(lane_tile) if version is None else version
    if version not in (1, 2):
        raise InputError(f"plan must be 1 or 2; got {version}; it is of a later version")
    _check_number(len(search.sigmas) * len(search.seeds))
    langevin = search.langevin is not None
    runs: list[tuple[float, int, int, int, bool, Stop | None]]
    runs = [(0.0, 0, search.baseline_depth, 1, False, None)]
    runs += [
        (sigma, seed, search.depth, search.rollouts, langevin, search.stop)
        for sigma in search.sigmas
        for seed in search.seeds
    ]
    least = [
        8 * lane_tile if version == 1 else 4 * tile_of(lane_tile, depth) for _, _, depth, *_ in runs
    ]
    lanes = [max(few, steps // run[2]) for run, few in zip(runs, least, strict=True)]
    _check_number(sum(num_puzzles * run[3] // most for run, most in zip(runs, lanes, strict=True)))
    return [
        plan(
            sigma=sigma,
            seed=seed,
            depth=depth,
            rollouts=rollouts,
            num_puzzles=num_puzzles,
            lanes=most,
            langevin=langevin,
            stop=stop,
            least=None if version == 1 else few,
        )
        for (sigma, seed, depth, rollouts, langevin, stop), most, few in zip(
            runs, lanes, least, strict=True
        )
    ]


def _check_number(units: int) -> None:
    if units > _MOST_UNITS:
        raise InputError(
            f"a sweep must have at most {_MOST_UNITS:,} work units; got about {units:,}; pass more "
            "unit_steps, or fewer rollouts, seeds or puzzles"
        )


def default_unit_steps(lane_tile: int) -> int:
    """Approximate rollout-steps of a work unit, unless set: some seconds of work."""
    return 512 * lane_tile


def plan_version(lane_tile: int) -> int:
    """1 for the plan of 0.4.0, 2 for that of this module's docstring."""
    return 1 if lane_tile <= _SMALL_TILE else 2


def tile_of(lane_tile: int, depth: int) -> int:
    """Rollouts of a run to `depth` that pass through the network together."""
    tile = lane_tile
    while tile > _LEAST_TILE and tile * depth > _SHALLOW * lane_tile:
        tile = max(_LEAST_TILE, tile // 2)
    return tile


def deal(units: Sequence[Unit], count: int) -> list[list[Unit]]:
    """The units of each of `count` processes: the costliest first, to whom has least to do.

    It depends on nothing else, so that processes which know nothing of each other agree.
    """
    loads = [(0, index) for index in range(count)]
    owner = {}
    for unit in sorted(units, key=lambda unit: -unit.cost):  # stable
        load, index = loads[0]
        owner[unit] = index
        heapq.heapreplace(loads, (load + unit.cost, index))
    shares: list[list[Unit]] = [[] for _ in range(count)]
    for unit in units:
        shares[owner[unit]].append(unit)
    return shares


def speed_up(units: Sequence[Unit], count: int) -> float:
    """How many times as fast as one process `count` of them are expected to be, by cost."""
    loads = [sum(unit.cost for unit in share) for share in deal(units, count)]
    return sum(loads) / max(1, *loads)


@dataclasses.dataclass(frozen=True)
class Shard:
    """The part of the units that a process runs, the `index`-th of `count` that `deal` makes."""

    index: int = 0
    count: int = 1

    def of(self, units: Sequence[Unit]) -> list[Unit]:
        """This part, in order."""
        return deal(units, self.count)[self.index]

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard written as "i/n".

        Raises:
          InputError: the text is malformed, or i is not in 0..n-1.
        """
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
            raise InputError(f"shard must be i/n with i in 0..n-1; got {text!r}")
        return cls(int(index), int(count))
