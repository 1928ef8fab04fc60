"""Rotary positions and cache slots: only distances count, at any age of a session."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generator.model.kv_cache import CacheShape, KVCache, filled_slots, sink_position, slot_of
from generator.model.rope import rotate, space_angles, split_pairs, time_angles

HEAD = 64


def product(query, key, distance, index):
    """The time part of an attention score between frames `distance` apart."""
    late, early = (time_angles(torch.tensor(i), HEAD) for i in (index, index - distance))
    return (rotate(query, late.cos(), late.sin()) * rotate(key, early.cos(), early.sin())).sum()


@pytest.mark.parametrize("index", [40, 1000, 1_000_000, 50_000_000])
@pytest.mark.parametrize("distance", [0, 1, 15])
def test_scores_depend_on_distance_alone(index, distance):
    pairs = split_pairs(HEAD)[0]
    query, key = torch.randn(2, 2 * pairs, generator=torch.Generator().manual_seed(0))
    near, far = product(query, key, distance, 20), product(query, key, distance, index)
    assert far.isfinite()
    torch.testing.assert_close(far, near, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("head", [16, 64, 128])
def test_pairs_fill_the_head(head):
    assert sum(split_pairs(head)) == head // 2
    assert all(pairs > 0 for pairs in split_pairs(head))


def test_rotation_keeps_lengths():
    x, angle = torch.randn(3, 8), torch.randn(3, 4)
    torch.testing.assert_close(rotate(x, angle.cos(), angle.sin()).norm(dim=-1), x.norm(dim=-1))


def test_a_finer_grid_spans_the_same_space():
    coarse, fine = (space_angles(n, n, HEAD, (4, 4)) for n in (4, 8))
    assert coarse.max() < fine.max() < 4 and 0 < fine.min() < coarse.min()


@given(st.integers(0, 500), st.integers(1, 9), st.integers(0, 3))
def test_the_ring_holds_the_window_and_the_sinks(frame, window, sink):
    held = {}
    for k in range(frame + 1):
        held[slot_of(k, window, sink)] = k
    assert set(held.values()) == {k for k in range(frame + 1) if k < sink or frame - k <= window}
    assert sorted(held) == list(range(filled_slots(frame, window, sink)))


@given(st.integers(0, 10_000_000), st.integers(1, 30), st.integers(1, 3))
def test_no_sink_is_ever_farther_than_training_showed(frame, window, sink):
    for k in range(min(sink, frame + 1)):
        seen = int(sink_position(torch.tensor(k), torch.tensor(frame), window, sink))
        assert k <= seen <= frame and frame - seen <= window + sink


def test_reset_forgets():
    cache = KVCache(1, CacheShape(1, 2, 3, 4, window=2, sink=1), torch.float32, torch.device("cpu"))
    keys, values = cache.write(0, 0, torch.ones(1, 2, 3, 4), torch.ones(1, 2, 3, 4))
    assert keys.shape == values.shape == (1, 2, 3, 4)
    cache.reset()
    assert not cache.keys.any() and not cache.values.any()
