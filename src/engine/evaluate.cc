// Perplexity and divergence on text. Tasks are in evaluate_tasks.cc.
#include "upg/evaluate.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/mapped_file.h"
#include "engine/engine_impl.h"
#include "engine/statistics.h"

namespace upg {
namespace {

// log(sum(exp(logits))), in double.
double log_sum_exp(std::span<const float> logits) {
  const float top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

size_t argmax(std::span<const float> logits) {
  return static_cast<size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

struct Scored {  // one prediction
  double nll, reference_nll, kld;
  bool same_top1;
};

}  // namespace

TextEvaluation evaluate_text(const std::string& model_path, const std::string& text_file,
                             const EvaluateOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const auto engine =
      Engine::open(model_path, {options.threads, options.progress, options.device, options.fusion, options.gpu_layers});
  const auto reference =
      options.reference.empty() ? nullptr : Engine::open(options.reference, {options.threads, options.progress});
  const uint64_t vocab = engine->info().vocab_size;
  if (reference && reference->info().vocab_size != vocab)
    fail(ErrorCode::kInvalidArgument, "{} has a vocabulary of {}, {} one of {}: they cannot be compared", model_path,
         vocab, options.reference, reference->info().vocab_size);
  if (options.context < 4)
    fail(ErrorCode::kInvalidArgument, "a context of {} is too short, 4 is the least", options.context);

  const Tokenizer& tokenizer = engine->impl().require_tokenizer();
  const std::string text = read_file(text_file);
  const std::vector<int32_t> tokens = tokenizer.encode(text, false, false);
  for (int32_t token : tokens)  // a chunk's last token is predicted but never fed, so that nothing else checks it
    if (static_cast<uint64_t>(token) >= vocab)
      fail(ErrorCode::kInvalidFile, "{}: its tokenizer gives token id {}, outside the vocabulary of {}", model_path,
           token, vocab);
  TextEvaluation result;
  result.tokens = tokens.size();
  const uint64_t possible = tokens.size() / options.context;
  result.chunks = options.chunks == 0 ? possible : options.chunks;
  if (possible == 0 || result.chunks > possible)
    fail(ErrorCode::kInvalidArgument, "{} has {} tokens, enough for {} chunks of {}; {} are asked for", text_file,
         tokens.size(), possible, options.context, std::max<uint64_t>(result.chunks, 1));

  const SessionOptions session_options{options.context, options.kv, options.float_activations};
  Session session(engine, session_options);
  std::optional<Session> reference_session;
  // As exactly as it runs, whatever is measured: what a rounded cache or int8 activations cost shows too.
  if (reference) reference_session.emplace(reference, SessionOptions{options.context, "f16", true});

  // Logits after token i predict token i + 1; from the middle on, so that each prediction has half a chunk behind it.
  const uint64_t first = options.context / 2;
  std::vector<Scored> scored;
  std::vector<float> reference_logits;
  for (uint64_t chunk = 0; chunk < result.chunks; ++chunk) {
    if (options.progress && !options.progress("evaluating", chunk * options.context, result.chunks * options.context))
      fail(ErrorCode::kCancelled, "evaluation was cancelled");
    std::vector<int32_t> ids(tokens.begin() + static_cast<ptrdiff_t>(chunk * options.context),
                             tokens.begin() + static_cast<ptrdiff_t>((chunk + 1) * options.context));
    const std::vector<int32_t> answers = ids;
    if (tokenizer.adds_bos()) ids[0] = tokenizer.ids_before()[0];
    const std::span<const int32_t> fed(ids.data(), ids.size() - 1);  // the last token is only predicted
    const uint64_t rows = fed.size() - first;
    if (reference) {
      reference_logits.resize(rows * vocab);
      reference_session->rewind(0);
      reference_session->feed_all(fed, first, [&](uint64_t t, std::span<const float> logits) {
        std::copy(logits.begin(), logits.end(), reference_logits.begin() + static_cast<ptrdiff_t>((t - first) * vocab));
      });
    }
    const size_t base = scored.size();
    scored.resize(base + rows);
    std::vector<float> logits(rows * vocab);
    session.rewind(0);
    session.feed_all(fed, first, [&](uint64_t t, std::span<const float> row) {
      std::copy(row.begin(), row.end(), logits.begin() + static_cast<ptrdiff_t>((t - first) * vocab));
    });
    engine->impl().context.pool.each(rows, [&](uint64_t row, unsigned) {
      const auto answer = static_cast<size_t>(answers[first + row + 1]);
      const std::span<const float> q(logits.data() + row * vocab, vocab);
      const double q_norm = log_sum_exp(q);
      Scored& s = scored[base + row];
      s = {q_norm - q[answer], 0, 0, false};
      if (!reference) return;
      const std::span<const float> p(reference_logits.data() + row * vocab, vocab);
      const double p_norm = log_sum_exp(p);
      s.reference_nll = p_norm - p[answer];
      for (uint64_t i = 0; i < vocab; ++i) {
        const double log_p = p[i] - p_norm;
        s.kld += std::exp(log_p) * (log_p - (q[i] - q_norm));
      }
      s.same_top1 = argmax(p) == argmax(q);
    });
  }
  if (options.progress)
    options.progress("evaluating", result.chunks * options.context, result.chunks * options.context);

  result.scored = scored.size();
  Mean nll, reference_nll, difference, kld, same;
  std::vector<double> klds;
  for (const Scored& s : scored) {
    nll.add(s.nll);
    reference_nll.add(s.reference_nll);
    difference.add(s.nll - s.reference_nll);
    kld.add(s.kld);
    same.add(s.same_top1 ? 1 : 0);
    klds.push_back(s.kld);
  }
  result.perplexity = nll.exp();
  if (reference) {
    result.reference_perplexity = reference_nll.exp();
    result.perplexity_ratio =
        difference.exp();  // its error is smaller than the perplexities': they go up and down together
    result.mean_kld = kld.estimate();
    result.same_top1 = same.estimate();
    std::sort(klds.begin(), klds.end());
    result.max_kld = klds.back();
    result.p99_kld = klds[std::min(klds.size() - 1, static_cast<size_t>(0.99 * static_cast<double>(klds.size())))];
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace upg
