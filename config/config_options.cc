#include "config/config_options.h"

#include <CLI/CLI.hpp>

#include "config/child_config.h"

namespace mnemo::config {

ConfigOptions::ConfigOptions(CLI::App* app, bool is_child) : app_(app) {
  CLI::Option* file = app->add_option("-c,--config", file_, "YAML file with settings");
  file->check([](const std::string& name) { return name.empty() ? "the name is empty" : ""; });
  app->add_option("--set", sets_, "key.path=value: any other setting; may be repeated")
      ->allow_extra_args(false);
  if (!is_child) return;
  app->add_option("--config-fd", config_fd_, "Settings, inherited")->group("Set by mnemod")->excludes(file);
}

ConfigOptions::~ConfigOptions() = default;

void ConfigOptions::AddShort(const std::string& option, const std::string& key, const std::string& text) {
  Short& added = *shorts_.emplace_back(std::make_unique<Short>());
  added.option = option;
  added.key = key;
  added.given = app_->add_option(option, added.value, text);
}

void ConfigOptions::AddLogShorts() {
  AddShort("--log-level", "log.level", "Least level that is logged");
  AddShort("--log-format", "log.format", "Form of a log line: text or json");
  AddShort("--log-file", "log.file", "Log file; standard error if not given");
}

absl::StatusOr<LoadOptions> ConfigOptions::Options(const std::vector<Override>& more) const {
  LoadOptions options;
  options.file = file_;
  for (const std::unique_ptr<Short>& given : shorts_) {
    if (given->given->count() > 0) options.overrides.push_back({given->key, given->value, given->option});
  }
  options.overrides.insert(options.overrides.end(), more.begin(), more.end());
  for (const std::string& set : sets_) {
    const size_t equals = set.find('=');
    if (equals == std::string::npos || equals == 0) {
      return InvalidArgument("--set {}: must be key.path=value", set);
    }
    options.overrides.push_back({set.substr(0, equals), set.substr(equals + 1)});
  }
  return options;
}

absl::StatusOr<Config> ConfigOptions::LoadForChild(const std::vector<Override>& more) const {
  MNEMO_ASSIGN_OR_RETURN(LoadOptions options, Options(more));
  if (config_fd_ >= 0) return LoadImage(config_fd_, options.overrides);
  options.check_files = false;
  return Load(options);
}

void AppendChildArguments(const ChildInheritance& inherited, std::vector<std::string>* arguments) {
  if (inherited.config_fd >= 0) arguments->push_back(fmt::format("--config-fd={}", inherited.config_fd));
  if (inherited.lifeline_fd >= 0) {
    arguments->push_back(fmt::format("--lifeline-fd={}", inherited.lifeline_fd));
  }
  if (!inherited.private_dir.empty()) {
    arguments->push_back(fmt::format("--private-dir={}", inherited.private_dir));
  }
  for (const Override& value : inherited.overrides) {
    arguments->push_back(fmt::format("--set={}={}", value.key, value.value));
  }
}

}  // namespace mnemo::config
