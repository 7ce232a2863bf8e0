// What the writer writes, the reader reads, bit for bit; what cannot be written is refused; nothing half-written is left.
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>

#include "gtest/gtest.h"
#include "mlxn/gguf_writer.h"
#include "tests/formats/gguf_builder.h"
#include "tests/formats/temp_folder.h"
#include "tests/support/must.h"
#include "tests/support/random.h"
#include "tests/support/source_dir.h"

namespace mlxn {
namespace {

using test::fails_with;
using test::must;
using testing::GgufBuilder;
using testing::TempFolder;

std::vector<std::byte> bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(in), {});
  const auto* p = reinterpret_cast<const std::byte*>(text.data());
  return {p, p + text.size()};
}

/// Everything that is in `file`, written again.
Result<void> copy(const GgufFile& file, GgufWriter& writer) {
  for (const GgufValue& value : file.values()) MLXN_CHECK(writer.add(value));
  for (const GgufTensor& t : file.tensors()) MLXN_CHECK(writer.add_tensor(t.name, *t.dtype, t.dims()));
  MLXN_CHECK(writer.begin());
  for (const GgufTensor& t : file.tensors()) {
    MLXN_TRY(const auto data, file.data(t));
    MLXN_CHECK(writer.write_tensor(t.name, data));
  }
  return writer.finish();
}

std::vector<std::byte> copied(const GgufFile& file) {
  const TempFolder folder;
  GgufWriter writer = must(GgufWriter::create(folder / "copy.gguf"));
  must(copy(file, writer));
  EXPECT_EQ(folder.names(), std::vector<std::string>{"copy.gguf"});
  const auto bytes = bytes_of(folder / "copy.gguf");
  EXPECT_EQ(writer.file_bytes(), bytes.size());
  return bytes;
}

TEST(GgufWriter, EveryTypeOfValueComesBackBitForBit) {
  GgufBuilder b;
  b.alignment = 64;
  b.text("general.architecture", "llama").scalar<std::uint32_t>("general.alignment", 64);
  b.scalar<std::uint8_t>("u8", 200).scalar<std::int8_t>("i8", -5).scalar<std::uint16_t>("u16", 60000);
  b.scalar<std::int16_t>("i16", -300).scalar<std::uint32_t>("u32", 4'000'000'000u).scalar<std::int32_t>("i32", -7);
  b.scalar("u64", std::numeric_limits<std::uint64_t>::max()).scalar("i64", std::numeric_limits<std::int64_t>::min());
  b.scalar("f32", std::numeric_limits<float>::signaling_NaN()).scalar("f64", -0.0).scalar("yes", true).text("empty", "");
  b.array<std::uint8_t>("a u8", {1, 2, 3}).array<std::int8_t>("a i8", {-1}).array<std::uint16_t>("a u16", {65535});
  b.array<std::int16_t>("a i16", {}).array<std::uint32_t>("a u32", {1u << 31}).array<std::int32_t>("a i32", {-1, 1});
  b.array<float>("a f32", {1.5f}).array<bool>("a bool", {true, false}).array<std::uint64_t>("a u64", {1ull << 63});
  b.array<std::int64_t>("a i64", {-1}).array<double>("a f64", {0.1}).strings("a string", {"", "\xff\xfe", "abc"});
  b.strings("no strings", {});
  b.tensor("blocks", {32, 3}, 2, std::string(54, 'q')).tensor("empty", {32, 0}, 8, "").tensor("one", {}, 0, "abcd");
  b.tensor("halves", {3, 1, 2, 2}, 1, std::string(24, 'h')).tensor("unknown to kernels", {256}, 17, std::string(74, 'i'));
  const auto bytes = b.build();
  EXPECT_EQ(copied(must(GgufFile::parse(bytes))), bytes);
}

TEST(GgufWriter, FilesOfTheReferenceWriterAreCopiedBitForBit) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_dir() + "/data/demo")) {
    if (entry.path().extension() != ".gguf") continue;
    EXPECT_EQ(copied(must(GgufFile::open(entry.path()))), bytes_of(entry.path())) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 5);
}

// Random descriptions: what was put in is found by the reader, and a copy of the file is the file.
class RandomFile {
 public:
  explicit RandomFile(std::uint64_t seed) : random_(seed) {}

