"""Formats of other packages: seen when they are installed, said aloud when they are broken."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from exporter.targets import GROUP, TARGETS, find_target, known_targets, missing_libraries
from swipe import plugins
from swipe.errors import MissingError, UsageError

FORMAT = '''
"""A format whose artefacts are pickled weights, executed by torch: small, and really run."""

import json
from pathlib import Path

import numpy as np
import torch

from exporter.parity import Limits
from exporter.targets import Rung, Target

LIMITS = Limits(max_abs_delta=1e-4, frame_agreement=0.999, accuracy_drop=0.1)
TINY = Target("tiny", ".tiny", (), "tiny", (Rung("fp32", False, LIMITS),), "tiny_format")
RUNGS = ()
NOT_A_TARGET = 3
RUNGLESS = Target("flat", ".flat", (), "flat", (), "tiny_format")
TAKEN = Target("onnx", ".other", (), "tiny", TINY.rungs, "tiny_format")


def lower(job, path):
    program = torch.export.export(job.module, tuple(map(torch.from_numpy, job.example.values())))
    torch.export.save(program, path.with_suffix(".pt2"))
    shapes = {name: list(value.shape) for name, value in job.example.items()}
    with torch.no_grad():
        output = job.module(*map(torch.from_numpy, job.example.values()))
    facts = {"inputs": shapes, "outputs": {job.output_name: list(output.shape)}}
    path.write_text(json.dumps({"metadata": dict(job.metadata), "facts": facts}))
    path.write_bytes(path.read_bytes() + b"\\n" + path.with_suffix(".pt2").read_bytes())
    path.with_suffix(".pt2").unlink()


def _head(path):
    return json.loads(path.read_bytes().partition(b"\\n")[0])


def load(path, threads=1):
    import io

    program = torch.export.load(io.BytesIO(path.read_bytes().partition(b"\\n")[2])).module()

    def run(*values):
        with torch.no_grad():
            return program(*map(torch.from_numpy, values)).numpy()

    return run


def inspect(path):
    return _head(path)["facts"]


def metadata(path):
    return _head(path)["metadata"]
'''


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What one test installs, no other finds."""
    known_targets.cache_clear()
    yield
    known_targets.cache_clear()
    sys.modules.pop("tiny_format", None)


def _install(folder: Path, value: str) -> None:
    """Put the package into `folder`, as an installer does."""
    (folder / "tiny_format.py").write_text(FORMAT)
    info = folder / "tiny_format-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-format\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\ntiny = {value}\n")


def test_ours_are_known_without_any_package() -> None:
    assert known_targets()[: len(TARGETS)] == TARGETS


def test_an_installed_format_is_found_and_offers_its_verbs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, "tiny_format:TINY")
    monkeypatch.syspath_prepend(tmp_path)
    assert find_target("tiny") in known_targets()
    assert missing_libraries(find_target("tiny")) == ()
    assert callable(find_target("tiny").format().lower)


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        ("tiny_format:ABSENT", MissingError, r"the format tiny \(tiny-format\) cannot be loaded"),
        ("absent_module:TINY", MissingError, "cannot be loaded: ModuleNotFoundError"),
        ("tiny_format:NOT_A_TARGET", MissingError, r"\(tiny-format\) is no Target"),
        ("tiny_format:RUNGLESS", MissingError, "has no rungs"),
        ("tiny_format:TAKEN", UsageError, r"onnx \(.other\) of tiny-format is there already"),
    ],
)
def test_a_broken_entry_point_is_a_clear_error(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    value: str,
    error: type[Exception],
    says: str,
) -> None:
    _install(tmp_path, value)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=says):
        find_target("onnx")


def test_an_entry_point_that_raises_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("tiny", "tiny_format:TINY", GROUP)

    def load(self: EntryPoint) -> Any:
        raise RuntimeError("half installed")

    monkeypatch.setattr(EntryPoint, "load", load)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    with pytest.raises(MissingError, match="half installed"):
        known_targets()


@pytest.mark.slow
def test_plan_and_export_see_an_installed_format(tmp_path: Path) -> None:
    """The whole way, worker process included: installed means on every process' path."""
    _install(tmp_path, "tiny_format:TINY")
    here = Path(__file__).parent
    code = (
        "import sys; from exporter import cli; from exporter.targets import known_targets;"
        "cli.app(args=['plan'], standalone_mode=False);"
        "from exporter.bundle import Request, export;"
        "from exporter.origins.requests import ModelRequest; from pathlib import Path;"
        "target = known_targets()[-1];"
        "request = Request((target,), ModelRequest('brought_models:classes'), Path('out'));"
        "export(request, print)"
    )
    path = ":".join([str(tmp_path), str(here), str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": path, "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tiny" in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (entry,) = manifest["formats"]
    assert (entry["format"], entry["rungs"][0]["verdict"]["status"]) == ("tiny", "PASS")
