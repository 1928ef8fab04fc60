"""Conditions of a latent frame: diffusion time and the four ticks' actions as vectors, look rotation as channels.

Shape key: B batch, F latent frames, D width, P action fields, H, W latent size.
Source: AAPT section 4 (control as channels; every video frame's pose relative to the previous one, the four of a
latent frame concatenated); the action embedding beside it is ours, because keys are not poses.

Does not know about bindings, engines or what an action field means.
"""

from __future__ import annotations

from torch import Tensor, nn

from generator.model.layers import MODULATIONS, time_features

TIME_WIDTH = 256


class Conditioner(nn.Module):
    """Time and action to the modulation shared by all blocks, and an action vector added to every token."""

    def __init__(self, width: int, ticks: int, action_fields: int) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, width), nn.SiLU(), nn.Linear(width, width))
        self.action = nn.Sequential(nn.Linear(ticks * action_fields, width), nn.SiLU(), nn.Linear(width, width))
        self.shared = nn.Sequential(nn.SiLU(), nn.Linear(width, MODULATIONS * width))
        self.final = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.token = nn.Linear(width, width, bias=False)
        for layer in (self.shared[1], self.final[1]):
            nn.init.normal_(layer.weight, std=0.02 * width**-0.5)
            nn.init.zeros_(layer.bias)

    def forward(self, t: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """t (B,) and actions (B, F, ticks, P) to shared (B, F, 6, D), final (B, F, 2, D), token (B, F, D)."""
        return self.mix(self.embed_time(t), actions)

    def embed_time(self, t: Tensor) -> Tensor:
        """t (B,) to (B, D); a constant wherever t is, as at play time."""
        return self.time(time_features(t, TIME_WIDTH).to(self.token.weight.dtype))

    def mix(self, time: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, from an embedded time (B, D)."""
        action = self.action(actions.flatten(2).to(time.dtype))
        condition = time[:, None] + action
        shared = self.shared(condition).unflatten(-1, (MODULATIONS, -1))
        return shared, self.final(condition).unflatten(-1, (2, -1)), self.token(action)


def patchify(x: Tensor, patch: int) -> Tensor:
    """(B, F, C, H, W) to tokens (B, F, N, C * patch * patch)."""
    batch, frames, channels, height, width = x.shape
    grid = x.reshape(batch, frames, channels, height // patch, patch, width // patch, patch)
    return grid.permute(0, 1, 3, 5, 2, 4, 6).reshape(batch, frames, -1, channels * patch * patch)


def unpatchify(tokens: Tensor, patch: int, height: int, width: int) -> Tensor:
    """Tokens (B, F, N, C * patch * patch) to (B, F, C, height, width)."""
    batch, frames = tokens.shape[:2]
    grid = tokens.reshape(batch, frames, height // patch, width // patch, -1, patch, patch)
    return grid.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, frames, -1, height, width)
