#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace mlxn::fuzz {

// Each target takes any bytes and says in words which promise was broken, or nothing. The replay test runs
// all of them; compiled with MLXN_LIBFUZZER, the file of one target is a libFuzzer program:
//   clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -DMLXN_LIBFUZZER -Iinclude -Isrc -I.
//     tests/fuzz/gguf.cpp src/base/*.cpp src/io/*.cpp src/formats/gguf/*.cpp src/tokenizer/*.cpp -lfmt -lpcre2-8

/// A whole GGUF file: parse, read everything it offers, load its tokenizer.
[[nodiscard]] std::string check_gguf(std::span<const std::uint8_t> input);

/// A split model: the parts, each after its length in four bytes. Parse each, join them, read everything.
[[nodiscard]] std::string check_gguf_parts(std::span<const std::uint8_t> input);

/// A vocabulary and a text: encode, decode, stream. See VocabularyInput in tokenizer.cpp for the layout.
[[nodiscard]] std::string check_tokenizer(std::span<const std::uint8_t> input);

/// The same for byte-level BPE: merges, a splitting rule and a text. See BytePairInput in byte_pairs.cpp for the layout.
[[nodiscard]] std::string check_byte_pairs(std::span<const std::uint8_t> input);

}  // namespace mlxn::fuzz

#ifdef MLXN_LIBFUZZER
#include <cstdio>
#define MLXN_FUZZ_ENTRY(target)                                                       \
  extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) { \
    const std::string broken = target(std::span<const std::uint8_t>(data, size));     \
    if (!broken.empty()) {                                                            \
      std::fprintf(stderr, "%s\n", broken.c_str());                                   \
      __builtin_trap();                                                               \
    }                                                                                 \
    return 0;                                                                         \
  }
#else
#define MLXN_FUZZ_ENTRY(target)
#endif
