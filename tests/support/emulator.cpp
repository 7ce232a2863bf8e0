// In programs that link the emulator.
#include "backends/simt/device.h"
#include "tests/support/devices.h"

namespace mlxn::test {

void add_test_devices() { simt::add_emulator(); }

}  // namespace mlxn::test
