// Energy of requests between the dispatcher, the attribution and the public protocol.
#pragma once

#include <string>
#include <string_view>

#include "mnemo/v1/generation.pb.h"
#include "server/dispatch/dispatcher.h"
#include "server/telemetry/energy/energy_monitor.h"

namespace mnemo::frontend {

// Hands the work of requests to the monitor. Thread-safe.
class EnergyObserver final : public dispatch::WorkObserver {
 public:
  // `monitor` outlives the object.
  explicit EnergyObserver(attribution::EnergyMonitor* monitor) : monitor_(monitor) {}

  void OnRequestBegin(uint64_t id, const internal::v1::Submit& submit) override;
  void OnSpans(const std::string& device,
               const google::protobuf::RepeatedPtrField<internal::v1::Span>& spans) override;
  void OnRequestEnd(uint64_t id, int output_tokens) override;

 private:
  attribution::EnergyMonitor* const monitor_;
};

// The metered device behind a name of Ready.device or Final.memory_steps: "cpu0", "cuda1", "memory0:xrt".
attribution::WorkDevice ToWorkDevice(std::string_view device);

// Fills Final.energy and the joules of the memory steps that are there. A step's joules on a device go to the
// entries whose work that device did, by their times. Without a device nothing is set.
void FillEnergy(const attribution::RequestEnergy& energy, v1::Final* final);

}  // namespace mnemo::frontend
