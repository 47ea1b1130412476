// What a WordPiece tokenizer knows, prepared for its inner loops.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "encoder/wordpiece_added.h"
#include "encoder/wordpiece_vocab.h"

namespace nf::encoder {

enum class Ascii : std::uint8_t { word, space, punctuation, dropped };

struct WordPieceRules {
  explicit WordPieceRules(WordPieceSettings settings);

  // What a normalized added token is looked for as.
  std::u32string normalized_form(const std::u32string& text) const;

  Vocabulary vocabulary;
  std::int32_t unknown;
  std::size_t longest_word;
  bool clean, chinese, strip, lower;
  AddedTokens added;             // looked for in the text as it is
  AddedTokens added_normalized;  // looked for in the normalized text
  std::vector<std::int32_t> before, after;
  std::int32_t highest_id = 0;

  std::array<Ascii, 128> ascii{};
  std::array<std::uint8_t, 128> ascii_lower{};
  std::array<std::int32_t, 128> ascii_id{};  // of a word of this character alone
  // What a character adds to a word: 0 where it may end the word, start an added token, or is not ASCII.
  std::array<std::uint8_t, 256> run{};
};

}  // namespace nf::encoder
