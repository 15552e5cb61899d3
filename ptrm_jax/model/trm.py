"""The Tiny Recursive Model in Flax Linen, written for ONE rollout of one puzzle.

Batch these functions with `jax.vmap`. States may also have lanes between positions and channels,
[L, ..., C]: derivatives use this form, because under vmap the products of a gradient are split into
one small product per lane.

Shape letters: S tokens, P prefix positions, L = P + S positions, C channels (upstream hidden_size
h), V vocabulary, M inner width.

Source: TRM, arXiv 2510.04871, and upstream `models/recursive_reasoning/trm.py`,
`models/layers.py`. Upstream's z_H is the paper's answer embedding y, z_L its latent z.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from ptrm_jax.config import Arrangement, ModelConfig, Precision
from ptrm_jax.model.products import contract, gated, gated_by, product, rounded

Params = Any  # nested dict of float32 arrays, the layout of `TRM.init(...)["params"]`

_KERNEL_INIT = nn.initializers.lecun_normal()  # truncated, standard deviation 1 / sqrt(fan in)


def _truncated_normal(stddev: float) -> nn.initializers.Initializer:
    """Normal truncated at two deviations; `stddev` is the one after truncation, as upstream."""
    return nn.initializers.truncated_normal(stddev / 0.87962566103423978)


class Carry(NamedTuple):
    """State between supervision steps, in the compute dtype.

    Attributes:
      y: [L, C], answer embedding (upstream z_H).
      z: [L, C], reasoning latent (upstream z_L).
    """

    y: jax.Array
    z: jax.Array


class Heads(NamedTuple):
    """Outputs of the heads, which read y.

    Attributes:
      logits: [S, V] in the compute dtype; the answer is their argmax, ties to the lowest token.
      q_logits: [2] float32; index 0 is the halt logit (the Q of PTRM), 1 the continue logit,
        untrained in upstream's default recipe.
    """

    logits: jax.Array
    q_logits: jax.Array


def parameter(
    module: nn.Module, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """`module.param`, without tracing the initializer of a parameter that is there.

    Flax traces it at every application, only to compare shapes, and tracing truncated normals is
    slow.

    Args:
      module: whose parameter it is.
      name: of the parameter.
      init: its initializer.
      shape: its shape.

    Returns:
      The parameter, `shape`; float32 where it is initialised, otherwise as it was given.

    Raises:
      flax.errors.ScopeParamShapeError: the parameter that is there has another shape.
      flax.errors.ScopeParamNotFoundError: it is not there, and may not be initialised.
    """
    if module.has_variable("params", name):
        value: jax.Array = module.get_variable("params", name)
        if jnp.shape(value) == shape:
            return value
    return module.param(name, init, shape, jnp.float32)


def rms_norm(x: jax.Array, eps: float, axis: int) -> jax.Array:
    """RMS norm without weights over `axis`, computed in float32, returned in x's dtype."""
    x32 = x.astype(jnp.float32)
    mean_square = jnp.mean(jnp.square(x32), axis=axis, keepdims=True)
    return rounded((x32 * lax.rsqrt(mean_square + eps)).astype(x.dtype))


