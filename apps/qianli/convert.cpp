#include <CLI/CLI.hpp>
#include <cmath>
#include <filesystem>
#include <map>
#include <memory>

#include <fmt/core.h>

#include "apps/qianli/command.h"
#include "apps/qianli/engine.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/progress.h"
#include "qianli/base/strings.h"
#include "qianli/convert/adapter/trained.h"
#include "qianli/convert/adapter/unmerge.h"
#include "qianli/convert/checkpoint/reader.h"
#include "qianli/convert/megatron/adapter.h"
#include "qianli/convert/megatron/optimizer_states.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"

namespace qianli::app {
namespace {

using convert::MegatronLayout;
using convert::MegatronNames;

struct Arguments {
  std::string source, target, to, dtype = "same";
  std::string unmerge;  // an adapter to take out; empty: none
  bool verify = false, ignore_unknown = false, drop_mtp = false, reversible = false;
  convert::SourceOptions from;
  convert::Upcycling upcycling;  // 0 experts: none
  MegatronLayout layout;
  bool torch_names = false, args_beside = false;
  uint64_t shard_bytes = convert::TargetOptions{}.max_shard_bytes;
};

const std::map<std::string, formats::Dtype> kDtypes = {{"fp32", formats::Dtype::kF32},
                                                       {"bf16", formats::Dtype::kBF16},
                                                       {"fp16", formats::Dtype::kF16},
                                                       {"fp64", formats::Dtype::kF64}};

const std::map<std::string, convert::ExpertStorage> kExperts = {
    {"local", convert::ExpertStorage::kLocalExperts},
    {"grouped", convert::ExpertStorage::kGrouped},
    {"per-weight", convert::ExpertStorage::kPerWeight}};

constexpr const char* kPeft = "peft";  // an adapter alone

// One line for every form that can be written.
struct Target {
  void (*write)(const convert::ModelSource& model, const std::filesystem::path& target,
                const convert::TargetOptions& options, const convert::ProgressFunction& progress);
  MegatronNames names = MegatronNames::kCore;
};
const std::map<std::string, Target> kTargets = {
    {"qianli", {convert::write_checkpoint}},
    {"hf", {convert::write_hugging_face}},
    {"gguf", {convert::write_gguf}},
    {"mcore", {convert::write_megatron}},
    {"mindspeed", {convert::write_megatron, MegatronNames::kMindSpeed}},
    {"legacy", {convert::write_megatron, MegatronNames::kLegacy}},
    {"mindspore", {convert::write_mindspore}},
    {kPeft, {nullptr}},
};

constexpr const char* kLayoutGroup = "Megatron targets";
constexpr const char* kMindsporeGroup = "MindSpore targets";
constexpr const char* kGgufGroup = "GGUF targets";
constexpr const char* kShardsGroup = "Hugging Face and Qianli targets";

// An option that has no effect in this run is said so.
void warn_of_idle_options(const CLI::App& command, const Arguments& arguments,
                          const model::ModelSpec& spec) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->count() == 0) continue;
    const auto write = kTargets.at(arguments.to).write;
    if ((option->get_group() == kMindsporeGroup && write != convert::write_mindspore) ||
        (option->get_group() == kGgufGroup && write != convert::write_gguf) ||
        (option->get_group() == kShardsGroup && write != convert::write_hugging_face &&
         write != convert::write_checkpoint))
      log::warn("convert", "{} has no effect on this target", option->get_name());
    if (option->get_group() != kLayoutGroup) continue;
    const std::string name = option->get_name();
    const bool of_experts = name.starts_with("--expert") || name == "--extend-experts";
    const bool of_latents = name == "--split-latent";
    const bool idle = write != convert::write_megatron || (of_experts && !spec.moe) ||
                      (of_latents && (arguments.to != "mindspeed" || !spec.latent_attention));
    if (idle) log::warn("convert", "{} has no effect on this model and target", name);
  }
}

void set_dtype(const Arguments& arguments, convert::TargetOptions& options) {
  if (arguments.dtype == "same") return;
  options.q8_0 = arguments.dtype == "q8_0";
  if (!options.q8_0) options.dtype = kDtypes.at(arguments.dtype);
  const bool gguf = arguments.to == "gguf";
  if (options.q8_0 ? !gguf : gguf && arguments.dtype == "fp64") {
    throw ConfigError("convert", fmt::format("expected a --dtype that {} has, got {}", arguments.to,
                                             arguments.dtype));
  }
}

