// Every request for memory failed in turn, with the same call on the same objects afterwards: a call that fails leaves an
// encoder, a graph, a pool as it found them. Nothing leaks, whether one request fails or all from the k-th on.

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <thread>

#include "gtest/gtest.h"
#include "mlxn/buffer_pool.h"
#include "mlxn/chat.h"
#include "mlxn/device.h"
#include "mlxn/encoder.h"
#include "mlxn/gguf.h"
#include "mlxn/graph.h"
#include "mlxn/kernel.h"
#include "mlxn/ops/add.h"
#include "mlxn/ops/add_rms_norm.h"
#include "mlxn/ops/argmax.h"
#include "mlxn/ops/attention.h"
#include "mlxn/ops/embedding.h"
#include "mlxn/ops/gelu_mul.h"
#include "mlxn/ops/kv_append.h"
#include "mlxn/ops/matmul.h"
#include "mlxn/ops/mul.h"
#include "mlxn/ops/rms_norm.h"
#include "mlxn/ops/rope.h"
#include "mlxn/ops/sample.h"
#include "mlxn/ops/scale.h"
#include "mlxn/ops/silu_mul.h"
#include "mlxn/ops/softcap.h"
#include "mlxn/ops/softmax.h"
#include "mlxn/quant.h"
#include "mlxn/tokenizer.h"
#include "mlxn/weight.h"
#include "tests/memory/failing_allocator.h"
#include "tests/support/must.h"
// Last, since a namespace of theirs would hide GoogleTest's from the others.
#include "tests/formats/temp_file.h"
#include "tests/tokenizer/vocab_builder.h"

namespace mlxn::same_objects_suite {
namespace {

using test::FailMode;
using test::must;

constexpr std::int64_t kRows = 3, kDim = 256, kVocab = 40, kHeads = 4, kHeadDim = 64, kSlots = 32;
constexpr std::string_view kLong = "a text that is longer than what a string stores inside itself";

/// Files that all attempts read.
struct Files {
  std::vector<std::byte> bytes, byte_pair_bytes;
  testing::TempFile file;
  Tokenizer tokenizer, byte_pairs;
  GgufFile gguf, byte_pair_gguf;
  ChatTemplate chat = must(ChatTemplate::from_gguf(gguf, tokenizer));
  static const Files& get() {
    static const Files files(build());
    return files;
  }

 private:
  static std::vector<std::byte> build() {
    testing::GgufBuilder b = testing::VocabBuilder().add("hello").add(" world").gguf();
    b.text("general.architecture", "llama").text("general.name", kLong);
    b.text("tokenizer.chat_template", "<|im_start|>{{ role }}");
    b.scalar<std::uint32_t>("llama.block_count", 2).scalar<std::uint32_t>("llama.context_length", 64);
    b.scalar<std::uint32_t>("llama.embedding_length", 64).scalar<std::uint32_t>("llama.attention.head_count", 4);
    b.scalar<std::uint32_t>("llama.feed_forward_length", 64).scalar<float>("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    b.tensor("a", {8}, 0, std::string(32, 'x')).tensor("b", {64}, 2, std::string(36, 'y'));
    return b.build();
  }
  explicit Files(std::vector<std::byte> b)
      : bytes(std::move(b)),
        byte_pair_bytes(testing::BpeBuilder().merge("l", "o", false).merge(" ", "w").add("[x]").gguf("deepseek-llm").build()),
        file(bytes),
        tokenizer(must(Tokenizer::from_gguf(must(GgufFile::parse(bytes))))),
        byte_pairs(must(Tokenizer::from_gguf(must(GgufFile::parse(byte_pair_bytes))))),
        gguf(must(GgufFile::parse(bytes))),
        byte_pair_gguf(must(GgufFile::parse(byte_pair_bytes))) {}
};

/// What one attempt works on.
struct Fixture {
  Device device = open();
  Queue queue = device.default_queue();
  Tensor x = f32({kRows, kDim}), y = f32({kRows, kDim}), z = f32({kRows, kDim}), row = f32({kDim}), large = f32({1 << 17});
  Tensor heads = f32({kRows, kHeads, kHeadDim}), heads_out = f32({kRows, kHeads, kHeadDim});
  Tensor k_cache = f32({kHeads, kSlots, kHeadDim}), v_cache = f32({kHeads, kSlots, kHeadDim});
  Tensor logits = f32({kRows, kVocab}), probabilities = f32({kRows});
  Tensor raw = must(device.allocate(DType::q4_0, {kVocab, kDim})), raw_bytes = must(device.allocate(DType::u8, {kVocab, kDim / 32 * 18}));
  Tensor ids = must(device.allocate(DType::u32, {kRows})), positions = must(device.allocate(DType::i32, {kRows}));
  Weight kept = weight(PrepareMode::off), prepared = weight(PrepareMode::on);
  RopeTable rope_table = must(RopeTable::make(device, rope_config()));
  std::shared_ptr<const Kernel> kernel = must(device.kernels().register_callable(kernel_info(), nothing()));
  std::vector<KernelInfo> new_kernels = {kernel_info(), kernel_info()};
  std::vector<Callable> callables = {nothing(), nothing()};
  CommandEncoder::Binding binding[1] = {{x, Access::in}};
  EncoderOptions options;
  CommandEncoder encoder;
  Submission submission;
  Graph graph;
  BufferPool pool = must(BufferPool::create(device));
  Tensor pooled;
  std::vector<std::byte> host = std::vector<std::byte>(static_cast<std::size_t>(kRows * kDim) * 4);
  std::vector<float> floats = std::vector<float>(256);
  std::vector<std::byte> blocks = std::vector<std::byte>(144);
  std::string text = "hello world, hello";
  std::vector<TokenId> tokens = must(Files::get().tokenizer.encode("hello world"));
  std::vector<ChatMessage> messages = {{ChatRole::system, std::string(kLong)}, {ChatRole::user, "hello"}};
  std::vector<TokenId> byte_pair_tokens = must(Files::get().byte_pairs.encode(text));
  std::filesystem::path path = Files::get().file.path();
  std::function<Result<void>(CommandEncoder&)> record = [this](CommandEncoder& e) -> Result<void> {
    MLXN_TRY(const auto position, e.parameter("position", 0));
    MLXN_CHECK(kv_append(e, heads, heads, k_cache, v_cache, position));
    MLXN_CHECK(e.upload(x, host));
    return add(e, x, y, z);
  };

