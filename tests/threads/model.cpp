// Models and devices, used by several threads at once.
#include <thread>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"

namespace mlxn {
namespace {

TEST(ModelThreads, TwoShareAModelAndTwoDevicesAProcess) {
  DeviceOptions two;
  two.threads = 2;
  const Device shared = test::must(Device::open("cpu", two)), other = test::must(Device::open("cpu", two));
  const GgufFile file = test::must(GgufFile::open(test::source_dir() + "/data/demo/demo-q4_k.gguf"));
  const Model model = test::must(Model::load(file, shared)), copy = test::must(Model::load(file, other));
  const std::vector<TokenId> prompt = {1, 400, 500, 600, 700};
  std::vector<std::vector<TokenId>> texts(3);
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] {
      const Model& mine = i == 2 ? copy : model;
      Session session = test::must(Session::create(mine));
      SamplerOptions options;
      options.sample.seed = 5;
      Sampler sampler = test::must(Sampler::create(mine.device(), mine.info().vocab, options));
      Tensor logits = test::must(session.append(prompt));
      for (int n = 0; n < 24; ++n) {
        const TokenId token = test::must(sampler.next(logits));
        texts[i].push_back(token);
        logits = test::must(session.append({&token, 1}));
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(texts[0], texts[1]);
  EXPECT_EQ(texts[0], texts[2]);
}

}  // namespace
}  // namespace mlxn
