#include <fmt/core.h>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/log.h"
#include "qianli/base/strings.h"
#include "qianli/convert/conversion_folder.h"
#include "qianli/convert/megatron/arguments.h"
#include "qianli/convert/megatron/attributes.h"
#include "qianli/convert/megatron/rank_files.h"
#include "qianli/convert/megatron/tensors.h"
#include "qianli/convert/megatron/write_ranks.h"
#include "qianli/convert/write_model.h"
#include "qianli/formats/torch_file.h"

namespace qianli::convert {
namespace {

using formats::Value;

// Dictionaries in dictionaries, in the order of their first entry.
struct Node {
  std::string name;
  std::vector<Node> children;
  Value leaf;

  Node& child(const std::string& key) {
    for (Node& node : children) {
      if (node.name == key) return node;
    }
    children.push_back({.name = key, .children = {}, .leaf = {}});
    return children.back();
  }
  Value value() const {
    if (children.empty()) return leaf;
    formats::Entries entries;
    for (const Node& node : children) entries.emplace_back(Value::text(node.name), node.value());
    return Value::dict(std::move(entries));
  }
};

// The keys on the way to a tensor. Megatron-core keeps a chunk's names in one dictionary; the
// legacy models nest their modules: language_model, then embedding and output_layer down to the
// tensor, or encoder.
std::vector<std::string> keys_of(const std::string& name, bool legacy) {
  std::vector<std::string> keys;
  std::string rest = name;
  const auto take = [&] {
    const size_t dot = rest.find('.');
    keys.push_back(rest.substr(0, dot));
    rest = rest.substr(dot + 1);
  };
  take();  // the chunk
  if (legacy) {
    take();
    const bool whole = rest.starts_with("encoder.");
    take();
    while (!whole && rest.find('.') != std::string::npos) take();
  }
  keys.push_back(rest);
  return keys;
}

// Arguments that are None stay out.
Value rank_tree(const Targets& targets, size_t file, const Value& arguments, bool legacy) {
  Node tree;
  // A chunk's dictionary is made once, whatever its size: names are looked up in it, not in a list.
  std::map<std::string, formats::Entries> chunks;
  for (size_t i = 0; i < targets.tensors().size(); ++i) {
    const ForeignTensor& tensor = targets.tensors()[i];
    if (tensor.file != file) continue;
    const Value leaf = formats::tensor_to_write(targets.specs()[i]);
    const auto keys = keys_of(tensor.name, legacy);
    if (!legacy) {
      chunks[keys[0]].emplace_back(Value::text(keys[1]), leaf);
      continue;
    }
    Node* node = &tree;
    for (const std::string& key : keys) node = &node->child(key);
    node->leaf = leaf;
  }
  if (!legacy) {
    for (const std::string& module : modules_with_extra_state(targets.tensors(), file)) {
      const size_t dot = module.find('.');
      chunks[module.substr(0, dot)].emplace_back(
          Value::text(module.substr(dot + 1) + "._extra_state"), Value());
    }
  }
  formats::Entries root = {{Value::text("checkpoint_version"), Value::real(3.0)},
                           {Value::text("iteration"), Value::integer(1)}};
  if (!arguments.is_none()) root.emplace(root.begin(), Value::text("args"), arguments);
  for (const Node& node : tree.children) root.emplace_back(Value::text(node.name), node.value());
  for (auto& [name, entries] : chunks)
    root.emplace_back(Value::text(name), Value::dict(std::move(entries)));
  return Value::dict(std::move(root));
}

}  // namespace

void write_ranks(const Targets& targets, const Value& arguments,
                 const std::filesystem::path& target, const TargetOptions& options) {
  const MegatronLayout& layout = options.layout;
  const bool legacy = layout.names == MegatronNames::kLegacy;
  const std::string settings = formats::write_pickle(arguments, "arguments", FileRole::kCheckpoint,
                                                     [](const auto&) { return std::string(); });
  ConversionFolder folder(target,
                          targets.identity(settings + (options.args_beside ? " beside" : "")),
                          options.journal_step);
  const auto write = [&](const std::string& name, const Value& tree,
                         const formats::TensorProducer& produce) {
    folder.write("iter_0000001/" + name, [&](FileGrowth growth) {
      formats::write_torch_file(folder.path() / "iter_0000001" / name, tree, produce,
                                FileRole::kCheckpoint, std::move(growth));
    });
  };
  if (options.args_beside) {
    write(kArgumentsBeside, Value::dict({{Value::text("args"), arguments}}), {});
  }
  const Value inside = options.args_beside ? Value() : arguments;
  const auto ranks = megatron_ranks(layout);
  for (size_t file = 0; file < ranks.size(); ++file) {
    write(rank_folder(layout, ranks[file]) + "/model_optim_rng.pt",
          rank_tree(targets, file, inside, legacy), targets.producer(file));
  }
  write_file_atomically(folder.path() / "latest_checkpointed_iteration.txt", "1",
                        FileRole::kCheckpoint);
  folder.commit();
}

void write_megatron(const ModelSource& model, const std::filesystem::path& target,
                    const TargetOptions& options, const ProgressFunction& progress) {
  const MegatronLayout& layout = options.layout;
  const Targets targets(model, megatron_tensors(model.spec, model.table, layout), options.dtype,
                        progress);
  check_cover(model.table, targets.tensors(), target.string());
  const Value arguments = megatron_arguments(model.spec, layout, targets.prevailing_dtype());
  for (const std::string& line : untold_by_arguments(model.spec, arguments)) {
    log::warn("convert",
              "no argument of Megatron tells this model's {}: a run built from them would compute "
              "something else (the weights are right, and Qianli reads them back as they are)",
              line);
  }
  if (const auto names = passed_over_by_megatron(arguments); is_plain(layout) && !names.empty()) {
    log::warn(
        "convert",
        "Megatron-LM itself passes over these arguments, which are MindSpeed-LLM's: {} (a run "
        "built from the others would compute something else)",
        join(names, ", "));
  }
  write_ranks(targets, arguments, target, options);
}

}  // namespace qianli::convert
