// What a hub sends as text: listings, indexes, headers. Errors are upg::Error, and what is accepted keeps its promises.
#include <cstdlib>
#include <string_view>

#include "hub/listing.h"
#include "hub/select.h"
#include "hub/transfer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace upg::hub;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto name = parse_model_name(text);
  if (name && (!is_safe_file_name(name->id) || !is_revision(name->revision))) std::abort();
  if (const auto range = parse_content_range(text); range && range->end <= range->begin) std::abort();
  if (text.find(next_link(text)) == std::string_view::npos) std::abort();
  for (const char c : printable(text))
    if (c < ' ' || c > '~') std::abort();
  std::vector<HubFile> files;
  const ModelName model = *parse_model_name("a/b");
  try {
    parse_listing(text, "a listing", files);
    for (const HubFile& file : files)
      if (file.name.starts_with('/') || file.name.starts_with("../") || file.hash.size() < 40) std::abort();
    (void)select_files(files, model, {}, upg::ModelForm::kAny);
  } catch (const upg::Error&) {
  }
  try {
    (void)shards_of_index(std::string(text), files, model);
  } catch (const upg::Error&) {
  }
  return 0;
}
