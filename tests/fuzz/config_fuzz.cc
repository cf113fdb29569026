// Any bytes as a configuration file, and as overrides: no crash, and every error names a place. The text
// before a NUL is the file; what follows is KEY=VALUE pieces, each before a NUL.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "config/config.h"
#include "config/loader.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto take = [&rest] {
    const size_t end = rest.find('\0');
    const std::string piece(rest.substr(0, end));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return piece;
  };
  const std::string text = take();
  mnemo::config::LoadOptions options;
  while (!rest.empty() && options.overrides.size() < 8) {
    const std::string piece = take();
    const size_t equals = piece.find('=');
    if (equals != std::string::npos) {
      options.overrides.push_back({piece.substr(0, equals), piece.substr(equals + 1)});
    }
  }
  const auto config = mnemo::config::LoadText("f.yaml", text, options);
  if (!config.ok()) {
    MNEMO_CHECK(!config.status().message().empty());
    return 0;
  }
  // A child reads the loaded settings unchanged.
  const std::string told = mnemo::config::Serialize(*config);
  const auto heard = mnemo::config::LoadText("child", told, {.check_files = false});
  MNEMO_CHECK(heard.ok() && mnemo::config::Serialize(*heard) == told);
  // A reload takes the loaded settings over; a second one finds no change.
  mnemo::config::Config running;
  (void)mnemo::config::ApplyReload(*config, &running);
  for (const std::string& key : mnemo::config::ApplyReload(*config, &running)) {
    MNEMO_CHECK(!mnemo::config::IsReloadable(key));
  }
  return 0;
}
