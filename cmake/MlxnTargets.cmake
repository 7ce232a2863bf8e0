# Options that every target of this project compiles with. Interface only: nothing of it reaches a consumer.
add_library(mlxn_options INTERFACE)
target_compile_options(mlxn_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -fno-math-errno -ffp-contract=off)
if(MLXN_WERROR)
  target_compile_options(mlxn_options INTERFACE -Werror)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_options(mlxn_options INTERFACE -march=x86-64-v2)
endif()
if(MLXN_SANITIZE)
  target_compile_options(mlxn_options INTERFACE -fsanitize=${MLXN_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  # Half of the time to compile is for the check of virtual calls, of which there are few.
  if(MLXN_SANITIZE MATCHES "undefined")
    target_compile_options(mlxn_options INTERFACE -fno-sanitize=vptr)
  endif()
  target_compile_definitions(mlxn_options INTERFACE _GLIBCXX_ASSERTIONS)
  target_link_options(mlxn_options INTERFACE -fsanitize=${MLXN_SANITIZE})
  # The runtime's variables of a thread, which every function with a stack of its own to watch asks for, are quicker to find in
  # the program than in a shared library. Clang links it so by default.
  if(MLXN_SANITIZE MATCHES "address" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_link_options(mlxn_options INTERFACE -static-libasan)
  endif()
endif()

# A file's suffix names the instruction set it is compiled for; files of a foreign architecture are dropped from the list.
function(mlxn_isa_flags list_name)
  set(avx2 -mavx2 -mfma -mf16c -mbmi -mbmi2 -mpopcnt)
  set(avx512 ${avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512cd -mavx512vnni -mavx512vbmi -mprefer-vector-width=512)
  set(neon "")
  set(dotprod -march=armv8.2-a+dotprod)
  set(i8mm -march=armv8.2-a+dotprod+i8mm)
  set(kept)
  foreach(source IN LISTS ${list_name})
    get_filename_component(stem "${source}" NAME_WE)
    if(stem MATCHES "_(avx2|avx512|neon|dotprod|i8mm)$")
      set(isa ${CMAKE_MATCH_1})
      if(isa MATCHES "^avx")
        set(processors "x86_64|AMD64")
      else()
        set(processors "aarch64|arm64")
      endif()
      if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "${processors}")
        continue()
      endif()
      set_source_files_properties("${source}" TARGET_DIRECTORY mlxn PROPERTIES
        COMPILE_OPTIONS "${${isa}}" SKIP_PRECOMPILE_HEADERS ON)
    endif()
    # The products' kernels unroll into so much code that instrumenting it takes many minutes a file. What they read and
    # write is checked by guard pages in the conformance suite instead. Without it they are those of the release build.
    if(MLXN_SANITIZE AND stem MATCHES "^rows16_")
      if(EXISTS "${MLXN_PLAIN_BUILD}/build.ninja")
        list(APPEND borrowed "${source}")
        continue()
      endif()
      set_property(SOURCE "${source}" TARGET_DIRECTORY mlxn APPEND PROPERTY COMPILE_OPTIONS -fno-sanitize=all)
      set_property(SOURCE "${source}" TARGET_DIRECTORY mlxn PROPERTY SKIP_PRECOMPILE_HEADERS ON)
    endif()
    list(APPEND kept "${source}")
  endforeach()
  if(borrowed)
    mlxn_borrow_objects(mlxn "${MLXN_PLAIN_BUILD}" ${borrowed})
  endif()
  set(${list_name} "${kept}" PARENT_SCOPE)
endfunction()

# mlxn_borrow_objects(target build sources...): takes what another build folder's target of the same name makes of these
# sources, brought up to date there first.
function(mlxn_borrow_objects target build)
  set(names "")
  foreach(source IN LISTS ARGN)
    file(RELATIVE_PATH name "${CMAKE_CURRENT_SOURCE_DIR}" "${source}")
    list(APPEND names "CMakeFiles/${target}.dir/${name}${CMAKE_CXX_OUTPUT_EXTENSION}")
  endforeach()
  list(TRANSFORM names PREPEND "${build}/" OUTPUT_VARIABLE objects)
  add_custom_target(${target}_borrowed COMMAND ${CMAKE_COMMAND} --build "${build}" --target ${names} BYPRODUCTS ${objects}
    COMMENT "Updating objects of ${build}" VERBATIM)
  set_source_files_properties(${objects} TARGET_DIRECTORY ${target} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  target_sources(${target} PRIVATE ${objects})
  add_dependencies(${target} ${target}_borrowed)
endfunction()

# What nearly every source includes, itself or through a header.
set(MLXN_COMMON_HEADERS algorithm array atomic bit chrono cmath condition_variable cstdint cstring filesystem functional limits
  map memory mutex optional span string string_view thread utility variant vector fmt/format.h)

# mlxn_precompile(target headers...): these headers are parsed once for all sources of a target, which is most of the time
# that a small file takes to compile. Sources with options of their own skip that: a compiler takes only what it made with
# the same ones.
function(mlxn_precompile target)
  if(MLXN_PCH)
    list(TRANSFORM ARGN REPLACE "(.+)" "<\\1>")
    target_precompile_headers(${target} PRIVATE ${ARGN})
  endif()
endfunction()

# The table of built-in operations, generated from the folders below src/ops: each holds <op>.cpp, which defines
# `const OpInfo mlxn::ops::op_<op>`.
function(mlxn_op_table target)
  file(GLOB folders CONFIGURE_DEPENDS LIST_DIRECTORIES true "${CMAKE_CURRENT_SOURCE_DIR}/src/ops/*")
  set(declarations "")
  set(entries "")
  foreach(folder IN LISTS folders)
    get_filename_component(op "${folder}" NAME)
    if(IS_DIRECTORY "${folder}" AND EXISTS "${folder}/${op}.cpp")
      string(APPEND declarations "extern const OpInfo op_${op};\n")
      string(APPEND entries "    &op_${op},\n")
    endif()
  endforeach()
  set(text "// Generated by the build from the folders of src/ops.\n#include \"ops/op_table.h\"\n\nnamespace mlxn::ops {\n${declarations}\n")
  string(APPEND text "namespace {\nconst OpInfo* const kTable[] = {\n${entries}    nullptr,\n};\n}  // namespace\n\n")
  string(APPEND text "std::span<const OpInfo* const> op_table() noexcept {\n  return {kTable, std::size(kTable) - 1};\n}\n\n}  // namespace mlxn::ops\n")
  file(CONFIGURE OUTPUT "${CMAKE_CURRENT_BINARY_DIR}/generated/op_table.cpp" CONTENT "${text}" @ONLY)
  target_sources(${target} PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/generated/op_table.cpp")
endfunction()
