"""What tests share: the real corpus and a released checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory, released: Path) -> Path:
    """A bundle of the released nano model: float ONNX in both views; copy it before altering it."""
    from exporter.bundle import Request, export
    from exporter.policy import Policy
    from exporter.targets import find_target
    from exporter.views import VIEWS

    out = tmp_path_factory.mktemp("published") / "bundle"
    export(
        Request(
            (find_target("onnx"),), VIEWS, released, out, Policy(quantize=False),
            "synthetic:600", "wordfreq:5000", 100,
        ),
        say=lambda line: None,
    )  # fmt: skip
    return out
