// A model report as one HTML page without scripts or anything from elsewhere: bits and error of each matrix as bars.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <map>

#include "base/atomic_file.h"
#include "upg/inspect.h"

namespace upg {
namespace {

constexpr int kBar = 12;      // pixels a matrix
constexpr int kHeight = 140;  // of one chart
constexpr int kLeft = 64;
constexpr int kGap = 34;  // between charts

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --text: #1c2733; --soft: #5c6a78; --line: #d5dce3; --page: #fff; --error: #b4532a; --loss: #7a4fb0;
  --c0: #2b6cb0; --c1: #2f9e77; --c2: #c98a1b; --c3: #b83d63; --c4: #5a6772; --c5: #7b5ea7; --c6: #3a8fa3; --c7: #8a6d3b; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9ee; --soft: #9aa8b5; --line: #39444f; --page: #14191f; --error: #e08a5f; --loss: #b391e6;
  --c0: #6ba6e8; --c1: #5fc9a3; --c2: #e6b455; --c3: #e5799b; --c4: #9fabb6; --c5: #b59be0; --c6: #74c2d4; --c7: #c7a971; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.4rem; margin: 0 0 .2rem; } p { color: var(--soft); margin: .2rem 0 1rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem; margin: 1rem 0 1.5rem; }
dt { color: var(--soft); font-size: .85rem; } dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.chart { overflow-x: auto; } svg text { fill: var(--soft); font-size: 11px; } svg .head { fill: var(--text); font-size: 13px; }
.legend span { display: inline-block; margin-right: 1.2rem; } .legend i { display: inline-block; width: .8em; height: .8em; margin-right: .4em; border-radius: 2px; }
table { border-collapse: collapse; width: 100%; margin-top: 1.5rem; font-size: .9rem; } th, td { text-align: right; padding: .2rem .6rem; border-bottom: 1px solid var(--line); font-variant-numeric: tabular-nums; }
th:first-child, td:first-child { text-align: left; } .wide { overflow-x: auto; }
)";

std::string escaped(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
    }
  }
  return out;
}

// Embedding, layers by number, head: what comes first in a model comes first on the page.
std::pair<int, std::string> place(const std::string& name) {
  std::string key;  // digits padded, so that layer 2 comes before layer 10
  for (size_t i = 0; i < name.size();) {
    size_t end = i;
    while (end < name.size() && std::isdigit(static_cast<unsigned char>(name[end]))) ++end;
    if (end > i) {
      key += std::string(end - i < 8 ? 8 - (end - i) : 0, '0') + name.substr(i, end - i);
      i = end;
    } else {
      key += name[i++];
    }
  }
  const int part = name.find("embed") != std::string::npos ? 0 : name.find("layers.") != std::string::npos ? 1 : 2;
  return {part, key};
}

struct Chart {
  std::string title;
  std::string color;  // empty: by codec
  std::vector<double> values;
  std::string unit;
};

std::string svg(const std::vector<const TensorReport*>& matrices, const std::vector<Chart>& charts,
                const std::map<std::string, int>& colors) {
  const int width = kLeft + kBar * static_cast<int>(matrices.size()) + 20;
  const int height = static_cast<int>(charts.size()) * (kHeight + kGap) + 10;
  std::string out = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" role=\"img\" "
      "aria-label=\"Bits and error of each matrix\">\n",
      width, height);
  int top = kGap;
  for (const Chart& chart : charts) {
    double most = 1e-12;
    for (double value : chart.values) most = std::max(most, value);
    out += fmt::format("<text class=\"head\" x=\"{}\" y=\"{}\">{}</text>\n", kLeft, top - 10, escaped(chart.title));
    for (int tick = 0; tick <= 2; ++tick) {
      const int y = top + kHeight - tick * kHeight / 2;
      out += fmt::format(
          "<line x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" stroke=\"var(--line)\"/><text x=\"{}\" y=\"{}\" "
          "text-anchor=\"end\">{:.3g}</text>\n",
          kLeft, width - 20, y, y, kLeft - 6, y + 4, most * tick / 2);
    }
    for (size_t i = 0; i < matrices.size(); ++i) {
      const TensorReport& tensor = *matrices[i];
      const double h = std::max(0.0, chart.values[i]) / most * kHeight;
      out += fmt::format(
          "<rect x=\"{}\" y=\"{:.1f}\" width=\"{}\" height=\"{:.1f}\" fill=\"var(--{})\"><title>{}\n{}, {:.3f} bits"
          "\n{:.4g} {}</title></rect>\n",
          kLeft + kBar * static_cast<int>(i) + 1, top + kHeight - h, kBar - 2, h,
          chart.color.empty() ? fmt::format("c{}", colors.at(tensor.codec)) : chart.color, escaped(tensor.name),
          escaped(tensor.codec), tensor.bits_per_weight, chart.values[i], escaped(chart.unit));
    }
    top += kHeight + kGap;
  }
  return out + "</svg>\n";
}

}  // namespace

