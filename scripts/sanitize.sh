#!/usr/bin/env bash
# Builds tests and program with sanitizers and runs the tests.
#
#   scripts/sanitize.sh asan|tsan [TEST ...]    tests as ctest names them; default: engine_1 engine_2 kernels commands
#
# asan: address and undefined behaviour, in build-asan. tsan: threads, in build-tsan; with one OpenMP thread,
# because LibTorch's OpenMP is not compiled for it and its barriers would go unseen.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kind=${1:-}
case $kind in
  asan | tsan) shift ;;
  *) sed -n '2,7s/^#\( \|$\)//p' "${BASH_SOURCE[0]}" >&2; exit 2 ;;
esac
[ $# -gt 0 ] || set -- engine_1 engine_2 kernels commands
targets=()
for test in "$@"; do
  case $test in
    commands*) targets+=(command_tests) ;;
    engine_*) targets+=(engine_tests) ;;
    fuzz_*) targets+=("$test") ;;
    *) targets+=("${test}_tests") ;;
  esac
done

export QIANLI_BUILD=$root/build-$kind
QIANLI_CUDA=off QIANLI_CMAKE_ARGS="--preset $kind" "$root/scripts/setup.sh"
"$root/scripts/build.sh" "${targets[@]}"

export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
export LSAN_OPTIONS=suppressions=$root/tests/support/lsan.supp:print_suppressions=0
export TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1
[ "$kind" = asan ] || export QIANLI_THREADS=1 OMP_NUM_THREADS=1
names=$(IFS='|'; echo "$*")
exec ctest --test-dir "$QIANLI_BUILD" --output-on-failure --no-tests=error -R "^($names)\$"
