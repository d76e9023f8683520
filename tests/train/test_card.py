"""The model card: every figure of the files is in it, and figures of anything else are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from swipe.errors import DataError, GateError
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.card import Facts, model_card
from train.judge import evaluate_checkpoint

pytestmark = pytest.mark.slow

WORDS = "wordfreq:2000"


@pytest.fixture(scope="module")
def figures(released: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A real evaluation of the released nano model, on generated swipes."""
    corpus = tmp_path_factory.mktemp("card") / "swipes.jsonl"
    lexicon = load_lexicon(WORDS)
    write_jsonl(synthesize(load_layout("qwerty"), lexicon, 150).gestures, corpus)
    report = evaluate_checkpoint(released, str(corpus), WORDS, beam_width=8)
    found: dict[str, Any] = json.loads(json.dumps(report.to_dict()))
    return found


def write(folder: Path, name: str, figures: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(figures))
    return path


def test_it_holds_the_measured_figures(
    released: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    found = {"swipes": 9, "recorded": 80.5, "carried": {"dvorak": 71.25}, "shuffled": 0.0}
    facts = Facts(
        [write(tmp_path, "e.json", figures)],
        ["how_we_swipe"],
        geometry=write(tmp_path, "g.json", found),
        commands=["swipe-train fit --config nano"],
    )
    card = model_card(released, facts)
    top_k = figures["beam"]["strict"]["top_k"]
    assert f"| 150 | {top_k['1']:.2f} | {top_k['3']:.2f} |" in card
    interval = figures["beam"]["strict"]["intervals"]["1"]
    assert f"{interval['low']:.1f} to {interval['high']:.1f}" in card
    assert f"Worst stratum: {figures['beam']['worst_stratum']}" in card
    assert "85,296" in card
    assert "10.1145/3447526.3472059" in card
    assert "dvorak 71.25 %" in card
    assert "swipe-train fit --config nano" in card
    assert "Trained once" in card


def test_seeds_are_shown_as_mean_and_range(
    released: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    other = json.loads(json.dumps(figures))
    top1 = figures["beam"]["strict"]["top_k"]["1"]
    other["beam"]["strict"]["top_k"]["1"] = top1 - 2
    facts = Facts(
        [write(tmp_path, "e.json", figures)],
        ["how_we_swipe"],
        seeds=[write(tmp_path, "s.json", other)],
    )
    expected = f"of 2 seeds: mean {top1 - 1:.2f} %, {top1 - 2:.2f} to {top1:.2f}"
    assert expected in model_card(released, facts)


def test_figures_of_other_weights_are_refused(
    released: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    foreign = write(tmp_path, "e.json", {**figures, "weights_sha256": "0" * 64})
    with pytest.raises(GateError, match="figures of other weights"):
        model_card(released, Facts([foreign], ["how_we_swipe"]))


@pytest.mark.parametrize("key", ["lexicon_sha256", "swipes_sha256"])
def test_a_seed_judged_differently_is_refused(
    released: Path, figures: dict[str, Any], tmp_path: Path, key: str
) -> None:
    facts = Facts(
        [write(tmp_path, "e.json", figures)],
        ["how_we_swipe"],
        seeds=[write(tmp_path, "s.json", {**figures, key: "0" * 64})],
    )
    with pytest.raises(GateError, match=key):
        model_card(released, facts)


@pytest.mark.parametrize("corpora", [[], ["somebody's"]])
def test_a_corpus_without_attribution_is_refused(
    released: Path, figures: dict[str, Any], tmp_path: Path, corpora: list[str]
) -> None:
    with pytest.raises(DataError, match="no attribution"):
        model_card(released, Facts([write(tmp_path, "e.json", figures)], corpora))


def test_a_card_without_figures_is_refused(released: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="without figures"):
        model_card(released, Facts([], ["how_we_swipe"]))
    with pytest.raises(DataError, match="cannot be read"):
        model_card(released, Facts([tmp_path / "none.json"], ["how_we_swipe"]))
