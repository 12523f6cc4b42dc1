#!/usr/bin/env bash
# Extraction on a GPU, bench by bench: `benchmarks/extract_gpu.sh OUT.csv RTTM_FOLDER [BENCH]`.
# Without BENCH all run, each for at most LIMIT s (540 if not set); a row is written as it is made.
# BENCH is plain-bfloat16, plain-float32, batches, workers, layers, float32, channels, buckets or
# compiled.
# Needs python (PYTHON, else python3) with torch, transformers, h5py, pandas, scipy, click and tqdm,
# spk need not be installed; without soundfile, WAV is read by the standard library. torch.compile
# also needs a C compiler. What fails is told, and the rest goes on. A rehearsal on a CPU:
# DEVICE=cpu SIZE=nano LAST=1 FEW=6 MANY=24 benchmarks/extract_gpu.sh OUT.csv RTTM_FOLDER
set -uo pipefail
out=$1
rttm=$2
only=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
"$python" - << 'CHECK' || exit 1
import importlib.util as u
wanted = "torch transformers h5py pandas scipy click tqdm".split()
missing = [name for name in wanted if u.find_spec(name) is None]
if missing:
    raise SystemExit(f"python: packages {missing} are missing, expected all of {wanted}; install them")
CHECK
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ln -s "$(dirname "$here")" "$work/spk"
export PYTHONPATH="$work${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
few=${FEW:-400} many=${MANY:-6000}
found=
# A bench has a name, may take LIMIT s, and starts only where it is the one asked for, or all are.
bench() {
  local name=$1
  shift
  [[ -z $only || $only == "$name" ]] || return 0
  found=yes
  echo "# $(date +%T) $name: $*"
  timeout "${LIMIT:-540}" "$python" "$here/extract.py" "$out" --work "$work/bench" \
    --size "${SIZE:-large}" --device "${DEVICE:-cuda}" --format wav --rttm "$rttm" "$@" ||
    echo "# failed (124: out of time), code $?: $name"
}
# The plain loops beside ours come first; they are slow, so they have fewer segments.
bench plain-bfloat16 --segments "$few" --dtype bfloat16 --repeat 2
bench plain-float32 --segments "$few" --dtype float32 --repeat 2
# Ours alone, on a corpus' size: batches, workers, the last layer asked for, float32, channels.
many_of() { bench "$@" --segments "$many" --plain; }
many_of batches --dtype bfloat16 --repeat 2 --warm 1 --case b60:batch_seconds=60 \
  b120:batch_seconds=120 b240:batch_seconds=240 b480:batch_seconds=480 b960:batch_seconds=960
many_of workers --dtype bfloat16 --repeat 2 --warm 1 --case w1:workers=1 w2:workers=2 \
  w4:workers=4 w8:workers=8 w16:workers=16
many_of layers --dtype bfloat16 --repeat 2 --warm 1 --case early:layers=0-"${LAST:-12}"
many_of float32 --dtype float32 --repeat 1
bench channels --segments "$((many / 4))" --dtype bfloat16 --plain --repeat 1 --channels 8
many_of buckets --dtype bfloat16 --repeat 2 --warm 1 --case buckets:buckets=true
# torch.compile may fail or take long, so it is last and alone.
many_of compiled --dtype bfloat16 --repeat 2 --warm 1 --case buckets:buckets=true \
  compiled:buckets=true,compile=true
[[ $found ]] || {
  echo "$only: no bench has this name, expected one of those in $0; correct it" >&2
  exit 1
}
