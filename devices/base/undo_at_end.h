// Things that outlive a process unless it removes them: directories, sockets' files, children. A process that
// a signal ends while it starts does not unwind; it undoes what is registered here.
#pragma once

#include <functional>
#include <mutex>

namespace mnemo {

// Move-only. While it lives, `undo` runs when UndoAll is called. Destroying it does not undo.
class UndoAtEnd {
 public:
  UndoAtEnd() = default;
  // `undo` is called once, by another thread, must not block for long and must not use this class.
  explicit UndoAtEnd(std::function<void()> undo);
  UndoAtEnd(UndoAtEnd&& other) noexcept;
  UndoAtEnd& operator=(UndoAtEnd&& other) noexcept;
  UndoAtEnd(const UndoAtEnd&) = delete;
  UndoAtEnd& operator=(const UndoAtEnd&) = delete;
  ~UndoAtEnd();

  // Held around making something and registering it, so that UndoAll comes before both or after both. Short.
  [[nodiscard]] static std::unique_lock<std::recursive_mutex> Making();
  // Undoes the newest first. Nothing can be made any more: the caller ends the process next.
  static void UndoAll();

 private:
  unsigned long id_ = 0;  // 0 = none
};

}  // namespace mnemo
