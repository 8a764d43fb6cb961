#include "qianli/convert/adapter/unmerge.h"

#include <fmt/core.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>

#include "qianli/base/error.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/convert/adapter/adapter.h"
#include "qianli/formats/safetensors.h"

namespace qianli::convert {
namespace {

namespace fs = std::filesystem;
using formats::Dtype;

constexpr const char* kRecord = "unmerge.safetensors";
constexpr int64_t kElementsAtOnce = int64_t{1} << 21;
constexpr int64_t kCounted = 4096;  // elements between two known numbers of others

enum Step : uint8_t { kSame = 0, kAbove = 1, kOther = 2, kBelow = 3 };

[[noreturn]] void refuse(const fs::path& path, const std::string& reason, const std::string& hint) {
  throw CheckpointError("convert", fmt::format("{}: {}", path.string(), reason), hint);
}

// Numbers of a type in their order, as whole numbers: -0 is the neighbour of 0.
template <class Bits>
Bits ordered(Bits bits) {
  constexpr auto kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  return static_cast<Bits>(bits & kSign ? ~bits : bits | kSign);
}
template <class Bits>
Bits number_at(Bits order) {
  constexpr auto kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(Bits) - 1));
  return static_cast<Bits>(order & kSign ? order & ~kSign : ~order);
}

template <class Bits>
Step step_between(const std::byte* from, const std::byte* to) {
  Bits before, after;
  std::memcpy(&before, from, sizeof(Bits));
  std::memcpy(&after, to, sizeof(Bits));
  const auto distance = static_cast<Bits>(ordered(after) - ordered(before));
  if (distance == 0) return kSame;
  if (distance == 1) return kAbove;
  return distance == static_cast<Bits>(-1) ? kBelow : kOther;
}

template <class Bits>
void take_step(std::byte* number, Step step) {
  Bits bits;
  std::memcpy(&bits, number, sizeof(Bits));
  bits = number_at(static_cast<Bits>(ordered(bits) + (step == kAbove ? 1 : -1)));
  std::memcpy(number, &bits, sizeof(Bits));
}

size_t size_of(Dtype dtype) { return static_cast<size_t>(formats::bit_size(dtype)) / 8; }

Step step_between(Dtype dtype, const std::byte* from, const std::byte* to) {
  switch (size_of(dtype)) {
    case 2:
      return step_between<uint16_t>(from, to);
    case 4:
      return step_between<uint32_t>(from, to);
    default:
      return step_between<uint64_t>(from, to);
  }
}

void take_step(Dtype dtype, std::byte* number, Step step) {
  switch (size_of(dtype)) {
    case 2:
      return take_step<uint16_t>(number, step);
    case 4:
      return take_step<uint32_t>(number, step);
    default:
      return take_step<uint64_t>(number, step);
  }
}

Step step_at(std::span<const std::byte> steps, int64_t element) {
  const auto four = static_cast<uint8_t>(steps[static_cast<size_t>(element / 4)]);
  return static_cast<Step>(four >> (2 * (element % 4)) & 3);
}

std::string described(Dtype dtype, uint64_t hash) {
  return fmt::format("{} {:016x}", formats::dtype_name(dtype), hash);
}

// body(bytes of some rows, their first element), in order.
void each_piece(const ModelSource& model, size_t parameter, Dtype dtype,
                const std::function<void(std::span<const std::byte>, int64_t)>& body) {
  const int64_t columns = matrix_columns(model.table[parameter]),
                rows = matrix_rows(model.table[parameter]);
  const int64_t at_once = std::max<int64_t>(1, kElementsAtOnce / columns);
  std::vector<std::byte> bytes;
  for (int64_t first = 0; first < rows; first += at_once) {
    throw_if_stopped("convert");
    const int64_t count = std::min(at_once, rows - first);
    bytes.resize(static_cast<size_t>(count * columns) * size_of(dtype));
    model.reader->assemble(rows_of(model.table, parameter, first, count), dtype, bytes);
    body(bytes, first * columns);
  }
}

