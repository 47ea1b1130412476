// What normalization does with each code point. The arrays are written by make_unicode_tables.py, which asks the `tokenizers` library.
#pragma once

#include <cstdint>

namespace nf::encoder::unicode {

enum : std::uint16_t {
  kRemoved = 1,        // cleaning drops it: control and format characters, U+0000, U+FFFD
  kSpace = 2,          // cleaning makes it a space
  kChinese = 4,        // gets a space on either side
  kWhite = 8,          // separates words
  kPunctuation = 16,   // a word of its own
  kMark = 32,          // dropped with the accents
  kWordChar = 64,      // a single-word token may not touch it
  kDecomposes = 128,   // has parts in kParts
  kLowersToMany = 256  // has several characters in kLowerMany
};

struct Record {
  std::uint16_t flags;
  std::uint8_t order;  // canonical combining order: 0 for starters; runs of others are sorted by it
  std::int32_t lower;  // what to add for the lower case
};

constexpr std::uint32_t kBlock = 128;
constexpr std::uint32_t kCodePoints = 0x110000;

// A code point's record: kRecords[kRecordBlocks[kRecordIndex[c / kBlock] * kBlock + c % kBlock]].
extern const Record kRecords[];
extern const std::uint16_t kRecordIndex[];
extern const std::uint8_t kRecordBlocks[];
// Where a code point's parts are: at kParts + the same lookup; how many, then the parts, decomposed to the end.
extern const std::uint8_t kPartsIndex[];
extern const std::uint16_t kPartsBlocks[];
extern const std::uint32_t kParts[];
// Code point, how many, its lower case; and so on until a 0.
extern const std::uint32_t kLowerMany[];

inline const Record& record(std::uint32_t c) { return kRecords[kRecordBlocks[kRecordIndex[c / kBlock] * kBlock + c % kBlock]]; }
inline const std::uint32_t* parts(std::uint32_t c) { return kParts + kPartsBlocks[kPartsIndex[c / kBlock] * kBlock + c % kBlock]; }

// Hangul syllables decompose by arithmetic.
constexpr std::uint32_t kHangul = 0xAC00, kHangulCount = 11172, kVowels = 21, kTails = 28, kLead = 0x1100, kVowel = 0x1161, kTail = 0x11A7;
inline bool is_hangul(std::uint32_t c) { return c - kHangul < kHangulCount; }

}  // namespace nf::encoder::unicode
