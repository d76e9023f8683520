"""The forms in which a model is deployed: what they take and give, and how they are judged.

* **baked**: one keyboard, whose key embeddings are constants. Resampled swipe in, raw logits out.
* **agnostic**: any keyboard of up to 64 keys, passed at run time. Masked log-probabilities out.
* **points**: as baked, with the resampling inside. Raw touch points in.
* **text**: as baked, with greedy decoding inside. The spelled string out, ONNX only.
"""

from __future__ import annotations

from typing import Final

from exporter.views.agnostic import AGNOSTIC
from exporter.views.baked import BAKED
from exporter.views.keyboard import SHUFFLE_SEED, SLOTS, Keyboard
from exporter.views.points import POINTS, ROWS, rows_of
from exporter.views.text import TEXT
from exporter.views.view import CONTRACT_KEY, View
from swipe.errors import UsageError

__all__ = [
    "AGNOSTIC",
    "BAKED",
    "CONTRACT_KEY",
    "POINTS",
    "ROWS",
    "SHUFFLE_SEED",
    "SLOTS",
    "TEXT",
    "VIEWS",
    "Keyboard",
    "View",
    "choose_views",
    "find_view",
    "rows_of",
]

VIEWS: Final[tuple[View, ...]] = (BAKED, AGNOSTIC, POINTS, TEXT)
GROUPS: Final = {"both": (BAKED, AGNOSTIC), "all": VIEWS}


def find_view(name: str) -> View:
    """The view called `name`.

    Raises:
        UsageError: there is none.
    """
    for view in VIEWS:
        if view.name == name:
            return view
    raise UsageError(
        f"no view {name!r}", fix=f"choose among {', '.join(view.name for view in VIEWS)}"
    )


def choose_views(name: str) -> tuple[View, ...]:
    """The view called `name`, or a group of them: "both" is baked and agnostic, "all" is all.

    Raises:
        UsageError: there is none.
    """
    return GROUPS[name] if name in GROUPS else (find_view(name),)
