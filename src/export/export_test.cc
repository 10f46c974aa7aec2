// Exported models against the decoder's own weights: rows in llama.cpp's order, stacks, splits, hyperparameters; and
// what is refused, by name.
#include "upg/export.h"

#include "export/gguf_families.h"
#include "export/test_util.h"

namespace upg {
namespace {

using namespace testing_util;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ExportTest : public TemporaryFolderTest {
 protected:
  ReadGguf exported(const std::string& source, const std::string& type = "f32") {
    ExportOptions options;
    options.type = type;
    options.overwrite = true;
    report_ = export_model(source, path("out.gguf"), options);
    return ReadGguf(path("out.gguf"));
  }
  std::string refusal(const std::string& source) {
    return error_of([&] { exported(source); }).value_or("");
  }
  ExportReport report_;
};

std::vector<float> weights_of(const std::string& dir, const std::string& name) {
  return floats_of(*Checkpoint(dir).find(name));
}

TEST_F(ExportTest, EveryArchitectureHasARow) {
  for (const Architecture& architecture : architectures())
    EXPECT_NE(find_gguf_family(architecture.name), nullptr) << architecture.name;
  EXPECT_EQ(find_gguf_family("BertModel"), nullptr);
}

TEST_F(ExportTest, EveryGoldenIsWrittenOrRefusedForWhatLlamaCppLacks) {
  const std::map<std::string, std::string> refused = {
      {"deepseek_v2_bf16", "yarn with a beta_fast other than 32"},
      {"qwen3_moe_mixed_bf16", "experts in some layers only (layer 1)"},
      {"wide_heads_f32", "heads that are 40 wide together in a model of 24"}};
  for (const std::string& name : golden_names()) {
    const auto found = refused.find(name);
    if (found != refused.end()) {
      EXPECT_THAT(refusal(golden_model(name)), HasSubstr(found->second));
      continue;
    }
    const ReadGguf file = exported(golden_model(name));
    const std::string family = file.get<std::string>("general.architecture");
    const nlohmann::json config = nlohmann::json::parse(read_file(golden_model(name) + "/config.json"));
    EXPECT_EQ(file.get<uint32_t>(family + ".embedding_length"), config.at("hidden_size")) << name;
    EXPECT_EQ(file.get<uint32_t>(family + ".block_count"), config.at("num_hidden_layers")) << name;
    EXPECT_EQ(file.get<std::string>("tokenizer.ggml.model"), "none");
    EXPECT_EQ(
        file.tensors.contains("output.weight"),
        !config.value("tie_word_embeddings", family != "phi3" && family.find("gemma") == 0) || family == "qwen2moe")
        << name;
    EXPECT_EQ(report_.tensors, file.tensors.size());
  }
}

TEST_F(ExportTest, RowsOfRotatedPairsBecomeNeighboursWhereLlamaCppWantsThem) {
  const std::string dir = golden_model("llama_2_f16");  // 6 heads of 10, 60 columns
  const std::vector<float> query = weights_of(dir, "model.layers.0.self_attn.q_proj.weight");
  const std::vector<float> ours = exported(dir).tensors.at("blk.0.attn_q.weight").floats();
  for (uint64_t head = 0; head < 6; ++head)
    for (uint64_t i = 0; i < 10; ++i)
      for (uint64_t c = 0; c < 60; ++c)
        ASSERT_EQ(ours[(head * 10 + i) * 60 + c], query[(head * 10 + i / 2 + i % 2 * 5) * 60 + c]);
  EXPECT_EQ(exported(dir).tensors.at("blk.0.attn_v.weight").floats(),
            weights_of(dir, "model.layers.0.self_attn.v_proj.weight"));
  const std::string neox = golden_model("qwen2_f32");
  const ReadGguf file = exported(neox);
  EXPECT_EQ(file.tensors.at("blk.0.attn_q.weight").floats(),
            weights_of(neox, "model.layers.0.self_attn.q_proj.weight"));
  EXPECT_EQ(file.tensors.at("blk.0.attn_k.bias").floats(), weights_of(neox, "model.layers.0.self_attn.k_proj.bias"));
}

TEST_F(ExportTest, ExpertsAreStacked) {
  const std::string dir = golden_model("mixtral_bf16");
  const ReadGguf file = exported(dir, "bf16");
  const ReadTensor& down = file.tensors.at("blk.1.ffn_down_exps.weight");
  EXPECT_THAT(down.shape, ElementsAre(8, 48, 36));
  const std::vector<float> sixth = weights_of(dir, "model.layers.1.block_sparse_moe.experts.5.w2.weight");
  const std::vector<float> all = down.floats();
  EXPECT_EQ(std::vector<float>(all.begin() + 5 * 48 * 36, all.begin() + 6 * 48 * 36), sixth);
  EXPECT_EQ(file.tensors.at("blk.1.ffn_gate_inp.weight").type, 0u);
  EXPECT_EQ(file.get<uint32_t>("llama.expert_used_count"), 2u);
}

TEST_F(ExportTest, LatentAttentionIsSplitIntoKeysTransposedAndValues) {
  const std::string dir = golden_model("deepseek_v3_bf16");  // 4 heads: 12 plain + 10 values of 16
  const ReadGguf file = exported(dir);
  const std::vector<float> expand = weights_of(dir, "model.layers.2.self_attn.kv_b_proj.weight");
  const ReadTensor& keys = file.tensors.at("blk.2.attn_k_b.weight");
  const ReadTensor& values = file.tensors.at("blk.2.attn_v_b.weight");
  EXPECT_THAT(keys.shape, ElementsAre(4, 16, 12));
  EXPECT_THAT(values.shape, ElementsAre(4, 10, 16));
  for (uint64_t head = 0; head < 4; ++head)
    for (uint64_t c = 0; c < 16; ++c) {
      for (uint64_t j = 0; j < 12; ++j)
        ASSERT_EQ(keys.floats()[(head * 16 + c) * 12 + j], expand[(head * 22 + j) * 16 + c]);
      for (uint64_t j = 0; j < 10; ++j)
        ASSERT_EQ(values.floats()[(head * 10 + j) * 16 + c], expand[(head * 22 + 12 + j) * 16 + c]);
    }
  EXPECT_EQ(file.get<uint32_t>("deepseek2.attention.key_length"), 16u + 12);
  EXPECT_EQ(file.get<uint32_t>("deepseek2.leading_dense_block_count"), 1u);
  EXPECT_EQ(file.get<uint32_t>("deepseek2.expert_gating_func"), 2u);
  EXPECT_NEAR(file.get<float>("deepseek2.rope.scaling.yarn_log_multiplier"), 0.1f, 1e-6f);
}

TEST_F(ExportTest, NormsOfGemmaHaveTheirOneAndWindowsTheirPattern) {
  const std::string dir = golden_model("gemma_3_bf16");
  const ReadGguf file = exported(dir);
  std::vector<float> norm = weights_of(dir, "model.layers.0.input_layernorm.weight");
  for (float& w : norm) w += 1;
  EXPECT_EQ(file.tensors.at("blk.0.attn_norm.weight").floats(), norm);
  const auto windows = file.get<std::vector<bool>>("gemma3.attention.sliding_window_pattern");
  for (size_t i = 0; i < windows.size(); ++i) EXPECT_EQ(windows[i], (i + 1) % 6 != 0);
  EXPECT_EQ(file.get<float>("gemma3.rope.freq_base_swa"), 10000.0f);
}

TEST_F(ExportTest, AScaleOfScoresThatTheFileCannotSayGoesIntoTheQueries) {
  const std::string dir = golden_model("gemma_3_linear_f32");  // heads of 12, scaled as if of 20
  std::vector<float> norm = weights_of(dir, "model.layers.0.self_attn.q_norm.weight");
  const ReadGguf file = exported(dir);
  const std::vector<float> ours = file.tensors.at("blk.0.attn_q_norm.weight").floats();
  for (size_t i = 0; i < norm.size(); ++i) EXPECT_NEAR(ours[i], (norm[i] + 1) * std::sqrt(12.0f / 20), 1e-6f);
  EXPECT_EQ(file.get<std::string>("gemma3.rope.scaling.type"), "linear");
  EXPECT_EQ(file.get<float>("gemma3.rope.scaling.factor"), 8.0f);
}

TEST_F(ExportTest, RotaryFactorsAreTensors) {
  const ReadGguf llama = exported(golden_model("llama_3_1_bf16"));  // factor 8
  const std::vector<float> factors = llama.tensors.at("rope_freqs.weight").floats();
  EXPECT_FLOAT_EQ(factors.front(), 1);
  EXPECT_FLOAT_EQ(factors.back(), 8);
  const ReadGguf phi = exported(golden_model("phi_3_5_long_bf16"));
  EXPECT_FLOAT_EQ(phi.tensors.at("rope_factors_long.weight").floats().back(), 18);
  EXPECT_FLOAT_EQ(phi.tensors.at("rope_factors_short.weight").floats().back(), 1.4f);
  EXPECT_EQ(phi.get<uint32_t>("phi3.rope.scaling.original_context_length"), 32u);
  EXPECT_GT(phi.get<float>("phi3.rope.scaling.attn_factor"), 1.0f);
  EXPECT_EQ(exported(golden_model("qwen3_f32")).tensors.count("rope_freqs.weight"), 0u);
}

TEST_F(ExportTest, WhereThereAreNoWindowsTheContextEndsWithTheWindow) {
  EXPECT_EQ(exported(golden_model("mistral_window_bf16")).get<uint32_t>("llama.context_length"), 8u);
  EXPECT_THAT(report_.notes, ::testing::Contains(HasSubstr("the context is 8 tokens")));
}

TEST_F(ExportTest, RowsThatAreNotWholeBlocksStayF16) {
  const ReadGguf file = exported(golden_model("phi_4_mini_short_bf16"), "q8_0");  // 64 wide, 100 inside
  EXPECT_EQ(file.tensors.at("blk.0.attn_qkv.weight").type, 8u);
  EXPECT_EQ(file.tensors.at("blk.0.ffn_down.weight").type, 1u);
  EXPECT_EQ(file.tensors.at("blk.0.attn_norm.weight").type, 0u);
  EXPECT_EQ(file.get<uint32_t>("general.file_type"), 7u);
  EXPECT_THAT(report_.notes, ::testing::Contains(HasSubstr("3 matrices are f16")));
}

TEST_F(ExportTest, OptionsThatLlamaCppLacksAreRefused) {
  const auto changed = [&](const std::string& name, const std::string& key, const nlohmann::json& value) {
    EditableCheckpoint checkpoint(golden_model(name));
    checkpoint.config[key] = value;
    return refusal(checkpoint.write(path(name + key)));
  };
  const nlohmann::json yarn = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}, {"beta_fast", 16}};
  EXPECT_THAT(changed("llama_2_f16", "rope_scaling", yarn), HasSubstr("beta_fast"));
  const nlohmann::json llama3 = {{"rope_type", "llama3"},
                                 {"factor", 8.0},
                                 {"low_freq_factor", 1.0},
                                 {"high_freq_factor", 4.0},
                                 {"original_max_position_embeddings", 64}};
  EXPECT_THAT(changed("qwen2_f32", "rope_scaling", llama3),
              HasSubstr("\"qwen2\" does not have rotary scaling of type llama3"));
  EXPECT_THAT(changed("smollm3_bf16", "no_rope_layers", {1, 0, 1, 1, 1}),
              HasSubstr("positions that do not turn here (layer 1)"));
  EXPECT_THAT(changed("gemma_2_f32", "attn_logit_softcapping", nullptr), HasSubstr("scores that are not capped"));
  EXPECT_THAT(changed("gemma_3_bf16", "attn_logit_softcapping", 30.0), HasSubstr("capped scores"));
  EXPECT_THAT(changed("qwen2_moe_bf16", "norm_topk_prob", true), HasSubstr("experts' weights made to sum to 1"));
  EXPECT_THAT(changed("deepseek_v3_bf16", "topk_method", "group_limited_greedy"),
              HasSubstr("is not part of this architecture"));
}

