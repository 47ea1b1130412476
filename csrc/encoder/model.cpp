#include "encoder/model.h"

#include <cstring>

#include "base/aligned.h"

namespace nf::encoder {
namespace {

// What makes the header of a block usable, or throws.
void check_header(const Header& header, std::size_t bytes) {
  if (std::memcmp(header.magic, kMagic, sizeof(header.magic)) != 0) throw FormatError("packed encoder: wrong magic; it is not one, or of another byte order");
  if (header.version != kLayoutVersion) {
    throw FormatError("packed encoder: layout version " + std::to_string(header.version) + " found, " + std::to_string(kLayoutVersion) + " expected; pack it again");
  }
  if (header.precision > Precision::int8) throw FormatError("packed encoder: unknown precision");
  try {
    check(header.shape);
    check(header.shape, header.precision, std::vector<Kind>(header.plan, header.plan + header.shape.layers * kLinears));
  } catch (const InputError& problem) {
    throw FormatError(std::string("packed encoder: ") + problem.what());
  }
  if (header.bytes != bytes || Layout(header.shape, header.precision, header.plan).bytes != bytes) {
    throw FormatError("packed encoder: " + std::to_string(bytes) + " bytes found, another length follows from its header; pack it again");
  }
}

}  // namespace

const char* StageTimes::name(std::size_t stage) {
  static const char* const names[kCount] = {"embed", "qkv", "attention", "attention_output", "norm", "up", "quantize", "down", "pool"};
  return names[stage];
}

Model::Model(const std::uint8_t* blob, std::shared_ptr<const void> owner)
    : blob_(blob), owner_(std::move(owner)), layout_(header().shape, header().precision, header().plan) {}

Model Model::open(const std::uint8_t* blob, std::size_t bytes, std::shared_ptr<const void> owner) {
  if (bytes < sizeof(Header)) throw FormatError("packed encoder: " + std::to_string(bytes) + " bytes found, shorter than its header");
  if (reinterpret_cast<std::uintptr_t>(blob) % kCacheLine != 0) throw InputError("packed encoder: it begins off a 64-byte boundary");
  check_header(*reinterpret_cast<const Header*>(blob), bytes);
  return Model(blob, std::move(owner));
}

}  // namespace nf::encoder
