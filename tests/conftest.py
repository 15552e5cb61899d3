"""Strict JAX for every test, eight CPU devices, and a few small models."""

import atexit
import functools
import gc
import importlib.util
import inspect
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

# One cache of compiled programs for the whole run: workers and subprocesses share it.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="ptrm_jax_tests_")
    os.environ["PTRM_TESTS_OWN_CACHE"] = str(os.getpid())
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Where libtpu is installed and no TPU is there, JAX would look for one and print warnings.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import quick  # noqa: E402
from jax._src import compiler  # noqa: E402

from ptrm_jax import ModelConfig, Precision, Puzzles, make_puzzles, save  # noqa: E402
from ptrm_jax.model import TRM, Params, init_params, path_name  # noqa: E402

# A parser of flags reads the source of every class anew, each time that a command is called.
inspect.getsource = functools.cache(inspect.getsource)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fuzz-rounds", type=int, default=30, help="flipped bits for each reader")


@pytest.fixture
def fuzz_rounds(request: pytest.FixtureRequest) -> int:
    """Flipped bits for each reader; `--fuzz-rounds`."""
    return request.config.getoption("--fuzz-rounds")


def pytest_unconfigure() -> None:
    """Removes the cache, in the process that made it."""
    if os.environ.get("PTRM_TESTS_OWN_CACHE") == str(os.getpid()):
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


AS_USERS_COMPILE = ("test_bundled", "test_mesh")
"""Modules whose programs are compiled as a user's are: they hold the promises about bits across
layouts, or run trained models. In the others most of the time would go into LLVM's optimisation of
programs that run for milliseconds. A test of those can be marked `as_users_compile`."""

LONGEST_FIRST = (
    "test_solver",
    "test_training_step",
    "test_sweep_folder",
    "test_training_loop",
    "test_mesh",
    "test_paper_benchmarks",
    "test_docs",
    "test_q_head",
    "test_sweep",
    "test_bundled",
    "test_commands",
    "test_analysis",
    "test_convert",
    "test_config_model",
)
"""Modules that take longest begin first, so that both workers end at about the same time."""


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Keeps what is imported and collected, millions of objects, out of the garbage collections.

    A full collection would go through them again and again: a tenth of the time of many tests.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts modules by `LONGEST_FIRST`; the order within a module stays."""
    rank = {name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


MOST_MEMORY = 3 * 2**30
"""Bytes that a worker may hold before it drops its compiled programs."""

last_options: list[Any] = []
"""How the module before was compiled."""


@pytest.fixture(scope="module", autouse=True)
def quick_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiles the programs of a module quickly, or as a user's.

    Programs of the module before are kept, for many are small ones that every module needs; unless
    they were compiled in the other way, or take too much memory.
    """
    as_users = request.module.__name__ in AS_USERS_COMPILE
    options = quick.users_options if as_users else quick.options
    if last_options != [options] or memory_held() > MOST_MEMORY:
        jax.clear_caches()
    last_options[:] = [options]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", options)
        yield


def memory_held() -> float:
    """Bytes that this process holds; more than any where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return math.inf
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.fixture(autouse=True)
def marked_compilation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Compiles the programs of a marked test as a user's."""
    if request.node.get_closest_marker("as_users_compile") is None:
        yield
        return
    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", quick.users_options)
        yield
    jax.clear_caches()


def start_command(name: str, *arguments: str, devices: int = 8) -> subprocess.Popen[str]:
    """A process of `experiments/<name>.py` that compiles as the tests of most modules do.

    With eight devices, as here, it finds the programs of this process in the cache.
    """
    root = Path(__file__).parents[1]
    scripts = (root / "tests" / "quick.py", root / "experiments" / f"{name}.py")
    return subprocess.Popen(
        [sys.executable, *map(str, scripts), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
    )


SMALL = {
    "vocab_size": 7,
    "seq_len": 9,
    "hidden_size": 32,
    "num_layers": 2,
    "H_cycles": 2,
    "L_cycles": 3,
    "mlp_width": 64,
    "prefix_len": 2,
    "puzzle_emb_ndim": 40,
    "num_puzzle_identifiers": 3,
    "forward_dtype": "float32",
}
VARIANTS = {
    "mlp_t": {"variant": "mlp_t", "mlp_t_width": 48},
    "attention": {"variant": "attention", "num_heads": 4, "positions": "rope"},
}


def small_model(
    variant: str = "mlp_t", precision: Precision | None = None, **fields: int
) -> tuple[TRM, Params]:
    """A random model that tells puzzles, rollouts and positions apart (no constant parameter)."""
    model = TRM(ModelConfig(**SMALL | VARIANTS[variant] | fields), precision or Precision())
    return model, jax.tree.map(lambda x: x, random_params(model.config))


def array(values: Any, dtype: Any) -> jax.Array:
    """An array converted by numpy, because JAX would compile a program for every shape."""
    return jax.device_put(np.asarray(values, dtype))


@functools.cache
def random_params(config: ModelConfig) -> Params:
    """Near to those of `init_params`, but without its program, which takes seconds to compile."""
    shapes = jax.eval_shape(lambda: init_params(TRM(config), jax.random.key(0)))
    rng = np.random.default_rng(0)

    def draw(path: tuple[jax.tree_util.DictKey, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = path_name(path)
        scale = {"q_head/kernel": 0.05, "q_head/bias": 0.05, "puzzle_emb/embedding": 0.05}
        scale |= {"H_init": 1.0, "L_init": 1.0, "embed_tokens/embedding": leaf.shape[-1] ** -0.5}
        drawn = scale.get(name, leaf.shape[0] ** -0.5) * rng.standard_normal(leaf.shape)
        return array(drawn - 5 * (name == "q_head/bias"), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


@functools.cache
def small_checkpoint() -> str:
    """A folder with random weights for 6x6 Sudokus, whose programs compile and run quickly."""
    folder = tempfile.mkdtemp(prefix="ptrm_jax_tests_")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    shape = {"vocab_size": 8, "seq_len": 36, "hidden_size": 16, "num_layers": 1, "mlp_width": 32}
    model, params = small_model(**shape, H_cycles=1, L_cycles=1, puzzle_emb_ndim=16)
    save(f"{folder}/small6", model.config, params)
    return f"{folder}/small6"


def random_puzzles(model: TRM, num_puzzles: int, seed: int = 0) -> Puzzles:
    """Random tokens and identifiers."""
    rng = np.random.default_rng(seed)
    config = model.config
    return make_puzzles(
        rng.integers(0, config.vocab_size, (num_puzzles, config.seq_len), dtype=np.int32),
        rng.integers(0, config.num_puzzle_identifiers, num_puzzles, dtype=np.int32),
    )


@pytest.fixture(scope="session", params=sorted(VARIANTS))
def variant(request: pytest.FixtureRequest) -> str:
    """Each kind of position mixing in turn."""
    return request.param


def load_experiment(name: str) -> ModuleType:
    """`experiments/<name>.py`, a command, as a module."""
    path = Path(__file__).parents[1] / "experiments" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
