# What `cmake --install` puts where: libraries, public headers, the program, a CMake package and pkg-config files.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(upg_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/upg)
foreach(library upg upg_compress upg_hub)
  set_target_properties(${library} PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})
endforeach()
file(RELATIVE_PATH upg_bin_to_lib ${CMAKE_INSTALL_FULL_BINDIR} ${CMAKE_INSTALL_FULL_LIBDIR})
set_target_properties(upg_cli PROPERTIES INSTALL_RPATH "$ORIGIN/${upg_bin_to_lib}")
set_target_properties(upg_compress upg_hub PROPERTIES INSTALL_RPATH "$ORIGIN")

install(TARGETS upg upg_compress upg_hub EXPORT upgTargets)
install(TARGETS upg_cli)
install(DIRECTORY include/upg DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN "*.h")
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(EXPORT upgTargets NAMESPACE upg:: DESTINATION ${upg_cmake_dir})

configure_package_config_file(cmake/upgConfig.cmake.in ${PROJECT_BINARY_DIR}/upgConfig.cmake
                              INSTALL_DESTINATION ${upg_cmake_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/upgConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/upgConfig.cmake ${PROJECT_BINARY_DIR}/upgConfigVersion.cmake DESTINATION ${upg_cmake_dir})

# A static library leaves its dependencies to whoever links it; a shared one has found them already.
if(BUILD_SHARED_LIBS)
  set(upg_pc_requires Requires.private)
  set(upg_pc_threads "")
else()
  set(upg_pc_requires Requires)
  set(upg_pc_threads " -pthread")
endif()
set(upg_pc_hub "")
if(CURL_FOUND AND CRYPTO_FOUND)
  set(upg_pc_hub "libcurl libcrypto")
endif()
foreach(library upg upg_compress upg_hub)
  configure_file(cmake/${library}.pc.in ${PROJECT_BINARY_DIR}/${library}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${library}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()
