// A family as data: how its config.json is spelled, which keys it refuses, what its tensors are
// called. Each family is one file in families/ and one line in family.cpp.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/model/spec.h"

namespace qianli::model {

class ConfigReader;

// How the rows of one tensor that holds queries, keys and values follow each other.
enum class QkvOrder {
  kQueriesKeysValues,
  kByGroup,  // per key/value head: its queries, its key, its value
};

// How one tensor holds all experts.
enum class ExpertStack {
  kRows,         // [E, 2 m, h], or gate and up apart [E, m, h] each; and [E, h, m]
  kWovenInputs,  // [E, h, 2 m], gate in even and up in odd columns, and [E, m, h]; biases   gpt-oss
  kFlat,         // gate and up [E m, h] each, down [E m, h] transposed                      DBRX
};

// Names of tensors in a Hugging Face folder, without ".weight" and ".bias"; a name with a star has
// "weight" or "bias" in its place. {l} stands for the layer's number, {half} for that of one of two
// own layers in a foreign one, {e} for an expert's, {j} for that of multi-token prediction. Names
// inside a layer follow `layer`. Empty: the family has no such tensor. "Whole" names have nothing
// appended.
struct ForeignNames {
  std::string optional_prefix;                // some folders leave it out (openai-community/gpt2)
  std::vector<std::string> other_prefixes;    // or have one of these instead (multimodal folders)
  std::vector<std::string> ignored_prefixes;  // tensors of other modalities
  // Other spellings of a part of names, of which all are tried together.
  std::vector<std::pair<std::string, std::string>> aliases;

  std::string embedding;
  std::string embedding_norm;
  std::string position_embedding;
  std::string layer;
  int64_t own_layers = 1;  // in one foreign layer
  std::string input_norm;
  std::string mamba_norm;  // the input norm of Mamba layers, where it differs

  std::vector<std::string> qkv;  // {q, k, v}, or one tensor that holds all their rows
  QkvOrder qkv_order = QkvOrder::kQueriesKeysValues;
  std::string query_norm;
  std::string key_norm;
  std::string sinks;      // whole
  std::string head_gate;  // AttentionGate::kHead
  std::string attention_out;
  std::string post_attention_norm;

  struct Latent {
    std::string query;  // without q_lora_rank
    std::string query_down, query_norm, query_up;
    std::string key_value_down, key_value_norm, key_value_up;
  } latent;
  struct OfIndexer {
    std::string query, key, key_norm, weights;
  } indexer;
  // `latent` has the names of the query's projections.
  struct Compressor {
    std::string key_value, gate, norm;
    std::string position_bias;  // whole
  };
  struct Compressed {
    std::string key_value, key_value_norm, out_down;
    Compressor compressor, of_indexer;
  } compressed;
  struct HyperConnection {
    std::string weight, bias, scale;  // whole
  };
  HyperConnection attention_streams, mlp_streams, final_streams;
  struct DeltaNet {
    std::string qkvz, ba, conv, norm, out;
    std::string a_log, dt_bias;  // whole
  } delta_net;
  struct OfMamba {
    std::string in, conv, norm, out;
    std::string a_log, d, dt_bias;  // whole
  } mamba;

  std::string mlp_norm;
  std::vector<std::string> mlp_in;  // {gate, up}, or one tensor that holds both or has no gate
  std::string mlp_out;
  std::string post_mlp_norm;

  struct Experts {
    std::string router;
    std::string selection_bias;   // whole
    std::string token_experts;    // whole
    std::vector<std::string> in;  // of expert {e}: {gate, up}, or {up} without gate
    std::string out;
    // All experts in one tensor; whole names. Where `in` is given too, files are written expert by
    // expert and read either way.
    ExpertStack stack = ExpertStack::kRows;
    std::vector<std::string> stacked_in;  // one tensor; kRows apart, kFlat: {gate, up}
    std::string stacked_out;
    std::string stacked_in_bias, stacked_out_bias;
    std::vector<std::string> shared_in;  // {gate, up}
    std::string shared_out;
    std::string shared_gate;
  } experts;

  std::string final_norm;
  std::string output;

  // Multi-token prediction. `layer` is put before the names of a decoder layer; {l} is num_layers +
  // j. The others stand by themselves.
  struct Mtp {
    std::string layer;
    std::string embedding_norm, hidden_norm, projection, final_norm;
    std::string embedding_copy, output_copy;  // whole: the embedding and output layer once more
  } mtp;

  bool input_major = false;  // matrices inside the layers are stored [in, out] (GPT-2's Conv1D)
};

// A key that changes the mathematics when it holds anything but one of `neutral` (or null).
struct Guard {
  std::string key;
  std::vector<Json> neutral;
};

// What stands in for a value of config.json.
class Fallback {
 public:
  Fallback() = default;  // nothing: the value must be given
  template <class Value>
  requires std::is_constructible_v<Json, Value> Fallback(Value value)
      : value_(Json(value)) {}                                        // NOLINT: meant to convert
  Fallback(int64_t (*follow)(const ModelSpec&)) : follow_(follow) {}  // NOLINT: of what is read

  bool given() const { return follow_ || !value_.is_discarded(); }
  Json value(const ModelSpec& spec) const { return follow_ ? Json(follow_(spec)) : value_; }

 private:
  Json value_ = Json(Json::value_t::discarded);
  int64_t (*follow_)(const ModelSpec&) = nullptr;
};

// A key of config.json that holds a field of the spec, read and written as it is.
struct Key {
  std::string key;
  std::string field;                  // a path of spec_fields.h
  Fallback absent = {};               // that of the configuration class in transformers
  std::optional<Fallback> null = {};  // where it differs; null for optional fields means "none"
  bool integral = false;              // a number that transformers wants without a fraction
  std::string also = {};              // another word for the same, in older or newer files
};

struct Family {
  std::string model_type;
  std::string architecture;  // the class transformers builds for language modelling
  ModelSpec traits;          // switches that follow from the family; sizes are left open
  ForeignNames names;
  std::vector<Key> keys;    // read in this order, then read()
  std::vector<Key> others;  // that read() and write() take themselves: for messages
  std::vector<Guard> guards;
  void (*read)(const ConfigReader& config, ModelSpec& spec);  // `spec` starts as the traits
  void (*write)(const ModelSpec& spec, OrderedJson& config);
  // Where names depend on the switches of a member of the family.
  void (*adapt_names)(const ModelSpec& spec, ForeignNames& names) = nullptr;
  std::vector<std::string> silent = {};  // keys without effect on the mathematics
};

ForeignNames names_of(const ModelSpec& spec);

std::span<const Family* const> families();
std::vector<std::string> family_names();
// Throws ConfigError naming the known families.
const Family& find_family(std::string_view model_type);

// Sets the fields of `keys`; fails naming the key where one is missing or of another kind.
void read_keys(const ConfigReader& config, std::span<const Key> keys, ModelSpec& spec);
// Leaves out keys of parts that the spec does not have.
void write_keys(const ModelSpec& spec, std::span<const Key> keys, OrderedJson& config);
// A message about fields of a spec, in the words of the family's config.json.
std::string in_words_of(const Family& family, const std::string& message);

}  // namespace qianli::model