  static Device open() {
    DeviceOptions device_options;
    device_options.threads = 1;
    return must(Device::open("cpu", device_options));
  }
  Tensor f32(const Shape& shape) const { return must(device.allocate(DType::f32, shape)); }
  Weight weight(PrepareMode mode) const {
    PrepareOptions o;
    o.mode = mode;
    return must(Weight::prepare(device, raw, o));
  }
  static RopeConfig rope_config() {
    RopeConfig config;
    config.head_dim = kHeadDim;
    return config;
  }
  static KernelInfo kernel_info() {
    KernelInfo info;
    info.name = kLong;
    info.bindings = {{Access::in, 0, 1}};
    return info;
  }
  static Callable nothing() {
    return [](const CallableArgs&) -> Result<void> { return {}; };
  }
};

template <class T>
Result<void> outcome(const Result<T>& result) {
  if (!result) return result.error();
  return {};
}

struct Case {
  const char* name;
  Result<void> (*call)(Fixture&);
  void (*prepare)(Fixture&) = nullptr;
};

void with_encoder(Fixture& f) { f.encoder = must(f.device.encoder()); }
void with_recorded(Fixture& f) {
  with_encoder(f);
  must(f.encoder.fill(f.x, std::byte{}));
}
void with_submission(Fixture& f) {
  with_recorded(f);
  f.submission = must(f.encoder.commit());
}
void with_graph(Fixture& f) { f.graph = must(Graph::record(f.device, f.record)); }
void with_pooled(Fixture& f) { f.pooled = must(f.pool.allocate(DType::u8, {1000})); }
void with_free_block(Fixture& f) {
  with_pooled(f);
  must(f.pool.release(f.pooled));
}

/// A splitting pattern that gets no memory for machine code is interpreted, and gives the same words.
Result<void> byte_pairs_from_gguf(Fixture& f) {
  MLXN_TRY(const Tokenizer tokenizer, Tokenizer::from_gguf(Files::get().byte_pair_gguf));
  MLXN_TRY(const std::vector<TokenId> ids, tokenizer.encode(f.text));
  if (ids.size() == f.byte_pair_tokens.size() && std::equal(ids.begin(), ids.end(), f.byte_pair_tokens.begin())) return {};
  return Error(ErrorCode::internal, "other tokens");
}

MatmulShape product(std::int64_t m) { return {m, kVocab, kDim, DType::q4_0}; }

const Case kCases[] = {
    {"open", [](Fixture&) { return outcome(Device::open("cpu")); }},
    {"open_auto", [](Fixture&) { return outcome(Device::open()); }},
    {"enumerate", [](Fixture&) { return outcome(Device::enumerate()); }},
    {"allocate", [](Fixture& f) { return outcome(f.device.allocate(DType::f32, {100})); }},
    {"allocate_mapped", [](Fixture& f) { return outcome(f.device.allocate(DType::f32, {1 << 20})); }},
    {"allocate_aligned",
     [](Fixture& f) {
       AllocateOptions o;
       o.alignment_bytes = 1 << 16;
       return outcome(f.device.allocate(DType::f32, {1 << 20}, o));
     }},
    {"import", [](Fixture& f) { return outcome(f.device.import_memory(f.host.data(), 64, nullptr, DType::f32, {16})); }},
    {"create_queue", [](Fixture& f) { return outcome(f.device.create_queue()); }},
    {"encoder",
     [](Fixture& f) {
       f.options.label = kLong;
       return outcome(f.device.encoder(f.options));
     }},
    {"upload_now", [](Fixture& f) { return f.device.upload(f.x, f.host); }},
    {"download_now", [](Fixture& f) { return f.device.download(f.host, f.x); }},
    {"copy_now", [](Fixture& f) { return f.device.copy(f.x, f.y); }},
    {"fill_now", [](Fixture& f) { return f.device.fill(f.x, std::byte{1}); }},
    {"read", [](Fixture& f) { return outcome(f.x.read<float>()); }},
    {"write", [](Fixture& f) { return outcome(f.x.write<float>()); }},
    {"slice", [](Fixture& f) { return outcome(f.x.slice(0, 1, 2)); }},
    {"reshape", [](Fixture& f) { return outcome(f.x.reshape({kDim, kRows})); }},
    {"permute", [](Fixture& f) { return outcome(f.x.permute({1, 0})); }},
    {"reinterpret", [](Fixture& f) { return outcome(f.x.reinterpret(DType::u8, {10}, 3)); }},
    {"upload", [](Fixture& f) { return f.encoder.upload(f.x, f.host); }, with_encoder},
    {"download", [](Fixture& f) { return f.encoder.download(f.host, f.x); }, with_encoder},
    {"copy", [](Fixture& f) { return f.encoder.copy(f.x, f.y); }, with_encoder},
    {"fill", [](Fixture& f) { return f.encoder.fill(f.x, std::byte{1}); }, with_encoder},
    {"barrier", [](Fixture& f) { return f.encoder.barrier(); }, with_encoder},
    {"dispatch", [](Fixture& f) { return f.encoder.dispatch({f.kernel, f.binding, {}, 1, kLong}); }, with_encoder},
    {"commit", [](Fixture& f) { return f.encoder.state() == CommandEncoder::State::open ? outcome(f.encoder.commit()) : Result<void>(); }, with_recorded},
    {"commit_and_wait", [](Fixture& f) { return f.encoder.commit_and_wait(); }, with_recorded},
    {"wait", [](Fixture& f) { return f.submission.wait(); }, with_submission},
    {"wait_idle", [](Fixture& f) { return f.queue.wait_idle(); }, with_submission},
    {"on_complete", [](Fixture& f) { return f.submission.on_complete([](const Result<void>&) {}); }, with_submission},
    {"graph_record", [](Fixture& f) { return outcome(Graph::record(f.device, f.record)); }},
    {"graph_set", [](Fixture& f) { return f.graph.set("position", 3); }, with_graph},
    {"graph_rebind", [](Fixture& f) { return f.graph.rebind(f.z, must(f.large.reinterpret(DType::f32, f.z.shape()))); }, with_graph},
    {"graph_replay", [](Fixture& f) { return outcome(f.graph.replay()); }, with_graph},
    {"graph_replay_and_wait", [](Fixture& f) { return f.graph.replay_and_wait(); }, with_graph},
    {"register_callable",
     [](Fixture& f) {
       const auto result = f.device.kernels().register_callable(std::move(f.new_kernels.back()), std::move(f.callables.back()));
       f.new_kernels.pop_back();
       f.callables.pop_back();
       return outcome(result);
     }},
    {"find_kernel", [](Fixture& f) { return outcome(f.device.kernels().find(kLong)); }},
    {"kernel_names", [](Fixture& f) { return outcome(f.device.kernels().names()); }},
    {"pool_create", [](Fixture& f) { return outcome(BufferPool::create(f.device)); }},
    {"pool_allocate", [](Fixture& f) { return outcome(f.pool.allocate(DType::f32, {300})); }},
    {"pool_allocate_again", [](Fixture& f) { return outcome(f.pool.allocate(DType::u8, {1000}, true)); }, with_free_block},
    {"pool_capacity", [](Fixture& f) { return outcome(f.pool.capacity_bytes(f.pooled)); }, with_pooled},
    {"pool_release", [](Fixture& f) { return f.pool.release(f.pooled); }, with_pooled},
    {"gguf_open", [](Fixture& f) { return outcome(GgufFile::open(f.path)); }},
    {"gguf_parse", [](Fixture&) { return outcome(GgufFile::parse(Files::get().bytes)); }},
    {"gguf_architecture", [](Fixture&) { return outcome(gguf_architecture(Files::get().gguf)); }},
    {"gguf_get_string", [](Fixture&) { return outcome(Files::get().gguf.get_string("general.name")); }},
    {"gguf_get_strings", [](Fixture&) { return outcome(Files::get().gguf.get_strings("tokenizer.ggml.tokens")); }},
    {"gguf_get_uint", [](Fixture&) { return outcome(Files::get().gguf.get_uint("llama.block_count")); }},
    {"gguf_get_array", [](Fixture&) { return outcome(Files::get().gguf.get_array<float>("tokenizer.ggml.scores")); }},
    {"gguf_uints_per_layer", [](Fixture&) { return outcome(Files::get().gguf.get_uints_per_layer("llama.attention.head_count", 2)); }},
    {"gguf_expect_tensor", [](Fixture&) { return outcome(Files::get().gguf.expect_tensor("b", {64})); }},
    {"gguf_data", [](Fixture&) { return outcome(Files::get().gguf.data(*Files::get().gguf.find_tensor("b"))); }},
    {"tokenizer_from_gguf", [](Fixture&) { return outcome(Tokenizer::from_gguf(Files::get().gguf)); }},
    {"tokenizer_encode", [](Fixture& f) { return outcome(Files::get().tokenizer.encode(f.text)); }},
    {"tokenizer_decode", [](Fixture& f) { return outcome(Files::get().tokenizer.decode(f.tokens)); }},
    {"tokenizer_piece", [](Fixture& f) { return outcome(Files::get().tokenizer.piece(f.tokens[0])); }},
    {"byte_pairs_from_gguf", [](Fixture& f) { return byte_pairs_from_gguf(f); }},
    {"byte_pairs_encode", [](Fixture& f) { return outcome(Files::get().byte_pairs.encode(f.text)); }},
    {"chat_from_gguf", [](Fixture&) { return outcome(ChatTemplate::from_gguf(Files::get().gguf, Files::get().tokenizer)); }},
    {"chat_named", [](Fixture&) { return outcome(ChatTemplate::named("llama3", Files::get().tokenizer)); }},
    {"chat_render", [](Fixture& f) { return outcome(Files::get().chat.render(f.messages)); }},
    {"chat_encode", [](Fixture& f) { return outcome(Files::get().chat.encode(f.messages)); }},
    {"dequantize", [](Fixture& f) { return dequantize(DType::q4_K, f.blocks, f.floats); }},
    {"quantize", [](Fixture& f) { return quantize(DType::q4_0, f.floats, f.blocks); }},
    {"validate_blocks", [](Fixture& f) { return validate_blocks(DType::q4_K, f.blocks); }},
    {"weight_prepare",
     [](Fixture& f) {
       PrepareOptions o;
       o.mode = PrepareMode::on;
       return outcome(Weight::prepare(f.device, f.raw, o));
     }},
    {"weight_keep",
     [](Fixture& f) {
       PrepareOptions o;
       o.mode = PrepareMode::off;
       return outcome(Weight::prepare(f.device, f.raw, o));
     }},
    {"plan_matmul", [](Fixture& f) { return outcome(plan_matmul(f.device, product(1), true)); }},
    {"matmul_vector_threshold", [](Fixture& f) { return outcome(matmul_vector_threshold(f.device, product(1), true)); }},
    {"rope_table", [](Fixture& f) { return outcome(RopeTable::make(f.device, Fixture::rope_config())); }},
    // operations
    {"add", [](Fixture& f) { return add(f.encoder, f.x, f.y, f.z); }, with_encoder},
    {"mul", [](Fixture& f) { return mul(f.encoder, f.x, f.y, f.z); }, with_encoder},
    {"scale", [](Fixture& f) { return scale(f.encoder, f.x, f.y, 2.0f); }, with_encoder},
    {"softcap", [](Fixture& f) { return softcap(f.encoder, f.x, f.y, 2.0f); }, with_encoder},
    {"silu_mul", [](Fixture& f) { return silu_mul(f.encoder, f.x, f.y, f.z); }, with_encoder},
    {"gelu_mul", [](Fixture& f) { return gelu_mul(f.encoder, f.x, f.y, f.z); }, with_encoder},
    {"rms_norm", [](Fixture& f) { return rms_norm(f.encoder, f.x, f.row, f.z, 1e-5f); }, with_encoder},
    {"add_rms_norm", [](Fixture& f) { return add_rms_norm(f.encoder, f.x, f.y, f.row, f.x, f.z, 1e-5f); }, with_encoder},
    {"softmax", [](Fixture& f) { return softmax(f.encoder, f.x, f.z); }, with_encoder},
    {"argmax", [](Fixture& f) { return argmax(f.encoder, f.x, f.ids, f.probabilities); }, with_encoder},
    {"rope", [](Fixture& f) { return rope(f.encoder, f.heads, f.positions, f.rope_table, f.heads_out); }, with_encoder},
    {"kv_append", [](Fixture& f) { return kv_append(f.encoder, f.heads, f.heads_out, f.k_cache, f.v_cache, 2); }, with_encoder},
    {"attention", [](Fixture& f) { return attention(f.encoder, must(f.heads.permute({1, 0, 2})), f.k_cache, f.v_cache, must(f.heads_out.permute({1, 0, 2})), kSlots); }, with_encoder},
    {"sample", [](Fixture& f) { return sample(f.encoder, f.logits, f.ids, {}, 0, {}, f.probabilities); }, with_encoder},
    {"embedding_raw", [](Fixture& f) { return embedding(f.encoder, f.ids, f.kept, f.z); }, with_encoder},
    {"embedding_prepared", [](Fixture& f) { return embedding(f.encoder, f.ids, f.prepared, f.z); }, with_encoder},
    {"matmul_raw", [](Fixture& f) { return matmul(f.encoder, f.x, f.kept, f.logits); }, with_encoder},
    {"matmul_prepared", [](Fixture& f) { return matmul(f.encoder, f.x, f.prepared, f.logits); }, with_encoder},
    {"matmul_int8act",
     [](Fixture& f) {
       MatmulOptions o;
       o.numerics = Numerics::int8act;
       return matmul(f.encoder, f.x, f.prepared, f.logits, o);
     },
     with_encoder},
    {"quantized_matmul_ggml", [](Fixture& f) { return quantized_matmul_ggml(f.encoder, f.x, f.raw_bytes, f.logits, product(kRows)); }, with_encoder},
};

/// Blocks held once nothing moves any more: a lane that held the last handle of a device may be on its way out still.
std::int64_t settled_blocks() {
  std::int64_t blocks = test::live_blocks();
  for (int calm = 0, i = 0; calm < 10 && i < 5000; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    calm = test::live_blocks() == blocks ? calm + 1 : 0;
    blocks = test::live_blocks();
  }
  return blocks;
}

class SameObjects : public ::testing::TestWithParam<Case> {};

/// The call with its k-th request failing; whether it has as many.
bool attempt(const Case& c, std::int64_t k, FailMode mode) {
  Fixture f;
  if (c.prepare != nullptr) c.prepare(f);
  bool fired = false;
  {
    Result<void> failed;
    test::fail_allocation(k, mode);
    failed = c.call(f);
    fired = test::allocation_failed();
    if (!fired) {
      EXPECT_TRUE(failed) << failed.error().message();
    } else if (failed) {
      EXPECT_FALSE(test::allocation_threw()) << "request " << k << " failed unnoticed";
    } else {
      const Error& error = failed.error();
      EXPECT_EQ(error.code(), ErrorCode::out_of_memory)
          << "request " << k << ": " << to_string(error.code()) << ": " << error.message();
      const Result<void> again = c.call(f);
      EXPECT_TRUE(again) << "after request " << k << " had failed: " << again.error().message();
    }
  }
  if (f.encoder.state() == CommandEncoder::State::open && f.encoder.device().defined()) must(f.encoder.commit_and_wait());
  must(f.queue.wait_idle());
  return fired;
}

TEST_P(SameObjects, FailsCleanly) {
  const Case& c = GetParam();
  constexpr std::int64_t kMost = 20000;
  attempt(c, kMost, FailMode::once);  // what is made once per process is there now
  const std::int64_t before = settled_blocks();
  for (const FailMode mode : {FailMode::once, FailMode::forever}) {
    std::int64_t k = 0;
    while (k < kMost && attempt(c, k, mode) && !HasFailure()) ++k;
    ASSERT_LT(k, kMost);
  }
  EXPECT_EQ(settled_blocks(), before);
}

INSTANTIATE_TEST_SUITE_P(Of, SameObjects, ::testing::ValuesIn(kCases), [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace mlxn::same_objects_suite
