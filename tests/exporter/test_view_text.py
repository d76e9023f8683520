"""The text view: strings written inside real ONNX graphs, and wrong ones that are refused."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lowered_files import lowered

from exporter.bundle import Request, export
from exporter.evidence import Evidence, judge
from exporter.formats import Lowering, Speaker, Spelling, onnx_text
from exporter.formats import onnx as onnx_format
from exporter.origins.requests import SwipeRequest
from exporter.parity import Status, Verdict
from exporter.targets import find_target, require_libraries
from exporter.views import BAKED, TEXT, choose_views
from exporter.words import Words
from swipe.corpus import load_corpus
from swipe.decode import greedy
from swipe.errors import LoweringError, MissingError, UsageError
from swipe.features import feature_batch
from swipe.layout import load_layout
from train.checkpoint import load_checkpoint
from train.evaluate import predict

SWIPES = 200
executed = pytest.mark.skipif(
    importlib.util.find_spec("onnxruntime_extensions") is None,
    reason="onnxruntime-extensions is not installed: pip install 'swipe-export[text]'",
)


@pytest.fixture(scope="module")
def job_and_evidence(released: Path, shared_data: Path) -> tuple[Lowering, Evidence]:
    """The released nano model that writes text, and real swipes to judge it by."""
    corpus = load_corpus(str(shared_data / "how_we_swipe/dev.jsonl.gz"), load_layout("qwerty"))
    swipes = corpus.gestures[:SWIPES]
    checkpoint = load_checkpoint(released)
    features = feature_batch(swipes)
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    words = Words(
        [g.word for g in swipes], [g.writer for g in swipes], lambda rows: [[]] * len(rows)
    )
    job = TEXT.lowering(checkpoint, features[:1], feature_batch(corpus.gestures[-64:]))
    return job, TEXT.evidence(checkpoint, features, logits, words)


def _judged(job: Lowering, evidence: Evidence, folder: Path, rung: str = "fp32") -> Verdict:
    path = lowered(job, folder, "onnx", rung)
    limits = find_target("onnx").find_rung(rung).limits_within(100.0, evidence.rounding)
    return judge(onnx_format.load(path), evidence, limits)


@executed
def test_the_graph_writes_what_pytorch_spells(
    job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    job, evidence = job_and_evidence
    verdict = _judged(job, evidence, tmp_path)
    assert verdict.status is Status.PASS, verdict.reasons
    assert verdict.metrics is not None
    assert verdict.metrics["word_agreement"] == 1.0
    runner = onnx_format.load(tmp_path / "fp32.onnx")
    assert isinstance(runner, Speaker)
    given = [runner.speak(*call.values()) for call in evidence.calls]
    expected = greedy(np.stack(list(evidence.reference.outputs)))
    assert given == expected
    assert len(set(given)) > SWIPES / 2
    facts = onnx_format.inspect(tmp_path / "fp32.onnx")
    assert facts["outputs"] == {"text": [1], "logits": [1, 32, 27]}
    assert facts["custom_operators"] == {"ai.onnx.contrib": ["StringJoin"]}
    assert facts["opset"] == 14


@executed
def test_int8_writes_what_its_own_logits_spell(
    job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    job, evidence = job_and_evidence
    verdict = _judged(job, evidence, tmp_path, "int8")
    assert not any("texts" in reason for reason in verdict.reasons)
    assert verdict.metrics is not None
    assert 0.8 < verdict.metrics["word_agreement"] <= 1.0
    assert onnx_format.inspect(tmp_path / "int8.onnx")["quantized"]


@executed
def test_silence_doubled_letters_and_repeats_are_written_rightly(tmp_path: Path) -> None:
    """Any scores, through the appended nodes alone."""
    import onnx
    from onnx import TensorProto, helper

    frames = [[2] * 8, [0, 0, 2, 0, 1, 1, 1, 2], [0, 1, 0, 1, 0, 1, 0, 1], [2, 2, 1, 2, 2, 1, 1, 1]]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["given"], ["scores"])],
        "main",
        [helper.make_tensor_value_info("given", TensorProto.FLOAT, [1, 8, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 8, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=7)
    onnx_text.append_text(model, Spelling(("a", "ß")), "scores")
    onnx.save(model, tmp_path / "text.onnx")
    runner = onnx_format.load(tmp_path / "text.onnx")
    assert isinstance(runner, Speaker)
    given = [runner.speak(np.eye(3, dtype=np.float32)[[row]]) for row in frames]
    assert given == ["", "aaß", "aßaßaßaß", "ßß"]


def _shifted(job: Lowering) -> Spelling:
    letters = job.spelling.letters if job.spelling else ()
    return Spelling((*letters[1:], letters[0]))


@executed
def test_an_alphabet_that_is_shifted_by_one_is_refused(
    job_and_evidence: tuple[Lowering, Evidence],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, evidence = job_and_evidence
    append = onnx_text.append_text
    monkeypatch.setattr(
        onnx_format, "append_text", lambda model, _, scores: append(model, _shifted(job), scores)
    )
    verdict = _judged(job, evidence, tmp_path)
    assert verdict.status is Status.FAIL
    assert f"{SWIPES} of {SWIPES} texts are not what its own outputs spell" in verdict.reasons[0]


def _keeping(which: str) -> Any:
    """The nodes, of which one lets repeats or blanks through."""
    nodes = onnx_text._nodes

    def changed(node: Any, name: str, scores: str) -> Iterator[Any]:
        for made in nodes(node, name, scores):
            if made.op_type == "Or":
                made.input[0 if which == "repeats" else 1] = f"{name}.never"
                yield node("Xor", [f"{name}.silent"] * 2, [f"{name}.never"])
            yield made

    return changed


@executed
@pytest.mark.parametrize("which", ["repeats", "blanks"])
def test_a_graph_that_drops_wrongly_is_refused(
    which: str,
    job_and_evidence: tuple[Lowering, Evidence],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, evidence = job_and_evidence
    if which == "blanks":
        # The blank writes nothing: what breaks is a letter in its place.
        table = onnx_text.np.array
        monkeypatch.setattr(
            onnx_text.np, "array", lambda v, **kw: table(["?" if c == "" else c for c in v], **kw)
        )
    monkeypatch.setattr(onnx_text, "_nodes", _keeping(which))
    verdict = _judged(job, evidence, tmp_path)
    assert verdict.status is Status.FAIL
    assert any("are not what its own outputs spell" in reason for reason in verdict.reasons)


def test_a_runner_without_text_is_refused(
    job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    _, evidence = job_and_evidence
    outputs = iter([row[None] for row in evidence.reference.outputs])
    limits = find_target("onnx").find_rung("fp32").limits_within(100.0, 0.0)
    verdict = judge(lambda features: next(outputs), evidence, limits)
    assert verdict.reasons == ("it gives no text",)


def test_letters_that_do_not_fit_the_classes_are_refused(
    job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    from dataclasses import replace

    job, _ = job_and_evidence
    with pytest.raises(LoweringError, match="27 classes, 25 letters"):
        onnx_format.lower(replace(job, spelling=Spelling(tuple("a" * 25))), tmp_path / "m.onnx")


@pytest.mark.parametrize("name", ["executorch", "coreml"])
def test_a_format_without_strings_leaves_text_out_with_a_reason(name: str) -> None:
    asked = SwipeRequest(Path("x"), tuple(view.name for view in choose_views("all")))
    assert asked.left_out("onnx") == {}
    reason = f"{name} has no text view: only ONNX has strings in its graphs"
    assert asked.left_out(name) == {"text": reason}
    assert asked.needs() == {"onnxruntime_extensions": "text"}


def test_text_for_formats_that_cannot_is_an_error_and_nothing_is_built(
    released: Path, tmp_path: Path
) -> None:
    targets = (find_target("executorch"), find_target("coreml"))
    request = Request(targets, SwipeRequest(released, ("text",)), tmp_path / "bundle")
    with pytest.raises(UsageError, match=r"executorch has no text view: .*; coreml has no text"):
        export(request, lambda line: None)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["executorch", "coreml"])
def test_a_job_with_text_is_refused_by_formats_without_strings(
    name: str, job_and_evidence: tuple[Lowering, Evidence], tmp_path: Path
) -> None:
    job, _ = job_and_evidence
    target = find_target(name)
    with pytest.raises(UsageError, match="has no strings"):
        target.format().lower(job, tmp_path / f"model{target.suffix}")


def test_without_the_library_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n: None if n == "onnxruntime_extensions" else find(n)
    )
    with pytest.raises(MissingError, match="onnxruntime_extensions") as caught:
        require_libraries((find_target("onnx"),), TEXT.libraries)
    assert "pip install 'swipe-export[text]'" in caught.value.fix
    require_libraries((find_target("onnx"),), BAKED.libraries)
