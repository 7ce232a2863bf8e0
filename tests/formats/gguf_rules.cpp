// One test per rule of the reader: what breaks it is refused with the rule's id, what just keeps it is
// accepted.
#include <limits>

#include "gtest/gtest.h"
#include "mlxn/gguf.h"
#include "tests/formats/gguf_builder.h"

namespace mlxn {
namespace {

using testing::ByteWriter;
using testing::GgufBuilder;

constexpr std::uint32_t kF32 = 0, kQ4_0 = 2, kF64 = 28;
constexpr std::uint32_t kString = 8, kArray = 9;
constexpr std::uint64_t kHuge = std::numeric_limits<std::uint64_t>::max();

std::string zeros(std::size_t n) { return std::string(n, '\0'); }

Result<GgufFile> parse(const std::vector<std::byte>& bytes, const GgufOptions& options = {}) {
  return GgufFile::parse(bytes, options);
}
Result<GgufFile> parse(const GgufBuilder& builder, const GgufOptions& options = {}) {
  return parse(builder.build(), options);
}

::testing::AssertionResult refused(const Result<GgufFile>& file, ErrorCode code, std::string_view rule) {
  if (file) return ::testing::AssertionFailure() << "the file was accepted";
  const Error& e = file.error();
  if (e.code() == code && e.rule() == rule) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << to_string(e.code()) << " " << e.rule() << ": " << e.message();
}
::testing::AssertionResult corrupt(const Result<GgufFile>& file, std::string_view rule) {
  return refused(file, ErrorCode::corrupt_file, rule);
}
::testing::AssertionResult accepted(const Result<GgufFile>& file) {
  if (file) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << file.error().message();
}

TEST(GgufRules, V01MagicVersionAndLeastSize) {
  GgufBuilder b;
  EXPECT_TRUE(accepted(parse(b)));
  b.version = 2;
  EXPECT_TRUE(accepted(parse(b)));
  b.version = 0;
  EXPECT_TRUE(corrupt(parse(b), "V01"));
  for (const std::uint32_t version : {1u, 4u}) {
    b.version = version;
    EXPECT_TRUE(refused(parse(b), ErrorCode::unsupported, "V01"));
  }
  b.version = 0x03000000;
  const auto big_endian = parse(b);
  EXPECT_TRUE(refused(big_endian, ErrorCode::unsupported, "V01"));
  EXPECT_NE(big_endian.error().message().find("big-endian"), std::string_view::npos);
  b.version = 3;
  b.magic = 0x46554746;
  EXPECT_TRUE(corrupt(parse(b), "V01"));
  EXPECT_TRUE(corrupt(GgufFile::parse({}), "V01"));
}

TEST(GgufRules, V02CountsFitTheFileAndTheLimits) {
  EXPECT_TRUE(corrupt(parse(GgufBuilder().counts(kHuge, 0)), "V02"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().counts(0, kHuge)), "V02"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().counts(0, std::uint64_t{1} << 63)), "V02"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().counts(2, 0).data(zeros(10))), "V02"));
  GgufOptions options;
  options.limits.entries = 1;
  options.limits.tensors = 1;
  GgufBuilder b;
  b.scalar<std::uint32_t>("a", 1).tensor("t", {1}, kF32, zeros(4));
  EXPECT_TRUE(accepted(parse(b, options)));
  EXPECT_TRUE(refused(parse(GgufBuilder(b).scalar<std::uint32_t>("b", 1), options), ErrorCode::limit_exceeded,
                      "V02"));
  EXPECT_TRUE(refused(parse(GgufBuilder(b).tensor("u", {1}, kF32, zeros(4)), options),
                      ErrorCode::limit_exceeded, "V02"));
}

TEST(GgufRules, V03ShortReads) {
  auto bytes = GgufBuilder().scalar<std::uint64_t>("key", 1).build();
  bytes.resize(bytes.size() - 1);
  const auto file = parse(bytes);
  EXPECT_TRUE(corrupt(file, "V03"));
  EXPECT_NE(file.error().message().find("at byte 39"), std::string_view::npos) << file.error().message();
}

