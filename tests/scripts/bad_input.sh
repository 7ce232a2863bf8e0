# The program on damaged files and senseless arguments: it says what is wrong and ends with 1 or 2; it never crashes.
set -u
mlxn=$MLXN_PROGRAM
model=$MLXN_SOURCE_DIR/data/demo/demo-q4_k.gguf
# A sanitizer's report must not look like an ordinary failure.
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}exitcode=86" UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}exitcode=86"
# Where several processes share the work, each makes those runs whose number is its own modulo theirs. Files are made by all.
shards=${MLXN_SHARDS:-1} shard=${MLXN_SHARD:-0}
failed=0 runs=0 number_of_run=0

# expect "CODES" COMMAND...: the exit code must be one of them; with another than 0, stderr must say why in one line.
expect() {
  number_of_run=$((number_of_run + 1))
  if [ $((number_of_run % shards)) = "$shard" ]; then always_expect "$@"; fi
}
always_expect() {
  local codes=$1 code
  shift
  "$@" > "$TMPDIR/out" 2> "$TMPDIR/err" < /dev/null
  code=$?
  runs=$((runs + 1))
  case " $codes " in
    *" $code "*) if [ $code = 0 ] || [ "$(wc -l < "$TMPDIR/err")" = 1 ]; then return 0; fi ;;
  esac
  echo "bad_input: exit code $code and $(wc -l < "$TMPDIR/err") lines, wanted $codes${case:+, $case}: $*"
  tail -n 20 "$TMPDIR/err"
  failed=1
}

case="arguments"
expect 2 "$mlxn"
expect 2 "$mlxn" nonsense
expect 2 "$mlxn" generate
expect 2 "$mlxn" generate -m "$model" --no-such-flag
expect 2 "$mlxn" generate -m "$model" -n many
expect "1 2" "$mlxn" generate -m "$model" -n -7
expect 2 "$mlxn" generate -m "$model" -p a -n -5
expect 2 "$mlxn" generate -m "$model" -p a -n 99999999999999999999
expect 2 "$mlxn" generate -m "$model" -p a -c -3
expect 2 "$mlxn" generate -m "$model" -p a -n 1 -t 100000
expect 1 "$mlxn" generate -m "$model" -p "a prompt that is longer than its context" -n 1 -c 4
expect 2 "$mlxn" generate -m "$model" -p a --foo
expect 2 "$mlxn" perplexity -m "$model"
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" -c 3
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" -c 99999999999999999999
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" --chunks 0
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" -b 0
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" --kv-type q8_0
expect "1 2" "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" -c 1000000
expect 1 "$mlxn" perplexity -m "$model" -f "$TMPDIR/absent.txt"
expect 1 "$mlxn" perplexity -m "$TMPDIR/absent.gguf" -f "$MLXN_SOURCE_DIR/LICENSE"
expect "1 2" "$mlxn" perplexity -m "$model" -f /dev/null
expect 2 "$mlxn" bench foo
expect 2 "$mlxn" bench matmul --type q9_9
expect 2 "$mlxn" bench matmul --type q4_K --shape 256x100
expect 2 "$mlxn" bench matmul --shape 9223372036854775807x256
expect 2 "$mlxn" bench matmul --x f64
expect 2 "$mlxn" bench matmul --y q4_0
expect 2 "$mlxn" bench matmul --early-starts maybe
expect 2 "$mlxn" bench matmul --device cpu --precision bf16 --type bf16 --shape 64x64 --seconds 0.01
expect 2 "$mlxn" bench matmul --device cpu --precision bf16 --explain
expect 2 "$mlxn" bench model -m "$model" --device cpu --precision bf16
expect 2 "$mlxn" chat -m "$model" --template chatml -p a --device cpu --precision bf16
expect 2 "$mlxn" perplexity -m "$model" -f "$MLXN_SOURCE_DIR/LICENSE" -c 16 --device cpu --precision bf16
expect 2 "$mlxn" bench
expect 2 "$mlxn" bench matmul --explain --type q9_9
expect 2 "$mlxn" bench model
expect 2 "$mlxn" bench model -m "$model" -p 0 -n 0
expect 2 "$mlxn" bench model -m "$model" -p -3
expect 2 "$mlxn" bench model -m "$model" -p 99999999999
expect 2 "$mlxn" bench model -m "$model" -n 4,x
expect 2 "$mlxn" bench model -m "$model" -d -1
expect 2 "$mlxn" bench model -m "$model" -r 0
expect 2 "$mlxn" bench model -m "$model" -b 0
expect 2 "$mlxn" bench model -m "$model" -o xml
expect 2 "$mlxn" bench model -m "$model" -o md --json
expect 2 "$mlxn" bench model -m "$model" -t 100000
expect 2 "$mlxn" bench model -m "$model" --precision vague
expect 2 "$mlxn" bench model -m "$model" --kv-type q4_0
expect 1 "$mlxn" bench model -m "$TMPDIR/absent.gguf"
expect 1 "$mlxn" bench model -m "$model" -d 1000000000
expect 2 "$mlxn" tokenize -m "$model" -p a --ids --json
expect 2 "$mlxn" synth --like tiny
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf"
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like llama9
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --arch abacus
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --arch llama --layers 2
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --type q9_9
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --type iq2_xs
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --layers -1
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --layers 99999999999999999999
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --heads 3
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --vocab 10
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --vocabulary runes
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --tied --untied
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --rope-base nan
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny -t -3
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --seed -1
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --window -1
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --split-max-tensors -1
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --split-max-size 1X
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --split-max-size 99999999999999999999G
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --split-max-size 1000
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --split-max-size 30000
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --ffn 300
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --ffn 33
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --embedding 128 --heads 2 --type q4_K
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --heads 3 --head-dim 64 --type q4_K
expect 2 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --type affine4_g64
expect 2 "$mlxn" quantize --help
expect 2 "$mlxn" help quantize
expect 2 "$mlxn" bench foo --help
expect 2 "$mlxn" generate -m "$model" -p a -n 1 -ngl 99
expect 1 "$mlxn" synth -o "$TMPDIR/s.gguf" --like tiny --type f32 --layers 1024 --embedding 524288 --ffn 524288
expect 1 "$mlxn" synth -o "$TMPDIR/absent/s.gguf" --like tiny
expect 1 "$mlxn" synth -o "$TMPDIR" --like tiny
expect 1 "$mlxn" synth -o /dev/null --like tiny
ls "$TMPDIR" | grep -q '^s\.gguf' && { echo "bad_input: synth leaves files behind: $(ls "$TMPDIR")"; failed=1; }
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 -t 1000000
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 --temp nan
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 --top-p 2
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 --repeat-penalty 0
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 --device abacus
expect 2 "$mlxn" generate -m "$model" -p a -n 1 --device cuda:banana
expect 1 "$mlxn" generate -m "$model" -p a -n 1 --device cuda:1
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 --precision vague
expect "1 2" "$mlxn" generate -m "$model" -p a -n 1 -c 99999999999
expect 1 "$mlxn" generate -m "$TMPDIR/absent.gguf" -p a -n 1
expect 1 "$mlxn" generate -m "$TMPDIR" -p a -n 1
expect 1 "$mlxn" generate -m "$MLXN_SOURCE_DIR/LICENSE" -p a -n 1
expect 1 "$mlxn" generate -m "$model" -f "$TMPDIR/absent.txt" -n 1
expect 1 "$mlxn" generate -m /dev/null -p a -n 1

