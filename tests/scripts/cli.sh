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
for command in "" generate chat perplexity inspect tokenize devices synth bench; do
  # shellcheck disable=SC2086
  "$mlxn" $command --help > help 2> err || fail "$command --help: exit code $?"
  [ -s help ] || fail "$command --help prints nothing"
done

"$mlxn" --help > help
"$mlxn" help > text 2> err || fail "help: exit code $?"
cmp -s help text || fail "help is another text than --help"
"$mlxn" bench matmul --help > help
"$mlxn" help bench matmul > text 2> err || fail "help bench matmul: exit code $?"
cmp -s help text || fail "help bench matmul is another text than bench matmul --help"
"$mlxn" version > text 2> err || fail "version: exit code $?"
cmp -s version text || fail "version says $(cat text)"

# says CODE TEXT ARGUMENTS...: the exit code, and what stderr says
says() {
  local wanted=$1 text=$2 code
  shift 2
  "$mlxn" "$@" > out 2> err < /dev/null
  code=$?
  [ $code = "$wanted" ] && grep -qF -e "mlxn: $text" err || { fail "$*: exit code $code, not $wanted and '$text'"; cat err; }
}
says 2 "unknown command 'quantize'" quantize --help
says 2 "unknown command 'quantize'" help quantize
says 2 "unknown command 'foo' (mlxn bench --help" bench foo --help
for flag in "-ngl 99" -fa -cnv -no-cnv "-ctk f16" "-sys hi"; do
  # shellcheck disable=SC2086
  says 2 "unknown flag ${flag%% *} (" generate -m "$model" -p hi $flag
done
"$mlxn" generate -m "$model" -p -fa -n2 -c64 -s1 > text 2> err || { fail "numbers that follow a letter's flag at once: exit code $?"; cat err; }
grep -q -e '-fa' text || fail "a prompt that looks like a flag is no prompt: $(cat text)"
says 2 "--temp: 1e300, wanted a finite number" generate -m "$model" -p hi --temp 1e300
says 2 "--cache-type-k: f32, --cache-type-v: f16 (f16 if not given), wanted the same" generate -m "$model" -p hi --cache-type-k f32
says 2 "--repeat-last-n: -2, wanted" generate -m "$model" -p hi --repeat-last-n -2
says 2 "--rope-base: 1e300, wanted a finite number" synth --like tiny --rope-base 1e300 -o bad.gguf
says 2 "--seconds: 1e999, wanted a finite number" bench matmul --seconds 1e999
says 2 "--layers: 0, wanted at least 1" synth --like tiny --layers 0 -o bad.gguf
says 2 "--vocab: 0, wanted at least 1" synth --like tiny --vocab 0 -o bad.gguf
says 2 "--context: 0, wanted at least 1" synth --like tiny --context 0 -o bad.gguf
says 2 "--ffn: 33, wanted a multiple of 256" synth --like tiny --ffn 33 -o bad.gguf
says 2 "--embedding: 128, wanted a multiple of 256" synth --like tiny --embedding 128 --heads 2 --type q4_K -o bad.gguf
says 2 "--split-max-size: gguf: tensor" synth --like tiny --split-max-size 30000 -o bad.gguf
says 2 "--type: 'affine4_g64', wanted one of f32, f16, bf16, q4_0, " synth --like tiny --type affine4_g64 -o bad.gguf
grep -q 'affine.*affine' err && fail "synth offers types that files do not have"
says 2 "--type: 'q9', wanted one of f32, f16, bf16, q4_0, " bench matmul --type q9

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
"$mlxn" tokenize -m "$model" -p "To be, or not to be" --ids --stats > both 2>&1 || fail "tokenize --stats: exit code $?"
tail -n 1 both | grep -q ' MB/s$' || fail "tokenize: the statistics are not at the end"

draw() { "$mlxn" generate -m "$model" -n 40 --temp 0.7 --top-k 40 "$@" 2> err || { fail "generate $*: exit code $?"; cat err; }; }
draw -p "ROMEO:" --seed 5 > a
draw -p "ROMEO:" --seed 5 > b
draw -p "ROMEO:" --seed 6 > c
cmp -s a b || fail "the same seed gives another text"
cmp -s a c && fail "another seed gives the same text"
head -c 6 a | grep -q '^ROMEO:' || fail "the prompt is not printed first"
[ "$(wc -c < a)" -gt 30 ] || fail "40 tokens are no more than $(wc -c < a) bytes"
draw -p "ROMEO:" --seed 5 --kv-type f32 --repeat-penalty 1.3 --repeat-last-n 4096 > f
"$mlxn" generate -m "$model" -p "ROMEO:" --n-predict 40 --temp 0.7 --top-k 40 --seed 5 --cache-type-k f32 --cache-type-v f32 --repeat-penalty 1.3 \
  --repeat-last-n -1 > g 2> err || { fail "names of flags as llama.cpp has them: exit code $?"; cat err; }
