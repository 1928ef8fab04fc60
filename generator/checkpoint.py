"""Weights on disk: safetensors shards with a config, an ActionSpec and a hash for every file.

A weights folder holds config.json, weights-00001-HASH.safetensors ... (bf16, at most 16 MB each; large
tensors of whole numbers packed, packing.py) and MODEL_CARD.md.
Every file is checked against its SHA-256 when it is loaded; nothing is ever unpickled. Shards are named by their
content and config.json is replaced last, so a write that fails leaves the weights that were there before.

Does not know how weights are trained or run.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from controls.action import ActionSpec
from controls.errors import UserError
from controls.files import write_atomic
from generator.config import build
from generator.model import int8_file
from generator.model.dit import CausalDiT, DiTConfig
from generator.model.packing import packed, unpacked
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.reproject import Reprojector
from generator.tokenizer.vae import TokenizerConfig, VideoVAE

MANIFEST = "config.json"
FORMAT = 1
SHARD_BYTES = 15_000_000


@dataclass(frozen=True)
class WorldConfig:
    """All that a world needs beside its tensors. `hfov` in degrees, `picture` (width, height) in pixels."""

    preset: str
    picture: tuple[int, int]
    hfov: float
    fps: int
    shift: float
    stage: str
    world: str
    tokenizer: TokenizerConfig
    dit: DiTConfig
    action_spec: ActionSpec
    parallax: ParallaxConfig | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for config.json."""
        return {**asdict(self), "action_spec": self.action_spec.to_dict()}


@dataclass
class Weights:
    """A loaded world: config, its networks in evaluation mode, and the hash that names them.

    Worlds without a parallax turn the recycled picture only. `int8`: what flows into convolutions, if that is known.
    """

    config: WorldConfig
    tokenizer: VideoVAE
    dit: CausalDiT
    hash: str
    parallax: Parallax | None = None
    int8: int8_file.Ranges | None = None

    def reprojector(self, vae: VideoVAE | None = None) -> Reprojector | None:
        """What moves the recycled picture, if this world recycles one; `vae` in place of the tokenizer."""
        if not self.dit.config.reproject:
            return None
        return Reprojector(vae or self.tokenizer, self.config.hfov, self.parallax)


def config_from_dict(data: dict[str, Any]) -> WorldConfig:
    """Rebuild `WorldConfig.to_dict`; UserError on unknown, missing or mistyped settings."""
    plain = dict(data)
    try:
        parts = {name: plain.pop(name) for name in ("tokenizer", "dit", "action_spec")}
    except KeyError as error:
        raise UserError(f"The weights' config has no {error} part; download or train the weights again.") from error
    plain["tokenizer"] = build(TokenizerConfig, parts["tokenizer"], "tokenizer")
    plain["dit"] = build(DiTConfig, parts["dit"], "dit")
    if plain.get("parallax") is not None:
        plain["parallax"] = build(ParallaxConfig, plain["parallax"], "parallax")
    plain["action_spec"] = ActionSpec.from_dict(parts["action_spec"])
    return build(WorldConfig, plain, "world")


def save_weights(
    folder: Path,
    config: WorldConfig,
    tokenizer: VideoVAE,
    dit: dict[str, Tensor],
    notes: dict[str, Any] | None = None,
    parallax: Parallax | None = None,
) -> str:
    """Write a weights folder; returns its hash. UserError when the disk refuses: the old weights then stay whole.

    `dit` is a state dict (EMA weights, say); `notes` are figures for the record and do not enter the hash.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"The folder {str(folder)!r} cannot be made ({error.strerror}); choose another.") from error
    tensors = {f"tokenizer.{k}": v for k, v in tokenizer.state_dict().items()}
    tensors |= {f"dit.{k}": v for k, v in dit.items()}
    if parallax is not None:
        tensors |= {f"parallax.{k}": v for k, v in parallax.state_dict().items()}
    before = set(folder.glob("weights-*.safetensors"))
    files: dict[str, str] = {}
    try:
        for number, shard in enumerate(_shards(packed(tensors)), start=1):
            blob = save_tensors(shard)
            digest = hashlib.sha256(blob).hexdigest()
            name = f"weights-{number:05d}-{digest[:8]}.safetensors"
            files[name] = digest
            write_atomic(folder / name, blob)
        body = {"format": FORMAT, "config": config.to_dict(), "files": files}
        whole = _digest(body)
        text = json.dumps({**body, "hash": whole, "notes": notes or {}}, indent=1)
        write_atomic(folder / MANIFEST, text.encode())
    except UserError:
        for name in files:
            if folder / name not in before:
                (folder / name).unlink(missing_ok=True)
        raise
    for stale in before - {folder / name for name in files}:
        stale.unlink()
    (folder / int8_file.NAME).unlink(missing_ok=True)  # of what was here before
    return whole


def read_manifest(folder: Path) -> dict[str, Any]:
    """config.json of a weights folder, checked; UserError when missing, damaged or of another format."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"There are no weights in {str(folder)!r} (no config.json); give --weights DIR.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!r} cannot be read ({error}); restore the weights folder.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError(f"{str(path)!r} is not a weights config of format {FORMAT}; use matching weights.")
    if _digest(manifest) != manifest.get("hash"):
        raise UserError(f"{str(path)!r} was changed after it was written; restore the weights folder.")
    return manifest