// Every tensor of the source has to be accounted for: it is part of the model, or said to be left
// out.
void account_for_others(const convert::ModelSource& model, bool takes_states, bool ignore_unknown) {
  constexpr size_t kShown = 5;
  const auto shown = [](std::vector<std::string> names) {
    const size_t more = names.size() > kShown ? names.size() - kShown : 0;
    names.resize(names.size() - more);
    return join(names, ", ") + (more ? fmt::format(" and {} more", more) : "");
  };
  std::vector<std::string> left_out = model.left_out();
  if (model.states) {
    std::erase_if(left_out, convert::names_optimizer_state);
    log::info("convert", "the optimizer's states after step {} {}", model.states->training.step,
              takes_states ? "go along" : "are left out: --to qianli keeps them");
  }
  if (!left_out.empty())
    log::info("convert", "left out, as the model computes without: {}", shown(left_out));
  for (const std::string& name : model.reader->differing_copies())
    log::warn("convert", "{} is not what it should repeat, and is left out", name);
  if (model.unused().empty()) return;
  if (ignore_unknown)
    return log::warn("convert", "left out, not part of the model: {}", shown(model.unused()));
  throw CheckpointError(
      "convert",
      fmt::format("expected tensors of the model alone, got others: {}", shown(model.unused())),
      "is config.json of this model? --ignore-unknown leaves them out");
}

// Models whose numbers are the same compute the same, bit for bit.
void prove_logits(const Arguments& arguments, bool rounded) {
  if (!has_engine()) return log::info("convert", "logits not compared: the engine is not built");
  LogitsDifference logits;
  try {
    logits = engine().compare_logits(
        {.first = arguments.source, .second = arguments.target, .from = arguments.from});
  } catch (const MemoryError& error) {
    return log::warn("convert", "logits not compared: {}", error.what());
  }
  if (!std::isfinite(logits.largest) || (!rounded && logits.largest > 0)) {
    throw CheckpointError("convert",
                          fmt::format("expected the logits of {} from {}, got others by {:g}",
                                      arguments.source, arguments.target, logits.largest));
  }
  fmt::print("logits of {} tokens: largest difference {:g}, largest value {:g}\n", logits.tokens,
             logits.largest, logits.largest_logit);
}

void prove(const convert::ModelSource& model, const Arguments& arguments) {
  const convert::SourceOptions options{.config = arguments.from.config};
  const convert::Proof proof =
      convert::verify(model, *convert::open_model(arguments.target, options));
  fmt::print(
      "{} parameters, {} elements: each is in {} exactly once and equals its source {}bit for "
      "bit\n",
      proof.parameters, proof.elements, arguments.target,
      proof.rounded ? "as the target's types round it, " : "");
  if (arguments.unmerge.empty()) prove_logits(arguments, proof.rounded);
}

// An adapter without its base.
void run_adapter(const CLI::App& command, const Arguments& arguments) {
  if (!arguments.from.adapter.empty()) {
    throw ConfigError("convert", "expected the adapter to write as SRC, got --adapter");
  }
  const auto own = convert::step_folder(arguments.source);
  const auto adapter = own ? convert::open_trained(*own, formats::read_manifest(*own))
                           : convert::open_megatron_adapter(arguments.source, arguments.from);
  warn_of_idle_options(command, arguments, adapter.model->spec);
  convert::TargetOptions options;
  set_dtype(arguments, options);
  convert::write_peft_adapter(adapter, arguments.target, options.dtype, {});
  if (!arguments.verify) return;
  const convert::Proof proof = convert::verify_peft_adapter(adapter, arguments.target);
  fmt::print(
      "{} matrices, {} elements: each is in {} as it should be and equals its source bit for bit\n",
      proof.parameters, proof.elements, arguments.target);
}

// An adapter of PEFT's without its base, told in Megatron's layers.
void run_megatron_adapter(const CLI::App& command, const Arguments& arguments) {
  const Target& target = kTargets.at(arguments.to);
  if (target.write != convert::write_megatron) {
    throw ConfigError("convert",
                      fmt::format("{}: expected a model, got an adapter alone", arguments.source),
                      "give it as --adapter on its base, or convert it --to mcore");
  }
  convert::TargetOptions options{.layout = arguments.layout, .args_beside = arguments.args_beside};
  options.layout.names = target.names;
  set_dtype(arguments, options);
  if (!arguments.from.config.empty())
    warn_of_idle_options(command, arguments, convert::spec_of_config(arguments.from));
  convert::write_megatron_adapter(arguments.source, arguments.from, arguments.target, options, {});
  if (!arguments.verify) return;
  const convert::Proof proof = convert::verify_megatron_adapter(arguments.source, arguments.target);
  fmt::print("{} matrices, {} elements: each is read back from {} as it is in {}, bit for bit\n",
             proof.parameters, proof.elements, arguments.target, arguments.source);
}

