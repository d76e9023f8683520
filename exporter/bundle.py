"""One export from checkpoint to published bundle folder.

Everything is built beside the bundle and moved into place when every requested format has an
artefact to ship; until then, and after any failure, the earlier bundle is untouched. A bundle that
lacks a requested format would be taken for a whole one, so it is never published; what the other
formats gave is in the cache, and the next export starts from there.

Nothing heavy is imported here: an export that is all in the cache loads no torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from exporter import fingerprint
from exporter.cache import Cache, copy
from exporter.ladder import Say
from exporter.lock import held
from exporter.manifest import (
    CHECKPOINT,
    FILE,
    SCHEMA,
    VERIFICATION,
    FormatEntry,
    Manifest,
    RungEntry,
    Source,
    ViewEntry,
    library_versions,
    load_manifest,
    require_unaltered,
)
from exporter.policy import Policy
from exporter.preparation import SAMPLES, recall_or_prepare
from exporter.report import write_report
from exporter.targets import Target, require_libraries
from exporter.worker import Job, Records, recall_records, run_worker
from swipe.errors import GateError, SwipeError
from swipe.files import replacing_folder, sha256_file
from train.runs import checkpoint_file

if TYPE_CHECKING:
    from exporter.views import View


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
    cache: Path | None = None
    """Folder of earlier results; None: none are used, and none are kept."""


def export(request: Request, say: Say) -> Manifest:
    """Build every requested format and publish the bundle.

    Raises:
        MissingError: a library of a requested format is not installed; nothing was built.
        UsageError: the checkpoint, data, lexicon or output folder cannot be used, or another
            process is writing to it.
        GateError: the checkpoint or a format was refused; the earlier bundle is untouched.
    """
    require_libraries(request.targets)
    weights = checkpoint_file(request.checkpoint)
    out = request.out.resolve()
    cache = None if request.cache is None else Cache(request.cache, say)
    environment = fingerprint.environment()
    with (
        held(out, "bundle"),
        replacing_folder(out, marker=FILE, kind="bundle") as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        prepared = recall_or_prepare(request, weights, Path(scratch), cache, environment, say)
        shutil.copyfile(weights, folder / CHECKPOINT)
        if sha256_file(folder / CHECKPOINT) != prepared.checkpoint_sha256:
            raise GateError(
                f"{weights} was replaced while it was being exported", fix="export again"
            )
        shutil.move(Path(scratch, VERIFICATION), folder / VERIFICATION)
        source = Source(**prepared.source, accuracy_budget=request.policy.budget)
        job = Job(
            checkpoint=str((folder / CHECKPOINT).resolve()),
            folder=str(folder.resolve()),
            views=tuple(view.name for view in request.views),
            lexicon=request.lexicon,
            policy=request.policy,
            rounding=source.reference_rounding,
            preset=source.preset,
            cache=None if request.cache is None else str(request.cache),
            parts={
                "environment": environment,
                "samples": sha256_file(Path(scratch, SAMPLES)),
                "source": prepared.source,
            },
        )
        manifest = Manifest(
            schema_name=SCHEMA,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            platform=f"{platform.system()} {platform.machine()}",
            versions=library_versions(),
            source=source,
            views=tuple(ViewEntry.model_validate(view) for view in prepared.views),
            formats=_build_all(Path(scratch), job, request.targets, say),
        )
        manifest = _with_earlier_formats(manifest, out, folder)
        manifest.save(folder)
        write_report(manifest, folder)
    return manifest


def _build_all(
    scratch: Path, job: Job, targets: tuple[Target, ...], say: Say
) -> tuple[FormatEntry, ...]:
    """All formats, two at a time on two cores; the first error is raised after all have ended."""

    def build(target: Target) -> dict[str, FormatEntry] | SwipeError:
        try:
            views = recall_records(job, target.name, say)
            if views is None:
                views = run_worker(scratch, job, target.name, say)
        except SwipeError as error:
            say(f"{target.name}: {error}")
            return error
        return _entries(target.name, views)

    with ThreadPoolExecutor(max_workers=min(len(targets), os.cpu_count() or 1)) as pool:
        outcomes = dict(zip(targets, pool.map(build, targets), strict=True))
    built = {t.name: o for t, o in outcomes.items() if not isinstance(o, SwipeError)}
    for outcome in outcomes.values():
        if isinstance(outcome, SwipeError):
            if built and job.cache is not None:
                say(f"nothing is published; {', '.join(built)} will come from the cache next time")
            raise outcome
    return tuple(entries[view] for view in job.views for entries in built.values())


def _entries(target: str, views: Records) -> dict[str, FormatEntry]:
    return {
        view: FormatEntry(
            format=target,
            view=view,
            rungs=tuple(RungEntry.model_validate(record) for record in records),
        )
        for view, records in views.items()
    }


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
        for entry in kept:
            for rung in entry.rungs:
                if rung.file is not None:
                    copy(require_unaltered(earlier, rung), folder / rung.file)
    except SwipeError:
        # An earlier bundle that cannot be trusted contributes nothing; it is replaced whole.
        return manifest
    return manifest.model_copy(update={"formats": (*manifest.formats, *kept)})
