#include "mlxn/tensor.h"

#include <bitset>
#include <cstdint>
#include <unordered_set>

#include "gtest/gtest.h"
#include "mlxn/encoder.h"
#include "tests/support/must.h"
#include "tests/support/random.h"

namespace mlxn::tensor_suite {
namespace {

using test::fails_with;
using test::must;

Device cpu() {
  DeviceOptions options;
  options.threads = 2;
  return must(Device::open("cpu", options));
}

Tensor counting(const Device& device, const Shape& shape) {
  const Tensor t = must(device.allocate(DType::i32, shape));
  const auto data = must(t.write<std::int32_t>());
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::int32_t>(i);
  return t;
}

TEST(Views, NestRelativeToTheReceiver) {
  const Tensor t = counting(cpu(), {8, 4});
  const Tensor middle = must(t.slice(0, 2, 6));
  const Tensor inner = must(middle.slice(0, 1, 3));
  EXPECT_EQ(inner.byte_offset(), 3u * 16);
  EXPECT_EQ(inner.bytes(), 32u);
  EXPECT_EQ(inner.elems(), 8);
  const auto data = must(inner.read<std::int32_t>());
  EXPECT_EQ(data.size(), 8u);
  EXPECT_EQ(data[0], 12);
  EXPECT_EQ(data[7], 19);
  const Tensor again = must(must(inner.reshape({8})).reinterpret(DType::u8, {4}, 4));
  EXPECT_EQ(again.byte_offset(), 3u * 16 + 4);
  EXPECT_EQ(must(again.read<std::uint8_t>())[0], 13);
}

TEST(Views, EndWhereTheReceiverEnds) {
  const Tensor t = counting(cpu(), {8, 4});
  const Tensor half = must(t.slice(0, 0, 4));
  EXPECT_TRUE(fails_with(half.slice(0, 0, 5), ErrorCode::out_of_range, {"5", "4"}));
  EXPECT_TRUE(fails_with(half.slice(0, -1, 2), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(half.slice(0, 3, 2), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(half.slice(2, 0, 1), ErrorCode::out_of_range, {"axis 2"}));
  EXPECT_TRUE(fails_with(half.reinterpret(DType::i32, {17}), ErrorCode::out_of_range, {"68", "64"}));
  EXPECT_TRUE(fails_with(half.reinterpret(DType::i32, {16}, 4), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(half.reinterpret(DType::u8, {1}, ~std::uint64_t{0}), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(half.reinterpret(DType::u8, {1}, ~std::uint64_t{0} - 100), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(half.reinterpret(static_cast<DType>(200), {32}), ErrorCode::bad_dtype, {"reinterpret", "dtype 200 is none"}));
  EXPECT_TRUE(fails_with(Tensor::make(t.allocation(), static_cast<DType>(200), {32}), ErrorCode::bad_dtype, {"dtype 200 is none"}));
  EXPECT_TRUE(fails_with(half.reshape({32}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(half.reshape({std::int64_t{1} << 40, std::int64_t{1} << 40}), ErrorCode::bad_shape, {}));
}

TEST(Views, OfAnEmptyTensorThereAreNone) {
  const Tensor none;
  EXPECT_TRUE(fails_with(none.slice(0, 0, 1), ErrorCode::invalid_argument, {"slice: empty tensor"}));
  EXPECT_TRUE(fails_with(none.reshape({1}), ErrorCode::invalid_argument, {"reshape: empty tensor"}));
  EXPECT_TRUE(fails_with(none.permute({0}), ErrorCode::invalid_argument, {"permute: empty tensor"}));
  EXPECT_TRUE(fails_with(none.reinterpret(DType::f32, {1}), ErrorCode::invalid_argument, {"reinterpret: empty tensor"}));
  EXPECT_TRUE(fails_with(none.read<float>(), ErrorCode::invalid_argument, {"empty tensor"}));
}

TEST(Views, ReinterpretWantsAlignedOffsets) {
  const Tensor t = counting(cpu(), {8});
  EXPECT_TRUE(fails_with(t.reinterpret(DType::f32, {1}, 2), ErrorCode::bad_shape, {"2"}));
  const Tensor odd = must(t.reinterpret(DType::u8, {20}, 1));
  EXPECT_TRUE(fails_with(odd.reinterpret(DType::u16, {4}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(odd.reinterpret(DType::q4_0, {32}));  // blocks have no alignment
  EXPECT_TRUE(fails_with(Tensor::make(t.allocation(), DType::f32, {1}, 2), ErrorCode::bad_shape, {"aligned"}));
}

TEST(Views, StridesAndBlocks) {
  const Device device = cpu();
  const Tensor t = counting(device, {2, 3, 4});
  const Tensor p = must(t.permute({1, 0, 2}));
  EXPECT_EQ(p.shape(), (Shape{3, 2, 4}));
  EXPECT_EQ(p.strides(), (Shape{4, 12, 1}));
  EXPECT_FALSE(p.is_contiguous());
  EXPECT_EQ(p.bytes(), 96u);
  EXPECT_TRUE(fails_with(p.read<std::int32_t>(), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(p.reshape({24}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(t.permute({0, 0, 1}), ErrorCode::out_of_range, {}));
  EXPECT_TRUE(fails_with(t.permute({0, 1}), ErrorCode::bad_shape, {}));
  const Tensor blocks = must(device.allocate(DType::q8_0, {4, 64}));
  EXPECT_EQ(blocks.bytes(), 4u * 68);
  EXPECT_EQ(must(blocks.slice(1, 32, 64)).byte_offset(), 34u);
  EXPECT_TRUE(fails_with(blocks.slice(1, 16, 64), ErrorCode::bad_shape, {"q8_0"}));
  EXPECT_TRUE(fails_with(blocks.permute({1, 0}), ErrorCode::bad_shape, {}));
}

/// The bytes of a view of at most 4096 bytes from `base` on.
std::bitset<4096> bytes_of(const Tensor& t, const std::byte* base) {
  std::bitset<4096> bytes;
  std::vector<std::int64_t> at(static_cast<std::size_t>(t.rank()));
  for (std::int64_t i = 0; i < t.elems(); ++i) {
    std::int64_t offset = 0;
    for (int axis = 0; axis < t.rank(); ++axis) offset += at[static_cast<std::size_t>(axis)] * t.stride(axis);
    const std::ptrdiff_t first = static_cast<const std::byte*>(t.unsafe_data()) - base + offset * block_bytes(t.dtype());
    for (std::ptrdiff_t b = 0; b < block_bytes(t.dtype()); ++b) bytes[static_cast<std::size_t>(first + b)] = true;
    for (int axis = t.rank() - 1; axis >= 0; --axis) {
      if (++at[static_cast<std::size_t>(axis)] < t.dim(axis)) break;
      at[static_cast<std::size_t>(axis)] = 0;
    }
  }
  return bytes;
}

bool share_a_byte(const Tensor& a, const Tensor& b, const std::byte* base) {
  return (bytes_of(a, base) & bytes_of(b, base)).any();
}

TEST(Overlap, IsExactForRowsColumnsAndHeadsOfOneBuffer) {
  const Device device = cpu();
  const Tensor buffer = must(device.allocate(DType::f32, {6, 5, 4}));  // rows of five heads
  const auto* base = static_cast<const std::byte*>(buffer.unsafe_data());
  std::vector<Tensor> views;
  for (std::int64_t row = 0; row < 6; row += 2) {
    for (std::int64_t rows = 1; row + rows <= 6; ++rows) {
      for (std::int64_t head = 0; head < 5; ++head) {
        for (std::int64_t heads = 1; head + heads <= 5; ++heads) {
          const Tensor some = must(must(buffer.slice(0, row, row + rows)).slice(1, head, head + heads));
          views.push_back(some);
          views.push_back(must(some.permute({1, 0, 2})));
        }
      }
    }
  }
  const Tensor flat = must(buffer.reshape({6, 20}));
  for (std::int64_t column = 0; column < 20; column += 3) {
    for (std::int64_t columns = 1; column + columns <= 20; columns += 4) views.push_back(must(flat.slice(1, column, column + columns)));
  }
  std::vector<std::bitset<4096>> bytes;
  for (const Tensor& view : views) bytes.push_back(bytes_of(view, base));
  std::size_t apart = 0, nested = 0;
  for (std::size_t i = 0; i < views.size(); ++i) {
    for (std::size_t j = 0; j < views.size(); ++j) {
      const Tensor &a = views[i], &b = views[j];
      const bool wanted = (bytes[i] & bytes[j]).any();
      ASSERT_EQ(a.overlaps(b), wanted) << a.byte_offset() << " " << b.byte_offset();
      apart += !wanted;
      nested += !wanted && a.byte_offset() < b.byte_offset() && b.byte_offset() < a.byte_offset() + a.bytes();
    }
  }
  EXPECT_GT(nested, 1000u) << "of " << apart << " pairs, too few lie in each other's gaps";
}

TEST(Overlap, IsNeverMissedWhateverTheStrides) {
  const Device device = cpu();
  const Tensor buffer = must(device.allocate(DType::u8, {4096}));
  const auto* base = static_cast<const std::byte*>(buffer.unsafe_data());
  test::Random random(20261124);
  SCOPED_TRACE(random.trace());
  const auto draw = [&] {
    for (;;) {
      Shape shape, strides;
      const DType type = random.below(2) == 0 ? DType::u8 : DType::i32;
      switch (random.below(3)) {
        case 0: shape = {0}, strides = {0}; break;
        case 1: shape = {0, 0}, strides = {0, 0}; break;
        default: shape = {0, 0, 0}, strides = {0, 0, 0};
      }
      for (int i = 0; i < shape.rank(); ++i) {
        shape[i] = static_cast<std::int64_t>(1 + random.below(6));
        strides[i] = static_cast<std::int64_t>(random.below(40));
      }
      const auto view = Tensor::make(buffer.allocation(), type, shape, 4 * random.below(60), strides);
      if (view) return *view;
    }
  };
  int met = 0, said = 0;
  for (int round = 0; round < 20'000; ++round) {
    const Tensor a = draw(), b = draw();
    const bool truth = share_a_byte(a, b, base);
    ASSERT_GE(a.overlaps(b), truth);
    ASSERT_EQ(a.overlaps(b), b.overlaps(a));
    met += truth;
    said += a.overlaps(b);
  }
  EXPECT_GT(met, 1000);
  EXPECT_LT(said, 20'000);
}

TEST(Overlap, CountsBlocksAsTheyLie) {
  const Tensor blocks = must(cpu().allocate(DType::q8_0, {4, 96}));
  const Tensor left = must(blocks.slice(1, 0, 32)), middle = must(blocks.slice(1, 32, 64)), right = must(blocks.slice(1, 32, 96));
  EXPECT_FALSE(left.overlaps(middle));
  EXPECT_FALSE(right.overlaps(left));
  EXPECT_TRUE(right.overlaps(middle));
  EXPECT_TRUE(left.overlaps(must(blocks.slice(0, 3, 4))));
}

TEST(Views, WithoutElementsTouchNothing) {
  const Device device = cpu();
  const Tensor t = counting(device, {4, 4});
  const Tensor none = must(t.slice(0, 4, 4));
  EXPECT_EQ(none.bytes(), 0u);
  EXPECT_FALSE(none.overlaps(t));
  EXPECT_EQ(must(none.read<std::int32_t>()).size(), 0u);
  const Tensor empty = must(Tensor::make(nullptr, DType::f32, {0, 16}));
  EXPECT_EQ(empty.elems(), 0);
  EXPECT_TRUE(empty.is_contiguous());
  EXPECT_FALSE(empty.device().defined());
  constexpr std::int64_t big = std::int64_t{1} << 40;
  EXPECT_TRUE(fails_with(Tensor::make(nullptr, DType::f32, {0, big, big}), ErrorCode::bad_shape, {}));
  EXPECT_TRUE(fails_with(Tensor::make(nullptr, DType::f32, {1}), ErrorCode::invalid_argument, {}));
  CommandEncoder encoder = must(device.encoder());
  must(encoder.fill(none, std::byte{1}));
  must(encoder.copy(empty, empty));
  must(encoder.upload(none, {}));
  must(encoder.download({}, none));
  must(encoder.commit_and_wait());
  EXPECT_EQ(must(t.read<std::int32_t>())[15], 15);
}

TEST(Mappings, AreTypedByTheDtype) {
  const Tensor t = counting(cpu(), {4});
  EXPECT_TRUE(fails_with(t.read<float>(), ErrorCode::bad_dtype, {"i32", "f32"}));
  EXPECT_TRUE(fails_with(t.read<std::int8_t>(), ErrorCode::bad_dtype, {}));
  EXPECT_EQ(must(t.read<std::byte>()).size(), 16u);
  EXPECT_TRUE(fails_with(Tensor().read<std::byte>(), ErrorCode::invalid_argument, {}));
}

TEST(Mappings, WaitForWorkThatTouchesTheMemory) {
  const Device device = cpu();
  const Tensor t = must(device.allocate(DType::u8, {1 << 20}));
  for (int i = 1; i <= 100; ++i) {
    CommandEncoder encoder = must(device.encoder());
    must(encoder.fill(t, static_cast<std::byte>(i)));
    const Submission submission = must(encoder.commit());
    const auto data = must(t.read<std::uint8_t>());
    ASSERT_EQ(data[0], i);
    ASSERT_EQ(data[data.size() - 1], i);
  }
}

TEST(Mappings, KeepTheMemoryAlive) {
  Mapping<std::int32_t> mapping;
  {
    const Tensor t = counting(cpu(), {4});
    mapping = must(t.write<std::int32_t>());
  }
  EXPECT_EQ(mapping[3], 3);
}

#ifndef NDEBUG
TEST(Mappings, OverlappingWritesAreFoundInDebugBuilds) {
  const Tensor t = counting(cpu(), {8});
  const auto first = must(must(t.slice(0, 0, 4)).write<std::int32_t>());
  EXPECT_TRUE(fails_with(must(t.slice(0, 3, 5)).write<std::int32_t>(), ErrorCode::wrong_state, {}));
  EXPECT_TRUE(must(t.slice(0, 4, 8)).write<std::int32_t>());
}
#endif

TEST(DType, CanBeHashed) {
  std::unordered_set<DType> set = {DType::f32, DType::q4_0, DType::f32};
  EXPECT_EQ(set.size(), 2u);
}

}  // namespace
}  // namespace mlxn::tensor_suite
