// Turns as token ids, and as what a model learns from them.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "qianli/text/chat/turns.h"
#include "qianli/text/tokenizer.h"

namespace qianli::text::chat {

struct EncodedTurn {
  std::vector<int32_t> source, target;
  bool answered = true;
};

// Ids and labels of equal length. Labels are not shifted; kIgnored carries no loss.
inline constexpr int32_t kIgnored = -100;
struct TrainingSample {
  std::vector<int32_t> ids, labels;
};

// What is learnt besides the answers, or not even of them.
struct LabelOptions {
  bool train_on_prompt = false;  // questions, too
  bool mask_history = false;     // the last answer only
};

// All turns one behind the other: sources without loss, targets with. `efficient_eos`: the label of
// the first token of each later source, where the answer before is learnt, and one more token at
// the end. Turns without an answer are left out.
TrainingSample training_sample(const std::vector<EncodedTurn>& turns,
                               std::optional<int32_t> efficient_eos, const LabelOptions& options);

// A tokenizer as a named template wants it: its eos may be the first stop word.
class TurnEncoder {
 public:
  // Throws DataError where the template needs a token that the tokenizer does not have.
  TurnEncoder(std::shared_ptr<const Tokenizer> tokenizer, const NamedTemplate& named);

  // Every part is tokenized by itself, without what the tokenizer puts around a text.
  std::vector<EncodedTurn> encode(const Turns& turns) const;
  TrainingSample sample(const std::vector<EncodedTurn>& turns,
                        const LabelOptions& options = {}) const;

  std::optional<int32_t> bos() const { return bos_; }
  std::optional<int32_t> eos() const { return eos_; }
  std::optional<int32_t> pad() const { return pad_; }
  bool efficient_eos() const { return efficient_eos_; }
  // Where generation ends.
  const std::vector<int32_t>& stop_ids() const { return stop_ids_; }
  // Their texts; empty where there is none.
  std::string bos_text() const;
  std::string eos_text() const;
  // Stop words that the tokenizer does not have.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  void encode(const Slot& slot, std::vector<int32_t>& ids) const;
  int32_t required(const std::string& token) const;

  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string name_;
  bool efficient_eos_;
  std::optional<int32_t> bos_, eos_, pad_;
  std::vector<int32_t> stop_ids_;
  std::vector<std::string> warnings_;
};

}  // namespace qianli::text::chat
