"""Run an artefact and PyTorch on the same samples, and compare every tensor that both have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from exporter.formats import Inputs
from exporter.localize.alignment import Divergence, Row, Table, match
from exporter.localize.taps import Tapped, Tensor, Values, nearest
from swipe.errors import GateError

if TYPE_CHECKING:
    from exporter.localize.reference import Environment, Reference

NOTHING: Final = Divergence(0.0, 0.0, 0.0, 0, 0)


def survey(
    tapped: Tapped,
    reference: Reference,
    calls: Sequence[Inputs],
    *,
    artefact: str,
    format_name: str,
    view: str,
    rung: str,
    floor_db: float,
    classes: bool = True,
    say: Callable[[int], None] = lambda done: None,
) -> Table:
    """The table of `tapped` on `calls`.

    Args:
        tapped: the artefact.
        reference: torch's graph, from `Tapped.program`.
        calls: real samples.
        artefact: its file name, for the table, as the next four.
        format_name: its format.
        view: what was lowered.
        rung: which rung it is.
        floor_db: below this a row is bad.
        classes: whether the output's last axis are classes, one of which is best.
        say: is told how many samples are done.

    Raises:
        GateError: there is no sample, or no tensor belongs to one of PyTorch's.
        LoweringError: the artefact cannot be executed.
    """
    if not calls:
        raise GateError("no sample to localise with", fix="give more data with --data")
    comparison = _Comparison(tapped, reference, classes)
    for done, call in enumerate(calls, start=1):
        comparison.add(call)
        say(done)
    if not comparison.matched:
        raise GateError(
            f"no tensor of {artefact} belongs to one of PyTorch's, so nothing was compared",
            fix="export the artefact again from this checkpoint",
        )
    return Table(
        artefact, format_name, view, rung, floor_db, len(calls),
        comparison.frames if classes else None, comparison.tap_delta, tapped.note,
        tuple(comparison.row(tensor) for tensor in tapped.tensors),
    )  # fmt: skip


class _Comparison:
    """What has been measured so far, by tensor."""

    def __init__(self, tapped: Tapped, reference: Reference, classes: bool) -> None:
        self._tapped, self._reference, self._classes = tapped, reference, classes
        self.matched: dict[str, str] = {}
        self.frames = 0
        self.tap_delta = 0.0
        self._reasons: dict[str, str] | None = None
        self._totals: dict[str, Divergence] = {}
        self._owns: dict[str, Divergence] = {}
        self._flips: dict[str, int] = {}

    def add(self, call: Inputs) -> None:
        """Compare one more sample."""
        from exporter.localize.reference import array

        expected = self._reference.run(call)
        traced, delta = trace(self._tapped, call)
        self.tap_delta = max(self.tap_delta, delta)
        if self._reasons is None:
            self.matched, self._reasons = self._match(call, expected, traced)
        self.frames += array(expected[self._reference.output])[..., 0].size
        for tensor in self._tapped.tensors:
            if tensor.name in self.matched:
                self._compare(tensor, call, expected, traced)

    def row(self, tensor: Tensor) -> Row:
        """What became of `tensor`."""
        if tensor.name not in self.matched:
            reason = (self._reasons or {})[tensor.name]
            return Row(tensor.name, tensor.operator, unmatched=reason)
        node = self.matched[tensor.name]
        return Row(
            tensor.name,
            tensor.operator,
            self._reference.modules[node],
            node,
            total=self._totals[tensor.name],
            own=self._owns[tensor.name],
            flips=self._flips[tensor.name] if self._classes else None,
        )

    def _match(
        self, call: Inputs, expected: Environment, traced: Values
    ) -> tuple[dict[str, str], dict[str, str]]:
        from exporter.localize.reference import tensors_of

        return match(
            self._tapped.tensors,
            {name: value.shape for name, value in traced.items()},
            tensors_of(expected),
            self._reference.depends,
            dict(zip(call, self._reference.inputs, strict=True)),
        )

    def _compare(self, tensor: Tensor, call: Inputs, expected: Environment, traced: Values) -> None:
        from exporter.localize.reference import array

        name, node, value = tensor.name, self.matched[tensor.name], traced[tensor.name]
        given = {
            self.matched[source]: traced[source]
            for source in matched_sources(tensor, self._tapped.tensors, self.matched)
            if source not in call
        }
        wanted = array(expected[node])
        own = Divergence.between(self._reference.recompute(node, given, expected), value)
        total = Divergence.between(wanted, value)
        self._totals[name] = total.merged(self._totals.get(name, NOTHING))
        self._owns[name] = own.merged(self._owns.get(name, NOTHING))
        if self._classes:
            before = array(expected[self._reference.output]).argmax(axis=-1)
            after = before
            if total.max_abs_delta != 0.0:
                after = self._reference.resume(node, value, expected).argmax(axis=-1)
            self._flips[name] = self._flips.get(name, 0) + int((before != after).sum())


def trace(tapped: Tapped, call: Inputs) -> tuple[dict[str, NDArray[Any]], float]:
    """Every tensor's value, the output's from the untouched artefact; and how far the taps move it.

    A runtime may compute otherwise when it has to keep what it would fuse.
    """
    traced, answer = dict(tapped.trace(call)), tapped.output(call)
    output = tapped.tensors[-1].name
    delta = Divergence.between(answer, traced[output]).max_abs_delta
    traced[output] = answer
    return traced, delta


def matched_sources(
    tensor: Tensor, tensors: Sequence[Tensor], matched: Mapping[str, str]
) -> tuple[str, ...]:
    """The nearest tensors and inputs before `tensor` that are in `matched`."""
    by_name = {other.name: other for other in tensors}
    return nearest(tensor.sources, lambda n: n in matched, lambda n: by_name[n].sources)