TEST(GgufRules, V04Keys) {
  EXPECT_TRUE(corrupt(parse(GgufBuilder().scalar<std::uint64_t>("", 1)), "V04"));
  EXPECT_TRUE(accepted(parse(GgufBuilder().scalar<std::uint64_t>("gpt-oss.x y", 1))));
  EXPECT_TRUE(accepted(parse(GgufBuilder().scalar<std::uint64_t>(std::string(65535, 'k'), 1))));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().scalar<std::uint64_t>(std::string(65536, 'k'), 1)), "V04"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().scalar<std::uint64_t>(std::string_view("a\0b", 3), 1)), "V04"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().scalar<std::uint64_t>("k\xc3\xa9y", 1)), "V04"));
  EXPECT_TRUE(corrupt(
      parse(GgufBuilder().scalar<std::uint64_t>("a", 1).scalar<std::uint64_t>("b", 1).scalar<std::uint64_t>(
          "a", 2)),
      "V04"));
  // A length near 2^64 must be compared with what remains, not added to a position.
  EXPECT_TRUE(corrupt(
      parse(GgufBuilder().counts(0, 1).data("\xf8\xff\xff\xff\xff\xff\xff\xff").data(zeros(16))), "V04"));
}

TEST(GgufRules, V05Strings) {
  for (const std::uint64_t length : {std::uint64_t{5}, kHuge, kHuge - 7, std::uint64_t{1} << 63}) {
    EXPECT_TRUE(
        corrupt(parse(GgufBuilder().entry("s", kString, ByteWriter().number(length).raw("abcd"))), "V05"));
    EXPECT_TRUE(corrupt(
        parse(GgufBuilder().entry(
            "s", kArray, ByteWriter().number(kString).number<std::uint64_t>(1).number(length).raw("abcd"))),
        "V05"));
  }
  GgufOptions options;
  options.limits.string_bytes = 3;
  EXPECT_TRUE(accepted(parse(GgufBuilder().text("s", "abc"), options)));
  EXPECT_TRUE(refused(parse(GgufBuilder().text("s", "abcd"), options), ErrorCode::limit_exceeded, "V05"));
  // Overlong, surrogate, beyond U+10FFFF, cut off, lone continuation.
  for (const char* bad : {"\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "a\xe2\x82", "\x80", "\xff"}) {
    EXPECT_TRUE(corrupt(parse(GgufBuilder().text("tokenizer.chat_template", bad)), "V05"));
    EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor(bad, {1}, kF32, zeros(4))), "V05"));
    const auto tokens = parse(GgufBuilder().strings("tokenizer.ggml.tokens", {"a", bad}));
    ASSERT_TRUE(accepted(tokens));
    EXPECT_FALSE(tokens->get_strings("tokenizer.ggml.tokens")->is_utf8());
  }
  // Two halves of one character are two broken strings, although their bytes stand side by side.
  const auto halves = parse(GgufBuilder().strings("tokenizer.ggml.tokens", {"\xc3", "\xa9"}));
  ASSERT_TRUE(accepted(halves));
  EXPECT_FALSE(halves->get_strings("tokenizer.ggml.tokens")->is_utf8());
}

TEST(GgufRules, V06TypesAndBools) {
  EXPECT_TRUE(corrupt(parse(GgufBuilder().entry("a", 13, ByteWriter().number<std::uint64_t>(0))), "V06"));
  EXPECT_TRUE(
      corrupt(parse(GgufBuilder().entry("a", 0xffffffffu, ByteWriter().number<std::uint64_t>(0))), "V06"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().entry("a", 7, ByteWriter().number<std::uint8_t>(2))), "V06"));
  EXPECT_TRUE(corrupt(
      parse(GgufBuilder().entry(
          "a", kArray,
          ByteWriter().number<std::uint32_t>(7).number<std::uint64_t>(3).raw(std::string_view("\0\1\2", 3)))),
      "V06"));
}

