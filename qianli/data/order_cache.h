// Sample orders kept on disk under the names Megatron-core gives them, so both programs find the
// same files: <md5>-GPTDataset-<split>-{description.txt, document_index.npy, sample_index.npy,
// shuffle_index.npy}; MindSpeed-LLM's names without the split are read too. A file
// <md5>-GPTDataset-<split>-checksums.json beside ours holds their digests and that of the lengths
// they were made from, so that a damaged or outdated cache is noticed.
#pragma once

#include <optional>
#include <string>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/data/gpt_order.h"

namespace qianli::data {

// What names an order: the fields that Megatron hashes.
struct OrderIdentity {
  std::string dataset_path;
  std::optional<int64_t> num_samples;
  Split split = Split::kTrain;
  uint32_t seed = 1234;
  int64_t sequence_length = 0;
  std::optional<std::string> split_text;  // absent: the corpus belongs to one split alone
  OrderedJson tokenizer;                  // {"class": ..., "tokenizer_path": [...], ...}
};

// The text of description.txt, byte for byte as Python's json.dumps(..., indent=4).
std::string describe(const OrderIdentity& identity);

// The order from `folder` if it is there and whole, else built and, where the folder can be
// written, saved. A damaged or outdated cache is replaced with a warning. `request` must agree with
// `identity`.
GptOrder cached_gpt_order(const fs::path& folder, const OrderIdentity& identity,
                          const GptOrderRequest& request);

}  // namespace qianli::data
