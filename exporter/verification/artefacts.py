"""Artefacts, hashed and read again: what they carry, what is in them, what they take and give.

What it leaves out: executing them, which is `exporter.verification.execution`'s.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.conformance import foreign_metadata, is_signature
from exporter.manifest import FILE, Build, Manifest, RungEntry
from exporter.targets import Target, find_target
from exporter.verification.expected import Expected, stem_of
from exporter.verification.findings import Finding, Gate, judged, unknown
from swipe.errors import GateError, MissingError, SwipeError
from swipe.files import hash_of, size_bytes


@dataclass(frozen=True, slots=True, eq=False)
class Artefact:
    """A file that the manifest speaks of.

    Attributes:
        path: where it is.
        target: its format.
        view: name of its view.
        entry: what the manifest says of it.
        build: what made it.
    """

    path: Path
    target: Target
    view: str
    entry: RungEntry
    build: Build


def artefacts_of(folder: Path, manifest: Manifest) -> list[Artefact]:
    """Those that are there; what is absent or of an unknown kind was refused by name before."""
    found = []
    for entry in manifest.formats:
        try:
            target, _ = find_target(entry.format), stem_of(manifest, entry.view)
            build = manifest.builds[entry.build]
        except (SwipeError, IndexError):
            continue
        for rung in entry.rungs:
            name = str(rung.file)
            if rung.file is not None and Path(name).name == name and (folder / name).exists():
                found.append(Artefact(folder / name, target, entry.view, rung, build))
    return found


def check_artefact(artefact: Artefact, expected: Expected | None) -> Iterator[Finding]:
    """Every gate that needs no execution; nothing is `expected` of an unsound checkpoint."""
    name, entry = artefact.path.name, artefact.entry
    digest, size = hash_of(artefact.path), size_bytes(artefact.path)
    other = [] if digest == entry.sha256 else [f"{digest} is not {entry.sha256}"]
    yield judged(Gate.HASH, name, other)
    wrong = [] if size == entry.size_bytes else [f"{size} bytes, {FILE} says {entry.size_bytes}"]
    yield judged(Gate.SIZE, name, wrong)
    gates: tuple[Gate, ...] = (Gate.METADATA, Gate.FACTS, Gate.SIGNATURE)
    if expected is None:
        for gate in (Gate.METADATA, Gate.SIGNATURE):
            yield unknown(gate, name, "the checkpoint, which it is for, is unsound", matters=True)
        gates = (Gate.FACTS,)
    for gate in gates:
        try:
            yield judged(gate, name, _reasons(gate, artefact, expected))
        except MissingError as error:
            yield unknown(gate, name, str(error), matters=True)


def _reasons(gate: Gate, artefact: Artefact, expected: Expected | None) -> list[str]:
    try:
        if gate is Gate.FACTS:
            return list(_wrong_facts(artefact))
        if expected is None:
            raise AssertionError("only facts can be checked without a checkpoint")
        if gate is Gate.SIGNATURE:
            return list(_wrong_signature(artefact, expected))
        foreign = foreign_metadata(artefact.target, artefact.path, expected.metadata)
        return [] if foreign is None else [foreign]
    except GateError as error:
        return [str(error)]


def _wrong_facts(artefact: Artefact) -> Iterator[str]:
    recorded, found = artefact.entry.facts, _facts(artefact)
    for key in sorted(set(recorded) | set(found)):
        if recorded.get(key) != found.get(key):
            yield f"{key} is {found.get(key)}, {FILE} says {recorded.get(key)}"
    rung, baseline = artefact.entry.rung, artefact.target.baseline.name
    if rung == baseline and found["quantized"]:
        yield f"it is called {rung} and is quantized"
    if rung == "int8" and not found["quantized"]:
        yield "it is called int8 and is not quantized"


def _wrong_signature(artefact: Artefact, expected: Expected) -> Iterator[str]:
    described, found = expected.described, _facts(artefact)
    varies = any(isinstance(size, str) for tensor in described.inputs for size in tensor.shape)
    kinds = {"inputs": described.inputs}
    if not varies:  # formats name sizes of outputs that vary as they like
        text = () if described.text is None else (described.text,)
        kinds["outputs"] = (*text, described.output)
    for kind, tensors in kinds.items():
        wanted: dict[str, list[int | str]] = {t.name: list(t.shape) for t in tensors}
        if not is_signature(found[kind], wanted):
            yield f"its {kind} are {found[kind]}, of this view they are {wanted}"


def _facts(artefact: Artefact) -> dict[str, Any]:
    """What the structure says, as JSON keeps it."""
    facts: dict[str, Any] = json.loads(json.dumps(artefact.target.format().inspect(artefact.path)))
    return facts
