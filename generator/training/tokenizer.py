"""Stage 0: train the tokenizer (L1 + LPIPS + a little KL; later a patch critic), ending with unit-variance latents.

Shape key: B batch, T video frames, F latent frames, C channels, H, W latent size, Y, X video size.
A run's folder holds tokenizer.safetensors (EMA weights + config, what other stages read), resume.safetensors,
metrics.jsonl and .png, and reconstruct-*.png (held-out pictures above their reconstructions).

Does not know of actions, transformers or worlds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import MANIFEST, load_weights
from generator.data.clips import Dataset
from generator.precision import in_half
from generator.tokenizer.blocks import LAST
from generator.tokenizer.vae import PRESETS, TokenizerConfig, VideoVAE
from generator.training.ema import Ema
from generator.training.helpers import (
    Budget,
    Optimisers,
    Progress,
    load_optimisers,
    load_resume,
    load_tensors,
    make_folder,
    pick_device,
    rate_at,
    save_resume,
    save_tensors,
    set_rate,
    split_optimisers,
    step_generator,
    step_rng,
    update,
)
from generator.training.losses import (
    critic_loss,
    generator_loss,
    normal_kl,
    psnr,
    some_pictures,
)
from generator.training.metrics import Metrics, contact_sheet, draw_metrics
from generator.training.patch_gan import PatchDiscriminator
from generator.training.perceptual import Lpips
from generator.training.windows import WindowPool, fixed_windows, to_frames, to_video

WEIGHTS, RESUME = "tokenizer.safetensors", "resume.safetensors"


@dataclass(frozen=True)
class TokenizerTraining:
    """Settings of one run. Rates are peaks; `minutes` counts over all starts of the run; 0 means no such limit.

    `lengths` are the window lengths in video frames, drawn at random per step; `batch` is the number of crops at the
    first of them, and other lengths get as many crops as keep the pixel count. `*_from` are fractions of the run.
    """

    data: str = "runs/data/halls"
    preset: str = "pocket"
    start: str = ""  # a run folder, weights file or world to begin from
    freeze_encoder: bool = False
    minutes: float = 0.0
    steps: int = 0
    batch: int = 8
    lengths: tuple[int, ...] = (9, 5, 17)
    crop: tuple[int, int] = (96, 128)
    pool: int = 64
    lr: float = 1e-3
    muon: float = 2e-3
    decay: float = 0.0
    hold: float = 0.3
    clip: float = 1.0
    ema: float = 0.995
    kl: float = 1e-4
    lpips: float = 0.1
    lpips_from: float = 0.15
    pictures: int = 8  # frames per step that the perceptual and patch losses look at
    critic: float = 0.01
    critic_from: float = 0.7
    critic_lr: float = 2e-4
    seed: int = 0
    device: str = "auto"
    bf16: bool = True
    compile: bool = False
    log_every: int = 20
    evaluate_every: int = 300
    save_minutes: float = 4.0


@dataclass
class TokenizerRun:
    """One opened run: networks, optimisers, data, and where it stands."""

    config: TokenizerTraining
    folder: Path
    device: torch.device
    vae: VideoVAE
    critic: PatchDiscriminator
    ema: Ema
    optimisers: Optimisers
    critic_optimisers: Optimisers
    pool: WindowPool
    held: Tensor
    budget: Budget
    metrics: Metrics
    lpips: Lpips
    step: int = 0
    saved_at: float = 0.0
    forward: Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]] = field(init=False)

    def __post_init__(self) -> None:
        def forward(video: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            mean, logvar = self.vae.encode(video)
            return mean, logvar, self.vae.decode(mean + (0.5 * logvar).exp() * noise)

        self.forward = torch.compile(forward, dynamic=False) if self.config.compile else forward

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """bfloat16 where the settings ask for it and the device has it."""
        return in_half(self.device.type, self.config.bf16)


def train(config: TokenizerTraining, run_dir: Path | str, stop_after: int | None = None, quiet: bool = False) -> Path:
    """Train until the budget ends; the same command resumes. Returns the weights file.

    `stop_after` leaves early, as if interrupted, once that many steps are done. Ctrl-C saves before it leaves.
    """
    run = open_run(config, Path(run_dir))
    bar, figures = Progress("tokenizer", quiet), {}
    try:
        while run.budget.progress(run.step) < 1.0 and run.step != stop_after:
            figures = train_step(run, run.budget.progress(run.step))
            run.step += 1
            if run.step % config.log_every == 0:
                run.metrics.add(run.step, minutes=run.budget.spent / 60, **figures)
            bar.show(run.budget.progress(run.step), step=run.step, **figures)
            if run.step % config.evaluate_every == 0:
                evaluate(run)
            if run.budget.spent - run.saved_at > config.save_minutes * 60:
                save_run(run)
    except KeyboardInterrupt:
        save_run(run)
        raise
    bar.close()
    if run.step != stop_after and run.step % config.evaluate_every:
        evaluate(run)
    return save_run(run)


def train_step(run: TokenizerRun, progress: float) -> dict[str, float]:
    """One update of the VAE and, late in the run, of the critic; returns the figures of the step."""
    config, step = run.config, run.step
    set_rate(run.optimisers, rate_at(progress, step, hold=config.hold))
    video = draw_batch(run)
    generator = step_generator(config.seed, step, "noise")
    adversarial = config.critic > 0 and progress >= config.critic_from
    with run.autocast():
        noise = latent_noise(run.vae.config, video, generator)
        mean, logvar, made = run.forward(video, noise)
        made = made.float()
        parts = {"l1": (made - video).abs().mean(), "kl": normal_kl(mean.float(), logvar.float())}
        loss = parts["l1"] + config.kl * parts["kl"]
        real, fake = some_pictures(video, made, config.pictures, generator)
        if config.lpips > 0 and progress >= config.lpips_from:
            parts["lpips"] = run.lpips(fake, real).float().mean()
            loss = loss + config.lpips * parts["lpips"]
        if adversarial:
            run.critic.requires_grad_(False)
            parts["deceit"] = generator_loss(run.critic(real).float(), run.critic(fake).float())
            loss = loss + config.critic * parts["deceit"]
    loss.backward()
    trained = [p for p in run.vae.parameters() if p.requires_grad]
    parts["gradient"] = nn.utils.clip_grad_norm_(trained, config.clip)
    update(run.optimisers)
    run.ema.update(run.vae)
    if adversarial:
        parts["critic"] = train_critic(run, real, fake.detach())
    return {name: value.item() for name, value in parts.items()}


def draw_batch(run: TokenizerRun) -> Tensor:
    """The step's crops B T 3 y x, of a random window length, about as many pixels whatever the length."""
    config = run.config
    frames = int(step_rng(config.seed, run.step, "length").choice(config.lengths))
    count = max(1, round(config.batch * config.lengths[0] / frames))
    return run.pool.batch(run.step, count, frames, config.crop).to(run.device)


