"""A folder holds what its manifest names and nothing else; its samples are sound."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.manifest import (
    BENCH,
    CHECKPOINT,
    FILE,
    PAGE,
    REPORT,
    VERIFICATION,
    FormatEntry,
    Manifest,
    ModelSource,
    RungEntry,
    SwipeSource,
)
from exporter.verification.contents import check_files, check_swipes, check_words
from exporter.verification.findings import Gate, Outcome
from swipe.errors import UsageError
from swipe.files import sha256_file
from swipe.presets import DEFAULT_PRESET, TunedPreset
from train.finite import null_for_nonfinite

NAMES = (FILE, REPORT, PAGE, CHECKPOINT, VERIFICATION, "model.fp32.onnx")


def _reason(folder: Path, artefact: str | None = "model.fp32.onnx") -> str:
    """Why the folder is refused, of a manifest that names one artefact; empty if it is not."""
    rungs = tuple(RungEntry.model_construct(file=name) for name in (artefact, None))
    entry = FormatEntry.model_construct(rungs=rungs)
    finding = check_files(folder, Manifest.model_construct(formats=(entry,)))
    return finding.detail if finding.outcome is Outcome.REFUSED else ""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "bundle"
    made.mkdir()
    for name in NAMES:
        (made / name).write_text(name)
    return made


def test_what_the_manifest_names_and_what_the_bench_writes_may_be_there(folder: Path) -> None:
    assert _reason(folder) == ""
    (folder / BENCH).write_text("{}")
    assert _reason(folder) == ""


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert _reason(folder) == f"{name} is not there"


def test_a_file_that_is_too_many_is_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert _reason(folder) == f"notes.txt is not in {FILE}"
    assert _reason(folder, None) == (
        f"model.fp32.onnx is not in {FILE}; notes.txt is not in {FILE}"
    )


def test_a_link_is_named_wherever_it_lies(folder: Path) -> None:
    (folder / REPORT).rename(folder.parent / REPORT)
    (folder / REPORT).symlink_to(folder.parent / REPORT)
    assert _reason(folder) == f"{REPORT} is a link"
    (folder / BENCH).mkdir()
    (folder / BENCH / "inner").symlink_to(folder / FILE)
    assert _reason(folder) == f"inner is a link; {REPORT} is a link"


def test_an_artefact_that_lies_outside_is_named(folder: Path) -> None:
    (folder / "model.fp32.onnx").rename(folder.parent / "model.fp32.onnx")
    outside = "../model.fp32.onnx"
    assert _reason(folder, outside) == f"{outside} lies outside the bundle; {outside} is not there"


def _arrays(**changes: Any) -> dict[str, Any]:
    """Three swipes of a bundle, and the digests of three samples of anyone's model."""
    sound = {
        "features": np.zeros((3, 2, 64), dtype=np.float32), "words": np.array(["a", "b", "c"]),
        "writers": np.array(["w"] * 3), "digests": np.array(["d"] * 3),
    }  # fmt: skip
    return {key: value for key, value in (sound | changes).items() if value is not None}


def _wrong_samples(
    folder: Path,
    kind: type[SwipeSource] | type[ModelSource],
    arrays: dict[str, Any] | bytes,
    **changes: Any,
) -> str:
    """Why samples that the manifest's hash is of are refused; empty if they are not."""
    path = folder / VERIFICATION
    if isinstance(arrays, bytes):
        path.write_bytes(arrays)
    else:
        np.savez_compressed(path, **arrays)
    facts = {"verification_samples": 3, "verification_sha256": sha256_file(path)}
    source = kind.model_construct(**(facts | {"calibration_samples": 7} | changes))
    findings = list(check_swipes(folder, Manifest.model_construct(source=source)))
    assert [f.gate for f in findings if f.outcome is Outcome.CANNOT] == (
        [Gate.CALIBRATION] if kind is SwipeSource else []
    )
    (found,) = [f for f in findings if f.gate is Gate.SWIPES]
    return found.detail if found.outcome is Outcome.REFUSED else ""