std::string report_html(const ModelReport& report) {
  std::vector<const TensorReport*> matrices, others;
  for (const TensorReport& tensor : report.tensors) (tensor.shape.size() == 2 ? matrices : others).push_back(&tensor);
  for (auto* list : {&matrices, &others})
    std::stable_sort(list->begin(), list->end(), [](auto* a, auto* b) { return place(a->name) < place(b->name); });

  std::map<std::string, int> colors;
  for (const TensorReport* tensor : matrices) colors.emplace(tensor->codec, 0);
  int next = 0;
  for (auto& [codec, color] : colors) color = next++ % 8;

  Chart bits{"Bits per weight", "", {}, "bits"},
      error{"Relative error of the weights", "error", {}, "of the weights' size"},
      loss{"Predicted loss", "loss", {}, "nats of KL divergence"};
  bool has_error = false, has_loss = false;
  for (const TensorReport* tensor : matrices) {
    bits.values.push_back(tensor->bits_per_weight);
    error.values.push_back(tensor->relative_error.value_or(0));
    loss.values.push_back(tensor->predicted_loss.value_or(0));
    has_error |= tensor->relative_error.has_value();
    has_loss |= tensor->predicted_loss.has_value();
  }
  std::vector<Chart> charts = {bits};
  if (has_error) charts.push_back(error);
  if (has_loss) charts.push_back(loss);

  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width\"><title>{0}</title><style>{1}</style></head><body>\n<h1>{0}</h1>\n<p>{2}, "
      "{3}</p>\n<dl>",
      escaped(report.path), kStyle, escaped(report.architecture), escaped(report.format));
  auto fact = [&](std::string_view name, const std::string& value) {
    out += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>", name, value);
  };
  fact("parameters", fmt::format("{}", report.parameters));
  fact("weight bytes", fmt::format("{}", report.weight_bytes));
  fact("bits per weight", fmt::format("{:.4f}", report.bits_per_weight));
  fact("ratio to float32", fmt::format("{:.3f}", report.ratio_fp32));
  if (report.predicted_loss) fact("predicted loss, nats", fmt::format("{:.4f}", *report.predicted_loss));
  if (report.measured_loss) fact("measured loss, nats", fmt::format("{:.4f}", *report.measured_loss));
  out += "</dl>\n<div class=\"legend\">";
  for (const auto& [codec, color] : colors)
    out += fmt::format("<span><i style=\"background: var(--c{})\"></i>{}</span>", color, escaped(codec));
  out += "</div>\n<div class=\"chart\">" + svg(matrices, charts, colors) +
         "</div>\n<div class=\"wide\"><table><thead>"
         "<tr><th>tensor</th><th>shape</th><th>codec</th><th>bytes</th><th>bits</th><th>relative error</th>"
         "<th>predicted loss</th></tr></thead><tbody>\n";
  for (const auto* list : {&matrices, &others})
    for (const TensorReport* t : *list)
      out += fmt::format("<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3f}</td><td>{}</td><td>{}</td></tr>\n",
                         escaped(t->name), fmt::format("{}", fmt::join(t->shape, " x ")), escaped(t->codec), t->bytes,
                         t->bits_per_weight, t->relative_error ? fmt::format("{:.4f}", *t->relative_error) : "",
                         t->predicted_loss ? fmt::format("{:.5f}", *t->predicted_loss) : "");
  return out + "</tbody></table></div>\n</body></html>\n";
}

void write_report(const ModelReport& report, const std::string& path) { write_file(path, report_html(report)); }

}  // namespace upg
