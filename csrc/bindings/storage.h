// Sections handed over from Python: named buffers that stay alive while a file is written.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "storage/sections.h"

namespace nf::bindings {

using Sections = std::vector<std::pair<std::string, pybind11::buffer>>;

class BorrowedSections {
 public:
  // Holds the buffers; throws InputError for one that is not C-contiguous. Made and destroyed under the GIL.
  explicit BorrowedSections(const Sections& sections);
  void give_to(storage::Writer& writer) const;

 private:
  std::vector<std::string> names_;
  std::vector<pybind11::buffer_info> infos_;
};

}  // namespace nf::bindings
