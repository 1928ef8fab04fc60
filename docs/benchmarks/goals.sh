#!/usr/bin/env bash
# Every row of the goals table of docs/benchmarks/README.md on one Hopper GPU: raw JSON and tables.
# From the top of the repository: docs/benchmarks/goals.sh [python [row ...]], all rows or those named.
# Files go to the folder $OUT if it is set, else beside this one. A row that cannot run says why and the next begins;
# the last line names those that did not, and the exit code is then 1.
set -u
python=${1:-python3}
shift $(($# > 0))
wanted=" $* "
out=${OUT:-docs/benchmarks}
failed=""
bench() { # name, arguments
  local name=$1
  shift
  [[ $wanted == "  " || $wanted == *" $name "* ]] || return 0
  echo "== $name" >&2
  "$python" run.py benchmark "$@" --json "$out/$name.json" --markdown "$out/$name.md" >/dev/null || failed+=" $name"
}
paper="--preset aapt-8b --frames 60"
wide="$paper --resolution 1280x720 --window 15"
pocket="--weights assets/weights/pocket"

bench roofline-aapt-8b --preset aapt-8b --roofline --dtype bf16
bench roofline-aapt-8b-720p --preset aapt-8b --resolution 1280x720 --window 15 --roofline --dtype bf16
bench roofline-pocket $pocket --roofline --dtype bf16
bench pocket-cuda $pocket --backend cuda --far 400,4000
bench pocket-tricks $pocket --tricks
bench pocket-tensorrt $pocket --backend cuda-tensorrt --alone
bench aapt-8b-bf16 $paper --backend cuda
bench aapt-8b-flash $paper --backend cuda --switch attention=flash-attn-4 --alone
bench aapt-8b-cudnn $paper --backend cuda --switch attention=sdpa-cudnn --alone
bench aapt-8b-fp8 $paper --backend cuda --dtype fp8 --alone
bench aapt-8b-720p-bf16 $wide --backend cuda
bench aapt-8b-720p-fp8 $wide --backend cuda --dtype fp8 --alone
bench aapt-8b-tricks $paper --tricks
bench aapt-8b-far --preset aapt-8b --frames 20 --backend cuda --alone --far 400,4000 # 4,000 steps: minutes
bench aapt-8b-sweep --preset aapt-8b --frames 20 --backend cuda --sweep window=8,15 --sweep resolution=480x272,1024x576
bench base-tricks --preset base --tricks
bench pocket-cpu $pocket --backend auto --threads 2 --far 400,4000
bench pocket-cpu-compare $pocket --compare --threads 2

[[ -z $failed ]] || {
  echo "== not measured:$failed" >&2
  exit 1
}
