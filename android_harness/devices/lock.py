"""One host at a time on a device: a lock folder there, made by ``mkdir``, kept fresh by touching.

Two measurements at once would each measure the other. A host that died cannot give its lock back,
so one that nobody touched for `STALE_SECONDS` of the device's own clock is taken over. A host whose
lock was taken over, because its link was down for so long, is told, and its run counts for nothing.

What it leaves out: programs that the dead host left running; see `folder`.
"""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from android_harness.devices import Device
from swipe.errors import MissingError

STALE_SECONDS: Final = 120
_REFRESHES: Final = 4
"""Times that a lock is touched before it would be stale."""

_SECONDS: Final = 20.0
"""A device that does not answer for so long is no reason to keep a user who interrupts waiting."""

_TAKE: Final = """cd {folder} || exit 4
make() {{
  mkdir lock 2>/dev/null || return 1
  echo {owner} >lock/owner || {{ rm -rf lock; exit 4; }}
}}
age() {{ at=$(stat -c %Y "$1" 2>/dev/null) && age=$(( $(date +%s) - at )); }}
fresh() {{ [ $age -le {stale} ] && [ $age -ge -{stale} ]; }}
if make || {{ [ ! -d lock ] && make; }}; then echo taken; exit 0; fi
[ -d lock ] || {{ echo "no lock can be made there" >&2; exit 4; }}
if ! mkdir takeover 2>/dev/null; then
  if age takeover && ! fresh; then rmdir takeover; fi
  echo raced; exit 0
fi
trap 'rmdir takeover' EXIT
seen=$(cat lock/owner 2>/dev/null)
age lock/owner || age lock || {{ echo raced; exit 0; }}
if fresh; then echo "held $age $seen"; exit 0; fi
rm -rf lock
make || {{ echo raced; exit 0; }}
echo "taken over from $seen"
"""
"""A lock that was in the way may be given back by the next look: then it is made once more.

Only one host at a time looks whether a lock is stale and takes it over, so that none takes over
the lock that another has just made; a clock that was set back makes a lock stale as well."""

_TOUCH: Final = """cd {folder} && [ "$(cat lock/owner)" = {owner} ] && touch lock/owner"""
_RELEASE: Final = """cd {folder} && [ "$(cat lock/owner)" = {owner} ] && rm -rf lock"""


@dataclass(slots=True)
class Lock:
    """A lock that this process holds.

    Attributes:
        device: where.
        folder: its folder there.
        owner: what its owner file says: a nonce, this host, this process.
        taken_from: the owner of a stale lock that was taken over; None: it was free.
    """

    device: Device
    folder: str
    owner: str
    taken_from: str | None
    _over: threading.Event = field(default_factory=threading.Event)

    def require(self) -> None:
        """Check that the lock was ours all the time until now.

        Raises:
            MissingError: it was not, or the device cannot be asked.
        """
        self._do(_TOUCH)

    def _keep_fresh(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            # One that is not answered is repeated, and one that finds another's lock is told of by
            # `require` and at the end: the owner that stands there can never be us again.
            with suppress(MissingError):
                self._do(_TOUCH)

    def _do(self, script: str) -> None:
        filled = script.format(folder=shlex.quote(self.folder), owner=shlex.quote(self.owner))
        done = self.device.shell(filled, _SECONDS)
        if done.code != 0:
            raise MissingError(
                f"{self.device.name}: the lock is no more ours, another host took it over",
                fix="run this again when that host is done; nothing of this run is used",
            )


@contextmanager
def locked(device: Device, folder: str, stale_s: int = STALE_SECONDS) -> Iterator[Lock]:
    """Hold the lock in `folder`, which is there, of `device`.

    Args:
        device: the device.
        folder: absolute.
        stale_s: age in seconds at which a lock that nobody touches counts as left behind.

    Raises:
        MissingError: another host holds it, or it was lost meanwhile.
    """
    lock = take(device, folder, stale_s)
    keeper = threading.Thread(target=lock._keep_fresh, args=(stale_s / _REFRESHES,), daemon=True)
    keeper.start()
    try:
        yield lock
    except BaseException as error:
        _stop(lock, keeper)
        try:
            lock._do(_RELEASE)
        except MissingError as lost:
            error.add_note(f"the lock on {device.name} is not given back: {lost}")
        raise
    _stop(lock, keeper)
    lock._do(_RELEASE)


def _stop(lock: Lock, keeper: threading.Thread) -> None:
    lock._over.set()
    keeper.join()


def take(device: Device, folder: str, stale_s: int = STALE_SECONDS) -> Lock:
    """Take the lock as `locked` does, and leave it at that: nobody keeps it fresh or gives it back.

    Raises:
        MissingError: another host holds it.
    """
    nonce = secrets.token_hex(8)
    owner = f"{nonce} {socket.gethostname()} {os.getpid()}"
    script = _TAKE.format(folder=shlex.quote(folder), owner=shlex.quote(owner), stale=stale_s)
    done = device.shell(script)
    answer = done.stdout.strip()
    if done.code != 0:
        raise MissingError(
            f"{device.name}: {folder} cannot be locked: {(done.stderr or answer).strip()}",
            fix="see whether that folder can be written and has free space",
        )
    if answer == "taken":
        return Lock(device, folder, owner, None)
    if answer.startswith("taken over from"):
        return Lock(device, folder, owner, answer.removeprefix("taken over from").strip())
    raise MissingError(
        f"{device.name} is in use by {_holder(answer)}",
        fix=f"wait for it; when it died, its lock is taken over after {stale_s} s",
    )


def _holder(answer: str) -> str:
    """Who holds it, in words, from "held AGE NONCE HOST PID"."""
    words = answer.split()
    if words[:1] != ["held"] or len(words) != 5:
        return "another host, which takes it at this moment"
    return f"another run (host {words[3]}, process {words[4]}, seen {words[1]} s ago)"
