#include "server/telemetry/log_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <condition_variable>
#include <csignal>
#include <cstring>
#include <ctime>
#include <deque>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

#include "devices/base/unique_fd.h"

namespace mnemo::telemetry {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// Pause after a failed write.
constexpr milliseconds kRetryTime{200};
// Pause after a failed open.
constexpr milliseconds kReopenTime{1000};
// Mode before the umask applies.
constexpr mode_t kFileMode = 0666;

// Without O_NONBLOCK, opening a FIFO would wait for a reader. O_RDWR opens one without a reader (fifo(7)) and
// keeps the written data for the next reader.
absl::StatusOr<UniqueFd> OpenFile(const std::string& file) {
  struct stat info = {};
  const bool is_fifo = ::stat(file.c_str(), &info) == 0 && S_ISFIFO(info.st_mode);
  const int flags = O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK | (is_fifo ? O_RDWR : O_WRONLY);
  UniqueFd fd(::open(file.c_str(), flags, kFileMode));
  if (!fd.valid()) return InvalidArgument("log file {}: {}", file, std::strerror(errno));
  return fd;
}

// Errors that are permanent: the reader is gone, or the descriptor was never valid.
bool IsLost(int error) { return error == EPIPE || error == ECONNRESET || error == EBADF || error == EINVAL; }

}  // namespace

// Shared by the object and its thread: a thread stuck in a write outlives the object.
struct LogWriter::State {
  explicit State(Options given) : options(std::move(given)) {}

  void Loop();
  // Requires the lock.
  void Enqueue(std::string line);
  void CountDropped(uint64_t lines);
  void AddNotice();
  std::optional<std::string> TakeLines(std::unique_lock<std::mutex>& lock);
  void Done(uint64_t lines);
  bool ReopenIsDue() const;
  void ReopenNow(std::unique_lock<std::mutex>& lock);

  // Runs on the writer's thread, without the lock.
  void WriteAll(std::string_view text, uint64_t lines);
  ssize_t WriteSome(std::string_view text) const;
  bool WaitFor(int output, milliseconds timeout) const;
  bool WaitForRoom(milliseconds timeout) const { return WaitFor(fd, timeout); }
  void Pause(milliseconds timeout) const { WaitFor(-1, timeout); }
  absl::Status OpenAgain();
  bool HoldsNameless() const;
  void Wake() const;

  const Options options;
  // An eventfd that ends a wait for the destination.
  UniqueFd wake;

  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> queue;
  size_t queued_bytes = 0;
  // Drops for which no notice was written yet.
  uint64_t pending_drops = 0;
  // Lines ever put into the queue.
  uint64_t taken = 0;
  // Lines of `taken` that were written or lost.
  uint64_t done = 0;
  uint64_t reopens_asked = 0;
  uint64_t reopens_done = 0;
  bool stop = false;
  bool finished = false;
  Clock::time_point stop_time;

  std::atomic<uint64_t> dropped{0};
  // taken - done, for the signal handler.
  std::atomic<uint64_t> waiting{0};

  // Used only by the writer's thread.
  // Invalid with standard error, or while the file cannot be opened.
  UniqueFd file;
  int fd = -1;
  bool is_socket = false;
  bool reopen_failed = false;
  Clock::time_point reopen_time;
  uint64_t batch_lines = 0;
};

void LogWriter::State::Wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake.get(), &one, sizeof one);
}

void LogWriter::State::CountDropped(uint64_t lines) {
  pending_drops += lines;
  dropped.fetch_add(lines, std::memory_order_relaxed);
}

void LogWriter::State::Enqueue(std::string line) {
  queued_bytes += line.size();
  queue.push_back(std::move(line));
  ++taken;
  waiting.store(taken - done, std::memory_order_relaxed);
}

void LogWriter::State::AddNotice() {
  const uint64_t count = std::exchange(pending_drops, 0);
  if (options.notice) Enqueue(options.notice(count));
}

void LogWriter::State::Done(uint64_t lines) {
  done += lines;
  waiting.store(taken - done, std::memory_order_relaxed);
  changed.notify_all();
}

