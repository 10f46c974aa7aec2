#include "hub/listing.h"

#include <algorithm>

#include "base/error.h"
#include "format/json.h"

namespace upg::hub {
namespace {

constexpr size_t kMaxReply = 64 << 20, kMaxFiles = 100'000, kMaxPages = 1000;
constexpr uint64_t kMaxFileBytes = uint64_t{1} << 46;

// A text of the hub's interface, and the link to its next page.
std::string get_text(Http& http, const std::string& url, const ModelName& name, const std::string& what,
                     std::string* next = nullptr) {
  for (Retries retries(http);;) {
    try {
      std::string text;
      const HttpAnswer answer = http.get(
          url, {},
          [&](const HttpAnswer&, std::span<const std::byte> data) {
            if (text.size() + data.size() > kMaxReply) fail(ErrorCode::kInvalidFile, "{}: the reply is too long", what);
            text.append(reinterpret_cast<const char*>(data.data()), data.size());
            return true;
          },
          what);
      if (answer.status != 200) refuse(answer, name, http.settings(), what);
      if (next) *next = next_link(answer.header("link"));
      return text;
    } catch (const HttpFailure& failure) {
      retries.after(failure);
    }
  }
}

std::string api_url(const Settings& settings, const ModelName& name, const char* kind, const std::string& revision) {
  return fmt::format("{}/api/models/{}/{}/{}", settings.endpoint, name.id, kind, url_escaped(revision, false));
}

const std::string& text_field(const Json& object, const char* key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string())
    fail(ErrorCode::kInvalidFile, "{}: \"{}\" is missing or no text", where, key);
  return found->get_ref<const std::string&>();
}

uint64_t size_field(const Json& object, const std::string& where) {
  const auto found = object.find("size");
  if (found == object.end() || !found->is_number_unsigned() || found->get<uint64_t>() > kMaxFileBytes)
    fail(ErrorCode::kInvalidFile, "{}: \"size\" is missing or no size of a file", where);
  return found->get<uint64_t>();
}

}  // namespace

std::string commit_of(Http& http, const ModelName& name) {
  const std::string what = fmt::format("{}, revision {}", name.id, name.revision);
  const std::string text = get_text(http, api_url(http.settings(), name, "revision", name.revision), name, what);
  const std::string commit = text_field(parse_json_object(text, what), "sha", what);
  if (!is_commit(commit))
    fail(ErrorCode::kInvalidFile, "{}: the hub names {:?}, which is no commit", what, printable(commit));
  if (is_commit(name.revision) && commit != name.revision)
    fail(ErrorCode::kInvalidFile, "{}: the hub answers with another commit, {}", what, commit);
  return commit;
}

std::vector<HubFile> list_files(Http& http, const ModelName& name, const std::string& commit) {
  const std::string what = fmt::format("the list of files of {}", name.id);
  std::vector<HubFile> files;
  std::string url = api_url(http.settings(), name, "tree", commit) + "?recursive=true", next;
  for (size_t page = 0; !url.empty(); ++page, url = next) {
    if (page == kMaxPages) fail(ErrorCode::kInvalidFile, "{}: it has no end after {} pages", what, page);
    parse_listing(get_text(http, url, name, what, &next), what, files);
  }
  std::sort(files.begin(), files.end(), [](const HubFile& a, const HubFile& b) { return a.name < b.name; });
  const auto twice = std::adjacent_find(files.begin(), files.end(),
                                        [](const HubFile& a, const HubFile& b) { return a.name == b.name; });
  if (twice != files.end()) fail(ErrorCode::kInvalidFile, "{}: it has {:?} twice", what, printable(twice->name));
  return files;
}

void parse_listing(std::string_view json, const std::string& where, std::vector<HubFile>& files) {
  const Json page = parse_json(json, where);
  if (!page.is_array()) fail(ErrorCode::kInvalidFile, "{}: it is no JSON array", where);
  for (const Json& entry : page) {
    if (!entry.is_object()) fail(ErrorCode::kInvalidFile, "{}: an entry is no JSON object", where);
    if (text_field(entry, "type", where) != "file") continue;
    HubFile file;
    file.name = text_field(entry, "path", where);
    if (!is_safe_file_name(file.name))
      fail(ErrorCode::kInvalidFile,
           "{}: it names a file {:?}, which would lie elsewhere than in the model's folder; nothing was fetched", where,
           printable(file.name));
    const std::string of_file = fmt::format("{}: {}", where, printable(file.name));
    const auto lfs = entry.find("lfs");
    file.large = lfs != entry.end() && lfs->is_object();
    const Json& source = file.large ? *lfs : entry;
    file.bytes = size_field(source, of_file);
    file.hash = text_field(source, "oid", of_file);
    if (!is_hex(file.hash, file.large ? 64 : 40))
      fail(ErrorCode::kInvalidFile, "{}: \"oid\" is no hash of {} digits", of_file, file.large ? 64 : 40);
    files.push_back(std::move(file));
    if (files.size() > kMaxFiles) fail(ErrorCode::kInvalidFile, "{}: it has more than {} files", where, kMaxFiles);
  }
}

std::string next_link(std::string_view header) {
  // <ADDRESS>; rel="next", <ADDRESS>; rel="last"
  while (true) {
    const size_t begin = header.find('<');
    const size_t end = header.find('>', begin == std::string_view::npos ? header.size() : begin);
    if (end == std::string_view::npos) return {};
    const std::string_view address = header.substr(begin + 1, end - begin - 1);
    header.remove_prefix(end + 1);
    const std::string_view parameters = header.substr(0, header.find('<'));
    if (parameters.find("rel=\"next\"") != std::string_view::npos ||
        parameters.find("rel=next") != std::string_view::npos)
      return std::string(address);
  }
}

void refuse(const HttpAnswer& answer, const ModelName& name, const Settings& settings, const std::string& what) {
  const long status = answer.status;
  if (is_temporary(status))
    throw HttpFailure(
        fmt::format("{}: the hub answers with status {}{}", what, status, status == 429 ? ", too many requests" : ""),
        true, answer.retry_after);
  // Hosts of files are given signed addresses, which run out: the hub gives another one.
  if (answer.elsewhere)
    throw HttpFailure(fmt::format("{}: the host that the hub leads to answers with status {}", what, status), true);
  const std::string& code = answer.header("x-error-code");
  const std::string page = settings.endpoint + "/" + name.id;
  const char* token = settings.token.empty() ? "no token is set" : "the token that is set does not allow it";
  if (code == "GatedRepo" || status == 403)
    fail(ErrorCode::kNotFound,
         "{}: access is restricted, and {}: accept the terms at {} with your account, then put a token of it into "
         "HF_TOKEN",
         name.id, token, page);
  if (code == "RevisionNotFound")
    fail(ErrorCode::kNotFound, "{}: there is no revision {:?}; {} has the branches and tags", name.id, name.revision,
         page);
  if (code == "EntryNotFound") fail(ErrorCode::kNotFound, "{}: the file is not there", what);
  if (status == 401 || status == 404)
    fail(ErrorCode::kNotFound,
         "{}: the hub at {} has no such model, or does not show it ({}): check the name; for a private model put a "
         "token into HF_TOKEN",
         name.id, settings.endpoint, token);
  fail(ErrorCode::kIo, "{}: the hub answers with status {}", what, status);
}

std::string file_url(const Settings& settings, const ModelName& name, const std::string& commit,
                     const std::string& file) {
  return fmt::format("{}/{}/resolve/{}/{}", settings.endpoint, name.id, commit, url_escaped(file, true));
}

}  // namespace upg::hub
