// serve, in a build without cpp-httplib: says so.
#include "command.h"
#include "upg/error.h"

namespace upg::cli {

void add_serve(CLI::App& command) {
  command.allow_extras();
  command.callback([] {
    throw Error(ErrorCode::kUnsupported, "this build has no server: it was made without cpp-httplib 0.11 to 0.14");
  });
}

}  // namespace upg::cli
