"""One export from checkpoint to published bundle folder.

Everything is built beside the bundle and moved into place when every requested format has an
artefact to ship; until then, and after any failure, the earlier bundle is untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from exporter.ladder import Say
from exporter.manifest import (
    CHECKPOINT,
    FILE,
    SCHEMA,
    VERIFICATION,
    Build,
    FormatEntry,
    Manifest,
    Recipe,
    RungEntry,
    Source,
    load_manifest,
    require_unaltered,
)
from exporter.policy import Policy
from exporter.provenance import (
    THREADS,
    library_versions,
    portable,
    portable_record,
    processor,
    working_tree,
)
from exporter.report import write_report
from exporter.samples import (
    CALIBRATION_SHARE,
    CALIBRATION_SWIPES,
    SEED,
    Samples,
    choose_samples,
)
from exporter.targets import Target, require_libraries
from exporter.views import SHUFFLE_SEED, VIEWS, View
from exporter.worker import SAMPLES, Job, run_worker
from swipe.errors import GateError, SwipeError
from swipe.features import feature_batch
from swipe.files import replacing_folder, sha256_file
from swipe.layout import Layout
from swipe.lexicon import load_lexicon
from swipe.presets import choose_preset
from train.checkpoint import Checkpoint, checkpoint_file, load_checkpoint
from train.evaluate import predict, rounding_error
from train.finite import null_for_nonfinite
from train.sealed import write_sealed


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; see ``swipe-export --help``."""

    targets: tuple[Target, ...]
    views: tuple[View, ...]
    checkpoint: Path
    out: Path
    policy: Policy = field(default_factory=Policy)
    data: str | None = None
    lexicon: str = "wordfreq"
    samples: int = 2000
    preset: Path | None = None


