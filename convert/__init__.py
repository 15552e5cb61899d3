"""Conversion of upstream (PyTorch) TRM checkpoints, verified against the original computation.

`python -m convert CHECKPOINT --out DIR`, or `convert.convert(checkpoint, directory)`. PyTorch is
imported only where it is needed; `.safetensors` files convert without it.
"""

from convert.conversion import convert
from convert.mapping import ConversionError, port, to_upstream
from convert.parity import parity_against_reference, parity_against_torch
from convert.upstream import find_checkpoint, infer_config, read_state

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
