#include "upg/convert.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <map>
#include <memory>

#include "base/error.h"
#include "codec/dense.h"
#include "convert/source.h"
#include "format/upg_writer.h"
#include "model/arch_table.h"
#include "model/weights.h"
#include "text/tokenizer_source.h"

namespace upg {
namespace {

// THE list of versions that can be written, oldest first.
struct Target {
  std::string_view version;
  std::string_view from;  // what is converted to it unless something else is asked for
  StoredWeight (*improve)(StoredWeight weight, std::string_view name);
};

StoredWeight unchanged(StoredWeight weight, std::string_view) { return weight; }

constexpr std::array kTargets = {Target{"2.0", "1.0", unchanged}, Target{"3.0", "2.0", smaller_exact_form}};

const Target& find_target(const std::string& to, std::string_view from, const std::string& path) {
  for (const Target& target : kTargets) {
    if (to.empty() ? target.from != from : target.version != to) continue;
    if (target.version <= from && !to.empty())
      fail(ErrorCode::kInvalidArgument, "{}: is UPG {}; it cannot be converted to {}", path, from, to);
    return target;
  }
  if (to.empty())
    fail(ErrorCode::kInvalidArgument, "{}: is UPG {}, the newest version; there is nothing to convert", path, from);
  fail(ErrorCode::kInvalidArgument, "version \"{}\" is not one to convert to; 2.0 and 3.0 are", to);
}

// What the original checkpoint has and a 1.0 file may lack.
class Original {
 public:
  explicit Original(const std::string& dir) : dir_(dir), texts_(read_model_texts(dir)) {
    std::error_code ignored;
    if (!std::filesystem::exists(dir + "/model.safetensors", ignored) &&
        !std::filesystem::exists(dir + "/model.safetensors.index.json", ignored))
      return;  // texts alone may be all that is wanted
    weights_ = std::make_unique<Weights>(dir);
    load_model(*weights_);  // says which weights are not part of the model
    for (const TensorView& tensor : weights_->checkpoint()->tensors())
      if (!weights_->is_left_out(tensor.name)) tensors_.emplace(tensor.name, &tensor);
  }

  const ModelTexts& texts() const { return texts_; }
  const std::string& dir() const { return dir_; }
  const std::map<std::string, const TensorView*>& tensors() const { return tensors_; }

 private:
  std::string dir_;
  ModelTexts texts_;
  std::unique_ptr<Weights> weights_;
  std::map<std::string, const TensorView*> tensors_;
};

class Converter {
 public:
  Converter(const std::string& source, const std::string& target, const ConvertOptions& options)
      : options_(options),
        path_(source),
        target_(target),
        source_(open_source(source)),
        version_(find_target(options.to, source_->version(), source)) {
    if (!options.checkpoint.empty()) original_.emplace(options.checkpoint);
    report_.from = source_->version();
    report_.form = source_->form();
  }

  ConvertReport run() {
    { const AtomicFile probe(target_); }  // a target that cannot be written is refused before the work
    UpgPlan plan;
    plan.version = version_.version;
    plan.producer = "upg " UPG_VERSION;
    plan.texts = texts();
    plan.architecture = ConfigReader(plan.texts.config, path_ + ": config.json").architecture();
    for (const ConvertSource::Item& item : source_->items()) total_ += 2 * item.bytes;
    for (size_t i = 0; i < source_->items().size(); ++i) {
      const std::string& name = source_->items()[i].name;
      const StoredWeight weight = load(i, "reading");
      check(weight, name);
      add(plan, name, weight);
      if (!weight.note.empty()) report_.notes.push_back({name, weight.note});
    }
    add_missing(plan);
    write(std::move(plan));
    report_.model = inspect(target_);
    return std::move(report_);
  }

 private:
  void progress(std::string_view stage) const {
    if (options_.progress && !options_.progress(stage, done_, std::max<uint64_t>(total_, 1)))
      fail(ErrorCode::kCancelled, "the conversion was cancelled");
  }

  StoredWeight load(size_t index, std::string_view stage) {
    const ConvertSource::Item& item = source_->items()[index];
    progress(fmt::format("{} {}", stage, item.name));
    StoredWeight weight = version_.improve(source_->load(index), item.name);
    done_ += item.bytes;
    return weight;
  }

