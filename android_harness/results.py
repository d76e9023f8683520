"""bench.json: what was measured, where, of what; one form for this machine and for phones."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from android_harness.devices import Facts, Thermal
from android_harness.runners.record import Block, Engine, Rss
from android_harness.stats import Latency
from exporter.manifest import Verdict
from exporter.parity import Status
from swipe.errors import GateError, UsageError
from swipe.files import write_text_atomic
from swipe.scoring import Edits

EAGER: Final = "pytorch eager"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Memory(_Record):
    """A run of its own, without timing; kB, None where the system does not say."""

    rss: Rss
    pss_kb: int | None


class Difference(_Record):
    """One artefact in two places: what another processor made of the same file and inputs.

    Quantized arithmetic may round otherwise on ARM than on x86 and still decide the same.
    """

    max_abs_delta: float
    identical: float
    """Share of samples with the same output, bit for bit."""
    decisions: float | None
    """Share of equal decisions, of those where either side spoke."""
    words: float | None
    """Share of equal first words; None where nothing is decoded."""
    edits: Edits | None
    """Letters of the first words that were substituted, deleted and inserted."""


class Row(_Record):
    """One implementation's results on one device."""

    name: str
    """E.g. "onnx baked int8"."""
    format: str | None
    """None, as `view` and `rung`: PyTorch itself."""
    view: str | None
    rung: str | None
    taken: bool
    """Whether the manifest ships it."""
    sha256: str | None
    size_bytes: int
    """Of the artefact; for PyTorch, of the checkpoint."""
    engine: Engine | None = None
    """What executed it; None for the Python runtimes, whose versions are in `Results`."""
    load_ms: tuple[float, ...] = ()
    """From file to something that can be called, of every load."""
    first_ms: tuple[float, ...] = ()
    """The first call after each load."""
    latency_ns: tuple[tuple[int, ...], ...] = ()
    """Every timed call, by round; empty where an interpreter stands in for the runtime."""
    blocks: tuple[tuple[Block, ...], ...] = ()
    """Readings during each round, on devices."""
    latency: Latency | None = None
    memory: Memory | None = None
    verdict: Verdict
    from_host: Difference | None = None
    """Against the Python runtime of this machine; None where that is what was measured."""
    word_edits: Edits | None = None
    """Letters of the first words against those of PyTorch's first words."""
    invalid: tuple[str, ...] = ()
    """Why its latency is not to be used."""


class Slice(_Record):
    """A piece of a sustained run."""

    at_s: float
    p50_ms: float
    p90_ms: float
    temp_mc: int | None
    khz_max: int | None


class DeviceReport(_Record):
    """All that one device gave."""

    facts: Facts
    thermal: tuple[Thermal, ...] = ()
    """Before and after."""
    waited_s: float = 0.0
    """For it to cool down."""
    throttled: tuple[str, ...] = ()
    """What says that it slowed down during the run."""
    rows: tuple[Row, ...]
    skipped: dict[str, str]
    """Artefacts that could not be executed there, with the reason; never a pass."""
    elsewhere: tuple[str, ...] = ()
    """Artefacts of formats that such a device does not have, which is no fault of theirs."""
    sustained: dict[str, tuple[Slice, ...]] = {}

    @property
    def title(self) -> str:
        """How it is called in tables."""
        kind, name = self.facts.kind, self.facts.model or self.facts.serial
        return name if kind in ("android", name) else f"{kind} {name}"

    @property
    def eager_ms(self) -> float | None:
        """PyTorch's median latency; None where it is not there."""
        for row in self.rows:
            if row.name == EAGER and row.latency is not None:
                return row.latency.p50_ms
        return None

    @property
    def failed(self) -> list[Row]:
        """Rows that missed a parity limit."""
        return [row for row in self.rows if row.verdict.status == Status.FAIL]

    @property
    def untold(self) -> list[Row]:
        """Rows of which the swipes, too few or too unlike, do not tell whether they passed."""
        return [row for row in self.rows if row.verdict.status == Status.UNVERIFIED]


class Results(_Record):
    """The whole file."""

    schema_name: Literal["swipe-export/bench/4"] = "swipe-export/bench/4"
    created: str
    versions: dict[str, str]
    identity: dict[str, str]
    weights_sha256: str
    samples: str
    verification_samples: int
    verification_sha256: str
    lexicon: dict[str, str]
    """Name and hash of what decoded; empty where nothing did."""
    threads: int
    cpus: str | None = None
    ep: str = "cpu"
    devices: tuple[DeviceReport, ...]
    lost: dict[str, str] = {}
    """Devices that were asked for and gave nothing, by serial, with the reason."""

    @property
    def rows(self) -> list[Row]:
        """Of all devices."""
        return [row for device in self.devices for row in device.rows]

    @property
    def failed(self) -> list[Row]:
        """Rows that missed a parity limit, of all devices."""
        return [row for device in self.devices for row in device.failed]

    @property
    def unverified(self) -> bool:
        """Whether something was not executed, not told, or measured and cannot be used."""
        return any(device.skipped or device.untold for device in self.devices) or any(
            row.invalid for row in self.rows
        )

    def save(self, path: Path) -> None:
        """Write it atomically.

        Raises:
            UsageError: it cannot be written there.
        """
        write_text_atomic(path, self.model_dump_json() + "\n")


def place_aside(path: Path) -> Path:
    """Where the results at `path`, in a bundle, are kept when others take their place.

    Beside the bundle, which holds what was exported; named by the time when they were written.
    """
    bundle = path.resolve().parent
    written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return bundle.with_name(f"{bundle.name}.{path.stem}.{written:%Y%m%d-%H%M%S}.json")


def repeats(results: Results, path: Path) -> bool:
    """Whether `results` have each device of the earlier ones at `path`: those may be replaced."""
    try:
        devices = {_whose(device) for device in load_results(path).devices}
    except GateError:
        return False  # of another version: nobody knows what is in them
    return devices <= {_whose(device) for device in results.devices}


def _whose(device: DeviceReport) -> tuple[str, str]:
    return device.facts.kind, device.facts.serial


def load_results(path: Path) -> Results:
    """Read what `Results.save` wrote.

    Raises:
        UsageError: there is no such file.
        GateError: it is damaged or of another schema.
    """
    if not path.is_file():
        raise UsageError(f"no results at {path}", fix="measure first: swipe-bench --json FILE")
    try:
        return Results.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first: Any = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise GateError(
            f"{path} is not results of this version ({where}: {first['msg']})",
            fix="measure again with this version of swipe-bench",
        ) from error
