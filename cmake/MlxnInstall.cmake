# What `cmake --install` puts down: archive, headers, program (src/cli), CMake package, pkg-config file, licence. The tree
# may be moved afterwards.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mlxn)

install(TARGETS mlxn EXPORT mlxnTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/mlxn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(EXPORT mlxnTargets NAMESPACE mlxn:: DESTINATION ${package_dir})
configure_package_config_file(cmake/mlxnConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfig.cmake"
  INSTALL_DESTINATION ${package_dir} NO_SET_AND_CHECK_MACRO NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/mlxnConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfigVersion.cmake"
  cmake/FindPCRE2.cmake DESTINATION ${package_dir})

# The prefix as seen from the .pc file's folder, unless a folder was given as an absolute path.
set(pc_dir "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(MLXN_PC_PREFIX "${CMAKE_INSTALL_PREFIX}")
else()
  file(RELATIVE_PATH up "/prefix/${pc_dir}" "/prefix")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(MLXN_PC_PREFIX "\${pcfiledir}/${up}")
endif()
foreach(kind IN ITEMS LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${kind}}")
    set(MLXN_PC_${kind} "${CMAKE_INSTALL_${kind}}")
  else()
    set(MLXN_PC_${kind} "\${prefix}/${CMAKE_INSTALL_${kind}}")
  endif()
endforeach()
if(APPLE)
  set(MLXN_PC_CXX_LIBS "-lc++")
else()
  set(MLXN_PC_CXX_LIBS "-lstdc++")
endif()
configure_file(cmake/mlxn.pc.in "${CMAKE_CURRENT_BINARY_DIR}/mlxn.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mlxn.pc" DESTINATION ${pc_dir})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
