"""Devices and processes: which there are, and how work is distributed over them.

Other modules pass devices on and leave `pmap`, `shard_map` and shardings to this one. Lanes are
independent, so distributing them needs no communication: each device runs its share with its own
copy of the parameters, by `jax.pmap` or by `jax.jit` of `jax.shard_map` over a mesh. Both run the
same program on each device, and so give the same bits.
"""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ptrm_jax import chips
from ptrm_jax.config import (
    DEFAULT_LANE_TILE,
    Backend,
    LoopSettings,
    Stop,
    check_choice,
    check_int,
)
from ptrm_jax.devices import local
from ptrm_jax.errors import InputError
from ptrm_jax.model import TRM, Params, init_params
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.solver import (
    AnytimeSolution,
    LaneResults,
    Lanes,
    PoolUse,
    Selection,
    Solution,
    best_q,
    check_selection,
    check_solve,
    choose,
    make_lanes,
    make_rule,
    run_lanes,
    run_pool,
    tiles_of_pool,
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
    core under pmap is faster. Results do not change, because the tiles stay the same.

    Raises:
      InputError: num_devices < 1.
      RuntimeError: the backend is already in use with another number of devices.
    """
    if num_devices is None:
        # Keep what the user has set in the environment.
        if "JAX_NUM_CPU_DEVICES" in os.environ or _HOST_DEVICES in os.environ.get("XLA_FLAGS", ""):
            return
        num_devices = num_cores()
    check_int("num_devices", num_devices, 1)
    jax.config.update("jax_num_cpu_devices", num_devices)


def keep_cpu() -> None:
    """Keeps the CPU beside the platforms that JAX_PLATFORMS names; call before any computation."""
    named = jax.config.jax_platforms  # type: ignore[attr-defined]
    if named and "cpu" not in named.split(","):
        jax.config.update("jax_platforms", f"{named},cpu")


def join(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> tuple[int, int]:
    """Joins the processes of a distributed run; call before any computation.

    Args:
      coordinator: address:port of process 0; all None on platforms that JAX detects (TPU, Slurm).
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Returns:
      This process's number and the number of processes.

    Raises:
      InputError: JAX does not detect the platform, or process 0 cannot be reached.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"cannot join the processes of a distributed run: {str(error).splitlines()[0]}; pass "
            "coordinator, num_processes and process_id, or shard the sweep over independent "
            "processes"
        ) from error
    return jax.process_index(), jax.process_count()


