# Precompiled headers: libraries whose headers take a second a file to parse. Our own headers are not among them, so that a
# file still sees no layer but those that its target links.
#
#   mnemo_precompiled       absl::Status, fmt and what most files need of the standard library
#   mnemo_precompiled_test  the same and Catch2
#   mnemo_precompiled_grpc  the same and gRPC
#   mnemo_precompiled_cli   the same and CLI11
set(precompiled_base
  <absl/status/status.h> <absl/status/statusor.h> <fmt/format.h> <algorithm> <atomic> <chrono> <functional> <map> <memory>
  <mutex> <optional> <random> <span> <string> <string_view> <thread> <utility> <vector>)

# mnemo_add_precompiled(NAME HEADERS ... DEPS ... OPTIONS ...): an object library that mnemo_precompile names. A target that
# uses it is compiled with the same options.
function(mnemo_add_precompiled name)
  cmake_parse_arguments(PCH "" "" "HEADERS;DEPS;OPTIONS" ${ARGN})
  set(source ${CMAKE_BINARY_DIR}/gen/${name}.cc)
  file(CONFIGURE OUTPUT ${source} CONTENT "// A precompiled header is built with a source; this one is empty.\n")
  add_library(${name} OBJECT ${source})
  target_link_libraries(${name} PRIVATE absl::status absl::statusor fmt::fmt ${PCH_DEPS} mnemo_warnings)
  target_compile_options(${name} PRIVATE ${PCH_OPTIONS})
  set_target_properties(${name} PROPERTIES MNEMO_OPTIONS "${PCH_OPTIONS}")
  target_precompile_headers(${name} PRIVATE ${precompiled_base} ${PCH_HEADERS})
endfunction()

mnemo_add_precompiled(mnemo_precompiled)
# GCC bug 105651 again: with this header plain concatenation of strings is also reported under these names.
mnemo_add_precompiled(mnemo_precompiled_test OPTIONS -Wno-array-bounds -Wno-stringop-overflow HEADERS <catch2/catch.hpp> DEPS Catch2::Catch2)
# Optimising CLI11's templates takes five seconds a file, and nothing that parses a command line has to be fast.
mnemo_add_precompiled(mnemo_precompiled_cli OPTIONS -O1 HEADERS <CLI/CLI.hpp> DEPS CLI11::CLI11)
if(MNEMO_GRPC)
  mnemo_add_precompiled(mnemo_precompiled_grpc HEADERS <grpcpp/grpcpp.h> DEPS gRPC::grpc++)
endif()

# mnemo_precompile(TARGET PRECOMPILED): NONE for a target that does without. Sources with options of their own are left out
# by the property SKIP_PRECOMPILE_HEADERS.
function(mnemo_precompile target precompiled)
  if(NOT precompiled STREQUAL "NONE")
    target_link_libraries(${target} PRIVATE fmt::fmt)  # its definitions are part of the header
    target_precompile_headers(${target} REUSE_FROM ${precompiled})
    get_target_property(options ${precompiled} MNEMO_OPTIONS)
    target_compile_options(${target} PRIVATE ${options})
  endif()
endfunction()