/// An array value of `depth` levels, one element per level, empty inside.
ByteWriter nested(int depth) {
  ByteWriter w;
  for (int i = 1; i < depth; ++i) w.number(kArray).number<std::uint64_t>(1);
  return w.number<std::uint32_t>(4).number<std::uint64_t>(0);
}

TEST(GgufRules, V07Arrays) {
  const auto array = [](std::uint32_t type, std::uint64_t count, std::size_t bytes) {
    return GgufBuilder().entry("a", kArray, ByteWriter().number(type).number(count).raw(zeros(bytes)));
  };
  EXPECT_TRUE(corrupt(parse(array(13, 0, 0)), "V07"));
  EXPECT_TRUE(accepted(parse(array(4, 2, 8))));
  EXPECT_TRUE(corrupt(parse(array(4, 2, 7)), "V07"));
  for (const std::uint32_t type : {0u, 4u, 8u, 9u, 12u}) {
    EXPECT_TRUE(corrupt(parse(array(type, kHuge, 64)), "V07"));
    EXPECT_TRUE(corrupt(parse(array(type, std::uint64_t{1} << 61, 64)), "V07"));  // times 8 is 2^64
    EXPECT_TRUE(corrupt(parse(array(type, std::uint64_t{1} << 62, 64)), "V07"));
  }
  GgufOptions options;
  options.limits.array_elems = 2;
  EXPECT_TRUE(accepted(parse(array(4, 2, 8), options)));
  EXPECT_TRUE(refused(parse(array(4, 3, 12), options), ErrorCode::limit_exceeded, "V07"));
  options = {};
  options.limits.metadata_bytes = 1000;
  EXPECT_TRUE(accepted(parse(array(4, 2, 8), options)));
  EXPECT_TRUE(refused(parse(array(4, 250, 1000), options), ErrorCode::limit_exceeded, "V07"));
  EXPECT_TRUE(refused(parse(array(8, 120, 960), options), ErrorCode::limit_exceeded, "V07"));

  EXPECT_TRUE(accepted(parse(GgufBuilder().entry("a", kArray, nested(4)).scalar<std::uint8_t>("after", 7))));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().entry("a", kArray, nested(5))), "V07"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().entry("a", kArray, nested(100'000))), "V07"));
}

TEST(GgufRules, V07NestedArraysAreSteppedOver) {
  ByteWriter inner;
  inner.number(kArray).number<std::uint64_t>(3);
  inner.number<std::uint32_t>(4).number<std::uint64_t>(2).number<std::uint32_t>(1).number<std::uint32_t>(2);
  inner.number(kString).number<std::uint64_t>(2).string("x").string("yz");
  inner.number<std::uint32_t>(7).number<std::uint64_t>(1).number<std::uint8_t>(1);
  const auto file = parse(GgufBuilder().entry("a", kArray, inner).scalar<std::uint8_t>("after", 7));
  ASSERT_TRUE(accepted(file));
  EXPECT_EQ(file->get_uint("after").value(), 7u);
  EXPECT_EQ(file->find("a")->count(), 3u);
  EXPECT_EQ(file->find("a")->as_strings().error().rule(), "V15");
}

TEST(GgufRules, V08Alignment) {
  for (const std::uint32_t good : {8u, 16u, 64u, 1u << 20}) {
    GgufBuilder b;
    b.alignment = good;
    b.scalar("general.alignment", good).tensor("t", {3}, kF32, zeros(12)).tensor("u", {3}, kF32, zeros(12));
    const auto file = parse(b);
    ASSERT_TRUE(accepted(file)) << good;
    EXPECT_EQ(file->find_tensor("u")->absolute_offset % good, 0u);
  }
  for (const std::uint32_t bad : {0u, 1u, 4u, 24u, 48u, 1u << 21, 0x80000000u, 0xffffffffu}) {
    EXPECT_TRUE(corrupt(
        parse(GgufBuilder().scalar("general.alignment", bad).tensor("t", {1}, kF32, zeros(4))), "V08"));
  }
  EXPECT_TRUE(corrupt(parse(GgufBuilder().scalar<std::uint64_t>("general.alignment", 32)), "V08"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().text("general.alignment", "32")), "V08"));
}