  void describe(GgufWriter& writer) {
    const std::uint64_t entries = random_.below(20);
    for (std::uint64_t i = 0; i < entries; ++i) entry(writer, "key." + std::to_string(i) + ":" + text(10));
    const std::uint64_t tensors = random_.below(8);
    for (std::uint64_t i = 0; i < tensors; ++i) tensor(writer, "tensor." + std::to_string(i) + ":" + text(20));
  }
  void write(GgufWriter& writer) {
    // In portions that know nothing of tensors.
    for (std::size_t at = 0; at < data_.size();) {
      const std::size_t count = std::min<std::size_t>(data_.size() - at, 1 + random_.below(400));
      must(writer.write(std::span(data_).subspan(at, count)));
      at += count;
    }
  }
  void check(const GgufFile& file) const {
    ASSERT_EQ(file.values().size(), checks_.size() + (aligned_ ? 1 : 0));
    for (const auto& found : checks_) found(file);
    ASSERT_EQ(file.tensors().size(), tensors_.size());
    std::size_t at = 0;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      const GgufTensor& t = file.tensors()[i];
      EXPECT_EQ(t.name, tensors_[i].name);
      EXPECT_EQ(t.dtype, tensors_[i].type);
      EXPECT_TRUE(std::equal(t.dims().begin(), t.dims().end(), tensors_[i].ne.begin(), tensors_[i].ne.end()));
      const auto data = must(file.data(t));
      ASSERT_LE(at + data.size(), data_.size());
      EXPECT_TRUE(std::equal(data.begin(), data.end(), data_.begin() + static_cast<std::ptrdiff_t>(at)));
      at += data.size();
    }
    EXPECT_EQ(at, data_.size());
  }

 private:
  struct Tensor {
    std::string name;
    DType type;
    std::vector<std::uint64_t> ne;
  };

  std::string text(std::uint64_t longest) {
    std::string out(random_.below(longest + 1), ' ');
    for (char& c : out) c = static_cast<char>(' ' + random_.below(95));
    return out;
  }
  template <class T>
  T number() {
    if constexpr (std::is_same_v<T, bool>) return random_.below(2) != 0;
    if constexpr (std::is_floating_point_v<T>) return static_cast<T>(random_.uniform(-1000, 1000));
    return static_cast<T>(random_.bits());
  }
  template <class T>
  void scalar(GgufWriter& writer, const std::string& key) {
    const T value = number<T>();
    must(writer.add<T>(key, value));
    checks_.push_back([key, value](const GgufFile& file) {
      const GgufValue* found = file.find(key);
      ASSERT_NE(found, nullptr) << key;
      EXPECT_EQ(found->type(), *detail::kGgufTypeOf<T>);
      if constexpr (std::is_same_v<T, bool>) {
        EXPECT_EQ(must(found->as_bool()), value);
      } else if constexpr (std::is_floating_point_v<T>) {
        EXPECT_EQ(must(found->as_float()), static_cast<double>(value));
      } else if constexpr (std::is_signed_v<T>) {
        EXPECT_EQ(must(found->as_int()), value);
      } else {
        EXPECT_EQ(must(found->as_uint()), value);
      }
    });
  }
  template <class T>
  void array(GgufWriter& writer, const std::string& key) {
    std::array<T, 40> values{};
    const std::size_t count = random_.below(values.size());
    for (std::size_t i = 0; i < count; ++i) values[i] = number<T>();
    must(writer.add_array<T>(key, std::span<const T>(values).first(count)));
    checks_.push_back([key, values, count](const GgufFile& file) {
      const auto found = must(file.get_array<T>(key));
      EXPECT_TRUE(std::equal(found.begin(), found.end(), values.begin(), values.begin() + static_cast<std::ptrdiff_t>(count)));
    });
  }
  template <class T>
  void scalar_or_array(GgufWriter& writer, const std::string& key) {
    if (random_.below(2) == 0) return scalar<T>(writer, key);
    array<T>(writer, key);
  }
  void entry(GgufWriter& writer, const std::string& key) {
    switch (random_.below(14)) {
      case 0: return scalar_or_array<std::uint8_t>(writer, key);
      case 1: return scalar_or_array<std::int8_t>(writer, key);
      case 2: return scalar_or_array<std::uint16_t>(writer, key);
      case 3: return scalar_or_array<std::int16_t>(writer, key);
      case 4: return scalar_or_array<std::uint32_t>(writer, key);
      case 5: return scalar_or_array<std::int32_t>(writer, key);
      case 6: return scalar_or_array<float>(writer, key);
      case 7: return scalar_or_array<bool>(writer, key);
      case 8: return scalar_or_array<std::uint64_t>(writer, key);
      case 9: return scalar_or_array<std::int64_t>(writer, key);
      case 10: return scalar_or_array<double>(writer, key);
      case 11: {
        if (aligned_) return scalar<float>(writer, key);
        aligned_ = true;
        must(writer.add<std::uint32_t>("general.alignment", 8u << random_.below(8)));
        return scalar<float>(writer, key);
      }
      case 12: {
        const std::string value = text(50) + "\u00fc\u4e2d";
        must(writer.add(key, value));
        checks_.push_back([key, value](const GgufFile& file) { EXPECT_EQ(must(file.get_string(key)), value); });
        return;
      }
      default: {
        std::vector<std::string> values(random_.below(10));
        for (std::string& v : values) v = text(20) + static_cast<char>(random_.below(256));
        must(writer.add_strings(key, values));
        checks_.push_back([key, values](const GgufFile& file) {
          const auto found = must(file.get_strings(key));
          EXPECT_TRUE(std::equal(found.begin(), found.end(), values.begin(), values.end()));
        });
      }
    }
  }
  void tensor(GgufWriter& writer, const std::string& name) {
    constexpr DType types[] = {DType::f32, DType::f16, DType::q4_0, DType::q8_0, DType::q6_K, DType::i8, DType::iq1_s};
    Tensor t{name, types[random_.below(std::size(types))], std::vector<std::uint64_t>(random_.below(5))};
    if (t.ne.empty() && block_elems(t.type) != 1) t.ne.push_back(0);
    std::uint64_t elems = 1;
    for (std::size_t d = 0; d < t.ne.size(); ++d) {
      t.ne[d] = random_.below(5) * (d == 0 ? block_elems(t.type) : 1);
      elems *= t.ne[d];
    }
    must(writer.add_tensor(t.name, t.type, t.ne));
    for (std::uint64_t i = *storage_bytes(t.type, elems); i > 0; --i) data_.push_back(static_cast<std::byte>(random_.bits()));
    tensors_.push_back(std::move(t));
  }

  test::Random random_;
  std::vector<std::function<void(const GgufFile&)>> checks_;
  std::vector<Tensor> tensors_;
  std::vector<std::byte> data_;
  bool aligned_ = false;
};

