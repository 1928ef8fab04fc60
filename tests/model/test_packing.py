"""Packing of whole numbers: the same to the bit, smaller, and damage is told."""

import json
import lzma

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from controls.errors import UserError
from generator.model import packing
from generator.model.packing import ENDING, packed, unpacked

WHOLE = st.sampled_from(packing.KINDS).flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, max_dims=3, max_side=5, min_side=0))
)


@settings(max_examples=60, deadline=None)
@given(WHOLE, st.booleans())
def test_what_is_packed_comes_back(values, ascending):
    values = np.sort(values, axis=None) if ascending else values
    before = packing.LEAST
    packing.LEAST = 0
    try:
        kept = packed({"a.b": torch.from_numpy(values), "c": torch.ones(3)})
    finally:
        packing.LEAST = before
    assert set(kept) == {"a.b" + ENDING, "c"} and kept["a.b" + ENDING].dtype == torch.uint8
    back = unpacked(kept)
    assert back["a.b"].dtype == torch.from_numpy(values).dtype and torch.equal(back["a.b"], torch.from_numpy(values))
    assert torch.equal(back["c"], torch.ones(3))


def test_only_large_whole_numbers_are_packed_and_they_get_small():
    where = torch.arange(0, 400_000, 3, dtype=torch.int32)
    given_ = {"where": where, "few": where[:100], "matrix": torch.zeros(400, 400)}
    kept = packed(given_)
    assert set(kept) == {"where" + ENDING, "few", "matrix"} and len(kept["where" + ENDING]) < 1000
    assert all(torch.equal(unpacked(kept)[name], tensor) for name, tensor in given_.items())
    assert given_["where"] is where


def test_steps_beyond_the_type_are_not_taken():
    values = torch.tensor([-(2**31), 0, 2**31 - 1], dtype=torch.int32).repeat_interleave(9000)
    assert torch.equal(unpacked(packed({"a": values}))["a"], values)


def header(**changes):
    return json.dumps({"kind": "uint8", "shape": [70_000], "steps": False} | changes).encode() + b"\n"


BLOB = lzma.compress(bytes(70_000))


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"no line",
        b"[]\n" + BLOB,
        header(kind="float32") + BLOB,
        header(shape=[-1]) + BLOB,
        header(shape=[69_999]) + BLOB,
        header(shape=[70_001]) + BLOB,
        header(shape=[1 << 40]) + BLOB,
        header() + BLOB[:-20],
        header() + b"\0" * 40,
        b"{" + b" " * 300 + b"}\n" + BLOB,
    ],
)
def test_damage_is_told_with_the_name(blob):
    with pytest.raises(UserError, match=r"damaged tensor 'place\.map\.where'"):
        unpacked({"place.map.where" + ENDING: torch.frombuffer(bytearray(blob or b"\n"), dtype=torch.uint8)})