def rotary(x: jax.Array, theta: float) -> jax.Array:
    """Rotate-half rotary encoding of x [L, heads, head_dim], in float32, returned in x's dtype."""
    length, _, dim = x.shape
    inv_freq = 1.0 / theta ** (jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angle = jnp.outer(jnp.arange(length, dtype=jnp.float32), inv_freq)
    cos, sin = (jnp.tile(f(angle), (1, 2))[:, None, :] for f in (jnp.cos, jnp.sin))
    x32 = x.astype(jnp.float32)
    low, high = jnp.split(x32, 2, axis=-1)
    rotated = x32 * cos + jnp.concatenate([-high, low], axis=-1) * sin
    return rounded(rotated.astype(x.dtype))


class Linear(nn.Module):
    """Product with a [in, out] kernel over the first (0) or the last (-1) axis of x.

    In float32 `axis=0` mixes positions without a transpose: with lanes it is one plain matrix
    product [out, in] x [in, lanes * C].
    """

    features: int
    precision: Precision
    use_bias: bool = False
    axis: int = -1
    dtype: Any = None
    kernel_init: Any = _KERNEL_INIT
    bias_init: Any = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype = self.dtype or self.precision.dtype
        shape = (x.shape[self.axis], self.features)
        kernel = parameter(self, "kernel", self.kernel_init, shape)
        out = contract(x.astype(dtype), kernel.astype(dtype), self.axis, self.precision.matmul)
        if self.use_bias:
            bias = parameter(self, "bias", self.bias_init, (self.features,))
            bias = bias.astype(dtype).astype(jnp.float32)
            out = out + jnp.broadcast_to(bias, out.shape)
        return rounded(out.astype(dtype))


class Embedding(nn.Module):
    """A float32 table; look-ups are cast to `dtype`.

    (`flax.linen.Embed` cannot look up a scalar in a table of one row.)
    """

    num_rows: int
    features: int
    dtype: Any
    init: Any

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        table = parameter(self, "embedding", self.init, (self.num_rows, self.features))
        return table[ids].astype(self.dtype)  # cast last: a table may have a million rows


class Halves(nn.Module):
    """Products with the two halves of a `Linear` kernel, float32: what reads each can be fused."""

    features: int
    precision: Precision
    axis: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        shape = (x.shape[self.axis], self.features)
        kernel = parameter(self, "kernel", _KERNEL_INIT, shape).astype(x.dtype)
        first, second = (
            contract(x, half, self.axis, self.precision.matmul)
            for half in jnp.split(kernel, 2, axis=1)
        )
        return first, second


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)) over one axis; one fused projection, gate first."""

    width: int
    precision: Precision
    axis: int = -1
    arrangement: Arrangement = "cpu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        linear = functools.partial(Linear, precision=self.precision, axis=self.axis)
        features = 2 * self.width
        if self.arrangement == "cpu":
            inner = gated(linear(features, name="gate_up_proj")(x), self.axis)
        else:
            halves = Halves(features, self.precision, self.axis, name="gate_up_proj")
            inner = gated_by(*halves(x), x.dtype)
        return linear(x.shape[self.axis], name="down_proj")(inner)


_SCORES_ON_CHIP = 32 * 2**20
"""Bytes of attention scores that an accelerator's program computes together.

