// Python strings at the engine's door: borrowed where they lie, never encoded or copied.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "base/status.h"
#include "encoder/wordpiece.h"

namespace nf::bindings {

// The code points of a str, which must outlive the view. Throws InputError, which begins with `what`, for anything else.
inline encoder::TextView view_of(pybind11::handle text, const std::string& what) {
  if (!PyUnicode_Check(text.ptr())) {
    throw InputError(what + ": " + std::string(pybind11::str(pybind11::type::handle_of(text).attr("__name__"))) + " given, str expected");
  }
#if PY_VERSION_HEX < 0x030C0000  // a str of the old C interface gets its characters at first use
  if (PyUnicode_READY(text.ptr()) != 0) throw pybind11::error_already_set();
#endif
  encoder::TextView view;
  view.data = PyUnicode_DATA(text.ptr());
  view.length = static_cast<std::size_t>(PyUnicode_GET_LENGTH(text.ptr()));
  view.width = static_cast<int>(PyUnicode_KIND(text.ptr()));
  return view;
}

// Where the first lone surrogate is (no other kind is in a str); the length where there is none.
template <typename Unit>
std::size_t first_surrogate(const Unit* units, std::size_t length) {
  std::size_t i = 0;
  // In blocks without a branch inside, which the compiler turns into vector code: 10 MB take a millisecond or two.
  for (; i + 64 <= length; i += 64) {
    unsigned found = 0;
    for (std::size_t j = i; j < i + 64; ++j) found |= static_cast<unsigned>((units[j] & ~static_cast<Unit>(0x7FF)) == 0xD800);
    if (found != 0) break;
  }
  while (i < length && (units[i] & ~static_cast<Unit>(0x7FF)) != 0xD800) ++i;
  return i;
}

// Throws InputError with the place of a lone surrogate: it is no character, so no tokenizer takes it.
inline void check_surrogates(const encoder::TextView& view, const std::string& what) {
  if (view.width == 1) return;
  const auto* const two = static_cast<const std::uint16_t*>(view.data);
  const auto* const four = static_cast<const std::uint32_t*>(view.data);
  const std::size_t place = view.width == 2 ? first_surrogate(two, view.length) : first_surrogate(four, view.length);
  if (place == view.length) return;
  char code[16];
  std::snprintf(code, sizeof code, "U+%04X", static_cast<unsigned>(view.width == 2 ? two[place] : four[place]));
  throw InputError(what + ": a lone surrogate " + code + " at character " + std::to_string(place) +
                   "; read the file with encoding='utf-8', errors='replace'");
}

// A list's strings, held for as long as this lives, whatever other threads do with the list.
class Texts {
 public:
  Texts(const pybind11::list& list, const std::string& what) : held_(pybind11::reinterpret_steal<pybind11::tuple>(PyList_AsTuple(list.ptr()))) {
    if (!held_) throw pybind11::error_already_set();
    views_.reserve(held_.size());
    for (std::size_t i = 0; i < held_.size(); ++i) {
      const pybind11::handle text = PyTuple_GET_ITEM(held_.ptr(), static_cast<Py_ssize_t>(i));
      views_.push_back(PyUnicode_Check(text.ptr()) ? view_of(text, what) : view_of(text, place(what, i)));
    }
    what_ = what;
  }

  // Needs no GIL.
  void check() const {
    for (std::size_t i = 0; i < views_.size(); ++i) {
      if (views_[i].width != 1) check_surrogates(views_[i], place(what_, i));
    }
  }

  const encoder::TextView* data() const { return views_.data(); }
  std::size_t size() const { return views_.size(); }

 private:
  static std::string place(const std::string& what, std::size_t i) { return what + "[" + std::to_string(i) + "]"; }

  pybind11::tuple held_;
  std::vector<encoder::TextView> views_;
  std::string what_;
};

}  // namespace nf::bindings
