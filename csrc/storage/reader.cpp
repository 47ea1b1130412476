#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/aligned.h"
#include "base/crc32c.h"
#include "storage/layout.h"
#include "storage/sections.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "sections are borrowed as they lie on disk: a big-endian machine would need a converting reader"
#endif

namespace nf::storage {
namespace {

class Descriptor {
 public:
  explicit Descriptor(const std::string& path) : file(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file < 0) throw FormatError(path + ": cannot be opened: " + std::strerror(errno));
  }
  ~Descriptor() { ::close(file); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int file;
};

// The name in a padded field; empty when it is not a name (no end, or bytes after the end).
std::string padded_name(const unsigned char* p, std::size_t bytes) {
  std::size_t length = 0;
  while (length < bytes && p[length] != 0) ++length;
  for (std::size_t i = length; i < bytes; ++i) {
    if (p[i] != 0) return {};
  }
  return std::string(reinterpret_cast<const char*>(p), length);
}

// A name from a file, safe to put into a message.
std::string printable(const std::string& name) {
  std::string shown;
  for (const char c : name) shown += c >= 32 && c < 127 ? c : '?';
  return shown;
}

}  // namespace

std::shared_ptr<MappedFile> MappedFile::open(const std::string& path, const std::string& kind, bool mmap, bool verify) {
  std::shared_ptr<MappedFile> file(new MappedFile());
  file->path_ = path;
  file->load(mmap);
  file->validate(kind, verify);
  return file;
}

MappedFile::~MappedFile() {
  if (data_ == nullptr) return;
  if (mapped_) {
    ::munmap(const_cast<unsigned char*>(data_), size_);
  } else {
    std::free(const_cast<unsigned char*>(data_));
  }
}

void MappedFile::load(bool mmap) {
  const Descriptor descriptor(path_);
  struct stat found;
  if (::fstat(descriptor.file, &found) != 0) throw FormatError(path_ + ": cannot be opened: " + std::strerror(errno));
  if (!S_ISREG(found.st_mode)) throw FormatError(path_ + ": not a file");
  size_ = static_cast<std::size_t>(found.st_size);
  if (size_ < kHeaderBytes) {
    throw FormatError(path_ + ": " + std::to_string(size_) + " bytes, not a nearfield file (a header alone has 64)");
  }
  if (mmap) {
    void* memory = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor.file, 0);
    if (memory == MAP_FAILED) throw FormatError(path_ + ": cannot be mapped: " + std::strerror(errno));
    data_ = static_cast<const unsigned char*>(memory);
    mapped_ = true;
    return;
  }
  // On huge pages, as the page cache has mapped files: a frozen graph's walks took 16 % longer on small ones.
  unsigned char* memory =
      static_cast<unsigned char*>(size_ < kHugeFrom ? std::aligned_alloc(kAlignment, aligned(size_)) : huge_memory(aligned(size_)));
  if (memory == nullptr) throw std::bad_alloc();
  data_ = memory;
  for (std::size_t at = 0; at < size_;) {
    const ssize_t got = ::read(descriptor.file, memory + at, std::min<std::size_t>(size_ - at, 1u << 30));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw FormatError(path_ + ": ended after " + std::to_string(at) + " of " + std::to_string(size_) + " bytes while being read");
    at += static_cast<std::size_t>(got);
  }
}

void MappedFile::validate(const std::string& kind, bool verify) {
  const auto refuse = [this](const std::string& why) { throw FormatError(path_ + ": " + why); };
  if (std::memcmp(data_, kMagic, sizeof(kMagic)) != 0) refuse("not a nearfield file (its first 8 bytes differ)");
  const std::uint32_t version = get32(data_ + 8);
  if (version > kFormatVersion) {
    refuse("format version " + std::to_string(version) + ", this nearfield reads up to " + std::to_string(kFormatVersion) + ": a newer nearfield wrote it");
  }
  if (crc32c(data_, 36) != get32(data_ + 36)) refuse("checksum of the header is wrong: the file is damaged");
  if (version == 0) refuse("format version 0 does not exist");
  for (std::size_t i = 40; i < kHeaderBytes; ++i) {
    if (data_[i] != 0) refuse("the header's reserved bytes are not zero: the file is damaged");
  }
  const std::uint64_t length = get64(data_ + 24);
  if (length != size_) refuse(std::to_string(size_) + " bytes found, " + std::to_string(length) + " expected: the file is truncated or extended");
  const std::string found = padded_name(data_ + 16, kKindBytes);
  if (found != kind) refuse("holds a '" + printable(found) + "' index, '" + kind + "' expected");
  const std::uint32_t count = get32(data_ + 12);
  if (count > kMaxSections || count > (size_ - kHeaderBytes) / kEntryBytes) refuse("its section table does not fit the file: the file is damaged");
  const unsigned char* table = data_ + kHeaderBytes;
  if (crc32c(table, count * kEntryBytes) != get32(data_ + 32)) refuse("checksum of the section table is wrong: the file is damaged");

  std::size_t end = kHeaderBytes + count * kEntryBytes;  // of what has been accounted for
  const auto skip_padding = [&](std::size_t to) {
    for (; end < to; ++end) {
      if (data_[end] != 0) refuse("bytes between sections are not zero: the file is damaged");
    }
  };
  for (std::uint32_t i = 0; i < count; ++i) {
    const unsigned char* entry = table + i * kEntryBytes;
    const std::string name = padded_name(entry, kNameBytes);
    const std::uint64_t offset = get64(entry + 24), bytes = get64(entry + 32);
    if (name.empty() || has(name)) refuse("section " + std::to_string(i) + " has no valid name: the file is damaged");
    if (offset != aligned(end) || offset > size_ || bytes > size_ - offset) {
      refuse("section " + printable(name) + " lies outside the file: the file is damaged");
    }
    skip_padding(offset);
    const Bytes content{data_ + offset, static_cast<std::size_t>(bytes)};
    if (verify && crc32c(content.data, content.size) != get32(entry + 40)) {
      refuse("checksum of section " + printable(name) + " is wrong: the file is damaged");
    }
    entries_.push_back(Entry{name, content});
    end = offset + bytes;
  }
  if (aligned(end) != size_) refuse("the sections do not end where the file does: the file is damaged");
  skip_padding(size_);
}

Bytes MappedFile::section(const std::string& name) const {
  for (const Entry& entry : entries_) {
    if (entry.name == name) return entry.bytes;
  }
  throw FormatError(path_ + ": has no section '" + name + "'");
}

bool MappedFile::has(const std::string& name) const {
  for (const Entry& entry : entries_) {
    if (entry.name == name) return true;
  }
  return false;
}

}  // namespace nf::storage
