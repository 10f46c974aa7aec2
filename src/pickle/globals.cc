#include "pickle/globals.h"

namespace upg::pickle {
namespace {

constexpr Global kGlobals[] = {
    {"collections", "OrderedDict", Role::kOrderedDict},
    {"_codecs", "encode", Role::kEncode},
    {"__builtin__", "bytes", Role::kBytes},
    {"builtins", "bytes", Role::kBytes},
    {"__builtin__", "bytearray", Role::kBytearray},
    {"builtins", "bytearray", Role::kBytearray},
    {"__builtin__", "object", Role::kObjectType},
    {"builtins", "object", Role::kObjectType},
    {"copy_reg", "_reconstructor", Role::kReconstructor},
    {"copyreg", "_reconstructor", Role::kReconstructor},

    {"numpy", "dtype", Role::kNumpyDtype},
    {"numpy", "ndarray", Role::kNdarray},
    {"numpy.core.multiarray", "_reconstruct", Role::kNumpyReconstruct},
    {"numpy._core.multiarray", "_reconstruct", Role::kNumpyReconstruct},
    {"numpy.core.numeric", "_frombuffer", Role::kNumpyFromBuffer},
    {"numpy._core.numeric", "_frombuffer", Role::kNumpyFromBuffer},
    {"numpy.core.multiarray", "scalar", Role::kNumpyScalar},
    {"numpy._core.multiarray", "scalar", Role::kNumpyScalar},

    {"scipy.sparse._csr", "csr_matrix", Role::kCsrMatrix},
    {"scipy.sparse._csr", "csr_array", Role::kCsrMatrix},
    {"scipy.sparse.csr", "csr_matrix", Role::kCsrMatrix},

    {"torch", "Size", Role::kSize},
    {"torch._utils", "_rebuild_tensor", Role::kTorchTensor},
    {"torch._utils", "_rebuild_tensor_v2", Role::kTorchTensor},
    {"torch._utils", "_rebuild_tensor_v3", Role::kTorchTensorV3},
    {"torch._utils", "_rebuild_parameter", Role::kTorchParameter},
    {"torch._utils", "_rebuild_sparse_tensor", Role::kTorchSparse},
    {"torch.serialization", "_get_layout", Role::kTorchLayout},
    {"torch.storage", "_load_from_bytes", Role::kTorchStorageBytes},
    {"torch.storage", "UntypedStorage", Role::kUntypedStorage},
    {"torch", "BoolStorage", Role::kStorageType, DType::kBool},
    {"torch", "ByteStorage", Role::kStorageType, DType::kU8},
    {"torch", "CharStorage", Role::kStorageType, DType::kI8},
    {"torch", "ShortStorage", Role::kStorageType, DType::kI16},
    {"torch", "IntStorage", Role::kStorageType, DType::kI32},
    {"torch", "LongStorage", Role::kStorageType, DType::kI64},
    {"torch", "HalfStorage", Role::kStorageType, DType::kF16},
    {"torch", "BFloat16Storage", Role::kStorageType, DType::kBF16},
    {"torch", "FloatStorage", Role::kStorageType, DType::kF32},
    {"torch", "DoubleStorage", Role::kStorageType, DType::kF64},
    {"torch", "bool", Role::kDtype, DType::kBool},
    {"torch", "uint8", Role::kDtype, DType::kU8},
    {"torch", "int8", Role::kDtype, DType::kI8},
    {"torch", "uint16", Role::kDtype, DType::kU16},
    {"torch", "int16", Role::kDtype, DType::kI16},
    {"torch", "uint32", Role::kDtype, DType::kU32},
    {"torch", "int32", Role::kDtype, DType::kI32},
    {"torch", "uint64", Role::kDtype, DType::kU64},
    {"torch", "int64", Role::kDtype, DType::kI64},
    {"torch", "float16", Role::kDtype, DType::kF16},
    {"torch", "bfloat16", Role::kDtype, DType::kBF16},
    {"torch", "float32", Role::kDtype, DType::kF32},
    {"torch", "float64", Role::kDtype, DType::kF64},

    // The prototype's own classes, in its package or in the script that was run.
    {"upg", "UPGModel", Role::kBag},
    {"upg", "UPGLayer", Role::kBag},
    {"upg", "CSRLayer", Role::kBag},
    {"__main__", "UPGModel", Role::kBag},
    {"__main__", "UPGLayer", Role::kBag},
    {"__main__", "CSRLayer", Role::kBag},
};

}  // namespace

std::span<const Global> globals() { return kGlobals; }

const Global* find_global(std::string_view module, std::string_view name) {
  for (const Global& global : kGlobals)
    if (global.module == module && global.name == name) return &global;
  return nullptr;
}

bool is_callable(const Global& global) {
  switch (global.role) {
    case Role::kObjectType:
    case Role::kNdarray:
    case Role::kStorageType:
    case Role::kUntypedStorage:
    case Role::kDtype:
    case Role::kCsrMatrix:
    case Role::kBag:
      return false;
    default:
      return true;
  }
}

}  // namespace upg::pickle