def load_weights(folder: Path, dtype: torch.dtype = torch.float32, ranges: bool = True) -> Weights:
    """Load and verify a weights folder, with its `ranges` for int8 unless they are to be made anew; UserError names the
    file that is missing or damaged.
    """
    manifest = read_manifest(folder)
    config = config_from_dict(manifest["config"])
    tensors: dict[str, Tensor] = {}
    for name, expected in manifest["files"].items():
        tensors |= _read_shard(folder / name, expected)
    tensors = unpacked(tensors)
    try:
        tokenizer, dit = VideoVAE(config.tokenizer), CausalDiT(config.dit)
        parallax = Parallax(config.parallax).to(dtype).eval() if config.parallax else None
    except (AssertionError, ArithmeticError, RuntimeError, ValueError) as error:
        raise UserError(
            f"The config in {str(folder)!r} describes no network ({error}); use a matching pair."
        ) from error
    _fill(tokenizer, tensors, "tokenizer.", folder)
    _fill(dit, tensors, "dit.", folder)
    if parallax is not None:
        _fill(parallax, tensors, "parallax.", folder)
    int8 = int8_file.load_ranges(folder, manifest["hash"]) if ranges else None
    return Weights(config, tokenizer.to(dtype).eval(), dit.to(dtype).eval(), manifest["hash"], parallax, int8)


def _digest(manifest: dict[str, Any]) -> str:
    body = {key: manifest.get(key) for key in ("format", "config", "files")}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def as_stored(tensor: Tensor) -> Tensor:
    """A tensor as a weights folder keeps it: matrices and kernels in bf16, vectors as they are."""
    kept = tensor.detach().cpu().contiguous()
    return kept.to(torch.bfloat16) if kept.is_floating_point() and kept.dim() > 1 else kept


def as_loaded(tensor: Tensor) -> Tensor:
    """A tensor as it comes back from a weights folder: float32, rounded as it was stored; whole numbers as they are."""
    kept = as_stored(tensor)
    return kept.float() if kept.is_floating_point() else kept


def _shards(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        kept = as_stored(tensor)
        count = kept.numel() * kept.element_size()
        if shards[-1] and size + count > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = kept
        size += count
    return shards


def _read_shard(path: Path, expected: str) -> dict[str, Tensor]:
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise UserError(f"The weights file {str(path)!r} is missing; restore the weights folder.") from error
    if hashlib.sha256(blob).hexdigest() != expected:
        raise UserError(f"The weights file {str(path)!r} is damaged (its SHA-256 differs); restore the weights folder.")
    try:
        return load_tensors(blob)
    except SafetensorError as error:
        raise UserError(f"The weights file {str(path)!r} is not safetensors ({error}); restore it.") from error


def _fill(module: torch.nn.Module, tensors: dict[str, Tensor], prefix: str, folder: Path) -> None:
    own = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = {k: v.float() if v.is_floating_point() else v for k, v in own.items()}
    try:
        module.load_state_dict(own)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(
            f"The weights in {str(folder)!r} do not fit their config ({reason}); use a matching pair."
        ) from error
