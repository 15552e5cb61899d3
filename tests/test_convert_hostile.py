"""Checkpoints made to take all time or memory of a conversion end in its own error."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from convert import ConversionError, infer_config, parity_against_reference, read_state
from convert.architecture import CONFIG
from convert.files import read_config, read_dataset
from ptrm_jax import ModelConfig

LAYERS = "L_level.layers."


def repeated() -> Any:
    return {"H_init": torch.zeros(1).expand(10**10)}


def shared() -> Any:
    """One storage of 4 MB as a thousand tensors."""
    whole = torch.zeros(10**6)
    return {f"{LAYERS}{i}.x": whole for i in range(1000)}


def cyclic() -> Any:
    state: dict[str, Any] = {"none": 1}
    state["me"] = {"again": state}
    return state


def doubled() -> Any:
    """2**60 paths to one tensor."""
    state: dict[str, Any] = {"H_init": torch.zeros(2)}
    for _ in range(60):
        state = {"a": state, "b": state}
    return state


def nested() -> Any:
    state: dict[str, Any] = {"H_init": torch.zeros(2)}
    for _ in range(300):
        state = {"a": state}
    return state


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (repeated, "repeats its values"),
        (shared, "larger than the file"),
        (cyclic, "has no tensors"),
        (doubled, "has no tensors"),
        (nested, "has no tensors"),
    ],
)
def test_states_of_any_size_and_depth(make: Callable[[], Any], says: str, tmp_path: Path) -> None:
    torch.save(make(), tmp_path / "step_1")
    with pytest.raises(ConversionError, match=says):
        read_state(tmp_path / "step_1")


def test_a_state_in_two_places_is_found_once(tmp_path: Path) -> None:
    state = {f"{LAYERS}0.x": torch.zeros(2)}
    torch.save({"model": state, "best": state}, tmp_path / "step_1")
    assert list(read_state(tmp_path / "step_1")) == [f"{LAYERS}0.x"]


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    torch.save({"H_init": torch.zeros(10**6)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "small.pt", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for name in plain.namelist():
            small.writestr(name, plain.read(name))
    assert (tmp_path / "small.pt").stat().st_size < 20_000
    with pytest.raises(ConversionError, match="it is compressed"):
        read_state(tmp_path / "small.pt")


@pytest.mark.parametrize("layer", ["1000000000", "9" * 5000, "99"])
def test_numbers_of_layers(layer: str) -> None:
    state = {f"{LAYERS}{layer}.mlp.down_proj.weight": np.zeros((4, 4), np.float32)}
    state["embed_tokens.embedding_weight"] = np.zeros((4, 4), np.float32)
    given = {"H_cycles": 1, "L_cycles": 1, "seq_len": 4, "prefix_len": 0, "mlp_width": 4}
    more = {"variant": "attention", "num_heads": 1, "forward_dtype": "float32", "mlp_t_width": 0}
    with pytest.raises(ConversionError):
        infer_config(state, None, None, given | more | {"positions": "none"})


@pytest.mark.parametrize("field", ["num_layers", "H_cycles", "L_cycles", "vocab_size", "mlp_width"])
def test_models_have_bounds(field: str) -> None:
    fields: dict[str, Any] = dict.fromkeys(
        ("vocab_size", "seq_len", "hidden_size", "num_layers", "H_cycles", "L_cycles", "mlp_width"),
        4,
    )
    with pytest.raises(ValueError, match=f"{field} must be at most"):
        ModelConfig(**fields | {field: 10**9}, variant="attention")


def test_settings_that_repeat_or_cannot_be_numbers(tmp_path: Path) -> None:
    lists = "\n".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 12))
    (tmp_path / CONFIG).write_text(f"x0: &x0 []\n{lists}\narch: {{H_cycles: *x11}}\n")
    with pytest.raises(ConversionError, match="aliases repeat"):
        read_config(tmp_path / CONFIG)
    arch = {"H_cycles": [[[0] * 99] * 99] * 9, "expansion": float("inf"), 5: 1, "x" * 10**6: 2}
    (tmp_path / CONFIG).write_text(yaml.safe_dump({"arch": {"H_cycles": 1}}))
    state = {f"{LAYERS}0.x": np.zeros((4, 4), np.float32)}
    state["embed_tokens.embedding_weight"] = np.zeros((4, 4), np.float32)
    with pytest.raises(ConversionError, match="unknown arch settings") as error:
        infer_config(state, {"arch": arch})
    assert len(str(error.value)) < 4000
    for text in ("[" * 10**5, "[]", "\x00"):
        (tmp_path / "dataset.json").write_text(text)
        with pytest.raises(ConversionError):
            read_dataset(tmp_path / "dataset.json")


def test_more_tensors_than_a_model_has(tmp_path: Path) -> None:
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"a{i}": tensor for i in range(10_001)}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ConversionError, match=r"at most 10,000 tensors.*it has 10,001"):
        read_state(path)


@pytest.mark.parametrize("kind", ["pipe", "loop", "folder"])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "step_1"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.mkdir()
    with pytest.raises(ConversionError, match="must be a regular file"):
        read_state(path)


def test_references_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reference.npz"
    monkeypatch.setattr("convert.parity.MEBIBYTE", 1)
    np.savez_compressed(path, inputs=np.zeros(2**16, np.int32))
    with pytest.raises(ConversionError, match="must have at most"):
        parity_against_reference(object.__new__(type("Model", (), {"config": None})), {}, path)
