#include <gtest/gtest.h>

#include "qianli/base/json.h"
#include "qianli/config/config.h"
#include "qianli/config/field.h"
#include "tests/config/expect_error.h"
#include "tests/support/test_paths.h"

namespace qianli::config {
namespace {

using testing::expect_config_error;

TEST(Explain, tells_value_default_flag_and_help) {
  const std::string text = explain("train.global_batch_size");
  for (const char* words :
       {"Samples of one optimizer step", "a whole number from 1 to", "(samples)",
        "train.micro_batch_size", "Megatron --global-batch-size"}) {
    EXPECT_NE(text.find(words), std::string::npos) << words << "\n" << text;
  }
  EXPECT_NE(explain("optim").find("clip_grad_norm"), std::string::npos);
  EXPECT_NE(explain("").find("checkpoint"), std::string::npos);
  EXPECT_NE(explain("optim.groups.match").find("glob"), std::string::npos);
  expect_config_error([] { explain("optim.lrr"); }, "(did you mean 'optim.lr'?)");
}

TEST(Explain, every_option_has_help_and_a_unique_key) {
  Config config;
  const Section root = fields_of(config);
  const auto paths = all_paths(root);
  EXPECT_EQ(std::set<std::string>(paths.begin(), paths.end()).size(), paths.size());
  for (const auto& path : paths) {
    EXPECT_GT(find_field(root, path)->option.help.size(), 10u) << path;
    EXPECT_FALSE(parse_json(explain_json(path), path, FileRole::kConfig).empty()) << path;
  }
}

// The schema of the field at `path`, found as an editor would.
const Json* property(const Json& schema, const std::string& path) {
  const size_t dot = path.find('.');
  const Json* map = &schema;
  std::vector<const Json*> forms = {map};
  for (size_t i = 0; i < forms.size(); ++i) {
    if (forms[i]->contains("anyOf")) {
      for (const auto& form : forms[i]->at("anyOf")) forms.push_back(&form);
    }
    if (forms[i]->contains("items")) forms.push_back(&forms[i]->at("items"));
    if (!forms[i]->contains("properties")) continue;
    const auto& properties = forms[i]->at("properties");
    const auto found = properties.find(path.substr(0, dot));
    if (found == properties.end()) continue;
    return dot == std::string::npos ? &*found : property(*found, path.substr(dot + 1));
  }
  return nullptr;
}

TEST(Schema, is_json_and_holds_every_key) {
  const Json schema = parse_json(json_schema(), "schema", FileRole::kConfig);
  EXPECT_EQ(schema.at("$schema"), "https://json-schema.org/draft/2020-12/schema");
  EXPECT_EQ(schema.at("additionalProperties"), false);
  Config config;
  for (const auto& path : all_paths(fields_of(config))) {
    const Json* found = property(schema, path);
    ASSERT_NE(found, nullptr) << path;
    EXPECT_TRUE(found->contains("description")) << path;
    EXPECT_TRUE(found->contains("type") || found->contains("anyOf")) << path;
  }
  EXPECT_EQ(property(schema, "train.micro_batch_size")->at("minimum"), 1);
  EXPECT_EQ(property(schema, "optim.betas")->at("items").at("exclusiveMaximum"), 1);
  EXPECT_EQ(property(schema, "precision")->at("enum"), Json({"auto", "fp32", "bf16", "fp64"}));
}

TEST(Docs, the_committed_page_is_current) {
  const std::string page = read_file(testing::source_path("docs/config.md"), FileRole::kConfig);
  EXPECT_TRUE(page == markdown()) << "run: qianli config docs > docs/config.md";
}

}  // namespace
}  // namespace qianli::config
