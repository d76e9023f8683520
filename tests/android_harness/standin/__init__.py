"""A device on loopback that Google's own adb talks to, with every fault that a link can have.

It speaks adbd's wire protocol and runs this machine's programs, so that push, run and pull take
their real way in about a second, without root. What it leaves out: another processor, bionic,
SELinux; a real adbd is in ``arm64``.
"""

from standin.adbd import Knobs, StandIn
from standin.faults import Faults

__all__ = ["Faults", "Knobs", "StandIn"]