They stay in on-chip memory, of which the smallest TPU here has 128 MiB, instead of going to main
memory and back three times."""


class Attention(nn.Module):
    """Full (not causal, unmasked) self-attention; prefix and padding attend like tokens."""

    config: ModelConfig
    precision: Precision
    arrangement: Arrangement = "cpu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg, prec = self.config, self.precision
        qkv = Linear(3 * cfg.hidden_size, prec, name="qkv_proj")(x)
        if self.arrangement == "accelerator" and x.ndim == 3:
            attended = self._attend_in_groups(qkv)
        else:
            attend = self._attend
            for _ in range(x.ndim - 2):  # each lane attends to itself alone
                attend = jax.vmap(attend, in_axes=1, out_axes=1)
            attended = attend(qkv)
        return Linear(cfg.hidden_size, prec, name="o_proj")(attended)

    def _attend_in_groups(self, qkv: jax.Array) -> jax.Array:
        """Weighted values [L, T, C] from [L, T, 3 C], as many lanes together as fit on the chip."""
        num_lanes = qkv.shape[1]
        most = max(1, _SCORES_ON_CHIP // (4 * self.config.num_heads * self.config.length**2))
        size = max(n for n in range(1, min(most, num_lanes) + 1) if num_lanes % n == 0)
        if size == num_lanes:
            return jax.vmap(self._attend, in_axes=1, out_axes=1)(qkv)
        groups = jnp.swapaxes(qkv, 0, 1).reshape(-1, size, qkv.shape[0], qkv.shape[2])
        out = lax.map(jax.vmap(self._attend), groups)
        return jnp.swapaxes(out.reshape(num_lanes, *out.shape[2:]), 0, 1)

    def _attend(self, qkv: jax.Array) -> jax.Array:
        """Weighted values [L, C] from the fused projection [L, 3 C] of one rollout."""
        cfg, prec = self.config, self.precision
        # Fused rows are ordered [q heads | k heads | v heads], upstream layers.py.
        q, k, v = jnp.split(qkv.reshape(cfg.length, 3 * cfg.num_heads, cfg.head_dim), 3, axis=1)
        if cfg.positions == "rope":
            q, k = rotary(q, cfg.rope_theta), rotary(k, cfg.rope_theta)
        # [L, heads, head_dim] each: heads are a batch axis, which dot_general puts first.
        scores = product(q, k, "lhd,mhd->hlm", prec.matmul)
        weights = jax.nn.softmax(scores / math.sqrt(cfg.head_dim), axis=-1).astype(qkv.dtype)
        out = product(rounded(weights), v, "hlm,mhd->hld", prec.matmul)
        out = jnp.swapaxes(out, 0, 1)  # [L, heads, head_dim]
        return rounded(out.astype(qkv.dtype)).reshape(cfg.length, cfg.hidden_size)


class Block(nn.Module):
    """One post-norm block of f: x [L, ..., C] -> [L, ..., C]."""

    config: ModelConfig
    precision: Precision
    arrangement: Arrangement = "cpu"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg, prec, arranged = self.config, self.precision, self.arrangement
        if cfg.variant == "mlp_t":
            mixed = SwiGLU(cfg.mlp_t_width, prec, 0, arranged, name="mlp_t")(x)
            # Upstream transposes and norms the last axis: the mean runs over positions.
            x = rms_norm(rounded(x + mixed), cfg.rms_norm_eps, axis=0)
        else:
            mixed = Attention(cfg, prec, arranged, name="self_attn")(x)
            x = rms_norm(rounded(x + mixed), cfg.rms_norm_eps, axis=-1)
        mixed = SwiGLU(cfg.mlp_width, prec, -1, arranged, name="mlp")(x)
        return rms_norm(rounded(x + mixed), cfg.rms_norm_eps, axis=-1)


class Network(nn.Module):
    """The network f(s, injection): adds the injection once, then applies every block."""

    config: ModelConfig
    precision: Precision
    arrangement: Arrangement = "cpu"

    def setup(self) -> None:
        block = functools.partial(Block, self.config, self.precision, self.arrangement)
        self.layers = [block() for _ in range(self.config.num_layers)]

    def __call__(self, s: jax.Array, injection: jax.Array) -> jax.Array:
        s = rounded(s + injection)
        for layer in self.layers:
            s = layer(s)
        return s

    def block(self, x: jax.Array, i: int) -> jax.Array:
        """Block i alone, for layer-by-layer parity."""
        return self.layers[i](x)


def recur(
    f: Callable[[jax.Array, jax.Array], jax.Array],
    carry: Carry,
    x: jax.Array,
    H_cycles: int,
    L_cycles: int,
) -> Carry:
    """One deep recursion without noise: H_cycles x {L_cycles x z = f(z, y + x); y = f(y, z)}.

    Works on one rollout ([L, C]) and on lanes ([L, T, C], with f a vmap over axis 1). The loops
    stay outside the vmap, which would move the lane axis of their carry to the front and so
    transpose every position mixing.

    Args:
      f: the network.
      carry: y and z.
      x: input embedding, in the layout of the carry.
      H_cycles: latent recursions, T.
      L_cycles: updates of z in each, n.

    Source: TRM Figure 3, upstream `TinyRecursiveReasoningModel_ACTV1_Inner.forward`.
    """

    # Rolled loops: the size and the compile time of the program do not grow with the cycles. XLA
    # does not fuse across a loop either, so every program that calls this gets the same bits;
    # except with one H cycle, where XLA inlines the loop.
    def latent_recursion(carry: Carry, _: None) -> tuple[Carry, None]:
        y, z = carry
        injection = rounded(y + x)
        z, _ = lax.scan(lambda z, _: (f(z, injection), None), z, length=L_cycles)
        return Carry(f(y, z), z), None

    carry, _ = lax.scan(latent_recursion, carry, length=H_cycles)
    return carry


class TRM(nn.Module):
    """A Tiny Recursive Model for one rollout; hashable, so it is a static argument under jit.

    Its parts are methods, called as `model.apply({"params": params}, ..., method=TRM.f)`; `recur`
    combines them, and `ptrm_jax.solve` runs batches.

    Attributes:
      config: the architecture.
      precision: compute dtype and matmul precision.
      arrangement: how the program is written; None is "cpu", except in `mesh`, which chooses by the
        devices.
    """

    config: ModelConfig
    precision: Precision = Precision()
    arrangement: Arrangement | None = None

    def setup(self) -> None:
        cfg, prec = self.config, self.precision
        arrangement = self.arrangement or "cpu"
        init = _truncated_normal(1.0)
        # Embeddings are scaled by sqrt(C) after the look-up, so they start at 1 / sqrt(C).
        scaled = _truncated_normal(1.0 / math.sqrt(cfg.hidden_size))
        self.embed_tokens = Embedding(cfg.vocab_size, cfg.hidden_size, prec.dtype, scaled)
        if cfg.prefix_len:
            self.puzzle_emb = Embedding(
                cfg.num_puzzle_identifiers,
                cfg.puzzle_emb_ndim,
                prec.dtype,
                nn.initializers.zeros,  # as upstream
            )
        if cfg.positions == "learned":
            self.embed_pos = Embedding(cfg.length, cfg.hidden_size, prec.dtype, scaled)
        self.H_init = parameter(self, "H_init", init, (cfg.hidden_size,))
        self.L_init = parameter(self, "L_init", init, (cfg.hidden_size,))
        products = prec if arrangement == "cpu" else prec.in_one_pass
        self.network = Network(cfg, products, arrangement)
        self.lm_head = Linear(cfg.vocab_size, products)
        # As upstream: every Q logit starts at -5, so that nothing halts before it has been trained.
        self.q_head = Linear(
            2,
            prec.unrounded,
            use_bias=True,
            dtype=prec.q_head_dtype,
            kernel_init=nn.initializers.zeros,
            bias_init=nn.initializers.constant(-5.0),
        )
        if cfg.q_pooling == "attention":  # initialised to the mean over positions
            zeros = nn.initializers.zeros
            self.q_query = parameter(self, "q_query", zeros, (cfg.hidden_size,))

    def __call__(self, inputs: jax.Array, puzzle_identifier: jax.Array) -> Heads:
        """Calls every part once, so that `init` creates every parameter; `recur` is the algorithm.

        Args:
          inputs: [S] int32 tokens.
          puzzle_identifier: [] int32 row of the puzzle embedding.
        """
        x = self.embed(inputs, puzzle_identifier)
        return self.heads(self.f(self.initial_carry().y, x))

    def embed(self, inputs: jax.Array, puzzle_identifier: jax.Array) -> jax.Array:
        """Scaled input embedding x [L, C] in the compute dtype, prefix first.

        Args:
          inputs: [S] int32 tokens.
          puzzle_identifier: [] int32 row of the puzzle embedding.
        """
        cfg, dtype = self.config, self.precision.dtype
        x = self.embed_tokens(inputs)
        if cfg.prefix_len:
            row = self.puzzle_emb(puzzle_identifier)
            row = jnp.pad(row, (0, cfg.prefix_len * cfg.hidden_size - cfg.puzzle_emb_ndim))
            x = jnp.concatenate([row.reshape(cfg.prefix_len, cfg.hidden_size), x])
        # PyTorch multiplies a bfloat16 tensor by a float scalar in float32 and rounds once.
        if cfg.positions == "learned":
            x = rounded(x + self.embed_pos(jnp.arange(cfg.length)))
            x = rounded((x.astype(jnp.float32) * 0.707106781).astype(dtype))
        return rounded((x.astype(jnp.float32) * math.sqrt(cfg.hidden_size)).astype(dtype))

    def initial_carry(self) -> Carry:
        """H_init and L_init at every position: y and z, [L, C] each."""
        cfg, dtype = self.config, self.precision.dtype
        shape = (cfg.length, cfg.hidden_size)
        return Carry(
            y=jnp.broadcast_to(self.H_init.astype(dtype), shape),
            z=jnp.broadcast_to(self.L_init.astype(dtype), shape),
        )

    def f(self, s: jax.Array, injection: jax.Array) -> jax.Array:
        """The network: s [L, ..., C], injection [L, ..., C] -> [L, ..., C]."""
        return self.network(s, injection)

    def heads(self, y: jax.Array) -> Heads:
        """Output logits of the tokens, [S, ..., V], and Q logits, [..., 2].

        Args:
          y: [L, ..., C].
        """
        return Heads(
            logits=self.lm_head(y)[self.config.prefix_len :],
            q_logits=self.q_logits(y),
        )

    def q_logits(self, y: jax.Array) -> jax.Array:
        """Q logits, [..., 2] float32, read from the first position or from pooled positions.

        The pooled state is sum_l w_l y_l, w = softmax_l(y_l . q_query / sqrt(C)), in float32.

        Args:
          y: [L, ..., C].

        Source: upstream `trm.py` for "first"; "attention" is ours.
        """
        if self.config.q_pooling == "first":
            return self.q_head(y[0]).astype(jnp.float32)
        query = self.q_query.astype(self.precision.q_head_dtype).astype(jnp.float32)
        y32 = y.astype(jnp.float32)
        scores = jnp.sum(y32 * jnp.broadcast_to(query, y.shape), axis=-1, keepdims=True)
        weights = jax.nn.softmax(scores / math.sqrt(self.config.hidden_size), axis=0)
        return self.q_head(jnp.sum(weights * y32, axis=0)).astype(jnp.float32)

    def block(self, x: jax.Array, i: int) -> jax.Array:
        """Block i of the network alone, x [L, C]; for layer-by-layer parity."""
        return self.network.block(x, i)


def init_params(model: TRM, key: jax.Array) -> Params:
    """Freshly initialised parameters: a nested dict of float32 arrays. Consumes `key`."""
    return _init_params(model, key)


@functools.partial(jax.jit, static_argnames="model")  # one program, not one for every parameter
def _init_params(model: TRM, key: jax.Array) -> Params:
    inputs = jnp.zeros((model.config.seq_len,), jnp.int32)
    return model.init(key, inputs, jnp.zeros((), jnp.int32))["params"]


def param_shapes(model: TRM) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every parameter by path ("network/layers_0/mlp/..."); computes nothing."""
    tree = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(path: Any) -> str:
    """Key path of a nested dict as "a/b/c"."""
    return "/".join(str(entry.key) for entry in path)
