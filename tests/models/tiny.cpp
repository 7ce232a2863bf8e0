#include "tests/models/tiny.h"

#include <cmath>
#include <limits>

#include "mlxn/quant.h"
#include "tests/formats/gguf_builder.h"
#include "tests/support/crc32.h"

namespace mlxn::test {
namespace {

/// Element i of tensor t is (offset + h - 32768) / 2^exponent, h being the upper 16 bits of output i of SplitMix64 seeded
/// with t.
std::vector<float> tiny_data(std::size_t t, std::uint64_t count, int exponent, std::int64_t offset) {
  std::vector<float> values(count);
  std::uint64_t state = t;
  for (float& value : values) {
    state += 0x9e3779b97f4a7c15u;
    std::uint64_t z = state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    value = std::ldexp(static_cast<float>(static_cast<std::int64_t>(z >> 48) - 32768 + offset), -exponent);
  }
  return values;
}

}  // namespace

std::vector<std::byte> gguf_of(const TinyModel& model, DType type, std::uint32_t* crc) {
  testing::GgufBuilder builder;
  for (const auto& entry : model.metadata) {
    const std::string name = entry[0], kind = entry[1];
    if (kind == "string") builder.text(name, entry[2].get<std::string>());
    if (kind == "u32") builder.scalar(name, entry[2].get<std::uint32_t>());
    if (kind == "i32") builder.scalar(name, entry[2].get<std::int32_t>());
    if (kind == "f32") builder.scalar(name, entry[2].is_null() ? std::numeric_limits<float>::quiet_NaN() : entry[2].get<float>());
    if (kind == "bools") builder.array(name, entry[2].get<std::vector<bool>>());
  }
  std::vector<std::byte> all;
  for (std::size_t t = 0; t < model.tensors.size(); ++t) {
    const auto& tensor = model.tensors[t];
    const auto ne = tensor[1].get<std::vector<std::uint64_t>>();
    std::uint64_t count = 1;
    for (const std::uint64_t n : ne) count *= n;
    const std::vector<float> values = tiny_data(t, count, tensor[2], tensor[3]);
    const auto bytes = std::as_bytes(std::span(values));
    all.insert(all.end(), bytes.begin(), bytes.end());
    const DType stored = ne.size() == 2 ? type : DType::f32;
    std::string blocks(count / block_elems(stored) * block_bytes(stored), '\0');
    if (stored == DType::f32) {
      std::memcpy(blocks.data(), values.data(), blocks.size());
    } else {
      EXPECT_TRUE(quantize(stored, values, std::as_writable_bytes(std::span(blocks))));
    }
    builder.tensor(tensor[0].get<std::string>(), ne, static_cast<std::uint32_t>(info(stored).gguf_id), blocks);
  }
  if (crc != nullptr) *crc = crc32(all);
  return builder.build();
}

}  // namespace mlxn::test
