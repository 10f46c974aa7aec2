// The one exception type that the library throws. Bad input and a bad environment throw it; nothing else does.
#pragma once

#include <stdexcept>
#include <string>

namespace upg {

enum class ErrorCode {
  kInvalidArgument,  // an option or an argument is wrong
  kInvalidFile,      // a file's content breaks the rules of its format
  kUnsupported,      // well formed, but this build does not do it
  kNotFound,         // a file, tensor or name does not exist
  kIo,               // the operating system refused to read or write
  kOutOfMemory,      // the memory asked for is not there
  kCancelled,        // a callback or a signal asked to stop
  kBusy,             // there is no room now; later there may be
};

/// What went wrong, where (file, tensor or field), and what to do about it.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace upg
