"""The Tiny Recursive Model."""

from ptrm_jax.model.trm import (
    TRM as TRM,
)
from ptrm_jax.model.trm import (
    Attention as Attention,
)
from ptrm_jax.model.trm import (
    Block as Block,
)
from ptrm_jax.model.trm import (
    Carry as Carry,
)
from ptrm_jax.model.trm import (
    Embedding as Embedding,
)
from ptrm_jax.model.trm import (
    Heads as Heads,
)
from ptrm_jax.model.trm import (
    Linear as Linear,
)
from ptrm_jax.model.trm import (
    Network as Network,
)
from ptrm_jax.model.trm import (
    Params as Params,
)
from ptrm_jax.model.trm import (
    SwiGLU as SwiGLU,
)
from ptrm_jax.model.trm import (
    contract as contract,
)
from ptrm_jax.model.trm import (
    flops_per_energy_gradient as flops_per_energy_gradient,
)
from ptrm_jax.model.trm import (
    flops_per_rollout_step as flops_per_rollout_step,
)
from ptrm_jax.model.trm import (
    gated as gated,
)
from ptrm_jax.model.trm import (
    init_params as init_params,
)
from ptrm_jax.model.trm import (
    param_shapes as param_shapes,
)
from ptrm_jax.model.trm import (
    path_name as path_name,
)
from ptrm_jax.model.trm import (
    product as product,
)
from ptrm_jax.model.trm import (
    recur as recur,
)
from ptrm_jax.model.trm import (
    rms_norm as rms_norm,
)
from ptrm_jax.model.trm import (
    rotary as rotary,
)
from ptrm_jax.model.trm import (
    rounded as rounded,
)
from ptrm_jax.model.trm import (
    silu as silu,
)