TEST(GgufWriter, RandomFilesComeBack) {
  for (std::uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE(test::Random(seed).trace());
    const TempFolder folder;
    RandomFile random(seed);
    GgufWriter writer = must(GgufWriter::create(folder / "random.gguf"));
    random.describe(writer);
    must(writer.begin());
    random.write(writer);
    must(writer.finish());
    GgufOptions options;
    options.strict = true;
    const GgufFile file = must(GgufFile::open(folder / "random.gguf", options));
    random.check(file);
    EXPECT_EQ(copied(file), bytes_of(folder / "random.gguf"));
    if (HasFailure()) return;
  }
}

TEST(GgufWriter, RefusesBadMetadata) {
  const TempFolder folder;
  GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
  const auto bad = ErrorCode::invalid_argument;
  EXPECT_TRUE(fails_with(w.add<std::uint8_t>("", 1), bad, {"key", "0 bytes", "65535"}));
  EXPECT_TRUE(fails_with(w.add<std::uint8_t>(std::string(65536, 'k'), 1), bad, {"65536 bytes"}));
  EXPECT_TRUE(fails_with(w.add<std::uint8_t>("k\n", 1), bad, {"k\\x0a", "printable ASCII"}));
  EXPECT_TRUE(fails_with(w.add("k", "\xff"), bad, {"'k'", "UTF-8"}));
  must(w.add("k", "text"));
  EXPECT_TRUE(fails_with(w.add<std::uint8_t>("k", 1), bad, {"'k'", "before"}));
  EXPECT_TRUE(fails_with(w.add("k", "again"), bad, {"'k'", "before"}));
  EXPECT_TRUE(fails_with(w.add_strings("k", {}), bad, {"'k'", "before"}));
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) {
    EXPECT_TRUE(fails_with(w.add<std::uint16_t>(key, 1), bad, {key, "writer"}));
  }
  EXPECT_TRUE(fails_with(w.add<std::uint32_t>("general.alignment", 48), bad, {"48", "power of two", "8 to 1048576"}));
  EXPECT_TRUE(fails_with(w.add<std::uint32_t>("general.alignment", 4), bad, {"power of two"}));
  EXPECT_TRUE(fails_with(w.add<std::uint32_t>("general.alignment", 1u << 21), bad, {"power of two"}));
  EXPECT_TRUE(fails_with(w.add<std::uint64_t>("general.alignment", 64), bad, {"u64", "u32"}));
  EXPECT_TRUE(fails_with(w.add("general.alignment", 3), bad, {"type i32,", "u32"}));
  EXPECT_TRUE(fails_with(w.add<std::uint8_t>("general.alignment", 65), bad, {"type u8,"}));
  EXPECT_TRUE(fails_with(w.add<std::int64_t>("general.alignment", -8), bad, {"type i64,"}));
  EXPECT_TRUE(fails_with(w.add("general.alignment", 64.5), bad, {"type f64,"}));
  EXPECT_TRUE(fails_with(w.add("general.alignment", true), bad, {"type bool,"}));
  EXPECT_TRUE(fails_with(w.add("general.alignment", "64"), bad, {"string", "u32"}));
  EXPECT_TRUE(fails_with(w.add_array<std::uint32_t>("general.alignment", {}), bad, {"array", "u32"}));

  GgufBuilder nested;
  testing::ByteWriter value;
  value.number<std::uint32_t>(9).number<std::uint64_t>(0);
  nested.entry("nested", 9, value);
  const auto bytes = nested.build();
  const GgufFile file = must(GgufFile::parse(bytes));
  EXPECT_TRUE(fails_with(w.add(file.values()[0]), ErrorCode::unsupported, {"nested", "arrays of arrays"}));

  // None of this has spoiled the writer.
  must(w.begin());
  must(w.finish());
  EXPECT_EQ(must(GgufFile::open(folder / "x.gguf")).values().size(), 1u);
}

