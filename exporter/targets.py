"""What can be built: one declarative row per format.

Another package adds a format of its own as an entry point of the group ``swipe_export.formats``:
a `Target` whose `module` offers what `exporter.formats.Format` says.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Final, cast

from exporter.formats import Format
from exporter.parity import Level, Limits
from exporter.policy import DEFAULT_BUDGET
from swipe.errors import GateError, MissingError, UsageError
from swipe.plugins import offers


@dataclass(frozen=True, slots=True)
class Rung:
    """One step of a format's ladder.

    Attributes:
        name: what the artefact is called, e.g. "int8".
        quantized: whether ``--no-quantize`` leaves it out.
        limits: what the artefact may differ by from PyTorch.
    """

    name: str
    quantized: bool
    limits: Limits

    def limits_within(self, budget: float, rounding: float) -> Limits:
        """What the artefact may differ by in one export.

        Args:
            budget: points of accuracy that the user gives for quantization.
            rounding: largest error of PyTorch's own float32 outputs.
        """
        limits = self.limits.allowing(rounding)
        return replace(limits, accuracy_drop=budget) if self.quantized else limits


@dataclass(frozen=True, slots=True)
class Target:
    """One format.

    Attributes:
        name: the subcommand.
        suffix: of its artefacts.
        libraries: modules that must be importable to build it.
        extra: the optional dependency that brings them.
        rungs: best first; the last is the float baseline that every other must undercut in size.
        module: import path of what speaks the format, see `exporter.formats.Format`.
        executes_on: ``sys.platform`` values where the format's own runtime exists; empty: all.
        interpreted: whether a reference interpreter of ours executes it elsewhere.
    """

    name: str
    suffix: str
    libraries: tuple[str, ...]
    extra: str
    rungs: tuple[Rung, ...]
    module: str
    executes_on: tuple[str, ...] = ()
    interpreted: bool = False

    @property
    def level(self) -> Level:
        """How far an artefact can be checked on this machine."""
        if not self.executes_on or sys.platform in self.executes_on:
            return Level.HOST
        return Level.REFERENCE if self.interpreted else Level.STRUCTURAL

    @property
    def baseline(self) -> Rung:
        """The unquantized rung that ends the ladder."""
        return self.rungs[-1]

    def find_rung(self, name: str) -> Rung:
        """The rung called `name`.

        Raises:
            GateError: a manifest speaks of one that this version does not have.
        """
        for rung in self.rungs:
            if rung.name == name:
                return rung
        raise GateError(f"{self.name} has no rung {name!r}", fix="export again")

    def format(self) -> Format:
        """The module that speaks this format; imports none of the heavy libraries yet."""
        return cast(Format, importlib.import_module(self.module))


_FLOAT = Limits(
    max_abs_delta=1e-4,
    frame_agreement=0.999,
    accuracy_drop=0.1,
    decisive_agreement=1.0,
    blank_drift=0.001,
)
_HALF = Limits(
    max_abs_delta=0.5,  # base differs by 0.17, nano by 0.05
    frame_agreement=0.99,
    accuracy_drop=DEFAULT_BUDGET,
    decisive_agreement=0.999,
    blank_drift=0.005,
    bounded=True,
)
_INT8 = Limits(
    max_abs_delta=None,
    frame_agreement=0.9,
    accuracy_drop=DEFAULT_BUDGET,
    decisive_agreement=0.97,
    blank_drift=0.02,
    bounded=True,
)

TARGETS: Final = (
    Target(
        name="onnx",
        suffix=".onnx",
        libraries=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
        rungs=(
            Rung("int8", True, _INT8),
            Rung("int8-weights", True, _INT8),
            Rung("fp16-weights", True, _HALF),
            Rung("fp32", False, _FLOAT),
        ),
        module="exporter.formats.onnx",
    ),
    Target(
        name="executorch",
        suffix=".pte",
        libraries=("executorch", "torchao"),
        extra="executorch",
        rungs=(
            Rung("int8", True, _INT8),
            Rung("int8-dynamic", True, _INT8),
            Rung("fp32", False, _FLOAT),
        ),
        module="exporter.formats.executorch",
    ),
    Target(
        name="coreml",
        suffix=".mlpackage",
        libraries=("coremltools",),
        extra="coreml",
        rungs=(Rung("int8", True, _INT8), Rung("fp16", True, _HALF), Rung("fp32", False, _FLOAT)),
        module="exporter.formats.coreml",
        executes_on=("darwin",),
        interpreted=True,
    ),
)


GROUP: Final = "swipe_export.formats"


@cache
def known_targets() -> tuple[Target, ...]:
    """Our own formats, then those of installed packages by name.

    Raises:
        MissingError: a package offers a format that cannot be loaded. Leaving it out would leave a
            format unbuilt without a word.
        UsageError: a name is taken.
    """
    targets = list(TARGETS)
    for offer in offers(GROUP, Target, "format"):
        target = offer.thing
        if not target.rungs:
            raise MissingError(
                f"the format {offer.name} ({offer.package}) has no rungs: nothing could be built",
                fix="install a version of it that fits this one, or uninstall it",
            )
        if any(target.name == other.name or target.suffix == other.suffix for other in targets):
            raise UsageError(
                f"the format {target.name} ({target.suffix}) of {offer.package} is there already",
                fix=f"uninstall {offer.package}, or a package that offers the same format",
            )
        targets.append(target)
    return tuple(targets)


def find_target(name: str) -> Target:
    """The target called `name`.

    Raises:
        UsageError: there is none.
        MissingError: an installed format cannot be loaded.
    """
    for target in known_targets():
        if target.name == name:
            return target
    raise UsageError(
        f"no format {name!r}", fix=f"choose among {', '.join(t.name for t in known_targets())}"
    )


def is_installed(library: str) -> bool:
    """Whether `library` can be found; imports nothing."""
    return importlib.util.find_spec(library) is not None


def missing_libraries(target: Target) -> tuple[str, ...]:
    """The libraries of `target` that are not installed; imports nothing."""
    return tuple(name for name in target.libraries if not is_installed(name))


def require_libraries(
    targets: tuple[Target, ...], besides: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Refuse to start when a library of a requested format is absent; imports nothing.

    Args:
        targets: the formats.
        besides: what the requested views need besides, each library with the extra that brings it.

    Raises:
        MissingError: names every missing library and the command that installs them.
    """
    missing = {library: target.extra for target in targets for library in missing_libraries(target)}
    absent = {k: extra for k, extra in besides.items() if not is_installed(k)}
    missing |= absent
    if missing:
        extras = ",".join(sorted(set(missing.values())))
        buildable = [t.name for t in targets if not set(t.libraries) & set(missing)]
        alternative = f"; or export only: swipe-export {buildable[0]}" if buildable else ""
        if absent:
            alternative = "; or leave out the view that needs it, see --view"
        raise MissingError(
            f"not installed: {', '.join(sorted(missing))}",
            fix=f"pip install 'swipe-export[{extras}]'{alternative}",
        )
