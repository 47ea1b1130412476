// How failures travel.
//
// Hot code and anything that runs on a pool thread returns a Status. InputError and FormatError are thrown only on the
// thread that called into the engine, before or after the parallel part; the bindings turn them into
// nearfield.errors.InputError and nearfield.errors.FormatError.
#pragma once

#include <new>
#include <stdexcept>
#include <string>
#include <utility>

namespace nf {

// Something the caller gave cannot be used: a NaN row, an unknown target.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// A file that cannot be opened: bad magic, unknown version, wrong checksum, truncated.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

enum class Code { ok, bad_input, bad_format, out_of_memory, internal };

struct [[nodiscard]] Status {
  Code code = Code::ok;
  std::string message;

  bool ok() const { return code == Code::ok; }
  static Status good() { return {}; }
  static Status bad_input(std::string message) { return {Code::bad_input, std::move(message)}; }
  static Status bad_format(std::string message) { return {Code::bad_format, std::move(message)}; }
};

// Turns a Status into the exception a caller's thread may throw; does nothing when it is ok.
inline void raise_if_bad(const Status& status) {
  switch (status.code) {
    case Code::ok: return;
    case Code::bad_input: throw InputError(status.message);
    case Code::bad_format: throw FormatError(status.message);
    case Code::out_of_memory: throw std::bad_alloc();
    case Code::internal: throw std::runtime_error(status.message);
  }
}

}  // namespace nf
