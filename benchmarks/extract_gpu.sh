#!/usr/bin/env bash
# Every case of extraction on a GPU in one go: `benchmarks/extract_gpu.sh OUT.csv RTTM_FOLDER`.
# Needs python (PYTHON, else python3) with torch, transformers, h5py, pandas, scipy, click and tqdm,
# spk need not be installed; without soundfile, WAV is read by the standard library. torch.compile
# also needs a C compiler. What fails is told, and the rest goes on. A rehearsal on a CPU:
# DEVICE=cpu SIZE=nano LAST=1 FEW=6 MANY=24 benchmarks/extract_gpu.sh OUT.csv RTTM_FOLDER
set -uo pipefail
out=$1
rttm=$2
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
bench() {
  echo "# $(date +%T) $*"
  "$python" "$here/extract.py" "$out" --work "$work/bench" --size "${SIZE:-large}" \
    --device "${DEVICE:-cuda}" --format wav --rttm "$rttm" "$@" || echo "# failed: $*"
}
# Everything of a corpus' size: batches, buckets, torch.compile, workers, the last layer asked for.
bench --segments "$many" --dtype bfloat16 --plain --repeat 2 --warm 1 --case \
  b60:batch_seconds=60 b120:batch_seconds=120 b240:batch_seconds=240 b480:batch_seconds=480 \
  b960:batch_seconds=960 buckets:buckets=true compiled:buckets=true,compile=true \
  w1:workers=1 w2:workers=2 w4:workers=4 w8:workers=8 w16:workers=16 early:layers=0-"${LAST:-12}"
bench --segments "$many" --dtype float32 --plain --repeat 1
bench --segments "$((many / 4))" --dtype bfloat16 --plain --repeat 1 --channels 8
# The plain loops are slow: fewer segments, both formats, ours beside them.
bench --segments "$few" --dtype float32 --repeat 2
bench --segments "$few" --dtype bfloat16 --repeat 2
