// For this folder's tests: a reader of GGUF files, written from the format's text apart from the writer.
#pragma once

#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "base/float16.h"
#include "base/mapped_file.h"
#include "export/gguf_writer.h"
#include "format/test_util.h"
#include "model/test_util.h"
#include "upg/export.h"

namespace upg::testing_util {

struct ReadTensor {
  std::vector<uint64_t> shape;  // row-major
  uint32_t type = 0;
  std::string data;

  std::vector<float> floats() const {
    std::vector<float> out;
    const auto at = [&]<typename T>(T, size_t i) {
      T value;
      std::memcpy(&value, data.data() + i, sizeof(T));
      return value;
    };
    if (type == 0)
      for (size_t i = 0; i < data.size(); i += 4) out.push_back(at(float{}, i));
    if (type == 1)
      for (size_t i = 0; i < data.size(); i += 2) out.push_back(f16_to_float(at(uint16_t{}, i)));
    if (type == 30)
      for (size_t i = 0; i < data.size(); i += 2) out.push_back(bf16_to_float(at(uint16_t{}, i)));
    if (type == 8)
      for (size_t i = 0; i < data.size(); i += 34)
        for (size_t j = 0; j < 32; ++j)
          out.push_back(f16_to_float(at(uint16_t{}, i)) * static_cast<float>(at(int8_t{}, i + 2 + j)));
    return out;
  }
};

struct ReadGguf {
  explicit ReadGguf(const std::string& path) : bytes_(read_file(path)) {
    EXPECT_EQ(bytes_.substr(0, 4), "GGUF");
    at_ = 4;
    EXPECT_EQ(take<uint32_t>(), 3u);
    const auto n_tensors = take<uint64_t>(), n_values = take<uint64_t>();
    for (uint64_t i = 0; i < n_values; ++i) {
      const std::string key = text();
      values[key] = value(take<uint32_t>());
    }
    std::map<std::string, uint64_t> offsets;
    for (uint64_t i = 0; i < n_tensors; ++i) {
      const std::string name = text();
      ReadTensor& tensor = tensors[name];
      for (uint32_t n = take<uint32_t>(); n > 0; --n) tensor.shape.insert(tensor.shape.begin(), take<uint64_t>());
      tensor.type = take<uint32_t>();
      offsets[name] = take<uint64_t>();
      EXPECT_EQ(offsets[name] % 32, 0u);
    }
    const uint64_t begin = (at_ + 31) / 32 * 32;
    for (auto& [name, tensor] : tensors) {
      const std::map<uint32_t, std::pair<uint64_t, uint64_t>> blocks = {
          {0, {1, 4}}, {1, {1, 2}}, {30, {1, 2}}, {8, {32, 34}}};
      uint64_t elements = 1;
      for (const uint64_t dim : tensor.shape) elements *= dim;
      const auto [block, size] = blocks.at(tensor.type);
      tensor.data = bytes_.substr(begin + offsets[name], elements / block * size);
      EXPECT_EQ(tensor.data.size(), elements / block * size) << name;
    }
  }

  template <typename T>
  T get(const std::string& key) const {
    return std::get<T>(values.at(key));
  }

  std::map<std::string, GgufValue> values;
  std::map<std::string, ReadTensor> tensors;

 private:
  template <typename T>
  T take() {
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  std::string text() {
    const auto size = take<uint64_t>();
    at_ += size;
    return bytes_.substr(at_ - size, size);
  }
  template <typename T>
  std::vector<T> array(uint64_t n) {
    std::vector<T> out;
    for (; n > 0; --n) out.push_back(take<T>());
    return out;
  }
  GgufValue value(uint32_t type) {
    if (type == 4) return take<uint32_t>();
    if (type == 6) return take<float>();
    if (type == 7) return take<uint8_t>() != 0;
    if (type == 8) return text();
    EXPECT_EQ(type, 9u);
    const auto of = take<uint32_t>();
    const auto n = take<uint64_t>();
    if (of == 0) return array<uint8_t>(n);
    if (of == 5) return array<int32_t>(n);
    if (of == 6) return array<float>(n);
    if (of == 7) return array<bool>(n);
    EXPECT_EQ(of, 8u);
    std::vector<std::string> texts;
    for (uint64_t i = 0; i < n; ++i) texts.push_back(text());
    return texts;
  }

  std::string bytes_;
  size_t at_ = 0;
};

}  // namespace upg::testing_util
