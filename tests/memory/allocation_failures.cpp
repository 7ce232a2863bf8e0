// Every request for memory failed in turn under each public function: the function returns out_of_memory, nothing breaks, and
// the same call succeeds afterwards.

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>

#include "gtest/gtest.h"
#include "mlxn/graph.h"
#include "mlxn/kernel.h"
#include "mlxn/model.h"
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
#include "mlxn/synth.h"
#include "tests/formats/temp_folder.h"
#include "tests/memory/failing_allocator.h"
#include "tests/support/must.h"
#include "tests/support/source_dir.h"

namespace mlxn::allocation_failures_suite {
namespace {

using test::FailMode;
using test::must;

/// The error of a call whose value is not wanted.
template <class T>
Result<void> outcome(const Result<T>& result) {
  if (!result) return result.error();
  return {};
}

/// Calls until no request is left to fail. `call` must give back what it took.
void fail_each(const char* name, const std::function<Result<void>()>& call, FailMode mode) {
  SCOPED_TRACE(name);
  constexpr std::int64_t kMost = 20'000;
  for (std::int64_t k = 0; k < kMost; ++k) {
    test::fail_allocation(k, mode);
    const Result<void> result = call();
    if (!test::allocation_failed()) {
      EXPECT_TRUE(result) << "without a failed request, k = " << k;
      return;
    }
    if (result) {
      ASSERT_FALSE(test::allocation_threw()) << "request " << k << " failed unnoticed";
      continue;
    }
    ASSERT_EQ(result.error().code(), ErrorCode::out_of_memory) << "request " << k << ": " << result.error().message();
    const Result<void> again = call();
    ASSERT_TRUE(again) << "after request " << k << " had failed: " << again.error().message();
  }
  FAIL() << "more than " << kMost << " requests";
}
void fail_each(const char* name, const std::function<Result<void>()>& call) {
  must(call());
  fail_each(name, call, FailMode::once);
  fail_each(name, call, FailMode::forever);
}

Device open_device() {
  DeviceOptions options;
  options.threads = 2;
  return must(Device::open("cpu", options));
}

// What a call gets is made beforehand: its own requests would fail as well.
const std::filesystem::path& demo_path() {
  static const std::filesystem::path path = test::source_dir() + "/data/demo/demo-q4_k.gguf";
  return path;
}

TEST(OutOfMemory, Devices) {
  fail_each("open", [] {
    DeviceOptions options;
    options.threads = 2;
    return outcome(Device::open("cpu", options));
  });
  fail_each("enumerate", [] { return outcome(Device::enumerate()); });
  const Device device = open_device();
  fail_each("create_queue", [&] { return outcome(device.create_queue()); });
  fail_each("encoder", [&] { return outcome(device.encoder()); });
  fail_each("allocate small", [&] { return outcome(device.allocate(DType::f32, {16})); });
  fail_each("allocate large", [&] { return outcome(device.allocate(DType::f32, {1 << 20})); });
  std::array<float, 4> mine{};
  fail_each("import_memory", [&] { return outcome(device.import_memory(mine.data(), 16, [] {}, DType::f32, {4})); });
}

TEST(OutOfMemory, Tensors) {
  const Device device = open_device();
  const Tensor t = must(device.allocate(DType::f32, {4, 8}));
  fail_each("slice", [&] { return outcome(t.slice(0, 1, 3)); });
  fail_each("reshape", [&] { return outcome(t.reshape({32})); });
  fail_each("permute", [&] { return outcome(t.permute({1, 0})); });
  fail_each("reinterpret", [&] { return outcome(t.reinterpret(DType::u8, {128})); });
  fail_each("read", [&] { return outcome(t.read<float>()); });
  fail_each("write", [&] { return outcome(t.write<float>()); });
  std::array<std::byte, 128> bytes{};
  fail_each("upload", [&] { return device.upload(t, bytes); });
  fail_each("download", [&] { return device.download(bytes, t); });
}

TEST(OutOfMemory, EncodersAndGraphs) {
  const Device device = open_device();
  const Tensor a = must(device.allocate(DType::f32, {64})), b = must(device.allocate(DType::f32, {64}));
  std::array<std::byte, 256> bytes{};
  const std::function<Result<void>(CommandEncoder&)> work = [&](CommandEncoder& e) -> Result<void> {
    MLXN_CHECK(e.upload(a, bytes));
    MLXN_CHECK(e.copy(b, a));
    MLXN_CHECK(e.barrier());
    return e.fill(a, std::byte{1});
  };
  fail_each("commit_and_wait", [&]() -> Result<void> {
    MLXN_TRY(CommandEncoder e, device.encoder());
    MLXN_CHECK(work(e));
    return e.commit_and_wait();
  });
  fail_each("commit, callback, wait", [&]() -> Result<void> {
    MLXN_TRY(CommandEncoder e, device.encoder());
    MLXN_CHECK(work(e));
    MLXN_TRY(const Submission s, e.commit());
    MLXN_CHECK(s.on_complete([](const Result<void>&) {}));
    return s.wait();
  });
  fail_each("record", [&] { return outcome(Graph::record(device, work)); });
  Graph graph = must(Graph::record(device, [&](CommandEncoder& e) -> Result<void> {
    MLXN_TRY(const auto p, e.parameter("p", 0));
    static_cast<void>(p);
    return e.copy(b, a);
  }));
  fail_each("set", [&] { return graph.set("p", 3); });
  fail_each("replay", [&]() -> Result<void> {
    MLXN_TRY(const Submission s, graph.replay());
    return s.wait();
  });
  fail_each("replay_and_wait", [&] { return graph.replay_and_wait(); });
  const Tensor c = must(device.allocate(DType::f32, {64}));
  const std::function<Result<void>(CommandEncoder&)> copy = [&](CommandEncoder& e) { return e.copy(b, a); };
  fail_each("rebind", [&]() -> Result<void> {
    MLXN_TRY(Graph fresh, Graph::record(device, copy));
    return fresh.rebind(a, c);
  });
}

TEST(OutOfMemory, KernelRegistry) {
  const Device device = open_device();
  const Tensor t = must(device.allocate(DType::f32, {64}));
  const auto info = [] {
    KernelInfo k;
    k.name = "a kernel of the caller with a long name";
    k.bindings = {{Access::in_out, 0, 1}};
    return k;
  };
  const auto nothing = [](const CallableArgs&) { return Result<void>(); };
  fail_each("register_callable", [&] {
    return detail::guarded([&]() -> Result<void> { return outcome(device.kernels().register_callable(info(), nothing)); });
  });
  const auto kernel = must(device.kernels().register_callable(info(), nothing));
  fail_each("find", [&] { return outcome(device.kernels().find(kernel->info().name)); });
  fail_each("names", [&] { return outcome(device.kernels().names()); });
  fail_each("dispatch", [&]() -> Result<void> {
    MLXN_TRY(CommandEncoder e, device.encoder());
    const CommandEncoder::Binding binding{t, Access::in_out};
    CommandEncoder::Dispatch d;
    d.kernel = kernel;
    d.bindings = {&binding, 1};
    MLXN_CHECK(e.dispatch(d));
    return e.commit_and_wait();
  });
}

TEST(OutOfMemory, Writer) {
  const testing::TempFolder folder;
  const std::filesystem::path path = folder / "written.gguf";
  const GgufFile file = must(GgufFile::open(demo_path()));
  const std::array<std::uint64_t, 2> ne = {32, 3};
  const std::array<std::byte, 54> blocks{};
  const std::vector<std::string> texts = {"a text that is too long to be stored in place", "b"};
  const auto write = [&](const GgufWriteOptions& options) -> Result<void> {
    MLXN_TRY(GgufWriter w, GgufWriter::create(path, options));
    MLXN_CHECK(w.add<float>("a key that is too long to be stored in place", 1));
    MLXN_CHECK(w.add("text", "text"));
    MLXN_CHECK(w.add_strings("texts", texts));
    MLXN_CHECK(w.add(*file.find("tokenizer.ggml.model")));
    for (const char* name : {"a tensor's name that is too long to be stored in place", "b", "c"}) MLXN_CHECK(w.add_tensor(name, DType::q4_0, ne));
    MLXN_CHECK(w.begin());
    for (int i = 0; i < 3; ++i) MLXN_CHECK(w.write(blocks));
    return w.finish();
  };
  fail_each("a file", [&] { return write({}); });
  GgufWriteOptions split;
  split.split_max_tensors = 1;
  fail_each("parts", [&] { return write(split); });
  GgufWriter w = must(GgufWriter::create(path));
  int key = 0;
  fail_each("add", [&] {
    return detail::guarded([&] { return w.add("key " + std::to_string(++key), "text"); });
  });
  fail_each("synth_model", [] { return outcome(synth_model("llama3-70b")); });
  EXPECT_EQ(folder.names().size(), 4u);  // no temporary file was left
  const std::filesystem::path first = folder / "written-00001-of-00003.gguf";
  fail_each("open parts", [&] { return outcome(GgufFile::open(first)); });
  std::array<std::byte, 4096> bytes{};
  std::ifstream(first, std::ios::binary).read(reinterpret_cast<char*>(bytes.data()), bytes.size());
  GgufSource source;
  source.bytes = std::filesystem::file_size(first);
  source.read = [&](std::uint64_t offset, std::span<std::byte> out) -> Result<void> {
    std::memcpy(out.data(), bytes.data() + offset, out.size());
    return {};
  };
  const GgufFile one = must(GgufFile::open(source));
  fail_each("open a source", [&] { return detail::guarded([&] { return outcome(GgufFile::open(source)); }); });
  std::array<std::byte, 54> blocks_read{};
  fail_each("read", [&] { return one.read(one.tensors()[0], 0, blocks_read); });
}

TEST(OutOfMemory, Files) {
  fail_each("GgufFile::open", [] { return outcome(GgufFile::open(demo_path())); });
  const GgufFile file = must(GgufFile::open(demo_path()));
  fail_each("gguf_architecture", [&] { return outcome(gguf_architecture(file)); });
  fail_each("Tokenizer::from_gguf", [&] { return outcome(Tokenizer::from_gguf(file)); });
  const Tokenizer tokenizer = must(Tokenizer::from_gguf(file));
  fail_each("encode", [&] { return outcome(tokenizer.encode("To be, or not to be: that is the question. \xf0\x9f\x98\x80")); });
  const std::vector<TokenId> ids = must(tokenizer.encode("To be, or not to be: that is the question."));
  fail_each("decode", [&] { return outcome(tokenizer.decode(ids)); });
  fail_each("stream", [&]() -> Result<void> {
    StreamDecoder stream(tokenizer);
    for (const TokenId id : ids) MLXN_CHECK(stream.push(id));
    return {};
  });
}

TEST(OutOfMemory, Blocks) {
  std::array<float, 64> x{};
  std::array<std::byte, 36> blocks{};
  fail_each("quantize", [&] { return quantize(DType::q4_0, x, blocks); });
  fail_each("dequantize", [&] { return dequantize(DType::q4_0, blocks, x); });
}

TEST(OutOfMemory, Operations) {
  const Device device = open_device();
  const auto f32 = [&](const Shape& shape) { return must(device.allocate(DType::f32, shape)); };
  const auto run = [&](const char* name, const std::function<Result<void>(CommandEncoder&)>& op) {
    fail_each(name, [&]() -> Result<void> {
      MLXN_TRY(CommandEncoder e, device.encoder());
      MLXN_CHECK(op(e));
      return e.commit_and_wait();
    });
  };
  const Tensor a = f32({4, 64}), b = f32({4, 64}), y = f32({4, 64}), w = f32({64}), row = f32({1, 64});
  const Tensor ids = must(device.allocate(DType::u32, {4})), positions = must(device.allocate(DType::i32, {4}));
  const Tensor id = must(device.allocate(DType::u32, {1}));
  run("add", [&](CommandEncoder& e) { return add(e, a, b, y); });
  run("mul", [&](CommandEncoder& e) { return mul(e, a, b, y); });
  run("scale", [&](CommandEncoder& e) { return scale(e, a, y, 2.0f); });
  run("softcap", [&](CommandEncoder& e) { return softcap(e, a, y, 2.0f); });
  run("silu_mul", [&](CommandEncoder& e) { return silu_mul(e, a, b, y); });
  run("gelu_mul", [&](CommandEncoder& e) { return gelu_mul(e, a, b, y); });
  run("rms_norm", [&](CommandEncoder& e) { return rms_norm(e, a, w, y, 1e-5f); });
  run("add_rms_norm", [&](CommandEncoder& e) { return add_rms_norm(e, a, b, w, a, y, 1e-5f); });
  run("softmax", [&](CommandEncoder& e) { return softmax(e, a, y); });
  run("argmax", [&](CommandEncoder& e) { return argmax(e, a, ids); });
  run("sample", [&](CommandEncoder& e) {
    SampleOptions options;
    options.top_k = 5;
    return sample(e, row, id, options, 0);
  });
  const Tensor raw = must(device.allocate(DType::q4_0, {64, 64}));
  PrepareOptions prepare;
  prepare.mode = PrepareMode::on;
  fail_each("Weight::prepare", [&] { return outcome(Weight::prepare(device, raw, prepare)); });
  const Weight weight = must(Weight::prepare(device, raw, prepare));
  run("embedding", [&](CommandEncoder& e) { return embedding(e, ids, weight, y); });
  for (const Numerics numerics : {Numerics::exact, Numerics::f16, Numerics::int8act}) {
    MatmulOptions options;
    options.numerics = numerics;
    run("matmul", [&](CommandEncoder& e) { return matmul(e, a, weight, y, options); });
    for (const Route route : {Route::vector, Route::tile}) {
      options.route = route;
      run("quantized_matmul_ggml",
          [&](CommandEncoder& e) { return quantized_matmul_ggml(e, a, raw, y, {4, 64, 64, DType::q4_0}, options); });
    }
  }
  fail_each("plan_matmul", [&] { return outcome(plan_matmul(device, {4, 64, 64, DType::q4_0}, true)); });
  fail_each("matmul_vector_threshold",
            [&] { return outcome(matmul_vector_threshold(device, {4, 64, 64, DType::q4_0}, false)); });

  RopeConfig config;
  config.head_dim = 16;
  fail_each("RopeTable::make", [&] { return outcome(RopeTable::make(device, config)); });
  const RopeTable table = must(RopeTable::make(device, config));
  const Tensor x = must(a.reshape({4, 4, 16})), kv = f32({4, 8, 16});
  run("rope", [&](CommandEncoder& e) { return rope(e, x, positions, table, x); });
  const Tensor k_cache = f32({4, 8, 16});
  run("kv_append", [&](CommandEncoder& e) { return kv_append(e, x, x, k_cache, kv, 0); });
  const Tensor q = must(x.permute({1, 0, 2})), out = must(must(y.reshape({4, 4, 16})).permute({1, 0, 2}));
  run("attention", [&](CommandEncoder& e) { return attention(e, q, k_cache, kv, out, 8); });
}

TEST(OutOfMemory, Models) {
  const Device device = open_device();
  const GgufFile file = must(GgufFile::open(demo_path()));
  for (const PrepareMode mode : {PrepareMode::off, PrepareMode::on}) {
    LoadOptions load;
    load.prepare = mode;
    fail_each("Model::load", [&] { return outcome(Model::load(file, device, load)); });
  }
  const Model model = must(Model::load(file, device));
  const std::vector<TokenId> prompt = {1, 400, 500};
  SessionOptions options;
  options.context = 8;
  fail_each("Session", [&]() -> Result<void> {
    MLXN_TRY(Session session, Session::create(model, options));
    MLXN_CHECK(session.append(prompt));
    const TokenId token = 300;
    return outcome(session.append({&token, 1}));
  });
  fail_each("Sampler", [&]() -> Result<void> {
    MLXN_TRY(Sampler sampler, Sampler::create(device, model.info().vocab));
    MLXN_CHECK(sampler.accept(3));
    MLXN_TRY(const Tensor logits, device.allocate(DType::f32, {1, model.info().vocab}));
    return outcome(sampler.next(logits));
  });
}

}  // namespace
}  // namespace mlxn::allocation_failures_suite
