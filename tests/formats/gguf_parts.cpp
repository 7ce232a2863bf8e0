// Models in several files: written, found, checked and read as one; and files that come through a function.
#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "mlxn/gguf_writer.h"
#include "tests/formats/gguf_builder.h"
#include "tests/formats/temp_folder.h"
#include "tests/support/must.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;
using testing::GgufBuilder;
using testing::TempFolder;

constexpr std::uint64_t kRow = 64;
const std::vector<std::string> kNames = {"a", "b", "c", "d", "e"};

std::vector<std::byte> bytes_of(std::size_t tensor) { return std::vector<std::byte>((tensor + 1) * kRow * 4, static_cast<std::byte>('a' + tensor)); }

/// Five tensors of 1 to 5 rows of 256 bytes.
Result<std::vector<std::string>> write(const std::filesystem::path& path, const GgufWriteOptions& options, std::uint32_t alignment = 0) {
  MLXN_TRY(GgufWriter w, GgufWriter::create(path, options));
  MLXN_CHECK(w.add("general.architecture", "llama"));
  if (alignment != 0) MLXN_CHECK(w.add("general.alignment", alignment));
  for (std::size_t i = 0; i < kNames.size(); ++i) MLXN_CHECK(w.add_tensor(kNames[i], DType::f32, std::array{kRow, std::uint64_t{i + 1}}));
  MLXN_CHECK(w.begin());
  std::vector<std::byte> all;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    const auto bytes = bytes_of(i);
    all.insert(all.end(), bytes.begin(), bytes.end());
  }
  MLXN_CHECK(w.write(all));
  MLXN_CHECK(w.finish());
  return std::vector<std::string>(w.paths().begin(), w.paths().end());
}

GgufWriteOptions of_tensors(std::uint64_t most) {
  GgufWriteOptions options;
  options.split_max_tensors = most;
  return options;
}

void expect_whole(const GgufFile& file) {
  ASSERT_EQ(file.tensors().size(), kNames.size());
  EXPECT_EQ(file.get_string("general.architecture").value(), "llama");
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < kNames.size(); ++i) {
    const GgufTensor* t = file.find_tensor(kNames[i]);
    ASSERT_NE(t, nullptr) << kNames[i];
    EXPECT_EQ(t, &file.tensors()[i]);
    EXPECT_EQ(file.tensors_by_offset()[i], t);
    const auto data = must(file.data(*t));
    const auto wanted = bytes_of(i);
    EXPECT_TRUE(std::equal(data.begin(), data.end(), wanted.begin(), wanted.end())) << kNames[i];
    std::vector<std::byte> part(100);
    must(file.read(*t, 50, part));
    EXPECT_TRUE(std::equal(part.begin(), part.end(), wanted.begin() + 50));
    file.will_need(*t);
    file.drop_pages(*t);
    bytes += t->bytes;
  }
  EXPECT_GT(file.file_bytes(), bytes);
}

TEST(GgufParts, AFileThatKeepsTheLimitsIsNotSplit) {
  const TempFolder folder;
  EXPECT_EQ(must(write(folder / "m.gguf", of_tensors(5))), std::vector<std::string>{(folder / "m.gguf").string()});
  const GgufFile file = must(GgufFile::open(folder / "m.gguf"));
  expect_whole(file);
  EXPECT_EQ(file.part_count(), 1u);
  EXPECT_EQ(file.part_label(0), file.label());
  EXPECT_EQ(file.part_label(1), "");
  EXPECT_EQ(file.find("split.count"), nullptr);
}

