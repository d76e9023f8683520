"""Bench a bundle on this machine: PyTorch eager and every artefact that can be executed here."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from android_harness.protocol import Loader, Plan, measure
from android_harness.stats import Latency, summarize
from exporter.evidence import Evidence, judge
from exporter.formats import Runner
from exporter.manifest import (
    CHECKPOINT,
    VERIFICATION,
    Manifest,
    RungEntry,
    library_versions,
    load_manifest,
    require_unaltered,
)
from exporter.parity import Answers, Limits, Status, Verdict, refused
from exporter.targets import Target, find_target
from exporter.views import BAKED, find_view
from swipe.errors import GateError
from swipe.files import sha256_file

SCHEMA: Final = "swipe-export/bench/1"
EAGER: Final = "pytorch eager"


@dataclass(frozen=True, slots=True)
class Row:
    """One implementation's results.

    Attributes:
        name: e.g. "onnx baked int8".
        taken: whether the manifest ships it.
        size_bytes: of the artefact; for PyTorch, of the checkpoint.
        load_ms: file to ready.
        first_ms: first call.
        latency: percentiles.
        latency_ns: raw samples.
        verdict: parity with PyTorch on the bundle's verification swipes.
    """

    name: str
    taken: bool
    size_bytes: int
    load_ms: float
    first_ms: float
    latency: Latency
    latency_ns: list[int]
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Bench:
    """All results of one run.

    Attributes:
        rows: one per implementation that was measured; PyTorch first.
        skipped: artefacts that cannot be executed here, with the reason; never a pass.
        manifest: the bundle's manifest.
        threads: CPU threads each implementation was given.
        lexicon: name and hash of the lexicon that decoded.
    """

    rows: tuple[Row, ...]
    skipped: dict[str, str]
    manifest: Manifest
    threads: int
    lexicon: dict[str, str]

    @property
    def failed(self) -> list[Row]:
        """Rows that missed a parity limit."""
        return [row for row in self.rows if row.verdict.status is not Status.PASS]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready results, raw samples included."""
        rows = [{**asdict(row), "verdict": row.verdict.to_dict()} for row in self.rows]
        return {
            "schema": SCHEMA,
            "device": "local",
            "machine": f"{platform.system()} {platform.machine()}",
            "emulated": False,
            "threads": self.threads,
            "versions": library_versions(),
            "contract_id": self.manifest.source.contract_id,
            "weights_sha256": self.manifest.source.weights_sha256,
            "swipes": self.manifest.source.swipes,
            "lexicon": self.lexicon,
            "rows": rows,
            "skipped": self.skipped,
        }


