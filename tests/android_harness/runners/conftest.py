"""Runner sets that tests execute, built once per session; without what they need, said loudly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lowered_files import lowered

from exporter.formats import Inputs, Lowering, calls_of
from exporter.views import BAKED
from swipe.corpus import load_corpus
from swipe.features import feature_batch
from swipe.layout import load_layout
from train.checkpoint import load_checkpoint

SWIPES = 40


@pytest.fixture(scope="session")
def swipes(shared_data: Path) -> list[Inputs]:
    """Real swipes, each as a call of the baked view."""
    corpus = load_corpus(str(shared_data / "how_we_swipe/dev.jsonl.gz"), load_layout("qwerty"))
    return calls_of(feature_batch(corpus.gestures[:SWIPES]))


@pytest.fixture(scope="session")
def job(released: Path, swipes: list[Inputs]) -> Lowering:
    """The released nano model, to be lowered for its own keyboard."""
    rows = np.concatenate([call["features"] for call in swipes])
    return BAKED.lowering(load_checkpoint(released), rows[:1], rows[:8])


@pytest.fixture(scope="session")
def onnx_fp32(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano as float ONNX."""
    return lowered(job, tmp_path_factory.mktemp("onnx"), "onnx", "fp32")


@pytest.fixture(scope="session")
def onnx_int8(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano as int8 ONNX."""
    return lowered(job, tmp_path_factory.mktemp("onnx"), "onnx", "int8")


@pytest.fixture(scope="session")
def pte_fp32(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano as a float ExecuTorch program."""
    return lowered(job, tmp_path_factory.mktemp("executorch"), "executorch", "fp32")


@pytest.fixture(scope="session")
def pte_int8(job: Lowering, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nano as an int8 ExecuTorch program."""
    return lowered(job, tmp_path_factory.mktemp("executorch"), "executorch", "int8")