TEST(GgufParts, PartsByNumberOfTensorsAreOneFile) {
  const TempFolder folder;
  for (const std::uint64_t most : {1, 2, 3, 4}) {
    for (const std::uint32_t alignment : {0, 128}) {
      SCOPED_TRACE(std::to_string(most) + " tensors, alignment " + std::to_string(alignment));
      const auto paths = must(write(folder / "m.gguf", of_tensors(most), alignment));
      ASSERT_EQ(paths.size(), (5 + most - 1) / most);
      EXPECT_EQ(paths[0], (folder / ("m-00001-of-0000" + std::to_string(paths.size()) + ".gguf")).string());
      const GgufFile file = must(GgufFile::open(paths[0]));
      expect_whole(file);
      EXPECT_EQ(file.part_count(), paths.size());
      EXPECT_EQ(file.label(), paths[0]);
      std::uint64_t bytes = 0;
      for (std::uint32_t i = 0; i < file.part_count(); ++i) {
        EXPECT_EQ(file.part_label(i), paths[i]);
        bytes += std::filesystem::file_size(paths[i]);
      }
      EXPECT_EQ(file.file_bytes(), bytes);
      EXPECT_EQ(file.tensors()[4].part, paths.size() - 1);
      GgufOptions copy;
      copy.source = GgufOptions::Source::copy;
      copy.strict = true;
      expect_whole(must(GgufFile::open(paths[0], copy)));
      // The bytes outlive the handle.
      const auto data = must(file.data(file.tensors()[4]));
      auto keep = file.keep_alive();
      const std::byte* last = &data.back();
      { const GgufFile gone = std::move(file); }
      EXPECT_EQ(*last, std::byte{'e'});
    }
  }
}

TEST(GgufParts, MetadataAloneIsNoPart) {
  const TempFolder folder;
  GgufWriteOptions options;
  options.split_max_bytes = 200;
  const auto write_text = [&](std::size_t bytes) -> Result<void> {
    MLXN_TRY(GgufWriter w, GgufWriter::create(folder / "m.gguf", options));
    MLXN_CHECK(w.add("text", std::string(bytes, 't')));
    MLXN_CHECK(w.begin());
    return w.finish();
  };
  // 24 bytes of header, 12 of key, 12 of type and length.
  EXPECT_TRUE(fails_with(write_text(153), ErrorCode::limit_exceeded, {"the metadata", "200"}));
  EXPECT_TRUE(folder.names().empty());
  must(write_text(152));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"m.gguf"});
  EXPECT_EQ(std::filesystem::file_size(folder / "m.gguf"), 200u);
  EXPECT_EQ(must(must(GgufFile::open(folder / "m.gguf")).get_string("text")).size(), 152u);
}

TEST(GgufParts, PartsThatCannotAllBeReplacedAreNotReplaced) {
  const TempFolder folder;
  const auto text_of = [](const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return std::string(std::istreambuf_iterator<char>(in), {});
  };
  const auto part = [&](int i) { return folder / ("m-0000" + std::to_string(i) + "-of-00003.gguf"); };
  // A folder takes the name of part `blocked` when all bytes are written.
  const auto write_blocked = [&](int blocked) -> Result<void> {
    MLXN_TRY(GgufWriter w, GgufWriter::create(folder / "m.gguf", of_tensors(1)));
    for (const char* name : {"a", "b", "c"}) MLXN_CHECK(w.add_tensor(name, DType::f32, std::array{std::uint64_t{1}}));
    MLXN_CHECK(w.begin());
    MLXN_CHECK(w.write(std::array<std::byte, 12>{}));
    std::filesystem::remove(part(blocked));
    std::filesystem::create_directory(part(blocked));
    const Result<void> done = w.finish();
    std::filesystem::remove(part(blocked));
    return done;
  };
  for (const int blocked : {1, 2, 3}) {
    SCOPED_TRACE(blocked);
    EXPECT_TRUE(fails_with(write_blocked(blocked), ErrorCode::io, {"m-0000" + std::to_string(blocked), "directory"}));
    EXPECT_TRUE(folder.names().empty());
    for (const int i : {1, 2, 3}) std::ofstream(part(i)) << "old " << i;
    EXPECT_TRUE(fails_with(write_blocked(blocked), ErrorCode::io, {"m-0000" + std::to_string(blocked), "directory"}));
    for (const int i : {1, 2, 3}) {
      if (i == blocked) continue;
      EXPECT_EQ(text_of(part(i)), "old " + std::to_string(i));
    }
    EXPECT_EQ(folder.names().size(), 2u);
    for (const int i : {1, 2, 3}) std::filesystem::remove(part(i));
  }
  for (const int i : {1, 2, 3}) std::ofstream(part(i)) << "old " << i;
  must(write(folder / "m.gguf", of_tensors(2)));
  EXPECT_EQ(folder.names().size(), 3u);
  expect_whole(must(GgufFile::open(part(1))));
}

