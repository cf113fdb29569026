# mnemo_layer(NAME DIR folder [HEADERS a.h ...] SRCS ... [DEPS ...] [PRIVATE_DEPS ...])
#
# One static library for one folder. Its headers are reached as "folder/header.h", but only by targets that link it: each
# layer has an include directory of its own that holds a link to its folder alone (or to the named HEADERS alone, when part
# of the folder is private). So an include that points the wrong way finds no file and does not build.
function(mnemo_layer name)
  cmake_parse_arguments(LAYER "" "DIR" "HEADERS;SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  set(public_root ${CMAKE_BINARY_DIR}/layers/${name}/public)
  set(private_root ${CMAKE_BINARY_DIR}/layers/${name}/private)
  _mnemo_link_folder(${private_root} ${LAYER_DIR})
  if(LAYER_HEADERS)
    if(IS_SYMLINK ${public_root}/${LAYER_DIR})  # of a build when the whole folder was public
      file(REMOVE ${public_root}/${LAYER_DIR})
    endif()
    file(MAKE_DIRECTORY ${public_root}/${LAYER_DIR})
    foreach(header IN LISTS LAYER_HEADERS)
      file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${LAYER_DIR}/${header} ${public_root}/${LAYER_DIR}/${header} SYMBOLIC)
    endforeach()
  else()
    _mnemo_link_folder(${public_root} ${LAYER_DIR})
  endif()
  add_library(${name} STATIC ${LAYER_SRCS})
  target_include_directories(${name} PUBLIC ${public_root} PRIVATE ${private_root})
  target_link_libraries(${name} PUBLIC ${LAYER_DEPS} PRIVATE ${LAYER_PRIVATE_DEPS} mnemo_warnings)
endfunction()

function(_mnemo_link_folder root folder)
  get_filename_component(parent ${root}/${folder} DIRECTORY)
  file(MAKE_DIRECTORY ${parent})
  file(CREATE_LINK ${CMAKE_SOURCE_DIR}/${folder} ${root}/${folder} SYMBOLIC)
endfunction()

# mnemo_executable(NAME SRCS ... DEPS ...): a program in bin/.
function(mnemo_executable name)
  cmake_parse_arguments(EXE "" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${EXE_SRCS})
  target_link_libraries(${name} PRIVATE ${EXE_DEPS} mnemo_warnings)
endfunction()

# mnemo_test(NAME SRCS ... DEPS ... [LABELS ...] [TIMEOUT s] [PRIVATE_OF layer]): a Catch2 program, one ctest entry.
# PRIVATE_OF gives the test the private headers of that layer. Under a sanitizer it has
# MNEMO_TEST_SLOWDOWN times as long.
function(mnemo_test name)
  cmake_parse_arguments(TEST "" "TIMEOUT;PRIVATE_OF" "SRCS;DEPS;LABELS" ${ARGN})
  if(NOT TARGET mnemo_test_main)
    add_library(mnemo_test_main STATIC ${CMAKE_SOURCE_DIR}/tests/support/test_main.cc)
    target_link_libraries(mnemo_test_main PUBLIC Catch2::Catch2)
  endif()
  add_executable(${name} ${TEST_SRCS})
  target_link_libraries(${name} PRIVATE ${TEST_DEPS} mnemo_test_main mnemo_warnings)
  if(TEST_PRIVATE_OF)
    target_include_directories(${name} PRIVATE ${CMAKE_BINARY_DIR}/layers/${TEST_PRIVATE_OF}/private)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name})
  if(NOT TEST_TIMEOUT)
    set(TEST_TIMEOUT 120)
  endif()
  if(NOT TEST_LABELS)
    set(TEST_LABELS unit)
  endif()
  math(EXPR TEST_TIMEOUT "${TEST_TIMEOUT} * ${MNEMO_TEST_SLOWDOWN}")
  set_tests_properties(${name} PROPERTIES TIMEOUT ${TEST_TIMEOUT} LABELS "${TEST_LABELS}")
endfunction()