struct Hash {
  XXH3_state_t* state = XXH3_createState();
  Hash() { XXH3_64bits_reset(state); }
  ~Hash() { XXH3_freeState(state); }
  Hash(const Hash&) = delete;
  Hash& operator=(const Hash&) = delete;
  void add(std::span<const std::byte> bytes) {
    XXH3_64bits_update(state, bytes.data(), bytes.size());
  }
  uint64_t digest() const { return XXH3_64bits_digest(state); }
};

// What the base is beyond `near`, of one parameter.
struct Steps {
  std::vector<std::byte> steps, others;
  std::string description;
  bool any = false;

  Steps(const ModelSource& base, const ModelSource& near, size_t parameter) {
    const Dtype dtype = base.reader->dtype(parameter);
    const size_t size = size_of(dtype);
    steps.resize((static_cast<size_t>(base.table[parameter].elements()) + 3) / 4);
    Hash hash;
    std::vector<std::byte> other;
    each_piece(base, parameter, dtype, [&](std::span<const std::byte> bytes, int64_t first) {
      hash.add(bytes);
      const int64_t columns = matrix_columns(base.table[parameter]);
      other.resize(bytes.size());
      near.reader->assemble(rows_of(near.table, parameter, first / columns,
                                    static_cast<int64_t>(bytes.size() / size) / columns),
                            dtype, other);
      for (size_t i = 0; i < bytes.size() / size; ++i) {
        const Step step = step_between(dtype, &other[i * size], &bytes[i * size]);
        if (step == kSame) continue;
        any = true;
        const size_t element = static_cast<size_t>(first) + i;
        steps[element / 4] |= static_cast<std::byte>(step << (2 * (element % 4)));
        if (step != kOther) continue;
        others.insert(others.end(), &bytes[i * size], &bytes[i * size] + size);
      }
    });
    description = described(dtype, hash.digest());
  }
};

// The model in `folder` less the adapter, as float32 rounds it.
std::unique_ptr<ModelSource> near_base(const fs::path& folder, const fs::path& peft) {
  auto merged = open_model(folder);
  Adapter adapter = open_peft_adapter(peft, merged->table);
  if (adapter.config.use_dora())
    refuse(peft, "expected LoRA, got DoRA", "what divides by lengths cannot be taken out");
  adapter.config.negate();
  return with_adapter(std::move(merged), adapter);
}

class UnmergedSource : public formats::TensorSource {
 public:
  UnmergedSource(std::shared_ptr<const ModelSource> near, formats::SafetensorsFile record)
      : TensorSource(near->path.string()), near_(std::move(near)), record_(std::move(record)) {
    tensors_ = own_tensors(near_->table);
    for (const ForeignTensor& tensor : tensors_) {
      const auto place = record_.metadata().find(tensor.name);
      const auto dtype =
          place == record_.metadata().end()
              ? std::nullopt
              : formats::dtype_from_name(
                    std::string_view(place->second).substr(0, place->second.find(' ')));
      if (!dtype) refuse(record_.path(), fmt::format("expected {}, found none", tensor.name), {});
      add({tensor.name, *dtype, tensor.shape});
      count_others(tensor.name);
    }
  }

 private:
  struct Changed {
    std::span<const std::byte> steps, others;
    std::vector<int64_t> others_before;  // every kCounted elements
  };

  void count_others(const std::string& name) {
    const formats::TensorSpec& spec = at(name);
    const auto* steps = record_.find(name + ".steps");
    if (!steps) return;
    Changed changed{.steps = steps->bytes, .others = record_.at(name + ".others").bytes};
    const int64_t elements = spec.num_elements();
    if (changed.steps.size() != (static_cast<size_t>(elements) + 3) / 4)
      refuse(record_.path(), fmt::format("{}: expected a step for each element", name), {});
    int64_t count = 0;
    for (int64_t i = 0; i < elements; ++i) {
      if (i % kCounted == 0) changed.others_before.push_back(count);
      count += step_at(changed.steps, i) == kOther ? 1 : 0;
    }
    if (static_cast<size_t>(count) * size_of(spec.dtype) != changed.others.size())
      refuse(record_.path(), fmt::format("{}: expected {} other numbers", name, count), {});
    changed_[name] = std::move(changed);
  }

