"""Conversion of upstream (PyTorch) TRM checkpoints, verified against the original computation.

`python -m convert CHECKPOINT --out DIR`, or `convert.convert(checkpoint, directory)`. PyTorch is
imported only where it is needed; `.safetensors` files convert without it. Names are imported when
they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from convert.architecture import infer_config
    from convert.conversion import convert
    from convert.files import find_checkpoint, read_state
    from convert.mapping import ConversionError, port, to_upstream
    from convert.parity import parity_against_reference, parity_against_torch

__all__ = [
    "convert",
    "ConversionError",
    "find_checkpoint",
    "read_state",
    "infer_config",
    "port",
    "to_upstream",
    "parity_against_reference",
    "parity_against_torch",
]

_HOMES = {
    "convert": "conversion",
    "ConversionError": "mapping",
    "find_checkpoint": "files",
    "read_state": "files",
    "infer_config": "architecture",
    "port": "mapping",
    "to_upstream": "mapping",
    "parity_against_reference": "parity",
    "parity_against_torch": "parity",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
