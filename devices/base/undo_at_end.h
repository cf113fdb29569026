// Cleanup of resources that outlive a process unless it removes them: directories, socket files, child
// processes. A signal that ends a starting process unwinds no stack; UndoAll runs the cleanups registered
// here instead.
#pragma once

#include <functional>
#include <mutex>

namespace mnemo {

// Registration of one cleanup function. Move-only. `undo` runs when UndoAll is called during the object's
// lifetime; the destructor only unregisters it.
class UndoAtEnd {
 public:
  UndoAtEnd() = default;
  // `undo` runs once, on another thread. It must not block for long and must not use this class.
  explicit UndoAtEnd(std::function<void()> undo);
  UndoAtEnd(UndoAtEnd&& other) noexcept;
  UndoAtEnd& operator=(UndoAtEnd&& other) noexcept;
  UndoAtEnd(const UndoAtEnd&) = delete;
  UndoAtEnd& operator=(const UndoAtEnd&) = delete;
  ~UndoAtEnd();

  // Lock to hold while making a resource and registering it, so that UndoAll runs before both or after both.
  // Hold it briefly.
  [[nodiscard]] static std::unique_lock<std::recursive_mutex> Making();
  // Runs the cleanups, newest first. It keeps the lock of Making() for good, so nothing more can be made; the
  // caller ends the process next.
  static void UndoAll();

 private:
  // 0: none.
  unsigned long id_ = 0;
};

}  // namespace mnemo
