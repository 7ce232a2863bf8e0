# ./run on a tree that is built: it passes arguments and exit codes on from any folder, prints nothing of its own to stdout,
# does not configure again, and is quick.
set -u
failed=0
fail() { echo "run: $*"; failed=1; }
run=$MLXN_SOURCE_DIR/run
cd "$TMPDIR" || exit 1

cp "$MLXN_SOURCE_DIR/data/demo/demo-q4_k.gguf" here.gguf
configured=$(ls -l --time-style=full-iso "$MLXN_BUILD/CMakeCache.txt" 2> /dev/null)
"$run" inspect -m here.gguf > a 2> err || { fail "inspect with a relative path: exit code $?"; cat err; }
"$MLXN_PROGRAM" inspect -m here.gguf > b
cmp -s a b || fail "stdout is not mlxn's alone"
"$run" generate > /dev/null 2>&1
[ $? = 2 ] || fail "the exit code is not mlxn's"
[ "$configured" = "$(ls -l --time-style=full-iso "$MLXN_BUILD/CMakeCache.txt" 2> /dev/null)" ] || fail "it configured again"

begin=$SECONDS
"$run" > text 2> err || { fail "exit code $?"; cat err; }
[ $((SECONDS - begin)) -le 20 ] || fail "a second run took $((SECONDS - begin)) s"
[ "$(wc -c < text)" -gt 100 ] || fail "no text: $(cat text)"
exit $failed
