// A fast 128-bit hash for long data: XXH3 (Yann Collet, xxHash). It detects accidental changes; it is not
// cryptographic.
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
  // Returns 32 hexadecimal digits.
  std::string Text() const;
};

// Incremental hash. The digest depends on the bytes added and their order, not on how calls divide them. Not
// thread-safe.
class Hasher {
 public:
  Hasher();
  ~Hasher();
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void Add(std::span<const std::byte> bytes);
  // Adds the length and then the text, so that bytes cannot move between neighbouring texts unnoticed.
  void AddText(std::string_view text);
  void AddNumber(uint64_t value);
  // Returns the digest of all bytes so far.
  Digest digest() const;

 private:
  struct State;
  const std::unique_ptr<State> state_;
};

}  // namespace mnemo
