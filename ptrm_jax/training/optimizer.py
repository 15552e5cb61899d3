"""Upstream's optimisers as optax transformations, its schedule, and its puzzle embedding's update.

Muon is the one addition. Weight decay is decoupled and acts on every trained weight, including
biases and embeddings, as in upstream.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from ptrm_jax.config import check_choice
from ptrm_jax.model import path_name
from ptrm_jax.training.config import OptimizerName


class AdamAtan2State(NamedTuple):
    """Moments of `scale_by_adam_atan2`.

    Attributes:
      count: [] int32, updates done.
      mu: first moments, like the parameters.
      nu: second moments, like the parameters.
    """

    count: jax.Array  # type: ignore[assignment]  # a tuple's method
    mu: Any
    nu: Any


def scale_by_adam_atan2(b1: float = 0.9, b2: float = 0.95) -> optax.GradientTransformation:
    """Adam's direction by arctangent: atan2(m, sqrt(v) / sqrt(1 - b2^t)) / (1 - b1^t).

    Updates are bounded and need no epsilon. Other variants scale the arctangent or its argument;
    upstream's, implemented here, does neither.

    Source: upstream's `adam-atan2` package; Everett et al., arXiv 2407.05872.
    """

    def init(params: Any) -> AdamAtan2State:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return AdamAtan2State(jnp.zeros((), jnp.int32), zeros, jax.tree.map(jnp.zeros_like, params))

    def update(grads: Any, state: AdamAtan2State, params: Any = None) -> tuple[Any, AdamAtan2State]:
        del params
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(grads, state.mu, b1, 1)
        nu = optax.tree.update_moment(grads, state.nu, b2, 2)
        t = count.astype(jnp.float32)
        correction1, correction2 = 1.0 - b1**t, jnp.sqrt(1.0 - b2**t)
        direction = jax.tree.map(
            lambda m, v: jnp.arctan2(m, jnp.sqrt(v) / correction2) / correction1, mu, nu
        )
        return direction, AdamAtan2State(count, mu, nu)

    return optax.GradientTransformation(init, update)


MUON_RMS = 0.7
"""Root mean square of the entries of Muon's direction.

Liu et al. (arXiv 2502.16982, section 2.2) take 0.2, which is that of Adam in long runs. Adam begins
with 1, and a small TRM is trained for some thousand steps only.
"""


def scale_by_muon(b1: float = 0.9, b2: float = 0.95) -> optax.GradientTransformation:
    """Muon's direction for the matrices of the recursion, Adam's for all other parameters.

    The momentum of a matrix is orthogonalised by five Newton-Schulz iterations and scaled to
    `MUON_RMS`, so that one learning rate and one weight decay suit both.

    Args:
      b1, b2: decay rates of Adam's moments; Muon's momentum has 0.95.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
    """
    matrices = optax.chain(
        optax.contrib.scale_by_muon(
            beta=0.95,
            # Stated, because the default does not accept a part of the parameters.
            weight_dimension_numbers=lambda params: jax.tree.map(
                lambda _: optax.contrib.MuonDimensionNumbers(), params
            ),
        ),
        # An orthogonal matrix of m rows and n columns has the root mean square max(m, n)^-1/2.
        optax.stateless(
            lambda updates, _: jax.tree.map(
                lambda update: MUON_RMS * max(update.shape) ** 0.5 * update, updates
            )
        ),
    )

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                "matrix" if leaf.ndim == 2 and path_name(path).startswith("network") else "other"
            ),
            params,
        )

    return optax.partition({"matrix": matrices, "other": optax.scale_by_adam(b1, b2)}, labels)


def schedule(
    learning_rate: float, warmup_steps: int, total_steps: int, min_ratio: float
) -> optax.Schedule:
    """Linear warm-up, then a half cosine down to `min_ratio` of the peak (1: constant).

    The first update has count 0 and the rate 1 / warmup_steps of the peak, not 0.

    Source: upstream `pretrain.py`, `cosine_schedule_with_warmup_lr_lambda`.
    """

    def rate(count: jax.Array) -> jax.Array:
        t = jnp.asarray(count, jnp.float32) + 1.0
        progress = (t - warmup_steps) / max(1, total_steps - warmup_steps)
        cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
        decayed = min_ratio + (1.0 - min_ratio) * cosine
        return learning_rate * jnp.where(t < warmup_steps, t / max(1, warmup_steps), decayed)

    return rate


def make_optimizer(
    name: OptimizerName,
    learning_rate: optax.Schedule,
    *,
    weight_decay: float,
    betas: tuple[float, float],
) -> optax.GradientTransformation:
    """AdamATan2, AdamW or Muon, with decoupled weight decay on every parameter."""
    check_choice("optimizer", name, OptimizerName)
    if name == "adam_atan2":
        direction = scale_by_adam_atan2(*betas)
    elif name == "muon":
        direction = scale_by_muon(*betas)
    else:
        direction = optax.scale_by_adam(*betas)
    return optax.chain(
        direction,
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def sign_sgd_rows(
    table: jax.Array,
    rows: jax.Array,
    grads: jax.Array,
    learning_rate: jax.Array,
    weight_decay: float,
) -> jax.Array:
    """Sign SGD on the rows of an embedding that have gradients; the others keep every bit.

    Args:
      table: [N, E] float32.
      rows: [B] int32, the row of each gradient, with repetitions.
      grads: [B, E] float32; gradients of one row are summed before their sign is taken.
      learning_rate: scalar.
      weight_decay: decoupled, of the updated rows.

    Returns:
      The new table.

    Source: upstream `models/sparse_embedding.py`, CastedSparseEmbeddingSignSGD_Distributed.
    """
    # Padded with a row beyond the table, which `mode="drop"` ignores.
    unique, inverse = jnp.unique(
        rows, size=rows.shape[0], fill_value=table.shape[0], return_inverse=True
    )
    summed = jnp.zeros_like(grads).at[inverse].add(grads)
    old = table.at[unique].get(mode="clip")
    new = old * (1.0 - learning_rate * weight_decay) - learning_rate * jnp.sign(summed)
    return table.at[unique].set(new, mode="drop")


def ema_decay(step: jax.Array, decay: float, *, warmup: bool) -> jax.Array:
    """Weight of the old average at update `step` (from 0): `decay`, or less during a warm-up.

    The warm-up, min(decay, (1 + t) / (10 + t)), makes the average useful after some hundred
    updates.
    """
    t = step.astype(jnp.float32)
    return jnp.minimum(decay, (1.0 + t) / (10.0 + t)) if warmup else jnp.full((), decay)
