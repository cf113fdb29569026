#include "server/telemetry/crash_report.h"

#include <absl/debugging/symbolize.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <climits>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <utility>

#include "devices/base/build_id.h"

namespace mnemo::telemetry {
namespace {

constexpr int kMaxFrames = 64;
constexpr int kMaxModules = 128;
constexpr size_t kMaxName = 64;
constexpr size_t kMaxId = 128;
constexpr int kSlots = 1024;

struct Slot {
  // 0: free. 1: being filled. Otherwise 2 + length of the id.
  std::atomic<uint32_t> state{0};
  char id[kMaxId] = {};
};

std::array<Slot, kSlots> slots;
std::atomic<uint32_t> next_slot{0};
std::atomic<int> beyond{0};

struct Module {
  uintptr_t base = 0;
  uintptr_t begin = 0;
  uintptr_t end = 0;
  char name[kMaxName] = {};
};

struct Prepared {
  char process[kMaxName] = {};
  char file[PATH_MAX] = {};
  char build_id[2 * 32 + 1] = {};
  bool is_json = false;
  int modules = 0;
  std::array<Module, kMaxModules> module;
};

Prepared prepared;
std::atomic<bool> is_prepared{false};

void CopyText(std::string_view text, char* out, size_t size) {
  const size_t length = std::min(text.size(), size - 1);
  std::memcpy(out, text.data(), length);
  out[length] = '\0';
}

// The program comes first, without a name.
int AddModule(dl_phdr_info* info, size_t /*size*/, void* data) {
  auto* out = static_cast<Prepared*>(data);
  if (out->modules == kMaxModules) return 1;
  const bool is_program = out->modules == 0;
  Module& module = out->module[static_cast<size_t>(out->modules++)];
  module = {};
  module.base = info->dlpi_addr;
  module.begin = UINTPTR_MAX;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    if (header.p_type == PT_LOAD) {
      module.begin = std::min(module.begin, begin);
      module.end = std::max(module.end, begin + header.p_memsz);
    }
  }
  std::string_view name = info->dlpi_name != nullptr ? info->dlpi_name : "";
  char program[PATH_MAX];
  if (is_program) {
    const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program);
    name = length > 0 ? std::string_view(program, static_cast<size_t>(length)) : "program";
  }
  CopyText(name.substr(name.rfind('/') + 1), module.name, sizeof module.name);
  return 0;
}

// Handlers of the thread run here, also when its own stack is used up. Kept for the life of the process.
void UseOwnStack() {
  static char stack[64 << 10];
  stack_t present = {};
  if (::sigaltstack(nullptr, &present) != 0 || (present.ss_flags & SS_DISABLE) == 0) return;
  stack_t own = {};
  own.ss_sp = stack;
  own.ss_size = sizeof stack;
  ::sigaltstack(&own, nullptr);
}

// One line, or the object that is one line. What does not fit is left out, so that the end always fits.
class Text {
 public:
  void Add(std::string_view text) {
    const size_t length = std::min(text.size(), kBytes - kReserve - std::min(length_, kBytes - kReserve));
    std::memcpy(data_ + length_, text.data(), length);
    length_ += length;
  }
  // Uses the reserve: for a few bytes at the end.
  void Close(std::string_view text) {
    const size_t length = std::min(text.size(), kBytes - length_);
    std::memcpy(data_ + length_, text.data(), length);
    length_ += length;
  }
  void AddNumber(uint64_t value, unsigned base, int digits) {
    char text[24];
    int at = sizeof text;
    do {
      text[--at] = "0123456789abcdef"[value % base];
      value /= base;
      --digits;
    } while (value != 0 || digits > 0);
    Add({text + at, sizeof text - static_cast<size_t>(at)});
  }
  // Printable ASCII; quotation marks and backslashes escaped, other bytes as '?'.
  void AddEscaped(std::string_view text) {
    if (length_ + 2 * text.size() > kBytes - kReserve) return;
    for (const char c : text) {
      if (c == '"' || c == '\\') Add("\\");
      Add(c >= 0x20 && c < 0x7f ? std::string_view(&c, 1) : "?");
    }
  }
  bool is_full() const { return length_ + 512 > kBytes - kReserve; }
  void Clear() { length_ = 0; }
  void WriteTo(int fd) const {
    size_t written = 0;
    while (written < length_) {
      const ssize_t count = ::write(fd, data_ + written, length_ - written);
      if (count <= 0) return;
      written += static_cast<size_t>(count);
    }
  }

 private:
  static constexpr size_t kBytes = size_t{256} << 10;
  static constexpr size_t kReserve = 64;

  char data_[kBytes];
  size_t length_ = 0;
};

Text text;  // of the one thread that reports

