// What a tokenizer's model does: one piece of text in, token ids out.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace qianli::text {

class Model {
 public:
  // Buffers of one encoding thread; each model knows its own kind.
  class Scratch {
   public:
    virtual ~Scratch() = default;
  };

  virtual ~Model() = default;
  virtual std::unique_ptr<Scratch> make_scratch() const = 0;
  // Appends the ids of `piece` (valid UTF-8, not empty). A pure function of the piece. Throws
  // DataError where the model has no token for a character and none for unknown ones.
  virtual void encode(std::string_view piece, Scratch& scratch,
                      std::vector<int32_t>& ids) const = 0;
  virtual std::optional<int32_t> unk_id() const = 0;
  // "byte-level BPE", "Unigram", ...
  virtual std::string kind() const = 0;
};

}  // namespace qianli::text
