#include "qianli/train/metrics.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <vector>

#include "qianli/base/error.h"
#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/formats/tensorboard.h"

namespace qianli::train {
namespace {

// Where the lines of steps up to `last_step` end, and the tokens seen until then. Steps ascend, so
// this looks from the end on; a crash may have left half a line there.
struct KeptLines {
  size_t end = 0;
  std::optional<int64_t> tokens_seen;
};
KeptLines lines_until(std::string_view text, int64_t last_step) {
  size_t end = text.size();
  while (end > 0) {
    const size_t line_break = text.substr(0, end - 1).rfind('\n');
    const size_t begin = line_break == text.npos ? 0 : line_break + 1;
    const std::string_view line = text.substr(begin, end - begin);
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool whole = line.ends_with('\n') && record.is_object();
    if (whole && record.value("step", int64_t{0}) <= last_step) {
      KeptLines kept{.end = end};
      if (record.contains("tokens_seen")) kept.tokens_seen = record.at("tokens_seen");
      return kept;
    }
    end = begin;
  }
  return {};
}

std::optional<int64_t> drop_steps_after(const std::filesystem::path& path, int64_t last_step) {
  if (!fs::exists(path) || fs::file_size(path) == 0) return std::nullopt;
  auto file = MappedFile::open(path, FileRole::kData);
  const auto bytes = file->bytes();
  const KeptLines kept =
      lines_until({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, last_step);
  file.reset();
  fs::resize_file(path, kept.end);
  return kept.tokens_seen;
}

double perplexity(double loss) { return std::exp(std::min(20.0, loss)); }

struct NamedValue {
  const char* key;  // in metrics.jsonl
  const char* tag;  // of TensorBoard, as Megatron's where it has one
  double value;
};

std::vector<NamedValue> values_of(const nn::RoutingSummary& routing) {
  std::vector<NamedValue> values = {{"moe_max_load", "moe max load", routing.max_load}};
  const auto add = [&](const char* key, const char* tag, const std::optional<double>& value) {
    if (value) values.push_back({key, tag, *value});
  };
  add("moe_aux_loss", "load_balancing_loss", routing.aux_loss);
  add("moe_sequence_aux_loss", "seq_load_balancing_loss", routing.sequence_aux_loss);
  add("moe_device_aux_loss", "device_load_balancing_loss", routing.device_aux_loss);
  add("moe_communication_aux_loss", "comm_load_balancing_loss", routing.communication_aux_loss);
  add("moe_z_loss", "z_loss", routing.z_loss);
  return values;
}

// Of the task, of the validation, and of the parts of a model that have losses of their own.
std::vector<NamedValue> further_values(const StepMetrics& m) {
  std::vector<NamedValue> values;
  if (m.epoch) values.push_back({"epoch", "epoch", *m.epoch});
  if (m.labels) {
    values.push_back({"trained_tokens", "trained tokens", m.labels->tokens});
    values.push_back({"token_accuracy", "token accuracy", m.labels->accuracy});
  }
  if (m.validation) {
    const double loss = m.validation->loss;
    values.push_back({"validation_loss", "lm loss validation", loss});
    values.push_back({"validation_perplexity", "lm loss validation ppl", perplexity(loss)});
  }
  if (m.validation && m.validation->accuracy)
    values.push_back(
        {"validation_token_accuracy", "token accuracy validation", *m.validation->accuracy});
  if (m.routing) {
    const auto routing = values_of(m.routing->all);
    values.insert(values.end(), routing.begin(), routing.end());
  }
  if (m.indexer_loss) values.push_back({"indexer_loss", "indexer loss", *m.indexer_loss});
  return values;
}

std::string text_of(const std::optional<LabelMetrics>& labels) {
  return labels ? fmt::format(" | accuracy {:.3f}", labels->accuracy) : "";
}

}  // namespace

Metrics::Metrics(const std::filesystem::path& run_folder, const config::LogConfig& config,
                 int64_t first_step, int64_t total_steps, double tokens_per_step)
    : path_(run_folder / "metrics.jsonl"),
      config_(config),
      total_steps_(total_steps),
      tokens_per_step_(tokens_per_step),
      tokens_seen_(std::llround(static_cast<double>(first_step) * tokens_per_step)) {
  if (const auto seen = drop_steps_after(path_, first_step)) tokens_seen_ = *seen;
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file_ < 0) {
    throw DataError("metrics",
                    fmt::format("cannot open {}: {}", path_.string(), std::strerror(errno)));
  }
  if (config.tensorboard) events_ = std::make_unique<formats::EventWriter>(run_folder);
  progress_ = std::make_unique<Progress>(
      "training", static_cast<uint64_t>(static_cast<double>(total_steps) * tokens_per_step),
      "tokens");
}

Metrics::~Metrics() {
  if (file_ >= 0) ::close(file_);
}

void Metrics::append(const std::string& line) {
  const std::string text = line + "\n";
  // One write per line: a reader, or a crash, sees whole lines.
  if (::write(file_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    throw DataError("metrics",
                    fmt::format("cannot write {}: {}", path_.string(), std::strerror(errno)),
                    "free some space; the run resumes from its last checkpoint");
  }
}

void Metrics::record(const StepMetrics& m) {
  tokens_seen_ += m.tokens;
  const double rate = m.step_seconds > 0 ? static_cast<double>(m.tokens) / m.step_seconds : 0;
  OrderedJson line{{"step", m.step},
                   {"loss", m.loss},
                   {"lr", m.lr},
                   {"grad_norm", m.gradient_norm},
                   {"tokens", m.tokens},
                   {"tokens_seen", tokens_seen_},
                   {"tokens_per_second", rate},
                   {"step_seconds", m.step_seconds},
                   {"mfu", m.mfu},
                   {"memory_bytes", m.memory_bytes}};
  for (const NamedValue& v : further_values(m)) line[v.key] = v.value;
  if (m.labels) line["trained_tokens"] = std::llround(m.labels->tokens);
  if (m.routing && config_.moe_per_layer_logging) {
    for (const auto& [name, summary] : m.routing->layers) {
      for (const NamedValue& v : values_of(summary)) line["moe_layers"][name][v.key] = v.value;
    }
  }
  append(line.dump());
  if (events_) add_events(m, rate);
  show(m, rate);
}

void Metrics::add_events(const StepMetrics& m, double tokens_per_second) {
  const auto add = [&](const std::string& tag, double value) {
    events_->add_scalar(tag, static_cast<float>(value), m.step);
  };
  add("lm loss", m.loss);
  add("learning-rate", m.lr);
  add("grad-norm", m.gradient_norm);
  add("iteration-time", m.step_seconds);
  add("throughput", tokens_per_second);
  for (const NamedValue& v : further_values(m)) add(v.tag, v.value);
  if (m.routing && config_.moe_per_layer_logging) {
    for (const auto& [name, summary] : m.routing->layers) {
      for (const NamedValue& v : values_of(summary))
        add(fmt::format("moe/{} {}", v.tag, name), v.value);
    }
  }
  events_->flush();
}

void Metrics::show(const StepMetrics& m, double tokens_per_second) {
  const bool line = config_.every > 0 && (m.step % config_.every == 0 || m.step == total_steps_);
  if (line) {
    log::say(
        fmt::format("step {:>6}/{} | loss {:.4f}{} | lr {:.3e} | grad norm {:.3f} | {} tokens/s | "
                    "mfu {:.2f} | {}",
                    m.step, total_steps_, m.loss, text_of(m.labels), m.lr, m.gradient_norm,
                    human_count(tokens_per_second), m.mfu, human_bytes(m.memory_bytes)));
  }
  if (m.validation) {
    const auto accuracy = m.validation->accuracy;
    log::say(fmt::format("step {:>6}/{} | validation loss {:.4f} | perplexity {:.2f}{}", m.step,
                         total_steps_, m.validation->loss, perplexity(m.validation->loss),
                         accuracy ? fmt::format(" | accuracy {:.3f}", *accuracy) : ""));
  }
  if (stderr_is_terminal()) {
    progress_->update(
        static_cast<uint64_t>(static_cast<double>(m.step) * tokens_per_step_),
        fmt::format("step {}/{}, loss {:.4f}{}", m.step, total_steps_, m.loss, text_of(m.labels)));
  }
}

void Metrics::finish() {
  progress_->update(static_cast<uint64_t>(static_cast<double>(total_steps_) * tokens_per_step_));
  progress_.reset();
}

}  // namespace qianli::train
