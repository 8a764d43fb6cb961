// Counting the words of a corpus, chunk by chunk on all cores.
#include <fmt/core.h>
#include <simdjson.h>

#include <algorithm>
#include <memory>

#include "qianli/base/error.h"
#include "qianli/base/progress.h"
#include "qianli/base/stop.h"
#include "qianli/base/threads.h"
#include "qianli/text/added_tokens.h"
#include "qianli/text/pattern.h"
#include "qianli/text/train.h"
#include "qianli/text/unicode.h"

namespace qianli::text {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;

struct Chunk {
  std::string_view text;
  bool jsonl;
  const fs::path* file;
};

bool is_ascii_letter(char c) { return (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }

// Between a letter and white space every pattern cuts, and neither side looks across the cut.
size_t end_of_text_chunk(std::string_view text, size_t begin) {
  size_t at = begin + kChunkBytes;
  while (at < text.size() &&
         !(is_ascii_letter(text[at - 1]) && (text[at] == ' ' || text[at] == '\n'))) {
    ++at;
  }
  return std::min(at, text.size());
}

size_t end_of_lines_chunk(std::string_view text, size_t begin) {
  const size_t at = text.find('\n', begin + kChunkBytes);
  return at == text.npos ? text.size() : at + 1;
}

class WordCounter {
 public:
  explicit WordCounter(const TrainOptions& options)
      : pattern_(make_known_pattern(options.pattern == TrainPattern::kGpt2 ? kGpt2Regex
                                                                           : kLlama3Regex)) {
    for (const auto& special : options.special_tokens) {
      finder_.add({.id = 0, .content = special, .special = true}, special);
    }
  }

  void count(const Chunk& chunk, WordCounts& counts) const {
    if (!chunk.jsonl) return count_text(chunk.text, counts);
    simdjson::dom::parser parser;
    for (size_t begin = 0; begin < chunk.text.size();) {
      const size_t end = std::min(chunk.text.find('\n', begin), chunk.text.size());
      const auto line = chunk.text.substr(begin, end - begin);
      begin = end + 1;
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      std::string_view text;
      if (parser.parse(line.data(), line.size())["text"].get(text) != simdjson::SUCCESS) {
        throw DataError("tokenizer",
                        fmt::format("expected lines with a string 'text' in {}, got '{}'",
                                    chunk.file->string(), line.substr(0, 60)));
      }
      count_text(text, counts);
    }
  }

 private:
  void count_text(std::string_view text, WordCounts& counts) const {
    std::string repaired;
    if (valid_utf8_prefix(text) != text.size()) {
      append_lossy(repaired, text);
      text = repaired;
    }
    std::vector<Segment> segments;
    finder_.split(text, segments);
    for (const Segment& segment : segments) {
      if (segment.id < 0) count_segment(segment.text, counts);
    }
  }

  // Both patterns leave nothing between matches.
  void count_segment(std::string_view text, WordCounts& counts) const {
    Match matches[256];
    size_t done = 0;
    for (size_t found = std::size(matches); found == std::size(matches);) {
      found = pattern_->find(text, done, matches);
      for (size_t i = 0; i < found; ++i) {
        const auto word = text.substr(matches[i].begin, matches[i].end - matches[i].begin);
        const auto place = counts.find(word);
        if (place == counts.end()) {
          counts.emplace(word, 1);
        } else {
          ++place->second;
        }
        done = matches[i].end;
      }
    }
  }

  std::unique_ptr<const Pattern> pattern_;
  AddedTokenFinder finder_;
};

}  // namespace

WordCounts count_words(const TrainOptions& options, std::span<const fs::path> files,
                       int64_t& text_bytes) {
  std::vector<std::shared_ptr<const MappedFile>> maps;
  std::vector<Chunk> chunks;
  text_bytes = 0;
  for (const auto& file : files) {
    maps.push_back(MappedFile::open(file, FileRole::kData));
    const std::string_view text(reinterpret_cast<const char*>(maps.back()->data()),
                                maps.back()->size());
    const bool jsonl = file.extension() == ".jsonl";
    text_bytes += static_cast<int64_t>(text.size());
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = jsonl ? end_of_lines_chunk(text, begin) : end_of_text_chunk(text, begin);
      chunks.push_back({text.substr(begin, end - begin), jsonl, &file});
      begin = end;
    }
  }
  const WordCounter counter(options);
  const int threads = options.threads > 0 ? options.threads : available_cores();
  const auto wave = static_cast<size_t>(threads) * 4;
  Progress progress("counting words", static_cast<uint64_t>(text_bytes), "bytes");
  WordCounts total;
  uint64_t done = 0;
  for (size_t first = 0; first < chunks.size(); first += wave) {
    const size_t count = std::min(wave, chunks.size() - first);
    std::vector<WordCounts> counts(count);
    parallel_for(static_cast<int64_t>(count), threads, [&](int64_t i) {
      const auto index = static_cast<size_t>(i);
      counter.count(chunks[first + index], counts[index]);
    });
    for (size_t i = 0; i < count; ++i) {
      for (const auto& [word, n] : counts[i]) total[word] += n;
      done += chunks[first + i].text.size();
    }
    progress.update(done);
    throw_if_stopped("tokenizer");
  }
  progress.finish();
  return total;
}

}  // namespace qianli::text
