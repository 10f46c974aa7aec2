# upg_layer(name): an object library of src/<name>; upg_library(name layers...): the archive that programs link.

# Kernels name every fused multiply-add themselves: the same bits from every compiler and instruction set.
set(UPG_ISA_FLAGS_avx2 -ffp-contract=off -mavx2 -mfma -mf16c)
set(UPG_ISA_FLAGS_avxvnni ${UPG_ISA_FLAGS_avx2} -mavxvnni)
set(UPG_ISA_FLAGS_avx512vnni ${UPG_ISA_FLAGS_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  list(APPEND UPG_ISA_FLAGS_avx512vnni -Wno-maybe-uninitialized -Wno-uninitialized)  # GCC 12's own intrinsics header trips it
endif()
set(UPG_ISA_FLAGS_avx512vbmi ${UPG_ISA_FLAGS_avx512vnni} -mavx512vbmi)
set(UPG_ISA_FLAGS_amxint8 ${UPG_ISA_FLAGS_avx512vbmi})  # tiles by inline assembly
set(UPG_ISA_FLAGS_neondot -ffp-contract=off -march=armv8.2-a+dotprod)
set(UPG_ISAS)
if(UPG_SIMD AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(UPG_ISAS avx2 avxvnni avx512vnni avx512vbmi amxint8)
elseif(UPG_SIMD AND CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(UPG_ISAS neondot)
endif()

add_library(upg_options INTERFACE)
target_compile_options(upg_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(upg_options INTERFACE -Wno-restrict)  # false alarms on std::string assignment
endif()
if(UPG_WERROR)
  target_compile_options(upg_options INTERFACE -Werror)
endif()
if(UPG_SANITIZE)
  target_compile_options(upg_options INTERFACE -fsanitize=${UPG_SANITIZE} -fno-omit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(upg_options INTERFACE -Wno-maybe-uninitialized)  # false alarms in std::regex
  endif()
  target_link_options(upg_options INTERFACE -fsanitize=${UPG_SANITIZE})
endif()
target_compile_definitions(upg_options INTERFACE UPG_VERSION="${PROJECT_VERSION}")
target_include_directories(upg_options INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(upg_options INTERFACE Threads::Threads fmt::fmt nlohmann_json::nlohmann_json
                      PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::XXHASH)
if("avx2" IN_LIST UPG_ISAS)
  target_compile_definitions(upg_options INTERFACE UPG_X86_SIMD=1)
elseif("neondot" IN_LIST UPG_ISAS)
  target_compile_definitions(upg_options INTERFACE UPG_ARM_SIMD=1)
endif()

function(upg_layer name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/${name}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_(test|absent)\\.cc$")
  foreach(source ${sources})
    if(source MATCHES "__([a-z0-9]+)\\.cc$")
      set(isa ${CMAKE_MATCH_1})
      if(isa IN_LIST UPG_ISAS)
        set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "${UPG_ISA_FLAGS_${isa}}")
      else()
        list(REMOVE_ITEM sources ${source})
      endif()
    endif()
  endforeach()
  add_library(upg_layer_${name} OBJECT ${sources})
  target_link_libraries(upg_layer_${name} PRIVATE upg_options)
endfunction()

# Models by name: needs libcurl and libcrypto; without them a single source stands in its place.
function(upg_hub_layer)
  if(CURL_FOUND AND CRYPTO_FOUND)
    upg_layer(hub)
    target_link_libraries(upg_layer_hub PRIVATE PkgConfig::CURL PkgConfig::CRYPTO)
  else()
    message(STATUS "libcurl or libcrypto is not there: upg pull and models by name are left out")
    add_library(upg_layer_hub OBJECT ${PROJECT_SOURCE_DIR}/src/hub/hub_absent.cc)
    target_link_libraries(upg_layer_hub PRIVATE upg_options)
  endif()
endfunction()

function(upg_library name)
  set(objects)
  foreach(layer ${ARGN})
    list(APPEND objects $<TARGET_OBJECTS:upg_layer_${layer}>)
  endforeach()
  add_library(${name} ${objects})
  add_library(upg::${name} ALIAS ${name})
  target_include_directories(${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>)
  target_compile_features(${name} PUBLIC cxx_std_20)
  # Consumers see the public headers only; the libraries below are link-time matters.
  target_link_libraries(${name} PRIVATE $<BUILD_INTERFACE:upg_options> Threads::Threads fmt::fmt
                        PkgConfig::PCRE2 PkgConfig::UTF8PROC PkgConfig::XXHASH ${UPG_CUDA_LIBRARIES})
endfunction()

# The same bits on every machine and in every clone of a function: no fused multiply-add that the source does not name.
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/codec/mdcsr.cc ${PROJECT_SOURCE_DIR}/src/codec/int8.cc
                            ${PROJECT_SOURCE_DIR}/src/model/blocks/latent_attention.cc
                            ${PROJECT_SOURCE_DIR}/src/text/sampler.cc
                            PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
set_source_files_properties(${PROJECT_SOURCE_DIR}/src/codec/trellis_search.cc ${PROJECT_SOURCE_DIR}/src/codec/feedback.cc
                            PROPERTIES COMPILE_OPTIONS "-O3;-ffp-contract=off;-fno-math-errno;-fno-trapping-math")
