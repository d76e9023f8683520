"""The cache: what is found was kept for exactly this, and is whole; all else is made anew."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter import cache as caching
from exporter import fingerprint
from exporter.cache import ENTRY, Cache, default_folder, key_of
from exporter.ladder import RungRecord
from exporter.memory import Memory, durations, to_record
from exporter.origins.requests import SwipeRequest
from exporter.parity import Level, Status, Verdict
from exporter.policy import Policy
from exporter.preparation import _key
from exporter.speed import Speed

KEY = key_of({"weights": "a"})


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "cache", said.append)


@pytest.fixture
def into(tmp_path: Path) -> Path:
    folder = tmp_path / "into"
    folder.mkdir()
    return folder


def _artefacts(folder: Path) -> list[Path]:
    """A file, and a folder as Core ML has it."""
    folder.mkdir()
    (folder / "model.onnx").write_bytes(bytes(range(256)))
    package = folder / "model.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "weight.bin").write_bytes(b"weights")
    return [folder / "model.onnx", package]


def _kept(cache: Cache, tmp_path: Path) -> Path:
    cache.keep(KEY, {"verdict": "FAIL"}, _artefacts(tmp_path / "built"))
    return cache.folder / caching.LAYOUT / KEY


def test_what_was_kept_is_recalled(cache: Cache, tmp_path: Path, into: Path) -> None:
    _kept(cache, tmp_path)
    assert cache.recall(KEY, into) == {"verdict": "FAIL"}
    assert (into / "model.onnx").read_bytes() == bytes(range(256))
    assert (into / "model.mlpackage" / "Data" / "weight.bin").read_bytes() == b"weights"
    assert sorted(path.name for path in into.iterdir()) == ["model.mlpackage", "model.onnx"]


def test_nothing_is_found_where_nothing_was_kept(cache: Cache, into: Path, said: list[str]) -> None:
    assert cache.recall(KEY, into) is None
    assert said == []


@pytest.mark.parametrize("name", ["model.onnx", "model.mlpackage/Data/weight.bin"])
def test_a_flipped_bit_is_noticed(
    cache: Cache, tmp_path: Path, into: Path, said: list[str], name: str
) -> None:
    entry = _kept(cache, tmp_path)
    data = bytearray((entry / name).read_bytes())
    data[3] ^= 1
    (entry / name).write_bytes(data)
    (into / "model.onnx").write_text("an earlier one")
    assert cache.recall(KEY, into) is None
    assert "was altered" in said[0]
    assert not entry.exists()
    assert [path.name for path in into.iterdir()] == ["model.onnx"]
    assert (into / "model.onnx").read_text() == "an earlier one"


@pytest.mark.parametrize("damage", ["edited", "cut", "gone", "other key", "no object"])
def test_an_edited_verdict_and_other_damage_are_noticed(
    cache: Cache, tmp_path: Path, into: Path, said: list[str], damage: str
) -> None:
    entry = _kept(cache, tmp_path)
    text = (entry / ENTRY).read_text()
    key = KEY
    if damage == "edited":
        (entry / ENTRY).write_text(text.replace("FAIL", "PASS"))
    elif damage == "cut":
        (entry / ENTRY).write_text(text[:-9])
    elif damage == "gone":
        (entry / "model.onnx").unlink()
    elif damage == "other key":
        key = key_of({"weights": "b"})
        entry.rename(entry.with_name(key))
    else:
        (entry / ENTRY).write_text("[1, 2]")
    assert cache.recall(key, into) is None
    assert len(said) == 1
    assert "damaged" in said[0]
    assert cache.contents().entries == 0
    assert list(into.iterdir()) == []


def test_the_least_recently_used_goes_first(tmp_path: Path, into: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    small = Cache(tmp_path / "cache", print, limit_bytes=3500)
    for number in range(3):
        small.keep(f"{number}", None, [file])
        entry = small.folder / caching.LAYOUT / f"{number}"
        caching.os.utime(entry, (number, number))
    small.keep("3", 3, [file])
    left = sorted(path.name for path in (small.folder / caching.LAYOUT).iterdir())
    assert left == ["2", "3"]
    assert small.contents().size_bytes <= 3500
    assert small.clear().entries == 2
    assert small.contents().entries == 0


def test_a_cache_that_cannot_be_written_is_said_and_no_failure(
    tmp_path: Path, said: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    Cache(tmp_path / "file", said.append).keep(KEY, 1)
    assert "not kept" in said[0]


def test_many_at_once_get_the_right_thing_or_nothing(tmp_path: Path, said: list[str]) -> None:
    cache = Cache(tmp_path / "cache", said.append, limit_bytes=4000)
    file = tmp_path / "file"
    file.write_bytes(bytes(500))

    def work(number: int) -> bool:
        into = tmp_path / f"into{number}"
        into.mkdir()
        for turn in range(20):
            key = key_of({"n": (number + turn) % 5})
            cache.keep(key, key, [file])
            if cache.recall(key, into) not in (key, None):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_an_entry_that_goes_while_it_is_copied_is_absent_and_not_damaged(
    cache: Cache, tmp_path: Path, into: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _kept(cache, tmp_path)
    real = caching.copy

    def late(source: Path, target: Path) -> None:
        cache.clear()
        real(source, target)

    monkeypatch.setattr(caching, "copy", late)
    assert cache.recall(KEY, into) is None
    assert said == []
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("why", ["dropped", "read-only"])
def test_an_entry_that_cannot_be_marked_as_used_is_recalled_all_the_same(
    cache: Cache, tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    _kept(cache, tmp_path)
    real = caching.os.utime

    def late(path: str | Path, **options: Any) -> None:
        if Path(path).name == KEY and why == "read-only":
            raise PermissionError(13, "Permission denied")
        if Path(path).name == KEY:
            cache.clear()
        real(path, **options)

    monkeypatch.setattr(caching.os, "utime", late)
    assert cache.recall(KEY, into) == {"verdict": "FAIL"}
    assert (into / "model.onnx").read_bytes() == bytes(range(256))


def test_an_entry_goes_in_one_step(
    tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever looks while its files are deleted finds none, never half of one."""
    file = tmp_path / "file"
    file.write_bytes(bytes(1000))
    small = Cache(tmp_path / "cache", print, limit_bytes=1500)
    small.keep("0", None, [file])
    found: list[bool] = []
    real = caching.shutil.rmtree

    def watched(path: Path, ignore_errors: bool = False) -> None:
        found.append((small.folder / caching.LAYOUT / "0").exists())
        real(path, ignore_errors=ignore_errors)

    monkeypatch.setattr(caching.shutil, "rmtree", watched)
    caching.os.utime(small.folder / caching.LAYOUT / "0", (1, 1))
    small.keep("1", None, [file])
    assert found
    assert not any(found)
    assert [path.name for path in (small.folder / caching.LAYOUT).iterdir()] == ["1"]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SWIPE_EXPORT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "swipe-export"
    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path / "mine"))
    assert default_folder() == tmp_path / "mine"


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), min_size=1), st.data())
@settings(max_examples=50, deadline=None)
def test_a_key_tells_apart_what_differs(parts: dict[str, object], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(parts)))
    assert key_of(parts) == key_of(dict(reversed(list(parts.items()))))
    assert key_of(parts) != key_of({**parts, name: "another \0"})


