#include "devices/energy/remote_meters.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mnemo::energy {
namespace {

constexpr int64_t kSecondNs = 1'000'000'000;
constexpr int64_t kLongestPauseNs = 60 * kSecondNs;
constexpr int64_t kLongestSilenceNs = 5 * kSecondNs;
constexpr int kMessagesARound = 64;

}  // namespace

RemoteMeters::RemoteMeters(RemoteMetersOptions options) : options_(std::move(options)) {
  buffer_.resize(kMaxMessageBytes);
  for (const MeteredDevice& device : options_.devices) {
    entries_[{device.Label(), device.source}].report.device = device;
  }
}

absl::Status RemoteMeters::Connect() {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (options_.socket.size() >= sizeof(address.sun_path)) {
    return InvalidArgument("the path has {} bytes, a socket's has at most {}", options_.socket.size(),
                           sizeof(address.sun_path) - 1);
  }
  std::memcpy(address.sun_path, options_.socket.data(), options_.socket.size());
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return Unavailable("{}", std::strerror(errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return Unavailable("{}", std::strerror(errno));
  }
  fd_ = std::move(fd);
  return absl::OkStatus();
}

void RemoteMeters::Lose(int64_t now_ns, const absl::Status& status) {
  fd_.Reset();
  pause_ns_ = pause_ns_ == 0 ? kSecondNs : std::min(2 * pause_ns_, kLongestPauseNs);
  next_try_ns_ = now_ns + pause_ns_;
  for (auto& [key, entry] : entries_) {
    ++entry.lost;
    ++entry.report.dropped[static_cast<int>(DropReason::kError)];
    entry.report.is_up = false;
    entry.has_last = false;
  }
  if (std::exchange(was_logged_, true)) return;
  options_.log(fmt::format("energy: no readings from mnemo-energy at {}: {}", options_.socket,
                           std::string(status.message())));
}

void RemoteMeters::Sample(const Round& round, std::vector<EnergyInterval>* intervals) {
  if (!fd_.valid()) {
    if (round.now_ns < next_try_ns_) return;
    if (const absl::Status status = Connect(); !status.ok()) return Lose(round.now_ns, status);
    last_message_ns_ = round.now_ns;
  }
  for (int i = 0; i < kMessagesARound; ++i) {
    const absl::StatusOr<bool> received = Receive(round.now_ns, intervals);
    if (!received.ok()) return Lose(round.now_ns, received.status());
    if (!*received) break;
  }
  if (round.now_ns - last_message_ns_ > kLongestSilenceNs) {
    Lose(round.now_ns, Unavailable("silent for {} s", kLongestSilenceNs / kSecondNs));
  }
}

absl::StatusOr<bool> RemoteMeters::Receive(int64_t now_ns, std::vector<EnergyInterval>* intervals) {
  const ssize_t length = ::recv(fd_.get(), buffer_.data(), buffer_.size(), MSG_DONTWAIT | MSG_TRUNC);
  if (length < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (length < 0) return Unavailable("{}", std::strerror(errno));
  if (length == 0) return Unavailable("the connection has ended");
  if (static_cast<size_t>(length) > buffer_.size()) {
    return DataLoss("a message of {} bytes, at most {} are allowed", length, buffer_.size());
  }
  MNEMO_ASSIGN_OR_RETURN(const Readings readings,
                         DecodeReadings(std::string_view(buffer_.data(), static_cast<size_t>(length))));
  Take(readings, intervals);
  last_message_ns_ = now_ns;
  pause_ns_ = 0;
  if (std::exchange(was_logged_, false)) {
    options_.log(fmt::format("energy: mnemo-energy at {} gives readings again", options_.socket));
  }
  return true;
}

void RemoteMeters::Take(const Readings& readings, std::vector<EnergyInterval>* intervals) {
  const bool is_new = instance_ != readings.instance;
  instance_ = readings.instance;
  // Drops the entry that the constructor made, and meters that mnemo-energy no longer has.
  std::erase_if(entries_, [&](const auto& item) {
    return std::none_of(readings.meters.begin(), readings.meters.end(), [&](const Reading& reading) {
      return item.first == Key{reading.meter.device.Label(), reading.meter.device.source};
    });
  });
  for (const Reading& reading : readings.meters) {
    const MeteredDevice& device = reading.meter.device;
    const bool is_wanted =
        std::any_of(options_.devices.begin(), options_.devices.end(),
                    [&](const MeteredDevice& wanted) { return IsSameDevice(wanted, device); });
    if (!is_wanted) continue;
    Entry& entry = entries_[{device.Label(), device.source}];
    const Reading& last = entry.last;
    if (!is_new && entry.has_last && last.meter.is_up && reading.meter.is_up && last.end_ns > 0 &&
        reading.end_ns > last.end_ns && reading.tenths >= last.tenths &&
        std::equal(std::begin(last.meter.dropped), std::end(last.meter.dropped), reading.meter.dropped)) {
      intervals->push_back({device, last.end_ns, reading.end_ns,
                            static_cast<double>(reading.tenths - last.tenths) * kServedJoules});
    }
    entry.report = reading.meter;
    entry.report.dropped[static_cast<int>(DropReason::kError)] += entry.lost;
    entry.last = reading;
    entry.has_last = true;
  }
}

void RemoteMeters::AppendReports(std::vector<MeterReport>* reports) const {
  for (const auto& [key, entry] : entries_) reports->push_back(entry.report);
}

}  // namespace mnemo::energy
