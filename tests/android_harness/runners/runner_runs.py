"""Building runners, and starting them the way a device does, for tests."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from android_harness.pack import Answers, pack_calls, read_answers
from android_harness.runners.record import Invocation, RunRecord, read_record
from android_harness.runners.sets import RunnerSet
from exporter.formats import Inputs

NONCE = "0123abcd"


@dataclass(frozen=True, slots=True)
class Ended:
    """A runner that ended, and what it left: None where it left nothing."""

    code: int
    stderr: str
    record: RunRecord | None
    answers: Answers | None

    def failed_at(self) -> str:
        """The stage it failed at, by a record that is whole and holds no measurement as good."""
        assert self.code == 3, (self.code, self.stderr)
        assert self.record is not None
        assert not self.record.ok
        assert self.record.error
        assert self.answers is None or self.record.stage != "outputs"
        return self.record.stage


def invocation(
    runners: RunnerSet, engine: str, folder: Path, model: Path, **asked: Any
) -> Invocation:
    """What a run in `folder` is asked, with the pack that is there."""
    fields: dict[str, Any] = {
        "model": str(model),
        "pack": str(folder / "calls.pack"),
        "result": str(folder / "result.json"),
        "nonce": NONCE,
        "library": runners.program(engine).library,
    }
    return Invocation(**{**fields, **asked})


def start(
    runners: RunnerSet, engine: str, words: Sequence[str], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One run, with the set's folder as the current one."""
    return subprocess.run(
        [*runners.command(engine), *words],
        cwd=runners.folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env={**os.environ, **(env or {})},
    )


def execute(
    runners: RunnerSet,
    engine: str,
    folder: Path,
    model: Path,
    calls: Sequence[Inputs] | None,
    **asked: Any,
) -> Ended:
    """Run `calls` (None: the pack that lies in `folder`) and read what came back."""
    if calls is not None:
        (folder / "calls.pack").write_bytes(pack_calls(calls))
    asking = invocation(runners, engine, folder, model, **asked)
    done = start(runners, engine, asking.arguments())
    result, outputs = Path(asking.result), Path(asking.outputs or "/nowhere")
    return Ended(
        done.returncode,
        done.stderr,
        read_record(result.read_text(), asking.nonce) if result.is_file() else None,
        read_answers(outputs.read_bytes()) if outputs.is_file() else None,
    )
