#include "qianli/plan/layers.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::plan {
namespace {

// "E 0 1 | 4 5 L": a stage's chunks.
std::string stage_text(const std::vector<ChunkLayers>& chunks) {
  std::string text;
  for (const ChunkLayers& chunk : chunks) {
    if (!text.empty()) text += " |";
    if (chunk.embedding) text += " E";
    for (const auto& layer : chunk.layers) text += fmt::format(" {}", layer.global);
    for (int64_t i = 0; i < chunk.mtp_layers; ++i) text += " m";
    if (chunk.loss) text += " L";
  }
  return text.empty() ? "" : text.substr(text[0] == ' ' ? 1 : 0);
}

std::vector<std::string> texts(const LayerSplit& split) {
  std::vector<std::string> all;
  for (const auto& chunks : place_layers(split)) all.push_back(stage_text(chunks));
  return all;
}

using Texts = std::vector<std::string>;

std::string refusal(const auto& call) {
  try {
    call();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Layers, even_stages_and_chunks) {
  EXPECT_EQ(texts({.layers = 4, .stages = 1}), (Texts{"E 0 1 2 3 L"}));
  EXPECT_EQ(texts({.layers = 4, .stages = 2}), (Texts{"E 0 1", "2 3 L"}));
  EXPECT_EQ(texts({.layers = 8, .stages = 2, .chunks = 2}), (Texts{"E 0 1 | 4 5", "2 3 | 6 7 L"}));
  EXPECT_EQ(texts({.layers = 4, .mtp_layers = 1, .stages = 2}), (Texts{"E 0 1", "2 3 m L"}));
  EXPECT_NE(refusal([] { place_layers({.layers = 7, .stages = 2}); }).find("multiple of 2 stages"),
            std::string::npos);
  EXPECT_NE(refusal([] {
              place_layers({.layers = 6, .stages = 2, .chunks = 2});
            }).find("multiple of its 2 chunks"),
            std::string::npos);
}

TEST(Layers, first_and_last_stage_may_have_their_own) {
  EXPECT_EQ(texts({.layers = 7, .stages = 3, .first_stage_layers = 2, .last_stage_layers = 1}),
            (Texts{"E 0 1", "2 3 4 5", "6 L"}));
  EXPECT_EQ(texts({.layers = 7, .stages = 3, .last_stage_layers = 1}),
            (Texts{"E 0 1 2", "3 4 5", "6 L"}));
  EXPECT_EQ(texts({.layers = 10, .stages = 3, .chunks = 2, .first_stage_layers = 2}),
            (Texts{"E 0 | 5", "1 2 | 6 7", "3 4 | 8 9 L"}));
  EXPECT_EQ(texts({.layers = 3, .stages = 2, .first_stage_layers = 1, .last_stage_layers = 2}),
            (Texts{"E 0", "1 2 L"}));
  EXPECT_NE(
      refusal([] {
        place_layers({.layers = 4, .stages = 2, .first_stage_layers = 1, .last_stage_layers = 2});
      }).find("expected"),
      std::string::npos);
  EXPECT_NE(
      refusal([] { place_layers({.layers = 4, .stages = 2, .first_stage_layers = 5}); }).find("-1"),
      std::string::npos);
}

TEST(Layers, embedding_and_loss_count_as_layers) {
  EXPECT_EQ(texts({.layers = 6, .stages = 2, .count_embedding = true, .count_loss = true}),
            (Texts{"E 0 1 2", "3 4 5 L"}));
  EXPECT_EQ(texts({.layers = 7, .stages = 4, .count_embedding = true}),
            (Texts{"E 0", "1 2", "3 4", "5 6 L"}));
  EXPECT_EQ(
      texts({.layers = 6, .stages = 2, .chunks = 2, .count_embedding = true, .count_loss = true}),
      (Texts{"E 0 | 3 4", "1 2 | 5 L"}));
  EXPECT_EQ(texts({.layers = 2, .stages = 2, .count_embedding = true, .count_loss = true}),
            (Texts{"E 0", "1 L"}));
  EXPECT_NE(
      refusal([] {
        place_layers(
            {.layers = 0, .stages = 1, .chunks = 2, .count_embedding = true, .count_loss = true});
      }).find("accepted"),
      std::string::npos);
  EXPECT_NE(
      refusal([] {
        place_layers({.layers = 6, .stages = 2, .first_stage_layers = 2, .count_embedding = true});
      }).find("both"),
      std::string::npos);
}

TEST(Layers, positions_that_do_nothing_are_left_out_of_the_models_numbers) {
  EXPECT_EQ(texts({.layers = 8, .stages = 2, .noop_layers = {0, 9}}),
            (Texts{"E 0 1 2 3", "4 5 6 7 L"}));
  const auto placed = place_layers({.layers = 3, .stages = 2, .noop_layers = {1}});
  EXPECT_EQ(placed[0][0].layers, (std::vector<ChunkLayers::Layer>{{0, 0}}));
  EXPECT_EQ(placed[1][0].layers, (std::vector<ChunkLayers::Layer>{{0, 1}, {1, 2}}));
  EXPECT_NE(refusal([] { place_layers({.layers = 3, .noop_layers = {4}}); }).find("0 and 3"),
            std::string::npos);
  EXPECT_NE(refusal([] {
              place_layers({.layers = 3, .noop_layers = {1, 1}});
            }).find("twice"),
            std::string::npos);
}

TEST(Layers, a_folded_pipeline_begins_and_ends_on_the_first_stage) {
  EXPECT_EQ(texts({.layers = 8, .mtp_layers = 1, .stages = 2, .folded = true}),
            (Texts{"E 0 1 | 6 7 m L", "2 3 | 4 5"}));
  EXPECT_NE(refusal([] {
              place_layers({.layers = 6, .stages = 2, .folded = true});
            }).find("multiple of 4"),
            std::string::npos);
}

TEST(Layers, tables_give_each_chunk_its_own) {
  EXPECT_EQ(parse_layer_list("1,3, 3,1"), (LayerTable{{1}, {3}, {3}, {1}}));
  EXPECT_EQ(parse_layer_table("[[11,11],[13,19],[20,18]]"),
            (LayerTable{{11, 11}, {13, 19}, {20, 18}}));
  EXPECT_EQ(parse_layer_table(" [ [1], [2]*4, [1] ] "), (LayerTable{{1}, {2}, {2}, {2}, {2}, {1}}));
  EXPECT_EQ(
      texts({.layers = 8, .stages = 2, .chunks = 2, .table = parse_layer_table("[[1,3],[2,2]]")}),
      (Texts{"E 0 | 3 4 5", "1 2 | 6 7 L"}));
  EXPECT_EQ(texts({.layers = 2, .stages = 3, .table = {{1}, {0}, {1}}}), (Texts{"E 0", "", "1 L"}));
  const LayerTable two = {{1}, {2}};
  EXPECT_NE(refusal([&] {
              place_layers({.layers = 4, .stages = 2, .table = two});
            }).find("sum to 4, got 3"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              place_layers({.layers = 3, .stages = 3, .table = two});
            }).find("3 stages, got 2"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              place_layers({.layers = 3, .stages = 2, .chunks = 2, .table = two});
            }).find("2 chunks"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              place_layers({.layers = 2, .stages = 2, .noop_layers = {0}, .table = two});
            }).find("alone"),
            std::string::npos);
}

