"""Distances with their corner cases, matching, and which row is the first bad one: numpy only."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from exporter.localize.alignment import FLOORS_DB, Divergence, Row, Table, floor_of, match
from exporter.localize.taps import Tensor, nearest

finite = hnp.arrays(np.float32, 24, elements=st.floats(-1e3, 1e3, width=32))


def between(reference: list[float], value: list[float]) -> Divergence:
    return Divergence.between(np.array(reference), np.array(value))


def test_ten_times_the_noise_is_twenty_decibels_less() -> None:
    assert between([1.0, -1.0], [1.1, -0.9]).sqnr_db == pytest.approx(20.0)
    assert between([1.0, -1.0], [1.01, -0.99]).sqnr_db == pytest.approx(40.0)
    assert between([1.0, -1.0], [1.1, -0.9]).max_abs_delta == pytest.approx(0.1)


def test_no_noise_is_infinitely_close_even_without_signal() -> None:
    assert between([1.0, 2.0], [1.0, 2.0]).sqnr_db == math.inf
    assert between([0.0, 0.0], [0.0, 0.0]).sqnr_db == math.inf


def test_noise_without_signal_is_infinitely_far() -> None:
    assert between([0.0, 0.0], [0.0, 1e-6]).sqnr_db == -math.inf


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_one_broken_number_is_not_averaged_away(broken: float) -> None:
    found = Divergence.between(np.ones(10_000), np.r_[np.ones(9_999), broken])
    assert found.broken == 1
    assert math.isnan(found.sqnr_db)
    assert found.max_abs_delta == math.inf
    assert Row("t", "Relu", total=found).is_bad(-1e9)


def test_nan_on_both_sides_is_no_agreement() -> None:
    assert between([math.nan], [math.nan]).broken == 1


def test_a_mask_that_both_have_is_neither_signal_nor_noise() -> None:
    plain = between([1.0, -1.0], [1.1, -0.9])
    masked = between([1.0, -1.0, -math.inf, -1e4], [1.1, -0.9, -math.inf, -1.0004e4])
    assert masked.sqnr_db == plain.sqnr_db
    assert masked.max_abs_delta == pytest.approx(4.0)
    assert between([1.0, -1e4], [1.0, 0.0]).sqnr_db < 1.0
    assert between([1.0, -math.inf], [1.0, math.inf]).broken == 1


@given(finite, finite)
def test_shape_and_grouping_make_no_difference(reference: np.ndarray, value: np.ndarray) -> None:
    flat = Divergence.between(reference, value)
    square = Divergence.between(reference.reshape(2, 3, 4), value.reshape(2, 3, 4))
    halves = Divergence.between(reference[:5], value[:5]).merged(
        Divergence.between(reference[5:], value[5:])
    )
    for other in (square, halves):
        assert other.elements == flat.elements
        assert other.max_abs_delta == flat.max_abs_delta
        assert other.sqnr_db == pytest.approx(flat.sqnr_db, rel=1e-9)


def tensor(name: str, node: str, *sources: str) -> Tensor:
    return Tensor(name, "Op", node, sources, name)


ABOVE = {"x": "x", "a": "xa", "b": "xab", "c": "xc"}
SHAPES = dict.fromkeys(ABOVE, (2, 3))


def matched(*tensors: Tensor, shape: tuple[int, ...] = (2, 3)) -> tuple[dict, dict]:
    shapes = {t.name: shape for t in tensors}
    return match(tensors, shapes, SHAPES, lambda n, o: o in ABOVE[n], {"features": "x"})


def test_a_tensor_of_the_same_name_shape_and_origin_is_matched() -> None:
    found, reasons = matched(tensor("a", "a", "features"), tensor("q", "b", "a"))
    assert found == {"features": "x", "a": "a", "q": "b"}
    assert reasons == {}


def test_what_differs_is_not_guessed() -> None:
    assert "no z" in matched(tensor("z", "z", "features"))[1]["z"]
    assert "[3, 2]" in matched(tensor("a", "a", "features"), shape=(3, 2))[1]["a"]
    # c is computed from x alone in PyTorch; something called c that reads a is another thing.
    found, reasons = matched(tensor("a", "a", "features"), tensor("c", "c", "a"))
    assert "c" not in found
    assert "does not depend on a" in reasons["c"]


def test_origins_are_followed_through_what_is_not_matched() -> None:
    helper = tensor("helper", "none", "a")
    found, reasons = matched(tensor("a", "a", "features"), helper, tensor("c", "c", "helper"))
    assert set(reasons) == {"helper", "c"}
    found, reasons = matched(tensor("a", "a", "features"), helper, tensor("b", "b", "helper"))
    assert found["b"] == "b"


def test_nearest_stops_at_the_first_that_is_seen() -> None:
    before = {"d": ["c", "b"], "c": ["a"], "b": ["a"], "a": []}
    assert nearest(["d"], lambda n: n in "ab", lambda n: before[n]) == ("a", "b")


def table(*rows: Row, floor_db: float = 20.0) -> Table:
    return Table("m.onnx", "onnx", "baked", "int8", floor_db, 1, 32, 0.0, "", rows)


def row(name: str, sqnr: float, own: float = 100.0) -> Row:
    def made(decibels: float) -> Divergence:
        return Divergence(1.0, 10.0 ** (decibels / 10.0), 1.0, 1, 0)

    return Row(name, "Op", "m", name, total=made(sqnr), own=made(own), flips=0)


def test_the_first_row_below_the_floor_is_the_bad_one() -> None:
    rows = row("a", 30.0), Row("b", "Op", unmatched="why"), row("c", 19.0, 22.0), row("d", 10.0)
    assert table(*rows).first_bad == 2
    assert table(*rows).costliest == 2
    assert table(*rows, floor_db=5.0).first_bad is None
    record = table(*rows).to_dict()
    assert record["first_bad"] == "c"
    assert record["rows"][1]["sqnr_db"] is None
    assert record["rows"][2]["own_sqnr_db"] == pytest.approx(22.0)


def test_every_rung_has_a_floor_and_an_unknown_one_the_lowest() -> None:
    from exporter.targets import TARGETS

    assert {rung.name for target in TARGETS for rung in target.rungs} <= set(FLOORS_DB)
    assert floor_of("int4") == min(FLOORS_DB.values())
