"""One export from what was asked for to a published bundle folder.

Everything is built beside the bundle and moved into place when every requested format has an
artefact to ship; until then, and after any failure, the earlier bundle is untouched. A bundle that
lacks a requested format would be taken for a whole one, so it is never published; what the other
formats gave is in the cache, and the next export starts from there.

Nothing heavy is imported here: an export that is all in the cache loads no torch.
"""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from exporter import fingerprint
from exporter.cache import Cache, copy
from exporter.lock import held
from exporter.manifest import (
    BENCH,
    FILE,
    SCHEMA,
    AnySource,
    Build,
    FormatEntry,
    Manifest,
    Recipe,
    RungEntry,
    ViewEntry,
    is_bundle,
    load_manifest,
    require_unaltered,
)
from exporter.origins import Request as ModelAsked
from exporter.policy import Policy
from exporter.preparation import recall_or_prepare
from exporter.provenance import THREADS, library_versions, processor, working_tree
from exporter.report import write_report
from exporter.targets import Target, require_libraries
from exporter.worker import Job, Records, Workers, recall_records, run_worker
from swipe.errors import SwipeError, UsageError
from swipe.files import replacing_folder, sha256_file
from swipe.progress import Say

SOURCE: Final[TypeAdapter[AnySource]] = TypeAdapter(AnySource)


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; see ``swipe-export --help``.

    Attributes:
        targets: the formats to build.
        model: what to build them from, see `exporter.origins.requests`.
        out: the bundle's folder.
        policy: how rungs are chosen.
        cache: folder of earlier results; None: none are used, and none are kept.
    """

    targets: tuple[Target, ...]
    model: ModelAsked
    out: Path
    policy: Policy = field(default_factory=Policy)
    cache: Path | None = None


def export(request: Request, say: Say) -> Manifest:
    """Build every requested format and publish the bundle.

    Raises:
        MissingError: a library of a requested format is not installed; nothing was built.
        UsageError: the model, data, lexicon or output folder cannot be used, another process is
            writing to it, or no requested format can have a requested view.
        GateError: the model or a format was refused; the earlier bundle is untouched.
    """
    left_out = {target.name: request.model.left_out(target.name) for target in request.targets}
    targets = _fitting(request, left_out, say)
    require_libraries(targets, request.model.needs())
    out = request.out.resolve()
    cache = None if request.cache is None else Cache(request.cache, say)
    environment = fingerprint.environment()
    with (
        held(out, "bundle"),
        replacing_folder(out, ours=is_bundle, kind="bundle") as folder,
        tempfile.TemporaryDirectory() as scratch,
    ):
        parts = None if cache is None else request.model.parts()
        if parts is None:
            # What no hash can know is not looked up, and not kept either.
            cache = None
        prepared = recall_or_prepare(
            request.model, parts, folder, Path(scratch), cache, environment, say
        )
        source = SOURCE.validate_python(prepared.source)
        job = Job(
            folder=str(folder.resolve()),
            views=tuple(prepared.names),
            policy=request.policy,
            source=source,
            lexicon=request.model.lexicon,
            cache=None if cache is None else str(cache.folder),
            parts=_parts(prepared.source, Path(scratch), environment),
        )
        manifest = Manifest(
            schema_name=SCHEMA,
            builds=(_build_record(request, job.views),),
            source=source,
            accuracy_budget=request.policy.budget,
            views=tuple(ViewEntry.model_validate(view) for view in prepared.views),
            formats=_build_all(Path(scratch), job, targets, left_out, say),
        )
        manifest = _with_built_views(_with_earlier_formats(manifest, out, folder, say))
        manifest.save(folder)
        write_report(manifest, folder)
        _keep_measurements(out, folder)
    return manifest


def _build_record(request: Request, views: tuple[str, ...]) -> Build:
    """What this export is made with.

    It is true of rungs from the cache too: they are found by our own code, every library version
    and the processor, so whichever export built them differs in nothing but date and commit.
    """
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
            views=views,
            policy=asdict(request.policy),
            asked=request.model.recipe(),
        ),
    )


def _fitting(
    request: Request, left_out: Mapping[str, Mapping[str, str]], say: Say
) -> tuple[Target, ...]:
    """The targets that can have a requested view; says which views are left out where, and why.

    Raises:
        UsageError: no target can have one.
    """
    asked = set(request.model.views)
    fitting = tuple(t for t in request.targets if not asked or asked - set(left_out[t.name]))
    reasons = [reason for views in left_out.values() for reason in views.values()]
    if not fitting:
        raise UsageError("; ".join(reasons), fix="add the format that can have it, or leave it out")
    for reason in reasons:
        say(f"left out: {reason}")
    return fitting


def _parts(
    source: Mapping[str, Any], scratch: Path, environment: Mapping[str, str]
) -> dict[str, Any]:
    """All that shapes the results of every format: record, the workers' samples, machine."""
    samples = {path.name: sha256_file(path) for path in sorted(scratch.iterdir())}
    return {"environment": dict(environment), "samples": samples, "source": dict(source)}


