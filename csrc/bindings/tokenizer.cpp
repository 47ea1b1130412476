#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <limits>
#include <tuple>

#include "bindings/module.h"
#include "bindings/texts.h"
#include "encoder/text.h"
#include "encoder/wordpiece.h"
#include "parallel/pool.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using encoder::Tokens;
using encoder::WordPiece;
using encoder::WordPieceSettings;

// text, id, single word, normalized, trims
using Added = std::tuple<py::str, std::int32_t, bool, bool, bool>;

std::string utf8_of(py::handle text, const std::string& what) {
  check_surrogates(view_of(text, what), what);
  Py_ssize_t bytes = 0;
  const char* const data = PyUnicode_AsUTF8AndSize(text.ptr(), &bytes);
  if (data == nullptr) throw py::error_already_set();
  return std::string(data, static_cast<std::size_t>(bytes));
}

std::u32string points_of(py::handle text, const std::string& what) {
  const encoder::TextView view = view_of(text, what);
  check_surrogates(view, what);
  std::u32string points(view.length, U'\0');
  for (std::size_t i = 0; i < view.length; ++i) points[i] = PyUnicode_READ(static_cast<int>(PyUnicode_KIND(text.ptr())), view.data, static_cast<Py_ssize_t>(i));
  return points;
}

std::vector<encoder::Vocabulary::Entry> entries_of(const py::dict& vocabulary) {
  std::vector<encoder::Vocabulary::Entry> entries;
  entries.reserve(vocabulary.size());
  for (const auto& [text, id] : vocabulary) {
    const long long number = PyLong_Check(id.ptr()) ? PyLong_AsLongLong(id.ptr()) : -1;
    PyErr_Clear();  // an int beyond 64 bits came back as -1
    if (number < 0 || number > std::numeric_limits<std::int32_t>::max()) throw InputError("vocabulary: an id that is no whole number from 0 to 2^31 - 1");
    entries.emplace_back(utf8_of(text, "vocabulary"), static_cast<std::int32_t>(number));
  }
  return entries;
}

std::unique_ptr<WordPiece> make(const py::dict& vocabulary, const py::str& unknown, const py::str& prefix, std::uint32_t longest_word, bool clean,
                                bool chinese, bool strip, bool lower, const std::vector<Added>& added, std::vector<std::int32_t> before,
                                std::vector<std::int32_t> after) {
  WordPieceSettings settings;
  settings.vocabulary = entries_of(vocabulary);
  settings.unknown = utf8_of(unknown, "unknown");
  settings.prefix = utf8_of(prefix, "prefix");
  settings.longest_word = longest_word;
  settings.clean = clean;
  settings.chinese = chinese;
  settings.strip = strip;
  settings.lower = lower;
  for (const auto& [text, id, single_word, normalized, trims] : added) {
    if (id < 0) throw InputError("added tokens: a negative id");
    settings.added.push_back({points_of(text, "added tokens"), id, single_word, normalized, trims});
  }
  settings.before = std::move(before);
  settings.after = std::move(after);
  const py::gil_scoped_release release;
  return std::make_unique<WordPiece>(std::move(settings));
}

template <typename T>
py::array_t<T> array_of(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::tuple encode(const WordPiece& tokenizer, const py::list& list, std::size_t max_tokens, const py::str& prompt) {
  const Texts texts(list, "texts");
  const encoder::TextView front = view_of(prompt, "prompt");
  Tokens tokens;
  {
    const py::gil_scoped_release release;  // safe: the strings are held by `texts` and the caller's frame
    texts.check();
    check_surrogates(front, "prompt");
    tokenizer.encode(front, texts.data(), texts.size(), max_tokens, tokens);
  }
  return py::make_tuple(array_of(tokens.ids), array_of(tokens.offsets), tokens.truncated);
}

py::tuple encode_texts(const WordPiece& tokenizer, const encoder::Model& model, const py::list& list, std::size_t max_tokens, const py::str& prompt,
                       int threads) {
  const Texts texts(list, "texts");
  const encoder::TextView front = view_of(prompt, "prompt");
  const int count = parallel::resolve_threads(threads);
  py::array_t<float> out({texts.size(), static_cast<std::size_t>(model.shape().width)});
  float* const place = out.mutable_data();
  std::size_t truncated = 0;
  Status found;
  {
    const py::gil_scoped_release release;  // safe: strings held by `texts` and the caller's frame, a fresh array by ours
    texts.check();
    check_surrogates(front, "prompt");
    found = encoder::encode_texts(tokenizer, model, front, texts.data(), texts.size(), max_tokens, place, count, truncated);
  }
  raise_if_bad(found);
  return py::make_tuple(out, truncated);
}

void check_texts(const py::list& list, const std::string& what) {
  const Texts texts(list, what);
  const py::gil_scoped_release release;
  texts.check();
}

}  // namespace

void register_tokenizer(py::module_& m) {
  py::class_<WordPiece>(m, "WordPiece", "BERT's normalizer, splitter and word pieces. Immutable; any number of threads may encode.")
      .def(py::init(&make), py::kw_only(), py::arg("vocabulary"), py::arg("unknown"), py::arg("prefix"), py::arg("longest_word"), py::arg("clean"),
           py::arg("chinese"), py::arg("strip"), py::arg("lower"), py::arg("added"), py::arg("before"), py::arg("after"),
           "vocabulary: texts and ids. added: (text, id, single_word, normalized, trims). before, after: ids around every text.")
      .def("encode", &encode, py::arg("texts"), py::arg("max_tokens"), py::arg("prompt") = py::str(""),
           "ids int32, those of text i from offsets[i] to offsets[i + 1], offsets int64 (n + 1), and how many texts were cut.")
      .def_property_readonly("fewest_tokens", &WordPiece::fewest_tokens, "How many ids surround every text: the least max_tokens.")
      .def_property_readonly("highest_id", &WordPiece::highest_id, "The highest id that a text can have.");
  m.def("check_texts", &check_texts, py::arg("texts"), py::arg("what") = "texts", "InputError, with its place, for what is no str or holds a lone surrogate.");
  m.def("encode_texts", &encode_texts, py::arg("tokenizer"), py::arg("model"), py::arg("texts"), py::arg("max_tokens"), py::arg("prompt") = py::str(""),
        py::arg("threads") = 0, "Texts to pooled vectors in one call: float32 (n, width), and how many texts were cut.");
}

}  // namespace nf::bindings
