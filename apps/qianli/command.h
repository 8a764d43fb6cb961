// The commands of the program, one file each. add_X declares a command's options on the application
// and sets its callback, so --help costs nothing but the command line. Callbacks throw
// qianli::Error.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace qianli::app {

// Codes with which the program ends beside those of errors (qianli::ExitCode).
inline constexpr int kDifferent = 1;  // `compare`: the two differ, as diff and cmp say it
inline constexpr int kDefect = 70;    // of the program itself

// Ends the program with a code that is no failure of its own: `launch` ends as its ranks did,
// `compare` says that two things differ.
struct EndWith {
  int code;
};

// Takes the words behind "--" of `qianli launch` off the command line: they are another program's,
// and no word of them is to be understood here.
std::vector<std::string> take_job(int& argc, char** argv);

// Every command, in the order --help shows them. `job`: what take_job gave.
void add_commands(CLI::App& app, const std::vector<std::string>& job);

void add_pretrain(CLI::App& app);
void add_sft(CLI::App& app);
void add_launch(CLI::App& app, const std::vector<std::string>& job);
void add_backends(CLI::App& app);
void add_doctor(CLI::App& app);
void add_generate(CLI::App& app);
void add_score(CLI::App& app);
void add_convert(CLI::App& app);
void add_compare(CLI::App& app);
void add_config(CLI::App& app);
void add_presets(CLI::App& app);
void add_tokenizer(CLI::App& app);
void add_tokenizer_train(CLI::App& tokenizer);  // under tokenizer
void add_tokenizer_inspect(CLI::App& tokenizer);
void add_tokenizer_chat(CLI::App& tokenizer);
void add_data(CLI::App& app);
void add_data_prepare(CLI::App& data);  // under data
void add_data_inspect(CLI::App& data);
void add_plan(CLI::App& app);
void add_plan_schedule(CLI::App& plan);  // under plan

}  // namespace qianli::app
