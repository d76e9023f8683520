"""Saved artefacts, altered where they lie: the weights, scales and texts in a file of any format.

All formats store a convolution's float weights as they are, or channels last; int8 weights lie
beside their scales. So a file is sabotaged in seconds, without lowering anything again, and what is
judged is a file that no build of ours has ever refused. Every edit has to hit exactly one place.

What it leaves out: what no edit of numbers can do, such as another shape; that is lowered.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporter.formats import Format, Lowering
from exporter.targets import Target, find_target

Change = Callable[[nn.Module], None]
"""Alters a module in place."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A real format whose artefacts are not built, but copied from `files`, by rung."""

    real: Format
    files: Mapping[str, Path]

    def lower(self, job: Lowering, path: Path) -> None:
        """The prepared float artefact."""
        copy_artefact(self.files["fp32"], path)

    def quantize(self, job: Lowering, path: Path, rung: str) -> None:
        """The prepared artefact of `rung`."""
        copy_artefact(self.files[rung], path)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


class ReadyTarget(Target):
    """A target of the ladder with the real limits, level and gates, and a `Ready` format."""

    def format(self) -> Format:
        return self.ready


def ready_target(name: str, files: Mapping[str, Path]) -> Target:
    """The target called `name`, whose rungs are `files`."""
    real = find_target(name)
    values = {field.name: getattr(real, field.name) for field in fields(Target)}
    values["rungs"] = tuple(rung for rung in real.rungs if rung.name in files)
    target = ReadyTarget(**values)
    object.__setattr__(target, "ready", Ready(real.format(), files))
    return target


def copy_artefact(source: Path, path: Path) -> None:
    """Copy a file, or a package, which is a folder."""
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copyfile(source, path)


def parts(artefact: Path) -> list[Path]:
    """The files that an artefact consists of."""
    return (
        sorted(p for p in artefact.rglob("*") if p.is_file()) if artefact.is_dir() else [artefact]
    )


def replace_bytes(artefact: Path, old: bytes, new: bytes) -> None:
    """Exchange the one occurrence of `old`; sizes stay, as files hold offsets."""
    assert len(old) == len(new)
    assert old != new
    contents = {part: part.read_bytes() for part in parts(artefact)}
    assert sum(content.count(old) for content in contents.values()) == 1, "not in one place"
    for part, content in contents.items():
        part.write_bytes(content.replace(old, new))


def truncate(artefact: Path, share: float) -> None:
    """Keep the first `share` of the largest file: an interrupted copy."""
    largest = max(parts(artefact), key=lambda part: part.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[: int(len(content) * share)])


def altered(module: nn.Module, change: Change) -> nn.Module:
    """A copy of `module` that `change` was applied to."""
    other = copy.deepcopy(module)
    with torch.no_grad():
        change(other)
    return other


def write_weights(artefact: Path, module: nn.Module, change: Change) -> None:
    """Give `artefact`, which holds the weights of `module`, the changed ones."""
    before = dict(module.named_parameters())
    after = dict(altered(module, change).named_parameters())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed, "the change changes nothing"
    for name in changed:
        old, new = before[name].detach().numpy(), after[name].detach().numpy()
        _write_weight(artefact, name, old, new)


def _write_weight(
    artefact: Path, name: str, old: NDArray[np.float32], new: NDArray[np.float32]
) -> None:
    content = b"".join(part.read_bytes() for part in parts(artefact))
    for store in _stores(old):
        if content.count(store(old)) == 1:
            replace_bytes(artefact, store(old), store(new))
            return
    raise AssertionError(f"{name} is not stored as float weights")


def _stores(weight: NDArray[Any]) -> Iterator[Callable[[NDArray[Any]], bytes]]:
    """The ways in which files hold a weight: as torch does, channels last, and both in halves."""
    for kind in (np.float32, np.float16):
        yield lambda values, kind=kind: values.astype(kind).tobytes()
        if weight.ndim == 3:
            yield lambda values, kind=kind: values.transpose(0, 2, 1).astype(kind).tobytes()


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales of a symmetric int8 weight, one for each output channel."""
    scales: NDArray[np.float32] = np.abs(weight).max(axis=(1, 2)) / np.float32(127)
    return scales


def write_scales(
    artefact: Path,
    expected: NDArray[np.float32],
    change: Callable[[NDArray[Any]], NDArray[Any]],
) -> None:
    """Change the one array in `artefact` that is `expected`, up to a half float's rounding."""
    hits = [
        (part, offset, kind)
        for part in parts(artefact)
        for kind in (np.float32, np.float16)
        for offset in _places(part.read_bytes(), expected, np.dtype(kind))
    ]
    assert len(hits) == 1, f"{len(hits)} places hold the scales"
    part, offset, kind = hits[0]
    content = bytearray(part.read_bytes())
    found = np.frombuffer(content, kind, len(expected), offset).copy()
    changed = change(found).astype(kind)
    assert not np.array_equal(found, changed)
    content[offset : offset + changed.nbytes] = changed.tobytes()
    part.write_bytes(bytes(content))


def _places(content: bytes, expected: NDArray[np.float32], kind: np.dtype[Any]) -> Iterator[int]:
    for shift in range(kind.itemsize):
        count = (len(content) - shift) // kind.itemsize
        numbers = np.frombuffer(content, kind, count, shift)
        if count < len(expected):
            continue
        near = np.ones(count - len(expected) + 1, dtype=bool)
        for position, value in enumerate(expected):
            window = numbers[position : position + len(near)]
            near &= (window >= value * 0.99) & (window <= value * 1.01)
        yield from (shift + kind.itemsize * int(place) for place in np.flatnonzero(near))
