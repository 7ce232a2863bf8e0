#include "backends/cuda/transfer.h"

#include <algorithm>
#include <cstring>

#include "backends/cuda/device.h"
#include "base/system_memory.h"

namespace mlxn::cuda {
namespace {

constexpr std::uint64_t kBufferBytes = std::uint64_t{16} << 20;
constexpr std::uint64_t kLeastPiece = std::uint64_t{256} << 10;
/// One core copies about 10 GB/s, a link of 16 PCIe 5 lanes 55.
constexpr int kMostThreads = 6;
constexpr std::uint64_t kTeamBytes = std::uint64_t{1} << 20;  // below it, one thread copies as fast

}  // namespace

bool is_pinned(const void* data) noexcept {
  cudaPointerAttributes attributes{};
  if (cudaPointerGetAttributes(&attributes, data) != cudaSuccess) {
    static_cast<void>(cudaGetLastError());
    return false;
  }
  return attributes.type != cudaMemoryTypeUnregistered;
}

std::uint64_t Transfer::piece_bytes(std::uint64_t bytes) noexcept {
  const std::uint64_t quarter = (bytes / 4 + 0xffff) & ~std::uint64_t{0xffff};
  return std::clamp(quarter, kLeastPiece, kBufferBytes);
}

Transfer::~Transfer() {
  for (const Buffer& buffer : buffers_) {
    if (buffer.idle != nullptr) static_cast<void>(cudaEventDestroy(buffer.idle));
    if (buffer.data != nullptr) static_cast<void>(cudaFreeHost(buffer.data));
  }
  if (order_ != nullptr) static_cast<void>(cudaEventDestroy(order_));
  if (stream_ != nullptr) static_cast<void>(cudaStreamDestroy(stream_));
  static_cast<void>(cudaGetLastError());
}

Result<void> Transfer::open() {
  cudaError_t code = cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking);
  if (code == cudaSuccess) code = cudaEventCreateWithFlags(&order_, cudaEventDisableTiming);
  if (code != cudaSuccess) return device_.failed("a stream for copies", code);
  return {};
}

Result<void> Transfer::make_buffers() {
  for (Buffer& buffer : buffers_) {
    if (buffer.idle == nullptr) {
      const cudaError_t code = cudaEventCreateWithFlags(&buffer.idle, cudaEventDisableTiming);
      if (code != cudaSuccess) return device_.failed("an event for copies", code);
    }
    if (buffer.data == nullptr) {
      void* data = nullptr;
      const cudaError_t code = cudaHostAlloc(&data, kBufferBytes, cudaHostAllocPortable);
      if (code != cudaSuccess) return device_.failed(fmt::format("{} bytes of pinned memory for copies", kBufferBytes), code);
      buffer.data = static_cast<std::byte*>(data);
    }
  }
  if (!has_team_) {
    has_team_ = true;
    const int threads = std::min(kMostThreads, usable_cores());
    if (threads > 1) {
      auto team = Team::create(threads);  // without one, this thread copies alone
      if (team) team_ = *std::move(team);
    }
  }
  return {};
}

Result<void> Transfer::begin() {
  MLXN_CHECK(device_.use());
  count_sync(device_);
  return device_.order_behind_queues(stream_, order_);
}

Result<void> Transfer::finish(std::string_view what, cudaError_t code) {
  // The buffers and the caller's memory are in use until the stream is idle, whatever came before.
  const cudaError_t end = cudaStreamSynchronize(stream_);
  if (code == cudaSuccess) code = end;
  if (code != cudaSuccess) return device_.failed(what, code);
  return {};
}

