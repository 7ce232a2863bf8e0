#pragma once

#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "mlxn/dtype.h"
#include "tests/models/golden.h"
#include "tests/support/source_dir.h"

namespace mlxn::test {

/// A small model of tests/golden/models, which tools/golden_models.py makes: its metadata and tensors as data, so that a test
/// may change them, and the logits of 64 tokens.
struct TinyModel {
  using Json = nlohmann::json;
  struct Run {
    std::int64_t context = 0;
    std::vector<float> logits;   // [tokens][vocab]: of llama.cpp
    std::vector<float> float64;  // the same in float64 arithmetic; empty if llama.cpp's are as good
  };
  Json metadata;  // [[name, type, value], ...]
  Json tensors;   // [[name, [ne...], exponent, offset], ...]
  std::uint32_t crc = 0;
  std::vector<TokenId> tokens;
  std::vector<Run> runs;

  [[nodiscard]] std::string architecture() const { return metadata[0][2]; }
  /// The entry of that name, without the architecture's prefix; null if there is none.
  [[nodiscard]] Json* key(const std::string& name) {
    for (Json& entry : metadata) {
      if (entry[0] == name || entry[0] == architecture() + "." + name) return &entry;
    }
    return nullptr;
  }
  TinyModel& set(const std::string& name, const std::string& type, const Json& value) {
    if (Json* entry = key(name); entry != nullptr) {
      (*entry)[1] = type;
      (*entry)[2] = value;
    } else {
      metadata.push_back({architecture() + "." + name, type, value});
    }
    return *this;
  }
};

inline TinyModel load_tiny(const std::string& name) {
  std::ifstream in(source_dir() + "/tests/golden/models/" + name + ".json");
  EXPECT_TRUE(in.good()) << name;
  const nlohmann::json j = nlohmann::json::parse(in);
  TinyModel model{j.at("metadata"), j.at("tensors"), j.at("crc32"), j.at("tokens"), {}};
  for (const auto& run : j.at("runs")) {
    model.runs.push_back({run.at("context"), floats_from_base64(run.at("logits")), {}});
    if (run.contains("float64")) model.runs.back().float64 = floats_from_base64(run.at("float64"));
  }
  return model;
}

/// The model as a GGUF file, its matrices in blocks of `type`; `crc` receives the CRC-32 of all tensors as f32.
[[nodiscard]] std::vector<std::byte> gguf_of(const TinyModel& model, DType type = DType::f32, std::uint32_t* crc = nullptr);

inline double nmse(std::span<const float> got, std::span<const float> wanted) {
  EXPECT_EQ(got.size(), wanted.size());
  double error = 0, power = 0;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const double w = wanted[i], d = static_cast<double>(got[i]) - w;
    error += d * d;
    power += w * w;
  }
  return error / power;
}

}  // namespace mlxn::test
