"""The ladder on a pretend format: what is tried, what is refused, what is taken."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from exporter import ladder
from exporter.cache import Cache
from exporter.evidence import Evidence, Refusal, Trial
from exporter.formats import Format, Lowering, Runner, calls_of
from exporter.ladder import Recollection, RungRecord, climb
from exporter.memory import Memory, to_record
from exporter.parity import Answers, Kind, Level, Limits, Population, Reading, Status
from exporter.parity.outputs import Outputs
from exporter.policy import Policy
from exporter.subject import Subject
from exporter.targets import Rung, Target
from exporter.views import CONTRACT_KEY
from swipe.errors import GateError, LoweringError
from swipe.files import sha256_file

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
    tuned: Callable[[Runner, list[str]], Runner] | None = None

    def layers(self, job: Lowering, rung: str) -> tuple[str, ...]:
        return ("first", "second", "third")

    def lower(self, job: Lowering, path: Path) -> None:
        self.quantize(job, path, "fp32")

    def quantize(self, job: Lowering, path: Path, rung: str) -> None:
        self.built.append(rung)
        if rung in self.broken:
            raise self.broken[rung]
        content = " ".join([rung, *sorted(job.float_layers)])
        path.write_text(content.ljust(self.sizes[rung]))

    def load(self, path: Path, threads: int = 1) -> Runner:
        rung, *kept = path.read_text().split()
        runner = self.runners[rung]
        return self.tuned(runner, kept) if rung == "int8" and self.tuned else runner

    def inspect(self, path: Path) -> dict[str, object]:
        return self.signature

    def metadata(self, path: Path) -> dict[str, str]:
        return {CONTRACT_KEY: self.contract}


class PretendTarget(Target):
    """A target that speaks `PretendFormat`."""

    pretend: PretendFormat

    def format(self) -> Format:
        return cast(Format, self.pretend)


def _answer(outputs: Outputs) -> Answers:
    """Right where the first frame's best class is that of the right output."""
    said = [str(row[0].argmax()) for row in outputs]
    meant = [str(row[0].argmax()) for row in _right(FEATURES)]
    right = np.array([a == b for a, b in zip(said, meant, strict=True)], dtype=float)
    return Answers(outputs, [[word] for word in said], {"top1": right})


