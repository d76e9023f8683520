"""`package.module:factory` and weights of anyone's file: every way to be wrong has its message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brought_models import Perceptron, classes
from safetensors.torch import save_file

from exporter.adapter import Exportable
from exporter.factory import load_exportable, make_exportable
from swipe.errors import CheckpointError, NonFiniteError, UsageError
from train.checkpoint import ModelCheckpoint, copy_tensors, save_checkpoint

FACTORY = "brought_models:classes"


@pytest.fixture(autouse=True)
def _folder_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory counts; modules that a test writes there are forgotten after it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("mine_"):
            del sys.modules[name]


def test_a_factory_is_found_and_its_module_evaluates() -> None:
    made = make_exportable(FACTORY)
    assert isinstance(made, Exportable)
    assert not made.module.training


def test_a_factory_in_the_working_directory_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine_good.py").write_text("from brought_models import classes\n")
    assert make_exportable("mine_good:classes").name == "classes"


@pytest.mark.parametrize(
    ("source", "name", "says"),
    [
        ("", "mine_a", "names no factory"),
        ("", "mine_a:", "names no factory"),
        ("", "mine_absent:make", "cannot be imported: No module"),
        ("", "mine_b:make", "cannot be imported"),
        ("1 / 0", "mine_c:make", "cannot be imported: ZeroDivisionError"),
        ("def make(:", "mine_d:make", "cannot be imported: SyntaxError"),
        ("make = 3", "mine_e:make", "is a int and cannot be called"),
        ("def make(): return 3", "mine_f:make", "gives a int, not an Exportable"),
        ("def make(size): return 3", "mine_g:make", "called without arguments: TypeError"),
        ("def make(): raise KeyError('k')", "mine_h:make", "called without arguments: KeyError"),
        ("def make(): raise SystemExit(0)", "mine_i:make", "called without arguments: SystemExit"),
        ("raise SystemExit(0)", "mine_j:make", "cannot be imported: SystemExit: 0"),
    ],
)
def test_a_name_that_leads_to_no_exportable(
    tmp_path: Path, source: str, name: str, says: str
) -> None:
    module = name.partition(":")[0]
    if "absent" not in module:
        (tmp_path / f"{module}.py").write_text(source)
    with pytest.raises(UsageError, match=says) as caught:
        make_exportable(name)
    assert caught.value.fix


def _other_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return copy_tensors(Perceptron())


def _saved(kind: str, folder: Path, tensors: dict[str, Any]) -> Path:
    path = folder / ("weights.safetensors" if "safetensors" in kind else "weights.pt")
    if kind == "our safetensors":
        save_checkpoint(ModelCheckpoint(FACTORY, {}, tensors, 7, {}), path)
    elif kind == "plain safetensors":
        save_file(tensors, path)
    elif kind == "state_dict":
        torch.save(tensors, path)
    else:
        torch.save({"epoch": 3, "model_state_dict": tensors}, path)
    return path


KINDS = ("our safetensors", "plain safetensors", "state_dict", "nested state_dict")


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_file_replace_those_of_the_factory(tmp_path: Path, kind: str) -> None:
    tensors = _other_weights()
    made, origins = load_exportable(FACTORY, _saved(kind, tmp_path, tensors))
    assert all(torch.equal(made.module.state_dict()[name], tensors[name]) for name in tensors)
    assert origins.step == (7 if kind == "our safetensors" else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["missing", "further"])
def test_other_tensors_than_the_networks_are_refused(
    tmp_path: Path, kind: str, change: str
) -> None:
    tensors = _other_weights()
    if change == "missing":
        del tensors["layers.0.bias"]
    else:
        tensors["layers.9.bias"] = torch.zeros(3)
    with pytest.raises(CheckpointError, match="holds the weights of another model"):
        load_exportable(FACTORY, _saved(kind, tmp_path, tensors))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_nan_in_a_file_is_refused(tmp_path: Path, kind: str) -> None:
    tensors = _other_weights()
    tensors["layers.2.weight"][3, 4] = torch.nan
    with pytest.raises(CheckpointError, match=r"layers\.2\.weight: 1 NaN"):
        load_exportable(FACTORY, _saved(kind, tmp_path, tensors))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save(Perceptron(), tmp_path / "whole.pt")
    with pytest.raises(CheckpointError, match="needs code"):
        load_exportable(FACTORY, tmp_path / "whole.pt")


def test_a_file_without_a_state_dict_names_what_it_holds(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "weights": [torch.ones(2)]}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError, match=r"it holds \['epoch', 'weights'\]"):
        load_exportable(FACTORY, tmp_path / "odd.pt")


def test_a_file_of_another_kind_or_none_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.ones(3))
    with pytest.raises(UsageError, match="of no kind that weights are read from"):
        load_exportable(FACTORY, tmp_path / "weights.npy")
    with pytest.raises(UsageError, match="no checkpoint"):
        load_exportable(FACTORY, tmp_path / "absent.pt")


@pytest.mark.parametrize("where", ["layers.0.weight", "mask"])
def test_nan_in_the_factorys_own_parameters_and_buffers_is_refused(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    import brought_models

    given = classes()
    given.module.register_buffer("mask", torch.ones(2), persistent=False)
    tensors = {**dict(given.module.named_parameters()), **dict(given.module.named_buffers())}
    with torch.no_grad():
        tensors[where].view(-1)[0] = torch.inf
    monkeypatch.setattr(brought_models, "classes", lambda: given)
    with pytest.raises(NonFiniteError, match=f"{where}: 0 NaN and 1 Inf"):
        load_exportable(FACTORY, None)
