#include "mlxn/ops/set_element.h"

#include <cstring>

#include "mlxn/graph.h"
#include "tests/conformance/variants.h"

namespace mlxn::test::set_element_suite {
namespace {

std::vector<std::uint32_t> words(const Guarded& guarded) {
  const std::vector<std::byte> bytes = guarded.read_bytes();
  std::vector<std::uint32_t> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}
constexpr std::uint32_t kUntouched = 0xffffffffu;  // as Guarded leaves it

TEST(SetElement, touches_one_element) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    for (const DType type : {DType::u32, DType::i32}) {
      for (const std::int64_t n : {1, 2, 33}) {
        for (const std::int64_t at : {std::int64_t{0}, n / 2, n - 1}) {
          Guarded y(v.device, type, {n}, {0, 4});
          must(run(v.device, [&](CommandEncoder& e) { return set_element(e, y.tensor(), at, 70000); }));
          EXPECT_TRUE(y.intact());
          std::vector<std::uint32_t> wanted(static_cast<std::size_t>(n), kUntouched);
          wanted[static_cast<std::size_t>(at)] = 70000;
          EXPECT_EQ(words(y), wanted);
        }
      }
    }
  }
}

TEST(SetElement, numbers_of_both_types) {
  for (const Variant& v : families()) {
    Guarded u(v.device, DType::u32, {2}), i(v.device, DType::i32, {2});
    must(run(v.device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_CHECK(set_element(e, u.tensor(), 0, 0));
      MLXN_CHECK(set_element(e, u.tensor(), 1, 0xfffffffeu));
      MLXN_CHECK(set_element(e, i.tensor(), 0, -2));
      return set_element(e, i.tensor(), 1, 0x7fffffff);
    }));
    EXPECT_EQ(words(u), (std::vector<std::uint32_t>{0, 0xfffffffeu})) << v.name;
    EXPECT_EQ(words(i), (std::vector<std::uint32_t>{0xfffffffeu, 0x7fffffffu})) << v.name;
  }
}

TEST(SetElement, numbers_of_a_graph) {
  for (const Variant& v : families()) {
    SCOPED_TRACE(v.name);
    Guarded y(v.device, DType::u32, {4});
    Graph graph = must(Graph::record(v.device, [&](CommandEncoder& e) -> Result<void> {
      MLXN_TRY(const auto index, e.parameter("index", 1));
      MLXN_TRY(const auto value, e.parameter("value", 5));
      return set_element(e, y.tensor(), index, value);
    }));
    must(graph.replay_and_wait());
    must(graph.set("index", 3));
    must(graph.set("value", 9));
    must(graph.replay_and_wait());
    EXPECT_EQ(words(y), (std::vector<std::uint32_t>{kUntouched, 5, kUntouched, 9}));
    EXPECT_TRUE(fails_with(graph.set("index", 4), ErrorCode::out_of_range, {"index", "4", "0 to 3"}));
    EXPECT_TRUE(fails_with(graph.set("value", -1), ErrorCode::out_of_range, {"value", "-1"}));
  }
}

TEST(SetElement, errors) {
  const Device& device = cpu(2);
  const Tensor y = must(device.allocate(DType::u32, {4}));
  const auto attempt = [&](const Tensor& out, std::int64_t index, std::int64_t value) {
    CommandEncoder encoder = must(device.encoder());
    return set_element(encoder, out, index, value);
  };
  EXPECT_TRUE(attempt(y, 3, 1).has_value());
  EXPECT_TRUE(fails_with(attempt({}, 0, 1), ErrorCode::invalid_argument, {"set_element", "y"}));
  EXPECT_TRUE(fails_with(attempt(must(device.allocate(DType::f32, {4})), 0, 1), ErrorCode::bad_dtype, {"set_element", "y", "f32"}));
  EXPECT_TRUE(fails_with(attempt(must(y.reshape({2, 2})), 0, 1), ErrorCode::bad_shape, {"set_element", "[2, 2]"}));
  EXPECT_TRUE(fails_with(attempt(must(y.slice(0, 0, 0)), 0, 1), ErrorCode::bad_shape, {"set_element", "[0]"}));
  EXPECT_TRUE(fails_with(attempt(y, 4, 1), ErrorCode::out_of_range, {"set_element", "index", "4", "0 to 3"}));
  EXPECT_TRUE(fails_with(attempt(y, -1, 1), ErrorCode::out_of_range, {"set_element", "index", "-1"}));
  EXPECT_TRUE(fails_with(attempt(y, 0, -1), ErrorCode::out_of_range, {"set_element", "value", "-1"}));
  EXPECT_TRUE(fails_with(attempt(must(cpu(1).allocate(DType::u32, {4})), 0, 1), ErrorCode::wrong_device, {"set_element", "y"}));
  CommandEncoder closed = must(device.encoder());
  must(closed.commit_and_wait());
  EXPECT_TRUE(fails_with(set_element(closed, y, 0, 1), ErrorCode::wrong_state, {"set_element"}));
}

}  // namespace
}  // namespace mlxn::test::set_element_suite
