// The checksum of UPG files: XXH3-64 as 16 lower-case hexadecimal digits.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

namespace upg {

inline constexpr size_t kChecksumDigits = 16;

/// Checksum of data that comes in pieces.
class Checksum {
 public:
  Checksum();
  void update(std::span<const std::byte> data);
  std::string hex() const;

 private:
  std::unique_ptr<void, void (*)(void*)> state_;
};

std::string checksum_hex(std::span<const std::byte> data);

}  // namespace upg
