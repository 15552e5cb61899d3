"""Provenance of a result: code, versions, platform."""

import platform
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ptrm_jax.version import __version__


def environment(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Commit, versions and platform of work on `devices`, as JSON."""
    return {
        "commit": commit(),
        "versions": {
            "ptrm_jax": __version__,
            "jax": jax.__version__,
            "jaxlib": jax.lib.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "platform": {
            "backend": devices[0].platform,
            "device_kind": devices[0].device_kind,
            "devices": len(devices),
            "machine": platform.machine(),
        },
    }


def commit() -> str | None:
    """The commit of this package's checkout, with "+" if it has changes; None outside one."""
    try:
        # The package may be installed inside another repository.
        if not _git("ls-files", Path(__file__).name):
            return None
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def differences(before: Any, now: Any) -> list[str]:
    """Differences between two JSON trees, a text for each leaf: its name, value before and now."""
    old, new = dict(_flatten(before)), dict(_flatten(now))
    return [
        f"{name} was {old.get(name)!r} and is {new.get(name)!r}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _flatten(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _flatten(value, f"{name}.{key}" if name else key)
    else:
        yield name, tree
