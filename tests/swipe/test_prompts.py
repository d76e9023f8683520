"""Natural sentences and random prompts are told apart."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from swipe.gesture import Gesture
from swipe.prompts import NATURAL, RANDOM, prompt_kind
from swipe.sources import read_corpus


def swipe(sentence: str, source: str = "how_we_swipe") -> Gesture:
    points = np.zeros((3, 3), dtype=np.float32)
    return Gesture("1", "a", points, writer="w", source=source, sentence=sentence)


@pytest.mark.parametrize(
    ("sentence", "kind"),
    [
        ("what do you hear", NATURAL),
        ("this looks fine", NATURAL),
        ("suggest you get facts before judging anyone", NATURAL),
        ("fail while hexagon cove", RANDOM),
        ("foods pole had hospitals", RANDOM),
        ("", ""),
    ],
)
def test_a_prompt_has_its_kind(sentence: str, kind: str) -> None:
    assert prompt_kind(swipe(sentence)) == kind


def test_prompts_of_other_corpora_are_not_judged() -> None:
    assert prompt_kind(swipe("fail while hexagon cove", source="futo")) == ""


def test_hardly_a_real_prompt_is_misjudged(shared_data: Path) -> None:
    """Sentences that several writers were shown are natural: what the rule must find unaided."""
    corpus = read_corpus(shared_data / "how_we_swipe" / "dev.jsonl.gz")
    shown: dict[str, set[str]] = defaultdict(set)
    for gesture in corpus.gestures:
        shown[gesture.sentence].add(gesture.writer)
    natural = [g for g in corpus.gestures if len(shown[g.sentence]) > 1]
    alone = [g for g in corpus.gestures if len(shown[g.sentence]) == 1]
    assert len(natural) > 4000
    assert sum(prompt_kind(g) != NATURAL for g in natural) == 31
    assert len(alone) > 3500
    assert sum(prompt_kind(g) != RANDOM for g in alone) < 15
