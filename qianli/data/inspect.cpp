#include "qianli/data/inspect.h"

#include <fmt/core.h>

#include <algorithm>
#include <bit>

#include "qianli/base/progress.h"

namespace qianli::data {
namespace {

constexpr size_t kBarWidth = 40;

std::string token_text(const text::Tokenizer* tokenizer, int64_t id) {
  if (tokenizer == nullptr) return fmt::format("{} ", id);
  const auto narrow = static_cast<int32_t>(id);
  return tokenizer->decode(std::span(&narrow, 1), false);
}

// Neighbours that are shown alike, decoded together: a character may take several tokens.
struct Run {
  bool counts;
  std::vector<int32_t> ids;
  bool ends_document = false;
};

std::vector<Run> runs_of(const Batch& sample, std::optional<int64_t> eod) {
  std::vector<Run> runs;
  size_t next_end = 0;
  for (size_t i = 0; i < sample.tokens.size(); ++i) {
    const bool counts = sample.loss_mask[i] != 0;
    if (runs.empty() || runs.back().ends_document || runs.back().counts != counts) {
      runs.push_back({counts, {}});
    }
    runs.back().ids.push_back(static_cast<int32_t>(sample.tokens[i]));
    const bool ends_segment = next_end < sample.segment_ends.size() &&
                              sample.segment_ends[next_end] == static_cast<int64_t>(i) + 1;
    if (ends_segment) ++next_end;
    runs.back().ends_document = ends_segment || (eod && sample.tokens[i] == *eod);
  }
  return runs;
}

}  // namespace

CorpusSummary summarise(const formats::IndexedDataset& corpus) {
  CorpusSummary summary;
  summary.dtype = formats::token_dtype_name(corpus.dtype());
  summary.documents = static_cast<int64_t>(corpus.num_documents());
  summary.sequences = static_cast<int64_t>(corpus.size());
  std::vector<int64_t> counts(33, 0);
  for (size_t i = 0; i < corpus.size(); ++i) {
    const int32_t length = corpus.lengths()[i];
    summary.shortest = i == 0 ? length : std::min(summary.shortest, length);
    summary.longest = std::max(summary.longest, length);
    summary.tokens += length;
    ++counts[static_cast<size_t>(std::bit_width(static_cast<uint32_t>(length)))];
  }
  for (size_t k = 0; k < counts.size(); ++k) {
    const int64_t low = k == 0 ? 0 : int64_t{1} << (k - 1), high = int64_t{1} << k;
    if (high <= summary.shortest || low > summary.longest || corpus.size() == 0) continue;
    summary.lengths.push_back({low, high, counts[k]});
  }
  return summary;
}

OrderedJson to_json(const CorpusSummary& summary) {
  OrderedJson json = {{"documents", summary.documents}, {"sequences", summary.sequences},
                      {"tokens", summary.tokens},       {"dtype", summary.dtype},
                      {"shortest", summary.shortest},   {"longest", summary.longest},
                      {"lengths", OrderedJson::array()}};
  for (const LengthBin& bin : summary.lengths) {
    json["lengths"].push_back(
        OrderedJson({{"from", bin.low}, {"below", bin.high}, {"sequences", bin.sequences}}));
  }
  return json;
}

std::string to_text(const CorpusSummary& summary) {
  std::string text = fmt::format("{} documents, {} sequences, {} tokens ({}), stored as {}\n",
                                 summary.documents, summary.sequences, summary.tokens,
                                 human_count(static_cast<double>(summary.tokens)), summary.dtype);
  const double mean = summary.sequences == 0 ? 0
                                             : static_cast<double>(summary.tokens) /
                                                   static_cast<double>(summary.sequences);
  text += fmt::format("tokens per sequence: {} to {}, {:.1f} on average\n", summary.shortest,
                      summary.longest, mean);
  int64_t most = 1;
  for (const LengthBin& bin : summary.lengths) most = std::max(most, bin.sequences);
  for (const LengthBin& bin : summary.lengths) {
    const auto width = static_cast<size_t>(bin.sequences * static_cast<int64_t>(kBarWidth) / most);
    text += fmt::format("{:>10} - {:<10} {:>10}  {}\n", bin.low, bin.high - 1, bin.sequences,
                        std::string(width, '#'));
  }
  return text;
}

OrderedJson sample_to_json(const Batch& sample, const text::Tokenizer* tokenizer) {
  OrderedJson json = {{"sample", sample.sample_indices[0]},
                      {"tokens", sample.tokens},
                      {"labels", sample.labels},
                      {"loss_mask", sample.loss_mask},
                      {"positions", sample.positions},
                      {"segment_ends", sample.segment_ends}};
  if (tokenizer != nullptr) {
    json["pieces"] = OrderedJson::array();
    for (const int64_t id : sample.tokens) json["pieces"].push_back(token_text(tokenizer, id));
  }
  return json;
}

std::string sample_to_text(const Batch& sample, const text::Tokenizer* tokenizer,
                           std::optional<int64_t> eod, bool colour) {
  const std::string dim = colour ? "\033[2m" : "[", plain = colour ? "\033[0m" : "]";
  std::string text;
  for (const Run& run : runs_of(sample, eod)) {
    std::string part;
    if (tokenizer != nullptr) {
      part = tokenizer->decode(run.ids, false);
    } else {
      for (const int32_t id : run.ids) part += token_text(nullptr, id);
    }
    text += run.counts ? part : dim + part + plain;
    if (run.ends_document) text += "│";
  }
  return text;
}

}  // namespace qianli::data