// Returns lines for one write, or nullopt when the thread should end. Takes whole lines, as many as a pipe
// accepts atomically (PIPE_BUF, pipe(7)), so that lines of several processes do not mix.
std::optional<std::string> LogWriter::State::TakeLines(std::unique_lock<std::mutex>& lock) {
  while (true) {
    if (stop && (Clock::now() >= stop_time || (queue.empty() && pending_drops == 0))) return std::nullopt;
    if (ReopenIsDue()) {
      ReopenNow(lock);
      continue;
    }
    if (queue.empty() && pending_drops > 0) AddNotice();
    if (!queue.empty() && fd >= 0) break;
    if (stop) {
      changed.wait_until(lock, stop_time);
    } else if (reopen_failed) {
      changed.wait_until(lock, reopen_time);
    } else {
      changed.wait(lock);
    }
  }
  std::string text;
  batch_lines = 0;
  while (!queue.empty() && (text.empty() || text.size() + queue.front().size() <= PIPE_BUF)) {
    queued_bytes -= queue.front().size();
    text += queue.front();
    queue.pop_front();
    ++batch_lines;
  }
  return text;
}

void LogWriter::State::Loop() {
  ::pthread_setname_np(::pthread_self(), "log");
  std::unique_lock lock(mutex);
  while (const std::optional<std::string> text = TakeLines(lock)) {
    const uint64_t lines = batch_lines;
    lock.unlock();
    WriteAll(*text, lines);
    lock.lock();
    Done(lines);
  }
  // The rest is not written.
  CountDropped(queue.size());
  Done(queue.size());
  queue.clear();
  finished = true;
  changed.notify_all();
}

// Waits until the timeout, until there is room, or until Wake is called. poll skips a descriptor of -1.
bool LogWriter::State::WaitFor(int output, milliseconds timeout) const {
  pollfd fds[] = {{output, POLLOUT, 0}, {wake.get(), POLLIN, 0}};
  const int ready = ::poll(fds, 2, static_cast<int>(timeout.count()));
  if (ready > 0 && fds[1].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake.get(), &count, sizeof count);
  }
  return ready > 0 && fds[0].revents != 0;
}

bool LogWriter::State::ReopenIsDue() const {
  return reopens_done < reopens_asked || (reopen_failed && Clock::now() >= reopen_time);
}

void LogWriter::State::ReopenNow(std::unique_lock<std::mutex>& lock) {
  const uint64_t asked = reopens_asked;
  lock.unlock();
  OpenAgain().IgnoreError();  // the log reports it
  lock.lock();
  reopens_done = asked;
  changed.notify_all();
}

// Another process that shares the pipe may fill it between poll and write. Only this thread then waits in the
// write; no other thread waits for it.
ssize_t LogWriter::State::WriteSome(std::string_view text) const {
  const size_t size = std::min<size_t>(text.size(), PIPE_BUF);
  return is_socket ? ::send(fd, text.data(), size, MSG_DONTWAIT | MSG_NOSIGNAL)
                   : ::write(fd, text.data(), size);
}

void LogWriter::State::WriteAll(std::string_view text, uint64_t lines) {
  while (!text.empty()) {
    milliseconds patience = kRetryTime;
    {
      std::unique_lock lock(mutex);
      if (stop) {
        const auto left = std::chrono::ceil<milliseconds>(stop_time - Clock::now());
        if (left.count() <= 0) return CountDropped(lines);
        patience = std::min(patience, left);
      }
      // The rest goes to the file that now has the name.
      if (ReopenIsDue()) ReopenNow(lock);
    }
    if (!WaitForRoom(patience) || fd < 0) continue;
    const ssize_t written = WriteSome(text);
    if (written >= 0) {
      text.remove_prefix(static_cast<size_t>(written));
      continue;
    }
    if (errno == EINTR || errno == EAGAIN) continue;
    if (IsLost(errno)) {
      std::lock_guard lock(mutex);
      CountDropped(lines);
      return;
    }
    // ENOSPC, EDQUOT, EFBIG, EIO: a full device may get space again.
    Pause(patience);
  }
}

// Returns whether the file was removed together with its directory: data written there would be unreachable.
bool LogWriter::State::HoldsNameless() const {
  struct stat info = {};
  return file.valid() && ::fstat(file.get(), &info) == 0 && info.st_nlink == 0;
}

