# ./test itself, on a tree of programs that are scripts: parts run two at a time, their counts sum up, what failed is shown, and
# a part that measures runs alone. A signal ends it with all that it started.
set -u
failed=0
fail() { echo "together: $*"; sed 's/^/  /' out 2> /dev/null; failed=1; }
unset MLXN_CUDA MLXN_WERROR MLXN_SHARDS MLXN_SHARD GTEST_TOTAL_SHARDS GTEST_SHARD_INDEX
cd "$TMPDIR" || exit 1
tree=$PWD/tree seen=$PWD/seen
mkdir -p tree/tools tree/tests/scripts bin seen
cp "$MLXN_SOURCE_DIR/test" tree/
printf '#!/bin/sh\necho 2\n' > bin/nproc
printf '#!/bin/sh\n' > tree/tools/setup.sh
cat > tree/tools/build.sh <<'END_OF_FILE'
#!/bin/sh
[ "$3" != build.ninja ] || cmake -G Ninja -S tree -B tree/build/release > configure.log
END_OF_FILE
chmod +x bin/nproc tree/tools/*.sh
PATH=$PWD/bin:$PATH

# program NAME BODY: a part. Its body has the functions ok, bad, skip and meet, and NAME in $name.
program() {
  mkdir -p "tree/tests/$1"
  touch "tree/tests/$1/test.cpp"
  for build in release asan; do
    mkdir -p tree/build/$build/tests
    cat > "tree/build/$build/tests/test_$1" <<END_OF_FILE
#!/usr/bin/env bash
name=$1 build=$build seen=$seen
ok() { echo "[ RUN      ] \$1"; echo "[       OK ] \$1 (1 ms)"; }
skip() { echo "[ RUN      ] \$1"; echo "[  SKIPPED ] \$1 (1 ms)"; }
bad() { echo "[ RUN      ] \$1"; echo "the reason of \$1"; echo "[  FAILED  ] \$1 (1 ms)"; code=1; }
# Succeeds if the other one is there at the same time.
meet() {
  touch "\$seen/\$name"
  for i in \$(seq 300); do [ ! -e "\$seen/\$1" ] || return 0; sleep 0.1; done
  return 1
}
code=0
$2
echo "[==========] 1 test from 1 test suite ran. (1 ms total)"
exit \$code
END_OF_FILE
    chmod +x "tree/build/$build/tests/test_$1"
  done
}
cat > tree/CMakeLists.txt <<'END_OF_FILE'
cmake_minimum_required(VERSION 3.25)
project(parts LANGUAGES NONE)
enable_testing()
foreach(part IN ITEMS base quant runtime memory fuzz models seed tokenizer)
  add_test(NAME ${part} COMMAND test_${part})
endforeach()
add_test(NAME command COMMAND ${CMAKE_COMMAND} -E true)
add_test(NAME command_that_fails COMMAND ${CMAKE_COMMAND} -E cat no_such_file)
END_OF_FILE
program base 'meet quant || bad NotMet; ok First; ok Second'
program quant 'meet base || bad NotMet; ok Good; bad Wrong; skip Left; sleep 1'
program runtime 'touch "$seen/alone"; sleep 1; rm "$seen/alone"; ok Measured'
program memory '[ ! -e "$seen/alone" ] || bad BesideOneThatMeasures; ok First'
program fuzz 'ok "Share_${GTEST_SHARD_INDEX:-all}"; [ "${GTEST_SHARD_INDEX:-}" != 1 ] || { bad Wrong; echo "it broke down here"; exit 6; }'
program models ':'
program tokenizer 'ok Early; exit 0'
program seed 'ok Quick; [ -z "${STAY:-}" ] || { echo $$ > "$seen/pid"; exec sleep 60; }'
printf 'exit 77\n' > tree/tests/scripts/left.sh
printf 'echo "what the script says"; exit 3\n' > tree/tests/scripts/wrong.sh
printf '[ -d "$TMPDIR" ] && [ -x "$MLXN_BUILD/tests/test_base" ]\n' > tree/tests/scripts/right.sh

# run WANTED_CODE ARGUMENT...
run() {
  local wanted=$1 code
  shift
  rm -f "$seen"/*
  tree/test "$@" > out 2>&1
  code=$?
  [ $code = "$wanted" ] || fail "$*: exit code $code, wanted $wanted"
}
has() { grep -q -- "$1" out || fail "no line '$1'"; }
has_not() { ! grep -q -- "$1" out || fail "a line '$1'"; }

run 1
has '^base  *2 passed, 0 failed, 0 skipped '
has '^quant  *1 passed, 1 failed, 1 skipped '
has '^the reason of Wrong$'
has_not 'First$'
has '^runtime  *1 passed, 0 failed, 0 skipped '
has '^memory  *1 passed, 0 failed, 0 skipped '
has '^models ran nothing$'
has '^tokenizer  *1 passed, 1 failed, 0 skipped '
has '^tokenizer ended before all its tests had run$'
has '^command  *1 passed, 0 failed, 0 skipped '
has '^command_that_fails  *0 passed, 1 failed, 0 skipped '
has 'no_such_file'
has '^left  *0 passed, 0 failed, 1 skipped '
has '^what the script says$'
has '^wrong ended with exit code 3$'
has '^right  *1 passed, 0 failed, 0 skipped '
has '^10 passed, 5 failed, 2 skipped$'
parts=$(grep -o '^[a-z_]*  *[0-9]* passed' out | sed 's/ .*//' | tr '\n' ' ')
[ "$parts" = "base quant runtime memory fuzz models seed tokenizer command command_that_fails left right wrong " ] || fail "not in order: $parts"


run 0 memory fuzz
has '^2 passed, 0 failed, 0 skipped$'
run 0 seed runtime seed
has '^2 passed, 0 failed, 0 skipped$'
run 1 asan:fuzz
has '^asan:fuzz  *4 passed, 2 failed, 0 skipped '
has '^the reason of Wrong$'
has '^it broke down here$'
has '^fuzz ended with exit code 6$'
run 2 no_such_part

# As a terminal sends it on Ctrl-C, to all in the foreground.
set -m
for signal in INT TERM; do
  rm -f "$seen"/*
  mkdir work
  STAY=1 TMPDIR=$PWD/work tree/test seed > out 2>&1 &
  test=$!
  for i in $(seq 600); do [ ! -s "$seen/pid" ] || break; sleep 0.1; done
  [ -s "$seen/pid" ] || fail "$signal: it did not start"
  kill -$signal -- -$test
  wait $test
  code=$?
  [ $code -gt 128 ] || fail "$signal: exit code $code"
  ! kill -0 "$(cat "$seen/pid")" 2> /dev/null || fail "$signal: what it started goes on"
  rmdir work || fail "$signal: $(find work) stays"
done
exit $failed
