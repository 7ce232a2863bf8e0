# How the portable kernels are compiled for the emulator (src/simt), which only tests use.

# mlxn_simt_sources(target files...): adds files with kernels to a target. The compiler calls a hook before their loads and
# stores, as thread sanitizer wants it; the emulator defines these, no sanitizer is linked. What the compiler could do to
# accesses is kept down, so that the emulator sees those of the source: no vectors over several of them (which read the gaps of
# strided data too), no loops turned into memset. What GPUs do badly is an error: double arithmetic, narrowing, large frames
# (local arrays; the emulator's threads have 64 KiB of stack). Never in a build with sanitizers.
function(mlxn_simt_sources target)
  set_source_files_properties(${ARGN} TARGET_DIRECTORY ${target} PROPERTIES SKIP_PRECOMPILE_HEADERS ON COMPILE_OPTIONS
    "-DMLXN_EMULATED;-O2;-fsanitize=thread;--param=tsan-instrument-func-entry-exit=0;--param=tsan-distinguish-volatile=0;-fno-tree-vectorize;-fno-tree-loop-distribute-patterns;-fno-strict-aliasing;-ffp-contract=off;-fno-math-errno;-Werror=frame-larger-than=16384;-Werror=double-promotion;-Werror=narrowing;-Werror=float-conversion;-Werror=conversion;-Wno-sign-conversion")
  target_sources(${target} PRIVATE ${ARGN})
endfunction()

# Whether the emulator can be built here: it knows what GCC's instrumentation emits, and its threads are fibers of Boost.Context.
function(mlxn_simt_available result)
  set(${result} OFF PARENT_SCOPE)
  if(NOT MLXN_SANITIZE AND CMAKE_SYSTEM_NAME STREQUAL "Linux" AND NOT CMAKE_CROSSCOMPILING AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    find_package(boost_context QUIET)
    if(boost_context_FOUND)
      set(${result} ON PARENT_SCOPE)
    else()
      message(STATUS "No Boost.Context: the emulator of GPU kernels and its tests are left out")
    endif()
  endif()
endfunction()