def export(request: Request, say: Say) -> Manifest:
    """Build every requested format and publish the bundle.

    Raises:
        MissingError: a library of a requested format is not installed; nothing was built.
        UsageError: the checkpoint, data, lexicon or output folder cannot be used.
        GateError: the checkpoint or a format was refused; the earlier bundle is untouched.
    """
    require_libraries(request.targets)
    build = _build_record(request)
    checkpoint = load_checkpoint(request.checkpoint)
    lexicon = load_lexicon(request.lexicon)
    say(f"checkpoint {request.checkpoint}: step {checkpoint.step:,}, proven finite")
    chosen = choose_preset(
        request.preset, checkpoint_file(request.checkpoint), checkpoint.weights_sha256, lexicon
    )
    say(chosen.origin)
    preset = None if chosen.tuned is None else portable_record(chosen.tuned.to_dict())
    samples = choose_samples(
        request.data, checkpoint.data, Layout.from_contract(checkpoint.contract), request.samples
    )
    say(
        f"verifying on {len(samples.verification):,} swipes, calibrating on "
        f"{len(samples.calibration)} of other writers: {samples.label}"
    )
    out = request.out.resolve()
    with (
        replacing_folder(out, marker=FILE, kind="bundle") as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        _put_checkpoint(request.checkpoint, checkpoint, folder / CHECKPOINT)
        rounding = _write_samples(Path(scratch), folder, checkpoint, samples)
        job = Job(
            checkpoint=str((folder / CHECKPOINT).resolve()),
            folder=str(folder.resolve()),
            views=tuple(view.name for view in request.views),
            lexicon=request.lexicon,
            policy=request.policy,
            rounding=rounding,
            preset=preset,
        )
        entries = _build_all(Path(scratch), job, request.targets, say)
        manifest = Manifest(
            schema_name=SCHEMA,
            builds=(build,),
            source=Source(
                checkpoint_step=checkpoint.step,
                weights_sha256=checkpoint.weights_sha256,
                contract_id=checkpoint.contract.contract_id,
                contract=json.loads(checkpoint.contract.to_json()),
                parameters=sum(p.numel() for p in checkpoint.model().parameters()),
                trained_on=portable_record(checkpoint.data),
                swipes=samples.label,
                calibration_swipes=len(samples.calibration),
                calibration_sha256=hashlib.sha256(
                    feature_batch(samples.calibration).tobytes()
                ).hexdigest(),
                verification_swipes=len(samples.verification),
                verification_sha256=sha256_file(folder / VERIFICATION),
                lexicon=portable(request.lexicon),
                lexicon_sha256=lexicon.sha256,
                decoder=null_for_nonfinite(asdict(chosen.settings)),
                preset=preset,
                accuracy_budget=request.policy.budget,
                reference_rounding=rounding,
            ),
            views=tuple(view.describe(checkpoint.contract) for view in VIEWS),
            formats=entries,
        )
        manifest = _with_earlier_formats(manifest, out, folder)
        manifest.save(folder)
        write_report(manifest, folder)
    return manifest


def _build_record(request: Request) -> Build:
    machine = processor()
    commit, uncommitted_changes = working_tree()
    return Build(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        platform=f"{platform.system()} {platform.machine()}",
        processor=machine.model,
        processor_flags=machine.flags,
        threads=THREADS,
        versions=library_versions(),
        commit=commit,
        uncommitted_changes=uncommitted_changes,
        recipe=Recipe(
            formats=tuple(target.name for target in request.targets),
            views=tuple(view.name for view in request.views),
            policy=asdict(request.policy),
            data=None if request.data is None else portable(request.data),
            lexicon=portable(request.lexicon),
            preset=None if request.preset is None else portable(str(request.preset)),
            samples=request.samples,
            calibration_samples=CALIBRATION_SWIPES,
            calibration_share=CALIBRATION_SHARE,
            seeds={"samples": SEED, "keyboard": SHUFFLE_SEED},
        ),
    )


def _put_checkpoint(source: Path, checkpoint: Checkpoint, target: Path) -> None:
    """Copy the checkpoint, or seal it anew where its record names folders of this machine."""
    record = checkpoint.record()
    if portable_record(checkpoint.data) == record["data"]:
        shutil.copyfile(checkpoint_file(source), target)
        return
    published = {**record, "data": portable_record(checkpoint.data)}
    write_sealed(target, checkpoint.tensors, published, fix="train again")


def _write_samples(scratch: Path, folder: Path, checkpoint: Checkpoint, samples: Samples) -> float:
    """Swipes and PyTorch's answers: all for the workers, the verification part to keep.

    Returns the rounding error of those answers.
    """
    features = feature_batch(samples.verification)
    words = np.array([g.word for g in samples.verification])
    # Numbers, not names: who made a swipe matters, who they are does not.
    _, writers = np.unique([g.writer for g in samples.verification], return_inverse=True)
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    if (logits.argmax(axis=-1) == checkpoint.contract.blank).all():
        raise GateError(
            "the model answers nothing but blank, so no artefact could be compared with it",
            fix="train longer: swipe-train eval shows when it has learnt to spell",
        )
    np.savez(
        scratch / SAMPLES,
        calibration=feature_batch(samples.calibration),
        features=features,
        words=words,
        writers=writers,
        logits=logits,
    )
    np.savez_compressed(folder / VERIFICATION, features=features, words=words, writers=writers)
    return rounding_error(checkpoint.model(), checkpoint.contract, features, logits)


def _build_all(
    scratch: Path, job: Job, targets: tuple[Target, ...], say: Say
) -> tuple[FormatEntry, ...]:
    """All formats, two at a time on two cores; the first error is raised after all have ended."""

    def build(target: Target) -> dict[str, FormatEntry] | SwipeError:
        try:
            views = run_worker(scratch, job, target.name, say)
        except SwipeError as error:
            say(f"{target.name}: {error}")
            return error
        return {
            view: FormatEntry(
                format=target.name,
                view=view,
                build=0,
                rungs=tuple(RungEntry.model_validate(record) for record in records),
            )
            for view, records in views.items()
        }

    with ThreadPoolExecutor(max_workers=min(len(targets), os.cpu_count() or 1)) as pool:
        outcomes = list(pool.map(build, targets))
    for outcome in outcomes:
        if isinstance(outcome, SwipeError):
            raise outcome
    built = [outcome for outcome in outcomes if not isinstance(outcome, SwipeError)]
    return tuple(entries[view] for view in job.views for entries in built)


def _with_earlier_formats(manifest: Manifest, earlier: Path, folder: Path) -> Manifest:
    """Keep what the earlier bundle has of formats and views that were not asked for now.

    Only when they were built from the same weights and judged by the same swipes, budget and
    lexicon, and their files are unaltered: a manifest never mixes two models.
    """
    if not (earlier / FILE).is_file():
        return manifest
    try:
        previous = load_manifest(earlier)
        if previous.source != manifest.source:
            return manifest
        built = {(entry.format, entry.view) for entry in manifest.formats}
        kept = [entry for entry in previous.formats if (entry.format, entry.view) not in built]
        makers = sorted({entry.build for entry in kept})
        builds = (*manifest.builds, *(previous.builds[maker] for maker in makers))
        for entry in kept:
            for rung in entry.rungs:
                if rung.file is not None:
                    _copy(require_unaltered(earlier, rung), folder / rung.file)
    except SwipeError:
        # An earlier bundle that cannot be trusted contributes nothing; it is replaced whole.
        return manifest
    renumbered = [
        entry.model_copy(update={"build": 1 + makers.index(entry.build)}) for entry in kept
    ]
    formats = (*manifest.formats, *renumbered)
    return manifest.model_copy(update={"builds": builds, "formats": formats})


def _copy(source: Path, target: Path) -> None:
    copy: Callable[[Path, Path], object] = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, target)