cmp -s f g || fail "names of flags as llama.cpp has them give another text"
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
"$mlxn" inspect -m tiny.gguf | grep -q 'tiny with random weights' || fail "synth: the name does not say what the model is like"
for change in "--layers 1" --tied "--vocabulary llama3" "--arch qwen3"; do
  # shellcheck disable=SC2086
  "$mlxn" synth --like tiny $change -o again.gguf > synth 2> err || fail "synth $change: exit code $?"
  "$mlxn" inspect -m again.gguf | grep -q 'tiny, changed, with random weights' || fail "synth $change: the name says nothing of it"
done
mkdir stopped
"$mlxn" synth --like llama3.2-1b -o stopped/s.gguf > synth 2> err &
for _ in $(seq 100); do [ -n "$(ls -A stopped)" ] && break; sleep 0.02; done
kill -TERM $!
wait $!
code=$?
[ $code = 143 ] && grep -q 'synth: stopped after' err || { fail "synth: exit code $code after SIGTERM"; cat err; }
[ -z "$(ls -A stopped)" ] || fail "synth: SIGTERM leaves $(ls -A stopped)"
parameters=$(sed -n 's/.*"parameters":\([0-9]*\).*/\1/p' synth.json)
"$mlxn" inspect -m tiny.gguf --json | grep -q "\"parameters\":$parameters," || fail "inspect counts others than the $parameters parameters of synth"
"$mlxn" inspect -m tiny.gguf --check > inspect 2> err || { fail "inspect --check: exit code $?"; cat err; }
tail -n 1 inspect | grep -Eq '^check passed: all [0-9.]+ [KM]?i?B of [1-9][0-9]* tensors read, every scale is a number$' || { fail "inspect --check does not say what it found"; tail -n 1 inspect; }
"$mlxn" inspect -m tiny.gguf --check --json > checked.json 2> err || fail "inspect --check --json: exit code $?"
json checked.json
grep -q '"checked":{"tensors":[1-9]' checked.json || fail "inspect --check --json does not say what it found"
mkdir limited
(ulimit -f 10; "$mlxn" synth --like tiny -o limited/s.gguf > synth 2> err)
code=$?
[ $code = 1 ] && grep -q 'File too large$' err || { fail "synth beyond the limit of a file: exit code $code"; cat err; }
[ -z "$(ls -A limited)" ] || fail "synth beyond the limit of a file leaves $(ls -A limited)"
"$mlxn" synth --arch llama --layers 1 --embedding 256 --heads 4 --kv-heads 2 --head-dim 64 --ffn 512 --vocab 600 --context 64 \
  --tied --rope-base 5000 --type q6_K -o own.gguf > synth 2> err || { fail "synth of given sizes: exit code $?"; cat err; }
"$mlxn" inspect -m own.gguf --tensors > inspect 2> err || fail "inspect of given sizes: exit code $?"
grep -q 'blk.0.attn_k.weight" .*\[256, 128\]' inspect || { fail "synth: not the given sizes"; cat inspect; }
grep -q '"output.weight"' inspect && fail "synth --tied writes an output matrix"
"$mlxn" generate -m own.gguf -p "the people" -n 8 > text 2> err || { fail "a synthetic model does not speak: exit code $?"; cat err; }

text=$MLXN_SOURCE_DIR/tests/golden/perplexity/text.txt
"$mlxn" perplexity -m "$model" -f "$text" -c 128 > ppl 2> err || { fail "perplexity: exit code $?"; cat err; }
grep -Eq '^PPL = 66\.[0-9]{4} \+/- 7\.[0-9]{5}$' ppl || fail "perplexity says '$(cat ppl)', llama.cpp 66.3623 +/- 7.37509"
[ "$(wc -l < ppl)" = 1 ] || fail "perplexity prints more than its result"
"$mlxn" perplexity -m "$model" -f "$text" -c 128 --chunks 1 -b 16 --json > ppl.json 2> err || fail "perplexity --json: exit code $?"
json ppl.json
grep -q '"tokens":63' ppl.json || fail "a chunk of 128 scores other than 63 tokens: $(cat ppl.json)"
"$mlxn" perplexity -m "$model" -f - -c 128 < "$text" > ppl.stdin 2> err || fail "perplexity -f -: exit code $?"
cmp -s ppl ppl.stdin || fail "perplexity of stdin differs from that of the file"

