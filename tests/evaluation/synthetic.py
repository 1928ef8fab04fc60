"""Made-up rooms whose camera motion is known exactly: a far panorama on a cylinder over a flat floor."""

from __future__ import annotations

import math

import numpy as np

from generator.evaluation.motion import View


def smooth_noise(shape, seed, rounds=2):
    """Random values 0..1, blurred a little over both axes (wrapping)."""
    values = np.random.default_rng(seed).random(shape)
    for _ in range(rounds):
        for axis in (0, 1):
            values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / 3
    low, high = values.min(), values.max()
    return (values - low) / (high - low)


def room(width, height, hfov, yaw, pitch=0.0, ahead=0.0, right=0.0, seed=0):
    """What a camera sees, uint8 (Y, X, 3): degrees right and up, and eye heights walked along map axes z and x."""
    view = View(width, height, hfov)
    sky, floor = smooth_noise((90, 720, 3), seed), smooth_noise((256, 256, 3), seed + 1)
    x = (np.arange(width) + 0.5 - width / 2) / view.focal
    below = (np.arange(height) + 0.5 - view.horizon(pitch))[:, None] / view.tall
    turn = np.degrees(np.arctan(x))[None, :] + yaw + 0 * below
    slope = below * np.cos(np.arctan(x))
    picture = sky[((slope + 1) * 40).astype(int) % 90, np.round(turn * 2).astype(int) % 720]
    depth = 1 / np.maximum(below, 1e-3) + 0 * x
    across = depth * x
    sin, cos = math.sin(math.radians(yaw)), math.cos(math.radians(yaw))
    z = depth * cos - across * sin + ahead
    w = depth * sin + across * cos + right
    ground = floor[np.round(z * 12).astype(int) % 256, np.round(w * 12).astype(int) % 256]
    on_floor = (below > 0.18) & (depth < 20)
    return (255 * np.where(on_floor[..., None], ground, picture)).astype(np.uint8)
