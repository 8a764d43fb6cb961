#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "apps/qianli/engine/chat_display.h"
#include "apps/qianli/engine/chat_input.h"
#include "apps/qianli/engine/commands.h"
#include "apps/qianli/engine/generate_output.h"
#include "apps/qianli/engine/sampling.h"
#include "qianli/base/error.h"
#include "qianli/base/log.h"
#include "qianli/base/stop.h"
#include "qianli/base/strings.h"
#include "qianli/infer/chat_prompt.h"
#include "qianli/infer/engine.h"
#include "qianli/infer/text_stream.h"

namespace qianli::app {
namespace {

constexpr uint64_t kMaxHistoryBytes = uint64_t{1} << 28;
constexpr const char* kHelp =
    "  q, quit, exit     leave\n"
    "  clear, new        begin again\n"
    "  /system TEXT      what the model is told before all else; without TEXT: nothing\n"
    "  /regenerate       another answer to the last question\n"
    "  /save FILE        the conversation as JSON, a list of messages\n"
    "  /load FILE        go on with a saved one\n"
    "  /help             this\n"
    "  Ctrl-C            ends an answer; \\ at the end of a line continues it\n";

class Chat {
 public:
  explicit Chat(const ChatArguments& arguments)
      : arguments_(arguments),
        model_(open_with_tokenizer(arguments.model)),
        prompt_(*model_, arguments.template_name),
        sampling_(sampling_options(arguments.sampling, model_->default_sampling())),
        engine_(*model_, {.max_sequences = 1, .speculate = arguments.model.speculate}),
        terminal_(::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1) {
    set_system(arguments.system);
    if (!arguments.load.empty()) load(arguments.load);
  }

  void run() {
    const InterruptScope interrupts;
    if (terminal_) output_.write("A message, or /help. Ctrl-D leaves.\n");
    std::string line;
    for (bool goes_on = true; goes_on;) {
      if (terminal_) output_.write("\n\x1b[1m>\x1b[0m ");
      switch (reader_.read(line)) {
        case LineReader::Outcome::kEnd:
          if (terminal_) output_.write("\n");
          return;
        case LineReader::Outcome::kInterrupted:
          output_.write("\nCtrl-D or q leaves.\n");
          break;
        case LineReader::Outcome::kLine:
          goes_on = hear(std::string(trim(line)));
      }
    }
  }

 private:
  // False leaves.
  bool hear(const std::string& line) {
    if (line.empty()) return true;
    if (line == "q" || line == "quit" || line == "exit") return false;
    try {
      if (line == "clear" || line == "new") {
        begin_again();
      } else if (line.starts_with("/")) {
        command(line);
      } else {
        messages_.push_back({{"role", "user"}, {"content", line}});
        answer();
      }
    } catch (const Error& error) {
      if (!terminal_) throw;  // whoever pipes lines in looks at the exit code
      log::say(error.what());
    }
    return reader_is_there_ && stop_signal() == 0;
  }

  void command(const std::string& line) {
    const size_t space = line.find(' ');
    const std::string name = line.substr(0, space);
    const std::string rest =
        space == std::string::npos ? "" : std::string(trim(std::string_view(line).substr(space)));
    const auto with_file = [&] {
      if (rest.empty()) throw ConfigError("chat", fmt::format("expected {} FILE", name));
    };
    if (name == "/help") {
      output_.write(kHelp);
    } else if (name == "/system") {
      set_system(rest);
    } else if (name == "/save") {
      with_file();
      write_file_atomically(
          rest, messages_.dump(2, ' ', false, OrderedJson::error_handler_t::replace) + "\n",
          FileRole::kData);
    } else if (name == "/load") {
      with_file();
      load(rest);
    } else if (name == "/regenerate") {
      regenerate();
    } else {
      throw ConfigError("chat", fmt::format("unknown command {}", name), "/help shows them");
    }
  }

  void begin_again() {
    messages_ = OrderedJson::array();
    set_system(system_);
    if (terminal_) output_.write("\x1b[2J\x1b[H");
  }

  void set_system(const std::string& text) {
    system_ = text;
    if (!messages_.empty() && messages_[0].value("role", "") == "system") messages_.erase(0);
    if (text.empty()) return;
    const OrderedJson system{{"role", "system"}, {"content", text}};
    messages_.insert(messages_.begin(), system);
  }

  void load(const std::string& file) {
    const OrderedJson json = parse_ordered_json(read_file(file, FileRole::kData, kMaxHistoryBytes),
                                                file, FileRole::kData);
    const OrderedJson& list =
        json.is_object() && json.contains("messages") ? json["messages"] : json;
    text::chat::read_conversation(list, file);  // refuses what is no conversation
    messages_ = list;
    const bool has_system = !list.empty() && list[0].value("role", "") == "system";
    system_ =
        has_system && list[0]["content"].is_string() ? list[0]["content"].get<std::string>() : "";
  }