void Transfer::host_copy(std::byte* to, const std::byte* from, std::uint64_t bytes) noexcept {
  if (!team_ || bytes < kTeamBytes) {
    std::memcpy(to, from, bytes);
    return;
  }
  struct Job {
    std::byte* to;
    const std::byte* from;
    std::uint64_t bytes;
    int threads;
  } job{to, from, bytes, team_->size()};
  team_->run(
      [](void* data, int thread) {
        const Job& j = *static_cast<Job*>(data);
        CpuContext context;
        context.thread = thread;
        context.threads = j.threads;
        const CpuContext::Share share = context.share(j.bytes, 4096);
        if (share.begin < share.end) std::memcpy(j.to + share.begin, j.from + share.begin, share.end - share.begin);
      },
      &job);
}

cudaError_t Transfer::send(std::byte* to, std::span<const std::byte> from) noexcept {
  const std::uint64_t piece = piece_bytes(from.size());
  for (std::uint64_t offset = 0, i = 0; offset < from.size(); offset += piece, ++i) {
    const Buffer& buffer = buffers_[i % 2];
    const std::uint64_t bytes = std::min<std::uint64_t>(piece, from.size() - offset);
    cudaError_t code = i < 2 ? cudaSuccess : cudaEventSynchronize(buffer.idle);
    if (code != cudaSuccess) return code;
    host_copy(buffer.data, from.data() + offset, bytes);
    code = cudaMemcpyAsync(to + offset, buffer.data, bytes, cudaMemcpyHostToDevice, stream_);
    if (code == cudaSuccess) code = cudaEventRecord(buffer.idle, stream_);
    if (code != cudaSuccess) return code;
  }
  return cudaSuccess;
}

cudaError_t Transfer::fetch(std::span<std::byte> to, const std::byte* from) noexcept {
  const std::uint64_t piece = piece_bytes(to.size());
  const std::uint64_t pieces = (to.size() + piece - 1) / piece;
  const auto bytes_of = [&](std::uint64_t i) { return std::min<std::uint64_t>(piece, to.size() - i * piece); };
  // Piece i is on its way while piece i - 1 is taken out of the other buffer.
  for (std::uint64_t i = 0; i <= pieces; ++i) {
    if (i < pieces) {
      const Buffer& buffer = buffers_[i % 2];
      cudaError_t code = cudaMemcpyAsync(buffer.data, from + i * piece, bytes_of(i), cudaMemcpyDeviceToHost, stream_);
      if (code == cudaSuccess) code = cudaEventRecord(buffer.idle, stream_);
      if (code != cudaSuccess) return code;
    }
    if (i > 0) {
      const Buffer& buffer = buffers_[(i - 1) % 2];
      const cudaError_t code = cudaEventSynchronize(buffer.idle);
      if (code != cudaSuccess) return code;
      host_copy(to.data() + (i - 1) * piece, buffer.data, bytes_of(i - 1));
    }
  }
  return cudaSuccess;
}

Result<void> Transfer::upload(std::byte* to, std::span<const std::byte> from) {
  if (from.empty()) return {};
  return mlxn::detail::guarded([&]() -> Result<void> {
    const std::lock_guard lock(mutex_);
    MLXN_CHECK(begin());
    if (is_pinned(from.data())) {
      return finish("upload", cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyDefault, stream_));
    }
    MLXN_CHECK(make_buffers());
    return finish("upload", send(to, from));
  });
}

Result<void> Transfer::download(std::span<std::byte> to, const std::byte* from) {
  if (to.empty()) return {};
  return mlxn::detail::guarded([&]() -> Result<void> {
    const std::lock_guard lock(mutex_);
    MLXN_CHECK(begin());
    if (is_pinned(to.data())) {
      return finish("download", cudaMemcpyAsync(to.data(), from, to.size(), cudaMemcpyDefault, stream_));
    }
    MLXN_CHECK(make_buffers());
    return finish("download", fetch(to, from));
  });
}

Result<void> Transfer::zero(std::byte* to, std::uint64_t bytes) {
  return finish("zeroing fresh memory", cudaMemsetAsync(to, 0, bytes, stream_));
}

}  // namespace mlxn::cuda
