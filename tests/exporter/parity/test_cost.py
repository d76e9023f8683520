"""What quantization cost, how sure that is, and how many samples would tell."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from exporter.parity import Cost, Status, accuracy_cost

BUDGET = 0.5


def _cost(samples: int, lost: int, gained: int = 0) -> Cost:
    reference, candidate = np.ones(samples), np.ones(samples)
    places = np.random.default_rng(0).permutation(samples)
    candidate[places[:lost]] = 0
    reference[places[lost : lost + gained]] = 0
    return accuracy_cost(reference, candidate, [str(i // 10) for i in range(samples)], {})


def test_no_loss_on_few_samples_is_no_proof() -> None:
    """Resampling 50 samples that all agree finds no spread, yet 6 points could be lost."""
    cost = _cost(50, 0)
    assert (cost.drop, cost.bound) == (0.0, pytest.approx(6.0))
    status, reason = cost.judge(BUDGET)
    assert status is Status.UNVERIFIED
    assert "about 600 samples would tell" in reason
    assert _cost(600, 0).judge(BUDGET)[0] is Status.PASS


def test_a_loss_beyond_the_budget_is_a_failure_at_once() -> None:
    status, reason = _cost(1000, 6).judge(BUDGET)
    assert status is Status.FAIL
    assert reason == "accuracy falls 0.60 points, the budget is 0.50"


def test_a_loss_within_the_budget_that_more_samples_may_refute_is_not_a_pass() -> None:
    cost = _cost(1000, 23, 20)
    status, reason = cost.judge(BUDGET)
    assert cost.drop == pytest.approx(0.3)
    assert status is Status.UNVERIFIED
    needed = cost.samples_needed(BUDGET)
    assert needed is not None
    assert needed > 1000
    assert f"{needed:,} samples would tell" in reason


def test_the_number_of_samples_that_is_asked_for_is_about_enough() -> None:
    needed = _cost(1000, 23, 20).samples_needed(BUDGET)
    assert needed is not None
    enlarged = _cost(needed, round(0.023 * needed), round(0.020 * needed))
    assert enlarged.bound == pytest.approx(BUDGET, abs=0.06)


def test_no_number_of_samples_turns_a_loss_beyond_the_budget_into_a_pass() -> None:
    assert _cost(1000, 6).samples_needed(BUDGET) is None
    assert _cost(1000, 5).samples_needed(BUDGET) is None


def test_a_loss_of_the_budget_is_within_it_and_no_number_of_samples_tells_more() -> None:
    assert Cost(600, BUDGET, 0.0, "", 0.0).judge(BUDGET) == (Status.PASS, "")
    status, reason = Cost(1000, BUDGET, 0.125, "", 0.0).judge(BUDGET)
    assert status is Status.UNVERIFIED
    assert reason.endswith("0.62 cannot be ruled out and the budget is 0.50")


def test_losses_of_one_writer_weigh_as_one_writer() -> None:
    losses = np.zeros(1000)
    losses[:20] = 1
    alone = ["w0"] * 20 + [f"w{1 + i // 20}" for i in range(980)]
    spread = [f"w{i % 50}" for i in range(1000)]
    one, many = (accuracy_cost(np.ones(1000), 1 - losses, w, {}) for w in (alone, spread))
    assert one.drop == many.drop
    assert one.bound > 1.3 * many.bound


def test_one_writer_proves_nothing_of_others() -> None:
    cost = accuracy_cost(np.ones(9), np.array([0.0] + 8 * [1]), ["only"] * 9, {})
    assert cost.bound == 100.0


def test_the_part_that_lost_most_is_named() -> None:
    short = np.array([True] * 5 + [False] * 5)
    candidate = np.ones(10)
    candidate[7] = 0
    cost = accuracy_cost(
        np.ones(10), candidate, [str(i) for i in range(10)], {"short": short, "long": ~short}
    )
    assert (cost.worst_stratum, cost.worst_drop) == ("long", pytest.approx(20.0))


def _scores() -> st.SearchStrategy[NDArray[np.float64]]:
    return st.lists(st.booleans(), min_size=2, max_size=40).map(lambda x: np.array(x, dtype=float))


@given(_scores(), st.randoms())
def test_the_bound_is_never_below_the_loss_nor_below_the_rule_of_three(
    reference: NDArray[np.float64], random: object
) -> None:
    candidate = np.roll(reference, 1)
    writers = [str(i) for i in range(len(reference))]
    cost = accuracy_cost(reference, candidate, writers, {})
    assert cost.bound >= 300 / len(reference)
    assert cost.bound >= cost.drop - 1e-9


@pytest.mark.parametrize("budget", [float("nan"), -1.0])
def test_a_budget_that_is_none_is_never_met(budget: float) -> None:
    assert _cost(5000, 0).judge(budget)[0] is not Status.PASS
