"""Walks by the GPU's kernel are those of tensors; without a GPU in triton's interpreter."""

import torch

from generator.tokenizer.place import Place
from generator.tokenizer.place_map import BELOW
from tests.processes import check_kernel, kernels


def check(device):
    """Bodies anywhere among blocks of any height, standing, sliding, stepping, jumping and falling."""
    generator = torch.Generator().manual_seed(0)
    place = Place(512.0, False, 12, 3)
    place.map.eye.fill_(105.0)
    body, floor = place.body, int(BELOW - 41)
    heights = torch.randint(floor, floor + 60, (32, 32), generator=generator)
    heights = torch.where(torch.rand(32, 32, generator=generator) < 0.2, heights, floor)
    body.relief.copy_(heights.repeat_interleave(4, 0).repeat_interleave(4, 1))
    body.stature.fill_(41.0)
    body.fall.copy_(torch.tensor([1.125, -2.0, 1.0, -1.0]))
    push = body.push.view(2, 2, -1)
    push[0, 0, 0] = push[0, 0, 3] = 0.78
    push[1] = push[0] / 256
    body.lift[2] = 8.0
    place, many = place.to(device), 12
    place.body.changed()
    scale = torch.tensor([512.0, 512.0, 360.0, 20.0, 60.0])
    pose = torch.rand(many, 5, generator=generator) * scale + torch.tensor([0.0, 0.0, 0.0, 0.0, 90.0])
    look = torch.randn(many, 6, 2, generator=generator) * 5
    actions = (torch.rand(many, 1, 5, generator=generator) < 0.5).float().expand(-1, 6, -1)
    state = torch.zeros(many, 7)
    state[::2, 5], state[::2, :2] = 1, torch.rand(many // 2, 2, generator=generator) * 50 - 25
    given = [part.to(device) for part in (pose, look, actions, state)]
    keys = given[2][..., :3]
    told = (given[0], given[1], place.body.pushes(keys), (keys * place.body.lift).sum(-1), given[3])
    want, made = place.body.walk_of_tensors(place, told), place.body.walk_of_kernel(place, told)
    for one, other in zip(want, made, strict=True):
        alike = torch.isclose(one, other, atol=2e-3).flatten(1).all(-1)
        assert alike.float().mean() > 0.9, (one, other)
    assert (want[2][:, 2] > 0).any() and (want[2][:, 4] > 0).any(), "some rise, some are in the air"
    print("alike")


@kernels
def test_bodies_of_the_kernel_walk_as_those_of_tensors():
    check_kernel(check, __file__)


if __name__ == "__main__":
    check("cuda" if torch.cuda.is_available() else "cpu")
