"""The LSTM, one step at a time, gates in MIL's order: input, forget, output, cell.

What it leaves out, by name: peepholes, clipping, and the activations ``hard_sigmoid`` and
``scaled_tanh``, whose constants MIL does not state. In float16 the states between steps stay
float32; only results are rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from exporter.mil.operators import Kernel, Options, operator

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "linear": lambda x: x,
}


@operator(
    "lstm",
    "x initial_h initial_c weight_ih weight_hh bias? weight_ih_back? weight_hh_back? bias_back?",
)
def lstm(options: Options) -> Kernel:
    """All states ``[S, B, D H]`` or the last ``[1, B, D H]``, then both last states."""
    direction = options.choice("direction", "forward", ("forward", "reverse", "bidirectional"))
    both = direction == "bidirectional"
    whole = options.flag("output_sequence")
    gate, cell, output = (
        ACTIVATIONS[options.choice(f"{name}activation", usual, tuple(ACTIVATIONS))]
        for name, usual in (("recurrent_", "sigmoid"), ("cell_", "tanh"), ("", "tanh"))
    )
    for name in ("weight_ih_back", "weight_hh_back"):
        if both and name not in options.operation.inputs:
            raise options.refusal(f"no {name}")

    def steps(
        x: Tensor, h: Tensor, c: Tensor, weights: Sequence[Tensor | None], turned: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of one direction: states of every step in the order of `x`, and both last states."""
        weight_ih, weight_hh, bias = weights
        assert weight_ih is not None
        assert weight_hh is not None
        weighted = torch.nn.functional.linear(x.flip(0) if turned else x, weight_ih, bias)
        states = []
        for now in weighted:
            i, f, o, z = (now + h @ weight_hh.T).chunk(4, -1)
            c = gate(f) * c + gate(i) * cell(z)
            h = gate(o) * output(c)
            states.append(h)
        sequence = torch.stack(states)
        return sequence.flip(0) if turned else sequence, h, c

    def kernel(x: Tensor, h: Tensor, c: Tensor, *weights: Tensor | None) -> Sequence[Tensor]:
        size = h.shape[-1] // (2 if both else 1)
        runs = [steps(x, h[:, :size], c[:, :size], weights[:3], direction == "reverse")]
        if both:
            runs.append(steps(x, h[:, size:], c[:, size:], weights[3:], turned=True))
        sequence, last_h, last_c = (torch.cat(parts, -1) for parts in zip(*runs, strict=True))
        return sequence if whole else last_h[None], last_h, last_c

    return kernel