def test_changed_code_is_another_key(tmp_path: Path) -> None:
    for package in fingerprint.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "a.py").write_text("x = 1\n")
    before = fingerprint.code_sha256(tmp_path)
    assert fingerprint.code_sha256(tmp_path) == before
    (tmp_path / "exporter" / "a.py").write_text("x = 2\n")
    changed = fingerprint.code_sha256(tmp_path)
    (tmp_path / "exporter" / "a.py").rename(tmp_path / "exporter" / "b.py")
    assert len({before, changed, fingerprint.code_sha256(tmp_path)}) == 3


def test_another_processor_library_or_setting_is_another_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = tmp_path / "cpuinfo"
    cpu.write_text("processor : 0\nmodel name : A\nflags : sse avx2\ncpu MHz : 1\n")
    monkeypatch.setattr(fingerprint, "_CPU_FILE", cpu)
    first = fingerprint.environment()
    cpu.write_text("processor : 0\nmodel name : A\nflags : sse avx2\ncpu MHz : 2\n")
    assert fingerprint.environment() == first
    cpu.write_text("processor : 0\nmodel name : A\nflags : sse avx512\ncpu MHz : 2\n")
    second = fingerprint.environment()
    assert second["processor"] != first["processor"]
    (tmp_path / "torch-9.9.dist-info").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    third = fingerprint.environment()
    assert third["libraries"] != second["libraries"]
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert fingerprint.environment() != third


