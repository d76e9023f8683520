"""The folder that is ours on a device: what was pushed, the lock, the runs.

::

    .swipe-bench              says that the folder is ours; without it nothing is removed
    files/<sha256>/<name>     artefacts and packs
    sets/<sha256>/<name>...   a runner with its libraries, by the hash of its list of files
    lock/                     see `lock`
    runs/<nonce>/             what one run wrote, and the number of its process in ``pid``

A file is pushed under another name, its digest is taken there, and only then is it renamed; one
that is there is used when its digest is right, and replaced when not. So a push that was cut, a
flipped bit and a full disk never make a file that counts.

What it leaves out: starting runners. It does not guard against someone who forges files there.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from android_harness.devices import Completed, Device
from android_harness.devices.lock import STALE_SECONDS, Lock, locked, take
from swipe.errors import GateError, MissingError, UsageError
from swipe.files import sha256_file

MARKER: Final = ".swipe-bench"
PID: Final = "pid"
DIGESTS: Final = {"sha256sum": "sha256", "sha1sum": "sha1", "md5sum": "md5"}
"""Programs that a device may have, the best first (old ones have no sha256sum), and hashlib's
names. They find damage; nobody is expected to forge a file."""

UNUSED_DAYS: Final = 14
"""How long what was pushed and is not used stays there."""

_LEAST_SECONDS: Final = 60.0
_DIGEST_BYTES_PER_SECOND: Final = 1_000_000
"""Of an emulated processor; a phone is a hundred times as fast."""

_PREPARE: Final = """d={folder}
if [ ! -e "$d/{marker}" ]; then
  if [ -n "$(ls -A "$d" 2>/dev/null)" ] && [ ! -e "$d/{marker}" ]; then exit 3; fi
  mkdir -p "$d" && echo 1 >"$d/{marker}" || exit 4
fi
mkdir -p "$d/files" "$d/sets" "$d/runs"
"""
"""What is in the folder may be the marker of another host, which has come at the same time."""
_DIGEST: Final = """for p in {programs}; do command -v $p >/dev/null 2>&1 && break; p=; done
[ -n "$p" ] || exit 3
mkdir -p {folder} && cd {folder} && touch . || exit 4
echo $p
for f in {names}; do
  if [ -f "$f" ]; then h=$($p <"$f") || h=-; else h=-; fi
  echo "${{h%% *}}"
done
"""
_KILL: Final = """cd {folder}/runs || exit 4
ours() {{ case "$(cat /proc/$pid/cmdline 2>/dev/null)" in *"$n"*) return 0;; esac; return 1; }}
for n in *; do
  case "$n" in ????????*) ;; *) continue;; esac
  pid=; read -r pid 2>/dev/null <"$n/{pid}"
  case "$pid" in ''|*[!0-9]*) continue;; esac
  ours || continue
  kill "$pid"
  for i in 1 2 3 4 5 6 7 8 9 10; do ours || break; sleep 0.2; done
  if ours; then kill -9 "$pid"; sleep 0.5; fi
  if ours; then echo "alive $pid $n"; else echo "killed $pid $n"; fi
done
exit 0
"""
_PRUNE: Final = """cd {folder} || exit 4
rm -rf files/*/*.part-* sets/*/*.part-*
find files sets -mindepth 1 -maxdepth 1 -mtime +{days} -exec rm -rf {{}} +
for n in runs/*; do
  case " {keep} " in *" ${{n##*/}} "*) ;; *) rm -rf "$n";; esac
