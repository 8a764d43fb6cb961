// The way of a text through a loaded tokenizer: added tokens, normalizer, pre-tokenizer, model.
#include "qianli/text/tokenizer_impl.h"
#include "qianli/text/unicode.h"

namespace qianli::text {

std::unique_ptr<Workspace> WorkspacePool::take(const Model& model) {
  {
    const std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      auto workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  auto workspace = std::make_unique<Workspace>();
  workspace->model = model.make_scratch();
  return workspace;
}

void WorkspacePool::give(std::unique_ptr<Workspace> workspace) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(workspace));
}

namespace {

// Takes a workspace and gives it back, whatever happens between.
class Borrowed {
 public:
  Borrowed(WorkspacePool& pool, const Model& model) : pool_(pool), workspace_(pool.take(model)) {}
  ~Borrowed() { pool_.give(std::move(workspace_)); }
  Workspace& operator*() { return *workspace_; }

 private:
  WorkspacePool& pool_;
  std::unique_ptr<Workspace> workspace_;
};

}  // namespace

void TokenizerImpl::encode(std::string_view text, bool add_special_tokens,
                           std::vector<int32_t>& ids) const {
  Borrowed borrowed(pool, *model);
  Workspace& work = *borrowed;
  if (valid_utf8_prefix(text) != text.size()) {
    work.repaired.clear();
    append_lossy(work.repaired, text);
    text = work.repaired;
  }
  if (add_special_tokens) ids.insert(ids.end(), prefix.begin(), prefix.end());
  if (raw_finder.empty()) {
    encode_segment(text, true, work, ids);
  } else {
    work.segments.clear();
    raw_finder.split(text, work.segments);
    for (const Segment& segment : work.segments) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_segment(segment.text, segment.text.data() == text.data(), work, ids);
      }
    }
  }
  if (add_special_tokens) ids.insert(ids.end(), suffix.begin(), suffix.end());
}

void TokenizerImpl::encode_segment(std::string_view text, bool at_start, Workspace& work,
                                   std::vector<int32_t>& ids) const {
  const Normalizer* change =
      at_start || !later_normalizer ? normalizer.get() : later_normalizer.get();
  if (change != nullptr && change->may_change(text)) {
    work.normalized.assign(text);
    change->apply(work.normalized);
    text = work.normalized;
  }
  if (normalized_finder.empty()) return encode_normalized(text, at_start, work, ids);
  work.inner_segments.clear();
  normalized_finder.split(text, work.inner_segments);
  for (const Segment& segment : work.inner_segments) {
    if (segment.id >= 0) {
      ids.push_back(segment.id);
    } else {
      encode_normalized(segment.text, at_start && segment.text.data() == text.data(), work, ids);
    }
  }
}

void TokenizerImpl::encode_normalized(std::string_view text, bool at_start, Workspace& work,
                                      std::vector<int32_t>& ids) const {
  pre_tokenizer.run(text, at_start, work.pre_tokenizer, [&](std::string_view piece) {
    if (!cutter) return encode_piece(piece, work, ids);
    for (size_t begin = 0; begin < piece.size();) {
      const size_t end = cutter->end_of_part(piece, begin);
      encode_piece(piece.substr(begin, end - begin), work, ids);
      begin = end;
    }
  });
}

void TokenizerImpl::encode_piece(std::string_view piece, Workspace& work,
                                 std::vector<int32_t>& ids) const {
  if (piece.size() > PieceCache::kMaxBytes) return model->encode(piece, *work.model, ids);
  const PieceCache::Key key(piece);
  const size_t hash = key.hash();
  const auto remembered = work.cache.find(key, hash);
  if (!remembered.empty()) {
    ids.insert(ids.end(), remembered.begin(), remembered.end());
    return;
  }
  const size_t first = ids.size();
  model->encode(piece, *work.model, ids);
  work.cache.keep(key, hash, std::span(ids).subspan(first));
}

std::string_view TokenizerImpl::token(int32_t id) const {
  const auto found = added_by_id.find(id);
  return found != added_by_id.end() ? std::string_view(added[found->second].spelling)
                                    : vocabulary.token(id);
}

std::string_view TokenizerImpl::content(int32_t id) const {
  const auto found = added_by_id.find(id);
  return found != added_by_id.end() ? std::string_view(added[found->second].content)
                                    : vocabulary.token(id);
}

std::optional<int32_t> TokenizerImpl::id_of(std::string_view token) const {
  const auto found = added_by_content.find(std::string(token));
  return found != added_by_content.end() ? added[found->second].id : vocabulary.find(token);
}

bool TokenizerImpl::is_special(int32_t id) const {
  const auto found = added_by_id.find(id);
  return found != added_by_id.end() && added[found->second].special;
}

bool TokenizerImpl::is_skipped(int32_t id) const {
  const auto found = added_by_id.find(id);
  return found != added_by_id.end() && added[found->second].skipped;
}

}  // namespace qianli::text
