"""Devices: how many, and how lanes are spread over them. Nothing else knows them.

Lanes are independent, so spreading them needs no communication: each device runs `run_lanes` on
its share with its own copy of the parameters. There are two ways to say that to JAX, `jax.pmap` and
`jax.jit` of `jax.shard_map` over a mesh; the programs of a device, and so the bits, are the same.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ptrm_jax.config import DEFAULT_LANE_TILE, Backend, LoopSettings, check_choice, check_int
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.solver import (
    LaneResults,
    Lanes,
    Solution,
    check_solve,
    choose,
    make_lanes,
    run_lanes,
    selection,
)

AXIS = "lane"
"""Name of the one axis of devices."""

_HOST_DEVICES = "xla_force_host_platform_device_count"


def num_cores() -> int:
    """CPU cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def use_cpu_cores(num_devices: int | None = None) -> None:
    """Gives the CPU backend one device per core (or `num_devices`); call before any computation.

    XLA's element-wise loops use little more than one thread of a CPU device, so one device per
    core under pmap is the faster layout. Without effect on the results: tiles are the same.

    Raises:
      ValueError: num_devices < 1.
      RuntimeError: the backend is already in use with another number of devices.
    """
    if num_devices is None:
        # What the user has set in the environment stands.
        if "JAX_NUM_CPU_DEVICES" in os.environ or _HOST_DEVICES in os.environ.get("XLA_FLAGS", ""):
            return
        num_devices = num_cores()
    check_int("num_devices", num_devices, 1)
    jax.config.update("jax_num_cpu_devices", num_devices)


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Joins the processes of a distributed run; call before any computation.

    Args:
      coordinator: address:port of process 0; all None where the platform says (TPU, Slurm).
      num_processes: how many there are.
      process_id: which this is.

    Returns:
      This process's number and how many there are.

    Raises:
      ValueError: the platform does not say, or process 0 cannot be reached.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot join the processes of a distributed run: {str(error).splitlines()[0]}; pass "
            "coordinator, num_processes and process_id, or shard where processes need not know "
            "each other"
        ) from error
    return jax.process_index(), jax.process_count()


def wait_for_all() -> None:
    """Returns when every process of a distributed run has called this."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("ptrm_jax: done")


def local_devices(count: int | None = None) -> tuple[jax.Device, ...]:
    """The first `count` devices of this process, or all of them.

    Raises:
      ValueError: there are fewer.
    """
    devices = tuple(jax.local_devices())
    if count is None:
        return devices
    check_int("devices", count, 1)
    if count > len(devices):
        raise InputError(
            f"devices must be at most {len(devices)}, the {devices[0].platform} devices of this "
            f"process; got {count}"
        )
    return devices[:count]


_compiled = 0.0


def _count_compilation(event: str, seconds: float, **_: object) -> None:
    global _compiled
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled += seconds


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def compile_seconds() -> float:
    """Time that this process has spent compiling, or reading programs from a cache."""
    return _compiled


def use_compilation_cache(directory: str | os.PathLike[str]) -> None:
    """Keeps compiled programs, for later processes; call before any computation.

    Whoever can write there can run code in these processes, so it is nobody's default.
    """
    jax.config.update("jax_compilation_cache_dir", os.fspath(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def default_lane_tile() -> int:
    """A good tile for this backend: what stays in a CPU's cache, or what fills an accelerator."""
    return DEFAULT_LANE_TILE if jax.default_backend() == "cpu" else 256


def replicate(params: Params, devices: Sequence[jax.Device]) -> Params:
    """A copy of the parameters on every device, so that no call transfers them again."""
    return jax.device_put(params, sharding(devices, split=False))


