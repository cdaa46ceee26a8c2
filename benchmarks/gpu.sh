#!/usr/bin/env bash
# Everything that has a meaning on an accelerator, in under eight minutes: benchmarks/gpu.sh [DIR]
#
# Points go to DIR (benchmarks/results/gpu by default) as json lines and plots. Every call has its
# own limit, so that one that hangs costs no other. CHECK=1 does the same at sizes that any machine
# does in a minute or two.
set -u
cd "$(dirname "$(readlink -f "$0")")/.."
output=${1:-benchmarks/results/gpu}

if [ -n "${CHECK:-}" ]; then
  batches=8 large=8 shape=users:60,items:40/80,len:8 chain=2,4
else
  batches=100,1024,8192 large=4096 shape=users:20000,items:10000/100000/1000000,len:20
  chain=10,100,500
fi

limited() { # seconds, words of bin/benchmark
  local most=$1
  shift
  printf '== bin/benchmark %s\n' "$*" >&2
  timeout -k 5 "$most" bin/benchmark "$@" --output="$output" --repeats=5 ||
    printf 'not done (%s): bin/benchmark %s\n' "$?" "$*" >&2
}

dreamrec=(--model=dreamrec --preset=zhihu --shape="users:9000,items:4838,len:10" --model.sampler.kind=ddpm)
limited 90 sampler "${dreamrec[@]}" --batches="$batches" --peer=loop
limited 40 sampler "${dreamrec[@]}" --batches="$large" --steps="$chain"
limited 40 train --model=dreamrec,diffurec,diffrec --batches="$large" --shape="${shape/\/*,/,}"
limited 60 rank --model=dimerec --batches="$large" --shape="$shape"
limited 60 sampler --model=dimerec,diffurec,diffrec --batches="$large" --shape="${shape/\/*,/,}"
limited 80 memory --model=dreamrec,sasrec --batches="$large" --shape="$shape"
limited 50 evaluate --model=dreamrec,sasrec --batches="$large" --shape="${shape/\/*,/,}"
if [ -e .venv/bin/python ] && .venv/bin/python -c "import torch" 2>/dev/null; then
  limited 40 sampler "${dreamrec[@]}" --batches=100 --peer=torch
fi
