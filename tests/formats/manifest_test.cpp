#include "qianli/formats/manifest.h"

#include <gtest/gtest.h>

#include <functional>

#include "qianli/base/error.h"

namespace qianli::testing {
namespace {

using formats::Manifest;
using formats::TensorKind;

formats::TrainingState state() {
  return {.step = 7,
          .updates_done = 6,
          .consumed_samples = 56,
          .seed = 0xfedcba9876543210,
          .data_fingerprint = "0123abcd",
          .config_yaml = "train: {steps: 200}  # \xe5\x8d\x83\xe9\x87\x8c\n"};
}

// A [4, 6] weight in two halves along the second axis, and its two states whole.
Manifest sample() {
  Manifest manifest{.program = "0.1.0", .state = state(), .model = {{"model_type", "llama"}}};
  manifest.files = {{.name = "a.safetensors", .bytes = 200, .xxh3 = 0x00ff},
                    {.name = "b.safetensors", .bytes = 400, .xxh3 = UINT64_MAX}};
  manifest.tensors = {
      {.name = "w",
       .kind = TensorKind::kWeight,
       .shape = {4, 6},
       .slices = {{.file = "a.safetensors", .key = "w", .offset = {0, 0}, .shape = {4, 2}},
                  {.file = "b.safetensors", .key = "w", .offset = {0, 2}, .shape = {4, 4}}}},
      {.name = "w",
       .kind = TensorKind::kExpAvg,
       .dtype = formats::Dtype::kF64,
       .shape = {4, 6},
       .slices = {{.file = "b.safetensors", .key = "m", .offset = {0, 0}, .shape = {4, 6}}}}};
  return manifest;
}

// The message with which the text is refused; empty where it is not.
std::string refusal_of(const std::string& text) {
  try {
    formats::parse_manifest(text, "manifest.json");
  } catch (const CheckpointError& error) {
    return error.what();
  }
  return {};
}

std::string refusal(const std::function<void(Json&)>& edit) {
  Json json = Json::parse(to_json(sample()));
  edit(json);
  return refusal_of(json.dump());
}

TEST(Manifest, reads_what_it_writes) {
  EXPECT_EQ(formats::parse_manifest(to_json(sample()), "manifest.json"), sample());
}

TEST(Manifest, scalars_have_one_slice_without_axes) {
  Manifest manifest = sample();
  manifest.tensors[0].shape = {};
  manifest.tensors[0].slices = {{.file = "a.safetensors", .key = "w"}};
  EXPECT_EQ(formats::parse_manifest(to_json(manifest), "manifest.json"), manifest);
}

struct Refusal {
  const char* name;
  std::function<void(Json&)> edit;
  const char* says;
};

class RefusedManifest : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedManifest, says_where_and_why) {
  const std::string message = refusal(GetParam().edit);
  EXPECT_NE(message.find("manifest.json"), std::string::npos) << message;
  EXPECT_NE(message.find(GetParam().says), std::string::npos) << message;
}

Json& slice(Json& json, int i) { return json["tensors"][0]["slices"][i]; }

INSTANTIATE_TEST_SUITE_P(
    Checkpoint, RefusedManifest,
    ::testing::Values(
        Refusal{"format", [](Json& j) { j["format"] = "other"; }, "qianli-checkpoint"},
        Refusal{"version", [](Json& j) { j["version"] = 2; }, "expected version 1, got 2"},
        Refusal{"no_step", [](Json& j) { j.erase("step"); }, "'step'"},
        Refusal{"negative_step", [](Json& j) { j["step"] = -1; }, "whole number"},
        Refusal{"huge_step", [](Json& j) { j["step"] = UINT64_MAX; }, "too large"},
        Refusal{"fraction", [](Json& j) { j["consumed_samples"] = 1.5; }, "whole number"},
        Refusal{"config", [](Json& j) { j["config"] = 3; }, "'config': expected string"},
        Refusal{"tensors", [](Json& j) { j["tensors"] = Json::object(); }, "expected array"},
        Refusal{"tensor", [](Json& j) { j["tensors"][0] = 5; }, "expected an object"},
        Refusal{"no_name", [](Json& j) { j["tensors"][0]["name"] = ""; }, "1 to 1024 bytes"},
        Refusal{"kind", [](Json& j) { j["tensors"][0]["kind"] = "bias"; }, "'bias'"},
        Refusal{"dtype", [](Json& j) { j["tensors"][0]["dtype"] = "F23"; }, "'F23'"},
        Refusal{"zero_axis",
                [](Json& j) {
                  j["tensors"][0]["shape"] = {4, 0};
                },
                "from 1"},
        Refusal{"many_axes", [](Json& j) { j["tensors"][0]["shape"] = std::vector<int>(9, 1); },
                "8 axes"},
        Refusal{"overflow",
                [](Json& j) {
                  j["tensors"][0]["shape"] = {INT64_MAX, INT64_MAX};
                },
                "overflows"},
        Refusal{"twice", [](Json& j) { j["tensors"].push_back(j["tensors"][0]); },
                "'w' (weight): stands twice"},
        Refusal{"no_slices", [](Json& j) { j["tensors"][0]["slices"] = Json::array(); },
                "1 to 4096 slices"},
        Refusal{"hole",
                [](Json& j) {
                  slice(j, 1)["shape"] = {4, 3};
                },
                "cover 20 of 24"},
        Refusal{"overlap",
                [](Json& j) {
                  slice(j, 1)["offset"] = {0, 1};
                },
                "overlap"},
        Refusal{"outside",
                [](Json& j) {
                  slice(j, 1)["offset"] = {0, 3};
                },
                "along axis 1"},
        Refusal{"far_outside",
                [](Json& j) {
                  slice(j, 1)["offset"] = {0, INT64_MAX};
                },
                "along axis 1"},
        Refusal{"slice_axes", [](Json& j) { slice(j, 1)["offset"] = {0}; }, "2 axes"},
        Refusal{"unlisted", [](Json& j) { slice(j, 1)["file"] = "c.safetensors"; }, "'files'"},
        Refusal{"escape", [](Json& j) { slice(j, 1)["file"] = "../b"; }, "in this folder"},
        Refusal{"file_escape", [](Json& j) { j["files"][0]["name"] = "../../x"; },
                "in this folder"},
        Refusal{"file_absolute", [](Json& j) { j["files"][0]["name"] = "/etc/passwd"; },
                "in this folder"},
        Refusal{"file_dots", [](Json& j) { j["files"][0]["name"] = ".."; }, "in this folder"},
        Refusal{"file_twice", [](Json& j) { j["files"].push_back(j["files"][0]); }, "stands twice"},
        Refusal{"hash", [](Json& j) { j["files"][0]["xxh3"] = "xyz"; }, "16 hexadecimal"},
        Refusal{"size", [](Json& j) { j["files"][0]["bytes"] = -4; }, "whole number"}),
    [](const auto& info) { return info.param.name; });

TEST(Manifest, text_that_is_no_manifest_is_refused) {
  for (const char* text : {"", "{", "[]", "null", "{}", "{\"format\": \"qianli-checkpoint\"}"}) {
    EXPECT_NE(refusal_of(text), "") << text;
  }
}

}  // namespace
}  // namespace qianli::testing
