"""Checkpoints: what was saved is what is loaded, and anything else is refused by name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from swipe.errors import CheckpointError, ExitCode, NonFiniteError, UsageError
from swipe.layout import load_layout
from train.checkpoint import (
    SCHEMA,
    Checkpoint,
    ModelCheckpoint,
    copy_tensors,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from train.models import TcnSpec, build_model

SPEC = TcnSpec(channels=4, dilations=(1, 2))
REFUSED = (CheckpointError, NonFiniteError)


def checkpoint(tensors: dict[str, Tensor] | None = None, **changes: Any) -> Checkpoint:
    """A real model's checkpoint, or one that holds `tensors` only."""
    torch.manual_seed(0)
    made = Checkpoint(
        spec=SPEC,
        contract=load_layout("qwerty").contract(),
        tensors=dict(build_model(SPEC).state_dict()) if tensors is None else tensors,
        step=7,
        metrics={"beam": {"strict": {"n": 20, "top_k": {"1": 12.5}}}},
        data={"train": "synthetic:400", "seed": 3},
    )
    return replace(made, **changes)


def small() -> Checkpoint:
    """Few enough bytes to damage every one of them."""
    contract = replace(load_layout("qwerty").contract(), alphabet="ab", keys=((0.1, 0.5),) * 2)
    tensors = {"a.weight": torch.randn(3, 2), "a.count": torch.tensor(5)}
    return checkpoint(tensors, contract=contract, metrics={}, data={"seed": 3})


def header(path: Path) -> dict[str, str]:
    data = path.read_bytes()
    parsed = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = parsed["__metadata__"]
    return metadata


def proven(record: Any, tensors: dict[str, Tensor], path: Path) -> None:
    """Write a file whose hash is right, whatever its record says: not damage, but a stranger."""
    text = record if isinstance(record, str) else json.dumps(record)
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    save_file(tensors, path, {"record": text, "sha256": digest.hexdigest()})


def outcome(path: Path) -> str:
    """How loading ended: "loaded", or the name of the exception."""
    try:
        load_checkpoint(path)
    except Exception as error:  # noqa: BLE001 - which exception it is, is what the tests ask
        return type(error).__name__
    return "loaded"


def refusals() -> set[str]:
    return {kind.__name__ for kind in REFUSED}


# What was saved is what is loaded.


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved, path = checkpoint(), tmp_path / "best.safetensors"
    save_checkpoint(saved, path)
    loaded = load_checkpoint(path)
    assert loaded.spec == saved.spec
    assert loaded.contract == saved.contract
    assert loaded.contract.contract_id == saved.contract.contract_id
    assert (loaded.step, loaded.metrics, loaded.data) == (7, saved.metrics, saved.data)
    assert loaded.tensors.keys() == saved.tensors.keys()
    for name, tensor in saved.tensors.items():
        assert loaded.tensors[name].dtype == tensor.dtype
        assert torch.equal(loaded.tensors[name], tensor), name
    assert loaded.weights_sha256 == saved.weights_sha256
    assert loaded.record() == saved.record()


def test_the_loaded_model_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    saved, path = checkpoint(), tmp_path / "best.safetensors"
    save_checkpoint(saved, path)
    features, keys = torch.rand(3, 2, 64), torch.tensor(saved.contract.keys).expand(3, -1, -1)
    model = load_checkpoint(path).model()
    assert not model.training
    with torch.inference_mode():
        assert torch.equal(model(features, keys), saved.model()(features, keys))


def test_a_folder_stands_for_its_best_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(checkpoint(), tmp_path / "best.safetensors")
    save_checkpoint(checkpoint(step=9), tmp_path / "last.safetensors")
    assert load_checkpoint(tmp_path).step == 7


def test_equal_checkpoints_have_equal_hashes(tmp_path: Path) -> None:
    """The bytes may differ: safetensors writes its metadata in any order."""
    for name in ("a", "b"):
        save_checkpoint(checkpoint(), tmp_path / f"{name}.safetensors")
    assert header(tmp_path / "a.safetensors") == header(tmp_path / "b.safetensors")
    assert checkpoint().weights_sha256 != checkpoint({"blank": torch.ones(1)}).weights_sha256


