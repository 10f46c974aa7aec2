// For tests of the model layer and above: the models under tests/data and models/demo, copies of them with a change,
// and a loaded model to run.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "base/atomic_file.h"
#include "base/mapped_file.h"
#include "format/checkpoint.h"
#include "format/convert.h"
#include "format/safetensors.h"
#include "format/safetensors_writer.h"
#include "format/test_util.h"
#include "model/arch_table.h"
#include "model/weights.h"

namespace upg::testing_util {

inline std::string source_path(const std::string& name) { return std::string(UPG_SOURCE_DIR) + "/" + name; }
inline std::string demo_model() { return source_path("models/demo"); }
inline std::string golden_model(const std::string& name) { return source_path("tests/data/models/" + name); }

/// Names of the folders of tests/data/models.
inline std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(source_path("tests/data/models")))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<float> floats_of(const TensorView& view) {
  std::vector<float> values(view.elements());
  read_floats(view, 0, values);
  return values;
}

inline std::vector<int32_t> ints_of(const TensorView& view) {
  EXPECT_EQ(view.dtype, DType::kI32);
  std::vector<int32_t> values(view.elements());
  std::memcpy(values.data(), view.data.data(), view.data.size());
  return values;
}

/// What transformers computes for a model in float32.
struct Golden {
  explicit Golden(const std::string& dir) {
    const SafetensorsFile file = SafetensorsFile::open(dir + "/golden.safetensors");
    ids = ints_of(*file.find("input_ids"));
    logits = floats_of(*file.find("logits"));
    greedy = ints_of(*file.find("greedy"));
  }
  std::vector<int32_t> ids;
  std::vector<float> logits;  // [ids, vocab]
  std::vector<int32_t> greedy;
};

inline float largest_of(const std::vector<float>& values) {
  float largest = 0;
  for (float x : values) largest = std::max(largest, std::abs(x));
  return largest;
}

inline float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float d = std::abs(a[i] - b[i]);
    largest = d <= largest ? largest : d;  // NaN stays
  }
  return largest;
}

/// A checkpoint's tensors, to be changed and written again.
struct OwnedTensor {
  std::string name;
  DType dtype;
  std::vector<uint64_t> shape;
  std::vector<std::byte> data;

  uint64_t elements() const { return data.size() / dtype_info(dtype).bytes; }
  void set(uint64_t i, float value) {
    const uint64_t bytes = dtype_info(dtype).bytes;
    write_floats(dtype, std::span(&value, 1), std::span(data).subspan(i * bytes, bytes));
  }
  void fill(float value) {
    for (uint64_t i = 0; i < elements(); ++i) set(i, value);
  }
};

struct EditableCheckpoint {
  nlohmann::json config;
  std::vector<OwnedTensor> tensors;

  explicit EditableCheckpoint(const std::string& dir) : config(nlohmann::json::parse(read_file(dir + "/config.json"))) {
    const Checkpoint checkpoint(dir);
    for (const TensorView& t : checkpoint.tensors())
      tensors.push_back({t.name, t.dtype, t.shape, {t.data.begin(), t.data.end()}});
  }
  OwnedTensor& at(const std::string& name) {
    for (OwnedTensor& t : tensors)
      if (t.name == name) return t;
    throw std::out_of_range(name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const OwnedTensor& t) { return t.name == name; });
  }
  /// Writes the checkpoint to the new folder `dir`, which is returned.
  std::string write(const std::string& dir) const {
    std::filesystem::create_directories(dir);
    write_file(dir + "/config.json", config.dump());
    SafetensorsWriter writer(dir + "/model.safetensors");
    for (const OwnedTensor& t : tensors) writer.declare(t.name, t.dtype, t.shape);
    for (const OwnedTensor& t : tensors) writer.append(t.name, t.data);
    writer.commit();
    return dir;
  }
};

/// A loaded model with a cache.
class Runner {
 public:
  explicit Runner(const std::string& path, unsigned threads = 1, const char* kv = "f16", uint64_t capacity = 64)
      : weights_(path),
        context_(threads),
        model_(load_model(weights_)),
        cache_(model_->shape().kv, capacity, find_kv_type(kv)) {}

  uint64_t vocab() const { return model_->shape().vocab_size; }
  KvCache& cache() { return cache_; }

  /// Logits of all of `ids`, which follow what was fed before.
  std::vector<float> feed(std::span<const int32_t> ids, Activations activations = Activations::kFloat) {
    std::vector<float> logits(ids.size() * vocab());
    model_->forward(context_, ids, activations, cache_, {0, ids.size()}, logits.data());
    return logits;
  }

  /// From the start, in pieces of these lengths; what remains one at a time.
  std::vector<float> feed_pieces(std::span<const int32_t> ids, std::vector<size_t> lengths,
                                 Activations activations = Activations::kFloat) {
    cache_.set_length(0);
    std::vector<float> all;
    for (size_t at = 0, piece = 0; at < ids.size(); ++piece) {
      const size_t n = piece < lengths.size() ? std::min(lengths[piece], ids.size() - at) : 1;
      const std::vector<float> logits = feed(ids.subspan(at, n), activations);
      all.insert(all.end(), logits.begin(), logits.end());
      at += n;
    }
    return all;
  }

  std::vector<float> feed_whole(std::span<const int32_t> ids) { return feed_pieces(ids, {ids.size()}); }

  /// The likeliest `n` tokens after `ids`.
  std::vector<int32_t> greedy(std::span<const int32_t> ids, size_t n) {
    std::vector<float> logits = feed_whole(ids);
    std::vector<int32_t> out;
    while (out.size() < n) {
      const auto last = logits.end() - static_cast<ptrdiff_t>(vocab());
      out.push_back(static_cast<int32_t>(std::max_element(last, logits.end()) - last));
      if (out.size() < n) logits = feed(std::span(&out.back(), 1));
    }
    return out;
  }

 private:
  Weights weights_;
  OpContext context_;
  std::unique_ptr<Model> model_;
  KvCache cache_;
};

}  // namespace upg::testing_util