def latent_noise(config: TokenizerConfig, video: Tensor, generator: torch.Generator) -> Tensor:
    """Unit noise of the shape of the video's latents, B 1+F C H W."""
    batch, frames, _, high, wide = video.shape
    shape = (batch, 1 + (frames - 1) // config.time, config.latent_channels)
    noise = torch.randn(*shape, high // config.space, wide // config.space, generator=generator)
    return noise.to(video)


def train_critic(run: TokenizerRun, real: Tensor, fake: Tensor) -> Tensor:
    """One update of the patch critic on the pictures the VAE was just judged on; returns its loss."""
    run.critic.requires_grad_(True)
    with run.autocast():
        loss = critic_loss(run.critic(real).float(), run.critic(fake).float())
    loss.backward()
    update(run.critic_optimisers)
    return loss.detach()


def averaged(run: TokenizerRun) -> VideoVAE:
    """A copy of the VAE with its EMA weights, ready to evaluate."""
    vae = VideoVAE(run.vae.config).to(run.device, memory_format=LAST).eval().requires_grad_(False)
    vae.load_state_dict(run.vae.state_dict())
    run.ema.copy_to(vae)
    return vae


@torch.no_grad()
def evaluate(run: TokenizerRun) -> dict[str, float]:
    """PSNR (dB) and LPIPS of held-out clips with the EMA weights; writes a contact sheet and the curves."""
    vae, figures = averaged(run), {"psnr": 0.0, "psnr_first": 0.0, "lpips_held": 0.0}
    sheet = []
    for index, window in enumerate(run.held):
        video = window[None].to(run.device)
        with run.autocast():
            made = vae.decode(vae.encode(video)[0]).float().clamp(-1, 1)
        quality = psnr(made, video)[0]
        figures["psnr"] += quality[1:].mean().item() / len(run.held)
        figures["psnr_first"] += quality[0].item() / len(run.held)
        figures["lpips_held"] += run.lpips(made[0], video[0]).mean().item() / len(run.held)
        if index < 6:
            chosen = [0, len(window) // 2, len(window) - 1]
            sheet += [to_frames(window[chosen]), to_frames(made[0, chosen])]
    run.metrics.add(run.step, minutes=run.budget.spent / 60, **figures)
    rows = [torch.from_numpy(row) for row in sheet]
    pairs = [torch.cat([a, b]).numpy() for a, b in zip(rows[::2], rows[1::2], strict=True)]
    contact_sheet(run.folder / "reconstruct.png", pairs)
    draw_metrics(run.folder)
    return figures


@torch.no_grad()
def measure_latents(vae: VideoVAE, pool: WindowPool, windows: int = 64) -> None:
    """Set `shift` and `scale` from training windows, so that normalised latents have mean 0 and deviation 1."""
    device, means = vae.shift.device, []
    for index in range(windows):
        video = to_video(fixed_windows(pool.data, "train", 1, pool.frames, pool.seed + 1 + index)).to(device)
        means.append(vae.encode(video)[0].movedim(2, 0).flatten(1))
    flat = torch.cat(means, dim=1)
    vae.shift.copy_(flat.mean(1))
    vae.scale.copy_(1.0 / flat.std(1).clamp_min(1e-4))


def save_run(run: TokenizerRun) -> Path:
    """Write the snapshot that others read and the state that a resume needs."""
    vae = averaged(run)
    if not run.config.freeze_encoder:
        measure_latents(vae, run.pool)
    path = run.folder / WEIGHTS
    meta = {
        "kind": "tokenizer",
        "config": vae.config.to_dict(),
        "step": run.step,
        "training": asdict(run.config),
    }
    save_tensors(path, vae.state_dict(), meta)
    state = {
        "step": run.step,
        "seconds": run.budget.spent,
        "config": run.vae.config.to_dict(),
        "vae": run.vae.state_dict(),
        "critic": run.critic.state_dict(),
        "ema": run.ema.state(),
        "optimisers": [o.state_dict() for o in run.optimisers + run.critic_optimisers],
    }
    save_resume(run.folder / RESUME, state)
    run.saved_at = run.budget.spent
    return path


def load_tokenizer(path: Path | str) -> VideoVAE:
    """The VAE of a run folder, a weights file or a world's weights, ready to evaluate; UserError when there is none."""
    path = Path(path)
    if (path / MANIFEST).exists():
        return load_weights(path).tokenizer.to(memory_format=LAST).eval()
    tensors, meta = load_tensors(path / WEIGHTS if path.is_dir() else path)
    if meta.get("kind") != "tokenizer":
        raise UserError(f"{path} holds no tokenizer; give the folder of a tokenizer run.")
    vae = VideoVAE(TokenizerConfig.from_dict(meta["config"]))
    vae.load_state_dict(tensors)
    return vae.to(memory_format=LAST).eval()


def open_run(config: TokenizerTraining, folder: Path) -> TokenizerRun:
    """Build everything a run needs and continue from its resume state if there is one."""
    if config.preset not in PRESETS:
        raise UserError(f"There is no tokenizer preset {config.preset!r}; choose one of {', '.join(PRESETS)}.")
    make_folder(folder)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    vae = load_tokenizer(config.start) if config.start else VideoVAE(PRESETS[config.preset])
    vae = vae.to(device, memory_format=LAST).train()
    vae.encoder.requires_grad_(not config.freeze_encoder)
    critic = PatchDiscriminator().to(device, memory_format=LAST)
    data = Dataset.open(config.data)
    longest = max(config.lengths)
    splits = [name for name in ("held_map", "held_seed") if data.select(name)] or ["train"]
    held = [to_video(fixed_windows(data, s, 12 // len(splits), min(config.lengths), config.seed)) for s in splits]
    muon = config.muon if config.muon > 0 else None
    run = TokenizerRun(
        config,
        folder,
        device,
        vae,
        critic,
        Ema(vae, config.ema),
        split_optimisers(vae.named_parameters(), config.lr, muon, config.decay, lambda n: "stem" in n or "head" in n),
        split_optimisers(critic.named_parameters(), config.critic_lr, betas=(0.5, 0.99)),
        WindowPool(data, longest, config.seed, config.pool),
        torch.cat(held),
        Budget(config.steps, config.minutes),
        Metrics(folder),
        Lpips().to(device),
    )
    state = load_resume(folder / RESUME)
    if state is not None:
        resume(run, state)
    return run


def resume(run: TokenizerRun, state: dict[str, Any]) -> None:
    """Continue from a resume state; UserError when it belongs to another network."""
    if state["config"] != run.vae.config.to_dict():
        raise UserError(f"{run.folder} holds a run of another tokenizer; choose another folder or remove it.")
    run.vae.load_state_dict(state["vae"])
    run.critic.load_state_dict(state["critic"])
    run.ema.load(state["ema"])
    load_optimisers(run.optimisers + run.critic_optimisers, state["optimisers"])
    run.step = int(state["step"])
    run.budget.resume(float(state["seconds"]))
    run.saved_at = run.budget.spent
    run.metrics = Metrics(run.folder, run.step)
