#include "bindings/module.h"

namespace nf::bindings {

void register_flat(pybind11::module_&) {}

}  // namespace nf::bindings
