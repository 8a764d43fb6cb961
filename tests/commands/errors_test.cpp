// What goes wrong is told with file and reason, under the right exit code, and nothing else is
// harmed.
#include <sys/mount.h>

#include <algorithm>
#include <cstring>

#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

using ErrorsTest = Workshop;

std::string safetensors(const Json& header, const std::string& data, uint64_t header_size = 0) {
  const std::string text = header.dump();
  if (header_size == 0) header_size = text.size();
  return std::string(reinterpret_cast<const char*>(&header_size), sizeof header_size) + text + data;
}

struct Parts {
  Json header;
  std::string data;
};

Parts parts_of(const std::string& file) {
  uint64_t size = 0;
  std::memcpy(&size, file.data(), sizeof size);
  return {Json::parse(file.substr(8, size)), file.substr(8 + size)};
}

TEST_F(ErrorsTest, DamagedWeightsAreRefused) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path golden = source_path("tests/golden/models/llama2");
  fs::create_directory(path("model"));
  fs::copy_file(golden / "config.json", path("model/config.json"));
  write_text(path("ids.json"), "[[1, 2, 3]]");
  const std::string good = read_text(golden / "model.safetensors");
  const auto [header, data] = parts_of(good);
  const std::string first = "model.embed_tokens.weight", second = "model.norm.weight";
  Json overlapping = header, oversized = header, beyond = header, misshapen = header,
       missing = header;
  overlapping[second]["data_offsets"] = {0, header[second]["data_offsets"][1].get<int64_t>() -
                                                header[second]["data_offsets"][0].get<int64_t>()};
  oversized[first]["shape"] = {int64_t{1} << 40, int64_t{1} << 40};
  beyond[first]["data_offsets"] = {0, int64_t{1} << 60};
  misshapen[first]["dtype"] = "I64";
  missing.erase(second);
  const std::pair<const char*, std::string> damages[] = {
      {"truncated data", good.substr(0, good.size() - 100)},
      {"truncated header", good.substr(0, 50)},
      {"empty", ""},
      {"giant header", safetensors(header, data, uint64_t{1} << 62)},
      {"overlapping", safetensors(overlapping, data)},
      {"oversized", safetensors(oversized, data)},
      {"beyond the file", safetensors(beyond, data)},
      {"wrong dtype", safetensors(misshapen, data)},
      {"hole", safetensors(missing, data)},
  };
  for (const auto& [what, bytes] : damages) {
    SCOPED_TRACE(what);
    write_text(path("model/model.safetensors"), bytes);
    expect_failure(qianli({"score", "model", "--tokens", "ids.json"}), 6, {"model.safetensors"});
  }
  fs::remove(path("model/model.safetensors"));
  expect_failure(qianli({"score", "model", "--tokens", "ids.json"}), 6, {"model"});
  write_text(path("model/model.safetensors"), good);
  expect_success(qianli({"score", "model", "--tokens", "ids.json"}));
}

TEST_F(ErrorsTest, AbsurdModelsAreRefused) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path golden = source_path("tests/golden/models/llama2");
  fs::copy(golden, path("model"));
  write_text(path("ids.json"), "[[1, 2, 3]]");
  const Json config = Json::parse(read_text(golden / "config.json"));
  // The message calls the key by the file's own word.
  const auto refused = [&](const char* key, const Json& value, const char* named) {
    SCOPED_TRACE(std::string(key) + " = " + value.dump());
    Json changed = config;
    changed[key] = value;
    write_text(path("model/config.json"), changed.dump());
    expect_failure(qianli({"score", "model", "--tokens", "ids.json"}), 2, {"config.json", named});
  };
  refused("vocab_size", int64_t{1} << 60, "vocab_size");
  refused("num_hidden_layers", 1000000000, "num_hidden_layers");
  refused("num_attention_heads", -1, "num_attention_heads");
  refused("num_key_value_heads", 0, "num_key_value_heads");
  refused("intermediate_size", "many", "intermediate_size");
  refused("model_type", "parrot", "parrot");
  // Sizes that a model may have, but this one has not: the weights do not fit them.
  Json larger = config;
  larger["vocab_size"] = 98;
  write_text(path("model/config.json"), larger.dump());
  expect_failure(qianli({"score", "model", "--tokens", "ids.json"}), 6, {"[98, 36]", "[97, 36]"});
  write_text(path("model/config.json"), "{\"model_type\": \"lla");
  expect_failure(qianli({"score", "model", "--tokens", "ids.json"}), 2, {"config.json", "JSON"});
}

