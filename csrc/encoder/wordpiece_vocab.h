// The words and word pieces of a vocabulary, in a double-array trie over their UTF-8 bytes: the longest entry at a place of a word is found
// in one walk over the bytes, one load for each.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace nf::encoder {

class Vocabulary {
 public:
  using Entry = std::pair<std::string, std::int32_t>;  // text and id >= 0

  // `prefix` is what continuations begin with ("##"). Entries may come in any order; an empty text is never found.
  // Throws InputError: two entries of the same text, a byte 255, a negative id, more than 16 million places needed.
  Vocabulary(std::vector<Entry> entries, const std::string& prefix);

  struct Found {
    std::size_t bytes = 0;  // of the longest entry; 0: none
    std::int32_t id = -1;
  };

  // The longest entry with which the text at [begin, end) starts; at the beginning of a word, or inside one (its prefix taken off).
  Found starting(const std::uint8_t* begin, const std::uint8_t* end) const { return walk(start_, begin, end); }
  Found continuing(const std::uint8_t* begin, const std::uint8_t* end) const { return walk(inside_, begin, end); }

  // The id of an entry, -1 where there is none.
  std::int32_t id_of(const std::string& text) const;

  std::int32_t highest_id() const { return highest_id_; }
  std::size_t bytes() const { return units_.size() * sizeof(Unit); }

 private:
  // A node is named by its base: its child for byte c is the unit at base ^ c, if that unit's low byte is c + 1. No two nodes have the same
  // base, so the label alone tells whose child a unit is. Base 0 is nobody's: nodes without children.
  struct Unit {
    std::uint32_t link = 0;  // base of the node << 8 | label + 1; 0: free
    std::int32_t id = -1;
  };
  class Builder;

  Found walk(std::uint32_t base, const std::uint8_t* begin, const std::uint8_t* end) const {
    Found found;
    const Unit* const units = units_.data();
    for (const std::uint8_t* p = begin; p != end; ++p) {
      const Unit unit = units[base ^ *p];
      if ((unit.link & 255u) != *p + 1u) break;
      if (unit.id >= 0) found = {static_cast<std::size_t>(p - begin) + 1, unit.id};
      base = unit.link >> 8;
    }
    return found;
  }

  std::vector<Unit> units_;
  std::uint32_t start_ = 0;
  std::uint32_t inside_ = 0;
  std::int32_t highest_id_ = -1;
};

}  // namespace nf::encoder
