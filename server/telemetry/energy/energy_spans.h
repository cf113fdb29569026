// Steps of a request's work that energy is attributed to.
#pragma once

#include <array>
#include <cstddef>

namespace mnemo::attribution {

// Numbers of mnemo.internal.v1.Span.step; 0 is unset. kIdle is a request's part of idle energy: no span has
// it.
enum class EnergyStep { kPrefill = 1, kDecode, kPrepare, kRelevancy, kRetrieval, kApply, kIdle };
inline constexpr size_t kEnergySteps = 7;

// Values of the label `step`.
inline constexpr std::array<const char*, kEnergySteps> kEnergyStepNames = {
    "prefill", "decode", "prepare", "relevancy", "retrieval", "apply", "idle"};

// Position of a step in tables of kEnergySteps entries.
constexpr size_t StepIndex(EnergyStep step) { return static_cast<size_t>(step) - 1; }
inline const char* Name(EnergyStep step) { return kEnergyStepNames[StepIndex(step)]; }

}  // namespace mnemo::attribution
