#include "devices/base/resources.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

namespace mnemo {
namespace {

constexpr std::string_view kVersion2 = "cgroup2";

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

std::string Trimmed(std::string text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

std::optional<int64_t> ParseNumber(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// A mount point of a hierarchy of control groups (proc(5), mountinfo).
struct Mount {
  // Directory of the hierarchy that is mounted.
  std::string root;
  // Mount point.
  std::string point;
  std::string type;  // "cgroup" or "cgroup2"
  std::vector<std::string> options;
};

// Decodes escapes: the kernel writes blanks and backslashes of paths as octal, such as "\040".
std::string Unescaped(const std::string& text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto octal = [&](size_t at) { return text[at] >= '0' && text[at] <= '7'; };
    if (text[i] == '\\' && i + 3 < text.size() && octal(i + 1) && octal(i + 2) && octal(i + 3)) {
      plain += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      plain += text[i];
    }
  }
  return plain;
}

std::vector<Mount> ReadMounts(const std::string& path) {
  std::vector<Mount> mounts;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const std::vector<std::string> words = Split(line, ' ');
    const auto dash = std::find(words.begin(), words.end(), "-");
    if (words.size() < 6 || words.end() - dash < 4) continue;
    if (dash[1] != "cgroup" && dash[1] != kVersion2) continue;
    mounts.push_back({Unescaped(words[3]), Unescaped(words[4]), dash[1], Split(dash[3], ',')});
  }
  return mounts;
}

// A group's path in one hierarchy: "/" followed by names.
struct Group {
  // Controllers of version 1; empty means version 2.
  std::vector<std::string> controllers;
  std::string path;
};

std::vector<Group> ReadGroups(const std::string& path) {
  std::vector<Group> groups;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    groups.push_back({Split(line.substr(first + 1, second - first - 1), ','), line.substr(second + 1)});
  }
  return groups;
}

bool Holds(const std::vector<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

class Reader {
 public:
  Reader(const ResourceSources& sources, Resources* out)
      : root_(sources.root),
        out_(out),
        mounts_(ReadMounts(root_ + "/proc/self/mountinfo")),
        groups_(ReadGroups(root_ + "/proc/self/cgroup")) {}

  void Read() {
    for (const std::string& folder : Folders(std::string(kVersion2))) {
      BoundMemory(folder, "memory.max");
      BoundMemory(folder, "memory.high");
      BoundQuota(folder, "cpu.max");
      BoundCpuset(folder, "cpuset.cpus.effective");
    }
    for (const std::string& folder : Folders("memory")) {
      BoundMemory(folder, "memory.limit_in_bytes");
      BoundHierarchy(folder);
    }
    for (const std::string& folder : Folders("cpu")) BoundQuota(folder, "");
    for (const std::string& folder : Folders("cpuset")) {
      BoundCpuset(folder, "cpuset.effective_cpus");
      BoundCpuset(folder, "cpuset.cpus");
    }
  }

 private:
  // Returns the group's folder and the folders above it up to the mount point, for a controller of version 1
  // or for version 2. Empty when the hierarchy is not mounted.
  std::vector<std::string> Folders(const std::string& controller) const {
    const bool version2 = controller == kVersion2;
    const auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& each) {
      return version2 ? each.controllers.empty() : Holds(each.controllers, controller);
    });
    if (group == groups_.end()) return {};
    const Mount* found = nullptr;
    // Path of the group below the mount point.
    std::string inside;
    for (const Mount& mount : mounts_) {
      const bool matches =
          version2 ? mount.type == kVersion2 : mount.type == "cgroup" && Holds(mount.options, controller);
      if (!matches) continue;
      // A container may see its own group as the mount's root. When the group's path is relative to the
      // host's root, the mount's root is another group, above or outside of it. The mount point is then the
      // nearest existing folder.
      const std::string root = mount.root == "/" ? "" : mount.root;
      const bool below = group->path == root || group->path.starts_with(root + "/");
      if (found == nullptr || below) {
        found = &mount;
        inside = below ? group->path.substr(root.size()) : "";
        if (below) break;
      }
    }
    if (found == nullptr) return {};
    if (inside.find("/..") != std::string::npos) inside.clear();
    while (!inside.empty() && inside.back() == '/') inside.pop_back();
    std::vector<std::string> folders;
    for (;; inside.erase(inside.rfind('/'))) {
      folders.push_back(found->point + inside);
      if (inside.empty()) return folders;
    }
  }

  // Returns nullopt when there is no such file.
  std::optional<std::string> ReadText(const std::string& folder, const std::string& name) {
    const std::string path = root_ + folder + "/" + name;
    if (::access(path.c_str(), F_OK) != 0) return std::nullopt;
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    if (!file) {
      out_->warnings.push_back(fmt::format("{}/{} cannot be read; it is ignored", folder, name));
      return std::nullopt;
    }
    return Trimmed(text.str());
  }

  void Malformed(const std::string& folder, const std::string& name, const std::string& text) {
    out_->warnings.push_back(fmt::format("{}/{} holds '{}', which is not understood; it is ignored", folder,
                                         name, text.substr(0, 40)));
  }

  void LowerMemory(int64_t bytes, const std::string& folder, const std::string& name) {
    if (bytes >= out_->memory_bytes) return;
    out_->memory_bytes = bytes;
    out_->memory_bound = fmt::format("{} of {}", name, folder);
  }

