# mnemo_verilate(NAME TOP module [BENCH file...] [PARAMETERS NAME=VALUE...] [TRACE] [BLOCKS module...])
#
# Makes the static library NAME of a SystemVerilog module: a C++ class V<TOP>, header "V<TOP>.h" in a folder of
# NAME's own, so several targets may have the same top with other parameters; a program links one of them. BENCH: files beside fpga/rtl that
# TOP needs, too. Its other sources are those that fpga/tools/rtl_sources.py finds, anew whenever one of them changes. Assertions are on. The generated code has split output.
# BLOCKS, modules of files of the same name, are compiled once, however many instances there are (fpga/sim/print_blocks.py): each is a model of
# its own, which its instances call. PARAMETERS must then give those of the blocks, too. With waveforms or coverage there are no blocks.
# With MNEMO_RTL_COVERAGE the model counts lines and cover points (scripts/card.sh coverage), for which points are bound to its modules.
find_program(MNEMO_VERILATOR verilator)
# Clang makes faster models with -O3 than GCC with -O1, in less time; -O2 is 1 to 5 % behind.
include(MnemoClang)
option(MNEMO_RTL_COVERAGE "Verilated models count lines and cover points" OFF)

set(mnemo_print_blocks ${CMAKE_CURRENT_LIST_DIR}/../fpga/sim/print_blocks.py)

function(mnemo_verilate name)
  cmake_parse_arguments(V "TRACE" "TOP" "BENCH;PARAMETERS;BLOCKS" ${ARGN})
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${name}.verilated)
  list(TRANSFORM V_BENCH PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  set(list_sources ${CMAKE_SOURCE_DIR}/fpga/tools/rtl_sources.py)
  execute_process(COMMAND ${MNEMO_PYTHON} -B ${list_sources} ${V_TOP} ${V_BENCH} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    OUTPUT_VARIABLE sources OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE "\n" ";" sources "${sources}")
  list(TRANSFORM sources PREPEND ${CMAKE_SOURCE_DIR}/)
  file(GLOB_RECURSE rtl CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/fpga/rtl/*.sv)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${rtl} ${V_BENCH} ${list_sources})
  set(flags --cc --assert --x-assign unique --x-initial unique -Wall -Wno-fatal -Werror-PINMISSING -Werror-IMPLICIT -O3 --output-split 20000
    --top-module ${V_TOP} --prefix V${V_TOP} --Mdir ${folder} -CFLAGS -fPIC)
  set(read ${sources})
  set(archives "")
  set(makefile V${V_TOP}.mk)
  set(target V${V_TOP}__ALL.a)
  if(V_BLOCKS AND NOT V_TRACE AND NOT MNEMO_RTL_COVERAGE)
    set(modules "")
    foreach(module IN LISTS V_TOP V_BLOCKS)
      set(file ${sources})
      list(FILTER file INCLUDE REGEX "/${module}\\.sv$")
      list(APPEND modules ${module}=${file})
      list(TRANSFORM read REPLACE "^.*/${module}\\.sv$" ${folder}/blocks/${module}.sv)
    endforeach()
    set(blocks COMMAND ${MNEMO_PYTHON} ${mnemo_print_blocks} ${folder}/blocks ${V_PARAMETERS} ${modules})
    foreach(module IN LISTS V_BLOCKS)
      list(APPEND archives ${folder}/V${module}_block/lib${module}_block.a)
    endforeach()
    list(APPEND flags --hierarchical)
    set(makefile V${V_TOP}_hier.mk)
    set(target hier_build)
    list(APPEND sources ${mnemo_print_blocks})
  else()
    foreach(parameter IN LISTS V_PARAMETERS)
      list(APPEND flags -G${parameter})
    endforeach()
  endif()
  if(V_TRACE)
    list(APPEND flags --trace-fst --trace-structs)
  endif()
  if(MNEMO_RTL_COVERAGE)
    list(APPEND flags --coverage-line --coverage-user)
    set(points ${folder}/cover_points.sv)
    set(tools ${CMAKE_SOURCE_DIR}/fpga/tools)
    set(write COMMAND ${MNEMO_PYTHON} ${tools}/cover_points.py --out ${points} ${sources})
    set(point_sources ${tools}/cover_points.py ${tools}/cover_points.toml)
    set(keep COMMAND sed -i -f ${CMAKE_SOURCE_DIR}/fpga/tests/keep_coverage.sed ${folder}/V${V_TOP}.cpp)
  endif()
  list(JOIN CMAKE_CXX_COMPILER_LAUNCHER " " launcher)
  set(compiler CXX=${CMAKE_CXX_COMPILER} OPT_FAST=-O1)
  if(MNEMO_CLANGXX)
    set(compiler CXX=${MNEMO_CLANGXX} OPT_FAST=-O3)
  endif()
  set(archive ${folder}/V${V_TOP}__ALL.a)
  add_custom_command(OUTPUT ${archive} ${archives} ${folder}/V${V_TOP}.h
    COMMAND ${CMAKE_COMMAND} -E make_directory ${folder}
    ${write}
    ${blocks}
    COMMAND ${MNEMO_VERILATOR} ${flags} ${read} ${points}
    ${keep}
    COMMAND ${CMAKE_COMMAND} -E env "OBJCACHE=${launcher}" MAKEFLAGS= make -s -C ${folder} -f ${makefile}
            ${compiler} OPT_SLOW=-O0 ${target}
    DEPENDS ${sources} ${point_sources}
    COMMENT "Verilating ${V_TOP} for ${name}"
    VERBATIM)
  add_custom_target(${name}_verilated DEPENDS ${archive})
  add_library(${name} INTERFACE)
  add_dependencies(${name} ${name}_verilated)
  target_include_directories(${name} SYSTEM INTERFACE ${folder})
  target_link_libraries(${name} INTERFACE ${archive} ${archives} mnemo_verilated_runtime)
endfunction()

# The simulator's own code, once for all models. No warnings are asked for: it is not ours.
set(verilator_include /usr/share/verilator/include)
if(MNEMO_VERILATOR AND NOT TARGET mnemo_verilated_runtime)
  add_library(mnemo_verilated_runtime STATIC ${verilator_include}/verilated.cpp ${verilator_include}/verilated_threads.cpp
    ${verilator_include}/verilated_cov.cpp ${verilator_include}/verilated_fst_c.cpp
    $<$<BOOL:${MNEMO_RTL_COVERAGE}>:${CMAKE_SOURCE_DIR}/fpga/tests/verilated_coverage.cc>)
  target_include_directories(mnemo_verilated_runtime SYSTEM PUBLIC ${verilator_include} ${verilator_include}/vltstd)
  target_compile_options(mnemo_verilated_runtime PRIVATE -w)
  target_link_libraries(mnemo_verilated_runtime PUBLIC Threads::Threads z)
endif()