TEST(GgufWriter, RefusesBadTensors) {
  const TempFolder folder;
  GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
  const auto add = [&](std::string_view name, DType type, std::vector<std::uint64_t> ne) { return w.add_tensor(name, type, ne); };
  const auto bad = ErrorCode::invalid_argument, shape = ErrorCode::bad_shape;
  EXPECT_TRUE(fails_with(add("", DType::f32, {4}), bad, {"0 bytes", "1 to 63"}));
  EXPECT_TRUE(fails_with(add(std::string(64, 'n'), DType::f32, {4}), bad, {"64 bytes", "1 to 63"}));
  EXPECT_TRUE(fails_with(add(std::string_view("a\0b", 3), DType::f32, {4}), bad, {"NUL"}));
  EXPECT_TRUE(fails_with(add("\xff", DType::f32, {4}), bad, {"UTF-8"}));
  must(add("t", DType::f32, {4}));
  EXPECT_TRUE(fails_with(add("t", DType::f32, {4}), bad, {"'t'", "before"}));
  EXPECT_TRUE(fails_with(add("u", DType::f32, {1, 1, 1, 1, 1}), shape, {"5 dimensions", "0 to 4"}));
  EXPECT_TRUE(fails_with(add("u", DType::f32, {(1ull << 48) + 1}), shape, {"2^48"}));
  EXPECT_TRUE(fails_with(add("u", DType::f32, {1ull << 40, 1ull << 40}), shape, {"64 bits"}));
  EXPECT_TRUE(fails_with(add("u", DType::f32, {0, 1ull << 40, 1ull << 40}), shape, {"64 bits"}));
  EXPECT_TRUE(fails_with(add("u", DType::f64, {1ull << 31, 1ull << 31}), shape, {"64 bits"}));
  EXPECT_TRUE(fails_with(add("u", DType::q4_K, {128, 2}), shape, {"'u' [128, 2]", "128 elements", "256", "q4_K"}));
  EXPECT_TRUE(fails_with(add("u", DType::q4_0, {}), shape, {"1 elements", "32"}));
  EXPECT_TRUE(fails_with(add("u", DType::u8, {4}), ErrorCode::bad_dtype, {"'u'", "u8"}));
  EXPECT_TRUE(fails_with(add("u", static_cast<DType>(200), {4}), ErrorCode::bad_dtype, {"dtype 200 is none"}));
  must(add("huge", DType::f32, {1ull << 48, 1u << 13}));
  must(add("huge too", DType::f32, {1ull << 48, 1u << 13}));
  EXPECT_TRUE(fails_with(w.begin(), shape, {"huge too", "64 bits"}));
  EXPECT_TRUE(fails_with(w.begin(), ErrorCode::wrong_state, {"begin()", "after a failure"}));

  GgufWriteOptions lenient;
  lenient.lenient_names = true;
  GgufWriter l = must(GgufWriter::create(folder / "l.gguf", lenient));
  must(l.add_tensor(std::string(255, 'n'), DType::f32, {}));
  EXPECT_TRUE(fails_with(l.add_tensor(std::string(256, 'n'), DType::f32, {}), bad, {"1 to 255"}));
  EXPECT_TRUE(folder.names().empty());
}

