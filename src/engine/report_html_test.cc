// The report page: every tensor named, in model order, nothing from a file taken as markup.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "upg/inspect.h"

namespace upg {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

ModelReport report() {
  ModelReport r;
  r.path = "model.upg";
  r.architecture = "X";
  r.format = "UPG 3.0";
  for (const char* name : {"lm_head.weight", "model.layers.10.a.weight", "model.layers.2.a.weight",
                           "model.embed_tokens.weight", "model.layers.2.<script>'\"&.weight"})
    r.tensors.push_back({name, {4, 8}, "trellis3", 100, 3.1, 0.15, {}});
  r.tensors.push_back({"model.norm.weight", {8}, "bf16", 16, 16, {}, {}});
  return r;
}

TEST(ReportHtml, NamesEveryTensorInModelOrder) {
  const std::string html = report_html(report());
  size_t before = 0;
  for (const char* name :
       {"embed_tokens", "layers.2.&lt;script", "layers.2.a", "layers.10.a", "lm_head", "model.norm"}) {
    const size_t at = html.find(name, html.find("<tbody>"));
    ASSERT_NE(at, std::string::npos) << name;
    EXPECT_GT(at, before) << name;
    before = at;
  }
}

TEST(ReportHtml, NamesAreTextNotMarkup) {
  const std::string html = report_html(report());
  EXPECT_THAT(html, Not(HasSubstr("<script")));
  EXPECT_THAT(html, HasSubstr("&lt;script&gt;&#39;&quot;&amp;"));
}

TEST(ReportHtml, LossesAreShownWhereTheyAreKnown) {
  EXPECT_THAT(report_html(report()), Not(HasSubstr("measured loss")));
  ModelReport r = report();
  r.measured_loss = 0.0941;
  r.predicted_loss = 0.17;
  r.tensors[0].predicted_loss = 0.0123;
  const std::string html = report_html(r);
  EXPECT_THAT(html, HasSubstr("0.0941"));
  EXPECT_THAT(html, HasSubstr("Predicted loss"));
  EXPECT_THAT(html, HasSubstr("0.01230"));
}

TEST(ReportHtml, AModelWithoutMatricesHasAPageToo) {
  ModelReport r;
  EXPECT_THAT(report_html(r), HasSubstr("</html>"));
}

}  // namespace
}  // namespace upg