TEST_F(ErrorsTest, DamagedCheckpointsAreRefusedAndNothingIsOverwritten) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path step = trained("run");
  const std::string metrics = read_text(path("run/metrics.jsonl")),
                    config = read_text(path("run/config.yaml"));
  const fs::path weights = step / "model-00001-of-00001.safetensors";
  const std::string good = read_text(weights);
  write_text(path("ids.json"), "[[1, 2, 3]]");
  // One flipped bit, told by the hash in the manifest.
  overwrite(weights, good.size() / 2, std::string(1, static_cast<char>(good[good.size() / 2] ^ 1)));
  expect_failure(pretrain({"train.steps=6"}), 6, {"step_4", weights.filename().string()});
  expect_failure(qianli({"score", step.string(), "--tokens", "ids.json"}), 6,
                 {"step_4", weights.filename().string()});
  EXPECT_EQ(read_text(path("run/metrics.jsonl")), metrics);
  EXPECT_EQ(read_text(path("run/config.yaml")), config);
  // Cut short, told by its size: the checkpoint before takes its place.
  write_text(weights, good.substr(0, good.size() / 2));
  const Result resumed = pretrain({"train.steps=6", "run.dir=run"});
  expect_success(resumed);
  EXPECT_NE(resumed.err.find("step_2"), std::string::npos) << resumed.err;
  EXPECT_EQ(read_metrics(path("run")).size(), 6u);
}

TEST_F(ErrorsTest, WithoutAnyWholeCheckpointARunDoesNotStartAnew) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path step = trained("run");
  const std::string metrics = read_text(path("run/metrics.jsonl"));
  fs::remove(step / "manifest.json");
  write_text(path("run/checkpoints/step_2/manifest.json"), "{");
  expect_failure(pretrain({"train.steps=6"}), 6, {"run/checkpoints", "checkpoint.resume=never"});
  EXPECT_EQ(read_text(path("run/metrics.jsonl")), metrics);
}

TEST_F(ErrorsTest, FewerStepsThanDoneAreRefused) {
  QIANLI_REQUIRE_ENGINE();
  trained("run");
  expect_failure(pretrain({"train.steps=3"}), 2, {"train.steps", "step_4", "3"});
  EXPECT_FALSE(fs::exists(path("run/checkpoints/step_3")));
  EXPECT_EQ(read_metrics(path("run")).size(), 4u);
}

TEST_F(ErrorsTest, DamagedCorporaAreRefused) {
  expect_success(
      qianli({"data", "prepare", "text.txt", "--tokenizer", "tokenizer", "--output", "corpus"}));
  const std::string index = read_text(path("corpus_text_document.idx")),
                    tokens = read_text(path("corpus_text_document.bin"));
  const auto refused = [&](const std::string& file, const std::string& bytes) {
    SCOPED_TRACE(file + " of " + std::to_string(bytes.size()) + " bytes");
    write_text(path(file), bytes);
    expect_failure(qianli({"data", "inspect", "corpus_text_document", "--tokenizer", "tokenizer"}),
                   3, {"corpus_text_document"});
    write_text(path("corpus_text_document.idx"), index);
    write_text(path("corpus_text_document.bin"), tokens);
  };
  refused("corpus_text_document.idx", index.substr(0, index.size() - 5));
  refused("corpus_text_document.idx", "");
  refused("corpus_text_document.idx", "X" + index.substr(1));
  refused("corpus_text_document.idx", index + "more");
  refused("corpus_text_document.bin", tokens.substr(0, tokens.size() - 2));
  refused("corpus_text_document.bin", "");
  expect_success(qianli({"data", "inspect", "corpus_text_document", "--tokenizer", "tokenizer"}));
}

TEST_F(ErrorsTest, OtherDataThanBeforeStopsAResume) {
  QIANLI_REQUIRE_ENGINE();
  trained("run");
  write_text(path("text.txt"), read_text(path("text.txt")) + "a new sentence.\n");
  expect_failure(pretrain({"train.steps=6"}), 3, {"step_4", "other data"});
  EXPECT_EQ(read_metrics(path("run")).size(), 4u);

  expect_success(
      qianli({"data", "prepare", "text.txt", "--tokenizer", "tokenizer", "--output", "corpus"}));
  expect_success(pretrain({"data.path=corpus_text_document", "run.dir=second"}));
  std::string tokens = read_text(path("corpus_text_document.bin"));
  std::swap(tokens[0], tokens[2]);
  tokens[10] = static_cast<char>(tokens[10] + 1);
  write_text(path("corpus_text_document.bin"), tokens);
  expect_failure(pretrain({"data.path=corpus_text_document", "run.dir=second", "train.steps=6"}), 3,
                 {"corpus_text_document"});
  EXPECT_EQ(read_metrics(path("second")).size(), 4u);
}

TEST_F(ErrorsTest, ATokenizerLargerThanTheModelIsRefused) {
  QIANLI_REQUIRE_ENGINE();
  expect_failure(pretrain({"model.vocab_size=20"}), 3,
                 {"20", "300", "tokenizer", "model.vocab_size=300"});
}

