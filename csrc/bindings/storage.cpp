#include "storage/sections.h"

#include "base/crc32c.h"
#include "bindings/module.h"
#include "bindings/storage.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

using storage::MappedFile;

py::bytes section_bytes(const MappedFile& file, const std::string& name) {
  const storage::Bytes bytes = file.section(name);
  return py::bytes(reinterpret_cast<const char*>(bytes.data), bytes.size);
}

// A read-only view of the section; it keeps the file mapped.
py::array section_array(const std::shared_ptr<MappedFile>& file, const std::string& name, const py::dtype& dtype) {
  if (dtype.kind() != 'i' && dtype.kind() != 'u' && dtype.kind() != 'f') throw InputError("dtype: a plain number type expected");
  const storage::Bytes bytes = file->section(name);
  const std::size_t size = static_cast<std::size_t>(dtype.itemsize());
  if (bytes.size % size != 0) throw FormatError(file->path() + ": section " + name + " is no whole number of elements: the file is damaged");
  py::array view(dtype, {bytes.size / size}, {size}, bytes.data, py::cast(file));
  view.attr("setflags")(py::arg("write") = false);
  return view;
}

void write_container(const std::string& path, const std::string& kind, const Sections& sections) {
  storage::Writer writer(kind);
  const BorrowedSections borrowed(sections);
  borrowed.give_to(writer);
  const py::gil_scoped_release release;  // safe: the buffers are held by `borrowed`
  writer.commit(path);
}

}  // namespace

BorrowedSections::BorrowedSections(const Sections& sections) {
  for (const auto& [name, buffer] : sections) {
    names_.push_back(name);
    infos_.push_back(buffer.request());
    const py::buffer_info& info = infos_.back();
    py::ssize_t expected = info.itemsize;
    for (py::ssize_t d = info.ndim; d-- > 0;) {
      if (info.shape[static_cast<std::size_t>(d)] > 1 && info.strides[static_cast<std::size_t>(d)] != expected) {
        throw InputError("section " + name + ": a C-contiguous buffer expected");
      }
      expected *= info.shape[static_cast<std::size_t>(d)];
    }
  }
}

void BorrowedSections::give_to(storage::Writer& writer) const {
  for (std::size_t i = 0; i < names_.size(); ++i) {
    writer.section(names_[i], infos_[i].ptr, static_cast<std::size_t>(infos_[i].size * infos_[i].itemsize));
  }
}

void register_storage(py::module_& m) {
  py::class_<MappedFile, std::shared_ptr<MappedFile>>(m, "Container", "An index file, opened and checked.")
      .def_static("open", &MappedFile::open, py::arg("path"), py::arg("kind"), py::arg("mmap") = true, py::arg("verify") = true,
                  py::call_guard<py::gil_scoped_release>(), "Opens a file of this kind; raises FormatError with the reason when it cannot be used.")
      .def("section", &section_bytes, py::arg("name"), "A copy of the section's bytes.")
      .def("array", &section_array, py::arg("name"), py::arg("dtype"), "The section as a read-only 1-D array that keeps the file mapped.")
      .def("has", &MappedFile::has, py::arg("name"), "Whether the file has this section.");
  m.def("write_container", &write_container, py::arg("path"), py::arg("kind"), py::arg("sections"),
        "Writes an index file atomically: (name, C-contiguous buffer) pairs.");
  m.def(
      "crc32c", [](const py::bytes& data) { return crc32c(PyBytes_AS_STRING(data.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(data.ptr()))); },
      py::arg("data"), "CRC-32C of bytes.");
}

}  // namespace nf::bindings
