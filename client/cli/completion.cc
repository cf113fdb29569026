// `mnemo completion SHELL`: the script that completes commands, options, choices and files, made from the
// tree of options itself.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "client/cli/commands.h"
#include "client/cli/common.h"

namespace mnemo::cli {
namespace {

struct OptionDoc {
  std::vector<std::string> long_names;
  std::vector<std::string> short_names;
  std::string text;
  std::string choices;  // separated by blanks; empty: any value
  bool takes_value = false;
  bool takes_file = false;
};

std::vector<OptionDoc> OptionsOf(CLI::App* command) {
  std::vector<OptionDoc> docs;
  for (const CLI::Option* option : command->get_options()) {
    OptionDoc doc{option->get_lnames(), option->get_snames(), option->get_description()};
    if (doc.long_names.empty() && doc.short_names.empty()) continue;
    const std::string type = option->get_type_name();
    doc.takes_value = option->get_items_expected_max() > 0;
    doc.takes_file = doc.takes_value && type.rfind("FILE", 0) == 0;
    // CLI::IsMember adds its set to the name of the type, in braces.
    const size_t begin = type.rfind('{');
    const size_t end = type.rfind('}');
    if (doc.takes_value && begin != std::string::npos && end != std::string::npos && begin < end) {
      for (const char c : type.substr(begin + 1, end - begin - 1)) doc.choices += c == ',' ? ' ' : c;
    }
    docs.push_back(std::move(doc));
  }
  return docs;
}

std::vector<std::string> NamesOf(const OptionDoc& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.long_names) names.push_back("--" + name);
  for (const std::string& name : option.short_names) names.push_back("-" + name);
  return names;
}

std::vector<CLI::App*> CommandsOf(CLI::App* app) {
  return app->get_subcommands([](CLI::App*) { return true; });
}

// `text` in single quotes, with each character of `escaped` after a backslash.
std::string Quoted(const std::string& text, const std::string& escaped = "") {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
      continue;
    }
    if (escaped.find(c) != std::string::npos) quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

std::string BashScript(CLI::App* app) {
  std::string values;
  std::string words;
  std::string commands;
  for (CLI::App* command : CommandsOf(app)) {
    const std::string name = command->get_name();
    commands += name + " ";
    std::string options;
    for (const OptionDoc& option : OptionsOf(command)) {
      std::string pattern;
      for (const std::string& spelling : NamesOf(option)) {
        options += spelling + " ";
        pattern += (pattern.empty() ? "" : "|") + name + ":" + spelling;
      }
      if (option.takes_file) {
        values += "    " + pattern +
                  ") compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$current\"); return ;;\n";
      } else if (option.takes_value) {
        values += "    " + pattern + ") mapfile -t COMPREPLY < <(compgen -W " + Quoted(option.choices) +
                  " -- \"$current\"); return ;;\n";
      }
    }
    // Commands with a positional argument of fixed choices offer these as well.
    for (const CLI::Option* option : command->get_options()) {
      const std::string type = option->get_type_name();
      if (!option->get_positional() || type.find('{') == std::string::npos) continue;
      for (const char c : type.substr(type.find('{') + 1, type.rfind('}') - type.find('{') - 1))
        options += c == ',' ? ' ' : c;
    }
    words += "    " + name + ") words=" + Quoted(options) + " ;;\n";
  }
  return "# bash completion of mnemo, made by `mnemo completion bash`\n"
         "_mnemo() {\n"
         "  local current=$2 previous=$3 words=\n"
         "  COMPREPLY=()\n"
         "  if ((COMP_CWORD == 1)); then\n"
         "    mapfile -t COMPREPLY < <(compgen -W " +
         Quoted(commands + "--help --version") +
         " -- \"$current\")\n"
         "    return\n"
         "  fi\n"
         "  case ${COMP_WORDS[1]}:$previous in\n" +
         values +
         "  esac\n"
         "  case ${COMP_WORDS[1]} in\n" +
         words +
         "  esac\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
         "}\n"
         "complete -F _mnemo mnemo\n";
}

std::string ZshScript(CLI::App* app) {
  std::string commands;
  std::string cases;
  for (CLI::App* command : CommandsOf(app)) {
    commands += "    " + Quoted(command->get_name() + ":" + command->get_description()) + "\n";
    cases += "    " + command->get_name() + ")\n      _arguments";
    for (const OptionDoc& option : OptionsOf(command)) {
      for (const std::string& name : NamesOf(option)) {
        std::string end;
        if (option.takes_value) end = option.takes_file ? ":file:_files" : ":value:(" + option.choices + ")";
        cases +=
            " \\\n        " + Quoted(name) + Quoted("[") + Quoted(option.text, "[]\\:") + Quoted("]" + end);
      }
    }
    cases += "\n      ;;\n";
  }
  return "#compdef mnemo\n"
         "_mnemo() {\n"
         "  local -a commands=(\n" +
         commands +
         "  )\n"
         "  if ((CURRENT == 2)); then\n"
         "    _describe command commands\n"
         "    return\n"
         "  fi\n"
         "  shift words\n"
         "  ((CURRENT--))\n"
         "  case $words[1] in\n" +
         cases +
         "  esac\n"
         "}\n"
         "if [[ $funcstack[1] == _mnemo ]]; then _mnemo \"$@\"; else compdef _mnemo mnemo; fi\n";
}

std::string FishScript(CLI::App* app) {
  std::string script = "# fish completion of mnemo, made by `mnemo completion fish`\ncomplete -c mnemo -f\n";
  for (CLI::App* command : CommandsOf(app)) {
    script += "complete -c mnemo -n __fish_use_subcommand -a " + command->get_name() + " -d " +
              Quoted(command->get_description(), "\\") + "\n";
    for (const OptionDoc& option : OptionsOf(command)) {
      script += "complete -c mnemo -n '__fish_seen_subcommand_from " + command->get_name() + "'";
      for (const std::string& name : option.long_names) script += " -l " + name;
      for (const std::string& name : option.short_names) script += " -s " + name;
      if (option.takes_file) {
        script += " -r -F";
      } else if (option.takes_value) {
        script += " -x";
        if (!option.choices.empty()) script += " -a " + Quoted(option.choices);
      }
      script += " -d " + Quoted(option.text, "\\") + "\n";
    }
  }
  return script;
}

}  // namespace

RunCommand AddCompletion(CLI::App* command) {
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "Shell that reads the script")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  return [command, shell] {
    CLI::App* app = command->get_parent();
    const std::string script = *shell == "bash"  ? BashScript(app)
                               : *shell == "zsh" ? ZshScript(app)
                                                 : FishScript(app);
    std::fputs(script.c_str(), stdout);
    return std::fflush(stdout) == 0 ? kExitOk : kExitFailed;
  };
}

}  // namespace mnemo::cli
