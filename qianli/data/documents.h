// Documents in text files: what counts as one, and where a large file may be cut without changing
// any.
//
//   .jsonl .ndjson   one JSON object per line, the text under a key
//   .json            an array of such objects, or JSON lines
//   anything else    plain text: the whole file is one document, unless a separator is given
//
// Bytes are taken as they are: no newline translation, no trimming; a leading byte order mark is
// part of plain text and ignored before JSON.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "qianli/base/file.h"

namespace qianli::data {

enum class DocumentKind { kPlainText, kJsonLines, kJsonArray };

// What the text of a JSON record is made of. The last three are MindSpeed-LLM's handlers of
// pretraining data.
enum class DocumentText {
  kKey,
  kAlpaca,         // instruction, input and output in a frame of fixed words
  kSharegpt,       // all messages of conversations (or messages), nothing between them
  kStackOverflow,  // title, question_body and answer_body in such a frame
};

struct DocumentRules {
  std::string text_key = "text";
  DocumentText text = DocumentText::kKey;
  std::optional<std::string> separator;  // plain text: ends a document and belongs to none
};

// Bytes [begin, end) of a file that can be read by themselves.
struct ByteRange {
  uint64_t begin = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - begin; }
};

// By the name (of a packed file: of what is in it) and, for ".json", the first character.
DocumentKind kind_of(const fs::path& name, std::string_view content);

// Cuts a file into ranges of about `target_bytes`, each a whole number of documents.
std::vector<ByteRange> cut_ranges(std::string_view content, DocumentKind kind,
                                  const DocumentRules& rules, uint64_t target_bytes);

// Calls visit(text) for each document of a range, in order; `text` lives until visit returns.
// DataError naming `source` and the line of a record that is not an object with a string under the
// key.
void for_each_document(std::string_view content, ByteRange range, DocumentKind kind,
                       const DocumentRules& rules, const std::string& source,
                       const std::function<void(std::string_view)>& visit);

}  // namespace qianli::data