void run(const CLI::App& command, Arguments arguments) {
  if (convert::is_peft_adapter(arguments.source)) return run_megatron_adapter(command, arguments);
  if (arguments.to == kPeft) return run_adapter(command, arguments);
  if (arguments.upcycling.experts > 0) arguments.from.upcycling = arguments.upcycling;
  if (arguments.reversible && arguments.to != "hf")
    throw ConfigError("convert", "expected --to hf with --reversible, got " + arguments.to);
  const auto model = arguments.unmerge.empty()
                         ? convert::open_model(arguments.source, arguments.from)
                         : convert::open_unmerged(arguments.source, arguments.unmerge);
  warn_of_idle_options(command, arguments, model->spec);
  if (arguments.from.lora_alpha && !model->lora_alpha)
    log::warn("convert", "--lora-alpha has no effect: this is no Megatron checkpoint of LoRA");
  account_for_others(*model, kTargets.at(arguments.to).write == convert::write_checkpoint,
                     arguments.ignore_unknown);
  convert::TargetOptions options{.max_shard_bytes = arguments.shard_bytes,
                                 .layout = arguments.layout,
                                 .args_beside = arguments.args_beside,
                                 .drop_mtp = arguments.drop_mtp,
                                 .torch_names = arguments.torch_names};
  set_dtype(arguments, options);
  std::unique_ptr<Progress> progress;
  const convert::ProgressFunction shown = [&](uint64_t done, uint64_t total) {
    if (!progress) progress = std::make_unique<Progress>("converting", total, "bytes");
    progress->update(done);
  };
  const Target& target = kTargets.at(arguments.to);
  options.layout.names = target.names;
  target.write(*model, arguments.target, options, shown);
  if (progress) progress->finish();
  if (arguments.reversible) convert::write_unmerge_record(*model, arguments.target);
  if (!arguments.verify) return;
  prove(*model, arguments);
}

void add_layout(CLI::App* command, MegatronLayout& layout) {
  const std::string group = kLayoutGroup;
  command->add_option("--tensor", layout.tensor, "Tensor parallel size")->group(group);
  command->add_option("--pipeline", layout.pipeline, "Pipeline stages")->group(group);
  command->add_option("--expert", layout.expert, "Expert parallel size")->group(group);
  command
      ->add_option("--expert-tensor", layout.expert_tensor,
                   "Tensor parallel size of experts: 1, or as --tensor")
      ->group(group);
  command
      ->add_option("--virtual-layers", layout.layers_per_virtual_stage, "Layers per virtual stage")
      ->group(group);
  command->add_option("--layers-per-stage", layout.layers_per_stage, "Uneven stages: 17,20,22,21")
      ->delimiter(',')
      ->group(group);
  command->add_option("--noop-layers", layout.noop_layers, "Positions that do nothing: 61,62,63")
      ->delimiter(',')
      ->group(group);
  command->add_flag("--dualpipev", layout.dual_pipe_v, "Two chunks a stage, folded")->group(group);
  command
      ->add_flag("--extend-experts", layout.tensor_extends_expert,
                 "Experts over expert * tensor ranks, none cut (moe-tp-extend-ep)")
      ->group(group);
  command->add_option("--experts", layout.experts, "How experts are stored")
      ->transform(CLI::CheckedTransformer(kExperts))
      ->option_text("TEXT:{local,grouped,per-weight}=local")
      ->group(group);
  command->add_flag("--fused-norms", layout.fused_norms, "Names of Transformer Engine's layers")
      ->group(group);
  command->add_flag("--split-latent", layout.split_latent_projections, "mla-mm-split (mindspeed)")
      ->group(group);
  command
      ->add_option("--vocab-divisor", layout.vocab_divisor,
                   "Pads the vocabulary to a multiple of this * tensor")
      ->group(group);
  command->add_option("--padded-vocab-size", layout.padded_vocab_size, "Pads it to this")
      ->group(group);
}

}  // namespace