TEST(GgufWriter, RefusesCallsOutOfOrder) {
  const TempFolder folder;
  const auto state = ErrorCode::wrong_state;
  const std::array<std::byte, 16> four{};
  const std::vector<std::uint64_t> ne = {4};
  GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
  EXPECT_TRUE(fails_with(w.write(four), state, {"write()", "before begin()"}));
  EXPECT_TRUE(fails_with(w.finish(), state, {"finish()", "before begin()"}));
  must(w.add_tensor("a", DType::f32, ne));
  must(w.add_tensor("b", DType::f32, ne));
  must(w.begin());
  EXPECT_TRUE(fails_with(w.add<bool>("k", true), state, {"add()", "after begin()"}));
  EXPECT_TRUE(fails_with(w.add("k", "t"), state, {"add()"}));
  EXPECT_TRUE(fails_with(w.add_strings("k", {}), state, {"add()"}));
  EXPECT_TRUE(fails_with(w.add_tensor("c", DType::f32, ne), state, {"add_tensor()"}));
  EXPECT_TRUE(fails_with(w.begin(), state, {"begin()"}));
  EXPECT_TRUE(fails_with(w.write_tensor("b", four), state, {"'b'", "'a' from byte 0"}));
  EXPECT_TRUE(fails_with(w.write_tensor("a", std::span(four).first(8)), ErrorCode::bad_shape, {"8 bytes", "16"}));
  must(w.write_tensor("a", four));
  must(w.write(std::span(four).first(3)));
  EXPECT_TRUE(fails_with(w.write_tensor("b", four), state, {"from byte 3"}));
  EXPECT_TRUE(fails_with(w.finish(), state, {"'b'", "3 of its 16"}));
  EXPECT_TRUE(fails_with(w.write(four), state, {"after a failure"}));
  EXPECT_TRUE(folder.names().empty());

  GgufWriter more = must(GgufWriter::create(folder / "x.gguf"));
  must(more.add_tensor("a", DType::f32, ne));
  must(more.begin());
  must(more.write(four));
  EXPECT_TRUE(fails_with(more.write_tensor("a", four), state, {"no more"}));
  EXPECT_TRUE(fails_with(more.write(std::span(four).first(1)), ErrorCode::out_of_range, {"1 bytes more"}));
  EXPECT_TRUE(folder.names().empty());

  GgufWriter done = must(GgufWriter::create(folder / "x.gguf"));
  must(done.begin());
  must(done.finish());
  EXPECT_TRUE(fails_with(done.finish(), state, {"after finish()"}));
  GgufWriter moved = std::move(done);
  EXPECT_TRUE(fails_with(done.finish(), state, {"moved from"}));  // NOLINT: that is the test
  EXPECT_TRUE(fails_with(done.add<bool>("k", true), state, {"moved from"}));
}

