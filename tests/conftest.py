"""What tests share: the real corpus and a released checkpoint."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner_builds import build_or_say
from swipe_train_command import Done, SwipeTrain

from android_harness.runners.sets import RunnerSet
from android_harness.runners.toolchains import default_flavour

LONG = (
    "test_arm64_bench.py",
    "test_end_to_end.py",
    "test_provenance.py",
    "test_sign_ctc.py",
    "test_stream.py",
    "test_training.py",
    "test_readme.py",
)
"""Files of one or more minutes with few tests."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: at the end, one worker would wait for the other's."""
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Commands that tests run share a cache of this session, never the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWIPE_EXPORT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real corpus; CI must have it, a user may not."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SWIPE_SHARED_DATA", default))
    if not (folder / "how_we_swipe" / "dev.jsonl.gz").is_file():
        message = f"the real corpus is not at {folder}: set SWIPE_SHARED_DATA"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder


@pytest.fixture(scope="session")
def released() -> Path:
    """The released nano checkpoint: a small model that really works."""
    return Path(__file__).parents[1] / "models" / "nano.safetensors"


@pytest.fixture
def swipe_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> SwipeTrain:
    """The console script, with `tmp_path` as the working directory; no error is a traceback."""
    from train.cli import main

    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["swipe-train", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    return call


@pytest.fixture(scope="session")
def native_set() -> RunnerSet:
    """The runners of this machine, with both engines."""
    return build_or_say(default_flavour(), ())


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, released: Path) -> Path:
    """A bundle of the released nano model: float ONNX in both views; copy it before altering it."""
    return _published(tmp_path_factory.mktemp("published"), released, ("baked", "agnostic"))


@pytest.fixture(scope="session")
def published_all(tmp_path_factory: pytest.TempPathFactory, released: Path) -> Path:
    """The same in every view that there is; text needs onnxruntime-extensions."""
    pytest.importorskip("onnxruntime_extensions", reason="pip install 'swipe-export[text]'")
    from exporter.views import VIEWS

    views = tuple(view.name for view in VIEWS)
    return _published(tmp_path_factory.mktemp("published_all"), released, views)


def _published(folder: Path, released: Path, views: tuple[str, ...]) -> Path:
    from exporter.bundle import Request, export
    from exporter.origins.requests import SwipeRequest
    from exporter.policy import Policy
    from exporter.targets import find_target

    out = folder / "bundle"
    swipes = SwipeRequest(released, views, "synthetic:600", "wordfreq:5000", 100)
    request = Request((find_target("onnx"),), swipes, out, Policy(quantize=False))
    export(request, say=lambda line: None)
    return out
