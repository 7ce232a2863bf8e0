// In programs that do not link the emulator.
#include "tests/support/devices.h"

namespace mlxn::test {

void add_test_devices() {}

}  // namespace mlxn::test
