// THE list of Python names that a pickle may refer to. None is ever imported or called: each stands for data that this
// program can build by itself. Whatever is not in the list is refused by name.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "base/dtype.h"

namespace upg::pickle {

enum class Role : uint8_t {
  // what the machine itself turns into a plain value when it is called
  kOrderedDict,    // () or ([[key, value], ...],)
  kEncode,         // (text, "latin1"): bytes, as protocols 0 to 2 write them
  kBytes,          // ()
  kBytearray,      // (), (bytes,) or (text, "latin-1")
  kSize,           // (tuple,): torch's shape
  kReconstructor,  // (class, object, None): an instance, as protocols 0 and 1 write it
  // only named, as an argument
  kObjectType,
  kNdarray,
  kStorageType,  // of elements of `dtype`
  kUntypedStorage,
  kDtype,  // torch's, `dtype`
  // an instance without arguments, then a state: a bag of attributes
  kCsrMatrix,
  kBag,
  // called, and read by arrays.h
  kNumpyDtype,
  kNumpyReconstruct,
  kNumpyFromBuffer,
  kNumpyScalar,
  kTorchTensor,    // _rebuild_tensor, _rebuild_tensor_v2
  kTorchTensorV3,  // with a dtype of its own
  kTorchParameter,
  kTorchSparse,
  kTorchLayout,
  kTorchStorageBytes,  // a storage as a file of torch.save within bytes
};

struct Global {
  std::string_view module;
  std::string_view name;
  Role role;
  DType dtype = DType::kU8;
};

std::span<const Global> globals();

/// nullptr for a name that is not in the list.
const Global* find_global(std::string_view module, std::string_view name);

/// Whether an object of it may be made by NEWOBJ, INST, OBJ or _reconstructor.
inline bool is_class(const Global& global) { return global.role == Role::kCsrMatrix || global.role == Role::kBag; }
/// Whether REDUCE may call it.
bool is_callable(const Global& global);

}  // namespace upg::pickle