TEST_F(ErrorsTest, MissingThingsAreNamed) {
  expect_failure(qianli({"pretrain", "absent.yaml"}), 2, {"absent.yaml", "No such file"});
  expect_failure(qianli({"pretrain", "."}), 2, {"folder"});
  expect_failure(qianli({"tokenizer", "encode", "absent", "--text", "a"}), 3, {"absent"});
  expect_failure(qianli({"tokenizer", "encode", "text.txt", "--text", "a"}), 3,
                 {"text.txt", "JSON"});
  expect_failure(
      qianli({"tokenizer", "train", "absent.txt", "--vocab-size", "300", "--output", "t"}), 3,
      {"absent.txt"});
  EXPECT_FALSE(fs::exists(path("t/tokenizer.json")));
  expect_failure(
      qianli({"data", "prepare", "absent.txt", "--tokenizer", "tokenizer", "--output", "c"}), 3,
      {"absent.txt"});
  expect_failure(qianli({"data", "inspect", "absent"}), 3, {"absent"});
  if (!engine_present()) return;
  expect_failure(pretrain({"data.path=absent"}), 3, {"absent", ".bin/.idx"});
  expect_failure(pretrain({"data.tokenizer=absent"}), 3, {"absent"});
  expect_failure(qianli({"generate", "absent", "--prompt", "a"}), 2, {"absent"});
  expect_failure(qianli({"score", "tokenizer", "--tokens", "absent.json"}), 3, {"absent.json"});
  write_text(path("ids.json"), "[[1, 2],\n [3, x]]");
  expect_failure(qianli({"score", "tokenizer", "--tokens", "ids.json"}), 3,
                 {"ids.json is not valid JSON: line 2, column 6: invalid literal"});
  expect_failure(pretrain({"checkpoint.resume=absent"}), 6, {"absent"});
}

TEST_F(ErrorsTest, RunFoldersThatCannotBeAreRefused) {
  QIANLI_REQUIRE_ENGINE();
  const std::string text = read_text(path("text.txt"));
  for (const char* folder : {"text.txt", "text.txt/run", "/proc/run"}) {
    expect_failure(pretrain({std::string("run.dir=") + folder}), 2, {folder, "run.dir"});
  }
  EXPECT_EQ(read_text(path("text.txt")), text);
  fs::create_directories(path("run/log.txt"));
  expect_failure(pretrain({}), 2, {"log.txt"});
}

TEST_F(ErrorsTest, NumbersThatAreNoneStopTheRun) {
  QIANLI_REQUIRE_ENGINE();
  const Result result = pretrain({"optim.lr=1e30", "train.steps=8"});
  expect_failure(result, 5, {"step ", "samples ", "first non-finite tensor: ", "optim.lr"});
  EXPECT_FALSE(fs::exists(path("run/checkpoints/step_8")));
}

// A file system of a given size, where the test may mount one.
class SmallDisk {
 public:
  SmallDisk(fs::path place, const char* options) : place_(std::move(place)) {
    fs::create_directory(place_);
    mounted_ = ::mount("qianli-test", place_.c_str(), "tmpfs", 0, options) == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(place_.c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;
  bool mounted() const { return mounted_; }
  bool make_read_only() {
    return ::mount("qianli-test", place_.c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, nullptr) == 0;
  }

 private:
  fs::path place_;
  bool mounted_;
};

// Leaves `bytes` of room.
void fill(const fs::path& disk, uint64_t bytes) {
  const uint64_t room = fs::space(disk).available;
  ASSERT_GT(room, bytes);
  write_text(disk / "filler", std::string(room - bytes, 'x'));
}

TEST_F(ErrorsTest, AFullDiskLeavesTheLastCheckpointWhole) {
  QIANLI_REQUIRE_ENGINE();
  const SmallDisk disk(path("disk"), "size=8m");
  if (!disk.mounted()) GTEST_SKIP() << "this user may not mount a small disk";
  expect_success(pretrain({"run.dir=disk/run"}));
  write_text(path("ids.json"), "[[1, 2, 3]]");
  for (const uint64_t room : {uint64_t{0}, uint64_t{65536}, uint64_t{200000}}) {
    SCOPED_TRACE(std::to_string(room) + " bytes of room");
    fill(path("disk"), room);
    const Result result = pretrain({"run.dir=disk/run", "train.steps=6"});
    EXPECT_TRUE(result.code == 2 || result.code == 3 || result.code == 6)
        << result.code << ": " << result.err;
    EXPECT_NE(result.err.find("disk/run"), std::string::npos) << result.err;
    expect_success(qianli({"score", "disk/run/checkpoints/step_4", "--tokens", "ids.json"}));
    fs::remove(path("disk/filler"));
  }
  expect_success(pretrain({"run.dir=disk/run", "train.steps=6"}));
  EXPECT_EQ(read_metrics(path("disk/run")).size(), 6u);
}

TEST_F(ErrorsTest, AReadOnlyRunFolderIsRefused) {
  QIANLI_REQUIRE_ENGINE();
  SmallDisk disk(path("disk"), "size=8m");
  if (!disk.mounted() || !disk.make_read_only())
    GTEST_SKIP() << "this user may not mount a small disk";
  expect_failure(pretrain({"run.dir=disk/run"}), 2, {"disk/run", "Read-only file system"});
}

}  // namespace
}  // namespace qianli::testing
