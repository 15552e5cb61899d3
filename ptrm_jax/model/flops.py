"""Floating-point operations of the network's matrix products, from its architecture alone."""

from ptrm_jax.config import ModelConfig


def _flops_per_block(config: ModelConfig) -> tuple[int, int]:
    """FLOPs of one block in products with weights, and in products of two activations."""
    length, size = config.length, config.hidden_size
    weights = 6 * length * size * config.mlp_width
    if config.variant == "mlp_t":
        return weights + 6 * length * size * config.mlp_t_width, 0
    # Queries, keys, values and output; scores and their weighted sum.
    return weights + 8 * length * size**2, 4 * length**2 * size


def flops_per_rollout_step(config: ModelConfig) -> int:
    """Multiplications and additions in the matrix products of a rollout's supervision step."""
    blocks = config.H_cycles * (config.L_cycles + 1) * config.num_layers
    heads = 2 * config.seq_len * config.hidden_size * config.vocab_size
    return blocks * sum(_flops_per_block(config)) + heads


def flops_per_energy_gradient(config: ModelConfig) -> int:
    """The same for a gradient of the Langevin energy: one latent recursion, forward and backward.

    The weights get no gradient, so the backward pass costs as much as the forward pass in products
    with weights, and twice as much in products of two activations.
    """
    weights, activations = _flops_per_block(config)
    return (config.L_cycles + 1) * config.num_layers * (2 * weights + 3 * activations)
