"""A network is proven before anything is built: padding, blank, axes, metric, rounding."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
import pytest
import torch
from brought_models import (
    AXIS,
    BLANK,
    CLASSES,
    Perceptron,
    Pooled,
    classes,
    sequence_call,
    sequences,
)
from torch import Tensor, nn
from torch.nn import functional

from exporter.adapter import Axis, Exportable, Kind, Reading
from exporter.parity import Limits
from exporter.parity.outputs import Outputs
from exporter.proof import (
    answer,
    evidence_of,
    references,
    require_meaning,
    require_repeatable,
    rounding_of,
    run,
)
from swipe.errors import GateError, NonFiniteError, UsageError

LIMITS = Limits(max_abs_delta=1e-4, frame_agreement=0.999, accuracy_drop=0.1)


def _proven(given: Exportable) -> None:
    outputs = references(given)
    require_repeatable(given, outputs)
    require_meaning(given, outputs, 0.0)
    evidence_of(given, outputs, 0.0)


def _sound() -> Exportable:
    return sequences()


def test_a_sound_network_is_proven() -> None:
    _proven(_sound())
    _proven(classes())


def test_a_length_that_is_ignored_is_refused() -> None:
    with pytest.raises(GateError, match=r"padding told by frames leaks: .* by \d"):
        _proven(sequences(masked=False))


@pytest.mark.parametrize("least", [AXIS.least, AXIS.most])
def test_a_length_is_tried_where_every_sample_is_as_long_as_may_be(least: int) -> None:
    calls = [sequence_call(number, AXIS.most) for number in range(48)]
    samples = {"example": calls[0], "calibration": calls[:8], "verification": calls[8:]}
    axes = {"features": {2: Axis("T", least, AXIS.most)}}
    _proven(sequences(**samples, axes=axes))
    with pytest.raises(GateError, match="padding told by frames leaks"):
        _proven(sequences(masked=False, **samples, axes=axes))


class Leaking(Pooled):
    """One number of its first frame knows how much padding there is."""

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        output = super().forward(features, frames)
        leak = torch.zeros_like(output)
        leak[:, 0, 0] = 1e-3 * features.shape[2]
        return output + leak


class LeakingFromOne(Leaking):
    """All samples but the first, and those as long, are right."""

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        leaks = super().forward(features, frames)
        same = torch.equal(frames, torch.from_numpy(sequence_call(0)["frames"]))
        return leaks if same else Pooled.forward(self, features, frames)


@pytest.mark.parametrize("network", [Leaking, LeakingFromOne])
def test_a_leak_into_one_number_of_one_frame_is_refused(network: type[Pooled]) -> None:
    torch.manual_seed(0)
    given = sequences(module=network().eval())
    with pytest.raises(GateError, match="padding told by frames leaks"):
        require_meaning(given, references(given), 0.0)


@pytest.mark.parametrize(
    ("blank", "says"), [(CLASSES, "class 4 as the blank"), (-1, "class -1 as the blank")]
)
def test_a_blank_that_is_no_class_is_refused(blank: int, says: str) -> None:
    with pytest.raises(GateError, match=says):
        _proven(sequences(reading=Reading(Kind.CTC, blank)))


def test_a_blank_that_never_wins_is_another_class() -> None:
    given = _sound()
    with torch.no_grad():
        given.module.head.bias[BLANK] -= 1e3  # type: ignore[union-attr, index, operator]
    with pytest.raises(GateError, match="class 3 is said to be the blank and is best in none"):
        _proven(given)


def test_a_network_that_says_nothing_but_blank_is_refused() -> None:
    given = _sound()
    with torch.no_grad():
        given.module.head.bias[BLANK] += 1e3  # type: ignore[union-attr, index, operator]
    with pytest.raises(GateError, match="nothing but blank"):
        _proven(given)


class Short(Pooled):
    """Fails below eight frames, as a network with a wide kernel does."""

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        if features.shape[2] < 8:
            raise ValueError("kernel of 8")
        return super().forward(features, frames)


def test_a_bound_of_an_axis_that_the_network_cannot_take_is_refused() -> None:
    samples = [sequence_call(number, 8 + number % 9) for number in range(40)]
    given = sequences(module=Short().eval(), calibration=samples[:8], verification=samples[8:])
    with pytest.raises(UsageError, match="cannot be called with T = 4: ValueError: kernel of 8"):
        _proven(given)


class Scaled(Perceptron):
    """Values of any size, whose float64 ones may be others."""

    def __init__(self, scale: float, shift: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * super().forward(x) + self.shift * (x.dtype == torch.float64)


@pytest.mark.parametrize(
    ("module", "mend"),
    [(Scaled(1e-5), "smaller unit"), (Scaled(1.0, 0.5), r"float32 outputs by 0\.5 ")],
)
def test_values_that_any_limit_would_allow_are_refused(module: nn.Module, mend: str) -> None:
    given = classes(module=module.eval(), reading=Reading(Kind.VALUES), metric=None)
    outputs = references(given)
    with pytest.raises(GateError, match="one that always gives the same would pass") as caught:
        require_meaning(given, outputs, rounding_of(given, outputs, lambda line: None))
    assert re.search(mend, caught.value.fix)
    sound = classes(module=Scaled(1.0).eval(), reading=Reading(Kind.VALUES), metric=None)
    _proven(sound)


def _strictly(outputs: Outputs) -> list[float]:
    """The score of a metric that takes nothing but probabilities, or raises."""
    assert all((row > -1).all() and row.any() for row in outputs)
    return [0.5] * len(outputs)


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (lambda outputs: [0.0] * len(outputs), False),
        (lambda outputs: [float(np.isfinite(row).all()) for row in outputs], False),
        (lambda outputs: [float(row[0] > 0) for row in outputs], True),
        (_strictly, True),
        (None, True),
    ],
    ids=["constant", "finite or not", "sign", "refuses nonsense", "none"],
)
def test_a_metric_that_cannot_tell_values_apart_is_refused(metric: Any, told: bool) -> None:
    given = classes(module=Scaled(1.0).eval(), reading=Reading(Kind.VALUES), metric=metric)
    if told:
        _proven(given)
    else:
        with pytest.raises(GateError, match="any artefact would pass"):
            _proven(given)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Any:
        return x, x


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Brain(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.bfloat16()


class Alone(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[0]


class Bad(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0.0


@pytest.mark.parametrize(
    ("module", "error", "says"),
    [
        (Twice(), UsageError, "gives a tuple"),
        (Double(), UsageError, "gives a torch.float64 Tensor, and one float32"),
        (Brain(), UsageError, "gives a torch.bfloat16 Tensor, and one float32"),
        (Alone(), UsageError, r"gives \[8\] for a batch of one"),
        (Bad(), NonFiniteError, "output for verification sample 0"),
    ],
)
def test_what_gives_no_single_finite_tensor_is_refused(
    module: nn.Module, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        references(classes(module=module))


class Whole(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(1, keepdim=True)


class Summed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, x])


class Empty(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :0]


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Whole(), "gives a torch.int64 Tensor, and one float32 tensor is exported"),
        (Summed(), r"gives \[1\] for a batch of one"),
        (Doubled(), r"gives \[2, 8\] for a batch of one"),
        (Empty(), "gives an empty output"),
    ],
)
def test_a_tensor_without_a_batch_of_floats_is_refused(module: nn.Module, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        references(classes(module=module))


class First(nn.Module):
    """The first `size` numbers of what it is given."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.size]