@pytest.mark.parametrize("kind", [SwipeSource, ModelSource])
def test_samples_that_are_the_manifests_are_verified_and_others_are_not(
    tmp_path: Path, kind: type[SwipeSource] | type[ModelSource]
) -> None:
    assert _wrong_samples(tmp_path, kind, _arrays()) == ""
    said = _wrong_samples(tmp_path, kind, _arrays(), verification_sha256="0" * 64)
    assert said.endswith(f"is not what {FILE} speaks of")
    assert "cannot be read" in _wrong_samples(tmp_path, kind, b"no archive")
    few = _wrong_samples(tmp_path, kind, _arrays(), verification_samples=4)
    assert few.endswith(f"{FILE} says 4")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_coordinate_that_is_not_finite_is_refused_whatever_its_hash(
    tmp_path: Path, bad: float
) -> None:
    arrays = _arrays()
    arrays["features"][2, 1, 63] = bad
    said = _wrong_samples(tmp_path, SwipeSource, arrays)
    assert said == "some coordinates are not finite"


@pytest.mark.parametrize("name", ["features", "words", "writers"])
def test_an_array_of_swipes_that_is_short_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    short = _arrays(**{name: _arrays()[name][:2]})
    assert f"swipes, {FILE} says 3" in _wrong_samples(tmp_path, SwipeSource, short)
    assert "cannot be read" in _wrong_samples(tmp_path, SwipeSource, _arrays(**{name: None}))


def test_digests_that_are_missing_are_refused(tmp_path: Path) -> None:
    assert "cannot be read" in _wrong_samples(tmp_path, ModelSource, _arrays(digests=None))


TUNED = TunedPreset(
    settings=replace(DEFAULT_PRESET, beam_width=DEFAULT_PRESET.beam_width + 1),
    lexicon="wordfreq:50",
    lexicon_sha256="a" * 64,
    weights_sha256="b" * 64,
    corpus="dev",
    corpus_sha256=None,
    figures={},
)


def _wrong_decoder(folder: Path, preset: dict[str, Any] | None, decoder: dict[str, Any]) -> str:
    source = SwipeSource.model_construct(
        lexicon="wordfreq:50", lexicon_sha256="a" * 64, preset=preset, decoder=decoder
    )
    findings = check_words(folder, Manifest.model_construct(source=source), None)
    (found,) = [f for f in findings if f.gate is Gate.DECODER]
    return found.detail if found.outcome is Outcome.REFUSED else ""


def test_decoder_settings_are_those_of_the_preset_or_the_default(tmp_path: Path) -> None:
    default, tuned = (
        null_for_nonfinite(asdict(settings)) for settings in (DEFAULT_PRESET, TUNED.settings)
    )
    preset = TUNED.to_dict()
    assert _wrong_decoder(tmp_path, None, default) == ""
    assert _wrong_decoder(tmp_path, preset, tuned) == ""
    for asked, settings in ((None, tuned), (preset, default)):
        said = _wrong_decoder(tmp_path, asked, settings)
        assert said.endswith("are not the settings of its preset")
    foreign = _wrong_decoder(tmp_path, preset | {"lexicon_sha256": "c" * 64}, tuned)
    assert foreign == "its preset was tuned with another lexicon, wordfreq:50"
    later = _wrong_decoder(tmp_path, preset | {"schema": "later"}, tuned)
    assert later.startswith("its preset is not a preset this version can read")


def test_a_lexicon_says_nothing_of_anyones_model(tmp_path: Path) -> None:
    source = ModelSource.model_construct(factory="mine:made")
    manifest = Manifest.model_construct(source=source)
    found = list(check_words(tmp_path, manifest, None))
    assert [(f.gate, f.outcome, f.matters) for f in found] == [
        (gate, Outcome.CANNOT, False) for gate in (Gate.LEXICON, Gate.DECODER)
    ]
    with pytest.raises(UsageError):
        list(check_words(tmp_path, manifest, "wordfreq:50"))
