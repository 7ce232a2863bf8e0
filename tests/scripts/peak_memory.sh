# A model of 1 GiB runs in the memory of one copy of it: file, KV cache and 64 MiB, however the weights are laid out.
set -u
mlxn=$MLXN_PROGRAM
failed=0
cd "$TMPDIR" || exit 1
available=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo 2> /dev/null)
if [ -z "$available" ] || [ "$available" -lt 3000000 ] || [ "$(df -Pk . | awk 'NR == 2 { print $4 }')" -lt 1500000 ]; then
  echo "peak_memory: too little memory or disk"
  exit 77
fi

"$mlxn" synth --arch llama --layers 23 --embedding 2048 --heads 32 --kv-heads 4 --ffn 5632 --vocab 2048 --context 2048 --type q8_0 \
  -o model.gguf > synth 2> err || { echo "peak_memory: synth ends with $?"; cat err; exit 1; }
file=$(wc -c < model.gguf)
kv=$((23 * 2 * 4 * 64 * 2048 * 2))
for prepare in auto off; do
  "$mlxn" generate -m model.gguf -p "the people" -n 16 -c 2048 --prepare $prepare --ignore-eos --stats > text 2> err ||
    { echo "peak_memory: generate --prepare $prepare ends with $?"; cat err; failed=1; continue; }
  peak=$(sed -n 's/^peak resident memory \([0-9]*\) bytes$/\1/p' err)
  echo "peak_memory: --prepare $prepare: $peak bytes for a file of $file and a cache of $kv"
  if [ "$peak" -gt $((file + kv + 64 * 1024 * 1024)) ]; then echo "peak_memory: more than file, cache and 64 MiB"; failed=1; fi
  # Less would mean that it is not measured.
  if [ "$peak" -lt $((file * 9 / 10)) ]; then echo "peak_memory: less than the file"; failed=1; fi
done
exit $failed
