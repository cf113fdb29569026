#include "server/frontend/request_energy.h"

#include <algorithm>
#include <charconv>
#include <vector>

#include "server/memory/attention_settings.h"
#include "server/memory/methods/method.h"

namespace mnemo::frontend {
namespace {

using attribution::EnergyStep;
using attribution::WorkDevice;

std::string_view MethodName(const internal::v1::Submit& submit) {
  using memory::AttentionSettings;
  const auto id = static_cast<AttentionSettings::Method>(submit.attention().method());
  const memory::methods::Method* method = memory::methods::FindMethod(id);
  return method == nullptr ? "dense" : method->name;
}

// The step of memory processing; false: another one.
bool IsStep(v1::MemoryStep::Step memory_step, EnergyStep step) {
  switch (memory_step) {
    case v1::MemoryStep::STEP_PREPARE:
      return step == EnergyStep::kPrepare;
    case v1::MemoryStep::STEP_RELEVANCY:
      return step == EnergyStep::kRelevancy;
    case v1::MemoryStep::STEP_RETRIEVAL:
      return step == EnergyStep::kRetrieval;
    case v1::MemoryStep::STEP_APPLY:
      return step == EnergyStep::kApply;
    default:
      return false;
  }
}

double Seconds(const google::protobuf::Duration& time) {
  return static_cast<double>(time.seconds()) + static_cast<double>(time.nanos()) * 1e-9;
}

void AddStepJoules(const energy::MeteredDevice& device, EnergyStep step, double joules, v1::Final* final) {
  double seconds = 0;
  std::vector<v1::MemoryStep*> entries;
  for (v1::MemoryStep& entry : *final->mutable_memory_steps()) {
    if (!IsStep(entry.step(), step) || !ToWorkDevice(entry.device()).Covers(device)) continue;
    entries.push_back(&entry);
    seconds += Seconds(entry.time());
  }
  for (v1::MemoryStep* entry : entries) {
    const double share =
        seconds > 0 ? Seconds(entry->time()) / seconds : 1 / static_cast<double>(entries.size());
    entry->set_joules(entry->joules() + joules * share);
  }
}

}  // namespace

void EnergyObserver::OnRequestBegin(uint64_t id, const internal::v1::Submit& submit) {
  monitor_->BeginRequest(id, submit.request_id(), MethodName(submit));
}

void EnergyObserver::OnSpans(const std::string& device,
                             const google::protobuf::RepeatedPtrField<internal::v1::Span>& spans) {
  std::vector<attribution::WorkSpan> work;
  work.reserve(static_cast<size_t>(spans.size()));
  const WorkDevice own = ToWorkDevice(device);
  for (const internal::v1::Span& span : spans) {
    // Idle energy has no spans.
    if (span.step() < static_cast<int>(EnergyStep::kPrefill) ||
        span.step() > static_cast<int>(EnergyStep::kApply))
      continue;
    work.push_back({.request = span.id(),
                    .step = static_cast<EnergyStep>(span.step()),
                    .device = span.device().empty() ? own : ToWorkDevice(span.device()),
                    .begin_ns = span.begin_ns(),
                    .end_ns = span.begin_ns() + span.length_ns(),
                    .work_ns = static_cast<double>(span.work_ns()),
                    .bytes = static_cast<double>(span.bytes()),
                    .operations = static_cast<double>(span.operations())});
  }
  monitor_->AddSpans(work);
}

void EnergyObserver::OnRequestEnd(uint64_t id, int output_tokens) { monitor_->EndRequest(id, output_tokens); }

WorkDevice ToWorkDevice(std::string_view device) {
  device.remove_prefix(device.rfind(':') + 1);  // npos + 1 is 0
  const size_t digits = std::min(device.find_first_of("0123456789"), device.size());
  const std::string_view kind = device.substr(0, digits);
  WorkDevice made;
  std::from_chars(device.data() + digits, device.data() + device.size(), made.index);
  if (kind == "cuda" || kind == "hip" || kind == "gpu") made.kind = energy::DeviceKind::kGpu;
  if (kind == "xrt" || kind == "fpga") made.kind = energy::DeviceKind::kFpga;
  return made;
}

void FillEnergy(const attribution::RequestEnergy& energy, v1::Final* final) {
  if (energy.devices.empty()) return;
  v1::Energy* out = final->mutable_energy();
  out->set_joules(energy.joules());
  for (const attribution::DeviceEnergy& device : energy.devices) {
    v1::Energy::Device* entry = out->add_devices();
    entry->set_device(device.device.Label());
    entry->set_source(device.device.source);
    entry->set_joules(device.joules());
    for (const EnergyStep step :
         {EnergyStep::kPrepare, EnergyStep::kRelevancy, EnergyStep::kRetrieval, EnergyStep::kApply}) {
      AddStepJoules(device.device, step, device.steps[attribution::StepIndex(step)], final);
    }
  }
}

}  // namespace mnemo::frontend
