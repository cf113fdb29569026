// The commands of `mnemo`. Each Add... registers a subcommand with its options and the function that it
// runs; that function returns the exit code.
#pragma once

#include <functional>

namespace CLI {
class App;
}

namespace mnemo::cli {

using RunCommand = std::function<int()>;

RunCommand AddGenerate(CLI::App* command);
RunCommand AddChat(CLI::App* command);
RunCommand AddTokenize(CLI::App* command);
RunCommand AddModels(CLI::App* command);
RunCommand AddStatus(CLI::App* command);
RunCommand AddEnergy(CLI::App* command);
RunCommand AddDrain(CLI::App* command);
RunCommand AddResume(CLI::App* command);
RunCommand AddBench(CLI::App* command);
RunCommand AddProfile(CLI::App* command);
RunCommand AddCompletion(CLI::App* command);

}  // namespace mnemo::cli