def test_a_single_class_decides_nothing_and_a_single_value_is_one() -> None:
    for size, reading, refused in (
        (1, Reading(Kind.CLASSES), True),
        (2, Reading(Kind.CLASSES), False),
        (1, Reading(Kind.VALUES), False),
    ):
        given = classes(module=First(size).eval(), reading=reading, metric=None)
        outputs = references(given)
        if not refused:
            require_meaning(given, outputs, 0.0)
            continue
        with pytest.raises(GateError, match="outputs of 1 classes"):
            require_meaning(given, outputs, 0.0)


class OneHot(nn.Module):
    """CTC scores by the signs of what it is given: the first class is the blank."""

    def forward(self, features: Tensor, frames: Tensor) -> Tensor:
        return features.transpose(1, 2)[..., :CLASSES] * (frames > 0)[:, None, None]


def test_the_first_class_may_be_the_blank() -> None:
    given = sequences(module=OneHot().eval(), reading=Reading(Kind.CTC, 0))
    _proven(given)


class Drifting(nn.Module):
    """Its last output alone grows from call to call, by a share of the largest."""

    calls = 0

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        first = torch.zeros_like(x) + torch.tensor([100.0] + [0.0] * 7)
        return first + torch.tensor([0.0] * 7 + [100 * self.share * (self.calls > 400)])


