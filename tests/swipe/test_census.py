"""The numbers of a corpus: right on swipes whose numbers are known, and in bounded memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_preparation import command
from watched_swipes import WatchedSwipes

import swipe.picture
from swipe.census import MEASURES, Census, Histogram
from swipe.errors import MissingError, UsageError
from swipe.gesture import Gesture, letter_miss
from swipe.layout import load_layout
from swipe.lexicon import wordfreq_lexicon
from swipe.picture import draw_census, require_drawable, save_figure
from swipe.preparation import prepare_folder
from swipe.sources import read_corpus
from swipe.synthesis import synthesize

LAYOUT = load_layout("qwerty")
SWIPES = synthesize(LAYOUT, wordfreq_lexicon(500), 200).gestures
PNG = b"\x89PNG\r\n\x1a\n"


def exact(word: str, dx: float = 0.0, step_ms: float = 10.0) -> Gesture:
    """A swipe straight from key to key with a touch point on each, moved to the right."""
    points = np.column_stack([LAYOUT.path(word), np.arange(len(word)) * step_ms])
    points[:, 0] += dx
    return Gesture(word, word, points.astype(np.float32), "w", "test")


def counted(*swipes: Gesture) -> Census:
    census = Census(LAYOUT)
    census.add(swipes)
    return census


def medians(census: Census) -> dict[str, float]:
    return {name: values.percentile(50) for name, values in census.measures.items()}


def test_a_swipe_through_its_keys_has_the_figures_of_its_word() -> None:
    census = counted(exact("cat"))
    assert medians(census) == pytest.approx(
        {
            "letters per word": 3,
            "duration, ms": 20,
            "points": 3,
            "points per second": 150,
            "sampling interval, ms": 10,
            "path / way through keys": 1,
            "start to first key, keys": 0,
            "end to last key, keys": 0,
            "worst letter miss, keys": 0,
        },
        abs=1e-5,
    )
    assert not census.missed.any()
    times = {letter: int(values.counts.sum()) for letter, values in census.letters.items()}
    assert {letter for letter, number in times.items() if number} == set("cat")
    shares = dict(zip(LAYOUT.letters, census.missed_share(), strict=True))
    assert shares["c"] == 0
    assert np.isnan(shares["z"])


def test_a_shifted_swipe_begins_and_ends_beside_its_keys() -> None:
    census = counted(exact("cat", dx=0.15))
    found = medians(census)
    for name in ("start to first key, keys", "end to last key, keys", "worst letter miss, keys"):
        assert found[name] == pytest.approx(1.5, abs=1e-5)
    assert found["path / way through keys"] == pytest.approx(1, abs=1e-5)


def test_a_letter_that_is_missed_is_the_one_that_is_counted() -> None:
    swipe = exact("cat")
    points = swipe.points.copy()
    points[1, :2] = LAYOUT.path("p")[0]
    census = counted(swipe, replace(swipe, points=points))
    shares = dict(zip(LAYOUT.letters, census.missed_share(), strict=True))
    assert (shares["a"], shares["c"], shares["t"]) == (0.5, 0, 0)


def test_what_a_collector_lost_shows_as_intervals() -> None:
    interval = "sampling interval, ms"
    assert medians(counted(exact("queue", step_ms=90)))[interval] == pytest.approx(90)
    paused = exact("letters")
    paused.points[4:, 2] += 500
    assert medians(counted(paused))[interval] == pytest.approx(10)
    repeated = exact("letters")
    repeated.points[[1, 3, 5], 2] -= 10
    assert medians(counted(repeated))[interval] == pytest.approx(20)


def test_the_wrong_layout_shows() -> None:
    census = Census(load_layout("dvorak"))
    census.add(SWIPES)
    ours, theirs = medians(counted(*SWIPES)), medians(census)
    assert ours["start to first key, keys"] < 0.5
    assert theirs["start to first key, keys"] > 1.5
    assert np.nansum(census.missed_share()) > 10 * np.nansum(counted(*SWIPES).missed_share())


def test_a_word_on_one_key_has_no_way_through_its_keys() -> None:
    swipe = exact("mm")
    swipe.points[1, 0] += 0.01
    census = counted(swipe)
    assert np.isnan(census.measures["path / way through keys"].percentile(50))
    assert census.measures["points"].percentile(50) == 2


def test_the_worst_miss_is_the_one_of_the_training_filter() -> None:
    misses = [letter_miss(swipe, LAYOUT) for swipe in SWIPES]
    values = counted(*SWIPES).measures["worst letter miss, keys"]
    assert (values.low, values.high) == (min(misses), max(misses))
    assert values.percentile(50) == pytest.approx(np.median(misses), abs=0.011)


@given(
    st.sampled_from(sorted(MEASURES)),
    st.lists(st.floats(0.01, 60), min_size=1, max_size=300),
    st.integers(1, 299),
    st.integers(0, 100),
)
def test_percentiles_are_those_of_the_values(
    name: str, numbers: list[float], cut: int, percent: int
) -> None:
    edges = MEASURES[name]
    values = np.array(numbers)
    histogram = Histogram(edges)
    for part in (values[:cut], np.array([np.nan]), values[cut:]):
        histogram.add(part)
    assert histogram.counts.sum() == len(values)
    true = float(np.percentile(values, percent, method="inverted_cdf"))
    inside = np.clip(true, edges[0], edges[-1])
    place = min(int(np.searchsorted(edges, inside, side="right")), len(edges) - 1)
    width = edges[place] - edges[place - 1]
    if edges[0] <= true <= edges[-1]:
        assert abs(histogram.percentile(percent) - true) <= width
    assert values.min() <= histogram.percentile(percent) <= values.max()


def test_no_value_has_no_percentile() -> None:
    assert all(np.isnan(Histogram(MEASURES["points"]).percentile(p)) for p in (0, 50, 100))


def test_swipes_are_let_go_when_they_are_counted() -> None:
    """Memory does not depend on the corpus: a batch is alive at any time, and the counts."""
    watched, census = WatchedSwipes(), Census(LAYOUT)
    census.add(watched.rows(4000))
    assert census.swipes == 4000
    assert 1024 <= watched.most <= 2100


def test_the_real_corpus_is_sane(shared_data: Path) -> None:
    census = counted(*read_corpus(shared_data / "how_we_swipe" / "dev.jsonl.gz").gestures)
    found = medians(census)
    assert census.swipes == 8152
    assert 16 < found["sampling interval, ms"] < 18, "phones report touches at 60 Hz"
    assert 1.0 < found["path / way through keys"] < 1.3
    assert found["start to first key, keys"] < found["end to last key, keys"] < 0.6
    assert np.nanmax(census.missed_share()) < 0.08


# The picture and the command.


def test_a_picture_is_drawn_even_of_letters_and_measures_without_values(tmp_path: Path) -> None:
    swipe = exact("mm")
    swipe.points[1, 0] += 0.01
    for number, census in enumerate([counted(*SWIPES), counted(swipe)]):
        path = tmp_path / f"{number}.png"
        save_figure(draw_census(census, LAYOUT, "title"), path)
        assert path.read_bytes().startswith(PNG)
    assert (tmp_path / "0.png").stat().st_size > (tmp_path / "1.png").stat().st_size


def test_what_cannot_be_drawn_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot draw"):
        require_drawable(Path("figure.docx"))
    require_drawable(Path("figure.png"))
    finder = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: None))
    monkeypatch.setattr(swipe.picture, "importlib", finder)
    with pytest.raises(MissingError, match="matplotlib") as caught:
        require_drawable(Path("figure.png"))
    assert "swipe-export[plots]" in caught.value.fix


@pytest.mark.slow
def test_the_command_prints_and_draws_what_it_counted(tmp_path: Path) -> None:
    prepare_folder(SWIPES, tmp_path / "swipes", LAYOUT, label="test", rows_per_group=20)
    done = command(tmp_path, "stats", "swipes", "--sample", "60", "--plot", "out.png")
    assert done.returncode == 0, done.stderr
    assert "sample: 60 of 200 swipes" in done.stdout
    for name in MEASURES:
        assert name in done.stdout
    assert (tmp_path / "out.png").read_bytes().startswith(PNG)
    whole = command(tmp_path, "stats", "swipes", "--sample", "0")
    assert "sample" not in whole.stdout.replace("sampling", "")
    refused = command(tmp_path, "stats", "absent.jsonl", "--plot", "out.pdf")
    assert refused.returncode == 2
    assert "name a .png file" in refused.stderr
    late = command(tmp_path, "stats", "absent.jsonl", "--plot", "out.png/x.png")
    assert late.returncode == 2
    assert "cannot write" in late.stderr
