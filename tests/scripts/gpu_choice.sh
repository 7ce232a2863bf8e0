# Which machine gets the CUDA backend from ./run and ./test: one with a GPU and a CUDA compiler. One with a GPU alone is told why
# not, in one line each time. The GPU is a file that stands for /dev/nvidia0.
set -u
failed=0
fail() { echo "gpu_choice: $*"; cat out 2> /dev/null; failed=1; }
cd "$TMPDIR" || exit 1
mkdir tree
(cd "$MLXN_SOURCE_DIR" && tar -cf - --exclude=./build --exclude=./.git --exclude=./data .) | tar -xf - -C tree || exit 1
touch gpu
unset MLXN_CUDA
configure() { # ENVIRONMENT...: configures, builds nothing
  env "$@" tree/tools/build.sh release build.ninja > out 2>&1 || fail "$*: exit code $?"
}
lines() { grep -c "$1" out; }

configure MLXN_GPU_DEVICE="$PWD/gpu" MLXN_NVCC=
[ "$(lines 'NVIDIA GPU found, no CUDA compiler: CPU build')" = 1 ] || fail "no CUDA compiler: that is not said in one line"
grep -q 'backends/cuda/absent.cpp' tree/build/release/build.ninja || fail "no CUDA compiler: it is no build for the CPU"
configure MLXN_GPU_DEVICE="$PWD/gpu" MLXN_NVCC=
[ "$(lines 'NVIDIA GPU found')" = 1 ] || fail "the second time it does not say so"
[ "$(lines configuring)" = 0 ] || fail "it configures again although nothing changed"

configure MLXN_GPU_DEVICE="$PWD/none"
[ "$(lines 'NVIDIA GPU found')" = 0 ] || fail "no GPU: it says that there is one"
[ "$(lines configuring)" = 1 ] || fail "the GPU is gone, and it does not configure again"
grep -q 'backends/cuda/absent.cpp' tree/build/release/build.ninja || fail "no GPU: it is no build for the CPU"

if command -v nvcc > /dev/null 2>&1; then
  configure MLXN_GPU_DEVICE="$PWD/gpu"
  [ "$(lines 'NVIDIA GPU found')" = 0 ] || fail "GPU and compiler: it gives a reason against them"
  grep -q 'backends/cuda/queue.cpp' tree/build/release/build.ninja || fail "GPU and compiler: it is no build for the GPU"
fi
exit $failed
