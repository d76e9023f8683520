"""Claims of a manifest that contradict each other; nothing but the manifest is read.

An edit that nothing can be recomputed against still has to fit everything else that is said: a
verdict its figures, figures the number of swipes, a file name its rung, a level the machine.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from exporter.manifest import (
    Build,
    FormatEntry,
    Manifest,
    ModelSource,
    RungEntry,
    Source,
    SwipeSource,
)
from exporter.parity import Cost, Kind, Level, Metrics, Status
from exporter.parity.comparison import untold
from exporter.parity.outputs import misses
from exporter.policy import Policy
from exporter.targets import Target, find_target
from exporter.verification.expected import stem_of
from exporter.verification.findings import Finding, Gate, judged
from exporter.words import SCORES
from swipe.errors import SwipeError

_METRICS = TypeAdapter(Metrics)
EXPORTED: frozenset[str] = frozenset({Level.STRUCTURAL, Level.REFERENCE, Level.HOST})
"""Levels that an export reaches; the others are the bench's."""
ROUNDING_MOST: Final = 1e-2
"""Above the rounding error of any swipe model: released ones have 1e-5 to 2e-4. Limits grow with
it, so a larger one would excuse any artefact. Anyone's model has outputs of any size."""


def contradictions(manifest: Manifest) -> Iterator[Finding]:
    """Whether all that `manifest` says fits together."""
    yield judged(Gate.RUNGS, "", _unknown_entries(manifest))
    # The word of a view that spells is what it spells, of all others what the lexicon makes of it.
    spelling = {view.name for view in manifest.views if view.text is not None}
    references: dict[bool, list[Any]] = {}
    for entry in manifest.formats:
        about = f"{entry.format} {entry.view}"
        try:
            target, stem = find_target(entry.format), stem_of(manifest, entry.view)
            build = manifest.builds[entry.build]
        except (SwipeError, IndexError):
            continue  # refused above
        yield judged(Gate.RUNGS, about, _wrong_rungs(target, entry, stem, build))
        yield judged(Gate.RECIPE, about, _wrong_recipe(manifest, entry, build))
        for rung in entry.rungs:
            name = f"{about} {rung.rung}"
            yield judged(Gate.VERDICTS, name, _wrong_verdict(manifest, target, rung, build))
            if rung.verdict.metrics is None:
                continue
            yield judged(Gate.FIGURES, name, _wrong_figures(manifest, rung.verdict.metrics))
            scores = rung.verdict.metrics.get("reference_scores")
            references.setdefault(entry.view in spelling, []).append(scores)
    reasons = list(_wrong_rounding(manifest.source))
    if not all(scores == same[0] for same in references.values() for scores in same):
        reasons.append("PyTorch's own scores differ from rung to rung")
    yield judged(Gate.FIGURES, "PyTorch", reasons)


def _wrong_rounding(source: Source) -> Iterator[str]:
    most = ROUNDING_MOST if isinstance(source, SwipeSource) else sys.float_info.max
    if not (0 <= source.reference_rounding <= most):
        yield f"its own rounding error is {source.reference_rounding}, none is above {most:g}"


def _unknown_entries(manifest: Manifest) -> Iterator[str]:
    if not manifest.formats:
        yield "it ships no artefact"
    names = Counter((entry.format, entry.view) for entry in manifest.formats)
    for (name, view), count in names.items():
        if count > 1:
            yield f"{name} {view} is there {count} times"
        try:
            find_target(name), stem_of(manifest, view)
        except SwipeError as error:
            yield str(error)
    for entry in manifest.formats:
        if not (0 <= entry.build < len(manifest.builds)):
            yield f"{entry.format} {entry.view} is of build {entry.build}, which is not there"
    files = Counter(rung.file for entry in manifest.formats for rung in entry.rungs if rung.file)
    yield from (f"{name} is there {count} times" for name, count in files.items() if count > 1)


def _wrong_rungs(target: Target, entry: FormatEntry, stem: str, build: Build) -> Iterator[str]:
    names = [rung.rung for rung in entry.rungs]
    known = [rung.name for rung in target.rungs]
    if len(set(names)) != len(names) or not set(names) <= set(known):
        yield f"its rungs are {names}, {target.name} has {known}"
        return
    baseline = target.baseline.name
    if not names or names[-1] != baseline:
        yield f"its last rung is not {baseline}, against which the others are judged"
        return
    taken = [rung for rung in entry.rungs if rung.taken]
    if len(taken) != 1 or taken[0].file is None:
        yield f"{len(taken)} artefacts are to be shipped, not one"
    if not build.recipe.policy.get("quantize") and len(names) > 1:
        yield "quantized rungs were tried, although the recipe asks for none"
    largest = entry.rungs[-1].size_bytes
    for rung in entry.rungs:
        yield from (f"{rung.rung}: {reason}" for reason in _wrong_rung(target, rung, stem))
        if rung.taken and rung.rung != baseline and not ((rung.size_bytes or 0) < (largest or 0)):
            yield f"{rung.rung} is to be shipped, and is no smaller than {baseline}"


