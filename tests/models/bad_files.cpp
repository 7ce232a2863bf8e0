// Files of every family that lack something or say something absurd: a typed error that names it, and nothing else ever.

#include <algorithm>

#include "gtest/gtest.h"
#include "mlxn/model.h"
#include "tests/models/tiny.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::must;
using test::TinyModel;

Result<Model> attempt(const TinyModel& tiny) {
  const std::vector<std::byte> bytes = test::gguf_of(tiny);
  LoadOptions options;
  options.prepare = PrepareMode::on;  // nothing of `bytes` is kept
  MLXN_TRY(const GgufFile file, GgufFile::parse(bytes));
  MLXN_TRY(const Device device, Device::open("cpu"));
  return Model::load(file, device, options);
}

testing::AssertionResult fails(const Result<Model>& result, ErrorCode code, const std::string& text) {
  if (result) return testing::AssertionFailure() << "the file loads";
  const std::string message(result.error().message());
  if (result.error().code() != code || message.find(text) == std::string::npos) {
    return testing::AssertionFailure() << to_string(result.error().code()) << ": " << message << "; wanted " << to_string(code)
                                       << " with '" << text << "'";
  }
  return testing::AssertionSuccess();
}

class BadFile : public testing::TestWithParam<const char*> {};

TEST_P(BadFile, EachTensorIsMissedAndItsShapeChecked) {
  const TinyModel good = test::load_tiny(GetParam());
  ASSERT_TRUE(attempt(good));
  const bool needs_biases = good.architecture() == "qwen2";
  for (std::size_t t = 0; t < good.tensors.size(); ++t) {
    const std::string name = good.tensors[t][0];
    if (name.starts_with("blk.1.") && !name.ends_with("norm.weight")) continue;  // as layer 0
    SCOPED_TRACE(name);
    TinyModel without = good;
    without.tensors.erase(t);
    const bool optional = name == "output.weight" || name == "rope_freqs.weight" || (name.ends_with(".bias") && !needs_biases);
    if (optional) {
      EXPECT_TRUE(attempt(without));
    } else {
      EXPECT_TRUE(fails(attempt(without), ErrorCode::not_found, "'" + name + "'"));
    }
    for (std::size_t axis = 0; axis < good.tensors[t][1].size(); ++axis) {
      TinyModel other = good;
      other.tensors[t][1][axis] = good.tensors[t][1][axis].get<int>() + 32;
      EXPECT_TRUE(fails(attempt(other), ErrorCode::corrupt_file, "'" + name + "'"));
    }
  }
}

TEST_P(BadFile, EachRequiredKeyIsMissed) {
  const TinyModel good = test::load_tiny(GetParam());
  for (const char* name : {"vocab_size", "block_count", "context_length", "embedding_length", "feed_forward_length",
                           "attention.head_count", "attention.layer_norm_rms_epsilon", "general.architecture"}) {
    TinyModel without = good;
    const auto at = std::find_if(without.metadata.begin(), without.metadata.end(), [&](const auto& entry) {
      return entry[0] == name || entry[0] == good.architecture() + "." + name;
    });
    ASSERT_NE(at, without.metadata.end()) << name;
    without.metadata.erase(at);
    const auto result = attempt(without);
    ASSERT_FALSE(result) << name;
    EXPECT_NE(std::string(result.error().message()).find(name), std::string::npos) << result.error().message();
  }
}