class _Right(torch.nn.Module):
    """`_right` as a module."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features[:, :1, :27].repeat(1, 32, 1)


def _climb(
    folder: Path,
    pretend: PretendFormat,
    policy: Policy | None = None,
    *,
    bounded: bool = False,
    trials: tuple[Trial, ...] = (),
    refusals: tuple[Refusal, ...] = (),
    executes_on: tuple[str, ...] = (),
    interpreted: bool = False,
    module: torch.nn.Module | None = None,
    memory: Recollection | None = None,
) -> list[RungRecord]:
    quantized = replace(LIMITS, bounded=bounded)
    rungs = (
        Rung("int8", True, quantized), Rung("half", True, quantized), Rung("fp32", False, LIMITS)
    )  # fmt: skip
    target = PretendTarget("pretend", ".txt", (), "x", rungs, "-", executes_on, interpreted)
    object.__setattr__(target, "pretend", pretend)
    evidence = Evidence(
        calls=calls_of(FEATURES),
        population=Population([str(i) for i in range(len(FEATURES))]),
        reading=Reading(Kind.CTC, 26),
        reference=_answer(list(_right(FEATURES))),
        answer=_answer,
        trials=trials,
        refusals=refusals,
    )
    job = Lowering(
        module or torch.nn.Identity(),
        calls_of(FEATURES)[0],
        calls_of(FEATURES),
        {CONTRACT_KEY: "right"},
    )
    subject = Subject("baked", "model", job, evidence)
    return climb(target, subject, folder, policy or Policy(budget=1.0), lambda line: None, memory)


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


def test_a_record_has_size_and_hash_of_the_file_that_was_kept_and_no_hash_of_another(
    tmp_path: Path,
) -> None:
    broken = {"half": LoweringError("no kernel", fix="-")}
    runners = {**_pretend().runners, "int8": _wrong(lambda y: y * np.nan)}
    int8, half, fp32 = _climb(tmp_path, _pretend(runners=runners, broken=broken))
    assert (fp32.size_bytes, fp32.sha256) == (40, sha256_file(tmp_path / str(fp32.file)))
    assert (int8.size_bytes, int8.file, int8.sha256) == (10, None, None)
    assert (half.size_bytes, half.file, half.sha256) == (None, None, None)


def test_what_has_to_be_quantized_is_enough_when_it_is(tmp_path: Path) -> None:
    policy = Policy(budget=1.0, require_quantized=True)
    int8, fp32 = _climb(tmp_path, _pretend(), policy)
    assert (int8.taken, fp32.taken) == (True, False)
    runners = {**_pretend().runners, "int8": _silent, "half": _silent}
    with pytest.raises(GateError, match=r"no quantized artefact passed .int8: .*half: "):
        _climb(tmp_path, _pretend(runners=runners), policy)
    # Who does not ask for it gets float, and who asks for nothing quantized is not refused.
    assert _climb(tmp_path, _pretend(runners=runners))[-1].taken
    (alone,) = _climb(tmp_path, _pretend(), replace(policy, quantize=False))
    assert alone.taken


def test_no_quantize_builds_the_baseline_only(tmp_path: Path) -> None:
    (fp32,) = _climb(tmp_path, _pretend(), Policy(quantize=False))
    assert fp32.taken


@pytest.mark.parametrize(
    ("runner", "reason"),
    [
        (_wrong(lambda y: y * np.nan), "NaN or Inf"),
        (_wrong(lambda y: y[:, :31]), "an output of shape"),
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
    with pytest.raises(GateError, match="carries contract_id 'stale', expected 'right'"):
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

    mirrored = {"mirror": np.ones((1, 1), dtype=np.float32)}
    calls = calls_of(FEATURES, mirrored)
    trial = Trial("mirrored", calls, list(_right(FEATURES)[:, :, ::-1]))
    runners = {"int8": deaf, "half": hearing, "fp32": hearing}
    int8, half, _ = _climb(tmp_path, _pretend(runners=runners), trials=(trial,))
    assert int8.verdict.reasons == ("mirrored: per-frame agreement 0.00% is below 90.00%",)
    assert int8.verdict.metrics is not None
    assert half.taken


def test_what_cannot_run_here_is_unverified_never_a_pass(tmp_path: Path) -> None:
    int8, fp32 = _climb(tmp_path, _pretend(), executes_on=("elsewhere",))
    assert int8.taken
    assert {int8.verdict.status, fp32.verdict.status} == {Status.UNVERIFIED}
    assert {int8.verdict.level, fp32.verdict.level} == {Level.STRUCTURAL}


def test_what_an_interpreter_executes_passes_at_its_level_and_has_no_speed(tmp_path: Path) -> None:
    int8, _fp32 = _climb(tmp_path, _pretend(), executes_on=("elsewhere",), interpreted=True)
    assert (int8.verdict.status, int8.verdict.level) == (Status.PASS, Level.REFERENCE)
    assert int8.speed is None
    with pytest.raises(GateError, match="require-faster"):
        _climb(
            tmp_path,
            _pretend(),
            Policy(require_quantized=True, require_faster=True),
            executes_on=("elsewhere",),
            interpreted=True,
        )


def test_too_few_samples_to_tell_is_not_taken_and_says_how_many_would_tell(tmp_path: Path) -> None:
    int8, half, fp32 = _climb(tmp_path, _pretend(), bounded=True)
    assert {int8.verdict.status, half.verdict.status} == {Status.UNVERIFIED}
    assert "about 300 samples would tell" in int8.verdict.reasons[0]
    assert (fp32.taken, fp32.verdict.status) == (True, Status.PASS)
    assert [path.name for path in tmp_path.iterdir()] == ["model.fp32.txt"]
    assert int8.file is int8.sha256 is None


def test_falling_back_is_a_failure_where_quantized_is_required(tmp_path: Path) -> None:
    broken = {name: LoweringError(f"{name} broke", fix="-") for name in ("int8", "half")}
    assert _climb(tmp_path, _pretend(broken=broken))[-1].taken
    with pytest.raises(GateError, match="no quantized artefact passed") as caught:
        _climb(tmp_path, _pretend(broken=broken), Policy(require_quantized=True))
    assert "int8: int8 broke. half: half broke" in str(caught.value)


def _needs(layer: str) -> Callable[[Runner, list[str]], Runner]:
    """An int8 artefact that is right only where `layer` is float, and a little off elsewhere."""

    def tuned(runner: Runner, kept: list[str]) -> Runner:
        return runner if layer in kept else lambda features: np.roll(runner(features), 1, axis=2)

    return tuned


def test_the_layer_that_hurts_is_found_and_kept_float(tmp_path: Path) -> None:
    module = _Right()
    policy = Policy(budget=1.0, tune_minutes=1.0)
    sizes = {"int8": 30, "half": 35, "fp32": 40}
    pretend = _pretend(tuned=_needs("second"), sizes=sizes)
    int8, fp32 = _climb(tmp_path, pretend, policy, module=module)
    assert (int8.taken, int8.float_layers, fp32.taken) == (True, ("second",), False)
    assert (tmp_path / "model.int8.txt").read_text().split() == ["int8", "second"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.fp32.txt", "model.int8.txt"]


def test_without_time_to_tune_the_next_rung_is_tried(tmp_path: Path) -> None:
    int8, half, _ = _climb(tmp_path, _pretend(tuned=_needs("second")), module=_Right())
    assert (int8.taken, int8.float_layers, half.taken) == (False, (), True)


def test_tuning_that_finds_nothing_falls_back(tmp_path: Path) -> None:
    policy = Policy(budget=1.0, tune_minutes=1.0)
    int8, half, _ = _climb(tmp_path, _pretend(tuned=_needs("none")), policy, module=_Right())
    assert (int8.taken, int8.file, half.taken) == (False, None, True)


def test_no_time_is_spent_on_layers_where_no_artefact_can_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of six samples, not even PyTorch's own answers would."""
    monkeypatch.setattr(ladder, "rank_layers", lambda *_: pytest.fail("layers were ranked"))
    policy = Policy(budget=1.0, tune_minutes=1.0)
    *_, fp32 = _climb(tmp_path, _pretend(), policy, bounded=True, module=_Right())
    assert fp32.taken
    with pytest.raises(GateError, match="about 300 samples would tell") as caught:
        _climb(tmp_path, _pretend(), replace(policy, require_quantized=True), bounded=True)
    assert caught.value.fix.startswith("judge by more samples or a metric")


