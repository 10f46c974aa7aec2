#include "format/upg_writer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "format/json.h"
#include "format/upg_file.h"

namespace upg {

namespace {

constexpr std::string_view kSuffixLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";
constexpr size_t kMaxRank = 8;

std::string stored_name(std::string_view entry, std::string_view suffix) {
  return suffix.empty() ? std::string(entry) : fmt::format("{}.{}", entry, suffix);
}

}  // namespace

UpgWriter::UpgWriter(const std::string& path, UpgPlan plan) : plan_(std::move(plan)), errors_(plan_.entries.size()) {
  const auto refuse = [&](std::string_view what, std::string_view problem) {
    fail(ErrorCode::kInvalidArgument, "{}: cannot write {:?}: {}", path, what, problem);
  };
  if (plan_.version != "2.0" && plan_.version != "3.0") refuse(plan_.version, "not a known UPG version");
  if (plan_.architecture.empty()) refuse(upg_key::kArchitecture, "it is empty");
  const ModelTexts& texts = plan_.texts;
  parse_json_object(texts.config, "config.json");
  if (!texts.generation_config.empty()) parse_json_object(texts.generation_config, "generation_config.json");
  if (!texts.tokenizer_config.empty()) parse_json_object(texts.tokenizer_config, "tokenizer_config.json");

  for (size_t i = 0; i < plan_.entries.size(); ++i) {
    const UpgPlanEntry& entry = plan_.entries[i];
    if (entry.name.empty() || entry.name == kTokenizerTensor || !by_name_.emplace(entry.name, i).second)
      refuse(entry.name, "an entry's name must be new, not empty and not that of the tokenizer");
    if (entry.parts.empty()) refuse(entry.name, "it has no parts");
    if (entry.shape.size() > kMaxRank || !checked_product(entry.shape)) refuse(entry.name, "its shape is too large");
  }

  writer_.emplace(path);
  std::map<std::string, std::string> checksums;
  const std::string zeros(kChecksumDigits, '0');
  const auto declare = [&](const std::string& name, DType dtype, const std::vector<uint64_t>& shape) {
    writer_->declare(name, dtype, shape);
    checksums[name] = zeros;
    stored_names_.push_back(name);
  };
  for (const UpgPlanEntry& entry : plan_.entries) {
    for (const UpgPlanPart& part : entry.parts) {
      const std::string name = stored_name(entry.name, part.suffix);
      // A reader splits a stored name at its last dot, unless an entry has that very name.
      if (part.suffix.find_first_not_of(kSuffixLetters) != std::string::npos)
        refuse(name, "a part's suffix has letters, digits and '_' only");
      if (name == kTokenizerTensor || (!part.suffix.empty() && by_name_.contains(name)))
        refuse(name, "a part's stored name is also that of another entry");
      declare(name, part.dtype, part.shape);
    }
  }
  if (!texts.tokenizer.empty()) declare(std::string(kTokenizerTensor), DType::kU8, {texts.tokenizer.size()});

  const auto set = [&](std::string_view key, const std::string& value) {
    if (!value.empty()) writer_->set_metadata(std::string(key), value);
  };
  set(upg_key::kVersion, plan_.version);
  set(upg_key::kArchitecture, plan_.architecture);
  set(upg_key::kProducer, plan_.producer);
  set(upg_key::kConfig, texts.config);
  set(upg_key::kGenerationConfig, texts.generation_config);
  set(upg_key::kTokenizerConfig, texts.tokenizer_config);
  set(upg_key::kChatTemplate, texts.chat_template);
  set(upg_key::kTensors, tensors_json(true));
  set(upg_key::kChecksums, json_text(checksums, "tensor names"));
  set(upg_key::kHeaderChecksum, zeros);
  if (!texts.tokenizer.empty()) writer_->append(kTokenizerTensor, std::as_bytes(std::span(texts.tokenizer)));
}

std::string UpgWriter::tensors_json(bool reserve) const {
  std::string text = "{";
  for (const auto& [name, i] : by_name_) {
    const UpgPlanEntry& entry = plan_.entries[i];
    text += fmt::format("{}{}:{{\"codec\":{},\"codec_version\":{},\"shape\":{}", text.size() > 1 ? "," : "",
                        json_text(name, "entry name"), json_text(entry.codec, "codec"), entry.codec_version,
                        Json(entry.shape).dump());
    // Every error is 12 characters, so that the header written first has room for those known last.
    if (reserve || errors_[i]) text += fmt::format(",\"relative_error\":{:.6e}", errors_[i].value_or(0.0));
    text += '}';
  }
  return text + '}';
}

void UpgWriter::append(std::string_view entry, std::string_view suffix, std::span<const std::byte> data) {
  writer_->append(stored_name(entry, suffix), data);
}

void UpgWriter::set_relative_error(std::string_view entry, double error) {
  const auto found = by_name_.find(entry);
  if (found == by_name_.end()) fail(ErrorCode::kInvalidArgument, "entry {:?} is not in the plan", entry);
  if (!(error >= 0 && error < 1e99))
    fail(ErrorCode::kInvalidArgument, "entry {:?}: relative error {} is not a finite number of at least 0", entry,
         error);
  errors_[found->second] = error < 1e-98 ? 0 : error;
}

void UpgWriter::finish(const std::function<void(const std::string&)>& check) {
  std::map<std::string, std::string> checksums;
  for (const std::string& name : stored_names_) checksums[name] = writer_->checksum(name);
  writer_->set_metadata(std::string(upg_key::kChecksums), json_text(checksums, "tensor names"));
  writer_->set_metadata(std::string(upg_key::kTensors), tensors_json(false));
  const auto add_checksum = [](std::string& header) {
    const size_t at = find_header_checksum(header);
    UPG_CHECK(at != std::string::npos);
    header.replace(at, kChecksumDigits, header_checksum(header, at));
  };
  writer_->commit(add_checksum, check);
}

}  // namespace upg
