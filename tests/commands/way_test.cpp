// The way of a model through the commands: tokenizer, data, pretrain, generate, score.
#include <cmath>
#include <cstring>

#include "qianli/base/strings.h"
#include "tests/commands/workshop.h"

namespace qianli::testing {
namespace {

using WayTest = Workshop;

TEST_F(WayTest, TokensGoThereAndBack) {
  const std::string texts[] = {"the cat walks over the mountain.", "", "  [a, b]  ",
                               "千里之行，始於足下 🐎", "\x01 \t tab"};
  for (const auto& text : texts) {
    const Result encoded = qianli({"tokenizer", "encode", "tokenizer", "--text", text, "--json"});
    expect_success(encoded);
    EXPECT_TRUE(Json::parse(encoded.out).is_array());
    const Result decoded = qianli({"tokenizer", "decode", "tokenizer", "--ids",
                                   encoded.out.substr(0, encoded.out.size() - 1)});
    expect_success(decoded);
    EXPECT_EQ(decoded.out, text + "\n");
  }
  const Result lines =
      qianli({"tokenizer", "encode", "tokenizer", "--input", "text.txt", "--json"});
  expect_success(lines);
  EXPECT_EQ(Json::parse(lines.out).size(), 400u);
  write_text(path("ids.json"), lines.out);
  const Result text = qianli({"tokenizer", "decode", "tokenizer", "--input", "ids.json"});
  expect_success(text);
  EXPECT_EQ(text.out, read_text(path("text.txt")));
}

TEST_F(WayTest, PreparedDataCountsWhatTheTokenizerCounts) {
  expect_success(qianli({"data", "prepare", "text.txt", "--tokenizer", "tokenizer", "--output",
                         "corpus", "--separator", "\n"}));
  const Result inspected = qianli({"data", "inspect", "corpus_text_document", "--tokenizer",
                                   "tokenizer", "--sequence-length", "16", "--json"});
  expect_success(inspected);
  const Json seen = Json::parse(inspected.out);
  const Json lists = Json::parse(
      qianli({"tokenizer", "encode", "tokenizer", "--input", "text.txt", "--json"}).out);
  size_t tokens = 0;
  for (const auto& ids : lists) tokens += ids.size() + 1;  // and the end of the document
  EXPECT_EQ(seen.at("corpora").at(0).at("documents"), 400);
  EXPECT_EQ(seen.at("corpora").at(0).at("tokens"), tokens);
  EXPECT_EQ(seen.at("sample").at("tokens").size(), 16u);
  // What a token predicts is the next one.
  EXPECT_EQ(seen.at("sample").at("labels").at(0), seen.at("sample").at("tokens")[1]);
}

void expect_run_folder(const fs::path& folder) {
  for (const char* name :
       {"config.yaml", "metrics.jsonl", "log.txt", "report.html", "checkpoints/latest",
        "checkpoints/step_15/manifest.json", "checkpoints/step_30/manifest.json",
        "checkpoints/step_30/config.json", "checkpoints/step_30/tokenizer.json"}) {
    EXPECT_TRUE(fs::is_regular_file(folder / name)) << name;
  }
  size_t events = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().filename().string().starts_with("events.out.tfevents."))
      events += fs::file_size(entry) > 0;
  }
  EXPECT_EQ(events, 1u);
  const std::string report = read_text(folder / "report.html");
  EXPECT_NE(report.find("<script>"), report.npos);
  EXPECT_EQ(report.find("src=\"http"), report.npos) << "the report must open without network";
  EXPECT_EQ(report.find("href=\"http"), report.npos) << "the report must open without network";
}

