#!/usr/bin/env bash
# The second command on a GPU, at most 240 s: `OUT=FOLDER benchmarks/gpu/second.sh`.
# The commands as a user types them, on the demo meetings and the demo encoder: what a GPU gives
# against a CPU, two processes on one GPU, fine-tuning; then the speed of training. soundfile and an
# installed spk (or its wheel among WHEELS) are needed. A rehearsal on a CPU:
#   DEVICE=cpu TWO=cpu,cpu ACCELERATOR=cpu SIZE=tiny AUDIO=10 benchmarks/gpu/second.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
export PYTHON
cd "$work" || exit 1
two=${TWO:-cuda:0,cuda:0} accelerator=${ACCELERATOR:-gpu}
spk() { # ROOM WORDS...
  local room=$1
  shift
  "$PYTHON" -c "from spk.$room.cli import main; main()" "$@"
}
export -f spk
tables() {
  spk manifests demo corpus --sessions 2 --minutes 1 &&
    spk manifests rttm corpus/TextGrid turns.csv --audio-root corpus/wav &&
    spk manifests select turns.csv segments.csv --min-seconds 1.0 &&
    spk manifests split segments.csv table.csv --method chronological
}
export -f tables
extract="spk extract table.csv" root_of="--audio-root corpus/wav --encoder demo"
fit="spk finetune fit table.csv --audio-root corpus/wav --encoder demo
  --freeze-encoder-layers 2 --max-epochs 2 --accelerator $accelerator"
step tables 30 bash -c tables
step float32 25 bash -c "$extract wide $root_of --device $DEVICE --dtype float32 --verify 16"
show="if [[ -e profile.txt ]]; then cat profile.txt; fi"
step bfloat16 25 bash -c "$extract low $root_of --device $DEVICE --dtype bfloat16 --verify 40 \
  --profile profile.txt && $show"
step two 35 bash -c "$extract two $root_of --device $two --profile profile.txt && $show"
step fit 30 bash -c "${fit//$'\n'/} --log-dir tuned"
step fit-float32 30 bash -c \
  "${fit//$'\n'/} --log-dir tuned32 --dtype float32 --cache-prefix --workers 2"
TAIL=8 step training 65 "$PYTHON" "$root/benchmarks/finetune.py" "$OUT/finetune.csv" \
  --device "$DEVICE" --size "$SIZE" --seconds "${AUDIO:-240}"
echo "# $((SECONDS - begun)) s: end" | tee -a "$log"