TEST(GgufWriter, LeavesNothingHalfWritten) {
  const TempFolder folder;
  const std::vector<std::uint64_t> ne = {1 << 18};
  const std::vector<std::byte> mib(1 << 20, std::byte{7});
  std::ofstream(folder / "x.gguf") << "old";
  {
    GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
    must(w.add_tensor("a", DType::f32, ne));
    must(w.begin());
    must(w.write(std::span(mib).first(1000)));
    EXPECT_EQ(folder.names().size(), 2u);  // the old file and the temporary one
    EXPECT_EQ(bytes_of(folder / "x.gguf").size(), 3u);
  }
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x.gguf"});
  EXPECT_EQ(bytes_of(folder / "x.gguf").size(), 3u);

  // A file that may not grow beyond half the tensor stands for a full disk.
  struct rlimit old = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = signal(SIGXFSZ, SIG_IGN);
  const struct rlimit half = {1 << 19, old.rlim_max};
  {
    GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
    must(w.add_tensor("a", DType::f32, ne));
    must(w.begin());
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &half), 0);
    const auto written = w.write(mib);
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old), 0);
    EXPECT_TRUE(fails_with(written, ErrorCode::io, {"x.gguf", "cannot write"}));
    EXPECT_EQ(written ? 0 : written.error().native_code(), EFBIG);
    EXPECT_EQ(folder.names(), std::vector<std::string>{"x.gguf"});
    EXPECT_TRUE(fails_with(w.finish(), ErrorCode::wrong_state, {"after a failure"}));
  }
  signal(SIGXFSZ, handler);
  EXPECT_EQ(bytes_of(folder / "x.gguf").size(), 3u);

  GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
  must(w.add_tensor("a", DType::f32, ne));
  must(w.begin());
  must(w.write(mib));
  must(w.finish());
  EXPECT_EQ(folder.names(), std::vector<std::string>{"x.gguf"});
  EXPECT_EQ(must(GgufFile::open(folder / "x.gguf")).tensors().size(), 1u);
}

