// The tokenizer without Python: texts end with their allocation, so that a character read too far is seen by the address sanitizer.
#include <cstdint>
#include <cstring>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "encoder/wordpiece.h"
#include "harness.h"
#include "oracle.h"

namespace nf::test {
namespace {

using encoder::AddedToken;
using encoder::TextView;
using encoder::Tokens;
using encoder::Vocabulary;
using encoder::WordPiece;
using encoder::WordPieceSettings;

WordPieceSettings settings_of(bool with_added) {
  WordPieceSettings settings;
  const char* const entries[] = {"[UNK]", "[CLS]", "[SEP]", "the", "un", "##aff", "##able", "a", "##a", "caf", "cafe", "##e", "e", "!", "i"};
  for (const char* entry : entries) settings.vocabulary.emplace_back(entry, static_cast<std::int32_t>(settings.vocabulary.size()));
  settings.before = {1};
  settings.after = {2};
  settings.added = {{U"[SEP]", 2, false, false, false}};
  if (with_added) {
    settings.added.push_back({U"foo", 20, true, false, false});
    settings.added.push_back({U"Bar", 21, false, true, false});
    settings.added.push_back({U"Barbara", 22, true, true, false});
  }
  return settings;
}

template <typename Unit>
std::vector<std::int32_t> ids_of(const WordPiece& tokenizer, const std::u32string& text, std::size_t limit, const std::u32string& prompt = U"") {
  Tight<Unit> units(text.size(), 0), front(prompt.size(), 0);
  for (std::size_t i = 0; i < text.size(); ++i) units[i] = static_cast<Unit>(text[i]);
  for (std::size_t i = 0; i < prompt.size(); ++i) front[i] = static_cast<Unit>(prompt[i]);
  const TextView view{units.data(), text.size(), sizeof(Unit)}, before{front.data(), prompt.size(), sizeof(Unit)};
  Tokens tokens;
  tokenizer.encode(before, &view, 1, limit, tokens);
  CHECK(tokens.offsets.size() == 2 && tokens.offsets[1] == static_cast<std::int64_t>(tokens.ids.size()));
  return tokens.ids;
}

using Ids = std::vector<std::int32_t>;

TEST(wordpiece_finds_pieces_words_and_added_tokens) {
  const WordPiece plain(settings_of(false)), added(settings_of(true));
  CHECK(plain.fewest_tokens() == 2 && plain.highest_id() == 14 && added.highest_id() == 22);
  CHECK(ids_of<std::uint8_t>(plain, U"the UNAFFABLE a!", 100) == Ids{1, 3, 4, 5, 6, 7, 13, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"unaffablex the", 100) == Ids{1, 0, 3, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"caf\u00e9 CAF\u00c9", 100) == Ids{1, 10, 10, 2});
  CHECK(ids_of<std::uint16_t>(plain, U"cafe\u0301 \u0130", 100) == Ids{1, 10, 14, 2});
  CHECK(ids_of<std::uint32_t>(plain, U"a\U0001f642 the", 100) == Ids{1, 0, 3, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"the[SEP]a", 100) == Ids{1, 3, 2, 7, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"", 2) == Ids{1, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"the a the", 4) == Ids{1, 3, 7, 2});
  CHECK(ids_of<std::uint8_t>(plain, std::u32string(100, U'a'), 300).size() == 102);
  CHECK(ids_of<std::uint8_t>(plain, std::u32string(101, U'a'), 300) == Ids{1, 0, 2});
  CHECK(ids_of<std::uint8_t>(added, U"foo xfoo foo! bar BARbara barbaraa", 100) == Ids{1, 20, 0, 20, 13, 21, 22, 0, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"P]a", 100, U"the [SE") == Ids{1, 3, 2, 7, 2});
  CHECK(ids_of<std::uint8_t>(plain, U"affable", 100, U"un") == Ids{1, 4, 5, 6, 2});
}

TEST(wordpiece_refuses_settings_it_cannot_keep) {
  WordPieceSettings settings = settings_of(false);
  settings.unknown = "[NONE]";
  CHECK_THROWS(InputError, "is no entry", WordPiece{settings});
  settings = settings_of(false);
  settings.vocabulary.emplace_back("the", 99);
  CHECK_THROWS(InputError, "twice", WordPiece{settings});
  settings = settings_of(false);
  settings.added.push_back({U"\u0301", 30, false, true, false});
  CHECK_THROWS(InputError, "nothing is left", WordPiece{settings});
  settings = settings_of(false);
  settings.added.push_back({U"new york", 30, false, false, true});
  CHECK_THROWS(InputError, "white space", WordPiece{settings});
  settings = settings_of(false);
  settings.vocabulary.emplace_back("\xff", 30);
  CHECK_THROWS(InputError, "not UTF-8", WordPiece{settings});
  const WordPiece tokenizer(settings_of(false));
  CHECK_THROWS(InputError, "max_tokens: 1", ids_of<std::uint8_t>(tokenizer, U"a", 1));
}

TEST(wordpiece_has_every_entry_of_a_large_vocabulary) {
  Random random(6);
  WordPieceSettings settings;
  settings.vocabulary = {{"[UNK]", 0}};
  std::vector<std::string> words;
  for (std::int32_t id = 1; id < (kSanitized ? 4000 : 40000); ++id) {
    std::string word = std::to_string(id);
    for (std::size_t i = random() % 6; i > 0; --i) word.push_back(static_cast<char>('a' + random() % 26));
    words.push_back(word + "_");  // no two alike, and none begins another
    settings.vocabulary.emplace_back(words.back(), id);
  }
  Vocabulary vocabulary(settings.vocabulary, "##");
  for (std::size_t i = 0; i < words.size(); ++i) CHECK(vocabulary.id_of(words[i]) == static_cast<std::int32_t>(i) + 1);
  CHECK(vocabulary.id_of("") == -1 && vocabulary.id_of("1") == -1 && vocabulary.id_of("no") == -1);
}

TEST(wordpiece_takes_any_text_of_any_width) {
  const WordPiece plain(settings_of(false)), added(settings_of(true));
  const std::u32string odd = U"a\u0301\u302e\u302f\u0323 [SEP]foBarbara\u00e9\u00c9\u0130\uac01\u6f22\U0001d165\U0010ffff\u200b\t\u3000!#\x00\x7f";
  Random random(8);
  for (int round = 0; round < (kSanitized ? 3000 : 20000); ++round) {
    std::u32string text, prompt;
    for (std::size_t i = random() % 40; i > 0; --i) {
      const char32_t c = random() % 3 == 0 ? static_cast<char32_t>(random() % 0x110000) : odd[random() % odd.size()];
      (i > 30 ? prompt : text).push_back(c - 0xD800 < 0x800 ? U'x' : c);
    }
    for (const WordPiece* tokenizer : {&plain, &added}) {
      const std::size_t limit = 2 + random() % 12;
      const Ids whole = ids_of<std::uint32_t>(*tokenizer, prompt + text, limit);
      CHECK(whole.size() >= 2 && whole.size() <= limit && whole.front() == 1 && whole.back() == 2);
      CHECK(ids_of<std::uint32_t>(*tokenizer, text, limit, prompt) == whole);
      std::u32string narrow = text;
      for (char32_t& c : narrow) c &= 0xff;
      CHECK(ids_of<std::uint8_t>(*tokenizer, narrow, limit) == ids_of<std::uint16_t>(*tokenizer, narrow, limit));
    }
  }
}

TEST(wordpiece_serves_threads_at_once) {
  const WordPiece tokenizer(settings_of(true));
  const Ids wanted = ids_of<std::uint8_t>(tokenizer, U"the unaffable foo bar", 100);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) CHECK(ids_of<std::uint8_t>(tokenizer, U"the unaffable foo bar", 100) == wanted);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace nf::test