TEST(Layers, layouts_tell_everything) {
  const LayerSplit split = parse_layout("Ett|tt|ttt|tmL", 2);
  EXPECT_EQ(split.chunks, 2);
  EXPECT_EQ(split.layers, 8);
  EXPECT_EQ(texts(split), (Texts{"E 0 1 | 4 5 6", "2 3 | 7 m L"}));
  EXPECT_EQ(texts(parse_layout("E, t*3|(tt|)*2 t L", 4)), (Texts{"E 0 1 2", "3 4", "5 6", "7 L"}));
  EXPECT_EQ(texts(parse_layout("E||tt|L", 4)), (Texts{"E", "", "0 1", "L"}));
  EXPECT_EQ(texts(parse_layout("E((t|)*2t|)*2L", 7)), (Texts{"E 0", "1", "2", "3", "4", "5", "L"}));
  EXPECT_EQ(texts(parse_layout("EttmL", 1)), (Texts{"E 0 1 m L"}));
  EXPECT_EQ(texts(parse_layout("Et|t|tm|L", 4)), (Texts{"E 0", "1", "2 m", "L"}));
}

TEST(Layers, texts_of_another_form_are_refused) {
  const auto layout = [](std::string_view text, int64_t stages) {
    return refusal([&] { parse_layout(text, stages); });
  };
  for (const char* text :
       {"", "tt|L", "Et|t", "EtE|L", "Et|LtL", "tE|L", "Et|tL|t", "Em|tL", "Emt|L", "Etm|mL",
        "Et|tx", "E(t|L", "Et)|L", "Et*|L", "Et*0|L", "Et*99999999999|L", "Et|t|L"}) {
    EXPECT_NE(layout(text, 2), "accepted") << text;
    EXPECT_NE(layout(text, 2).find("[parallel]"), std::string::npos) << text;
  }
  EXPECT_NE(layout("Et|tm|t|L", 2).find("after all t"), std::string::npos);
  EXPECT_NE(layout("Et|t|tm|L", 2).find("first stage"), std::string::npos);
  EXPECT_NE(layout("Et|tm|L|", 2), "accepted");
  EXPECT_NE(
      layout("E" + std::string(100, '(') + "t" + std::string(100, ')') + "|L", 2).find("too deep"),
      std::string::npos);
  EXPECT_NE(layout("E((((t*1000)*1000)*1000)*1000)|L", 2).find("65536 symbols"), std::string::npos);
  for (const char* text : {"", "[]", "[[]]", "[1]", "[[1],]", "[[1]", "[[1]]]", "[[1]*0]", "[[-1]]",
                           "[[1]*65537]", "[[1,1]*40000]", "[[1.5]]", "[[99999999]]"})
    EXPECT_NE(refusal([&] { parse_layer_table(text); }), "accepted") << text;
  for (const char* text : {"", "1,", ",1", "1;2", "-1", "1 2", "a"})
    EXPECT_NE(refusal([&] { parse_layer_list(text); }), "accepted") << text;
}

}  // namespace
}  // namespace qianli::plan
