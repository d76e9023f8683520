"""What can be wrong with a device or its link."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Faults of a stand-in; by default it has none.

    Attributes:
        unauthorized: it accepts no key.
        offline: it takes the connection and never answers.
        recovery: it is not in Android but in recovery.
        shell_v2: without it both streams come as one and no exit status comes at all.
        drop_in_command: text; the link drops `drop_after_s` after a command with it starts.
        drop_after_s: see there.
        drop_after_pushed: the link drops when so many bytes of one file have come.
        drop_after_pulled: the link drops when so many bytes of one file have gone.
        gone: after a drop nobody answers any more.
        full_after: of one pushed file so many bytes find room.
        bytes_per_s: of a pushed file; None: as fast as it goes.
        corrupt: text; in pushed files whose path holds it one byte is flipped.
        cut_command: text; of the output of commands with it only `cut_after` bytes come, and the
            stream ends with exit status 0 all the same.
        cut_after: see there.
        junk: the shell prints noise around every command, some of it not UTF-8.
        hidden: programs that are not on its PATH.
    """

    unauthorized: bool = False
    offline: bool = False
    recovery: bool = False
    shell_v2: bool = True
    drop_in_command: str | None = None
    drop_after_s: float = 0.0
    drop_after_pushed: int | None = None
    drop_after_pulled: int | None = None
    gone: bool = False
    full_after: int | None = None
    bytes_per_s: float | None = None
    corrupt: str | None = None
    cut_command: str | None = None
    cut_after: int = 0
    junk: bool = False
    hidden: tuple[str, ...] = ()
