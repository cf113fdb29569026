# Compiler and linker settings that hold for the whole tree.

# The numeric invariant (ARCHITECTURE.md) forbids the compiler to fuse a*b+c where the source does not say so.
add_compile_options(-ffp-contract=off -fno-math-errno)

# Some packages ask for it and others do not; a precompiled header takes no difference.
add_compile_options(-pthread)

find_program(MNEMO_CCACHE ccache)
if(MNEMO_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # Precompiled headers need this sloppiness; nothing here uses __TIME__ or defines macros that such a header reads.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${MNEMO_CCACHE})
endif()
find_program(MNEMO_MOLD mold)
if(MNEMO_MOLD)
  # mold 1.10 begins the read-only part of a program at .tbss. By chance that lies at the end of a page that is not mapped, and
  # the program does not start. With segments in pages of their own it lies at the beginning of one.
  add_link_options(-fuse-ld=mold -Wl,-z,separate-loadable-segments)
endif()

# Warnings are errors in our own code; generated code does not link this target. -Wrestrict is off: GCC 12 reports it for
# plain std::string concatenation (GCC bug 105651).
add_library(mnemo_warnings INTERFACE)
target_compile_options(mnemo_warnings INTERFACE
  -Wall -Wextra -Werror -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(mnemo_warnings INTERFACE -Wno-restrict)
  if(NOT MNEMO_SANITIZER STREQUAL "")
    # The checks' code hides from GCC 12 that <regex> initialises its states; other builds report what is uninitialised.
    target_compile_options(mnemo_warnings INTERFACE -Wno-maybe-uninitialized)
  endif()
endif()

if(MNEMO_SANITIZER STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
  # -O2 takes more than twice as long to compile the checks' code; stack traces need line numbers alone.
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1 -DNDEBUG")
elseif(MNEMO_SANITIZER STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(NOT MNEMO_SANITIZER STREQUAL "")
  message(FATAL_ERROR "MNEMO_SANITIZER is '${MNEMO_SANITIZER}'; allowed: address, thread, or empty")
endif()

# Sanitizers: the divisor of the longest tests' repetitions.
set(MNEMO_TEST_REDUCTION 1)
if(NOT MNEMO_SANITIZER STREQUAL "")
  set(MNEMO_TEST_REDUCTION 4)
endif()
