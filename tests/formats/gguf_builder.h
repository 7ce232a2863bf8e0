#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "mlxn/gguf.h"

namespace mlxn::testing {

/// Appends little-endian fields: whatever a test wants, right or wrong.
class ByteWriter {
 public:
  template <class T>
  ByteWriter& number(T value) {
    const std::size_t at = bytes_.size();
    bytes_.resize(at + sizeof(T));
    std::memcpy(bytes_.data() + at, &value, sizeof(T));
    return *this;
  }
  ByteWriter& raw(std::string_view text) {
    const auto* p = reinterpret_cast<const std::byte*>(text.data());
    bytes_.insert(bytes_.end(), p, p + text.size());
    return *this;
  }
  ByteWriter& string(std::string_view text) { return number<std::uint64_t>(text.size()).raw(text); }
  ByteWriter& append(const std::vector<std::byte>& other) {
    bytes_.insert(bytes_.end(), other.begin(), other.end());
    return *this;
  }
  ByteWriter& pad(std::size_t unit) {
    while (bytes_.size() % unit != 0) bytes_.push_back(std::byte{0});
    return *this;
  }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

/// Builds a small GGUF file. What is not set on purpose is valid.
class GgufBuilder {
 public:
  std::uint32_t magic = 0x46554747, version = 3;
  std::uint64_t alignment = 32;  // used for padding; the key is the caller's

  GgufBuilder& entry(std::string_view key, std::uint32_t type, const ByteWriter& value) {
    entries_.string(key).number(type).append(value.bytes());
    ++entry_count_;
    return *this;
  }
  template <class T>
  GgufBuilder& scalar(std::string_view key, T value) {
    static_assert(detail::kGgufTypeOf<T>.has_value());
    return entry(key, static_cast<std::uint32_t>(*detail::kGgufTypeOf<T>), ByteWriter().number(value));
  }
  GgufBuilder& text(std::string_view key, std::string_view value) {
    return entry(key, 8, ByteWriter().string(value));
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    ByteWriter w;
    w.number<std::uint32_t>(8).number<std::uint64_t>(values.size());
    for (const std::string& v : values) w.string(v);
    return entry(key, 9, w);
  }
  template <class T>
  GgufBuilder& array(std::string_view key, const std::vector<T>& values) {
    ByteWriter w;
    w.number(static_cast<std::uint32_t>(*detail::kGgufTypeOf<T>)).number<std::uint64_t>(values.size());
    for (const T v : values) w.number(v);
    return entry(key, 9, w);
  }
  /// A tensor at a chosen offset; no data is added.
  GgufBuilder& tensor_at(std::string_view name, const std::vector<std::uint64_t>& ne, std::uint32_t type,
                         std::uint64_t offset) {
    infos_.string(name).number(static_cast<std::uint32_t>(ne.size()));
    for (const std::uint64_t n : ne) infos_.number(n);
    infos_.number(type).number(offset);
    ++tensor_count_;
    return *this;
  }
  /// A tensor after those before it, with its data.
  GgufBuilder& tensor(std::string_view name, const std::vector<std::uint64_t>& ne, std::uint32_t type,
                      std::string_view data) {
    tensor_at(name, ne, type, data_.bytes().size());
    data_.raw(data).pad(alignment);
    return *this;
  }
  GgufBuilder& data(std::string_view bytes) {
    data_.raw(bytes);
    return *this;
  }
  GgufBuilder& counts(std::uint64_t tensors, std::uint64_t entries) {
    tensor_count_ = tensors;
    entry_count_ = entries;
    return *this;
  }
  [[nodiscard]] std::vector<std::byte> build() const {
    ByteWriter w;
    w.number(magic).number(version).number(tensor_count_).number(entry_count_);
    w.append(entries_.bytes()).append(infos_.bytes());
    if (tensor_count_ != 0 && alignment != 0) w.pad(alignment);
    return w.append(data_.bytes()).bytes();
  }

 private:
  std::uint64_t tensor_count_ = 0, entry_count_ = 0;
  ByteWriter entries_, infos_, data_;
};

}  // namespace mlxn::testing
