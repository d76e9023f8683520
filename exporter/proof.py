"""What can be known of a brought network before anything is built: it runs, is finite, reads right.

A network whose padding leaks, whose blank is another class, or that fails at the end of an axis
would fail in every format, each time with another message. It is refused here, with one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.adapter import Exportable, Inputs, Kind
from exporter.evidence import Evidence, Refusal, Trial
from exporter.parity import Answers, Limits, Population
from exporter.parity.outputs import Outputs
from exporter.parity.verdict import ROUNDING_MARGIN
from exporter.sweep import beyond, extremes, paddings
from swipe.errors import GateError, UsageError
from swipe.progress import Say
from train.finite import require_finite

PADDING_DELTA = Limits(max_abs_delta=1e-4, frame_agreement=0.0, accuracy_drop=100.0)
"""What padding may change of the real outputs: rounding only."""
ASKED_AGAIN: Final = 8
"""Verification samples that the network has to answer a second time."""
REPEATED: Final = 1e-4
"""What its answer may differ by then, relative to its largest number: kernels choose the order of
a sum by where memory lies."""


def require_finite_weights(given: Exportable) -> None:
    """Refuse a network with NaN or Inf in it, in buffers too that no checkpoint stores.

    Raises:
        NonFiniteError: names the tensor.
    """
    tensors = {**dict(given.module.named_parameters()), **dict(given.module.named_buffers())}
    require_finite(tensors, where="in the model to export", fix="use a checkpoint that is finite")


def run(
    module: torch.nn.Module,
    call: Inputs,
    what: str,
    kinds: tuple[torch.dtype, ...] = (torch.float32,),
) -> NDArray[np.float32]:
    """The network's output for `call`, without the batch axis.

    Raises:
        UsageError: it raises, or gives anything but one tensor of the `kinds` with a batch of one.
        NonFiniteError: it gives NaN or Inf.
    """
    try:
        with torch.inference_mode():
            # Copies: a network may write into what it is given, and the next one is asked the same.
            output = module(*(torch.tensor(value) for value in call.values()))
    except Exception as error:
        # Any type: this is someone's own code.
        first = next(iter(str(error).splitlines()), "")
        raise UsageError(
            f"the network cannot be called with {what}: {type(error).__name__}: {first}",
            fix="mend the network, the sample, or the bounds of the axis",
        ) from error
    if not isinstance(output, torch.Tensor) or output.dtype not in kinds:
        given = f"{output.dtype} " if isinstance(output, torch.Tensor) else ""
        raise UsageError(
            f"the network gives a {given}{type(output).__name__}, and one float32 tensor is "
            "exported",
            fix="wrap it in a module whose forward returns one tensor, made float32 with float()",
        )
    if output.ndim < 2 or output.shape[0] != 1:
        raise UsageError(
            f"the network gives {list(output.shape)} for a batch of one",
            fix="keep the batch as the first axis of the output",
        )
    require_finite({f"output for {what}": output}, where="of the network", fix="train again")
    # A copy: a network may write its next answer where this one is.
    array: NDArray[np.float32] = output[0].numpy().copy()
    return array


def require_repeatable(given: Exportable, outputs: Outputs) -> None:
    """Refuse a network that answers by more than its inputs; `outputs` are its `references`.

    What chance or memory adds would also be measured as rounding, and so be allowed to artefacts.

    Raises:
        GateError: names the first sample that was answered otherwise the second time.
    """
    asked = given.verification[:ASKED_AGAIN]
    for number, (call, first) in enumerate(zip(asked, outputs[:ASKED_AGAIN], strict=True)):
        what = f"verification sample {number}"
        again = given.real(call, run(given.module, call, what))
        if again.shape == first.shape:
            largest = float(np.abs(again.astype(np.float64) - first).max())
            if largest <= REPEATED * float(np.abs(first).max()):
                continue
        raise GateError(
            f"the network answers {what} otherwise when it is asked again",
            fix="let it depend on its inputs alone: no dropout, noise or memory in eval()",
        )


def answer(given: Exportable, outputs: Outputs) -> Answers:
    """What `outputs` amount to: text where there is a decoder, a score where there is a metric.

    Raises:
        UsageError: the decoder or the metric raises, or does not give one score for each sample.
    """
    words, found = None, None
    what = "decoder"
    try:
        if given.decode is not None:
            words = [[given.decode(row)] for row in outputs]
        what = "metric"
        if given.metric is not None:
            found = np.asarray(given.metric(outputs), dtype=np.float64)
    except Exception as error:
        # Any type: this is someone's own code too.
        raise UsageError(
            f"the {what} cannot be used: {type(error).__name__}: {error}",
            fix="mend it in the factory; exporter/adapter.py says what it takes and gives",
        ) from error
    scores = {}
    if found is not None:
        if found.shape != (len(outputs),) or not ((found >= 0) & (found <= 1)).all():
            raise UsageError(
                f"the metric gives {list(found.shape)} scores from {found.min(initial=1):g} to "
                f"{found.max(initial=0):g} for {len(outputs)} samples",
                fix="give one score in [0, 1] for each sample, in order",
            )
        scores[given.metric_name] = found
    return Answers(outputs, words, scores)


def references(given: Exportable) -> list[NDArray[np.float32]]:
    """PyTorch's outputs for the verification samples, as far as they have meaning."""
    return _answers(given, given.module, given.verification, "verification sample {}")


def _answers(
    given: Exportable, module: torch.nn.Module, calls: Sequence[Inputs], what: str
) -> list[NDArray[np.float32]]:
    rows = [given.real(call, run(module, call, what.format(n))) for n, call in enumerate(calls)]
    if any(row.size == 0 for row in rows):
        raise UsageError(
            "the network gives an empty output", fix="mend the stride of the length, or the network"
        )
    return rows


