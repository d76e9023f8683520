"""What a native runner is asked, and what it answers: one command line, one JSON, for all engines.

Both programs in ``native/`` take these options, and leave with 0 (ok), 2 (usage: a line on stderr)
or 3 (failed: the JSON says at which stage and why; stderr does, where no JSON can be written). A
runner that lost its tether leaves with 4, one that ran out of time by SIGALRM. The JSON is written
under another name and renamed, so that it is there whole or not at all; the nonce tells it from
one of an earlier run.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from swipe.errors import GateError


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a run is to do, wherever it runs and whatever it executes.

    Attributes:
        timed: how many calls of the pack, from the first, are timed; they rotate.
        warmup: calls before anything is timed, if anything is; 0 leaves the first call as the only
            untimed one.
        iters: least number of timed calls; 0: nothing is timed.
        min_secs: least seconds of timed calls.
        max_secs: most seconds of timed calls; 30 seconds more and the runner ends itself.
        block: timed calls between two readings of temperature and frequency.
        threads: CPU threads.
        cpus: CPUs to stay on, e.g. "4-7" or "0,2"; None: any.
        ep: execution provider.
    """

    timed: int = 0
    warmup: int = 10
    iters: int = 0
    min_secs: float = 0.0
    max_secs: float = 60.0
    block: int = 10
    threads: int = 1
    cpus: str | None = None
    ep: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation(Asked):
    """One start of a runner; paths are the device's.

    Attributes:
        model: the artefact.
        pack: the calls, see `android_harness.pack`.
        result: where the JSON goes.
        nonce: comes back in the JSON.
        outputs: where the answers to all calls go, as a pack; None: they are not wanted.
        library: path of the engine's shared library, for the runner that opens it by name; the
            other takes none.
        tether: end when stdin ends, or the thread that started it; see `Device.shell`.
    """

    model: str
    pack: str
    result: str
    nonce: str
    outputs: str | None = None
    library: str | None = None
    tether: bool = False

    def arguments(self) -> list[str]:
        """The runner's command line, without the program."""
        given = {
            "--model": self.model,
            "--pack": self.pack,
            "--result": self.result,
            "--nonce": self.nonce,
            "--outputs": self.outputs,
            "--timed": self.timed,
            "--warmup": self.warmup,
            "--iters": self.iters,
            "--min-secs": self.min_secs,
            "--max-secs": self.max_secs,
            "--block": self.block,
            "--threads": self.threads,
            "--cpus": self.cpus,
            "--ep": self.ep,
            "--lib": self.library,
        }
        words = [word for k, v in given.items() if v is not None for word in (k, str(v))]
        return [*words, "--tether"] if self.tether else words


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Engine(_Record):
    """What executed."""

    name: Literal["onnxruntime", "executorch"]
    version: str
    backend: str


class Cpus(_Record):
    """CPUs asked for and those the process was allowed, as lists like "0-3,6"."""

    asked: str | None
    got: str


def cpu_numbers(cpus: str) -> set[int]:
    """The CPUs of such a list; "0,1" and "0-1" are the same."""
    spans = re.findall(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", cpus)
    return {cpu for first, last in spans for cpu in range(int(first), int(last or first) + 1)}


class Times(_Record):
    """Milliseconds of one cold start.

    `dlopen`: opening the engine's library, 0 where it is linked. `load`: from the artefact's path
    to a session or program. `init`: from there to something that can be called. `first`: the first
    call.
    """

    dlopen: float
    load: float
    init: float
    first: float


class Block(_Record):
    """Readings before a block of timed calls; None where the device does not show them."""

    at_ms: float
    """Since the first timed call."""
    calls: int
    temp_mc: int | None
    """Of the hottest CPU zone, in thousandths of a degree."""
    khz_cur: int | None
    khz_max: int | None
    """The most that the governor allows now: the lowest over the CPUs of this process."""
    cpu: int | None


class Rss(_Record):
    """Resident memory in kB: before the engine is opened, after loading, and the most.

    An engine that is linked is there from the start.
    """

    start: int | None
    loaded: int | None
    peak: int | None


class Outputs(_Record):
    """The file of answers."""

    bytes: int
    sha256: str
    calls: int
    refused: int


class RunRecord(_Record):
    """The JSON of one run; `complete` is its last key."""

    schema_name: Literal["swipe-export/runner/1"]
    nonce: str
    ok: bool
    stage: str
    error: str
    engine: Engine | None
    model_sha256: str | None
    pid: int
    threads: int | None
    cpus: Cpus
    times_ms: Times | None
    latency_ns: tuple[int, ...]
    blocks: tuple[Block, ...]
    rss_kb: Rss
    pss_kb: int | None
    outputs: Outputs | None
    telemetry_disabled: bool
    complete: Literal[True]


def read_record(text: str, nonce: str) -> RunRecord:
    """The record of the run with this `nonce`, whether it went well or not.

    Raises:
        GateError: it is cut, of another run, or not such a record.
    """
    try:
        record = RunRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the text"
        raise GateError(
            f"the runner's result is cut or foreign ({where}: {first['msg']})", fix="measure again"
        ) from error
    if record.nonce != nonce:
        raise GateError("the runner's result is of another run", fix="measure again")
    return record