void expect_metrics(const std::vector<Json>& metrics) {
  ASSERT_EQ(metrics.size(), 30u);
  for (size_t i = 0; i < metrics.size(); ++i) {
    const Json& record = metrics[i];
    EXPECT_EQ(record.at("step"), i + 1);
    EXPECT_EQ(record.at("tokens"), 4 * 32);
    EXPECT_EQ(record.at("tokens_seen"), (i + 1) * 4 * 32);
    for (const char* field :
         {"loss", "lr", "grad_norm", "tokens_per_second", "step_seconds", "mfu", "memory_bytes"}) {
      ASSERT_TRUE(record.contains(field) && record.at(field).is_number())
          << field << " in " << record;
      EXPECT_GE(record.at(field).get<double>(), 0.0) << field;
    }
    EXPECT_GT(record.at("memory_bytes").get<double>(), 0.0);
  }
  // 300 tokens, of which an untrained model knows nothing: log 300 = 5.70.
  EXPECT_NEAR(metrics.front().at("loss").get<double>(), std::log(300.0), 0.3);
  EXPECT_LT(metrics.back().at("loss").get<double>(),
            metrics.front().at("loss").get<double>() - 1.0);
}

TEST_F(WayTest, ATrainedModelIsGeneratedFromAndScored) {
  QIANLI_REQUIRE_ENGINE();
  expect_success(pretrain({"train.steps=30", "checkpoint.every=15", "run.dir=run"}));
  expect_run_folder(path("run"));
  expect_metrics(read_metrics(path("run")));

  const std::string model = "run/checkpoints/step_30";
  const Result generated = qianli(
      {"generate", model, "--prompt", "the [cat, dog]", "-n", "12", "--ignore-eos", "--json"});
  expect_success(generated);
  const Json answer = Json::parse(generated.out);
  EXPECT_EQ(answer.at("prompt"), "the [cat, dog]");
  EXPECT_EQ(answer.at("tokens").size(), 12u);
  EXPECT_TRUE(answer.at("text").is_string());
  EXPECT_GT(answer.at("prompt_tokens_per_second").get<double>(), 0.0);
  EXPECT_GT(answer.at("tokens_per_second_decode").get<double>(), 0.0);

  // What the trained model expects of such text is what its training loss says.
  write_text(path("ids.json"),
             qianli({"tokenizer", "encode", "tokenizer", "--input", "text.txt", "--json"}).out);
  const Result scored = qianli({"score", model, "--tokens", "ids.json", "--json"});
  expect_success(scored);
  const Json scores = Json::parse(scored.out);
  EXPECT_EQ(scores.at("log_probs").size(), 400u);
  EXPECT_NEAR(scores.at("mean_nll").get<double>(),
              read_metrics(path("run")).back().at("loss").get<double>(), 0.5);
  EXPECT_NEAR(scores.at("perplexity").get<double>(), std::exp(scores.at("mean_nll").get<double>()),
              1e-6 * scores.at("perplexity").get<double>());
}

// A mixture made of a trained model computes what that does, and is trained on: each layer's
// routing is told.
TEST_F(WayTest, ATrainedModelIsUpcycledAndTrainedOn) {
  QIANLI_REQUIRE_ENGINE();
  trained("run");
  const Result made =
      qianli({"convert", "run", "mixture", "--to", "hf", "--upcycle-experts", "4", "--verify"});
  expect_success(made);
  EXPECT_NE(made.out.find("largest difference 0,"), std::string::npos) << made.out;
  write_text(path("ids.json"),
             qianli({"tokenizer", "encode", "tokenizer", "--input", "text.txt", "--json"}).out);
  const auto nll = [&](const std::string& model) {
    const Result scored = qianli({"score", model, "--tokens", "ids.json", "--json"});
    expect_success(scored);
    return Json::parse(scored.out).at("mean_nll").get<double>();
  };
  EXPECT_NEAR(nll("mixture"), nll("run"), 1e-5);
  write_text(path("on.yaml"), R"(model: {preset: mixture, moe: {aux_loss_coeff: 0.01}}
data: {path: text.txt, tokenizer: tokenizer, sequence_length: 32, split: "100,0,0"}
train: {steps: 2, micro_batch_size: 2, global_batch_size: 4}
device: cpu
precision: fp32
log: {peak_tflops: 0.1, moe_per_layer_logging: true}
run: {dir: on}
)");
  expect_success(qianli({"pretrain", "on.yaml"}));
  const Json layers = read_metrics(path("on")).back().at("moe_layers");
  ASSERT_EQ(layers.size(), 1u);
  EXPECT_GE(layers.at("decoder.layers.0.mlp").at("moe_aux_loss").get<double>(), 0.5);
  const Result one = qianli(
      {"convert", "run", "other", "--to", "hf", "--upcycle-experts", "4", "--upcycle-top-k", "1"});
  EXPECT_EQ(one.code, 2);
  EXPECT_NE(one.err.find("learns nothing"), std::string::npos) << one.err;
}