def sharding(devices: Sequence[jax.Device], *, split: bool) -> NamedSharding:
    """Placement over devices: whole on each, or its leading axis split over them."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), _spec(split))


def _spec(split: bool) -> PartitionSpec:
    return PartitionSpec(AXIS) if split else PartitionSpec()


def data_parallel(
    fn: Callable[..., Any], devices: Sequence[jax.Device], *, inputs: Any, outputs: Any
) -> Callable[..., Any]:
    """`fn` jitted over devices, each with its share of the rows; its first argument is donated.

    Inside, `AXIS` names the devices, for `lax.psum` and the like.

    Args:
      fn: what one device does.
      devices: where.
      inputs: one entry per argument: prefix trees of bool, True where the leading axis is split
        over the devices, False where every device has the whole.
      outputs: the same for the result.
    """
    mapped = jax.shard_map(
        fn,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=jax.tree.map(_spec, inputs),
        out_specs=jax.tree.map(_spec, outputs),
        check_vma=False,  # a loop's carry starts equal on all devices and then differs
    )
    return jax.jit(mapped, donate_argnums=0)


def per_device(
    fn: Callable[..., Any], devices: Sequence[jax.Device], *, split: Sequence[bool]
) -> Callable[..., Any]:
    """`fn` by pmap: each device has its row of the arguments marked in `split`, and all of others.

    Args:
      fn: what one device does.
      devices: as many as the leading axis of the split arguments is long.
      split: one entry per argument.
    """
    in_axes = tuple(0 if own else None for own in split)
    return jax.pmap(fn, axis_name=AXIS, in_axes=in_axes, devices=devices)


def solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    num_rollouts: int = 100,
    sigma: float = 0.3,
    select: selection.Selection = selection.best_q,
    rollouts: jax.Array | np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
    backend: Backend = "pmap",
    **settings: Any,
) -> Solution[np.ndarray]:
    """`ptrm_jax.solve` on several devices of this process: the same bits, sooner.

    Not to be called under jit. Pass `params` through `replicate` first when calling it often.

    Args:
      devices: where to run; all local devices by default.
      backend: "pmap", or "mesh" (jit of shard_map, what JAX recommends today).
      **settings: `depth`, `noise_on`, `noise_when`, `langevin`, `save`, `lane_tile`.
      Others as `ptrm_jax.solve`.

    Returns:
      The Solution, as numpy arrays on the host.

    Raises:
      ValueError: as `ptrm_jax.solve`.
    """
    devices = tuple(devices) if devices is not None else local_devices()
    check_choice("backend", backend, Backend)
    loop = LoopSettings(**settings)
    rollouts = check_solve(model, params, key, puzzles, sigma, num_rollouts, rollouts)
    num_puzzles = len(puzzles.index)
    lanes = jax.tree.map(np.asarray, make_lanes(num_puzzles, rollouts))
    num_lanes = len(lanes.row)
    results = _spread(model, loop, devices, backend)(
        params,
        jax.random.key_data(key),
        Puzzles(*(jnp.asarray(field, jnp.int32) for field in puzzles)),
        _split(lanes, len(devices), loop.lane_tile),
        jnp.float32(sigma),
    )
    results = jax.tree.map(lambda x: np.asarray(x)[:num_lanes], results)
    return jax.tree.map(np.asarray, choose(results, num_puzzles, select))


def _split(lanes: Lanes[np.ndarray], num_devices: int, lane_tile: int) -> Lanes[np.ndarray]:
    """Whole tiles for every device: N lanes, the last one repeated as padding."""
    unit = num_devices * lane_tile
    padding = (0, -len(lanes.row) % unit)
    return Lanes(*(np.pad(x, padding, mode="edge") for x in lanes))


@functools.lru_cache(maxsize=32)
def _spread(
    model: TRM, settings: LoopSettings, devices: tuple[jax.Device, ...], backend: Backend
) -> Callable[..., LaneResults]:
    """`run_lanes` over devices, an equal share of the lanes each."""

    def run(
        params: Params, key_data: jax.Array, puzzles: Puzzles, lanes: Lanes, sigma: jax.Array
    ) -> LaneResults:
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return run_lanes(model, params, key, puzzles, lanes, sigma, settings)

    if backend == "mesh":
        whole, split = _spec(False), _spec(True)
        return jax.jit(
            jax.shard_map(
                run,
                mesh=Mesh(np.array(devices), (AXIS,)),
                in_specs=(whole, whole, whole, split, whole),
                out_specs=split,
                check_vma=False,  # a rollout starts equal on all devices and then differs
            )
        )
    mapped = per_device(run, devices, split=(False, False, False, True, False))

    def fold(lanes: Lanes) -> Lanes:
        return Lanes(*(x.reshape(len(devices), -1) for x in lanes))

    def call(
        params: Params, key_data: jax.Array, puzzles: Puzzles, lanes: Lanes, sigma: jax.Array
    ) -> LaneResults:
        results = mapped(params, key_data, puzzles, fold(lanes), sigma)
        return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), results)

    return call
