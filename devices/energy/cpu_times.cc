#include "devices/energy/cpu_times.h"

#include <unistd.h>

#include <cstdint>
#include <sstream>
#include <string>

#include "devices/energy/small_file.h"

namespace mnemo::energy {

absl::StatusOr<CpuTimes> ReadCpuTimes(const std::string& path) {
  MNEMO_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  // proc(5): user, nice, system, idle, iowait, irq, softirq, steal in ticks. Guests are part of user and
  // nice.
  uint64_t user = 0, nice = 0, system = 0, idle = 0, waiting = 0, irq = 0, soft_irq = 0, stolen = 0;
  std::istringstream line(text);
  std::string name;
  line >> name >> user >> nice >> system >> idle >> waiting >> irq >> soft_irq >> stolen;
  if (!line || name != "cpu") return DataLoss("{}: the first line is not that of all CPUs", path);
  const auto ticks = static_cast<double>(::sysconf(_SC_CLK_TCK));
  // Stolen time is work of other guests of the host: these CPUs stood still.
  return CpuTimes{.busy_seconds = static_cast<double>(user + nice + system + irq + soft_irq) / ticks,
                  .idle_seconds = static_cast<double>(idle + waiting + stolen) / ticks};
}

}  // namespace mnemo::energy
