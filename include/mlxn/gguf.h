#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "mlxn/dtype.h"
#include "mlxn/result.h"

namespace mlxn {

/// Types of metadata values; the numbers are those of the format.
enum class GgufType : std::uint8_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };
[[nodiscard]] std::string_view to_string(GgufType type) noexcept;

/// Upper bounds on what a header may ask for. Reaching one is ErrorCode::limit_exceeded.
struct GgufLimits {
  std::uint64_t tensors = 100'000;
  std::uint64_t entries = 65'536;
  std::uint64_t string_bytes = std::uint64_t{64} << 20;
  std::uint64_t array_elems = std::uint64_t{64} << 20;
  std::uint64_t metadata_bytes = std::uint64_t{512} << 20;  ///< memory for all keys, values and names together
};

struct GgufOptions {
  /// `map` reads tensors in place: a file that another process truncates meanwhile ends this process with SIGBUS when
  /// such a page is touched. `copy` reads the whole file into memory first: the choice for storage that is not trusted.
  enum class Source : std::uint8_t { map, copy };
  Source source = Source::map;
  /// Whether open() looks for the other parts of a split model.
  enum class Parts : std::uint8_t { follow, single };
  Parts parts = Parts::follow;
  bool strict = false;         ///< tensor data must lie in file order without holes, as ggml insists
  bool lenient_names = false;  ///< tensor names up to 255 bytes instead of 63
  GgufLimits limits;
};

/// A file that is neither on a disk nor in memory: in an archive, behind a network.
struct GgufSource {
  std::string label;        ///< what messages call it
  std::uint64_t bytes = 0;  ///< its size
  /// Fills `out`, which is never empty, with the bytes from `offset` on, all of them inside the file. May be called from
  /// several threads. Its errors come back to the caller of open() and read(), an exception as invalid_argument with the
  /// exception's text.
  std::function<Result<void>(std::uint64_t offset, std::span<std::byte> out)> read;
};

/// An array of strings: views into one block of bytes, valid as long as any handle of the file.
class GgufStrings {
 public:
  class Iterator {
   public:
    using value_type = std::string_view;
    using difference_type = std::ptrdiff_t;
    Iterator() = default;
    Iterator(const GgufStrings* strings, std::size_t index) : strings_(strings), index_(index) {}
    std::string_view operator*() const noexcept { return (*strings_)[index_]; }
    Iterator& operator++() noexcept { return ++index_, *this; }
    Iterator operator++(int) noexcept { return {strings_, index_++}; }
    bool operator==(const Iterator& other) const noexcept { return index_ == other.index_; }

   private:
    const GgufStrings* strings_ = nullptr;
    std::size_t index_ = 0;
  };

  GgufStrings() = default;
  /// String i is text[ends[i - 1] .. ends[i]); the first one starts at 0.
  GgufStrings(const char* text, std::span<const std::uint64_t> ends, bool is_utf8) noexcept
      : text_(text), ends_(ends), is_utf8_(is_utf8) {}
  [[nodiscard]] std::size_t size() const noexcept { return ends_.size(); }
  [[nodiscard]] bool empty() const noexcept { return ends_.empty(); }
  /// index < size()
  [[nodiscard]] std::string_view operator[](std::size_t index) const noexcept {
    const std::uint64_t begin = index == 0 ? 0 : ends_[index - 1];
    return {text_ + begin, static_cast<std::size_t>(ends_[index] - begin)};
  }
  /// Whether each string is valid UTF-8 by itself. Vocabularies need not be.
  [[nodiscard]] bool is_utf8() const noexcept { return is_utf8_; }
  [[nodiscard]] Iterator begin() const noexcept { return {this, 0}; }
  [[nodiscard]] Iterator end() const noexcept { return {this, size()}; }

 private:
  const char* text_ = nullptr;
  std::span<const std::uint64_t> ends_;
  bool is_utf8_ = true;
};

namespace detail {
struct GgufState;
template <class T>
inline constexpr std::optional<GgufType> kGgufTypeOf = std::nullopt;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::uint8_t> = GgufType::u8;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::int8_t> = GgufType::i8;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::uint16_t> = GgufType::u16;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::int16_t> = GgufType::i16;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::uint32_t> = GgufType::u32;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::int32_t> = GgufType::i32;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<float> = GgufType::f32;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<bool> = GgufType::boolean;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::uint64_t> = GgufType::u64;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<std::int64_t> = GgufType::i64;
template <> inline constexpr std::optional<GgufType> kGgufTypeOf<double> = GgufType::f64;
}  // namespace detail

