#pragma once

#include <cstdint>

#include "tile_check/data.h"
#include "tile_check/kernels.h"
#include "tile_check/product.h"

// What kernels are checked against.
namespace tile_check {

extern int failures;
extern int runs;  ///< of every product that is checked

/// One matrix and one x with their float64 product.
struct Case {
  Weights weights;
  int n, k, tokens, spread;
  Matrix matrix;
  std::uint8_t* records;
  float* values;
  float* exact;
  void* x;
  unsigned x_type;
  double* expected;
  float* norm = nullptr;

  Case(const Weights& w, int n_, int k_, int tokens_, int spread_, int x_spread, unsigned x_type_,
       bool normed = false);
  Case(const Case&) = delete;
  ~Case();

  /// Staged; where the plan can map x, also direct. With a norm, also onto what is there, and with gates.
  void run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type);
  /// gap: of y, between the rows.
  void run(const HopperTilePlan& plan, const void* function, const char* name, unsigned y_type,
           const Way& way, int gap = 5);
};

}  // namespace tile_check
