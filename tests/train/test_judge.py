"""The protocol: every line is there, pairs are pairs, and what was trained on is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from swipe.corpus import corpus_digest, split_by_writer
from swipe.errors import DataError, ExitCode, GateError, UsageError
from swipe.gesture import Gesture
from swipe.layout import load_layout
from swipe.lexicon import load_lexicon
from swipe.preparation import prepare_folder
from swipe.sources import write_jsonl
from swipe.synthesis import synthesize
from train.checkpoint import Checkpoint, save_checkpoint
from train.judge import Report, evaluate_checkpoint, table
from train.models import TcnSpec, build_model
from train.swipe_data import DEV_SALT

LAYOUT = load_layout("qwerty")
WORDS = "wordfreq:2000"
SPEC = TcnSpec(channels=4, dilations=(1,))
WIDTH = 8


@pytest.fixture(scope="module")
def swipes() -> tuple[Gesture, ...]:
    """Swipes of the writers 0 to 4 or so, as a corpus of people: not called synthetic."""
    made = synthesize(LAYOUT, load_lexicon(WORDS), 200).gestures
    return tuple(
        replace(g, source="people", writer=f"w{i // 40}", word="zzxq" if i < 2 else g.word)
        for i, g in enumerate(made)
    )


@pytest.fixture
def files(tmp_path: Path, swipes: tuple[Gesture, ...], monkeypatch: pytest.MonkeyPatch) -> Path:
    """``train.jsonl`` of writers w0 to w2, ``dev.jsonl`` of w3 and w4, two checkpoints."""
    monkeypatch.chdir(tmp_path)
    write_jsonl(swipes[:120], tmp_path / "train.jsonl")
    write_jsonl([*swipes[120:], *_unknown_words(swipes)], tmp_path / "dev.jsonl")
    save(tmp_path / "a.safetensors", seed=0)
    save(tmp_path / "b.safetensors", seed=1)
    return tmp_path


def _unknown_words(swipes: tuple[Gesture, ...]) -> list[Gesture]:
    return [replace(g, id=f"unknown-{i}", writer="w3") for i, g in enumerate(swipes[:2])]


def save(
    path: Path,
    *,
    seed: int,
    train: str = "train.jsonl",
    dev: str = "dev.jsonl",
    mix: dict[str, float] | None = None,
    **further: Any,
) -> None:
    torch.manual_seed(seed)
    tensors = dict(build_model(SPEC).state_dict())
    source = {"train": train, "dev": dev, "dev_share": 0.4, "seed": 0, "mix": mix or {}, **further}
    save_checkpoint(Checkpoint(SPEC, LAYOUT.contract(), tensors, 1, {}, source), path)


def judge(data: str | None = "dev.jsonl", **options: str | Path | None) -> Report:
    return evaluate_checkpoint(
        Path("a.safetensors"),
        data,
        WORDS,
        beam_width=WIDTH,
        **options,  # type: ignore[arg-type]
    )


# What is in a result.


@pytest.fixture
def clean(files: Path, swipes: tuple[Gesture, ...]) -> Path:
    """As `files`, but the training corpus lacks the swipes that dev repeats."""
    write_jsonl(swipes[2:120], files / "train.jsonl")
    return files


def test_a_result_says_what_it_rests_on(clean: Path) -> None:
    figures = json.loads(json.dumps(judge().to_dict(), allow_nan=False))
    assert figures["lexicon_sha256"] == load_lexicon(WORDS).sha256
    assert figures["preset"]["beam_width"] == 8
    assert figures["contamination"] == {
        "trained_on": "train.jsonl", "compared": 118, "unchecked": ""
    }  # fmt: skip
    assert figures["intervals"]["writers"] == 2
    assert len(figures["swipes_sha256"]) == len(figures["weights_sha256"]) == 64
    for part in (figures["beam"]["strict"], *figures["beam"]["strata"].values()):
        for k in ("1", "4"):
            assert part["intervals"][k]["low"] <= part["top_k"][k] <= part["intervals"][k]["high"]


def test_nothing_is_out_of_the_extended_vocabulary(clean: Path) -> None:
    figures = judge().to_dict()
    assert figures["beam"]["in_vocabulary"]["n"] == 80
    extended = figures["extended"]
    assert extended["strict"]["n"] == extended["in_vocabulary"]["n"] == 82
    assert extended["words_added"] == 1
    assert extended["lexicon_sha256"] != figures["lexicon_sha256"]


def test_the_hash_of_the_swipes_is_of_the_set(clean: Path, swipes: tuple[Gesture, ...]) -> None:
    whole = judge().judged.evaluation.swipes_sha256
    rows = [*_unknown_words(swipes), *swipes[120:]]
    write_jsonl(rows, clean / "turned.jsonl")
    write_jsonl(rows[1:], clean / "fewer.jsonl")
    write_jsonl([replace(rows[0], word="other"), *rows[1:]], clean / "relabelled.jsonl")
    assert judge("turned.jsonl").judged.evaluation.swipes_sha256 == whole
    for changed in ("fewer.jsonl", "relabelled.jsonl"):
        assert judge(changed).judged.evaluation.swipes_sha256 != whole


def test_the_table_shows_every_line(clean: Path) -> None:
    report = judge(against=clean / "b.safetensors")
    wide = Console(width=200, force_terminal=False, color_system=None)
    with wide.capture() as captured:
        for part in table(report):
            wide.print(part)
    text = captured.get()
    for said in (
        "dev.jsonl", WORDS, "strict", "in vocabulary", "extended lexicon", "3 letters or fewer",
        "worst stratum: ", "top-1 %", "top-3 %", "top-4 %", "top-8 %", "CER", "substitutions",
        "resample 2 writers", "McNemar p = ", "118 training swipes of train.jsonl",
        report.judged.evaluation.lexicon_sha256[:16], report.judged.evaluation.swipes_sha256[:16],
    ):  # fmt: skip
        assert said in text, said


# Two models.


def test_two_models_are_compared_on_the_same_swipes(clean: Path) -> None:
    report = judge(against=clean / "b.safetensors")
    assert report.against is not None
    first, second = report.judged.evaluation, report.against.evaluation
    assert first.swipes_sha256 == second.swipes_sha256
    for k, paired in report.comparison.items():
        gain = paired.only_first - paired.only_second
        assert paired.difference == pytest.approx(100.0 * gain / 82)
        tops = (first.beam["strict"]["top_k"][k], second.beam["strict"]["top_k"][k])
        assert paired.difference == pytest.approx(tops[0] - tops[1])


def test_a_model_does_not_differ_from_itself(clean: Path) -> None:
    paired = judge(against=clean / "a.safetensors").comparison["1"]
    assert (paired.only_first, paired.only_second, paired.p) == (0, 0, 1.0)


def test_the_second_model_must_not_have_seen_the_swipes_either(clean: Path) -> None:
    save(clean / "b.safetensors", seed=1, train="dev.jsonl")
    judge()
    with pytest.raises(GateError, match=r"training corpus dev\.jsonl"):
        judge(against=clean / "b.safetensors")


# Contamination.


def test_swipes_that_were_trained_on_are_refused(files: Path) -> None:
    """Two training swipes lie in dev under other ids and another writer's name."""
    with pytest.raises(GateError, match=r"2 swipes .rows unknown-0 = .*0 writers") as caught:
        judge()
    assert caught.value.exit_code == ExitCode.GATE_FAILED


