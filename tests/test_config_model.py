"""Settings, and the network against its formulas in NumPy float64."""

import dataclasses
import functools
import itertools
import json
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import small_model
from flax.errors import ScopeParamNotFoundError, ScopeParamShapeError

from ptrm_jax import (
    TRM,
    Carry,
    ModelConfig,
    Precision,
    Save,
    deep_recursion,
    initial_carry,
    make_puzzles,
)
from ptrm_jax.config import Langevin, LoopSettings, check_int, swiglu_width
from ptrm_jax.errors import InputError
from ptrm_jax.model import (
    Attention,
    Linear,
    SwiGLU,
    flops_per_energy_gradient,
    flops_per_rollout_step,
    init_params,
    param_shapes,
    recur,
    rms_norm,
    rotary,
)

MLP_T: dict[str, Any] = {
    "vocab_size": 7,
    "seq_len": 16,
    "hidden_size": 32,
    "num_layers": 2,
    "H_cycles": 2,
    "L_cycles": 3,
    "mlp_width": 24,
    "variant": "mlp_t",
    "mlp_t_width": 20,
    "prefix_len": 2,
    "puzzle_emb_ndim": 40,
    "num_puzzle_identifiers": 5,
}
ATTENTION = MLP_T | {
    "variant": "attention",
    "mlp_t_width": 0,
    "num_heads": 4,
    "positions": "rope",
}
NO_PREFIX = {"prefix_len": 0, "puzzle_emb_ndim": 0, "num_puzzle_identifiers": 1}
BFLOAT16 = Precision("bfloat16")
ROUNDED = Precision(matmul="bfloat16")
VARIANTS = pytest.mark.parametrize("fields", [MLP_T, ATTENTION], ids=["mlp_t", "attention"])


def make_model(
    fields: dict[str, Any], precision: Precision | None = None, seed: int = 0
) -> tuple[TRM, dict[str, Any]]:
    """A model with random float32 parameters in NumPy, none constant; kernels keep the scale."""
    model = TRM(ModelConfig(**fields), precision or Precision())
    rng = np.random.default_rng(seed)
    params: dict[str, Any] = {}
    for name, leaf in param_shapes(model).items():
        *folders, last = name.split("/")
        node = params
        for folder in folders:
            node = node.setdefault(folder, {})
        scale = leaf.shape[0] ** -0.5 if last == "kernel" else 1.0
        node[last] = scale * rng.standard_normal(leaf.shape, np.float32)
        node[last] = node[last].astype(np.float32)
    return model, params


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# --- ModelConfig ---------------------------------------------------------------------------------

COUNTS = "vocab_size seq_len hidden_size num_layers H_cycles L_cycles mlp_width num_heads".split()
COUNTS.append("num_puzzle_identifiers")
SIZES = ("mlp_t_width", "prefix_len", "puzzle_emb_ndim")
INVALID = [
    *((name, value) for name in COUNTS for value in (0, -1, 2.0, "3", True, None)),
    *((name, value) for name in SIZES for value in (-1, 1.0, "1", False, None)),
    *((name, value) for name in ("variant", "positions") for value in ("conv", "", None, 1)),
    *(("forward_dtype", value) for value in ("float16", "float64", jnp.float32, None)),
    *(("q_pooling", value) for value in ("mean", "", None)),
    *(
        (name, value)
        for name in ("rms_norm_eps", "rope_theta")
        for value in (0.0, -1e-5, math.nan, math.inf, "1e-5", None)
    ),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_an_invalid_field_is_named_with_its_value(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^invalid ModelConfig: ") as caught:
        ModelConfig(**ATTENTION | {name: value})
    problem = str(caught.value).removeprefix("invalid ModelConfig: ")
    assert problem.startswith(f"{name} must be ")
    assert problem.endswith(f"; got {value!r}")
    assert problem.count("; ") == 1  # the one before "got"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (MLP_T | {"mlp_t_width": 0}, ("mlp_t_width must be >= 1", "'mlp_t'")),
        (ATTENTION | {"mlp_t_width": 20}, ("mlp_t_width must be 0", "'attention'", "got 20")),
        (ATTENTION | {"num_heads": 5}, ("num_heads (5) must divide hidden_size (32)",)),
        (ATTENTION | {"num_heads": 32}, ("even head size", "got 1")),
        (MLP_T | {"prefix_len": 0}, ("prefix_len and puzzle_emb_ndim", "got 0 and 40")),
        (MLP_T | {"puzzle_emb_ndim": 0}, ("prefix_len and puzzle_emb_ndim", "got 2 and 0")),
        (MLP_T | {"puzzle_emb_ndim": 65}, ("puzzle_emb_ndim (65)", "(2 * 32)")),
    ],
)
def test_a_contradiction_names_both_sides(fields: dict[str, Any], says: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"^invalid ModelConfig: ") as caught:
        ModelConfig(**fields)
    assert [words for words in says if words not in str(caught.value)] == []


@pytest.mark.parametrize(
    "fields",
    [
        MLP_T | {"puzzle_emb_ndim": 64},
        MLP_T | {"puzzle_emb_ndim": 1},
        MLP_T | {"num_heads": 5, "positions": "rope"},  # stored, unused
        ATTENTION | {"num_heads": 32, "positions": "none"},
        ATTENTION | {"num_heads": 16},
        MLP_T | {"rms_norm_eps": 1, "rope_theta": 1},
    ],
)
def test_the_edge_of_a_contradiction_is_accepted(fields: dict[str, Any]) -> None:
    assert ModelConfig(**fields).to_dict().items() >= fields.items()


