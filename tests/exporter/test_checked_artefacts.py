"""What an artefact is, against what its manifest says: every difference is refused by its gate."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from exporter.formats import Format
from exporter.manifest import Build, RungEntry, TensorEntry, Verdict, ViewEntry
from exporter.targets import Target, find_target
from exporter.verification.artefacts import Artefact, check_artefact
from exporter.verification.expected import Expected
from exporter.verification.findings import Finding, Gate, Outcome
from swipe.errors import MissingError
from swipe.files import sha256_file


@dataclass
class PretendFormat:
    """A format that says of every file what it was told to."""

    quantized: bool = False
    inputs: tuple[int | str, ...] = (1, 8)
    outputs: tuple[int | str, ...] = (1, 3)
    contract: str = "right"
    absent: bool = False

    def inspect(self, path: Path) -> dict[str, Any]:
        if self.absent:
            raise MissingError("onnx cannot be imported", fix="install it")
        return {
            "quantized": self.quantized,
            "inputs": {"x": self.inputs},
            "outputs": {"scores": self.outputs},
        }

    def metadata(self, path: Path) -> dict[str, str]:
        return {"contract": self.contract}


class PretendTarget(Target):
    """ONNX, read by a `PretendFormat`."""

    pretend: PretendFormat

    def format(self) -> Format:
        return cast(Format, self.pretend)


def _tensor(name: str, *shape: int | str) -> TensorEntry:
    return TensorEntry(name=name, shape=shape, dtype="float32", meaning="-")


VIEW = ViewEntry(
    name="model", inputs=(_tensor("x", 1, 8),), output=_tensor("scores", 1, 3), also_tried=()
)
EXPECTED = Expected({"contract": "right"}, VIEW)


def _found(
    folder: Path,
    found: PretendFormat,
    expected: Expected | None = EXPECTED,
    said: PretendFormat | None = None,
    **changes: Any,
) -> list[Finding]:
    """The findings on a file that is as `found`, of which the manifest says it is as `said`."""
    path = folder / "model.onnx"
    path.write_text("model")
    onnx = find_target("onnx")
    target = PretendTarget(**{field.name: getattr(onnx, field.name) for field in fields(onnx)})
    object.__setattr__(target, "pretend", found)
    facts = replace(said or found, absent=False).inspect(path)
    listed = {
        key: {name: list(shape) for name, shape in value.items()} if key != "quantized" else value
        for key, value in facts.items()
    }
    entry = {
        "rung": "fp32", "taken": True, "file": path.name, "size_bytes": 5, "seconds": 1.0,
        "sha256": sha256_file(path), "facts": listed,
        "verdict": Verdict(status="PASS", level="host", reasons=(), metrics=None),
    }  # fmt: skip
    rung = RungEntry(**(entry | changes))
    artefact = Artefact(path, target, "model", rung, Build.model_construct())
    return list(check_artefact(artefact, expected))


def _refused(findings: list[Finding]) -> dict[Gate, str]:
    return {f.gate: f.detail for f in findings if f.outcome is Outcome.REFUSED}


def test_an_artefact_that_is_what_the_manifest_says_is_verified(tmp_path: Path) -> None:
    findings = _found(tmp_path, PretendFormat())
    gates = {Gate.HASH, Gate.SIZE, Gate.METADATA, Gate.FACTS, Gate.SIGNATURE}
    assert {f.gate for f in findings if f.outcome is Outcome.VERIFIED} == gates
    assert len(findings) == len(gates)
    int8 = _found(tmp_path, PretendFormat(quantized=True), rung="int8")
    assert _refused(int8) == _refused(_found(tmp_path, PretendFormat(), rung="fp16-weights")) == {}


@pytest.mark.parametrize(
    ("found", "changes", "gate", "says"),
    [
        (PretendFormat(), {"sha256": "0" * 64}, Gate.HASH, "is not 000"),
        (PretendFormat(), {"size_bytes": 6}, Gate.SIZE, "5 bytes, manifest.json says 6"),
        (PretendFormat(contract="stale"), {}, Gate.METADATA, "'stale', expected 'right'"),
        (PretendFormat(), {"facts": {}}, Gate.FACTS, "quantized is False, manifest.json says None"),
        (PretendFormat(quantized=True), {}, Gate.FACTS, "it is called fp32 and is quantized"),
        (PretendFormat(), {"rung": "int8"}, Gate.FACTS, "it is called int8 and is not quantized"),
        (PretendFormat(inputs=(1, 9)), {}, Gate.SIGNATURE, "its inputs are {'x': [1, 9]}"),
        (PretendFormat(outputs=(1, 4)), {}, Gate.SIGNATURE, "its outputs are {'scores': [1, 4]}"),
    ],
)
def test_an_artefact_that_is_something_else_is_refused(
    tmp_path: Path, found: PretendFormat, changes: dict[str, Any], gate: Gate, says: str
) -> None:
    refused = _refused(_found(tmp_path, found, **changes))
    assert set(refused) == {gate}
    assert says in refused[gate]


def test_a_fact_that_the_file_has_not_is_refused(tmp_path: Path) -> None:
    said = PretendFormat(outputs=(1, 4))
    refused = _refused(_found(tmp_path, PretendFormat(), said=said))
    assert set(refused) == {Gate.FACTS}
    assert refused[Gate.FACTS].startswith("outputs is ")


def test_sizes_of_outputs_are_free_where_those_of_inputs_vary(tmp_path: Path) -> None:
    inputs = (_tensor("x", 1, "T:4..8"),)
    varying = Expected(EXPECTED.metadata, VIEW.model_copy(update={"inputs": inputs}))
    free = PretendFormat(inputs=(1, "T:4..8"), outputs=(1, "s0"))
    assert _refused(_found(tmp_path, free, varying)) == {}
    assert set(_refused(_found(tmp_path, PretendFormat(), varying))) == {Gate.SIGNATURE}


def test_nothing_is_known_of_an_artefact_whose_checkpoint_is_unsound(tmp_path: Path) -> None:
    findings = _found(tmp_path, PretendFormat(), None)
    unknown = {f.gate for f in findings if f.outcome is Outcome.CANNOT and f.matters}
    assert unknown == {Gate.METADATA, Gate.SIGNATURE}
    assert len(findings) == 5


def test_a_missing_library_leaves_facts_unknown_and_that_matters(tmp_path: Path) -> None:
    findings = _found(tmp_path, PretendFormat(absent=True))
    unknown = {f.gate for f in findings if f.outcome is Outcome.CANNOT and f.matters}
    assert unknown == {Gate.FACTS, Gate.SIGNATURE}