@pytest.mark.parametrize(("share", "refused"), [(5e-5, False), (2e-4, True)])
def test_one_number_that_drifts_is_seen_beyond_what_the_order_of_a_sum_gives(
    share: float, refused: bool
) -> None:
    given = classes(module=Drifting(share).eval(), reading=Reading(Kind.VALUES), metric=None)
    outputs = references(given)
    if not refused:
        require_repeatable(given, outputs)
        return
    with pytest.raises(GateError, match="answers verification sample 0 otherwise when"):
        require_repeatable(given, outputs)


class Dropping(Perceptron):
    """Drops in eval() too, as `dropout` does whose ``training`` was written out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.dropout(x, 0.1, training=True))


class Counting(Perceptron):
    """Remembers how often it was called."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) + 0.01 * self.calls


@pytest.mark.parametrize("network", [Dropping, Counting])
def test_a_network_that_answers_by_more_than_its_inputs_is_refused(
    network: type[Perceptron],
) -> None:
    torch.manual_seed(0)
    given = classes(module=network().eval(), reading=Reading(Kind.VALUES), metric=None)
    with pytest.raises(GateError, match="answers verification sample 0 otherwise when"):
        _proven(given)


class Reusing(Perceptron):
    """Gives the same memory with every answer, and writes into what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(1, 3), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.kept.copy_(super().forward(x.mul_(2)))  # type: ignore[operator, no-any-return]


def test_answers_and_samples_stay_what_they_are_where_a_network_writes_into_them() -> None:
    torch.manual_seed(0)
    given = classes(module=Reusing().eval())
    before = [given.digest(call) for call in given.verification]
    outputs = references(given)
    assert [given.digest(call) for call in given.verification] == before
    assert not np.array_equal(outputs[0], outputs[1])
    require_repeatable(given, outputs)


@pytest.mark.parametrize(
    "scores",
    [
        [0.5] * 399,
        [1.5] * 400,
        [float("nan")] * 400,
        [0.5] * 399 + [1.01],
        [-0.01] + [0.5] * 399,
        [0.5] * 399 + [float("nan")],
    ],
)
def test_a_metric_that_gives_no_score_per_sample_is_refused(scores: list[float]) -> None:
    with pytest.raises(UsageError, match="the metric gives"):
        _proven(classes(metric=lambda outputs: scores))


def _failing(outputs: Any) -> Any:
    raise KeyError("labels")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"metric": _failing}, "the metric cannot be used: KeyError: 'labels'"),
        ({"metric": lambda outputs: ["good"] * 400}, "the metric cannot be used: ValueError"),
        ({"decode": _failing}, "the decoder cannot be used: KeyError: 'labels'"),
    ],
)
def test_what_a_factory_reads_outputs_with_is_to_blame_when_it_raises(
    changes: Any, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        _proven(classes(**changes))


def test_samples_of_one_writer_stay_together_and_others_are_alone() -> None:
    writers = ["ann"] * 200 + ["bob"] * 200
    for given, wanted in (
        (classes(writers=writers), writers),
        (classes(), [str(number) for number in range(400)]),
    ):
        outputs = references(given)
        assert list(evidence_of(given, outputs, 0.0).population.writers) == wanted


def test_a_metric_may_find_everything_wrong_or_right() -> None:
    for score in (0.0, 1.0):
        given = classes(metric=lambda outputs, score=score: [score] * len(outputs))
        found = answer(given, references(given)).scores["top1"]
        assert found.tolist() == [score] * 400


def test_rounding_is_measured_and_nothing_is_allowed_where_it_cannot_be() -> None:
    said: list[str] = []
    given = _sound()
    assert 0.0 < rounding_of(given, references(given), said.append) < 1e-4
    assert not said
    double = copy.deepcopy(given.module).double()
    errors = [
        run(double, call | {"features": call["features"].astype(np.float64)}, "x", (torch.float64,))
        - single
        for call, single in zip(given.verification, references(given), strict=True)
    ]
    assert rounding_of(given, references(given), said.append) == max(
        float(np.abs(error).max()) for error in errors
    )

    class Single(Pooled):
        def forward(self, features: Tensor, frames: Tensor) -> Tensor:
            return super().forward(features.float(), frames)

    given = sequences(module=Single().eval())
    assert rounding_of(given, references(given), said.append) == 0.0
    assert "limits allow nothing" in said[0]