def wait_for_all() -> None:
    """Blocks until every process of a distributed run has called this."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("ptrm_jax: done")


def local_devices(count: int | None = None) -> tuple[jax.Device, ...]:
    """The first `count` devices of this process, or all of them.

    Raises:
      DeviceError: there are none that JAX can use.
      InputError: there are fewer.
    """
    devices = local()
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


def _count_compilation(event: str, duration_secs: float, **kwargs: object) -> None:
    global _compiled
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled += duration_secs


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def compile_seconds() -> float:
    """Seconds that this process has spent compiling programs or reading them from a cache."""
    return _compiled


def use_compilation_cache(directory: str | os.PathLike[str]) -> None:
    """Caches compiled programs on disk for later processes; call before any computation.

    Off by default: anyone with write access to the directory can execute code in these processes.
    """
    jax.config.update("jax_compilation_cache_dir", os.fspath(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def default_lane_tile(model: TRM | None = None, device: jax.Device | None = None) -> int:
    """A good tile: small enough for a CPU's cache, or the best known of an accelerator.

    Args:
      model: to run; without one, the smallest tile in an accelerator's table.
      device: where; by default the first one of this process.
    """
    device = device or jax.local_devices()[0]
    if device.platform == "cpu":
        return DEFAULT_LANE_TILE
    if model is None:
        return min(row["lane_tile"] for row in chips.lane_tiles())
    return chips.best_lane_tile(device.device_kind, model.config, model.precision.compute_dtype)


def arrange(model: TRM, devices: Sequence[jax.Device]) -> TRM:
    """The model as its program is written for these devices, unless the model says how."""
    if model.arrangement is not None:
        return model
    return model.clone(arrangement="cpu" if devices[0].platform == "cpu" else "accelerator")


def replicate(params: Params, devices: Sequence[jax.Device]) -> Params:
    """Copies the parameters to every device, so that later calls need not transfer them."""
    return jax.device_put(params, sharding(devices, split=False))


def sharding(devices: Sequence[jax.Device], *, split: bool) -> NamedSharding:
    """Sharding of an array over devices: whole on each, or its leading axis split."""
    return NamedSharding(Mesh(np.array(devices), (AXIS,)), _spec(split))


def _spec(split: bool) -> PartitionSpec:
    return PartitionSpec(AXIS) if split else PartitionSpec()


def data_parallel(
    fn: Callable[..., Any], devices: Sequence[jax.Device], *, inputs: Any, outputs: Any
) -> Callable[..., Any]:
    """`fn` jitted over devices, each with its share of the rows; its first argument is donated.

    Inside `fn`, the axis `AXIS` is the devices, for `lax.psum` and the like.

    Args:
      fn: the work of one device.
      devices: where to run.
      inputs: one entry per argument: prefix trees of bool, True where the leading axis is split
        over the devices, False where every device has the whole.
      outputs: the same for the result.
    """
    return jax.jit(_shard_map(fn, devices, inputs, outputs), donate_argnums=0)


def _shard_map(
    fn: Callable[..., Any], devices: Sequence[jax.Device], inputs: Any, outputs: Any
) -> Callable[..., Any]:
    return jax.shard_map(
        fn,
        mesh=Mesh(np.array(devices), (AXIS,)),
        in_specs=jax.tree.map(_spec, inputs),
        out_specs=jax.tree.map(_spec, outputs),
        check_vma=False,  # a loop's carry starts equal on all devices and then differs
    )


def map_lanes(
    fn: Callable[[Any, Any], Any],
    devices: Sequence[jax.Device],
    *,
    tile: int,
    backend: Backend = "pmap",
) -> Callable[[Any, Any], Any]:
    """`fn` over lanes that are distributed over devices, an equal share of whole tiles on each.

    Args:
      fn: the work of one device, (shared, lanes) -> results: pytrees; every leaf of the lanes and
        of the results has the lanes as its leading axis.
      devices: where to run.
      tile: lanes that `fn` processes together; the lanes of a device are a multiple of it.
      backend: "pmap", or "mesh" (jit of shard_map, which JAX recommends today).

    Returns:
      A function like `fn` of any number of lanes, given as numpy arrays; its results are numpy
      arrays. The last lane is repeated as padding, and what it gives is dropped.
    """
    lead = _lead(devices, backend)
    spread = _spread(fn, devices, backend)

    def call(shared: Any, lanes: Any) -> Any:
        num_lanes = len(jax.tree.leaves(lanes)[0])
        padding = -num_lanes % (len(devices) * tile)

        def fold(x: np.ndarray) -> np.ndarray:
            x = np.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1), mode="edge")
            return x.reshape(*lead, *x.shape[1:])

        def unfold(x: jax.Array) -> np.ndarray:
            return np.asarray(x).reshape(-1, *x.shape[len(lead) :])[:num_lanes]

        return jax.tree.map(unfold, spread(shared, jax.tree.map(fold, lanes)))

    return call


def _lead(devices: Sequence[jax.Device], backend: Backend) -> tuple[int, ...]:
    """Leading axes of lanes: pmap splits an axis of devices, shard_map the axis of lanes itself."""
    return (-1,) if backend == "mesh" else (len(devices), -1)


def _spread(fn: Callable[[Any, Any], Any], devices: Sequence[jax.Device], backend: Backend) -> Any:
    """The jitted program of `map_lanes`: (shared, lanes with the axes of `_lead`) -> results."""
    if backend == "mesh":
        return jax.jit(_shard_map(fn, devices, (False, True), True))
    return jax.pmap(fn, axis_name=AXIS, in_axes=(None, 0), devices=devices)


def solve(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    num_rollouts: int = 100,
    sigma: float = 0.3,
    select: Selection | str = best_q,
    rollouts: jax.Array | np.ndarray | None = None,
    devices: Sequence[jax.Device] | None = None,
    backend: Backend = "pmap",
    **settings: Any,
) -> Solution[np.ndarray]:
    """`ptrm_jax.solve` on several devices of this process, with the same bits.

    It cannot be called under jit. Call `replicate` on `params` first when calling it often.

    Args:
      devices: where to run; all local devices by default.
      backend: as for `map_lanes`.
      **settings: `depth`, `noise_on`, `noise_when`, `langevin`, `read`, `save`, `lane_tile`.
      Others as `ptrm_jax.solve`.

    Returns:
      The Solution, as numpy arrays on the host.

    Raises:
      InputError: as `ptrm_jax.solve`.
    """
    devices = tuple(devices) if devices is not None else local_devices()
    check_choice("backend", backend, Backend)
    loop = LoopSettings(**settings)
    rollouts = check_solve(model, params, key, puzzles, sigma, num_rollouts, rollouts)
    num_puzzles = len(puzzles.index)
    select = check_selection(select, num_puzzles, len(rollouts), model.config.seq_len)
    run = _run_lanes(model, loop, devices, backend)
    arrays = jax.tree.map(lambda field: np.asarray(field, np.int32), puzzles)
    results = run(
        (params, jax.random.key_data(key), arrays, np.float32(sigma)),
        make_lanes(num_puzzles, np.asarray(rollouts)),
    )
    return jax.tree.map(np.asarray, choose(results, num_puzzles, select))


@functools.lru_cache(maxsize=32)
def _run_lanes(
    model: TRM, settings: LoopSettings, devices: tuple[jax.Device, ...], backend: Backend
) -> Callable[[Any, Lanes], LaneResults]:
    """`run_lanes` over devices: ((params, key data, puzzles, sigma), lanes) -> results."""
    run = _of_device(arrange(model, devices), settings)
    return map_lanes(run, devices, tile=settings.lane_tile, backend=backend)


def _of_device(model: TRM, settings: LoopSettings) -> Callable[[Any, Lanes], LaneResults]:
    def run(shared: Any, lanes: Lanes) -> LaneResults:
        params, key_data, puzzles, sigma = shared
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return run_lanes(model, params, key, puzzles, lanes, sigma, settings)

    return run


def lower(
    model: TRM,
    settings: LoopSettings,
    devices: Sequence[jax.Device],
    *,
    num_puzzles: int,
    num_lanes: int,
    backend: Backend = "pmap",
) -> jax.stages.Lowered:
    """The program of `solve`, which every unit of a sweep runs, before it is compiled.

    Args:
      model: the network.
      settings: of the loop.
      devices: where it will run; they may be those of a topology, and need not be there.
      num_puzzles: B.
      num_lanes: of all devices, whole tiles on each.
      backend: as for `map_lanes`.
    """
    devices = tuple(devices)
    model = arrange(model, devices)
    whole, split = (sharding(devices, split=split) for split in (False, True))

    def shape(*sizes: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=whole if backend == "mesh" else None)

    params = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    params = jax.tree.map(lambda x: shape(*x.shape, dtype=x.dtype), params)
    puzzles = Puzzles(
        inputs=shape(num_puzzles, model.config.seq_len),
        puzzle_identifiers=shape(num_puzzles),
        index=shape(num_puzzles),
    )
    shared = (params, shape(2, dtype=jnp.uint32), puzzles, shape(dtype=jnp.float32))
    lanes: Any
    if backend == "mesh":
        lanes = jax.ShapeDtypeStruct((num_lanes,), jnp.int32, sharding=split)
    else:
        lanes = shape(len(devices), num_lanes // len(devices))
    return _spread(_of_device(model, settings), devices, backend).lower(shared, Lanes(lanes, lanes))


def solve_anytime(*args: Any, **settings: Any) -> AnytimeSolution[np.ndarray]:
    """`ptrm_jax.solve_anytime` on several devices of this process, with the same bits.

    Each device has a pool and a queue of its own, for every n-th puzzle of n devices. It cannot be
    called under jit. Arguments, results and errors are those of `solve_anytime_with_use`, whose
    first result this is.
    """
    return solve_anytime_with_use(*args, **settings)[0]


def solve_anytime_with_use(
    model: TRM,
    params: Params,
    key: jax.Array,
    puzzles: Puzzles,
    *,
    stop: Stop,
    max_rollouts: int = 100,
    sigma: float = 0.3,
    pool: int | None = None,
    size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    backend: Backend = "pmap",
    **settings: Any,
) -> tuple[AnytimeSolution[np.ndarray], PoolUse[np.ndarray]]:
    """Solves puzzles, and says how the devices used their pools.

    Args:
      pool: lanes of each device.
      size: puzzles up to which a smaller batch is filled, so that both share one program; the
        filling takes no rollout.
      devices: where to run; all local devices by default.
      backend: as for `map_lanes`.
      **settings: `depth`, `noise_on`, `noise_when`, `langevin`, `lane_tile`.
      Others as `ptrm_jax.solve_anytime`.

    Returns:
      The AnytimeSolution, as numpy arrays on the host; and the PoolUse, [] int64 each,
      summed over devices.

    Raises:
      InputError: as `ptrm_jax.solve_anytime`.
    """
    devices = tuple(devices) if devices is not None else local_devices()
    check_choice("backend", backend, Backend)
    loop = LoopSettings(**settings)
    check_solve(model, params, key, puzzles, sigma, max_rollouts, name="max_rollouts")
    rule = make_rule(stop, max_rollouts, loop.depth)
    tiles = tiles_of_pool(pool, loop.lane_tile)
    run = _run_pool(model, loop, devices, backend, max_rollouts, stop.agree, tiles)
    num_puzzles, num_devices = len(puzzles.index), len(devices)
    size = max(num_puzzles, size or 0)
    # Device i takes puzzles i, i + n, ...: a data set in order of difficulty is shared evenly.
    place = np.arange(size + -size % num_devices).reshape(-1, num_devices).T.ravel()
    rows = np.minimum(place, num_puzzles - 1)
    arrays = jax.tree.map(lambda field: np.asarray(field, np.int32)[rows], puzzles)
    results, use = run(
        (params, jax.random.key_data(key), np.float32(sigma), rule),
        (arrays, place < num_puzzles),
    )
    back = np.argsort(place)[:num_puzzles]
    each = slice(None, None, len(place) // num_devices)
    used = jax.tree.map(lambda x: x[each].sum(dtype=np.int64), use)
    return jax.tree.map(lambda x: x[back], results), used


@functools.lru_cache(maxsize=32)
def _run_pool(
    model: TRM,
    settings: LoopSettings,
    devices: tuple[jax.Device, ...],
    backend: Backend,
    max_rollouts: int,
    agree: int,
    num_tiles: int,
) -> Callable[[Any, Any], tuple[AnytimeSolution, PoolUse]]:
    """`run_pool` over devices: ((params, key data, sigma, rule), (puzzles, active)) -> results."""
    arranged = arrange(model, devices)

    def run(shared: Any, rows: tuple[Puzzles, jax.Array]) -> tuple[AnytimeSolution, PoolUse]:
        params, key_data, sigma, rule = shared
        key = jax.random.wrap_key_data(key_data, impl="threefry2x32")
        return run_pool(
            arranged,
            params,
            key,
            *rows,
            sigma,
            rule,
            max_rollouts=max_rollouts,
            agree=agree,
            num_tiles=num_tiles,
            settings=settings,
        )

    return map_lanes(run, devices, tile=1, backend=backend)
