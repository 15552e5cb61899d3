"""Compiling for accelerators that are not there: what the TPU's own compiler says of a program.

libtpu compiles for any TPU on any Linux machine with an x86-64 processor; JAX's default backend
stays the CPU. Memory and collectives are facts of the compiled program. Cycles, and all that
follows from them (rates, shares of the peak, times, costs), are the compiler's static estimates and
no measurement: they rank programs and show what dominates.
"""

import collections
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from ptrm_jax import mesh
from ptrm_jax.chips import CHIPS, Chip
from ptrm_jax.config import (
    Backend,
    LoopSettings,
    Save,
)
from ptrm_jax.errors import InputError
from ptrm_jax.files import write_text
from ptrm_jax.hlo import Program
from ptrm_jax.model import TRM, flops_per_rollout_step, init_params
from ptrm_jax.reading import read_json, shown

TILES_PER_DEVICE = 8
"""Tiles of each device in the program that is compiled: the number in a sweep's default unit."""

NOTE = "the TPU compiler's static estimates, no measurement"

_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # else libtpu asks a metadata server for the machine's TPU
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no device is held: several processes may compile at once
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
}


@dataclasses.dataclass(frozen=True)
class Target:
    """Chips of one kind in a grid.

    Attributes:
      chip: of which kind.
      shape: chips along each axis, such as (16, 16).
    """

    chip: Chip
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target written as "v5e:16x16".

        Raises:
          InputError: the kind of chip is not known, or the text is malformed.
        """
        kind, _, grid = text.partition(":")
        sizes = grid.split("x")
        # v5p chips are wired in three axes, the others in two.
        axes = 3 if kind == "v5p" else 2
        if (
            kind not in CHIPS
            or len(sizes) != axes
            or not all(size.isdecimal() and 1 <= int(size) <= 64 for size in sizes)
        ):
            raise InputError(
                f"target must be a chip ({', '.join(CHIPS)}) and a grid, such as v5e:1x1, v5e:2x2, "
                f"v5e:16x16, v5p:2x2x1, v6e:2x4; got {shown(text)}"
            )
        return cls(CHIPS[kind], tuple(map(int, sizes)))

    def __str__(self) -> str:
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def num_chips(self) -> int:
        return math.prod(self.shape)

    @property
    def num_hosts(self) -> int:
        """Hosts, of four chips each in a pod."""
        return -(-self.num_chips // self.chip.per_host)

    def devices(self) -> tuple[jax.Device, ...]:
        """Devices to compile for; nothing can run on them.

        Raises:
          InputError: libtpu is not there, or has no such grid.
        """
        _check_libtpu()
        from jax.experimental import topologies

        jax.local_devices()  # JAX's own backend first, before libtpu is told of another machine
        options: dict[str, Any] = {}
        if self.num_chips == 1:
            options["chips_per_host_bounds"] = (1, 1, 1)
        try:
            with _environment():
                found = topologies.get_topology_desc(str(self), platform="tpu", **options)
        except jax.errors.JaxRuntimeError as error:
            raise InputError(
                f"target {self} is refused by libtpu: {str(error).splitlines()[0]}; pass a grid "
                "that exists, such as v5e:2x2 or v5e:16x16"
            ) from error
        return tuple(found.devices)


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """The variables of a TPU host, where the user has not set them, while libtpu is loaded."""
    added = {name: value for name, value in _ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def _check_libtpu() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise InputError(
            "a target needs libtpu, which exists for Linux on x86-64 only; this is "
            f"{sys.platform} on {platform.machine()}; leave target out"
        )
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            'a target needs libtpu, which is not installed; pip install -e ".[tpu]", which needs '
            "no TPU"
        )


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What the compiler says of one program on one target.

    Attributes:
      target: where it would run.
      backend: how it is spread over devices.
      arrangement: how the network is written.
      compute_dtype: of the activations.
      matmul: precision of products.
      lane_tile: rollouts that pass through the network together.
      depth: D.
      num_devices: over which the program is spread.
      cycles: of a chip per rollout-step, the compiler's static estimate; kernels of other compilers
        (`unestimated`) are not in it.
      unestimated: names of kernels within the recursion without an estimate.
      flops: operations of a rollout-step in matrix products.
      bytes: least traffic of a rollout-step to main memory: parameters, input embedding, and carry
        in and out, once for each step of a tile.
      argument_bytes: memory for arguments on a device.
      temporary_bytes: for intermediate results.
      output_bytes: for results.
      code_bytes: for the program.
      collectives: opcodes that communicate between devices; none are meant to be there.
      product_operands: (dtype, number) of the matrix products in the program.
      operations: (JAX operation, share of the cycles), the largest first.
      compile_seconds: here.
    """

    target: str
    backend: Backend
    arrangement: str
    compute_dtype: str
    matmul: str
    lane_tile: int
    depth: int
    num_devices: int
    cycles: float
    unestimated: tuple[str, ...]
    flops: int
    bytes: float
    argument_bytes: int
    temporary_bytes: int
    output_bytes: int
    code_bytes: int
    collectives: tuple[str, ...]
    product_operands: tuple[tuple[str, int], ...]
    operations: tuple[tuple[str, float], ...]
    compile_seconds: float

    @property
    def chip(self) -> Chip:
        return Target.parse(self.target).chip

    @property
    def rate(self) -> float:
        """Estimated rollout-steps per second of one chip."""
        return self.chip.clock / self.cycles

    @property
    def share_of_peak(self) -> float:
        """Estimated share of the chip's bfloat16 peak, whatever the precision of the products."""
        return self.flops / self.cycles / self.chip.flops_per_cycle

    @property
    def roofline(self) -> float:
        """The least cycles of a rollout-step: the larger of operations / peak, bytes / bandwidth"""
        chip = self.chip
        return chip.clock * max(self.flops / chip.peak, self.bytes / chip.bandwidth)

    @property
    def memory(self) -> int:
        """Bytes on each device."""
        return self.argument_bytes + self.temporary_bytes + self.output_bytes + self.code_bytes

    @property
    def fits(self) -> bool:
        """Whether a device has that memory."""
        return self.memory <= self.chip.memory

    def plain(self) -> dict[str, Any]:
        """Fields and properties as JSON."""
        names = ("rate", "share_of_peak", "roofline", "memory", "fits")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in names}

    @classmethod
    def of_plain(cls, row: dict[str, Any]) -> "Forecast":
        """Inverse of `plain`."""
        fields = {field.name: row[field.name] for field in dataclasses.fields(cls)}
        for name in ("unestimated", "collectives"):
            fields[name] = tuple(fields[name])
        for name in ("product_operands", "operations"):
            fields[name] = tuple(tuple(pair) for pair in fields[name])
        return cls(**fields)


