#include "server/worker/request_memory.h"

#include <algorithm>
#include <utility>

#include "server/memory/placement.h"

namespace mnemo::worker {

using memory::AttentionSettings;
using memory::MemoryStepStat;
using memory::Pipeline;

RequestMemory::RequestMemory(std::unique_ptr<Pipeline> pipeline, const ParkingOptions& parking,
                             Scheduler* scheduler)
    : pipeline_(std::move(pipeline)), parking_(parking), scheduler_(scheduler) {
  moved_.reserve(static_cast<size_t>(parking.max_live));
}

void RequestMemory::FindUnopened(std::vector<Request*>* unopened) const {
  if (pipeline_ == nullptr) return;
  for (Request* request : scheduler_->running()) {
    if (request->residence.memory == nullptr &&
        request->spec.attention.method != AttentionSettings::Method::kDense) {
      unopened->push_back(request);
    }
  }
}

absl::StatusOr<memory::SequenceMemory*> RequestMemory::OpenInPipeline(const Request& request) {
  const AttentionSettings& settings = request.spec.attention;
  const std::vector<int32_t>& ids = request.progress.ids;
  if (request.resident()) {
    return pipeline_->OpenResident(settings, request.max_positions(), request.prefill_end(), ids,
                                   request.residence.share.hot_pages);
  }
  return pipeline_->Open(settings, request.max_positions(), request.prefill_end(), ids, request.has_begun());
}

absl::Status RequestMemory::Open(Request* request) {
  absl::StatusOr<memory::SequenceMemory*> opened = OpenInPipeline(*request);
  if (!opened.ok() && request->resident()) {
    const bool full = absl::IsResourceExhausted(opened.status());
    if (parking_.MayStay(*request)) {
      StayInWorker(request, memory::FallbackReason(opened.status()));
      return absl::OkStatus();
    }
    // A full service refuses what has not begun; for the others there will be room again.
    const bool waits_for_room = full && request->has_begun();
    if (absl::IsUnavailable(opened.status()) || waits_for_room) {
      Park(request, Clock::now(), waits_for_room);
      return absl::OkStatus();
    }
  }
  if (!opened.ok()) return opened.status();
  RequestResidence& residence = request->residence;
  if (const std::string why = std::exchange(residence.why_not_resident, ""); !why.empty()) {
    // Its index may have found room in the service nevertheless; if not, that has been counted.
    std::string reason;
    if (pipeline_->FallbacksOf(**opened, &reason) == 0) pipeline_->CountFallback(why);
  }
  residence.memory = *opened;
  residence.kept_pages = 0;
  Parking::Settle(request);
  return absl::OkStatus();
}

// The worker keeps K and V; the request waits for its pages like any other.
void RequestMemory::StayInWorker(Request* request, std::string_view why) {
  request->residence.why_not_resident = why;
  scheduler_->Suspend(request);
  request->residence.share = {};
  Parking::Settle(request);
  scheduler_->Add(request);
}

void RequestMemory::Park(Request* request, Clock::time_point now, bool service_full) {
  scheduler_->Suspend(request);
  parking_.Park(request, now, service_full);
}

bool RequestMemory::KeepResidents() {
  bool lost = false;
  for (Request* request : scheduler_->running()) {
    RequestResidence& residence = request->residence;
    if (!request->resident() || residence.memory == nullptr) continue;
    const ResidentPages& pages = request->pages.resident;
    if (residence.told_generation != pages.generation()) {
      residence.told_generation = pages.generation();
      Pipeline::SetHotPages(residence.memory, pages.hot());
    }
    lost = lost || Pipeline::Lost(*residence.memory) ||
           !pipeline_->Keep(residence.memory, request->pages.computed, pages.indexed()).ok();
    residence.kept_pages = Pipeline::KeptPages(*residence.memory);
  }
  return !lost;
}

void RequestMemory::ParkLost(Clock::time_point now) {
  moved_.clear();
  for (Request* request : scheduler_->running()) {
    if (Lost(*request)) moved_.push_back(request);
  }
  for (Request* request : moved_) {
    pipeline_->CountFallback(memory::kKvLost);
    request->residence.lost_steps = StepsOf(*request);
    Close(request);
    Park(request, now, /*service_full=*/false);
  }
}

void RequestMemory::TendParked(Clock::time_point now, std::vector<Request*>* expired) {
  if (parking_.empty()) return;
  pipeline_->Tend();
  moved_.clear();
  parking_.Sort(now, pipeline_->service_attached(), &moved_, expired);
  for (Request* request : moved_) scheduler_->Add(request);
}

bool RequestMemory::Lost(const Request& request) {
  return request.residence.memory != nullptr && Pipeline::Lost(*request.residence.memory);
}

std::vector<MemoryStepStat> RequestMemory::StepsOf(const Request& request) const {
  std::vector<MemoryStepStat> steps = request.residence.lost_steps;
  if (request.residence.memory == nullptr) return steps;
  for (MemoryStepStat& more : pipeline_->StepsOf(*request.residence.memory)) {
    const auto same = std::find_if(steps.begin(), steps.end(), [&more](const MemoryStepStat& step) {
      return step.step == more.step && step.device == more.device;
    });
    if (same == steps.end()) {
      steps.push_back(std::move(more));
      continue;
    }
    same->Add(more);
  }
  return steps;
}

void RequestMemory::Close(Request* request) {
  pipeline_->Close(request->residence.memory);
  request->residence.memory = nullptr;
}

void RequestMemory::Close(Request* request, int32_t* fallbacks, std::string* reason) {
  if (request->residence.memory == nullptr) return;
  *fallbacks = pipeline_->FallbacksOf(*request->residence.memory, reason);
  Close(request);
}

}  // namespace mnemo::worker
