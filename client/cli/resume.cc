#include <CLI/CLI.hpp>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/common.h"

namespace mnemo::cli {

RunCommand AddResume(CLI::App* command) {
  auto options = std::make_shared<ServerOptions>();
  AddServerOptions(command, options.get());
  return [options] {
    std::unique_ptr<client::Client> client;
    if (const int code = Connect(*options, &client); code != kExitOk) return code;
    const absl::Status status = client->Resume();
    return status.ok() ? kExitOk : Fail(status);
  };
}

}  // namespace mnemo::cli
