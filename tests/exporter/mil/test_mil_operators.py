"""Each operation against torch: built by coremltools, saved, read back, executed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytest.importorskip("coremltools")

from mil_programs import Array, Case, mb, run

from exporter.mil import KNOWN

generator = np.random.default_rng(1)


def normal(*shape: int) -> Array:
    return generator.standard_normal(shape, dtype=np.float32)


def tensors(*arrays: Array) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.from_numpy, arrays))


def unary() -> list[Case]:
    x = normal(3, 5)
    (t,) = tensors(x)
    positive = np.abs(x) + 0.5
    small = np.clip(x, -0.9, 0.9)
    edges = np.array([[-1.0, 0.0, 0.5, 1.5, 2.5]], dtype=np.float32)
    cases = [
        Case(name, lambda v, name=name: getattr(mb, name)(x=v), (x,), getattr(torch, name)(t))
        for name in (
            "relu", "sigmoid", "tanh", "exp", "exp2", "abs", "sign", "floor", "ceil", "sin",
            "cos", "tan", "sinh", "cosh", "atan", "erf", "square",
        )
    ]  # fmt: skip
    cases += [
        Case(name, lambda v, name=name: getattr(mb, name)(x=v), (small,),
             getattr(torch, name)(torch.from_numpy(small)))
        for name in ("acos", "asin", "atanh")
    ]  # fmt: skip
    slopes = np.array([0.1, 0.2, 0.3], np.float32)
    return [
        *cases,
        Case("sqrt", lambda v: mb.sqrt(x=v), (positive,), np.sqrt(positive)),
        Case("round", lambda v: mb.round(x=v), (edges,), [[-1.0, 0.0, 0.0, 2.0, 2.0]]),
        Case("silu", lambda v: mb.silu(x=v), (x,), F.silu(t)),
        Case("softplus", lambda v: mb.softplus(x=v), (x,), F.softplus(t)),
        Case("softsign", lambda v: mb.softsign(x=v), (x,), F.softsign(t)),
        Case("relu6", lambda v: mb.relu6(x=v), (5 * x,), F.relu6(5 * t)),
        Case("log", lambda v: mb.log(x=v), (positive,), np.log(positive)),
        Case("log_epsilon", lambda v: mb.log(x=v, epsilon=0.25), (positive,),
             np.log(positive + np.float32(0.25))),
        Case("rsqrt", lambda v: mb.rsqrt(x=v, epsilon=0.5), (positive,),
             1 / np.sqrt(positive + np.float32(0.5))),
        Case("inverse", lambda v: mb.inverse(x=v), (positive,), 1 / (positive + np.float32(1e-4))),
        Case("inverse_of_zero", lambda v: mb.inverse(x=v), (np.zeros(1, np.float32),), [1e4]),
        Case("clip", lambda v: mb.clip(x=v, alpha=-0.5, beta=0.25), (x,), t.clamp(-0.5, 0.25)),
        Case("threshold", lambda v: mb.threshold(x=v, alpha=0.1), (x,), t.clamp(min=0.1)),
        Case("gelu", lambda v: mb.gelu(x=v), (x,), F.gelu(t)),
        Case("gelu_tanh", lambda v: mb.gelu(x=v, mode="TANH_APPROXIMATION"), (x,),
             F.gelu(t, approximate="tanh")),
        Case("gelu_sigmoid", lambda v: mb.gelu(x=v, mode="SIGMOID_APPROXIMATION"), (x,),
             t * torch.sigmoid(1.702 * t)),
        Case("elu", lambda v: mb.elu(x=v, alpha=0.3), (x,), F.elu(t, 0.3)),
        Case("leaky_relu", lambda v: mb.leaky_relu(x=v, alpha=0.3), (x,), F.leaky_relu(t, 0.3)),
        Case("prelu", lambda v: mb.prelu(x=v, alpha=slopes), (x[None, ..., None],),
             F.prelu(t[None, ..., None], torch.from_numpy(slopes))),
        Case("clamped_relu", lambda v: mb.clamped_relu(x=v, alpha=0.3, beta=0.5), (x,),
             torch.minimum(F.leaky_relu(t, 0.3), torch.tensor(0.5))),
        Case("thresholded_relu", lambda v: mb.thresholded_relu(x=v, alpha=0.5), (edges,),
             [[0.0, 0.0, 0.5, 1.5, 2.5]]),
        Case("linear_activation", lambda v: mb.linear_activation(x=v, alpha=2.0, beta=3.0), (x,),
             2 * t + 3),
        Case("scaled_tanh", lambda v: mb.scaled_tanh(x=v, alpha=2.0, beta=0.5), (x,),
             2 * torch.tanh(0.5 * t)),
        Case("sigmoid_hard", lambda v: mb.sigmoid_hard(x=v, alpha=1 / 6, beta=0.5), (3 * x,),
             F.hardsigmoid(3 * t)),
        Case("cast", lambda v: mb.cast(x=v, dtype="int32"), (edges,), [[-1, 0, 0, 1, 2]]),
        Case("cast_bool", lambda v: mb.cast(x=mb.cast(x=v, dtype="bool"), dtype="int32"),
             (edges,), [[1, 0, 1, 1, 1]]),
        Case("cast_small", lambda v: mb.cast(x=mb.cast(x=v, dtype="uint16"), dtype="int32"),
             (np.array([0, 65535], np.int32),), [0, 65535]),
        Case("logical_not",
             lambda v: mb.cast(x=mb.logical_not(x=mb.cast(x=v, dtype="bool")), dtype="int32"),
             (edges,), [[0, 1, 0, 0, 0]]),
    ]  # fmt: skip


def binary() -> list[Case]:
    x, y = normal(2, 3, 1), normal(3, 4)
    y[0, 0] = x[0, 0, 0]
    s, t = tensors(x, y)
    i, j = np.array([[7, -7, 5]], np.int32), np.array([[2, 2, -3]], np.int32)

    def compared(name: str) -> Any:
        return lambda v, w: mb.cast(x=getattr(mb, name)(x=v, y=w), dtype="int32")

    def logical(name: str) -> Any:
        return lambda v, w: mb.cast(
            x=getattr(mb, name)(x=mb.cast(x=v, dtype="bool"), y=mb.cast(x=w, dtype="bool")),
            dtype="int32",
        )

    arithmetic = {"add": s + t, "sub": s - t, "mul": s * t, "real_div": s / t,
                  "maximum": torch.maximum(s, t), "minimum": torch.minimum(s, t),
                  "floor_div": torch.floor(s / t), "mod": s - t * torch.floor(s / t)}  # fmt: skip
    comparisons = {"equal": s == t, "not_equal": s != t, "less": s < t, "less_equal": s <= t,
                   "greater": s > t, "greater_equal": s >= t}  # fmt: skip
    p, q = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)
    truths = {"logical_and": [0, 0, 0, 1], "logical_or": [0, 1, 1, 1], "logical_xor": [0, 1, 1, 0]}
    return [
        *(Case(name, lambda v, w, name=name: getattr(mb, name)(x=v, y=w), (x, y), wanted)
          for name, wanted in arithmetic.items()),
        *(Case(name, compared(name), (x, y), wanted) for name, wanted in comparisons.items()),
        *(Case(name, logical(name), (p, q), wanted) for name, wanted in truths.items()),
        Case("pow", lambda v, w: mb.pow(x=v, y=w), (np.abs(x), y), s.abs() ** t),
        Case("int_real_div", lambda v, w: mb.real_div(x=v, y=w), (6 * i, i), [[6, 6, 6]]),
        Case("int_floor_div", lambda v, w: mb.floor_div(x=v, y=w), (i, j), [[3, -4, -2]]),
        Case("int_mod", lambda v, w: mb.mod(x=v, y=w), (i, j), [[1, 1, -1]]),
        Case("select",
             lambda v, w: mb.select(cond=mb.greater(x=v, y=np.float32(0)), a=v, b=w), (x, x - 9),
             torch.where(s > 0, s, s - 9)),
    ]  # fmt: skip


def layout() -> list[Case]:
    x = normal(2, 3, 4)
    whole = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    near = np.array([[2, 0], [1, 1]], np.int32)
    along = np.array([[[2], [0], [1]], [[3], [3], [0]]], np.int32)
    one, one_two = np.int32(1), np.array([1, 2], np.int32)

    def cut(**options: Any) -> Any:
        return lambda v: mb.slice_by_index(x=v, **options)

    return [
        Case("shape", lambda v: mb.shape(x=v), (x,), [2, 3, 4]),
        Case("identity", lambda v: mb.identity(x=v), (x,), x),
        Case("reshape", lambda v: mb.reshape(x=v, shape=[4, -1]), (x,), x.reshape(4, 6)),
        Case("reshape_zero", lambda v: mb.reshape(x=v, shape=[-1, 0]), (x,), x.reshape(6, 4)),
        Case("reshape_at_run_time", lambda v, w: mb.reshape(x=v, shape=w),
             (x, np.array([-1, 12], np.int32)), x.reshape(2, 12)),
        Case("transpose", lambda v: mb.transpose(x=v, perm=[2, 0, -2]), (x,),
             x.transpose(2, 0, 1)),
        Case("expand_dims", lambda v: mb.expand_dims(x=v, axes=[-1, 1]), (x,),
             x.reshape(2, 1, 3, 4, 1)),
        Case("squeeze", lambda v: mb.squeeze(x=v, axes=[-1]), (x.reshape(1, 24, 1),),
             x.reshape(1, 24)),
        Case("squeeze_all", lambda v: mb.squeeze(x=v), (x.reshape(1, 24, 1),), x.reshape(24)),
        Case("reverse", lambda v: mb.reverse(x=v, axes=[0, 2]), (x,), x[::-1, :, ::-1]),
        Case("reverse_all", lambda v: mb.reverse(x=v), (x,), x[::-1, ::-1, ::-1]),
        Case("concat", lambda v, w: mb.concat(values=[v, w], axis=-2), (x, x[:, :1]),
             np.concatenate([x, x[:, :1]], 1)),
        Case("concat_interleave",
             lambda v, w: mb.concat(values=[v, w], axis=1, interleave=True), (x, -x),
             np.stack([x, -x], 2).reshape(2, 6, 4)),
        Case("stack", lambda v, w: mb.stack(values=[v, w], axis=1), (x, -x), np.stack([x, -x], 1)),
        Case("split", lambda v: mb.split(x=v, num_splits=2, axis=2), (x,), np.split(x, 2, 2)),
        Case("split_sizes", lambda v: mb.split(x=v, split_sizes=[1, 2], axis=1), (x,),
             [x[:, :1], x[:, 1:]]),
        Case("slice", cut(begin=[0, 1, -3], end=[2, 3, 4], stride=[1, 1, 2]), (whole,),
             whole[:, 1:3, -3:4:2]),
        Case("slice_masks",
             cut(begin=[9, 1, 9], end=[9, 9, 2], begin_mask=[True, False, True],
                 end_mask=[True, True, False]), (whole,), whole[:, 1:, :2]),
        Case("slice_squeeze",
             cut(begin=[-1, 0, 0], end=[0, 3, 4], squeeze_mask=[True, False, False]),
             (whole,), whole[-1]),
        Case("slice_backwards",
             cut(begin=[0, 2, 9], end=[1, 0, 9], stride=[1, -1, -2],
                 begin_mask=[True, False, True], end_mask=[True, False, True]),
             (whole,), whole[:, 2:0:-1, ::-2]),
        Case("slice_at_run_time", lambda v, w: mb.slice_by_index(x=v, begin=w, end=[2, 3, 4]),
             (whole, np.array([1, 0, 2], np.int32)), whole[1:, :, 2:]),
        Case("slice_by_size", lambda v: mb.slice_by_size(x=v, begin=[0, -2, 1], size=[2, 1, -1]),
             (whole,), whole[:, 1:2, 1:]),
        Case("tile", lambda v: mb.tile(x=v, reps=[1, 2, 3]), (x,), np.tile(x, (1, 2, 3))),
        Case("pad", lambda v: mb.pad(x=v, pad=[1, 0, 0, 2], constant_val=7.0), (x,),
             np.pad(x, ((0, 0), (1, 0), (0, 2)), constant_values=7)),
        Case("pad_reflect", lambda v: mb.pad(x=v, pad=[2, 1, 1, 3], mode="reflect"), (x,),
             np.pad(x, ((0, 0), (2, 1), (1, 3)), mode="reflect")),
        Case("pad_replicate", lambda v: mb.pad(x=v, pad=[2, 1, 0, 3], mode="replicate"), (x,),
             np.pad(x, ((0, 0), (2, 1), (0, 3)), mode="edge")),
        Case("gather", lambda v, w: mb.gather(x=v, indices=w, axis=1), (x, near), x[:, near]),
        Case("gather_scalar", lambda v: mb.gather(x=v, indices=np.int32(1), axis=-1), (x,),
             x[..., 1]),
        Case("gather_number", lambda v: mb.gather(x=v, indices=np.int32(1), axis=0),
             (np.array([4, 5], np.int32),), np.int32(5)),
        Case("gather_along_axis", lambda v, w: mb.gather_along_axis(x=v, indices=w, axis=2),
             (x, along), np.take_along_axis(x, along.astype(np.int64), 2)),
        Case("fill", lambda v: mb.mul(x=mb.fill(shape=[2, 3], value=2.5), y=v),
             (np.ones(3, np.float32),), np.full((2, 3), 2.5)),
        Case("fill_like", lambda v: mb.add(x=mb.fill_like(ref_tensor=v, value=2.5), y=v), (x,),
             x + np.float32(2.5)),
        Case("range", lambda v: mb.range_1d(start=one, end=mb.squeeze(x=v), step=np.int32(3)),
             (np.array([8], np.int32),), [1, 4, 7]),
        Case("one_hot",
             lambda v: mb.one_hot(indices=v, one_hot_vector_size=3, on_value=2.0, off_value=-1.0),
             (one_two,), [[-1, 2, -1], [-1, -1, 2]]),
        Case("one_hot_axis", lambda v: mb.one_hot(indices=v, one_hot_vector_size=3, axis=0),
             (one_two,), [[0, 0], [1, 0], [0, 1]]),
        Case("band_part", lambda v: mb.band_part(x=v, lower=0, upper=1), (whole,),
             np.triu(whole) * np.tril(np.ones((3, 4)), 1)),
    ]  # fmt: skip


def layers() -> list[Case]:
    x, w, b, even = normal(2, 4, 11), normal(6, 4, 3), normal(6), normal(6, 4, 4)
    image, filters = normal(1, 4, 6, 7), normal(8, 2, 3, 2)
    volume, cube = normal(1, 2, 4, 4, 4), normal(3, 2, 2, 2, 2)
    up, m = normal(4, 3, 4), normal(5, 4)
    t, tw, tb = tensors(x, w, b)
    ti, tf, tu = tensors(image, filters, up)
    q, k, v = normal(1, 2, 5, 4), normal(1, 2, 6, 4), normal(1, 2, 6, 3)
    allowed = np.broadcast_to(np.arange(6) < 4, (5, 6)).copy()
    other = normal(1, 4, 5, 3)
    mask = np.where(allowed, 0.0, -1e4).astype(np.float32)
    attended = F.scaled_dot_product_attention(*tensors(q, k, v), attn_mask=torch.from_numpy(mask))

    def conv(weight: Array = w, **options: Any) -> Any:
        return lambda v: mb.conv(x=v, weight=weight, **options)

    def back(**options: Any) -> Any:
        return lambda v: mb.conv_transpose(x=v, weight=up, **options)

    return [
        Case("linear", lambda v: mb.linear(x=v, weight=m, bias=b[:5]), (q,),
             F.linear(*tensors(q, m, b[:5]))),
        Case("matmul", lambda v, w: mb.matmul(x=v, y=w), (q, v[..., :4, :]),
             np.matmul(q, v[..., :4, :])),
        Case("matmul_transposed",
             lambda v, w: mb.matmul(x=v, y=w, transpose_x=True, transpose_y=True),
             (up, up.swapaxes(1, 2)), np.matmul(up.swapaxes(1, 2), up)),
        Case("einsum", lambda v, w: mb.einsum(values=(v, w), equation="nchw,nwhu->nchu"),
             (q, other), np.einsum("nchw,nwhu->nchu", q, other)),
        Case("conv", conv(bias=b), (x,), F.conv1d(t, tw, tb)),
        Case("conv_custom", conv(pad_type="custom", pad=[3, 1], strides=[2], dilations=[2]), (x,),
             F.conv1d(F.pad(t, (3, 1)), tw, None, 2, 0, 2)),
        Case("conv_symmetric", conv(pad_type="custom", pad=[2, 2]), (x,),
             F.conv1d(t, tw, None, 1, 2)),
        Case("conv_same", conv(even, pad_type="same"), (x,),
             F.conv1d(F.pad(t, (1, 2)), torch.from_numpy(even))),
        Case("conv_same_lower", conv(even, pad_type="same_lower"), (x,),
             F.conv1d(F.pad(t, (2, 1)), torch.from_numpy(even))),
        Case("conv_same_strided", conv(even, pad_type="same", strides=[4]), (x,),
             F.conv1d(F.pad(t, (0, 1)), torch.from_numpy(even), None, 4)),
        Case("conv_2d", conv(filters, groups=2, pad_type="custom", pad=[1, 0, 0, 1]), (image,),
             F.conv2d(F.pad(ti, (0, 1, 1, 0)), tf, groups=2)),
        Case("conv_3d", conv(cube), (volume,), F.conv3d(*tensors(volume, cube))),
        Case("conv_transpose", back(strides=[4]), (x,), F.conv_transpose1d(t, tu, None, 4)),
        Case("conv_transpose_custom", back(strides=[2], pad_type="custom", pad=[2, 1], bias=b[:3]),
             (x,), F.conv_transpose1d(t, tu, tb[:3], 2)[..., 2:-1]),
        Case("conv_transpose_stated", back(strides=[4], output_shape=[2, 3, 44]), (x,),
             F.conv_transpose1d(t, tu, None, 4)),
        Case("avg_pool", lambda v: mb.avg_pool(x=v, kernel_sizes=[3], strides=[2],
                                               pad_type="custom", pad=[1, 1]), (x,),
             F.avg_pool1d(t, 3, 2, 1)),
        Case("avg_pool_real", lambda v: mb.avg_pool(x=v, kernel_sizes=[3], strides=[1],
                                                    pad_type="same", pad=[0, 0],
                                                    exclude_padding_from_average=True), (x,),
             F.avg_pool1d(t, 3, 1, 1, count_include_pad=False)),
        Case("max_pool", lambda v: mb.max_pool(x=v, kernel_sizes=[2, 3], strides=[2, 1],
                                               pad_type="custom", pad=[0, 0, 1, 1]), (image - 9,),
             F.max_pool2d(ti - 9, (2, 3), (2, 1), (0, 1))),
        Case("attention",
             lambda *a: mb.scaled_dot_product_attention(query=a[0], key=a[1], value=a[2],
                                                        attn_mask=mask), (q, k, v), attended),
        Case("attention_bool",
             lambda *a: mb.scaled_dot_product_attention(query=a[0], key=a[1], value=a[2],
                                                        attn_mask=allowed), (q, k, v), attended),
    ]  # fmt: skip


def reductions() -> list[Case]:
    x = normal(2, 3, 4)
    (t,) = tensors(x)
    whole = np.array([[3, 1, 2]], np.int32)
    gamma, beta = normal(4), normal(4)

    def reduced(name: str, **options: Any) -> Any:
        return lambda v: getattr(mb, name)(x=v, **options)

    both = [-1, 0]
    return [
        Case("reduce_mean", reduced("reduce_mean", axes=both), (x,), t.mean(both)),
        Case("reduce_all", reduced("reduce_sum", keep_dims=True), (x,), t.sum().reshape(1, 1, 1)),
        Case("reduce_sum_int", reduced("reduce_sum", axes=[1]), (whole,), [6]),
        Case("reduce_max", reduced("reduce_max", axes=[1], keep_dims=True), (x,),
             t.amax(1, True)),
        Case("reduce_min", reduced("reduce_min", axes=[1]), (x,), t.amin(1)),
        Case("reduce_prod", reduced("reduce_prod", axes=both), (x,), x.prod((0, 2))),
        Case("reduce_l1_norm", reduced("reduce_l1_norm", axes=both), (x,), t.abs().sum(both)),
        Case("reduce_l2_norm", reduced("reduce_l2_norm", axes=both), (x,), t.norm(dim=both)),
        Case("reduce_log_sum", reduced("reduce_log_sum", axes=[2]), (np.abs(x),),
             t.abs().sum(2).log()),
        Case("reduce_log_sum_exp", reduced("reduce_log_sum_exp", axes=[2]), (x,), t.logsumexp(2)),
        Case("reduce_sum_square", reduced("reduce_sum_square", axes=[2]), (x,), (t * t).sum(2)),
        Case("reduce_argmax", reduced("reduce_argmax", axis=1), (x,), t.argmax(1)),
        Case("reduce_argmin", reduced("reduce_argmin", axis=-1, keep_dims=True), (x,),
             t.argmin(-1, True)),
        Case("softmax", reduced("softmax", axis=1), (x,), t.softmax(1)),
        Case("cumsum", reduced("cumsum", axis=2), (x,), t.cumsum(2)),
        Case("cumsum_int", reduced("cumsum", axis=1), (whole,), [[3, 4, 6]]),
        Case("cumsum_reverse", reduced("cumsum", axis=1, reverse=True, exclusive=True), (x,),
             t.flip(1).cumsum(1).flip(1) - t),
        Case("topk", reduced("topk", k=2, axis=1), (x,), list(t.topk(2, 1))),
        Case("topk_ascending", reduced("topk", k=4, axis=-1, ascending=True), (x,),
             list(t.sort(-1))),
        Case("topk_values", reduced("topk", k=1, axis=0, return_indices=False), (x,),
             t.amax(0, True)),
        Case("layer_norm", reduced("layer_norm", axes=[-1], gamma=gamma, beta=beta, epsilon=1e-3),
             (x,), F.layer_norm(t, [4], *tensors(gamma, beta), eps=1e-3)),
        Case("layer_norm_middle", reduced("layer_norm", axes=[1], gamma=gamma[:3]), (x,),
             F.layer_norm(t.mT, [3], torch.from_numpy(gamma[:3])).mT),
        Case("batch_norm",
             reduced("batch_norm", mean=gamma[:3], variance=beta[:3] ** 2, gamma=beta[1:],
                     beta=gamma[1:], epsilon=1e-3), (x,),
             F.batch_norm(t, *tensors(gamma[:3], beta[:3] ** 2, beta[1:], gamma[1:]), eps=1e-3)),
        Case("instance_norm",
             reduced("instance_norm", gamma=gamma[:3], beta=beta[:3], epsilon=1e-3), (x,),
             F.instance_norm(t, None, None, *tensors(gamma[:3], beta[:3]), eps=1e-3)),
    ]  # fmt: skip


def lstms() -> list[Case]:
    """torch orders gates i, f, g, o; MIL i, f, o, z."""
    size, x = 3, normal(5, 2, 4)
    h, c = normal(2, 2 * size), normal(2, 2 * size)
    torch.manual_seed(0)
    one, two = nn.LSTM(4, size), nn.LSTM(4, size, bidirectional=True)

    def weights(module: nn.LSTM, suffix: str = "") -> list[Array]:
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        ih, hh, b_ih, b_hh = (getattr(module, name + suffix).detach().numpy() for name in names)
        parts = [np.split(each, 4) for each in (ih, hh, b_ih + b_hh)]
        return [np.concatenate([i, f, o, z]) for i, f, z, o in parts]

    def states(module: nn.LSTM, sequence: Array, h: Array, c: Array) -> list[Any]:
        count = 2 if module.bidirectional else 1
        folded = [torch.from_numpy(s).reshape(2, count, size).transpose(0, 1) for s in (h, c)]
        with torch.no_grad():
            start = tuple(state.contiguous() for state in folded)
            y, last = module(torch.from_numpy(sequence.copy()), start)
        return [y, *(s.transpose(0, 1).reshape(2, -1) for s in last)]

    ih, hh, bias = weights(one)
    back_ih, back_hh, back_bias = weights(two, "_reverse")
    front_ih, front_hh, front_bias = weights(two)
    y, last_h, last_c = states(one, x, h[:, :size], c[:, :size])
    turned = states(one, x[::-1], h[:, :size], c[:, :size])
    wide = states(two, x, h, c)

    def single(**options: Any) -> Any:
        return lambda v, h, c: mb.lstm(
            x=v, initial_h=h, initial_c=c, weight_ih=ih, weight_hh=hh, bias=bias, **options
        )

    def double(v: Any, h: Any, c: Any) -> Any:
        return mb.lstm(
            x=v, initial_h=h, initial_c=c, direction="bidirectional", output_sequence=True,
            weight_ih=front_ih, weight_hh=front_hh, bias=front_bias,
            weight_ih_back=back_ih, weight_hh_back=back_hh, bias_back=back_bias,
        )  # fmt: skip

    narrow = (x, h[:, :size], c[:, :size])
    return [
        Case("lstm", single(output_sequence=True), narrow, [y, last_h, last_c]),
        Case("lstm_last", single(), narrow, [last_h[None], last_h, last_c]),
        Case("lstm_reverse", single(output_sequence=True, direction="reverse"), narrow,
             [turned[0].flip(0), *turned[1:]]),
        Case("lstm_both", double, (x, h, c), wide),
    ]  # fmt: skip


FAMILIES = {
    "unary": unary(), "binary": binary(), "layout": layout(),
    "layers": layers(), "reductions": reductions(), "lstms": lstms(),
}  # fmt: skip
TARGETS = {"layers": "iOS18"}
"""For the attention operation; iOS 17 else."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Array]:
    """Of all cases; one program for each family, as saving takes a third of a second."""
    made: dict[str, Array] = {}
    for family, cases in FAMILIES.items():
        made |= run(cases, tmp_path_factory.mktemp(family), TARGETS.get(family, "iOS17"))
    return made


CASES = [pytest.param(case, id=case.name) for cases in FAMILIES.values() for case in cases]


@pytest.mark.parametrize("case", CASES)
def test_an_operation_computes_what_it_is_defined_to(case: Case, results: dict[str, Array]) -> None:
    several = isinstance(case.wanted, list) and f"{case.name}_0" in results
    for index, wanted in enumerate(case.wanted if several else [case.wanted]):
        given = results[f"{case.name}_{index}" if several else case.name]
        assert given.shape == np.shape(wanted)
        np.testing.assert_allclose(given, np.asarray(wanted), rtol=2e-5, atol=2e-6)


def test_every_known_operation_has_a_case() -> None:
    built = {
        name.removesuffix("_epsilon")
        for name in (c.name for cases in FAMILIES.values() for c in cases)
    }
    elsewhere = {name for name in KNOWN if name.startswith("const")}
    named_otherwise = {
        "slice_by_index": "slice", "range_1d": "range", "reduce_sum": "reduce_all",
        "scaled_dot_product_attention": "attention",
    }  # fmt: skip
    assert {named_otherwise.get(name, name) for name in KNOWN - elsewhere} <= built
