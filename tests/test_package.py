"""`import ptrm_jax` alone: it imports little, and every public name is there when it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ptrm_jax


def run_python(code: str) -> str:
    """What a fresh interpreter prints; warnings are errors there."""
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_neither_jax_nor_what_few_need() -> None:
    heavy = ("jax", "flax", "scipy", "matplotlib", "numba", "orbax", "torch", "tyro", "rich")
    assert (
        run_python(
            f"import sys, ptrm_jax; print([name for name in {heavy} if name in sys.modules])"
        )
        == "[]\n"
    )


def test_every_name_works_after_the_import_alone() -> None:
    """And solving needs none of the libraries that only reports and conversion need."""
    printed = run_python(
        """
import sys
import ptrm_jax
for name in (*ptrm_jax.__all__, "checkpoint", "config", "data", "model", "puzzles"):
    assert name in dir(ptrm_jax), name
    assert getattr(ptrm_jax, name) is not None
assert ptrm_jax.solve is ptrm_jax.solver.solve
assert ptrm_jax.tasks.Task and ptrm_jax.training.TrainConfig and ptrm_jax.sweep.SweepConfig
assert ptrm_jax.analysis and ptrm_jax.paper and ptrm_jax.metrics
assert issubclass(ptrm_jax.CheckpointError, ptrm_jax.PtrmError)
print([name for name in ("torch", "scipy.stats", "matplotlib") if name in sys.modules])
"""
    )
    assert printed == "[]\n"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'ptrm_jax' has no attribute 'solv'"):
        ptrm_jax.solv  # noqa: B018


@pytest.mark.parametrize(
    ("name", "home", "function"),
    [
        ("store", "sweep.folder", "read"),
        ("q_head", "training.fit_q_head", "fit_q_head"),
    ],
)
def test_old_names_of_modules_warn_and_hand_on(name: str, home: str, function: str) -> None:
    run_python(
        f"""
import importlib, warnings
import ptrm_jax
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old = ptrm_jax.{name}
    import ptrm_jax.{name}
    from ptrm_jax.{name} import {function}
assert old.{function} is {function} is importlib.import_module("ptrm_jax.{home}").{function}
(warning,) = [w for w in caught if "ptrm_jax" in str(w.message)]
assert warning.category is DeprecationWarning
assert "ptrm_jax.{name} is deprecated" in str(warning.message)
"""
    )


def test_type_checkers_see_the_names_that_are_imported_lazily() -> None:
    tree = ast.parse(Path(ptrm_jax.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        f"{node.module}.{alias.name}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = {f"ptrm_jax.{m}.{name}" for m, names in ptrm_jax._HOMES.items() for name in names}
    modules = {f"ptrm_jax.{name}" for name in (*ptrm_jax._MODULES, "solver")}
    assert seen == homes | modules
    assert {name.rpartition(".")[2] for name in seen} | {"__version__"} == set(ptrm_jax.__all__)
