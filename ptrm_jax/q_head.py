"""Deprecated: the name of `ptrm_jax.training.fit_q_head` up to version 0.4."""

import warnings

from ptrm_jax.training.fit_q_head import fit_q_head as fit_q_head

warnings.warn(
    "ptrm_jax.q_head is deprecated and will be removed in the next version; use "
    "ptrm_jax.training.fit_q_head",
    DeprecationWarning,
    stacklevel=2,
)
