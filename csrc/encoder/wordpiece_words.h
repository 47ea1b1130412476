// Normalized characters to words, and words to ids.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "encoder/unicode_tables.h"
#include "encoder/wordpiece_rules.h"

namespace nf::encoder {

// Writes a code point and returns the place behind it.
inline std::uint8_t* put_utf8(std::uint8_t* out, std::uint32_t c) {
  if (c < 0x80) {
    *out++ = static_cast<std::uint8_t>(c);
    return out;
  }
  if (c < 0x800) {
    *out++ = static_cast<std::uint8_t>(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      *out++ = static_cast<std::uint8_t>(0xE0 | c >> 12);
    } else {
      *out++ = static_cast<std::uint8_t>(0xF0 | c >> 18);
      *out++ = static_cast<std::uint8_t>(0x80 | (c >> 12 & 63));
    }
    *out++ = static_cast<std::uint8_t>(0x80 | (c >> 6 & 63));
  }
  *out++ = static_cast<std::uint8_t>(0x80 | (c & 63));
  return out;
}

class Words {
 public:
  Words(const WordPieceRules& rules, std::vector<std::int32_t>& ids) : rules_(rules), ids_(ids), letters_(4 * rules.longest_word + 8) {}

  // A text begins; it may have `limit` ids.
  void begin(std::size_t limit) {
    first_ = ids_.size();
    limit_ = limit;
    end_ = letters_.data();
    characters_ = 0;
  }

  bool full() const { return ids_.size() - first_ > limit_; }

  // Cuts a full text; returns whether it was one.
  bool cut() {
    if (!full()) return false;
    ids_.resize(first_ + limit_);
    return true;
  }

  void add(std::uint32_t c, const unicode::Record& record) {
    if ((record.flags & (unicode::kWhite | unicode::kPunctuation)) == 0) {
      append(c);
      return;
    }
    end_word();
    if ((record.flags & unicode::kPunctuation) != 0) {
      append(c);
      end_word();
    }
  }

  // Takes characters as long as rules.run has them; returns the first that it has not.
  template <typename Unit>
  const Unit* take_run(const Unit* p, const Unit* end) {
    const std::size_t room = characters_ <= rules_.longest_word ? rules_.longest_word + 1 - characters_ : 0;
    const Unit* const stop = static_cast<std::size_t>(end - p) > room ? p + room : end;
    const Unit* const start = p;
    std::uint8_t* out = end_;
    for (; p != stop; ++p) {
      const std::uint8_t letter = letter_of(*p);
      if (letter == 0) break;
      *out++ = letter;
    }
    end_ = out;
    if (p == stop) {
      while (p != end && letter_of(*p) != 0) ++p;  // too long already: only to be skipped
    }
    characters_ += static_cast<std::size_t>(p - start);
    return p;
  }

  void end_word() {
    if (characters_ == 0) return;
    const std::uint8_t* const begin = letters_.data();
    if (characters_ > rules_.longest_word) {
      ids_.push_back(rules_.unknown);
    } else {
      const Vocabulary::Found found = rules_.vocabulary.starting(begin, end_);
      if (begin + found.bytes == end_) {
        ids_.push_back(found.id);
      } else {
        add_pieces(begin, found);
      }
    }
    end_ = letters_.data();
    characters_ = 0;
  }

  void end_segment() { end_word(); }
  void add_ascii_punctuation(std::uint32_t c) {
    end_word();
    ids_.push_back(rules_.ascii_id[c]);
  }
  void add_id(std::int32_t id) { ids_.push_back(id); }

 private:
  template <typename Unit>
  std::uint8_t letter_of(Unit c) const {
    if constexpr (sizeof(Unit) == 1) return rules_.run[c];
    return c < 128 ? rules_.run[c] : 0;
  }

  void append(std::uint32_t c) {
    if (characters_ <= rules_.longest_word) end_ = put_utf8(end_, c);
    ++characters_;
  }

  void add_pieces(const std::uint8_t* begin, Vocabulary::Found found) {
    const std::size_t before = ids_.size();
    for (;;) {
      if (found.bytes == 0) {  // no piece fits: the whole word is unknown
        ids_.resize(before);
        ids_.push_back(rules_.unknown);
        return;
      }
      ids_.push_back(found.id);
      begin += found.bytes;
      if (begin == end_) return;
      found = rules_.vocabulary.continuing(begin, end_);
    }
  }

  const WordPieceRules& rules_;
  std::vector<std::int32_t>& ids_;
  std::vector<std::uint8_t> letters_;  // of the word so far; room for the longest and one character more
  std::uint8_t* end_ = nullptr;
  std::size_t characters_ = 0;  // of the word so far, those beyond the longest included
  std::size_t first_ = 0;
  std::size_t limit_ = 0;
};

// Between the normalizer and the words where added tokens are looked for in normalized text: keeps a piece of it.
class NormalizedPieces {
 public:
  NormalizedPieces(const WordPieceRules& rules, Words& words) : rules_(rules), words_(words), finder_(rules.added_normalized) {}

  void begin() {
    piece_.clear();
    finder_.restart();
  }
  bool full() const { return words_.full(); }
  void add(std::uint32_t c, const unicode::Record&) {
    piece_.push_back(c);
    if (piece_.size() >= kPiece + rules_.added_normalized.longest()) drain(false);
  }
  void end_segment() {
    drain(true);
    words_.end_word();
    finder_.restart();
  }
  void add_id(std::int32_t id) { words_.add_id(id); }

 private:
  static constexpr std::size_t kPiece = 1024;

  void drain(bool last) {
    const std::uint32_t* const begin = piece_.data();
    const std::uint32_t* const end = begin + piece_.size();
    const std::uint32_t* p = begin;
    while (p != end && !words_.full()) {
      if (rules_.added_normalized.may_start(*p)) {
        const AddedToken* token = nullptr;
        const AddedFinder::Answer answer = finder_.at(begin, p, end, last, &token);
        if (answer == AddedFinder::Answer::open) break;
        if (answer == AddedFinder::Answer::yes) {
          words_.end_word();
          words_.add_id(token->id);
          p += token->text.size();
          continue;
        }
      }
      words_.add(*p, unicode::record(*p));
      ++p;
    }
    finder_.advance(begin, p);
    piece_.erase(piece_.begin(), piece_.begin() + (p - begin));
  }

  const WordPieceRules& rules_;
  Words& words_;
  AddedFinder finder_;
  std::vector<std::uint32_t> piece_;
};

}  // namespace nf::encoder
