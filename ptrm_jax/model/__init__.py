"""The Tiny Recursive Model."""

from ptrm_jax.model.flops import (
    flops_per_energy_gradient as flops_per_energy_gradient,
    flops_per_rollout_step as flops_per_rollout_step,
)
from ptrm_jax.model.products import (
    contract as contract,
    gated as gated,
    gated_by as gated_by,
    product as product,
    rounded as rounded,
    silu as silu,
)
from ptrm_jax.model.trm import (
    TRM as TRM,
    Attention as Attention,
    Block as Block,
    Carry as Carry,
    Embedding as Embedding,
    Heads as Heads,
    Linear as Linear,
    Network as Network,
    Params as Params,
    SwiGLU as SwiGLU,
    init_params as init_params,
    param_shapes as param_shapes,
    path_name as path_name,
    recur as recur,
    rms_norm as rms_norm,
    rotary as rotary,
)
