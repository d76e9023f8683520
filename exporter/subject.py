"""What an export is about: a model in one form of deployment."""

from __future__ import annotations

from dataclasses import dataclass

from exporter.evidence import Evidence
from exporter.formats import Lowering


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model in one form of deployment, and what its artefacts are judged by.

    Attributes:
        name: of the form, e.g. "baked".
        stem: of its artefacts' file names.
        lowering: the job for the formats.
        evidence: what to judge by.
        output_shape: of a whole output, without the batch axis, where the evidence holds a part;
            None: it holds all of it.
    """

    name: str
    stem: str
    lowering: Lowering
    evidence: Evidence
    output_shape: tuple[int, ...] | None = None