def _slowly(features: NDArray[np.float32]) -> NDArray[np.float32]:
    time.sleep(0.002)
    return _right(features)


def test_slower_than_float_is_shown_and_refused_where_faster_is_required(tmp_path: Path) -> None:
    runners = {**_pretend().runners, "int8": _slowly}
    int8, fp32 = _climb(tmp_path, _pretend(runners=runners))
    assert int8.taken
    assert int8.speed is not None
    assert int8.speed.ratio > 1
    assert fp32.speed is None
    int8, *_ = _climb(tmp_path, _pretend(runners=runners), Policy(budget=1.0, require_faster=True))
    assert not int8.taken
    assert "times as long as float" in int8.verdict.reasons[0]


def _failing(features: NDArray[np.float32]) -> NDArray[np.float32]:
    raise LoweringError("cannot allocate", fix="-")


def _silent(features: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(_right(features))


@pytest.mark.parametrize(
    "trouble",
    [
        {"broken": {"int8": LoweringError("out of memory", fix="-")}},
        {"runners": {**dict.fromkeys(("half", "fp32"), _right), "int8": _failing}},
        {"runners": {**dict.fromkeys(("half", "fp32"), _right), "int8": _slowly}},
    ],
    ids=["building", "executing", "speed"],
)
def test_a_refusal_whose_cause_may_be_gone_is_worked_out_again(
    tmp_path: Path, trouble: dict[str, object]
) -> None:
    memory = Memory(Cache(tmp_path / "cache", print), {"format": "pretend", "view": "baked"})
    policy = Policy(budget=1.0, require_faster="runners" in trouble)
    folder = tmp_path / "first"
    folder.mkdir()
    refused = _climb(folder, _pretend(**trouble), policy, memory=memory)
    assert not refused[0].verdict.lasting
    memory.keep_ladder(policy, refused, folder)
    folder = tmp_path / "second"
    folder.mkdir()
    assert memory.recall_ladder(policy, folder) is None
    good = {"half": _right, "fp32": _slowly, "int8": _right}
    pretend = _pretend(runners=good)
    assert _climb(folder, pretend, policy, memory=memory)[0].taken
    assert "int8" in pretend.built
    assert "fp32" not in pretend.built


@pytest.mark.parametrize(
    "refusal",
    [
        {"sizes": {"int8": 40, "half": 20, "fp32": 40}},
        {"runners": {**dict.fromkeys(("half", "fp32"), _right), "int8": _silent}},
    ],
    ids=["size", "accuracy"],
)
def test_a_refusal_by_what_the_artefact_is_stands(
    tmp_path: Path, refusal: dict[str, object]
) -> None:
    memory = Memory(Cache(tmp_path / "cache", print), {"format": "pretend", "view": "baked"})
    folders = [tmp_path / name for name in ("first", "second")]
    for folder in folders:
        folder.mkdir()
    policy = Policy(budget=1.0)
    first = _climb(folders[0], _pretend(**refusal), policy, memory=memory)
    assert (first[0].verdict.status, first[0].verdict.lasting) == (Status.FAIL, True)
    memory.keep_ladder(policy, first, folders[0])
    kept = memory.recall_ladder(policy, folders[1])
    assert kept == json.loads(json.dumps(list(map(to_record, first))))
    pretend = _pretend()
    again = _climb(folders[1], pretend, policy, memory=memory)
    assert [r.verdict.reasons for r in again] == [r.verdict.reasons for r in first]
    assert pretend.built == []


def test_an_artefact_that_accepts_what_it_has_to_refuse_is_refused(tmp_path: Path) -> None:
    def strict(features: NDArray[np.float32]) -> NDArray[np.float32]:
        if features.max() > 1:
            raise LoweringError("too large", fix="-")
        return _right(features)

    runners = {"int8": _right, "half": strict, "fp32": strict}
    refusal = Refusal("a key too far", calls_of(FEATURES + 1)[0])
    int8, half, _ = _climb(tmp_path, _pretend(runners=runners), refusals=(refusal,))
    assert int8.verdict.reasons == ("a key too far: accepted, and should have been refused",)
    assert half.taken
