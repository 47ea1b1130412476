#include "bindings/module.h"

namespace nf::bindings {

void register_storage(pybind11::module_&) {}

}  // namespace nf::bindings
