// WordPiece tokenization as BERT's family has it: normalize, split at spaces and punctuation, take the longest pieces from the left. The ids are
// those of the `tokenizers` library, for any text (docs/encoder.md, tests/test_wordpiece*.py). Immutable: any number of threads may encode.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "encoder/wordpiece_vocab.h"

namespace nf::encoder {

// Borrowed code points, 1, 2 or 4 bytes each (as Python keeps its strings), none of them a surrogate or above U+10FFFF.
struct TextView {
  const void* data = nullptr;
  std::size_t length = 0;
  int width = 1;
};

// A token found in the text as it is (or after normalization) before the text is split into words.
struct AddedToken {
  std::u32string text;
  std::int32_t id = 0;
  bool single_word = false;  // not where it touches a letter or digit
  bool normalized = false;   // its normalized form is looked for in the normalized text
  bool trims = false;        // takes the white space beside it: no id changes by that, unless some token holds white space
};

struct WordPieceSettings {
  std::vector<Vocabulary::Entry> vocabulary;
  std::string unknown = "[UNK]";  // an entry: what stands for a word that has no pieces
  std::string prefix = "##";      // what pieces inside a word begin with
  std::uint32_t longest_word = 100;  // characters; longer words are unknown
  bool clean = true;              // drop control characters, make every white space a space
  bool chinese = true;            // Chinese characters are words
  bool strip = true;              // drop accents
  bool lower = true;              // lower case
  std::vector<AddedToken> added;
  std::vector<std::int32_t> before, after;  // ids put around every text
};

// The ids of texts, one behind the other; text i has [offsets[i], offsets[i + 1]).
struct Tokens {
  std::vector<std::int32_t> ids;
  std::vector<std::int64_t> offsets{0};
  std::size_t truncated = 0;  // texts that had more tokens than allowed
};

struct WordPieceRules;

class WordPiece {
 public:
  // Throws InputError where the settings contradict each other, or ask for what this tokenizer does not do.
  explicit WordPiece(WordPieceSettings settings);
  ~WordPiece();
  WordPiece(const WordPiece&) = delete;
  WordPiece& operator=(const WordPiece&) = delete;

  // Appends the ids of `prompt` followed by each text, at most `max_tokens` each, ids around it included; max_tokens >= fewest_tokens().
  // A text is read only as far as its tokens are wanted; memory beside the ids does not grow with it.
  void encode(const TextView& prompt, const TextView* texts, std::size_t count, std::size_t max_tokens, Tokens& tokens) const;

  // How many ids surround every text.
  std::size_t fewest_tokens() const;

  // The highest id that a text can have.
  std::int32_t highest_id() const;

 private:
  std::unique_ptr<const WordPieceRules> rules_;
};

}  // namespace nf::encoder
