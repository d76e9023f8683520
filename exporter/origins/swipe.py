"""A swipe checkpoint in its views, judged by swipes that are decoded with a lexicon."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from exporter.evidence import Evidence
from exporter.formats import Runner
from exporter.manifest import CHECKPOINT, VERIFICATION, SwipeSource, ViewEntry
from exporter.origins import require_weights
from exporter.origins.requests import SwipeRequest
from exporter.provenance import portable, portable_record
from exporter.samples import Samples, choose_samples
from exporter.subject import Subject
from exporter.views import BAKED, VIEWS, find_view, rows_of
from exporter.words import Words
from swipe.decode import BeamDecoder
from swipe.errors import GateError, UsageError
from swipe.features import feature_batch
from swipe.files import sha256_file
from swipe.gesture import Gesture
from swipe.layout import Layout
from swipe.lexicon import WORDFREQ, Lexicon, load_lexicon
from swipe.presets import Choice, choose_preset, settings_of
from swipe.progress import Say
from train.checkpoint import Checkpoint, load_checkpoint
from train.evaluate import predict, rounding_error
from train.finite import null_for_nonfinite
from train.runs import checkpoint_file
from train.sealed import write_sealed

WORKERS: Final = "samples.npz"
"""In the workers' folder: calibration swipes, and PyTorch's answers to the verification swipes."""


def open_swipe(request: SwipeRequest, say: Say) -> SwipeOrigin:
    """See `exporter.origins.Request.open`."""
    checkpoint = load_checkpoint(request.checkpoint)
    lexicon = load_lexicon(request.lexicon)
    say(f"checkpoint {request.checkpoint}: step {checkpoint.step:,}, proven finite")
    file = checkpoint_file(request.checkpoint)
    chosen = choose_preset(request.preset, file, checkpoint.weights_sha256, lexicon)
    say(chosen.origin)
    layout = Layout.from_contract(checkpoint.contract)
    samples = choose_samples(request.data, checkpoint.data, layout, request.samples)
    say(
        f"verifying on {len(samples.verification):,} swipes, calibrating on "
        f"{len(samples.calibration)} of other writers: {samples.label}"
    )
    return SwipeOrigin(request, file, checkpoint, lexicon, chosen, samples)


@dataclass(frozen=True, slots=True, eq=False)
class SwipeOrigin:
    """A `SwipeRequest`, opened."""

    request: SwipeRequest
    file: Path
    checkpoint: Checkpoint
    lexicon: Lexicon
    chosen: Choice
    swipes: Samples

    @property
    def views(self) -> tuple[str, ...]:
        """See `exporter.origins.Origin.views`."""
        return self.request.views

    def describe(self) -> tuple[ViewEntry, ...]:
        """See `exporter.origins.Origin.describe`."""
        return tuple(view.describe(self.checkpoint.contract) for view in VIEWS)

    def keep(self, folder: Path, scratch: Path) -> SwipeSource:
        """See `exporter.origins.Origin.keep`."""
        put_checkpoint(self.file, self.checkpoint, folder / CHECKPOINT)
        rounding = self._write_swipes(folder, scratch)
        checkpoint, chosen = self.checkpoint, self.chosen
        return SwipeSource(
            weights_sha256=checkpoint.weights_sha256,
            parameters=sum(p.numel() for p in checkpoint.model().parameters()),
            samples=self.swipes.label,
            calibration_samples=len(self.swipes.calibration),
            calibration_sha256=_digest(self.swipes),
            verification_samples=len(self.swipes.verification),
            verification_sha256=sha256_file(folder / VERIFICATION),
            reference_rounding=rounding,
            checkpoint_step=checkpoint.step,
            contract_id=checkpoint.contract.contract_id,
            contract=json.loads(checkpoint.contract.to_json()),
            trained_on=portable_record(checkpoint.data),
            lexicon=portable(self.request.lexicon),
            lexicon_sha256=self.lexicon.sha256,
            decoder=null_for_nonfinite(asdict(chosen.settings)),
            preset=None if chosen.tuned is None else portable_record(chosen.tuned.to_dict()),
        )

    def _write_swipes(self, folder: Path, scratch: Path) -> float:
        """Swipes to keep, and more for the workers; returns the rounding error of the answers."""
        contract, model = self.checkpoint.contract, self.checkpoint.model()
        verification, calibration = map(_rows, (self.swipes.verification, self.swipes.calibration))
        words = np.array([g.word for g in self.swipes.verification])
        # Numbers, not names: who made a swipe matters, who they are does not.
        _, writers = np.unique([g.writer for g in self.swipes.verification], return_inverse=True)
        logits = predict(model, contract, verification["features"])
        if (logits.argmax(axis=-1) == contract.blank).all():
            raise GateError(
                "the model answers nothing but blank, so no artefact could be compared with it",
                fix="train longer: swipe-train eval shows when it has learnt to spell",
            )
        np.savez(scratch / WORKERS, allow_pickle=False, logits=logits, **calibration)
        np.savez_compressed(
            folder / VERIFICATION, allow_pickle=False, words=words, writers=writers, **verification
        )
        return rounding_error(model, contract, verification["features"], logits)


def _rows(gestures: Sequence[Gesture]) -> dict[str, NDArray[np.float32]]:
    """Swipes by what views take, see `exporter.views.View.takes`."""
    return {"features": feature_batch(gestures), "points": rows_of(gestures)}


def _read_rows(kept: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    return {name: kept[name] for name in ("features", "points")}


def _digest(swipes: Samples) -> str:
    """SHA-256 of the calibration swipes' features, in order."""
    return hashlib.sha256(feature_batch(swipes.calibration).tobytes()).hexdigest()


