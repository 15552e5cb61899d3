"""Numerical comparison of converted models with their source.

Supervision steps are compared one by one, each from the reference's state: rounding errors grow
about tenfold per step, in PyTorch too, so free-running outputs agree for a few steps only.
"""

import dataclasses
import functools
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convert.mapping import ConversionError, State
from ptrm_jax.errors import mismatches
from ptrm_jax.model import TRM, Carry, Params
from ptrm_jax.puzzles import Puzzles, check_puzzles, make_puzzles
from ptrm_jax.reading import MEBIBYTE, open_npz
from ptrm_jax.solver import add_noise, deep_recursion, initial_carry, selection

TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 2e-2}
"""Largest error allowed, as a fraction of the largest magnitude in the reference array."""

ROUNDINGS = 4.0
"""Largest error of a whole step, as a multiple of the reference's own rounding error, if larger.

A step has hundreds of operations, and the recursion amplifies their rounding errors: in bfloat16,
upstream differs by 0.05 (root mean square) from float64 after one step of a small model.
"""

STEP_RMS_TOLERANCE = 0.1
"""Largest root mean square error of our float32 step against a reference in bfloat16."""

Q_TOLERANCE = 1e-2
"""Largest difference of a halt logit after a free run of Algorithm 1 in float32."""

BFLOAT16_AGREEMENT = 0.8
"""Smallest fraction of equal answer tokens after a free run of Algorithm 1 in bfloat16.

Every step amplifies rounding errors, and the answers of an untrained model are near ties.
"""

_STEP_PARTS = ("y", "z", "logits", "q_halt", "q_continue")

Record = dict[str, Any]


class _Record:
    """Collects comparisons into a JSON-able dict."""

    def __init__(self, model: TRM, against: str) -> None:
        self.tolerance = TOLERANCE[model.precision.compute_dtype]
        self._head = {
            "against": against,
            "compute_dtype": model.precision.compute_dtype,
            "matmul": model.precision.matmul,
            "backend": jax.default_backend(),
            "tolerance": self.tolerance,
        }
        self.comparisons: list[Record] = []

    def compare(self, what: str, got: Any, want: Any, *, rounding: float = 0.0) -> None:
        """Adds the largest error of an array.

        Args:
          what: name of the comparison.
          got: our array.
          want: the reference, of the same shape.
          rounding: the rounding error of the reference (`_roundings`); the tolerance is at least
            `ROUNDINGS` times as large.
        """
        tolerance = max(self.tolerance, ROUNDINGS * rounding / _scale(np.asarray(want), _max))
        self._add(what, "max", *_error(got, want, _max), tolerance)

    def compare_rms(self, what: str, got: Any, want: Any, tolerance: float) -> None:
        """Adds the root mean square error of an array, relative to that of the reference."""
        self._add(what, "rms", *_error(got, want, _rms), tolerance)

    def _add(
        self, what: str, measure: str, absolute: float, relative: float, tolerance: float
    ) -> None:
        finite = math.isfinite(relative)
        self.comparisons.append(
            {
                "what": what,
                "measure": measure,
                "absolute_error": absolute if finite else None,  # JSON has no infinity
                "relative_error": relative if finite else None,
                "tolerance": tolerance if math.isfinite(tolerance) else None,
                "passed": finite and relative <= tolerance,
            }
        )

    def result(self, **more: Any) -> Record:
        def excess(comparison: Record) -> float:
            if comparison["relative_error"] is None:
                return math.inf
            return comparison["relative_error"] / (comparison["tolerance"] or math.inf)

        worst = max(self.comparisons, key=excess)
        return {
            **self._head,
            "worst": worst,  # the largest error relative to its tolerance
            "comparisons": self.comparisons,
            **more,
            "passed": all(c["passed"] for c in self.comparisons)
            and all(run["passed"] for run in more.get("algorithm_1", ())),
        }