TEST(GgufWriter, KeepsTheLimitsOfItsReader) {
  const auto limit = ErrorCode::limit_exceeded;
  const TempFolder folder;
  const auto path = folder / "x.gguf";
  // Without a split, the call that passes a limit fails, and the writer goes on as if it had not come.
  const auto create = [&](const GgufLimits& limits, std::uint64_t split_tensors = 0) {
    GgufWriteOptions options;
    options.limits = limits;
    options.split_max_tensors = split_tensors;
    return must(GgufWriter::create(path, options));
  };
  const auto read_back = [&](GgufWriter& w, const GgufLimits& limits) {
    must(w.begin());
    must(w.finish());
    GgufOptions options;
    options.limits = limits;
    must(GgufFile::open(path, options));
  };
  const std::vector<std::uint64_t> none = {0};
  {
    const GgufLimits limits{.tensors = 2};
    GgufWriter w = create(limits);
    must(w.add_tensor("a", DType::f32, none));
    must(w.add_tensor("b", DType::f32, none));
    EXPECT_TRUE(fails_with(w.add_tensor("c", DType::f32, none), limit, {"tensors: 3", "2"}));
    read_back(w, limits);
  }
  {
    const GgufLimits limits{.entries = 2};
    GgufWriter w = create(limits);
    must(w.add("a", "1"));
    must(w.add("b", "2"));
    EXPECT_TRUE(fails_with(w.add("c", "3"), limit, {"entries: 3", "2"}));
    read_back(w, limits);
  }
  {
    const GgufLimits limits{.string_bytes = 4, .array_elems = 3};
    GgufWriter w = create(limits);
    must(w.add("a", "1234"));
    EXPECT_TRUE(fails_with(w.add("b", "12345"), limit, {"'b'", "5", "4"}));
    must(w.add_strings("b", std::vector<std::string>{"1", "1234"}));
    EXPECT_TRUE(fails_with(w.add_strings("c", std::vector<std::string>{"1", "12345"}), limit, {"'c'", "5", "4"}));
    EXPECT_TRUE(fails_with(w.add_strings("c", std::vector<std::string>(4)), limit, {"'c'", "4", "3"}));
    must(w.add_array<std::uint8_t>("c", std::array<std::uint8_t, 3>{}));
    EXPECT_TRUE(fails_with(w.add_array<std::uint8_t>("d", std::array<std::uint8_t, 4>{}), limit, {"'d'", "4", "3"}));
    read_back(w, limits);
  }
  {
    // The last byte that fits: entries and tensors count together, whichever come first.
    const std::uint64_t all = 1 + sizeof(GgufValue) + sizeof(std::string) + 10 + 1 + sizeof(GgufTensor) + sizeof(std::string);
    const GgufLimits limits{.metadata_bytes = all};
    GgufWriter w = create(limits);
    EXPECT_TRUE(fails_with(w.add_array<std::uint8_t>("a", std::vector<std::uint8_t>(all)), limit, {"bytes of metadata"}));
    must(w.add("a", "0123456789"));
    must(w.add_tensor("t", DType::f32, none));
    EXPECT_TRUE(fails_with(w.add_tensor("u", DType::f32, none), limit, {"bytes of metadata"}));
    read_back(w, limits);
    GgufWriter other = create(limits);
    must(other.add_tensor("t", DType::f32, none));
    EXPECT_TRUE(fails_with(other.add("a", "0123456789 "), limit, {"bytes of metadata"}));
    must(other.add("a", "0123456789"));
    read_back(other, limits);
  }
  {
    // A reader's limits are those of each part, to which the writer adds three entries.
    for (const std::uint64_t entries : {1, 2}) {
      GgufWriter w = create({.entries = 4}, 1);
      for (std::uint64_t i = 0; i < entries; ++i) must(w.add("key " + std::to_string(i), true));
      must(w.add_tensor("a", DType::f32, none));
      must(w.add_tensor("b", DType::f32, none));
      const auto begun = w.begin();
      if (entries == 1) {
        must(begun);
      } else {
        EXPECT_TRUE(fails_with(begun, limit, {"entries of part 1: 5", "4"}));
      }
    }
    GgufWriter many = create({.tensors = 2}, 3);
    for (const char* name : {"a", "b", "c", "d"}) must(many.add_tensor(name, DType::f32, none));
    EXPECT_TRUE(fails_with(many.begin(), limit, {"tensors of part 1: 3", "2"}));
    GgufWriter few = create({.tensors = 2}, 2);
    for (const char* name : {"a", "b", "c", "d"}) must(few.add_tensor(name, DType::f32, none));
    must(few.begin());
    GgufWriter wide = create({.metadata_bytes = 900}, 3);
    for (int i = 0; i < 4; ++i) must(wide.add_tensor(std::string(60, static_cast<char>('a' + i)), DType::f32, none));
    EXPECT_TRUE(fails_with(wide.begin(), limit, {"bytes of metadata of part 1", "900"}));
  }
  // The defaults are those of the reader.
  GgufWriter w = must(GgufWriter::create(path));
  for (int i = 0; i < 100'000; ++i) must(w.add_tensor(std::to_string(i), DType::f32, none));
  EXPECT_TRUE(fails_with(w.add_tensor("one more", DType::f32, none), limit, {"100001", "100000"}));
  for (int i = 0; i < 65'536; ++i) must(w.add(std::to_string(i), true));
  EXPECT_TRUE(fails_with(w.add("one more", true), limit, {"65537", "65536"}));
  read_back(w, {});
}

TEST(GgufWriter, ATensorWithoutBytesMayBeNamedOrNot) {
  const TempFolder folder;
  const std::array<std::byte, 16> four{};
  GgufWriter w = must(GgufWriter::create(folder / "x.gguf"));
  must(w.add_tensor("a", DType::f32, std::array{std::uint64_t{4}}));
  must(w.add_tensor("empty", DType::f32, std::array{std::uint64_t{0}}));
  must(w.begin());
  must(w.write_tensor("empty", {}));
  EXPECT_TRUE(fails_with(w.write_tensor("a", {}), ErrorCode::bad_shape, {"0 bytes", "'a'", "16"}));
  EXPECT_TRUE(fails_with(w.write_tensor("nobody", {}), ErrorCode::wrong_state, {"'nobody'", "'a'"}));
  must(w.write_tensor("a", four));
  must(w.write_tensor("empty", {}));
  EXPECT_TRUE(fails_with(w.write_tensor("a", {}), ErrorCode::wrong_state, {"'a'", "no more"}));
  must(w.finish());
}

/// A file of one tensor with four bytes.
Result<void> write_small(const std::filesystem::path& path, char fill) {
  const std::array<std::byte, 4> bytes = {static_cast<std::byte>(fill)};
  MLXN_TRY(GgufWriter w, GgufWriter::create(path));
  MLXN_CHECK(w.add_tensor("a", DType::f32, std::array{std::uint64_t{1}}));
  MLXN_CHECK(w.begin());
  MLXN_CHECK(w.write(bytes));
  return w.finish();
}

TEST(GgufWriter, ReplacesWhatALinkLeadsTo) {
  namespace fs = std::filesystem;
  const TempFolder folder;
  fs::create_directory(folder / "far");
  std::ofstream(folder / "far" / "real.gguf") << "old";
  fs::create_symlink("far/real.gguf", folder / "near.gguf");
  fs::create_symlink("near.gguf", folder / "link.gguf");
  must(write_small(folder / "link.gguf", 'x'));
  EXPECT_TRUE(fs::is_symlink(folder / "link.gguf") && fs::is_symlink(folder / "near.gguf"));
  EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(folder / "far" / "real.gguf")));
  must(GgufFile::open(folder / "far" / "real.gguf"));
  // It need not be there.
  fs::remove(folder / "far" / "real.gguf");
  must(write_small(folder / "link.gguf", 'y'));
  EXPECT_TRUE(fs::is_symlink(folder / "link.gguf"));
  must(GgufFile::open(folder / "far" / "real.gguf"));
  fs::create_symlink("round.gguf", folder / "round.gguf");
  const auto round = write_small(folder / "round.gguf", 'z');
  EXPECT_TRUE(fails_with(round, ErrorCode::io, {"round.gguf"}));
  EXPECT_EQ(round ? 0 : round.error().native_code(), ELOOP);
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"far", "link.gguf", "near.gguf", "round.gguf"}));
}