def test_the_sidecar_repeats_the_record(tmp_path: Path) -> None:
    saved = checkpoint()
    save_checkpoint(saved, tmp_path / "best.safetensors")
    sidecar = json.loads((tmp_path / "best.json").read_text())
    assert sidecar.pop("sha256") == header(tmp_path / "best.safetensors")["sha256"]
    assert sidecar == json.loads(header(tmp_path / "best.safetensors")["record"])
    assert sidecar["schema"] == SCHEMA
    assert sidecar["contract_id"] == saved.contract.contract_id
    assert sidecar["model"] == {"name": "tcn", "channels": 4, "dilations": [1, 2], "dropout": 0.0}


def test_nothing_loads_the_sidecar(tmp_path: Path) -> None:
    save_checkpoint(checkpoint(), tmp_path / "best.safetensors")
    (tmp_path / "best.json").write_text("{broken")
    assert load_checkpoint(tmp_path).step == 7


def test_saving_leaves_no_temporary_file(tmp_path: Path) -> None:
    for step in range(3):
        save_checkpoint(checkpoint(step=step), tmp_path / "best.safetensors")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


# What is not finite can be neither written nor read.


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["blank", "halve.norm.running_var", "blocks.1.mix.conv.weight"])
def test_a_weight_that_is_not_finite_is_not_saved(tmp_path: Path, name: str, bad: float) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    poisoned = checkpoint(step=8)
    poisoned.tensors[name].view(-1)[-1] = bad
    with pytest.raises(NonFiniteError, match=name) as caught:
        save_checkpoint(poisoned, path)
    assert caught.value.exit_code == ExitCode.GATE_FAILED
    assert "1 " in str(caught.value)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_nothing_is_created_for_a_checkpoint_that_is_not_finite(tmp_path: Path) -> None:
    poisoned = checkpoint()
    poisoned.tensors["blank"].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="blank: 64 NaN and 0 Inf of 64 values"):
        save_checkpoint(poisoned, tmp_path / "run" / "best.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_not_saved(tmp_path: Path, bad: float) -> None:
    with pytest.raises(NonFiniteError, match=r"figure recorded in best\.safetensors"):
        save_checkpoint(checkpoint(metrics={"beam": {"cer": bad}}), tmp_path / "best.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_written_past_save_is_refused_by_load(tmp_path: Path, bad: float) -> None:
    good, path = checkpoint(), tmp_path / "best.safetensors"
    tensors = {name: t.clone() for name, t in good.tensors.items()}
    tensors["query.weight"][3, 2] = bad
    proven(good.record(), tensors, path)
    with pytest.raises(NonFiniteError, match=r"query\.weight"):
        load_checkpoint(path)


def test_every_tensor_nan_is_refused_by_load(tmp_path: Path) -> None:
    good, path = checkpoint(), tmp_path / "best.safetensors"
    tensors = {
        name: torch.full_like(t, float("nan")) if t.is_floating_point() else t
        for name, t in good.tensors.items()
    }
    proven(good.record(), tensors, path)
    with pytest.raises(NonFiniteError):
        load_checkpoint(path)


# Damage: every truncation and every flipped bit.


def test_the_hand_made_file_is_one_that_loads(tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    good = checkpoint()
    proven(good.record(), dict(good.tensors), tmp_path / "best.safetensors")
    assert load_checkpoint(tmp_path).record() == good.record()


def test_a_truncated_checkpoint_is_refused_at_every_length(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(small(), path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_checkpoint(path)


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(small(), path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_a_flipped_bit_is_refused_in_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(small(), path)
    whole = path.read_bytes()
    bits = np.random.default_rng(0).integers(0, 8, len(whole))
    ends: dict[str, list[int]] = {}
    for position, bit in enumerate(bits):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << int(bit)
        path.write_bytes(damaged)
        ends.setdefault(outcome(path), []).append(position * 8 + int(bit))
    assert ends.keys() <= refusals(), {k: v[:5] for k, v in ends.items() if k not in refusals()}


@pytest.mark.slow
def test_every_single_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(small(), path)
    whole = path.read_bytes()
    ends: dict[str, list[int]] = {}
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        ends.setdefault(outcome(path), []).append(position)
    assert ends.keys() <= refusals(), {k: v[:5] for k, v in ends.items() if k not in refusals()}


def test_a_flipped_bit_is_refused_in_a_model(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    whole = path.read_bytes()
    ends: dict[str, list[int]] = {}
    for position in np.random.default_rng(1).integers(0, 8 * len(whole), 300).tolist():
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        ends.setdefault(outcome(path), []).append(position)
    assert ends.keys() <= refusals(), {k: v[:5] for k, v in ends.items() if k not in refusals()}


def test_a_changed_weight_is_called_altered(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    metadata, tensors = header(path), load_file(path)
    tensors["blank"][0] += 1.0
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(path)


def test_a_changed_record_is_called_altered(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    metadata = header(path)
    metadata["record"] = metadata["record"].replace('"1": 12.5', '"1": 99.5')
    save_file(load_file(path), path, metadata)
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(path)


def test_a_dropped_tensor_is_called_altered(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(), path)
    metadata, tensors = header(path), load_file(path)
    del tensors["blank"]
    save_file(tensors, path, metadata)
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(path)


# Strangers.


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"record": "{}"}, {"sha256": "0"}])
def test_a_foreign_safetensors_file_is_refused(
    tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.ones(3)}, path, metadata)
    with pytest.raises(CheckpointError, match="not written by swipe-train"):
        load_checkpoint(path)


def test_a_safetensors_header_without_metadata_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    text = b'{"__metadata__":null}   '
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x80\x02}q\x00.", b"\xff" * 64])
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a complete safetensors file"):
        load_checkpoint(path)


def test_a_pickled_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(dict(checkpoint().tensors), path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path)


def test_another_schema_is_refused_and_both_are_named(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    good = checkpoint()
    proven({**good.record(), "schema": "swipe-export/checkpoint/2"}, dict(good.tensors), path)
    with pytest.raises(CheckpointError, match="checkpoint/2") as caught:
        load_checkpoint(path)
    assert SCHEMA in str(caught.value)


def _without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda record: {k: v for k, v in record.items() if k != key}


UNUSABLE: dict[str, Callable[[dict[str, Any]], Any]] = {
    **{f"no {k}": _without(k) for k in ("schema", "model", "contract", "step", "metrics", "data")},
    "unknown model": lambda r: {**r, "model": {**r["model"], "name": "lstm"}},
    "no channels": lambda r: {**r, "model": {**r["model"], "channels": 0}},
    "extra model field": lambda r: {**r, "model": {**r["model"], "heads": 4}},
    "broken contract": lambda r: {**r, "contract": {"alphabet": "ab"}},
    "contract is a list": lambda r: {**r, "contract": []},
    "step is a word": lambda r: {**r, "step": "seven"},
    "record is a list": lambda r: [r],
    "record is not JSON": lambda r: "{" + json.dumps(r),
}


@pytest.mark.parametrize("change", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_an_unusable_record_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any]
) -> None:
    path, good = tmp_path / "best.safetensors", checkpoint()
    proven(change(good.record()), dict(good.tensors), path)
    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        load_checkpoint(path)


def test_tensors_of_another_architecture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint(spec=TcnSpec(channels=8, dilations=(1, 2))), path)
    with pytest.raises(CheckpointError, match="do not fit the recorded architecture"):
        load_checkpoint(path).model()


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    save_checkpoint(checkpoint({"blank": torch.zeros(64)}), path)
    with pytest.raises(CheckpointError, match=r"query\.weight"):
        load_checkpoint(path).model()


# Places.


@pytest.mark.parametrize("name", ["absent.safetensors", "absent/best.safetensors", "."])
def test_a_missing_checkpoint_is_a_usage_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no checkpoint") as caught:
        load_checkpoint(tmp_path / name)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.fix


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        save_checkpoint(checkpoint(), tmp_path / "file" / "best.safetensors")
    with pytest.raises(UsageError, match="no checkpoint"):
        load_checkpoint(tmp_path / "file" / "best.safetensors")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_each_kind_of_checkpoint_is_read_as_its_own_kind_only(
    tmp_path: Path, released: Path
) -> None:
    """A stranger's model is no swipe model, however sound its file."""
    model = nn.Linear(2, 3)
    theirs = ModelCheckpoint("package:build", {}, copy_tensors(model), 7, {})
    save_checkpoint(theirs, tmp_path / "best.safetensors")
    assert load_weights(tmp_path, nn.Linear(2, 3))["step"] == 7
    with pytest.raises(CheckpointError, match="this version reads 'swipe-export/checkpoint/1'"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="this version reads 'swipe-export/model/1'"):
        load_weights(released, model)
    with pytest.raises(CheckpointError, match="weights of another model") as caught:
        load_weights(tmp_path, nn.Linear(2, 4))
    assert "package:build" in caught.value.fix
