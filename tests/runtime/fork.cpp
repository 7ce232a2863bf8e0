// What is left of a device in a child of the process: errors instead of waits for threads that are not there.
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <optional>

#include "gtest/gtest.h"
#include "mlxn/buffer_pool.h"
#include "mlxn/graph.h"
#include "mlxn/ops/scale.h"
#include "tests/support/must.h"

namespace mlxn::fork_suite {
namespace {

using test::must;

/// Everything of one device, with threads and a lane that wait for work.
struct Things {
  std::optional<Device> device;
  std::optional<Queue> queue;
  std::optional<BufferPool> pool;
  std::optional<Tensor> tensor, pooled;
  std::optional<CommandEncoder> encoder;
  std::optional<Graph> graph;
  std::optional<Submission> submission;
};

Things things() {
  DeviceOptions options;
  options.threads = 3;
  Things t;
  t.device = must(Device::open("cpu", options));
  t.queue = must(t.device->create_queue());
  t.pool.emplace(must(BufferPool::create(*t.device)));
  t.tensor = must(t.device->allocate(DType::f32, {512, 1024}));
  t.pooled = must(t.pool->allocate(DType::f32, {64}));
  const Tensor x = *t.tensor;
  t.graph = must(Graph::record(*t.device, [&](CommandEncoder& encoder) { return scale(encoder, x, x, 2); }));
  for (const Queue& queue : {t.device->default_queue(), *t.queue}) {
    EncoderOptions on_queue;
    on_queue.queue = queue;
    CommandEncoder encoder = must(t.device->encoder(on_queue));
    must(scale(encoder, x, x, 2));
    t.submission = must(encoder.commit());  // not waited for at once, so that the lane runs
    must(t.submission->wait());
  }
  t.encoder.emplace(must(t.device->encoder()));
  must(scale(*t.encoder, x, x, 2));
  return t;
}

template <class T>
bool refused(const Result<T>& result) {
  return !result && result.error().code() == ErrorCode::wrong_state && result.error().message().find("forked") != std::string_view::npos;
}

/// Runs in the child; the number of the first step that went wrong, 0 if none did.
int use(Things& t) {
  const Tensor& x = *t.tensor;
  if (!refused(t.device->allocate(DType::f32, {4}))) return 1;
  if (!refused(t.device->encoder())) return 2;
  if (!refused(t.device->create_queue())) return 3;
  if (!refused(t.device->fill(x, std::byte{0}))) return 4;
  if (!refused(scale(*t.encoder, x, x, 2))) return 5;
  if (!refused(t.encoder->commit())) return 6;
  if (!refused(t.encoder->commit_and_wait())) return 7;
  if (!refused(t.graph->replay())) return 8;
  if (!refused(t.graph->replay_and_wait())) return 9;
  if (!refused(t.queue->wait_idle())) return 10;
  if (!refused(x.read<float>())) return 11;
  if (!refused(t.pool->allocate(DType::f32, {64}))) return 12;
  if (!refused(t.submission->on_complete([](const Result<void>&) {}))) return 13;
  if (!t.submission->wait()) return 14;  // it was done before
  t.encoder.reset();
  t.graph.reset();
  t.submission.reset();
  t.pooled.reset();
  t.pool.reset();
  t.tensor.reset();
  t.queue.reset();
  t.device.reset();
#if !defined(__SANITIZE_THREAD__)  // which ends a child that starts threads
  Things own = things();
  if (!own.encoder->commit_and_wait()) return 15;
  if (!own.graph->replay_and_wait()) return 16;
#endif
  return 0;
}

TEST(Fork, AChildIsToldThatItsParentsDeviceIsGone) {
  Things t = things();
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(60);  // a hanging child is the failure that this is about
    _exit(use(t));
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_FALSE(WIFSIGNALED(status)) << "signal " << WTERMSIG(status) << (WTERMSIG(status) == SIGALRM ? ": it hung" : "");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "step " << WEXITSTATUS(status);
  must(t.encoder->commit_and_wait());  // the parent's goes on
  must(t.graph->replay_and_wait());
}

}  // namespace
}  // namespace mlxn::fork_suite
