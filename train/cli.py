"""``swipe-train``: fit a model, judge a checkpoint, check and clean what others left."""

from __future__ import annotations

from swipe.console import run
from train.commands import app, fitting, judging, tidying

__all__ = ["app", "fitting", "judging", "main", "tidying"]


def main() -> None:
    """Console script ``swipe-train``."""
    run(app)


if __name__ == "__main__":
    main()
