// The same failures by the device's own limit, which no allocator can show: bytes_in_use returns to what it was.

#include "gtest/gtest.h"
#include "mlxn/device.h"
#include "mlxn/encoder.h"
#include "mlxn/weight.h"
#include "tests/support/must.h"

namespace mlxn::counters_suite {
namespace {

using test::must;

TEST(MemoryLimit, LeavesNothingBehindWhereItStopsACall) {
  DeviceOptions options;
  options.threads = 2;
  options.memory_limit_bytes = 100000;
  const Device device = must(Device::open("cpu", options));
  const Tensor raw = must(device.allocate(DType::q4_0, {600, 256}));
  const std::uint64_t used = device.counters().bytes_in_use;
  PrepareOptions prepare;
  prepare.mode = PrepareMode::on;
  EXPECT_TRUE(test::fails_with(Weight::prepare(device, raw, prepare), ErrorCode::out_of_memory, {}));
  EXPECT_EQ(device.counters().bytes_in_use, used);
  CommandEncoder encoder = must(device.encoder());
  const std::vector<std::byte> bytes(600 * 144);
  EXPECT_TRUE(test::fails_with(encoder.upload(must(raw.reinterpret(DType::u8, {600 * 144})), bytes), ErrorCode::out_of_memory, {}));
  EXPECT_EQ(device.counters().bytes_in_use, used);
  must(encoder.fill(must(raw.reinterpret(DType::u8, {600 * 144})), std::byte{1}));
  must(encoder.commit_and_wait());
}

}  // namespace
}  // namespace mlxn::counters_suite