TEST(GgufParts, PartsKeepTheirSize) {
  const TempFolder folder;
  for (const std::uint64_t most : {1600, 2000, 2500, 4000}) {
    GgufWriteOptions options;
    options.split_max_bytes = most;
    const auto paths = must(write(folder / "m.gguf", options));
    EXPECT_GT(paths.size(), 1u) << most;
    for (const std::string& path : paths) EXPECT_LE(std::filesystem::file_size(path), most) << path;
    expect_whole(must(GgufFile::open(paths[0])));
    std::filesystem::remove_all(folder / "");
    std::filesystem::create_directory(folder / "");
  }
  GgufWriteOptions options;
  options.split_max_bytes = 1400;
  EXPECT_TRUE(fails_with(write(folder / "m.gguf", options), ErrorCode::limit_exceeded, {"'e'", "1400"}));
  options.split_max_bytes = 100;
  EXPECT_TRUE(fails_with(write(folder / "m.gguf", options), ErrorCode::limit_exceeded, {"metadata", "100"}));
  EXPECT_TRUE(folder.names().empty());
}

TEST(GgufParts, MetadataMayFillThePartThatIsFirst) {
  const TempFolder folder;
  GgufWriteOptions options;
  options.split_max_bytes = 4000;
  GgufWriter w = must(GgufWriter::create(folder / "m.gguf", options));
  must(w.add("general.description", std::string(3600, 'x')));
  must(w.add_tensor("a", DType::f32, std::array{std::uint64_t{512}}));
  must(w.begin());
  must(w.write(std::vector<std::byte>(2048, std::byte{1})));
  must(w.finish());
  const GgufFile file = must(GgufFile::open(w.paths()[0]));
  EXPECT_EQ(file.part_count(), 2u);
  EXPECT_EQ(file.tensors()[0].part, 1u);
  EXPECT_EQ(must(file.data(file.tensors()[0])).size(), 2048u);
}

TEST(GgufParts, SaysWhichFileIsWanted) {
  const TempFolder folder;
  const auto paths = must(write(folder / "m.gguf", of_tensors(2)));
  EXPECT_TRUE(fails_with(GgufFile::open(paths[2]), ErrorCode::invalid_argument, {paths[2], "part 3 of 3", paths[0]}));
  GgufOptions single;
  single.parts = GgufOptions::Parts::single;
  EXPECT_EQ(must(GgufFile::open(paths[2], single)).tensors().size(), 1u);
  EXPECT_EQ(must(GgufFile::open(paths[0], single)).tensors().size(), 2u);

  std::filesystem::rename(paths[1], folder / "elsewhere");
  const auto missing = GgufFile::open(paths[0]);
  EXPECT_TRUE(fails_with(missing, ErrorCode::io, {"part 2 of 3", paths[1]}));
  EXPECT_EQ(missing ? 0 : missing.error().native_code(), ENOENT);
  std::filesystem::copy(paths[2], paths[1]);
  EXPECT_TRUE(fails_with(GgufFile::open(paths[0]), ErrorCode::corrupt_file, {paths[1], "part 3", "wanted part 2"}));
  std::filesystem::remove(paths[1]);
  std::ofstream(paths[1]) << "no model, but a text that is longer than a header";
  EXPECT_TRUE(fails_with(GgufFile::open(paths[0]), ErrorCode::corrupt_file, {"part 2 of 3", "no GGUF"}));

  std::filesystem::rename(paths[0], folder / "renamed.gguf");
  EXPECT_TRUE(fails_with(GgufFile::open(folder / "renamed.gguf"), ErrorCode::invalid_argument, {"part 1 of 3", "-00001-of-00003.gguf"}));
}

