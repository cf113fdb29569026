#pragma once

// The way of a driver (card_driver.h) to its card. Hardware, its simulation and the model in software
// stand behind the same calls.

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>

#include "devices/base/status.h"

namespace mnemo::card {

// Bytes at an address of the card's.
struct CardSpace {
  uint64_t address = 0;
  uint64_t bytes = 0;
};

// Calls come from one thread. Offsets of registers and the meaning of both memories: proto/layout/card.h.
class CardPort {
 public:
  virtual ~CardPort() = default;

  // UNAVAILABLE: the card is gone. Then every call fails until the port is made anew.
  virtual absl::StatusOr<uint32_t> ReadRegister(uint32_t offset) = 0;
  virtual absl::Status WriteRegister(uint32_t offset, uint32_t value) = 0;

  // Card memory, by byte address; the channels lie where kCardRegChannels says. Bytes that were never written
  // are undefined. Writes are seen by whatever the card does after a later WriteRegister.
  virtual absl::Status Write(uint64_t address, std::span<const uint8_t> bytes) = 0;
  virtual absl::Status Read(uint64_t address, std::span<uint8_t> bytes) = 0;

  // Host memory that the card reads and writes: one piece, aligned to a page, at the same place for the
  // port's life. host_address is the card's address of its first byte.
  virtual std::span<uint8_t> host_memory() = 0;
  virtual uint64_t host_address() const = 0;

  // Card memory beside the channels, which the command processor addresses as it does host memory: for the
  // rings, queries and results of peers that reach the card by themselves. Write and Read take its addresses.
  virtual CardSpace direct_memory() const { return {}; }

  // A simulated card runs for a while; hardware runs by itself. Returns at once when nothing is under way.
  virtual void Advance() {}

  // Interrupts of the card, which raises one when kCardRegAwait asks for it. False: there are none.
  virtual bool interrupts() const { return false; }
  // Waits for at most so long; a simulated card runs meanwhile. True: the card has interrupted since the last
  // call, and its status is cleared. It may come without news. False may come early.
  virtual absl::StatusOr<bool> WaitInterrupt(std::chrono::milliseconds most) {
    (void)most;
    return false;
  }
  // Readable while WaitInterrupt has an answer at once; -1: there is none. For poll(2) alone.
  virtual int interrupt_fd() const { return -1; }

  // Cycles since the last reset by simulated time, 0 where time is real.
  virtual uint64_t simulated_cycles() const { return 0; }
  // Power of the whole card by a counter of its own, in watts; none: it has no counter.
  virtual std::optional<double> watts() { return std::nullopt; }
};

// Clears what the card's interrupt status tells, as whoever answers an interrupt must before the next one.
absl::Status ClearInterrupts(CardPort* port);

}  // namespace mnemo::card
