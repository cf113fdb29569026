#pragma once

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace mnemo::devices::reference {

// A few threads that run one function together: member i of n runs work(i, n), member 0 on the caller's
// thread. Run returns when all are done and does not allocate. Only one thread at a time may use a crew.
class Crew {
 public:
  explicit Crew(int size);
  ~Crew();
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  int size() const { return size_; }

  template <typename Work>
  void Run(const Work& work) {
    Start(&work, [](const void* context, int member, int size) {
      (*static_cast<const Work*>(context))(member, size);
    });
  }

 private:
  using Function = void (*)(const void* context, int member, int size);
  void Start(const void* context, Function function);
  void Serve(int member);

  const int size_;
  const void* context_ = nullptr;
  Function function_ = nullptr;
  bool stopping_ = false;
  // Incremented to start a round; members read the fields above after it.
  std::atomic<uint32_t> round_{0};
  // Members that have not finished the round.
  std::atomic<int> pending_{0};
  std::vector<std::thread> threads_;
};

// The part [begin, end) of `count` items for member i of n, in whole multiples of `unit` except the last.
struct Share {
  int64_t begin = 0;
  int64_t end = 0;
};
Share ShareOf(int64_t count, int64_t unit, int member, int size);

}  // namespace mnemo::devices::reference