@pytest.mark.parametrize(
    ("bad", "rule"),
    [
        (
            {"vocab_size": 0, "prefix_len": -1, "variant": "conv", "rope_theta": 0}
            | {"num_heads": 1.5},
            "{} must be ",
        ),
        ({"mlp_t_width": 9, "num_heads": 5, "puzzle_emb_ndim": 0}, "{}"),
    ],
)
def test_every_problem_is_named_at_once(bad: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValueError) as caught:
        ModelConfig(**ATTENTION | bad)
    assert [name for name in bad if rule.format(name) not in str(caught.value)] == []


def test_config_survives_json_and_is_hashable() -> None:
    odd = {"rms_norm_eps": 0.1 + 0.2, "rope_theta": 1e6 / 3}
    for fields in (MLP_T, ATTENTION, MLP_T | odd, MLP_T | {"q_pooling": "attention"}):
        config = ModelConfig(**fields)
        again = ModelConfig.from_dict(json.loads(config.to_json()))
        assert again == config
        assert hash(again) == hash(config)
        assert again.to_json() == config.to_json()
        assert again != dataclasses.replace(config, vocab_size=8)


def test_config_is_frozen() -> None:
    config = ModelConfig(**MLP_T)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seq_len = 4  # type: ignore[misc]
    with pytest.raises(ValueError, match="seq_len"):
        dataclasses.replace(config, seq_len=0)


def test_integers_of_numpy_become_pythons_or_are_answered_with_the_remedy() -> None:
    config = ModelConfig(**MLP_T | {"seq_len": np.int64(16)})
    loop = LoopSettings(depth=np.int32(3), langevin=Langevin(np.uint8(2), 0.1))
    assert loop.langevin is not None
    for value in (config.seq_len, loop.depth, loop.langevin.num_updates):
        assert type(value) is int
    json.dumps(config.to_dict())
    with pytest.raises(InputError, match=r">= 1; got np.int64\(3\); pass int\(rollouts"):
        check_int("rollouts", np.int64(3), 1)


@pytest.mark.parametrize(
    ("unknown", "missing"),
    [
        (["dropout", "expansion"], ["seq_len", "variant"]),
        (["L_layers"], []),
        ([], ["H_cycles"]),
    ],
)
def test_from_dict_refuses_unknown_and_missing_fields_by_name(
    unknown: list[str], missing: list[str]
) -> None:
    fields = {name: value for name, value in MLP_T.items() if name not in missing}
    says = re.escape(f"unknown fields {unknown}, missing fields {missing}")
    with pytest.raises(ValueError, match=says):
        ModelConfig.from_dict(fields | dict.fromkeys(unknown, 2))


def test_from_dict_fills_in_defaults_and_checks_values() -> None:
    assert ModelConfig.from_dict(MLP_T) == ModelConfig(**MLP_T)
    with pytest.raises(ValueError, match="seq_len"):
        ModelConfig.from_dict(MLP_T | {"seq_len": 0})


def test_lengths_of_a_config() -> None:
    assert ModelConfig(**MLP_T).length == 18
    assert ModelConfig(**MLP_T | NO_PREFIX).length == 16
    assert ModelConfig(**ATTENTION).head_dim == 8


@pytest.mark.parametrize(
    ("size", "expansion", "width"),
    [
        (512, 4, 1536),  # 1365.3, the width of upstream's models
        (97, 4, 512),  # 258.7
        (81, 4, 256),  # 216
        (64, 4, 256),  # 170.7
        (96, 4, 256),  # 256 needs no rounding
        (192, 4, 512),
        (1, 1, 256),
        (769, 0.5, 256),  # 256.3 is rounded to 256 first
        (770, 0.5, 512),  # 256.7 is rounded to 257 first
    ],
)
def test_swiglu_width_is_rounded_up_to_a_multiple_of_256(
    size: int, expansion: float, width: int
) -> None:
    assert swiglu_width(size, expansion) == width


# --- Precision and Save --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *itertools.product(
            ("compute_dtype", "matmul", "q_dtype"), ("float16", "fastest", "", 32, jnp.float32)
        ),
        ("compute_dtype", None),
        ("matmul", None),
    ],
)
def test_precision_refuses_what_it_does_not_know(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be one of ") as caught:
        Precision(**{name: value})
    assert str(caught.value).endswith(f"got {value!r}")


def test_precision_gives_dtypes() -> None:
    assert Precision() == Precision("float32", "highest", q_dtype=None)
    assert Precision().dtype == Precision().q_head_dtype == jnp.float32
    assert BFLOAT16.dtype == BFLOAT16.q_head_dtype == jnp.bfloat16
    assert Precision("bfloat16", q_dtype="float32").q_head_dtype == jnp.float32
    assert Precision("float32", q_dtype="bfloat16").q_head_dtype == jnp.bfloat16
    assert len({Precision(), BFLOAT16, Precision("bfloat16")}) == 2
    assert ROUNDED.dtype == ROUNDED.q_head_dtype == jnp.float32
    assert Precision(matmul="bfloat16", q_dtype="bfloat16").q_head_dtype == jnp.bfloat16


def test_rounding_operands_that_are_bfloat16_anyway_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^matmul must not be 'bfloat16' with") as caught:
        Precision("bfloat16", "bfloat16")
    assert "; pass matmul 'highest', or compute_dtype 'float32'" in str(caught.value)


def test_save_keeps_nothing_unless_told() -> None:
    assert Save().nothing
    assert Save() == Save(answers=False, q_logits=False, latents=False)
    for name in ("answers", "q_logits", "latents"):
        assert not Save(**{name: True}).nothing
    assert hash(Save()) == hash(Save())


@pytest.mark.parametrize("name", ["answers", "q_logits", "latents"])
@pytest.mark.parametrize("value", ["no", None, 2])
def test_save_refuses_what_is_not_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=name):
        Save(**{name: value})