"$mlxn" synth --like tiny --type q4_0 --seed 3 --split-max-size 300000 -o parts.gguf > parts 2> err || { fail "synth of parts: exit code $?"; cat err; }
first=$(head -n 1 parts)
case $first in parts-00001-of-0000[2-9].gguf) ;; *) fail "synth: the first part is called $first" ;; esac
for file in tiny.gguf "$first"; do "$mlxn" generate -m $file -p "the people" -n 16 --temp 0 2> err || { fail "generate -m $file: exit code $?"; cat err; }; done > text
[ "$(sort -u text | wc -l)" = 1 ] || { fail "a model in parts says something else"; cat text; }
"$mlxn" inspect -m "$first" | grep -q "^[2-9] parts" || fail "inspect does not show the parts"
"$mlxn" inspect -m "$first" --json > parts.json && json parts.json
last=$(grep -o '^parts-.*' parts | tail -n 1)
"$mlxn" inspect -m "$last" > text 2> err && fail "inspect takes part $last for a model"
grep -q "$first" err || { fail "inspect does not say which part is the first"; cat err; }
mv "$last" away
"$mlxn" inspect -m "$first" > text 2> err && fail "a missing part goes unnoticed"
grep -q "$last" err || { fail "the missing part is not named"; cat err; }

for output in md csv json; do
  "$mlxn" bench model -m tiny.gguf -p 8,16 -n 4 -d 0,5 -r 2 -o $output > bench.$output 2> err || { fail "bench model -o $output: exit code $?"; cat err; }
done
[ "$(wc -l < bench.json)" = 6 ] || { fail "bench model: not six objects"; cat bench.json; }
while read -r line; do printf '%s' "$line" > line.json; json line.json; done < bench.json
[ "$(wc -l < bench.csv)" = 7 ] || { fail "bench model: not six rows and their names"; cat bench.csv; }
[ "$(wc -l < bench.md)" = 8 ] || { fail "bench model: not six rows under a title"; cat bench.md; }
grep -q '| *pp16 @ d5 |' bench.md && grep -q '| *tg4 |' bench.md || { fail "bench model: the tests are named otherwise"; cat bench.md; }

# A conversation on stdin: the system prompt and every line change what comes; the same seed gives the same; only new tokens
# are read for a second message.
talk() { "$mlxn" chat -m "$model" --template chatml -n 12 --temp 0.7 --seed 3 "$@" 2> err || { fail "chat $*: exit code $?"; cat err; }; }
printf 'Who is there?\nSpeak!\n' | talk > chat1
printf 'Who is there?\nSpeak!' | talk > chat2
cmp -s chat1 chat2 || fail "chat: the same seed gives another text"
[ "$(grep -c . chat1)" -ge 2 ] || fail "chat: two messages got $(grep -c . chat1) lines"
both=$(sed -n 's/.*prompt \([0-9]*\) tokens.*/\1/p' err)
printf 'Who is there?\n' | talk > chat3
one=$(sed -n 's/.*prompt \([0-9]*\) tokens.*/\1/p' err)
[ "$(head -n 1 chat3)" = "$(head -n 1 chat1)" ] || fail "chat: the first reply depends on the second message"
[ "$both" -lt $((2 * one + 12)) ] || fail "chat: $both tokens were read for two messages, $one for the first"
printf 'Who is there?\n' | talk --system-prompt "Thou art a king." > chat4
cmp -s chat3 chat4 && fail "chat: the system prompt changes nothing"
talk -p 'Who is there?' --stats < /dev/null > chat5
grep -q '^peak resident memory' err || { fail "chat --stats prints none"; cat err; }
cmp -s chat3 chat5 || fail "chat: -p gives another reply than stdin"
printf 'Who is there?\n' | "$mlxn" chat -m tiny.gguf -n 4 > chat 2> err || { fail "chat with the template of a synthetic model: exit code $?"; cat err; }
# Ctrl-C ends the reply and not the program: without it the first reply would fill the context, and the second message would
# be an error.
mkfifo lines
"$mlxn" chat -m "$model" --template chatml --temp 0.7 --seed 3 -c 1000 < lines > chat6 2> err &
program=$!
exec 7> lines
printf 'Tell me everything.\n' >&7
for _ in $(seq 100); do [ -s chat6 ] && break; sleep 0.1; done
kill -INT $program
printf 'Enough?\n' >&7
exec 7>&-
wait $program || { fail "chat: exit code $? after Ctrl-C"; cat err; }
grep -q 'prompt' err || { fail "chat: no summary after Ctrl-C"; cat err; }

