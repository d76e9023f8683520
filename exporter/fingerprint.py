"""What an export's outcome depends on besides the request: code, libraries, processor, inputs.

All of it is cheap to know: nothing heavy is imported, files are hashed and not understood. What a
checkpoint's header says of its data is read here without proof and for one purpose only, to know
which further files to hash; whoever uses a checkpoint proves it.

What it leaves out: what no hash here can see, such as a library that was edited in place. That is
what ``--no-cache`` is for.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from swipe.files import cannot_read, hash_of

PACKAGES: Final = ("swipe", "train", "exporter")
SOURCES: Final = (".py", ".toml", ".json")
VARIABLES: Final = (
    "ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS",
    "NUMBA_CPU_NAME", "NUMBA_DISABLE_JIT", "NPY_DISABLE_CPU_FEATURES",
)  # fmt: skip
"""Settings that change which instructions are used, and so the last bits of a result."""

_CPU_FIELDS: Final = ("model name", "flags", "CPU implementer", "CPU part", "Features")
_CPU_FILE: Final = Path("/proc/cpuinfo")


def environment() -> dict[str, str]:
    """Everything about this installation and machine that may change a result, by name."""
    return {
        "code": code_sha256(Path(__file__).parents[1]),
        "libraries": hashlib.sha256("\n".join(installed()).encode()).hexdigest(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": hashlib.sha256(processor().encode()).hexdigest(),
        **{name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def code_sha256(root: Path) -> str:
    """SHA-256 over the names and contents of our packages' sources under `root`."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SOURCES and path.is_file():
                digest.update(path.relative_to(root).as_posix().encode() + b"\0")
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def installed() -> list[str]:
    """Name and version of every installed package, as their metadata folders are called."""
    found: set[str] = set()
    for entry in sys.path:
        try:
            names = os.listdir(entry or ".")
        except OSError:
            continue  # a path entry that is no folder holds no package's metadata
        found |= {name for name in names if name.endswith((".dist-info", ".egg-info"))}
    return sorted(found)


def processor() -> str:
    """The processor's model and its instruction sets."""
    if not _CPU_FILE.is_file():
        return f"{platform.machine()} {platform.processor()} {platform.release()}"
    lines = _CPU_FILE.read_text(errors="replace").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(_CPU_FIELDS)}))


def content(spec: str | None) -> dict[str, str | None]:
    """What a specification names: itself, and the hash of the file or folder if it is one.

    Raises:
        UsageError: it cannot be read.
    """
    path = Path(spec) if spec else None
    return {"spec": spec, "sha256": hash_of(path) if path and path.exists() else None}


def checkpoint(path: Path) -> dict[str, Any]:
    """The checkpoint file, and what it says it was trained on as far as that is on this machine.

    Raises:
        UsageError: it cannot be read.
    """
    named = {name: content(name) for name in sorted(set(_strings(recorded_data(path))))}
    return {
        "file": str(path),
        "sha256": hash_of(path),
        "data": {name: found["sha256"] for name, found in named.items() if found["sha256"]},
    }


def recorded_data(path: Path) -> Mapping[str, Any]:
    """What the header of `path` says of its data, unproven; empty when it says nothing readable.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = stream.read(min(length, path.stat().st_size))
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        data = json.loads(json.loads(header)["__metadata__"]["record"])["data"]
    except (KeyError, TypeError, ValueError):
        return {}  # it is refused, with the reason, where checkpoints are proven
    return data if isinstance(data, Mapping) else {}


def _strings(value: Any) -> Iterator[str]:
    """Every text in `value`, however nested."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _strings(part)
