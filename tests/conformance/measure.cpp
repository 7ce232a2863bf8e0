// The work that ceilings are measured with: that it is done, on every device; how fast is no matter here.
#include "ops/measure/measure.h"

#include "graph/ceilings.h"
#include "gtest/gtest.h"
#include "tests/conformance/variants.h"

namespace mlxn::test::measure_suite {
namespace {

// Less than one tile of a group, tiles and a part of one, and more tiles than a device has groups.
TEST(Measure, a_gpu_reads_every_byte) {
  Random random(1);
  SCOPED_TRACE(random.trace());
  for (const Variant& v : families()) {
    if (v.family == "cpu") continue;
    SCOPED_TRACE(v.name);
    const Tensor sink = must(v.device.allocate(DType::u32, {ops::measure_sink_words(v.device)}));
    std::uint32_t wanted = 0;
    for (const std::size_t words : {128u, 8192u + 3 * 128u, 100u * 8192u + 128u}) {
      std::vector<std::uint32_t> data(words);
      for (std::uint32_t& word : data) wanted += word = static_cast<std::uint32_t>(random.below(std::uint64_t{1} << 32));
      const Tensor tensor = must(v.device.allocate(DType::u8, {static_cast<std::int64_t>(words * 4)}));
      must(v.device.upload(tensor, std::as_bytes(std::span(data))));
      must(run(v.device, [&](CommandEncoder& encoder) -> Result<void> {
        MLXN_CHECK(ops::encode_measure_empty(encoder, sink));
        MLXN_CHECK(ops::encode_measure_arithmetic(encoder, ops::Arithmetic::f32, 2, sink));
        return ops::encode_measure_read(encoder, tensor, sink);
      }));
      std::vector<std::uint32_t> got(static_cast<std::size_t>(sink.elems()));
      must(v.device.download(std::as_writable_bytes(std::span(got)), sink));
      EXPECT_EQ(got[0], wanted) << words;
    }
    const Tensor odd = must(v.device.allocate(DType::u8, {513}));
    CommandEncoder encoder = must(v.device.encoder());
    EXPECT_TRUE(fails_with(ops::encode_measure_read(encoder, odd, sink), ErrorCode::bad_shape, {"513"}));
  }
}

TEST(Measure, ceilings_and_costs_of_every_device) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    const Ceilings c = must(measure_ceilings(v.device, {.read_bytes = 1 << 16, .rounds = 2}));
    EXPECT_EQ(c.read_bytes, std::uint64_t{1} << 16);
    EXPECT_GT(c.read_gbps, 0);
    EXPECT_GT(c.f32_gflops, 0);
    EXPECT_EQ(c.copy_gbps > 0, v.family != "cpu");
    if (v.device.capabilities().backend == "simt") continue;  // a thousand launches, fifty times
    const DispatchCosts d = must(measure_dispatch(v.device));
    EXPECT_GT(d.record_us, 0);
    EXPECT_GT(d.replay_us, 0);
    EXPECT_GT(d.replay_and_wait_us, 0);
    EXPECT_EQ(d.launch_us > 0, v.family != "cpu");
  }
  for (const Variant& v : families()) EXPECT_TRUE(fails_with(ReadProbe::make(v.device, 100), ErrorCode::invalid_argument, {"100"}));
}

}  // namespace
}  // namespace mlxn::test::measure_suite
