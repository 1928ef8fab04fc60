"""Ray maps against an explicit rotation, poses against their inverse."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from controls.camera import RAY_SCALE, Camera, Pose, advance, ray_map, relative_pose, wrap_degrees

angle = st.floats(-179.0, 179.0)
unit = st.floats(-1e4, 1e4)
poses = st.tuples(unit, unit, unit, angle, st.floats(-45, 45))


def _rotated(ray: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    x, y, z = ray
    p, w = np.radians(pitch), np.radians(yaw)
    y, z = y * np.cos(p) + z * np.sin(p), z * np.cos(p) - y * np.sin(p)
    return np.array([x * np.cos(w) + z * np.sin(w), y, z * np.cos(w) - x * np.sin(w)])


@given(st.floats(-45, 45), st.floats(-45, 45), st.integers(0, 4), st.integers(0, 7))
def test_is_rotated_minus_unrotated(yaw: float, pitch: float, row: int, column: int) -> None:
    ray = Camera(90).rays(5, 8)[:, row, column]
    got = ray_map((yaw, pitch), 5, 8, 90)[:, row, column] / RAY_SCALE
    np.testing.assert_allclose(got, _rotated(ray, yaw, pitch) - ray, atol=1e-5)


def test_signs_shapes_and_zero() -> None:
    assert ray_map(np.zeros((2, 3, 4, 2)), 10, 16, 90.0).shape == (2, 3, 4, 3, 10, 16)
    assert not ray_map(np.zeros((4, 2)), 10, 16, 90.0).any()
    right, up = ray_map([(2, 0), (0, 2)], 3, 3, 90.0)[:, :, 1, 1]
    assert right[0] > 0 and right[1] == 0 and up[1] > 0 and up[0] == 0
    assert right.dtype == np.float32


def test_each_tick_stands_alone() -> None:
    look = np.random.default_rng(0).normal(0, 3, (2, 4, 2))
    whole = ray_map(look, 4, 6, 100.0)
    np.testing.assert_array_equal(whole[1, 2], ray_map(look[1, 2], 4, 6, 100.0))


def test_typical_look_has_about_unit_std() -> None:
    look = np.random.default_rng(0).normal(0, 2, (2000, 2)) * (1, 0.3)
    assert 0.7 < ray_map(look, 10, 16, 90.0)[:, 0].std() < 1.3


def test_rays_follow_the_field_of_view() -> None:
    rays = Camera(90).rays(1000, 1600)
    np.testing.assert_allclose(np.linalg.norm(rays, axis=0), 1)
    assert abs(rays[0, 500, -1] / rays[2, 500, -1] - 1) < 1e-3  # tan 45 degrees at the right edge
    assert abs(rays[1, 0, 800] / rays[2, 0, 800] - 1 / 1.6) < 1e-3


@given(poses, poses)
def test_relative_pose_is_the_inverse_of_advance(a: tuple[float, ...], b: tuple[float, ...]) -> None:
    np.testing.assert_allclose(advance(a, *relative_pose(a, b)), b, atol=1e-6)


def test_advance_turns_then_walks() -> None:
    np.testing.assert_allclose(advance(Pose(), (90, 5), (2, 1, 3)), (-1, -2, 3, 90, 5), atol=1e-9)
    many = advance(np.zeros((7, 5)), np.zeros(2), (1, 0, 0))
    assert many.shape == (7, 5) and Pose(*many[0]).x == 1
    assert advance(Pose(pitch=80), (0, 80), (0, 0, 0))[4] < 90


@given(st.floats(-1e6, 1e6))
def test_wrapped_degrees_are_the_same_angle(degrees: float) -> None:
    wrapped = wrap_degrees(degrees)
    assert -180 <= wrapped < 180
    np.testing.assert_allclose(np.sin(np.radians(wrapped - degrees)), 0, atol=1e-6)
