#include <string>

#include "bindings/module.h"
#include "kernels/dispatch.h"
#include "kernels/encoder_dispatch.h"
#include "parallel/pool.h"
#include "simd/targets.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

py::list targets() {
  py::list table;
  for (std::size_t i = 0; i < simd::kTargetCount; ++i) {
    const simd::TargetInfo& info = simd::target_at(i);
    py::dict row;
    row["name"] = info.name;
    row["needs"] = info.needs_in_words;
    row["built"] = info.built;
    row["runs_here"] = simd::runs_here(info);
    table.append(row);
  }
  return table;
}

py::dict kernel_targets() {
  py::dict names;
  names["dot_f32"] = kernels::dot_f32().target();
  names["l2sqr_f32"] = kernels::l2sqr_f32().target();
  names["dot_i8"] = kernels::dot_i8().target();
  names["scan_i8"] = kernels::scan_i8().target();
  names["scan_1bit"] = kernels::scan_1bit().target();
  names["estimate_1bit"] = kernels::estimate_1bit().target();
  names["insert_key"] = kernels::insert_key().target();
  names["code_i8"] = kernels::code_i8().target();
  names["hadamard"] = kernels::hadamard().target();
  return names;
}

py::dict encoder_targets() {
  const kernels::EncoderKernels encoder = kernels::encoder_kernels();
  py::dict names;
  names["linear_i8"] = encoder.linear_i8->target();
  names["linear_bf16"] = encoder.linear_bf16->target();
  names["linear_f32"] = encoder.linear_f32->target();
  names["attention_bf16"] = encoder.attention_bf16->target();
  names["attention_f32"] = encoder.attention_f32->target();
  names["encoder_rows"] = encoder.rows->target();
  return names;
}

}  // namespace

void register_info(py::module_& m) {
  m.def("targets", &targets, "The table of targets: name, needs, built, runs_here.");
  m.def("active_target", [] { return std::string(simd::info_of(simd::active()).name); }, "The target whose kernels are used.");
  m.def("forced_target", &simd::forced_name, "The forced target's name, or an empty string.");
  m.def(
      "force_target", [](const std::string& name) { simd::force(name); }, py::arg("name"),
      "Forces a target for this process; an empty string returns to the environment's choice.");
  m.def("kernel_targets", &kernel_targets, "For each kernel, the target its chosen code names from inside its own file.");
  m.def("encoder_targets", &encoder_targets, "The same for the encoder's kernels.");
  m.def("resolve_threads", &parallel::resolve_threads, py::arg("requested") = 0, "How many threads a call that asks for this many gets.");
}

}  // namespace nf::bindings
