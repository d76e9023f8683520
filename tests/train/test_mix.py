"""Several corpora: each in proportion to its weight, in an order that only (seed, epoch) decide."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stream import WORDS, FakeGroups, equal, prepare, settings_of

from swipe.contract import ALPHABET
from swipe.corpus import writers
from swipe.errors import ConfigError, DataError
from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.prepared import PreparedGestures
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.config import Data, load_config, parse_mix, parse_override
from train.mix import MixedRows
from train.stream import MemoryGroups, Rows
from train.swipe_data import SwipeData, load_swipe_data
from train.swipe_task import SwipeTask

LAYOUT = load_layout("qwerty")
SWIPES = synthesize(LAYOUT, load_lexicon(WORDS), 600).gestures


def memory(first: int, last: int, word: str = "") -> MemoryGroups:
    """Swipes `first` to `last`, all writing `word` when one is given."""
    chosen = [
        Gesture(g.id, word or g.word, g.points, g.writer, g.source) for g in SWIPES[first:last]
    ]
    return MemoryGroups(chosen, ALPHABET)


def mixed(seed: int = 0, weights: Sequence[float] = (1, 0.5, 0.2)) -> MixedRows:
    """200, 70 and 230 rows; ids of corpus k lie in the k-th range of `SWIPES`."""
    return MixedRows([memory(0, 200), memory(200, 270), memory(270, 500)], weights, seed)


PLACE = {g.id: int(np.searchsorted([200, 270], i, side="right")) for i, g in enumerate(SWIPES)}


def epoch_of(rows: MixedRows, epoch: int, step: int = 37) -> list[str]:
    ids: list[str] = []
    for start in range(0, len(rows), step):
        ids += rows.rows(epoch, start, min(start + step, len(rows))).ids
    return ids


def test_an_epoch_has_each_row_of_the_first_corpus_and_the_others_by_weight() -> None:
    rows = mixed()
    assert len(rows) == 200 + 100 + 40
    for epoch in range(3):
        ids = epoch_of(rows, epoch)
        assert Counter(PLACE[i] for i in ids) == {0: 200, 1: 100, 2: 40}
        assert {i for i in ids if PLACE[i] == 0} == {g.id for g in SWIPES[:200]}


def test_weights_count_relative_to_the_first() -> None:
    assert len(mixed(weights=(2, 1, 0.4))) == len(mixed())
    assert epoch_of(mixed(weights=(2, 1, 0.4)), 1) == epoch_of(mixed(), 1)


def test_over_epochs_every_row_of_a_corpus_comes_equally_often() -> None:
    rows = mixed()
    times = Counter(i for epoch in range(23) for i in epoch_of(rows, epoch))
    for part, (first, last) in enumerate([(0, 200), (200, 270), (270, 500)]):
        counts = {times[g.id] for g in SWIPES[first:last]}
        assert max(counts) - min(counts) <= 1, part


def test_corpora_are_mixed_within_every_batch() -> None:
    rows = mixed()
    for start in range(0, 320, 64):
        found = Counter(PLACE[i] for i in rows.rows(0, start, start + 64).ids)
        assert set(found) == {0, 1, 2} or (found[0] and found[1])
        assert 20 < found[0] < 55
    assert epoch_of(rows, 0) != epoch_of(rows, 1)
    assert epoch_of(mixed(seed=1), 0) != epoch_of(rows, 0)


RANGES = st.tuples(st.integers(0, 5), st.integers(0, 339), st.integers(1, 150))


@settings(deadline=None, max_examples=30)
@given(history=st.lists(RANGES, max_size=5), asked=RANGES)
def test_rows_do_not_depend_on_what_was_asked_before(
    history: list[tuple[int, int, int]], asked: tuple[int, int, int]
) -> None:
    used = mixed()

    def ask(rows: MixedRows, epoch: int, start: int, length: int) -> Rows:
        return rows.rows(epoch, start, min(start + length, len(rows)))

    for earlier in history:
        ask(used, *earlier)
    assert equal(ask(used, *asked), ask(mixed(), *asked))


def test_ranges_are_the_rows_one_by_one() -> None:
    assert epoch_of(mixed(), 2, step=1) == mixed().rows(2, 0, 340).ids == epoch_of(mixed(), 2, 113)


@pytest.mark.parametrize(("start", "stop"), [(0, 341), (-1, 4), (5, 5), (340, 341)])
def test_a_range_beyond_the_epoch_is_refused(start: int, stop: int) -> None:
    with pytest.raises(IndexError):
        mixed().rows(0, start, stop)


def test_words_of_all_corpora_have_one_width_and_stay_with_their_swipes() -> None:
    rows = MixedRows([memory(0, 40, "cat"), memory(40, 60, "keyboards")], [1, 0.5], 0)
    paths = {g.id: g for g in SWIPES}
    for start in range(0, 60, 4):
        few = rows.rows(0, start, start + 4)
        assert few.targets.shape == (4, 9)
        assert few.targets.dtype == np.int64
        for row, identifier in enumerate(few.ids):
            word = "cat" if identifier in {g.id for g in SWIPES[:40]} else "keyboards"
            spelt = few.targets[row, : few.lengths[row]]
            assert "".join(ALPHABET[i] for i in spelt) == word
            assert not few.targets[row, few.lengths[row] :].any()
            first = paths[identifier].points[0, :2]
            np.testing.assert_allclose(few.trajectories[row, :, 0], first, atol=1e-5)


def test_a_corpus_holds_its_own_two_windows_at_most() -> None:
    parts = [FakeGroups(80), FakeGroups(400)]
    rows = MixedRows(parts, [1, 1.5], 0)
    for epoch in range(2):
        epoch_of(rows, epoch)
    assert all(part.most <= 2 for part in parts)
    assert len(parts[0].loaded) <= 2 * 5 + 1


# Which swipes.


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """ "all" has twelve writers, "more" the last four of them, "others" two more."""
    folder = tmp_path_factory.mktemp("files")
    other = synthesize(LAYOUT, load_lexicon(WORDS), 100, seed=1, first_writer=50).gestures
    named = {"all": SWIPES, "more": SWIPES[400:], "others": other}
    for name, swipes in named.items():
        write_jsonl(swipes, folder / f"{name}.jsonl")
        prepare(folder / f"{name}.jsonl", folder / name)
    return {p.name: str(p) for p in folder.iterdir()}


def load(train: str, mix: dict[str, float], dev: str = "") -> SwipeData:
    return load_swipe_data(Data(train=train, mix=mix, dev=dev, dev_share=0.3), LAYOUT, seed=0)


@pytest.mark.parametrize("suffix", ["", ".jsonl"])
def test_held_out_writers_are_left_out_of_every_corpus(files: dict[str, str], suffix: str) -> None:
    alone = load(files["all"], {})
    both = load(files["all"], {files[f"all{suffix}"]: 0.5, files[f"others{suffix}"]: 2})
    assert [g.id for g in both.dev] == [g.id for g in alone.dev]
    assert [g.id for g in both.train] == [g.id for g in alone.train]
    (again, half), (others, twice) = both.mixed
    assert (half, twice) == (0.5, 2)
    assert isinstance(again, PreparedGestures) is (suffix == "")
    assert writers(again) == writers(alone.train)
    assert writers(others) == {g.writer for g in others}
    assert both.filtered == alone.filtered + (600 - len(again)) + (100 - len(others))
    assert both.source["mix"] == {files[f"all{suffix}"]: 0.5, files[f"others{suffix}"]: 2}


def test_a_mixed_corpus_that_shares_a_writer_with_dev_is_refused(files: dict[str, str]) -> None:
    load(files["others"], {"synthetic:60": 1}, dev=files["more"])
    with pytest.raises(DataError, match="4 writers are in both") as caught:
        load(files["others"], {files["all"]: 1}, dev=files["more"])
    assert files["all"] in str(caught.value)


def test_what_is_mixed_in_makes_the_data_synthetic(tmp_path: Path) -> None:
    real = [Gesture(g.id, g.word, g.points, g.writer, "real") for g in SWIPES]
    write_jsonl(real, tmp_path / "real.jsonl")
    assert load(str(tmp_path / "real.jsonl"), {}).source["synthetic"] is False
    assert load(str(tmp_path / "real.jsonl"), {"synthetic:60": 0.1}).source["synthetic"] is True


@pytest.mark.slow
def test_several_synthetic_corpora_are_different_swipes() -> None:
    found = load("synthetic:400", {"synthetic": 0.1, "synthetic:300": 0.2})
    people = [writers(found.train), *(writers(part) for part, _ in found.mixed)]
    assert sum(map(len, people)) == len(set().union(*people))


def test_a_mixed_corpus_without_a_usable_swipe_is_named(tmp_path: Path) -> None:
    bad = [Gesture(g.id, "zaqpm", g.points, g.writer, g.source) for g in SWIPES[:60]]
    write_jsonl(bad, tmp_path / "bad.jsonl")
    with pytest.raises(DataError, match=r"no training swipe .* in .*bad\.jsonl"):
        load("synthetic:400", {str(tmp_path / "bad.jsonl"): 1})


@pytest.mark.parametrize("suffix", ["", ".jsonl"])
def test_a_resumed_run_draws_the_batches_of_the_uninterrupted_one(
    files: dict[str, str], suffix: str
) -> None:
    def task() -> SwipeTask:
        data = load(files["all"], {files[f"others{suffix}"]: 0.4})
        return SwipeTask(settings_of(), data, LAYOUT)

    whole = task()
    batches = [whole.batch(index) for index in range(3 * whole.batches_per_epoch)]
    shares = Counter(i in PLACE for batch in batches for i in batch.row_ids)
    assert shares[False] == pytest.approx(0.4 * shares[True], rel=0.1)
    for index in (5, len(batches) - 1):
        batch = task().batch(index)
        assert batch.row_ids == batches[index].row_ids
        for name, tensor in batch.tensors.items():
            assert torch.equal(tensor, batches[index].tensors[name])


# Settings and the command.


@pytest.mark.parametrize("weight", [0, -1, 101, float("inf"), float("nan"), "much"])
def test_a_weight_that_is_none_is_refused(weight: float | str) -> None:
    with pytest.raises(ConfigError, match=r"data\.mix"):
        load_config("nano", {"data.mix": {"more.jsonl": weight}})


def test_weights_are_written_in_two_ways() -> None:
    mix = parse_mix(["synthetic:500=0.3", "a=b.jsonl=2"])
    assert mix == {"synthetic:500": 0.3, "a=b.jsonl": 2}
    assert parse_override('data.mix={"a.jsonl" = 0.3}') == ("data.mix", {"a.jsonl": 0.3})
    for wrong in (["more.jsonl"], ["=1"], ["more.jsonl=much"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError, match="CORPUS=WEIGHT"):
            parse_mix(wrong)


@pytest.mark.slow
def test_a_run_on_two_corpora_is_judged_without_the_second(tmp_path: Path) -> None:
    write_jsonl(SWIPES[:300], tmp_path / "more.jsonl")

    def command(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "train.cli", *arguments],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    small = ("--set", "model.channels=8", "--set", "model.dilations=[1]")
    fast = ("--set", "evaluation.lexicon=wordfreq:2000", "--no-preflight", "--steps", "4")
    said = command("fit", "--data", "synthetic:400", "--mix", "more.jsonl=0.5", *small, *fast)
    assert "more.jsonl (synthetic): 300 swipes" in said
    assert "at weight 0.5 swipes" in said
    (tmp_path / "more.jsonl").unlink()
    judged = command("eval", "--lexicon", "wordfreq:2000", "--beam", "8")
    assert "synthetic (400 swipes, seed 0), held-out writers" in judged
