#include "io/mapped_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "gtest/gtest.h"
#include "tests/formats/temp_file.h"

namespace mlxn::io {
namespace {

std::vector<std::byte> pattern(std::size_t size) {
  std::vector<std::byte> out(size);
  for (std::size_t i = 0; i < size; ++i) out[i] = static_cast<std::byte>(i * 31 + i / 256);
  return out;
}

TEST(MappedFile, BothModesShowTheSameBytes) {
  const auto bytes = pattern(100'001);
  const testing::TempFile temp(bytes);
  for (const auto mode : {MappedFile::Mode::map, MappedFile::Mode::copy}) {
    const auto file = MappedFile::open(temp.path(), mode);
    ASSERT_TRUE(file) << file.error().message();
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), (*file)->bytes().begin(), (*file)->bytes().end()));
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>((*file)->bytes().data()) % 4096, 0u);
  }
}

TEST(MappedFile, AdviceNeverChangesBytes) {
  const auto bytes = pattern(100'001);
  const testing::TempFile temp(bytes);
  for (const auto mode : {MappedFile::Mode::map, MappedFile::Mode::copy}) {
    const auto file = MappedFile::open(temp.path(), mode);
    ASSERT_TRUE(file);
    const std::uint64_t past = ~std::uint64_t{0};
    for (const std::uint64_t offset : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{4096},
                                       std::uint64_t{100'000}, std::uint64_t{100'001}, past}) {
      for (const std::uint64_t length : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{5000}, past}) {
        (*file)->drop_pages(offset, length);
        (*file)->will_need(offset, length);
        (*file)->sequential(offset, length);
      }
    }
    EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), (*file)->bytes().begin()));
  }
}

TEST(MappedFile, ErrorsNameThePathAndTheReason) {
  const auto missing = MappedFile::open("/nonexistent/model.gguf");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code(), ErrorCode::io);
  EXPECT_EQ(missing.error().native_code(), ENOENT);
  EXPECT_NE(missing.error().message().find("/nonexistent/model.gguf"), std::string_view::npos);
  EXPECT_NE(missing.error().message().find("No such file"), std::string_view::npos);

  const auto directory = MappedFile::open(std::filesystem::temp_directory_path());
  ASSERT_FALSE(directory);
  EXPECT_EQ(directory.error().native_code(), EISDIR);

  const testing::TempFile empty({});
  EXPECT_EQ(MappedFile::open(empty.path()).error().code(), ErrorCode::corrupt_file);
}

TEST(MappedFile, PipesAreRefusedWithoutWaiting) {
  const testing::TempFile temp({});
  std::filesystem::remove(temp.path());
  ASSERT_EQ(::mkfifo(temp.path().c_str(), 0600), 0);
  const auto pipe = MappedFile::open(temp.path());
  ASSERT_FALSE(pipe);
  EXPECT_EQ(pipe.error().code(), ErrorCode::io);
}

TEST(MappedFile, UnreadableFile) {
  if (::geteuid() == 0) GTEST_SKIP() << "root reads every file";
  const auto bytes = pattern(10);
  const testing::TempFile temp(bytes);
  std::filesystem::permissions(temp.path(), std::filesystem::perms::none);
  EXPECT_EQ(MappedFile::open(temp.path()).error().native_code(), EACCES);
}

TEST(MappedFile, ShrinkingIsNoticed) {
  const auto bytes = pattern(10'000);
  const testing::TempFile temp(bytes);
  const auto mapped = MappedFile::open(temp.path());
  const auto copied = MappedFile::open(temp.path(), MappedFile::Mode::copy);
  ASSERT_TRUE(mapped && copied);
  EXPECT_TRUE((*mapped)->check_size());
  std::filesystem::resize_file(temp.path(), 9'999);
  EXPECT_EQ((*mapped)->check_size().error().code(), ErrorCode::io);
  EXPECT_TRUE((*copied)->check_size());
}

}  // namespace
}  // namespace mlxn::io
