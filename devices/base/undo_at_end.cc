#include "devices/base/undo_at_end.h"

#include <map>
#include <utility>

namespace mnemo {
namespace {

struct Registry {
  std::recursive_mutex mutex;
  std::map<unsigned long, std::function<void()>> undos;
  unsigned long last_id = 0;
};

// Never destroyed: destructors of other static objects may run after those of this file.
Registry& TheRegistry() {
  static auto* const registry = new Registry;
  return *registry;
}

}  // namespace

UndoAtEnd::UndoAtEnd(std::function<void()> undo) {
  const auto lock = Making();
  Registry& registry = TheRegistry();
  id_ = ++registry.last_id;
  registry.undos.emplace(id_, std::move(undo));
}

UndoAtEnd::UndoAtEnd(UndoAtEnd&& other) noexcept : id_(std::exchange(other.id_, 0)) {}

UndoAtEnd& UndoAtEnd::operator=(UndoAtEnd&& other) noexcept {
  std::swap(id_, other.id_);
  return *this;
}

UndoAtEnd::~UndoAtEnd() {
  if (id_ == 0) return;
  const auto lock = Making();
  TheRegistry().undos.erase(id_);
}

std::unique_lock<std::recursive_mutex> UndoAtEnd::Making() { return std::unique_lock(TheRegistry().mutex); }

void UndoAtEnd::UndoAll() {
  // The lock is never released.
  Making().release();
  std::map<unsigned long, std::function<void()>>& undos = TheRegistry().undos;
  for (auto it = undos.rbegin(); it != undos.rend(); ++it) it->second();
}

}  // namespace mnemo
