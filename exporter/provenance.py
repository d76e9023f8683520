"""Where and by what a bundle was built: library versions, processor, commit of the working tree.

What changes int8 results between two machines is recorded: the processor's dot-product
instructions, threads, versions. What says who or where is not: no path, host or user name.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Final

from swipe.errors import UsageError

THREADS: Final = 1
"""CPU threads of every build and of every execution that a verdict rests on."""

FLAGS: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8",
    "asimddp", "asimdhp", "i8mm", "sve",
)  # fmt: skip
"""Instructions that int8 kernels choose by, by the names Linux has for them: without a dot product
they add pairs in 16 bits, which saturate, so the same file gives other numbers."""

_LIBRARIES: Final = (
    "swipe-export", "torch", "torchao", "executorch", "coremltools", "onnx", "onnx-ir",
    "onnxscript", "onnxruntime", "onnxruntime-extensions", "protobuf", "numpy", "safetensors",
)  # fmt: skip
_CPUINFO: Final = Path("/proc/cpuinfo")
_APPLE_FLAGS: Final = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
}


@dataclass(frozen=True, slots=True)
class Processor:
    """What computed.

    Attributes:
        model: its name, or the architecture's where the system does not tell.
        flags: which of `FLAGS` it has, sorted.
    """

    model: str
    flags: tuple[str, ...]


def library_versions() -> dict[str, str]:
    """Versions of Python and of every library that shapes an artefact and is installed."""
    versions = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def processor() -> Processor:
    """This machine's."""
    if _CPUINFO.is_file():
        return parse_cpuinfo(_CPUINFO.read_text(errors="replace"))
    return parse_sysctl(_output("sysctl", "-a") or "")


def parse_cpuinfo(text: str) -> Processor:
    """What Linux says of its first processor."""
    fields = dict(re.findall(r"^([^:\n]*?)\s*:[ \t]*(.*)$", text.partition("\n\n")[0], re.M))
    flags = set(f"{fields.get('flags', '')} {fields.get('Features', '')}".split())
    return Processor(
        fields.get("model name") or platform.machine(), tuple(sorted(flags.intersection(FLAGS)))
    )


def parse_sysctl(text: str) -> Processor:
    """What macOS says."""
    fields = dict(re.findall(r"^(\S+): (.*)$", text, re.M))
    flags = {flag for key, flag in _APPLE_FLAGS.items() if fields.get(key) == "1"}
    model = fields.get("machdep.cpu.brand_string") or platform.machine()
    return Processor(model, tuple(sorted(flags)))


def working_tree() -> tuple[str | None, bool | None]:
    """Commit of the working tree that holds the current folder, and whether files in it differ.

    Both None outside of a working tree, before its first commit, and where git is not installed.
    """
    commit = _output("git", "rev-parse", "--verify", "HEAD")
    status = _output("git", "status", "--porcelain")
    if not commit or status is None:
        return None, None
    return commit, bool(status)


def _output(*command: str) -> str | None:
    """What `command` prints, or None when it fails or does not exist."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def portable(spec: str) -> str:
    """`spec` of data or a lexicon as others may read it: of an absolute path, its name only.

    A relative path stays: it says nothing of the machine, and is found again in the same folder.

    Raises:
        UsageError: it is no text, as names of files need not be.
    """
    try:
        spec.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{spec!r} cannot stand in a manifest: its name is no text", fix="rename it"
        ) from error
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(spec)
        if path.is_absolute() or spec.startswith("~"):
            return path.name
    return spec


def portable_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """`record` of where data came from, with every text in it made `portable`."""

    def made(value: Any) -> Any:
        if isinstance(value, str):
            return portable(value)
        if isinstance(value, Mapping):
            return {portable(str(key)): made(item) for key, item in value.items()}
        return [made(item) for item in value] if isinstance(value, list | tuple) else value

    return {key: made(value) for key, value in record.items()}
