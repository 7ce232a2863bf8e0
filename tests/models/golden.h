#pragma once

#include <cstdint>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/tokenizer.h"
#include "tests/support/source_dir.h"

namespace mlxn::test {

/// What llama.cpp computed for one file of the demo model: 128 greedy tokens after each of three prompts, and at each of
/// those positions the logits of 64 tokens and of the two best. tools/golden_logits.py makes it.
struct Golden {
  struct Prompt {
    std::string text;
    std::vector<TokenId> prompt_ids, greedy_ids;
  };
  std::vector<Prompt> prompts;
  std::vector<TokenId> vocab_ids;
  std::vector<float> logits;                               // [prompts][128][vocab_ids]
  std::vector<std::vector<std::vector<TokenId>>> top2_ids;  // [prompts][128][2]
  std::vector<float> top2_logits;                          // [prompts][128][2]
  double llamacpp_nmse = 0;  // of llama.cpp's own quantised arithmetic on the same file
};

inline std::vector<float> floats_from_base64(const std::string& text) {
  std::vector<std::uint8_t> bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    std::uint32_t v = 0;
    if (c >= 'A' && c <= 'Z') v = static_cast<std::uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z') v = static_cast<std::uint32_t>(c - 'a' + 26);
    else if (c >= '0' && c <= '9') v = static_cast<std::uint32_t>(c - '0' + 52);
    else if (c == '+') v = 62;
    else if (c == '/') v = 63;
    else continue;
    bits = (bits << 6) | v;
    if ((count += 6) >= 8) {
      count -= 8;
      bytes.push_back(static_cast<std::uint8_t>(bits >> count));
    }
  }
  std::vector<float> out(bytes.size() / 4);
  std::memcpy(out.data(), bytes.data(), out.size() * 4);
  return out;
}

inline Golden load_golden(const std::string& type) {
  std::ifstream in(source_dir() + "/tests/golden/demo/" + type + ".json");
  EXPECT_TRUE(in.good()) << type;
  const nlohmann::json j = nlohmann::json::parse(in);
  Golden g;
  for (const auto& p : j.at("prompts")) g.prompts.push_back({p.at("text"), p.at("prompt_ids"), p.at("greedy_ids")});
  g.vocab_ids = j.at("vocab_ids").get<std::vector<TokenId>>();
  g.logits = floats_from_base64(j.at("logits"));
  g.top2_ids = j.at("top2_ids").get<std::vector<std::vector<std::vector<TokenId>>>>();
  g.top2_logits = floats_from_base64(j.at("top2_logits"));
  g.llamacpp_nmse = j.at("llamacpp_nmse");
  return g;
}

}  // namespace mlxn::test