TEST(GgufRules, V09TensorNamesAndDimensions) {
  const std::string n63(63, 'n'), n64(64, 'n'), n255(255, 'n'), n256(256, 'n');
  EXPECT_TRUE(accepted(parse(GgufBuilder().tensor(n63, {1}, kF32, zeros(4)))));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor(n64, {1}, kF32, zeros(4))), "V09"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("", {1}, kF32, zeros(4))), "V09"));
  GgufOptions lenient;
  lenient.lenient_names = true;
  EXPECT_TRUE(accepted(parse(GgufBuilder().tensor(n255, {1}, kF32, zeros(4)), lenient)));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor(n256, {1}, kF32, zeros(4)), lenient), "V09"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor(std::string_view("a\0", 2), {1}, kF32, zeros(4))), "V09"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder()
                                .tensor("a", {1}, kF32, zeros(4))
                                .tensor("b", {1}, kF32, zeros(4))
                                .tensor("a", {1}, kF32, zeros(4))),
                      "V09"));
  EXPECT_TRUE(accepted(parse(GgufBuilder().tensor("t", {1, 1, 1, 1}, kF32, zeros(4)))));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("t", {1, 1, 1, 1, 1}, kF32, zeros(4))), "V09"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("t", {(std::uint64_t{1} << 48) + 1, 0}, kF32, "")), "V09"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("t", {kHuge}, kF32, zeros(4))), "V09"));
  GgufBuilder many;  // a dimension count far past the array that holds them
  many.counts(1, 0).alignment = 0;
  many.data(std::string_view("\1\0\0\0\0\0\0\0t\xff\xff\xff\xff", 13)).data(zeros(64));
  EXPECT_TRUE(corrupt(parse(many), "V09"));
}

TEST(GgufRules, V09EmptyAndScalarTensors) {
  const auto file = parse(GgufBuilder()
                              .tensor("empty", {32, 0, 4}, kQ4_0, "")
                              .tensor("none", {0}, kF32, "")
                              .tensor("scalar", {}, kF32, zeros(4)));
  ASSERT_TRUE(accepted(file));
  EXPECT_EQ(file->find_tensor("empty")->bytes, 0u);
  EXPECT_TRUE(file->data(*file->find_tensor("empty"))->empty());
  EXPECT_EQ(file->find_tensor("scalar")->elems, 1u);
  EXPECT_EQ(file->data(*file->find_tensor("scalar"))->size(), 4u);
}

TEST(GgufRules, V10Sizes) {
  const std::uint64_t big = std::uint64_t{1} << 48;
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {big, big}, kF32, 0)), "V10"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {big, big, big, 0}, kF32, 0)), "V10"));
  EXPECT_TRUE(
      corrupt(parse(GgufBuilder().tensor_at("t", {big, 1u << 15, 1}, kF64, 0)), "V10"));  // 2^63 elements fit
  EXPECT_TRUE(
      corrupt(parse(GgufBuilder().tensor_at("t", {big, 1u << 14}, kF32, 0)), "V10"));  // 2^64 bytes are 0
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("t", {16, 2}, kQ4_0, zeros(18))), "V10"));
  EXPECT_TRUE(accepted(parse(GgufBuilder().tensor("t", {32, 2}, kQ4_0, zeros(36)))));
  for (const std::uint32_t removed : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u}) {
    EXPECT_TRUE(
        refused(parse(GgufBuilder().tensor("t", {32}, removed, zeros(64))), ErrorCode::unsupported, "V10"));
  }
}

