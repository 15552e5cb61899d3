"""Compiles as most tests do: without optimisation. Also a command: `python quick.py SCRIPT ...`."""

import runpy
import sys
from typing import Any

from jax._src import compiler

_QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    # By default XLA splits a program for many threads, which is work too; here two workers compile.
    "xla_cpu_parallel_codegen_split_count": 1,
}

users_options = compiler.get_compile_options


def options(*args: Any, env_options_overrides: Any = None, **kwargs: Any) -> Any:
    """Without optimisation, and with XLA's older emitters of loops, which compile in half the time.

    In the place of JAX's function of that name, for JAX takes compiler options for one `jit`, not
    for all.
    """
    overrides = _QUICK | (env_options_overrides or {})
    return users_options(*args, env_options_overrides=overrides, **kwargs)


if __name__ == "__main__":
    compiler.get_compile_options = options
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
