#include "tests/commands/workshop.h"

#include <fstream>
#include <iterator>
#include <random>

#include "qianli/base/strings.h"

namespace qianli::testing {
namespace {

// Sentences of few words: enough pattern for the loss to fall within some steps.
std::string sentences(int count) {
  const char* words[] = {"the", "cat", "dog",   "river", "mountain", "walks", "runs",  "sees",
                         "a",   "big", "small", "red",   "house",    "over",  "under", "and"};
  std::mt19937 random(7);
  std::string text;
  for (int i = 0; i < count; ++i) {
    const auto length = 5 + random() % 10;
    for (size_t word = 0; word < length; ++word) {
      text += words[random() % std::size(words)];
      text += word + 1 < length ? " " : ".\n";
    }
  }
  return text;
}

constexpr char kTiny[] =
    R"(model: {preset: llama-tiny, num_layers: 1, hidden_size: 32, ffn_hidden_size: 64,
        num_attention_heads: 2, num_query_groups: 1}
data: {path: text.txt, tokenizer: tokenizer, sequence_length: 32, split: "100,0,0"}
train: {steps: 4, micro_batch_size: 2, global_batch_size: 4, seed: 3}
optim: {lr: 1.0e-2}
precision: fp32
device: cpu
checkpoint: {every: 2}
log: {peak_tflops: 0.1}
run: {dir: run}
)";

// Made once by the program itself, then copied into every test's folder.
const fs::path& template_folder() {
  static const TemporaryFolder folder;
  static const fs::path path = [] {
    write_text(folder / "text.txt", sentences(400));
    write_text(folder / "tiny.yaml", kTiny);
    const Result made =
        run({"tokenizer", "train", "text.txt", "--vocab-size", "300", "--output", "tokenizer"},
            {.folder = folder.path()});
    if (made.code != 0) throw std::runtime_error("tokenizer train: " + made.err);
    return folder.path();
  }();
  return path;
}

}  // namespace

std::string read_text(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  EXPECT_TRUE(stream) << path;
  return {std::istreambuf_iterator<char>(stream), {}};
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream stream(path, std::ios::binary | std::ios::trunc);
  stream << text;
  stream.close();
  if (!stream) throw std::runtime_error("cannot write " + path.string());
}

void overwrite(const fs::path& path, uint64_t offset, const std::string& bytes) {
  std::string text = read_text(path);
  ASSERT_LE(offset + bytes.size(), text.size()) << path;
  write_text(path, text.replace(offset, bytes.size(), bytes));
}

std::vector<std::string> blocks_of(const std::string& page, const std::string& language) {
  std::vector<std::string> blocks;
  const std::string fence = "```" + language + "\n";
  for (size_t at = page.find(fence); at != page.npos; at = page.find(fence, at)) {
    at += fence.size();
    const size_t end = page.find("```", at);
    blocks.push_back(page.substr(at, end - at));
    at = end;
  }
  return blocks;
}

std::vector<Json> read_metrics(const fs::path& run_folder) {
  std::ifstream stream(run_folder / "metrics.jsonl", std::ios::binary);
  std::vector<Json> records;
  for (std::string line; std::getline(stream, line);) {
    Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (record.is_object()) records.push_back(std::move(record));
  }
  return records;
}

int64_t last_step(const fs::path& run_folder) {
  const auto records = read_metrics(run_folder);
  return records.empty() ? 0 : records.back().at("step").get<int64_t>();
}

void Workshop::SetUp() { fs::copy(template_folder(), folder_.path(), fs::copy_options::recursive); }

Result Workshop::qianli(std::vector<std::string> arguments) const {
  return run(std::move(arguments), options());
}

Result Workshop::pretrain(std::vector<std::string> overrides) const {
  std::vector<std::string> arguments{"pretrain", "tiny.yaml"};
  arguments.insert(arguments.end(), overrides.begin(), overrides.end());
  return qianli(std::move(arguments));
}

Result Workshop::shell(const std::string& script) const {
  RunOptions bash = options();
  bash.environment["PATH"] = program_path().parent_path().string() + ":" + std::getenv("PATH");
  bash.program = "/bin/bash";
  return run({"-c", script}, bash);
}

fs::path Workshop::trained(const std::string& run) const {
  expect_success(pretrain({"run.dir=" + run}));
  return path(run) / "checkpoints" / "step_4";
}

void expect_failure(const Result& result, int code, const std::vector<std::string>& words) {
  EXPECT_EQ(result.code, code) << result.err;
  EXPECT_FALSE(result.timed_out);
  for (const auto& word : words) {
    EXPECT_NE(result.err.find(word), std::string::npos)
        << "expected '" << word << "' in: " << result.err;
  }
}

void expect_success(const Result& result) { ASSERT_EQ(result.code, 0) << result.err; }

}  // namespace qianli::testing