TEST(GgufRules, V10UnknownTypesLoseTheTensorOnly) {
  for (const std::uint32_t id : {43u, 97u, 0x80000000u, 0xffffffffu}) {
    const auto file =
        parse(GgufBuilder().tensor("odd", {7}, id, zeros(64)).tensor("t", {8}, kF32, zeros(32)));
    ASSERT_TRUE(accepted(file)) << id;
    const GgufTensor& odd = *file->find_tensor("odd");
    EXPECT_EQ(type_name(odd), "unknown type id " + std::to_string(id));
    EXPECT_EQ(file->data(odd).error().code(), ErrorCode::unsupported);
    EXPECT_TRUE(file->data(*file->find_tensor("t")).has_value());
    EXPECT_EQ(file->notes().size(), 1u);
  }
  const auto iq2 = parse(GgufBuilder().tensor("t", {256}, 17, zeros(74)).tensor("u", {5}, 25, zeros(10)));
  ASSERT_TRUE(accepted(iq2));
  EXPECT_EQ(iq2->find_tensor("t")->dtype, DType::iq2_xs);
  EXPECT_EQ(iq2->find_tensor("t")->bytes, 74u);
  EXPECT_EQ(iq2->find_tensor("u")->dtype, DType::i16);
}

TEST(GgufRules, V11DataStart) {
  GgufBuilder b;
  b.tensor_at("t", {1}, kF32, 0);
  auto bytes = b.build();
  bytes.resize(24 + 8 + 1 + 4 + 8 + 4 + 8);  // no padding
  EXPECT_TRUE(corrupt(parse(bytes), "V11"));
  bytes.clear();
  b = GgufBuilder();
  b.tensor_at("t", {0}, kF32, 0);
  bytes = b.build();
  bytes.resize(24 + 8 + 1 + 4 + 8 + 4 + 8);
  EXPECT_TRUE(accepted(parse(bytes)));  // no tensor has bytes
}

TEST(GgufRules, V12Extents) {
  EXPECT_TRUE(
      accepted(parse(GgufBuilder().tensor_at("t", {4}, kF32, 0).data(zeros(16)))));  // no padding at the end
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {4}, kF32, 0).data(zeros(15))), "V12"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {4}, kF32, 16).data(zeros(64))), "V12"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {4}, kF32, 64).data(zeros(64))), "V12"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {4}, kF32, kHuge - 31).data(zeros(64))), "V12"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {0}, kF32, kHuge - 31).data(zeros(64))), "V12"));
  EXPECT_TRUE(
      corrupt(parse(GgufBuilder().tensor_at("t", {4}, kF32, std::uint64_t{1} << 63).data(zeros(64))), "V12"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor_at("t", {4}, 97, 128).data(zeros(64))), "V12"));
  // Extents that each fit and whose sum wraps.
  EXPECT_TRUE(corrupt(parse(GgufBuilder()
                                .tensor_at("t", {std::uint64_t{1} << 48, 1u << 13}, kF32, 0)
                                .tensor_at("u", {std::uint64_t{1} << 48, 1u << 13}, kF32, 0)
                                .data(zeros(64))),
                      "V12"));
}

