#include "mlxn/ops/embedding.h"

#include "tests/conformance/variants.h"
#include "tests/support/weights.h"

namespace mlxn::test::embedding_suite {
namespace {

std::vector<float> rows(const Weight& table, const std::vector<std::uint32_t>& ids, float scale = 1) {
  const auto seq = static_cast<std::int64_t>(ids.size());
  const Tensor i = must(cpu(2).allocate(DType::u32, {seq}));
  must(cpu(2).upload(i, std::as_bytes(std::span(ids))));
  Guarded y(cpu(2), DType::f32, {seq, table.k()});
  must(run(cpu(2), [&](CommandEncoder& e) { return embedding(e, i, table, y.tensor(), scale); }));
  return y.read();
}

TEST(EmbeddingProperty, a_token_equals_itself_in_any_sequence) {
  Random random(91);
  for (const DType type : {DType::f16, DType::q4_0, DType::q6_K}) {
    Guarded source(cpu(2), type, {40, 256});
    source.write(random_weights(type, 40 * 256, random));
    for (const PrepareMode mode : {PrepareMode::off, PrepareMode::on}) {
      const Weight table = prepared(cpu(2), source.tensor(), mode);
      const std::vector<std::uint32_t> ids = {39, 0, 17, 17, 16, 15};
      const std::vector<float> all = rows(table, ids), halved = rows(table, ids, 0.5f);
      for (std::size_t t = 0; t < ids.size(); ++t) {
        EXPECT_EQ(rows(table, {ids[t]}), std::vector<float>(all.begin() + static_cast<std::ptrdiff_t>(t) * 256,
                                                            all.begin() + static_cast<std::ptrdiff_t>(t + 1) * 256));
      }
      for (std::size_t i = 0; i < all.size(); ++i) EXPECT_EQ(halved[i], all[i] * 0.5f);
    }
  }
}

}  // namespace
}  // namespace mlxn::test::embedding_suite
