#include "encoder/model.h"

#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "bindings/arrays.h"
#include "bindings/module.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using encoder::Kind;
using encoder::Model;
using encoder::Pooling;
using encoder::Precision;
using encoder::Shape;

constexpr const char* kPoolings[] = {"mean", "cls", "last"};
constexpr const char* kPrecisions[] = {"fp32", "bf16", "int8"};
constexpr const char* kKinds[] = {"fp32", "bf16", "int8"};

template <typename Enum>
Enum parse(const char* what, const std::string& word, const char* const (&names)[3]) {
  for (std::size_t i = 0; i < 3; ++i) {
    if (word == names[i]) return static_cast<Enum>(i);
  }
  throw InputError(std::string(what) + ": '" + word + "' given, one of " + names[0] + ", " + names[1] + ", " + names[2] + " expected");
}

template <typename T>
T field(const py::dict& shape, const char* name) {
  if (!shape.contains(name)) throw InputError(std::string("encoder shape: '") + name + "' is missing");
  try {
    return shape[name].cast<T>();
  } catch (const py::cast_error&) {
    throw InputError(std::string("encoder shape: '") + name + "' is not usable: " + std::string(py::repr(shape[name])));
  }
}

Shape shape_from(const py::dict& given) {
  Shape shape;
  shape.layers = field<std::uint32_t>(given, "layers");
  shape.width = field<std::uint32_t>(given, "width");
  shape.heads = field<std::uint32_t>(given, "heads");
  shape.ffn = field<std::uint32_t>(given, "ffn");
  shape.vocab = field<std::uint32_t>(given, "vocab");
  shape.positions = field<std::uint32_t>(given, "positions");
  shape.types = field<std::uint32_t>(given, "types");
  shape.eps = field<float>(given, "eps");
  shape.pooling = parse<Pooling>("pooling", field<std::string>(given, "pooling"), kPoolings);
  shape.normalize = field<bool>(given, "normalize") ? 1 : 0;
  return shape;
}

py::dict shape_of(const Model& model) {
  const Shape& shape = model.shape();
  py::dict out;
  out["layers"] = shape.layers;
  out["width"] = shape.width;
  out["heads"] = shape.heads;
  out["ffn"] = shape.ffn;
  out["vocab"] = shape.vocab;
  out["positions"] = shape.positions;
  out["types"] = shape.types;
  out["eps"] = shape.eps;
  out["pooling"] = kPoolings[static_cast<std::size_t>(shape.pooling)];
  out["normalize"] = shape.normalize != 0;
  return out;
}

Model make(const py::dict& shape, const py::dict& tensors, const std::string& precision, const std::vector<std::string>& plan) {
  std::vector<encoder::Tensor> given;
  std::vector<Array<float>> kept;  // the arrays stay alive while they are packed
  for (const auto& [name, value] : tensors) {
    if (!py::isinstance<Array<float>>(value)) {
      throw InputError("weights: tensor '" + std::string(py::str(name)) + "': a C-contiguous float32 array expected");
    }
    kept.push_back(py::reinterpret_borrow<Array<float>>(value));
    const Array<float>& array = kept.back();
    if (array.ndim() != 1 && array.ndim() != 2) throw InputError("weights: tensor '" + std::string(py::str(name)) + "': one or two dimensions expected");
    const bool matrix = array.ndim() == 2;
    given.push_back({py::str(name), array.data(), matrix ? static_cast<std::size_t>(array.shape(0)) : 1, static_cast<std::size_t>(array.shape(matrix ? 1 : 0))});
  }
  std::vector<Kind> kinds;
  for (const std::string& word : plan) kinds.push_back(parse<Kind>("plan", word, kKinds));
  const Shape parsed = shape_from(shape);
  const Precision wanted = parse<Precision>("precision", precision, kPrecisions);
  const py::gil_scoped_release release;  // safe: the tensors' memory is borrowed from arrays that `kept` holds
  return Model::pack(parsed, given, wanted, kinds);
}

Model from_blob(const py::buffer& buffer) {
  auto info = std::make_unique<py::buffer_info>(buffer.request());
  if (info->ndim != 1 || info->itemsize != 1 || (info->size > 0 && info->strides[0] != 1)) throw InputError("blob: contiguous bytes expected");
  const auto* const bytes = static_cast<const std::uint8_t*>(info->ptr);
  const auto size = static_cast<std::size_t>(info->size);
  // The buffer is given back under the GIL, on whatever thread the last user of the model goes.
  const std::shared_ptr<const void> owner(info.release(), [](const void* held) {
    const py::gil_scoped_acquire acquire;
    delete static_cast<const py::buffer_info*>(held);
  });
  return Model::open(bytes, size, owner);
}

