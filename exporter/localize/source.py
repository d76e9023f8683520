"""What the command line names, as jobs: an artefact's file, a bundle's files, or a rung to build.

What it leaves out: the calibration swipes that a quantized .pte was built with, which a bundle does
not hold. They are chosen again, by the rule that export chose them by.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from exporter.formats import Inputs, Lowering, calls_of
from exporter.localize.taps import Tapped
from exporter.manifest import CHECKPOINT, FILE, VERIFICATION, load_manifest
from exporter.targets import TARGETS, Target, find_target
from exporter.views import POINTS, TEXT, VIEWS, View, find_view
from swipe.errors import GateError, UsageError
from swipe.progress import Say

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint

EXECUTORCH: Final = "executorch"
CLOSED: Final = (POINTS.name, TEXT.name)
"""Views that nothing here runs: samples are features, and outputs numbers alone."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What was asked for; None is not said.

    Attributes:
        artefact: a file of ours, or a bundle folder; None: build a rung.
        format: of what is built, or of a bundle's files to look at.
        rung: likewise.
        view: likewise.
        checkpoint: what artefacts were built from.
        data: swipes to run.
        samples: how many.
    """

    artefact: Path | None
    format: str | None
    rung: str | None
    view: str | None
    checkpoint: Path | None
    data: str | None
    samples: int


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One artefact and all that is needed to look inside.

    Attributes:
        path: the file.
        target: its format.
        view: what was lowered.
        rung: which rung it is.
        job: what it was lowered from; answers for PyTorch.
        calls: the samples to run.
    """

    path: Path
    target: Target
    view: View
    rung: str
    job: Lowering
    calls: tuple[Inputs, ...]

    def tapped(self) -> Tapped:
        """The artefact with its inside in view.

        Raises:
            LoweringError: it cannot be read or executed.
            MissingError: its format's library is not installed.
        """
        if self.target.name == "onnx":
            from exporter.localize.onnx_taps import OnnxTaps

            return OnnxTaps(self.path, self.job)
        if self.target.name == EXECUTORCH:
            from exporter.localize.executorch_taps import ExecuTorchTaps

            return ExecuTorchTaps(self.path, self.job, self.rung)
        from exporter.localize.coreml_taps import CoreMlTaps

        return CoreMlTaps(self.path, self.job)


def sources_of(choice: Choice, scratch: Path, say: Say) -> Iterator[Source]:
    """What `choice` names, one after the other; rungs are built in `scratch`.

    Raises:
        UsageError: it names nothing, or nothing that is there.
        GateError: an artefact was built from another checkpoint, or a rung cannot be built.
        MissingError: a format's library is not installed.
    """
    artefact = choice.artefact
    if artefact is None:
        yield _built(choice, scratch, say)
    elif (artefact / FILE).is_file():
        for path, rung in _taken(artefact, choice, say):
            yield _found(path, rung, choice, say)
    elif artefact.exists():
        yield _found(artefact, choice.rung, choice, say)
    else:
        raise UsageError(f"there is no {artefact}", fix="name an artefact or a bundle folder")


def _built(choice: Choice, scratch: Path, say: Say) -> Source:
    """The rung of `choice`, built now: also one that export refused."""
    from train.checkpoint import load_checkpoint
    from train.released import default_checkpoint

    if choice.format is None:
        raise UsageError(
            "neither an artefact nor a format to build is named",
            fix="swipe-export localize bundle, or --format onnx --rung int8",
        )
    target, view = find_target(choice.format), _open_view(choice.view or VIEWS[0].name)
    rung = choice.rung or target.baseline.name
    checkpoint = load_checkpoint(choice.checkpoint or default_checkpoint())
    calibration, features, label = _swipes(choice, checkpoint)
    say(f"{len(features)} swipes: {label}")
    job = view.lowering(checkpoint, features[:1], calibration)
    path = scratch / f"{view.stem}.{rung}{target.suffix}"
    say(f"building {target.name} {rung}, view {view.name}")
    if rung == target.baseline.name:
        target.format().lower(job, path)
    else:
        target.format().quantize(job, path, rung)
    return Source(path, target, view, rung, job, _calls(view, checkpoint, features))


def _open_view(name: str) -> View:
    view = find_view(name)
    if name in CLOSED:
        raise UsageError(
            f"nothing can look into the view {name}",
            fix="name the view baked: it holds the same network",
        )
    return view


