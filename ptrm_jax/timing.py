"""Fair timing: programs that take turns, their rates, and the ratios of each round."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Side(NamedTuple):
    """A program to time.

    Attributes:
      run: one call.
      work: units of work that a call does.
    """

    run: Callable[[], object]
    work: float


class Ratio(NamedTuple):
    """Ratios over the rounds.

    Attributes:
      median: of all rounds.
      low: the lowest.
      high: the highest.
    """

    median: float
    low: float
    high: float


def seconds(run: Callable[[], object]) -> float:
    """Wall time of one call, including the wait for its result."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def rates(sides: Mapping[str, Side], rounds: int) -> dict[str, list[float]]:
    """Units of work per second of every side, a number for each round.

    Sides run in turn in every round, so that a change in the machine's speed affects all of them.
    Each side is called twice before, to compile and to warm up.
    """
    for side in sides.values():
        seconds(side.run)
        seconds(side.run)
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side.work / seconds(side.run))
    return found


def ratio(first: Sequence[float], second: Sequence[float]) -> Ratio:
    """The rates of one side over those of another, round by round."""
    ratios = sorted(a / b for a, b in zip(first, second, strict=True))
    return Ratio(statistics.median(ratios), ratios[0], ratios[-1])


def table(rates: Mapping[str, Sequence[float]], unit: str, flops: int, num_ours: int = 1) -> str:
    """Median rates as text, and the ratios of the first sides to all others.

    Args:
      rates: of `rates`.
      unit: name of the unit of work.
      flops: of one unit.
      num_ours: number of first sides to compare with the others.
    """
    ours = list(rates)[:num_ours]
    titles = "".join(f"{name + ' against it':>30}" for name in ours)
    lines = [f"{'':25}{unit + '/s':>16}{'GFLOP/s':>9}{titles}"]
    for name, own in rates.items():
        rate = statistics.median(own)
        line = f"{name:25}{rate:16.2f}{rate * flops / 1e9:9.0f}"
        for first in ours:
            found = ratio(rates[first], own)
            text = f"{found.median:.2f}  [{found.low:.2f}, {found.high:.2f}]"
            line += f"{text if name != first else '':>30}"
        lines.append(line.rstrip())
    return "\n".join(lines)


def matrix_products(flops: int) -> dict[str, Side]:
    """Matrix products, summed in float32, that do units of work of so many FLOP."""
    product = jax.jit(
        lambda a: jnp.matmul(a, a, precision="highest", preferred_element_type=jnp.float32)
    )

    def side(dtype: str) -> Side:
        a = jnp.ones((2048, 2048), dtype)
        return Side(lambda: [product(a) for _ in range(16)], 16 * 2 * 2048**3 / flops)

    return {f"{dtype} GEMM": side(dtype) for dtype in ("float32", "bfloat16")}
