"""Which runner set a device needs. The one for this machine is built on the way, when it can be."""

from __future__ import annotations

from importlib.metadata import distributions
from typing import Final

from android_harness.devices import Facts
from android_harness.runners.build import Options, build_set
from android_harness.runners.sets import RunnerSet, find_set
from android_harness.runners.toolchains import FLAVOURS, default_flavour
from swipe.errors import MissingError, UsageError
from swipe.progress import Say

PACKAGES: Final = {"onnx": "onnxruntime", "executorch": "executorch"}
"""Where this machine's engines come from."""

FITTING: Final = {
    ("arm64-v8a", True): "android-arm64-v8a",
    ("arm64-v8a", False): "glibc-aarch64",
    ("x86_64", False): "linux-x86_64",
}
"""By ABI, and whether programs are bionic's."""


def runners_for(facts: Facts, flavour: str | None, say: Say) -> RunnerSet:
    """The runner set for the device that `facts` describe.

    Args:
        facts: of the device.
        flavour: what the user asked for; None: what fits.
        say: told the commands, where the set is built first.

    Raises:
        UsageError: there is no such set, or the one that was asked for is of another ABI.
        MissingError: there is no set, and it cannot be built from what is on this machine.
    """
    if flavour is not None and flavour not in FLAVOURS:
        raise UsageError(
            f"no runner set can be called {flavour}", fix=f"choose one of {', '.join(FLAVOURS)}"
        )
    fitting = FITTING.get((facts.abi, facts.android))
    chosen = flavour or (default_flavour() if facts.kind == "local" else fitting)
    if chosen is None:
        raise MissingError(
            f"there are no runners for {facts.abi} under Android ({facts.serial})",
            fix="use a device or emulator with arm64-v8a",
        )
    found = _find_or_build(chosen, say)
    if found.manifest.abi != facts.abi:
        raise UsageError(
            f"the runner set {chosen} is for {found.manifest.abi}, {facts.serial} is {facts.abi}",
            fix="leave --runtime away: the set that fits is chosen",
        )
    return found


def _find_or_build(flavour: str, say: Say) -> RunnerSet:
    # Other machines' compilers and engines are the user's to name.
    ours = flavour.startswith("linux-") and flavour == default_flavour()
    try:
        found = find_set(flavour)
        if not ours or not _outdated(found):
            return found
    except MissingError:
        if not ours:
            raise
    say(f"building the runner set {flavour} first")
    return build_set(flavour, Options(), say)


def _outdated(found: RunnerSet) -> bool:
    """Whether an engine was installed in another release since: its figures are not of today's."""
    return any(
        installed.version.partition("+")[0] != program.version
        for engine, program in found.manifest.programs.items()
        for installed in distributions(name=PACKAGES[engine])
    )