def _taken(bundle: Path, choice: Choice, say: Say) -> list[tuple[Path, str]]:
    """The shipped artefacts of `bundle` that `choice` is about, with their rungs."""
    found = []
    for entry in load_manifest(bundle).formats:
        if choice.view is None and entry.view in CLOSED:
            say(f"not looked into: {entry.format} {entry.view}")
        elif (
            choice.format in (None, entry.format)
            and choice.view in (None, entry.view)
            and choice.rung in (None, entry.taken.rung)
        ):
            found.append((bundle / str(entry.taken.file), entry.taken.rung))
    if not found:
        raise UsageError(
            f"the bundle {bundle} ships nothing of that format, view and rung",
            fix="leave out --format, --view and --rung, or build the rung: see --help",
        )
    return found


def _found(path: Path, rung: str | None, choice: Choice, say: Say) -> Source:
    """An artefact that is there."""
    from train.checkpoint import load_checkpoint
    from train.released import default_checkpoint

    target = _target_of(path)
    entries = target.format().metadata(path)
    if "factory" in entries:
        raise UsageError(
            f"{path.name} is of {entries['factory']}, and only swipe models can be looked into",
            fix="swipe-export verify --deep tells how far its outputs are from PyTorch's",
        )
    beside = path.parent / CHECKPOINT
    known = choice.checkpoint or (beside if beside.is_file() else default_checkpoint())
    checkpoint = load_checkpoint(known)
    if entries.get("weights_sha256") != checkpoint.weights_sha256:
        raise GateError(
            f"{path.name} was not built from {known}: its weights have another hash",
            fix="name the checkpoint it was built from with --checkpoint",
        )
    view = _open_view(entries.get("view", ""))
    rung, kept = _rung_of(path, rung, target)
    calibration, features, label = _swipes_beside(path, choice, checkpoint, target, rung)
    say(f"{path.name}: {target.name} {rung}, view {view.name}; {len(features)} swipes: {label}")
    job = view.lowering(checkpoint, features[:1], calibration)
    calls = _calls(view, checkpoint, features)
    return Source(path, target, view, rung, replace(job, float_layers=kept), calls)


def _target_of(path: Path) -> Target:
    for target in TARGETS:
        if target.suffix == path.suffix:
            return target
    raise UsageError(
        f"{path} is neither a bundle nor an artefact",
        fix=f"name a bundle folder, or a file that ends in {', '.join(t.suffix for t in TARGETS)}",
    )


def _rung_of(path: Path, rung: str | None, target: Target) -> tuple[str, frozenset[str]]:
    """The rung of `path`, and the layers that were kept float in it."""
    if (path.parent / FILE).is_file():
        for entry in load_manifest(path.parent).formats:
            for record in entry.rungs:
                if record.file == path.name and rung in (None, record.rung):
                    return record.rung, frozenset(record.float_layers)
    if rung is not None:
        return rung, frozenset()
    if not target.format().inspect(path)["quantized"]:
        return target.baseline.name, frozenset()
    raise UsageError(
        f"no manifest says which rung {path.name} is", fix="say it, such as --rung int8"
    )


Swipes = tuple[NDArray[np.float32], NDArray[np.float32], str]
"""Features to calibrate and to run, each ``[N, 2, 64]``, and where they come from."""


def _swipes_beside(
    path: Path, choice: Choice, checkpoint: Checkpoint, target: Target, rung: str
) -> Swipes:
    """The bundle's verification swipes where there are any; calibration only where it is used."""
    beside = path.parent / VERIFICATION
    if choice.data is not None or not beside.is_file():
        return _swipes(choice, checkpoint)
    with np.load(beside) as samples:
        features = samples["features"]
    spread = np.linspace(0, len(features) - 1, min(choice.samples, len(features)))
    some, label = features[spread.astype(int)], "the bundle's verification swipes"
    if target.name != EXECUTORCH or rung == target.baseline.name:
        return some[:0], some, label
    calibration, _, origin = _swipes(choice, checkpoint)
    return calibration, some, f"{label}, calibrated anew on {origin}"


def _swipes(choice: Choice, checkpoint: Checkpoint) -> Swipes:
    from exporter.samples import choose_samples
    from swipe.features import feature_batch
    from swipe.layout import Layout

    layout = Layout.from_contract(checkpoint.contract)
    chosen = choose_samples(choice.data, checkpoint.data, layout, choice.samples)
    return feature_batch(chosen.calibration), feature_batch(chosen.verification), chosen.label


def _calls(view: View, checkpoint: Checkpoint, features: NDArray[np.float32]) -> tuple[Inputs, ...]:
    return tuple(calls_of(features, view.context(checkpoint.contract)))