absl::Status LogWriter::State::OpenAgain() {
  if (options.file.empty()) return absl::OkStatus();
  absl::StatusOr<UniqueFd> opened = OpenFile(options.file);
  if (opened.ok()) {
    file = *std::move(opened);
    fd = file.get();
    reopen_failed = false;
    return absl::OkStatus();
  }
  reopen_time = Clock::now() + kReopenTime;
  if (HoldsNameless()) fd = -1;
  if (std::exchange(reopen_failed, true)) return opened.status();
  std::lock_guard lock(mutex);
  if (options.reopen_failed) Enqueue(options.reopen_failed(std::string(opened.status().message())));
  return opened.status();
}

absl::StatusOr<std::unique_ptr<LogWriter>> LogWriter::Open(Options options) {
  auto state = std::make_shared<State>(std::move(options));
  if (state->options.file.empty()) {
    state->fd = STDERR_FILENO;
  } else {
    const absl::Status opened = state->OpenAgain();
    if (!opened.ok() && !state->options.file_may_wait) return opened;
  }
  struct stat info = {};
  state->is_socket = ::fstat(state->fd, &info) == 0 && S_ISSOCK(info.st_mode);
  state->wake = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!state->wake.valid()) return ResourceExhausted("log: eventfd: {}", std::strerror(errno));
  auto writer = std::unique_ptr<LogWriter>(new LogWriter(state));
  // The thread takes no signal that another thread waits for.
  sigset_t all, before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  absl::Status status;
  try {
    writer->thread_ = std::thread([state] { state->Loop(); });
  } catch (const std::system_error& error) {
    status = ResourceExhausted("log: starting its thread: {}", error.what());
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (!status.ok()) return status;
  return writer;
}

LogWriter::~LogWriter() { Close(); }

void LogWriter::Close() {
  if (!thread_.joinable()) return;
  bool finished = false;
  {
    std::unique_lock lock(state_->mutex);
    state_->stop = true;
    state_->stop_time = Clock::now() + kCloseTime;
    state_->changed.notify_all();
    state_->Wake();
    // The writer checks the time itself; the extra time lets it finish.
    finished = state_->changed.wait_until(lock, state_->stop_time + kCloseTime / 2,
                                          [this] { return state_->finished; });
  }
  if (finished) {
    thread_.join();
  } else {
    thread_.detach();
  }
}

void LogWriter::Write(std::string_view line) {
  std::lock_guard lock(state_->mutex);
  State& state = *state_;
  const bool is_dropping = state.pending_drops > 0;
  const size_t lines_bound = is_dropping ? state.options.max_lines / 2 : state.options.max_lines;
  const size_t bytes_bound = is_dropping ? state.options.max_bytes / 2 : state.options.max_bytes;
  if (state.stop || state.queue.size() >= lines_bound || state.queued_bytes + line.size() > bytes_bound) {
    state.CountDropped(1);
    return;
  }
  if (is_dropping) state.AddNotice();
  state.Enqueue(std::string(line));
  state.changed.notify_all();
}

void LogWriter::Reopen() {
  {
    std::lock_guard lock(state_->mutex);
    ++state_->reopens_asked;
  }
  state_->changed.notify_all();
  state_->Wake();
}

bool LogWriter::Flush(milliseconds timeout) {
  std::unique_lock lock(state_->mutex);
  const uint64_t lines = state_->taken;
  const uint64_t reopens = state_->reopens_asked;
  return state_->changed.wait_for(lock, timeout, [&] {
    return state_->finished || (state_->done >= lines && state_->reopens_done >= reopens);
  });
}

uint64_t LogWriter::dropped() const { return state_->dropped.load(std::memory_order_relaxed); }

void LogWriter::WaitInSignalHandler(milliseconds timeout) const noexcept {
  constexpr timespec kStep = {0, 1'000'000};
  for (int64_t i = 0; i < timeout.count() && state_->waiting.load(std::memory_order_relaxed) > 0; ++i) {
    ::nanosleep(&kStep, nullptr);
  }
}

}  // namespace mnemo::telemetry
