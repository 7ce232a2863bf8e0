# tools/build.sh configures a folder anew when it is to be another one, and only then. On a project that is empty but for the
# options.
set -u
failed=0
fail() { echo "configure: $*"; failed=1; }
unset MLXN_CUDA MLXN_WERROR
tree=$TMPDIR/tree
mkdir -p "$tree/tools"
cp "$MLXN_SOURCE_DIR/tools/build.sh" "$tree/tools/"
cat > "$tree/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(empty LANGUAGES NONE)
option(MLXN_TESTS "" ON)
option(MLXN_WERROR "" ON)
set(MLXN_CUDA OFF CACHE STRING "")
if(MLXN_CUDA STREQUAL "AUTO")
  message(FATAL_ERROR "no compiler here")
endif()
file(APPEND "${CMAKE_SOURCE_DIR}/configured" "${MLXN_CUDA} ${MLXN_WERROR} ${MLXN_TESTS}\n")
END
cat > "$tree/CMakePresets.json" <<'END'
{"version": 6, "configurePresets": [
  {"name": "release", "generator": "Ninja", "binaryDir": "${sourceDir}/build/release"},
  {"name": "asan", "generator": "Ninja", "binaryDir": "${sourceDir}/build/asan"}]}
END

# expect WHAT COMMAND...: what the command's configuration is, or "same" if it configures nothing.
expect() {
  local wanted=$1
  shift
  : > "$tree/configured"
  env "$@" > out 2> err || { fail "$*: exit code $?"; cat err; return; }
  local got
  got=$(cat "$tree/configured")
  [ "${got:-same}" = "$wanted" ] || fail "$*: configured '$got', wanted '$wanted'"
}
cd "$TMPDIR" || exit 1
build=$tree/tools/build.sh
expect "OFF OFF ON" "$build" release --tests
expect same "$build" release --tests
expect same "$build" release
expect "ON OFF ON" MLXN_CUDA=ON "$build" release
expect same MLXN_CUDA=ON "$build" release
expect same "$build" release
expect "ON ON ON" MLXN_WERROR=ON "$build" release
expect "OFF ON ON" MLXN_CUDA=OFF "$build" release
expect "OFF ON ON" MLXN_CUDA=ON MLXN_WERROR=ON "$build" asan --tests
expect same MLXN_CUDA=ON MLXN_WERROR=ON "$build" asan --tests
expect same "$build" asan
# A wish that cannot be met is an error, and not remembered.
MLXN_CUDA=AUTO "$build" release > out 2> err && fail "a failed configuration: exit code 0"
grep -q "no compiler here" err || fail "a failed configuration does not say why: $(cat err)"
: > "$tree/configured"
"$build" release > out 2> err || { fail "after a failed configuration: exit code $?"; cat err; }
grep -q "^OFF OFF" "$tree/configured" || fail "after a failed configuration: configured '$(cat "$tree/configured")'"
# A tree that was moved keeps its options.
expect "ON OFF ON" MLXN_CUDA=ON "$build" release --tests
mv "$tree" "$TMPDIR/moved"
tree=$TMPDIR/moved build=$TMPDIR/moved/tools/build.sh
expect "ON OFF ON" "$build" release --tests
exit $failed