struct Texts {
  const std::int32_t* ids;
  const std::int64_t* offsets;
  std::size_t count;
};

Texts texts_of(const Array<std::int32_t>& ids, const Array<std::int64_t>& offsets) {
  if (ids.ndim() != 1 || offsets.ndim() != 1 || offsets.size() < 1) throw InputError("ids and offsets: vectors expected, one offset more than texts");
  if (offsets.data()[offsets.size() - 1] != ids.size()) {
    throw InputError("offsets: the last is " + std::to_string(offsets.data()[offsets.size() - 1]) + ", the number of ids, " + std::to_string(ids.size()) + ", expected");
  }
  for (py::ssize_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets.data()[i] > offsets.data()[i + 1]) throw InputError("offsets: they fall at text " + std::to_string(i));
  }
  return {ids.data(), offsets.data(), static_cast<std::size_t>(offsets.size()) - 1};
}

py::array_t<float> encode(const Model& model, const Array<std::int32_t>& ids, const Array<std::int64_t>& offsets, int threads) {
  const Texts texts = texts_of(ids, offsets);
  const int count = parallel::resolve_threads(threads);
  py::array_t<float> out({texts.count, static_cast<std::size_t>(model.shape().width)});
  float* const place = out.mutable_data();
  Status found;
  {
    const py::gil_scoped_release release;  // safe: borrowed memory of arrays that the caller's frame holds
    found = model.encode(texts.ids, texts.offsets, texts.count, place, count);
  }
  raise_if_bad(found);
  return out;
}

py::dict stage_times(const Model& model, const Array<std::int32_t>& ids, const Array<std::int64_t>& offsets) {
  const Texts texts = texts_of(ids, offsets);
  std::vector<float> out(texts.count * model.shape().width);
  encoder::StageTimes times;
  raise_if_bad(model.encode(texts.ids, texts.offsets, texts.count, out.data(), 1, &times));
  py::dict seconds;
  for (std::size_t i = 0; i < encoder::StageTimes::kCount; ++i) seconds[encoder::StageTimes::name(i)] = times.seconds[i];
  return seconds;
}

std::vector<std::string> plan_of(const Model& model) {
  std::vector<std::string> plan;
  for (std::size_t i = 0; i < model.shape().layers * encoder::kLinears; ++i) plan.push_back(kKinds[static_cast<std::size_t>(model.header().plan[i])]);
  return plan;
}

// The packed bytes, without a copy: the array holds the model.
py::array_t<std::uint8_t> blob(const py::object& self) {
  const Model& model = self.cast<const Model&>();
  py::array_t<std::uint8_t> out(static_cast<py::ssize_t>(model.bytes()), model.blob(), self);
  out.attr("flags").attr("writeable") = false;
  return out;
}

}  // namespace

void register_encoder(py::module_& m) {
  py::class_<Model>(m, "EncoderModel", "A packed BERT encoder: token ids to pooled vectors.")
      .def(py::init(&make), py::arg("shape"), py::arg("tensors"), py::arg("precision"), py::arg("plan") = std::vector<std::string>(),
           "Packs float32 weights, named as BERT's, for a precision: 'fp32', 'bf16' or 'int8'. plan: a kind for each of four linear layers a layer.")
      .def_static("from_blob", &from_blob, py::arg("blob"), "A packed model where it lies; the buffer is kept alive.")
      .def_property_readonly("blob", &blob, "The packed model, uint8 (bytes,), read-only, not copied.")
      .def_property_readonly("shape", &shape_of, "Layers, width, heads and so on.")
      .def_property_readonly("precision", [](const Model& model) { return kPrecisions[static_cast<std::size_t>(model.precision())]; }, "'fp32', 'bf16' or 'int8'.")
      .def_property_readonly("plan", &plan_of, "The kind of each linear layer's products.")
      .def_property_readonly_static("layout_version", [](const py::object&) { return encoder::kLayoutVersion; }, "Counts up when packed bytes change their meaning.")
      .def("encode", &encode, py::arg("ids").noconvert(), py::arg("offsets").noconvert(), py::arg("threads") = 0,
           "Texts ids[offsets[i]:offsets[i + 1]] to vectors, float32 (n, width).")
      .def("stage_times", &stage_times, py::arg("ids").noconvert(), py::arg("offsets").noconvert(), "Seconds of one thread by stage.");
}

}  // namespace nf::bindings
