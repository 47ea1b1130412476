// Added tokens ("[SEP]" typed by a user): where one starts in a text, and which is the longest.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "encoder/unicode_tables.h"
#include "encoder/wordpiece.h"

namespace nf::encoder {

class AddedTokens {
 public:
  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    std::sort(tokens_.begin(), tokens_.end(), [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
    for (const AddedToken& token : tokens_) {
      longest_ = std::max(longest_, token.text.size());
      if (token.text[0] < 128) {
        ascii_[token.text[0]] = true;
      } else {
        beyond_ascii_ = true;
      }
    }
  }

  bool empty() const { return tokens_.empty(); }
  std::size_t longest() const { return longest_; }
  bool may_start(std::uint32_t c) const { return c < 128 ? ascii_[c] : beyond_ascii_; }

  struct Match {
    const AddedToken* token = nullptr;  // the longest that starts here
    bool open = false;                  // with more text it might be another, or one at all
  };

  // The tokens are sorted, so those that start like the text are a range, which narrows with every character.
  template <typename Unit>
  Match starting(const Unit* begin, const Unit* end) const {
    Match match;
    auto low = tokens_.begin(), high = tokens_.end();
    for (std::size_t depth = 0;; ++depth) {
      if (low != high && low->text.size() == depth) match.token = &*low++;
      if (low == high) return match;
      if (begin + depth == end) {
        match.open = true;
        return match;
      }
      const char32_t c = begin[depth];
      low = std::partition_point(low, high, [&](const AddedToken& token) { return token.text[depth] < c; });
      high = std::partition_point(low, high, [&](const AddedToken& token) { return token.text[depth] <= c; });
    }
  }

 private:
  std::vector<AddedToken> tokens_;
  std::array<bool, 128> ascii_{};
  bool beyond_ascii_ = false;
  std::size_t longest_ = 0;
};

// Finds added tokens one after the other: leftmost first, then longest, never overlapping, as one pass over all of a text in pieces.
class AddedFinder {
 public:
  explicit AddedFinder(const AddedTokens& tokens) : tokens_(tokens) {}

  // Before each text.
  void restart() { previous_ = kNothing, position_ = free_from_ = 0; }

  enum class Answer { no, yes, open };

  // Whether a token starts at `here` in the piece [begin, end); `last`: no more text follows. open: the piece must be given again, longer.
  template <typename Unit>
  Answer at(const Unit* begin, const Unit* here, const Unit* end, bool last, const AddedToken** token) {
    const std::uint64_t position = position_ + static_cast<std::uint64_t>(here - begin);
    if (position < free_from_) return Answer::no;
    const AddedTokens::Match match = tokens_.starting(here, end);
    if (match.open && !last) return Answer::open;
    if (match.token == nullptr) return Answer::no;
    const Unit* const stop = here + match.token->text.size();
    if (match.token->single_word) {
      if (stop == end && !last) return Answer::open;
      const std::uint32_t left = here == begin ? previous_ : static_cast<std::uint32_t>(here[-1]);
      const bool touches = (left != kNothing && is_word(left)) || (stop != end && is_word(*stop));
      // A token that is refused still covers its text: no other one starts inside.
      free_from_ = position + match.token->text.size();
      if (touches) return Answer::no;
    }
    *token = match.token;
    return Answer::yes;
  }

  // The piece is done up to `end`.
  template <typename Unit>
  void advance(const Unit* begin, const Unit* end) {
    if (begin == end) return;
    previous_ = end[-1];
    position_ += static_cast<std::uint64_t>(end - begin);
  }

 private:
  static constexpr std::uint32_t kNothing = ~0u;
  static bool is_word(std::uint32_t c) { return (unicode::record(c).flags & unicode::kWordChar) != 0; }

  const AddedTokens& tokens_;
  std::uint32_t previous_ = kNothing;
  std::uint64_t position_ = 0;
  std::uint64_t free_from_ = 0;  // refused tokens cover the text up to here
};

}  // namespace nf::encoder
