"""What a format gives to be localised: its tensors, their values, and pieces cut out of it.

One module per format implements `Tapped`; adding a format is adding one. This one imports nothing
heavy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from numpy.typing import NDArray

from exporter.formats import Inputs

if TYPE_CHECKING:
    from torch.export import ExportedProgram

Values = Mapping[str, NDArray[Any]]

ROUNDED: Final = "+int8"
"""Added to an operator's name when its result is seen after it was rounded to int8."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that an artefact computes and that can be looked at.

    Attributes:
        name: in the artefact.
        operator: what computes it.
        node: what its counterpart in torch's graph is called, if it has one.
        sources: names of the nearest such tensors, and of the inputs, that it is computed from.
        entry: what a piece of the artefact that starts here takes as an input. Where a tensor is
            rounded to int8, this is the tensor before, so that the piece still computes in int8.
    """

    name: str
    operator: str
    node: str
    sources: tuple[str, ...]
    entry: str


class Tapped(Protocol):
    """An artefact with its inside in view."""

    @property
    def note(self) -> str:
        """Where the tensors come from, for the reader of a table."""

    @property
    def program(self) -> ExportedProgram:
        """Torch's graph in the form that the format's exporter starts from: its names are used."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """In the order of execution, each after its sources; the last is the output."""

    def trace(self, call: Inputs) -> Values:
        """Every tensor's value, by name.

        Raises:
            LoweringError: it cannot be executed.
        """

    def output(self, call: Inputs) -> NDArray[Any]:
        """What the artefact answers when nobody looks inside."""

    def cut(self, starts: Values, tensor: Tensor, path: Path) -> Piece:
        """Write the piece that computes `tensor` from `starts`, by entry, to `path` + suffix.

        Raises:
            LoweringError: this piece cannot be written or executed alone.
        """


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an artefact as a file of its own.

    Attributes:
        path: the file.
        inputs: what it takes, by name and in its order, in its types.
        run: executes it.
        script: Python lines that define ``run(path, inputs)`` -> array, for someone else.
    """

    path: Path
    inputs: dict[str, NDArray[Any]]
    run: Callable[[], NDArray[Any]]
    script: str


def nearest(
    names: Iterable[str], seen: Callable[[str], bool], before: Callable[[str], Iterable[str]]
) -> tuple[str, ...]:
    """The first names that are `seen` when walking back from `names` through `before`."""
    found: dict[str, None] = {}
    visited: set[str] = set()
    waiting = list(names)[::-1]
    while waiting:
        name = waiting.pop()
        if name in visited:
            continue
        visited.add(name)
        if seen(name):
            found[name] = None
        else:
            waiting.extend(list(before(name))[::-1])
    return tuple(found)
