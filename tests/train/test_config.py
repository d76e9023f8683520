"""Configuration: presets load, overrides win, every mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from swipe.errors import ConfigError
from train.config import PRESETS, load_config, load_saved_config, parse_override, save_config
from train.models import TransformerSpec


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_valid(name: str) -> None:
    config = load_config(name)
    assert config.length.minutes > 0


def test_presets_have_the_published_widths() -> None:
    widths = {"nano": 48, "base": 80, "large": 192}
    assert {name: load_config(name).model.channels for name in widths} == widths
    assert load_config("transformer").model == TransformerSpec()


def test_another_model_drops_the_files_options_and_no_others() -> None:
    chosen = load_config("base", {"model.name": "transformer", "model.depth": 2})
    assert chosen.model == TransformerSpec(depth=2)
    same = load_config("base", {"model.name": "tcn"})
    assert same.model == load_config("base").model


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"model.name": "transformer", "model.dilations": [1]}, "model.dilations"),
        ({"model.dilations": [1], "model.name": "transformer"}, "model.dilations"),
        ({"model.width": 64}, "model.width"),
        ({"model.name": "transformer", "model.width": 66}, "multiple of its 4 heads"),
        ({"model.name": "transformer", "model.heads": 3}, "multiple of its 3 heads"),
        ({"model.name": "lstm"}, "model.name"),
        ({"model": 3}, "model"),
    ],
)
def test_options_of_another_architecture_are_refused(
    overrides: dict[str, object], named: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("nano", overrides)
    assert named in str(caught.value)


def test_a_saved_configuration_keeps_its_architecture(tmp_path: Path) -> None:
    config = load_config("nano", {"model.name": "transformer"})
    save_config(config, tmp_path / "config.json")
    assert load_saved_config(tmp_path / "config.json") == config


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer.learning_rate=1e-3", ("optimizer.learning_rate", 1e-3)),
        ("model.dilations=[1, 2]", ("model.dilations", [1, 2])),
        ("data.train=swipes.jsonl", ("data.train", "swipes.jsonl")),
        (" seed = 4 ", ("seed", 4)),
    ],
)
def test_overrides_parse(text: str, expected: tuple[str, object]) -> None:
    assert parse_override(text) == expected


@pytest.mark.parametrize("text", ["seed", "=4", ""])
def test_an_override_without_a_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not key=value"):
        parse_override(text)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("model.chanels", 48, "model.chanels"),
        ("model.channels", 0, "model.channels"),
        ("optimizer.learning_rate", -1, "optimizer.learning_rate"),
        ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate"),
        ("length.steps", 5, "length"),
        ("seed.x", 5, "seed"),
    ],
)
def test_mistakes_are_named(key: str, value: object, named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("nano", {key: value})
    assert named in str(caught.value)


def test_a_file_is_read_and_a_broken_one_refused(tmp_path: Path) -> None:
    good = tmp_path / "mine.toml"
    good.write_text("seed = 3\n[length]\nsteps = 7\n")
    assert load_config(str(good)).length.steps == 7
    bad = tmp_path / "bad.toml"
    bad.write_text("seed = = 3")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(str(bad))
    with pytest.raises(ConfigError, match="no configuration"):
        load_config(str(tmp_path / "absent.toml"))
