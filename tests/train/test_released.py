"""Which checkpoint the commands use when none is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from swipe.errors import UsageError
from train import released
from train.checkpoint import load_checkpoint


@pytest.mark.parametrize(("name", "most"), [("nano", 90_000), ("base", 300_000)])
def test_a_released_model_can_be_loaded_and_keeps_its_size(name: str, most: int) -> None:
    model = load_checkpoint(released.released(name)).model()
    assert sum(p.numel() for p in model.parameters()) <= most


def test_before_any_run_it_is_the_released_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert released.default_checkpoint() == released.released("base")


def test_a_finished_run_goes_before_the_released_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "latest").mkdir(parents=True)
    assert released.default_checkpoint() == Path("runs/latest")


def test_an_installation_without_models_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(released, "_FOLDERS", (tmp_path,))
    with pytest.raises(UsageError, match="no released model 'base'") as caught:
        released.released()
    assert "--checkpoint" in caught.value.fix
