# The installed library, in a place to which it was moved, serves a CMake project and a pkg-config command line, both with
# the code of README.md.
set -eu
say() { echo "install: $*"; }

cmake --install "$MLXN_BUILD" --prefix "$TMPDIR/first" > /dev/null
mv "$TMPDIR/first" "$TMPDIR/moved"
prefix=$TMPDIR/moved
libdir=$(dirname "$(find "$prefix" -name libmlxn.a)")

for file in bin/mlxn include/mlxn/weight.h include/mlxn/ops/matmul.h; do
  [ -e "$prefix/$file" ] || { say "$file was not installed"; exit 1; }
done
for file in cmake/mlxn/mlxnConfig.cmake cmake/mlxn/mlxnConfigVersion.cmake cmake/mlxn/mlxnTargets.cmake pkgconfig/mlxn.pc; do
  [ -e "$libdir/$file" ] || { say "$file was not installed"; exit 1; }
done
find "$prefix" -name LICENSE | grep -q . || { say "no licence was installed"; exit 1; }
# Every public header, and nothing else.
diff <(cd "$MLXN_SOURCE_DIR/include" && find . -type f | sort) <(cd "$prefix/include" && find . -type f | sort)
# No text file knows where it was built or first installed.
if grep -rlI -e "$MLXN_SOURCE_DIR/" -e "$TMPDIR/first" "$prefix"; then say "these files name a folder of the build"; exit 1; fi

example=$TMPDIR/example.cpp
awk '/^```cpp$/ { on = 1; next } /^```$/ { if (on) exit } on' "$MLXN_SOURCE_DIR/README.md" > "$example"
[ -s "$example" ] || { say "README.md has no C++ example"; exit 1; }
model=$MLXN_SOURCE_DIR/data/demo/demo-q8_0.gguf

say "find_package"
cmake -S "$MLXN_SOURCE_DIR/tests/consumer" -B "$TMPDIR/build" -G Ninja -DCMAKE_BUILD_TYPE=Release \
  -DCMAKE_PREFIX_PATH="$prefix" -DMLXN_EXAMPLE="$example" > "$TMPDIR/configure.log" || { cat "$TMPDIR/configure.log"; exit 1; }
cmake --build "$TMPDIR/build"
"$TMPDIR/build/example" "$model" | tee "$TMPDIR/cmake.out"

say "pkg-config"
flags=$(PKG_CONFIG_PATH=$libdir/pkgconfig pkg-config --cflags --libs mlxn)
# shellcheck disable=SC2086
${CXX:-c++} -std=c++20 -O2 -Wall -Wextra -Wpedantic -Werror "$example" $flags -o "$TMPDIR/example"
"$TMPDIR/example" "$model" > "$TMPDIR/pkg-config.out"
diff "$TMPDIR/cmake.out" "$TMPDIR/pkg-config.out"

# It says what is wrong instead of dying.
if "$TMPDIR/example" "$MLXN_SOURCE_DIR/LICENSE" 2> "$TMPDIR/error"; then say "a file that is no GGUF was taken"; exit 1; fi
cat "$TMPDIR/error"
grep -q . "$TMPDIR/error"
