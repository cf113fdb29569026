#include "server/model/gguf_split.h"

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>

#include "devices/base/hash.h"
#include "tests/support/eventually.h"
#include "tests/support/gguf_writer.h"
#include "tests/support/temp_folder.h"

namespace mnemo::model {
namespace {

using Catch::Matchers::Contains;
using testing::GgufWriter;

using Change = std::function<void(GgufWriter&)>;

void AddTensor(GgufWriter& writer, const std::string& name) {
  std::vector<std::byte> data(64);
  for (size_t i = 0; i < data.size(); ++i)
    data[i] = std::byte(name.size() + i + static_cast<size_t>(name[0]));
  writer.AddTensor(name, devices::TensorType::kF32, {16}, data);
}

void AddBasics(GgufWriter& writer) {
  writer.AddString("general.architecture", "llama");
  writer.AddInts("numbers", std::vector<int32_t>{1, 2, 3});
}

void AddPlace(GgufWriter& writer, uint32_t number, uint32_t count, uint32_t tensors) {
  writer.AddUint32("split.no", number);
  writer.AddUint32("split.count", count);
  writer.AddUint32("split.tensors.count", tensors);
}

// A folder with a model of tensors a, b, c, d, e in three files. A test may write any of them differently.
class Model {
 public:
  Model() {
    Write(1, [](GgufWriter& w) {
      AddBasics(w);
      AddPlace(w, 0, 3, 5);
      AddTensor(w, "a");
      AddTensor(w, "b");
    });
    Write(2, [](GgufWriter& w) {
      AddPlace(w, 1, 3, 5);
      AddTensor(w, "c");
      AddTensor(w, "d");
    });
    Write(3, [](GgufWriter& w) {
      AddPlace(w, 2, 3, 5);
      AddTensor(w, "e");
    });
  }

  std::string path(int number) const { return folder_.path(fmt::format("m-{:05}-of-00003.gguf", number)); }
  const testing::TempFolder& folder() const { return folder_; }
  void Write(int number, const Change& add) const { WriteAs(path(number), add); }
  static void WriteAs(const std::string& path, const Change& add) {
    GgufWriter writer;
    add(writer);
    writer.WriteFile(path);
  }
  auto Open(int number = 1) const { return GgufFile::Open(path(number)); }
  void CheckRefused(const std::vector<std::string>& parts, int opened = 1,
                    absl::StatusCode code = absl::StatusCode::kInvalidArgument) const {
    const auto file = Open(opened);
    REQUIRE_FALSE(file.ok());
    CHECK(file.status().code() == code);
    for (const std::string& part : parts) {
      CHECK_THAT(std::string(file.status().message()), Contains(part));
    }
  }

