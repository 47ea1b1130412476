#include "bindings/module.h"

#include "base/status.h"

namespace py = pybind11;

namespace {

// Raises nearfield.errors.<name>, which Python code imports from there; looked up late because that module does not import us.
void raise_ours(const char* name, const char* message) {
  const py::object type = py::module_::import("nearfield.errors").attr(name);
  PyErr_SetString(type.ptr(), message);
}

void translate(std::exception_ptr pending) {
  try {
    if (pending) std::rethrow_exception(pending);
  } catch (const nf::FormatError& problem) {
    raise_ours("FormatError", problem.what());
  } catch (const nf::InputError& problem) {
    raise_ours("InputError", problem.what());
  }
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "nearfield's native engine. Private: the public names are those of the nearfield package.";
  m.attr("__version__") = NEARFIELD_VERSION;
  py::register_exception_translator(&translate);
  nf::bindings::register_info(m);
  nf::bindings::register_kernels(m);
  nf::bindings::register_score(m);
  nf::bindings::register_storage(m);
  nf::bindings::register_flat(m);
  nf::bindings::register_frozen(m);
  nf::bindings::register_graph(m);
  nf::bindings::register_encoder(m);
  nf::bindings::register_probes(m);
  nf::bindings::register_tokenizer(m);
  nf::bindings::register_queries(m);
}
