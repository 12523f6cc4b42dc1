#!/usr/bin/env bash
# The first command on a GPU, at most 540 s: `OUT=FOLDER RTTM=FOLDER benchmarks/gpu/first.sh`.
# In order of worth: the stream of batches, kernels and parts, exactness, every way to train, files to
# committed rows, attention kernels, the host, then the plain loops. Each step has a limit of its own;
# rows are written as they come. A rehearsal on a CPU:
#   DEVICE=cpu SIZE=nano MANY=24 FEW=6 LITTLE="--batches 2 --batch-seconds 8" benchmarks/gpu/first.sh
source "$(dirname "${BASH_SOURCE[0]}")/steps.sh"
rttm=${RTTM:+--rttm $RTTM}
probe="$PYTHON $root/benchmarks/gpu/probe.py $OUT --device $DEVICE --size $SIZE $rttm ${LITTLE:-}"
bench="$PYTHON $root/benchmarks/extract.py $OUT/extract.csv --work $work/bench --size $SIZE
  --device $DEVICE --dtype bfloat16 --format wav $rttm"
many=${MANY:-4000} few=${FEW:-300}
nvidia-smi >> "$log" 2>&1
TAIL=12 step stream 130 $probe --limit 110 --only machine,stream
TAIL=12 step parts 60 $probe --limit 50 --only kernels,parts
step exactness 50 $probe --limit 40 --only exactness
step training 60 $probe --limit 50 --only training
step bench 90 $bench --segments "$many" --plain --repeat 2 --warm 1 \
  --case w8:workers=8 "b480:batch_seconds=480,workers=8"
step attention 45 $probe --limit 40 --only attention
TAIL=16 step host 55 $probe --limit 45 --only writer,decode
step plain 50 $bench --segments "$few" --repeat 1 --plain 1 16
echo "# $((SECONDS - begun)) s: end" | tee -a "$log"