def _wrong_rung(target: Target, rung: RungEntry, stem: str) -> Iterator[str]:
    failed = rung.verdict.status == Status.FAIL
    if rung.taken and failed:
        yield "it is to be shipped although its verdict is FAIL"
    if failed and rung.file is not None:
        yield "its verdict is FAIL, and its file was kept"
    if (rung.file is None) != (rung.sha256 is None):
        yield "it has a file without a hash, or a hash without a file"
    if rung.file is None:
        return
    expected = f"{stem}.{rung.rung}{target.suffix}"
    if rung.file != expected:
        yield f"its file is {rung.file}, and is called {expected} when it is of this rung"
    if rung.size_bytes != rung.facts.get("size_bytes"):
        yield f"{rung.size_bytes} bytes, and {rung.facts.get('size_bytes')} among its facts"


def _wrong_verdict(
    manifest: Manifest, target: Target, rung: RungEntry, build: Build
) -> Iterator[str]:
    verdict = rung.verdict
    status, level = Status(verdict.status), Level(verdict.level)
    passed = status is Status.PASS
    if passed == bool(verdict.reasons):
        yield f"{status} {'with' if passed else 'without'} a reason"
    if level not in EXPORTED:
        yield f"no export executes at level {level}"
        return
    system = build.platform.partition(" ")[0].lower()
    executable = not target.executes_on or system in target.executes_on
    if level is Level.HOST and not executable:
        yield f"level host on {build.platform}, where {target.name} cannot be executed"
    if level is Level.REFERENCE and (executable or not target.interpreted):
        yield f"level reference on {build.platform}, where {target.name} is not interpreted"
    if level is Level.STRUCTURAL:
        if passed or verdict.metrics is not None:
            yield f"{status} with level structural: what was not executed has no figures"
        elif (executable or target.interpreted) and status is Status.UNVERIFIED:
            yield f"not executed on {build.platform}, where {target.name} can be"
    elif verdict.metrics is None and status is not Status.FAIL:
        yield f"{status} at level {level} without figures"
    if passed and verdict.metrics is not None:
        yield from _missed(manifest, target, rung, verdict.metrics)


def _missed(
    manifest: Manifest, target: Target, rung: RungEntry, figures: dict[str, Any]
) -> Iterator[str]:
    """Limits that the figures of a PASS miss."""
    source, budget = manifest.source, manifest.accuracy_budget
    try:
        metrics = _METRICS.validate_python(figures)
        limits = target.find_rung(rung.rung).limits_within(budget, source.reference_rounding)
    except (ValidationError, SwipeError):
        return  # refused as figures and as a rung
    yield from (
        f"PASS although {reason}"
        for reason in misses(metrics.max_abs_delta, metrics.agreement, limits)
    )
    if metrics.cost is None:
        if not isinstance(source, ModelSource) or source.metric is not None:
            yield "PASS without a cost in accuracy"
        elif (why := untold(metrics, limits)) is not None:
            yield f"PASS although {why}"
        return
    if metrics.cost.samples < 1 or not math.isfinite(metrics.cost.bound):
        yield f"PASS although its cost is {metrics.cost}"
        return
    outcome, why = metrics.cost.judge(limits.accuracy_drop)
    if outcome is Status.FAIL or (limits.bounded and outcome is not Status.PASS):
        yield f"PASS although {why}"


def _wrong_figures(manifest: Manifest, figures: dict[str, Any]) -> Iterator[str]:
    try:
        metrics = _METRICS.validate_python(figures)
    except ValidationError as error:
        first = error.errors()[0]
        yield f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        return
    samples = manifest.source.verification_samples
    if metrics.samples != samples:
        yield f"of {metrics.samples} samples, the bundle was judged by {samples}"
        return
    if samples < 1:
        yield f"figures of {samples} samples"
        return
    for name, value in leaves(asdict(metrics)):
        if not math.isfinite(value):
            yield f"{name} is {value}"
    yield from _wrong_presence(manifest.source, metrics)
    yield from _impossible(metrics)
    shares = {
        "greedy_agreement": metrics.greedy_agreement,
        "word_agreement": metrics.word_agreement,
    }
    scores = {name: score / 100 for name, score in metrics.scores.items()}
    scores |= {f"PyTorch's {k}": score / 100 for k, score in metrics.reference_scores.items()}
    if isinstance(manifest.source, SwipeSource):
        shares |= scores
    for name, share in shares.items():
        if share is not None and not _is_share(share, samples):
            yield f"{name} {share} is no share of {samples} samples"
    for name, score in scores.items():  # anyone's metric may be right in part
        if not (-1e-9 <= score <= 1 + 1e-9):
            yield f"{name} {score} is no score"
    if metrics.cost is not None:
        recorded_bound = figures["cost"].get("bound", math.nan)
        yield from _wrong_cost(metrics, metrics.cost, recorded_bound)


