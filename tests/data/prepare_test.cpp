#include "qianli/data/prepare.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>

#include "qianli/base/error.h"
#include "qianli/base/json.h"
#include "qianli/base/stop.h"
#include "qianli/formats/indexed_dataset.h"
#include "tests/support/test_paths.h"

namespace qianli::data {
namespace {

using testing::TemporaryFolder;

constexpr int32_t kEod = 256;

// One token per byte: what matters here is which bytes arrive, and in which order.
DocumentEncoder byte_encoder(std::atomic<int>* calls = nullptr) {
  return {.encode =
              [calls](std::string_view text, std::vector<int32_t>& ids) {
                if (calls != nullptr) ++*calls;
                for (const unsigned char byte : text) ids.push_back(byte);
              },
          .vocab_size = 257,
          .eod = kEod,
          .fingerprint = "bytes"};
}

std::string lines(int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    text += OrderedJson(
                {{"id", i}, {"text", std::string(static_cast<size_t>(i * 31 % 200), 'a' + i % 26)}})
                .dump() +
            "\n";
  }
  return text;
}

std::vector<int64_t> document(const formats::IndexedDataset& corpus, size_t i) {
  std::vector<int64_t> tokens(static_cast<size_t>(corpus.lengths()[i]));
  corpus.sequence(i, 0, tokens);
  return tokens;
}

class Prepare : public ::testing::Test {
 protected:
  Prepare() { write("in.jsonl", lines(200)); }
  void write(const std::string& name, const std::string& text) {
    write_file_atomically(folder_ / name, text, FileRole::kData);
  }
  PrepareOptions options(const std::string& input = "in.jsonl") const {
    return {.inputs = {folder_ / input}, .threads = 1, .part_bytes = 4096};
  }
  std::string bytes(const std::string& name) const {
    return read_file(folder_ / name, FileRole::kData);
  }