TEST(GgufRules, V13OverlapOrderAndHoles) {
  EXPECT_TRUE(corrupt(
      parse(GgufBuilder().tensor_at("t", {16}, kF32, 0).tensor_at("u", {4}, kF32, 32).data(zeros(64))),
      "V13"));
  EXPECT_TRUE(corrupt(
      parse(GgufBuilder().tensor_at("t", {4}, kF32, 0).tensor_at("u", {4}, kF32, 0).data(zeros(64))), "V13"));
  // An empty tensor may stand anywhere, and hides no overlap.
  EXPECT_TRUE(accepted(
      parse(GgufBuilder().tensor_at("t", {16}, kF32, 0).tensor_at("e", {0}, kF32, 32).data(zeros(64)))));
  EXPECT_TRUE(corrupt(parse(GgufBuilder()
                                .tensor_at("t", {16}, kF32, 0)
                                .tensor_at("e", {0}, kF32, 32)
                                .tensor_at("u", {4}, kF32, 32)
                                .data(zeros(64))),
                      "V13"));

  GgufOptions strict;
  strict.strict = true;
  const GgufBuilder swapped =
      GgufBuilder().tensor_at("b", {4}, kF32, 32).tensor_at("a", {4}, kF32, 0).data(zeros(64));
  const auto file = parse(swapped);
  ASSERT_TRUE(accepted(file));
  EXPECT_EQ(file->tensors()[0].name, "b");
  EXPECT_EQ(file->tensors_by_offset()[0]->name, "a");
  EXPECT_TRUE(file->notes().empty());
  EXPECT_TRUE(corrupt(parse(swapped, strict), "V13"));
  const GgufBuilder hole =
      GgufBuilder().tensor_at("a", {4}, kF32, 0).tensor_at("b", {4}, kF32, 128).data(zeros(160));
  const auto with_hole = parse(hole);
  ASSERT_TRUE(accepted(with_hole));
  ASSERT_EQ(with_hole->notes().size(), 1u);
  EXPECT_NE(with_hole->notes()[0].find("96 bytes"), std::string::npos) << with_hole->notes()[0];
  EXPECT_TRUE(corrupt(parse(hole, strict), "V13"));
  EXPECT_TRUE(corrupt(parse(GgufBuilder().tensor("a", {4}, 97, zeros(16)), strict), "V13"));
  EXPECT_TRUE(accepted(
      parse(GgufBuilder().tensor("a", {4}, kF32, zeros(16)).tensor("b", {4}, kF32, zeros(16)), strict)));
}

TEST(GgufRules, V14TheHeaderIsNotReadAgain) {
  auto bytes = GgufBuilder()
                   .text("general.name", "first")
                   .array<std::uint32_t>("a", {1, 2, 3})
                   .strings("tokenizer.ggml.tokens", {"x", "yz"})
                   .tensor("t", {8}, kF32, zeros(32))
                   .build();
  const auto file = parse(bytes);
  ASSERT_TRUE(accepted(file));
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  EXPECT_EQ(file->get_string("general.name").value(), "first");
  EXPECT_EQ(file->get_array<std::uint32_t>("a").value()[2], 3u);
  EXPECT_EQ(file->get_strings("tokenizer.ggml.tokens").value()[1], "yz");
  EXPECT_EQ(file->find_tensor("t")->bytes, 32u);
}

/// A complete, valid description of a model; a test then adds its fault.
GgufBuilder model(std::string_view without = {}) {
  GgufBuilder b;
  b.text("general.architecture", "llama");
  const auto add = [&](std::string_view key, std::uint32_t value) {
    if (key != without) b.scalar(key, value);
  };
  add("llama.block_count", 2);
  add("llama.context_length", 128);
  add("llama.embedding_length", 64);
  add("llama.feed_forward_length", 96);
  add("llama.attention.head_count", 8);
  add("llama.attention.head_count_kv", 4);
  if (without != "llama.attention.layer_norm_rms_epsilon")
    b.scalar("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  return b;
}

::testing::AssertionResult bad_architecture(const GgufBuilder& builder) {
  const auto file = parse(builder);
  if (!file) return accepted(file);
  const auto architecture = gguf_architecture(*file);
  if (architecture) return ::testing::AssertionFailure() << "the architecture was accepted";
  if (architecture.error().rule() == "V15") return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << architecture.error().message();
}

TEST(GgufRules, V15ArchitectureDefaults) {
  const auto file = parse(model("llama.attention.head_count_kv"));
  ASSERT_TRUE(accepted(file));
  const auto a = gguf_architecture(*file);
  ASSERT_TRUE(a) << a.error().message();
  EXPECT_EQ(a->name, "llama");
  EXPECT_EQ(a->head_count, (std::vector<std::uint64_t>{8, 8}));
  EXPECT_EQ(a->head_count_kv, a->head_count);
  EXPECT_EQ(a->key_length, 8u);
  EXPECT_EQ(a->rope_dimension_count, 8u);
  EXPECT_EQ(a->rope_freq_base, 10000.0);
  EXPECT_EQ(a->vocab_size, 0u);
  const auto missing = gguf_architecture(*parse(model("llama.block_count")));
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ErrorCode::not_found);
}

