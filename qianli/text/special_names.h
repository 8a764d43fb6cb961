// The names special tokens usually have, the likeliest first.
#pragma once

#include <string_view>

namespace qianli::text {

inline constexpr std::string_view kBosNames[] = {
    "<s>", "<|begin_of_text|>", "<｜begin▁of▁sentence｜>", "<bos>", "[BOS]", "<|startoftext|>"};
inline constexpr std::string_view kEosNames[] = {
    "</s>",  "<|endoftext|>", "<|end_of_text|>", "<｜end▁of▁sentence｜>",
    "<eos>", "[EOS]",         "<|eot_id|>",      "<|im_end|>"};
inline constexpr std::string_view kPadNames[] = {"<pad>", "<|pad|>", "<|padding|>", "[PAD]",
                                                 "<｜▁pad▁｜>"};

}  // namespace qianli::text
