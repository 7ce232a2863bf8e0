# ./run on a tree that is built: it passes arguments and exit codes on from any folder, prints nothing of its own to stdout,
# does not configure again, and is quick.
set -u
failed=0
fail() { echo "run: $*"; failed=1; }
run=$MLXN_SOURCE_DIR/run
cd "$TMPDIR" || exit 1

cp "$MLXN_SOURCE_DIR/data/demo/demo-q4_k.gguf" here.gguf
ln -s "$run" absolute
mkdir links
ln -s ../absolute links/relative
for link in ./absolute links/relative; do
  "$link" inspect -m here.gguf > a 2> err || { fail "through the link $link: exit code $?"; cat err; }
done
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
# Two seconds from the command to the first token: what the script does before the program starts, and the program's own.
first_token() {
  local begin=$EPOCHREALTIME
  "$run" devices > /dev/null 2>&1
  awk -v b="$begin" -v e="$EPOCHREALTIME" -v err="$(cat err)" 'BEGIN {
    match(err, /first token after [0-9.]+/); t = substr(err, RSTART + 18, RLENGTH - 18); print (e - b + t < 2) ? "yes" : e - b + t }'
}
for attempt in 1 2 3; do
  late=$(first_token)
  [ "$late" = yes ] && break
done
[ "$late" = yes ] || fail "the first token comes after $late s"
[ "$(wc -c < text)" -gt 100 ] || fail "no text: $(cat text)"
exit $failed
