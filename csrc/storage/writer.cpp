#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "base/crc32c.h"
#include "storage/layout.h"
#include "storage/sections.h"

namespace nf::storage {
namespace {

std::string reason() { return std::strerror(errno); }

// A temporary file that removes itself unless renamed.
class Unfinished {
 public:
  explicit Unfinished(const std::string& path) {
    static std::atomic<unsigned> counter{0};
    // A process that was killed left its file behind, and in a container the next one has the same pid: then a number further on is free.
    do {
      name_ = path + "." + std::to_string(getpid()) + "." + std::to_string(counter++) + ".tmp";
      file_ = ::open(name_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (file_ < 0 && errno == EEXIST);
    if (file_ < 0) {
      name_.clear();  // not ours to remove
      throw InputError(path + ": cannot be written: " + reason());
    }
  }
  ~Unfinished() {
    if (file_ >= 0) ::close(file_);
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  Unfinished(const Unfinished&) = delete;
  Unfinished& operator=(const Unfinished&) = delete;

  void write(const std::string& path, const void* data, std::size_t bytes) {
    const char* p = static_cast<const char*>(data);
    while (bytes != 0) {
      // Linux writes at most 0x7ffff000 bytes a call; 1 GiB stays below it.
      const ssize_t done = ::write(file_, p, bytes < (1u << 30) ? bytes : (1u << 30));
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) throw InputError(path + ": cannot be written: " + reason());
      p += done;
      bytes -= static_cast<std::size_t>(done);
    }
  }

  void rename_over(const std::string& path) {
    struct stat old;
    if (::stat(path.c_str(), &old) == 0) (void)::fchmod(file_, old.st_mode & 07777);
    if (::fsync(file_) != 0) throw InputError(path + ": cannot be written: " + reason());
    const int closed = ::close(file_);
    file_ = -1;
    if (closed != 0 || ::rename(name_.c_str(), path.c_str()) != 0) throw InputError(path + ": cannot be written: " + reason());
    name_.clear();
  }

 private:
  std::string name_;
  int file_ = -1;
};

// The rename itself must reach the disk, or a crash may bring the old folder entry back.
void sync_folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
  const int file = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (file < 0) return;  // a folder we may write to but not read: the file itself is safe
  (void)::fsync(file);
  ::close(file);
}

}  // namespace

void Writer::section(std::string name) {
  if (name.empty() || name.size() >= kNameBytes) throw InputError("section name '" + name + "': 1 to 23 bytes expected");
  sections_.push_back(Section{std::move(name), {}, 0});
}

void Writer::piece(const void* data, std::size_t bytes) {
  sections_.back().pieces.push_back(Bytes{static_cast<const unsigned char*>(data), bytes});
  sections_.back().bytes += bytes;
}

void Writer::commit(const std::string& path) const {
  std::vector<unsigned char> table(sections_.size() * kEntryBytes, 0);
  std::size_t offset = aligned(kHeaderBytes + table.size());
  for (std::size_t i = 0; i < sections_.size(); ++i) {
    const Section& each = sections_[i];
    unsigned char* entry = table.data() + i * kEntryBytes;
    std::uint32_t crc = 0;
    for (const Bytes& piece : each.pieces) crc = crc32c(piece.data, piece.size, crc);
    std::memcpy(entry, each.name.data(), each.name.size());
    put64(entry + 24, offset);
    put64(entry + 32, each.bytes);
    put32(entry + 40, crc);
    offset = aligned(offset + each.bytes);
  }
  unsigned char header[kHeaderBytes] = {};
  std::memcpy(header, kMagic, sizeof(kMagic));
  put32(header + 8, kFormatVersion);
  put32(header + 12, static_cast<std::uint32_t>(sections_.size()));
  std::memcpy(header + 16, kind_.data(), std::min<std::size_t>(kind_.size(), kKindBytes));
  put64(header + 24, offset);
  put32(header + 32, crc32c(table.data(), table.size()));
  put32(header + 36, crc32c(header, 36));

  static const unsigned char kZeros[kAlignment] = {};
  Unfinished file(path);
  std::size_t at = 0;
  const auto emit = [&](const void* data, std::size_t bytes) {
    file.write(path, data, bytes);
    at += bytes;
  };
  const auto pad = [&] { emit(kZeros, aligned(at) - at); };
  emit(header, sizeof(header));
  emit(table.data(), table.size());
  pad();
  for (const Section& each : sections_) {
    for (const Bytes& piece : each.pieces) emit(piece.data, piece.size);
    pad();
  }
  file.rename_over(path);
  sync_folder_of(path);
}

}  // namespace nf::storage
