#include "hub/digest.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <new>

#include "hub/listing.h"

namespace upg::hub {
namespace {

EVP_MD_CTX* context(const std::unique_ptr<void, void (*)(void*)>& state) {
  return static_cast<EVP_MD_CTX*>(state.get());
}

}  // namespace

Digest::Digest(const void* kind)
    : state_(EVP_MD_CTX_new(), [](void* state) { EVP_MD_CTX_free(static_cast<EVP_MD_CTX*>(state)); }) {
  if (!state_ || EVP_DigestInit_ex(context(state_), static_cast<const EVP_MD*>(kind), nullptr) != 1)
    throw std::bad_alloc();
}

Digest Digest::sha256() { return Digest(EVP_sha256()); }

Digest Digest::git_blob(uint64_t size) {
  Digest digest(EVP_sha1());
  const std::string head = fmt::format("blob {}", size);
  digest.update(std::as_bytes(std::span(head.c_str(), head.size() + 1)));
  return digest;
}

void Digest::update(std::span<const std::byte> data) { EVP_DigestUpdate(context(state_), data.data(), data.size()); }

std::string Digest::hex() {
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_DigestFinal_ex(context(state_), bytes, &size);
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += fmt::format("{:02x}", bytes[i]);
  return text;
}

Digest digest_of(const HubFile& file) { return file.large ? Digest::sha256() : Digest::git_blob(file.bytes); }

}  // namespace upg::hub