TEST_F(ExportTest, TheTargetIsReplacedOnlyOnRequest) {
  const std::string model = golden_model("one_kv_head_bf16");
  write_file(path("there"), "mine");
  EXPECT_THAT(*error_of([&] { export_model(model, path("there")); }), HasSubstr("there already"));
  EXPECT_EQ(read_file(path("there")), "mine");
  ExportOptions options;
  options.overwrite = true;
  options.progress = [](std::string_view, uint64_t, uint64_t) { return false; };
  ErrorCode code{};
  error_of([&] { export_model(model, path("there"), options); }, &code);
  EXPECT_EQ(code, ErrorCode::kCancelled);
  EXPECT_EQ(read_file(path("there")), "mine");
  options.progress = {};
  const ExportReport report = export_model(model, path("there"), options);
  EXPECT_EQ(report.file_bytes, std::filesystem::file_size(path("there")));
  options.type = "q9";
  EXPECT_THAT(*error_of([&] { export_model(model, path("there"), options); }), HasSubstr("f16, bf16, f32, q8_0"));
  options.format = "onnx";
  EXPECT_THAT(*error_of([&] { export_model(model, path("there"), options); }), HasSubstr("there is gguf"));
}

TEST_F(ExportTest, ThreadsDoNotChangeAByte) {
  ExportOptions options;
  for (const unsigned threads : {1u, 3u}) {
    options.threads = threads;
    export_model(demo_model(), path(std::to_string(threads)), options);
  }
  EXPECT_EQ(read_file(path("1")), read_file(path("3")));
}

}  // namespace
}  // namespace upg
