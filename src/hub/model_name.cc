#include "hub/model_name.h"

#include <fmt/format.h>

#include <algorithm>

namespace upg::hub {
namespace {

bool is_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

// The rule of the hub for both halves of a repository's name.
bool is_repository_part(std::string_view part) {
  if (part.empty() || part.size() > 96 || part.starts_with('.') || part.starts_with('-') || part.ends_with('.') ||
      part.ends_with('-') || part.find("--") != std::string_view::npos || part.find("..") != std::string_view::npos)
    return false;
  return std::all_of(part.begin(), part.end(), [](char c) { return is_alnum(c) || c == '.' || c == '_' || c == '-'; });
}

// Calls check(part) for what lies between slashes; false as soon as one is.
template <typename Check>
bool all_parts(std::string_view text, Check check) {
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('/', begin), text.size());
    if (!check(text.substr(begin, end - begin))) return false;
    begin = end + 1;
  }
  return true;
}

bool is_path_part(std::string_view part) { return !part.empty() && part.size() <= 255 && part != "." && part != ".."; }

}  // namespace

std::optional<ModelName> parse_model_name(std::string_view text) {
  ModelName name{{}, {}, "main"};
  const size_t colon = text.find(':');
  if (colon != std::string_view::npos) {
    name.revision = text.substr(colon + 1);
    text = text.substr(0, colon);
    if (!is_revision(name.revision)) return std::nullopt;
  }
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  const size_t second = std::min(text.find('/', slash + 1), text.size());
  name.id = text.substr(0, second);
  if (!is_repository_part(text.substr(0, slash)) || !is_repository_part(text.substr(slash + 1, second - slash - 1)))
    return std::nullopt;
  if (second < text.size()) {
    name.file = text.substr(second + 1);
    if (!is_safe_file_name(name.file) || !name.file.ends_with(".upg")) return std::nullopt;
  }
  return name;
}

bool is_revision(std::string_view text) {
  return text.size() <= 255 && all_parts(text, [](std::string_view part) {
           return is_path_part(part) && std::all_of(part.begin(), part.end(), [](char c) {
                    return is_alnum(c) || c == '.' || c == '_' || c == '-' || c == '+';
                  });
         });
}

bool is_commit(std::string_view text) { return is_hex(text, 40); }

bool is_hex(std::string_view text, size_t digits) {
  return text.size() == digits && text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

bool is_safe_file_name(std::string_view name) {
  return name.size() <= 1024 && all_parts(name, [](std::string_view part) {
           return is_path_part(part) && std::none_of(part.begin(), part.end(), [](char c) {
                    return static_cast<unsigned char>(c) < ' ' || c == 127 || c == '\\';
                  });
         });
}

std::string url_escaped(std::string_view text, bool keep_slash) {
  std::string escaped;
  for (const char c : text) {
    if (is_alnum(c) || c == '-' || c == '.' || c == '_' || c == '~' || (c == '/' && keep_slash))
      escaped += c;
    else
      escaped += fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return escaped;
}

std::string printable(std::string_view text, size_t longest) {
  std::string plain(text.substr(0, longest));
  std::replace_if(
      plain.begin(), plain.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  return text.size() > longest ? plain + "..." : plain;
}

}  // namespace upg::hub
