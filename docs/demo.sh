#!/usr/bin/env bash
# The whole way on synthetic meetings with the tiny untrained encoder `demo`, and `mfcc`, a baseline
# without weights, beside it: offline, CPU, minutes.
# Usage: docs/demo.sh FOLDER. Every command is echoed as a user would type it.
set -euo pipefail
mkdir -p "$1" && cd "$1"
export HF_HUB_OFFLINE=1

run() {
  printf '\n\033[1m$ %s\033[0m\n' "$*"
  "$@"
}

run spk-manifests demo corpus
run spk-manifests rttm corpus/TextGrid turns.csv --audio-root corpus/wav
run spk-manifests describe turns.csv
run spk-manifests select turns.csv segments.csv --min-seconds 1.0
run spk-manifests split segments.csv table.csv --method chronological
run spk-manifests leaks table.csv
run spk-extract table.csv features --audio-root corpus/wav --encoder demo
run spk-extract table.csv features-mfcc --audio-root corpus/wav --encoder mfcc
run spk-store info features
run spk-classify sweep table.csv features sweep
run spk-classify sweep table.csv features-mfcc sweep-mfcc
run spk-classify compare sweep-mfcc/predictions.csv sweep/predictions.csv
run spk-classify fit table.csv features model
run spk-classify predict model table.csv features predictions.csv
run spk-classify score predictions.csv --table table.csv
run spk-classify report sweep sweep-mfcc --table table.csv --audio-root corpus/wav -o report.html
printf '\nThe accuracy by layer is drawn in %s/sweep/sweep.png, everything is told in %s/report.html\n' "$PWD" "$PWD"
