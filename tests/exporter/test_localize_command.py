"""``swipe-export localize``: JSON, CSV and exit codes on a real file; what it refuses."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from exporter.cli import app
from exporter.localize import source
from swipe.errors import GateError, UsageError

pytestmark = pytest.mark.slow

NANO = Path(__file__).resolve().parents[2] / "models" / "nano.safetensors"
BASE = NANO.with_name("base.safetensors")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime")
    import numpy as np

    from exporter.formats import onnx
    from exporter.views import BAKED
    from train.checkpoint import load_checkpoint

    features = np.zeros((1, 2, 64), np.float32)
    path = tmp_path_factory.mktemp("files") / "model.onnx"
    onnx.lower(BAKED.lowering(load_checkpoint(NANO), features, features), path)
    return path


def arguments(artefact: Path, checkpoint: Path = NANO) -> list[str]:
    options = {"--checkpoint": str(checkpoint), "--data": "synthetic:2000", "--samples": "3"}
    return ["localize", str(artefact), *(word for pair in options.items() for word in pair)]


def test_an_honest_file_is_0_and_a_floor_that_nothing_reaches_is_3(
    artefact: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.csv"
    command = [*arguments(artefact), "--json", "--csv", str(rows)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    (table,) = json.loads(done.stdout)
    assert (table["rung"], table["view"], table["samples"]) == ("fp32", "baked", 3)
    assert table["first_bad"] is None
    assert table["rows"][0]["sqnr_db"] == "inf"
    with rows.open() as stream:
        read = list(csv.DictReader(stream))
    assert [row["tensor"] for row in read] == [row["tensor"] for row in table["rows"]]
    failed = CliRunner().invoke(app, [*arguments(artefact), "--floor-db", "1000"])
    assert failed.exit_code == 3, failed.output
    assert "first bad row: kinematics" in failed.output


def test_another_checkpoint_is_refused(artefact: Path) -> None:
    with pytest.raises(GateError, match="another hash"):
        CliRunner().invoke(app, arguments(artefact, BASE), catch_exceptions=False)


def test_anyones_model_is_refused_by_its_own_name(tmp_path: Path) -> None:
    """And not as a checkpoint of another schema, beside which no other one would help."""
    from brought_models import classes

    from exporter.formats import Lowering, onnx

    given, path = classes(), tmp_path / "classes.onnx"
    metadata = {"factory": "mine:classes", "weights_sha256": "0"}
    onnx.lower(Lowering(given.module, given.example, given.calibration, metadata), path)
    done = CliRunner().invoke(app, arguments(path))
    assert isinstance(done.exception, UsageError)
    assert "classes.onnx is of mine:classes, and only swipe models" in str(done.exception)


def test_nothing_named_and_nothing_there_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither an artefact nor a format"):
        CliRunner().invoke(app, ["localize"], catch_exceptions=False)
    with pytest.raises(UsageError, match="there is no"):
        CliRunner().invoke(app, ["localize", str(tmp_path / "none")], catch_exceptions=False)


@pytest.mark.parametrize("view", ["points", "text"])
def test_a_view_that_nothing_can_look_into_is_refused_by_its_name(view: str) -> None:
    command = ["localize", "--format", "onnx", "--view", view, "--checkpoint", str(NANO)]
    with pytest.raises(UsageError, match=f"nothing can look into the view {view}"):
        CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_bundle_is_looked_into_but_for_such_views(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = SimpleNamespace(file="f", rung="fp32")
    formats = [SimpleNamespace(format="onnx", view=v, taken=taken) for v in ("baked", "points")]
    manifest = SimpleNamespace(formats=formats)
    monkeypatch.setattr(source, "load_manifest", lambda folder: manifest)
    said: list[str] = []
    choice = source.Choice(Path("b"), None, None, None, None, None, 1)
    assert source._taken(Path("b"), choice, said.append) == [(Path("b/f"), "fp32")]
    assert said == ["not looked into: onnx points"]
