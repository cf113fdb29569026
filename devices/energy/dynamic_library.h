// A library that is opened at run time, for interfaces of vendors that few machines have.
#pragma once

#include <string>

#include "devices/base/status.h"

namespace mnemo::energy {

// Closes the library when destroyed. Move-only.
class DynamicLibrary {
 public:
  DynamicLibrary() = default;
  // `name` as for dlopen. NOT_FOUND with the loader's words. Runs the library's initialisers.
  static absl::StatusOr<DynamicLibrary> Open(const std::string& name);
  DynamicLibrary(DynamicLibrary&& other) noexcept;
  DynamicLibrary& operator=(DynamicLibrary&& other) noexcept;
  ~DynamicLibrary();

  // Null when the library has no such function.
  template <typename Function>
  void Find(const char* name, Function** function) const {
    *function = reinterpret_cast<Function*>(Address(name));
  }

 private:
  void* Address(const char* name) const;

  void* handle_ = nullptr;
};

}  // namespace mnemo::energy
