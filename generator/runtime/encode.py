"""The first frame: a picture to its latent. Runs once a session, in the tokenizer's own precision.

Does not know where the picture comes from.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from generator.tokenizer.vae import VideoVAE


@torch.inference_mode()
def encode_picture(vae: VideoVAE, picture: npt.NDArray[np.uint8]) -> Tensor:
    """uint8 (Y, X, 3) to the normalised latent (1, C, H, W) of a clip's first frame."""
    weight = next(vae.parameters())
    video = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None, None].to(weight) / 127.5 - 1
    return vae.normalise(vae.encode(video)[0])[:, 0].float()
