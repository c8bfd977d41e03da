#!/usr/bin/env bash
# What a GPU does with glas3d, in under nine minutes: bash benchmarks/gpu.sh OUT [--quick]
# Every step has a time limit of its own, so that none takes another's time, and writes to a file under OUT. A step that
# fails does not stop the next. --quick checks that every step runs: tiny sizes, also without a GPU, no figures.
set -uo pipefail
out=${1:?a folder for the results is needed: bash benchmarks/gpu.sh OUT}
mkdir -p "$out" && out=$(cd "$out" && pwd) && cd "$(dirname "$0")/.." || exit 2
python=${PYTHON:-python3}
quick=${2:-}
patience=1
[ -z "$quick" ] || patience=10 # a machine that only checks may be busy
failed=""

step() { # NAME SECONDS COMMAND...
    local name=$1 limit=$(($2 * patience)) start=$SECONDS
    shift 2
    timeout --kill-after=10 "$limit" "$@" >> "$out/$name.txt" 2>&1
    local status=$?
    printf '%-12s %4d s of %3d, exit status %d\n' "$name" $((SECONDS - start)) "$limit" "$status" | tee -a "$out/steps.txt"
    [ "$status" = 0 ] || failed="$failed $name"
}

step machine 60 "$python" -m benchmarks.gpu machine
if command -v nvidia-smi > /dev/null; then
    nvidia-smi >> "$out/machine.txt" 2>&1
    nvidia-smi dmon -s um -d 1 -o T > "$out/busy.txt" 2>&1 &
    busy=$!
fi
# Torch may be older than the one that is pinned: a warning of its own must not fail the tests.
step tests 110 "$python" -m pytest -m gpu -p no:xdist -p no:cacheprovider -q -W default $(grep -rl "mark.gpu" tests)
step figures 240 "$python" -m benchmarks.gpu figures "$out/figures.json" $quick
step profile 40 "$python" -m benchmarks.gpu profile $quick
step study 100 "$python" -m benchmarks.gpu study $quick
[ -z "${busy:-}" ] || kill "$busy"
if [ -n "$failed" ]; then
    echo "failed:$failed (see $out)"
    exit 1
fi