def rounding_of(given: Exportable, outputs: Outputs, say: Say) -> float:
    """Largest |float32 - float64| of the network's own `outputs`.

    0 where the network cannot be run in float64, so that limits allow nothing for it.
    """
    double = copy.deepcopy(given.module).double()
    largest = 0.0
    for call, single in zip(given.verification, outputs, strict=True):
        wide = {n: v.astype(np.float64) if v.dtype == np.float32 else v for n, v in call.items()}
        try:
            row = run(double, wide, "a sample in float64", (torch.float32, torch.float64))
        except (UsageError, GateError) as error:
            say(f"limits allow nothing for PyTorch's own rounding: {error}")
            return 0.0
        largest = max(largest, float(np.abs(given.real(call, row) - single).max()))
    return largest


def require_meaning(given: Exportable, outputs: Outputs, rounding: float) -> None:
    """Refuse outputs that are not what they are said to be.

    Raises:
        GateError: the blank is no class or never wins, padding changes what is real, or values
            lie so close that limits would allow any, or are scored alike whatever they are.
    """
    if given.reading.kind is not Kind.VALUES and any(row.shape[-1] < 2 for row in outputs):
        raise GateError(
            f"outputs of {outputs[0].shape[-1]} classes", fix="read them as Kind.VALUES"
        )
    if given.reading.kind is Kind.CTC:
        _require_blank(outputs, given.reading.blank)
    limit = PADDING_DELTA.allowing(rounding).max_abs_delta
    if given.reading.kind is Kind.VALUES:
        _require_spread(outputs, limit or 0.0, rounding)
        _require_telling(given, outputs)
    for case in paddings(given):
        plain = _answers(given, given.module, case.plain, "unpadded sample {}")
        padded = _answers(given, given.module, case.padded, "padded sample {}")
        largest = max(float(np.abs(a - b).max()) for a, b in zip(plain, padded, strict=True))
        if limit is None or not (largest <= limit):
            raise GateError(
                f"{case.name} leaks: more of it changes the real outputs by {largest:.2e}",
                fix="mask whatever looks beyond the length: attention, convolutions, norms, means",
            )


def _require_spread(outputs: Outputs, limit: float, rounding: float) -> None:
    values = np.concatenate([row.ravel() for row in outputs]).astype(np.float64)
    least, most = float(values.min()), float(values.max())
    if not ((most - least) / 2 > limit):
        raise GateError(
            f"outputs lie between {least:.4g} and {most:.4g}, and float artefacts may differ by "
            f"{limit:.2g}: one that always gives the same would pass",
            fix="let the network give them in a smaller unit"
            if limit > ROUNDING_MARGIN * rounding
            else f"find what moves its float32 outputs by {rounding:.2g} from its float64 ones",
        )


def _require_telling(given: Exportable, outputs: Outputs) -> None:
    """Values have no decisions: what quantization does to them shows in their score, or nowhere."""
    if given.metric is None:
        return
    wanted = answer(given, outputs).scores[given.metric_name]
    for factor, offset in ((0.0, 0.0), (-2.0, -1.0)):
        try:
            nonsense = answer(given, [factor * row + offset for row in outputs])
        except UsageError:
            return  # a metric that refuses them tells them apart
        if (nonsense.scores[given.metric_name] != wanted).any():
            return
    raise GateError(
        "the metric scores nothing but zeros, and the network's values turned around, as it scores "
        "the network's: any artefact would pass",
        fix="let it compare with what is right, or leave it out, and float is shipped",
    )


def _require_blank(outputs: Outputs, blank: int | None) -> None:
    shapes = {row.shape[1:] for row in outputs if row.ndim == 2}
    classes = next(iter(shapes), (0,))[0]
    if len(shapes) != 1 or blank is None or not 0 <= blank < classes:
        raise GateError(
            f"CTC outputs of {list(outputs[0].shape)} with class {blank} as the blank",
            fix="give [B, T, C], and a blank of 0 to C - 1",
        )
    best = np.concatenate([row.argmax(axis=1) for row in outputs])
    counts = np.bincount(best, minlength=classes)
    if counts[blank] == len(best):
        raise GateError(
            "the model answers nothing but blank, so no artefact could be compared with it",
            fix="train longer, or name the checkpoint with --checkpoint",
        )
    if counts[blank] == 0:
        raise GateError(
            f"class {blank} is said to be the blank and is best in none of {len(best):,} frames; "
            f"class {int(counts.argmax())} is in {int(counts.max()):,}",
            fix="correct the blank of the reading, or name a trained checkpoint",
        )


def evidence_of(given: Exportable, outputs: Outputs, rounding: float) -> Evidence:
    """What artefacts of the network are judged by; `outputs` are its `references`.

    Raises:
        UsageError: it cannot be called at an end of an axis, or the metric is unusable.
    """
    trials = [
        Trial(name, [call], _answers(given, given.module, [call], name))
        for name, call in extremes(given)
    ]
    # Expected is what the network says of the *unpadded* sample.
    trials += [
        Trial(case.name, case.padded, _answers(given, given.module, case.plain, case.name))
        for case in paddings(given)
    ]
    writers = given.writers or [str(number) for number in range(len(given.verification))]
    return Evidence(
        calls=given.verification,
        population=Population(writers, given.strata),
        reading=given.reading,
        reference=answer(given, outputs),
        answer=lambda found: answer(given, found),
        rounding=rounding,
        trials=tuple(trials),
        refusals=tuple(Refusal(name, call) for name, call in beyond(given)),
        real=given.real,
    )