TEST(GgufWriter, KeepsThePermissionsOfAReplacedFile) {
  namespace fs = std::filesystem;
  const TempFolder folder;
  must(write_small(folder / "x.gguf", 'x'));
  for (const fs::perms mode : {fs::perms{0600}, fs::perms{0666}, fs::perms{0755}}) {
    fs::permissions(folder / "x.gguf", mode);
    must(write_small(folder / "x.gguf", 'y'));
    EXPECT_EQ(fs::status(folder / "x.gguf").permissions(), mode);
  }
}

TEST(GgufWriter, NamesMayBeAsLongAsTheFileSystemTakes) {
  const TempFolder folder;
  const std::string longest = std::string(250, 'n') + ".gguf";
  must(write_small(folder / longest, 'x'));
  must(write_small(folder / longest, 'y'));
  EXPECT_EQ(folder.names(), std::vector<std::string>{longest});
}

TEST(GgufWriter, SaysWhatIsWrongWithTheTarget) {
  const TempFolder folder;
  const auto begin = [&](const std::filesystem::path& path, std::uint64_t elems) -> Result<void> {
    MLXN_TRY(GgufWriter w, GgufWriter::create(path));
    MLXN_CHECK(w.add_tensor("a", DType::f32, std::array{elems}));
    return w.begin();
  };
  EXPECT_TRUE(fails_with(begin(folder / "absent" / "x.gguf", 1), ErrorCode::io, {"absent"}));
  EXPECT_TRUE(fails_with(begin(folder / ".", 1), ErrorCode::io, {"directory"}));
  EXPECT_TRUE(fails_with(begin(folder / "", 1), ErrorCode::invalid_argument, {"names no file"}));
  EXPECT_TRUE(fails_with(begin("/dev/null", 1), ErrorCode::io, {"/dev/null", "regular"}));
  const auto full = begin(folder / "x.gguf", 1ull << 48);
  EXPECT_TRUE(fails_with(full, ErrorCode::io, {"x.gguf", "room"}));
  EXPECT_EQ(full ? 0 : full.error().native_code(), ENOSPC);
  EXPECT_TRUE(folder.names().empty());
}

}  // namespace
}  // namespace mlxn