struct Numbers {
  std::uint16_t no, count;
  std::int32_t tensors;
  std::vector<std::string> names;
};
GgufFile part(const Numbers& n) {
  GgufBuilder b;
  b.scalar("split.no", n.no).scalar("split.count", n.count).scalar("split.tensors.count", n.tensors);
  for (const std::string& name : n.names) b.tensor(name, {1}, 0, "1234");
  const auto bytes = std::make_shared<std::vector<std::byte>>(b.build());
  return must(GgufFile::parse(*bytes, {}, bytes));
}

TEST(GgufParts, PartsThatDoNotBelongTogetherAreRefused) {
  const auto join = [](const std::vector<Numbers>& numbers) {
    std::vector<GgufFile> parts;
    for (const Numbers& n : numbers) parts.push_back(part(n));
    return GgufFile::join(parts);
  };
  EXPECT_EQ(must(join({{0, 2, 3, {"a", "b"}}, {1, 2, 3, {"c"}}})).tensors().size(), 3u);
  const auto bad = ErrorCode::corrupt_file;
  EXPECT_TRUE(fails_with(join({{0, 2, 2, {"a"}}, {0, 2, 2, {"b"}}}), bad, {"part 1", "wanted part 2"}));
  EXPECT_TRUE(fails_with(join({{0, 2, 2, {"a"}}, {1, 3, 2, {"b"}}}), bad, {"3 parts", "wanted 2"}));
  EXPECT_TRUE(fails_with(join({{0, 2, 2, {"a"}}, {1, 2, 3, {"b"}}}), bad, {"3 tensors", "2"}));
  EXPECT_TRUE(fails_with(join({{0, 2, 3, {"a"}}, {1, 2, 3, {"b"}}}), bad, {"2 tensors", "3"}));
  EXPECT_TRUE(fails_with(join({{0, 2, 2, {"a"}}, {1, 2, 2, {"a"}}}), bad, {"'a'", "memory"}));
  EXPECT_TRUE(fails_with(join({{0, 2, -2, {"a"}}, {1, 2, -2, {"b"}}}), bad, {"split.tensors.count", "-2"}));
  EXPECT_TRUE(fails_with(join({}), ErrorCode::invalid_argument, {"no parts"}));

  const auto plain = GgufBuilder().tensor("x", {1}, 0, "1234").build();
  const std::vector<GgufFile> mixed = {part({0, 2, 2, {"a"}}), must(GgufFile::parse(plain))};
  const auto without = GgufFile::join(mixed);
  EXPECT_TRUE(fails_with(without, bad, {"split.no"}));
  EXPECT_EQ(without ? "" : without.error().rule(), "split");
  const std::vector<GgufFile> nested = {must(join({{0, 2, 2, {"a"}}, {1, 2, 2, {"b"}}}))};
  EXPECT_TRUE(fails_with(GgufFile::join(nested), ErrorCode::invalid_argument, {"2 parts"}));

  const TempFolder folder;
  const auto number = GgufBuilder().text("split.count", "three").build();
  std::ofstream(folder / "x-00001-of-00003.gguf").write(reinterpret_cast<const char*>(number.data()), static_cast<std::streamsize>(number.size()));
  EXPECT_TRUE(fails_with(GgufFile::open(folder / "x-00001-of-00003.gguf"), bad, {"split.count", "string"}));
  const auto beyond = GgufBuilder().scalar<std::uint16_t>("split.count", 3).scalar<std::uint16_t>("split.no", 3).build();
  std::ofstream(folder / "y-00001-of-00003.gguf").write(reinterpret_cast<const char*>(beyond.data()), static_cast<std::streamsize>(beyond.size()));
  EXPECT_TRUE(fails_with(GgufFile::open(folder / "y-00001-of-00003.gguf"), bad, {"split.no", "3"}));
}