def _wrong_presence(source: SwipeSource | ModelSource, metrics: Metrics) -> Iterator[str]:
    """Figures that outputs of this kind always have and are not there, or the reverse."""
    if isinstance(source, SwipeSource):
        scores = set(SCORES)
        decided = spelled = True
        if metrics.word_agreement is None:
            yield "word_agreement is not there"
    else:
        scores = set() if source.metric is None else {source.metric}
        kind = Kind(source.outputs)
        decided, spelled = kind is not Kind.VALUES, kind is Kind.CTC
    for name, figure, belongs in (
        ("agreement", metrics.agreement, decided),
        ("greedy_agreement", metrics.greedy_agreement, spelled),
        ("greedy_edits", metrics.greedy_edits, spelled),
        ("cost", metrics.cost, bool(scores)),
    ):
        if (figure is not None) != belongs:
            yield f"{name} is {'not there' if belongs else 'there, and outputs have none'}"
    for whose, found in (("", metrics.scores), ("PyTorch's ", metrics.reference_scores)):
        if set(found) != scores:
            yield f"{whose}scores are {sorted(found)}, and not {sorted(scores)}"


def _impossible(metrics: Metrics) -> Iterator[str]:
    """Figures that no comparison gives."""
    largest, mean = metrics.max_abs_delta, metrics.mean_abs_delta
    if not (0 <= mean <= largest * (1 + 1e-6)):  # a mean of equal numbers may be rounded up
        yield f"the largest difference is {largest}, their mean {mean}"
    agreement, edits = metrics.agreement, metrics.greedy_edits
    if agreement is not None:
        if not (0 <= agreement.frames <= 1 and 0 <= agreement.decisive <= 1):
            yield f"agreement of {agreement.frames} and {agreement.decisive} are no shares"
        if not (-1 <= agreement.blank_drift <= 1):
            yield f"blank_drift {agreement.blank_drift} is no difference of shares"
    if edits is None:
        return
    made = (edits.substitutions, edits.deletions, edits.insertions)
    if min(made) < 0 or edits.letters < 1:
        yield f"greedy_edits are {asdict(edits)}"
    elif (sum(made) == 0) != (metrics.greedy_agreement == 1):
        yield f"{sum(made)} letters differ, and {metrics.greedy_agreement} of strings are equal"


def _is_share(share: float, total: int) -> bool:
    return 0 <= share <= 1 and abs(share * total - round(share * total)) <= 1e-6


def _wrong_cost(metrics: Metrics, cost: Cost, recorded_bound: float) -> Iterator[str]:
    first = next(iter(metrics.scores), None)
    if first is None or first not in metrics.reference_scores or cost.samples != metrics.samples:
        yield "its cost is of other scores or samples"
        return
    drop = metrics.reference_scores[first] - metrics.scores[first]
    if not (abs(cost.drop - drop) <= 1e-6):
        yield f"accuracy falls {cost.drop} points, {drop} by its scores"
    if not (abs(cost.bound - recorded_bound) <= 1e-6):
        yield f"the bound of its cost is {recorded_bound}, {cost.bound} by its spread"


def leaves(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers among nested `figures`, by dotted name."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            # JSON's integers have no end, and those beyond every float are no figures either.
            beyond = abs(value) > sys.float_info.max
            yield f"{prefix}{key}", math.inf if beyond else float(value)


def _wrong_recipe(manifest: Manifest, entry: FormatEntry, build: Build) -> Iterator[str]:
    recipe, source = build.recipe, manifest.source
    try:
        policy = Policy(**recipe.policy)
    except TypeError as error:
        yield f"its policy is none of this version: {error}"
        return
    if entry.format not in recipe.formats or entry.view not in recipe.views:
        yield f"its build made {recipe.formats} for the views {recipe.views}"
    if policy.budget != manifest.accuracy_budget:
        yield f"a budget of {policy.budget}, and {manifest.accuracy_budget} in the bundle"
    yield from _wrong_asked(recipe.asked, source)
    for rung in entry.rungs:
        if not (rung.taken and rung.rung != find_target(entry.format).baseline.name):
            continue
        if policy.require_faster and (rung.speed is None or not (rung.speed.ratio < 1)):
            yield f"{rung.rung} is to be shipped, and is not known to be faster as was required"


def _wrong_asked(asked: dict[str, Any], source: SwipeSource | ModelSource) -> Iterator[str]:
    """What was asked for of the model, and is not what the source holds."""
    if isinstance(source, ModelSource):
        if asked.get("factory") != source.factory:
            yield f"factory {asked.get('factory')}, and {source.factory} in the source"
        return
    if asked.get("lexicon") != source.lexicon:
        yield f"lexicon {asked.get('lexicon')}, and {source.lexicon} in the source"
    for kind, key, found in (
        ("verified", "samples", source.verification_samples),
        ("calibrated", "calibration_samples", source.calibration_samples),
    ):
        most = asked.get(key)
        if not isinstance(most, int) or not (0 < found <= most):
            yield f"{kind} on {found} of {most} swipes that were asked for"
