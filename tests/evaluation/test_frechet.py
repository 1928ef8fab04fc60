"""The Frechet distance on known Gaussians, and the features of single pictures."""

import numpy as np
import pytest

from controls.errors import UserError
from generator.evaluation.frechet import AlexNet, Stills, apart, fit, frechet
from generator.training.perceptual import Lpips


def samples(count: int, mean, root, seed: int = 0) -> np.ndarray:
    """Samples whose mean and covariance (over N - 1) are exactly `mean` and root root'."""
    raw = np.random.default_rng(seed).normal(size=(count, len(mean)))
    raw -= raw.mean(0)
    whitened = np.linalg.qr(raw)[0] * np.sqrt(count - 1)
    return whitened @ np.asarray(root, np.float64).T + mean


@pytest.fixture(scope="module")
def network():
    try:
        return AlexNet(Lpips("alexnet"))
    except UserError as error:
        pytest.skip(str(error))


def test_the_distance_of_known_gaussians():
    """One dimension: (m - n)^2 + (s - r)^2; commuting covariances: the same along each axis."""
    one, two = samples(50, [1.0], [[2.0]]), samples(70, [4.0], [[0.5]], 1)
    assert frechet(one, two) == pytest.approx(9 + 2.25)
    wide, narrow = samples(40, np.zeros(3), np.diag([1.0, 2.0, 3.0])), samples(60, np.ones(3), np.eye(3), 1)
    assert frechet(wide, narrow) == pytest.approx(3 + 0 + 1 + 4)
    assert frechet(narrow, wide) == pytest.approx(frechet(wide, narrow))


def test_the_distance_of_gaussians_that_do_not_commute():
    """Against tr((A B)^(1/2)) taken from the eigenvalues of A B."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 4, 4))
    a, b = first @ first.T, second @ second.T
    root = np.sqrt(np.linalg.eigvals(a @ b).real.clip(0)).sum()
    found = frechet(samples(30, np.zeros(4), first), samples(30, np.zeros(4), second, 1))
    assert found == pytest.approx(np.trace(a) + np.trace(b) - 2 * root, rel=1e-6)


@pytest.mark.parametrize("count", [2, 20, 500])
def test_the_same_samples_are_no_distance_apart_even_when_the_covariance_is_singular(count):
    rows = np.random.default_rng(0).normal(5, 3, (count, 400))
    assert frechet(rows, rows) == pytest.approx(0, abs=1e-6)
    assert frechet(rows, rows[::-1]) == pytest.approx(0, abs=1e-6)


def test_few_samples_are_biased_upward():
    rows = np.random.default_rng(0).normal(size=(800, 40))
    assert frechet(rows[:50], rows[50:100]) > 3 * frechet(rows[:400], rows[400:]) > 0


def test_one_sample_is_refused():
    with pytest.raises(UserError, match="two or more"):
        frechet(np.zeros((1, 4)), np.zeros((5, 4)))


def test_grey_is_farther_than_noise_and_the_same_pictures_are_no_distance_apart(network, rooms):
    pictures = np.stack([rooms.room(96, 64, 90.0, 30.0 * turn) for turn in range(12)])
    real = fit(network.features(pictures))
    assert real.mean.shape == (256,) and network.name == "frechet_alexnet"
    noisy = pictures.astype(int) + np.random.default_rng(0).integers(-6, 7, pictures.shape)
    grey = np.repeat(pictures.mean((1, 2, 3), keepdims=True), 3, axis=-1) + np.zeros(pictures.shape)
    near, far = (fit(network.features(p.clip(0, 255).astype(np.uint8))) for p in (noisy, grey))
    assert apart(real, real) == pytest.approx(0, abs=1e-6)
    assert 0 < apart(near, real) < 0.5 * apart(far, real)


def test_stills_are_compared_with_the_reference_and_without_one_say_nothing(rooms):
    class Colours:
        name, every = "colours", 2

        def features(self, pictures):
            return pictures.mean((1, 2))

    rng, stills = np.random.default_rng(0), Stills(Colours())
    real, other = rng.integers(0, 255, (2, 8, 6, 6, 3), np.uint8)
    stills.add("floor", real)
    stills.add("next", other)
    assert stills.figures() == {
        "colours.next": None, "colours.rollout": None, "colours.floor": None, "colours.ceiling": None,
        "colours.pictures": 4,
    }  # fmt: skip
    stills.add("reference", other)
    found = stills.figures()
    assert found["colours.next"] == pytest.approx(0, abs=1e-6) and found["colours.floor"] > 1