/// The keys that any family reads, whether the file has them or not, with values that no model has.
TEST_P(BadFile, AbsurdValuesAreErrorsOrHarmless) {
  const TinyModel good = test::load_tiny(GetParam());
  const char* const counts[] = {"vocab_size", "block_count", "context_length", "embedding_length", "feed_forward_length",
                                "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
                                "rope.dimension_count", "rope.scaling.original_context_length", "attention.sliding_window",
                                "attention.sliding_window_pattern", "expert_count"};
  const char* const numbers[] = {"attention.layer_norm_rms_epsilon", "rope.freq_base", "rope.freq_base_swa", "rope.scaling.factor",
                                 "rope.scaling.attn_factor", "rope.scaling.yarn_ext_factor", "rope.scaling.yarn_attn_factor",
                                 "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow", "rope.scaling.yarn_log_multiplier",
                                 "attn_logit_softcapping", "final_logit_softcapping"};
  int refused = 0;
  const auto judge = [&](const TinyModel& tiny, const std::string& what) {
    SCOPED_TRACE(what);
    const auto model = attempt(tiny);
    if (model) {
      SessionOptions options;
      options.context = 16;
      Session session = must(Session::create(*model, options));
      must(session.append(std::span(tiny.tokens).first(5)));
      return;
    }
    ++refused;
    const ErrorCode code = model.error().code();
    EXPECT_TRUE(code == ErrorCode::corrupt_file || code == ErrorCode::unsupported || code == ErrorCode::not_found)
        << to_string(code) << ": " << model.error().message();
    EXPECT_FALSE(model.error().message().empty());
  };
  for (const char* name : counts) {
    for (const std::uint32_t value : {0u, 1u, 3u, 7u, 1000u, 65535u, 0x7FFFFFFFu, 0xFFFFFFFFu}) {
      judge(TinyModel(good).set(name, "u32", value), std::string(name) + " " + std::to_string(value));
    }
    judge(TinyModel(good).set(name, "i32", -1), std::string(name) + " -1");
    judge(TinyModel(good).set(name, "string", "four"), std::string(name) + " four");
  }
  for (const char* name : numbers) {
    for (const double value : {0.0, -1.0, 1e-38, 1e38}) {
      judge(TinyModel(good).set(name, "f32", value), std::string(name) + " " + std::to_string(value));
    }
    judge(TinyModel(good).set(name, "f32", nullptr), std::string(name) + " NaN");
    judge(TinyModel(good).set(name, "f32", nullptr).set("rope.scaling.type", "string", "yarn"), std::string(name) + " NaN, yarn");
    judge(TinyModel(good).set(name, "string", "four"), std::string(name) + " four");
  }
  judge(TinyModel(good).set("attention.sliding_window", "u32", 4).set("attention.sliding_window_pattern", "bools", {true}), "short pattern");
  EXPECT_GT(refused, 80);
}

TEST_P(BadFile, UnknownScalingOfTheRotationIsNamed) {
  TinyModel tiny = test::load_tiny(GetParam());
  const auto result = attempt(tiny.set("rope.scaling.type", "string", "dynamic"));
  EXPECT_TRUE(fails(result, ErrorCode::unsupported, "dynamic"));
  EXPECT_TRUE(fails(result, ErrorCode::unsupported, "longrope"));
}

TEST_P(BadFile, ErrorsAreShortHoweverLongTheText) {
  std::string nasty;
  for (int i = 0; i < 100'000; ++i) nasty += "\x1b[2J";
  TinyModel rotation = test::load_tiny(GetParam()), architecture = rotation;
  rotation.set("rope.scaling.type", "string", nasty);
  for (auto& entry : architecture.metadata) {
    if (entry[0] == "general.architecture") entry[2] = nasty;
  }
  for (const TinyModel& tiny : {rotation, architecture}) {
    const auto result = attempt(tiny);
    ASSERT_TRUE(fails(result, ErrorCode::unsupported, "'\\x1b[2J\\x1b[2J"));
    EXPECT_LT(result.error().message().size(), 500u);
  }
}

TEST_P(BadFile, ExpertsAndUnequalLayersAreNotRunYet) {
  const TinyModel good = test::load_tiny(GetParam());
  EXPECT_TRUE(fails(attempt(TinyModel(good).set("expert_count", "u32", 8).set("expert_used_count", "u32", 2)), ErrorCode::unsupported,
                    "8 experts"));
  EXPECT_TRUE(fails(attempt(TinyModel(good).set("attention.value_length", "u32", 8).set("attention.key_length", "u32", 16)),
                    ErrorCode::unsupported, "16"));
}

INSTANTIATE_TEST_SUITE_P(Families, BadFile, testing::Values("llama", "qwen2", "qwen3", "gemma2", "gemma3_capped", "phi3"));

TEST(BadFile, FactorsOfTheRotationAreAboveZeroAndComeInPairs) {
  for (const auto& [name, factors] : {std::pair{"llama", "rope_freqs.weight"}, {"phi3", "rope_factors_long.weight"}}) {
    TinyModel tiny = test::load_tiny(name);
    for (auto& tensor : tiny.tensors) {
      if (tensor[0] == factors) tensor[3] = -32768;
    }
    EXPECT_TRUE(fails(attempt(tiny), ErrorCode::corrupt_file, "frequency factor 0"));
  }
}

TEST(BadFile, LlamaTurnsWholeHeads) {
  EXPECT_TRUE(fails(attempt(test::load_tiny("llama").set("rope.dimension_count", "u32", 12)), ErrorCode::corrupt_file,
                    "rope.dimension_count"));
}

TEST(BadFile, UnknownArchitectureNamesTheKnownOnes) {
  TinyModel tiny = test::load_tiny("llama");
  tiny.metadata[0][2] = "wonder";
  for (const char* name : {"wonder", "llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3"}) {
    EXPECT_TRUE(fails(attempt(tiny), ErrorCode::unsupported, name));
  }
}

}  // namespace
}  // namespace mlxn
