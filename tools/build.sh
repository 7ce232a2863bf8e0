#!/usr/bin/env bash
# Configures a preset if its build folder is not there yet or is to be another one, and builds targets of it. Used by ./run
# and ./test.
# usage: tools/build.sh PRESET [--tests] [TARGET...]
# --tests: the configuration must have the tests; without it, it has them if GoogleTest is there, so that ./run and ./test
# share a folder.
# In the environment; where they are not set, a folder stays as it is and a new one gets the default:
# MLXN_WERROR=ON|OFF        warnings are errors (default OFF): for the project's own check, somebody else's compiler may warn
# MLXN_CUDA=ON|OFF|AUTO     the CUDA backend, in the release preset only (default AUTO: if there are a GPU and a CUDA compiler)
# MLXN_GPU_DEVICE, MLXN_NVCC  the file that tells AUTO of a GPU, /dev/nvidia0, and the CUDA compiler, for tests of AUTO
# All output goes to stderr; progress only to a terminal.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
preset=$1
shift
want_tests=0
if [ "${1:-}" = --tests ]; then want_tests=1; shift; fi
folder=$root/build/$preset
cache=$folder/CMakeCache.txt
mkdir -p "$folder"

# One build at a time in a folder.
if command -v flock > /dev/null 2>&1; then
  exec 9> "$folder/.lock"
  flock 9
fi

cached() { sed -nE "s/^$1:[A-Z]+=(.*)\$/\1/p" "$cache" 2> /dev/null || true; }
werror=${MLXN_WERROR:-$(cached MLXN_WERROR)}
cuda=OFF
if [ "$preset" = release ]; then cuda=${MLXN_CUDA:-$(cached MLXN_CUDA)}; fi
# What AUTO goes by.
gpu=no
if [ -e "${MLXN_GPU_DEVICE:-/dev/nvidia0}" ]; then gpu=yes; fi
here="GPU $gpu, compiler ${MLXN_NVCC-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null || true)}"

configure="" tests=$want_tests
if [ ! -e "$folder/build.ninja" ] || [ ! -e "$cache" ]; then
  configure=--fresh
elif ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$cache"; then
  configure=--fresh # the folder was moved or copied
else
  if [ "$(cached MLXN_TESTS)" = ON ]; then tests=1; elif [ $want_tests = 1 ]; then configure=-Wdev; fi
  if [ "$werror" != "$(cached MLXN_WERROR)" ] || [ "$cuda" != "$(cached MLXN_CUDA)" ]; then configure=-Wdev; fi
  if [ "$cuda" = AUTO ] && [ "$here" != "$(cat "$folder/cuda_here" 2> /dev/null)" ]; then configure="-UMLXN_NVCC -UCUDA*"; fi
fi
if [ -n "$configure" ]; then
  for include in /usr/include /usr/local/include /opt/homebrew/include; do
    if [ -e "$include/gtest/gtest.h" ]; then tests=1; fi
  done
  if [ $tests = 1 ]; then tests=ON; else tests=OFF; fi
  echo "build: configuring build/$preset" >&2
  if ! cmake -S "$root" --preset "$preset" $configure -DMLXN_TESTS=$tests "-DMLXN_WERROR=${werror:-OFF}" \
    ${cuda:+"-DMLXN_CUDA=$cuda"} ${MLXN_GPU_DEVICE:+"-DMLXN_GPU_DEVICE=$MLXN_GPU_DEVICE"} ${MLXN_NVCC+"-DMLXN_NVCC=$MLXN_NVCC"} > "$folder/configure.log" 2>&1; then
    cat "$folder/configure.log" >&2
    rm -f "$folder/build.ninja" "$cache" # what did not work is not asked for again
    exit 1
  fi
  printf '%s\n' "$here" > "$folder/cuda_here"
fi
# Why a machine with a GPU gets a build for the CPU.
sed -n 's/^-- \(NVIDIA GPU found, .*: CPU build\)$/build: \1/p' "$folder/configure.log" >&2 || true

# Ninja's lines as one changing line on a terminal; all else (compiler messages) as it comes.
show() {
  local line announced=0 width=80 open=0
  if [ -t 2 ]; then width=$(tput cols 2> /dev/null || echo 80); fi
  while IFS= read -r line; do
    case $line in
      "ninja: no work to do." | "ninja: Entering directory"* | "-- "* | *"Re-checking globbed directories"* | *"Re-running CMake"*) ;;
      "["[0-9]*/[0-9]*"] "*)
        if [ -t 2 ]; then
          printf '\r\033[K%s' "${line:0:width-1}" >&2
          open=1
        elif [ $announced = 0 ]; then
          echo "build: $*" >&2
          announced=1
        fi
        ;;
      *)
        if [ $open = 1 ]; then printf '\n' >&2; open=0; fi
        printf '%s\n' "$line" >&2
        ;;
    esac
  done
  if [ $open = 1 ]; then printf '\r\033[K' >&2; fi
}
NINJA_STATUS='[%f/%t] ' ninja -C "$folder" "$@" 2>&1 9>&- | show "$preset" "$@"
