// Command-line options by which a program takes its configuration: a file, --set, and short forms of keys.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "config/config.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace mnemo::config {

// One thread. Lives longer than the last parse of `app`.
class ConfigOptions {
 public:
  // Adds -c,--config FILE and --set KEY=VALUE. With `is_child` also --config-fd, which mnemod sets.
  ConfigOptions(CLI::App* app, bool is_child);
  ~ConfigOptions();
  ConfigOptions(const ConfigOptions&) = delete;
  ConfigOptions& operator=(const ConfigOptions&) = delete;

  // Adds `option`, such as "--model", whose value is that of `key`.
  void AddShort(const std::string& option, const std::string& key, const std::string& text);
  // --log-level, --log-format and --log-file.
  void AddLogShorts();

  // After the parse, what the command line says: short forms, then `more`, then each --set. INVALID_ARGUMENT
  // names a --set without "=".
  absl::StatusOr<LoadOptions> Options(const std::vector<Override>& more = {}) const;
  // The configuration itself. Without looking at files that it names. Errors as Load and LoadImage.
  absl::StatusOr<Config> LoadForChild(const std::vector<Override>& more = {}) const;
  int config_fd() const { return config_fd_; }  // -1 = not given

 private:
  struct Short {
    std::string option;
    std::string key;
    std::string value;
    const CLI::Option* given = nullptr;
  };

  CLI::App* const app_;
  std::string file_;
  std::vector<std::string> sets_;
  int config_fd_ = -1;
  std::vector<std::unique_ptr<Short>> shorts_;
};

// Settings and descriptors that mnemod passes to each program that it starts.
struct ChildInheritance {
  int config_fd = -1;               // see child_config.h; -1: the defaults
  std::vector<Override> overrides;  // on top of the configuration
  // See AddChildOptions (devices/base/command_line.h).
  int lifeline_fd = -1;
  std::string private_dir;
};

// Appends the arguments that ConfigOptions and AddChildOptions read as `inherited`, but for members that have
// their defaults.
void AppendChildArguments(const ChildInheritance& inherited, std::vector<std::string>* arguments);

}  // namespace mnemo::config
