// Marks that were assigned after the old version neither reorder nor compose there. Cutting the text at them gives the
// same with any utf8proc, since no character composes or reorders across what is inert. Only what the old version takes
// apart is taken apart here.
#include "text/unicode_normalization.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/error.h"
#include "text/unicode.h"

namespace upg {
namespace {

// utf8proc_map() does the same, but sorts a long run of marks in quadratic time.
void append_form(std::string& out, std::string_view text, NormalizationForm form) {
  const int options = UTF8PROC_STABLE | (form.compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                      (form.compatibility ? UTF8PROC_COMPAT : 0);
  const auto flags = static_cast<utf8proc_option_t>(options);
  const auto decomposing = form.compatibility ? kCompatibility : kDecomposing;
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    at += c.bytes;
    if (c.value < 0xa0 || !contains(decomposing, c.value)) {
      points.push_back(static_cast<utf8proc_int32_t>(c.value));
      continue;
    }
    utf8proc_int32_t parts[32];  // up to 18
    const utf8proc_ssize_t count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c.value), parts, 32, flags, nullptr);
    if (count < 0 || count > 32) fail(ErrorCode::kInvalidArgument, "cannot normalize U+{:04X}", c.value);
    points.insert(points.end(), parts, parts + count);
  }
  const auto combining_class = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto run = points.begin(); run != points.end();) {
    run = std::find_if(run, points.end(), [&](auto c) { return combining_class(c) != 0; });
    const auto end = std::find_if(run, points.end(), [&](auto c) { return combining_class(c) == 0; });
    std::stable_sort(run, end, [&](auto a, auto b) { return combining_class(a) < combining_class(b); });
    run = end;
  }
  if (form.compose) {
    const utf8proc_ssize_t size =
        utf8proc_normalize_utf32(points.data(), static_cast<utf8proc_ssize_t>(points.size()), flags);
    if (size < 0) fail(ErrorCode::kInvalidArgument, "cannot normalize the text: {}", utf8proc_errmsg(size));
    points.resize(static_cast<size_t>(size));
  }
  for (const utf8proc_int32_t point : points) append_utf8(out, static_cast<uint32_t>(point));
}

}  // namespace

std::string normalization_form(std::string_view text, NormalizationForm form) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; }))
    return std::string(text);
  std::string out;
  out.reserve(text.size());
  const auto is_barrier = [](uint32_t c) {  // marks that come apart are old, and none is inert in all forms
    return c >= 0x300 && contains(kNormalizationBarriers, c) && !contains(kCompatibility, c);
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (is_barrier(c.value)) {
      append_form(out, text.substr(begin, at - begin), form);
      out.append(text, at, c.bytes);
      begin = at + c.bytes;
    }
    at += c.bytes;
  }
  append_form(out, text.substr(begin), form);
  return out;
}

void append_lowercase(std::string& out, uint32_t c) {
  if (c == 0x130) {  // the only one that becomes two
    out += "i\u0307";
    return;
  }
  for (const LateLowercase& late : kLateLowercase)
    if (c >= late.first && c <= late.last)
      return append_utf8(out, static_cast<uint32_t>(static_cast<int32_t>(c) + late.delta));
  append_utf8(out, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

}  // namespace upg
