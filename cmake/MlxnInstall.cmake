include(CMakePackageConfigHelpers)

install(TARGETS mlxn EXPORT mlxnTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/mlxn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mlxnTargets NAMESPACE mlxn:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mlxn)
configure_package_config_file(cmake/mlxnConfig.cmake.in "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfig.cmake"
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mlxn)
write_basic_package_version_file("${CMAKE_CURRENT_BINARY_DIR}/mlxnConfigVersion.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/mlxnConfigVersion.cmake"
  DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/mlxn)
configure_file(cmake/mlxn.pc.in "${CMAKE_CURRENT_BINARY_DIR}/mlxn.pc" @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/mlxn.pc" DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
