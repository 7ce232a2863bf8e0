#!/usr/bin/env bash
# The program that fits the planner's table (bench/hopper/tile_rates.py) finds rates again that launches were made up from, chooses the
# fastest of them, and changes the lines of no other type.
set -u
command -v python3 > /dev/null 2>&1 || { echo "tile_rates: no python3 here"; exit 77; }
failed=0
fail() { echo "tile_rates: $*"; failed=1; }
cd "$TMPDIR" || exit 1
program=$MLXN_SOURCE_DIR/bench/hopper/tile_rates.py
cp "$MLXN_SOURCE_DIR/src/ops/matmul/hopper_tile_rates.inc" before.inc || exit 1

# Two kernels of a type and one of dense weights in 132 multiprocessors, each time wrong by up to 1 %. Those of dense weights wait for
# memory unless few of them run. What the kernels are made from is in `true`.
cat > made_up.py <<'E2'
import json, random
random.seed(1)
true = {("q4_K", 2): [400, 30, 60, 3200, 700, 200, 90], ("q4_K", 4): [560, 110, 0, 5300, 1500, 580, 150], ("f16", 2): [480, 40, 100, 2000, 800, 190, 60]}
tokens = {2: 32, 4: 128}
print(json.dumps({"device": "a device", "multiprocessors": 132, "cuda": "13.0", "date": "2026-11-30"}))
for (name, kind), r in true.items():
    for n, k in ((4096, 14336), (14336, 4096), (2048, 4096)):
        for m in (16, 32, 64, 128, 256):
            for parts in range(1, 9):
                tiles = -(-m // tokens[kind])
                blocks = n // 128 * tiles * parts
                waves = -(-blocks // 132)
                if (parts > 1 and waves > 2) or (tokens[kind] < 128 and tiles > 2):
                    continue
                steps = waves * -(-(k // 128) // parts)
                busy = blocks / waves
                read = n * k * (2 if name == "f16" else 0.5625) * min(waves, tiles)
                read_us = 1e-3 * read / min(50 * busy, 4400)
                filled, beside, splits = steps * busy / 132, steps if tiles > 1 else 0, parts if parts > 1 else 0
                us = max(1e-3 * (steps * r[0] + filled * r[1] + beside * r[2]), read_us) + 1e-3 * waves * r[3]
                alone = 0 if splits == 2 or (splits % 2 == 0 and tokens[kind] >= 64) else splits
                us += 1e-3 * (r[4] + r[5] * splits + r[6] * alone) if splits else 0
                print(json.dumps({"type": name, "kind": kind, "n": n, "k": k, "m": m, "parts": parts, "us": us * random.uniform(0.99, 1.01),
                                  "steps": steps, "filled": filled, "beside": beside, "waves": waves, "splits": splits, "alone": alone, "bytes": read, "busy": busy}))
E2
python3 made_up.py > tune.txt || exit 1
echo "ALL OK" >> tune.txt # as tile_check ends

cp before.inc table.inc
python3 "$program" --table table.inc tune.txt > said || fail "exit code $?"
grep -q '^all  *mean 1\.00[0-9]* worst 1\.0[0-2]' said || { fail "another launch than the fastest is chosen"; cat said; }
grep -q 'table.inc: 3 of ' said || fail "it does not say how many kernels were measured"
head -n 3 table.inc | grep -q 'on a device (132 multiprocessors), CUDA 13.0, 2026-11-30: only q4_K, f16\.' || fail "the table does not say where and when"
rows='RATES(\(q4_K, [24]\|f16, 2\), '
grep -v "^//\|READS\|$rows" before.inc > others.before
grep -v "^//\|READS\|$rows" table.inc > others.after
cmp -s others.before others.after || fail "lines of other kernels have changed"
# Few launches tell the reads: what they lead to has to be right, below.
grep -q '^MLXN_TILE_READS(4[0-6]00, [0-9]*)$' table.inc || fail "reads of $(grep READS table.inc), made up were 4400 and 50"
# Steps within 3 %, of those that are not hidden by reading.
for wanted in "TILE_RATES(q4_K, 2, 400" "TILE_RATES(q4_K, 4, 560"; do
  got=$(grep "${wanted% *} " table.inc | sed 's/.*RATES(q4_K, [0-9], \([0-9]*\),.*/\1/')
  step=${wanted##* }
  [ $((got * 100)) -ge $((step * 97)) ] && [ $((got * 100)) -le $((step * 103)) ] || fail "a step of $got ns, made up were $step"
done
# --keep only looks, and sees the same.
cp table.inc kept.inc
python3 "$program" --keep --table kept.inc tune.txt > kept || fail "--keep: exit code $?"
cmp -s kept.inc table.inc || fail "--keep has rewritten the table"
[ "$(grep '^all ' kept)" = "$(grep '^all ' said)" ] || fail "--keep says something else of the same table"

echo 'nothing' > empty.txt
python3 "$program" --table table.inc empty.txt > /dev/null 2> err && fail "a file without launches passes"
grep -q 'no launches' err || fail "a file without launches: $(cat err)"
cmp -s kept.inc table.inc || fail "a file without launches has changed the table"
exit $failed
