// The BERT normalizer, character by character: clean, put spaces around Chinese characters, decompose and drop accents, lower the case.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "encoder/wordpiece_words.h"

namespace nf::encoder {

// Sink: Words, or NormalizedPieces before it.
template <typename Sink>
class Normalizer {
 public:
  Normalizer(const WordPieceRules& rules, Sink& sink) : rules_(rules), sink_(sink), finder_(rules.added) {}

  void begin() {
    finder_.restart();
    waiting_.clear();
  }

  // Takes a piece of the text and returns how much of it; less than all where the sink is full, or where (not `last`) a token may start that
  // more text decides. `last`: the text ends here.
  template <typename Unit>
  std::size_t feed(const Unit* begin, const Unit* end, bool last) {
    const Unit* p = begin;
    while (p != end && !sink_.full()) {
      if constexpr (kDirect) {
        if (*p < 128 && rules_.run[*p] != 0) {
          release();
          p = sink_.take_run(p, end);
          continue;
        }
      }
      if (rules_.added.may_start(*p)) {
        const AddedToken* token = nullptr;
        const AddedFinder::Answer answer = finder_.at(begin, p, end, last, &token);
        if (answer == AddedFinder::Answer::open) break;
        if (answer == AddedFinder::Answer::yes) {
          end_segment();
          sink_.add_id(token->id);
          p += token->text.size();
          continue;
        }
      }
      take(*p++);
    }
    finder_.advance(begin, p);
    if (last && !sink_.full()) end_segment();
    return static_cast<std::size_t>(p - begin);
  }

 private:
  static constexpr bool kDirect = std::is_same_v<Sink, Words>;

  void take(std::uint32_t c) {
    if (c < 128) {
      take_ascii(c);
      return;
    }
    const unicode::Record& record = unicode::record(c);
    if (rules_.clean) {
      if ((record.flags & unicode::kRemoved) != 0) return;
      if ((record.flags & unicode::kSpace) != 0) {
        take_ascii(' ');
        return;
      }
    }
    const bool apart = rules_.chinese && (record.flags & unicode::kChinese) != 0;
    if (apart) take_ascii(' ');
    if (rules_.strip) {
      decompose(c, record);
    } else {
      add_lowered(c, record);
    }
    if (apart) take_ascii(' ');
  }

  void take_ascii(std::uint32_t c) {
    const Ascii kind = rules_.ascii[c];
    if (kind == Ascii::dropped) return;
    release();
    const std::uint32_t white_as_space = rules_.clean && kind == Ascii::space ? ' ' : rules_.ascii_lower[c];
    if constexpr (kDirect) {
      if (kind == Ascii::space) return sink_.end_word();
      if (kind == Ascii::punctuation) return sink_.add_ascii_punctuation(c);
    }
    sink_.add(white_as_space, unicode::record(white_as_space));
  }

  void decompose(std::uint32_t c, const unicode::Record& record) {
    if ((record.flags & unicode::kDecomposes) != 0) {
      const std::uint32_t* const parts = unicode::parts(c);
      for (std::uint32_t i = 1; i <= parts[0]; ++i) order(parts[i], unicode::record(parts[i]));
    } else if (unicode::is_hangul(c)) {
      using namespace unicode;
      const std::uint32_t syllable = c - kHangul, tail = syllable % kTails;
      const std::uint32_t letters[3] = {kLead + syllable / (kVowels * kTails), kVowel + syllable / kTails % kVowels, kTail + tail};
      for (int i = 0; i < (tail != 0 ? 3 : 2); ++i) order(letters[i], unicode::record(letters[i]));
    } else {
      order(c, record);
    }
  }

  // Canonical ordering sorts runs of characters that are not starters. Accents go, whatever their order, so only the few that stay wait.
  void order(std::uint32_t c, const unicode::Record& record) {
    const bool stays = (record.flags & unicode::kMark) == 0;
    if (record.order == 0) {
      release();
      if (stays) add_lowered(c, record);
    } else if (stays) {
      // A word with more of them than the longest word is unknown in any order; where it may hold an added token, order matters.
      if (kDirect && waiting_.size() > rules_.longest_word) return;
      waiting_.push_back({record.order, c});
    }
  }

  // Ends a run of characters that are not starters.
  void release() {
    if (!waiting_.empty()) release_waiting();
  }
  void release_waiting() {
    std::stable_sort(waiting_.begin(), waiting_.end(), [](const Waiting& a, const Waiting& b) { return a.order < b.order; });
    for (const Waiting& one : waiting_) add_lowered(one.c, unicode::record(one.c));
    waiting_.clear();
  }

  void add_lowered(std::uint32_t c, const unicode::Record& record) {
    if (!rules_.lower) {
      sink_.add(c, record);
    } else if ((record.flags & unicode::kLowersToMany) != 0) {
      const std::uint32_t* entry = unicode::kLowerMany;
      while (entry[0] != c) entry += 2 + entry[1];
      for (std::uint32_t i = 0; i < entry[1]; ++i) sink_.add(entry[2 + i], unicode::record(entry[2 + i]));
    } else if (record.lower != 0) {
      const std::uint32_t small = c + static_cast<std::uint32_t>(record.lower);
      sink_.add(small, unicode::record(small));
    } else {
      sink_.add(c, record);
    }
  }

  void end_segment() {
    release();
    sink_.end_segment();
  }

  struct Waiting {
    std::uint8_t order;
    std::uint32_t c;
  };

  const WordPieceRules& rules_;
  Sink& sink_;
  AddedFinder finder_;
  std::vector<Waiting> waiting_;
};

}  // namespace nf::encoder
