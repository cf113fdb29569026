#include "devices/base/command_line.h"

#include <CLI/CLI.hpp>

namespace mnemo {

void AddChildOptions(CLI::App* app, int* lifeline_fd, std::string* private_dir) {
  const std::string group = "Set by mnemod";
  app->add_option("--lifeline-fd", *lifeline_fd, "The program ends when its other end closes")->group(group);
  app->add_option("--private-dir", *private_dir, "Folder removed when the lifeline ends")->group(group);
}

absl::Status ParseCommandLine(CLI::App* app, int argc, const char* const* argv) {
  try {
    app->parse(argc, const_cast<char**>(argv));
  } catch (const CLI::CallForHelp&) {
    return absl::CancelledError(app->help());
  } catch (const CLI::CallForVersion& version) {
    return absl::CancelledError(std::string(version.what()) + "\n");
  } catch (const CLI::ParseError& error) {
    return InvalidArgument("{}", error.what());
  }
  return absl::OkStatus();
}

}  // namespace mnemo
