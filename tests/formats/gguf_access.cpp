// What a reader of the file sees, and what damaged bytes may do to it.
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <random>
#include <stdexcept>

#include "gtest/gtest.h"
#include "mlxn/gguf.h"
#include "tests/formats/gguf_builder.h"
#include "tests/formats/temp_file.h"
#include "tests/support/must.h"
#include "tests/support/seconds.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;
using testing::GgufBuilder;

GgufBuilder valid() {
  GgufBuilder b;
  b.text("general.architecture", "llama").scalar<std::uint8_t>("u8", 200).scalar<std::int8_t>("i8", -5);
  b.scalar<std::uint16_t>("u16", 60000)
      .scalar<std::int16_t>("i16", -300)
      .scalar<std::uint32_t>("u32", 4'000'000'000u);
  b.scalar<std::int32_t>("i32", -7).scalar<std::uint64_t>("u64", std::numeric_limits<std::uint64_t>::max());
  b.scalar<std::int64_t>("i64", std::numeric_limits<std::int64_t>::min())
      .scalar("f32", 0.5f)
      .scalar("f64", 0.25);
  b.scalar("yes", true).array<float>("scores", {1.f, -2.f}).array<std::uint16_t>("ids", {1, 2, 65535});
  b.array<bool>("flags", {true, false}).strings("names", {"", "a", "bc"}).text("empty", "");
  b.tensor("token_embd.weight", {32, 3}, 2, std::string(54, 'q'))
      .tensor("norm.weight", {3, 2}, 0, std::string(24, 'n'));
  return b;
}

TEST(GgufFile, IntegersWidenWhereTheyFit) {
  const auto bytes = valid().build();
  const auto file = GgufFile::parse(bytes);
  ASSERT_TRUE(file) << file.error().message();
  EXPECT_EQ(file->get_uint("u8").value(), 200u);
  EXPECT_EQ(file->get_uint("u16").value(), 60000u);
  EXPECT_EQ(file->get_uint("u32").value(), 4'000'000'000u);
  EXPECT_EQ(file->get_uint("u64").value(), std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(file->get_int("i8").value(), -5);
  EXPECT_EQ(file->get_int("i16").value(), -300);
  EXPECT_EQ(file->get_int("u32").value(), 4'000'000'000);
  EXPECT_EQ(file->get_int("i64").value(), std::numeric_limits<std::int64_t>::min());
  for (const char* key : {"i8", "i32", "i64", "f32", "yes", "general.architecture", "ids"}) {
    ASSERT_FALSE(file->get_uint(key)) << key;
    EXPECT_EQ(file->get_uint(key).error().rule(), "V15") << key;
  }
  EXPECT_FALSE(file->get_int("u64"));
  EXPECT_EQ(file->get_float("f32").value(), 0.5);
  EXPECT_EQ(file->get_float("f64").value(), 0.25);
  EXPECT_EQ(file->get_float("i8").value(), -5.0);
  EXPECT_FALSE(file->get_float("yes"));
  EXPECT_TRUE(file->get_bool("yes").value());
  EXPECT_FALSE(file->get_bool("u8"));
}

TEST(GgufFile, FallbacksServeMissingKeysOnly) {
  const auto bytes = valid().build();
  const auto file = GgufFile::parse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->get_uint_or("none", 9).value(), 9u);
  EXPECT_EQ(file->get_uint_or("u8", 9).value(), 200u);
  EXPECT_FALSE(file->get_uint_or("f32", 9));
  EXPECT_FALSE(file->get_string_or("u8", "x"));
  EXPECT_EQ(file->get_string_or("none", "x").value(), "x");
  EXPECT_FALSE(file->get_bool_or("none", false).value());
  EXPECT_EQ(file->get_int_or("none", -1).value(), -1);
  EXPECT_EQ(file->get_float_or("none", 0.5).value(), 0.5);
  EXPECT_EQ(file->get_uint("none").error().code(), ErrorCode::not_found);
  EXPECT_EQ(file->get_array<float>("none").error().code(), ErrorCode::not_found);
}

TEST(GgufFile, ArraysAreSpansOfTheirOwnType) {
  const auto bytes = valid().build();
  const auto file = GgufFile::parse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->get_array<float>("scores").value()[1], -2.f);
  EXPECT_EQ(file->get_array<std::uint16_t>("ids").value().size(), 3u);
  EXPECT_FALSE(file->get_array<std::uint32_t>("ids"));
  EXPECT_FALSE(file->get_array<std::uint8_t>("u8"));
  EXPECT_TRUE(file->get_array<bool>("flags").value()[0]);
  const GgufStrings names = file->get_strings("names").value();
  EXPECT_EQ((std::vector<std::string>(names.begin(), names.end())),
            (std::vector<std::string>{"", "a", "bc"}));
  EXPECT_TRUE(names.is_utf8());
  EXPECT_EQ(file->get_string("empty").value(), "");
  EXPECT_EQ(file->find("ids")->uint_at(2).value(), 65535u);
  EXPECT_EQ(file->find("ids")->uint_at(3).error().code(), ErrorCode::out_of_range);
  EXPECT_EQ(file->get_uints_per_layer("ids", 2).value(), (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(file->get_uints_per_layer("u8", 2).value(), (std::vector<std::uint64_t>{200, 200}));
  EXPECT_EQ(file->get_uints_per_layer("ids", 4).error().rule(), "V15");
  EXPECT_EQ(file->get_uints_per_layer_or("none", 2, 4).value(), (std::vector<std::uint64_t>{4, 4}));
  EXPECT_EQ(file->get_bools_per_layer("flags", 2).value(), (std::vector<bool>{true, false}));
}

TEST(GgufFile, TensorsInOrderWithShapesAndBytes) {
  const auto bytes = valid().build();
  const auto file = GgufFile::parse(bytes);
  ASSERT_TRUE(file);
  EXPECT_EQ(file->values().front().key(), "general.architecture");
  EXPECT_EQ(file->values().back().key(), "empty");
  ASSERT_EQ(file->tensors().size(), 2u);
  const GgufTensor& t = file->tensors()[0];
  EXPECT_EQ(t.name, "token_embd.weight");
  EXPECT_EQ((std::vector<std::uint64_t>(t.dims().begin(), t.dims().end())),
            (std::vector<std::uint64_t>{32, 3}));
  EXPECT_EQ((std::vector<std::uint64_t>(t.row_major().begin(), t.row_major().end())),
            (std::vector<std::uint64_t>{3, 32}));
  EXPECT_EQ(t.dtype, DType::q4_0);
  EXPECT_EQ(t.bytes, 54u);
  EXPECT_EQ(t.absolute_offset, file->data_offset());
  EXPECT_EQ(file->data(t).value()[53], std::byte{'q'});
  EXPECT_EQ(file->tensors()[1].offset, 64u);
  EXPECT_EQ(file->data(file->tensors()[1]).value()[0], std::byte{'n'});
  EXPECT_EQ(file->find_tensor("norm.weight"), &file->tensors()[1]);
  EXPECT_EQ(file->find_tensor("norm"), nullptr);
  GgufTensor tampered = t;
  tampered.bytes = file->file_bytes();
  EXPECT_EQ(file->data(tampered).error().code(), ErrorCode::out_of_range);
}

TEST(GgufFile, HandlesShareOneStateAndKeepBytesAlive) {
  auto owner = std::make_shared<std::vector<std::byte>>(valid().build());
  std::weak_ptr<std::vector<std::byte>> watch = owner;
  std::shared_ptr<const void> kept;
  {
    auto file = GgufFile::parse(*owner, {}, owner);
    owner.reset();
    ASSERT_TRUE(file);
    const GgufFile copy = *file;
    EXPECT_EQ(copy.tensors().data(), file->tensors().data());
    kept = copy.keep_alive();
  }
  EXPECT_FALSE(watch.expired());
  kept.reset();
  EXPECT_TRUE(watch.expired());
}

TEST(GgufFile, OneThatWasMovedFromHasNothingAndSaysSo) {
  const auto bytes = valid().build();
  GgufFile file = must(GgufFile::parse(bytes));
  const GgufTensor tensor = file.tensors()[0];
  EXPECT_TRUE(file.defined());
  const GgufFile taken = std::move(file);
  const GgufFile& none = file;  // NOLINT: what is left is what this is about
  EXPECT_FALSE(none.defined());
  EXPECT_EQ(none.version() + none.alignment() + none.file_bytes() + none.data_offset() + none.part_count(), 0u);
  EXPECT_TRUE(none.label().empty() && none.part_label(0).empty() && none.notes().empty());
  EXPECT_TRUE(none.values().empty() && none.tensors().empty() && none.tensors_by_offset().empty());
  EXPECT_EQ(none.find("u8"), nullptr);
  EXPECT_EQ(none.find_tensor(tensor.name), nullptr);
  EXPECT_EQ(none.keep_alive(), nullptr);
  EXPECT_FALSE(none.in_place());
  none.drop_pages(tensor);
  none.will_need(tensor);
  const auto gone = [](const auto& result) { return fails_with(result, ErrorCode::wrong_state, {"moved from"}); };
  EXPECT_TRUE(gone(none.get_uint("u8")));
  EXPECT_TRUE(gone(none.get_string("general.architecture")));
  EXPECT_TRUE(gone(none.get_array<float>("scores")));
  EXPECT_TRUE(gone(none.get_uint_or("u8", 1)));
  EXPECT_TRUE(gone(none.get_string_or("none", "")));
  EXPECT_TRUE(gone(none.get_uints_per_layer("u8", 1)));
  EXPECT_TRUE(gone(none.get_uints_per_layer_or("u8", 1, 1)));
  EXPECT_TRUE(gone(none.get_bools_per_layer("yes", 1)));
  EXPECT_TRUE(gone(none.expect_tensor(tensor.name, {32, 3})));
  EXPECT_TRUE(gone(none.data(tensor)));
  std::byte one{};
  EXPECT_TRUE(gone(none.read(tensor, 0, {&one, 1})));
  EXPECT_TRUE(gone(GgufFile::join({&none, 1})));
  EXPECT_TRUE(gone(gguf_architecture(none)));
}

TEST(GgufFile, OptionsAreOfTheirEnumerations) {
  const auto bytes = valid().build();
  GgufOptions options;
  options.source = static_cast<GgufOptions::Source>(2);
  EXPECT_TRUE(fails_with(GgufFile::parse(bytes, options), ErrorCode::invalid_argument, {"source is 2", "0 to 1"}));
  EXPECT_TRUE(fails_with(GgufFile::open("none.gguf", options), ErrorCode::invalid_argument, {"source is 2"}));
  options = {};
  options.parts = static_cast<GgufOptions::Parts>(2);
  EXPECT_TRUE(fails_with(GgufFile::open("none.gguf", options), ErrorCode::invalid_argument, {"parts is 2", "0 to 1"}));
}

TEST(GgufFile, NoModelHasSoManyLayers) {
  const auto bytes = valid().build();
  const GgufFile file = must(GgufFile::parse(bytes));
  EXPECT_EQ(must(file.get_uints_per_layer("u8", GgufFile::kMostLayers)).size(), GgufFile::kMostLayers);
  for (const std::uint64_t layers : {GgufFile::kMostLayers + 1, std::uint64_t{1} << 33, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    EXPECT_TRUE(fails_with(file.get_uints_per_layer("u8", layers), ErrorCode::limit_exceeded, {"'u8'", std::to_string(layers), "65536"}));
    EXPECT_TRUE(fails_with(file.get_uints_per_layer_or("none", layers, 1), ErrorCode::limit_exceeded, {std::to_string(layers)}));
    EXPECT_TRUE(fails_with(file.get_bools_per_layer("yes", layers), ErrorCode::limit_exceeded, {std::to_string(layers)}));
  }
}

TEST(GgufFile, ErrorsOfItsKeysNameIt) {
  const auto bytes = valid().build();
  const std::string label = "shelf 7";
  const GgufFile file = must(GgufFile::open(GgufSource{label, bytes.size(), [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    return {};
  }}));
  EXPECT_TRUE(fails_with(file.get_uint("none"), ErrorCode::not_found, {label, "'none'"}));
  EXPECT_TRUE(fails_with(file.get_array<float>("none"), ErrorCode::not_found, {label, "'none'"}));
  EXPECT_TRUE(fails_with(file.get_uint("names"), ErrorCode::corrupt_file, {label, "'names'", "array of string"}));
  EXPECT_TRUE(fails_with(file.get_array<float>("ids"), ErrorCode::corrupt_file, {label, "'ids'"}));
  EXPECT_EQ(file.get_array<float>("ids").error().rule(), "V15");
  EXPECT_TRUE(fails_with(file.get_uints_per_layer("ids", 4), ErrorCode::corrupt_file, {label, "'ids'", "4 layers"}));
  EXPECT_TRUE(fails_with(file.expect_tensor("norm.weight", {3}), ErrorCode::corrupt_file, {label, "norm.weight"}));
  const auto architecture = gguf_architecture(file);
  EXPECT_TRUE(fails_with(architecture, ErrorCode::not_found, {label, "block_count"}));
  EXPECT_EQ(architecture.error().message().find(label, 1), std::string_view::npos) << architecture.error().message();  // once
}

TEST(GgufFile, WhatASourceThrowsIsTheCallersMistake) {
  const auto bytes = valid().build();
  bool broken = true;
  GgufSource source{"shelf 7", bytes.size(), [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    if (broken) throw std::runtime_error("no ladder");
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    return {};
  }};
  EXPECT_TRUE(fails_with(GgufFile::open(source), ErrorCode::invalid_argument, {"shelf 7", "`read` threw", "no ladder"}));
  broken = false;
  const GgufFile file = must(GgufFile::open(source));
  broken = true;
  std::byte one{};
  EXPECT_TRUE(fails_with(file.read(file.tensors()[0], 0, {&one, 1}), ErrorCode::invalid_argument, {"shelf 7", "`read` threw", "no ladder"}));
}

/// Reads everything that a parsed file offers; the sanitizers judge.
void read_all(const GgufFile& file) {
  std::uint64_t sum = 0;
  for (const GgufValue& v : file.values()) {
    sum += v.as_uint().value_or(0) + static_cast<std::uint64_t>(v.as_int().value_or(0));
    if (const auto strings = v.as_strings()) {
      for (const std::string_view s : *strings) sum += s.size();
    }
    if (v.is_array() && v.count() > 0) sum += v.uint_at(v.count() - 1).value_or(1);
    EXPECT_EQ(file.find(v.key()), &v);
  }
  for (const GgufTensor& t : file.tensors()) {
    if (const auto data = file.data(t)) {
      for (const std::byte b : *data) sum += std::to_integer<std::uint64_t>(b);
    }
  }
  EXPECT_NE(sum, 1u);  // keeps the sum alive
  (void)gguf_architecture(file);
}

TEST(GgufDamage, CutAtEveryByte) {
  const auto whole = valid().build();
  const std::size_t needed = whole.size() - 8;  // the last tensor's padding may be missing
  for (std::size_t length = 0; length < whole.size(); ++length) {
    const std::vector<std::byte> cut(
        whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(length));  // exact heap block
    const auto file = GgufFile::parse(cut);
    EXPECT_EQ(file.has_value(), length >= needed) << length;
    if (!file) {
      EXPECT_EQ(file.error().code(), ErrorCode::corrupt_file) << file.error().message();
      EXPECT_FALSE(file.error().rule().empty());
    }
  }
}

TEST(GgufDamage, RandomBytesInTheHeader) {
  const auto whole = valid().build();
  const std::uint64_t header = GgufFile::parse(whole)->data_offset();
  std::mt19937_64 random(20240501);
  int survived = 0;
  for (int round = 0; round < 10'000; ++round) {
    std::vector<std::byte> bytes = whole;
    const int flips = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < flips; ++i) bytes[random() % header] = static_cast<std::byte>(random());
    const auto file = GgufFile::parse(bytes);
    if (!file) {
      EXPECT_NE(file.error().code(), ErrorCode::internal) << file.error().message();
      EXPECT_NE(file.error().code(), ErrorCode::out_of_memory) << file.error().message();
      continue;
    }
    ++survived;
    read_all(*file);
  }
  EXPECT_GT(survived, 100);
}

TEST(GgufDamage, ParseTimeIsLinear) {
  const auto time = [](std::size_t entries) {
    GgufBuilder b;
    for (std::size_t i = 0; i < entries; ++i) b.scalar<std::uint32_t>("key" + std::to_string(i), 1);
    const auto bytes = b.build();
    return test::seconds([&] { EXPECT_TRUE(GgufFile::parse(bytes)); });
  };
  EXPECT_LT(time(64'000), 64 * time(4'000));  // sixteen times the entries: 256 would be quadratic
}

TEST(GgufFile, OpensFromDiskByMapAndByCopy) {
  const auto bytes = valid().build();
  const testing::TempFile temp(bytes);
  const std::filesystem::path& path = temp.path();
  for (const auto source : {GgufOptions::Source::map, GgufOptions::Source::copy}) {
    GgufOptions options;
    options.source = source;
    const auto file = GgufFile::open(path, options);
    ASSERT_TRUE(file) << file.error().message();
    const GgufTensor& t = file->tensors()[0];
    file->will_need(t);
    file->drop_pages(t);
    EXPECT_EQ(file->data(t).value()[53], std::byte{'q'});
    EXPECT_EQ(file->label(), path.string());
  }
  const auto mapped = GgufFile::open(path);
  GgufOptions copying;
  copying.source = GgufOptions::Source::copy;
  const auto copied = GgufFile::open(path, copying);
  ASSERT_TRUE(mapped && copied);
  std::filesystem::resize_file(path, 100);
  EXPECT_EQ(mapped->data(mapped->tensors()[0]).error().code(), ErrorCode::io);
  EXPECT_EQ(copied->data(copied->tensors()[0]).value()[53], std::byte{'q'});
  const auto cut = GgufFile::open(path);
  ASSERT_FALSE(cut);
  EXPECT_NE(cut.error().message().find(path.string()), std::string_view::npos);
  std::filesystem::resize_file(path, 0);
  EXPECT_EQ(GgufFile::open(path).error().rule(), "V01");
  std::filesystem::remove(path);
  EXPECT_EQ(GgufFile::open(path).error().code(), ErrorCode::io);
}

}  // namespace
}  // namespace mlxn