/// One metadata entry. Conversions widen: an integer of any width and sign that fits the result, a float of either
/// width (as_float takes integers too). A value of another type is ErrorCode::corrupt_file with rule V15.
class GgufValue {
 public:
  [[nodiscard]] std::string_view key() const noexcept { return key_; }
  [[nodiscard]] GgufType type() const noexcept { return type_; }
  [[nodiscard]] bool is_array() const noexcept { return type_ == GgufType::array; }
  /// Type of an array's elements; the value's own type otherwise.
  [[nodiscard]] GgufType element_type() const noexcept { return element_type_; }
  /// Elements of an array, 1 otherwise.
  [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

  [[nodiscard]] Result<std::uint64_t> as_uint() const noexcept;
  [[nodiscard]] Result<std::int64_t> as_int() const noexcept;
  [[nodiscard]] Result<double> as_float() const noexcept;
  [[nodiscard]] Result<bool> as_bool() const noexcept;
  [[nodiscard]] Result<std::string_view> as_string() const noexcept;
  [[nodiscard]] Result<GgufStrings> as_strings() const noexcept;
  /// The elements as they lie in the file; T must be the element type exactly.
  template <class T>
  [[nodiscard]] Result<std::span<const T>> as_array() const noexcept {
    static_assert(detail::kGgufTypeOf<T>.has_value(), "no metadata type holds T");
    MLXN_TRY(const std::span<const std::byte> bytes, array_bytes(*detail::kGgufTypeOf<T>));
    return std::span<const T>(reinterpret_cast<const T*>(bytes.data()), bytes.size() / sizeof(T));
  }
  /// Element `index` of an array, or the scalar itself for every index.
  [[nodiscard]] Result<std::uint64_t> uint_at(std::uint64_t index) const noexcept;
  [[nodiscard]] Result<std::int64_t> int_at(std::uint64_t index) const noexcept;
  [[nodiscard]] Result<double> float_at(std::uint64_t index) const noexcept;
  [[nodiscard]] Result<bool> bool_at(std::uint64_t index) const noexcept;

 private:
  friend struct detail::GgufState;
  friend class GgufWriter;
  [[nodiscard]] Result<std::span<const std::byte>> array_bytes(GgufType wanted) const noexcept;
  [[nodiscard]] Error wrong_type(std::string_view wanted) const noexcept;
  [[nodiscard]] Result<const std::byte*> element(std::uint64_t index, std::string_view wanted) const noexcept;

  std::string_view key_;
  GgufType type_ = GgufType::u8;
  GgufType element_type_ = GgufType::u8;
  std::uint64_t count_ = 1;
  std::vector<std::byte> bytes_;     // a scalar, the elements of an array, or the text of strings
  std::vector<std::uint64_t> ends_;  // strings only
  bool is_utf8_ = true;
};

/// One tensor of a file. The name lives as long as any handle of the file.
struct GgufTensor {
  std::string_view name;
  std::uint32_t rank = 0;                            ///< 0 … 4
  std::array<std::uint64_t, 4> ne = {1, 1, 1, 1};    ///< innermost first, as in the file; 1 beyond rank
  std::array<std::uint64_t, 4> shape = {1, 1, 1, 1};  ///< the same row-major: the first `rank` entries, outermost first
  std::uint32_t type_id = 0;
  std::optional<DType> dtype;         ///< empty: unknown type id, the data cannot be had
  std::uint64_t elems = 0;
  std::uint64_t bytes = 0;            ///< 0 if the type is unknown
  std::uint64_t offset = 0;           ///< from the start of the data section
  std::uint64_t absolute_offset = 0;  ///< from the start of the file
  std::uint32_t part = 0;             ///< the file that holds it, of a split model