expect 1 "$mlxn" chat -m "$model" -p a
expect 2 "$mlxn" chat -m "$model" -p a --template nonsense
expect 2 "$mlxn" chat -m "$model" -p a --template chatml -n -5
expect 1 "$mlxn" chat -m "$model" --template llama2 -c 8 -p "a message that is longer than the context"

size=$(wc -c < "$model")
bad=$TMPDIR/bad.gguf
# Cut short: in the header, in the tables, in the data, and by one byte.
for keep in 0 1 4 8 12 20 24 25 40 100 500 3000 20000 40000 50000 70000 $((size / 2)) $((size - 1000)) $((size - 1)); do
  head -c "$keep" "$model" > "$bad"
  case="cut at $keep"
  expect 1 "$mlxn" inspect -m "$bad"
  expect 1 "$mlxn" generate -m "$bad" -p a -n 1
done

# Bytes of the header changed. The numbers come from a fixed linear congruence, so that every run sees the same files.
state=12345
random() {  # random LIMIT: sets `number`
  state=$(((state * 1103515245 + 12345) % 2147483648))
  number=$((state / 64 % $1))
}
poke() { printf "$(printf '\\%03o' "$2")" | dd of="$bad" bs=1 seek="$1" conv=notrunc 2> /dev/null; }
for round in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
  cp "$model" "$bad"
  case="round $round:"
  for _ in 1 2 3; do
    if [ $((round % 3)) = 0 ]; then random 60000; elif [ $((round % 3)) = 1 ]; then random 700; else random 64; fi
    offset=$number
    random 256
    case="$case byte $offset = $number"
    poke "$offset" "$number"
  done
  expect "0 1" "$mlxn" inspect -m "$bad"
  expect "0 1" "$mlxn" tokenize -m "$bad" -p "To be, or not"
  expect "0 1" "$mlxn" generate -m "$bad" -p "To be" -n 2
done

# The same for a file of every other family.
for arch in qwen2 qwen3 gemma2 gemma3 phi3; do
  case="$arch"
  always_expect 0 "$mlxn" synth -o "$TMPDIR/family.gguf" --arch "$arch" --layers 1 --embedding 256 --heads 4 --kv-heads 2 --head-dim 64 \
    --ffn 512 --vocab 600 --context 64 --type q8_0
  expect 0 "$mlxn" generate -m "$TMPDIR/family.gguf" -p "the people" -n 2
  for round in 1 2 3 4 5 6 7 8; do
    cp "$TMPDIR/family.gguf" "$bad"
    case="$arch, round $round:"
    for _ in 1 2; do
      random 1200
      offset=$number
      random 256
      case="$case byte $offset = $number"
      poke "$offset" "$number"
    done
    expect "0 1" "$mlxn" generate -m "$bad" -p "To be" -n 2
  done
done
echo "bad_input: $runs of $number_of_run runs"
exit $failed
