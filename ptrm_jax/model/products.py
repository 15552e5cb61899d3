"""Products and gates whose derivatives are written by hand, and where bfloat16 is rounded.

The derivatives that JAX would make are several times slower on a CPU, where XLA copies operands or
runs bfloat16 products in float32; the comments say which forms it runs well.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax


def rounded(x: jax.Array) -> jax.Array:
    """x, rounded to its dtype at this point.

    XLA may keep intermediate bfloat16 results of fused operations in float32. PyTorch rounds after
    every operation, and a chaotic recursion amplifies the difference.
    """
    if x.dtype == jnp.bfloat16:
        return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return x


def silu(x: jax.Array) -> jax.Array:
    """x / (1 + exp(-x)): PyTorch's formula, in float32, rounded once to x's dtype.

    `jax.nn.silu` differs from it in the last bits, and is slower on a CPU.
    """
    x32 = x.astype(jnp.float32)
    return (x32 / (1.0 + jnp.exp(-x32))).astype(x.dtype)


def gated_by(gate: jax.Array, up: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """silu(gate) * up in `dtype`, of separate float32 arrays, for accelerators.

    Rounds to the values of `dtype` where `gated` does, but in float32: a TPU's products that write
    bfloat16 take up to five times as long. `logistic` is one instruction there, the division in
    `silu` a dozen.
    """

    def as_dtype(x: jax.Array) -> jax.Array:
        if dtype == jnp.bfloat16:
            return lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
        return x

    gate, up = as_dtype(gate), as_dtype(up)
    return as_dtype(as_dtype(gate * lax.logistic(gate)) * up).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def gated(x: jax.Array, axis: int) -> jax.Array:
    """silu(gate) * up; x holds the gate half and then the up half along `axis`."""
    gate, up = jnp.split(x, 2, axis=axis)
    return rounded(rounded(silu(gate)) * up)


def _gated_fwd(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    return gated(x, axis), x


def _gated_bwd(axis: int, x: jax.Array, g: jax.Array) -> tuple[jax.Array]:
    # One pass over x with one exponential; the automatic derivative takes several.
    gate, up = jnp.split(x.astype(jnp.float32), 2, axis=axis)
    g = g.astype(jnp.float32)
    sigmoid = 1.0 / (1.0 + jnp.exp(-gate))
    silu = gate * sigmoid
    halves = (g * up * (sigmoid + silu * (1.0 - sigmoid)), g * silu)
    return (jnp.concatenate(halves, axis=axis).astype(x.dtype),)


gated.defvjp(_gated_fwd, _gated_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def contract(x: jax.Array, kernel: jax.Array, axis: int, precision: str) -> jax.Array:
    """Product with a [in, out] kernel over the first or the last axis of x.

    Args:
      x: [L, ..., C] in the compute dtype.
      kernel: [in, out], the same dtype.
      axis: 0 or -1.
      precision: as `Precision.matmul`.

    Returns:
      float32, in which every dtype is accumulated. For a bfloat16 result XLA's CPU backend does not
      use the processor's bfloat16 instructions, and the result differs from PyTorch's.
    """
    dot = _dot(precision)
    x, kernel = _operand(x, precision), _operand(kernel, precision)
    if axis == -1:
        return dot(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))
    if precision == "bfloat16":
        return dot(_transposed(kernel), x, (((1,), (0,)), ((), ())))
    if x.dtype == jnp.float32:  # without a transpose
        return dot(kernel, x, (((0,), (0,)), ((), ())))
    # XLA's CPU backend cannot run the form above in bfloat16.
    return jnp.moveaxis(dot(x, kernel, (((0,), (0,)), ((), ()))), -1, 0)


def _dot(precision: str) -> Callable[..., jax.Array]:
    return functools.partial(
        lax.dot_general,
        precision="default" if precision == "bfloat16" else precision,
        preferred_element_type=jnp.float32,
    )


def _operand(x: jax.Array, precision: str) -> jax.Array:
    return x.astype(jnp.bfloat16) if precision == "bfloat16" else x


def _transposed(x: jax.Array) -> jax.Array:
    """x.T of a matrix, computed in two halves.

    XLA would fuse a single transpose into the product that reads it. Its CPU backend widens such a
    bfloat16 product to float32, at half the speed, or cannot run it.
    """
    half = x.shape[0] // 2
    return jnp.concatenate([x[:half].T, x[half:].T], axis=1)


def _contract_fwd(
    x: jax.Array, kernel: jax.Array, axis: int, precision: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    saved = _operand(x, precision), _operand(kernel, precision)
    return contract(x, kernel, axis, precision), saved


def _contract_bwd(
    axis: int, precision: str, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    # JAX's own derivative puts the positions last, and XLA then copies every operand.
    x, kernel = saved
    g = g.astype(x.dtype)
    dx = contract(g, kernel.T, axis, precision)
    if precision == "bfloat16":
        return dx, _rounded_dkernel(x, g, axis)
    if x.dtype == jnp.float32:
        summed = tuple(range(x.ndim - 1) if axis == -1 else range(1, x.ndim))
        dkernel = _dot(precision)(x, g, ((summed, summed), ((), ())))
    else:  # two plain matrices: the only bfloat16 form that XLA's CPU backend runs well
        rows, columns = (jnp.moveaxis(a, axis, -1).reshape(-1, a.shape[axis]) for a in (x, g))
        dkernel = _dot(precision)(rows.T, columns, (((1,), (0,)), ((), ())))
    return rounded(dx.astype(x.dtype)), rounded(dkernel.astype(kernel.dtype))


contract.defvjp(_contract_fwd, _contract_bwd)


def _rounded_dkernel(x: jax.Array, g: jax.Array, axis: int) -> jax.Array:
    """Gradient of a kernel, [in, out] float32, from bfloat16 x and g.

    Transposes the narrower of the two in memory; over positions, neither.
    """
    dot = _dot("bfloat16")
    if axis == 0:
        x, g = (a.reshape(a.shape[0], -1) for a in (x, g))
        return dot(x, g, (((1,), (1,)), ((), ())))
    x, g = (a.reshape(-1, a.shape[-1]) for a in (x, g))
    if x.shape[1] <= g.shape[1]:
        return dot(_transposed(x), g, (((1,), (0,)), ((), ())))
    return _transposed(dot(_transposed(g), x, (((1,), (0,)), ((), ()))))


def product(a: jax.Array, b: jax.Array, subscripts: str, precision: str) -> jax.Array:
    """`jnp.einsum` with batch axes, accumulated and returned in float32.

    XLA's CPU backend does not support such products of bfloat16; there the operands are widened to
    float32, in which the product of two bfloat16 numbers is exact.
    """
    if precision == "bfloat16":
        return _rounded_product(a, b, subscripts)
    dot = functools.partial(
        jnp.einsum, subscripts, precision=precision, preferred_element_type=jnp.float32
    )
    if a.dtype == jnp.float32:
        return dot(a, b)
    return lax.platform_dependent(
        a, b, cpu=lambda a, b: dot(a.astype(jnp.float32), b.astype(jnp.float32)), default=dot
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _rounded_product(a: jax.Array, b: jax.Array, subscripts: str) -> jax.Array:
    """`product` with operands rounded to bfloat16, in the derivative too."""
    a, b = (rounded(x.astype(jnp.bfloat16)) for x in (a, b))
    return product(a, b, subscripts, "default")


def _rounded_product_fwd(
    a: jax.Array, b: jax.Array, subscripts: str
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _rounded_product(a, b, subscripts), (a, b)


def _rounded_product_bwd(
    subscripts: str, saved: tuple[jax.Array, jax.Array], g: jax.Array
) -> tuple[jax.Array, jax.Array]:
    a, b = saved
    operands, of_g = subscripts.split("->")
    of_a, of_b = operands.split(",")
    return (
        _rounded_product(g, b, f"{of_g},{of_b}->{of_a}"),
        _rounded_product(a, g, f"{of_a},{of_g}->{of_b}"),
    )


_rounded_product.defvjp(_rounded_product_fwd, _rounded_product_bwd)