TEST(GgufRules, V15ArchitectureLimits) {
  const auto with = [](std::string_view key, std::uint64_t value) {
    return model(key).scalar<std::uint64_t>(key, value);
  };
  for (const std::uint64_t bad : {std::uint64_t{0}, std::uint64_t{1025}, kHuge}) {
    EXPECT_TRUE(bad_architecture(with("llama.block_count", bad)));
  }
  EXPECT_TRUE(bad_architecture(with("llama.embedding_length", 0)));
  EXPECT_TRUE(bad_architecture(with("llama.embedding_length", (1u << 20) + 1)));
  EXPECT_TRUE(bad_architecture(with("llama.attention.head_count", 0)));
  EXPECT_TRUE(bad_architecture(with("llama.attention.head_count_kv", 3)));
  EXPECT_TRUE(bad_architecture(with("llama.attention.head_count_kv", 0)));
  EXPECT_TRUE(bad_architecture(with("llama.attention.key_length", 0)));
  EXPECT_TRUE(bad_architecture(with("llama.rope.dimension_count", 9)));
  EXPECT_TRUE(bad_architecture(
      model().scalar("llama.block_count2", 1).scalar<std::int32_t>("llama.expert_count", -1)));
  EXPECT_TRUE(bad_architecture(model()
                                   .scalar<std::uint32_t>("llama.expert_count", 4097)
                                   .scalar<std::uint32_t>("llama.expert_used_count", 2)));
  EXPECT_TRUE(bad_architecture(model()
                                   .scalar<std::uint32_t>("llama.expert_count", 4)
                                   .scalar<std::uint32_t>("llama.expert_used_count", 5)));
  EXPECT_TRUE(bad_architecture(model().scalar<std::uint32_t>("llama.expert_count", 4)));
  for (const std::string& bad : {std::string(), std::string("ll\x1bma"), std::string(65, 'a'), std::string(1'000'000, 'a')}) {
    const auto file = parse(GgufBuilder().text("general.architecture", bad));
    const auto a = gguf_architecture(*file);
    ASSERT_FALSE(a);
    EXPECT_EQ(a.error().rule(), "V15");
    EXPECT_LT(a.error().message().size(), 200u);
  }
  for (const float bad :
       {0.0f, -1e-5f, std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    constexpr std::string_view key = "llama.attention.layer_norm_rms_epsilon";
    EXPECT_TRUE(bad_architecture(model(key).scalar(key, bad)));
  }
}

TEST(GgufRules, V15PerLayerArrays) {
  constexpr std::string_view key = "llama.attention.head_count_kv";
  EXPECT_TRUE(bad_architecture(model(key).array<std::uint32_t>(key, {4})));
  EXPECT_TRUE(bad_architecture(model(key).array<std::uint32_t>(key, {4, 0})));  // queries without keys
  const auto file = parse(model(key).array<std::int32_t>(key, {4, 2, 7}));
  ASSERT_TRUE(accepted(file));
  const auto a = gguf_architecture(*file);
  ASSERT_TRUE(a) << a.error().message();
  EXPECT_EQ(a->head_count_kv, (std::vector<std::uint64_t>{4, 2}));
}

TEST(GgufRules, V16ShapesAsTheMetadataImplies) {
  const auto file = parse(GgufBuilder().tensor("t", {8, 2}, kF32, zeros(64)));
  ASSERT_TRUE(accepted(file));
  EXPECT_TRUE(file->expect_tensor("t", {8, 2}));
  EXPECT_TRUE(file->expect_tensor("t", {8, 2, 1}));
  for (const auto& bad : {file->expect_tensor("t", {8}), file->expect_tensor("t", {2, 8}),
                          file->expect_tensor("t", {8, 2, 2})}) {
    ASSERT_FALSE(bad);
    EXPECT_EQ(bad.error().rule(), "V16");
  }
  EXPECT_EQ(file->expect_tensor("u", {8}).error().code(), ErrorCode::not_found);
}

}  // namespace
}  // namespace mlxn
