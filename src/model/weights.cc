#include "model/weights.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/mapped_file.h"
#include "codec/codec_table.h"
#include "codec/dense.h"
#include "format/convert.h"

namespace upg {
namespace {

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

}  // namespace

Weights::Weights(const std::string& path) : path_(path) {
  if (is_directory(path)) {
    checkpoint_.emplace(path);
    texts_ = checkpoint_->texts();
    for (const TensorView& tensor : checkpoint_->tensors()) {
      const Codec* codec = dense_codec(tensor.dtype);
      TensorView part = tensor;
      part.name.clear();
      entries_.push_back({tensor.name,
                          codec ? std::string(codec->id) : std::string(dtype_info(tensor.dtype).name),
                          1,
                          tensor.shape,
                          std::nullopt,
                          {std::move(part)}});
    }
  } else {
    upg_.emplace(UpgFile::open(path));
    texts_ = upg_->texts();
    entries_ = upg_->entries();
  }
  for (size_t i = 0; i < entries_.size(); ++i) index_.emplace(entries_[i].name, i);
}

uint64_t Weights::file_bytes() const {
  if (upg_) return upg_->file_bytes();
  uint64_t total = 0;
  for (const UpgEntry& e : entries_) total += e.stored_bytes();
  return total;
}

std::vector<WeightInfo> Weights::list() const {
  std::vector<WeightInfo> infos;
  for (const UpgEntry& e : entries_)
    if (!is_left_out(e.name)) infos.push_back({e.name, e.shape, e.codec, e.stored_bytes(), e.relative_error});
  return infos;
}

bool Weights::has(std::string_view name) const { return index_.contains(name); }

bool Weights::is_left_out(std::string_view name) const {
  if (name.ends_with(".rotary_emb.inv_freq")) return true;  // old files have what follows from their configuration
  return std::any_of(left_out_.begin(), left_out_.end(), [&](const std::string& p) { return name.starts_with(p); });
}

void Weights::read_ahead(const Progress& progress) const {
  constexpr size_t kPiece = size_t{64} << 20;
  constexpr double kWarm = 0.98, kShareOfMemory = 0.8;
  uint64_t total = 0, done = 0;
  double resident = 0;
  for (const UpgEntry& e : entries_) {
    for (const TensorView& part : e.parts) {
      total += part.data.size();
      resident += resident_share(part.data) * static_cast<double>(part.data.size());
    }
  }
  const double memory =
      static_cast<double>(::sysconf(_SC_PHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE)) * kShareOfMemory;
  if (resident >= kWarm * static_cast<double>(total) || static_cast<double>(total) > memory) return;
  for (const UpgEntry& e : entries_) {
    for (const TensorView& part : e.parts) {
      for (size_t at = 0; at < part.data.size(); at += kPiece) {
        const size_t n = std::min(kPiece, part.data.size() - at);
        upg::read_ahead(part.data.subspan(at, n));
        done += n;
        if (progress && !progress("reading the model", done, total))
          fail(ErrorCode::kCancelled, "{}: cancelled", path_);
      }
    }
  }
}

const UpgEntry& Weights::entry(const std::string& name) {
  const auto found = index_.find(name);
  if (found != index_.end()) {
    used_.insert(name);
    return entries_[found->second];
  }
  fail(ErrorCode::kInvalidFile, "{}: tensor {} is missing", path_, name);
}

Matrix Weights::matrix(const std::string& name, uint64_t rows, uint64_t cols) {
  const UpgEntry& e = entry(name);
  if (e.shape != std::vector<uint64_t>{rows, cols})
    fail(ErrorCode::kInvalidFile, "{}: tensor {} has shape {}, its configuration asks for [{}, {}]", path_, name,
         shape_string(e.shape), rows, cols);
  const Codec& codec = [&]() -> const Codec& {
    try {
      return find_codec(e.codec);
    } catch (const Error& error) {  // the list of codecs knows no tensors
      fail(error.code(), "{}: tensor {}: {}", path_, name, error.what());
    }
  }();
  if (e.codec_version != codec.version)
    fail(ErrorCode::kUnsupported, "{}: tensor {} uses version {} of codec {}, this build reads version {}", path_, name,
         e.codec_version, codec.id, codec.version);
  return codec.open(name, rows, cols, e.parts);
}

std::vector<float> Weights::vector(const std::string& name, uint64_t n) {
  const UpgEntry& e = entry(name);
  if (e.shape != std::vector<uint64_t>{n})
    fail(ErrorCode::kInvalidFile, "{}: tensor {} has shape {}, its configuration asks for [{}]", path_, name,
         shape_string(e.shape), n);
  if (e.parts.size() != 1 || e.parts[0].elements() != n)
    fail(ErrorCode::kInvalidFile, "{}: tensor {} is a vector but not stored uncompressed", path_, name);
  std::vector<float> values(n);
  read_floats(e.parts[0], 0, values);
  for (uint64_t i = 0; i < n; ++i)
    if (!std::isfinite(values[i]))
      fail(ErrorCode::kInvalidFile, "{}: tensor {} has {} at index {}", path_, name, values[i], i);
  return values;
}

void Weights::check_all_used() const {
  for (const UpgEntry& e : entries_)
    if (!used_.contains(e.name) && !is_left_out(e.name))
      fail(ErrorCode::kInvalidFile, "{}: tensor {} is not part of this architecture", path_, e.name);
}

}  // namespace upg
