#!/usr/bin/env bash
# Brings a bare Debian 12 or Ubuntu 24.04 to the point where Qianli builds: system packages, LibTorch, Arrow,
# a configured build folder. Safe to run again at any time; does nothing where nothing is missing.
#
#   scripts/setup.sh [PACKAGE ...]    packages wanted besides those of scripts/packages.txt
#
#   QIANLI_CACHE   where LibTorch and Arrow are kept, outside the tree      (default ~/.cache/qianli)
#   QIANLI_BUILD   the build folder                              (default ./build)
#   QIANLI_CUDA    auto, on or off: build the CUDA library       (default auto: where nvcc is)
# Where nvcc and an NVIDIA driver are, NVIDIA's libraries come along (2.4 GB): all that a GPU needs.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${QIANLI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/qianli}
build=${QIANLI_BUILD:-$root/build}
cuda=${QIANLI_CUDA:-auto}

say() { printf '%s\n' "$*" >&2; }

install_packages() {
  local wanted missing=() package
  mapfile -t wanted < <(grep -v '^#' "$root/scripts/packages.txt")
  wanted+=("$@")
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  local as_root=()
  if [ "$(id -u)" -ne 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
      as_root=(sudo)
    else
      say "[setup] expected these packages, and no rights to install them. Hint: run as root:"
      say "apt-get install -y --no-install-recommends ${missing[*]}"
      exit 2
    fi
  fi
  say "Installing ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}

find_nvcc() {
  [ "$cuda" = off ] && return 1
  command -v nvcc 2>/dev/null || { [ -x /usr/local/cuda/bin/nvcc ] && echo /usr/local/cuda/bin/nvcc; }
}

has_driver() { ldconfig -p | grep -q 'libcuda\.so\.1'; }

# The wheels of scripts/NAME.req, all or none of them, as a folder in the cache.
fetch_wheels() {
  local name=$1 size=$2 machine
  machine=$(uname -m)
  wheels=$cache/$name-2.11.0-$machine
  [ "$name" = libtorch ] && wheels=$cache/wheels-2.11.0-$machine
  [ "$name" = arrow ] && wheels=$cache/pyarrow-26.0.1-$machine
  [ -d "$wheels" ] && return
  say "Fetching scripts/$name.req ($size, once) into $cache"
  python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: \
    --implementation cp --python-version 311 --abi cp311 --abi none \
    --platform "manylinux_2_28_$machine" --platform "manylinux_2_27_$machine" --platform "manylinux_2_25_$machine" \
    --platform "manylinux_2_18_$machine" --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" \
    --platform "manylinux_2_12_$machine" \
    -d "$work/$name" -r "$root/scripts/$name.req"
  mv -T "$work/$name" "$wheels"
}

# Wheels are fetched and unpacked here, beside their final places, and renamed into these when whole, so an
# interrupted run leaves nothing that a later one would take for complete.
make_work_folder() {
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/.setup.XXXXXX")
  trap 'rm -rf "$work"' EXIT
}

fetch_libtorch() {
  local kind=$1 machine target
  machine=$(uname -m)
  target=$cache/libtorch-2.11.0-$machine-$kind
  torch_dir=$target
  [ -d "$target" ] && return
  local folders=()
  fetch_wheels libtorch "540 MB"
  folders+=("$wheels")
  if [ "$kind" != cpu ]; then
    fetch_wheels libtorch_cuda "200 MB"
    folders+=("$wheels")
  fi
  if [ "$kind" = gpu ]; then
    fetch_wheels libtorch_gpu "1.6 GB"
    folders+=("$wheels")
  fi
  say "Unpacking LibTorch"
  unpack "$kind" "$target" "${folders[@]}"
}

fetch_arrow() {
  arrow_dir=$cache/arrow-26.0.1-$(uname -m)
  [ -d "$arrow_dir" ] && return
  fetch_wheels arrow "55 MB"
  unpack arrow "$arrow_dir" "$wheels"
}

unpack() {
  local kind=$1 target=$2
  python3 "$root/scripts/unpack_wheels.py" "$work/$kind-unpacked" "$kind" "${@:3}"
  mv -T "$work/$kind-unpacked" "$target" 2>/dev/null || [ -d "$target" ]
}

install_packages "$@"
make_work_folder
fetch_arrow
if nvcc=$(find_nvcc); then
  if has_driver; then fetch_libtorch gpu; else fetch_libtorch cuda; fi
  export PATH="$PATH:$(dirname "$nvcc")"
else
  [ "$cuda" = on ] && { say "[setup] expected nvcc for QIANLI_CUDA=on, got none. Hint: install the CUDA 13 toolkit."; exit 2; }
  say "No CUDA toolkit found: building without CUDA."
  cuda=off
  fetch_libtorch cpu
fi

cmake -S "$root" -B "$build" -G Ninja -DQIANLI_TORCH_DIR="$torch_dir" -DQIANLI_ARROW_DIR="$arrow_dir" \
  -DQIANLI_CUDA="$cuda" ${QIANLI_CMAKE_ARGS:-} >"$build.configure.log" 2>&1 ||
  { tail -n 30 "$build.configure.log" >&2; exit 1; }
grep -E '^-- (CUDA|No CUDA|QIANLI)' "$build.configure.log" >&2 || true
mv -f "$build.configure.log" "$build/configure.log"
