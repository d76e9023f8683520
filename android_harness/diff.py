"""Two results of the same thing, earlier and later: what got worse.

Only what is comparable is compared: the same kind of device, settings and samples, real hardware,
runs that counted as valid. What is left out is said, never passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from android_harness.results import DeviceReport, Results, Row
from exporter.parity import Status

_BEST_FIRST: Final = (Status.PASS, Status.UNVERIFIED, Status.FAIL)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How much worse is not yet a regression.

    Attributes:
        latency: of p50 and p90, as a share; beyond what the intervals of both runs explain.
        points: of the first score.
        size: of the artefact, as a share.
    """

    latency: float = 0.05
    points: float = 0.25
    size: float = 0.05


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one artefact on one device, before and after.

    Attributes:
        device: where.
        row: which artefact.
        figure: what of it.
        old, new: as text.
        worse: whether it is a regression.
    """

    device: str
    row: str
    figure: str
    old: str
    new: str
    worse: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, and what could not be compared.

    Attributes:
        changes: in the order of the earlier results.
        apart: what was left out, or compared by less than usual, and why.
        compared: how many artefacts are in both; what is equal is no change.
    """

    changes: tuple[Change, ...]
    apart: tuple[str, ...]
    compared: int

    @property
    def regressions(self) -> list[Change]:
        """The changes for the worse."""
        return [change for change in self.changes if change.worse]


def compare_results(old: Results, new: Results, tolerance: Tolerance) -> Comparison:
    """What changed from `old` to `new`."""
    changes: list[Change] = []
    apart: list[str] = []
    compared = 0
    latency_apart = _settings_apart(old, new)
    scores_apart = None
    if old.verification_sha256 != new.verification_sha256:
        scores_apart = "they were judged on other samples"
    elif old.lexicon != new.lexicon:
        scores_apart = "they were decoded with another lexicon"
    matches = _matches(old, new)
    for device, match in zip(old.devices, matches, strict=True):
        if match is None:
            apart.append(f"{device.title}: not in the later results")
            continue
        pairs = {row.name: row for row in match.rows}
        for row in device.rows:
            if row.name not in pairs:
                changes.append(Change(device.title, row.name, "measured", "yes", "no", worse=True))
                continue
            pair = row, pairs[row.name]
            compared += 1
            changes += _verdict(device, *pair)
            changes += _size(device, *pair, tolerance)
            if scores_apart is None:
                changes += _score(device, *pair, tolerance)
            reason = latency_apart or _latency_apart(device, match, *pair)
            if reason is None:
                changes += _latency(device, *pair, tolerance)
                if any(r.latency and r.latency.intervals_ms is None for r in pair):
                    why = "fewer than 3 rounds tell nothing of noise"
                    apart.append(
                        f"{device.title}, {row.name}: latency by the tolerance alone, {why}"
                    )
            else:
                apart.append(f"{device.title}, {row.name}: latency not compared, {reason}")
        names = {row.name for row in device.rows}
        apart += [
            f"{device.title}, {name}: not in the earlier results"
            for name in pairs
            if name not in names
        ]
    apart += [
        f"{device.title}: not in the earlier results"
        for device in new.devices
        if not any(device is match for match in matches)
    ]
    if scores_apart is not None:
        apart.append(f"scores not compared, {scores_apart}")
    return Comparison(tuple(changes), tuple(apart), compared)


def _matches(old: Results, new: Results) -> list[DeviceReport | None]:
    """The later report for each earlier one: of the same phone, or else of one like it."""
    left = list(new.devices)
    found: list[DeviceReport | None] = [None] * len(old.devices)
    for same in (_itself, _identity):
        for place, device in enumerate(old.devices):
            like = [later for later in left if same(later) == same(device)]
            if found[place] is None and like:
                found[place] = like[0]
                left = [later for later in left if later is not like[0]]
    return found


def _identity(device: DeviceReport) -> tuple[str | None, ...]:
    """What makes figures of two runs comparable; another phone of the same model will do."""
    facts = device.facts
    return facts.kind, facts.model, facts.soc, facts.abi


def _itself(device: DeviceReport) -> tuple[str | None, ...]:
    return *_identity(device), device.facts.serial


def _settings_apart(old: Results, new: Results) -> str | None:
    for name in ("threads", "cpus", "ep"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            return f"{name} was {before} and is {after}"
    return None


def _latency_apart(old: DeviceReport, new: DeviceReport, before: Row, after: Row) -> str | None:
    for device, row in ((old, before), (new, after)):
        if device.facts.emulated is not None:
            return "an emulator's says nothing"
        if row.invalid:
            return f"it was not valid: {row.invalid[0]}"
        if row.latency is None:
            return "it was not measured"
    return None


def _verdict(device: DeviceReport, old: Row, new: Row) -> Iterator[Change]:
    before, after = old.verdict.status, new.verdict.status
    if before != after:
        worse = _BEST_FIRST.index(after) > _BEST_FIRST.index(before)
        yield Change(device.title, old.name, "verdict", before, after, worse)


def _size(device: DeviceReport, old: Row, new: Row, tolerance: Tolerance) -> Iterator[Change]:
    before, after = old.size_bytes, new.size_bytes
    if before != after:
        worse = not (after <= before * (1 + tolerance.size))
        yield Change(
            device.title, old.name, "kB", f"{before / 1000:.0f}", f"{after / 1000:.0f}", worse
        )


def _score(device: DeviceReport, old: Row, new: Row, tolerance: Tolerance) -> Iterator[Change]:
    if old.verdict.metrics is None or new.verdict.metrics is None:
        return
    before, after = old.verdict.metrics["scores"], new.verdict.metrics["scores"]
    for name in list(before)[:1]:
        if name not in after:
            yield Change(device.title, old.name, name, f"{before[name]:.2f}", "none", worse=True)
        elif before[name] != after[name]:
            worse = not (after[name] >= before[name] - tolerance.points)
            yield Change(
                device.title, old.name, name, f"{before[name]:.2f}", f"{after[name]:.2f}", worse
            )


def _latency(device: DeviceReport, old: Row, new: Row, tolerance: Tolerance) -> Iterator[Change]:
    if old.latency is None or new.latency is None:
        raise AssertionError("only measured latencies are compared")
    for place, name in enumerate(("p50", "p90")):
        before = getattr(old.latency, f"{name}_ms")
        after = getattr(new.latency, f"{name}_ms")
        # Intervals that overlap are what two runs of the same thing look like.
        low = new.latency.intervals_ms[place][0] if new.latency.intervals_ms else after
        high = old.latency.intervals_ms[place][1] if old.latency.intervals_ms else before
        worse = not (low <= high * (1 + tolerance.latency))
        yield Change(device.title, old.name, f"{name} ms", f"{before:.3f}", f"{after:.3f}", worse)
