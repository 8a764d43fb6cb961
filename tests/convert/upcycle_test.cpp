#include "qianli/convert/upcycle.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "qianli/base/error.h"
#include "qianli/convert/verify.h"
#include "qianli/convert/write_model.h"
#include "tests/convert/made_model.h"
#include "tests/support/test_paths.h"

namespace qianli::convert {
namespace {

constexpr Upcycling kFour{.experts = 4, .top_k = 2, .seed = 7};

std::vector<std::byte> bytes_of(const ModelSource& model, size_t parameter) {
  const ForeignTensor whole = own_tensors(model.table)[parameter];
  std::vector<std::byte> bytes(static_cast<size_t>(model.table[parameter].elements()) * 4);
  model.reader->assemble(whole, formats::Dtype::kF32, bytes);
  return bytes;
}

std::map<std::string, std::vector<std::byte>> parameters_of(const ModelSource& model) {
  std::map<std::string, std::vector<std::byte>> all;
  for (size_t p = 0; p < model.table.size(); ++p) all[model.table[p].name] = bytes_of(model, p);
  return all;
}

std::vector<float> numbers(const std::vector<std::byte>& bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

class OfFamily : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

// Every expert is the dense MLP, everything else is as it was, and the routers are random.
TEST_P(OfFamily, experts_are_copies) {
  const auto spec = testing::small_model(GetParam().first);
  const auto dense = parameters_of(*testing::made_model(spec));
  const auto mixture = upcycled(testing::made_model(spec), kFour);
  EXPECT_EQ(mixture->spec.family, GetParam().second);
  EXPECT_EQ(mixture->spec.moe->num_experts, 4);
  EXPECT_EQ(mixture->spec.moe->top_k, 2);
  size_t seen = 0;
  std::set<std::string> routers;
  for (const auto& [name, bytes] : parameters_of(*mixture)) {
    if (name.ends_with(".router.weight")) {
      double squares = 0;
      for (const float value : numbers(bytes)) squares += double{value} * value;
      const double deviation = std::sqrt(squares / static_cast<double>(bytes.size() / 4));
      EXPECT_NEAR(deviation / spec.init_std, 1.0, 0.3) << name;
      routers.insert(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
      continue;
    }
    std::string own = name;
    const size_t experts = name.find(".experts.");
    if (experts != name.npos) own = name.substr(0, experts) + "." + name.substr(experts + 9);
    const auto& expected = dense.at(own);
    ++seen;
    const size_t copies = experts == name.npos ? 1 : 4;
    ASSERT_EQ(bytes.size(), copies * expected.size()) << name;
    for (size_t e = 0; e < copies; ++e) {
      EXPECT_EQ(std::memcmp(bytes.data() + e * expected.size(), expected.data(), expected.size()),
                0)
          << name << ", expert " << e;
    }
  }
  EXPECT_EQ(seen, dense.size());
  EXPECT_EQ(routers.size(), static_cast<size_t>(spec.num_layers));
}

INSTANTIATE_TEST_SUITE_P(Upcycle, OfFamily,
                         ::testing::Values(std::pair{"mistral", "mixtral"},
                                           std::pair{"qwen3", "qwen3_moe"}),
                         [](const auto& info) { return std::string(info.param.first); });

TEST(Upcycle, routers_are_functions_of_the_seed) {
  const auto spec = testing::small_model("mistral");
  const std::string name = "decoder.layers.0.mlp.router.weight";
  const auto router = [&](uint64_t seed) {
    Upcycling upcycling = kFour;
    upcycling.seed = seed;
    return parameters_of(*upcycled(testing::made_model(spec), upcycling)).at(name);
  };
  EXPECT_EQ(router(7), router(7));
  EXPECT_NE(router(7), router(8));
}

// Written as a folder of Hugging Face's and as a Megatron checkpoint it is read back bit for bit.
TEST(Upcycle, is_written_like_any_model) {
  const testing::TemporaryFolder place;
  const auto mixture = upcycled(testing::made_model(testing::small_model("mistral")), kFour);
  write_hugging_face(*mixture, place / "hf", {.dtype = formats::Dtype::kF32}, {});
  EXPECT_GT(verify(*mixture, *open_model(place / "hf")).elements, 0U);
  TargetOptions options{.dtype = formats::Dtype::kF32};
  options.layout.expert = 2;
  write_megatron(*mixture, place / "mcore", options, {});
  EXPECT_GT(verify(*mixture, *open_model(place / "mcore")).elements, 0U);
  const auto again = open_model(place / "hf");
  EXPECT_EQ(again->spec.family, "mixtral");
}

TEST(Upcycle, refuses_what_it_cannot_do) {
  const auto message = [](const char* name, const Upcycling& upcycling) -> std::string {
    try {
      upcycled(testing::made_model(testing::small_model(name)), upcycling);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no error";
  };
  EXPECT_NE(message("mixtral", kFour).find("expected a dense model"), std::string::npos);
  EXPECT_NE(message("llama", {.experts = 4, .top_k = 1}).find("learns nothing"), std::string::npos);
  EXPECT_NE(message("llama", {.experts = 4, .top_k = 5}).find("moe.top_k"), std::string::npos);
  EXPECT_NE(message("bloom", kFour).find("no config.json has words"), std::string::npos);
}

}  // namespace
}  // namespace qianli::convert
