"""What other installed packages offer under an entry point group: loaded, or refused by name."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from swipe.errors import MissingError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Offer(Generic[T]):
    """One thing that a package offers.

    Attributes:
        name: of the entry point.
        package: who offers it.
        thing: what is offered.
    """

    name: str
    package: str
    thing: T


def offers(group: str, kind: type[T], what: str) -> list[Offer[T]]:
    """Everything that installed packages offer in `group`, by name.

    Args:
        group: the entry point group.
        kind: what each entry point must be an instance of.
        what: how a message calls it, e.g. "format".

    Raises:
        MissingError: one cannot be loaded, or is something else. Leaving it out would leave out
            what the user has installed without a word.
    """
    points = sorted(entry_points(group=group), key=lambda point: point.name)
    return [_load(point, kind, what) for point in points]


def _load(point: EntryPoint, kind: type[T], what: str) -> Offer[T]:
    package = point.value if point.dist is None else point.dist.name
    try:
        thing = point.load()
    except Exception as error:
        # Any type: importing runs someone's code.
        raise MissingError(
            f"the {what} {point.name} ({package}) cannot be loaded: {error!r}",
            fix="install that package again, or uninstall it",
        ) from error
    if not isinstance(thing, kind):
        raise MissingError(
            f"the {what} {point.name} ({package}) is no {kind.__qualname__}",
            fix="install a version of it that fits this one, or uninstall it",
        )
    return Offer(point.name, package, thing)
