"""Where a bundle comes from, behind one interface: a swipe checkpoint, or anyone's model.

An `Origin` is what the user asked for, once it was opened and proven: it puts into the bundle what
is needed to judge it again. `Subjects` is the same seen from the other side: what a worker lowers,
and what the bench judges by, made again from the bundle's folder and its record.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from exporter.evidence import Evidence
from exporter.formats import Runner
from exporter.manifest import CHECKPOINT, FILE, VERIFICATION, ModelSource, SwipeSource, ViewEntry
from exporter.subject import Subject
from swipe.errors import GateError
from swipe.files import hash_of
from swipe.progress import Say


class Origin(Protocol):
    """What the user asked for, opened and proven."""

    @property
    def views(self) -> tuple[str, ...]:
        """The forms of it to build, by name."""

    def describe(self) -> tuple[ViewEntry, ...]:
        """What each form takes and gives; forms that are not asked for now may be among them."""

    def keep(self, folder: Path, scratch: Path) -> SwipeSource | ModelSource:
        """Write weights and verification samples to the bundle's `folder`; returns its record.

        Args:
            folder: becomes the bundle.
            scratch: for what only the workers need.

        Raises:
            GateError: nothing could be judged by what the model answers.
        """


class Request(Protocol):
    """What the user asked for; see `exporter.origins.requests`."""

    @property
    def lexicon(self) -> str | None:
        """What decodes, as the user named it; None where nothing of ours does."""

    def recipe(self) -> dict[str, Any]:
        """All that the user asked for and that is fixed here, JSON types, no absolute path."""

    @property
    def views(self) -> tuple[str, ...]:
        """The forms that were asked for by name; the others are known once it was opened."""

    def left_out(self, target: str) -> Mapping[str, str]:
        """Why the format `target` cannot have some of `views`, by name."""

    def needs(self) -> Mapping[str, str]:
        """Libraries that `views` need besides their formats', each with the extra it is in."""

    def parts(self) -> dict[str, Any] | None:
        """Everything that shapes what is opened, JSON types; None where no hash can know it.

        Raises:
            UsageError: a file named on the command line is not there.
        """

    def open(self, say: Say) -> Origin:
        """Read and prove it.

        Raises:
            UsageError: something named on the command line cannot be used.
            GateError: it is damaged, or not finite.
        """


class Subjects(Protocol):
    """The models of a bundle, and what each is judged by."""

    @property
    def eager_view(self) -> str:
        """The form that PyTorch itself is measured in."""

    @property
    def decoding(self) -> Mapping[str, str]:
        """Name and hash of what decodes; empty where nothing of ours does."""

    @property
    def calibration_sha256(self) -> str | None:
        """Of the calibration samples, as in the record; None where they are not here."""

    def describe(self) -> tuple[ViewEntry, ...]:
        """See `Origin.describe`."""

    def metadata(self, view: str) -> Mapping[str, str]:
        """What every artefact of the form `view` carries, by key."""

    def rounding(self) -> float:
        """The error of PyTorch's own float32 answers, measured here."""

    def eager(self) -> Runner:
        """PyTorch itself, in the form `eager_view`."""

    def evidence(self, view: str) -> Evidence:
        """What artefacts of the form `view` are judged by."""

    def subject(self, view: str) -> Subject:
        """The form `view` with the job for the formats; in a worker only."""


def reopen(
    folder: Path,
    source: SwipeSource | ModelSource,
    *,
    scratch: Path | None = None,
    lexicon: str | None = None,
    say: Say,
) -> Subjects:
    """The models of the bundle in `folder`, whose record is `source`.

    Args:
        folder: with the weights and the verification samples.
        source: the record; files must be those that it speaks of.
        scratch: the workers' folder, for what the bundle does not keep.
        lexicon: decode with another one than the record's.
        say: told what takes time.

    Raises:
        UsageError: a lexicon or factory is not here, or does not apply.
        GateError: weights or samples are not those of the record.
    """
    path = folder / VERIFICATION
    if not path.is_file() or hash_of(path) != source.verification_sha256:
        raise GateError(f"{path} is not what the {FILE} speaks of", fix="export again")
    if isinstance(source, SwipeSource):
        from exporter.origins.swipe import reopen_swipe

        return reopen_swipe(folder, source, scratch, lexicon, say)
    from exporter.origins.brought import reopen_brought

    return reopen_brought(folder, source, lexicon, say)


def require_weights(folder: Path, found: str, source: SwipeSource | ModelSource) -> None:
    """Refuse weights with the digest `found` that are not the record's.

    Raises:
        GateError: they are others.
    """
    if found != source.weights_sha256:
        raise GateError(
            f"{folder / CHECKPOINT} is not the checkpoint the manifest speaks of",
            fix="export again",
        )
