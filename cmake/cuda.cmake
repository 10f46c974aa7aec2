# The cuda layer: host sources by the C++ compiler, kernels by nvcc, for compute capabilities 7.5 to 9.0 and PTX for later.
# Without UPG_CUDA a single source stands in its place.
if(NOT UPG_CUDA)
  add_library(upg_layer_cuda OBJECT ${PROJECT_SOURCE_DIR}/src/cuda/cuda_device_absent.cc)
  target_link_libraries(upg_layer_cuda PRIVATE upg_options)
  set(UPG_CUDA_LAYERS cuda)
  return()
endif()

enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
set(UPG_CUDA_ARCHITECTURES "75;80;90a" CACHE STRING "What kernels are compiled for, besides PTX for what comes later")

upg_layer(cuda)
target_link_libraries(upg_layer_cuda PRIVATE CUDA::cudart_static)
file(GLOB kernels CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cuda/*.cu)
add_library(upg_layer_cuda_kernels OBJECT ${kernels})
target_include_directories(upg_layer_cuda_kernels PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_compile_options(upg_layer_cuda_kernels PRIVATE -Xcompiler=-Wall,-Wextra)
set_target_properties(upg_layer_cuda_kernels PROPERTIES CUDA_STANDARD 17 CUDA_ARCHITECTURES OFF)  # CMake 3.25 does not know 90a
foreach(architecture ${UPG_CUDA_ARCHITECTURES})
  target_compile_options(upg_layer_cuda_kernels PRIVATE "SHELL:-gencode arch=compute_${architecture},code=sm_${architecture}")
endforeach()
target_compile_options(upg_layer_cuda_kernels PRIVATE "SHELL:-gencode arch=compute_90,code=compute_90")
if("90a" IN_LIST UPG_CUDA_ARCHITECTURES)
  target_compile_definitions(upg_layer_cuda PRIVATE UPG_CUDA_SM90A=1)
endif()
set(UPG_CUDA_LAYERS cuda cuda_kernels)
set(UPG_CUDA_LIBRARIES CUDA::cudart_static)
