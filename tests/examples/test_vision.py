"""The vision example: one size for data and model (L3), two scales of one family, learning."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples.vision import model as module
from examples.vision.data import label_of, picture
from examples.vision.model import build
from examples.vision.task import VisionTask
from swipe.errors import ConfigError, MissingError, NonFiniteError
from train.assemble import assemble
from train.checkpoint import copy_tensors, load_weights
from train.config import CustomConfig, load_config
from train.loop import fit
from train.preflight import preflight
from train.task import Batch, Drawable

CONFIG = Path(module.__file__).with_name("config.toml")


def small(**settings: object) -> tuple[CustomConfig, VisionTask]:
    """A small task, and the example's own configuration for it."""
    overrides = {
        "options.samples": 128, "options.held_out": 20, "options.image": 56,
        "options.classes": 10, "optimizer.batch_size": 8, "length.steps": 4,
        "record.tensorboard": False, **settings,
    }  # fmt: skip
    config = cast(CustomConfig, load_config(str(CONFIG), overrides))
    return config, cast(VisionTask, assemble(config).task)


def test_images_are_functions_of_their_number_and_all_classes_occur() -> None:
    assert np.array_equal(picture(1, 5, 30, 56), picture(1, 5, 30, 56))
    assert not np.array_equal(picture(1, 5, 30, 56), picture(1, 35, 30, 56))
    assert {label_of(n, 30) for n in range(30)} == set(range(30))


def test_batches_are_functions_of_their_number() -> None:
    (_, one), (_, other) = small(), small()
    one.batch(3)
    for name, tensor in one.batch(20).tensors.items():
        assert torch.equal(tensor, other.batch(20).tensors[name])
    rows = [row for number in range(16) for row in one.batch(number).row_ids]
    assert len(set(rows)) == 128, "an epoch shows every image once"


def test_l3_one_number_sizes_data_and_model() -> None:
    for size in (56, 84):
        _, task = small(**{"options.image": size})
        batch = task.batch(0)
        assert batch.tensors["images"].shape == (8, 3, size, size)
        assert task.model(batch.tensors["images"]).shape == (8, 10)


def test_l3_an_image_of_another_size_is_refused_with_both_shapes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 224, 224\], got .*448, 448"):
        build()(torch.zeros(1, 3, 448, 448))
    with pytest.raises(ConfigError, match="cannot be cut into patches of 28"):
        build(image=225)


def test_l3_the_preflight_says_which_shapes_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = small()
    honest = [check for check in preflight(task, config, tmp_path) if not check.passed]
    assert not honest

    def batch(self: VisionTask, index: int) -> Batch:
        return Batch(
            {"images": torch.zeros(8, 3, 448, 448), "labels": torch.zeros(8, dtype=torch.long)},
            [str(n) for n in range(8)],
        )

    monkeypatch.setattr(VisionTask, "batch", batch)
    failed = [check for check in preflight(task, config, tmp_path) if not check.passed]
    assert [check.name for check in failed] == ["data -> model -> loss"]
    assert "expected images [B, 3, 56, 56], got [8, 3, 448, 448]" in failed[0].detail
    assert "one configuration value" in failed[0].fix


def test_the_full_size_has_the_parameters_of_a_base_model() -> None:
    with torch.device("meta"):
        model = build(size="full")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(86e6, rel=0.01)


def test_a_size_that_does_not_exist_or_is_not_installed_is_refused() -> None:
    with pytest.raises(ConfigError, match="no size 'huge'"):
        build(size="huge")
    if importlib.util.find_spec("timm") is None:
        with pytest.raises(MissingError, match="needs the timm library"):
            build(size="timm:eva02_base_patch14_224")


