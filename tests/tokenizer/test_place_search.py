"""A picture is found where it was taken: the last step, by all that the map knows."""

import torch

from generator.tokenizer import place_search

EDGE = 1.2


def test_what_was_found_is_settled_by_all_that_the_map_knows(tiny_place):
    """To a map unit and a quarter of a degree, the pitch too, which a network only guesses."""
    place, stretch = tiny_place.place, float(tiny_place.stretch)
    for number, true in enumerate(([300.0, 77.0, 200.0, 4.0, 0.0], [41.0, 470.0, 359.8, -3.0, 0.0])):
        picture = place.map.view(torch.tensor([true]), EDGE, stretch, 160, 256, fine=True)[:, :3]
        near = torch.tensor([true]) + torch.tensor([5.0, -4.0, 1.2, 0.9, 0.0]) * (1 - 2 * number)
        found = place_search.settled(place, picture, near, EDGE, stretch)
        away = place.apart(found, torch.tensor([true])).norm()
        turned = (found[0, 2:4] - torch.tensor(true[2:4]) + 180).remainder(360) - 180
        assert away < 1.5 and turned.abs().max() < 0.3, (away, turned)
        assert found[0, 4] == 0 and 0 <= found[0, 2] < 360
