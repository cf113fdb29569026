#include "devices/energy/dynamic_library.h"

#include <dlfcn.h>

#include <utility>

namespace mnemo::energy {

absl::StatusOr<DynamicLibrary> DynamicLibrary::Open(const std::string& name) {
  DynamicLibrary library;
  library.handle_ = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library.handle_ == nullptr) {
    const char* const error = ::dlerror();
    return NotFound("{}", error != nullptr ? error : name);
  }
  return library;
}

DynamicLibrary::DynamicLibrary(DynamicLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)) {}

DynamicLibrary& DynamicLibrary::operator=(DynamicLibrary&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

DynamicLibrary::~DynamicLibrary() {
  if (handle_ != nullptr) ::dlclose(handle_);
}

void* DynamicLibrary::Address(const char* name) const { return ::dlsym(handle_, name); }

}  // namespace mnemo::energy
