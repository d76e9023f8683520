"""What an export starts from: a proven model, its samples, and PyTorch's answers to them.

It takes seconds and needs torch, and depends on nothing but the request's inputs, so it is kept in
the cache: when all of them hash as before, neither the checkpoint nor a swipe is read again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.cache import Cache, key_of
from exporter.manifest import CHECKPOINT, VERIFICATION
from swipe.progress import Say

if TYPE_CHECKING:
    from exporter.origins import Request

KEPT: frozenset[str] = frozenset({CHECKPOINT, VERIFICATION})
"""What the bundle holds of it; the rest is for the workers only."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All JSON types, since it is kept as such.

    Attributes:
        source: the manifest's record of what the bundle is made from, whatever the budget.
        names: the forms of the model to build.
        views: every `exporter.manifest.ViewEntry`, as fields.
        said: what the user is told of it.
    """

    source: dict[str, Any]
    names: list[str]
    views: list[dict[str, Any]]
    said: list[str]


def recall_or_prepare(
    request: Request,
    parts: Mapping[str, Any] | None,
    folder: Path,
    scratch: Path,
    cache: Cache | None,
    environment: Mapping[str, str],
    say: Say,
) -> Prepared:
    """Prepare, or fetch what an earlier export of the same inputs prepared.

    Args:
        request: what the user asked for.
        parts: its `Request.parts`; None where no hash can know them, or no cache is asked.
        folder: becomes the bundle; gets weights and verification samples.
        scratch: an empty folder, for what only the workers need.
        cache: earlier results; None to use and keep none.
        environment: `exporter.fingerprint.environment`.
        say: told what is used.

    Raises:
        UsageError: what was asked for cannot be used.
        GateError: the model was refused.
    """
    if cache is None or parts is None:
        return _prepare(request, folder, scratch, say)
    key = _key(parts, environment)
    kept = cache.recall(key, scratch)
    if kept is not None:
        for name in KEPT:
            shutil.move(scratch / name, folder / name)
        prepared = Prepared(**kept)
        for line in (*prepared.said, "the same model, samples and code: taken from the cache"):
            say(line)
        return prepared
    prepared = _prepare(request, folder, scratch, say)
    # A file that was replaced meanwhile would be found under the name of the earlier one.
    again = request.parts()
    if again is not None and _key(again, environment) == key:
        files = [*(folder / name for name in sorted(KEPT)), *sorted(scratch.iterdir())]
        cache.keep(key, asdict(prepared), files)
    return prepared


def _key(parts: Mapping[str, Any], environment: Mapping[str, str]) -> str:
    """The key of everything that shapes the preparation."""
    return key_of({**parts, "kind": "preparation", "environment": dict(environment)})


def _prepare(request: Request, folder: Path, scratch: Path, say: Say) -> Prepared:
    said: list[str] = []

    def tell(line: str) -> None:
        said.append(line)
        say(line)

    origin = request.open(tell)
    source = origin.keep(folder, scratch).model_dump(mode="json")
    views = [view.model_dump(mode="json") for view in origin.describe()]
    return Prepared(source, list(origin.views), views, said)
