"""BatchNorm whose statistics are those of all processes' samples.

With it, N processes compute what one process computes on N times the batch. torch has one of its
own, for GPUs only; this one needs nothing but a collective, so it can be tested anywhere.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class _Sum(torch.autograd.Function):
    """The sum over all processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        torch.distributed.all_reduce(total)
        return total


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
        # Statistics are at least float32, also when the rest of the pass is bfloat16.
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        ones = x.new_full((1,), x.numel() / x.shape[1])
        sums = _total(torch.cat([x.sum(axes), ones]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centered = x - mean.view(shape)
        # A second collective, because E[x^2] - E[x]^2 would lose the digits that parity needs.
        variance = _total((centered * centered).sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * (count / (count - 1)))
        result = centered * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            result = result * self.weight.view(shape) + self.bias.view(shape)
        return result.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        running_mean, running_var = cast(Tensor, self.running_mean), cast(Tensor, self.running_var)
        tracked = cast(Tensor, self.num_batches_tracked)
        tracked += 1
        share = 1.0 / float(tracked) if self.momentum is None else self.momentum
        running_mean.lerp_(mean, share)
        running_var.lerp_(variance, share)


def _total(x: Tensor) -> Tensor:
    return cast(Tensor, _Sum.apply(x))  # type: ignore[no-untyped-call]


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
