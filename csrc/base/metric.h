// The three metrics. A score is larger for a better match under each of them.
#pragma once

#include <string>

#include "base/status.h"

namespace nf {

enum class Metric { cosine = 0, ip = 1, l2 = 2 };         // l2 scores are -|q - x|^2
enum class Storage { float32 = 0, bfloat16 = 1, int8 = 2 };  // how a row is kept

inline const char* name_of(Metric metric) {
  return metric == Metric::cosine ? "cosine" : metric == Metric::ip ? "ip" : "l2";
}

inline const char* name_of(Storage storage) {
  return storage == Storage::float32 ? "float32" : storage == Storage::bfloat16 ? "bfloat16" : "int8";
}

inline Metric metric_of(const std::string& name) {
  if (name == "cosine") return Metric::cosine;
  if (name == "ip") return Metric::ip;
  if (name == "l2") return Metric::l2;
  throw InputError("metric: '" + name + "' given, one of cosine, ip, l2 expected");
}

inline Storage storage_of(const std::string& name) {
  if (name == "float32") return Storage::float32;
  if (name == "bfloat16") return Storage::bfloat16;
  if (name == "int8") return Storage::int8;
  throw InputError("storage: '" + name + "' given, one of float32, bfloat16, int8 expected");
}

}  // namespace nf
