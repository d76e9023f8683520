"""What is quoted of a library that failed: its first line, and what was at the root of it."""

from __future__ import annotations

from exporter.formats.build import first_line


def test_an_error_is_quoted_by_its_type_and_first_line() -> None:
    assert first_line(ValueError("no such axis\nat line 3")) == "ValueError: no such axis"
    assert first_line(KeyError()) == "KeyError"


def test_the_root_is_named_and_colours_are_not() -> None:
    """An exporter says what to do about any failure; the operator is named two causes below."""
    operator = RuntimeError("No ONNX function found for aten._linalg_eigh\nsee the registry")
    node = ValueError("Error when translating node")
    node.__cause__ = operator
    outer = TypeError("Failed. \x1b[96mThis is step 3/3\x1b[0m of it.\nNext steps:")
    outer.__cause__ = node
    assert first_line(outer) == (
        "TypeError: Failed. This is step 3/3 of it.; caused by "
        "RuntimeError: No ONNX function found for aten._linalg_eigh"
    )
