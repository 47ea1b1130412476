#include "bindings/module.h"

namespace nf::bindings {

void register_kernels(pybind11::module_&) {}

}  // namespace nf::bindings