  [[nodiscard]] std::span<const std::uint64_t> dims() const noexcept { return {ne.data(), rank}; }
  [[nodiscard]] std::span<const std::uint64_t> row_major() const noexcept { return {shape.data(), rank}; }
};
/// "q4_K", or "unknown type id 97"; empty if there is no memory for it.
[[nodiscard]] std::string type_name(const GgufTensor& tensor) noexcept;

/// A GGUF file (versions 2 and 3, little-endian) that was checked when it was opened: counts, lengths, names, types,
/// shapes and the extent of every tensor, rules V01 to V14. A cheap handle; copies share one immutable state and may be
/// used from several threads.
///
/// Errors: io (the operating system refused), corrupt_file (with the rule's id and the byte offset), limit_exceeded,
/// unsupported (big-endian, a removed tensor type), out_of_memory.
///
/// Of a handle that was moved from, functions that return a Result are wrong_state, the others have nothing: no keys, no tensors, zeros.
class GgufFile {
 public:
  /// The first part of a split model, <prefix>-00001-of-<count>.gguf, opens the others beside it, whose names follow from
  /// its own, and becomes one file with the tensors of all. Another part is invalid_argument with the name of the first.
  [[nodiscard]] static Result<GgufFile> open(const std::filesystem::path& path, const GgufOptions& options = {}) noexcept;
  /// Reads the header alone, whatever options.source says. The tensors come through read(); data() is unsupported.
  [[nodiscard]] static Result<GgufFile> open(GgufSource source, const GgufOptions& options = {}) noexcept;
  /// `bytes` must stay valid and unchanged as long as `owner` lives, or as long as any handle if there is no owner.
  [[nodiscard]] static Result<GgufFile> parse(std::span<const std::byte> bytes, const GgufOptions& options = {},
                                              std::shared_ptr<const void> owner = nullptr) noexcept;
  /// The parts of a split model, opened one by one and in order, as one file: metadata of the first, tensors of all.
  /// Errors: corrupt_file with rule "split" (numbers or counts that do not agree, a tensor in two parts), invalid_argument
  /// (no parts, or one that is itself joined).
  [[nodiscard]] static Result<GgufFile> join(std::span<const GgufFile> parts) noexcept;

  /// False for a handle that was moved from.
  [[nodiscard]] bool defined() const noexcept { return state_ != nullptr; }
  [[nodiscard]] std::uint32_t version() const noexcept;
  [[nodiscard]] std::uint64_t alignment() const noexcept;
  [[nodiscard]] std::uint64_t file_bytes() const noexcept;   ///< of all parts
  [[nodiscard]] std::uint64_t data_offset() const noexcept;  ///< where the data section starts, in the first part
  [[nodiscard]] std::string_view label() const noexcept;     ///< the path, or "memory"; of a split model the first part's
  [[nodiscard]] std::uint32_t part_count() const noexcept;   ///< 1 for a file that is not split
  [[nodiscard]] std::string_view part_label(std::uint32_t part) const noexcept;  ///< part < part_count()
  /// Oddities that are no errors: holes between tensors, tensors whose type is unknown.
  [[nodiscard]] std::span<const std::string> notes() const noexcept;

  /// In file order.
  [[nodiscard]] std::span<const GgufValue> values() const noexcept;
  [[nodiscard]] const GgufValue* find(std::string_view key) const noexcept;

