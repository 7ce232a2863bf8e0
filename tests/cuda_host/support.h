#pragma once

#include <chrono>
#include <numeric>
#include <thread>

#include "mlxn/graph.h"
#include "mlxn/kernel.h"
#include "mlxn/ops/set_element.h"
#include "ops/set_element/args.h"
#include "tests/cuda_host/fake_runtime.h"
#include "tests/support/must.h"

namespace mlxn {

template <class F>
bool eventually(F&& condition) {
  for (int i = 0; i < 4000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

/// A machine of its own for each test, with the one kernel that all use. Everything that a test opened is given back.
class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    fake::reset();
    fake::define_kernel("set_element_u32", {sizeof(ops::SetElementArgs)}, [](const fake::Launch& launch) {
      const auto args = launch.param<ops::SetElementArgs>(0);
      const auto number = [](const Index& index) { return index.at != nullptr ? *index.at : index.value; };
      args.y.ptr[number(args.index)] = static_cast<std::uint32_t>(number(args.value));
    });
  }
  void TearDown() override {
    EXPECT_EQ(fake::last_error(), cudaSuccess) << "an error was left for the next caller of the runtime";
    if (!broken_) {
      // The last handle of a device may go away on a thread of the library, a little later.
      EXPECT_TRUE(eventually([] { return fake::live_objects() == 0; })) << fake::live_objects() << " objects were not given back";
    }
  }
  /// The device will not take anything back.
  void break_device(cudaError_t code = cudaErrorIllegalAddress) {
    broken_ = true;
    fake::break_next_work(code);
  }

 private:
  bool broken_ = false;
};

inline Device cuda(const DeviceOptions& options = {}) { return test::must(Device::open("cuda", options)); }

inline std::vector<std::uint32_t> words(const Device& device, const Tensor& t) {
  std::vector<std::uint32_t> values(static_cast<std::size_t>(t.elems()));
  test::must(device.download(std::as_writable_bytes(std::span(values)), t));
  return values;
}

inline EncoderOptions labelled(std::string_view label) {
  EncoderOptions options;
  options.label = label;
  return options;
}

inline Submission commit_fill(const Device& device, const Tensor& t, int value, const EncoderOptions& options = {}) {
  CommandEncoder encoder = test::must(device.encoder(options));
  test::must(encoder.fill(t, static_cast<std::byte>(value)));
  return test::must(encoder.commit());
}

}  // namespace mlxn
