// One register function per file of this folder. Every binding keeps one order: check, borrow or copy, release the GIL, call.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace nf::bindings {

void register_info(pybind11::module_& m);     // targets, threads
void register_kernels(pybind11::module_& m);  // single kernels, for tests and benchmarks
void register_score(pybind11::module_& m);    // score and top-k over borrowed arrays
void register_flat(pybind11::module_& m);     // FlatStore
void register_storage(pybind11::module_& m);  // containers
void register_graph(pybind11::module_& m);    // HNSW
void register_frozen(pybind11::module_& m);   // HNSW, frozen
void register_encoder(pybind11::module_& m);  // native encoder
void register_tokenizer(pybind11::module_& m);  // WordPiece
void register_queries(pybind11::module_& m);   // texts that searches encode
void register_probes(pybind11::module_& m);   // measured ceilings

}  // namespace nf::bindings
