"""What is stored comes back within the error that the cache tells, and what can't be stored is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from store.calibration import Moments, SignalCodec, fit
from store.encodings import ErrorSum, decode_int8, encode_float16, encode_int8
from store.errors import InputError, NonFiniteError
from store.reduction import kept_tokens, reduce_tokens
from store.signals import Reduction, SignalSpec

torch = pytest.importorskip("torch")

WIDTH = 96


def activations(videos=12, frames=2, tokens=10, width=WIDTH, seed=0):
    """Tokens with outlier channels and outlier tokens, as CLIP's have: float32 [V, 1, M, L, D]."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(videos, 1, frames, tokens, width)) * np.exp(
        generator.normal(size=width) / 2
    )
    values[..., 5] += 40
    values[..., 7] *= 20
    values[..., 3, :] *= 15
    return values.astype(np.float32)


def layer_spec(encoding="int8", tokens="all", width=None, full=(10, WIDTH), frames=2):
    sizes = {"R": 1, "M": frames, "L": kept_tokens(full[0], tokens), "D": width or full[1]}
    return SignalSpec("vit_layers/3", sizes, encoding, reduction=Reduction(tokens, width))


def fitted_codec(spec, sample):
    kept = reduce_tokens(sample, spec.reduction.tokens)
    moments = Moments(kept.shape[-1], covariance=spec.reduction.width is not None)
    moments.add(kept)
    return SignalCodec(spec, fit(spec, moments))


@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=4, max_side=6),
              elements=st.floats(-65504, 65504, width=32)))  # fmt: skip
def test_float16_keeps_eleven_bits(values):
    encoded = encode_float16(values, "text_embedding", np.arange(len(values)))
    assert encoded.dtype == np.float16
    assert (np.abs(encoded.astype(np.float64) - values) <= np.abs(values) * 2.0**-11 + 2.0**-25).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65520.0])
@pytest.mark.parametrize("encoding", ["float16", "int8"])
def test_a_value_that_cannot_be_stored_is_named_with_its_row(encoding, bad):
    values = np.ones((3, 4), dtype=np.float32)
    values[1, 2] = bad if encoding == "float16" else bad * 1000
    encode = encode_float16 if encoding == "float16" else encode_int8
    with pytest.raises(NonFiniteError, match=r"'text_embedding', row 8.*check the teacher's weights"):
        encode(values, "text_embedding", np.array([7, 8, 9]))


@given(arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)),
              elements=st.floats(-1e6, 1e6, width=32)))  # fmt: skip
def test_int8_never_clips_and_errs_by_at_most_half_a_step(values):
    quantised, scale = encode_int8(values, "text_embedding", np.arange(len(values)))
    decoded = decode_int8(quantised, scale, np.float32(0), np.float32(1))
    step = scale.astype(np.float64)[:, np.newaxis]
    assert (np.abs(quantised.astype(int)) <= 127).all()
    assert (np.abs(decoded - values) <= step * 0.5001 + 1e-30).all()


def test_int8_of_outlier_activations_stays_within_the_bars():
    values = activations()
    spec = layer_spec()
    parts, error = fitted_codec(spec, values[:4]).encode(values, np.arange(len(values)))
    stored = sum(part.nbytes for part in parts.values())
    assert error.relative_l2 <= 0.02
    assert error.cosine_min >= 0.9995
    assert stored <= 0.52 * values.astype(np.float16).nbytes
    decoded = fitted_codec(spec, values[:4]).decode(parts)
    difference = np.linalg.norm((decoded - values).ravel()) / np.linalg.norm(values.ravel())
    assert error.relative_l2 == pytest.approx(difference, rel=1e-4)


def test_a_channel_that_never_varies_in_the_sample_is_still_stored():
    values = activations()
    values[:4, ..., 11] = 2.0
    _, error = fitted_codec(layer_spec(), values[:4]).encode(values[:4], np.arange(4))
    assert error.relative_l2 <= 0.02
    constant = np.full((3, 1, 2, 10, WIDTH), 2.0, dtype=np.float32)
    _, error = fitted_codec(layer_spec(), constant).encode(constant, np.arange(3))
    assert error.max_abs_error < 1e-5


