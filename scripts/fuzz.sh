#!/usr/bin/env bash
# fuzz.sh [SECONDS] [TARGET...]: builds the fuzz targets with clang and runs each for SECONDS (60).
# New inputs gather in build-fuzz/corpus/TARGET, findings in build-fuzz/findings/TARGET. A finding
# that is fixed belongs into tests/fuzz/corpus/TARGET, where every test run repeats it.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
build=${QIANLI_FUZZ_BUILD:-$root/build-fuzz}
clang=${CLANG:-clang++-14}
seconds=60
if [[ ${1:-} =~ ^[0-9]+$ ]]; then
  seconds=$1
  shift
fi
targets=("$@")
if [[ ${#targets[@]} -eq 0 ]]; then
  mapfile -t targets < <(sed -nE 's/^qianli_fuzz\(([a-z0-9_]+) .*/\1/p' "$root/tests/fuzz/CMakeLists.txt")
fi

cmake -S "$root" -B "$build" -G Ninja -DCMAKE_CXX_COMPILER="$clang" -DQIANLI_FUZZ=ON \
  -DQIANLI_TORCH_DIR= -DQIANLI_BENCH=OFF > "$build.log" 2>&1 || { cat "$build.log"; exit 1; }
rm -f "$build.log"
cmake --build "$build" --target "${targets[@]/#/fuzz_}"

failed=()
for target in "${targets[@]}"; do
  mkdir -p "$build/corpus/$target" "$build/findings/$target"
  echo "== $target, $seconds s"
  log=$build/findings/$target.log
  nice "$build/bin/fuzz_$target" -max_total_time="$seconds" -max_len=65536 -timeout=10 \
    -rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix="$build/findings/$target/" \
    "$build/corpus/$target" "$root/tests/fuzz/corpus/$target" > "$log" 2>&1 || failed+=("$target")
  grep -E 'ERROR|SUMMARY|does not hold|runtime error|#[0-9]+ 0x|stat::(number_of|new_units)|Test unit' "$log" || true
done
if [[ ${#failed[@]} -gt 0 ]]; then
  echo "findings in: ${failed[*]} (see $build/findings)"
  exit 1
fi
