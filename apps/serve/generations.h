// The generations of one request, run together: several choices, several prompts. Those that the scheduler has no room
// for wait here, so that a long list of prompts neither fails nor fills the queue for others.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "models.h"
#include "upg/scheduler.h"

namespace upg::serve {

class Generations {
 public:
  /// Submits the first and waits until it has a place, not for long, so that a refusal can still be a status. Throws
  /// what Scheduler::submit and Generation::wait_begun throw.
  Generations(std::shared_ptr<ServedModel> model, std::vector<GenerationRequest> requests,
              const std::function<bool()>& gone);

  struct Takers {
    std::function<void(size_t index, const GenerationPiece& piece)> piece;
    std::function<void(size_t index, const Generation& generation)> end;
    std::function<bool()> alive;  // asked ten times a second at least; false ends all of it
  };
  /// Until all have ended; false where `alive` said so. Throws the error that ended one of them.
  bool run(const Takers& takers);

 private:
  static constexpr size_t kTogether = 8;
  void submit_next();

  std::shared_ptr<ServedModel> model_;
  std::vector<GenerationRequest> requests_;
  size_t submitted_ = 0;
  std::map<size_t, std::shared_ptr<Generation>> running_;
};

}  // namespace upg::serve
