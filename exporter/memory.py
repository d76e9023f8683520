"""What is remembered of an export: its prepared swipes, each rung, and each whole ladder.

Three things are kept, each found by everything that shapes it:

* the **preparation**: checkpoint proven, swipes chosen, PyTorch's answers to them;
* a **rung** of one format and view: its artefact and verdict; it survives a crash later on;
* a **ladder** of one format and view: the final records: a repeated export starts no worker.

What it leaves out: what may come out otherwise the next time. An export that was refused, a rung
that could not be built or opened, or was refused for its speed alone, and any ladder with such a
rung, are worked out again, since the cause may be gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from exporter.cache import Cache, key_of
from exporter.ladder import RungRecord
from exporter.parity import Level, Status, Verdict
from exporter.policy import Policy
from exporter.speed import Speed

Record = dict[str, Any]
"""A `RungRecord` as JSON."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The results of one format and view.

    Attributes:
        cache: where they are kept.
        parts: what shapes all of them: model, swipes, lexicon, code, machine, format and view.
    """

    cache: Cache
    parts: Mapping[str, Any]

    def recall_ladder(self, policy: Policy, folder: Path) -> list[Record] | None:
        """The final records, with the artefacts put into `folder`; None when not all are here."""
        kept = self.cache.recall(self._ladder_key(policy), folder)
        return None if kept is None else list(kept)

    def keep_ladder(self, policy: Policy, records: Sequence[RungRecord], folder: Path) -> None:
        """Keep the final `records`, whose artefacts are in `folder`, where all of them last."""
        if not all(record.verdict.lasting for record in records):
            return
        files = [folder / record.file for record in records if record.file is not None]
        self.cache.keep(self._ladder_key(policy), list(map(to_record, records)), files)

    def _ladder_key(self, policy: Policy) -> str:
        decided = asdict(policy) if policy.quantize else {"quantize": False}
        return key_of({**self.parts, "kind": "ladder", "policy": decided})

    def recall_rung(self, rung: Mapping[str, Any], folder: Path) -> RungRecord | None:
        """The record of a rung that `rung` determines, with its artefact put into `folder`."""
        kept = self.cache.recall(self._rung_key(rung), folder)
        return None if kept is None else from_record(kept["record"])

    def keep_rung(self, rung: Mapping[str, Any], record: RungRecord, folder: Path) -> None:
        """Keep the `record` of a rung if it lasts; its artefact is in `folder` unless refused."""
        if not record.verdict.lasting:
            return
        files = [] if record.file is None else [folder / record.file]
        about = {"format": self.parts["format"], "view": self.parts["view"]}
        self.cache.keep(self._rung_key(rung), {**about, "record": to_record(record)}, files)

    def _rung_key(self, rung: Mapping[str, Any]) -> str:
        return key_of({**self.parts, "kind": "rung", **rung})


def durations(cache: Cache) -> dict[tuple[str, str, str], list[float]]:
    """Seconds that remembered rungs took to build and verify, by format, view and rung."""
    found: dict[tuple[str, str, str], list[float]] = {}
    for payload in cache.payloads():
        if isinstance(payload, dict) and "record" in payload:
            record = payload["record"]
            name = (payload["format"], payload["view"], record["rung"])
            found.setdefault(name, []).append(float(record["seconds"]))
    return found


def to_record(record: RungRecord) -> Record:
    """`record` as JSON types."""
    return {**asdict(record), "verdict": record.verdict.to_dict()}


def from_record(fields: Mapping[str, Any]) -> RungRecord:
    """The record that `to_record` wrote."""
    verdict, speed = fields["verdict"], fields["speed"]
    return RungRecord(
        **{
            **fields,
            "verdict": Verdict(
                Status(verdict["status"]),
                Level(verdict["level"]),
                tuple(verdict["reasons"]),
                verdict["metrics"],
            ),
            "speed": None if speed is None else Speed(**speed),
            "float_layers": tuple(fields["float_layers"]),
        }
    )