void add_convert(CLI::App& app) {
  auto arguments = std::make_shared<Arguments>();
  CLI::App* command = app.add_subcommand(
      "convert", "Models between Hugging Face, GGUF, Megatron, MindSpeed and MindSpore.");
  command
      ->add_option("SRC", arguments->source,
                   "Qianli checkpoint or run, Hugging Face folder, GGUF file, Megatron checkpoint "
                   "(LoRA too), MindSpore's .ckpt, or PEFT's folder of an adapter (to a Megatron "
                   "checkpoint of LoRA, with --config)")
      ->required();
  command
      ->add_option("DST", arguments->target,
                   "Folder to write (gguf: file); refused where it exists")
      ->required();
  command
      ->add_option(
          "--to", arguments->to,
          "Form to write; peft: the adapter of a run or of a Megatron checkpoint of LoRA, alone")
      ->required()
      ->check(CLI::IsMember(kTargets));
  command
      ->add_option(
          "--dtype", arguments->dtype,
          "Type of the weights; same: as they are; q8_0: matrices of a GGUF file in blocks "
          "of 8 bits. GGUF keeps norms, biases and routers in fp32")
      ->check(CLI::IsMember({"same", "fp32", "bf16", "fp16", "fp64", "q8_0"}))
      ->capture_default_str();
  command->add_option(
      "--config", arguments->from.config,
      "Folder with the model's config.json, or a preset: for checkpoints that do not say what they "
      "hold");
  auto* adapter = command->add_option("--adapter", arguments->from.adapter,
                                      "Adapter to merge into the model: PEFT's folder (LoRA, "
                                      "rsLoRA, DoRA) or a Megatron checkpoint "
                                      "of LoRA");
  command
      ->add_flag("--reversible", arguments->reversible,
                 "Writes unmerge.safetensors beside the merged model, by which --unmerge gives the "
                 "base back")
      ->needs(adapter);
  command
      ->add_option("--unmerge", arguments->unmerge,
                   "PEFT's folder of the adapter to take out of a model merged with --reversible: "
                   "the base, bit for bit")
      ->excludes(adapter);
  command->add_option("--lora-alpha", arguments->from.lora_alpha,
                      "Of a Megatron checkpoint of LoRA that does not say it");
  command
      ->add_option("--upcycle-experts", arguments->upcycling.experts,
                   "Makes a mixture of a dense model: so many copies of each MLP and a random "
                   "router, of a family with words for it; it computes what the dense model does")
      ->check(CLI::Range(int64_t{2}, int64_t{1} << 20));
  command->add_option("--upcycle-top-k", arguments->upcycling.top_k, "Experts that a token goes to")
      ->needs("--upcycle-experts")
      ->capture_default_str();
  command->add_option("--upcycle-seed", arguments->upcycling.seed, "Seed of the routers")
      ->needs("--upcycle-experts")
      ->capture_default_str();
  command->add_flag("--verify", arguments->verify,
                    "Reads the result back, compares every element with its source and the logits "
                    "of a few tokens");
  command->add_flag("--ignore-unknown", arguments->ignore_unknown,
                    "Leaves out tensors that the model does not have, instead of refusing them");
  command
      ->add_option("--shard-size", arguments->shard_bytes,
                   "Most bytes of tensors in a file: 5GB, 500MB; a larger tensor has its own")
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 60, "SIZE"))
      ->transform(CLI::AsSizeValue(true))
      ->option_text("SIZE=5GB")
      ->group(kShardsGroup);
  command
      ->add_flag("--drop-mtp", arguments->drop_mtp,
                 "Leaves out layers of multi-token prediction where the file has no place for them")
      ->group(kGgufGroup);
  command
      ->add_flag("--torch-names", arguments->torch_names,
                 "PyTorch's names, as programs on MSAdapter and mindspore.mint have them, where "
                 "MindSpore Transformers has names of its own")
      ->group(kMindsporeGroup);
  add_layout(command, arguments->layout);
  command
      ->add_flag("--args-beside", arguments->args_beside,
                 "Rank files of plain types and tensors alone, which torch.load(weights_only=True) "
                 "takes; args stand beside them, in arguments.pt")
      ->group(kLayoutGroup);
  command->callback([arguments, command] { run(*command, *arguments); });
}

}  // namespace qianli::app