  // Runs `body` in a child process and returns how it ended.
  template <class Body>
  static int in_child(const Body& body) {
    const pid_t child = ::fork();
    if (child == 0) {
      int code = 0;
      try {
        body();
      } catch (const Error& error) {
        code = static_cast<int>(error.code());
      }
      ::_exit(code);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return status;
  }

  void expect_same_as_undisturbed(const std::string& prefix) const {
    prepare_corpus(folder_ / "undisturbed", options(), byte_encoder());
    EXPECT_EQ(bytes(prefix + ".bin"), bytes("undisturbed.bin"));
    EXPECT_EQ(bytes(prefix + ".idx"), bytes("undisturbed.idx"));
    EXPECT_EQ(bytes(prefix + ".json"), bytes("undisturbed.json"));
    EXPECT_FALSE(fs::exists(folder_ / (prefix + ".parts")));
  }

  TemporaryFolder folder_;
};

TEST_F(Prepare, every_document_becomes_a_sequence_with_its_end) {
  write("two.jsonl", "{\"text\": \"ab\"}\n{\"text\": \"\"}\n{\"text\": \"c\"}\n");
  const auto manifest = prepare_corpus(folder_ / "out", options("two.jsonl"), byte_encoder());
  const auto corpus = formats::IndexedDataset::open(folder_ / "out");
  ASSERT_EQ(corpus.size(), 2u);
  EXPECT_EQ(corpus.num_documents(), 2u);
  EXPECT_EQ(corpus.dtype(), formats::TokenDtype::kU16);
  EXPECT_EQ(document(corpus, 0), (std::vector<int64_t>{'a', 'b', kEod}));
  EXPECT_EQ(document(corpus, 1), (std::vector<int64_t>{'c', kEod}));
  EXPECT_EQ(manifest.documents, 2u);
  EXPECT_EQ(manifest.tokens, 5u);
  const Json json = read_json(folder_ / "out.json", FileRole::kData);
  EXPECT_EQ(json.at("tokenizer"), "bytes");
  EXPECT_EQ(json.at("eod"), kEod);
}

TEST_F(Prepare, the_end_of_document_can_be_left_away) {
  write("a.txt", "xyz");
  auto without = options("a.txt");
  without.append_eod = false;
  prepare_corpus(folder_ / "out", without, byte_encoder());
  EXPECT_EQ(document(formats::IndexedDataset::open(folder_ / "out"), 0),
            (std::vector<int64_t>{'x', 'y', 'z'}));
  auto no_end = byte_encoder();
  no_end.eod.reset();
  EXPECT_THROW(prepare_corpus(folder_ / "other", options("a.txt"), no_end), DataError);
}

TEST_F(Prepare, threads_and_part_sizes_change_nothing) {
  auto many = options();
  many.threads = 4;
  many.part_bytes = 1000;
  prepare_corpus(folder_ / "many", many, byte_encoder());
  expect_same_as_undisturbed("many");
}

TEST_F(Prepare, goes_on_after_sigkill_without_repeating_finished_parts) {
  const int status = in_child([&] {
    auto doomed = options();
    doomed.report = [](uint64_t done, uint64_t total) {
      if (done > total / 2) ::raise(SIGKILL);
    };
    prepare_corpus(folder_ / "out", doomed, byte_encoder());
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_FALSE(fs::exists(folder_ / "out.bin"));
  std::atomic<int> calls = 0;
  prepare_corpus(folder_ / "out", options(), byte_encoder(&calls));
  EXPECT_GT(calls, 0);
  EXPECT_LT(calls, 120);
  expect_same_as_undisturbed("out");
}

TEST_F(Prepare, stops_cleanly_on_sigterm_and_goes_on) {
  const int status = in_child([&] {
    install_stop_handler();
    auto stopped = options();
    stopped.report = [](uint64_t done, uint64_t) {
      if (done > 0) ::raise(SIGTERM);
    };
    prepare_corpus(folder_ / "out", stopped, byte_encoder());
  });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), static_cast<int>(ExitCode::kStopped));
  EXPECT_TRUE(fs::exists(folder_ / "out.parts"));
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  expect_same_as_undisturbed("out");
}

TEST_F(Prepare, parts_of_other_text_are_thrown_away) {
  in_child([&] {
    auto doomed = options();
    doomed.report = [](uint64_t done, uint64_t) {
      if (done > 0) ::raise(SIGKILL);
    };
    prepare_corpus(folder_ / "out", doomed, byte_encoder());
  });
  std::string changed = lines(200);
  changed[changed.find("aaa")] = 'z';
  write("in.jsonl", changed);
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  expect_same_as_undisturbed("out");
}

TEST_F(Prepare, a_half_written_file_of_a_killed_run_is_removed) {
  write(".out.bin.tmp-123", "half");
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  EXPECT_FALSE(fs::exists(folder_ / ".out.bin.tmp-123"));
  EXPECT_FALSE(fs::exists(folder_ / "out.lock"));
}

TEST_F(Prepare, processes_at_the_same_time_do_the_work_once) {
  for (int i = 0; i < 3; ++i) {
    if (::fork() == 0) {
      int code = 0;
      try {
        prepare_corpus(folder_ / "out", options(), byte_encoder());
      } catch (...) {
        code = 1;
      }
      ::_exit(code);
    }
  }
  for (int i = 0; i < 3; ++i) {
    int status = 0;
    ::wait(&status);
    EXPECT_EQ(status, 0);
  }
  expect_same_as_undisturbed("out");
}

TEST_F(Prepare, the_same_work_is_not_done_twice_and_other_work_does_not_replace_it) {
  std::atomic<int> calls = 0;
  prepare_corpus(folder_ / "out", options(), byte_encoder(&calls));
  const int first = calls;
  prepare_corpus(folder_ / "out", options(), byte_encoder(&calls));
  EXPECT_EQ(calls, first);
  write("in.jsonl", lines(3));
  EXPECT_THROW(prepare_corpus(folder_ / "out", options(), byte_encoder()), DataError);
  auto anew = options();
  anew.overwrite = true;
  EXPECT_EQ(prepare_corpus(folder_ / "out", anew, byte_encoder()).documents, 2u);
}

TEST_F(Prepare, damaged_results_are_made_again) {
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  const std::string good = bytes("out.bin");
  std::string bad = good;
  bad[100] ^= 1;
  write("out.bin", bad);
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  EXPECT_EQ(bytes("out.bin"), good);
}

TEST_F(Prepare, inputs_keep_their_order) {
  write("a.txt", "first");
  write("b.txt", "second");
  auto both = options();
  both.inputs = {folder_ / "b.txt", folder_ / "a.txt"};
  both.threads = 4;
  prepare_corpus(folder_ / "out", both, byte_encoder());
  const auto corpus = formats::IndexedDataset::open(folder_ / "out");
  EXPECT_EQ(document(corpus, 0).size(), 7u);
  EXPECT_EQ(document(corpus, 1).size(), 6u);
}

TEST_F(Prepare, unusable_input_is_an_error) {
  write("empty.txt", "");
  EXPECT_THROW(prepare_corpus(folder_ / "out", options("empty.txt"), byte_encoder()), DataError);
  EXPECT_THROW(prepare_corpus(folder_ / "out", options("absent.txt"), byte_encoder()), DataError);
  write("bad.jsonl", "{\"text\": 1}\n");
  EXPECT_THROW(prepare_corpus(folder_ / "out", options("bad.jsonl"), byte_encoder()), DataError);
  EXPECT_FALSE(fs::exists(folder_ / "out.bin"));
}

TEST_F(Prepare, a_manifest_tells_changed_files_and_other_tokenizers) {
  const auto manifest = prepare_corpus(folder_ / "out", options(), byte_encoder());
  EXPECT_NO_THROW(check_prepared(folder_ / "out", manifest, "bytes"));
  EXPECT_THROW(check_prepared(folder_ / "out", manifest, "others"), DataError);
  std::string changed = bytes("out.bin");
  changed.back() ^= 1;
  write("out.bin", changed);
  EXPECT_THROW(check_prepared(folder_ / "out", manifest, "bytes"), DataError);
}

TEST_F(Prepare, damaged_manifests_are_refused) {
  prepare_corpus(folder_ / "out", options(), byte_encoder());
  const std::string good = bytes("out.json");
  write("bad.json", good.substr(0, good.size() / 2));
  EXPECT_THROW(CorpusManifest::read(folder_ / "bad.json"), DataError);
  write("bad.json", "{\"format\": 1}");
  EXPECT_THROW(CorpusManifest::read(folder_ / "bad.json"), DataError);
  write("bad.json", "{\"format\": 2}");
  EXPECT_THROW(CorpusManifest::read(folder_ / "bad.json"), DataError);
}

}  // namespace
}  // namespace qianli::data
