# MNEMO_CLANGXX: a clang++, for what is not compiled by the compiler of the tree.
include_guard(GLOBAL)
find_program(MNEMO_CLANGXX NAMES clang++ clang++-19 clang++-16 clang++-14)
