"""The ladder on a pretend format: what is tried, what is refused, what is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporter.evidence import Evidence, Trial
from exporter.formats import Format, Lowering, Runner, calls_of
from exporter.ladder import RungRecord, climb
from exporter.parity import Answers, Limits
from exporter.targets import Rung, Target
from exporter.views import BAKED, CONTRACT_KEY
from swipe.errors import GateError, LoweringError, MissingError

LIMITS = Limits(max_abs_delta=None, frame_agreement=0.9, accuracy_drop=1.0)
FEATURES = np.random.default_rng(0).random((6, 2, 64), dtype=np.float32)


def _right(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.tile(features[:, :1, :27], (1, 32, 1))


def _signature() -> dict[str, object]:
    return {"inputs": {"features": [1, 2, 64]}, "outputs": {"logits": [1, 32, 27]}}


@dataclass
class PretendFormat:
    """A format whose artefacts are text files and whose runners are given."""

    runners: dict[str, Runner]
    sizes: dict[str, int]
    contract: str = "right"
    signature: dict[str, object] = field(default_factory=_signature)
    broken: dict[str, Exception] = field(default_factory=dict)
    built: list[str] = field(default_factory=list)

    def lower(self, job: Lowering, path: Path) -> None:
        self.quantize(job, path, "fp32")

    def quantize(self, job: Lowering, path: Path, rung: str) -> None:
        self.built.append(rung)
        if rung in self.broken:
            raise self.broken[rung]
        path.write_text(rung.ljust(self.sizes[rung]))

    def load(self, path: Path, threads: int = 1) -> Runner:
        return self.runners[path.read_text().strip()]

    def inspect(self, path: Path) -> dict[str, object]:
        return self.signature

    def metadata(self, path: Path) -> dict[str, str]:
        return {CONTRACT_KEY: self.contract}


class PretendTarget(Target):
    """A target that speaks `PretendFormat`."""

    pretend: PretendFormat

    def format(self) -> Format:
        return cast(Format, self.pretend)


def _decode(logits: NDArray[np.float32]) -> list[list[str]]:
    return [[str(row.argmax())] for row in logits]


def _climb(
    folder: Path,
    pretend: PretendFormat,
    *,
    quantize: bool = True,
    trials: tuple[Trial, ...] = (),
) -> list[RungRecord]:
    rungs = tuple(Rung(n, n != "fp32", LIMITS) for n in ("int8", "half", "fp32"))
    target = PretendTarget("pretend", ".txt", (), "x", rungs)
    object.__setattr__(target, "pretend", pretend)
    logits = _right(FEATURES)
    truths = [words[0] for words in _decode(logits)]
    reference = Answers(logits, _decode(logits))
    evidence = Evidence(FEATURES, truths, reference, _decode, trials=trials)
    job = Lowering(
        torch.nn.Identity(), calls_of(FEATURES)[0], calls_of(FEATURES), {CONTRACT_KEY: "right"}
    )
    return climb(
        target, BAKED, job, evidence, folder, quantize=quantize, budget=1.0, say=lambda line: None
    )


def _pretend(**changes: object) -> PretendFormat:
    fields: dict[str, object] = {
        "runners": dict.fromkeys(("int8", "half", "fp32"), _right),
        "sizes": {"int8": 10, "half": 20, "fp32": 40},
    }
    return PretendFormat(**{**fields, **changes})  # type: ignore[arg-type]


def _wrong(change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Runner:
    return lambda features: change(_right(features))


def test_the_first_rung_that_holds_is_taken_and_the_baseline_kept(tmp_path: Path) -> None:
    pretend = _pretend()
    int8, fp32 = _climb(tmp_path, pretend)
    assert pretend.built == ["fp32", "int8"]
    assert (int8.rung, int8.taken, fp32.taken) == ("int8", True, False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.fp32.txt", "model.int8.txt"]


def test_no_quantize_builds_the_baseline_only(tmp_path: Path) -> None:
    (fp32,) = _climb(tmp_path, _pretend(), quantize=False)
    assert fp32.taken


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (_wrong(lambda y: y * np.nan), "NaN or Inf"),
        (_wrong(lambda y: y[:, :31]), "outputs of shape"),
        (_wrong(lambda y: np.zeros_like(y)), "per-frame agreement"),
        (_wrong(lambda y: y[:, :, ::-1]), "per-frame agreement"),
    ],
)
def test_a_bad_rung_is_refused_with_its_reason_and_removed(
    tmp_path: Path, runner: Runner, reason: str
) -> None:
    good = _pretend().runners
    int8, half, fp32 = _climb(tmp_path, _pretend(runners={**good, "int8": runner}))
    assert (int8.taken, half.taken, fp32.taken) == (False, True, False)
    assert any(reason in r for r in int8.verdict.reasons)
    assert int8.file is None
    assert not (tmp_path / "model.int8.txt").exists()


def test_a_rung_that_is_no_smaller_is_refused(tmp_path: Path) -> None:
    int8, half, fp32 = _climb(tmp_path, _pretend(sizes={"int8": 40, "half": 41, "fp32": 40}))
    assert "the float artefact has 40" in int8.verdict.reasons[0]
    assert not half.taken
    assert fp32.taken


def test_a_rung_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    broken = {"int8": LoweringError("no kernel for aten::foo", fix="-")}
    int8, half, _ = _climb(tmp_path, _pretend(broken=broken))
    assert int8.verdict.reasons == ("no kernel for aten::foo",)
    assert half.taken


def test_another_contract_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="carries contract stale, expected right"):
        _climb(tmp_path, _pretend(contract="stale"))


def test_a_baseline_that_fails_ends_the_export(tmp_path: Path) -> None:
    runners = dict.fromkeys(("int8", "half", "fp32"), _wrong(lambda y: y * np.nan))
    with pytest.raises(GateError, match="pretend baked fp32 was refused"):
        _climb(tmp_path, _pretend(runners=runners))


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": {"features": [1, 2, 65]}},
        {"inputs": {"swipe": [1, 2, 64]}},
        {"inputs": {"features": [1, 2, 64], "layout_mask": [1, 64]}},
        {"outputs": {"logits": [1, 32, 26]}},
        {"outputs": {"log_emissions": [1, 32, 27]}},
    ],
)
def test_an_artefact_that_takes_or_gives_something_else_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    with pytest.raises(GateError, match=f"its {next(iter(change))} are .*, expected"):
        _climb(tmp_path, _pretend(signature=_signature() | change))


def test_a_format_without_names_is_known_by_positions(tmp_path: Path) -> None:
    signature = {"inputs": {"0": [1, 2, 64]}, "outputs": {"0": [1, 32, 27]}}
    assert _climb(tmp_path, _pretend(signature=signature))[0].taken


def test_a_rung_that_fails_one_trial_is_refused(tmp_path: Path) -> None:
    """Right about the swipes themselves, and not about what the context makes of them."""

    def deaf(features: NDArray[np.float32], *context: NDArray[np.float32]) -> NDArray[np.float32]:
        return _right(features)

    def hearing(
        features: NDArray[np.float32], *context: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        return _right(features)[:, :, ::-1] if context else _right(features)

    mirrored = (np.ones((1, 1), dtype=np.float32),)
    trial = Trial("mirrored", FEATURES, mirrored, _right(FEATURES)[:, :, ::-1])
    runners = {"int8": deaf, "half": hearing, "fp32": hearing}
    int8, half, _ = _climb(tmp_path, _pretend(runners=runners), trials=(trial,))
    assert int8.verdict.reasons == ("mirrored: per-frame agreement 0.00% is below 90.00%",)
    assert int8.verdict.metrics is not None
    assert half.taken


def test_what_cannot_run_here_is_unverified_never_a_pass(tmp_path: Path) -> None:
    class Elsewhere(PretendFormat):
        def load(self, path: Path, threads: int = 1) -> Runner:
            raise MissingError("executes on macOS only", fix="-")

    fields = _pretend()
    int8, fp32 = _climb(tmp_path, Elsewhere(fields.runners, fields.sizes))
    assert int8.taken
    assert {int8.verdict.status, fp32.verdict.status} == {"UNVERIFIED"}