def put_checkpoint(source: Path, checkpoint: Checkpoint, target: Path) -> None:
    """Copy the checkpoint, or seal it anew where its record names folders of this machine."""
    record = checkpoint.record()
    if portable_record(checkpoint.data) == record["data"]:
        shutil.copyfile(source, target)
        return
    published = {**record, "data": portable_record(checkpoint.data)}
    write_sealed(target, checkpoint.tensors, published, fix="train again")


@dataclass(frozen=True, slots=True, eq=False)
class SwipeSubjects:
    """The views of a bundle's checkpoint; see `exporter.origins.Subjects`."""

    checkpoint: Checkpoint
    rows: dict[str, NDArray[np.float32]]
    logits: NDArray[np.float32]
    calibration: dict[str, NDArray[np.float32]]
    words: Words
    recorded_rounding: float
    decoding: dict[str, str]

    @property
    def eager_view(self) -> str:
        """See `exporter.origins.Subjects.eager_view`."""
        return BAKED.name

    @property
    def calibration_sha256(self) -> None:
        """See `exporter.origins.Subjects.calibration_sha256`."""
        return

    def describe(self) -> tuple[ViewEntry, ...]:
        """See `exporter.origins.Subjects.describe`."""
        return tuple(view.describe(self.checkpoint.contract) for view in VIEWS)

    def metadata(self, view: str) -> dict[str, str]:
        """See `exporter.origins.Subjects.metadata`."""
        checkpoint = self.checkpoint
        return find_view(view).metadata(checkpoint.contract, checkpoint.weights_sha256)

    def rounding(self) -> float:
        """See `exporter.origins.Subjects.rounding`."""
        model, contract = self.checkpoint.model(), self.checkpoint.contract
        return rounding_error(model, contract, self.rows["features"], self.logits)

    def eager(self) -> Runner:
        """See `exporter.origins.Subjects.eager`."""
        baked = BAKED.module(self.checkpoint.model(), self.checkpoint.contract)

        def run(row: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return baked(torch.from_numpy(row)).numpy()  # type: ignore[no-any-return]

        return run

    def evidence(self, view: str) -> Evidence:
        """See `exporter.origins.Subjects.evidence`."""
        found = find_view(view)
        return found.evidence(
            self.checkpoint, self.rows[found.takes], self.logits, self.words, self.recorded_rounding
        )

    def subject(self, view: str) -> Subject:
        """See `exporter.origins.Subjects.subject`."""
        found = find_view(view)
        example, calibration = self.rows[found.takes][:1], self.calibration[found.takes]
        lowering = found.lowering(self.checkpoint, example, calibration)
        return Subject(found.name, found.stem, lowering, self.evidence(view))


def reopen_swipe(
    folder: Path,
    source: SwipeSource,
    scratch: Path | None,
    lexicon: str | None,
    say: Say,
) -> SwipeSubjects:
    """See `exporter.origins.reopen`; without `scratch` there are no calibration swipes."""
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    require_weights(folder, checkpoint.weights_sha256, source)
    known = open_lexicon(folder, source, lexicon)
    if scratch is not None:
        # Named because the record has no folders; only that very one may judge an export.
        _require_lexicon(known, source)
    preset = source.preset
    if preset is not None and known.sha256 != source.lexicon_sha256:
        say("decoding with the default settings: the bundle's preset is for its own lexicon")
        preset = None
    decode = BeamDecoder(known, settings_of(preset, known)).decode_words
    with np.load(folder / VERIFICATION) as kept:
        rows, truths, writers = _read_rows(kept), kept["words"], kept["writers"]
    if scratch is None:
        say(f"PyTorch on {len(truths):,} swipes")
        logits = predict(checkpoint.model(), checkpoint.contract, rows["features"])
        calibration = {name: some[:0] for name, some in rows.items()}
    else:
        with np.load(scratch / WORKERS) as ours:
            logits, calibration = ours["logits"], _read_rows(ours)
    return SwipeSubjects(
        checkpoint,
        rows,
        logits,
        calibration,
        Words(truths.tolist(), writers.tolist(), decode),
        source.reference_rounding,
        {"name": known.name, "sha256": known.sha256},
    )


def open_lexicon(folder: Path, source: SwipeSource, named: str | None) -> Lexicon:
    """The lexicon that was `named`, or the one the bundle in `folder` was judged with.

    A manifest holds no path of another machine: a file is looked for in the current folder, in the
    bundle and beside it.

    Raises:
        UsageError: it is not here.
        GateError: none was named, and what is found is another.
    """
    if named is not None:
        return load_lexicon(named)
    places = [Path(source.lexicon), folder / source.lexicon, folder.parent / source.lexicon]
    found = next((str(place) for place in places if place.is_file()), None)
    if found is None and source.lexicon.partition(":")[0] != WORDFREQ:
        raise UsageError(
            f"lexicon {source.lexicon}, which the bundle was judged with, is not here",
            fix=f"name it with --lexicon; its hash is {source.lexicon_sha256}",
        )
    lexicon = load_lexicon(found or source.lexicon)
    _require_lexicon(lexicon, source)
    return lexicon


def _require_lexicon(found: Lexicon, source: SwipeSource) -> None:
    if found.sha256 != source.lexicon_sha256:
        raise GateError(
            f"lexicon {source.lexicon} is not the one the bundle was judged with",
            fix="bring back that lexicon, name another with --lexicon, or export again",
        )
