#include "server/model/gguf_split.h"

#include <absl/strings/escaping.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "devices/base/range.h"

namespace mnemo::model {
namespace {

constexpr std::string_view kNumberKey = "split.no";
constexpr std::string_view kCountKey = "split.count";
constexpr std::string_view kTensorsKey = "split.tensors.count";
constexpr int64_t kMaxTensorsOfAll = 1 << 16;

// nullopt when absent; INVALID_ARGUMENT for another type or out of [0, max].
absl::StatusOr<std::optional<int64_t>> ReadCount(const GgufFile& file, std::string_view key, int64_t max) {
  if (file.Find(key) == nullptr) return std::nullopt;
  MNEMO_ASSIGN_OR_RETURN(const int64_t value, file.GetInt(key));
  MNEMO_RETURN_IF_ERROR(CheckRange(fmt::format("{}: key '{}'", file.path(), key), value, 0, max));
  return value;
}

std::string Shown(const std::optional<int64_t>& value) {
  return value.has_value() ? fmt::format("{}", *value) : "absent";
}

std::string PartPath(std::string_view stem, int64_t number, int64_t count) {
  return fmt::format("{}-{:05}-of-{:05}.gguf", stem, number, count);
}

// The name as given, or that of the file behind a symbolic link.
std::optional<SplitName> NameOf(const std::string& path) {
  if (std::optional<SplitName> name = ParseSplitName(path); name.has_value()) return name;
  std::error_code error;
  const std::filesystem::path target = std::filesystem::canonical(path, error);
  return error ? std::nullopt : ParseSplitName(target.string());
}

}  // namespace

absl::StatusOr<Split> ReadSplit(const GgufFile& file) {
  MNEMO_ASSIGN_OR_RETURN(const std::optional<int64_t> count, ReadCount(file, kCountKey, kMaxParts));
  MNEMO_ASSIGN_OR_RETURN(const std::optional<int64_t> number, ReadCount(file, kNumberKey, kMaxParts - 1));
  Split split;
  split.count = std::max<int64_t>(count.value_or(1), 1);
  split.number = number.value_or(0);
  if (split.number >= split.count || (split.several() && !number.has_value())) {
    return InvalidArgument(
        "{}: key '{}' is {} and key '{}' is {}; a part has its number, from 0, below the count", file.path(),
        kNumberKey, Shown(number), kCountKey, Shown(count));
  }
  if (split.several()) {
    MNEMO_ASSIGN_OR_RETURN(split.tensor_count, ReadCount(file, kTensorsKey, kMaxTensorsOfAll));
  }
  return split;
}

std::optional<SplitName> ParseSplitName(std::string_view path) {
  // '#' stands for a digit.
  constexpr std::string_view kPattern = "-#####-of-#####.gguf";
  if (path.size() < kPattern.size()) return std::nullopt;
  const std::string_view end = path.substr(path.size() - kPattern.size());
  SplitName name;
  int64_t* number = &name.number;
  for (size_t i = 0; i < end.size(); ++i) {
    if (kPattern[i] == 'o') number = &name.count;
    if (kPattern[i] != '#') {
      if (end[i] != kPattern[i]) return std::nullopt;
    } else if (end[i] < '0' || end[i] > '9') {
      return std::nullopt;
    } else {
      *number = *number * 10 + (end[i] - '0');
    }
  }
  name.stem = path.substr(0, path.size() - end.size());
  return name;
}

absl::StatusOr<std::vector<std::string>> PartPaths(const GgufFile& file, const Split& split) {
  const std::string& path = file.path();
  const std::optional<SplitName> name = NameOf(path);
  if (!name.has_value()) {
    return InvalidArgument(
        "{}: key '{}' is {}: this is part {} of a model in several files, which are found by their names; "
        "the name "
        "{} is expected",
        path, kCountKey, split.count, split.number + 1, PartPath("NAME", split.number + 1, split.count));
  }
  if (name->count != split.count) {
    return InvalidArgument("{}: key '{}' is {}; by its name the file is one of {}", path, kCountKey,
                           split.count, name->count);
  }
  if (name->number != split.number + 1) {
    return InvalidArgument("{}: key '{}' is {}; by its name the file is part {} of {}, for which it is {}",
                           path, kNumberKey, split.number, name->number, name->count, name->number - 1);
  }
  if (split.number != 0) {
    return InvalidArgument("{}: this is part {} of {}; name the first one, {}", path, name->number,
                           split.count, PartPath(name->stem, 1, split.count));
  }
  std::vector<std::string> paths = {path};
  for (int64_t number = 2; number <= split.count; ++number) {
    paths.push_back(PartPath(name->stem, number, split.count));
  }
  return paths;
}

absl::Status CheckPart(const GgufFile& first, const Split& split, const GgufFile& part, int64_t number) {
  const std::string& path = part.path();
  const auto differs = [&](std::string_view key, const std::string& found, const std::string& wanted) {
    return InvalidArgument("{}: key '{}' is {}; it is {} in part {} of the {} that {} begins", path, key,
                           found, wanted, number + 1, split.count, first.path());
  };
  MNEMO_ASSIGN_OR_RETURN(const std::optional<int64_t> count, ReadCount(part, kCountKey, kMaxParts));
  if (count != split.count) return differs(kCountKey, Shown(count), Shown(split.count));
  MNEMO_ASSIGN_OR_RETURN(const Split own, ReadSplit(part));
  if (own.number != number) return differs(kNumberKey, Shown(own.number), Shown(number));
  if (own.tensor_count.has_value() && own.tensor_count != split.tensor_count) {
    return differs(kTensorsKey, Shown(own.tensor_count), Shown(split.tensor_count));
  }
  for (const auto& [key, value] : part.metadata()) {
    if (key.starts_with("split.") || key == "general.alignment") continue;
    const GgufValue* others = first.Find(key);
    if (others == nullptr && key.starts_with("general.")) continue;
    if (others == nullptr || *others != value) {
      return InvalidArgument(
          "{}: key '{}' {} {}, the first part, which decides; they are not of one model", path,
          absl::CHexEscape(absl::string_view(key.data(), std::min<size_t>(key.size(), 80))),
          others == nullptr ? "is not in" : "differs from that of", first.path());
    }
  }
  return absl::OkStatus();
}

std::string ModelStem(const std::string& path) {
  const std::string file_name = std::filesystem::path(path).filename().string();
  const std::optional<SplitName> name = ParseSplitName(file_name);
  return name.has_value() && !name->stem.empty() ? name->stem : std::filesystem::path(path).stem().string();
}

}  // namespace mnemo::model
