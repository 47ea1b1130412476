#include "encoder/text.h"

#include <algorithm>
#include <string>

namespace nf::encoder {
namespace {

// Texts whose tokens are held at once: 1 MB for texts of 256 tokens, and enough chunks for every thread.
constexpr std::size_t kWindow = 1024;

}  // namespace

Status encode_texts(const WordPiece& tokenizer, const Model& model, const TextView& prompt, const TextView* texts, std::size_t count,
                    std::size_t max_tokens, float* out, int threads, std::size_t& truncated) {
  const Shape& shape = model.shape();
  truncated = 0;
  const std::size_t least = std::max<std::size_t>(1, tokenizer.fewest_tokens());
  if (max_tokens < least || max_tokens > shape.positions) {
    return Status::bad_input("max_tokens: " + std::to_string(max_tokens) + " given, " + std::to_string(least) + " to " + std::to_string(shape.positions) +
                             " expected");
  }
  Tokens tokens;
  for (std::size_t start = 0; start < count; start += kWindow) {
    const std::size_t end = std::min(count, start + kWindow);
    tokens.ids.clear();
    tokens.offsets.assign(1, 0);
    tokenizer.encode(prompt, texts + start, end - start, max_tokens, tokens);
    const Status found = model.encode(tokens.ids.data(), tokens.offsets.data(), end - start, out + start * shape.width, threads);
    if (!found.ok()) return found;
  }
  truncated = tokens.truncated;
  return Status::good();
}

}  // namespace nf::encoder