def test_writers_that_were_trained_on_are_refused(clean: Path) -> None:
    with pytest.raises(GateError, match=r"118 swipes.*3 writers .w0, w1, w2"):
        judge("train.jsonl")


def test_the_named_training_corpus_replaces_the_recorded_one(
    files: Path, swipes: tuple[Gesture, ...]
) -> None:
    write_jsonl(swipes[40:60], files / "elsewhere.jsonl")
    assert judge(train_data="elsewhere.jsonl").judged.contamination.compared == 20
    with pytest.raises(GateError, match=r"dev\.jsonl"):
        judge(train_data="dev.jsonl")
    with pytest.raises(DataError, match=r"absent\.jsonl"):
        judge(train_data="absent.jsonl")


def test_corpora_that_were_mixed_in_are_compared_too(
    clean: Path, swipes: tuple[Gesture, ...]
) -> None:
    write_jsonl(swipes[:2], clean / "more.jsonl")
    save(clean / "a.safetensors", seed=0, mix={"more.jsonl": 0.5, "gone.jsonl": 1.0})
    with pytest.raises(GateError, match=r"more\.jsonl"):
        judge()
    write_jsonl(swipes[2:4], clean / "more.jsonl")
    found = judge().judged.contamination
    assert (found.trained_on, found.compared) == ("train.jsonl, gone.jsonl, more.jsonl", 120)
    assert found.unchecked.startswith("gone.jsonl: ")


