"""Progress for people, an object for machines: neither gets the other's."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from exporter.answer import answering
from exporter.progress import Step, parse_step, showing
from swipe.errors import ExitCode, GateError

FORMATS = ("onnx", "coreml")


def test_a_step_names_format_view_and_rung() -> None:
    found = parse_step("onnx baked int8: FAIL; falls: 3 points", FORMATS)
    assert found == ("onnx", Step("baked", "int8", "FAIL; falls: 3 points"))
    for line in ("onnx: torn wheel", "tflite baked int8: building", "verifying on 3 swipes", ""):
        assert parse_step(line, FORMATS) is None


def test_elsewhere_than_on_a_terminal_every_line_is_printed() -> None:
    out = io.StringIO()
    with showing(Console(file=out, force_terminal=False), FORMATS) as say:
        say("onnx baked int8: building")
        say("verifying on 3 swipes")
    assert out.getvalue() == "onnx baked int8: building\nverifying on 3 swipes\n"


def test_a_terminal_has_a_live_line_per_format_and_keeps_verdicts() -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=80, highlight=False)
    with showing(console, FORMATS) as say:
        say("onnx baked int8: building")
        say("coreml baked fp32: PASS")
    text = out.getvalue()
    assert "coreml baked fp32: PASS" in text
    assert "onnx baked int8: building" not in text
    assert "\x1b[" in text


def test_machines_get_one_object_and_people_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    with answering("all", as_json=True) as answer:
        answer.people.print("for people")
        print("of a factory")
        answer.give(ExitCode.UNVERIFIED, {"bundle": "b"})
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"verb": "all", "exit_code": 4, "bundle": "b"}
    assert captured.err == "for people\nof a factory\n"


def test_an_error_is_told_to_machines_and_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(GateError), answering("all", as_json=True):
        raise GateError("refused", fix="mend it")
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "verb": "all", "exit_code": 3, "error": "refused", "kind": "GateError", "fix": "mend it",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (ValueError("a mistake"), 1, "ValueError: a mistake"),
        (MemoryError("no more"), 1, "MemoryError: no more"),
    ],
)
def test_what_nobody_expected_is_no_success_to_machines(
    capsys: pytest.CaptureFixture[str], raised: BaseException, code: int, told: str
) -> None:
    with pytest.raises(type(raised)), answering("all", as_json=True):
        raise raised
    outcome = json.loads(capsys.readouterr().out)
    assert outcome["exit_code"] == code
    assert outcome["error"] == told


def test_people_get_no_object(capsys: pytest.CaptureFixture[str]) -> None:
    with answering("all", as_json=False) as answer:
        answer.people.print("for people")
    assert capsys.readouterr().out == "for people\n"
