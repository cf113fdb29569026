#include <CLI/CLI.hpp>
#include <memory>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "client/cli/json_output.h"

namespace mnemo::cli {
namespace {

struct ModelsOptions {
  ServerOptions server;
  bool json = false;
};

std::string ModelsTable(const v1::ListModelsResponse& models) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "ARCHITECTURE", "PARAMETERS", "WEIGHTS", "QUANTIZATION", "CONTEXT", "VOCABULARY", "WORKERS"}};
  for (const v1::ListModelsResponse::Model& model : models.models()) {
    rows.push_back({model.name() + (model.is_default() ? " *" : ""), model.architecture(),
                    fmt::format("{:.1f} M", static_cast<double>(model.parameters()) / 1e6),
                    FormatBytes(static_cast<double>(model.weight_bytes())), model.quantization(),
                    fmt::format("{}", model.context_tokens()), fmt::format("{}", model.vocabulary()),
                    fmt::format("{}", model.workers_ready())});
  }
  return FormatTable(rows);
}

int RunModels(const ModelsOptions& options) {
  std::unique_ptr<client::Client> client;
  if (const int code = Connect(options.server, &client); code != kExitOk) return code;
  const absl::StatusOr<v1::ListModelsResponse> models = client->ListModels();
  if (!models.ok()) return Fail(models.status());
  return WriteOut(options.json ? ModelsJson(*models) + "\n" : ModelsTable(*models)) ? kExitOk
                                                                                    : kExitBrokenPipe;
}

}  // namespace

RunCommand AddModels(CLI::App* command) {
  auto options = std::make_shared<ModelsOptions>();
  command->add_flag("--json", options->json, "Print one JSON object");
  AddServerOptions(command, &options->server);
  command->footer(
      "* marks the model that requests get which name none. CONTEXT is in tokens, WORKERS counts the ready "
      "ones.");
  return [options] { return RunModels(*options); };
}

}  // namespace mnemo::cli
