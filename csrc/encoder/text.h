// Texts to vectors in one call: tokens and model together, nothing of Python in between.
#pragma once

#include <cstddef>

#include "base/status.h"
#include "encoder/model.h"
#include "encoder/wordpiece.h"

namespace nf::encoder {

// Writes the vectors of `prompt` followed by each text to out, (count, width), and counts the texts that were cut to `max_tokens`. The same
// bits as WordPiece::encode and Model::encode one after the other. bad_input: a token that the model's table lacks, or
// max_tokens out of the range that both allow.
Status encode_texts(const WordPiece& tokenizer, const Model& model, const TextView& prompt, const TextView* texts, std::size_t count,
                    std::size_t max_tokens, float* out, int threads, std::size_t& truncated);

}  // namespace nf::encoder
