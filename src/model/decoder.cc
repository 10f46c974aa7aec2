#include "model/decoder.h"

namespace upg {
namespace {

using Visit = std::function<void(const Linear&, double)>;

void visit(const Projection& projection, double share, const Visit& f) {
  for (const Linear& part : projection.parts()) f(part, share);
}

void visit(const SelfAttention& a, const Visit& f) {
  visit(a.qkv, 1, f);
  visit(a.output, 1, f);
}

void visit(const LatentAttention& a, const Visit& f) {
  visit(a.query_down, 1, f);
  visit(a.query, 1, f);
  visit(a.latent, 1, f);
  f(a.expand, 1);
  visit(a.output, 1, f);
}

void visit(const GatedMlp& mlp, double share, const Visit& f) {
  visit(mlp.gate_up, share, f);
  visit(mlp.down, share, f);
}

void visit(const GatedMlp& mlp, const Visit& f) { visit(mlp, 1, f); }

void visit(const Experts& e, const Visit& f) {
  visit(e.router, 1, f);
  const double share = static_cast<double>(e.routing.chosen) / static_cast<double>(e.routing.experts);
  for (const GatedMlp& expert : e.experts) visit(expert, share, f);
  if (e.shared) visit(*e.shared, f);
  if (e.shared_gate) visit(*e.shared_gate, 1, f);
}

}  // namespace

void for_each_matrix(const Decoder& decoder, const Visit& f) {
  for (const DecoderLayer& layer : decoder.layers) {
    std::visit([&](const auto& attention) { visit(attention, f); }, layer.attention);
    std::visit([&](const auto& mlp) { visit(mlp, f); }, layer.mlp);
  }
  visit(decoder.head, 1, f);
}

}  // namespace upg
