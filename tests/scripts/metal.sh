#!/usr/bin/env bash
# Every instance of every portable kernel, seen by clang as Metal would see it: C++14, address spaces in the types, no standard
# library (tests/metal_stub). Also searches for what clang takes and Metal does not. A Metal compiler has the last word.
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
clang=""
for name in clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14; do
  if command -v "$name" > /dev/null 2>&1; then clang=$name; break; fi
done
if [ -z "$clang" ]; then echo "metal: no clang++ here"; exit 77; fi

work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
failed=0 kernels=0

check() { # FILE
  "$clang" -x c++ -std=c++14 -fsyntax-only -nostdinc -nostdinc++ -D__METAL_VERSION__=310 -I "$root/tests/metal_stub" -I "$root/src" \
    -include metal_stdlib -Wall -Wextra -Wno-c++17-extensions -Werror=double-promotion -Wno-unused-function -ferror-limit=8 "$@" 2>&1
}

# The check finds what it is for: a dropped qualifier, a structure that crosses memory as a whole, the standard library.
must_fail() { # NAME CODE
  printf '#include "portable/dialect.h"\nnamespace mlxn { namespace gpu {\n%s\n} }\n' "$2" > "$work/$1.h"
  if check "$work/$1.h" > "$work/out"; then echo "metal: $1 went unseen"; failed=1; fi
}
printf '#include "portable/dialect.h"\n' > "$work/dialect.h"
check "$work/dialect.h" || { echo "metal: the dialect itself"; exit 1; }
must_fail dropped_device 'inline const float* f(In<float> x) { return x.ptr; }'
must_fail dropped_threadgroup 'inline float* f(threadgroup float* x) { return x; }'
must_fail standard_library 'inline float f(float x) { return std::exp(x); }'
must_fail double_promotion 'inline double f(float x) { return x; }'

for header in "$root"/src/ops/*/kernel.h; do
  op=$(basename "$(dirname "$header")")
  cat > "$work/$op.cpp" << END
#include "ops/$op/kernel.h"
namespace mlxn {
namespace gpu {
template <class K>
void entry(const typename K::Args& args, const Thread& t, threadgroup typename K::Shared& shared) {
  static_assert(sizeof(typename K::Shared) <= 32768, "Metal gives a group 32 KiB");
  static_assert(sizeof(typename K::Args) <= 4096, "Metal takes 4 KiB of arguments");
  static_assert(K::kThreads % kSimdWidth == 0 && K::kThreads <= 1024, "whole SIMD-groups");
  K::run(args, t, shared);
}
#define MLXN_ENTRY(name, ...) \\
  template void entry<__VA_ARGS__>(const __VA_ARGS__::Args&, const Thread&, threadgroup __VA_ARGS__::Shared&);
MLXN_KERNELS(MLXN_ENTRY)
}  // namespace gpu
}  // namespace mlxn
END
  if ! check "$work/$op.cpp" > "$work/out"; then
    echo "metal: src/ops/$op/kernel.h"
    cat "$work/out"
    failed=1
  fi
  kernels=$((kernels + 1))
  # Every project header that it includes.
  "$clang" -x c++ -std=c++14 -MM -nostdinc -D__METAL_VERSION__=310 -I "$root/tests/metal_stub" -I "$root/src" \
    -include metal_stdlib "$work/$op.cpp" |
    tr -d '\\' | tr ' ' '\n' | grep "^$root/src/" >> "$work/headers"
done

# Lambdas and std:: in what Metal reads, comments aside; branches for other compilers are left out by name.
for header in $(sort -u "$work/headers"); do
  if sed 's|//.*||' "$header" | grep -nE '\[[&=]?\] *(\(|\{)|\[&, |std::|\bvirtual\b|\bthrow\b|\bdouble\b|\bstatic thread_local\b' > "$work/out"; then
    echo "metal: not in the dialect: $header"
    cat "$work/out"
    failed=1
  fi
done
echo "metal: $kernels headers of kernels with $clang"
[ "$kernels" -gt 0 ] || failed=1
exit $failed
