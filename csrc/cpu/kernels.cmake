# The CPU kernels: one torch-free source, compiled once per instruction set, chosen when the library loads.
#
# Nothing but these objects may be compiled with more than the baseline: an inline function of a shared header
# compiled for AVX-512 could be the copy that the linker keeps for everybody.

set(instruction_sets baseline)
set(flags_baseline "")
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND instruction_sets avx2 avx512)
  set(flags_avx2 -mavx2 -mfma -mf16c)
  set(flags_avx512 ${flags_avx2} -mavx512f -mavx512bw -mavx512dq -mavx512vl
                   -mprefer-vector-width=512)
endif()

# Puts the objects of every instruction set, compiled with further options, into the variable `objects`.
function(add_cpu_kernels objects)
  foreach(isa IN LISTS instruction_sets)
    add_library(cpu_${isa} OBJECT ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/kernels.cpp)
    target_compile_definitions(cpu_${isa} PRIVATE DISCO_FAST_ISA=${isa})
    # -fno-math-errno makes sqrt an instruction. No -ffast-math: NaN and order keep their meaning.
    target_compile_options(cpu_${isa} PRIVATE -Wall -Wextra -Wno-psabi -fno-math-errno
                                              -fno-trapping-math ${flags_${isa}} ${ARGN})
    list(APPEND found $<TARGET_OBJECTS:cpu_${isa}>)
  endforeach()
  set(${objects} ${found} PARENT_SCOPE)
endfunction()
