// The template language: what differs from what one would guess, limits, and errors. Whole templates are compared with
// transformers in chat_template_test.cc, random ones by tests/conformance_chat.py.
#include "text/jinja/jinja.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "upg/error.h"

namespace upg::jinja {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::string render(const std::string& source, const Json& variables = Json::object(), const Limits& limits = {}) {
  return Template(source, "t").render(variables, limits);
}

std::string error_of(const std::string& source, const Json& variables = Json::object(), const Limits& limits = {}) {
  try {
    return "rendered: " + render(source, variables, limits).substr(0, 200);
  } catch (const Error& error) {
    return error.what();
  }
}

TEST(Jinja, values_print_as_python_prints_them) {
  EXPECT_EQ(render("{{ [1, 1.0, true, none, 'a', \"it's\", 1e16, 1e-5, (1,), {'k': []}] }}"),
            "[1, 1.0, True, None, 'a', \"it's\", 1e+16, 1e-05, (1,), {'k': []}]");
  EXPECT_EQ(render("{{ 7 / 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 6 / 2 }} {{ 5.5 // 2 }}"),
            "3.5 -4 2 1024 0.5 3.0 2.0");
  EXPECT_EQ(render("{{ 'a' ~ 1 ~ 2.0 ~ none }}{{ 'ab' * 2 }}{{ [1] + [2] }}"), "a12.0Noneabab[1, 2]");
}

TEST(Jinja, text_counts_in_code_points) {
  EXPECT_EQ(render("{{ s|length }} {{ s[1] }} {{ s[::-1] }} {{ s[-2:] }} {{ s.find('b') }}", {{"s", "a🦙éb"}}),
            "4 🦙 bé🦙a éb 3");
}

TEST(Jinja, case_follows_unicode) {
  EXPECT_EQ(render("{{ 'straße ΑΣ'|upper }} {{ 'ΑΣ ΣΑ İ'|lower }} {{ 'ǆ ﬁ'|capitalize }} {{ \"they're x-y\"|title }}"),
            "STRASSE ΑΣ ας σα i̇ ǅ ﬁ They're X-Y");
}

TEST(Jinja, blocks_swallow_their_line) {
  EXPECT_EQ(render("a\n  {% if true %}\n  b\n  {% endif %}\nc\n"), "a\n  b\nc");
  EXPECT_EQ(render("a\n  {%+ if true +%}\nb{% endif %}\n"), "a\n  \nb");
  EXPECT_EQ(render("a \n {%- if true -%} \n b {% endif %}"), "ab ");
  EXPECT_EQ(render("a\r\n{# c #}\r\nb {{- 1 -}} \n c"), "a\nb1c");
  EXPECT_EQ(render("{% raw -%} {{ x }} {% endraw %}\n."), "{{ x }} .");
}

TEST(Jinja, loops_know_where_they_are) {
  EXPECT_EQ(render("{% for i in 'abc' %}{{ loop.index }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}"
                   "{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('x', 'y') }} {% endfor %}"),
            "12TrueFalsebx 21FalseFalseacy 30FalseTruebx ");
  EXPECT_EQ(render("{% for i in range(9) if i is odd %}{% if i == 7 %}{% break %}{% endif %}{{ i }}/{{ loop.length }} "
                   "{% else %}none{% endfor %}"),
            "1/4 3/4 5/4 ");
  EXPECT_EQ(
      render(
          "{% for i in [1, [2, [3]]] recursive %}{{ loop(i) if i is iterable else i }}{{ loop.depth }} {% endfor %}"),
      "11 22 33 2 1 ");
}

TEST(Jinja, scopes_end_with_their_block) {
  EXPECT_EQ(render("{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{{ x }}{% endfor %}{{ x }}"), "21");
  EXPECT_EQ(render("{% set n = namespace(x=1) %}{% for i in [1] %}{% set n.x = 2 %}{% endfor %}{{ n.x }}"), "2");
  EXPECT_EQ(render("{% if true %}{% set x = 3 %}{% endif %}{{ x }}{% with x = 4 %}{{ x }}{% endwith %}{{ x }}"), "343");
  EXPECT_EQ(render("{% set x %}a{{ 1 }}{% endset %}{{ x }}{% set a, b = 1, 2 %}{{ b }}"), "a12");
}

TEST(Jinja, macros_take_defaults_keywords_and_callers) {
  EXPECT_EQ(render("{% macro m(a, b=2) %}{{ a }}{{ b }}{{ varargs }}{{ kwargs }}{% endmacro %}"
                   "{{ m(1) }} {{ m(b=3) }} {{ m(1, 2, 3, c=4) }}"),
            "12(){} 3(){} 12(3,){'c': 4}");
  EXPECT_EQ(render("{% macro m(x) %}<{{ caller(x) }}>{% endmacro %}{% call(y) m(5) %}{{ y + 1 }}{% endcall %}"), "<6>");
  EXPECT_THAT(error_of("{% macro m(a) %}{% endmacro %}{{ m(z=1) }}"), HasSubstr("no keyword argument 'z'"));
}

TEST(Jinja, what_is_undefined_prints_nothing_but_has_no_attributes) {
  const Json variables = {{"d", {{"k", 1}}}};
  EXPECT_EQ(render("[{{ x }}{{ d.x }}{{ d['x'] }}{{ x|default('e') }}{{ x is defined }}{{ [x] }}]", variables),
            "[eFalse[Undefined]]");
  EXPECT_EQ(error_of("{{ d.x.y }}", variables), "t:1: 'dict object' has no attribute 'x'");
  EXPECT_EQ(error_of("\n\n{{ x + 1 }}"), "t:3: 'x' is undefined");
}

TEST(Jinja, attributes_of_python_come_before_keys) {
  const Json variables = {{"d", {{"items", 1}, {"keys", 2}, {"name", 3}}}};
  EXPECT_EQ(render("{{ d['items'] }}{{ d.name }}{{ d.items()|length }}", variables), "133");
}

TEST(Jinja, nothing_can_be_changed_or_looked_into) {
  EXPECT_THAT(error_of("{% set l = [] %}{{ l.append(1) }}"), HasSubstr("access to attribute 'append'"));
  EXPECT_THAT(error_of("{{ {}.update({'a': 1}) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(error_of("{{ ''.__class__.__mro__ }}"), HasSubstr("unsafe"));
  EXPECT_THAT(error_of("{{ '{0.__class__.x}'.format(1) }}"), HasSubstr("unsafe"));
  EXPECT_THAT(error_of("{% set n = namespace() %}{% set n._x = 1 %}"), HasSubstr("begin with '_'"));
}

TEST(Jinja, json_is_written_as_transformers_writes_it) {
  const Json variables = {{"v", {{"b", "é\"\n</x>"}, {"a", {1, 2.0, nullptr, true}}, {"e", Json::object()}}}};
  EXPECT_EQ(render("{{ v|tojson }}", variables), R"({"b": "é\"\n</x>", "a": [1, 2.0, null, true], "e": {}})");
  EXPECT_EQ(
      render("{{ v|tojson(indent=2, sort_keys=true, ensure_ascii=true) }}", variables),
      "{\n  \"a\": [\n    1,\n    2.0,\n    null,\n    true\n  ],\n  \"b\": \"\\u00e9\\\"\\n</x>\",\n  \"e\": {}\n}");
}

TEST(Jinja, the_clock_can_be_set) {
  setenv("TZ", "UTC", 1);
  const std::chrono::system_clock::time_point then{std::chrono::seconds(1721995200)};
  EXPECT_EQ(Template("{{ strftime_now('%d %b %Y %H:%M') }}", "t").render(Json::object(), {}, then),
            "26 Jul 2024 12:00");
}

TEST(Jinja, errors_name_template_and_line) {
  EXPECT_EQ(error_of("a\n{{ raise_exception('no ' ~ x) }}", {{"x", "way"}}), "t:2: no way");
  EXPECT_EQ(error_of("a\n{% if %}"), "t:2: expected an expression, found 'end of statement block'");
  EXPECT_EQ(error_of("{% for x in y %}\n"),
            "t:1: the template ends where 'endfor' or 'else' is needed, to close 'for'");
  EXPECT_EQ(error_of("\n{% endif %}"), "t:2: unknown tag 'endif'");
  EXPECT_EQ(error_of("{{ 'a }}"), "t:1: a string begins here and does not end");
  EXPECT_EQ(error_of("{{ (1] }}"), "t:1: unexpected ']', expected ')'");
  EXPECT_EQ(error_of("{{ x|nothing }}"), "t:1: there is no filter named 'nothing'");
  EXPECT_EQ(error_of("{{ 1 + 'a' }}"), "t:1: unsupported operand type(s) for +: 'int' and 'str'");
  EXPECT_THAT(error_of("{% include 'x' %}"), HasSubstr("stands alone"));
  EXPECT_EQ(render("{{ x|nothing if false }}ok"), "ok");
}

TEST(JinjaLimits, templates_without_end_are_stopped) {
  const std::string big = "range(100000)";
  EXPECT_THAT(error_of("{% for a in " + big + " %}{% for b in " + big + " %}{% endfor %}{% endfor %}"),
              HasSubstr("steps"));
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("deeper than 1000 levels"));
  EXPECT_THAT(error_of("{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}"), HasSubstr("deeper"));
  EXPECT_THAT(
      error_of("{% set n = namespace(g=[1]) %}{% for i in range(1000) %}{% set n.g = n.g|map('abs') %}{% endfor %}"),
      HasSubstr("nest deeper"));
}

TEST(JinjaLimits, large_results_are_refused_before_they_are_made) {
  EXPECT_THAT(error_of("{{ range(100001) }}"), HasSubstr("100000 are the most"));
  EXPECT_THAT(error_of("{{ 'a' * 10 ** 12 }}"), HasSubstr("1000000000000 bytes"));
  EXPECT_THAT(error_of("{{ [1] * 10 ** 12 }}"), HasSubstr("bytes of values"));
  EXPECT_THAT(error_of("{{ 2 ** 10 ** 10 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ 10 ** 18 * 10 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ '%999999999d' % 1 }}"), HasSubstr("width"));
  EXPECT_THAT(error_of("{{ '{:999999999}'.format(1) }}"), HasSubstr("width"));
  EXPECT_THAT(error_of("{{ 'a'.ljust(10 ** 15) }}"), HasSubstr("bytes"));
  EXPECT_THAT(error_of("{{ 'a'|center(10 ** 15) }}{{ 'a'|indent(10 ** 15) }}"), HasSubstr("bytes"));
  EXPECT_THAT(error_of("{% set n = namespace(s='ab') %}{% for i in range(64) %}{% set n.s = n.s ~ n.s %}{% endfor %}"),
              HasSubstr("bytes"));
  EXPECT_THAT(error_of("{% set n = namespace(s=[0]) %}{% for i in range(64) %}{% set n.s = n.s + n.s %}{% endfor %}"),
              HasSubstr("bytes"));
  EXPECT_THAT(error_of("{% for i in range(99999) %}{{ s }}{% endfor %}", {{"s", std::string(1000, 'x')}}),
              HasSubstr("result has more than"));
}

TEST(JinjaLimits, deep_templates_and_values_are_refused) {
  const auto repeated = [](const std::string& part, size_t n) {
    std::string out;
    for (size_t i = 0; i < n; ++i) out += part;
    return out;
  };
  EXPECT_THAT(error_of("{{ " + repeated("(", 100000) + "1" + repeated(")", 100000) + " }}"), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of("{{ " + repeated("[", 5000) + repeated("]", 5000) + " }}"), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of("{{ 1" + repeated(" + 1", 100000) + " }}"), HasSubstr("more than 300 operations"));
  EXPECT_THAT(error_of("{{ x" + repeated(".a", 100000) + " }}"), HasSubstr("more than 300 operations"));
  EXPECT_THAT(error_of("{{ x" + repeated("|e", 100000) + " }}"), HasSubstr("more than 300 operations"));
  EXPECT_THAT(error_of("{{ " + repeated("not ", 100000) + "1 }}"), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of("{{ " + repeated("-", 100000) + "1 }}"), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of(repeated("{% if x %}", 100000)), HasSubstr("nests deeper"));
  EXPECT_THAT(error_of("{% set n = namespace(l=[]) %}{% for i in range(1000) %}{% set n.l = [n.l] %}{% endfor %}"),
              HasSubstr("nest deeper"));
  EXPECT_THAT(error_of("{% set n = namespace() %}{% set n.n = n %}{{ n }}"), HasSubstr("deeper"));
  EXPECT_EQ(
      render("{% set n = namespace() %}{% set n.n = [n] %}{% macro m() %}{{ n }}{% endmacro %}{% set n.m = m %}ok"),
      "ok");
}

}  // namespace
}  // namespace upg::jinja
