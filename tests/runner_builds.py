"""Building the native runners for tests; without what that needs, said loudly."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest

from android_harness.runners.build import Options, build_set
from android_harness.runners.sets import ENGINES, RunnerSet
from swipe.errors import MissingError


def build_or_say(flavour: str, flags: Sequence[str], engines: Sequence[str] = ENGINES) -> RunnerSet:
    """The set of `flavour` with all `engines`; CI must be able to build it, a user may not."""
    try:
        options = Options(engines=tuple(engines), extra_flags=("-Werror", *flags))
        built = build_set(flavour, options, lambda line: None)
        for engine in engines:
            built.program(engine)
    except MissingError as error:
        message = f"NOT TESTED, the runners for {flavour} cannot be built: {error}; {error.fix}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return built
