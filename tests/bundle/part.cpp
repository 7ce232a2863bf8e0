// The entry of one part of the bundle, compiled once for each.
#include "gtest/gtest.h"
#include "tests/bundle/parts.h"

int MLXN_PART_ENTRY(int* argc, char** argv) {
  testing::InitGoogleTest(argc, argv);
  return RUN_ALL_TESTS();
}
