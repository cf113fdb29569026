// Command-line options shared by the programs that mnemod starts.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace CLI {
class App;
}

namespace mnemo {

// Adds --lifeline-fd and --private-dir. The pointed-to variables hold the defaults and must outlive `app`.
void AddChildOptions(CLI::App* app, int* lifeline_fd, std::string* private_dir);

// Parses the command line. INVALID_ARGUMENT describes the faulty option; CANCELLED carries the text that
// --help or --version asks for.
absl::Status ParseCommandLine(CLI::App* app, int argc, const char* const* argv);

}  // namespace mnemo
