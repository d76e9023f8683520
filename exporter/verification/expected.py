"""What the artefacts of a bundle have to carry, take and give, by the model that they are of.

Of a swipe model its checkpoint's contract tells. Of anyone's model only the factory could; its code
is run by a deep verification alone, so here the manifest's own words have to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.manifest import Manifest, ModelSource, ViewEntry
from exporter.views import VIEWS, find_view
from swipe.errors import UsageError

if TYPE_CHECKING:
    from train.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one view.

    Attributes:
        metadata: what artefacts carry, by key; they may carry more.
        described: what they take and give.
    """

    metadata: Mapping[str, str]
    described: ViewEntry


def stem_of(manifest: Manifest, view: str) -> str:
    """What the file names of the artefacts of `view` begin with.

    Raises:
        UsageError: there is no such view.
    """
    if not isinstance(manifest.source, ModelSource):
        return find_view(view).stem
    if view not in {entry.name for entry in manifest.views}:
        raise UsageError(f"the model has no form {view!r}", fix="export again")
    return view


def of_contract(checkpoint: Checkpoint) -> dict[str, Expected]:
    """By view of a swipe model."""
    contract, weights = checkpoint.contract, checkpoint.weights_sha256
    return {
        view.name: Expected(view.metadata(contract, weights), view.describe(contract))
        for view in VIEWS
    }


def of_manifest(manifest: Manifest, source: ModelSource, weights: str) -> dict[str, Expected]:
    """By form of anyone's model, whose weights have the digest `weights`."""
    from exporter.origins.brought import carried

    facts = carried(source.model_copy(update={"weights_sha256": weights}))
    return {
        view.name: Expected(
            {**{tensor.name: tensor.meaning for tensor in (*view.inputs, view.output)}, **facts},
            view,
        )
        for view in manifest.views
    }
