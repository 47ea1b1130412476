#include "bindings/module.h"

namespace nf::bindings {

void register_score(pybind11::module_&) {}

}  // namespace nf::bindings
