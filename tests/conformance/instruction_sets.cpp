// Which instruction sets the machine is found to have.
#include <cstdlib>

#include "base/cpu_features.h"
#include "gtest/gtest.h"
#include "tests/support/devices.h"

namespace mlxn::test::instruction_sets_suite {
namespace {

// All levels up to the best one. Who starts the suite on a processor that he knows, as ./test arm64 does, names the best in
// MLXN_TEST_ISA.
TEST(InstructionSets, are_those_of_the_processor) {
  bool wanted = true;
  for (const CpuIsa isa : kIsas) {
    EXPECT_EQ(cpu_has(isa), wanted) << to_string(isa);
    if (isa == best_isa()) wanted = false;
  }
  const char* best = std::getenv("MLXN_TEST_ISA");
  if (best != nullptr) {
    EXPECT_EQ(to_string(best_isa()), best);
  }
  const std::string& name = device_named("cpu").capabilities().name;
  EXPECT_NE(name.find(to_string(best_isa())), std::string::npos) << name;
}

}  // namespace
}  // namespace mlxn::test::instruction_sets_suite
