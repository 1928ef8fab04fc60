"""Eight bits: near the numbers that they stand for, calibrated on what networks really see."""

import numpy as np
import pytest
import torch
from torch import nn

from generator.checkpoint import load_weights
from generator.runtime.quantise import Int8Linear, calibration, quantise_linears, to_int8


def test_rows_keep_their_own_scale():
    rows = torch.randn(40, 64) * torch.logspace(-3, 3, 40)[:, None]
    scale, small = to_int8(rows)
    assert small.dtype == torch.int8 and small.abs().amax(1).eq(127).all()
    assert ((scale * small - rows).abs() <= scale / 2 * 1.001).all()
    assert torch.equal(to_int8(torch.zeros(2, 4))[1], torch.zeros(2, 4, dtype=torch.int8))


@pytest.mark.parametrize("rows", [3, 64])
def test_an_int8_layer_is_near_its_own(rows):
    torch.manual_seed(0)
    plain, x = nn.Linear(64, 96), torch.randn(2, rows, 64)
    small = Int8Linear(plain)
    error = (small(x) - plain(x)).norm() / plain(x).norm()
    assert small(x).shape == (2, rows, 96) and 1e-5 < error < 0.02


def test_every_linear_layer_is_replaced():
    made = quantise_linears(nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 8), nn.SiLU())))
    assert sum(isinstance(m, Int8Linear) for m in made.modules()) == 2
    assert not any(type(m) is nn.Linear for m in made.modules())


def test_calibration_sees_every_network(world_folder):
    seen = calibration(load_weights(world_folder), 3)
    assert {name: len(rows) for name, rows in seen.items()} == {
        "ExplicitStep": 3, "ExplicitDecode": 3, "ExplicitEncode": 3, "ExplicitDepth": 3,
    }  # fmt: skip
    first, last = seen["ExplicitDecode"][0], seen["ExplicitDecode"][2]
    assert not np.array_equal(first[0], last[0]) and np.abs(last[1]).max() > 0
    assert np.abs(seen["ExplicitStep"][2][8]).max() > 0  # keys of earlier frames
