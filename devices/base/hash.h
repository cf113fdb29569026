// A fast hash of 128 bits over long data: XXH3 (Yann Collet, xxHash). It finds accidents, not forgers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace mnemo {

struct Digest {
  uint64_t high = 0;
  uint64_t low = 0;
  bool operator==(const Digest&) const = default;
  // 32 hexadecimal digits.
  std::string Text() const;
};

// Depends on the bytes added and their order, not on how they were cut into calls. Not thread-safe.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void Add(std::span<const std::byte> bytes);
  // With its length before it, so that neighbours cannot trade bytes.
  void AddText(std::string_view text);
  void AddNumber(uint64_t value);
  // The digest of all bytes so far.
  Digest digest() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace mnemo