def forecast(
    model: TRM,
    target: str,
    *,
    settings: LoopSettings | None = None,
    backend: Backend = "pmap",
    num_devices: int | None = None,
    rollouts: int = 64,
    cache: "Cache | None" = None,
) -> Forecast:
    """Compiles the program that `mesh.solve` and sweeps run, for a target that need not be there.

    Args:
      model: the network.
      target: as `Target.parse` reads it.
      settings: of the loop; by default a sweep's, with the lane tile that is the default there.
      backend: as for `mesh.solve`.
      num_devices: the first devices of the target; by default all.
      rollouts: K.
      cache: of earlier forecasts.

    Raises:
      InputError: an unknown target, no libtpu, or a program that exceeds the target's memory; the
        message then has the largest tile that fits.
    """
    place = Target.parse(target)
    devices = place.devices()[:num_devices]
    if settings is None:
        tile = mesh.default_lane_tile(model, devices[0])
        settings = LoopSettings(lane_tile=tile, save=Save(answers=True, q_logits=True))

    def compiles(tile: int, devices: Sequence[jax.Device] = devices[:1]) -> Forecast:
        tiled = dataclasses.replace(settings, lane_tile=tile)
        return compile_program(model, place, devices, tiled, backend, rollouts, cache)

    try:
        return compiles(settings.lane_tile, devices)
    except TooLargeError as error:
        fits = _largest_tile(compiles, settings.lane_tile)
        remedy = f"pass at most {fits}" if fits else "no tile fits; use a smaller depth or batch"
        raise InputError(
            f"lane_tile {settings.lane_tile} exceeds the {place.chip.memory / 1e9:.0f} GB of a "
            f"{place.chip.name}: {error}; {remedy}"
        ) from error


class TooLargeError(Exception):
    """The program needs more memory than the target has."""


