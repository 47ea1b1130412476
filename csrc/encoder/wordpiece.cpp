#include "encoder/wordpiece.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/status.h"
#include "encoder/wordpiece_normalizer.h"
#include "encoder/wordpiece_rules.h"

namespace nf::encoder {
namespace {

// Buffers of this size are made for every call; a word longer than it is unknown in any vocabulary seen (BERT's says 100).
constexpr std::uint32_t kLongestWord = 10000;

// The normalizer's output as it is.
class Collected {
 public:
  bool full() const { return false; }
  void add(std::uint32_t c, const unicode::Record& record) {
    text.push_back(c);
    movable |= record.order != 0;
  }
  void end_segment() {}
  void add_id(std::int32_t) {}
  std::u32string text;
  bool movable = false;  // holds characters that canonical ordering moves
};

bool has_white(const std::u32string& text) {
  for (const char32_t c : text) {
    if ((unicode::record(c).flags & unicode::kWhite) != 0) return true;
  }
  return false;
}

void check_points(const std::u32string& text) {
  if (text.empty()) throw InputError("added tokens: an empty one");
  for (const char32_t c : text) {
    if (c >= unicode::kCodePoints || (c >= 0xD800 && c < 0xE000)) throw InputError("added tokens: one is not Unicode text");
  }
}

template <typename Act>
void with_units(const TextView& text, const Act& act) {
  if (text.width == 1) return act(static_cast<const std::uint8_t*>(text.data));
  if (text.width == 2) return act(static_cast<const std::uint16_t*>(text.data));
  act(static_cast<const std::uint32_t*>(text.data));
}

// Prompt and text as one. They are fed one after the other without being copied, but where a token may lie across their border.
template <typename Sink>
void feed_both(Normalizer<Sink>& normalizer, const Sink& sink, const TextView& prompt, const TextView& text, std::size_t longest_added) {
  std::size_t done = 0;
  if (prompt.length > 0) {
    std::vector<std::uint32_t> border;
    with_units(prompt, [&](const auto* units) {
      const std::size_t taken = normalizer.feed(units, units + prompt.length, text.length == 0);
      border.assign(units + taken, units + prompt.length);
    });
    if (sink.full() || text.length == 0) return;
    if (!border.empty()) {
      const std::size_t tail = border.size(), more = std::min(text.length, longest_added + 2);
      with_units(text, [&](const auto* units) { border.insert(border.end(), units, units + more); });
      const std::size_t taken = normalizer.feed(border.data(), border.data() + border.size(), more == text.length);
      if (sink.full() || more == text.length) return;
      done = taken - tail;  // what starts in the tail is decided by `more`
    }
  }
  with_units(text, [&](const auto* units) { normalizer.feed(units + done, units + text.length, true); });
}

}  // namespace

WordPieceRules::WordPieceRules(WordPieceSettings settings)
    : vocabulary(std::move(settings.vocabulary), settings.prefix), unknown(vocabulary.id_of(settings.unknown)), longest_word(settings.longest_word),
      clean(settings.clean), chinese(settings.chinese), strip(settings.strip), lower(settings.lower), before(std::move(settings.before)),
      after(std::move(settings.after)) {
  for (const AddedToken& token : settings.added) highest_id = std::max(highest_id, token.id);
  highest_id = std::max(highest_id, vocabulary.highest_id());
  if (unknown < 0) throw InputError("vocabulary: the unknown token '" + settings.unknown + "' is no entry");
  if (longest_word > kLongestWord) throw InputError("longest word: at most " + std::to_string(kLongestWord) + " characters expected");
  for (std::uint32_t c = 0; c < 128; ++c) {
    const unicode::Record& record = unicode::record(c);
    const bool dropped = clean && (record.flags & unicode::kRemoved) != 0;
    const bool white = (clean && (record.flags & unicode::kSpace) != 0) || (record.flags & unicode::kWhite) != 0;
    const bool punctuation = (record.flags & unicode::kPunctuation) != 0;
    ascii[c] = dropped ? Ascii::dropped : white ? Ascii::space : punctuation ? Ascii::punctuation : Ascii::word;
    ascii_lower[c] = static_cast<std::uint8_t>(lower ? static_cast<std::int32_t>(c) + record.lower : static_cast<std::int32_t>(c));
    const std::int32_t id = longest_word > 0 ? vocabulary.id_of(std::string(1, static_cast<char>(ascii_lower[c]))) : -1;
    ascii_id[c] = id >= 0 ? id : unknown;
  }
  std::vector<AddedToken> as_they_are, normalized;
  std::set<std::u32string> seen, seen_normalized;
  bool trims = false, white = false;
  for (AddedToken& token : settings.added) {
    check_points(token.text);
    if (!seen.insert(token.text).second) throw InputError("added tokens: the same text twice");
    if (token.normalized) token.text = normalized_form(token.text);
    if (token.normalized && !seen_normalized.insert(token.text).second) throw InputError("added tokens: two are the same after normalization");
    trims |= token.trims;
    white |= has_white(token.text);
    (token.normalized ? normalized : as_they_are).push_back(std::move(token));
  }
  if (trims && white) throw InputError("added tokens: some hold white space, some take the white space beside them");
  added = AddedTokens(std::move(as_they_are));
  added_normalized = AddedTokens(std::move(normalized));
  for (std::uint32_t c = 0; c < 128; ++c) run[c] = ascii[c] == Ascii::word && !added.may_start(c) ? ascii_lower[c] : 0;
  for (const std::int32_t id : before) highest_id = std::max(highest_id, id);
  for (const std::int32_t id : after) highest_id = std::max(highest_id, id);
}

std::u32string WordPieceRules::normalized_form(const std::u32string& text) const {
  Collected collected;
  Normalizer<Collected> normalizer(*this, collected);
  normalizer.feed(text.data(), text.data() + text.size(), true);
  if (collected.text.empty()) throw InputError("added tokens: nothing is left of one after normalization");
  if (collected.movable) throw InputError("added tokens: a normalized one with characters that canonical ordering moves");
  return std::move(collected.text);
}

WordPiece::WordPiece(WordPieceSettings settings) : rules_(std::make_unique<const WordPieceRules>(std::move(settings))) {}
WordPiece::~WordPiece() = default;

std::size_t WordPiece::fewest_tokens() const { return rules_->before.size() + rules_->after.size(); }
std::int32_t WordPiece::highest_id() const { return rules_->highest_id; }

void WordPiece::encode(const TextView& prompt, const TextView* texts, std::size_t count, std::size_t max_tokens, Tokens& tokens) const {
  const WordPieceRules& rules = *rules_;
  if (max_tokens < fewest_tokens()) {
    throw InputError("max_tokens: " + std::to_string(max_tokens) + " given, at least the " + std::to_string(fewest_tokens()) +
                     " that surround every text expected");
  }
  Words words(rules, tokens.ids);
  NormalizedPieces pieces(rules, words);
  Normalizer<Words> direct(rules, words);
  Normalizer<NormalizedPieces> through_pieces(rules, pieces);
  const bool in_pieces = !rules.added_normalized.empty();
  for (std::size_t i = 0; i < count; ++i) {
    tokens.ids.insert(tokens.ids.end(), rules.before.begin(), rules.before.end());
    words.begin(max_tokens - fewest_tokens());
    if (in_pieces) {
      pieces.begin();
      through_pieces.begin();
      feed_both(through_pieces, pieces, prompt, texts[i], rules.added.longest());
    } else {
      direct.begin();
      feed_both(direct, words, prompt, texts[i], rules.added.longest());
    }
    if (words.cut()) ++tokens.truncated;
    tokens.ids.insert(tokens.ids.end(), rules.after.begin(), rules.after.end());
    tokens.offsets.push_back(static_cast<std::int64_t>(tokens.ids.size()));
  }
}

}  // namespace nf::encoder
