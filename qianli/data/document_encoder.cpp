#include "qianli/data/document_encoder.h"

namespace qianli::data {

DocumentEncoder document_encoder(std::shared_ptr<const text::Tokenizer> tokenizer) {
  DocumentEncoder encoder;
  encoder.vocab_size = tokenizer->vocab_size();
  encoder.eod = tokenizer->eos_id();
  encoder.fingerprint = tokenizer->fingerprint();
  encoder.encode = [tokenizer](std::string_view text, std::vector<int32_t>& ids) {
    tokenizer->encode_to(text, true, ids);
  };
  return encoder;
}

}  // namespace qianli::data
