"""One export from what was asked for to a published bundle folder.

Everything is built beside the bundle and moved into place when every requested format has an
artefact to ship; until then, and after any failure, the earlier bundle is untouched.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from exporter.ladder import Say
from exporter.manifest import (
    FILE,
    SCHEMA,
    FormatEntry,
    Manifest,
    RungEntry,
    library_versions,
    load_manifest,
    require_unaltered,
)
from exporter.origins import Request as ModelAsked
from exporter.policy import Policy
from exporter.report import write_report
from exporter.targets import Target, require_libraries
from exporter.worker import Job, run_worker
from swipe.errors import SwipeError
from swipe.files import replacing_folder


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; see ``swipe-export --help``.

    Attributes:
        targets: the formats to build.
        model: what to build them from: a `exporter.origins.swipe.SwipeRequest`, or a
            `exporter.origins.brought.ModelRequest`.
        out: the bundle's folder.
        policy: how rungs are chosen.
    """

    targets: tuple[Target, ...]
    model: ModelAsked
    out: Path
    policy: Policy = field(default_factory=Policy)


def export(request: Request, say: Say) -> Manifest:
    """Build every requested format and publish the bundle.

    Raises:
        MissingError: a library of a requested format is not installed; nothing was built.
        UsageError: the model, data, lexicon or output folder cannot be used.
        GateError: the model or a format was refused; the earlier bundle is untouched.
    """
    require_libraries(request.targets)
    origin = request.model.open(say)
    out = request.out.resolve()
    with (
        replacing_folder(out, marker=FILE, kind="bundle") as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        source = origin.keep(folder, Path(scratch), request.policy.budget)
        job = Job(
            folder=str(folder.resolve()),
            views=origin.views,
            policy=request.policy,
            source=source,
        )
        entries = _build_all(Path(scratch), job, request.targets, say)
        manifest = Manifest(
            schema_name=SCHEMA,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            platform=f"{platform.system()} {platform.machine()}",
            versions=library_versions(),
            source=source,
            views=origin.describe(),
            formats=entries,
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
            views = run_worker(scratch, job, target.name, say)
        except SwipeError as error:
            say(f"{target.name}: {error}")
            return error
        return {
            view: FormatEntry(
                format=target.name,
                view=view,
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

    Only when they were built from the same weights and judged by the same samples, budget and
    decoder, and their files are unaltered: a manifest never mixes two models.
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
                    _copy(require_unaltered(earlier, rung), folder / rung.file)
    except SwipeError:
        # An earlier bundle that cannot be trusted contributes nothing; it is replaced whole.
        return manifest
    return manifest.model_copy(update={"formats": (*manifest.formats, *kept)})


def _copy(source: Path, target: Path) -> None:
    copy: Callable[[Path, Path], object] = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, target)
