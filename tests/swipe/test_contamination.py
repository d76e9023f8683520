"""Training swipes and writers in an evaluation set are found, however they were disguised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swipe.contamination import CELLS, EXAMPLES, find_overlap, require_disjoint, trace_digest
from swipe.errors import ExitCode, GateError
from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.sources import read_corpus
from swipe.synthesis import synthesize

LAYOUT, LEXICON = load_layout("qwerty"), wordfreq_lexicon(500)
EVALUATED = synthesize(LAYOUT, LEXICON, 60, first_writer=1000).gestures
TRAINED = synthesize(LAYOUT, LEXICON, 300).gestures


def renamed(gesture: Gesture, **changes: object) -> Gesture:
    return replace(gesture, **{"id": "x", "writer": "nobody", **changes})  # type: ignore[arg-type]


def test_disjoint_sets_pass_and_are_counted() -> None:
    assert require_disjoint(EVALUATED, TRAINED, "train.jsonl") == len(TRAINED)


def test_a_contaminated_set_is_refused_with_counts_and_rows() -> None:
    smuggled = [renamed(gesture) for gesture in EVALUATED[:5]]
    with pytest.raises(GateError, match=r"5 swipes.*0 writers.*train\.jsonl") as caught:
        require_disjoint(EVALUATED, [*TRAINED, *smuggled], "train.jsonl")
    assert caught.value.exit_code == ExitCode.GATE_FAILED
    assert f"{EVALUATED[0].id} = x" in str(caught.value)
    assert str(caught.value).count(" = x") == EXAMPLES


def test_a_writer_of_the_evaluation_set_among_the_trained_ones_is_seen() -> None:
    stranger = replace(TRAINED[0], writer=EVALUATED[0].writer)
    with pytest.raises(GateError, match=f"0 swipes and 1 writers .{EVALUATED[0].writer}"):
        require_disjoint(EVALUATED, [*TRAINED[1:], stranger], "train.jsonl")


@given(st.integers(0, len(EVALUATED) - 1), st.integers(2, 4))
def test_repeated_points_and_other_times_hide_nothing(row: int, times: int) -> None:
    gesture = EVALUATED[row]
    points = np.repeat(gesture.points, times, axis=0)
    points[:, 2] = 3.0 * np.arange(len(points))
    assert trace_digest(renamed(gesture, points=points)) == trace_digest(gesture)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("place", [0, 5, -1])
def test_a_detour_along_one_axis_makes_another_swipe(axis: int, place: int) -> None:
    points = EVALUATED[0].points.copy()
    points[place, axis] += 3 / CELLS
    assert trace_digest(renamed(EVALUATED[0], points=points)) != trace_digest(EVALUATED[0])


@pytest.mark.parametrize("axis", [0, 1])
def test_a_straight_swipe_counts_with_every_cell_that_it_passes(axis: int) -> None:
    far, near = (np.zeros((4, 3), dtype=np.float32) for _ in range(2))
    far[:, axis], near[:, axis] = [0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.2, 0.4]
    digests = {trace_digest(renamed(EVALUATED[0], points=points)) for points in (far, near)}
    assert len(digests) == 2


def test_words_keep_equal_traces_apart() -> None:
    other = renamed(EVALUATED[0], word=EVALUATED[0].word + "s")
    assert trace_digest(other) != trace_digest(EVALUATED[0])


def test_different_swipes_of_one_word_are_different() -> None:
    digests = {trace_digest(gesture) for gesture in (*EVALUATED, *TRAINED)}
    assert len(digests) == len(EVALUATED) + len(TRAINED)


def test_the_training_corpus_is_never_held() -> None:
    """It passes by once: an iterator that could not be read twice, of rows that are let go."""
    alive = 0

    class Counted(Gesture):
        __slots__ = ("__weakref__",)

        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def stream() -> Iterator[Gesture]:
        nonlocal alive
        for gesture in TRAINED:
            alive += 1
            assert alive <= 2
            yield Counted(gesture.id, gesture.word, gesture.points, gesture.writer, gesture.source)

    assert find_overlap(EVALUATED, stream()).compared == len(TRAINED)


def test_raw_logs_are_found_among_converted_rows(shared_data: Path) -> None:
    """The same fingers, before and after coordinates were rounded; writers are renamed here."""
    folder = shared_data / "how_we_swipe"
    logs = sorted((folder / "raw_sample").glob("*.log"))
    raw = [renamed(g, id=g.id) for log in logs for g in read_corpus(log).gestures]
    overlap = find_overlap(read_corpus(folder / "dev.jsonl.gz").gestures, raw)
    assert overlap.swipes == overlap.compared == 81
    assert overlap.writers == ()
