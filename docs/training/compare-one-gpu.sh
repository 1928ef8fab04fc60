#!/usr/bin/env bash
# The paper's comparisons at pocket's size on one GPU: stage 1, stage 2, and stage 3 in its five kinds, then the table.
# From the top of the repository: docs/training/compare-one-gpu.sh [python [scale [tokenizer]]]
# Everything lies in runs/compare and is resumed by the same command. The model is the paper's own architecture
# (aapt-pocket: nothing is reprojected, there is no map); the tokenizer is the shipped world's unless another is given.
# With scale 1 each stage has the minutes that it had on one H100 (beside others; README has what came of it).
set -eu
python=${1:-python3}
scale=${2:-1}
tokenizer=${3:-assets/weights/pocket}
root=runs/compare
minutes() { awk "BEGIN { print $1 * $scale }"; }
stage() { # name, stage, minutes at scale 1, settings
  local name=$1 kind=$2 length=$3
  shift 3
  "$python" run.py train "$kind" --preset aapt-pocket --latents $root/latents --tokenizer "$tokenizer" \
    --run $root/$name --minutes "$(minutes "$length")" --set batch=64 --set frames=12 --set resident=true "$@"
}
plain="--set history_noise=0 --set ema=0.998"
adversarial="--set lr=2e-5 --set penalty_every=2 --set centring=0.01 --set grid_shift=true --set checkpointed=false
  --set keep_every=0 --set least_motion=0.02 --set ema=0.99 --set teacher=$root/teacher/snapshot"

"$python" run.py collect --world halls --size endless --maps 2-2 --seed 21 --frames 144000 --workers "$(nproc)" \
  --out $root/data
"$python" run.py train latents --preset aapt-pocket --data $root/data --latents $root/latents --tokenizer "$tokenizer"
stage teacher adaptation 3.0 $plain
stage student consistency 0.8 $plain --start $root/teacher/snapshot --set own_history=0 --set lr=2e-4 --set muon=4e-4 \
  --set hold=0.2
stage adversarial adversarial 2.0 $adversarial --start $root/student/snapshot --set judge_first=30
stage forced adversarial 2.0 $adversarial --start $root/student/snapshot --set judge_first=30 --set forced=true
stage unrecycled adaptation 1.0 $plain --start $root/teacher/snapshot --set recycle=false --set lr=5e-4 \
  --set muon=1e-3 --set hold=0.2
stage no-recycled adversarial 2.0 $adversarial --start $root/unrecycled/snapshot --set judge_first=30 \
  --set teacher=$root/unrecycled/snapshot
stage extended-1 adversarial 1.0 $adversarial --start $root/adversarial/snapshot --set segments=2 \
  --resume-discriminator-from $root/adversarial/discriminator.safetensors
stage extended-5 adversarial 1.0 $adversarial --start $root/extended-1/snapshot --set segments=6 \
  --resume-discriminator-from $root/extended-1/discriminator.safetensors
rows=""
for row in adversarial forced no-recycled extended-1 extended-5; do rows+=" --snapshot $row=$root/$row/snapshot"; done
"$python" run.py compare --teacher $root/teacher/snapshot --student $root/student/snapshot --data $root/data \
  --latents $root/latents --out $root/table --fvd $rows
