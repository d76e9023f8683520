"""manifest.json: what a bundle holds, what it was built from, and what is known of it."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from swipe.errors import GateError, UsageError
from swipe.files import sha256_file, write_text_atomic

SCHEMA: Final = "swipe-export/bundle/3"
FILE: Final = "manifest.json"
CHECKPOINT: Final = "checkpoint.safetensors"
VERIFICATION: Final = "verification.npz"

_LIBRARIES: Final = (
    "swipe-export", "torch", "torchao", "executorch", "coremltools",
    "onnx", "onnxscript", "onnxruntime", "numpy",
)  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Record):
    """See `exporter.parity.Verdict`."""

    status: Literal["PASS", "FAIL", "UNVERIFIED"]
    level: Literal["structural", "reference", "host", "arm64", "device"]
    reasons: tuple[str, ...]
    metrics: dict[str, Any] | None


class SpeedEntry(_Record):
    """See `exporter.speed.Speed`."""

    ratio: float
    calls: int


class RungEntry(_Record):
    """One rung that was tried; see `exporter.ladder.RungRecord`."""

    rung: str
    taken: bool
    verdict: Verdict
    file: str | None
    size_bytes: int | None
    sha256: str | None
    facts: dict[str, Any]
    seconds: float
    speed: SpeedEntry | None = None
    float_layers: tuple[str, ...] = ()


class TensorEntry(_Record):
    """One input or output; formats without names have the inputs in this order."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    meaning: str


class ViewEntry(_Record):
    """What the artefacts of one view take and give; see `exporter.views`."""

    name: str
    inputs: tuple[TensorEntry, ...]
    output: TensorEntry
    also_tried: tuple[str, ...]
    """Keyboards whose outputs had to agree with PyTorch's besides the contract's own."""


class FormatEntry(_Record):
    """The ladder of one view in one format, in the order the rungs were tried."""

    format: str
    view: str
    rungs: tuple[RungEntry, ...]

    @property
    def taken(self) -> RungEntry:
        """The artefact to ship."""
        return next(rung for rung in self.rungs if rung.taken)


class Source(_Record):
    """What everything in the bundle was built from and judged by."""

    checkpoint_step: int
    weights_sha256: str
    contract_id: str
    contract: dict[str, Any]
    parameters: int
    trained_on: dict[str, Any]
    swipes: str
    calibration_swipes: int
    verification_swipes: int
    verification_sha256: str
    lexicon: str
    lexicon_sha256: str
    decoder: dict[str, float | None]
    """`swipe.decode.DecoderPreset` that words were decoded with, for hosts; None is infinite."""
    preset: dict[str, Any] | None = None
    """`swipe.presets.TunedPreset` that these settings come from; None: they are the default."""
    accuracy_budget: float
    reference_rounding: float


class Manifest(_Record):
    """The whole bundle."""

    schema_name: str = SCHEMA
    created: str
    platform: str
    versions: dict[str, str]
    source: Source
    views: tuple[ViewEntry, ...]
    formats: tuple[FormatEntry, ...]

    def save(self, folder: Path) -> None:
        """Write ``manifest.json`` atomically."""
        write_text_atomic(folder / FILE, self.model_dump_json(indent=2) + "\n")


def load_manifest(folder: Path) -> Manifest:
    """Read a bundle's manifest.

    Raises:
        UsageError: there is no bundle.
        GateError: the manifest is damaged, or of another schema.
    """
    path = folder / FILE
    if not path.is_file():
        raise UsageError(f"no bundle at {folder}", fix="build one: swipe-export all --quantize")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise GateError(
            f"{path} is not a manifest this version can read ({where}: {first['msg']})",
            fix="export again with this version",
        ) from error
    if manifest.schema_name != SCHEMA:
        raise GateError(
            f"{path} has schema {manifest.schema_name!r}, this version reads {SCHEMA!r}",
            fix="use the version of swipe-export that wrote it, or export again",
        )
    return manifest


def require_unaltered(folder: Path, entry: RungEntry) -> Path:
    """The artefact's path, after its hash was recomputed.

    Raises:
        GateError: the file is absent or is not the one the manifest speaks of.
    """
    path = folder / str(entry.file)
    if entry.file is None or not path.exists() or sha256_file(path) != entry.sha256:
        raise GateError(f"{path} is not the artefact that {FILE} describes", fix="export again")
    return path


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library that shapes an artefact and is installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
