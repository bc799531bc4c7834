# The CUDA kernels: torch-free sources, linked with the static CUDA runtime, so that the library needs nothing of CUDA
# but the driver.
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
file(GLOB cuda_sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_LIST_DIR}/*.cu")

# nvcc 13 no longer knows 70, and before 12.8 it does not yet know 100 and 120.
set(cuda_archs ${DISCO_FAST_CUDA_ARCHS})
if(NOT cuda_archs)
  execute_process(COMMAND "${CMAKE_CUDA_COMPILER}" --list-gpu-arch OUTPUT_VARIABLE known COMMAND_ERROR_IS_FATAL ANY)
  foreach(arch 70 75 80 86 89 90 100 120)
    if(known MATCHES "compute_${arch}[\r\n]")
      list(APPEND cuda_archs ${arch})
    endif()
  endforeach()
endif()

# `archs` as in "80;90": machine code for each, and PTX of the two newest ones, for later GPUs and those between. Code of
# "90a" serves no other GPU, nor does "native".
function(target_cuda_kernels target archs)
  list(SORT archs COMPARE NATURAL)
  set(chosen ${archs})
  list(TRANSFORM chosen REPLACE "^([0-9]+[a-z]?)$" "\\1-real")
  set(newest ${archs})
  list(FILTER newest INCLUDE REGEX "^[0-9]+$")
  list(REVERSE newest)
  list(SUBLIST newest 0 2 newest)
  list(TRANSFORM newest APPEND "-virtual")
  list(APPEND chosen ${newest})
  set_target_properties(${target} PROPERTIES
    CUDA_STANDARD 17
    CUDA_STANDARD_REQUIRED ON
    CUDA_ARCHITECTURES "${chosen}"
    CUDA_VISIBILITY_PRESET hidden
    CUDA_RUNTIME_LIBRARY Static)
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr -Xcompiler=-Wall,-Wextra --threads=0>)
  # The weak symbol of the current stream is found through libtorch, which a linker would drop as not needed.
  target_link_libraries(${target} PRIVATE CUDA::cudart_static -Wl,--no-as-needed torch -Wl,--as-needed)
  # What disco_fast/_library.py compares with the machine before it loads the library.
  list(JOIN archs "\", \"" library_archs)
  file(WRITE "${DISCO_FAST_OUTPUT_DIR}/lib${target}.json"
       "{\"cuda\": \"${CUDAToolkit_VERSION_MAJOR}.${CUDAToolkit_VERSION_MINOR}\", \"archs\": [\"${library_archs}\"]}\n")
endfunction()