TEST(GgufParts, NamesOfParts) {
  EXPECT_EQ(must(gguf_part_path("a/b", 3, 12)), "a/b-00003-of-00012.gguf");
  EXPECT_TRUE(fails_with(gguf_part_path("a", 0, 2), ErrorCode::out_of_range, {"part 0 of 2"}));
  EXPECT_TRUE(fails_with(gguf_part_path("a", 3, 2), ErrorCode::out_of_range, {"part 3 of 2"}));
  EXPECT_TRUE(fails_with(gguf_part_path("a", 1, 65536), ErrorCode::out_of_range, {"65535"}));
}

// ---- a file through a function

GgufSource source_of(const std::vector<std::byte>& bytes, std::uint64_t* served) {
  GgufSource source;
  source.label = "archive";
  source.bytes = bytes.size();
  source.read = [&bytes, served](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    EXPECT_FALSE(out.empty());
    EXPECT_LE(offset + out.size(), bytes.size());
    *served += out.size();
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    return {};
  };
  return source;
}

TEST(GgufSource, ReadsTheHeaderAndWhatIsAskedFor) {
  // A header beyond the first read, and data that opening must not touch.
  GgufBuilder b;
  b.strings("tokenizer.ggml.tokens", std::vector<std::string>(20'000, "a token of some length"));
  b.tensor("t", {1 << 20}, 0, std::string(4 << 20, 't')).tensor("u", {4}, 0, "0123456789abcdef").tensor_at("unknown", {1}, 97, 0);
  const auto bytes = b.build();
  std::uint64_t served = 0;
  const GgufFile file = must(GgufFile::open(source_of(bytes, &served)));
  EXPECT_LT(served, bytes.size() / 2);
  EXPECT_EQ(file.label(), "archive");
  EXPECT_EQ(file.file_bytes(), bytes.size());
  EXPECT_FALSE(file.in_place());
  EXPECT_EQ(must(file.get_strings("tokenizer.ggml.tokens"))[19'999], "a token of some length");
  const GgufTensor& u = *file.find_tensor("u");
  EXPECT_TRUE(fails_with(file.data(u), ErrorCode::unsupported, {"'u'", "read()"}));
  std::array<std::byte, 4> out{};
  must(file.read(u, 10, out));
  EXPECT_EQ(std::memcmp(out.data(), "abcd", 4), 0);
  EXPECT_TRUE(fails_with(file.read(u, 13, out), ErrorCode::out_of_range, {"4 bytes from byte 13", "'u'", "16"}));
  EXPECT_TRUE(fails_with(file.read(u, 17, {}), ErrorCode::out_of_range, {"byte 17"}));
  EXPECT_TRUE(fails_with(file.read(*file.find_tensor("unknown"), 0, {}), ErrorCode::unsupported, {"97"}));
  file.will_need(u);
  file.drop_pages(u);
}

TEST(GgufSource, ErrorsArePassedOn) {
  const auto bytes = GgufBuilder().tensor("t", {4}, 0, std::string(16, 't')).build();
  std::uint64_t served = 0;
  bool broken = false;
  GgufSource source = source_of(bytes, &served);
  source.read = [&, good = source.read](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    if (broken) return Error(ErrorCode::timeout, "the line is dead");
    return good(offset, out);
  };
  const GgufFile file = must(GgufFile::open(source));
  broken = true;
  std::array<std::byte, 4> out{};
  EXPECT_TRUE(fails_with(file.read(file.tensors()[0], 0, out), ErrorCode::timeout, {"archive", "dead"}));
  EXPECT_TRUE(fails_with(GgufFile::open(source), ErrorCode::timeout, {"archive", "dead"}));
  source.read = nullptr;
  EXPECT_TRUE(fails_with(GgufFile::open(source), ErrorCode::invalid_argument, {"archive", "no function"}));
  // Cut files are refused as they are in memory.
  for (std::size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    const auto there = GgufFile::parse(cut), here = GgufFile::open(source_of(cut, &served));
    ASSERT_EQ(there.has_value(), here.has_value()) << size;
    EXPECT_EQ(there ? "" : there.error().rule(), here ? "" : here.error().rule()) << size;
  }
}

}  // namespace
}  // namespace mlxn