 private:
  testing::TempFolder folder_;
};

Digest IdentityOf(const GgufFile& file) {
  std::map<std::string, Digest> digests;
  for (const GgufTensor& tensor : file.tensors()) {
    Hasher hasher;
    hasher.Add(*tensor.data.ReadAll());
    digests[tensor.name] = hasher.digest();
  }
  return *file.Identity(digests);
}

}  // namespace

TEST_CASE("All parts of a model are one file, with the identity of the unsplit one") {
  const Model model;
  const auto file = model.Open();
  REQUIRE(file.ok());
  CHECK((*file)->part_count() == 3);
  CHECK((*file)->path() == model.path(1));
  REQUIRE((*file)->tensors().size() == 5);
  const std::string whole_path = model.folder().path("whole.gguf");
  for (const uint32_t count : {9u, 0u, 1u}) {  // 9: no such key
    Model::WriteAs(whole_path, [count](GgufWriter& w) {
      AddBasics(w);
      if (count < 2) AddPlace(w, 0, count, 5);
      for (const char* name : {"e", "d", "a", "b", "c"}) AddTensor(w, name);
    });
    const auto whole = GgufFile::Open(whole_path);
    REQUIRE(whole.ok());
    CHECK((*whole)->part_count() == 1);
    CHECK(IdentityOf(**file) == IdentityOf(**whole));
    for (const GgufTensor& tensor : (*whole)->tensors()) {
      REQUIRE((*file)->FindTensor(tensor.name) != nullptr);
      CHECK(*(*file)->FindTensor(tensor.name)->data.ReadAll() == *tensor.data.ReadAll());
    }
  }
}

TEST_CASE("A snapshot of several parts is the same model") {
  const Model model;
  const auto file = model.Open();
  REQUIRE(file.ok());
  const std::vector<std::string> kept = {"d", "a"};
  const auto snapshot = (*file)->Snapshot(kept);
  REQUIRE(snapshot.ok());
  const auto read = GgufFile::FromSnapshot(std::as_bytes(std::span(*snapshot)));
  REQUIRE(read.ok());
  CHECK((*read)->part_count() == 3);
  CHECK((*read)->path() == model.path(1));
  CHECK(*(*read)->FindTensor("d")->data.ReadAll() == *(*file)->FindTensor("d")->data.ReadAll());
  CHECK((*read)->FindTensor("e")->data.ReadAll().status().code() == absl::StatusCode::kFailedPrecondition);
}

TEST_CASE("Opened files stay readable, and a modified part is named") {
  const Model model;
  const auto file = model.Open();
  REQUIRE(file.ok());
  const std::vector<std::byte> d = *(*file)->FindTensor("d")->data.ReadAll();
  CHECK((*file)->CheckUnchanged().ok());
  SECTION("deleted") {
    std::filesystem::remove(model.path(2));
    CHECK(*(*file)->FindTensor("d")->data.ReadAll() == d);
    CHECK((*file)->CheckUnchanged().ok());
  }
  SECTION("cut") {
    std::filesystem::resize_file(model.path(2), 250);
    const absl::Status read = (*file)->FindTensor("d")->data.ReadAll().status();
    CHECK(read.code() == absl::StatusCode::kDataLoss);
    CHECK_THAT(std::string(read.message()), Contains(model.path(2)));
    const absl::Status changed = (*file)->CheckUnchanged();
    CHECK(changed.code() == absl::StatusCode::kDataLoss);
    CHECK_THAT(std::string(changed.message()), Contains(model.path(2)));
  }
}

TEST_CASE(
    "A stamp tells unchanged files from changed ones, and is not given for files that changed just now") {
  const Model model;
  CHECK_FALSE((*model.Open())->Stamp().has_value());
  const auto stamp = [&] {
    const auto file = model.Open();
    REQUIRE(mnemo::testing::Eventually([&] { return (*file)->Stamp().has_value(); }));
    return *(*file)->Stamp();
  };
  const Digest first = stamp();
  CHECK(stamp() == first);
  // The same contents, length and time of writing; the system's time of the change differs.
  const auto written = std::filesystem::last_write_time(model.path(2));
  std::filesystem::last_write_time(model.path(2), written);
  CHECK(stamp() != first);
}

TEST_CASE("A missing part, or one of another model, is refused by name") {
  const Model model;
  SECTION("missing") {
    std::filesystem::remove(model.path(2));
    model.CheckRefused({model.path(2), "part 2 of 3"}, 1, absl::StatusCode::kNotFound);
  }
  SECTION("swapped") {
    std::filesystem::rename(model.path(2), model.path(4));
    std::filesystem::rename(model.path(3), model.path(2));
    std::filesystem::rename(model.path(4), model.path(3));
    model.CheckRefused({model.path(2), "'split.no' is 2; it is 1 in part 2 of the 3"});
  }
  SECTION("another count") {
    model.Write(3, [](GgufWriter& w) { AddPlace(w, 2, 4, 5), AddTensor(w, "e"); });
    model.CheckRefused({model.path(3), "'split.count' is 4; it is 3"});
  }
  SECTION("no part at all") {
    model.Write(3, [](GgufWriter& w) { AddTensor(w, "e"); });
    model.CheckRefused({model.path(3), "'split.count' is absent; it is 3"});
  }
  SECTION("another count of tensors") {
    model.Write(3, [](GgufWriter& w) { AddPlace(w, 2, 3, 6), AddTensor(w, "e"); });
    model.CheckRefused({model.path(3), "'split.tensors.count' is 6; it is 5"});
  }
  SECTION("a tensor twice") {
    model.Write(3, [](GgufWriter& w) { AddPlace(w, 2, 3, 5), AddTensor(w, "c"); });
    model.CheckRefused({model.path(3), "tensor 'c'", model.path(2)});
  }
  SECTION("a tensor too few") {
    model.Write(3, [](GgufWriter& w) { AddPlace(w, 2, 3, 5); });
    model.CheckRefused({"'split.tensors.count' is 5", "have 4 tensors"});
  }
  SECTION("a tensor too many") {
    model.Write(3, [](GgufWriter& w) { AddPlace(w, 2, 3, 5), AddTensor(w, "e"), AddTensor(w, "f"); });
    model.CheckRefused({"'split.tensors.count' is 5", "have 6 tensors"});
  }
  SECTION("metadata that contradicts") {
    model.Write(2, [](GgufWriter& w) {
      w.AddString("general.architecture", "qwen2");
      AddPlace(w, 1, 3, 5), AddTensor(w, "c"), AddTensor(w, "d");
    });
    model.CheckRefused({model.path(2), "'general.architecture' differs", model.path(1)});
  }
  SECTION("metadata that the first lacks") {
    model.Write(2, [](GgufWriter& w) {
      w.AddFloat32("llama.rope.freq_base", 500.0f);
      AddPlace(w, 1, 3, 5), AddTensor(w, "c"), AddTensor(w, "d");
    });
    model.CheckRefused({model.path(2), "'llama.rope.freq_base' is not in", model.path(1)});
  }
  SECTION("no GGUF file") {
    std::ofstream(model.path(2)) << "something else, of some length";
    model.CheckRefused({model.path(2), "not a GGUF file"});
  }
  SECTION("truncated") {
    std::filesystem::resize_file(model.path(3), std::filesystem::file_size(model.path(3)) - 40);
    model.CheckRefused({model.path(3)}, 1, absl::StatusCode::kDataLoss);
  }
}

TEST_CASE("Basics repeated in a later part are taken") {
  const Model model;
  model.Write(2, [](GgufWriter& w) {
    AddBasics(w);
    w.AddUint32("general.file_type", 3);
    AddPlace(w, 1, 3, 5), AddTensor(w, "c"), AddTensor(w, "d");
  });
  CHECK(model.Open().ok());
}

TEST_CASE("The first part is named where another is given, and the pattern where the name lacks it") {
  const Model model;
  model.CheckRefused({model.path(2), "part 2 of 3", "name the first one, " + model.path(1)}, 2);
  const std::string renamed = model.folder().path("renamed.gguf");
  SECTION("renamed") {
    std::filesystem::rename(model.path(1), renamed);
    const auto file = GgufFile::Open(renamed);
    CHECK_THAT(std::string(file.status().message()),
               Contains("'split.count' is 3") && Contains("NAME-00001-of-00003.gguf"));
  }
  SECTION("a link is looked through") {
    std::filesystem::create_symlink(model.path(1), renamed);
    CHECK(GgufFile::Open(renamed).ok());
  }
  SECTION("a count that the name does not have") {
    const std::string other = model.folder().path("m-00001-of-00004.gguf");
    std::filesystem::rename(model.path(1), other);
    CHECK_THAT(std::string(GgufFile::Open(other).status().message()), Contains("'split.count' is 3"));
  }
  SECTION("a number that the name does not have") {
    std::filesystem::rename(model.path(2), model.path(1));
    model.CheckRefused({"'split.no' is 1", "part 1 of 3, for which it is 0"});
  }
}

TEST_CASE("The first part is enough for metadata") {
  const Model model;
  std::filesystem::remove(model.path(2));
  const auto file = GgufFile::Open(model.path(1), {.metadata_only = true});
  REQUIRE(file.ok());
  CHECK(*(*file)->GetString("general.architecture") == "llama");
  CHECK_FALSE(GgufFile::Open(model.path(3), {.metadata_only = true}).ok());
}

TEST_CASE("Values of the keys of split files have bounds") {
  const auto refused = [](const Change& add, const std::string& message) {
    GgufWriter writer;
    add(writer);
    const auto file = GgufFile::Parse(writer.Bytes(), "x-00001-of-00003.gguf", {});
    REQUIRE_FALSE(file.ok());
    CHECK_THAT(std::string(file.status().message()), Contains(message));
  };
  refused([](GgufWriter& w) { AddPlace(w, 0, 1025, 5); }, "'split.count' is 1025; allowed: 0 to 1024");
  refused([](GgufWriter& w) { AddPlace(w, 3, 3, 5); }, "'split.no' is 3 and key 'split.count' is 3");
  refused([](GgufWriter& w) { AddPlace(w, 1, 1, 5); }, "'split.no' is 1 and key 'split.count' is 1");
  refused([](GgufWriter& w) { w.AddUint32("split.no", 1); }, "'split.count' is absent");
  refused([](GgufWriter& w) { w.AddUint32("split.count", 3); }, "'split.no' is absent");
  refused([](GgufWriter& w) { AddPlace(w, 0, 3, 70000); },
          "'split.tensors.count' is 70000; allowed: 0 to 65536");
  refused([](GgufWriter& w) { w.AddString("split.count", "3"); }, "'split.count' is a string");
  refused([](GgufWriter& w) { w.AddInts("split.no", std::vector<int32_t>{0}); }, "'split.no' is an array");
  refused([](GgufWriter& w) { AddPlace(w, 0, 3, 5); }, "'split.count' is 3; 1 parts are given");
}

TEST_CASE("Names of parts") {
  const auto name = ParseSplitName("/a/b-00002-of-00010.gguf");
  REQUIRE(name.has_value());
  CHECK(name->stem == "/a/b");
  CHECK(name->number == 2);
  CHECK(name->count == 10);
  for (const char* other : {"", "a.gguf", "a-0001-of-00003.gguf", "a-00001-of-00003.GGUF",
                            "a-00001_of-00003.gguf", "a-0000x-of-00003.gguf", "00001-of-00003.gguf"}) {
    CHECK_FALSE(ParseSplitName(other).has_value());
  }
  CHECK(ModelStem("/x/model-00001-of-00002.gguf") == "model");
  CHECK(ModelStem("/x/model-00001.gguf") == "model-00001");
  CHECK(ModelStem("/x/-00001-of-00002.gguf") == "-00001-of-00002");
}

}  // namespace mnemo::model