  void copy_rows(size_t index, int64_t first, int64_t, std::span<std::byte> out) const override {
    const formats::TensorSpec& spec = tensors()[index];
    const int64_t begin = spec.num_elements() / formats::num_rows(spec) * first;
    const size_t size = size_of(spec.dtype);
    near_->reader->assemble(tensors_[index], spec.dtype, begin, out);
    const auto found = changed_.find(spec.name);
    if (found == changed_.end()) return;
    const Changed& changed = found->second;
    int64_t other = changed.others_before[static_cast<size_t>(begin / kCounted)];
    for (int64_t i = begin / kCounted * kCounted; i < begin; ++i)
      other += step_at(changed.steps, i) == kOther ? 1 : 0;
    for (size_t i = 0; i < out.size() / size; ++i) {
      const Step step = step_at(changed.steps, begin + static_cast<int64_t>(i));
      if (step == kSame) continue;
      if (step == kOther) {
        std::memcpy(&out[i * size], &changed.others[static_cast<size_t>(other++) * size], size);
      } else {
        take_step(spec.dtype, &out[i * size], step);
      }
    }
  }

  std::shared_ptr<const ModelSource> near_;
  formats::SafetensorsFile record_;
  std::vector<ForeignTensor> tensors_;
  std::map<std::string, Changed> changed_;
};

void check(const ModelSource& model, const formats::Metadata& expected, const fs::path& folder) {
  parallel_for(static_cast<int64_t>(model.table.size()), available_cores(), [&](int64_t i) {
    const auto parameter = static_cast<size_t>(i);
    const Dtype dtype = model.reader->dtype(parameter);
    Hash hash;
    each_piece(model, parameter, dtype,
               [&](std::span<const std::byte> bytes, int64_t) { hash.add(bytes); });
    const std::string& name = model.table[parameter].name;
    if (expected.at(name) == described(dtype, hash.digest())) return;
    refuse(folder, fmt::format("expected {} as it was before merging, got another", name),
           "is it the adapter that was merged, and are the weights as they were written?");
  });
}

}  // namespace

void write_unmerge_record(const ModelSource& merged, const fs::path& folder) {
  const ModelSource& base = *merged.base;
  const auto near = near_base(folder, merged.adapter);
  std::vector<Steps> all;
  std::vector<formats::TensorEntry> entries;
  formats::Metadata metadata;
  all.reserve(base.table.size());
  for (size_t i = 0; i < base.table.size(); ++i) {
    const std::string& name = base.table[i].name;
    if (base.reader->dtype(i) != base.reader->natural_dtype(i))
      refuse(base.path, fmt::format("expected plain numbers, got {} in few bits", name), {});
    Steps& steps = all.emplace_back(base, *near, i);
    metadata[name] = steps.description;
    if (!steps.any) {
      steps.steps = {};
      continue;
    }
    const auto entry = [&](const std::string& what, const std::vector<std::byte>& bytes) {
      entries.push_back({{name + what, Dtype::kU8, {static_cast<int64_t>(bytes.size())}}, bytes});
    };
    entry(".steps", steps.steps);
    entry(".others", steps.others);
  }
  formats::write_safetensors(folder / kRecord, entries, std::move(metadata));
}

std::unique_ptr<ModelSource> open_unmerged(const fs::path& folder, const fs::path& adapter) {
  if (!fs::exists(folder / kRecord)) {
    refuse(folder, fmt::format("expected {}, found none", kRecord),
           "a merged model has it that was written with --reversible");
  }
  std::shared_ptr<const ModelSource> near = near_base(folder, adapter);
  auto model = std::make_unique<ModelSource>();
  model->kind = "merged model";
  model->path = folder;
  model->spec = near->spec;
  model->table = near->table;
  model->companions = near->companions;
  auto record = formats::SafetensorsFile::open(folder / kRecord);
  const formats::Metadata expected = record.metadata();
  const auto source = std::make_shared<UnmergedSource>(near, std::move(record));
  model->reader = std::make_unique<ParameterReader>(
      model->table, own_tensors(model->table),
      std::vector<std::shared_ptr<const formats::TensorSource>>{source}, folder.string());
  check(*model, expected, folder);
  return model;
}

}  // namespace qianli::convert
