// Learning the merges: a priority queue over pair counts, with the words where each pair stands.
#include <algorithm>
#include <queue>

#include "qianli/base/progress.h"
#include "qianli/base/stop.h"
#include "qianli/text/bpe_model.h"
#include "qianli/text/train.h"

namespace qianli::text {

std::vector<unsigned char> bytes_in_alphabet_order() {
  std::vector<unsigned char> bytes(256);
  for (size_t i = 0; i < 256; ++i) bytes[i] = static_cast<unsigned char>(i);
  std::sort(bytes.begin(), bytes.end(), [](unsigned char a, unsigned char b) {
    return byte_level_char(a) < byte_level_char(b);
  });
  return bytes;
}

namespace {

class MergeLearner {
 public:
  MergeLearner(const WordCounts& counts, int64_t min_frequency) : min_frequency_(min_frequency) {
    // Any order gives the same merges; sorted, the work is the same too.
    std::vector<const WordCounts::value_type*> sorted;
    for (const auto& entry : counts) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->first < b->first; });
    int32_t symbol_of[256];
    const auto bytes = bytes_in_alphabet_order();
    for (size_t i = 0; i < 256; ++i) symbol_of[bytes[i]] = static_cast<int32_t>(i);
    for (const auto* entry : sorted) {
      Word word{symbols_.size(), 0, entry->second};
      for (const char c : entry->first)
        symbols_.push_back(symbol_of[static_cast<unsigned char>(c)]);
      word.size = symbols_.size() - word.begin;
      words_.push_back(word);
    }
  }

  std::vector<TrainedMerge> learn(int64_t most) {
    for (uint32_t w = 0; w < words_.size(); ++w) {
      for (size_t i = 0; i + 1 < words_[w].size; ++i)
        change(at(w, i), at(w, i + 1), words_[w].count, w);
    }
    push_changed();
    std::vector<TrainedMerge> merges;
    Progress progress("merging pairs", static_cast<uint64_t>(std::max<int64_t>(0, most)), "merges");
    while (static_cast<int64_t>(merges.size()) < most && !queue_.empty()) {
      const Candidate top = queue_.top();
      queue_.pop();
      const auto place = pairs_.find(top.key);
      // Merged already, or a newer entry is in the queue.
      if (place == pairs_.end() || place->second.count != top.count) continue;
      Pair& pair = place->second;
      if (pair.count < min_frequency_) break;
      const TrainedMerge merge{static_cast<int32_t>(top.key >> 32),
                               static_cast<int32_t>(top.key & 0xFFFFFFFFu)};
      const auto merged = static_cast<int32_t>(256 + merges.size());
      merges.push_back(merge);
      const std::vector<uint32_t> places = std::move(pair.words);
      pair.words.clear();
      for (const uint32_t w : places) merge_in_word(w, merge, merged);
      pairs_.erase(top.key);
      changed_.erase(std::remove(changed_.begin(), changed_.end(), top.key), changed_.end());
      push_changed();
      progress.update(merges.size());
      throw_if_stopped("tokenizer");
    }
    progress.finish();
    return merges;
  }

 private:
  struct Word {
    size_t begin, size;  // in symbols_
    int64_t count;
  };
  struct Pair {
    int64_t count = 0;
    bool changed = false;
    std::vector<uint32_t> words;  // where it stands or stood
  };
  // The most frequent first, then the one with the smaller ids.
  struct Candidate {
    int64_t count;
    uint64_t key;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : key > other.key;
    }
  };

  int32_t at(uint32_t word, size_t i) const { return symbols_[words_[word].begin + i]; }

  void change(int32_t left, int32_t right, int64_t by, uint32_t word) {
    const uint64_t key =
        static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    Pair& pair = pairs_[key];
    pair.count += by;
    if (by > 0 && (pair.words.empty() || pair.words.back() != word)) pair.words.push_back(word);
    if (pair.changed) return;
    pair.changed = true;
    changed_.push_back(key);
  }

  void push_changed() {
    for (const uint64_t key : changed_) {
      Pair& pair = pairs_.at(key);
      pair.changed = false;
      if (pair.count > 0) queue_.push({pair.count, key});
    }
    changed_.clear();
  }

  void merge_in_word(uint32_t w, const TrainedMerge& merge, int32_t merged) {
    Word& word = words_[w];
    int32_t* symbols = symbols_.data() + word.begin;
    size_t out = 0;
    for (size_t in = 0; in < word.size; ++in) {
      const bool here =
          in + 1 < word.size && symbols[in] == merge.left && symbols[in + 1] == merge.right;
      if (!here) {
        symbols[out++] = symbols[in];
        continue;
      }
      if (out > 0) {
        change(symbols[out - 1], merge.left, -word.count, w);
        change(symbols[out - 1], merged, word.count, w);
      }
      if (in + 2 < word.size) {
        change(merge.right, symbols[in + 2], -word.count, w);
        change(merged, symbols[in + 2], word.count, w);
      }
      symbols[out++] = merged;
      ++in;
    }
    word.size = out;
  }

  int64_t min_frequency_;
  std::vector<int32_t> symbols_;
  std::vector<Word> words_;
  std::unordered_map<uint64_t, Pair> pairs_;
  std::vector<uint64_t> changed_;
  std::priority_queue<Candidate> queue_;
};

}  // namespace

std::vector<TrainedMerge> learn_merges(const WordCounts& words, int64_t most,
                                       int64_t min_frequency) {
  return MergeLearner(words, min_frequency).learn(most);
}

}  // namespace qianli::text