# A class that the device does not have is bad usage, found before anything is loaded, measured or printed.
for command in "generate -m $model -p hi -n 4" "bench matmul"; do
  # shellcheck disable=SC2086
  "$mlxn" $command --device cpu --precision bf16 > text 2> err
  code=$?
  [ $code = 2 ] && [ ! -s text ] && grep -q "^mlxn: --precision: 'bf16', which cpu" err || { fail "$command --precision bf16: exit code $code"; cat text err; }
done

# Ctrl-C: what there is stays, a line on stderr says how far it came, and the exit code is 130.
printed() {  # printed BYTES: waits until stopped.out has so many
  for _ in $(seq 200); do [ "$(wc -c < stopped.out)" -ge "$1" ] && break; sleep 0.02; done
}
interrupts() {  # interrupts LINE BYTES ARGUMENTS...: SIGINT once so many bytes are printed; what line of stderr is wanted
  local line=$1 bytes=$2 code program
  shift 2
  : > stopped.out
  "$mlxn" "$@" > stopped.out 2> err < /dev/null &
  program=$!
  if [ "$bytes" = 0 ]; then sleep 1; else printed "$bytes"; fi
  kill -INT $program
  wait $program
  code=$?
  [ $code = 130 ] && grep -q "^mlxn: $line" err || { fail "$* and Ctrl-C: exit code $code"; cat err; }
}
interrupts 'interrupted after [1-9][0-9]* tokens$' 8 generate -m "$model" -p "ROMEO:" -n -1 --ignore-eos -c 100000 --temp 0 --stats
grep -q 'generated [1-9]' err && grep -q '^peak resident memory' err || { fail "generate: no statistics after Ctrl-C"; cat err; }
[ "$(wc -c < stopped.out)" -gt 8 ] || fail "generate: no text after Ctrl-C"
for _ in $(seq 400); do cat "$text"; done | head -c 100000 > long
interrupts "interrupted after [0-9]* of the prompt's [0-9]* tokens$" 100000 generate -m "$model" -f long -n 4 -c 100000 -b 32
grep -q '^mlxn: stopping after the current chunk; Ctrl-C again ends at once$' err || { fail "generate: Ctrl-C in a prompt is not answered"; cat err; }
"$mlxn" generate -m "$model" -f long -n 4 -c 100000 -b 100000 > stopped.out 2> err &
printed 100000
kill -INT $!
for _ in $(seq 200); do grep -q 'ends at once' err && break; sleep 0.02; done
kill -INT $!
wait $!
code=$?
[ $code = 130 ] && ! grep -q 'generated' err || { fail "generate: exit code $code after a second Ctrl-C"; cat err; }
interrupts 'perplexity: stopped after [0-9]* of [0-9]* chunks$' 0 perplexity -m "$model" -f long -c 512 -b 1
# Before anything is generated there is nothing to finish.
"$mlxn" generate -m "$model" -n 4 -f - > stopped.out 2> err < lines &
program=$!
exec 7> lines
sleep 1
kill -INT $program
exec 7>&-
wait $program
code=$?
[ $code = 130 ] && [ "$(cat err)" = "mlxn: interrupted" ] || { fail "generate -f -: exit code $code after Ctrl-C"; cat err; }
# At whatever moment it comes: all was done, or that it was not is said.
"$mlxn" synth --like tiny --layers 300 -o deep.gguf > synth 2> err || { fail "synth --layers 300: exit code $?"; cat err; }
for delay in 0.01 0.02 0.04 0.06 0.1 0.15 0.2; do
  "$mlxn" generate -m deep.gguf -p "the people" -n 40 --ignore-eos --no-mmap > stopped.out 2> err &
  program=$!
  sleep $delay
  kill -INT $program 2> /dev/null
  wait $program
  code=$?
  case $code in 0) wanted=0 ;; *) wanted=1 ;; esac
  { [ $code = 0 ] || [ $code = 130 ]; } && [ "$(grep -c '^mlxn: interrupted' err)" = $wanted ] || { fail "Ctrl-C after $delay s: exit code $code"; cat err; }
