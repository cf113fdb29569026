// The command line client: one subcommand a file. Standard output carries data only; messages go to standard
// error.
#include <signal.h>

#include <CLI/CLI.hpp>
#include <string>
#include <utility>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/common.h"
#include "devices/base/standard_streams.h"

namespace {

constexpr char kFooter[] =
    "Exit status: 0 done, 1 the request failed, 2 wrong usage, 3 cannot connect, 130 interrupted, 141 output "
    "closed.\n"
    "`mnemo COMMAND --help` tells the options of one command.";

struct Entry {
  const char* name;
  const char* text;
  mnemo::cli::RunCommand (*add)(CLI::App*);
};

constexpr Entry kCommands[] = {
    {"generate", "Generate text from a prompt and stream it", mnemo::cli::AddGenerate},
    {"chat", "Talk with a model; the history is kept", mnemo::cli::AddChat},
#ifndef MNEMO_WITHOUT_MODEL
    {"tokenize", "Turn text into token ids and back, offline or through a daemon", mnemo::cli::AddTokenize},
#endif
    {"models", "List the models that a daemon serves", mnemo::cli::AddModels},
    {"status", "Show a daemon's state, once or as a live table", mnemo::cli::AddStatus},
    {"energy", "Show joules by device, step and request; fit a model of power", mnemo::cli::AddEnergy},
    {"drain", "Stop admission and wait for running requests", mnemo::cli::AddDrain},
    {"resume", "Take requests again after a drain", mnemo::cli::AddResume},
    {"bench", "Load a daemon and measure latency, throughput and goodput", mnemo::cli::AddBench},
    {"profile", "Show where decoding spends its time: the four steps of memory processing",
     mnemo::cli::AddProfile},
    {"completion", "Print the script that completes commands and options in a shell",
     mnemo::cli::AddCompletion},
};

}  // namespace

int main(int argc, char** argv) {
  mnemo::HoldStandardStreams();
  // A closed standard output shows as EPIPE where we write, so that a running request is cancelled first.
  ::signal(SIGPIPE, SIG_IGN);
  // gRPC logs refused connections by itself; this program alone prints an error, once.
  ::setenv("GRPC_VERBOSITY", "NONE", 0);

  CLI::App app("Client of the mnemo daemon.", "mnemo");
  app.require_subcommand(1);
  app.footer(kFooter);
  app.set_version_flag("--version", MNEMO_VERSION);
  std::vector<std::pair<CLI::App*, mnemo::cli::RunCommand>> commands;
  for (const Entry& entry : kCommands) {
    CLI::App* command = app.add_subcommand(entry.name, entry.text);
    commands.emplace_back(command, entry.add(command));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::RequiredError& error) {
    // CLI11 reports a missing command where there is an unknown one.
    const std::vector<std::string> unknown = app.remaining();
    if (!app.get_subcommands().empty() || unknown.empty()) {
      app.exit(error);
      return mnemo::cli::kExitUsage;
    }
    return mnemo::cli::FailUsage(unknown.front() + " is no command; `mnemo --help` lists them");
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? mnemo::cli::kExitOk : mnemo::cli::kExitUsage;
  }
  for (const auto& [command, run] : commands) {
    if (command->parsed()) return run();
  }
  return mnemo::cli::kExitUsage;
}