  void LowerCores(int64_t cores, const std::string& folder, const std::string& name) {
    if (cores >= out_->cores) return;
    out_->cores = static_cast<int>(std::max<int64_t>(1, cores));
    out_->cores_bound = fmt::format("{} of {}", name, folder);
  }

  void BoundMemory(const std::string& folder, const std::string& name) {
    const std::optional<std::string> text = ReadText(folder, name);
    if (!text || *text == "max" || *text == "-1") return;
    const std::optional<int64_t> bytes = ParseNumber(*text);
    if (!bytes || *bytes < 0) return Malformed(folder, name, *text);
    LowerMemory(*bytes, folder, name);
  }

  // Applies the limits of the groups above, including those a container does not see.
  void BoundHierarchy(const std::string& folder) {
    const std::string name = "memory.stat", key = "hierarchical_memory_limit ";
    const std::optional<std::string> text = ReadText(folder, name);
    if (!text) return;
    for (const std::string& line : Split(*text, '\n')) {
      if (!line.starts_with(key)) continue;
      const std::optional<int64_t> bytes = ParseNumber(line.substr(key.size()));
      if (!bytes || *bytes < 0) return Malformed(folder, name, line);
      LowerMemory(*bytes, folder, "hierarchical_memory_limit");
    }
  }

  // Applies a CPU quota. `name` is the file of version 2, "QUOTA PERIOD" in microseconds; empty selects the
  // two files of version 1.
  void BoundQuota(const std::string& folder, std::string name) {
    std::optional<std::string> text;
    if (!name.empty()) {
      text = ReadText(folder, name);
    } else {
      name = "cpu.cfs_quota_us";
      text = ReadText(folder, name);
      const std::optional<std::string> period = ReadText(folder, "cpu.cfs_period_us");
      if (!text || !period || *text == "-1") return;
      *text += " " + *period;
    }
    if (!text) return;
    const std::vector<std::string> words = Split(*text, ' ');
    if (!words.empty() && words[0] == "max") return;
    const std::optional<int64_t> quota = words.empty() ? std::nullopt : ParseNumber(words[0]);
    const std::optional<int64_t> period = words.size() < 2 ? int64_t{100000} : ParseNumber(words[1]);
    if (words.size() > 2 || !quota || !period || *quota <= 0 || *period <= 0) {
      return Malformed(folder, name, *text);
    }
    LowerCores(*quota / *period, folder, name);
  }

  // Parses a list such as "0-3,5".
  void BoundCpuset(const std::string& folder, const std::string& name) {
    const std::optional<std::string> text = ReadText(folder, name);
    if (!text || text->empty()) return;
    int64_t cores = 0;
    for (const std::string& range : Split(*text, ',')) {
      const size_t dash = range.find('-');
      const std::optional<int64_t> first = ParseNumber(std::string_view(range).substr(0, dash));
      const std::optional<int64_t> last =
          dash == std::string::npos ? first : ParseNumber(std::string_view(range).substr(dash + 1));
      if (!first || !last || *first < 0 || *last < *first) return Malformed(folder, name, *text);
      cores += *last - *first + 1;
    }
    LowerCores(cores, folder, name);
  }

  const std::string root_;
  Resources* const out_;
  const std::vector<Mount> mounts_;
  const std::vector<Group> groups_;
};

// Counts the cores of the affinity mask, for any number of cores in the machine.
int AffinityCores() {
  for (int most = CPU_SETSIZE; most <= 1 << 20; most *= 2) {
    cpu_set_t* const set = CPU_ALLOC(most);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(most);
    CPU_ZERO_S(bytes, set);
    const int result = ::sched_getaffinity(0, bytes, set);
    const int error = errno;
    const int count = result == 0 ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (result == 0) return count;
    // EINVAL: the machine has more cores than the mask holds.
    if (error != EINVAL) break;
  }
  return 1;
}

int64_t RlimitBytes(__rlimit_resource_t resource) {
  struct rlimit limit = {};
  if (::getrlimit(resource, &limit) != 0 || limit.rlim_cur > static_cast<rlim_t>(INT64_MAX)) return INT64_MAX;
  return static_cast<int64_t>(limit.rlim_cur);
}

}  // namespace

Resources AvailableResources(const ResourceSources& sources) {
  Resources resources;
  resources.memory_bytes = sources.physical_bytes.value_or(static_cast<int64_t>(::sysconf(_SC_PHYS_PAGES)) *
                                                           static_cast<int64_t>(::sysconf(_SC_PAGESIZE)));
  resources.memory_bound = "physical memory";
  resources.cores = std::max(1, sources.affinity_cores ? *sources.affinity_cores : AffinityCores());
  resources.cores_bound = "CPU affinity";
  Reader(sources, &resources).Read();
  const std::pair<int64_t, const char*> limits[] = {
      {sources.address_space_bytes ? *sources.address_space_bytes : RlimitBytes(RLIMIT_AS),
       "RLIMIT_AS (ulimit -v)"},
      {sources.data_bytes ? *sources.data_bytes : RlimitBytes(RLIMIT_DATA), "RLIMIT_DATA (ulimit -d)"}};
  for (const auto& [bytes, name] : limits) {
    if (bytes >= resources.process_bytes) continue;
    resources.process_bytes = bytes;
    resources.process_bound = name;
  }
  return resources;
}

}  // namespace mnemo
