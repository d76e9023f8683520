"""The doctor: what is missing, broken or of another version is named with what mends it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
from pathlib import Path

import pytest

from exporter import cli, doctor
from exporter.doctor import (
    State,
    buildable,
    exit_code,
    find_ndk,
    import_failure,
    parse_constraints,
)
from exporter.targets import TARGETS, find_target
from swipe.errors import ExitCode


def test_the_tested_versions_are_those_of_the_constraints() -> None:
    assert parse_constraints("# note\n\na==1.2\nb>=3\nc == 4\n") == {"a": "1.2", "c": "4"}
    tested = doctor.tested_versions()
    for target in TARGETS:
        assert set(target.libraries) <= set(tested)
    assert set(doctor.CORE) <= set(tested)


def test_importing_is_tried_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torn_wheel.py").write_text("import ctypes; ctypes.string_at(0)\n")
    (tmp_path / "other_abi.py").write_text("raise ImportError('undefined symbol: x')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert import_failure(["json", "zlib"]) == ""
    assert import_failure(["torn_wheel"]) == "importing ends the process with signal 11"
    assert import_failure(["other_abi"]) == "ImportError: undefined symbol: x"


def test_a_broken_import_keeps_its_format_from_being_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('undefined symbol: x')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "CORE", ("pydantic",))
    target = find_target("onnx")
    findings = doctor.examine([target])
    (broken,) = [f for f in findings if f.state is State.BROKEN]
    assert (broken.part, broken.name) == ("onnx", "import")
    assert "undefined symbol" in broken.found
    assert f"'onnxruntime=={doctor.tested_versions()['onnxruntime']}'" in broken.mend
    assert exit_code(findings) is ExitCode.MISSING
    assert buildable(findings, [target]) == []


def test_another_version_is_worth_knowing_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "tested_versions", lambda: {"pydantic": "0.1"})
    monkeypatch.setattr(doctor, "CORE", ("pydantic",))
    findings = doctor.examine([])
    (found,) = [f for f in findings if f.name == "pydantic"]
    assert (found.state, found.tested) == (State.DIFFERS, "0.1")
    assert found.mend == "pip install 'pydantic==0.1'"
    assert exit_code(findings) is ExitCode.OK


def test_a_build_tag_is_no_other_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.13.0+cpu")
    monkeypatch.setattr(doctor, "CORE", ())
    assert doctor._library("core", "torch", {"torch": "2.13.0"}, "").state is State.OK


def test_a_missing_library_ends_with_5_and_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    version, spec = importlib.metadata.version, importlib.util.find_spec

    def without(name: str) -> str:
        if name == "coremltools":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", without)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "coremltools" else spec(name)
    )
    monkeypatch.setattr(doctor, "CORE", ("pydantic",))
    status = cli.app(args=["doctor", "coreml", "--json"], standalone_mode=False)
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert status == told["exit_code"] == ExitCode.MISSING
    (missing,) = [f for f in told["findings"] if f["state"] == "missing"]
    assert missing["mend"] == "pip install 'swipe-export[coreml]'"
    assert told["buildable"] == []
    assert "pip install 'swipe-export[coreml]'" in captured.err


def test_the_newest_ndk_is_found(tmp_path: Path) -> None:
    assert find_ndk({}) is None
    for version in ("9.1.0", "27.2.1", "26.0.9"):
        (tmp_path / "ndk" / version).mkdir(parents=True)
    assert find_ndk({"ANDROID_HOME": str(tmp_path)}) == tmp_path / "ndk" / "27.2.1"
    named = {"ANDROID_HOME": str(tmp_path), "ANDROID_NDK_HOME": str(tmp_path / "ndk" / "9.1.0")}
    assert find_ndk(named) == tmp_path / "ndk" / "9.1.0"
    assert find_ndk({"ANDROID_NDK_HOME": str(tmp_path / "gone")}) is None


@pytest.mark.slow
def test_this_machine_can_build_what_the_tests_build() -> None:
    findings = doctor.examine([find_target("onnx")])
    assert exit_code(findings) is ExitCode.OK
    assert buildable(findings, [find_target("onnx")]) == ["onnx"]
