"""Configuration -> task: the swipe task over its data, or anyone's from a factory."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from swipe.errors import ConfigError, GateError
from swipe.files import write_text_atomic
from swipe.layout import load_layout
from swipe.sources import Corpus
from train.config import CustomConfig, TrainConfig
from train.swipe_data import load_swipe_data
from train.swipe_task import SwipeTask
from train.task import Task

DATA: Final = "data.json"
"""In a run's folder: hashes of what it trains on and is judged by."""


@dataclass(frozen=True, slots=True, eq=False)
class Assembled:
    """A task that is ready to be trained.

    Attributes:
        task: model, batches, loss, evaluation.
        noun: what its samples are called.
        notes: what a person should know about the data, one line each.
        corpora: what was read, with its rejected rows; empty for other people's tasks.
        synthetic: whether the data was generated, as far as is known.
        hashes: SHA-256 of every corpus file, by its name in the configuration.
    """

    task: Task
    noun: str
    notes: tuple[str, ...] = ()
    corpora: tuple[Corpus, ...] = ()
    synthetic: bool = False
    hashes: Mapping[str, str] = field(default_factory=dict)

    def keep_hashes(self, folder: Path) -> None:
        """Write down in the run's `folder` what its data is.

        Raises:
            UsageError: the folder cannot be written.
        """
        write_text_atomic(folder / DATA, json.dumps(dict(self.hashes), indent=2) + "\n")

    def require_same_data(self, folder: Path) -> None:
        """Refuse to go on with the run in `folder` on other data than it began with.

        Raises:
            GateError: a corpus is another one by now.
        """
        try:
            kept = json.loads((folder / DATA).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return  # of an earlier version, or stopped before it was written
        changed = [name for name, found in self.hashes.items() if kept.get(name) != found]
        if changed:
            raise GateError(
                f"the run in {folder} began with other data: {', '.join(changed)} changed since",
                fix="bring back the data it began with, or start a new run from its weights "
                "with --init",
            )


def assemble(config: TrainConfig | CustomConfig) -> Assembled:
    """Read the data and build the model that `config` names.

    Raises:
        ConfigError: the factory cannot be imported or refuses its options.
        DataError: the data cannot be used.
    """
    if isinstance(config, CustomConfig):
        return Assembled(_from_factory(config), "samples")
    layout = load_layout(config.data.layout)
    data = load_swipe_data(config.data, layout, config.seed)
    further = "".join(f" + {len(part):,} at weight {weight:g}" for part, weight in data.mixed)
    why = "they miss a letter of their word" + (", or are of a held-out writer" if further else "")
    note = (
        f"training on {len(data.train):,}{further} swipes ({data.filtered:,} left out: {why}), "
        f"choosing on {len(data.dev):,} of other writers"
    )
    return Assembled(
        SwipeTask(config, data, layout),
        "swipes",
        (*(corpus.summary() for corpus in data.corpora), note),
        data.corpora,
        bool(data.source["synthetic"]),
        data.source["sha256"],
    )


def load_factory(name: str) -> Any:
    """The callable that ``"package.module:callable"`` names; the working directory counts too.

    Raises:
        ConfigError: there is no such module or callable.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigError(f"{name!r} names no factory", fix="write it as package.module:callable")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{name} cannot be imported: {error}",
            fix="check the name, and run the command from the folder that holds the package",
        ) from error


def _from_factory(config: CustomConfig) -> Task:
    factory = load_factory(config.task)
    try:
        task: Task = factory(
            seed=config.seed, batch_size=config.optimizer.batch_size, **config.options
        )
    except TypeError as error:
        raise ConfigError(
            f"{config.task} cannot be called with seed, batch_size and the options "
            f"{sorted(config.options)}: {error}",
            fix="mend the [options] of the configuration, or the factory",
        ) from error
    return task