  void regenerate() {
    if (!messages_.empty() && messages_.back().value("role", "") == "assistant")
      messages_.erase(messages_.size() - 1);
    if (messages_.empty() || messages_.back().value("role", "") != "user")
      throw ConfigError("chat", "expected a question before /regenerate");
    ++sampling_.seed;
    answer();
  }

  size_t first_turn() const { return system_.empty() ? 0 : 1; }

  // What the model is shown: the last turns, as many as asked for and as there is room for.
  std::vector<int64_t> prompt_ids() const {
    OrderedJson shown = messages_;
    const auto drop_oldest = [&] {
      shown.erase(first_turn());
      while (shown.size() > first_turn() + 1 && shown[first_turn()].value("role", "") != "user")
        shown.erase(first_turn());
    };
    const auto questions = [&] {
      return std::count_if(shown.begin(), shown.end(),
                           [](const OrderedJson& m) { return m.value("role", "") == "user"; });
    };
    while (arguments_.history_turns > 0 && questions() > arguments_.history_turns + 1)
      drop_oldest();
    const int64_t limit = model_->context_limit(), room = std::min<int64_t>(256, limit / 4);
    while (true) {
      auto ids = prompt_.ids(shown, {}, arguments_.variables);
      if (static_cast<int64_t>(ids.size()) + room <= limit || questions() <= 1) return ids;
      drop_oldest();
    }
  }

  void show(const ThoughtFilter::Part& part) {
    if (part.thought && !arguments_.show_thinking) {
      if (terminal_ && !said_thinking_) output_.write("\x1b[2m(thinking)\x1b[0m\n");
      said_thinking_ = true;
      return;
    }
    const bool dim = part.thought && terminal_;
    reader_is_there_ =
        reader_is_there_ && output_.write(dim ? "\x1b[2m" + part.text + "\x1b[0m" : part.text);
  }

  // To the last message, which joins the conversation with its answer.
  void answer() {
    infer::Generation generation;
    std::string text;
    try {
      const std::vector<int64_t> ids = prompt_ids();
      text = generate(ids, generation);
    } catch (const Error&) {
      messages_.erase(messages_.size() - 1);
      throw;
    }
    messages_.push_back({{"role", "assistant"}, {"content", text}});
    log::say(fmt::format("{} tokens at {:.1f} tokens/s ({})", generation.tokens.size(),
                         generation.decode_tokens_per_second(),
                         infer::to_string(generation.reason)));
  }

  std::string generate(const std::vector<int64_t>& ids, infer::Generation& generation) {
    infer::TextStream stream(model_->tokenizer(), {});
    ThoughtFilter filter(opens_thought(ids), [this](const auto& part) { show(part); });
    said_thinking_ = false;
    std::string text;
    bool done = false;
    const auto take = [&](const std::string& piece) {
      text += piece;
      filter.push(piece);
    };
    const int64_t most =
        arguments_.max_new_tokens > 0 ? arguments_.max_new_tokens : model_->context_limit();
    const auto id = engine_.submit(
        {.prompt = ids,
         .sampling = sampling_,
         .max_new_tokens = most,
         .stop_ids = prompt_.stop_ids(),
         .adapter = only_adapter(arguments_.model)},
        [&](const infer::NewToken& token) {
          take(stream.push(token.id));
          return reader_is_there_;
        },
        [&](const infer::Generation& result) {
          generation = result;
          done = true;
        });
    while (!done) {
      if (InterruptScope::take() || stop_signal() != 0) engine_.cancel(id);
      engine_.step();
    }
    if (generation.error) std::rethrow_exception(generation.error);
    take(stream.finish());
    filter.finish();
    output_.write("\n");
    return text;
  }

  // Some templates begin the answer with <think> themselves.
  bool opens_thought(const std::vector<int64_t>& ids) const {
    const size_t tail = std::min<size_t>(ids.size(), 8);
    const std::vector<int32_t> last(ids.end() - static_cast<ptrdiff_t>(tail), ids.end());
    return trim(model_->tokenizer()->decode(last, /*skip_special_tokens=*/false))
        .ends_with("<think>");
  }

  const ChatArguments& arguments_;
  std::unique_ptr<infer::Model> model_;
  infer::ChatPrompt prompt_;
  infer::SamplingOptions sampling_;
  infer::Engine engine_;
  OrderedJson messages_ = OrderedJson::array();
  std::string system_;
  LineReader reader_;
  Output output_;
  bool terminal_, said_thinking_ = false, reader_is_there_ = true;
};

}  // namespace

void run_chat(const ChatArguments& arguments) {
  Chat(arguments).run();
  if (const int signal = stop_signal())
    throw Error(static_cast<ExitCode>(128 + signal), "chat", "stopped by a signal", "");
}

}  // namespace qianli::app
