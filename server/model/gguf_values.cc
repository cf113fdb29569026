// Typed access to metadata.
#include <array>
#include <limits>
#include <type_traits>

#include "server/model/gguf.h"

namespace mnemo::model {
namespace {

std::string_view TypeName(const GgufValue& value) {
  static constexpr std::array<std::string_view, std::variant_size_v<GgufValue>> kNames = {
      "an unsigned integer",
      "an integer",
      "a floating-point number",
      "a bool",
      "a string",
      "an array of unsigned integers",
      "an array of integers",
      "an array of floating-point numbers",
      "an array of bools",
      "an array of strings"};
  return kNames[value.index()];
}

absl::Status KeyMissing(const GgufFile& file, std::string_view key) {
  return NotFound("{}: key '{}' is missing", file.path(), key);
}

absl::Status KeyHasType(const GgufFile& file, std::string_view key, const GgufValue& value,
                        std::string_view wanted) {
  return InvalidArgument("{}: key '{}' is {}; {} is wanted", file.path(), key, TypeName(value), wanted);
}

absl::StatusOr<int64_t> ToInt64(const GgufFile& file, std::string_view key, uint64_t value) {
  if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return InvalidArgument("{}: key '{}' is {}, beyond a signed 64-bit integer", file.path(), key, value);
  }
  return static_cast<int64_t>(value);
}

// Returns the value as the one C++ type that stores it.
template <typename T>
absl::StatusOr<T> GetAs(const GgufFile& file, std::string_view key, std::string_view wanted) {
  const GgufValue* value = file.Find(key);
  if (value == nullptr) return KeyMissing(file, key);
  if (const T* held = std::get_if<T>(value)) return *held;
  return KeyHasType(file, key, *value, wanted);
}

}  // namespace

absl::StatusOr<int64_t> GgufFile::GetInt(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return KeyMissing(*this, key);
  if (const auto* number = std::get_if<int64_t>(value)) return *number;
  if (const auto* number = std::get_if<uint64_t>(value)) return ToInt64(*this, key, *number);
  return KeyHasType(*this, key, *value, "an integer");
}

absl::StatusOr<double> GgufFile::GetFloat(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return KeyMissing(*this, key);
  if (const auto* number = std::get_if<double>(value)) return *number;
  if (const auto* number = std::get_if<int64_t>(value)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<uint64_t>(value)) return static_cast<double>(*number);
  return KeyHasType(*this, key, *value, "a number");
}

absl::StatusOr<bool> GgufFile::GetBool(std::string_view key) const {
  return GetAs<bool>(*this, key, "a bool");
}

absl::StatusOr<std::string_view> GgufFile::GetString(std::string_view key) const {
  return GetAs<std::string_view>(*this, key, "a string");
}

absl::StatusOr<std::vector<std::string_view>> GgufFile::GetStrings(std::string_view key) const {
  return GetAs<std::vector<std::string_view>>(*this, key, "an array of strings");
}

absl::StatusOr<std::vector<int64_t>> GgufFile::GetInts(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return KeyMissing(*this, key);
  if (const auto* numbers = std::get_if<std::vector<int64_t>>(value)) return *numbers;
  const auto* numbers = std::get_if<std::vector<uint64_t>>(value);
  if (numbers == nullptr) return KeyHasType(*this, key, *value, "an array of integers");
  std::vector<int64_t> converted;
  converted.reserve(numbers->size());
  for (const uint64_t number : *numbers) {
    MNEMO_ASSIGN_OR_RETURN(const int64_t signed_number, ToInt64(*this, key, number));
    converted.push_back(signed_number);
  }
  return converted;
}

absl::StatusOr<std::vector<double>> GgufFile::GetFloats(std::string_view key) const {
  const GgufValue* value = Find(key);
  if (value == nullptr) return KeyMissing(*this, key);
  return std::visit(
      [&]<typename T>(const T& held) -> absl::StatusOr<std::vector<double>> {
        if constexpr (std::is_same_v<T, std::vector<double>> || std::is_same_v<T, std::vector<int64_t>> ||
                      std::is_same_v<T, std::vector<uint64_t>>) {
          return std::vector<double>(held.begin(), held.end());
        } else {
          return KeyHasType(*this, key, *value, "an array of numbers");
        }
      },
      *value);
}

}  // namespace mnemo::model
