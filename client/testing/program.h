// The program mnemo as tests run it.
#pragma once

#include <string>
#include <vector>

#include "client/testing/fake_server.h"

namespace mnemo::client::testing {

// `program`, a path, with `arguments`, the first of which is a command, at the server's address.
inline std::vector<std::string> CommandOf(const std::string& program, const FakeServer& server,
                                          const std::vector<std::string>& arguments) {
  std::vector<std::string> all = {program, arguments[0], "--address", server.address()};
  all.insert(all.end(), arguments.begin() + 1, arguments.end());
  return all;
}

}  // namespace mnemo::client::testing
