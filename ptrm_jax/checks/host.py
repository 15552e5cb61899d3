"""All checks of a host, in order of their worth, until the time is over."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax

from ptrm_jax import checkpoint, markdown, mesh, paper
from ptrm_jax.checks import agreement, speed
from ptrm_jax.checks.agreement import Agreement
from ptrm_jax.checks.speed import Rate, Rival
from ptrm_jax.config import ModelConfig, Precision, check_int
from ptrm_jax.errors import InputError
from ptrm_jax.provenance import environment
from ptrm_jax.tasks import ppbench, read_dataset
from ptrm_jax.training import presets

_TILES = ((64, 16, 256), (32, 128, 8))
"""Tried first, and with the time that is left."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is checked."""

    quick: bool = False
    """One bundled model, and a toy model in the place of the full-size ones: a rehearsal."""
    minutes: float = 9.0
    """After these nothing more is begun; what was left out is said."""
    devices: int | None = None
    """Local devices to check. Default: all."""
    dollars_per_hour: float = 2.5
    """Price of these devices; by default the paper's for an H100, on any hardware."""

    def __post_init__(self) -> None:
        if not 0 < self.minutes < 1e6:
            raise InputError(f"minutes must be positive; got {self.minutes}")
        if self.devices is not None:
            check_int("devices", self.devices, 1)
        ppbench.dollars_per_puzzle(0.0, dollars_per_hour=self.dollars_per_hour)  # checks the rate

    @property
    def bundled(self) -> tuple[str, ...]:
        """Checkpoints to compare with the CPU."""
        return ("sudoku6",) if self.quick else checkpoint.bundled()

    @property
    def models(self) -> dict[str, ModelConfig]:
        """Architectures to time, by benchmark."""
        if not self.quick:
            return speed.full_size()
        small = presets.architecture(
            variant="attention",
            positions="rope",
            **{"hidden_size": 16, "prefix_len": 1, "num_heads": 2, "seq_len": 9, "vocab_size": 11},
            **{"H_cycles": 1, "L_cycles": 1},
        )
        return {"maze-hard": small}

    @property
    def tiles(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tiles to try first, and those to try with the time that is left."""
        return ((2,), ()) if self.quick else _TILES


def check(
    settings: Settings,
    *,
    rival: Rival | None = None,
    say: Callable[[str], object] = lambda text: None,
    keep: Callable[[dict[str, Any]], object] = lambda found: None,
) -> dict[str, Any]:
    """Checks the devices of this process.

    Args:
      settings: how much.
      rival: another implementation, timed beside the best tile.
      say: called with every finding as it is made.
      keep: called with all findings so far, after every part.

    Returns:
      What was found, as JSON: see `table`.

    Raises:
      DeviceError: there is no device.
      InputError: there are fewer than asked for.
    """
    end = time.monotonic() + 60 * settings.minutes
    devices, cpu = mesh.local_devices(settings.devices), jax.local_devices(backend="cpu")[0]
    found: dict[str, Any] = {
        **environment(devices),
        "settings": dataclasses.asdict(settings),
        "against_itself": devices[-1].platform == "cpu",
        "agreements": [],
        "rates": [],
        "best_tile": {},
        "costs": [],
        "left_out": [],
    }
    for one in _agreements(settings, devices, cpu):
        found["agreements"].append(dataclasses.asdict(one))
        say(f"{one.name}: {'holds' if one.holds else 'DOES NOT HOLD'}; {one.found}")
        keep(found)
    rates: dict[tuple[str, str, int], Rate] = {}

    def measure(name: str, dtype: str, tile: int, rival: Rival | None = None) -> None:
        what = f"{name}, {dtype}, tile {tile}{', beside PyTorch' if rival else ''}"
        if time.monotonic() > end:
            found["left_out"].append(what)
            return
        seconds = 0 if settings.quick else settings.minutes  # a sixtieth of the time
        one = speed.rate(
            *(name, settings.models[name], dtype, tile, params[name], devices),
            seconds=seconds,
            rival=rival,
        )
        rates[name, dtype, tile] = one
        found["rates"] = [one._asdict() for one in rates.values()]
        best = _best(rates.values())
        found["best_tile"] = {name: one.tile for name, one in best.items()}
        found["costs"] = _costs(best, settings.dollars_per_hour)
        say(f"{what}: {_rate_text(one)}")
        keep(found)

    params = {
        name: mesh.replicate(speed.random_params(config), devices)
        for name, config in settings.models.items()
    }
    first, rest = settings.tiles
    for name in settings.models:
        for tile in first:
            measure(name, "bfloat16", tile)
        if best := found["best_tile"].get(name):
            measure(name, "float32", best, rival)
            if rival is not None:
                measure(name, "bfloat16", best, rival)
    for name in settings.models:
        for tile in rest:
            measure(name, "bfloat16", tile)
    keep(found)
    return found


def _agreements(
    settings: Settings, devices: tuple[jax.Device, ...], cpu: jax.Device
) -> Iterator[Agreement]:
    num_puzzles, depth = (2, 2) if settings.quick else (8, 16)
    for name in settings.bundled:
        model, params = checkpoint.load(name, precision=Precision())
        puzzles = read_dataset(name).head(num_puzzles).puzzles
        if name == settings.bundled[0]:
            sizes = {"num_puzzles": num_puzzles, "depth": depth}
            yield agreement.noise(model, devices[-1], cpu, **sizes)
            yield from agreement.arrangements(model, params, puzzles, devices, depth=depth)
        yield agreement.parity(name, model, params, puzzles, devices[-1], cpu, depth=depth)


def _best(rates: Iterable[Rate]) -> dict[str, Rate]:
    """Of every model, the fastest in bfloat16."""
    best: dict[str, Rate] = {}
    for one in rates:
        before = best.get(one.model, one).steps_per_second or 0.0
        if one.dtype == "bfloat16" and (one.steps_per_second or 0.0) >= before:
            if one.steps_per_second:
                best[one.model] = one
    return best


def _costs(best: Mapping[str, Rate], dollars_per_hour: float) -> list[dict[str, Any]]:
    """Of a puzzle of the paper's rows: PTRM's K * D rollout-steps, at the rate of the best tile."""
    costs = []
    for name in paper.NAMES:
        # But for the vocabulary, ARC-AGI's model is that of the mazes.
        model = "maze-hard" if name == "arc-agi-2" else name
        if model not in best:
            continue
        row, rate = paper.load(name), best[model].steps_per_second
        assert rate is not None
        seconds = row.rollouts * row.depth / rate
        dollars = ppbench.dollars_per_puzzle(seconds, dollars_per_hour=dollars_per_hour)
        costs.append(
            {
                "benchmark": name,
                "model": model,
                "rollouts": row.rollouts,
                "depth": row.depth,
                "seconds_per_puzzle": seconds,
                "dollars_per_puzzle": dollars,
            }
        )
    return costs


def _rate_text(one: Rate) -> str:
    if one.steps_per_second is None:
        return one.note
    share = "peak not known" if one.share is None else f"{100 * one.share:.0f} % of peak"
    text = f"{one.steps_per_second:,.1f} rollout-steps/s, {share}"
    if one.rival_steps_per_second is not None:
        text += f"; PyTorch {one.rival_steps_per_second:,.1f}"
    return f"{text}; {one.note}" if one.note else text


def table(found: dict[str, Any]) -> str:
    """What `check` found, in Markdown."""
    platform, versions = found["platform"], found["versions"]
    lines = [
        f"{platform['devices']} x {platform['device_kind']} ({platform['backend']}), jax "
        f"{versions['jax']}, ptrm_jax {versions['ptrm_jax']}, commit {found['commit']}"
    ]
    if found["against_itself"]:
        lines.append(
            "There is no accelerator: the CPU is compared with itself, for parity with its program "
            "as it is written for an accelerator."
        )
    if found["settings"]["quick"]:
        lines.append("A rehearsal (--quick): the rates are of a toy model, not the paper's.")
    agreements = markdown.table(
        ("check", "holds", "found"),
        (
            (one["name"], "yes" if one["holds"] else "**no**", markdown.escaped(one["found"]))
            for one in found["agreements"]
        ),
    )
    rates = markdown.table(
        (
            *("model", "dtype", "tile", "rollout-steps/s", "share of the bfloat16 peak"),
            *("PyTorch, compiled", "memory so far", "first call", "note"),
        ),
        (_rate_cells(Rate(**one), found["best_tile"]) for one in found["rates"]),
    )
    rate = found["settings"]["dollars_per_hour"]
    costs = markdown.table(
        ("row of the paper", "K", "D", "seconds per puzzle", f"at {rate:g} dollars per hour"),
        (
            (
                one["benchmark"]
                + ("" if one["model"] == one["benchmark"] else f" (as {one['model']})"),
                *(str(one["rollouts"]), str(one["depth"])),
                *(f"{one['seconds_per_puzzle']:.3g}", f"{one['dollars_per_puzzle']:.2g}"),
            )
            for one in found["costs"]
        ),
    )
    if found["left_out"]:
        lines.append(f"Not measured, for want of time: {'; '.join(found['left_out'])}.")
    return "\n\n".join([*lines, agreements + "\n" + rates + "\n" + costs])


def _rate_cells(one: Rate, best: dict[str, int]) -> tuple[str, ...]:
    def shown(value: float | None, text: str, scale: float = 1.0) -> str:
        return "-" if value is None else text.format(scale * value)

    ours, theirs = one.steps_per_second, one.rival_steps_per_second
    return (
        *(
            one.model,
            one.dtype,
            f"{one.tile}{' (best)' if best.get(one.model) == one.tile else ''}",
        ),
        shown(ours, "{:,.1f}"),
        "not known" if ours is not None and one.share is None else shown(one.share, "{:.2f}"),
        shown(theirs, "{:,.1f}") + (f" (x {ours / theirs:.2f})" if ours and theirs else ""),
        shown(one.peak_bytes, "{:.2f} GB", 1e-9),
        shown(one.first_seconds, "{:.0f} s"),
        one.note,
    )
