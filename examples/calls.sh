#!/usr/bin/env bash
# Every kind of call with curl: examples/calls.sh [http://127.0.0.1:8000]
set -euo pipefail
cd "$(dirname "$0")"
url="${1:-http://127.0.0.1:8000}"
call() { curl --silent --show-error --fail-with-body "$@"; echo; }

echo "# What is served?"
call "$url/v1/models"

echo "# A PNG as it is"
call --data-binary @seven.png -H 'Content-Type: image/png' "$url/v1/models/mnist-cnn:predict"

echo "# A photo of dark ink on light paper: say so with invert, it is never guessed"
call --data-binary @three-on-paper.jpg -H 'Content-Type: image/jpeg' "$url/v1/models/mnist-cnn:predict?invert=true"

echo "# A WAV of any rate from 8 to 192 kHz"
call --data-binary @seven.wav -H 'Content-Type: audio/wav' "$url/v1/models/spoken-digits-lstm:predict"

echo "# How sure is it?"
call --data-binary @seven.png -H 'Content-Type: image/png' "$url/v1/models/mnist-cnn:confidence?top_k=2"

echo "# JSON: a list of instances, here one image as base64"
printf '{"instances": [{"b64": "%s"}]}' "$(base64 < seven.png | tr -d '\n')" |
  call --data-binary @- -H 'Content-Type: application/json' "$url/v1/models/mnist-cnn/versions/4:predict"

echo "# A raw tensor: three blank images, uint8 [3, 28, 28]"
head -c $((3 * 28 * 28)) /dev/zero |
  call --data-binary @- -H 'Content-Type: application/octet-stream' "$url/v1/models/mnist-cnn:predict?top_k=1"