# --- Parameters ----------------------------------------------------------------------------------


def blocks(num_layers: int, kernels: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {
        f"network/layers_{i}/{name}/kernel": shape
        for i in range(num_layers)
        for name, shape in kernels.items()
    }


COMMON = {
    "H_init": (32,),
    "L_init": (32,),
    "embed_tokens/embedding": (7, 32),
    "lm_head/kernel": (32, 7),
    "q_head/kernel": (32, 2),
    "q_head/bias": (2,),
}
MLP = {"mlp/gate_up_proj": (32, 48), "mlp/down_proj": (24, 32)}
SELF_ATTN = {"self_attn/qkv_proj": (32, 96), "self_attn/o_proj": (32, 32)}


def mlp_t(length: int) -> dict[str, tuple[int, ...]]:
    return {"mlp_t/gate_up_proj": (length, 40), "mlp_t/down_proj": (20, length)}


SHAPES = {
    "mlp_t, no prefix": (MLP_T | NO_PREFIX, blocks(2, MLP | mlp_t(16))),
    "mlp_t, prefix of 1": (
        MLP_T | {"prefix_len": 1, "puzzle_emb_ndim": 32},
        blocks(2, MLP | mlp_t(17)) | {"puzzle_emb/embedding": (5, 32)},
    ),
    "mlp_t, padded prefix of 2": (
        MLP_T,
        blocks(2, MLP | mlp_t(18)) | {"puzzle_emb/embedding": (5, 40)},
    ),
    "mlp_t, learned positions": (
        MLP_T | {"positions": "learned", "num_layers": 1},
        blocks(1, MLP | mlp_t(18))
        | {"puzzle_emb/embedding": (5, 40), "embed_pos/embedding": (18, 32)},
    ),
    "attention, rope": (
        ATTENTION,
        blocks(2, MLP | SELF_ATTN) | {"puzzle_emb/embedding": (5, 40)},
    ),
    "attention, no positions, no prefix": (
        ATTENTION | NO_PREFIX | {"positions": "none"},
        blocks(2, MLP | SELF_ATTN),
    ),
    "attention, learned positions": (
        ATTENTION | NO_PREFIX | {"positions": "learned", "num_layers": 3},
        blocks(3, MLP | SELF_ATTN) | {"embed_pos/embedding": (16, 32)},
    ),
}


@pytest.mark.parametrize("precision", [Precision(), BFLOAT16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(("fields", "expected"), SHAPES.values(), ids=SHAPES)
def test_parameters_have_these_names_and_shapes_and_are_float32(
    fields: dict[str, Any], expected: dict[str, tuple[int, ...]], precision: Precision
) -> None:
    leaves = param_shapes(TRM(ModelConfig(**fields), precision))
    assert {name: leaf.shape for name, leaf in leaves.items()} == COMMON | expected
    assert {leaf.dtype for leaf in leaves.values()} == {np.dtype(np.float32)}


WIDE = ModelConfig(**MLP_T | {"hidden_size": 512, "num_layers": 1, "positions": "learned"})


@pytest.fixture(scope="module")
def fresh() -> dict[str, np.ndarray]:
    """A freshly initialised model, wide enough to estimate standard deviations to some percent."""
    params = jax.jit(init_params, static_argnums=0)(TRM(WIDE), jax.random.key(0))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(entry.key for entry in path): np.asarray(leaf) for path, leaf in leaves}


def test_a_fresh_q_head_says_minus_5_and_puzzle_embeddings_are_0(
    fresh: dict[str, np.ndarray],
) -> None:
    np.testing.assert_array_equal(fresh["q_head/bias"], [-5.0, -5.0])
    np.testing.assert_array_equal(fresh["q_head/kernel"], np.zeros((512, 2)))
    np.testing.assert_array_equal(fresh["puzzle_emb/embedding"], np.zeros((5, 40)))


@pytest.mark.parametrize(
    ("name", "std"),
    [
        ("lm_head/kernel", 512**-0.5),
        ("network/layers_0/mlp/gate_up_proj/kernel", 512**-0.5),
        ("network/layers_0/mlp/down_proj/kernel", 24**-0.5),
        ("network/layers_0/mlp_t/gate_up_proj/kernel", 18**-0.5),
        ("network/layers_0/mlp_t/down_proj/kernel", 20**-0.5),
        ("embed_tokens/embedding", 512**-0.5),
        ("embed_pos/embedding", 512**-0.5),
        ("H_init", 1.0),
        ("L_init", 1.0),
    ],
)
def test_fresh_parameters_have_upstreams_scale(
    name: str, std: float, fresh: dict[str, np.ndarray]
) -> None:
    """Upstream `trunc_normal_init_`: cut at two deviations, of this deviation after the cut."""
    leaf = fresh[name]
    four_errors = 4 / math.sqrt(2 * leaf.size)
    assert leaf.std() == pytest.approx(std, rel=four_errors)
    assert np.abs(leaf).max() < 2.3 * std


def test_an_initializer_is_traced_by_init_alone() -> None:
    """Applications take the parameter as it is, and refuse another shape as Flax does."""
    drawn = []

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        drawn.append(shape)
        return jnp.zeros(shape, dtype)

    linear = Linear(3, Precision(), kernel_init=init)
    params = linear.init(jax.random.key(0), jnp.ones((2, 4)))
    assert drawn == [(4, 3)]
    linear.apply(params, jnp.ones((2, 4)))
    assert drawn == [(4, 3)]
    with pytest.raises(ScopeParamShapeError):
        linear.apply(params, jnp.ones((2, 5)))
    with pytest.raises(ScopeParamNotFoundError):
        linear.apply({"params": {"other": jnp.ones(3)}}, jnp.ones((2, 4)))


# --- Norm and rotary encoding --------------------------------------------------------------------


def test_rms_norm_in_closed_form() -> None:
    x = np.array([1.0, -2.0, 3.0, 4.0], np.float32)
    # The mean square is 30 / 4; 0.5 more makes it 8.
    expected = x / math.sqrt(8)
    np.testing.assert_allclose(rms_norm(jnp.asarray(x), 0.5, -1), expected, rtol=1e-6)
    np.testing.assert_allclose(rms_norm(jnp.asarray(x[None]), 0.5, -1), expected[None], rtol=1e-6)


def test_rms_norm_over_positions() -> None:
    columns = np.array([[1.0, 2.0], [-2.0, 2.0], [3.0, 2.0], [4.0, 2.0]], np.float32)
    expected = columns / np.sqrt(np.array([8.0, 4.5]))
    np.testing.assert_allclose(rms_norm(jnp.asarray(columns), 0.5, 0), expected, rtol=1e-6)


def test_rms_norm_of_zeros_is_zero() -> None:
    np.testing.assert_array_equal(rms_norm(jnp.zeros((2, 4)), 1e-5, -1), np.zeros((2, 4)))


@pytest.mark.parametrize("axis", [0, -1])
def test_rms_norm_of_bfloat16_is_computed_in_float32_and_rounded_once(axis: int) -> None:
    x = jnp.asarray(normal(64, 64)).astype(jnp.bfloat16)
    wide = np.asarray(x, np.float64)
    expected = wide / np.sqrt(np.mean(wide**2, axis, keepdims=True) + 1e-5)
    got = rms_norm(x, 1e-5, axis)
    assert got.dtype == jnp.bfloat16
    # Rounding to 8 binary digits moves a number by at most 2 ** -8 of it; a rounded mean adds more.
    error = np.abs(np.asarray(got, np.float64) - expected) / np.abs(expected)
    assert error.max() < 2**-8 * 1.001


def rotate(x: np.ndarray, theta: float) -> np.ndarray:
    """Rotary encoding of x [L, heads, dim] by complex numbers x[j] + i x[j + dim / 2]."""
    length, _, dim = x.shape
    half = dim // 2
    speed = theta ** (-np.arange(half) / half)
    turn = np.exp(1j * np.arange(length)[:, None, None] * speed)
    turned = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([turned.real, turned.imag], -1)


def test_rotary_by_hand() -> None:
    """Two positions, one head of size 4, angles 1 and 0.01 radian at position 1.

    Halves are rotated together: elements 0 and 2 by the fast angle, 1 and 3 by the slow one.
    """
    x = np.array([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 2.0, 3.0, 4.0]]], np.float32)
    c, s, slow_c, slow_s = math.cos(1), math.sin(1), math.cos(0.01), math.sin(0.01)
    turned = [1 * c - 3 * s, 2 * slow_c - 4 * slow_s, 3 * c + 1 * s, 4 * slow_c + 2 * slow_s]
    got = rotary(jnp.asarray(x), 10000.0)
    np.testing.assert_array_equal(got[0], x[0])
    np.testing.assert_allclose(got[1, 0], turned, rtol=1e-6)


