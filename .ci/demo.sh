#!/usr/bin/env bash
# The whole way on synthetic meetings with the encoder that ships, `small`, and `mfcc`, a baseline
# without weights, beside it; then on a short meeting of real voices: offline, CPU, minutes.
# Usage: .ci/demo.sh FOLDER. Every command is echoed as a user would type it.
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
run spk-extract table.csv features --audio-root corpus/wav --encoder small
run spk-extract table.csv features-mfcc --audio-root corpus/wav --encoder mfcc
run spk-store info features
run spk-classify sweep table.csv features sweep
run spk-classify sweep table.csv features-mfcc sweep-mfcc
run spk-classify compare sweep-mfcc/predictions.csv sweep/predictions.csv
run spk-classify fit table.csv features model
run spk-classify predict model table.csv features predictions.csv
run spk-classify score predictions.csv --table table.csv
run spk-classify report sweep sweep-mfcc --table table.csv --audio-root corpus/wav -o report.html

# Seven people who read aloud (LibriSpeech, CC BY 4.0), on whom `small` was not trained.
run spk-manifests sample voices
run spk-manifests rttm voices/TextGrid voices-turns.csv --audio-root voices/wav
run spk-manifests split voices-turns.csv voices.csv --method chronological
run spk-extract voices.csv voices-features --audio-root voices/wav --encoder small
run spk-classify sweep voices.csv voices-features voices-sweep
run spk-classify report voices-sweep --table voices.csv --audio-root voices/wav -o voices-report.html
printf '\nThe accuracy by layer is drawn in %s/sweep/sweep.png, everything is told in %s/report.html\n' "$PWD" "$PWD"
printf 'and of the real voices in %s/voices-report.html\n' "$PWD"
