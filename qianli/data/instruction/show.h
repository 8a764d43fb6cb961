// Samples for the eyes: which tokens are learnt, which only read.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "qianli/base/json.h"
#include "qianli/text/tokenizer.h"

namespace qianli::data {

// One sequence of a sample. `labels` may be empty: nothing is learnt from it; so may `mask`.
struct ShownSequence {
  std::string name;  // "", "chosen", "rejected"
  std::vector<int32_t> ids, labels, mask;
};

// With `colour` for a terminal: learnt tokens green, in two shades by turns so that their borders
// show, others dim, special tokens inverted. Without: tokens that are not learnt stand in brackets.
// A label that is not its token follows as "{label}". A learnt answer ends its line; the samples of
// a neat pack stand between rules, and padding is a count. Control characters are shown, not sent.
std::string to_text(const ShownSequence& sequence,
                    const std::shared_ptr<const text::Tokenizer>& tokenizer, bool colour);

// ids, labels, mask and the pieces of text.
OrderedJson to_json(const ShownSequence& sequence,
                    const std::shared_ptr<const text::Tokenizer>& tokenizer);

// The sequences of a sample's fields: "chosen_input_ids" and "chosen_labels" are one. Fields that
// are neither ids, labels nor mask stand alone.
std::vector<ShownSequence> sequences_of(const std::vector<std::string>& fields,
                                        const std::vector<std::vector<int32_t>>& values);

}  // namespace qianli::data
