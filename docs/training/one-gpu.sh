#!/usr/bin/env bash
# The last stage of the shipped world on one GPU: recordings, latents, then transformer and decoder together.
# From the top of the repository: docs/training/one-gpu.sh [python [minutes [start]]]
# Everything lies in runs/one-gpu and is resumed by the same command. One H100 with 16 cores recorded 144,000 frames in
# 86 s, encoded their 598 clips in 90 s, and trained at 0.26 s a step (32 clips of 12 latent frames, 36 GB), after 66 s of
# reading and decoding them; with a refiner one H200 takes 0.36 s a step. The shipped world was trained three times like
# this: 8.6 minutes, with critic=0.15, own_critic=0.3 and no penalty, 5.1 minutes with penalty=600, both without a
# refiner, and 7.5 minutes as below, after its map had been made anew, with faces (README, Train your own world).
set -eu
python=${1:-python3}
minutes=${2:-7.5}
start=${3:-assets/weights/pocket}
root=runs/one-gpu

"$python" run.py collect --world halls --size endless --maps 2-2 --seed 21 --frames 144000 --workers "$(nproc)" \
  --out $root/data
"$python" run.py train latents --data $root/data --latents $root/latents --tokenizer "$start" --parallax "$start"
"$python" run.py train decoder --data $root/data --latents $root/latents --start "$start" --run $root/decoder \
  --minutes "$minutes" --set batch=32 --set frames=12 --set rounds=10 --set reuse=4 --set own=0.85 \
  --set critic=0.3 --set own_critic=0.6 --set penalty=60 --set penalty_every=2 \
  --set lpips=1 --set l1=1 --set crop=10,16 --set pictures=96 \
  --set maker=2e-4 --set maker_muon=4e-4 --set lr=2e-4 --set muon=4e-4 --set anchor=0.5 --set teach=0.25 --set shift=4 \
  --set refine=48 \
  --set ema=0.995 --set hold=0.4 --set warmup=50 --set resident=true --set snapshot_minutes=2

# The refiner alone, with sharper critics; on one CPU core so far, never on a GPU. Then what its convolutions hold in int8.
"$python" run.py train refiner --data $root/data --start $root/decoder/snapshot --run $root/refiner --minutes "$minutes" \
  --set together=16 --set walks=256 --set batch=64 --set critic=0.4
"$python" run.py calibrate --weights $root/refiner/snapshot