def test_a_checkpoint_depends_on_its_bytes_and_its_data(tmp_path: Path) -> None:
    data = tmp_path / "swipes.jsonl"
    data.write_text("{}")
    record = json.dumps({"data": {"train": str(data), "dev": "", "mix": [["absent", 1]]}})
    header = json.dumps({"__metadata__": {"record": record}}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    before = fingerprint.checkpoint(path)
    assert list(before["data"]) == [str(data)]
    data.write_text("{ }")
    changed = fingerprint.checkpoint(path)
    assert changed["data"] != before["data"]
    path.write_bytes(path.read_bytes() + b"\0")
    assert fingerprint.checkpoint(path)["sha256"] != changed["sha256"]


@pytest.mark.parametrize("data", [b"", b"short", b"\xff" * 40, b"\2\0\0\0\0\0\0\0[]"])
def test_a_header_that_says_nothing_is_no_crash(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert fingerprint.recorded_data(path) == {}


def _record(rung: str, file: str | None, status: Status = Status.PASS) -> RungRecord:
    reasons = () if status is Status.PASS else ("too costly",)
    verdict = Verdict(status, Level.HOST, reasons, {"samples": 3})
    return RungRecord(
        rung,
        file is not None,
        verdict,
        file,
        256,
        "0" * 64,
        {"opset": 14},
        Speed(0.5, 150),
        (),
        2.5,
    )


def test_a_rung_is_remembered_for_what_shaped_it(cache: Cache, tmp_path: Path, into: Path) -> None:
    built = tmp_path / "built"
    _artefacts(built)
    memory = Memory(cache, {"samples": "s", "format": "onnx", "view": "baked"})
    parts = {"rung": "int8", "policy": [0.5]}
    record = _record("int8", "model.onnx")
    memory.keep_rung(parts, record, built)
    assert memory.recall_rung(parts, into) == record
    assert (into / "model.onnx").is_file()
    assert memory.recall_rung({**parts, "policy": [0.6]}, into) is None
    for change in ({"samples": "t"}, {"view": "agnostic"}, {"format": "coreml"}):
        other = Memory(cache, {**memory.parts, **change})
        assert other.recall_rung(parts, into) is None
    assert durations(cache) == {("onnx", "baked", "int8"): [2.5]}


def test_a_refused_rung_is_remembered_with_its_reason(
    cache: Cache, tmp_path: Path, into: Path
) -> None:
    memory = Memory(cache, {"format": "onnx", "view": "baked"})
    record = _record("int8", None, Status.FAIL)
    memory.keep_rung({"rung": "int8"}, record, tmp_path)
    assert memory.recall_rung({"rung": "int8"}, into) == record


def test_a_ladder_is_remembered_for_the_policy(cache: Cache, tmp_path: Path, into: Path) -> None:
    built = tmp_path / "built"
    _artefacts(built)
    memory = Memory(cache, {"format": "onnx", "view": "baked"})
    climbed = [_record("fp32", "model.onnx")]
    records = json.loads(json.dumps(list(map(to_record, climbed))))
    memory.keep_ladder(Policy(budget=0.5), climbed, built)
    assert memory.recall_ladder(Policy(budget=0.5), into) == records
    other = [Policy(budget=0.6), Policy(require_quantized=True), Policy(quantize=False)]
    assert [memory.recall_ladder(policy, into) for policy in other] == [None, None, None]
    memory.keep_ladder(Policy(quantize=False), climbed, built)
    # The budget is nobody's business when nothing is quantized.
    assert memory.recall_ladder(Policy(quantize=False, budget=3), into) == records
    assert set(asdict(Policy())) == {
        "quantize", "budget", "require_quantized", "require_faster", "tune_minutes",
    }  # fmt: skip


def test_everything_that_shapes_the_preparation_is_in_its_key(
    tmp_path: Path, released: Path
) -> None:
    weights = tmp_path / "x.safetensors"
    weights.write_bytes(released.read_bytes())
    files = {name: tmp_path / name for name in ("swipes.jsonl", "words.txt", "p.json")}
    for file in files.values():
        file.write_text("1")
    swipes, words, preset = map(str, files.values())
    request = SwipeRequest(weights, data=swipes, lexicon=words, preset=Path(preset))
    environment = fingerprint.environment()
    first = _key(request.parts(), environment)
    assert _key(request.parts(), environment) == first
    keys = {first}
    keys.add(_key(replace(request, samples=99).parts(), environment))
    keys.add(_key(replace(request, views=("baked",)).parts(), environment))
    for name in ("code", "libraries", "processor", "python"):
        keys.add(_key(request.parts(), {**environment, name: "another"}))
    for file in files.values():
        file.write_text("2")
        keys.add(_key(request.parts(), environment))
    (tmp_path / "x.wordfreq.preset.json").write_text("{}")
    keys.add(_key(request.parts(), environment))
    weights.write_bytes(weights.read_bytes() + b"\0")
    keys.add(_key(request.parts(), environment))
    assert len(keys) == 12


def test_a_preset_beside_weights_whose_name_is_a_pattern_is_in_the_key(
    tmp_path: Path, released: Path
) -> None:
    weights = tmp_path / "nano[1].safetensors"
    weights.write_bytes(released.read_bytes())
    before = SwipeRequest(weights).parts()["presets"]
    (tmp_path / "nano1.preset.json").write_text("{}")  # of other weights
    assert SwipeRequest(weights).parts()["presets"] == before == []
    (tmp_path / "nano[1].preset.json").write_text("{}")
    first = SwipeRequest(weights).parts()["presets"]
    (tmp_path / "nano[1].preset.json").write_text("{ }")
    assert len(first) == 1
    assert SwipeRequest(weights).parts()["presets"] != first