def test_a_projection_keeps_what_lies_in_its_directions():
    generator = np.random.default_rng(1)
    low_rank = generator.normal(size=(12, 1, 2, 10, 5)) @ generator.normal(size=(5, WIDTH)) + 3
    values = low_rank.astype(np.float32)
    for encoding, most in (("float16", 1e-3), ("int8", 0.02)):
        codec = fitted_codec(layer_spec(encoding, width=5), values[:6])
        parts, error = codec.encode(values, np.arange(12))
        assert parts["values"].shape[-1] == 5
        assert codec.decode(parts).shape == values.shape
        assert error.relative_l2 < most
    basis = fitted_codec(layer_spec("float16", width=5), values).fitted["projection_basis"]
    np.testing.assert_allclose(basis.T @ basis, np.eye(5), atol=1e-5)


def test_a_projection_needs_enough_vectors_to_be_fitted_on():
    with pytest.raises(InputError, match=r"onto 60 directions.*there are 96 and 20; choose a smaller"):
        fitted_codec(layer_spec("float16", width=60), activations(videos=1))


def test_moments_do_not_depend_on_how_the_sample_was_cut():
    values = activations()
    whole, pieces = Moments(WIDTH, covariance=True), Moments(WIDTH, covariance=True)
    whole.add(values)
    for piece in np.array_split(values, 5):
        pieces.add(piece)
    flat = values.reshape(-1, WIDTH).astype(np.float64)
    np.testing.assert_allclose(pieces.mean, flat.mean(0))
    np.testing.assert_allclose(pieces.covariance, np.cov(flat.T, bias=True), atol=1e-8 * flat.var(0).max())
    np.testing.assert_allclose(whole.covariance, pieces.covariance)


@pytest.mark.parametrize("side", [1, 2, 7, 14, 16])
def test_pooled_tokens_are_average_pooling_in_ceil_mode(side):
    values = np.random.default_rng(side).normal(size=(2, 3, 1 + side * side, 5)).astype(np.float32)
    pooled = reduce_tokens(values, "pool2x2")
    assert pooled.shape[-2] == kept_tokens(1 + side * side, "pool2x2")
    grid = torch.from_numpy(values[..., 1:, :]).unflatten(2, (side, side)).flatten(0, 1).permute(0, 3, 1, 2)
    wanted = torch.nn.functional.avg_pool2d(grid, 2, ceil_mode=True, count_include_pad=False)
    wanted = wanted.permute(0, 2, 3, 1).flatten(1, 2).unflatten(0, (2, 3)).numpy()
    np.testing.assert_allclose(pooled[..., 1:, :], wanted, atol=1e-6)
    np.testing.assert_array_equal(pooled[..., 0, :], values[..., 0, :])
    np.testing.assert_array_equal(reduce_tokens(values, "cls"), values[..., :1, :])


def test_tokens_that_are_no_square_grid_are_not_pooled():
    with pytest.raises(InputError, match="a frame has 11 tokens"):
        kept_tokens(11, "pool2x2")
    with pytest.raises(InputError, match="square grid"):
        reduce_tokens(np.zeros((1, 4, 3)), "pool2x2")


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(1, 11), max_size=3))
def test_errors_add_up_over_shards(seed, cuts):
    generator = np.random.default_rng(seed)
    original = generator.normal(size=(12, 3, 4)).astype(np.float32)
    decoded = original + generator.normal(size=original.shape).astype(np.float32) * 0.01
    whole = ErrorSum.between(original, decoded)
    parts = [
        ErrorSum.between(a, b)
        for a, b in zip(
            np.split(original, sorted(set(cuts))), np.split(decoded, sorted(set(cuts))), strict=True
        )
    ]
    added = sum(parts, ErrorSum())
    assert added.relative_l2 == pytest.approx(whole.relative_l2)
    assert added.mean_cosine == pytest.approx(whole.mean_cosine)
    assert (added.max_abs_error, added.cosine_min) == (whole.max_abs_error, whole.cosine_min)
    x, y = original.reshape(-1, 4).astype(np.float64), decoded.reshape(-1, 4).astype(np.float64)
    cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
    assert whole.cosine_min == pytest.approx(cosine.min())
    assert ErrorSum.from_dict(whole.to_dict()) == whole


def test_a_vector_of_zeros_has_no_cosine():
    zero = np.zeros((2, 3), dtype=np.float32)
    assert ErrorSum.between(zero, zero).mean_cosine == 1.0
    assert ErrorSum.between(zero, zero).relative_l2 == 0.0
