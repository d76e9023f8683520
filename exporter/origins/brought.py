"""Anyone's model: what a factory gives, in the one form that it has.

Samples are not copied into the bundle, as a set of them can be larger than any artefact: the
factory makes them again wherever they are needed, and their hashes are kept, so that a factory
that gives other samples than those that artefacts were judged by is found out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.adapter import Exportable
from exporter.evidence import Evidence
from exporter.factory import Origins, load_exportable
from exporter.formats import Axis, Lowering, Runner
from exporter.formats.build import signature
from exporter.manifest import CHECKPOINT, VERIFICATION, ModelSource, TensorEntry, ViewEntry
from exporter.origins import require_weights
from exporter.origins.requests import ModelRequest
from exporter.parity.outputs import Outputs
from exporter.proof import (
    evidence_of,
    references,
    require_meaning,
    require_repeatable,
    rounding_of,
    run,
)
from exporter.subject import Subject
from exporter.sweep import beyond, extremes, paddings
from swipe.errors import GateError, UsageError
from swipe.files import sha256_file
from swipe.progress import Say
from train.checkpoint import ModelCheckpoint, copy_tensors, save_checkpoint
from train.sealed import digest


def open_brought(request: ModelRequest, say: Say) -> BroughtOrigin:
    """See `exporter.origins.Request.open`."""
    given, weights = load_exportable(request.factory, request.weights)
    say(f"model {request.factory}: {weights.label}, proven finite")
    say(
        f"verifying on {len(given.verification):,} samples, calibrating on "
        f"{len(given.calibration)} others: {given.samples}"
    )
    if given.metric is None:
        say("there is no metric: what quantization costs in accuracy cannot be said")
    outputs = references(given)
    require_repeatable(given, outputs)
    rounding = rounding_of(given, outputs, say)
    require_meaning(given, outputs, rounding)
    evidence_of(given, outputs, rounding)
    return BroughtOrigin(request.factory, given, weights, outputs, rounding)


@dataclass(frozen=True, slots=True, eq=False)
class BroughtOrigin:
    """A `ModelRequest`, opened."""

    factory: str
    given: Exportable
    weights: Origins
    outputs: Outputs
    rounding: float

    @property
    def views(self) -> tuple[str, ...]:
        """See `exporter.origins.Origin.views`."""
        return (self.given.name,)

    def describe(self) -> tuple[ViewEntry, ...]:
        """See `exporter.origins.Origin.describe`."""
        return (_described(self.given),)

    def keep(self, folder: Path, scratch: Path) -> ModelSource:
        """See `exporter.origins.Origin.keep`."""
        given, tensors = self.given, copy_tensors(self.given.module)
        kept = ModelCheckpoint(
            self.factory, {}, tensors, self.weights.step or 0, self.weights.metrics
        )
        save_checkpoint(kept, folder / CHECKPOINT)
        # The sidecar is for run folders; a bundle has its manifest.
        (folder / CHECKPOINT).with_suffix(".json").unlink()
        # The answers' hash makes the record another one when the factory's code is: equal weights
        # and samples do not tell, and formats of an earlier forward() would be kept.
        said = hashlib.sha256(b"".join(row.tobytes() for row in self.outputs)).digest()
        answers = np.frombuffer(said, dtype=np.uint8)
        np.savez_compressed(folder / VERIFICATION, digests=_digests(given), answers=answers)
        return ModelSource(
            weights_sha256=digest("", tensors),
            parameters=sum(p.numel() for p in given.module.parameters()),
            samples=given.samples,
            calibration_samples=len(given.calibration),
            calibration_sha256=_calibration(given),
            verification_samples=len(given.verification),
            verification_sha256=sha256_file(folder / VERIFICATION),
            reference_rounding=self.rounding,
            factory=self.factory,
            weights=self.weights.label,
            checkpoint_step=self.weights.step,
            outputs=given.reading.kind.value,
            blank=given.reading.blank,
            metric=None if given.metric is None else given.metric_name,
        )


@dataclass(frozen=True, slots=True, eq=False)
class BroughtSubjects:
    """The one form of a bundle's model; see `exporter.origins.Subjects`."""

    given: Exportable
    source: ModelSource
    judged_by: Evidence

    @property
    def eager_view(self) -> str:
        """See `exporter.origins.Subjects.eager_view`."""
        return self.given.name

    @property
    def decoding(self) -> dict[str, str]:
        """See `exporter.origins.Subjects.decoding`."""
        return {}

    @property
    def calibration_sha256(self) -> str:
        """See `exporter.origins.Subjects.calibration_sha256`."""
        return _calibration(self.given)

    def describe(self) -> tuple[ViewEntry, ...]:
        """See `exporter.origins.Subjects.describe`."""
        return (_described(self.given),)

    def metadata(self, view: str) -> dict[str, str]:
        """See `exporter.origins.Subjects.metadata`."""
        given = self.given
        return {**given.metadata, **_meanings(given), **carried(self.source)}

    def rounding(self) -> float:
        """See `exporter.origins.Subjects.rounding`."""
        return rounding_of(self.given, references(self.given), lambda line: None)

    def eager(self) -> Runner:
        """See `exporter.origins.Subjects.eager`."""
        names = list(self.given.example)

        def answer(*values: NDArray[Any]) -> NDArray[np.float32]:
            return run(self.given.module, dict(zip(names, values, strict=True)), "a sample")[None]

        return answer

    def evidence(self, view: str) -> Evidence:
        """See `exporter.origins.Subjects.evidence`."""
        if view != self.given.name:
            raise GateError(
                f"the bundle holds {view!r}, the factory gives {self.given.name!r}",
                fix="export again",
            )
        return self.judged_by

    def subject(self, view: str) -> Subject:
        """See `exporter.origins.Subjects.subject`."""
        given = self.given
        lowering = _lowering(given, self.metadata(view))
        whole = run(given.module, given.example, "the example")
        evidence = self.evidence(view)
        return Subject(given.name, given.name, lowering, evidence, whole.shape)


