"""Whether an artefact is what its job says: told from the file, without executing it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exporter.formats.build import signature
from exporter.subject import Subject
from exporter.targets import Target


def misfit(target: Target, subject: Subject, path: Path, facts: Mapping[str, Any]) -> str | None:
    """Why the artefact at `path` is not one of `subject`, or None if it is.

    Args:
        target: its format.
        subject: the model it has to be of.
        path: the file.
        facts: what its structure says.

    Raises:
        LoweringError: it is damaged or holds no metadata.
        MissingError: the format's library is not installed.
    """
    job = subject.lowering
    foreign = foreign_metadata(target, path, job.metadata)
    if foreign is not None:
        return foreign
    wanted = {"inputs": signature(job.example, job), "outputs": dict[str, list[int | str]]()}
    if not job.dynamic:
        shape = subject.output_shape or subject.evidence.reference.outputs[0].shape
        if job.spelling is not None:
            wanted["outputs"][job.spelling.name] = [1]
        wanted["outputs"][job.output_name] = [1, *shape]
    for kind, shapes in wanted.items():
        if shapes and not is_signature(facts[kind], shapes):
            return f"its {kind} are {facts[kind]}, expected {shapes}"
    return None


def foreign_metadata(target: Target, path: Path, wanted: Mapping[str, str]) -> str | None:
    """Why the artefact at `path` does not carry the `wanted` metadata, or None if it does.

    Raises:
        LoweringError: it is damaged or holds no metadata.
        MissingError: the format's library is not installed.
    """
    embedded = target.format().metadata(path)
    for key, value in wanted.items():
        if embedded.get(key) != value:
            return f"carries {key} {embedded.get(key)!r}, expected {value!r}"
    return None


def is_signature(found: dict[str, list[Any]], wanted: dict[str, list[int | str]]) -> bool:
    """Whether names and shapes are the `wanted` ones, or positions where a format has no names."""
    names = (list(wanted), [str(position) for position in range(len(wanted))])
    return list(found) in names and list(found.values()) == list(wanted.values())