def test_generated_swipes_cannot_stand_for_the_training_corpus(files: Path) -> None:
    with pytest.raises(UsageError, match="--train-data"):
        judge(train_data="synthetic:10")


def test_a_prepared_training_corpus_is_compared_as_well(
    files: Path, swipes: tuple[Gesture, ...]
) -> None:
    prepare_folder(swipes[:120], files / "folder", LAYOUT, label="people")
    with pytest.raises(GateError, match="2 swipes"):
        judge(train_data="folder")


def test_a_recorded_corpus_that_is_gone_is_reported_as_not_checked(clean: Path) -> None:
    (clean / "train.jsonl").unlink()
    report = judge()
    assert report.judged.contamination.compared == 0
    assert "--train-data" in report.judged.contamination.unchecked
    assert any("not checked" in part for part in table(report) if isinstance(part, str))


def test_swipes_of_an_earlier_stage_are_refused_too(
    clean: Path, swipes: tuple[Gesture, ...]
) -> None:
    """The weights have seen them, whatever the last stage was trained on."""
    write_jsonl(swipes[:2], clean / "first.jsonl")
    first = {"train": "first.jsonl", "dev": "dev.jsonl", "dev_share": 0.4, "mix": {}}
    save(clean / "a.safetensors", seed=0, earlier=[first])
    with pytest.raises(GateError, match=r"training corpus first\.jsonl"):
        judge()
    write_jsonl(swipes[2:4], clean / "first.jsonl")
    assert judge().judged.contamination.compared == 120


def test_a_stage_on_the_same_corpus_is_compared_once(clean: Path) -> None:
    same = {"train": "train.jsonl", "dev": "dev.jsonl", "dev_share": 0.4, "mix": {}}
    save(clean / "a.safetensors", seed=0, earlier=[same])
    found = judge().judged.contamination
    assert (found.trained_on, found.compared) == ("train.jsonl", 118)


def test_another_corpus_of_the_same_name_proves_nothing(
    clean: Path, swipes: tuple[Gesture, ...]
) -> None:
    hashes = {name: corpus_digest(name) for name in ("train.jsonl", "dev.jsonl")}
    save(clean / "a.safetensors", seed=0, sha256=hashes)
    assert judge().judged.contamination.compared == 118
    write_jsonl(swipes[2:50], clean / "train.jsonl")
    found = judge().judged.contamination
    assert found.compared == 0
    assert "another corpus is at this path" in found.unchecked
    with pytest.raises(DataError, match="or others by now"):
        judge(None)


def test_writers_that_the_run_held_out_of_its_corpus_may_be_used(
    files: Path, swipes: tuple[Gesture, ...]
) -> None:
    """Their rows lie in the recorded corpus, but were not trained on."""
    write_jsonl(swipes[2:], files / "all.jsonl")
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="")
    own = judge(None)
    held_out = own.judged.evaluation.beam["strict"]["n"]
    trained = own.judged.contamination.compared
    assert 0 < held_out < len(swipes) - 2
    assert 0 < trained <= len(swipes) - 2 - held_out
    with pytest.raises(GateError, match="writers"):
        judge("all.jsonl")


