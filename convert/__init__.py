"""Conversion of upstream (PyTorch) TRM checkpoints, verified against the original computation.

`python -m convert CHECKPOINT --out DIR`, or `convert.convert(checkpoint, directory)`. PyTorch is
imported only where it is needed; `.safetensors` files convert without it.
"""

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
