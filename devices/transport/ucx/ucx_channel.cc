#include "devices/transport/ucx/ucx_channel.h"

#include <sys/statvfs.h>
#include <ucp/api/ucp.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <mutex>
#include <utility>

#include "devices/transport/peer_socket.h"
#include "devices/transport/region.h"

namespace mnemo::transport::ucx {
namespace {

constexpr unsigned kMessageId = 0;
// Limit on messages that UCX has not sent yet.
constexpr size_t kMaxMessages = 8192;
constexpr std::chrono::seconds kWaitTime{2};
constexpr std::chrono::milliseconds kCloseTime{200};

absl::Status Failed(const char* what, ucs_status_t status) {
  return Unavailable("ucx: {}: {}", what, ucs_status_string(status));
}

// With an error handler, UCX leaves out shared memory unless it is told that shared memory can report errors
// too. Values already in the environment take precedence.
void SetDefaults() {
  static std::once_flag once;
  std::call_once(once, [] { ::setenv("UCX_MM_ERROR_HANDLING", "y", 0); });
}

// Values of UCX_TLS, tried in turn: all transports, without shared memory in /dev/shm, without any shared
// memory. A value in the environment takes precedence.
constexpr const char* kTransports[] = {nullptr, "^posix", "^posix,sysv"};

// Returns whether /dev/shm has room for the queues of a channel, 4 MiB in UCX. Without room, UCX logs an
// error at each attempt.
bool HasSharedMemory() {
  constexpr uint64_t kLeastBytes = uint64_t{16} << 20;
  struct statvfs info = {};
  return ::access("/dev/shm", W_OK) == 0 && ::statvfs("/dev/shm", &info) == 0 &&
         info.f_bavail * info.f_frsize >= kLeastBytes;
}

}  // namespace

struct UcxChannel::Impl {
  // A message's own copy, kept until UCX has sent it.
  struct Message {
    Impl* impl;
    uint64_t offset;
    std::byte bytes[kMessageBytes];
  };

  ~Impl();
  absl::Status Lost() {
    socket->MarkLost();
    return Unavailable("ucx: the peer is gone");
  }
  // Waits until a request is done, at most kWaitTime.
  absl::Status Await(ucs_status_ptr_t request, const char* what);
  absl::Status SendMessage(uint64_t offset, uint64_t length);
  static void MessageSent(void* request, ucs_status_t status, void* user_data);
  static ucs_status_t MessageCame(void* self, const void* header, size_t header_bytes, void* data,
                                  size_t length, const ucp_am_recv_param_t* param);
  static void EndpointFailed(void* self, ucp_ep_h, ucs_status_t) {
    auto* impl = static_cast<Impl*>(self);
    if (impl->socket != nullptr) impl->socket->MarkLost();
  }

  absl::Status Open();

