"""A small seeded swipe model as a `Lowering`, and the traces of a build to look for."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lowered_files import lowered
from numpy.typing import NDArray
from torch import Tensor, nn

from exporter.formats import Axis, Inputs, Lowering, calls_of
from exporter.targets import find_target
from train.models import SwipeModel, agnostic, bake
from train.models.tcn import SwipeTcn

METADATA = {"contract_id": "0123456789abcdef", "alphabet": "abcdefghijklmnopqrstuvwxyz", "é": "ü\n"}


def strokes(count: int, seed: int) -> NDArray[np.float32]:
    """Smooth seeded paths inside the letter area, ``float32[count, 2, 64]``."""
    generator = np.random.default_rng(seed)
    ends = generator.uniform(0.05, 0.95, size=(count, 2, 5))
    at = np.linspace(0.0, 1.0, 64)
    paths = [[np.interp(at, np.linspace(0, 1, 5), axis) for axis in stroke] for stroke in ends]
    return np.asarray(paths, dtype=np.float32)


def swipe_job() -> Lowering:
    """A baked model of 7 convolutions, 2 of them ends."""
    baked = bake(_model(), torch.rand(26, 2))
    return job_of(baked)


def agnostic_job() -> Lowering:
    """The same model for any keyboard: 2 linear layers more, which embed the keys."""
    generator = np.random.default_rng(7)
    context = {
        "layout_keys": generator.random((1, 64, 2), dtype=np.float32),
        "layout_mask": (generator.random((1, 64)) < 0.5).astype(np.float32),
    }
    return job_of(agnostic(_model()), context, output_name="log_emissions")


def job_of(module: nn.Module, context: Inputs | None = None, **options: Any) -> Lowering:
    """A job for any module that takes swipes, and `context` that no call changes."""
    context = context or {}
    return Lowering(
        module.eval(), calls_of(strokes(1, seed=2), context)[0],
        calls_of(strokes(32, seed=3), context), METADATA,
        float_inputs=frozenset(context), **options,
    )  # fmt: skip


def _model() -> SwipeModel:
    """32 channels, and a BatchNorm that has seen data."""
    torch.manual_seed(0)
    model = SwipeTcn(32, dilations=(1, 2))
    with torch.no_grad():
        for _ in range(3):
            model(torch.from_numpy(strokes(16, seed=1)), torch.rand(16, 26, 2))
    return model.eval()


def expected(job: Lowering, features: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the module itself computes, one input at a time."""
    context = tuple(map(torch.from_numpy, list(job.example.values())[1:]))
    with torch.no_grad():
        rows = [job.module(torch.from_numpy(row[None]), *context).numpy() for row in features]
    return np.concatenate(rows)


class Masked(nn.Module):
    """Features ``[1, 5, T]`` and lengths ``[1]`` -> ``[1, T, 9]``, zeros before the head's bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Conv1d(5, 32, 1)
        self.mix = nn.Linear(32, 32)
        self.narrow = nn.Linear(32, 32)
        self.head = nn.Linear(32, 9)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        x = self.mix(self.project(features).transpose(1, 2).relu()).relu()
        real = torch.arange(features.shape[2]) < lengths[:, None]
        y: Tensor = self.head(self.narrow(x) * real[:, :, None].to(x.dtype))
        return y


def sequences(*sizes: int) -> list[Inputs]:
    """One call of `sequence_job` for each of `sizes`; the last two frames are padding."""
    generator = np.random.default_rng(5)
    return [
        {
            "features": generator.normal(size=(1, 5, size)).astype(np.float32),
            "lengths": np.array([size - 2], np.int64),
        }
        for size in sizes
    ]


def sequence_job(module: nn.Module) -> Lowering:
    """A job of 4 to 50 frames, with their number as int64."""
    return Lowering(
        module.eval(), sequences(20)[0], sequences(4, 50, 12, 33, 20, 41), METADATA,
        dynamic={"features": {2: Axis("T", 4, 50)}},
    )  # fmt: skip


class Recurrent(nn.Module):
    """An LSTM, which torch unrolls to one length."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(5, 8, batch_first=True)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        y: Tensor = self.lstm(features.transpose(1, 2))[0] * lengths
        return y


def build_agnostic(name: str, folder: Path) -> dict[str, Path]:
    """The agnostic job in float32 and int8, both executed and compared with torch."""
    job, form = agnostic_job(), find_target(name).format()
    paths = {rung: lowered(job, folder, name, rung) for rung in ("fp32", "int8")}
    inputs = strokes(8, seed=4)
    wanted = expected(job, inputs)
    tolerances = {"fp32": 1e-4, "int8": 0.25 * float(np.ptp(wanted[wanted > -1e3]))}
    shapes = [[1, 2, 64], [1, 64, 2], [1, 64]]
    for rung, path in paths.items():
        run = form.load(path)
        context = tuple(job.example.values())[1:]
        outputs = np.concatenate([run(row[None], *context) for row in inputs])
        delta = np.abs(np.maximum(outputs, -1e3) - np.maximum(wanted, -1e3)).max()
        assert delta < tolerances[rung]
        facts: Any = form.inspect(path)
        assert list(facts["inputs"].values()) == shapes
        assert list(facts["outputs"].values()) == [[1, 32, 65]]
    return paths


def traces_of_this_machine(content: bytes) -> list[str]:
    """The build's folders and source files that are named in `content`."""
    repository = Path(__file__).resolve().parents[2]
    folders = {repository, Path(sys.prefix), Path(tempfile.gettempdir()), Path.cwd()}
    names = [*map(str, sorted(folders)), "site-packages", "tcn.py", 'File "']
    return [name for name in names if name.encode() in content]
