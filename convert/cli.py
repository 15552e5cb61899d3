"""The command `python -m convert`."""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from tyro.conf import arg

from convert.conversion import convert, describe_worst
from ptrm_jax import checkpoint, console
from ptrm_jax.config import DType, Positions

# Without "(default: None)" or "(default: False)" in the help.
_optional = functools.partial(arg, help_behavior_hint="")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fields:
    """Fields that the files do not determine; they may not contradict the files."""

    H_cycles: Annotated[int | None, _optional(metavar="INT", name="h-cycles")] = None
    """T, latent recursions per deep recursion."""
    L_cycles: Annotated[int | None, _optional(metavar="INT", name="l-cycles")] = None
    """n, updates of z per latent recursion."""
    num_heads: Annotated[int | None, _optional(metavar="INT")] = None
    """Attention heads."""
    positions: Annotated[Positions | None, _optional(metavar="rope|learned|none")] = None
    """Position encoding (upstream pos_encodings)."""
    seq_len: Annotated[int | None, _optional(metavar="INT")] = None
    """S, tokens of a puzzle."""
    prefix_len: Annotated[int | None, _optional(metavar="INT")] = None
    """P, positions of the puzzle embedding (upstream puzzle_emb_len, unless 0)."""
    forward_dtype: Annotated[DType | None, _optional(metavar="float32|bfloat16")] = None
    """Dtype of activations in training."""
    rms_norm_eps: Annotated[float | None, _optional(metavar="FLOAT")] = None
    """Upstream's default is 1e-5."""
    rope_theta: Annotated[float | None, _optional(metavar="FLOAT")] = None
    """Upstream's default is 10000."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Converts an upstream (PyTorch) TRM checkpoint, and verifies that both compute the same."""

    checkpoint: Annotated[tyro.conf.Positional[str], arg(metavar="CHECKPOINT")]
    """Run folder, step_<n>, .pt, .pth, .bin, .ckpt, .safetensors, or a model on the Hugging Face
    hub: hf://owner/name[@revision][/file], owner/name[/file], or its https address."""
    out: Annotated[Path, arg(metavar="DIR")]
    """Directory to write."""
    config: Annotated[Path | None, _optional(metavar="FILE")] = None
    """all_config.yaml; by default beside the checkpoint."""
    dataset: Annotated[Path | None, _optional(metavar="FILE")] = None
    """dataset.json; by default beside the checkpoint or in data/ there."""
    entry: Annotated[str | None, _optional(metavar="NAME")] = None
    """State to use of a file that has several, e.g. ema."""
    parity: Annotated[str, arg(metavar="auto|torch|none|FILE")] = "auto"
    """Reference to compare with: FILE is an .npz of vectors, auto is torch if installed."""
    allow_parity_failure: Annotated[bool, _optional()] = False
    """Write even if the comparison fails."""
    overwrite: Annotated[bool, _optional()] = False
    """Replace an existing checkpoint."""
    fields: Annotated[tyro.conf.OmitArgPrefixes[Fields], arg(name="architecture")] = Fields()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status, 2 if the checkpoint cannot be converted."""

    def command() -> None:
        args = console.parse(
            Arguments, argv, prog="python -m convert", config=(tyro.conf.FlagCreatePairsOff,)
        )
        out = convert(
            args.checkpoint,
            args.out,
            config=args.config,
            dataset=args.dataset,
            entry=args.entry,
            parity=args.parity,
            allow_parity_failure=args.allow_parity_failure,
            overwrite=args.overwrite,
            **dataclasses.asdict(args.fields),
        )
        console.output().print(summary(out))

    return console.run_command(command)


def summary(directory: Path) -> str:
    """Describes a converted checkpoint, from its files, in a few lines."""
    manifest = checkpoint.read_manifest(directory)
    config, source = manifest["config"], manifest["provenance"]
    record = json.loads((directory / "parity.json").read_text())
    num_tensors, num_parameters = len(manifest["leaves"]), checkpoint.num_parameters(manifest)
    heads = f", {config['num_heads']} heads" if config["variant"] == "attention" else ""
    verdict = {True: "passed", False: "FAILED", None: "not compared"}[record["passed"]]
    lines = [
        ("read", f"{source['source']} ({source['kind']}), sha256 {source['source_sha256']}"),
        ("weights", f"{num_parameters:,} parameters in {num_tensors} tensors; {source['ema']}"),
        *(
            [("names", f"without the prefix {prefix!r}")]
            if (prefix := source.get("prefix"))
            else []
        ),
        (
            "model",
            f"{config['variant']}, positions {config['positions']}, {config['num_layers']} layers, "
            f"h {config['hidden_size']}{heads}, cycles {config['H_cycles']} x "
            f"{config['L_cycles']}, S {config['seq_len']}, P {config['prefix_len']}, "
            f"V {config['vocab_size']}, {config['forward_dtype']}",
        ),
        *(
            ("parity", f"{check['against']}, {check['compute_dtype']}: {describe_worst(check)}")
            for check in record["checks"]
        ),
        ("parity", verdict),
        ("digest", manifest["digest"]),
        ("wrote", str(directory)),
    ]
    return "\n".join(f"{name:8} {text}" for name, text in lines)