TEST_F(WayTest, AModelIsTheSameInEveryForm) {
  QIANLI_REQUIRE_ENGINE();
  trained("run");  // as a run's folder it stands for its last checkpoint
  for (const std::string form : {"qianli", "hf", "gguf", "mindspore"}) {
    const Result converted = qianli({"convert", "run", form, "--to", form, "--verify"});
    expect_success(converted);
    EXPECT_NE(converted.out.find("largest difference 0,"), std::string::npos) << converted.out;
  }
  const std::vector<std::string> prompt = {"--prompt", "the cat",      "-n",
                                           "8",        "--ignore-eos", "--greedy"};
  const auto text_of = [&](const std::string& model) {
    std::vector<std::string> command{"generate", model};
    command.insert(command.end(), prompt.begin(), prompt.end());
    const Result result = qianli(command);
    expect_success(result);
    return result.out;
  };
  const std::string text = text_of("run");
  for (const char* form : {"qianli", "hf", "gguf", "mindspore"}) EXPECT_EQ(text_of(form), text);
  // Training starts from each of them with the loss of the others.
  double loss = 0;
  for (const std::string form : {"qianli", "hf", "gguf", "mindspore"}) {
    const std::string run = "from_" + form;
    expect_success(
        qianli({"pretrain", "tiny.yaml", "model=" + form, "train.steps=1", "run.dir=" + run}));
    const double first = read_metrics(path(run)).front().at("loss").get<double>();
    if (form == "qianli") loss = first;
    EXPECT_EQ(first, loss) << form;
  }
}

TEST_F(WayTest, ClosedStreamsDoNotDisturb) {
  QIANLI_REQUIRE_ENGINE();
  const std::string model = trained("run").string();
  write_text(path("ids.json"), "[[1, 2, 3]]");
  const std::vector<std::string> commands[] = {
      {"generate", model, "--prompt", "the", "-n", "3", "--ignore-eos"},
      {"score", model, "--tokens", "ids.json"}};
  for (const auto& command : commands) {
    const Result usual = qianli(command);
    expect_success(usual);
    auto without_input = options();
    without_input.closed_streams = {0};
    const Result same = run(command, without_input);
    expect_success(same);
    EXPECT_EQ(same.out, usual.out);
    auto without_any = options();
    without_any.closed_streams = {0, 1, 2};
    expect_success(run(command, without_any));
  }
}

TEST_F(WayTest, PromptsAreAnyBytes) {
  QIANLI_REQUIRE_ENGINE();
  const std::string model = trained("run").string();
  write_text(path("nul.txt"), std::string("the\0cat", 7));
  const Result result = qianli({"generate", model, "--prompt", "", "--prompt", "\xff\xfe cat",
                                "--prompt-file", "nul.txt", "-n", "2", "--ignore-eos", "--json"});
  // The tokenizer has no beginning token, so an empty prompt leaves nothing to go on from.
  expect_failure(result, 3, {"prompt", "at least one token"});
  const Result others = qianli({"generate", model, "--prompt", "\xff\xfe cat", "--prompt-file",
                                "nul.txt", "-n", "2", "--ignore-eos", "--json"});
  expect_success(others);
  const Json answers = Json::parse(others.out);
  ASSERT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers.at(1).at("prompt").get<std::string>(), std::string("the\0cat", 7));
}

