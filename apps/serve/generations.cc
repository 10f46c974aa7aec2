#include "generations.h"

#include <thread>

#include "errors.h"
#include "limits.h"

namespace upg::serve {

using std::chrono::milliseconds;

Generations::Generations(std::shared_ptr<ServedModel> model, std::vector<GenerationRequest> requests,
                         const std::function<bool()>& gone)
    : model_(std::move(model)), requests_(std::move(requests)) {
  submit_next();
  const auto end = std::chrono::steady_clock::now() + kSilence;
  while (!running_[0]->wait_begun(milliseconds(100)) && std::chrono::steady_clock::now() < end && !gone()) continue;
}

void Generations::submit_next() {
  requests_.at(submitted_).more = submitted_ > 0;
  running_[submitted_] = model_->scheduler->submit(requests_.at(submitted_));
  requests_[submitted_++] = {};
}

bool Generations::run(const Takers& takers) {
  while (!running_.empty() || submitted_ < requests_.size()) {
    while (submitted_ < requests_.size() && running_.size() < kTogether) {
      try {
        submit_next();
      } catch (const Error& error) {
        if (error.code() != ErrorCode::kBusy || model_->draining) throw;
        break;
      }
    }
    if (!takers.alive()) return false;
    if (running_.empty()) std::this_thread::sleep_for(milliseconds(50));
    // Alone it may be waited for; among several nobody waits for one while others have something to say.
    bool idle = true;
    for (auto at = running_.begin(); at != running_.end();) {
      const auto& [index, generation] = *at;
      const bool alone = running_.size() == 1;
      std::optional<GenerationPiece> piece = generation->next(milliseconds(alone ? 100 : 0));
      if (!piece) {
        if (generation->result().finish == FinishReason::kCancelled)
          throw RequestError(503, "the server is shutting down", {}, "shutting_down");
        takers.end(index, *generation);
        at = running_.erase(at);
        idle = false;
        continue;
      }
      const bool empty = piece->text.empty() && piece->tokens.empty() && piece->prompt_logprobs.empty();
      if (!empty) takers.piece(index, *piece);
      idle = idle && (empty && !alone);
      ++at;
    }
    if (idle && !running_.empty()) std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

}  // namespace upg::serve
