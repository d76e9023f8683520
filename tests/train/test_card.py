"""The model card: every figure of the files is in it, and figures of anything else are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from swipe.errors import DataError, GateError
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.card import Facts, model_card
from train.checkpoint import load_checkpoint, save_checkpoint
from train.judge import evaluate_checkpoint

pytestmark = pytest.mark.slow

WORDS = "wordfreq:2000"
GEOMETRY = {"swipes": 9, "recorded": 80.5, "carried": {"dvorak": 71.25}, "shuffled": 0.0}


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
    found = {**GEOMETRY, "weights_sha256": figures["weights_sha256"]}
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
    other = json.loads(json.dumps({**figures, "weights_sha256": "1" * 64}))
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
        seeds=[write(tmp_path, "s.json", {**figures, "weights_sha256": "1" * 64, key: "0" * 64})],
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


@pytest.mark.parametrize("weights", [{"weights_sha256": "0" * 64}, {}], ids=["others", "unsaid"])
def test_geometry_of_other_or_unknown_weights_is_refused(
    released: Path, figures: dict[str, Any], tmp_path: Path, weights: dict[str, str]
) -> None:
    facts = Facts(
        [write(tmp_path, "e.json", figures)],
        ["how_we_swipe"],
        geometry=write(tmp_path, "g.json", {**GEOMETRY, **weights}),
    )
    with pytest.raises(GateError, match=r"g\.json") as refusal:
        model_card(released, facts)
    assert "swipe-train geometry --json" in refusal.value.fix


@pytest.mark.parametrize("weights", [[None], ["1" * 64, "1" * 64]], ids=["own", "twice"])
def test_the_same_weights_are_not_two_seeds(
    released: Path, figures: dict[str, Any], tmp_path: Path, weights: list[str | None]
) -> None:
    own = figures["weights_sha256"]
    seeds = [
        write(tmp_path, f"s{i}.json", {**figures, "weights_sha256": one or own})
        for i, one in enumerate(weights)
    ]
    facts = Facts([write(tmp_path, "e.json", figures)], ["how_we_swipe"], seeds=seeds)
    with pytest.raises(GateError, match="no further seed"):
        model_card(released, facts)


@pytest.mark.parametrize(
    ("compared", "unchecked", "expected"),
    [
        (100, "", "Compared with 100 training swipes: no swipe and no writer in common.\n"),
        (
            100,
            "B: it is not at this path",
            "Compared with 100 training swipes: no swipe and no writer in common. Not compared "
            "with the others: B: it is not at this path.\n",
        ),
        (0, "it is generated", "Not compared with the training swipes: it is generated.\n"),
    ],
)
def test_what_was_not_compared_is_said(
    released: Path,
    figures: dict[str, Any],
    tmp_path: Path,
    compared: int,
    unchecked: str,
    expected: str,
) -> None:
    check = {"trained_on": "A, B", "compared": compared, "unchecked": unchecked}
    file = write(tmp_path, "e.json", {**figures, "contamination": check})
    assert expected in model_card(released, Facts([file], ["how_we_swipe"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"beam": None},
        {"beam": {}},
        {"swipes_sha256": 3},
        {"greedy": []},
        {"contamination": {"compared": "many"}},
    ],
)
def test_a_file_of_another_kind_is_named(
    released: Path, figures: dict[str, Any], tmp_path: Path, changes: dict[str, Any]
) -> None:
    good = write(tmp_path, "e.json", figures)
    bad = write(tmp_path, "bad.json", {**figures, **changes})
    other = write(tmp_path, "g.json", {"weights_sha256": figures["weights_sha256"]})
    for facts in (
        Facts([bad], ["how_we_swipe"]),
        Facts([good, bad], ["how_we_swipe"]),
        Facts([good], ["how_we_swipe"], geometry=other),
    ):
        with pytest.raises(DataError, match=r"(bad|g)\.json does not hold"):
            model_card(released, facts)


def test_a_seed_of_another_kind_is_named(
    released: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    seed = write(tmp_path, "s.json", {**figures, "weights_sha256": "1" * 64, "beam": {}})
    facts = Facts([write(tmp_path, "e.json", figures)], ["how_we_swipe"], seeds=[seed])
    with pytest.raises(DataError, match=r"s\.json does not hold"):
        model_card(released, facts)


def test_a_model_of_generated_swipes_is_not_called_one_of_peoples(
    released: Path, figures: dict[str, Any], tmp_path: Path
) -> None:
    made = load_checkpoint(released)
    path = tmp_path / "made.safetensors"
    save_checkpoint(replace(made, data={**made.data, "synthetic": True}), path)
    evaluations = [write(tmp_path, "e.json", figures)]
    with pytest.raises(GateError, match="generated swipes"):
        model_card(path, Facts(evaluations, ["how_we_swipe"]))
    assert "no person made them" in model_card(path, Facts(evaluations, ["synthetic"]))
