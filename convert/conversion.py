"""Converts an upstream checkpoint: read, infer the architecture, port, compare, write."""

import dataclasses
import datetime
import importlib.metadata
import importlib.util
import os
import platform
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from convert import files, parity as parity_checks
from convert.architecture import infer_config
from convert.mapping import ConversionError, State, port
from ptrm_jax import checkpoint
from ptrm_jax.config import Precision
from ptrm_jax.files import check_writable
from ptrm_jax.model import TRM, Params


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    config: str | os.PathLike[str] | None = None,
    dataset: str | os.PathLike[str] | None = None,
    entry: str | None = None,
    parity: str | os.PathLike[str] = "auto",
    allow_parity_failure: bool = False,
    overwrite: bool = False,
    **fields: Any,
) -> Path:
    """Converts an upstream checkpoint to one of ours, atomically.

    Args:
      source: run folder, file, or `hf://owner/name[@revision][/file]`; see `find_checkpoint`.
      out: directory to write.
      config: `all_config.yaml`; by default beside the weights.
      dataset: `dataset.json`; by default beside the weights or in data/ there.
      entry: which state to use of a file that has several, e.g. "ema".
      parity: what to compare with: "torch", a path of reference vectors (.npz), "none", or "auto":
        "torch" if PyTorch is installed, otherwise "none".
      allow_parity_failure: write even if the comparison fails; the record says so.
      overwrite: replace an existing checkpoint at `out`.
      **fields: fields of `ModelConfig` that the files do not determine, e.g. `H_cycles=3`.

    Returns:
      `out`.

    Raises:
      ConversionError: the source cannot be read, its architecture is not determined, its tensors
        do not fit, or the comparison fails.
      CheckpointError: `out` exists.
      StorageError: it cannot be written.
    """
    parity = os.fspath(parity)
    torch_installed = importlib.util.find_spec("torch") is not None
    if parity == "auto":
        parity = "torch" if torch_installed else "none"
    # Cheap checks come first.
    if parity == "torch" and not torch_installed:
        raise ConversionError(
            "--parity torch needs PyTorch: pip install 'ptrm-jax[convert]', or pass --parity none"
        )
    if parity not in ("torch", "none") and not Path(parity).is_file():
        raise ConversionError(
            f"--parity must be torch, none or an .npz file; there is no file {parity}"
        )
    if Path(out).exists() and not overwrite:
        raise checkpoint.CheckpointError(
            f"{out} exists; choose another directory or pass --overwrite"
        )

    check_writable(Path(out).absolute().parent)

    found = files.find_checkpoint(source, config=config, dataset=dataset)
    digest = files.weights_digest(found.file)
    weights = files.read_weights(found.file, entry=entry)
    state = weights.state
    settings = _settings(found.config, required=config is not None) or weights.config
    metadata = files.read_dataset(found.dataset) if found.dataset else None
    model_config, origins = infer_config(state, settings, metadata, fields)
    params = port(state, model_config)
    model = TRM(model_config, Precision(compute_dtype=model_config.forward_dtype))

    record = _compare(model, params, state, settings, parity)
    if record["passed"] is False and not allow_parity_failure:
        raise ConversionError(
            f"the converted model does not agree with {parity}: {_failures(record)}; nothing was "
            "written; pass --allow-parity-failure to write it anyway"
        )
    provenance = {
        "source": found.name,
        "kind": found.kind,
        "source_sha256": digest,
        "optimiser_steps": found.step,
        "entry": weights.entry or None,
        "prefix": weights.prefix,
        "ema": weights.note or _ema_note(settings),
        "dtypes": dict(Counter(str(tensor.dtype) for tensor in state.values())),
        "dtype_note": "stored as float32; bfloat16 and float16 exactly, float64 rounded",
        "config_from": origins,
        "converted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": _versions("ptrm-jax", "jax", "jaxlib", "flax", "numpy", "torch"),
    }
    return checkpoint.save(
        out, model_config, params, provenance=provenance, parity=record, overwrite=overwrite
    )


def _settings(path: Path | None, *, required: bool) -> dict[str, Any] | None:
    """What a file says of the architecture; None if it says nothing and need not."""
    if path is None:
        return None
    try:
        return files.read_config(path)
    except ConversionError:
        if required or path.name == files.CONFIG_NAMES[0]:
            raise
        return None  # a config.json or .yaml may be of something else


def _compare(
    model: TRM, params: Params, state: State, settings: Mapping[str, Any] | None, parity: str
) -> dict[str, Any]:
    """Record of all comparisons: `{"passed": bool or None, "checks": [...]}`."""
    if parity == "none":
        return {"passed": None, "checks": [], "note": "not compared with anything"}
    if parity == "torch":
        # Whatever the forward dtype, float32 verifies the port and the algorithm to seven digits.
        dtypes = dict.fromkeys(("float32", model.precision.compute_dtype))
        checks = [
            parity_checks.parity_against_torch(
                model.clone(precision=dataclasses.replace(model.precision, compute_dtype=dtype)),
                params,
                state,
                arch=settings and settings["arch"],
            )
            for dtype in dtypes
        ]
    else:
        checks = [parity_checks.parity_against_reference(model, params, parity)]
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def _failures(record: Mapping[str, Any]) -> str:
    """The number of failed comparisons, and the worst of them."""
    comparisons = [c for check in record["checks"] for c in check["comparisons"]]
    runs = [run for check in record["checks"] for run in check.get("algorithm_1", ())]
    failed = sum(not c["passed"] for c in comparisons)
    text = f"{failed} of {len(comparisons)} comparisons fail"
    if runs:
        failed = sum(not run["passed"] for run in runs)
        text += f", {failed} of {len(runs)} runs of Algorithm 1 fail"
    for check in record["checks"]:
        if not check["worst"]["passed"]:
            text += f"; {check['compute_dtype']}: {describe_worst(check)}"
    return text


def describe_worst(check: Mapping[str, Any]) -> str:
    """Describes the largest error, relative to its tolerance, in a parity record."""
    worst = check["worst"]
    error, tolerance = worst["relative_error"], worst["tolerance"]
    size = "not finite" if error is None else f"{error:.1e}"
    allowed = "any" if tolerance is None else f"{tolerance:.0e}"
    return f"largest relative error {size} at {worst['what']} (allowed {allowed})"


def _ema_note(settings: Mapping[str, Any] | None) -> str:
    ema = None if settings is None else settings.get("ema")
    if not isinstance(ema, bool):
        return "unknown: no all_config.yaml says"
    if ema:
        return "trained with ema: the saved weights are the averaged ones; do not average again"
    return "trained without ema"


def _versions(*names: str) -> dict[str, str]:
    versions = {"python": platform.python_version(), "backend": jax.default_backend()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
