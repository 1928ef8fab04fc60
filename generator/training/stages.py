"""The stages of training as `run.py train` calls them: which settings each takes, and all of them in turn.

Does not know how a stage trains.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from controls.errors import UserError
from generator.config import override, preset
from generator.data.clips import Dataset


def train_all(args: Namespace) -> None:
    """Every stage in turn within --hours; shares measured on two CPU cores (LOG.md)."""
    if args.hours <= 0:
        raise UserError(f"--hours {args.hours} leaves no time; give the hours that all stages may take together.")
    root = args.run or Path("runs") / f"all-{args.preset}"
    args.tokenizer, args.latents, args.parallax = root / "tokenizer", root / "latents", None
    minutes = 60 * args.hours
    train_stage(args, "tokenizer", root / "tokenizer", 0.3 * minutes)
    if reprojects(args.preset):
        args.parallax = root / "parallax"
        known = ["known=2000"] if Dataset.open(args.data).meta["world"] == "halls" else []  # its depth is in the maps
        train_stage(args, "parallax", args.parallax, 0.07 * minutes, settings=known)
    train_stage(args, "latents", root / "latents", 0)
    train_stage(args, "adaptation", root / "adaptation", 0.3 * minutes)
    teacher, student = (str(root / stage / "snapshot") for stage in ("adaptation", "consistency"))
    train_stage(args, "consistency", root / "consistency", 0.05 * minutes, start=teacher)
    train_stage(
        args, "adversarial", root / "adversarial", 0.2 * minutes, start=student, settings=[f"teacher={teacher}"]
    )
    train_stage(args, "decoder", root / "decoder", 0.08 * minutes, start=str(root / "adversarial" / "snapshot"))
    print(f"The world is in {root / 'decoder' / 'snapshot'}; play it with run.py play --weights.")


def train_stage(
    args: Namespace,
    stage: str,
    folder: Path,
    minutes: float,
    steps: int = 0,
    start: str = "",
    settings: Sequence[str] = (),
) -> None:
    """One stage with the command's settings; fields that a stage does not have are left out."""
    if stage == "latents":
        from generator.data.encoding import TOGETHER, encode_dataset
        from generator.training.helpers import pick_device
        from generator.training.parallax_files import load_parallax
        from generator.training.tokenizer import load_tokenizer

        device = pick_device("auto")
        how = {
            "reproject": reprojects(args.preset),
            "parallax": load_parallax(args.parallax).to(device) if args.parallax else None,
            "workers": args.workers,
            "together": 1 if device.type == "cpu" else TOGETHER,
        }
        encode_dataset(load_tokenizer(args.tokenizer).to(device), args.data, args.latents, **how)
        return
    config_class, run = stage_of(stage)
    values = {
        "data": str(args.data),
        "latents": str(args.latents),
        "tokenizer": str(args.tokenizer),
        "parallax": str(args.parallax or ""),
        "preset": args.preset,
        "minutes": minutes,
        "steps": steps,
        "start": start,
        "discriminator": args.resume_discriminator_from,
    }
    known = get_type_hints(config_class)
    config = config_class(**{k: v for k, v in values.items() if k in known})
    run(override(config, settings, stage), folder)


def reprojects(name: str) -> bool:
    """Whether models of a preset recycle a reprojected picture."""
    return bool(preset(name)["dit"].get("reproject", False))


def stage_of(stage: str) -> tuple[Any, Callable[..., Any]]:
    """The settings class and the train function of a stage."""
    if stage == "tokenizer":
        from generator.training import tokenizer

        return tokenizer.TokenizerTraining, tokenizer.train
    if stage == "parallax":
        from generator.training import parallax

        return parallax.ParallaxTraining, parallax.train
    if stage == "adaptation":
        from generator.training import adaptation

        return adaptation.AdaptationTraining, adaptation.train
    if stage == "decoder":
        from generator.training import decoder

        return decoder.DecoderTraining, decoder.train
    if stage == "refiner":
        from generator.training import refiner

        return refiner.RefinerTraining, refiner.train
    if stage == "adversarial":
        from generator.training import adversarial

        return adversarial.AdversarialTraining, adversarial.train
    from generator.training import consistency

    return consistency.ConsistencyTraining, consistency.train
