#include "qianli/infer/score.h"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "apps/qianli/engine/commands.h"
#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/formats/safetensors.h"
#include "qianli/tune/attach.h"

namespace qianli::app {
namespace {

constexpr uint64_t kMaxInputBytes = uint64_t{1} << 30;

[[noreturn]] void refuse(const std::string& file, const std::string& place,
                         const std::string& wanted, const Json& got) {
  throw DataError("score",
                  fmt::format("{}{}: expected {}, got {}", file, place, wanted, got.type_name()),
                  "the file holds [[ids…], …]");
}

std::vector<infer::TokenIds> read_sequences(const std::string& file) {
  const Json json = read_json(file, FileRole::kData, kMaxInputBytes);
  if (!json.is_array()) refuse(file, "", "a list of sequences", json);
  if (json.empty()) throw DataError("score", fmt::format("{}: expected sequences, got none", file));
  std::vector<infer::TokenIds> sequences;
  for (const Json& row : json) {
    const std::string place = fmt::format(": sequence {}", sequences.size());
    if (!row.is_array()) refuse(file, place, "a list of ids", row);
    infer::TokenIds& ids = sequences.emplace_back();
    for (const Json& id : row) {
      // Numbers above the range of int64 are unsigned in nlohmann's tree: outside any vocabulary.
      if (!id.is_number_integer() || (id.is_number_unsigned() && id.get<uint64_t>() > INT64_MAX)) {
        refuse(file, fmt::format("{}, token {}", place, ids.size()), "an integer id", id);
      }
      ids.push_back(id.get<int64_t>());
    }
  }
  return sequences;
}

// `logits` [N, L, V] where all lengths are equal, else `logits.N` [L, V] each.
class LogitsFile {
 public:
  LogitsFile(const std::string& path, std::span<const infer::TokenIds> sequences,
             int64_t vocabulary)
      : writer_(path, specs(path, sequences, vocabulary), {}, FileRole::kData) {
    std::unordered_map<std::string, size_t> places;
    for (size_t s = 0; s < sequences.size(); ++s) places[name_of(s)] = s;
    // The writer wants the tensors by name: "logits.10" comes before "logits.2".
    for (const auto& tensor : writer_.tensors()) {
      if (tensor.name != "logits") order_.push_back(places.at(tensor.name));
    }
  }

  std::span<const size_t> order() const { return order_; }
  void write(const at::Tensor& rows) {
    writer_.write(std::as_bytes(std::span(rows.data_ptr<float>(), rows.numel())));
  }
  void commit() { writer_.commit(); }

 private:
  static std::string name_of(size_t sequence) { return fmt::format("logits.{}", sequence); }

  static std::vector<formats::TensorSpec> specs(const std::string& path,
                                                std::span<const infer::TokenIds> sequences,
                                                int64_t vocabulary) {
    const auto length = static_cast<int64_t>(sequences[0].size());
    int64_t rows = 0;
    std::vector<formats::TensorSpec> each;
    for (size_t s = 0; s < sequences.size(); ++s) {
      const auto own = static_cast<int64_t>(sequences[s].size());
      each.push_back({name_of(s), formats::Dtype::kF32, {own, vocabulary}});
      rows += own;
    }
    const double bytes = 4.0 * static_cast<double>(rows) * static_cast<double>(vocabulary);
    const uint64_t room = free_disk_bytes(path);
    if (bytes > static_cast<double>(room)) {
      throw DataError("score", fmt::format("expected {:.1f} GB of free disk for {}, found {}",
                                           bytes / 1e9, path, human_bytes(room)));
    }
    const bool equal = std::all_of(sequences.begin(), sequences.end(), [&](const auto& ids) {
      return static_cast<int64_t>(ids.size()) == length;
    });
    if (!equal) return each;
    return {{"logits",
             formats::Dtype::kF32,
             {static_cast<int64_t>(sequences.size()), length, vocabulary}}};
  }

  formats::SafetensorsWriter writer_;
  std::vector<size_t> order_;
};

Json number_or_null(double value) { return std::isnan(value) ? Json(nullptr) : Json(value); }

void print_json(const infer::Scores& scores) {
  const OrderedJson answer{{"log_probs", scores.log_probs},
                           {"tokens", scores.tokens},
                           {"mean_nll", number_or_null(scores.mean_nll())},
                           {"perplexity", number_or_null(scores.perplexity())}};
  fmt::print("{}\n", answer.dump());
}

}  // namespace

void run_score(const ScoreArguments& arguments) {
  const auto sequences = read_sequences(arguments.tokens_file);
  const auto model = infer::Model::open(arguments.model, {.precision = arguments.precision,
                                                          .device = arguments.device,
                                                          .quantize = arguments.quantize});
  log::info("model", "{}", model->summary());
  int64_t adapter = nn::kNoAdapter;
  if (!arguments.adapter.empty())
    adapter = tune::attach(arguments.adapter, model->spec(), model->parameters());
  infer::check_sequences(*model, sequences);
  std::optional<LogitsFile> logits;
  infer::LogitsSink sink;
  if (!arguments.logits_file.empty()) {
    logits.emplace(arguments.logits_file, sequences, model->spec().vocab_size);
    sink = [&](const at::Tensor& rows) { logits->write(rows); };
  }
  const infer::Scores scores =
      infer::score(*model, sequences, {.show_progress = true, .adapter = adapter}, sink,
                   logits ? logits->order() : std::span<const size_t>{});
  if (logits) logits->commit();
  log::say(
      fmt::format("{} tokens of {} sequences: mean nll {:.6f}, perplexity {:.4f}, {:.0f} tokens/s",
                  scores.tokens, sequences.size(), scores.mean_nll(), scores.perplexity(),
                  static_cast<double>(scores.tokens) / scores.seconds));
  if (arguments.json || ::isatty(STDOUT_FILENO) == 0) print_json(scores);
}

}  // namespace qianli::app
