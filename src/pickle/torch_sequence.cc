#include "pickle/torch_sequence.h"

#include <algorithm>
#include <cstring>

#include "base/checked.h"
#include "base/error.h"
#include "pickle/machine.h"

namespace upg::pickle {
namespace {

// PROTO n, LONG1 of ten bytes: 0x1950a86a20f9469cfc6c.
constexpr unsigned char kMagic[] = {0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19};

}  // namespace

bool is_torch_sequence(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 + sizeof kMagic && bytes[0] == std::byte{0x80} &&
         std::memcmp(bytes.data() + 2, kMagic, sizeof kMagic) == 0;
}

TorchSequence read_torch_sequence(std::span<const std::byte> bytes, const std::string& where) {
  TorchSequence sequence;
  uint64_t at = 0;
  const auto next = [&](bool persistent_ids) {
    Tree tree = read_pickle(bytes.subspan(at), where, {.persistent_ids = persistent_ids});
    at += tree.end;
    return tree;
  };
  for (int i = 0; i < 3; ++i) next(false);  // the magic number, the protocol's, a description of the machine
  sequence.tree = next(true);
  const Tree keys = next(false);
  if (keys.top().kind != Kind::kList)
    fail(ErrorCode::kInvalidFile, "{}: not a whole file of torch.save: the list of storages is missing", where);

  std::map<std::string_view, DType> types;
  const Tree& tree = sequence.tree;
  for (const Value& value : tree.values) {
    if (value.kind != Kind::kStorage) continue;
    const Value* type = tree.arg(value, 1);
    const Value* key = tree.arg(value, 2);
    if (type == nullptr || type->kind != Kind::kGlobal || type->global->role != Role::kStorageType || key == nullptr ||
        !is_text(*key))
      fail(ErrorCode::kInvalidFile, "{}: the persistent id at byte {} is no torch storage's", where, value.at);
    const Value* view = tree.arg(value, 5);
    if (view != nullptr && view->kind != Kind::kNone)
      fail(ErrorCode::kUnsupported, "{}: storage {} is a view of another, as torch 0.3 wrote them; save the file again",
           where, shown(key->bytes));
    types.emplace(key->bytes, type->global->dtype);
  }
  for (const Ref ref : keys.top().items) {
    const Value& key = keys[ref];
    const auto type = is_text(key) ? types.find(key.bytes) : types.end();
    if (type == types.end())
      fail(ErrorCode::kInvalidFile, "{}: the file of torch.save lists a storage that nothing in it refers to", where);
    uint64_t count = 0;
    if (bytes.size() - at < sizeof count)
      fail(ErrorCode::kInvalidFile, "{}: ends before storage {}", where, shown(key.bytes));
    std::memcpy(&count, bytes.data() + at, sizeof count);
    at += sizeof count;
    const auto size = checked_mul(count, dtype_info(type->second).bytes);
    if (!size || *size > bytes.size() - at)
      fail(ErrorCode::kInvalidFile, "{}: storage {} has {} elements, but only {} bytes are left", where,
           shown(key.bytes), count, bytes.size() - at);
    if (!sequence.storages.emplace(key.bytes, bytes.subspan(at, *size)).second)
      fail(ErrorCode::kInvalidFile, "{}: storage {} is there twice", where, shown(key.bytes));
    at += *size;
  }
  if (at != bytes.size())
    fail(ErrorCode::kInvalidFile, "{}: {} bytes follow the file of torch.save", where, bytes.size() - at);
  return sequence;
}

Bytes read_torch_storage(std::span<const std::byte> bytes, const std::string& where, std::optional<DType>& dtype) {
  if (!is_torch_sequence(bytes)) fail(ErrorCode::kInvalidFile, "{}: its storage is not one of torch.save", where);
  const TorchSequence sequence = read_torch_sequence(bytes, where);
  const Value& storage = sequence.tree.top();
  if (storage.kind != Kind::kStorage || sequence.storages.size() != 1)
    fail(ErrorCode::kInvalidFile, "{}: its storage is {}", where, kind_name(storage.kind));
  dtype = sequence.tree.arg(storage, 1)->global->dtype;
  return {sequence.storages.begin()->second, nullptr};
}

}  // namespace upg::pickle
