#!/usr/bin/env bash
# Every case of extraction on a GPU: `benchmarks/extract_gpu.sh OUT.csv RTTM_FOLDER`, from a folder
# in which `import spk` works. WAV by the standard library where soundfile is missing.
set -euo pipefail
out=$1
rttm=$2
bench() {
  OMP_NUM_THREADS=1 python "$(dirname "$0")/extract.py" "$out" --size large --device cuda \
    --format wav --rttm "$rttm" "$@"
}
# The plain loops are slow: fewer segments, both formats, ours beside them.
bench --segments 400 --dtype float32 --repeat 2
bench --segments 400 --dtype bfloat16 --repeat 2
# All of a corpus' size: batches, buckets, workers, the last layer asked for.
bench --segments 8000 --dtype bfloat16 --plain --repeat 2 --case \
  b60:batch_seconds=60 b120:batch_seconds=120 b240:batch_seconds=240 b480:batch_seconds=480 \
  b960:batch_seconds=960 buckets:buckets=true \
  w1:workers=1 w2:workers=2 w4:workers=4 w8:workers=8 w16:workers=16 layer12:layers=0-12
bench --segments 8000 --dtype float32 --plain --repeat 1
bench --segments 8000 --dtype bfloat16 --plain --repeat 1 --channels 8
