"""A reference interpreter for Core ML's ML Programs: what a saved package computes, without a Mac.

Only the file is read, so what is executed is what a phone gets. An operation or an option that is
not known is refused by name when the package is opened. What it leaves out: Core ML's own kernels;
see `exporter.mil.interpreter`.
"""

from exporter.mil.interpreter import KNOWN, Interpreter, Step
from exporter.mil.program import Extent, Feature

__all__ = ["KNOWN", "Extent", "Feature", "Interpreter", "Step"]