def _max(x: np.ndarray) -> float:
    return float(np.max(np.abs(x)))


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


def _error(got: Any, want: Any, norm: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Norm of the error, and its ratio to the norm of `want`; inf for NaN."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape, (got.shape, want.shape)
    absolute = norm(got - want)
    if not math.isfinite(absolute):
        return math.inf, math.inf
    return absolute, absolute / _scale(want, norm)


def _scale(want: np.ndarray, norm: Callable[[np.ndarray], float]) -> float:
    return max(norm(want), float(np.finfo(np.float32).tiny))


def _roundings(want: Mapping[str, Any], exact: Mapping[str, Any]) -> dict[str, float]:
    """Largest error of each part of a step against the same step without rounding.

    The two Q logits share the larger error: each is one number per puzzle, and its error may be
    small by chance.
    """
    errors = {part: _error(want[part], exact[part], _max)[0] for part in _STEP_PARTS}
    largest = max(errors["q_halt"], errors["q_continue"])
    return errors | {"q_halt": largest, "q_continue": largest}


@functools.partial(jax.jit, static_argnums=0)
def _embed(model: TRM, params: Params, puzzles: Puzzles) -> jax.Array:
    embed: Any = functools.partial(model.apply, {"params": params}, method=TRM.embed)
    return jax.vmap(embed)(puzzles.inputs, puzzles.puzzle_identifiers)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _block(model: TRM, params: Params, x: jax.Array, i: int) -> jax.Array:
    """Block i of the network on x [B, L, C]."""
    block = functools.partial(model.apply, {"params": params}, i=i, method=TRM.block)
    return jax.jit(jax.vmap(block))(x)


def _step(model: TRM, params: Params, carry: Carry, puzzles: Puzzles) -> dict[str, Any]:
    """The results of one supervision step from a carry of [B, L, C] arrays, by `_STEP_PARTS`."""
    carry = jax.tree.map(lambda state: jnp.asarray(state, model.precision.dtype), carry)
    carry, heads = deep_recursion(model, params, carry, puzzles)
    parts = (carry.y, carry.z, heads.logits, *np.asarray(heads.q_logits).T)
    return dict(zip(_STEP_PARTS, parts, strict=True))


# --- Against recorded reference vectors ----------------------------------------------------------


def parity_against_reference(
    model: TRM, params: Params, reference: str | os.PathLike[str]
) -> Record:
    """Compares with recorded results of another implementation: each step, and Algorithm 1.

    Args:
      model: the network, in the compute dtype of the reference.
      params: its parameters.
      reference: an .npz with `inputs` [B, S], `puzzle_identifiers` [B], `prefix_len` [],
        `input_embeddings` [B, L, C], and after each of T deterministic steps `det_z_H`, `det_z_L`
        [T, B, L, C], `det_logits` [T, B, S, V], `det_q_halt`, `det_q_continue` [T, B]. If it also
        has `eps` [K, T, B, L, C] and `sigma` [], Algorithm 1 runs with that noise on each of the
        states s in z_L, z_H for which it has `ptrm_<s>_q_halt` [K, T, B], `ptrm_<s>_answers`
        [K, B, S] and `ptrm_<s>_best_rollout` [B]; the optional `ptrm_<s>_logits`
        [K, T, B, S, V] show which answers are ties.

    Returns:
      JSON-able record: `comparisons` (embedding; y, z, logits and Q of each step from the
      reference's previous state), `algorithm_1` (free-running), `passed`.

    Raises:
      ConversionError: the file cannot be read, or is of another architecture.
    """
    ref = _read_reference(model, reference)
    params = jax.device_put(params)
    puzzles = make_puzzles(ref["inputs"], ref["puzzle_identifiers"])
    num_steps, num_puzzles = ref["det_q_halt"].shape

    record = _Record(model, "reference")
    record.compare("embedding", _embed(model, params, puzzles), ref["input_embeddings"])
    # Every step starts from a recorded state, so all steps form one batch.
    start = initial_carry(model, params, num_puzzles)
    before = Carry(_shift(start.y, ref["det_z_H"]), _shift(start.z, ref["det_z_L"]))
    batch = _repeat(puzzles, num_steps)
    got = _step(model, params, before, batch)
    exact = None
    if model.precision.compute_dtype == "bfloat16":
        # The reference's rounding error is not recorded, but estimated by our float32 step, which
        # must be near the reference too: a wrong port must not pass as rounding.
        precision = dataclasses.replace(model.precision, compute_dtype="float32", q_dtype=None)
        exact = _step(model.clone(precision=precision), params, before, batch)
    names = ("det_z_H", "det_z_L", "det_logits", "det_q_halt", "det_q_continue")
    for t in range(num_steps):
        rows = slice(t * num_puzzles, (t + 1) * num_puzzles)
        want = {part: ref[name][t] for part, name in zip(_STEP_PARTS, names, strict=True)}
        ours = None if exact is None else {part: exact[part][rows] for part in _STEP_PARTS}
        rounding = {} if ours is None else _roundings(want, ours)
        for part in _STEP_PARTS:
            what = f"step {t + 1} {part}"
            record.compare(what, got[part][rows], want[part], rounding=rounding.get(part, 0.0))
            if ours is not None and not part.startswith("q_"):
                record.compare_rms(f"{what} in float32", ours[part], want[part], STEP_RMS_TOLERANCE)
    return record.result(algorithm_1=_algorithm_1(model, params, puzzles, ref))


def _shift(start: jax.Array, states: np.ndarray) -> jax.Array:
    """States before steps 1..T, [T * B, L, C], from `start` and those after them, [T, B, L, C]."""
    return jnp.asarray(np.concatenate([np.asarray(start, np.float32), *states[:-1]]))


def _repeat(puzzles: Puzzles, times: int) -> Puzzles:
    return Puzzles(*(np.concatenate([np.asarray(field)] * times) for field in puzzles))


def _algorithm_1(
    model: TRM, params: Params, puzzles: Puzzles, ref: Mapping[str, np.ndarray]
) -> list[Record]:
    """Free runs with the reference's noise on z_L and z_H, all in one batch."""
    targets = [(s, on) for s, on in (("z_L", "z"), ("z_H", "y")) if f"ptrm_{s}_q_halt" in ref]
    if not targets:
        return []
    num_rollouts, num_steps, num_puzzles = ref["eps"].shape[:3]
    num_runs = num_rollouts * num_puzzles
    lanes = _repeat(puzzles, len(targets) * num_rollouts)
    carry = initial_carry(model, params, len(targets) * num_runs)
    noisy = Carry(
        **{
            name: jnp.asarray(np.repeat([on == name for _, on in targets], num_runs)[:, None, None])
            for name in Carry._fields
        }
    )
    sigma = jnp.asarray(ref["sigma"])
    for t in range(num_steps):
        noise = ref["eps"][:, t].reshape(num_runs, *ref["eps"].shape[3:])
        eps = jnp.asarray(np.concatenate([noise] * len(targets)))
        perturbed = jax.tree.map(lambda state, eps=eps: add_noise(state, eps, sigma), carry)
        carry = jax.tree.map(jnp.where, noisy, perturbed, carry)
        carry, heads = deep_recursion(model, params, carry, lanes)
    answers = np.asarray(jnp.argmax(heads.logits, axis=-1))
    q_logits = np.asarray(heads.q_logits)[:, 0]

    runs = []
    for i, (state, noise_on) in enumerate(targets):
        rows = slice(i * num_runs, (i + 1) * num_runs)
        got_answers = answers[rows].reshape(num_rollouts, num_puzzles, -1)
        got_q = q_logits[rows].reshape(num_rollouts, num_puzzles)
        chosen = selection.best_q(
            jnp.asarray(got_answers.swapaxes(0, 1)),
            jnp.asarray(got_q.T),
            jnp.asarray(np.isfinite(got_q.T)),
        )
        equal = got_answers == ref[f"ptrm_{state}_answers"]
        tied = np.zeros_like(equal)
        if f"ptrm_{state}_logits" in ref:
            tied = ~equal & _ties(ref[f"ptrm_{state}_logits"][:, -1], got_answers)
        q_difference = np.abs(got_q - ref[f"ptrm_{state}_q_halt"][:, -1]).max()
        run = {
            "noise_on": noise_on,
            "num_rollouts": num_rollouts,
            "depth": num_steps,
            "answers_equal": bool((equal | tied).all()),
            "answers_tied": int(tied.sum()),
            "answers_agreement": float(equal.mean()),
            "chosen_equal": bool((chosen == ref[f"ptrm_{state}_best_rollout"]).all()),
            "largest_q_difference": float(q_difference) if np.isfinite(q_difference) else None,
        }
        if model.precision.compute_dtype == "bfloat16":
            run["agreement_tolerance"] = BFLOAT16_AGREEMENT
            run["passed"] = run["answers_agreement"] >= BFLOAT16_AGREEMENT
        else:
            run["q_tolerance"] = Q_TOLERANCE
            run["passed"] = (
                run["answers_equal"] and run["chosen_equal"] and bool(q_difference <= Q_TOLERANCE)
            )
        runs.append(run)
    return runs


def _ties(logits: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Where the reference's logit of our token equals its largest up to rounding."""
    taken = np.take_along_axis(logits, answers[..., None], axis=-1)[..., 0]
    return logits.max(axis=-1) - taken <= TOLERANCE["float32"] * np.abs(logits).max()


def _read_reference(model: TRM, path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    cfg = model.config
    try:
        with open_npz(path, os.path.basename(path)) as file:
            ref = {name: file.read(name, 256 * MEBIBYTE) for name in file.names}
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"--parity {os.path.basename(path)} is not a readable .npz: {error}"
        ) from error
    batch, steps = np.shape(ref.get("inputs", ()))[:1], np.shape(ref.get("det_q_halt", ()))[:1]
    state, tokens = (cfg.length, cfg.hidden_size), (cfg.seq_len, cfg.vocab_size)
    shapes = {
        "inputs": (*batch, cfg.seq_len),
        "puzzle_identifiers": batch,
        "prefix_len": (),
        "input_embeddings": (*batch, *state),
        "det_z_H": (*steps, *batch, *state),
        "det_z_L": (*steps, *batch, *state),
        "det_logits": (*steps, *batch, *tokens),
        "det_q_halt": (*steps, *batch),
        "det_q_continue": (*steps, *batch),
    }
    if "eps" in ref:
        noise = ref["eps"].shape[:2]
        shapes |= {"eps": (*noise, *batch, *state), "sigma": ()}
        for name in ("ptrm_z_L", "ptrm_z_H"):
            if f"{name}_q_halt" in ref:
                shapes |= {
                    f"{name}_q_halt": (*noise, *batch),
                    f"{name}_answers": (*noise[:1], *batch, cfg.seq_len),
                    f"{name}_best_rollout": batch,
                }
                if f"{name}_logits" in ref:
                    shapes[f"{name}_logits"] = (*noise, *batch, *tokens)
    problems = mismatches(
        shapes,
        {name: array.shape for name, array in ref.items() if name in shapes},
        lambda name, want, got: f"{name} has shape {list(got)}, expected {list(want)}",
    )
    if not problems and int(ref["prefix_len"]) != cfg.prefix_len:
        problems.append(f"prefix_len is {int(ref['prefix_len'])}, expected {cfg.prefix_len}")
    if not problems:
        try:
            check_puzzles(cfg, make_puzzles(ref["inputs"], ref["puzzle_identifiers"]))
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ConversionError(
            f"--parity {os.path.basename(path)} is not a reference of this architecture: "
            + "; ".join(problems)
        )
    return ref


# --- Against PyTorch -----------------------------------------------------------------------------


def parity_against_torch(
    model: TRM,
    params: Params,
    state: State,
    *,
    arch: Mapping[str, Any] | None = None,
    num_puzzles: int = 4,
    steps: int = 4,
    seed: int = 0,
) -> Record:
    """Compares with `convert.torch_trm` on random puzzles: embedding, each block, each step.

    Both sides use the model's compute dtype, and each block and step starts from PyTorch's state.
    Blocks must agree to `TOLERANCE`; steps to the same, or to `ROUNDINGS` times PyTorch's rounding
    error in that step, measured against float64.

    Args:
      model: the network.
      params: its parameters.
      state: canonical upstream name to array, the source of the parameters.
      arch: what `all_config.yaml` says the checkpoint is, which PyTorch then computes; None for
        what the model is.
      num_puzzles: random puzzles.
      steps: supervision steps.
      seed: of the puzzles.

    Returns:
      JSON-able record: `comparisons`, each with its tolerance, `passed`.

    Raises:
      ImportError: PyTorch is not installed.
      ConversionError: `arch` has positions that no TRM has.
    """
    import torch

    from convert.torch_trm import TorchTRM, as_stated

    cfg = model.config
    stated = as_stated(cfg, arch or {})
    rng = np.random.default_rng(seed)
    puzzles = make_puzzles(
        rng.integers(0, cfg.vocab_size, (num_puzzles, cfg.seq_len), dtype=np.int32),
        rng.integers(0, cfg.num_puzzle_identifiers, num_puzzles, dtype=np.int32),
    )
    params = jax.device_put(params)
    oracle = TorchTRM(stated, state, getattr(torch, model.precision.compute_dtype))
    exact = TorchTRM(stated, state, torch.float64)
    inputs, ids = torch.from_numpy(puzzles.inputs), torch.from_numpy(puzzles.puzzle_identifiers)

    record = _Record(model, "torch")
    x, exact_x = oracle.embed(inputs, ids), exact.embed(inputs, ids)
    record.compare("embedding", _embed(model, params, puzzles), _array(x))
    y, z = oracle.initial_carry(num_puzzles)
    for name, got, want in zip(
        Carry._fields, initial_carry(model, params, num_puzzles), (y, z), strict=True
    ):
        record.compare(f"initial {name}", got, _array(want))

    hidden = z + (y + x)
    for i in range(cfg.num_layers):
        got = _block(model, params, jnp.asarray(_array(hidden), model.precision.dtype), i)
        hidden = oracle.block(hidden, i)
        record.compare(f"block {i}", got, _array(hidden))

    for t in range(1, steps + 1):
        carry = Carry(jnp.asarray(_array(y)), jnp.asarray(_array(z)))
        ours = _step(model, params, carry, puzzles)
        truth = _torch_parts(exact, *exact.deep_recursion(y.double(), z.double(), exact_x))
        y, z = oracle.deep_recursion(y, z, x)
        theirs = _torch_parts(oracle, y, z)
        rounding = _roundings(theirs, truth)
        for part in _STEP_PARTS:
            record.compare(f"step {t} {part}", ours[part], theirs[part], rounding=rounding[part])
    return record.result(num_puzzles=num_puzzles, steps=steps, seed=seed)


def _torch_parts(oracle: Any, y: Any, z: Any) -> dict[str, np.ndarray]:
    logits, q = oracle.heads(y)
    parts = (y, z, logits, q[:, 0], q[:, 1])
    return {name: _array(part) for name, part in zip(_STEP_PARTS, parts, strict=True)}


def _array(tensor: Any) -> np.ndarray:
    """As float64 if it is, else as float32, because numpy has no bfloat16."""
    return (tensor if tensor.element_size() == 8 else tensor.float()).numpy()