def bench(
    folder: Path, plan: Plan, threads: int, lexicon: str | None, observe: Callable[[str], None]
) -> Bench:
    """Measure latency and parity of every implementation in the bundle at `folder`.

    Args:
        folder: a bundle written by ``swipe-export``.
        plan: how long to measure.
        threads: CPU threads per implementation.
        lexicon: lexicon to decode with; None: the manifest's.
        observe: told what is going on.

    Raises:
        UsageError: there is no bundle, or its lexicon is not here.
        GateError: an artefact, the checkpoint or the swipes are not the manifest's.
    """
    import torch

    from swipe.decode import BeamDecoder
    from swipe.lexicon import load_lexicon
    from swipe.presets import settings_of
    from train.checkpoint import load_checkpoint
    from train.evaluate import predict

    torch.set_num_threads(threads)
    manifest = load_manifest(folder)
    checkpoint = load_checkpoint(folder / CHECKPOINT)
    if checkpoint.weights_sha256 != manifest.source.weights_sha256:
        raise GateError(
            f"{folder / CHECKPOINT} is not the checkpoint the manifest speaks of",
            fix="export again",
        )
    features, words = _verification(folder, manifest)
    words_known = load_lexicon(lexicon or manifest.source.lexicon)
    if lexicon is None and words_known.sha256 != manifest.source.lexicon_sha256:
        raise GateError(
            f"lexicon {manifest.source.lexicon} is not the one the bundle was judged with",
            fix="bring back that lexicon, name another with --lexicon, or export again",
        )
    preset = manifest.source.preset
    if preset is not None and words_known.sha256 != manifest.source.lexicon_sha256:
        observe("decoding with the default settings: the bundle's preset is for its own lexicon")
        preset = None
    decode = BeamDecoder(words_known, settings_of(preset, words_known)).decode_words
    observe(f"PyTorch on {len(words):,} swipes")
    logits = predict(checkpoint.model(), checkpoint.contract, features)
    reference = Answers(logits, decode(logits))
    evidence = {
        name: find_view(name).evidence(checkpoint, features, words, reference, decode)
        for name in {BAKED.name, *(entry.view for entry in manifest.formats)}
    }
    rounding = manifest.source.reference_rounding

    def eager() -> Runner:
        baked = BAKED.module(checkpoint.model(), checkpoint.contract)

        def run(row: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return baked(torch.from_numpy(row)).numpy()  # type: ignore[no-any-return]

        return run

    loaders: dict[str, Loader] = {EAGER: eager}
    entries: dict[str, tuple[RungEntry | None, Limits, Evidence]] = {
        EAGER: (None, find_target("onnx").baseline.limits.allowing(rounding), evidence[BAKED.name])
    }
    skipped: dict[str, str] = {}
    for format_entry in manifest.formats:
        target = find_target(format_entry.format)
        for entry in format_entry.rungs:
            if entry.file is None:
                continue
            name = f"{target.name} {format_entry.view} {entry.rung}"
            path = require_unaltered(folder, entry)
            if not target.executes_here():
                skipped[name] = f"{target.name} executes on {'/'.join(target.executes_on)} only"
                continue
            loaders[name] = _loader(target, path, threads)
            limits = _limits(target, entry.rung, manifest)
            entries[name] = (entry, limits, evidence[format_entry.view])
    if len(loaders) == 1 and not skipped:
        raise GateError(f"{folder} ships no artefact", fix="export again")
    context = {name: judged_by.context for name, (_, _, judged_by) in entries.items()}
    runners, timings = measure(loaders, features, context, plan, observe)
    rows = []
    for name, runner in runners.items():
        observe(f"parity of {name}")
        entry_or_none, limits, judged_by = entries[name]
        rows.append(
            Row(
                name=name,
                taken=entry_or_none is not None and entry_or_none.taken,
                size_bytes=(entry_or_none and entry_or_none.size_bytes)
                or (folder / CHECKPOINT).stat().st_size,
                load_ms=timings[name].load_ms,
                first_ms=timings[name].first_ms,
                latency=summarize(timings[name].latency_ns),
                latency_ns=timings[name].latency_ns,
                verdict=_verdict(runner, judged_by, limits),
            )
        )
    used = {"name": words_known.name, "sha256": words_known.sha256}
    return Bench(tuple(rows), skipped, manifest, threads, used)


def _verification(folder: Path, manifest: Manifest) -> tuple[NDArray[np.float32], list[str]]:
    path = folder / VERIFICATION
    if not path.is_file() or sha256_file(path) != manifest.source.verification_sha256:
        raise GateError(
            f"{path} does not hold the swipes the manifest speaks of", fix="export again"
        )
    with np.load(path) as samples:
        return samples["features"], [str(word) for word in samples["words"]]


def _loader(target: Target, path: Path, threads: int) -> Loader:
    return lambda: target.format().load(path, threads)


def _limits(target: Target, rung: str, manifest: Manifest) -> Limits:
    """The limits the rung was exported under."""
    found = next((r for r in target.rungs if r.name == rung), None)
    if found is None:
        raise GateError(f"{target.name} has no rung {rung!r}", fix="export again")
    limits = found.limits.allowing(manifest.source.reference_rounding)
    if found.quantized:
        limits = replace(limits, accuracy_drop=manifest.source.accuracy_budget)
    return limits


def _verdict(runner: Runner, evidence: Evidence, limits: Limits) -> Verdict:
    try:
        return judge(runner, evidence, limits)
    except GateError as error:
        return refused(str(error))
