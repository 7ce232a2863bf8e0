#pragma once

#include <vector>

#include "mlxn/graph.h"
#include "mlxn/model.h"

namespace mlxn {

/// The sampler's state: the drawn id where the CPU reads it, recent tokens on the device and on the host.
class SamplerImpl {
 public:
  /// The parameters of a draw in a graph.
  struct Parameters {
    Scalar<std::int64_t> step = 0, recent = 0, slot = 0, last = 0;
  };

  Device device;
  std::int64_t vocab = 0;
  SamplerOptions options;
  Tensor id;      // u32 [1], visible to the CPU
  Tensor recent;  // u32 [window], a ring; empty for a window of 0
  std::vector<std::uint32_t> recent_on_host;
  std::int64_t accepted = 0;  // tokens so far
  std::int64_t on_device = 0;  // of those the ring on the device has; one more comes with a draw's parameters
  std::int64_t step = 0;
  std::uint64_t number = 0;  // of this sampler in the process

  Graph draw;     // recorded for the logits tensor of the first draw
  Parameters draw_parameters;
  Tensor logits;  // which it reads

  /// Records a draw from logits f32 [1, vocab].
  [[nodiscard]] Result<Parameters> record(CommandEncoder& encoder, const Tensor& from) const;
  /// Brings the recent tokens to the device and gives the graph what the next draw needs. Nothing counts as drawn before
  /// take(): after a replay that failed the same draw may be asked for again.
  [[nodiscard]] Result<void> prepare(Graph& graph, const Parameters& parameters);
  /// The token that the graph's replay has drawn, which counts as accepted.
  [[nodiscard]] Result<TokenId> take();
  [[nodiscard]] Result<void> accept(TokenId token);
};

}  // namespace mlxn
