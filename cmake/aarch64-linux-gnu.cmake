# Cross-builds for ARM64 Linux with Debian's compiler (g++-aarch64-linux-gnu); the programs run under qemu-aarch64 (qemu-user).
# The libraries of that architecture are looked for below MLXN_ARM64_LIBRARIES, where `tools/setup.sh --arm64` puts them:
# nothing of the host's own is used, and nothing foreign is installed on it.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)

set(MLXN_ARM64_LIBRARIES "${CMAKE_CURRENT_LIST_DIR}/../build/arm64-libraries" CACHE PATH "A root folder with ARM64 libraries")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MLXN_ARM64_LIBRARIES)
cmake_path(ABSOLUTE_PATH MLXN_ARM64_LIBRARIES NORMALIZE OUTPUT_VARIABLE mlxn_arm64_root)
set(CMAKE_FIND_ROOT_PATH "${mlxn_arm64_root}" /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} "${mlxn_arm64_root}/usr/lib/aarch64-linux-gnu/pkgconfig:${mlxn_arm64_root}/usr/share/pkgconfig")
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${mlxn_arm64_root}")

set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
