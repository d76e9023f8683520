"""BatchNorm whose statistics are those of all processes' samples.

With it, N processes compute what one process computes on N times the batch. torch has one of its
own, for GPUs only; this one needs nothing but a collective, so it can be tested anywhere.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class SyncedBatchNorm(_BatchNorm):
    """Drop-in for BatchNorm1d, 2d and 3d; outside of training exactly the same."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [B, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[B, C, ...]`` by the statistics over all processes."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        ones = input.new_full((1,), input.numel() / input.shape[1])
        sums = cast(Tensor, all_reduce(torch.cat([input.sum(axes), ones])))  # type: ignore[no-untyped-call]
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = input - mean.view(shape)
        # A second collective, because E[x^2] - E[x]^2 would lose the digits that parity needs.
        variance = cast(Tensor, all_reduce((centered * centered).sum(axes))) / count  # type: ignore[no-untyped-call]
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        result = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        tracked = cast(Tensor, self.num_batches_tracked)
        tracked += 1
        share = 1.0 / float(tracked) if self.momentum is None else self.momentum
        running_mean.lerp_(mean, share)
        running_var.lerp_(variance, share)


def synchronize_norms(model: nn.Module) -> None:
    """Turn every BatchNorm inside `model` into a `SyncedBatchNorm`, in place.

    Parameters and buffers stay the same tensors under the same names.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SyncedBatchNorm):
                setattr(module, name, _synced(child))


def _synced(norm: _BatchNorm) -> SyncedBatchNorm:
    synced = SyncedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    for name, parameter in norm.named_parameters():
        setattr(synced, name, parameter)
    for name, buffer in norm.named_buffers():
        setattr(synced, name, buffer)
    return synced.train(norm.training)
