# What both commands share: settings, and a step that has a limit of its own. Sourced, not run.
#
# Settings are variables: OUT (folder of what is measured), DEVICE, SIZE (large or nano), PYTHON, RTTM
# (folder of RTTMs that lengths are drawn from), WHEELS (folder of wheels that the machine lacks, such
# as soundfile and spk itself for its version; installed beside, into a folder of this run), SLOWER
# (how many times as long a step may take: for a rehearsal on a busy machine).
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
OUT=${OUT:-$root/benchmarks/results/gpu}
DEVICE=${DEVICE:-cuda} SIZE=${SIZE:-large} PYTHON=${PYTHON:-python3}
[[ $PYTHON != */* ]] || PYTHON=$(realpath -s "$PYTHON")  # steps change folders
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
log=$OUT/log.txt begun=$SECONDS
touch "$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/path" "$work/site" && ln -s "$root" "$work/path/spk"
if ls "${WHEELS:-/nowhere}"/*.whl > /dev/null 2>&1; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$work/site" "$WHEELS"/*.whl
fi
export PYTHONPATH=$work/path:$work/site OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

# step NAME LIMIT COMMAND...: run for at most LIMIT s; all it prints goes to the log, the last lines
# (TAIL, 6 if not set) also to the terminal. What fails is told, and the next step runs.
step() {
  local name=$1 limit=$(($2 * ${SLOWER:-1})) from
  shift 2
  echo "# $((SECONDS - begun)) s: $name (at most $limit s): $*" | tee -a "$log" | cut -c1-300
  from=$(wc -l < "$log")
  timeout "$limit" "$@" >> "$log" 2>&1 ||
    echo "# $name: failed with $? (124: out of time)" >> "$log"
  tail -n +$((from + 1)) "$log" | tail -n "${TAIL:-6}" | cut -c1-250
}
