#include "bindings/queries.h"

#include <cmath>
#include <utility>

#include "bindings/module.h"
#include "encoder/text.h"

namespace py = pybind11;

namespace nf::bindings {

TextQueries::TextQueries(py::object tokenizer, py::object model, const py::list& texts, std::size_t max_tokens, py::str prompt, int threads)
    : held_tokenizer_(std::move(tokenizer)),
      held_model_(std::move(model)),
      tokenizer_(held_tokenizer_.cast<const encoder::WordPiece&>()),
      model_(held_model_.cast<const encoder::Model&>()),
      texts_(texts, "texts"),
      prompt_(std::move(prompt)),
      front_(view_of(prompt_, "prompt")),
      max_tokens_(max_tokens),
      threads_(parallel::resolve_threads(threads)) {}

void TextQueries::encode(float* out) const {
  texts_.check();
  check_surrogates(front_, "prompt");
  std::size_t truncated = 0;
  raise_if_bad(encoder::encode_texts(tokenizer_, model_, front_, texts_.data(), size(), max_tokens_, out, threads_, truncated));
  truncated_.store(truncated, std::memory_order_relaxed);
  for (std::size_t i = 0; i < size() * dim(); ++i) {
    if (std::isfinite(out[i])) continue;
    throw FormatError("the model gives NaN or infinity for text " + std::to_string(i / dim()) + ": its weights are damaged, take another copy");
  }
}

namespace {

// For whoever wants the vectors themselves.
py::array_t<float> vectors(const TextQueries& queries, const py::args& /* dtype, as numpy may ask */, const py::kwargs& /* copy */) {
  py::array_t<float> out({queries.size(), queries.dim()});
  float* const place = out.mutable_data();
  const py::gil_scoped_release release;  // safe: the strings are held by `queries`, a fresh array by this frame
  queries.encode(place);
  return out;
}

}  // namespace

void register_queries(py::module_& m) {
  py::class_<TextQueries>(m, "TextQueries", "Texts that a search turns into vectors inside its own call; an array of these for everything else.")
      .def(py::init<py::object, py::object, const py::list&, std::size_t, py::str, int>(), py::arg("tokenizer"), py::arg("model"), py::arg("texts"), py::arg("max_tokens"),
           py::arg("prompt") = py::str(""), py::arg("threads") = 0)
      .def("__len__", &TextQueries::size)
      .def("__array__", &vectors, "float32 (n, dim).")
      .def_property_readonly("dim", &TextQueries::dim, "Columns of a vector.")
      .def_property_readonly("truncated", &TextQueries::truncated, "Texts that were cut when they were last encoded.");
}

}  // namespace nf::bindings
