"""Compiles as most tests do: without optimisation. Also a command: `python quick.py SCRIPT ...`."""

import runpy
import sys
from typing import Any

from jax._src import compiler

# By default XLA splits a program for many threads, which is work too; here two workers compile.
_ONE_PART = {"xla_cpu_parallel_codegen_split_count": 1}
_QUICK = _ONE_PART | {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}

_default_options = compiler.get_compile_options


def users_options(*args: Any, env_options_overrides: Any = None, **kwargs: Any) -> Any:
    """As a user's programs are compiled, but in one part: each kernel is compiled alone either way.

    In the place of JAX's function of that name, for JAX takes compiler options for one `jit`, not
    for all.
    """
    overrides = _ONE_PART | (env_options_overrides or {})
    return _default_options(*args, env_options_overrides=overrides, **kwargs)


def options(*args: Any, env_options_overrides: Any = None, **kwargs: Any) -> Any:
    """Without optimisation, and with XLA's older emitters of loops, which compile in half the time.

    Used as `users_options` is.
    """
    overrides = _QUICK | (env_options_overrides or {})
    return _default_options(*args, env_options_overrides=overrides, **kwargs)


if __name__ == "__main__":
    compiler.get_compile_options = options
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
