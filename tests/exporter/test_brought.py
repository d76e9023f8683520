"""Anyone's model through the same chain: export, manifest, report, inspection, bench."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from host_bench import bench_host

from android_harness.interleaving import Plan
from android_harness.results import EAGER, load_results
from exporter.bundle import Request, export
from exporter.cli import app
from exporter.manifest import ModelSource, load_manifest
from exporter.origins import reopen
from exporter.origins.requests import ModelRequest
from exporter.policy import Policy
from exporter.report import write_report
from exporter.targets import find_target
from exporter.verification import Finding, Gate, Outcome, exit_code, verify
from exporter.verification.consistency import contradictions
from swipe.errors import ExitCode, GateError, UsageError
from train.inspection.kinds import inspect_file

PLAN = Plan(loads=1, warmup=1, blocks=2, block_calls=4)
FACTORY = "brought_models:classes"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ONNX bundle of a small classifier."""
    out = tmp_path_factory.mktemp("brought") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        # The worker is another process, which has to find the factory too.
        patch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parent), *sys.path]))
        request = Request((find_target("onnx"),), ModelRequest(FACTORY), out, Policy(budget=2.0))
        export(request, lambda line: None)
        yield out


@pytest.mark.slow
def test_a_bundle_says_what_it_was_made_from(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    source = manifest.source
    assert isinstance(source, ModelSource)
    assert (source.factory, source.outputs, source.metric) == (FACTORY, "classes", "top1")
    assert (source.verification_samples, source.calibration_samples) == (400, 32)
    (view,) = manifest.views
    assert [(t.name, t.shape) for t in (*view.inputs, view.output)] == [
        ("x", (1, 8)), ("output", (1, 3)),
    ]  # fmt: skip
    assert all(rung.verdict.status in ("PASS", "FAIL") for rung in manifest.formats[0].rungs)
    assert manifest.formats[0].rungs[-1].verdict.status == "PASS"
    report = (bundle / "report.md").read_text()
    assert f"Model `{FACTORY}`" in report
    assert "accuracy is top1" in report


@pytest.mark.slow
def test_a_bundle_is_valid_to_the_inspector(bundle: Path) -> None:
    found = inspect_file(bundle)
    assert found.valid, found.reasons
    assert not found.warnings


@pytest.mark.slow
def test_the_bench_judges_by_the_factorys_samples(bundle: Path) -> None:
    results = bench_host(bundle, PLAN, 1, None, lambda line: None)
    assert not results.failed
    assert results.rows[0].name == EAGER
    assert len(results.rows) == 1 + sum(
        rung.file is not None for entry in load_manifest(bundle).formats for rung in entry.rungs
    )
    assert results.identity == {"factory": FACTORY}
    results.save(bundle.parent / "bench.json")
    assert load_results(bundle.parent / "bench.json") == results


@pytest.mark.slow
def test_the_bench_expects_bounds_of_artefacts_and_not_of_pytorch(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", ":".join([str(Path(__file__).parent), *sys.path]))
        request = ModelRequest("brought_models:sequences")
        policy = Policy(quantize=False)
        export(Request((find_target("onnx"),), request, out, policy), lambda line: None)
    results = bench_host(out, PLAN, 1, None, lambda line: None)
    assert [row.name for row in results.rows] == [EAGER, "onnx model fp32"]
    assert results.failed == []


@pytest.mark.slow
def test_a_lexicon_is_no_business_of_such_a_bundle(bundle: Path) -> None:
    with pytest.raises(UsageError, match="is for swipe models"):
        bench_host(bundle, PLAN, 1, "wordfreq", lambda line: None)


@pytest.mark.slow
@pytest.mark.parametrize("change", ["other", "fewer"])
def test_a_factory_that_gives_other_samples_is_found_out(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    import brought_models

    verification = brought_models.rows(400, seed=1)
    if change == "other":
        verification[17] = brought_models.rows(1, seed=99)[0]
    given = brought_models.classes()
    changed = brought_models.classes(
        verification=verification if change == "other" else verification[:17], metric=None
    )
    assert given.digest(given.verification[16]) == changed.digest(changed.verification[16])
    monkeypatch.setattr(brought_models, "classes", lambda: changed)
    source = load_manifest(bundle).source
    with pytest.raises(GateError, match="of which number 17 is not what artefacts were judged by"):
        reopen(bundle, source, say=lambda line: None)


@pytest.mark.slow
def test_other_weights_or_samples_under_the_same_manifest_are_refused(
    bundle: Path, tmp_path: Path
) -> None:
    source = load_manifest(bundle).source
    folder = tmp_path / "copy"
    shutil.copytree(bundle, folder)
    other = source.model_copy(update={"weights_sha256": "0" * 64})
    with pytest.raises(GateError, match="is not the checkpoint the manifest speaks of"):
        reopen(folder, other, say=lambda line: None)
    (folder / "verification.npz").write_bytes(b"")
    with pytest.raises(GateError, match="is not what the manifest"):
        reopen(folder, source, say=lambda line: None)


def _verified(folder: Path, *, deep: bool) -> list[Finding]:
    return verify(folder, deep=deep, lexicon=None, say=lambda line: None)


@pytest.mark.slow
def test_verify_recomputes_what_it_can_and_names_what_only_the_factory_tells(bundle: Path) -> None:
    shallow = _verified(bundle, deep=False)
    assert [f for f in shallow if f.outcome is Outcome.REFUSED] == []
    cannot = {f.gate: f.detail for f in shallow if f.outcome is Outcome.CANNOT}
    without = {Gate.CONTRACT, Gate.LEXICON, Gate.DECODER, Gate.BUILD}
    assert set(cannot) == without | {Gate.CALIBRATION, Gate.VIEWS, Gate.EXECUTION}
    assert all(cannot.values())
    deep = _verified(bundle, deep=True)
    assert [f for f in deep if f.outcome is Outcome.REFUSED] == []
    assert {f.gate for f in deep if f.outcome is Outcome.CANNOT} == without
    assert exit_code(deep) is ExitCode.OK


@pytest.mark.slow
def test_verify_refuses_another_factory_other_weights_and_other_calibration(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import brought_models

    folder = Path(shutil.copytree(bundle, tmp_path / "copy"))
    manifest = load_manifest(folder)

    def refused(*, deep: bool = False, **changes: object) -> set[Gate]:
        source = manifest.source.model_copy(update=changes)
        edited = manifest.model_copy(update={"source": source})
        edited.save(folder)
        write_report(edited, folder)
        return {f.gate for f in _verified(folder, deep=deep) if f.outcome is Outcome.REFUSED}

    assert refused(factory="a:b") == {Gate.CHECKPOINT, Gate.RECIPE, Gate.METADATA}
    assert refused(weights_sha256="0" * 64) == {Gate.WEIGHTS}
    assert refused(parameters=10**9) == {Gate.CHECKPOINT}
    assert refused(verification_samples=17) == {Gate.SWIPES, Gate.FIGURES}
    assert refused(outputs="values") == {Gate.METADATA, Gate.FIGURES}
    assert refused(outputs="ctc") == {Gate.METADATA, Gate.FIGURES}
    assert refused(metric=None) == refused(reference_rounding=-1e-5) == {Gate.FIGURES}
    changed = brought_models.classes(calibration=brought_models.rows(32, seed=77))
    monkeypatch.setattr(brought_models, "classes", lambda: changed)
    assert refused(deep=True) == {Gate.CALIBRATION}
    (folder / "checkpoint.safetensors").write_bytes(b"weights")
    assert refused() == {Gate.CHECKPOINT}
    with pytest.raises(UsageError, match="is for swipe models"):
        verify(folder, deep=False, lexicon="wordfreq", say=lambda line: None)


@pytest.mark.slow
def test_quantized_values_that_nobody_scores_contradict_their_pass(bundle: Path) -> None:
    manifest = load_manifest(bundle)
    nothing = {"agreement": None, "cost": None, "scores": {}, "reference_scores": {}}
    (entry,) = manifest.formats
    assert entry.taken.rung != "fp32"
    rungs = [
        rung.model_copy(
            update={
                "verdict": rung.verdict.model_copy(
                    update={"metrics": {**(rung.verdict.metrics or {}), **nothing}}
                )
            }
        )
        for rung in entry.rungs
    ]
    source = manifest.source.model_copy(update={"outputs": "values", "metric": None})
    formats = (entry.model_copy(update={"rungs": tuple(rungs)}),)
    edited = manifest.model_copy(update={"source": source, "formats": formats})
    refused = [f for f in contradictions(edited) if f.outcome is Outcome.REFUSED]
    assert {(f.gate, f.about) for f in refused} == {
        (Gate.VERDICTS, f"onnx classes {entry.taken.rung}")
    }
    assert "PASS although outputs are values that no metric scores" in refused[0].detail


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModelRequest]:
    """Write a module that has a factory, where this process and its workers find it."""

    def write(module: str, code: str) -> ModelRequest:
        (tmp_path / f"{module}.py").write_text(code)
        paths = [str(tmp_path), str(Path(__file__).parent), *sys.path]
        monkeypatch.setenv("PYTHONPATH", ":".join(paths))
        monkeypatch.syspath_prepend(str(tmp_path))
        return ModelRequest(f"{module}:make")

    return write


@pytest.mark.slow
def test_a_form_that_was_renamed_is_not_kept_beside_the_new_one(
    written: Callable[[str, str], ModelRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = written(
        "renaming",
        "import os\nfrom brought_models import classes\n"
        "def make():\n    return classes(name=os.environ['FORM'])\n",
    )
    out, said = tmp_path / "bundle", list[str]()
    request = Request((find_target("onnx"),), model, out, Policy(quantize=False))
    for name in ("before", "after"):
        monkeypatch.setenv("FORM", name)
        export(request, said.append)
    assert [entry.view for entry in load_manifest(out).formats] == ["after"]
    assert any("onnx before: the model has no such view" in line for line in said)
    assert [f for f in _verified(out, deep=False) if f.outcome is Outcome.REFUSED] == []


@pytest.mark.slow
def test_formats_of_another_forward_are_not_kept_beside_the_new_one(
    written: Callable[[str, str], ModelRequest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, samples and rounding are the same to the bit, and every answer is another."""
    model = written(
        "turning",
        "import os\nimport torch\nfrom brought_models import Perceptron, classes\n"
        "class Turned(Perceptron):\n    def forward(self, x):\n"
        "        return float(os.environ['SIGN']) * super().forward(x)\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return classes(module=Turned().eval(), metric=None)\n",
    )
    out, said = tmp_path / "bundle", list[str]()
    formats = {"onnx": "1", "executorch": "1", "coreml": "-1"}
    kept = []
    for name, sign in formats.items():
        monkeypatch.setenv("SIGN", sign)
        export(Request((find_target(name),), model, out, Policy(quantize=False)), said.append)
        kept.append([entry.format for entry in load_manifest(out).formats])
    assert kept == [["onnx"], ["executorch", "onnx"], ["coreml"]]
    assert sum("not kept of the earlier bundle" in line for line in said) == 2


@pytest.mark.parametrize("option", ["lexicon", "data", "preset", "samples", "view"])
def test_an_option_about_swipes_contradicts_a_model(option: str) -> None:
    value = {"samples": "200", "view": "baked"}.get(option, "x")
    with pytest.raises(UsageError, match=f"--model and --{option} contradict each other"):
        app(args=["onnx", "--model", "a:b", f"--{option}", value], standalone_mode=False)


def test_a_model_that_is_not_there_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="absent_package:make cannot be imported"):
        app(args=["onnx", "--model", "absent_package:make"], standalone_mode=False)
    assert not list(tmp_path.iterdir())
