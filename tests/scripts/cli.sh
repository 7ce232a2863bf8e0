# What scripts may rely on: exit codes, results alone on stdout, the same text for the same seed.
set -u
mlxn=$MLXN_PROGRAM
demo=$MLXN_SOURCE_DIR/data/demo
model=$demo/demo-q8_0.gguf
failed=0
fail() { echo "cli: $*"; failed=1; }
cd "$TMPDIR" || exit 1

"$mlxn" --version > version 2> err || fail "--version: exit code $?"
[ -s version ] || fail "--version prints nothing"
for command in "" generate inspect tokenize devices synth bench; do
  # shellcheck disable=SC2086
  "$mlxn" $command --help > help 2> err || fail "$command --help: exit code $?"
  [ -s help ] || fail "$command --help prints nothing"
done

# json FILE: whether it is JSON, by the means of the build.
cat > json.cmake <<'CMAKE'
file(READ "${FILE}" text)
string(JSON type ERROR_VARIABLE error TYPE "${text}")
if(error)
  message(FATAL_ERROR "${error}")
endif()
CMAKE
json() { cmake -DFILE="$1" -P json.cmake > json.log 2>&1 || { fail "$1 is no JSON"; head -c 400 "$1"; cat json.log; }; }

"$mlxn" inspect -m "$model" > inspect 2> err || fail "inspect: exit code $?"
grep -q llama inspect || fail "inspect does not name the architecture"
"$mlxn" inspect -m "$model" --json > inspect.json 2> err || fail "inspect --json: exit code $?"
json inspect.json
"$mlxn" devices --json > devices.json 2> err || fail "devices --json: exit code $?"
json devices.json
"$mlxn" tokenize -m "$model" -p "To be, or not to be" --ids > ids 2> err || fail "tokenize: exit code $?"
json ids

draw() { "$mlxn" generate -m "$model" -n 40 --temp 0.7 --top-k 40 "$@" 2> err || { fail "generate $*: exit code $?"; cat err; }; }
draw -p "ROMEO:" --seed 5 > a
draw -p "ROMEO:" --seed 5 > b
draw -p "ROMEO:" --seed 6 > c
cmp -s a b || fail "the same seed gives another text"
cmp -s a c && fail "another seed gives the same text"
head -c 6 a | grep -q '^ROMEO:' || fail "the prompt is not printed first"
[ "$(wc -c < a)" -gt 30 ] || fail "40 tokens are no more than $(wc -c < a) bytes"
printf 'ROMEO:' > prompt
draw -f prompt --seed 5 > d
cmp -s a d || fail "-f gives another text than -p"
draw -p "ROMEO:" --seed 5 -t 1 > e
cmp -s a e || fail "one thread gives another text"

for type in f16 q8_0 q6_k q5_k q4_k; do
  "$mlxn" generate -m "$demo/demo-$type.gguf" -p "First Citizen:" -n 8 --temp 0 > greedy 2> err || fail "$type: exit code $?"
  [ -s greedy ] || fail "$type: no text"
done

"$mlxn" synth --like tiny --type q4_0 --seed 3 -o tiny.gguf --json > synth.json 2> err || { fail "synth: exit code $?"; cat err; }
json synth.json
[ -s err ] && fail "synth writes progress to what is no terminal"
"$mlxn" synth --like tiny --type q4_0 --seed 3 -t 1 -o again.gguf > synth 2> err || fail "synth -t 1: exit code $?"
cmp -s tiny.gguf again.gguf || fail "synth: the same seed gives another file"
parameters=$(sed -n 's/.*"parameters":\([0-9]*\).*/\1/p' synth.json)
"$mlxn" inspect -m tiny.gguf --json | grep -q "\"parameters\":$parameters," || fail "inspect counts others than the $parameters parameters of synth"
"$mlxn" inspect -m tiny.gguf --check > inspect 2> err || { fail "inspect --check: exit code $?"; cat err; }
"$mlxn" synth --arch llama --layers 1 --embedding 256 --heads 4 --kv-heads 2 --head-dim 64 --ffn 512 --vocab 600 --context 64 \
  --tied --rope-base 5000 --type q6_K -o own.gguf > synth 2> err || { fail "synth of given sizes: exit code $?"; cat err; }
"$mlxn" inspect -m own.gguf --tensors > inspect 2> err || fail "inspect of given sizes: exit code $?"
grep -q 'blk.0.attn_k.weight" .*\[256, 128\]' inspect || { fail "synth: not the given sizes"; cat inspect; }
grep -q '"output.weight"' inspect && fail "synth --tied writes an output matrix"
"$mlxn" generate -m own.gguf -p "the people" -n 8 > text 2> err || { fail "a synthetic model does not speak: exit code $?"; cat err; }

if [ -e /dev/full ]; then
  "$mlxn" generate -m "$model" -p a -n 4 > /dev/full 2> err && fail "a full disk goes unnoticed"
fi
exit $failed
