"""A bundle opened for measuring: its artefacts as the manifest describes them, and their judges."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from android_harness.results import Row
from exporter import manifest
from exporter.conformance import foreign_metadata
from exporter.evidence import Evidence, judge
from exporter.formats import Runner
from exporter.manifest import Manifest, RungEntry, load_manifest, require_unaltered
from exporter.origins import Subjects, reopen
from exporter.parity import Answers, Level, Limits, Verdict, refused
from exporter.parity.outputs import Outputs
from exporter.targets import Target, find_target
from swipe.errors import GateError, MissingError
from swipe.files import size_bytes
from swipe.progress import Say


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """One artefact of the bundle.

    Attributes:
        target: its format.
        view: its form, e.g. "baked".
        entry: what the manifest says of it.
        path: the file, whose hash is the manifest's.
        limits: what it may differ by from PyTorch.
        evidence: what it is judged by.
        unread: why nothing here can look into it, so that it is not executed; None: it was.
    """

    target: Target
    view: str
    entry: RungEntry
    path: Path
    limits: Limits
    evidence: Evidence
    unread: str | None = None

    @property
    def name(self) -> str:
        """E.g. "onnx baked int8"."""
        return f"{self.target.name} {self.view} {self.entry.rung}"

    def row(self, verdict: Verdict) -> Row:
        """What there is to say of it before anything was timed."""
        return Row(
            name=self.name,
            format=self.target.name,
            view=self.view,
            rung=self.entry.rung,
            taken=self.entry.taken,
            sha256=self.entry.sha256,
            size_bytes=size_bytes(self.path),
            verdict=manifest.Verdict(**verdict.to_dict()),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A bundle.

    Attributes:
        folder: where it is.
        manifest: its record.
        subjects: the models, PyTorch's too.
        evidence: by view; PyTorch's own view is among them.
        artefacts: those that are there, in the manifest's order.
    """

    folder: Path
    manifest: Manifest
    subjects: Subjects
    evidence: Mapping[str, Evidence]
    artefacts: tuple[Artefact, ...]


def open_bundle(folder: Path, lexicon: str | None, say: Say) -> Opened:
    """Read the bundle at `folder`, and refuse what is not as it was published.

    Args:
        folder: a bundle written by ``swipe-export``.
        lexicon: lexicon to decode swipes with; None: the manifest's.
        say: told what is going on.

    Raises:
        UsageError: there is no bundle, or its lexicon or factory is not here.
        GateError: an artefact, the checkpoint or the samples are not the manifest's, or there is
            no artefact.
    """
    record = load_manifest(folder)
    subjects = reopen(folder, record.source, lexicon=lexicon, say=say)
    names = {subjects.eager_view, *(entry.view for entry in record.formats)}
    evidence = {name: _remembering(subjects.evidence(name)) for name in sorted(names)}
    artefacts = []
    for format_entry in record.formats:
        target = find_target(format_entry.format)
        judged_by = evidence[format_entry.view]
        for entry in format_entry.rungs:
            if entry.file is None:
                continue
            path = require_unaltered(folder, entry)
            unread = None
            if target.level.executed:
                unread = _require_own(target, path, subjects.metadata(format_entry.view))
            limits = target.find_rung(entry.rung).limits_within(
                record.accuracy_budget, judged_by.rounding
            )
            artefacts.append(
                Artefact(target, format_entry.view, entry, path, limits, judged_by, unread)
            )
    if not artefacts:
        raise GateError(f"{folder} ships no artefact", fix="export again")
    return Opened(folder, record, subjects, evidence, tuple(artefacts))


def verdict_on(runner: Runner, evidence: Evidence, limits: Limits, level: Level) -> Verdict:
    """The verdict on `runner`, executed at `level`; what cannot be judged at all is refused."""
    try:
        return judge(runner, evidence, limits, level)
    except GateError as error:
        return refused(str(error), level)


def _remembering(evidence: Evidence) -> Evidence:
    """`evidence` that answers the same outputs once: decoding takes longest, and engines that
    execute one file in several places mostly give the same bits."""
    known: dict[bytes, Answers] = {}

    def answer(outputs: Outputs) -> Answers:
        digest = hashlib.sha256()
        for row in outputs:
            digest.update(repr(row.shape).encode() + row.tobytes())
        key = digest.digest()
        if key not in known:
            known[key] = evidence.answer(outputs)
        return known[key]

    return replace(evidence, answer=answer)


def _require_own(target: Target, path: Path, metadata: Mapping[str, str]) -> str | None:
    """Refuse an artefact of another model; returns why that cannot be told here, if it cannot.

    A library that is missing is its format's gap, and no reason to measure nothing.
    """
    try:
        foreign = foreign_metadata(target, path, metadata)
    except MissingError as error:
        return f"{error}; {error.fix}"
    if foreign is not None:
        raise GateError(f"{path} {foreign}", fix="export again")
    return None