def test_what_was_mixed_in_is_compared_with_the_writers_that_the_run_held_out(
    files: Path, swipes: tuple[Gesture, ...]
) -> None:
    """Rows of those writers were left out of it by the run; the same swipes by others were not."""
    write_jsonl(swipes[2:], files / "all.jsonl")
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="")
    trained = judge(None).judged.contamination.compared
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="", mix={"more.jsonl": 0.5})
    write_jsonl(swipes[2:], files / "more.jsonl")
    assert judge(None).judged.contamination.compared == 2 * trained
    write_jsonl([replace(g, writer="w9") for g in swipes[2:]], files / "more.jsonl")
    with pytest.raises(GateError, match=r"0 writers of it .*corpus more\.jsonl"):
        judge(None)


@pytest.mark.parametrize(
    ("first", "read"),
    [
        ({"train": "all.jsonl", "dev_share": 0.0, "mix": {}}, "all"),
        ({"train": "few.jsonl", "dev_share": 0.4, "mix": {"more.jsonl": 1.0}}, "more"),
        ({"train": "all.jsonl", "dev_share": 0.3, "mix": {"more.jsonl": 1.0}}, "more"),
    ],
)
def test_an_earlier_stage_that_held_out_others_has_seen_these(
    files: Path, swipes: tuple[Gesture, ...], first: dict[str, Any], read: str
) -> None:
    """Its corpus may be the same one, and the last run's own split says nothing of it."""
    write_jsonl(swipes[2:], files / "all.jsonl")
    write_jsonl(swipes[2:], files / "more.jsonl")
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="")
    held_out = {g.writer for g in swipes[2:]} - _trained_writers(swipes[2:])
    write_jsonl([g for g in swipes[2:] if g.writer not in held_out], files / "few.jsonl")
    judge(None)
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="", earlier=[{"dev": "", **first}])
    with pytest.raises(GateError, match=rf"corpus {read}\.jsonl"):
        judge(None)


def _trained_writers(gestures: tuple[Gesture, ...]) -> set[str]:
    return {g.writer for g in split_by_writer(gestures, 0.4, salt=DEV_SALT)[0]}


def test_a_repeated_swipe_among_a_runs_own_held_out_ones_is_refused(
    files: Path, swipes: tuple[Gesture, ...]
) -> None:
    copies = [replace(g, id=f"copy-{g.id}", writer="w0") for g in swipes[40:]]
    write_jsonl([*swipes, *copies], files / "all.jsonl")
    save(files / "a.safetensors", seed=0, train="all.jsonl", dev="")
    with pytest.raises(GateError, match="contaminated"):
        judge(None)


def test_synthetic_swipes_to_be_judged_on_are_never_the_trained_ones(files: Path) -> None:
    save(files / "a.safetensors", seed=0, train="synthetic:60", dev="")
    ids = synthesize(LAYOUT, load_lexicon(WORDS), 60).gestures
    write_jsonl(ids, files / "generated.jsonl")
    assert judge("synthetic:60", train_data="generated.jsonl").judged.contamination.compared == 60
    assert "generated" in judge("synthetic:60").judged.contamination.unchecked


@pytest.mark.slow
def test_the_released_models_writers_are_not_in_the_development_set(
    released: Path, shared_data: Path
) -> None:
    corpora = shared_data / "how_we_swipe"
    report = evaluate_checkpoint(
        released, str(corpora / "dev.jsonl.gz"), WORDS, beam_width=WIDTH, limit=100,
        train_data=str(corpora / "train.jsonl.gz"),
    )  # fmt: skip
    assert report.judged.contamination.compared == 61_112
    assert np.all(report.judged.evaluation.ranks >= 0)


def test_a_released_model_is_refused_the_development_writers_as_training(
    released: Path, shared_data: Path
) -> None:
    corpora = shared_data / "how_we_swipe"
    logs = sorted((corpora / "raw_sample").glob("*.log"))
    with pytest.raises(GateError, match="1 writers"):
        evaluate_checkpoint(released, str(corpora / "dev.jsonl.gz"), WORDS, train_data=str(logs[0]))
