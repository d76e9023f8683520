"""The files of the aarch64 test device: Debian's adbd, mksh and toybox, unpacked once per session.

The folder lies outside the repository, under the hash of all that determines it, so that test
processes side by side and later sessions share it; it appears in one rename and is only read.

What it leaves out: starting it (`emulated_phone`). Packages are unpacked and not configured: no
program of theirs runs while this is built.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

RELEASE: Final = "trixie"
"""The first Debian with an adbd for arm64 that speaks today's protocol (34)."""

PACKAGES: Final = ("adbd", "libc6", "mksh", "toybox")
PROGRAMS: Final = ("aarch64-linux-gnu-gcc", "apt-get", "mmdebstrap", "qemu-aarch64-static")
"""What building it needs."""

_SOURCES: Final = Path(__file__).parent / "phone"
_ACCOUNTS: Final = "root:x:0:0:root:/:/bin/sh\nshell:x:2000:2000:shell:/:/bin/sh\n"
_GROUPS: Final = "root:x:0:\nshell:x:2000:\n"
_MOUNT_POINTS: Final = ("data", "dev", "knobs", "proc", "sys", "tmp")


def ensure_rootfs() -> Path:
    """The folder of the device's files, built when it is not there yet.

    Raises:
        RuntimeError: a program failed, with the end of what it said.
        OSError: the folder cannot be written, or is somebody else's.
    """
    root = _cache_folder() / f"arm64-{_fingerprint()}"
    with (root.parent / f"{root.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.is_dir():
            unfinished = root.with_suffix(".part")
            if unfinished.exists():
                shutil.rmtree(unfinished)
            _unpack(unfinished)
            _furnish(unfinished)
            unfinished.rename(root)
    return root


def _cache_folder() -> Path:
    """Ours and nobody else's: what lies there is executed as root."""
    folder = Path(tempfile.gettempdir()) / f"swipe-export-phone-{os.getuid()}"
    folder.mkdir(mode=0o711, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} is not ours")
    return folder


def _fingerprint() -> str:
    parts = hashlib.sha256()
    for source in (Path(__file__), *sorted(_SOURCES.iterdir())):
        parts.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    return parts.hexdigest()[:16]


def _unpack(root: Path) -> None:
    _run(
        "mmdebstrap",
        "--quiet",
        "--variant=extract",
        "--mode=root",
        "--architectures=arm64",
        f"--include={','.join(PACKAGES)}",
        RELEASE,
        str(root),
        *_mirror(),
    )


def _mirror() -> tuple[str, ...]:
    """Where this machine's own packages come from, if it is a Debian."""
    told = _run(
        "apt-get", "indextargets", "--format", "$(COMPONENT) $(REPO_URI)", "Created-By: Packages"
    )
    debian = [line.split()[1] for line in told.splitlines() if line.startswith("main ")]
    return tuple(uri for uri in debian if uri.rstrip("/").endswith("/debian"))[:1]


def _furnish(root: Path) -> None:
    for name in _MOUNT_POINTS:
        (root / name).mkdir(exist_ok=True)
    tools = root / "system" / "bin"
    tools.mkdir(parents=True)
    for name in ("bin", "lib", "sbin"):
        if not (root / name).exists():
            (root / name).symlink_to(f"usr/{name}")
    (root / "usr" / "bin" / "sh").symlink_to("mksh")
    (root / "etc" / "passwd").write_text(_ACCOUNTS)
    (root / "etc" / "group").write_text(_GROUPS)
    listed = _run("qemu-aarch64-static", "-L", str(root), str(root / "usr" / "bin" / "toybox"))
    for applet in {*listed.split(), "sh"}:
        target = "mksh" if applet == "sh" else "toybox"
        (tools / applet).symlink_to(f"/usr/bin/{target}")
    for script in ("getprop", "dumpsys"):
        shutil.copy(_SOURCES / script, tools / script)
    _run(
        *("aarch64-linux-gnu-gcc", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"),
        *("-shared", "-fPIC", str(_SOURCES / "loopback.c")),
        *("-o", str(root / "usr" / "lib" / "loopback.so")),
    )


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        said = "\n".join((done.stderr or done.stdout).strip().splitlines()[-5:])
        raise RuntimeError(f"{command[0]} failed ({done.returncode}): {said}")
    return done.stdout