// A tensor of a safetensors file, as bytes.
std::string tensor_bytes(const fs::path& file, const std::string& name) {
  const std::string bytes = read_text(file);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  const Json place = Json::parse(bytes.substr(8, header)).at(name).at("data_offsets");
  const auto begin = place[0].get<uint64_t>(), end = place[1].get<uint64_t>();
  return bytes.substr(8 + header + begin, end - begin);
}

template <class T>
std::vector<T> values_of(const fs::path& file, const std::string& name) {
  const std::string bytes = tensor_bytes(file, name);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// log softmax(logits)[token] in double.
double log_probability(const float* logits, int64_t vocabulary, int64_t token) {
  double largest = logits[0], sum = 0;
  for (int64_t i = 0; i < vocabulary; ++i) largest = std::max<double>(largest, logits[i]);
  for (int64_t i = 0; i < vocabulary; ++i) sum += std::exp(logits[i] - largest);
  return logits[token] - largest - std::log(sum);
}

TEST_F(WayTest, ScoresOfAForeignModelAreThoseOfItsMaker) {
  QIANLI_REQUIRE_ENGINE();
  const fs::path model = source_path("tests/golden/models/llama2");
  constexpr int64_t kSequences = 2, kLength = 40, kVocabulary = 97;
  const auto tokens = values_of<int64_t>(model / "golden.safetensors", "tokens");
  const auto logits = values_of<float>(model / "golden.safetensors", "logits");
  ASSERT_EQ(tokens.size(), static_cast<size_t>(kSequences * kLength));
  ASSERT_EQ(logits.size(), static_cast<size_t>(kSequences * kLength * kVocabulary));
  Json sequences = Json::array();
  for (int64_t s = 0; s < kSequences; ++s) {
    sequences.push_back(
        std::vector<int64_t>(tokens.begin() + s * kLength, tokens.begin() + (s + 1) * kLength));
  }
  write_text(path("ids.json"), sequences.dump());
  const Result result = qianli({"score", model.string(), "--tokens", "ids.json", "--logits",
                                "logits.safetensors", "--json"});
  expect_success(result);
  const Json scores = Json::parse(result.out);
  ASSERT_EQ(scores.at("log_probs").size(), static_cast<size_t>(kSequences));
  double sum = 0;
  for (int64_t s = 0; s < kSequences; ++s) {
    ASSERT_EQ(scores.at("log_probs").at(s).size(), static_cast<size_t>(kLength - 1));
    for (int64_t i = 1; i < kLength; ++i) {
      const float* row = logits.data() + (s * kLength + i - 1) * kVocabulary;
      const double expected = log_probability(row, kVocabulary, tokens[s * kLength + i]);
      EXPECT_NEAR(scores.at("log_probs").at(s)[i - 1].get<double>(), expected, 2e-5)
          << s << ", " << i;
      sum += expected;
    }
  }
  EXPECT_NEAR(scores.at("mean_nll").get<double>(), -sum / (kSequences * (kLength - 1)), 1e-5);
  const auto written = values_of<float>(path("logits.safetensors"), "logits");
  ASSERT_EQ(written.size(), logits.size());
  for (size_t i = 0; i < logits.size(); ++i) ASSERT_NEAR(written[i], logits[i], 2e-5) << i;
}

TEST_F(WayTest, BackendsAndDoctorAnswerInJson) {
  QIANLI_REQUIRE_ENGINE();
  const Result backends = qianli({"backends", "--json"});
  expect_success(backends);
  size_t linear = 0;
  for (const Json& row : Json::parse(backends.out))
    linear += row.at("op") == "linear" && row.at("device") == "cpu";
  EXPECT_GE(linear, 3u);  // fp64, fp32, bf16
}

}  // namespace
}  // namespace qianli::testing
