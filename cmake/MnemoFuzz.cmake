# mnemo_fuzz(NAME SRCS file... LIBS lib... [SEEDS folder] [SEEDS_TARGET target] [MAX_LENGTH bytes] [SECONDS n])
#
# Adds a libFuzzer program and a test that runs it for SECONDS. clang++ builds it, whatever compiler builds the tree.
# SRCS: the fuzzer's own source and the few sources under test, by paths from the root, all with the fuzzer's, address and
# undefined-behaviour instrumentation. SEEDS: the folder of the seed corpus; SEEDS_TARGET, if given, makes it.
# Inputs that a run finds stay in the build folder.
include(MnemoClang)

function(mnemo_fuzz name)
  cmake_parse_arguments(FUZZ "" "SEEDS;SEEDS_TARGET;MAX_LENGTH;SECONDS" "SRCS;LIBS" ${ARGN})
  if(NOT FUZZ_MAX_LENGTH)
    set(FUZZ_MAX_LENGTH 65536)
  endif()
  if(NOT FUZZ_SECONDS)
    set(FUZZ_SECONDS 10)
  endif()
  set(flags -std=c++20 -O1 -g -fno-omit-frame-pointer -ffp-contract=off
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all)
  set(folder ${CMAKE_CURRENT_BINARY_DIR}/${name}.dir)
  file(MAKE_DIRECTORY ${folder} ${CMAKE_CURRENT_BINARY_DIR}/${name}_corpus)
  set(objects "")
  foreach(source IN LISTS FUZZ_SRCS)
    string(REPLACE "/" "_" object ${source})
    set(object ${folder}/${object}.o)
    add_custom_command(OUTPUT ${object}
      COMMAND ${CMAKE_CXX_COMPILER_LAUNCHER} ${MNEMO_CLANGXX} ${flags} -I${CMAKE_SOURCE_DIR} -MD -MF ${object}.d -c
              ${CMAKE_SOURCE_DIR}/${source} -o ${object}
      DEPENDS ${CMAKE_SOURCE_DIR}/${source}
      DEPFILE ${object}.d
      COMMENT "Building ${name}: ${source}"
      VERBATIM)
    list(APPEND objects ${object})
  endforeach()
  set(program ${CMAKE_BINARY_DIR}/tests/${name})
  list(TRANSFORM FUZZ_LIBS PREPEND -l)
  add_custom_command(OUTPUT ${program}
    COMMAND ${MNEMO_CLANGXX} ${flags} ${objects} -o ${program} ${FUZZ_LIBS}
    DEPENDS ${objects}
    COMMENT "Linking ${name}"
    VERBATIM)
  add_custom_target(${name} ALL DEPENDS ${program})
  if(FUZZ_SEEDS_TARGET)
    add_dependencies(${name} ${FUZZ_SEEDS_TARGET})
  endif()
  # The fuzzer prints the seed of its random numbers; -seed repeats a run.
  add_test(NAME ${name}
    COMMAND ${program} -max_total_time=${FUZZ_SECONDS} -max_len=${FUZZ_MAX_LENGTH} -timeout=10 -rss_limit_mb=2048
            -malloc_limit_mb=512 -print_final_stats=1 -artifact_prefix=${CMAKE_CURRENT_BINARY_DIR}/${name}_
            ${CMAKE_CURRENT_BINARY_DIR}/${name}_corpus ${FUZZ_SEEDS})
  set_tests_properties(${name} PROPERTIES LABELS fuzz)
endfunction()