def _build_all(
    scratch: Path,
    job: Job,
    targets: tuple[Target, ...],
    left_out: Mapping[str, Mapping[str, str]],
    say: Say,
) -> tuple[FormatEntry, ...]:
    """All formats, two at a time on two cores; the first error is raised after all have ended.

    An interrupt ends them at once.
    """
    workers = Workers()

    def build(target: Target) -> dict[str, FormatEntry] | SwipeError:
        fitting = tuple(view for view in job.views if view not in left_out[target.name])
        part = job.model_copy(update={"views": fitting})
        try:
            views = recall_records(part, target.name, say)
            if views is None:
                views = run_worker(scratch, part, target.name, say, workers)
        except SwipeError as error:
            say(f"{target.name}: {error}")
            return error
        return _entries(target.name, views)

    with ThreadPoolExecutor(max_workers=min(len(targets), os.cpu_count() or 1)) as pool:
        waiting = {target: pool.submit(build, target) for target in targets}
        try:
            outcomes = {target: future.result() for target, future in waiting.items()}
        except BaseException:  # interrupts reach this thread only, and the pool is waited for
            pool.shutdown(wait=False, cancel_futures=True)
            workers.end()
            raise
    built = {t.name: o for t, o in outcomes.items() if not isinstance(o, SwipeError)}
    for outcome in outcomes.values():
        if isinstance(outcome, SwipeError):
            if built and job.cache is not None:
                say(f"nothing is published; {', '.join(built)} will come from the cache next time")
            raise outcome
    return tuple(
        entries[view] for view in job.views for entries in built.values() if view in entries
    )


def _entries(target: str, views: Records) -> dict[str, FormatEntry]:
    return {
        view: FormatEntry(
            format=target,
            view=view,
            build=0,
            rungs=tuple(RungEntry.model_validate(record) for record in records),
        )
        for view, records in views.items()
    }


def _with_earlier_formats(manifest: Manifest, earlier: Path, folder: Path, say: Say) -> Manifest:
    """Keep what the earlier bundle has of formats and views that were not asked for now.

    Only when they were built from the same weights and judged by the same samples, budget and
    decoder, the model still has these views, and all their files are unaltered: a manifest never
    mixes two models. What is dropped is said.
    """
    if not (earlier / FILE).is_file():
        return manifest
    try:
        previous = load_manifest(earlier)
    except SwipeError as error:
        say(f"nothing of the earlier bundle is kept: {error}")
        return manifest
    built = {(entry.format, entry.view) for entry in manifest.formats}
    others = [entry for entry in previous.formats if (entry.format, entry.view) not in built]
    same = (previous.source, previous.accuracy_budget)
    if same != (manifest.source, manifest.accuracy_budget):
        _tell_dropped(others, "it has other weights, samples, answers, decoder or budget", say)
        return manifest
    known = {view.name for view in manifest.views}
    gone = [entry for entry in others if entry.view not in known]
    _tell_dropped(gone, "the model has no such view any more", say)
    kept = [entry for entry in others if entry.view in known]
    try:
        # All are proven before one is copied: the folder is to hold nothing of what is dropped.
        files = [
            require_unaltered(earlier, rung)
            for entry in kept
            for rung in entry.rungs
            if rung.file is not None
        ]
    except SwipeError as error:
        # An earlier bundle that cannot be trusted contributes nothing; it is replaced whole.
        _tell_dropped(kept, str(error), say)
        return manifest
    for file in files:
        copy(file, folder / file.name)
    makers = sorted({entry.build for entry in kept})
    builds = (*manifest.builds, *(previous.builds[maker] for maker in makers))
    renumbered = [
        entry.model_copy(update={"build": 1 + makers.index(entry.build)}) for entry in kept
    ]
    formats = (*manifest.formats, *renumbered)
    return manifest.model_copy(update={"builds": builds, "formats": formats})


def _tell_dropped(entries: Sequence[FormatEntry], why: str, say: Say) -> None:
    for entry in entries:
        say(f"not kept of the earlier bundle: {entry.format} {entry.view}: {why}")


def _keep_measurements(earlier: Path, folder: Path) -> None:
    """Carry over what was measured: an hour on a phone is in no cache, and every row of it names
    the artefact that it is about by its hash."""
    if (earlier / BENCH).is_file():
        copy(earlier / BENCH, folder / BENCH)


def _with_built_views(manifest: Manifest) -> Manifest:
    """`manifest` describing only the views of which it has artefacts."""
    built = {entry.view for entry in manifest.formats}
    views = tuple(view for view in manifest.views if view.name in built)
    return manifest.model_copy(update={"views": views})
