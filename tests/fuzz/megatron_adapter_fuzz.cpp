// Which tensors ranks hold of an adapter, from strangers: a line with the model (dense or latent)
// and the sizes of the layout, then lines with a rank's file, a name and a shape of two axes, and
// behind the word `origin` what it was before. What is accepted is an adapter as PEFT has it.
#include <algorithm>
#include <array>
#include <map>
#include <sstream>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/adapter_origin.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/model/hugging_face.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace qianli;

constexpr int64_t kMaxSize = 4096;
constexpr size_t kMaxTensors = 2000;

constexpr const char* kDense =
    R"({"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 16,
        "max_position_embeddings": 16, "tie_word_embeddings": false})";
constexpr const char* kLatent =
    R"({"model_type": "deepseek_v3", "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6, "vocab_size": 16, "max_position_embeddings": 16,
        "first_k_dense_replace": 1, "kv_lora_rank": 4, "q_lora_rank": 6, "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 2, "v_head_dim": 4, "moe_intermediate_size": 4, "n_group": 2,
        "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "topk_group": 1,
        "routed_scaling_factor": 1.0, "num_nextn_predict_layers": 0,
        "tie_word_embeddings": false})";

model::ModelSpec spec_of(const char* config) {
  return model::from_hugging_face(parse_json(config, "input", FileRole::kCheckpoint), "input");
}

class Zeros : public formats::TensorSource {
 public:
  Zeros() : TensorSource("input") {}
  using TensorSource::add;

 private:
  void copy_rows(size_t, int64_t, int64_t, std::span<std::byte> out) const override {
    std::ranges::fill(out, std::byte{0});
  }
};

struct Input {
  bool latent = false, split = false;
  int64_t tensor = 1, pipeline = 1, expert = 1;
  std::vector<std::shared_ptr<const formats::TensorSource>> files;
};

Input read(std::istream& lines) {
  Input input;
  std::string model;
  lines >> model >> input.tensor >> input.pipeline >> input.expert;
  input.latent = model == "latent" || model == "split";
  input.split = model == "split";
  for (int64_t* size : {&input.tensor, &input.pipeline, &input.expert}) *size = *size == 2 ? 2 : 1;
  std::vector<std::shared_ptr<Zeros>> files;
  for (int64_t f = 0; f < input.tensor * input.pipeline * input.expert; ++f)
    files.push_back(std::make_shared<Zeros>());
  size_t file = 0, count = 0;
  std::string name;
  int64_t rows = 0, columns = 0;
  while (lines >> file >> name >> rows >> columns && ++count < kMaxTensors) {
    if (rows < 0 || rows > kMaxSize || columns < 0 || columns > kMaxSize) continue;
    files[file % files.size()]->add({name, formats::Dtype::kF32, {rows, columns}});
  }
  input.files.assign(files.begin(), files.end());
  return input;
}

// A base cut over ranks, made once.
struct Base {
  std::vector<convert::MegatronRank> ranks;
  convert::Table table;
  std::vector<convert::ForeignTensor> tensors;
};

const Base& base_of(const Input& input) {
  static const model::ModelSpec dense = spec_of(kDense), latent = spec_of(kLatent);
  static std::map<std::array<int64_t, 5>, Base> bases;
  const std::array<int64_t, 5> key{input.latent, input.split, input.tensor, input.pipeline,
                                   input.expert};
  if (const auto known = bases.find(key); known != bases.end()) return known->second;
  const model::ModelSpec& spec = input.latent ? latent : dense;
  const convert::MegatronLayout layout{
      .tensor = input.tensor,
      .pipeline = input.pipeline,
      .expert = input.latent ? input.expert : 1,
      .names = input.latent ? convert::MegatronNames::kMindSpeed : convert::MegatronNames::kCore,
      .split_latent_projections = input.split};
  Base base{.ranks = convert::megatron_ranks(layout),
            .table = model::parameter_table(spec),
            .tensors = {}};
  base.tensors = convert::megatron_tensors(spec, base.table, layout);
  return bases.emplace(key, std::move(base)).first->second;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  log::set_level(log::Level::kError);
  try {
    const std::string text(reinterpret_cast<const char*>(data), size);
    const size_t origin = text.find("\norigin ");
    std::istringstream lines(text.substr(0, origin));
    const Input input = read(lines);
    const Base& base = base_of(input);
    auto files = input.files;
    files.resize(base.ranks.size(), files.front());
    auto source = convert::megatron_adapter(base.table, base.tensors, base.ranks, std::move(files),
                                            {}, "input");
    if (origin != text.npos)
      source = convert::as_it_was(std::move(source), text.substr(origin + 8), "input");
    const convert::Adapter adapter = convert::as_peft(source);
    fuzz::require(!adapter.tensors.modules.empty() && adapter.tensors.whole.empty(),
                  "an adapter has modules");
    for (const auto& [name, module] : adapter.tensors.modules) {
      fuzz::require(adapter.config.rank(name) == module.a->shape[0], "a module has its rank");
      for (const auto* tensor : {module.a, module.b}) {
        for (const float value : convert::float_values(*adapter.tensors.source, *tensor))
          fuzz::require(value == 0, "all of a module comes from the files");
      }
    }
  } catch (const Error&) {
  }
  return 0;
}
