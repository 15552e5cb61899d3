"""What a device computes, compared with the CPU, and with itself in another arrangement.

Shape letters: B puzzles, K rollouts, D supervision steps, L positions, C channels.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np

from ptrm_jax import mesh
from ptrm_jax.config import Backend, Save
from ptrm_jax.model import TRM, Carry, Heads, Params
from ptrm_jax.puzzles import Puzzles
from ptrm_jax.solver import initial_carry, step
from ptrm_jax.solver.noise import Noise, noise_key, perturb

MOST_LOGIT_DIFFERENCE = 0.01
"""Of one supervision step in float32 from equal states. Between PyTorch and JAX on one CPU it was
2e-3, on logits near 20."""
MOST_ULP = 4
"""Units in the last place by which normal draws of equal bits may differ: each platform has its own
logarithm."""
_KEY = 7


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What one comparison found.

    Attributes:
      name: what was compared.
      holds: whether it is as promised.
      found: in words, with the numbers.
      values: the numbers, as JSON.
    """

    name: str
    holds: bool
    found: str
    values: dict[str, Any] = dataclasses.field(default_factory=dict)


def parity(
    name: str,
    model: TRM,
    params: Params,
    puzzles: Puzzles,
    device: jax.Device,
    cpu: jax.Device,
    *,
    depth: int,
    sigma: float = 0.3,
) -> Agreement:
    """A device against the CPU, step by step: before every step both have the CPU's states.

    The device's program is written as for an accelerator, also where the device is the CPU.

    Args:
      name: of the model.
      model: the network, in float32.
      params: its parameters.
      puzzles: B of them, one rollout each.
      device: to check.
      cpu: to compare with.
      depth: D.
      sigma: noise scale.
    """
    key, num_puzzles = jax.random.key(_KEY, impl="threefry2x32"), len(puzzles.index)

    def after(t: int, carry: Carry, arranged: TRM, place: jax.Device) -> tuple[Carry, Heads]:
        placed = jax.device_put((params, key, carry, puzzles), place)
        return step(arranged, *placed, rollout=0, t=t, sigma=sigma, lane_tile=num_puzzles)

    carry = initial_carry(model, jax.device_put(params, cpu), num_puzzles)
    largest: dict[str, list[float]] = {"y": [], "z": [], "logits": [], "q": []}
    cells = []
    for t in range(1, depth + 1):
        got = after(t, carry, model.clone(arrangement="accelerator"), device)
        want = after(t, carry, model.clone(arrangement="cpu"), cpu)
        pairs = zip(
            *((*moved, *heads) for moved, heads in jax.device_get((got, want))),
            strict=True,
        )
        for errors, (a, b) in zip(largest.values(), pairs, strict=True):
            errors.append(float(np.abs(np.float32(a) - np.float32(b)).max()))
        logits = [np.asarray(heads.logits) for _, heads in (got, want)]
        cells.append(float(np.mean(logits[0].argmax(-1) == logits[1].argmax(-1))))
        carry = want[0]
    worst = {part: max(errors) for part, errors in largest.items()}
    return Agreement(
        f"parity with the CPU, {name}",
        worst["logits"] <= MOST_LOGIT_DIFFERENCE,
        f"B={num_puzzles}, {depth} steps: largest difference of a step "
        + ", ".join(f"{value:.1e} ({part})" for part, value in worst.items())
        + f"; {100 * min(cells):.2f} % of cells alike, or more",
        {"steps": largest, "cells_alike": cells},
    )


def noise(
    model: TRM, device: jax.Device, cpu: jax.Device, *, num_puzzles: int, depth: int
) -> Agreement:
    """The noise that the solver adds to z, on a device and on the CPU: its keys and its values."""

    def draws(place: jax.Device) -> tuple[np.ndarray, np.ndarray]:
        key = jax.device_put(jax.random.key(_KEY, impl="threefry2x32"), place)
        rows, steps = jnp.arange(num_puzzles), jnp.arange(1, depth + 1)
        nothing = jnp.zeros((model.config.length, num_puzzles, model.config.hidden_size))

        def of(key: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            drawn = Noise(key, rows, jnp.ones_like(rows), jnp.float32(1.0))
            keys = jax.vmap(noise_key, (None, 0, 0, None))(key, rows, drawn.rollout, t)
            moved = perturb(Carry(y=nothing, z=nothing), drawn, t, "z")
            return jax.random.key_data(keys), moved.z

        return jax.device_get(jax.jit(jax.vmap(of, (None, 0)))(key, steps))

    (keys, normal), (keys_cpu, normal_cpu) = draws(device), draws(cpu)
    equal = bool((keys == keys_cpu).all())
    ulp = np.abs(normal - normal_cpu) / np.spacing(np.abs(normal_cpu))
    return Agreement(
        "noise",
        equal and bool(ulp.max() <= MOST_ULP),
        f"{keys.size // 2:,} keys: bits {'equal' if equal else 'DIFFERENT'}; "
        f"{100 * np.mean(ulp > 0):.2f} % of {normal.size:,} normal draws differ, by "
        f"{ulp.max():.0f} units in the last place at most",
        {"bits_equal": equal, "differ": float(np.mean(ulp > 0)), "ulp": float(ulp.max())},
    )


def arrangements(
    model: TRM, params: Params, puzzles: Puzzles, devices: Sequence[jax.Device], *, depth: int
) -> list[Agreement]:
    """The devices against themselves: what must not depend on K, and on how the work is laid out.

    Args:
      model: the network.
      params: its parameters.
      puzzles: B of them.
      devices: one or more.
      depth: D.

    Returns:
      Three agreements, bit for bit at every step: without noise every rollout is the deterministic
      one; the first rollouts of K are those of a smaller K; devices and back ends change nothing.
    """
    width, key = 5, jax.random.key(_KEY, impl="threefry2x32")

    def rollouts(**settings: Any) -> list[np.ndarray]:
        """Answers [B, K, D, S], Q [B, K, D]."""
        fixed: dict[str, Any] = {"num_rollouts": width, "sigma": 0.5, "depth": depth}
        fixed |= {"lane_tile": 4, "devices": devices, "save": Save(answers=True, q_logits=True)}
        found = mesh.solve(model, params, key, puzzles, **fixed | settings).trajectory
        assert found is not None and found.answers is not None and found.q_logits is not None
        return [found.answers, found.q_logits]

    def same(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
        return all(
            np.broadcast_to(a, b.shape).tobytes() == b.tobytes()
            for a, b in zip(first, second, strict=True)
        )

    def part(found: list[np.ndarray], number: int) -> list[np.ndarray]:
        return [x[:, :number] for x in found]

    whole, narrow = rollouts(), rollouts(num_rollouts=2)
    quiet, alone = rollouts(sigma=0.0), rollouts(sigma=0.0, num_rollouts=1)
    layouts: dict[str, bool] = {}
    for count in sorted({1, len(devices)}):
        for backend in get_args(Backend):
            found = rollouts(devices=devices[:count], backend=backend)
            layouts[f"{backend} on {count}"] = same(whole, found)
    broken = [name for name, holds in layouts.items() if not holds]
    return [
        Agreement("sigma = 0", same(alone, quiet), f"{width} rollouts are the deterministic one"),
        Agreement(
            "K prefix",
            same(narrow, part(whole, 2)),
            f"the first 2 of {width} rollouts are those of K=2",
        ),
        Agreement(
            "layouts",
            not broken,
            f"equal bits: {', '.join(layouts)}" + (f"; NOT {', '.join(broken)}" if broken else ""),
            {"equal": layouts},
        ),
    ]