done
"""


@dataclass(frozen=True, slots=True)
class Killed:
    """A program of an earlier run that was still there.

    Attributes:
        pid: its process on the device.
        nonce: of its run.
    """

    pid: int
    nonce: str


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """`Device.folder` of a device; the methods expect that the lock is held, but for `lock`.

    Attributes:
        device: whose folder it is.
    """

    device: Device

    def __post_init__(self) -> None:
        require_possible(self.path)

    @property
    def path(self) -> str:
        """Where it is, without a slash at its end."""
        return self.device.folder

    @contextmanager
    def lock(self, stale_s: int = STALE_SECONDS) -> Iterator[Lock]:
        """Make the folder if it is not there, and hold its lock; see `lock.locked`.

        Raises:
            UsageError: the folder holds something else.
            MissingError: it cannot be made, or another host holds the lock.
        """
        done = self._shell(_PREPARE, marker=MARKER, accept=(0, 3))
        if done.code == 3:
            raise self._foreign()
        with locked(self.device, self.path, stale_s) as lock:
            yield lock

    def ensure_file(self, path: Path, name: str | None = None) -> str:
        """Have the file `path` on the device, under its own name or `name`; returns where.

        Raises:
            MissingError: it could not be pushed, or the device cannot take digests.
            GateError: it arrived damaged.
        """
        folder = f"{self.path}/files/{sha256_file(path)}"
        self._place(folder, {name or path.name: path})
        return f"{folder}/{name or path.name}"

    def ensure_set(self, files: Mapping[str, Path]) -> str:
        """Have `files`, all executable, by these names in one folder; returns the folder.

        Raises:
            MissingError, GateError: as `ensure_file`.
        """
        listed = "".join(f"{sha256_file(path)}  {name}\n" for name, path in sorted(files.items()))
        folder = f"{self.path}/sets/{hashlib.sha256(listed.encode()).hexdigest()}"
        self._place(folder, files)
        return folder

    def new_run(self, nonce: str) -> str:
        """An empty folder for the run `nonce`; returns where.

        Raises:
            MissingError: it cannot be made, or there was a run of this nonce.
        """
        if not re.fullmatch(r"[0-9A-Za-z]{8,64}", nonce):
            raise AssertionError(f"{nonce!r} tells no run from others")
        folder = f"{self.path}/runs/{nonce}"
        self._shell("mkdir {run}", run=shlex.quote(folder))
        return folder

    def stale_run_cleanup(self) -> list[Killed]:
        """End the programs of earlier runs: those whose command line still holds their nonce.

        Raises:
            MissingError: one cannot be ended.
        """
        ended = []
        for line in self._shell(_KILL, pid=PID).stdout.splitlines():
            what, pid, nonce = line.split()
            if what != "killed":
                raise MissingError(
                    f"{self.device.name}: process {pid} of an earlier run cannot be ended",
                    fix="restart the device",
                )
            ended.append(Killed(int(pid), nonce))
        return ended

    def prune(self, keep: Sequence[str] = ()) -> None:
        """Remove what is of no use any more.

        That is what earlier runs wrote, but for those of the nonces `keep`, parts of pushes, and
        what was pushed and not used for `UNUSED_DAYS`. After `stale_run_cleanup`, which reads
        the runs.
        """
        self._shell(_PRUNE, keep=" ".join(keep), days=str(UNUSED_DAYS))

    def clean(self) -> bool:
        """Remove the whole folder; returns whether there was one.

        Raises:
            UsageError: it is not ours.
            MissingError: another host holds the lock, or it could not be removed.
        """
        done = self._shell(
            "[ -e {folder} ] || exit 2; [ -e {folder}/{marker} ] || exit 3",
            marker=MARKER,
            accept=(0, 2, 3),
        )
        if done.code == 3:
            raise self._foreign()
        if done.code == 0:
            take(self.device, self.path)
            self.stale_run_cleanup()
            # What says that the folder is ours goes last: a removal that is cut can be repeated.
            self._shell("cd {folder} && rm -rf files sets runs && rm -rf {folder}")
        return done.code == 0

    def _place(self, folder: str, files: Mapping[str, Path]) -> None:
        """Have `files` under their names in the device's `folder`, proven and executable."""
        unfit = sorted(name for name in files if not re.fullmatch(r"[\w.][\w.+@=,-]{0,199}", name))
        if unfit:
            raise UsageError(f"{unfit[0]!r} cannot be pushed under its name", fix="rename it")
        program, there = self._digests(folder, files, files)
        wanted = {name: _digest(path, program) for name, path in files.items()}
        missing = {name: files[name] for name in files if there[name] != wanted[name]}
        if not missing:
            return
        quoted = shlex.quote(folder)
        parts = {name: f"{name}.part-{secrets.token_hex(4)}" for name in missing}
        for name, path in missing.items():
            self.device.push(path, f"{folder}/{parts[name]}")
        _, arrived = self._digests(folder, missing, list(parts.values()))
        damaged = [name for name in missing if arrived[parts[name]] != wanted[name]]
        if damaged:
            self._shell("cd {folder} && rm -f {parts}", folder=quoted, parts=_words(parts.values()))
            raise GateError(
                f"{self.device.name}: {', '.join(damaged)} arrived damaged",
                fix="try another cable or port, and run this again",
            )
        moves = "; ".join(f"mv -f {parts[name]} {name} || exit 4" for name in missing)
        self._shell(
            "cd {folder} && chmod 755 {parts} || exit 4; {moves}",
            folder=quoted,
            parts=_words(parts.values()),
            moves=moves,
        )

    def _digests(
        self, folder: str, files: Mapping[str, Path], names: Sequence[str] | Mapping[str, Path]
    ) -> tuple[str, dict[str, str]]:
        """The device's digest program, and what it says of `names`; "-" of those not there."""
        size = sum(path.stat().st_size for path in files.values())
        done = self._shell(
            _DIGEST,
            programs=" ".join(DIGESTS),
            folder=shlex.quote(folder),
            names=_words(names),
            timeout_s=_LEAST_SECONDS + size / _DIGEST_BYTES_PER_SECOND,
            accept=(0, 3),
        )
        lines = done.stdout.split()
        if done.code == 3 or len(lines) != 1 + len(names) or lines[0] not in DIGESTS:
            raise MissingError(
                f"{self.device.name} has none of {', '.join(DIGESTS)}, or they fail: what was "
                "pushed cannot be verified",
                fix="use a device with Android 7 or newer",
            )
        return lines[0], dict(zip(names, lines[1:], strict=True))

    def _shell(
        self,
        script: str,
        *,
        accept: Sequence[int] = (0,),
        timeout_s: float = _LEAST_SECONDS,
        **words: str,
    ) -> Completed:
        """Run `script` with ``{folder}`` and `words` filled in, which are quoted where it matters.

        Raises:
            MissingError: its end was not seen, or its exit status is not one of `accept`.
        """
        filled = script.format(**({"folder": shlex.quote(self.path)} | words))
        done = self.device.shell(filled, timeout_s)
        if done.code not in accept:
            said = (done.stderr or done.stdout).strip() or f"exit status {done.code}"
            raise MissingError(
                f"{self.device.name}: {self.path} cannot be used: {said.splitlines()[-1]}",
                fix="see whether that folder can be written and has free space",
            )
        return done

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self.path} on {self.device.name} is not a folder of ours",
            fix="name another one with --device-dir, or remove it yourself",
        )


def require_possible(path: str) -> None:
    """Check that `path` can be our folder on a device.

    Raises:
        UsageError: it is not absolute, or so short that it is somebody else's.
    """
    parts = path.split("/")
    if parts[0] or len(parts) < 3 or {"", ".", ".."} & set(parts[1:]) or "\n" in path:
        raise UsageError(
            f"{path!r} cannot be our folder on a device",
            fix="name an absolute path of at least two parts, such as /data/local/tmp/swipe-bench",
        )


def _digest(path: Path, program: str) -> str:
    """What the device's `program` says of the file `path`."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, DIGESTS[program]).hexdigest()


def _words(names: Iterable[str]) -> str:
    return " ".join(shlex.quote(name) for name in names)
