#include "format/checksum.h"

#include <xxhash.h>

#include <new>

#include "base/error.h"

namespace upg {

namespace {

std::string to_hex(uint64_t hash) { return fmt::format("{:016x}", hash); }

}  // namespace

Checksum::Checksum()
    : state_(XXH3_createState(), [](void* state) { XXH3_freeState(static_cast<XXH3_state_t*>(state)); }) {
  if (!state_) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_.get()));
}

void Checksum::update(std::span<const std::byte> data) {
  if (!data.empty()) XXH3_64bits_update(static_cast<XXH3_state_t*>(state_.get()), data.data(), data.size());
}

std::string Checksum::hex() const { return to_hex(XXH3_64bits_digest(static_cast<XXH3_state_t*>(state_.get()))); }

std::string checksum_hex(std::span<const std::byte> data) { return to_hex(XXH3_64bits(data.data(), data.size())); }

}  // namespace upg