  // Typed access by key. A missing key is not_found. The _or forms give the fallback for a missing key only: a value
  // of the wrong type stays an error.
  [[nodiscard]] Result<std::uint64_t> get_uint(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::int64_t> get_int(std::string_view key) const noexcept;
  [[nodiscard]] Result<double> get_float(std::string_view key) const noexcept;
  [[nodiscard]] Result<bool> get_bool(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::string_view> get_string(std::string_view key) const noexcept;
  [[nodiscard]] Result<GgufStrings> get_strings(std::string_view key) const noexcept;
  [[nodiscard]] Result<std::uint64_t> get_uint_or(std::string_view key, std::uint64_t fallback) const noexcept;
  [[nodiscard]] Result<std::int64_t> get_int_or(std::string_view key, std::int64_t fallback) const noexcept;
  [[nodiscard]] Result<double> get_float_or(std::string_view key, double fallback) const noexcept;
  [[nodiscard]] Result<bool> get_bool_or(std::string_view key, bool fallback) const noexcept;
  [[nodiscard]] Result<std::string_view> get_string_or(std::string_view key, std::string_view fallback) const noexcept;
  template <class T>
  [[nodiscard]] Result<std::span<const T>> get_array(std::string_view key) const noexcept {
    const GgufValue* value = find(key);
    if (value == nullptr) return no_key(key);
    return named(value->template as_array<T>());
  }
  // One number per layer from a scalar (repeated) or from an array of at least `layers` elements. More layers than kMostLayers
  // are limit_exceeded.
  static constexpr std::uint64_t kMostLayers = 65536;
  [[nodiscard]] Result<std::vector<std::uint64_t>> get_uints_per_layer(std::string_view key,
                                                                       std::uint64_t layers) const noexcept;
  [[nodiscard]] Result<std::vector<std::uint64_t>> get_uints_per_layer_or(std::string_view key, std::uint64_t layers,
                                                                          std::uint64_t fallback) const noexcept;
  [[nodiscard]] Result<std::vector<bool>> get_bools_per_layer(std::string_view key, std::uint64_t layers) const noexcept;

  /// In file order.
  [[nodiscard]] std::span<const GgufTensor> tensors() const noexcept;
  /// The order in which reading them moves forward through the file.
  [[nodiscard]] std::span<const GgufTensor* const> tensors_by_offset() const noexcept;
  [[nodiscard]] const GgufTensor* find_tensor(std::string_view name) const noexcept;
  /// The tensor, if it has exactly this shape, innermost first (rule V16); trailing ones may be left out.
  [[nodiscard]] Result<const GgufTensor*> expect_tensor(std::string_view name,
                                                        std::initializer_list<std::uint64_t> ne) const noexcept;

  /// The tensor's bytes, in place; empty if it has no elements. Unsupported for an unknown type and for a GgufSource. The
  /// file's size is looked at again, so that a file cut short since open() is an io error here.
  [[nodiscard]] Result<std::span<const std::byte>> data(const GgufTensor& tensor) const noexcept;
  /// Whether data() can be had: false for a GgufSource.
  [[nodiscard]] bool in_place() const noexcept;
  /// Copies bytes [offset, offset + out.size()) of the tensor, from wherever the file is. Errors: unsupported (unknown
  /// type), out_of_range (beyond the tensor), io, those of GgufSource::read.
  [[nodiscard]] Result<void> read(const GgufTensor& tensor, std::uint64_t offset, std::span<std::byte> out) const noexcept;
  /// Gives the physical pages that lie wholly inside the tensor back to the system; they are read again when touched.
  /// Does nothing for a copied file.
  void drop_pages(const GgufTensor& tensor) const noexcept;
  /// Asks the system to read the tensor ahead.
  void will_need(const GgufTensor& tensor) const noexcept;
  /// Keeps the bytes that data() returns, of all parts, alive without the file's metadata.
  [[nodiscard]] std::shared_ptr<const void> keep_alive() const noexcept;

 private:
  explicit GgufFile(std::shared_ptr<const detail::GgufState> state) noexcept : state_(std::move(state)) {}
  /// not_found with the file's name, or wrong_state of a handle that was moved from.
  [[nodiscard]] Error no_key(std::string_view key) const noexcept;
  /// The value's error with the file's name.
  template <class T>
  [[nodiscard]] Result<T> named(Result<T> value) const noexcept {
    return value ? value : Result<T>(value.error().with_context(label()));
  }
  [[nodiscard]] Result<void> check_extent(const GgufTensor& tensor) const noexcept;
  std::shared_ptr<const detail::GgufState> state_;
};

/// What every transformer file says of itself, by the keys of its architecture, within the limits that make the numbers
/// safe to use as sizes (rule V15). Lists have one entry per layer.
struct GgufArchitecture {
  std::string name;  ///< general.architecture, the prefix of the keys
  std::uint64_t block_count = 0;
  std::uint64_t context_length = 0;
  std::uint64_t embedding_length = 0;
  std::vector<std::uint64_t> feed_forward_length;  ///< 0 where absent
  std::vector<std::uint64_t> head_count;
  std::vector<std::uint64_t> head_count_kv;  ///< divides head_count; head_count where absent
  std::uint64_t key_length = 0;              ///< embedding_length / head_count where absent
  std::uint64_t value_length = 0;
  double rms_epsilon = 0;
  std::uint64_t rope_dimension_count = 0;  ///< key_length where absent
  double rope_freq_base = 10000;
  std::uint64_t expert_count = 0;
  std::uint64_t expert_used_count = 0;
  std::uint64_t vocab_size = 0;  ///< length of the token list where absent; 0 if that is absent too
};
[[nodiscard]] Result<GgufArchitecture> gguf_architecture(const GgufFile& file) noexcept;

}  // namespace mlxn
