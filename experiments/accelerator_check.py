"""Checks the accelerators of this host: right answers, equal bits, speed, memory, cost.

    python experiments/accelerator_check.py             # one GPU or TPU host, below ten minutes
    python experiments/accelerator_check.py --quick     # a rehearsal on a toy model, also on a CPU

Needs no network. Compares every bundled model with the CPU, step by step from equal states; the
noise; and the devices with themselves: sigma = 0, K, pmap and mesh. Then times the full-size models
(random weights) in bfloat16 by tile, and at the best tile in both dtypes, against the compiled
PyTorch statement of `convert/torch_trm.py` where PyTorch can use the device. Writes check.json and
table.md, which EXPERIMENTS.md can take up. Exit status 1 if a check does not hold.
"""

if __name__ == "__main__":  # first, since the other imports take seconds
    from ptrm_jax import interrupts

    interrupts.catch()

import dataclasses
import sys
from collections.abc import Callable
from typing import Annotated

import jax
import tyro
from etils import epath

from ptrm_jax import checks, console, mesh
from ptrm_jax.config import ModelConfig, group
from ptrm_jax.files import check_writable, json_text, write_text
from ptrm_jax.model import Params


@dataclasses.dataclass(frozen=True)
class Arguments(checks.Settings):
    """Check the accelerators of this host."""

    output: Annotated[str, tyro.conf.arg(metavar="DIR")] = "runs/accelerator_check"
    """Folder of check.json and table.md, which are replaced."""
    torch: bool = True
    """Time PyTorch as well, where it is installed and can use the device."""


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit status: 1 if a check does not hold, 2 for bad input."""
    return console.run_command(lambda: _check(console.parse(Arguments, argv, description=__doc__)))


def _check(given: Arguments) -> int:
    mesh.use_cpu_cores()
    mesh.keep_cpu()
    folder, output = epath.Path(given.output), console.output()
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = checks.check(
        group(given, checks.Settings),
        rival=_torch_step if given.torch else None,
        say=output.print,
        keep=lambda found: write_text(folder / "check.json", json_text(found, indent=1) + "\n"),
    )
    write_text(folder / "table.md", checks.table(found) + "\n")
    output.print(f"\n{checks.table(found)}\nwritten to {folder}")
    return int(not all(one["holds"] for one in found["agreements"]))


def _torch_step(
    config: ModelConfig, dtype: str, params: Params, lanes: int
) -> Callable[[], object] | str:
    """A supervision step of PyTorch's statement, compiled; or why there is none."""
    try:
        import torch

        from convert import mapping
        from convert.torch_trm import TorchTRM
    except ImportError:
        return "PyTorch is not installed"
    platform = {"gpu": "cuda", "cpu": "cpu"}.get(jax.default_backend())
    if platform is None or (platform == "cuda" and not torch.cuda.is_available()):
        return f"PyTorch {torch.__version__} cannot use this device"
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    net = TorchTRM(config, mapping.to_upstream(jax.device_get(params), config), kind).to(platform)
    tokens = torch.ones((lanes, config.seq_len), dtype=torch.int32, device=platform)
    rows = torch.zeros(lanes, dtype=torch.int32, device=platform)
    net.f = torch.compile(net.f)  # type: ignore[method-assign]  # all of it takes minutes

    @torch.inference_mode()
    def step() -> None:
        x = net.embed(tokens, rows)
        y, z = net.initial_carry(lanes)
        y, z = net.deep_recursion(y, z + 0.3 * torch.randn(z.shape, device=platform).to(kind), x)
        net.heads(y)
        if platform == "cuda":
            torch.cuda.synchronize()

    try:
        step()
    except Exception as error:  # of its compiler, which may lack one for C++, or memory
        return f"PyTorch cannot compile it here: {(str(error).splitlines() or [''])[0][:80]}"
    return step


if __name__ == "__main__":
    sys.exit(main())
