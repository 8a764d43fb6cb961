# LibTorch 2.11.0 from the unpacked wheels: torch_cpu and c10 only. find_package(Torch) is not used,
# because the wheel's own configuration demands a CUDA toolkit and links all of CUDA.
set(torch_root ${QIANLI_TORCH_DIR}/torch)
if(NOT EXISTS ${torch_root}/include/torch/headeronly/version.h)
  message(FATAL_ERROR "QIANLI_TORCH_DIR=${QIANLI_TORCH_DIR} does not hold torch/include; run scripts/setup.sh")
endif()
file(STRINGS ${torch_root}/include/torch/headeronly/version.h torch_versions REGEX "define TORCH_VERSION_(MAJOR|MINOR) ")
if(NOT torch_versions MATCHES "MAJOR 2" OR NOT torch_versions MATCHES "MINOR 11")
  message(FATAL_ERROR "LibTorch 2.11 expected in ${torch_root}, found: ${torch_versions}")
endif()
foreach(lib c10 torch_cpu)
  add_library(torch::${lib} SHARED IMPORTED)
  set_target_properties(torch::${lib} PROPERTIES IMPORTED_LOCATION ${torch_root}/lib/lib${lib}.so)
endforeach()

# The wheel carries headers of another fmt without its library: ours comes first in the search.
find_path(QIANLI_FMT_INCLUDE fmt/core.h REQUIRED)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/fmt_first)
file(CREATE_LINK ${QIANLI_FMT_INCLUDE}/fmt ${CMAKE_BINARY_DIR}/fmt_first/fmt SYMBOLIC)

add_library(qianli_torch INTERFACE)
target_include_directories(qianli_torch SYSTEM INTERFACE
  ${CMAKE_BINARY_DIR}/fmt_first ${torch_root}/include ${torch_root}/include/torch/csrc/api/include)
target_compile_definitions(qianli_torch INTERFACE
  USE_DISTRIBUTED USE_C10D_GLOO USE_RPC USE_TENSORPIPE AT_PER_OPERATOR_HEADERS)
# Without -fopenmp at::parallel_for compiles and silently runs in one thread.
target_compile_options(qianli_torch INTERFACE -fopenmp)
target_link_libraries(qianli_torch INTERFACE torch::torch_cpu torch::c10 ${torch_root}/lib/libgomp.so.1)

# Every upper-floor target shares one precompiled header: it turns 13 s per autograd source into 4 s.
add_library(qianli_torch_pch OBJECT ${CMAKE_SOURCE_DIR}/cmake/torch_pch.cpp)
target_link_libraries(qianli_torch_pch PUBLIC qianli_torch)
target_compile_options(qianli_torch_pch PRIVATE -Winvalid-pch)
target_precompile_headers(qianli_torch_pch PRIVATE ${CMAKE_SOURCE_DIR}/cmake/torch_pch.h)

function(qianli_use_torch target)
  target_link_libraries(${target} PUBLIC qianli_torch)
  target_precompile_headers(${target} REUSE_FROM qianli_torch_pch)
  # The shared header is compiled with -fPIC; CMake would give executables -fPIE and spoil it.
  get_target_property(kind ${target} TYPE)
  if(kind STREQUAL "EXECUTABLE")
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  set_target_properties(${target} PROPERTIES BUILD_RPATH "${torch_root}/lib")
endfunction()
