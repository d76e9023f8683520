"""What the user asked to export: a swipe checkpoint, or a model of their own.

Light on purpose: with everything in the cache, nothing is opened and no torch is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from exporter import fingerprint
from exporter.provenance import portable
from swipe.presets import presets_beside
from train.runs import checkpoint_file

if TYPE_CHECKING:
    from exporter.origins.brought import BroughtOrigin
    from exporter.origins.swipe import SwipeOrigin
    from swipe.progress import Say

SWIPE_VIEWS: Final = ("baked", "agnostic")
CALIBRATION_SWIPES: Final = 256
CALIBRATION_SHARE: Final = 0.3
"""Of the writers; the others are who is verified on."""
SEED: Final = 0
"""Of the choice of swipes; see `exporter.samples`."""


@dataclass(frozen=True, slots=True)
class SwipeRequest:
    """A swipe model to export; see ``swipe-export --help``.

    Attributes:
        checkpoint: a file or a run folder.
        views: names of the forms of deployment to build.
        data: swipes to judge by; None: those of the checkpoint's run.
        lexicon: to decode with.
        samples: verification swipes at most.
        preset: of the decoder; None: the one beside the checkpoint, if it fits.
    """

    checkpoint: Path
    views: tuple[str, ...] = SWIPE_VIEWS
    data: str | None = None
    lexicon: str = "wordfreq"
    samples: int = 2000
    preset: Path | None = None

    def recipe(self) -> dict[str, Any]:
        """See `exporter.origins.Request.recipe`."""
        from exporter.views import SHUFFLE_SEED

        return {
            "data": None if self.data is None else portable(self.data),
            "lexicon": portable(self.lexicon),
            "preset": None if self.preset is None else portable(str(self.preset)),
            "samples": self.samples,
            "calibration_samples": CALIBRATION_SWIPES,
            "calibration_share": CALIBRATION_SHARE,
            "seeds": {"samples": SEED, "keyboard": SHUFFLE_SEED},
        }

    def left_out(self, target: str) -> dict[str, str]:
        """See `exporter.origins.Request.left_out`."""
        from exporter.views import find_view

        reasons = {name: find_view(name).excluded(target) for name in self.views}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def needs(self) -> dict[str, str]:
        """See `exporter.origins.Request.needs`."""
        from exporter.views import find_view

        return {k: v for name in self.views for k, v in find_view(name).libraries.items()}

    def parts(self) -> dict[str, Any]:
        """See `exporter.origins.Request.parts`."""
        file = checkpoint_file(self.checkpoint)
        return {
            "checkpoint": fingerprint.checkpoint(file),
            "data": fingerprint.content(self.data),
            "lexicon": fingerprint.content(self.lexicon),
            "presets": [fingerprint.content(str(path)) for path in presets_beside(file)],
            "preset": None if self.preset is None else fingerprint.content(str(self.preset)),
            "samples": self.samples,
            "views": self.views,
        }

    def open(self, say: Say) -> SwipeOrigin:
        """See `exporter.origins.Request.open`."""
        from exporter.origins.swipe import open_swipe

        return open_swipe(self, say)


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """A model of someone's own to export; see ``swipe-export --help``.

    Attributes:
        factory: ``package.module:factory``.
        weights: a file or a run folder; None: those that the factory gives.
    """

    factory: str
    weights: Path | None = None

    @property
    def lexicon(self) -> None:
        """See `exporter.origins.Request.lexicon`."""
        return

    def recipe(self) -> dict[str, Any]:
        """See `exporter.origins.Request.recipe`."""
        weights = None if self.weights is None else portable(str(self.weights))
        return {"factory": self.factory, "weights": weights}

    @property
    def views(self) -> tuple[str, ...]:
        """See `exporter.origins.Request.views`; the factory says which there are."""
        return ()

    def left_out(self, target: str) -> dict[str, str]:
        """See `exporter.origins.Request.left_out`."""
        return {}

    def needs(self) -> dict[str, str]:
        """See `exporter.origins.Request.needs`."""
        return {}

    def parts(self) -> None:
        """See `exporter.origins.Request.parts`; no hash knows what a factory's code depends on."""
        return

    def open(self, say: Say) -> BroughtOrigin:
        """See `exporter.origins.Request.open`."""
        from exporter.origins.brought import open_brought

        return open_brought(self, say)
