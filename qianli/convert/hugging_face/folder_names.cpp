#include "qianli/convert/hugging_face/folder_names.h"

#include <fmt/core.h>

#include <algorithm>

#include "qianli/base/error.h"
#include "qianli/formats/reject.h"

namespace qianli::convert {

using formats::TensorSpec;

FolderNames::FolderNames(const model::ModelSpec& spec, const formats::TensorSource& source)
    : habits_(model::foreign_habits(spec)), source_(source) {}

const TensorSpec* FolderNames::find(const std::string& name) const {
  if (const TensorSpec* found = find_prefixed(name)) return found;
  std::string other = name;
  for (const auto& [part, spelling] : habits_.aliases) {
    if (const size_t at = other.find(part); at != other.npos) {
      other.replace(at, part.size(), spelling);
    }
  }
  return other == name ? nullptr : find_prefixed(other);
}

// Names outside of the prefix (lm_head) stand bare, or behind the prefix of a larger model.
const TensorSpec* FolderNames::find_outside_prefix(const std::string& name) const {
  const TensorSpec* found = source_.find(name);
  for (size_t i = 1; i < habits_.prefixes.size() && found == nullptr; ++i) {
    const std::string& other = habits_.prefixes[i];
    if (other.ends_with("model.")) found = source_.find(other.substr(0, other.size() - 6) + name);
  }
  return found;
}

const TensorSpec* FolderNames::find_prefixed(const std::string& name) const {
  const std::string& prefix = habits_.prefixes[0];
  if (!prefix.empty() && !name.starts_with(prefix)) return find_outside_prefix(name);
  const TensorSpec* found = source_.find(name);
  for (size_t i = 1; i < habits_.prefixes.size(); ++i) {
    const TensorSpec* other = source_.find(habits_.prefixes[i] + name.substr(prefix.size()));
    if (found != nullptr && other != nullptr) {
      throw CheckpointError(
          "convert",
          fmt::format("{}: expected one of {} and {}, got both", source_.source(),
                      formats::shown_name(found->name), formats::shown_name(other->name)));
    }
    if (found == nullptr) found = other;
  }
  return found;
}

bool FolderNames::ignored(const std::string& stored) const {
  const auto starts = [&](const std::string& prefix) { return stored.starts_with(prefix); };
  const auto ends = [&](const std::string& suffix) { return stored.ends_with(suffix); };
  return std::ranges::any_of(habits_.ignored_prefixes, starts) ||
         std::ranges::any_of(habits_.ignored_suffixes, ends);
}

const TensorSpec* find_any_spelling(const model::ForeignHabits& habits,
                                    const formats::TensorSource& source, const std::string& name) {
  std::vector<std::string> spellings = {name};
  for (const std::string& prefix : habits.prefixes) {
    if (!name.starts_with(prefix)) continue;
    spellings.push_back(habits.prefixes[0] + name.substr(prefix.size()));
  }
  for (const std::string& prefix : habits.prefixes) {  // names outside of it: lm_head
    if (!prefix.ends_with("model.")) continue;
    const std::string around = prefix.substr(0, prefix.size() - 6);
    if (name.starts_with(around)) spellings.push_back(name.substr(around.size()));
  }
  for (std::string& spelling : spellings) {
    if (const TensorSpec* found = source.find(spelling)) return found;
    for (const auto& [part, other] : habits.aliases) {
      const size_t at = spelling.find(other);
      if (at != spelling.npos) spelling.replace(at, other.size(), part);
    }
    if (const TensorSpec* found = source.find(spelling)) return found;
  }
  return nullptr;
}

}  // namespace qianli::convert
