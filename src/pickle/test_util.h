// Shared by this folder's tests: pickles put together by hand, and catching errors.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "pickle/machine.h"
#include "upg/error.h"

namespace upg::pickle::testing_util {

using namespace std::string_literals;

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A number as little-endian bytes.
template <typename T>
std::string le(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// SHORT_BINUNICODE.
inline std::string text(std::string_view value) {
  return "\x8c"s + static_cast<char>(value.size()) + std::string(value);
}

inline std::string stack_global(std::string_view module, std::string_view name) {
  return text(module) + text(name) + "\x93";
}

/// The message of the Error that reading throws; "" where it throws none.
inline std::string refusal(const std::string& pickle, ErrorCode* code = nullptr, const ReadOptions& options = {}) {
  try {
    read_pickle(as_bytes(pickle), "old.upg", options);
  } catch (const Error& error) {
    if (code != nullptr) *code = error.code();
    return error.what();
  }
  return "";
}

}  // namespace upg::pickle::testing_util
