# The bundle for machines with a GPU is built, keeps to its sizes and libraries, finds its files, and each part runs its own tests.
# Here without a GPU: on the emulator.
set -u
grep -q '^build mlxn_gpu:' "$MLXN_BUILD/build.ninja" || { echo "this build has no CUDA backend"; exit 77; }
failed=0
fail() { echo "gpu_bundle: $*"; cat out 2> /dev/null; failed=1; }
cd "$TMPDIR" || exit 1
"$MLXN_SOURCE_DIR/tools/gpu_bundle" "$PWD/bundle" > out 2>&1 || { fail "exit code $?"; exit 1; }
mkdir elsewhere && cd elsewhere && tar -xzf ../bundle/mlxn_gpu.tar.gz || exit 1
unset MLXN_SOURCE_DIR MLXN_TEST_DEVICES
for part in cuda conformance property seed models; do
  env -i ./mlxn_gpu test $part --gtest_list_tests > out 2>&1 || fail "$part does not list its tests"
done
env -i ./mlxn_gpu test nonsense > out 2>&1
[ $? = 2 ] || fail "a part of no name"
env -i ./mlxn_gpu mlxn generate -m data/demo/demo-q4_k.gguf --device cpu -p Hello -n 2 --temp 0 > out 2>&1 || fail "mlxn generate"
env -i MLXN_TEST_DEVICES=simt ./mlxn_gpu test conformance --gtest_filter='Softmax.*' > out 2>&1 || fail "a suite on the emulator"
grep -q 'PASSED.*4 tests' out || fail "the suite is another one"
env -i MLXN_TEST_DEVICES=cpu ./mlxn_gpu test models --gtest_filter='*Demo*q4_k*' > out 2>&1 || fail "the demo model is not found"
exit $failed
