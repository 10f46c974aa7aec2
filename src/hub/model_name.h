// Names of models, revisions and files: what a user gives and what a hub sends, checked before it becomes a path or a
// URL.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace upg::hub {

struct ModelName {
  std::string id;        // ORG/NAME
  std::string file;      // of ORG/NAME/FILE.upg; else empty
  std::string revision;  // "main" where none is given
};

/// nullopt where the text has not the form ORG/NAME[/FILE.upg][:REVISION].
std::optional<ModelName> parse_model_name(std::string_view text);

/// Of branches, tags and commits: letters, digits and ._-+/ without empty parts, "." and "..".
bool is_revision(std::string_view text);

/// A commit: 40 lower-case hexadecimal digits.
bool is_commit(std::string_view text);

/// `digits` lower-case hexadecimal digits.
bool is_hex(std::string_view text, size_t digits);

/// Whether a file of this name, relative with '/', may be written into a folder: no empty part, "." or "..", no
/// backslash, no control characters, parts of 255 bytes at most.
bool is_safe_file_name(std::string_view name);

/// Percent-encoded for the path of a URL; '/' stays where `keep_slash`.
std::string url_escaped(std::string_view text, bool keep_slash);

/// For messages: printable ASCII, `longest` bytes at most.
std::string printable(std::string_view text, size_t longest = 120);

}  // namespace upg::hub
