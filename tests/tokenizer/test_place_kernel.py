"""Views by the GPU's kernel meet what tensors meet; without a GPU in triton's interpreter."""

import torch

from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.place_faces import ROUGH, TEXELS
from generator.tokenizer.place_map import BELOW, FINEST, UNIT, PlaceMap, asked_at
from tests.processes import check_kernel, kernels

PERIOD, EDGE, STRETCH = 512.0, 1.2, 1.2


def check(device):
    """Views of random blocks from random poses, in and above them, are those of `view_of_tensors`."""
    from generator.tokenizer.place_kernel import first_met

    torch.manual_seed(0)
    place_map = PlaceMap(PERIOD, 12)
    number = torch.randperm(place_map.blocks)[: place_map.blocks // 60].sort().values
    place_map.fill(number, torch.rand(len(number), 3) * 2 - 1)
    faced = number[::2]
    place_map.faces.fill(faced, torch.randint(ROUGH + 3, faced.shape), torch.randint(256, (len(faced), TEXELS**2)))
    place_map = place_map.to(device)
    scale = torch.tensor([4 * PERIOD, 4 * PERIOD, 360.0, 40.0, 100.0])
    pose = ((torch.rand(5, 5) - torch.tensor([0.5, 0.5, 0.0, 0.5, 0.0])) * scale).to(device)
    rays, asked = Rays(pose, EDGE, STRETCH, 11, 17), [far.to(device) for far in asked_at(2 * EDGE / 17)]
    parts = (pose[:, :2], rays.east[:, 0], rays.north[:, 0], rays.up[..., 0], BELOW + pose[:, 4])
    codes = [place_map.codes0, place_map.codes1, place_map.codes2]
    code, away = first_met(parts, asked, codes, (place_map.cells, place_map.heights, PERIOD, FINEST))
    want = place_map.view_of_tensors(rays, asked)
    assert 0.2 < (code > 0).float().mean() < 1.0, "some rays meet blocks, some the sky"
    near = torch.where(code > 0, UNIT / away, 0.0)
    assert torch.isclose(near, want[:, 3]).float().mean() > 0.995
    if device == "cuda":
        seen = place_map.view_of_kernel(rays, asked)
        assert torch.isclose(seen, want).float().mean() > 0.995
        fine = place_map.view_of_kernel(rays, asked, fine=True)
        assert torch.isclose(fine, place_map.view_of_tensors(rays, asked, fine=True)).float().mean() > 0.99
    print("alike")


@kernels
def test_rays_of_the_kernel_meet_what_tensors_meet():
    check_kernel(check, __file__)


if __name__ == "__main__":
    check("cuda" if torch.cuda.is_available() else "cpu")