class Cache:
    """Forecasts of programs that were compiled before, in a JSON file or in memory.

    Args:
      path: of the file, which may not exist yet; None for memory only.

    Raises:
      InputError: the file is none of forecasts.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else Path(path)
        self._rows: dict[str, Forecast] = {}
        if self._path is not None and self._path.exists():
            try:
                rows = read_json(self._path)["programs"]
                self._rows = {key: Forecast.of_plain(row) for key, row in rows.items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise InputError(
                    f"{self._path} must be a file that this command wrote; got "
                    f"{type(error).__name__}: {shown(str(error))}; pass another file"
                ) from error

    def get(self, key: str) -> Forecast | None:
        return self._rows.get(key)

    def put(self, key: str, found: Forecast) -> None:
        """Keeps a forecast, in the file too."""
        self._rows[key] = found
        if self._path is not None:
            rows = {key: row.plain() for key, row in self._rows.items()}
            text = json.dumps({"note": NOTE, "programs": rows}, indent=1)
            write_text(self._path, text + "\n")


def _largest_tile(compiles: Callable[[int], Forecast], tile: int) -> int | None:
    """The largest of tile / 2, tile / 4, ... that fits, None if none does."""
    while tile := tile // 2:
        with contextlib.suppress(TooLargeError):
            compiles(tile)
            return tile
    return None


def compile_program(
    model: TRM,
    target: Target,
    devices: Sequence[jax.Device],
    settings: LoopSettings,
    backend: Backend,
    rollouts: int,
    cache: Cache | None = None,
) -> Forecast:
    """As `forecast`, of one tile on devices of a target; nothing smaller is tried.

    Raises:
      TooLargeError: the program exceeds the memory of a device.
    """
    model = mesh.arrange(model, devices)
    lanes = TILES_PER_DEVICE * settings.lane_tile
    lowered = mesh.lower(
        model,
        settings,
        devices,
        num_puzzles=-(-lanes * len(devices) // rollouts),
        num_lanes=lanes * len(devices),
        backend=backend,
    )
    key = _key(lowered, target)
    if cache is not None and (known := cache.get(key)) is not None:
        return known
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used ([\d.]+\w+) of", str(error))
        raise TooLargeError(f"it needs {used[1]}B" if used else "out of memory") from error
    seconds = time.perf_counter() - start
    program = Program.parse(compiled.as_text() or "")
    executed = [(found, times) for found, times in program.executed() if found.cycles]
    total = sum(times * (found.cycles or 0) for found, times in executed)
    shares: collections.Counter[str] = collections.Counter()
    for found, times in executed:
        shares[_operation(found.op_name)] += times * (found.cycles or 0)
    kernels = sorted(
        {
            found.name
            for found, times in program.executed()
            if found.opcode == "custom-call"
            and 'custom_call_target="tpu_custom_call"' in found.text
        }
    )
    memory = compiled.memory_analysis()
    assert memory is not None
    result = Forecast(
        target=str(target),
        backend=backend,
        arrangement=model.arrangement or "cpu",
        compute_dtype=model.precision.compute_dtype,
        matmul=model.precision.matmul,
        lane_tile=settings.lane_tile,
        depth=settings.depth,
        num_devices=len(devices),
        cycles=total / (lanes * settings.depth),
        unestimated=tuple(kernels),
        flops=flops_per_rollout_step(model.config),
        bytes=_least_bytes(model, settings.lane_tile),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        output_bytes=memory.output_size_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        collectives=program.collectives(),
        product_operands=tuple(sorted(program.product_operands().items())),
        operations=tuple((name, cycles / total) for name, cycles in shares.most_common(12)),
        compile_seconds=seconds,
    )
    if not result.fits:
        raise TooLargeError(f"it needs {result.memory / 1e9:.1f} GB")
    if cache is not None:
        cache.put(key, result)
    return result


def _key(lowered: jax.stages.Lowered, target: Target) -> str:
    """Digest of all that decides what a compiler says: program, target, versions."""
    digest = hashlib.sha256(lowered.as_text().encode())
    digest.update(f"{target} {jax.__version__} {metadata.version('libtpu')}".encode())
    return digest.hexdigest()[:16]


def _operation(op_name: str) -> str:
    """The part of a JAX operation's name that tells the network's parts apart, layers together."""
    parts = [part for part in op_name.split("/") if part not in ("while", "body", "closed_call")]
    name = "/".join(parts[-3:])
    return re.sub(r"layers_\d+/?", "", name) or "other"


def _least_bytes(model: TRM, lane_tile: int) -> float:
    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    dtype = model.precision.dtype
    # Of the puzzle embedding, which may have a million rows, a rollout reads one.
    weights = sum(x.size for x in jax.tree.leaves({**params, "puzzle_emb": ()})) * dtype.itemsize
    state = model.config.length * model.config.hidden_size * dtype.itemsize
    return weights / lane_tile + 5 * state  # x; y and z, read and written