def test_timm_is_asked_for_a_model_without_weights_and_its_size_is_checked_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With a stand-in for the library: what is proven is what we ask of it, not what it answers."""
    asked: dict[str, Any] = {}

    def create_model(name: str, **options: Any) -> nn.Module:
        asked.update(options, name=name)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 28 * 28, options["num_classes"]))

    timm = ModuleType("timm")
    timm.create_model = create_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "timm", timm)
    model = build(4, 28, "timm:eva02_base_patch14_224")
    assert asked == {
        "name": "eva02_base_patch14_224", "pretrained": False, "num_classes": 4, "img_size": 28,
    }  # fmt: skip
    assert model(torch.zeros(2, 3, 28, 28)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"expected images \[B, 3, 28, 28\], got"):
        model(torch.zeros(2, 3, 56, 56))


def test_l3_batches_that_do_not_fit_cost_one_step_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = small(**{"length.steps": 12})
    draw, measure = VisionTask.batch, VisionTask.loss
    too_much = task.batch(7).row_ids

    def batch(self: VisionTask, index: int) -> Batch:
        made = draw(self, index)
        if index != 4:
            return made
        return Batch({**made.tensors, "images": torch.zeros(8, 3, 448, 448)}, made.row_ids)

    def loss(self: VisionTask, batch: Batch) -> Tensor:
        if batch.row_ids == too_much:
            raise MemoryError("too many images")
        return measure(self, batch)

    monkeypatch.setattr(VisionTask, "batch", batch)
    monkeypatch.setattr(VisionTask, "loss", loss)
    progress = fit(task, config, tmp_path, lambda _: None)
    assert (progress.step, progress.taken, progress.skipped) == (12, 10, 2)
    first, second = (json.loads(r) for r in (tmp_path / "skipped.jsonl").read_text().splitlines())
    assert (first["step"], first["kind"], second["step"], second["kind"]) == (
        4, "does not fit", 7, "out of memory",
    )  # fmt: skip
    assert "expected images [B, 3, 56, 56], got [8, 3, 448, 448]" in first["cause"]
    assert first["rows"] == list(draw(task, 4).row_ids)
    assert second["rows"] == list(too_much)


def test_a_run_that_explodes_keeps_the_checkpoint_from_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, task = small(
        **{"length.steps": 20, "guard.max_skips_in_a_row": 3, "guard.max_rollbacks": 1}
    )
    update = torch.optim.AdamW.step

    def explode(self: torch.optim.AdamW, closure: Any = None) -> Any:
        if evaluations:
            self.param_groups[0]["lr"] = 1e37
        return update(self, closure)

    evaluations: list[dict[str, Tensor]] = []
    judge = VisionTask.evaluate

    def evaluate(self: VisionTask) -> Any:
        evaluations.append(copy_tensors(self.model))
        return judge(self)

    monkeypatch.setattr(torch.optim.AdamW, "step", explode)
    monkeypatch.setattr(VisionTask, "evaluate", evaluate)
    with pytest.raises(NonFiniteError, match="steps in a row could not be taken"):
        fit(task, config, tmp_path, lambda _: None)
    for name in ("best", "last"):
        model = build(10, 56)
        load_weights(tmp_path / f"{name}.safetensors", model)
        for key, tensor in model.state_dict().items():
            assert torch.equal(tensor, evaluations[0][key]), key


def test_a_model_that_says_nan_scores_nothing() -> None:
    _, task = small()
    with torch.no_grad():
        cast(nn.Linear, task.model.body.head).weight.fill_(float("nan"))
    assert task.evaluate().value == 0.0


def test_the_samples_can_be_drawn() -> None:
    pytest.importorskip("matplotlib")
    _, task = small()
    assert isinstance(task, Drawable)
    assert len(task.figure().axes) == 10


def test_a_checkpoint_is_loaded_into_the_module_that_it_names(tmp_path: Path) -> None:
    config, task = small()
    fit(task, config, tmp_path, lambda _: None)
    options = load_weights(tmp_path / "last.safetensors", build(10, 56))["options"]
    model = build(**options).eval()
    load_weights(tmp_path / "last.safetensors", model)
    x = task.batch(0).tensors["images"]
    task.model.eval()
    with torch.inference_mode():
        assert torch.equal(model(x), task.model(x))


@pytest.mark.slow
def test_the_example_learns_far_beyond_chance(tmp_path: Path) -> None:
    config = cast(
        CustomConfig,
        load_config(str(CONFIG), {"length.steps": 120, "record.tensorboard": False}),
    )
    progress = fit(assemble(config).task, config, tmp_path, lambda _: None)
    assert progress.best > 80.0, "of 100; chance is 3, knowing one of the two colours 20"
