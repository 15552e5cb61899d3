"""Deprecated: the name of `ptrm_jax.sweep.folder` up to version 0.4."""

import warnings

from ptrm_jax.sweep.folder import *  # noqa: F403

warnings.warn(
    "ptrm_jax.store is deprecated and will be removed in the next version; use ptrm_jax.sweep",
    DeprecationWarning,
    stacklevel=2,
)
