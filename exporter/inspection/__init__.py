"""What ``swipe-train check`` is offered by the exporter: verdicts on .onnx files and on bundles.

`train.inspection.kinds` finds these as entry points (see pyproject.toml), since training may not
import what comes after it. Importing this package loads no format's library.

What it leaves out: whether an artefact agrees with PyTorch; `exporter.parity` and ``swipe-bench``
execute it, this only looks at what is stored. ``.pte`` and ``.mlpackage`` have no inspector: within
a bundle their recorded hash is proof that they are whole.
"""

from __future__ import annotations

from typing import Final

from exporter.inspection.bundle import inspect_bundle
from exporter.inspection.onnx_file import inspect_onnx
from exporter.manifest import is_bundle
from train.inspection.kinds import Kind

ONNX: Final = Kind(".onnx", lambda path: path.suffix == ".onnx" and path.is_file(), inspect_onnx)
BUNDLE: Final = Kind("a bundle of swipe-export", is_bundle, inspect_bundle)