def test_rotary_against_complex_numbers() -> None:
    x = normal(18, 3, 8)
    expected = rotate(x.astype(np.float64), 500.0)
    np.testing.assert_allclose(rotary(jnp.asarray(x), 500.0), expected, atol=1e-5)


def test_rotary_keeps_norms_and_position_0() -> None:
    x = normal(18, 3, 8)
    got = np.asarray(rotary(jnp.asarray(x), 10000.0))
    np.testing.assert_array_equal(got[0], x[0])
    assert (np.abs(got[1:] - x[1:]).max(axis=(1, 2)) > 0.1).all()
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), np.linalg.norm(x, axis=-1), rtol=1e-5)


def test_rotary_products_depend_on_the_distance_only() -> None:
    q, k = (np.broadcast_to(normal(8, seed=seed), (18, 1, 8)) for seed in (1, 2))
    q, k = (np.asarray(rotary(jnp.asarray(x), 10000.0))[:, 0] for x in (q, k))
    products = q @ k.T
    by_distance = [np.diagonal(products, distance) for distance in range(-17, 18)]
    for diagonal in by_distance:
        np.testing.assert_allclose(diagonal, np.full_like(diagonal, diagonal[0]), atol=2e-5)
    assert np.ptp([diagonal[0] for diagonal in by_distance]) > 0.1


def test_rotary_of_bfloat16_is_computed_in_float32_and_rounded_once() -> None:
    x = jnp.asarray(normal(18, 3, 8)).astype(jnp.bfloat16)
    got = rotary(x, 10000.0)
    assert got.dtype == jnp.bfloat16
    expected = rotary(x.astype(jnp.float32), 10000.0).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


# --- Layers --------------------------------------------------------------------------------------


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


Matmul = Callable[[np.ndarray, np.ndarray], np.ndarray]