  ModelTexts texts() const {
    ModelTexts texts = source_->texts();
    std::string where = path_;
    if (original_) {
      const ModelTexts& original = original_->texts();
      for (const auto text : {&ModelTexts::config, &ModelTexts::generation_config, &ModelTexts::tokenizer_config,
                              &ModelTexts::chat_template})
        if ((texts.*text).empty()) texts.*text = original.*text;
      if (texts.tokenizer.empty()) {
        texts.tokenizer = original.tokenizer;
        texts.vocabulary = original.vocabulary;
        texts.vocabulary_file = original.vocabulary_file;
        where = original_->dir();
      }
    }
    if (texts.config.empty())
      fail(ErrorCode::kInvalidArgument,
           "{}: does not hold its model's configuration; give the directory of the original checkpoint (--checkpoint)",
           path_);
    texts.tokenizer = tokenizer_json(texts, where);
    return texts;
  }

  void check(const StoredWeight& weight, const std::string& name) const {
    if (weight.codec->since > version_.version)
      fail(ErrorCode::kUnsupported, "{}: {} is in codec {}, which UPG {} does not have", path_, name, weight.codec->id,
           version_.version);
    if (!original_) return;
    const auto found = original_->tensors().find(name);
    if (found == original_->tensors().end()) {
      if (original_->tensors().empty()) return;
      fail(ErrorCode::kInvalidFile, "{}: {} is not in the checkpoint {}", path_, name, original_->dir());
    }
    if (found->second->shape != weight.shape)
      fail(ErrorCode::kInvalidFile, "{}: {} has the shape {}, but {} in the checkpoint {}", path_, name,
           shape_string(weight.shape), shape_string(found->second->shape), original_->dir());
  }

  static void add(UpgPlan& plan, const std::string& name, const StoredWeight& weight) {
    UpgPlanEntry& entry = plan.entries.emplace_back(
        UpgPlanEntry{name, std::string(weight.codec->id), weight.codec->version, weight.shape, {}});
    for (const StoredWeight::Part& part : weight.parts) entry.parts.push_back({part.suffix, part.dtype, part.shape});
  }

  // Weights that the source lacks come from the checkpoint, as they are.
  void add_missing(UpgPlan& plan) {
    if (!original_) return;
    std::map<std::string_view, bool> there;
    for (const ConvertSource::Item& item : source_->items()) there[item.name] = true;
    for (const auto& [name, tensor] : original_->tensors()) {
      if (there.contains(name)) continue;
      const Codec* codec = dense_codec(tensor->dtype);
      if (codec == nullptr)
        fail(ErrorCode::kUnsupported, "{}: tensor {} is {}: only BF16, F16 and F32 weights can be taken over",
             original_->dir(), name, dtype_info(tensor->dtype).name);
      plan.entries.push_back(
          {name, std::string(codec->id), codec->version, tensor->shape, {{"", tensor->dtype, tensor->shape}}});
      missing_.push_back(tensor);
      report_.notes.push_back({name, "taken from the checkpoint"});
    }
  }

  void write(UpgPlan plan) {
    UpgWriter writer(target_, std::move(plan));
    for (size_t i = 0; i < source_->items().size(); ++i) {
      const std::string& name = source_->items()[i].name;
      const StoredWeight weight = load(i, "writing");
      for (const StoredWeight::Part& part : weight.parts) writer.append(name, part.suffix, part.data);
      if (weight.relative_error) writer.set_relative_error(name, *weight.relative_error);
    }
    for (const TensorView* tensor : missing_) writer.append(tensor->name, "", tensor->data);
    progress("checking");
    writer.finish([&](const std::string& written) {
      try {
        Weights weights(written);
        load_model(weights);
      } catch (const Error& error) {
        std::string why = error.what();  // about a name that nobody has seen
        if (const size_t at = why.find(written); at != std::string::npos) why.replace(at, written.size(), target_);
        fail(error.code(), "{}: the model in it could not be run: {}{}", path_, why,
             original_ ? "" : "; weights that the file lacks come from --checkpoint");
      }
    });
  }

  const ConvertOptions& options_;
  std::string path_, target_;
  std::unique_ptr<ConvertSource> source_;
  const Target& version_;
  std::optional<Original> original_;
  std::vector<const TensorView*> missing_;
  ConvertReport report_;
  uint64_t done_ = 0, total_ = 0;  // bytes of the source, which is read twice
};

}  // namespace

ConvertReport convert(const std::string& source, const std::string& target, const ConvertOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  ConvertReport report = Converter(source, target, options).run();
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

}  // namespace upg
