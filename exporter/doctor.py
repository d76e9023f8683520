"""What this machine can build and execute, and the command that mends what it cannot.

Each format's libraries are imported for real, in a process of their own: a wheel that is installed
and cannot be loaded is the failure that costs people an afternoon. Versions are compared with those
the tests ran with (``constraints.txt``); another version is worth knowing and no error.

What it leaves out: building anything, which is what an export is for.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from exporter.plan import level_reason
from exporter.targets import Target, missing_libraries
from swipe.errors import ExitCode

CORE: Final = ("torch", "numpy", "safetensors", "numba", "pyarrow", "pydantic", "wordfreq")
PYTHON: Final = ((3, 11), (3, 13))
IMPORT_SECONDS: Final = 600.0
CONSTRAINTS: Final = "constraints.txt"
NDK_VARIABLES: Final = ("ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK")
SDK_VARIABLES: Final = ("ANDROID_HOME", "ANDROID_SDK_ROOT")


class State(StrEnum):
    """What a finding means. Only MISSING and BROKEN keep something from being built."""

    OK = "ok"
    DIFFERS = "differs"
    MISSING = "missing"
    BROKEN = "broken"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what needs it: "core", a format, "phone" or "cache".
        name: what it is.
        state: whether it will do.
        found: the version or place found, empty when there is none.
        tested: the version the tests ran with, empty when there is none.
        mend: the command that mends it, or what is worth knowing; empty when nothing is.
    """

    part: str
    name: str
    state: State
    found: str
    tested: str
    mend: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return {name: getattr(self, name) for name in self.__slots__}


def examine(targets: Sequence[Target]) -> list[Finding]:
    """Look at everything that exports for `targets` need, and at what phones need."""
    tested = tested_versions()
    imports: Mapping[str, tuple[str, ...]] = {
        "core": CORE,
        **{t.name: t.libraries for t in targets if not missing_libraries(t)},
    }
    with ThreadPoolExecutor(max_workers=min(len(imports), os.cpu_count() or 1)) as pool:
        failures = dict(zip(imports, pool.map(import_failure, imports.values()), strict=True))
    findings = [_python(), *(_library("core", name, tested, "") for name in CORE)]
    findings += _loading("core", failures["core"], f"pip install -c {CONSTRAINTS} swipe-export")
    for target in targets:
        findings += [_library(target.name, n, tested, target.extra) for n in target.libraries]
        if target.name in failures:
            mend = f"pip install --force-reinstall {_pins(target.libraries, tested)}"
            findings += _loading(target.name, failures[target.name], mend)
            findings.append(_executes(target))
    return [*findings, *_phone()]


def tested_versions() -> dict[str, str]:
    """Versions the tests ran with, by package; empty in an installation that lacks the list."""
    for folder in (Path(__file__).parent, Path(__file__).parents[1]):
        path = folder / CONSTRAINTS
        if path.is_file():
            return parse_constraints(path.read_text(encoding="utf-8"))
    return {}


def parse_constraints(text: str) -> dict[str, str]:
    """``name==version`` lines by name; comments and other lines are left out."""
    pairs = (line.split("==") for line in text.splitlines() if line[:1] not in ("#", ""))
    return {name.strip(): version.strip() for name, version in (p for p in pairs if len(p) == 2)}


def import_failure(modules: Sequence[str]) -> str:
    """Why `modules` cannot be imported together in a fresh process; empty when they can."""
    command = [sys.executable, "-P", "-W", "ignore", "-c", f"import {', '.join(modules)}"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=IMPORT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"importing takes more than {IMPORT_SECONDS:g} s"
    if done.returncode < 0:
        return f"importing ends the process with signal {-done.returncode}"
    if done.returncode > 0:
        return done.stderr.strip().splitlines()[-1]
    return ""


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """OK when everything can be built, MISSING otherwise."""
    bad = any(finding.state in (State.MISSING, State.BROKEN) for finding in findings)
    return ExitCode.MISSING if bad else ExitCode.OK


def buildable(findings: Sequence[Finding], targets: Sequence[Target]) -> list[str]:
    """The formats that nothing keeps from being built."""
    bad = {f.part for f in findings if f.state in (State.MISSING, State.BROKEN)}
    return [] if "core" in bad else [t.name for t in targets if t.name not in bad]


def _python() -> Finding:
    least, below = PYTHON
    fits = least <= sys.version_info[:2] < below
    return Finding(
        part="core",
        name="python",
        state=State.OK if fits else State.BROKEN,
        found=platform.python_version(),
        tested="3.11",
        mend="" if fits else "python3.11 -m venv .venv, and install again in it",
    )


def _library(part: str, name: str, tested: Mapping[str, str], extra: str) -> Finding:
    wanted = tested.get(name, "")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        mend = f"pip install 'swipe-export[{extra}]'" if extra else f"pip install {name}"
        return Finding(part, name, State.MISSING, "", wanted, mend)
    # torch's CPU build calls itself 2.13.0+cpu.
    if wanted and found.partition("+")[0] != wanted:
        return Finding(part, name, State.DIFFERS, found, wanted, f"pip install '{name}=={wanted}'")
    return Finding(part, name, State.OK, found, wanted, "")


def _pins(names: Sequence[str], tested: Mapping[str, str]) -> str:
    return " ".join(f"'{n}=={tested[n]}'" if n in tested else n for n in names)


def _loading(part: str, failure: str, mend: str) -> list[Finding]:
    if failure:
        return [Finding(part, "import", State.BROKEN, failure, "", mend)]
    return [Finding(part, "import", State.OK, "all load together", "", "")]


def _executes(target: Target) -> Finding:
    why = level_reason(target)
    return Finding(target.name, "executes here", State.INFO, str(target.level), "", why)


def _phone() -> list[Finding]:
    """What measuring on a phone needs; none of it is needed to export."""
    adb = shutil.which("adb")
    ndk = find_ndk(os.environ)
    return [
        Finding("phone", "adb", State.INFO, adb or "not found", "",
                "" if adb else "for swipe-bench --device android: install the platform tools"),
        Finding("phone", "NDK", State.INFO, str(ndk or "not found"), "",
                "" if ndk else "to build the phone's runner: install it, set ANDROID_NDK_HOME"),
    ]  # fmt: skip


def find_ndk(variables: Mapping[str, str]) -> Path | None:
    """The Android NDK that environment `variables` name, or the newest inside the SDK."""
    for name in NDK_VARIABLES:
        if name in variables and Path(variables[name]).is_dir():
            return Path(variables[name])
    for name in SDK_VARIABLES:
        inside = Path(variables[name], "ndk") if variables.get(name) else None
        versions = [path for path in inside.glob("*") if path.is_dir()] if inside else []
        if versions:
            return max(versions, key=_version)
    return None


def _version(path: Path) -> tuple[int, ...]:
    return tuple(int(part) if part.isdecimal() else -1 for part in path.name.split("."))
