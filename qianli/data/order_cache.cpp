#include "qianli/data/order_cache.h"

#include <fmt/core.h>

#include <cmath>

#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/data/digest.h"

namespace qianli::data {
namespace {

constexpr uint64_t kMaxTextBytes = 1 << 20;

std::string json_string(const std::string& text) {
  // Python's json.dumps escapes everything beyond ASCII.
  return OrderedJson(text).dump(-1, ' ', true, OrderedJson::error_handler_t::replace);
}

// repr() of a Python float.
std::string python_float(double value) {
  const std::string text = fmt::format("{}", value);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

std::string split_matrix(const std::optional<std::string>& text) {
  if (!text) return "null";
  std::string matrix = "[";
  const SplitFractions fractions = parse_split(*text);
  for (size_t i = 0; i < fractions.size(); ++i) {
    matrix += i == 0 ? "\n        " : ",\n        ";
    if (!fractions[i]) {
      matrix += "null";
      continue;
    }
    // The first edge is Python's integer 0.
    const std::string begin = i == 0 ? "0" : python_float(fractions[i]->begin);
    matrix += fmt::format("[\n            {},\n            {}\n        ]", begin,
                          python_float(fractions[i]->end));
  }
  return matrix + "\n    ]";
}

// The nested object, its lines indented once more.
std::string nested(const OrderedJson& object) {
  std::string result;
  for (const char c : object.dump(4, ' ', true)) {
    result += c;
    if (c == '\n') result += "    ";
  }
  return result;
}

// The files of one cached order share a stem.
struct Stem {
  fs::path folder;
  std::string name;
  fs::path file(std::string_view suffix) const {
    return folder / fmt::format("{}-{}", name, suffix);
  }
};

std::string inputs_digest(const GptOrderRequest& request) {
  const std::string lengths = xxh3_hex(std::as_bytes(request.lengths));
  return fmt::format("{}-{}-{}-{}-{}", lengths, request.range.begin, request.range.end,
                     request.extra_token ? 1 : 0, request.drop_last_partial ? 1 : 0);
}

Json checksums(const GptOrder& order, const GptOrderRequest& request) {
  return {{"inputs", inputs_digest(request)},
          {"document_index", xxh3_hex(order.document.bytes())},
          {"sample_index", xxh3_hex(order.sample.bytes())},
          {"shuffle_index", xxh3_hex(order.shuffle.bytes())}};
}

[[noreturn]] void outdated(const std::string& reason) { throw DataError("data", reason); }

// Sizes must be those that building would give; digests are compared where the cache has them.
void check(const GptOrder& order, const GptOrderRequest& request, const Stem& stem) {
  const GptEpochs plan = plan_epochs(request);
  const int64_t documents = (request.range.end - request.range.begin) * plan.epochs;
  if (order.document.size() != documents || order.sample.columns() != 2 ||
      order.sample.rows() != order.size() + 1 || order.size() != count_samples(request, plan)) {
    outdated("the arrays have other sizes than this corpus gives");
  }
  const fs::path sums = stem.file("checksums.json");
  if (fs::exists(sums) &&
      read_json(sums, FileRole::kData, kMaxTextBytes) != checksums(order, request)) {
    outdated("the checksums do not agree");
  }
}

std::optional<GptOrder> load(const Stem& stem, const std::string& description,
                             const GptOrderRequest& request) {
  for (const char* suffix :
       {"description.txt", "document_index.npy", "sample_index.npy", "shuffle_index.npy"}) {
    std::error_code ignored;
    if (!fs::exists(stem.file(suffix), ignored)) return std::nullopt;
  }
  try {
    if (read_file(stem.file("description.txt"), FileRole::kData, kMaxTextBytes) != description) {
      outdated("the description is another one");
    }
    GptOrder order{IndexArray::map_npy(stem.file("document_index.npy")),
                   IndexArray::map_npy(stem.file("sample_index.npy")),
                   IndexArray::map_npy(stem.file("shuffle_index.npy"))};
    check(order, request, stem);
    return order;
  } catch (const DataError& error) {
    log::warn("data", "building the sample order again, because the cache {} cannot be used: {}",
              stem.file("*").string(), error.what());
    return std::nullopt;
  }
}

// The description comes last: without it the others do not count.
void save(const Stem& stem, const std::string& description, const GptOrder& order,
          const GptOrderRequest& request) {
  try {
    create_folder(stem.folder, FileRole::kData);
    order.document.save_npy(stem.file("document_index.npy"));
    order.sample.save_npy(stem.file("sample_index.npy"));
    order.shuffle.save_npy(stem.file("shuffle_index.npy"));
    write_file_atomically(stem.file("checksums.json"), checksums(order, request).dump(2) + "\n",
                          FileRole::kData);
    write_file_atomically(stem.file("description.txt"), description, FileRole::kData);
  } catch (const DataError& error) {
    log::warn("data", "the sample order is not cached: {}", error.what());
  }
}

}  // namespace

std::string describe(const OrderIdentity& identity) {
  const auto split = kSplitNames[static_cast<size_t>(identity.split)];
  std::string text = "{\n    \"class\": \"GPTDataset\",\n";
  const auto field = [&](std::string_view key, const std::string& value, const char* end = ",\n") {
    text += fmt::format("    \"{}\": {}{}", key, value, end);
  };
  field("dataset_path", json_string(identity.dataset_path));
  field("num_samples", identity.num_samples ? std::to_string(*identity.num_samples) : "null");
  field("index_split", json_string(std::string(split)));
  field("random_seed", std::to_string(identity.seed));
  field("sequence_length", std::to_string(identity.sequence_length));
  field("split", identity.split_text ? json_string(*identity.split_text) : "null");
  field("split_matrix", split_matrix(identity.split_text));
  field("tokenizer", nested(identity.tokenizer), "\n}");
  return text;
}

GptOrder cached_gpt_order(const fs::path& folder, const OrderIdentity& identity,
                          const GptOrderRequest& request) {
  const std::string description = describe(identity);
  const std::string hash = md5_hex(description);
  const auto split = kSplitNames[static_cast<size_t>(identity.split)];
  const Stem stem{folder, fmt::format("{}-GPTDataset-{}", hash, split)};
  for (const Stem& place : {stem, Stem{folder, hash + "-GPTDataset"}}) {
    if (auto order = load(place, description, request)) return *std::move(order);
  }
  GptOrder order = build_gpt_order(request);
  save(stem, description, order, request);
  return order;
}

}  // namespace qianli::data
