// The hashes that a hub gives for files: SHA-256 of large ones, git's of a blob for all others.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace upg::hub {

struct HubFile;  // hub/listing.h

class Digest {
 public:
  static Digest sha256();
  /// SHA-1 of "blob SIZE", a NUL, and the data. It names the file; that nobody forged it is for the transport to say.
  static Digest git_blob(uint64_t size);

  void update(std::span<const std::byte> data);
  /// Lower-case digits. Ends the digest.
  std::string hex();

 private:
  explicit Digest(const void* kind);
  std::unique_ptr<void, void (*)(void*)> state_;
};

/// Of the kind that the hub gives for the file: its hex() should be HubFile::hash.
Digest digest_of(const HubFile& file);

}  // namespace upg::hub