def reopen_brought(
    folder: Path, source: ModelSource, lexicon: str | None, say: Say
) -> BroughtSubjects:
    """See `exporter.origins.reopen`."""
    require_no_lexicon(lexicon, source)
    given, _ = load_exportable(source.factory, folder / CHECKPOINT)
    require_weights(folder, digest("", copy_tensors(given.module)), source)
    with np.load(folder / VERIFICATION) as kept:
        _require_same(kept["digests"], _digests(given), source.factory)
    say(f"PyTorch on {len(given.verification):,} samples")
    evidence = evidence_of(given, references(given), source.reference_rounding)
    return BroughtSubjects(given, source, evidence)


def carried(source: ModelSource) -> dict[str, str]:
    """What every artefact of the model carries, by key, besides what its factory says."""
    blank = {} if source.blank is None else {"blank": str(source.blank)}
    return {
        "factory": source.factory,
        "weights_sha256": source.weights_sha256,
        "outputs": source.outputs,
        **blank,
    }


def _described(given: Exportable) -> ViewEntry:
    """What the model takes and gives."""
    shapes = signature(given.example, _lowering(given, {}))
    meanings = _meanings(given)
    inputs = [
        TensorEntry(
            name=name,
            shape=tuple(shape),
            dtype=str(given.example[name].dtype),
            meaning=meanings[name],
        )
        for name, shape in shapes.items()
    ]
    output = TensorEntry(
        name=given.output_name,
        shape=_output_shape(given),
        dtype="float32",
        meaning=meanings[given.output_name],
    )
    tried = [name for name, _ in extremes(given)] + [case.name for case in paddings(given)]
    tried += [f"{name}, to be refused" for name, _ in beyond(given)]
    return ViewEntry(name=given.name, inputs=tuple(inputs), output=output, also_tried=tuple(tried))


def _calibration(given: Exportable) -> str:
    """SHA-256 of the calibration samples, in order."""
    return hashlib.sha256(b"".join(map(given.digest, given.calibration))).hexdigest()


def require_no_lexicon(lexicon: str | None, source: ModelSource) -> None:
    """Refuse a lexicon that would have no effect.

    Raises:
        UsageError: one is named.
    """
    if lexicon is not None:
        raise UsageError(
            f"--lexicon {lexicon} is for swipe models, and {source.factory} decodes by itself",
            fix="leave out --lexicon",
        )


def _digests(given: Exportable) -> NDArray[np.uint8]:
    found = [np.frombuffer(given.digest(call), dtype=np.uint8) for call in given.verification]
    return np.stack(found)


def _require_same(kept: NDArray[np.uint8], found: NDArray[np.uint8], factory: str) -> None:
    """Refuse samples that are not those the bundle was judged by.

    Raises:
        GateError: names the first that differs.
    """
    common = min(len(kept), len(found))
    differing = np.flatnonzero((kept[:common] != found[:common]).any(axis=1)).tolist()
    if len(kept) != len(found) or differing:
        raise GateError(
            f"{factory} gives {len(found)} samples, of which number {[*differing, common][0]} is "
            f"not what artefacts were judged by ({len(kept)} samples)",
            fix="seed whatever is random in the factory, and export again when its data changed",
        )


def _lowering(given: Exportable, metadata: dict[str, str]) -> Lowering:
    return Lowering(
        given.module,
        given.example,
        given.calibration,
        metadata,
        given.output_name,
        given.float_inputs,
        given.dynamic,
    )


def _meanings(given: Exportable) -> dict[str, str]:
    """What each input and the output mean; what is known of it where the factory does not say."""
    lengths = {
        length.input: f"how much of {length.axis} is real, the rest is padding"
        for length in given.lengths
    }
    named = {name: lengths.get(name, "as the factory's samples") for name in given.example}
    return {**named, given.output_name: given.reading.kind.value, **given.meanings}


def _output_shape(given: Exportable) -> tuple[int | str, ...]:
    """The output's shape; a size that follows an axis is the range it was seen to have."""
    with torch.no_grad():
        calls = [given.example, *(call for _, call in extremes(given))]
        shapes = [run(given.module, call, "an extreme of its axes").shape for call in calls]
    sizes = [sorted(set(seen)) for seen in zip(*shapes, strict=True)]
    return (1, *(s[0] if len(s) == 1 else f"{_name(given, s)}{s[0]}..{s[-1]}" for s in sizes))


def _name(given: Exportable, sizes: list[int]) -> str:
    """The axis that `sizes` are those of, with a colon; nothing where it is another number."""
    axes = [axis for d in given.dynamic.values() for axis in d.values()]
    return next((f"{a.name}:" for a in axes if _is(a, sizes)), "")


def _is(axis: Axis, sizes: list[int]) -> bool:
    return (axis.least, axis.most) == (sizes[0], sizes[-1])
