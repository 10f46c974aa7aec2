// A range of a file from the hub, whatever happens to the connection on the way.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "hub/http.h"
#include "hub/listing.h"

namespace upg::hub {

struct RangeTransfer {
  const ModelName& name;
  const std::string& commit;
  const HubFile& file;
  uint64_t begin = 0, end = 0;  // of the file, in bytes
  uint64_t at = 0;              // where to go on; what lies before is there
  /// Takes the bytes at an offset, one piece after another.
  std::function<void(uint64_t at, std::span<const std::byte> data)> write;
  /// What came before is void, it begins anew at `begin`.
  std::function<void()> restart;
};

/// Fetches [at, end), by ranges where something is there already or the rest is not wanted. A connection that ends
/// early is taken up where it ended, unless the file at the other end is another one now. Throws Error as list_files
/// does.
void fetch(Http& http, RangeTransfer transfer);

struct ContentRange {
  uint64_t begin = 0, end = 0;    // the end is not in it
  std::optional<uint64_t> total;  // of the file
};

/// Reads "bytes 5-9/10"; nullopt for anything else.
std::optional<ContentRange> parse_content_range(std::string_view header);

}  // namespace upg::hub