def rounded_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product in float64 of operands rounded to bfloat16."""
    return bfloat16(a).astype(np.float64) @ bfloat16(b).astype(np.float64)


def attention(
    x: np.ndarray,
    qkv: np.ndarray,
    out: np.ndarray,
    config: ModelConfig,
    matmul: Matmul = np.matmul,
) -> np.ndarray:
    """softmax(q k^T / sqrt(d)) v, head by head, then the output projection, in float64."""
    x, qkv, out = (array.astype(np.float64) for array in (x, qkv, out))
    channels, dim = config.hidden_size, config.head_dim
    heads = []
    for head in range(config.num_heads):
        columns = slice(head * dim, (head + 1) * dim)
        q, k, v = (matmul(x, qkv[:, i * channels :][:, columns]) for i in range(3))
        if config.positions == "rope":
            q, k = (rotate(a[:, None], config.rope_theta)[:, 0] for a in (q, k))
        heads.append(matmul(softmax(matmul(q, k.T) / math.sqrt(dim)), v))
    return matmul(np.concatenate(heads, -1), out)


@pytest.mark.parametrize("num_heads", [1, 4])
@pytest.mark.parametrize("positions", ["rope", "none"])
def test_attention_is_its_formula(positions: str, num_heads: int) -> None:
    config = ModelConfig(
        **ATTENTION | {"positions": positions, "num_heads": num_heads, "rope_theta": 100.0}
    )
    x, qkv, out = normal(18, 32), normal(32, 96, seed=1) / 5, normal(32, 32, seed=2) / 5
    params = {"qkv_proj": {"kernel": qkv}, "o_proj": {"kernel": out}}
    got = Attention(config, Precision()).apply({"params": params}, x)
    np.testing.assert_allclose(got, attention(x, qkv, out, config), atol=2e-5)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def swiglu(
    x: np.ndarray, gate_up: np.ndarray, down: np.ndarray, matmul: Matmul = np.matmul
) -> np.ndarray:
    gate, up = np.split(matmul(x.astype(np.float64), gate_up.astype(np.float64)), 2, axis=-1)
    return matmul(silu(gate) * up, down.astype(np.float64))


def apply_swiglu(width: int, axis: int, x: Any, gate_up: Any, down: Any) -> np.ndarray:
    params = {"gate_up_proj": {"kernel": gate_up}, "down_proj": {"kernel": down}}
    return np.asarray(SwiGLU(width, Precision(), axis=axis).apply({"params": params}, x))


def test_swiglu_gates_with_the_first_half() -> None:
    x, gate_up, down = (np.array(a, np.float32) for a in ([[2.0]], [[1.0, 10.0]], [[3.0]]))
    expected = 2 / (1 + math.exp(-2)) * 20 * 3
    np.testing.assert_allclose(apply_swiglu(1, -1, x, gate_up, down), [[expected]], rtol=1e-6)


def test_swiglu_over_positions_is_swiglu_of_the_transpose() -> None:
    x, gate_up, down = normal(18, 8), normal(18, 40, seed=1), normal(20, 18, seed=2)
    over_positions = apply_swiglu(20, 0, x, gate_up, down)
    np.testing.assert_allclose(
        over_positions, apply_swiglu(20, -1, x.T.copy(), gate_up, down).T, rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(over_positions, swiglu(x.T, gate_up, down).T, rtol=1e-5, atol=1e-4)


def test_linear_is_a_product_and_a_bias_over_either_axis() -> None:
    kernel, bias, x = normal(4, 3), normal(3, seed=1), normal(4, 5, seed=2)
    for axis, expected in ((0, kernel.T @ x), (-1, x.T @ kernel)):
        linear = Linear(3, Precision(), axis=axis)
        got = linear.apply({"params": {"kernel": kernel}}, x if axis == 0 else x.T)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    one = Linear(3, Precision(), use_bias=True)
    got = one.apply({"params": {"kernel": kernel, "bias": bias}}, x[:, 0])
    np.testing.assert_allclose(got, x[:, 0] @ kernel + bias, rtol=1e-5, atol=1e-6)


def norm(x: np.ndarray, eps: float, axis: int) -> np.ndarray:
    return x / np.sqrt(np.mean(x**2, axis, keepdims=True) + eps)


def network(
    params: dict[str, Any], config: ModelConfig, s: np.ndarray, matmul: Matmul = np.matmul
) -> np.ndarray:
    """The post-norm blocks of f on s + injection, in float64."""
    s = s.astype(np.float64)
    for i in range(config.num_layers):
        layer = params["network"][f"layers_{i}"]
        if config.variant == "mlp_t":
            kernels = (layer["mlp_t"][name]["kernel"] for name in ("gate_up_proj", "down_proj"))
            s = norm(s + swiglu(s.T, *kernels, matmul).T, config.rms_norm_eps, 0)
        else:
            kernels = (layer["self_attn"][name]["kernel"] for name in ("qkv_proj", "o_proj"))
            s = norm(s + attention(s, *kernels, config, matmul), config.rms_norm_eps, -1)
        kernels = (layer["mlp"][name]["kernel"] for name in ("gate_up_proj", "down_proj"))
        s = norm(s + swiglu(s, *kernels, matmul), config.rms_norm_eps, -1)
    return s


# A large eps shows that it is the config's that is used.
@pytest.mark.parametrize(
    "fields", [MLP_T | {"rms_norm_eps": 0.3}, ATTENTION | {"rms_norm_eps": 0.3}], ids=["t", "a"]
)
def test_the_network_is_its_formula(fields: dict[str, Any]) -> None:
    model, params = make_model(fields)
    s, injection = normal(18, 32), normal(18, 32, seed=1)
    got = model.apply({"params": params}, s, injection, method=TRM.f)
    np.testing.assert_allclose(got, network(params, model.config, s + injection), atol=2e-5)
    block = s
    for i in range(model.config.num_layers):
        block = model.apply({"params": params}, block, i, method=TRM.block)
    np.testing.assert_allclose(block, network(params, model.config, s), atol=2e-5)


@VARIANTS
@pytest.mark.parametrize("lanes", [False, True])
def test_matmul_bfloat16_is_the_formula_with_operands_rounded(
    lanes: bool, fields: dict[str, Any]
) -> None:
    """Elements on the edge between two bfloat16 numbers fall on either side; few do."""
    model, params = make_model(fields, ROUNDED)
    s, injection = normal(18, 3, 32), normal(18, 3, 32, seed=1)

    def f(s: jax.Array, injection: jax.Array) -> jax.Array:
        return model.apply({"params": params}, s, injection, method=TRM.f)

    got = jax.jit(f if lanes else jax.vmap(f, in_axes=1, out_axes=1))(s, injection)
    assert got.dtype == jnp.float32
    expected, exact = (
        np.stack([network(params, model.config, x, m) for x in np.moveaxis(s + injection, 1, 0)], 1)
        for m in (rounded_matmul, np.matmul)
    )
    error, effect = (np.linalg.norm(x - expected) for x in (got, exact))
    assert error < 0.2 * effect
    assert effect < 0.02 * np.linalg.norm(exact)


# --- Recursion -----------------------------------------------------------------------------------


def unrolled(
    f: Callable[[Any, Any], Any], carry: Carry, x: Any, H_cycles: int, L_cycles: int
) -> Carry:
    y, z = carry
    for _ in range(H_cycles):
        for _ in range(L_cycles):
            z = f(z, y + x)
        y = f(y, z)
    return Carry(y, z)


@pytest.mark.parametrize(("H_cycles", "L_cycles"), [(2, 3), (3, 2), (1, 1)])
def test_recur_in_whole_numbers(H_cycles: int, L_cycles: int) -> None:
    def f(s: Any, injection: Any) -> Any:
        return 2 * s + 3 * injection

    config = ModelConfig(**MLP_T | {"H_cycles": H_cycles, "L_cycles": L_cycles})
    carry = Carry(jnp.array([1.0, 2.0]), jnp.array([3.0, -1.0]))
    x = jnp.array([5.0, -2.0])
    got, expected = (
        recur(f, carry, x, config.H_cycles, config.L_cycles),
        unrolled(f, Carry(*map(np.asarray, carry)), np.asarray(x), H_cycles, L_cycles),
    )
    np.testing.assert_array_equal(got.y, expected.y)
    np.testing.assert_array_equal(got.z, expected.z)
    assert np.abs(expected.y).max() < 2**24


@VARIANTS
def test_deep_recursion_is_its_loops_written_out(fields: dict[str, Any]) -> None:
    model, params = make_model(fields)
    assert (model.config.H_cycles, model.config.L_cycles) == (2, 3)
    inputs = np.random.default_rng(3).integers(0, 7, (3, 16), np.int32)
    puzzles = make_puzzles(inputs, np.array([4, 0, 2], np.int32))
    carry = Carry(
        y=jnp.asarray(normal(3, 18, 32, seed=4)), z=jnp.asarray(normal(3, 18, 32, seed=5))
    )
    got, heads = deep_recursion(model, params, carry, puzzles)

    bound = model.bind({"params": params})
    f = jax.jit(lambda s, injection: model.apply({"params": params}, s, injection, method=TRM.f))
    for row in range(3):
        x = bound.embed(inputs[row], puzzles.puzzle_identifiers[row])
        expected = unrolled(f, Carry(carry.y[row], carry.z[row]), x, 2, 3)
        np.testing.assert_allclose(got.y[row], expected.y, rtol=0, atol=3e-5)
        np.testing.assert_allclose(got.z[row], expected.z, rtol=0, atol=3e-5)
        expected_heads = bound.heads(expected.y)
        np.testing.assert_allclose(heads.logits[row], expected_heads.logits, atol=1e-4)
        np.testing.assert_allclose(heads.q_logits[row], expected_heads.q_logits, atol=1e-4)


def test_the_initial_carry_is_h_init_and_l_init_at_every_position() -> None:
    model, params = make_model(MLP_T)
    carry = initial_carry(model, params, 2)
    np.testing.assert_array_equal(carry.y, np.broadcast_to(params["H_init"], (2, 18, 32)))
    np.testing.assert_array_equal(carry.z, np.broadcast_to(params["L_init"], (2, 18, 32)))


# --- Embedding and heads -------------------------------------------------------------------------

TOKENS = np.array([3, 0, 6, 1] * 4, np.int32)


def embed(model: TRM, params: dict[str, Any], identifier: int = 0) -> np.ndarray:
    return np.asarray(model.apply({"params": params}, TOKENS, identifier, method=TRM.embed))


def test_embedding_is_the_scaled_token_rows() -> None:
    model, params = make_model(MLP_T | NO_PREFIX)
    rows = params["embed_tokens"]["embedding"][TOKENS]
    np.testing.assert_allclose(embed(model, params), rows * math.sqrt(32), rtol=1e-6)


def test_puzzle_embedding_comes_first_and_is_padded_with_zeros() -> None:
    model, params = make_model(MLP_T)
    scale = math.sqrt(32)
    for identifier in (0, 4):
        row = params["puzzle_emb"]["embedding"][identifier]
        x = embed(model, params, identifier)
        assert x.shape == (18, 32)
        np.testing.assert_allclose(x[0], row[:32] * scale, rtol=1e-6)
        np.testing.assert_allclose(x[1, :8], row[32:] * scale, rtol=1e-6)
        np.testing.assert_array_equal(x[1, 8:], np.zeros(24))
        rows = params["embed_tokens"]["embedding"][TOKENS]
        np.testing.assert_allclose(x[2:], rows * scale, rtol=1e-6)


def test_learned_positions_are_added_to_every_position_and_averaged() -> None:
    model, params = make_model(MLP_T | {"positions": "learned"})
    row = np.concatenate([params["puzzle_emb"]["embedding"][3], np.zeros(24, np.float32)])
    rows = np.concatenate([row.reshape(2, 32), params["embed_tokens"]["embedding"][TOKENS]])
    positions = params["embed_pos"]["embedding"]
    assert positions.shape == rows.shape
    expected = (rows + positions) * 0.707106781 * math.sqrt(32)
    np.testing.assert_allclose(embed(model, params, 3), expected, rtol=1e-6, atol=1e-6)


def bfloat16(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32).astype(jnp.bfloat16).astype(np.float32)


@pytest.mark.parametrize("positions", ["none", "learned"])
@pytest.mark.parametrize("jit", [False, True])
def test_bfloat16_embedding_rounds_after_every_operation_as_upstream_does(
    positions: str, jit: bool
) -> None:
    model, params = make_model(MLP_T | NO_PREFIX | {"positions": positions}, BFLOAT16)
    x = bfloat16(params["embed_tokens"]["embedding"])[TOKENS]
    if positions == "learned":
        x = bfloat16(x + bfloat16(params["embed_pos"]["embedding"]))
        x = bfloat16(x * np.float32(0.707106781))

    def embed(params: Any, tokens: jax.Array) -> jax.Array:
        return model.apply({"params": params}, tokens, 0, method=TRM.embed)

    got = (jax.jit(embed) if jit else embed)(params, TOKENS)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        np.asarray(got, np.float32), bfloat16(x * np.float32(math.sqrt(32)))
    )


@VARIANTS
def test_bfloat16_is_rounded_alike_within_a_compiled_program_and_without(
    fields: dict[str, Any],
) -> None:
    """XLA would keep fused intermediates in float32; the network says where they are rounded."""
    model, params = make_model(fields, BFLOAT16)
    s, injection = (jnp.asarray(normal(18, 32, seed=i)).astype(jnp.bfloat16) for i in (0, 1))

    def f(params: Any, s: jax.Array, injection: jax.Array) -> jax.Array:
        return model.apply({"params": params}, s, injection, method=TRM.f)

    got, expected = (np.asarray(g(params, s, injection), np.float32) for g in (jax.jit(f), f))
    # Sums in another order may round some elements the other way.
    assert (got != expected).mean() < 0.05


@pytest.mark.parametrize("prefix", [{}, NO_PREFIX], ids=["prefix", "no prefix"])
def test_heads_drop_the_prefix_and_read_the_first_position(prefix: dict[str, int]) -> None:
    model, params = make_model(MLP_T | prefix)
    y = normal(model.config.length, 32)
    heads = model.apply({"params": params}, y, method=TRM.heads)
    np.testing.assert_allclose(heads.logits, y[-16:] @ params["lm_head"]["kernel"], atol=1e-5)
    q_head = params["q_head"]
    np.testing.assert_allclose(heads.q_logits, y[0] @ q_head["kernel"] + q_head["bias"], atol=1e-5)


def test_dtypes_of_the_heads() -> None:
    """A bfloat16 Q is a rounded one; the q_dtype option lifts that, and only that."""
    y = jnp.asarray(normal(18, 32)).astype(jnp.bfloat16)
    heads = {}
    for q_dtype in (None, "float32"):
        model, params = make_model(MLP_T, Precision("bfloat16", q_dtype=q_dtype))
        heads[q_dtype] = model.apply({"params": params}, y, method=TRM.heads)
        assert heads[q_dtype].logits.dtype == jnp.bfloat16
        assert heads[q_dtype].q_logits.dtype == jnp.float32
    rounded, exact = (np.asarray(heads[q_dtype].q_logits) for q_dtype in (None, "float32"))
    np.testing.assert_array_equal(rounded, bfloat16(rounded))
    assert (exact != bfloat16(exact)).any()
    q_head = params["q_head"]
    expected = np.asarray(y, np.float32)[0] @ q_head["kernel"] + q_head["bias"]
    np.testing.assert_allclose(exact, expected, rtol=1e-5)
    np.testing.assert_allclose(rounded, expected, rtol=0.03)


def test_calling_the_model_is_embedding_one_pass_and_heads() -> None:
    model, params = make_model(ATTENTION)
    bound = model.bind({"params": params})
    heads = bound(TOKENS, 2)
    x = bound.embed(TOKENS, 2)
    expected = bound.heads(bound.f(bound.initial_carry().y, x))
    np.testing.assert_allclose(heads.logits, expected.logits, atol=1e-6)
    np.testing.assert_allclose(heads.q_logits, expected.q_logits, atol=1e-6)


# --- The program ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Product:
    """One matrix product of a lowered program."""

    precision: tuple[str, str]
    operands: tuple[str, str]  # "32x2xf32"
    result: str

    @property
    def dtypes(self) -> set[str]:
        return {operand.rpartition("x")[2] for operand in self.operands}


def lower(fields: dict[str, Any], precision: Precision) -> tuple[str, list[Product]]:
    return _lower(tuple(fields.items()), precision)


@functools.cache
def _lower(fields: tuple[tuple[str, Any], ...], precision: Precision) -> tuple[str, list[Product]]:
    """The text of deep_recursion for a TPU, before XLA's compiler, and the products in it.

    A CPU ignores the precision, so what it runs could not show a mistake; and for a CPU some
    products of bfloat16 are written otherwise.
    """
    model, params = make_model(dict(fields), precision)
    puzzles = make_puzzles(np.zeros((3, 16), np.int32))
    carry = initial_carry(model, params, 3)
    jitted = jax.jit(deep_recursion, static_argnums=0)
    traced = jitted.trace(model, params, carry, puzzles)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    products = [
        Product((a, b), (left, right), result)
        for a, b, left, right, result in re.findall(
            r"dot_general .*precision = \[(\w+), (\w+)\]"
            r" : \(tensor<(\w+)>, tensor<(\w+)>\) -> tensor<(\w+)>",
            text,
        )
    ]
    assert len(products) == text.count("stablehlo.dot_general") > 0
    return text, products


@VARIANTS
@pytest.mark.parametrize("matmul", ["default", "high", "highest"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_product_has_the_precision_and_the_dtype_asked_for(
    dtype: str, matmul: str, fields: dict[str, Any]
) -> None:
    text, products = lower(fields, Precision(dtype, matmul))
    assert {p.precision for p in products} == {(matmul.upper(), matmul.upper())}
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    assert {d for p in products for d in p.dtypes} == {short}
    assert {p.result.rpartition("x")[2] for p in products} == {"f32"}
    assert dtype == "bfloat16" or "bf16" not in text
    # The parameters come in as float32 whatever they are computed in.
    (signature,) = re.findall(r"func\.func public @main\((.*)", text)
    assert "tensor<7x32xf32>" in signature
    assert f"tensor<3x18x32x{short}>" in signature  # the carry
    assert "tensor<7x32xbf16>" not in signature


@VARIANTS
@pytest.mark.parametrize("compute_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("q_dtype", [None, "float32", "bfloat16"])
def test_q_dtype_is_the_dtype_of_the_q_product_alone(
    q_dtype: str | None, compute_dtype: str, fields: dict[str, Any]
) -> None:
    _, products = lower(fields, Precision(compute_dtype, q_dtype=q_dtype))
    short = {"float32": "f32", "bfloat16": "bf16"}
    q_products = [p for p in products if any(o.startswith("32x2x") for o in p.operands)]
    assert [p.dtypes for p in q_products] == [{short[q_dtype or compute_dtype]}]
    others = [p for p in products if p not in q_products]
    assert {d for p in others for d in p.dtypes} == {short[compute_dtype]}


@VARIANTS
def test_matmul_bfloat16_rounds_the_operands_of_every_product_but_the_q_heads(
    fields: dict[str, Any],
) -> None:
    text, products = lower(fields, ROUNDED)
    assert {p.result.rpartition("x")[2] for p in products} == {"f32"}
    q_products = [p for p in products if any(o.startswith("32x2x") for o in p.operands)]
    assert [(p.dtypes, p.precision) for p in q_products] == [({"f32"}, ("HIGHEST", "HIGHEST"))]
    others = [p for p in products if p not in q_products]
    assert {d for p in others for d in p.dtypes} == {"bf16"}
    assert "tensor<3x18x32xf32>" in re.findall(r"func\.func public @main\((.*)", text)[0]


@VARIANTS
def test_the_program_does_not_grow_with_the_cycles(fields: dict[str, Any]) -> None:
    texts, products = zip(
        *(
            lower(fields | {"H_cycles": h, "L_cycles": n}, Precision())
            for h, n in ((1, 1), (2, 3), (3, 18))
        ),
        strict=True,
    )
    of_a_layer = {"mlp_t": 4, "attention": 6}[fields["variant"]]
    # Two layers in the update of z and two in that of y; two heads.
    assert [len(found) for found in products] == [2 * 2 * of_a_layer + 2] * 3
    assert len({len(text.splitlines()) for text in texts}) == 1


def test_flops_are_the_matrix_products() -> None:
    """25.6 GFLOP of the published TRM-MLP; and what XLA counts in a small attention model."""
    full = ModelConfig(
        variant="mlp_t",
        vocab_size=11,
        seq_len=81,
        hidden_size=512,
        num_layers=2,
        H_cycles=3,
        L_cycles=6,
        mlp_width=1536,
        mlp_t_width=512,
        prefix_len=16,
        puzzle_emb_ndim=512,
    )
    assert flops_per_rollout_step(full) == pytest.approx(25.6e9, rel=0.01)
    for variant in ("mlp_t", "attention"):
        model, params = small_model(variant, num_layers=1)
        config = dataclasses.replace(model.config, H_cycles=1, L_cycles=1, vocab_size=7)
        block = TRM(config, model.precision)
        state = jnp.zeros((config.length, config.hidden_size))
        f = jax.jit(lambda p, x, block=block: block.apply({"params": p}, x, x, method=TRM.f))
        counted = f.lower(params, state).compile().cost_analysis()["flops"]
        heads = 2 * config.seq_len * config.hidden_size * config.vocab_size
        ours = (flops_per_rollout_step(block.config) - heads) / 2
        # XLA also counts norms, gates and the softmax.
        assert ours <= counted <= 1.25 * ours
        # Of the gradient with respect to the state; what the weights' would cost is not computed.
        loss = jax.grad(lambda x, p, f=f: jnp.sum(f(p, x) ** 2))
        counted = jax.jit(loss).lower(state, params).compile().cost_analysis()["flops"]
        ours = flops_per_energy_gradient(block.config) / 2
        assert ours <= counted <= 1.35 * ours