  ucp_context_h context = nullptr;
  ucp_worker_h worker = nullptr;
  ucp_mem_h mapped = nullptr;
  Region region;
  // The requested part of the region.
  std::span<std::byte> memory;
  ucp_ep_h endpoint = nullptr;
  ucp_rkey_h key = nullptr;
  uint64_t peer_memory = 0;
  int wake_fd = -1;  // owned by UCX
  bool puts_under_way = false;
  std::unique_ptr<PeerSocket> socket;
  std::vector<std::unique_ptr<Message>> messages;  // all messages that exist
  std::vector<Message*> unused;
};

UcxChannel::Impl::~Impl() {
  if (endpoint != nullptr) {
    ucp_request_param_t param{};
    param.op_attr_mask = UCP_OP_ATTR_FIELD_FLAGS;
    param.flags = UCP_EP_CLOSE_FLAG_FORCE;
    const ucs_status_ptr_t request = ucp_ep_close_nbx(endpoint, &param);
    if (UCS_PTR_IS_PTR(request)) {
      const auto until = std::chrono::steady_clock::now() + kCloseTime;
      while (ucp_request_check_status(request) == UCS_INPROGRESS &&
             std::chrono::steady_clock::now() < until) {
        ucp_worker_progress(worker);
      }
      ucp_request_free(request);
    }
  }
  if (key != nullptr) ucp_rkey_destroy(key);
  if (mapped != nullptr) ucp_mem_unmap(context, mapped);
  if (worker != nullptr) ucp_worker_destroy(worker);
  if (context != nullptr) ucp_cleanup(context);
}

absl::Status UcxChannel::Impl::Await(ucs_status_ptr_t request, const char* what) {
  if (request == nullptr) return absl::OkStatus();
  if (UCS_PTR_IS_ERR(request)) {
    socket->MarkLost();
    return Failed(what, UCS_PTR_STATUS(request));
  }
  const auto until = std::chrono::steady_clock::now() + kWaitTime;
  ucs_status_t status = UCS_INPROGRESS;
  while ((status = ucp_request_check_status(request)) == UCS_INPROGRESS) {
    ucp_worker_progress(worker);
    if (socket->lost(false) || std::chrono::steady_clock::now() > until) {
      ucp_request_cancel(worker, request);
      break;
    }
  }
  ucp_request_free(request);
  if (status == UCS_OK) return absl::OkStatus();
  socket->MarkLost();
  return Failed(what, status == UCS_INPROGRESS ? UCS_ERR_TIMED_OUT : status);
}

void UcxChannel::Impl::MessageSent(void* request, ucs_status_t, void* user_data) {
  auto* message = static_cast<Message*>(user_data);
  message->impl->unused.push_back(message);
  ucp_request_free(request);
}

ucs_status_t UcxChannel::Impl::MessageCame(void* self, const void* header, size_t header_bytes, void* data,
                                           size_t length, const ucp_am_recv_param_t* param) {
  auto* impl = static_cast<Impl*>(self);
  uint64_t offset = 0;
  const bool whole = (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0;
  if (header_bytes == sizeof offset) std::memcpy(&offset, header, sizeof offset);
  if (header_bytes != sizeof offset || !whole ||
      !CheckRegionRange(impl->memory.size(), offset, length).ok()) {
    if (impl->socket != nullptr) impl->socket->MarkLost();  // not one of our messages
    return UCS_OK;
  }
  std::memcpy(impl->memory.data() + offset, data, length);
  return UCS_OK;
}

absl::Status UcxChannel::Impl::SendMessage(uint64_t offset, uint64_t bytes) {
  if (unused.empty()) {
    if (messages.size() >= kMaxMessages) return Lost();  // the peer has taken nothing for long
    messages.push_back(std::make_unique<Message>());
    messages.back()->impl = this;
    unused.push_back(messages.back().get());
  }
  Message* const message = unused.back();
  unused.pop_back();
  message->offset = offset;
  std::memcpy(message->bytes, memory.data() + offset, bytes);
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA | UCP_OP_ATTR_FIELD_FLAGS;
  param.cb.send = MessageSent;
  param.user_data = message;
  param.flags = UCP_AM_SEND_FLAG_EAGER;
  const ucs_status_ptr_t request = ucp_am_send_nbx(endpoint, kMessageId, &message->offset,
                                                   sizeof message->offset, message->bytes, bytes, &param);
  if (UCS_PTR_IS_PTR(request)) return absl::OkStatus();
  unused.push_back(message);
  return request == nullptr ? absl::OkStatus() : Lost();
}

UcxChannel::UcxChannel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
UcxChannel::~UcxChannel() = default;

// UCX looks for the machine's devices here. It sometimes finds none while another thread does the same. So
// only one thread does it at a time, and a failed attempt is repeated.
absl::Status UcxChannel::Impl::Open() {
  constexpr int kAttempts = 5;
  static std::mutex opening;
  std::lock_guard lock(opening);
  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES;
  params.features = UCP_FEATURE_RMA | UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  ucp_worker_params_t worker_params{};
  worker_params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE;
  // Created by one thread, then used by another.
  worker_params.thread_mode = UCS_THREAD_MODE_SERIALIZED;
  size_t without = HasSharedMemory() ? 0 : 1;
  for (int attempt = 1;; ++attempt) {
    ucp_config_t* config = nullptr;
    ucs_status_t status = ucp_config_read(nullptr, nullptr, &config);
    if (status != UCS_OK) return Failed("configuration", status);
    if (kTransports[without] != nullptr && std::getenv("UCX_TLS") == nullptr) {
      status = ucp_config_modify(config, "TLS", kTransports[without]);
    }
    if (status == UCS_OK) status = ucp_init(&params, config, &context);
    ucp_config_release(config);
    if (status != UCS_OK) return Failed("init", status);
    status = ucp_worker_create(context, &worker_params, &worker);
    if (status == UCS_OK) return absl::OkStatus();
    ucp_cleanup(context);
    context = nullptr;
    worker = nullptr;
    if (attempt == kAttempts) return Failed("worker", status);
    if (status == UCS_ERR_NO_DEVICE) continue;
    if (++without == std::size(kTransports)) {
      return Annotate(Failed("worker", status), "is there room in /dev/shm? UCX_TLS names other transports");
    }
  }
}

absl::StatusOr<std::unique_ptr<UcxChannel>> UcxChannel::Create(uint64_t length_bytes) {
  SetDefaults();
  auto impl = std::make_unique<Impl>();
  MNEMO_RETURN_IF_ERROR(impl->Open());
  // The memory is allocated here, not by UCX. UCX shares its own allocations with a peer on the same machine,
  // which maps them in ucp_ep_rkey_unpack. UCX 1.13 crashes there when the owner has exited in the meantime.
  // Puts and gets within a machine therefore go as messages, as over TCP. Between machines, RDMA can register
  // this memory as well.
  MNEMO_ASSIGN_OR_RETURN(impl->region, Region::Create("ucx", length_bytes));
  impl->memory = impl->region.bytes().first(length_bytes);
  ucp_am_handler_param_t handler{};
  handler.field_mask =
      UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.id = kMessageId;
  handler.cb = Impl::MessageCame;
  handler.arg = impl.get();
  ucs_status_t status = ucp_worker_set_am_recv_handler(impl->worker, &handler);
  if (status != UCS_OK) return Failed("handler", status);
  ucp_mem_map_params_t map{};
  map.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH;
  map.address = impl->memory.data();
  map.length = length_bytes;
  status = ucp_mem_map(impl->context, &map, &impl->mapped);
  if (status != UCS_OK) return Failed("memory", status);
  status = ucp_worker_get_efd(impl->worker, &impl->wake_fd);
  if (status != UCS_OK) return Failed("wake-up descriptor", status);
  return std::unique_ptr<UcxChannel>(new UcxChannel(std::move(impl)));
}

absl::StatusOr<std::vector<std::byte>> UcxChannel::Address() const {
  ucp_address_t* worker = nullptr;
  size_t worker_bytes = 0;
  ucs_status_t status = ucp_worker_get_address(impl_->worker, &worker, &worker_bytes);
  if (status != UCS_OK) return Failed("address", status);
  void* key = nullptr;
  size_t key_bytes = 0;
  status = ucp_rkey_pack(impl_->context, impl_->mapped, &key, &key_bytes);
  if (status != UCS_OK) {
    ucp_worker_release_address(impl_->worker, worker);
    return Failed("key", status);
  }
  const AddressHeader header = {reinterpret_cast<uint64_t>(impl_->memory.data()), impl_->memory.size(),
                                static_cast<uint32_t>(worker_bytes), static_cast<uint32_t>(key_bytes)};
  std::vector<std::byte> address(sizeof header + worker_bytes + key_bytes);
  std::memcpy(address.data(), &header, sizeof header);
  std::memcpy(address.data() + sizeof header, worker, worker_bytes);
  std::memcpy(address.data() + sizeof header + worker_bytes, key, key_bytes);
  ucp_worker_release_address(impl_->worker, worker);
  ucp_rkey_buffer_release(key);
  return address;
}

absl::Status UcxChannel::Connect(std::span<const std::byte> peer, UniqueFd socket) {
  impl_->socket = std::make_unique<PeerSocket>(std::move(socket));
  AddressHeader header{};
  if (peer.size() >= sizeof header) std::memcpy(&header, peer.data(), sizeof header);
  if (peer.size() < sizeof header ||
      peer.size() - sizeof header != uint64_t{header.worker_bytes} + header.key_bytes) {
    return InvalidArgument("ucx: a peer's address of {} bytes, with {} and {} in it", peer.size(),
                           header.worker_bytes, header.key_bytes);
  }
  if (header.length < impl_->memory.size()) {
    return InvalidArgument("ucx: the peer's memory has {} bytes, {} are needed", header.length,
                           impl_->memory.size());
  }
  ucp_ep_params_t params{};
  params.field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE |
                      UCP_EP_PARAM_FIELD_ERR_HANDLER;
  params.address = reinterpret_cast<const ucp_address_t*>(peer.data() + sizeof header);
  params.err_mode = UCP_ERR_HANDLING_MODE_PEER;
  params.err_handler.cb = Impl::EndpointFailed;
  params.err_handler.arg = impl_.get();
  ucs_status_t status = ucp_ep_create(impl_->worker, &params, &impl_->endpoint);
  if (status != UCS_OK) return Failed("endpoint", status);
  status =
      ucp_ep_rkey_unpack(impl_->endpoint, peer.data() + sizeof header + header.worker_bytes, &impl_->key);
  if (status != UCS_OK) return Failed("key", status);
  impl_->peer_memory = header.memory;
  return absl::OkStatus();
}

std::span<std::byte> UcxChannel::memory() const { return impl_->memory; }

absl::Status UcxChannel::Write(uint64_t offset_bytes, uint64_t length_bytes) {
  MNEMO_RETURN_IF_ERROR(CheckRegionRange(impl_->memory.size(), offset_bytes, length_bytes));
  if (length_bytes == 0) return absl::OkStatus();
  if (impl_->socket->lost(false)) return impl_->Lost();
  if (length_bytes <= kMessageBytes) {
    MNEMO_RETURN_IF_ERROR(Fence());
    return impl_->SendMessage(offset_bytes, length_bytes);
  }
  ucp_request_param_t param{};
  const ucs_status_ptr_t request =
      ucp_put_nbx(impl_->endpoint, impl_->memory.data() + offset_bytes, length_bytes,
                  impl_->peer_memory + offset_bytes, impl_->key, &param);
  impl_->puts_under_way = true;
  if (UCS_PTR_IS_ERR(request)) return impl_->Lost();
  if (request != nullptr) ucp_request_free(request);  // Fence waits for all of them
  return absl::OkStatus();
}

absl::Status UcxChannel::Read(uint64_t offset_bytes, uint64_t length_bytes) {
  MNEMO_RETURN_IF_ERROR(CheckRegionRange(impl_->memory.size(), offset_bytes, length_bytes));
  if (length_bytes == 0) return absl::OkStatus();
  ucp_request_param_t param{};
  return impl_->Await(ucp_get_nbx(impl_->endpoint, impl_->memory.data() + offset_bytes, length_bytes,
                                  impl_->peer_memory + offset_bytes, impl_->key, &param),
                      "get");
}

absl::Status UcxChannel::Fence() {
  if (!impl_->puts_under_way) return absl::OkStatus();
  ucp_request_param_t param{};
  MNEMO_RETURN_IF_ERROR(impl_->Await(ucp_ep_flush_nbx(impl_->endpoint, &param), "flush"));
  impl_->puts_under_way = false;
  return absl::OkStatus();
}

absl::Status UcxChannel::Wake() { return absl::OkStatus(); }

void UcxChannel::Progress() { ucp_worker_progress(impl_->worker); }

bool UcxChannel::PrepareSleep(std::span<pollfd, 2> fds) {
  fds[0] = {impl_->socket->fd(), POLLIN | POLLRDHUP, 0};
  fds[1] = {impl_->wake_fd, POLLIN, 0};
  if (!impl_->socket->Drain()) return false;
  while (true) {
    if (ucp_worker_progress(impl_->worker) != 0) return false;
    const ucs_status_t status = ucp_worker_arm(impl_->worker);
    if (status == UCS_OK) return true;
    if (status != UCS_ERR_BUSY) return false;
  }
}

bool UcxChannel::lost(bool now) const { return impl_->socket->lost(now); }

}  // namespace mnemo::transport::ucx
