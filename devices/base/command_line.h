// What the command lines of the programs that mnemod starts have in common.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace CLI {
class App;
}

namespace mnemo {

// --lifeline-fd and --private-dir. What is pointed to outlives `app` and holds the defaults.
void AddChildOptions(CLI::App* app, int* lifeline_fd, std::string* private_dir);

// INVALID_ARGUMENT says what is wrong, CANCELLED has the text that --help or --version asks for.
absl::Status ParseCommandLine(CLI::App* app, int argc, const char* const* argv);

}  // namespace mnemo
