#!/usr/bin/env bash
# A still map of Freedoom as a place: the second world that ships, as it was made on two CPU cores in three hours.
# From the top of the repository: docs/training/still-place.sh [python [map [start]]]
# Everything lies in runs/still and is resumed by the same command; a world that knows another place is where it starts.
set -eu
python=${1:-python3}
map=${2:-MAP01}
start=${3:-assets/weights/pocket}
root=runs/still

"$python" run.py collect --world freedoom --size still --maps "$map" --seed 31 --frames 120000 --workers 2 --out $root/data
"$python" run.py train tokenizer --data $root/data --start "$start" --run $root/tokenizer --minutes 24 \
  --set lr=6e-4 --set muon=1.5e-3 --set lpips=0.15 --set lpips_from=0.1 --set critic=0
# Depth, map with all that is found of it, body, localiser; minutes count from start to end, map included.
"$python" run.py train parallax --data $root/data --start "$start" --run $root/parallax --minutes 30 --set ego_from=0.3 \
  --set known=2500 --set agree=0 --set recall=0.02 --set lr=5e-4 \
  --set mapped=3000 --set skies=400 --set lights=1500 --set faces=9300 --set most_faces=640000 --set even=false
"$python" run.py train latents --data $root/data --latents $root/latents --tokenizer $root/tokenizer \
  --parallax $root/parallax --workers 2
"$python" run.py train adaptation --data $root/data --latents $root/latents --tokenizer $root/tokenizer \
  --parallax $root/parallax --start "$start" --run $root/adaptation --minutes 8 --set batch=4 --set frames=10 \
  --set own_history=0.5 --set rounds=5 --set shift=12 --set ema=0.98 --set lr=5e-4 --set muon=1e-3 --set warmup=20
"$python" run.py train decoder --data $root/data --latents $root/latents --start $root/adaptation/snapshot \
  --run $root/decoder --minutes 20 --set batch=4 --set frames=8 --set rounds=6 --set reuse=4 --set own=0.7 \
  --set critic=0.15 --set own_critic=0.3 --set penalty=60 --set penalty_every=2 --set lpips=1 --set l1=1 \
  --set crop=10,16 --set pictures=12 --set maker=2e-4 --set maker_muon=4e-4 --set lr=4e-4 --set muon=1e-3 \
  --set anchor=0.5 --set refine=48 --set ema=0.98 --set hold=0.4 --set warmup=20
"$python" run.py train refiner --data $root/data --start $root/decoder/snapshot --run $root/refiner --minutes 12 \
  --set recordings=2 --set walks=100 --set critic=0.3 --set penalty=6 --set snapshot_minutes=3
"$python" run.py worlds range --data $root/data --out $root/refiner/snapshot
"$python" run.py calibrate --weights $root/refiner/snapshot
