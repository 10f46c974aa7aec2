// compress, inspect, verify, decompress, evaluate: everything that makes or looks at files.
#include <nanobind/stl/map.h>

#include <map>

#include "calls.h"
#include "model/weights.h"
#include "upg/compress.h"
#include "upg/convert.h"
#include "upg/evaluate.h"
#include "upg/export.h"
#include "upg/inspect.h"
#include "upg/kernels.h"

namespace upg::python {
namespace {

CompressReport compress_file(const std::string& source, const std::string& target, std::optional<double> ratio,
                             std::optional<uint64_t> bytes, std::optional<double> bits, const std::string& codec,
                             double density, const std::string& calibrate, uint64_t calibration_tokens,
                             const std::string& device, unsigned threads, nb::object progress) {
  Call call(std::move(progress));
  CompressOptions options;
  options.ratio = ratio;
  options.bytes = bytes;
  options.bits = bits;
  options.codec = codec;
  options.density = density;
  options.calibrate = calibrate;
  options.calibration_tokens = calibration_tokens;
  options.device = device;
  options.threads = threads;
  options.progress = call.progress();
  return call.run([&] { return compress(source, target, options); });
}

ConvertReport convert_file(const std::string& source, const std::string& target, const std::string& to,
                           const std::string& checkpoint, nb::object progress) {
  Call call(std::move(progress));
  const ConvertOptions options{to, checkpoint, call.progress()};
  return call.run([&] { return convert(source, target, options); });
}

ExportReport export_file(const std::string& source, const std::string& target, const std::string& format,
                         const std::string& type, bool overwrite, unsigned threads, nb::object progress) {
  Call call(std::move(progress));
  const ExportOptions options{format, type, overwrite, threads, call.progress()};
  return call.run([&] { return export_model(source, target, options); });
}

EvaluateOptions evaluate_options(Call& call, const std::string& reference, uint64_t context, uint64_t chunks,
                                 const std::string& kv, bool float_activations, unsigned threads,
                                 const std::string& device, std::optional<uint64_t> gpu_layers) {
  EvaluateOptions options;
  options.reference = reference;
  options.context = context;
  options.chunks = chunks;
  options.kv = kv;
  options.float_activations = float_activations;
  options.threads = threads;
  options.device = device;
  options.gpu_layers = gpu_layers;
  options.progress = call.progress();
  return options;
}

TextEvaluation text_evaluation(const std::string& model, const std::string& text_file, const std::string& reference,
                               uint64_t context, uint64_t chunks, const std::string& kv, bool float_activations,
                               unsigned threads, const std::string& device, std::optional<uint64_t> gpu_layers,
                               nb::object progress) {
  Call call(std::move(progress));
  const EvaluateOptions options =
      evaluate_options(call, reference, context, chunks, kv, float_activations, threads, device, gpu_layers);
  return call.run([&] { return evaluate_text(model, text_file, options); });
}

TaskEvaluation task_evaluation(const std::string& model, const std::string& task, const std::string& data,
                               uint64_t items, const std::string& kv, bool float_activations, unsigned threads,
                               const std::string& device, std::optional<uint64_t> gpu_layers, nb::object progress) {
  Call call(std::move(progress));
  const EvaluateOptions options =
      evaluate_options(call, "", 512, 0, kv, float_activations, threads, device, gpu_layers);
  return call.run([&] { return evaluate_task(model, task, data, items, options); });
}

// The texts of a UPG file as the files of a checkpoint. No public header has them: the library needs them itself only.
std::map<std::string, std::string> model_texts(const std::string& path) {
  const ModelTexts texts = Weights(path).texts();
  return {{"config.json", texts.config},
          {"generation_config.json", texts.generation_config},
          {"tokenizer.json", texts.tokenizer},
          {"tokenizer_config.json", texts.tokenizer_config},
          {"chat_template.jinja", texts.chat_template}};
}

void bind_reports(nb::module_& m) {
  nb::class_<TensorReport>(m, "TensorReport")
      .def_ro("name", &TensorReport::name)
      .def_ro("shape", &TensorReport::shape)
      .def_ro("codec", &TensorReport::codec)
      .def_ro("bytes", &TensorReport::bytes)
      .def_ro("bits_per_weight", &TensorReport::bits_per_weight)
      .def_ro("relative_error", &TensorReport::relative_error)
      .def_ro("predicted_loss", &TensorReport::predicted_loss);
  nb::class_<ModelReport>(m, "ModelReport")
      .def_ro("path", &ModelReport::path)
      .def_ro("architecture", &ModelReport::architecture)
      .def_ro("format", &ModelReport::format)
      .def_ro("tensors", &ModelReport::tensors)
      .def_ro("parameters", &ModelReport::parameters)
      .def_ro("weight_bytes", &ModelReport::weight_bytes)
      .def_ro("file_bytes", &ModelReport::file_bytes)
      .def_ro("bits_per_weight", &ModelReport::bits_per_weight)
      .def_ro("ratio_fp32", &ModelReport::ratio_fp32)
      .def_ro("predicted_loss", &ModelReport::predicted_loss)
      .def_ro("measured_loss", &ModelReport::measured_loss)
      .def_ro("uncalibrated", &ModelReport::uncalibrated)
      .def("html", [](const ModelReport& r) { return report_html(r); });
  nb::class_<CompressReport>(m, "CompressReport")
      .def_ro("model", &CompressReport::model)
      .def_ro("seconds", &CompressReport::seconds)
      .def_ro("peak_bytes", &CompressReport::peak_bytes)
      .def_ro("device_peak_bytes", &CompressReport::device_peak_bytes)
      .def_ro("device", &CompressReport::device);
  nb::class_<ConvertReport::Note>(m, "ConvertNote")
      .def_ro("tensor", &ConvertReport::Note::tensor)
      .def_ro("what", &ConvertReport::Note::what);
  nb::class_<ConvertReport>(m, "ConvertReport")
      .def_ro("source_format", &ConvertReport::from)
      .def_ro("source_form", &ConvertReport::form)
      .def_ro("model", &ConvertReport::model)
      .def_ro("notes", &ConvertReport::notes)
      .def_ro("seconds", &ConvertReport::seconds);
  nb::class_<ExportReport>(m, "ExportReport")
      .def_ro("path", &ExportReport::path)
      .def_ro("format", &ExportReport::format)
      .def_ro("type", &ExportReport::type)
      .def_ro("architecture", &ExportReport::architecture)
      .def_ro("tensors", &ExportReport::tensors)
      .def_ro("parameters", &ExportReport::parameters)
      .def_ro("file_bytes", &ExportReport::file_bytes)
      .def_ro("seconds", &ExportReport::seconds)
      .def_ro("notes", &ExportReport::notes);
}

void bind_evaluations(nb::module_& m) {
  nb::class_<Estimate>(m, "Estimate")
      .def_ro("value", &Estimate::value)
      .def_ro("standard_error", &Estimate::standard_error);
  nb::class_<TextEvaluation>(m, "TextEvaluation")
      .def_ro("tokens", &TextEvaluation::tokens)
      .def_ro("chunks", &TextEvaluation::chunks)
      .def_ro("scored", &TextEvaluation::scored)
      .def_ro("perplexity", &TextEvaluation::perplexity)
      .def_ro("reference_perplexity", &TextEvaluation::reference_perplexity)
      .def_ro("perplexity_ratio", &TextEvaluation::perplexity_ratio)
      .def_ro("mean_kld", &TextEvaluation::mean_kld)
      .def_ro("p99_kld", &TextEvaluation::p99_kld)
      .def_ro("max_kld", &TextEvaluation::max_kld)
      .def_ro("same_top1", &TextEvaluation::same_top1)
      .def_ro("seconds", &TextEvaluation::seconds);
  nb::class_<TaskEvaluation>(m, "TaskEvaluation")
      .def_ro("task", &TaskEvaluation::task)
      .def_ro("items", &TaskEvaluation::items)
      .def_ro("accuracy", &TaskEvaluation::accuracy)
      .def_ro("normalized_accuracy", &TaskEvaluation::normalized_accuracy)
      .def_ro("perplexity", &TaskEvaluation::perplexity)
      .def_ro("seconds", &TaskEvaluation::seconds);
}

}  // namespace

void bind_models(nb::module_& m) {
  using nb::arg;
  bind_reports(m);
  bind_evaluations(m);
  m.def("compress", compress_file, arg("source"), arg("target"), arg("ratio").none(), arg("bytes").none(),
        arg("bits").none(), arg("codec"), arg("density"), arg("calibrate"), arg("calibration_tokens"), arg("device"),
        arg("threads"), arg("progress").none());
  m.def("convert", convert_file, arg("source"), arg("target"), arg("to"), arg("checkpoint"), arg("progress").none());
  m.def("export_model", export_file, arg("source"), arg("target"), arg("format"), arg("type"), arg("overwrite"),
        arg("threads"), arg("progress").none());
  m.def("inspect", &inspect, arg("path"), nb::call_guard<nb::gil_scoped_release>());
  m.def(
      "verify",
      [](const std::string& path, nb::object progress) {
        Call call(std::move(progress));
        call.run([&, report = call.progress()] { verify(path, report); });
      },
      arg("path"), arg("progress").none());
  m.def(
      "decompress",
      [](const std::string& path, const std::string& target, nb::object progress) {
        Call call(std::move(progress));
        call.run([&, report = call.progress()] { decompress(path, target, report); });
      },
      arg("path"), arg("target"), arg("progress").none());
  m.def("evaluate_text", text_evaluation, arg("model"), arg("text_file"), arg("reference"), arg("context"),
        arg("chunks"), arg("kv"), arg("float_activations"), arg("threads"), arg("device"), arg("gpu_layers").none(),
        arg("progress").none());
  m.def("evaluate_task", task_evaluation, arg("model"), arg("task"), arg("data"), arg("items"), arg("kv"),
        arg("float_activations"), arg("threads"), arg("device"), arg("gpu_layers").none(), arg("progress").none());
  m.def("model_texts", &model_texts, arg("path"));
  nb::class_<KernelReport>(m, "KernelReport")
      .def_ro("op", &KernelReport::op)
      .def_ro("variant", &KernelReport::variant)
      .def_ro("name", &KernelReport::name)
      .def_ro("selected", &KernelReport::selected)
      .def_ro("reason", &KernelReport::reason);
  m.def("kernel_report", &kernel_report);
}

}  // namespace upg::python
