// Holds back text that may be the beginning of a stop string until it is known not to be.
#pragma once

#include <string>
#include <vector>

namespace upg {

class StopFilter {
 public:
  /// Empty stop strings are refused with Error(kInvalidArgument).
  explicit StopFilter(std::vector<std::string> stops);

  /// The text that is now certain. After a stop string was met: what came before it, then nothing.
  std::string push(const std::string& text);
  /// What was held back, when no more text comes.
  std::string finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace upg
