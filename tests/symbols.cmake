# The archive ends no process, prints nothing and shares no instruction set's code: see archive_symbols.cmake.
if(NOT MLXN_SANITIZE)
  add_test(NAME symbols COMMAND ${CMAKE_COMMAND} -DARCHIVE=$<TARGET_FILE:mlxn> -DNM=${CMAKE_NM}
           -P ${CMAKE_CURRENT_SOURCE_DIR}/archive_symbols.cmake)
endif()
