#include "probes/probes.h"

#include <string>

#include <pybind11/stl.h>

#include "base/status.h"
#include "bindings/module.h"

namespace py = pybind11;

namespace nf::bindings {
namespace {

// More threads than any machine we know has cores: a typing error, not a wish.
constexpr int kMostThreads = 1024;
// Below two lines per thread there is no cycle to follow.
constexpr std::size_t kFewestBytes = 4096;

void check(int threads, double seconds) {
  if (threads < 1 || threads > kMostThreads) {
    throw InputError("threads: " + std::to_string(threads) + " given, 1 to " + std::to_string(kMostThreads) + " expected");
  }
  if (!(seconds > 0 && seconds <= 60)) throw InputError("seconds: " + std::to_string(seconds) + " given, more than 0 and at most 60 expected");
}

void check(std::size_t bytes, int threads, double seconds) {
  check(threads, seconds);
  const std::size_t fewest = kFewestBytes * static_cast<std::size_t>(threads);
  const std::size_t most = std::size_t{1} << 36;  // the cycle's 32-bit links reach 2^32 lines of 64 bytes; 64 GiB stay below
  if (bytes < fewest || bytes > most) {
    throw InputError("bytes: " + std::to_string(bytes) + " given, " + std::to_string(fewest) + " to " + std::to_string(most) + " expected");
  }
}

std::map<std::string, double> peak(const std::string& kind, int threads, double seconds) {
  check(threads, seconds);
  if (kind != "f32" && kind != "int8" && kind != "bf16") throw InputError("kind: '" + kind + "' given, 'f32', 'int8' or 'bf16' expected");
  const py::gil_scoped_release release;  // from here on only numbers are touched
  if (kind == "f32") return probes::peak_f32(threads, seconds);
  return kind == "int8" ? probes::peak_int8(threads, seconds) : probes::peak_bf16(threads, seconds);
}

double bandwidth(std::size_t bytes, int threads, double seconds) {
  check(bytes, threads, seconds);
  const py::gil_scoped_release release;
  return probes::read_bandwidth(bytes, threads, seconds);
}

double latency(std::size_t bytes, int threads, double seconds) {
  check(bytes, threads, seconds);
  const py::gil_scoped_release release;
  return probes::line_latency(bytes, threads, seconds);
}

}  // namespace

void register_probes(py::module_& m) {
  m.def("probe_peak", &peak, py::arg("kind"), py::arg("threads") = 1, py::arg("seconds") = 0.2,
        "Operations per second on registers by target, all threads together; kind: 'f32', 'int8' or 'bf16'. A multiply-add counts as two.");
  m.def("probe_bandwidth", &bandwidth, py::arg("bytes"), py::arg("threads") = 1, py::arg("seconds") = 0.2,
        "Bytes read per second from a working set of this many bytes, cut into one slice per thread.");
  m.def("probe_latency", &latency, py::arg("bytes"), py::arg("threads") = 1, py::arg("seconds") = 0.2,
        "Nanoseconds per dependent load of a random cache line of a working set of this many bytes, cut into one slice per thread.");
}

}  // namespace nf::bindings