done
# A conversation that nobody can go on with.
"$mlxn" chat -m "$model" --template chatml -n 4 < lines > stopped.out 2> err &
program=$!
exec 7> lines
printf 'Who?\n' >&7
for _ in $(seq 200); do [ "$(wc -l < stopped.out)" -gt 0 ] && break; sleep 0.02; done
sleep 1
kill -INT $program
exec 7>&-
wait $program
code=$?
[ $code = 130 ] && grep -q '^mlxn: interrupted' err || { fail "chat: exit code $code after Ctrl-C before a message"; cat err; }

"$mlxn" bench --explain > explain 2> err || { fail "bench --explain: exit code $?"; cat err; }
for op in matmul rms_norm attention; do grep -q "^$op$" explain || fail "bench --explain does not name $op"; done
[ "$(grep -c '  taken$' explain)" = "$(grep -c '^[a-z_]*$' explain)" ] || { fail "bench --explain: not one implementation is taken of each operation"; cat explain; }
"$mlxn" bench matmul --explain --type q4_K,f32 --shape 512x1024 --m 1,512 --json > explain.json 2> err || { fail "bench matmul --explain: exit code $?"; cat err; }
[ "$(wc -l < explain.json)" = 5 ] || { fail "bench matmul --explain: not five objects"; cat explain.json; }
while read -r line; do printf '%s' "$line" > line.json; json line.json; done < explain.json
"$mlxn" bench matmul --type q4_0 --shape 600x256 --m 1,40 --seconds 0.01 --device cpu --precision exact --x f16 --y bf16 --early-starts off --batch-invariant --json > bench.json 2> err || { fail "bench matmul: exit code $?"; cat err; }
[ "$(wc -l < bench.json)" = 2 ] || { fail "bench matmul: not two objects"; cat bench.json; }
while read -r line; do printf '%s' "$line" > line.json; json line.json; done < bench.json
for said in '"x":"f16"' '"y":"bf16"' '"early_starts":false' '"batch_invariant":true'; do grep -q "$said" bench.json || { fail "bench matmul does not say $said"; cat bench.json; }; done
# Rounding y to bf16 makes an error of 2.8e-6, whatever the numbers: enough of them are compared to find about that.
sed 's/.*"nmse":\([0-9.e-]*\).*/\1/' bench.json | awk '!($1 > 2.2e-6 && $1 < 3.5e-6) { exit 1 }' || { fail "bench matmul: nmse is not that of bf16"; cat bench.json; }

# What cannot be written is said, once, by every command; only a reader that has seen enough is none of its business.
short="--shape 64x64 --type f32 --seconds 0.001"
while read -r arguments; do
  # shellcheck disable=SC2086
  "$mlxn" $arguments < /dev/null >&- 2> err
  code=$?
  [ $code = 1 ] && [ "$(grep -c '^mlxn: cannot write to stdout: ' err)" = 1 ] || { fail "$arguments with a closed stdout: exit code $code"; cat err; }
  if [ -e /dev/full ]; then
    # shellcheck disable=SC2086
    "$mlxn" $arguments < /dev/null > /dev/full 2> err
    code=$?
    [ $code = 1 ] && [ "$(grep -c '^mlxn: cannot write to stdout: No space left on device$' err)" = 1 ] || { fail "$arguments on a full disk: exit code $code"; cat err; }
  fi
done <<END
--help
--version
generate --help
generate -m $model -p hi -n 5
chat -m $model --template chatml -p hi -n 5
inspect -m $model
inspect -m $model --json
tokenize -m $model -p hi
tokenize -m $model -p hi --json
devices
perplexity -m $model -f $text -c 128 --chunks 1
synth --like tiny -o full.gguf
synth --like tiny -o full.gguf --json
bench --explain
bench matmul $short
bench matmul $short --json
bench matmul $short --explain
bench model -m tiny.gguf -p 1 -n 0 -r 1
END
{ "$mlxn" generate -m "$model" -p hi -n 500 --temp 0 2> err; echo $? > code; } | head -c 1 > first
[ "$(cat code)" = 1 ] && [ ! -s err ] || { fail "a pipe that nobody reads: exit code $(cat code)"; cat err; }

if [ -e /dev/full ]; then
  "$mlxn" tokenize -m "$model" -p "To be, or not to be" --ids --stats > full 2> /dev/full || fail "tokenize --stats, nowhere to print them: exit code $?"
  cmp -s ids full || fail "tokenize --stats, nowhere to print them: other ids"
  "$mlxn" generate -m "$model" -p a -n 4 --stats > full 2> /dev/full || fail "generate --stats, nowhere to print them: exit code $?"
fi
exit $failed