// Days since 1970 to a date: the algorithm civil_from_days of Howard Hinnant's "chrono-Compatible Low-Level
// Date Algorithms". gmtime_r may take a lock.
void AddTimeUtc(Text* out) {
  timespec now = {};
  ::clock_gettime(CLOCK_REALTIME, &now);
  const int64_t days = now.tv_sec / 86400;
  const auto seconds = static_cast<uint64_t>(now.tv_sec % 86400);
  const int64_t z = days + 719468;
  const int64_t era = z / 146097;
  const int64_t day_of_era = z - era * 146097;
  const int64_t year_of_era =
      (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
  const int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
  const int64_t shifted = (5 * day_of_year + 2) / 153;
  const int64_t day = day_of_year - (153 * shifted + 2) / 5 + 1;
  const int64_t month = shifted < 10 ? shifted + 3 : shifted - 9;
  const int64_t year = year_of_era + era * 400 + (month <= 2 ? 1 : 0);
  const auto add = [out](int64_t value, int digits, std::string_view after) {
    out->AddNumber(static_cast<uint64_t>(value), 10, digits);
    out->Add(after);
  };
  add(year, 4, "-");
  add(month, 2, "-");
  add(day, 2, "T");
  add(static_cast<int64_t>(seconds / 3600), 2, ":");
  add(static_cast<int64_t>(seconds / 60 % 60), 2, ":");
  add(static_cast<int64_t>(seconds % 60), 2, ".");
  add(now.tv_nsec / 1'000'000, 3, "Z");
}

std::string_view SignalName(int signal) {
  switch (signal) {
    case SIGABRT:
      return "SIGABRT";
    case SIGSEGV:
      return "SIGSEGV";
    case SIGBUS:
      return "SIGBUS";
    case SIGFPE:
      return "SIGFPE";
    case SIGILL:
      return "SIGILL";
    default:
      return "a signal";
  }
}

struct Frames {
  void* address[kMaxFrames + 1];
  int count = 0;
};

const void* ProgramCounter(const void* context) {
  if (context == nullptr) return nullptr;
  const auto* machine = static_cast<const ucontext_t*>(context);
#if defined(__x86_64__)
  return reinterpret_cast<const void*>(machine->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return reinterpret_cast<const void*>(machine->uc_mcontext.pc);
#else
  (void)machine;
  return nullptr;
#endif
}

// The frames from the failed instruction on: those of the handler come before it and are left out.
Frames CollectFrames(const void* context) {
  Frames frames;
  const void* const failed = ProgramCounter(context);
  void* all[kMaxFrames];
  const int count = ::backtrace(all, kMaxFrames);
  const auto* const end = all + count;
  const auto* first = std::find(all, all + count, failed);
  if (first == end) {
    // The unwinder has lost its way, for example after a jump to a wrong address.
    if (failed != nullptr) frames.address[frames.count++] = const_cast<void*>(failed);
    first = all;
  }
  for (; first != end; ++first) frames.address[frames.count++] = *first;
  return frames;
}

void AddFrame(void* address, Text* out) {
  const auto value = reinterpret_cast<uintptr_t>(address);
  const Module* found = nullptr;
  for (int i = 0; i < prepared.modules; ++i) {
    const Module& module = prepared.module[static_cast<size_t>(i)];
    if (value >= module.begin && value < module.end) found = &module;
  }
  if (found != nullptr) {
    out->AddEscaped({found->name, std::strlen(found->name)});
    out->Add("+");
  }
  out->Add("0x");
  out->AddNumber(found != nullptr ? value - found->base : value, 16, 1);
  char symbol[256];
  if (absl::Symbolize(address, symbol, sizeof symbol)) {
    out->Add(" ");
    out->AddEscaped({symbol, std::strlen(symbol)});
  }
}

// Calls `add` with each id, up to what the text has room for. Returns the number of those left out.
template <typename Add>
int ForEachRequest(const Text& out, const Add& add) {
  int left_out = beyond.load(std::memory_order_relaxed);
  for (const Slot& slot : slots) {
    const uint32_t state = slot.state.load(std::memory_order_acquire);
    if (state < 2) continue;
    if (out.is_full()) {
      ++left_out;
    } else {
      add(std::string_view(slot.id, std::min<size_t>(state - 2, kMaxId)));
    }
  }
  return left_out;
}

void AddHeadline(int signal, const siginfo_t* info, Text* out) {
  out->Add("fatal signal ");
  out->Add(SignalName(signal));
  if (info == nullptr) return;
  if (info->si_code <= 0) {
    if (info->si_pid == ::getpid()) return;
    out->Add(" sent by process ");
    out->AddNumber(static_cast<uint64_t>(info->si_pid), 10, 1);
  } else {
    out->Add(" at address 0x");
    out->AddNumber(reinterpret_cast<uintptr_t>(info->si_addr), 16, 1);
  }
}

void AddJson(int signal, const siginfo_t* info, const Frames& frames, Text* out) {
  out->Add("{\"time\":\"");
  AddTimeUtc(out);
  out->Add("\",\"level\":\"error\",\"process\":\"");
  out->AddEscaped(prepared.process);
  out->Add("\",\"message\":\"");
  AddHeadline(signal, info, out);
  out->Add("\",\"build_id\":\"");
  out->Add(prepared.build_id);
  out->Add("\",\"backtrace\":[");
  for (int i = 0; i < frames.count; ++i) {
    out->Add(i == 0 ? "\"" : ",\"");
    AddFrame(frames.address[i], out);
    out->Add("\"");
  }
  out->Add("],\"request_ids\":[");
  bool is_first = true;
  const int left_out = ForEachRequest(*out, [&](std::string_view id) {
    out->Add(std::exchange(is_first, false) ? "\"" : ",\"");
    out->AddEscaped(id);
    out->Add("\"");
  });
  out->Close("],\"request_ids_left_out\":");
  char digits[12];
  int at = sizeof digits;
  unsigned rest = static_cast<unsigned>(left_out);
  do {
    digits[--at] = static_cast<char>('0' + rest % 10);
    rest /= 10;
  } while (rest != 0);
  out->Close({digits + at, sizeof digits - static_cast<size_t>(at)});
  out->Close("}\n");
}

void AddLineStart(Text* out) {
  AddTimeUtc(out);
  out->Add(" error ");
  out->Add(prepared.process);
  out->Add(" ");
}

void AddLines(int signal, const siginfo_t* info, const Frames& frames, Text* out) {
  AddLineStart(out);
  AddHeadline(signal, info, out);
  out->Add("; build id ");
  out->Add(prepared.build_id);
  out->Add("\n");
  for (int i = 0; i < frames.count; ++i) {
    AddLineStart(out);
    out->Add("  #");
    out->AddNumber(static_cast<uint64_t>(i), 10, 1);
    out->Add(" ");
    AddFrame(frames.address[i], out);
    out->Add("\n");
  }
  AddLineStart(out);
  out->Add("running requests:");
  const int left_out = ForEachRequest(*out, [&](std::string_view id) {
    out->Add(" ");
    out->AddEscaped(id);
  });
  if (left_out > 0) {
    out->Add(" and ");
    out->AddNumber(static_cast<uint64_t>(left_out), 10, 1);
    out->Add(" more");
  }
  out->Close("\n");
}

}  // namespace

void PrepareCrashReport(const CrashReportOptions& options) {
  is_prepared.store(false);
  CopyText(options.process, prepared.process, sizeof prepared.process);
  CopyText(options.file, prepared.file, sizeof prepared.file);
  prepared.is_json = options.is_json;
  CopyText(BuildId(), prepared.build_id, sizeof prepared.build_id);
  prepared.modules = 0;
  ::dl_iterate_phdr(&AddModule, &prepared);
  absl::InitializeSymbolizer("/proc/self/exe");
  // The first call loads the library of the unwinder, which a handler must not do.
  void* frame[1];
  (void)::backtrace(frame, 1);
  UseOwnStack();
  is_prepared.store(true);
}

void WriteCrashReport(int signal, const siginfo_t* info, const void* context) noexcept {
  if (!is_prepared.load()) return;
  const Frames frames = CollectFrames(context);
  text.Clear();
  if (prepared.is_json) {
    AddJson(signal, info, frames, &text);
  } else {
    AddLines(signal, info, frames, &text);
  }
  if (prepared.file[0] != '\0') {
    const int fd =
        ::open(prepared.file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
    if (fd >= 0) text.WriteTo(fd);
  }
  text.WriteTo(STDERR_FILENO);
}

RunningRequest::RunningRequest(std::string_view request_id) noexcept {
  const size_t length = std::min(request_id.size(), kMaxId);
  const uint32_t first = next_slot.fetch_add(1, std::memory_order_relaxed);
  for (uint32_t n = 0; n < kSlots; ++n) {
    const uint32_t index = (first + n) % kSlots;
    Slot& slot = slots[index];
    uint32_t free = 0;
    if (slot.state.load(std::memory_order_relaxed) != 0 ||
        !slot.state.compare_exchange_strong(free, 1, std::memory_order_acquire)) {
      continue;
    }
    std::memcpy(slot.id, request_id.data(), length);
    slot.state.store(2 + static_cast<uint32_t>(length), std::memory_order_release);
    slot_ = static_cast<int>(index);
    return;
  }
  beyond.fetch_add(1, std::memory_order_relaxed);
  slot_ = kBeyond;
}

RunningRequest::~RunningRequest() {
  if (slot_ >= 0) slots[static_cast<size_t>(slot_)].state.store(0, std::memory_order_release);
  if (slot_ == kBeyond) beyond.fetch_sub(1, std::memory_order_relaxed);
}

RunningRequest::RunningRequest(RunningRequest&& other) noexcept : slot_(std::exchange(other.slot_, kNone)) {}

RunningRequest& RunningRequest::operator=(RunningRequest&& other) noexcept {
  std::swap(slot_, other.slot_);
  return *this;
}

}  // namespace mnemo::telemetry
