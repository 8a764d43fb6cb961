#include "qianli/formats/pickle.h"

#include <gtest/gtest.h>

#include "tests/formats/pickles.h"

namespace qianli::formats {
namespace {

using pickles::global;
using pickles::integer;
using pickles::text;
constexpr auto kCode = ExitCode::kCheckpoint;

Value parse(const std::string& bytes, PickleLimits limits = {}) {
  return parse_pickle(as_bytes(bytes), "x.pkl", FileRole::kCheckpoint, limits).value;
}
Value parse_body(const std::string& body) { return parse(pickles::of(body)); }

void expect_refused(const std::string& bytes, std::string_view reason) {
  expect_error(kCode, reason, [&] { parse(bytes); });
}

TEST(pickle, plain_values_of_all_protocols) {
  using namespace std::string_literals;
  EXPECT_TRUE(parse_body("N").is_none());
  EXPECT_EQ(parse_body("\x88").as_bool(), true);
  EXPECT_EQ(parse_body("I01\n").as_bool(), true);
  EXPECT_EQ(parse_body("I-12\n").as_int(), -12);
  EXPECT_EQ(parse_body("L123L\n").as_int(), 123);
  EXPECT_EQ(parse_body("K\xff").as_int(), 255);
  EXPECT_EQ(parse_body("M\x01\x02").as_int(), 0x0201);
  EXPECT_EQ(parse_body(integer(-5)).as_int(), -5);
  EXPECT_EQ(parse_body("\x8a\0"s).as_int(), 0);
  EXPECT_EQ(parse_body("\x8a\x01\xff").as_int(), -1);
  EXPECT_EQ(parse_body("\x8a\x08\0\0\0\0\0\0\0\x80"s).as_int(), INT64_MIN);
  EXPECT_EQ(parse_body("\x8a\x09\0\0\0\0\0\0\0\0\x01"s).shown(), "18446744073709551616");
  EXPECT_EQ(parse_body("\x8a\x09\0\0\0\0\0\0\0\0\xff"s).shown(), "-18446744073709551616");
  EXPECT_EQ(parse_body("\x8b\x01\0\0\0\x07"s).as_int(), 7);
  EXPECT_EQ(parse_body("F2.5\n").as_float(), 2.5);
  EXPECT_EQ(parse_body("G\x40\x04\0\0\0\0\0\0"s).as_float(), 2.5);
  EXPECT_EQ(*parse_body("S'abc'\n").as_text(), "abc");
  EXPECT_EQ(*parse_body("Vabc\n").as_text(), "abc");
  EXPECT_EQ(*parse_body("U\x03xyz").as_text(), "xyz");
  EXPECT_EQ(*parse_body("\x8c\x03xyz").as_text(), "xyz");
  EXPECT_EQ(*parse_body("\x8d\x03\0\0\0\0\0\0\0xyz"s).as_text(), "xyz");
  EXPECT_EQ(*parse_body("C\x02\0\xff"s).as_bytes(), "\0\xff"s);
  EXPECT_EQ(*parse_body("\x96\x01\0\0\0\0\0\0\0z"s).as_bytes(), "z");
  EXPECT_EQ(parse("\x80\x04\x95\x02\0\0\0\0\0\0\0K\x07."s).as_int(), 7);
}

TEST(pickle, containers_and_their_memo) {
  using namespace std::string_literals;
  EXPECT_EQ(parse_body("(K\1K\2l").shown(), "[1, 2]");
  EXPECT_EQ(parse_body("](K\1K\2e").shown(), "[1, 2]");
  EXPECT_EQ(parse_body("]K\1a").shown(), "[1]");
  EXPECT_EQ(parse_body("K\1K\2\x86").shown(), "(1, 2)");
  EXPECT_EQ(parse_body("(K\1K\2K\3K\4t").shown(), "(1, 2, 3, 4)");
  EXPECT_EQ(parse_body("}" + text("a") + "K\1s").shown(), "{'a': 1}");
  EXPECT_EQ(parse_body("}(" + text("a") + "K\1" + text("b") + "Nu").find("b")->kind(),
            Value::Kind::kNone);
  EXPECT_EQ(parse_body("(K\1K\2d").entries()->size(), 1u);
  EXPECT_EQ(parse_body("\x8f(K\1K\2\x90").shown(), "{1, 2}");
  EXPECT_EQ(parse_body("(K\1\x91").shown(), "{1}");
  // The same list twice, changed after it was remembered.
  EXPECT_EQ(parse_body("]q\0(K\1eh\0\x86"s).shown(), "([1], [1])");
  EXPECT_EQ(parse_body("]\x94j\0\0\0\0\x86"
                       "0N"s)
                .kind(),
            Value::Kind::kNone);
  EXPECT_EQ(parse_body("]p5\ng5\n\x86").shown(), "([], [])");
  EXPECT_EQ(parse_body("(K\1"
                       "0"
                       "0K\2")
                .as_int(),
            2);  // POP takes a mark as well
  EXPECT_EQ(parse_body("K\1(K\2K\3"
                       "1")
                .as_int(),
            1);
  EXPECT_EQ(parse_body("K\1"
                       "2\x86")
                .shown(),
            "(1, 1)");
}

TEST(pickle, calls_of_the_table_become_plain_values) {
  EXPECT_EQ(parse_body(global("collections", "OrderedDict") + ")R" + text("a") + "K\1s").shown(),
            "{'a': 1}");
  EXPECT_EQ(parse_body(global("collections", "OrderedDict") + "](K\1K\2\x86"
                                                              "e\x85R")
                .shown(),
            "{1: 2}");
  EXPECT_EQ(parse_body(global("torch", "Size") + "K\2K\3\x86\x85R").as_integers(),
            (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(*parse_body(global("_codecs", "encode") + text("a\xc3\xbf") + text("latin1") + "\x86R")
                 .as_bytes(),
            "a\xff");
  EXPECT_EQ(dtype_of(parse_body(global("torch", "bfloat16"))), Dtype::kBF16);
  EXPECT_EQ(dtype_of(parse_body(global("mindspore", "Float32"))), Dtype::kF32);
  EXPECT_FALSE(dtype_of(parse_body(global("torch", "strided"))));
}

TEST(pickle, unknown_classes_stay_inert_objects_with_their_attributes) {
  const Value value = parse_body(global("argparse", "Namespace") + ")\x81}" + text("lr") + "K\7sb");
  ASSERT_TRUE(value.as_object());
  EXPECT_EQ(value.as_object()->callable.text(), "argparse.Namespace");
  EXPECT_EQ(value.find("lr")->as_int(), 7);
  EXPECT_EQ(value.find("x"), nullptr);
  const Value counter = parse_body(global("a", "Counter") + ")R(" + text("k") + "K\1u(K\2e");
  EXPECT_EQ(counter.find("k")->as_int(), 1);
  EXPECT_EQ(counter.as_object()->elements.size(), 1u);
}

// Nothing is executed: what an attack calls is shown as the text that it is.
TEST(pickle, attacks_by_calling_are_only_shown) {
  const std::string command = text("touch /tmp/qianli_pickle_attack") + "\x85R";
  for (const auto& [module, name] :
       std::initializer_list<std::pair<const char*, const char*>>{{"os", "system"},
                                                                  {"posix", "system"},
                                                                  {"builtins", "eval"},
                                                                  {"builtins", "exec"},
                                                                  {"__builtin__", "eval"},
                                                                  {"subprocess", "Popen"},
                                                                  {"torch.hub", "load"},
                                                                  {"torch", "load"},
                                                                  {"runpy", "run_path"}}) {
    const Value value = parse_body(global(module, name) + command);
    ASSERT_TRUE(value.as_object()) << module << "." << name;
    EXPECT_EQ(value.shown().substr(0, 6), (std::string(module) + "." + name).substr(0, 6));
  }
  EXPECT_FALSE(fs::exists("/tmp/qianli_pickle_attack"));
  // getattr(os, 'system')('...'): an object called by an object.
  const Value chain = parse_body(global("builtins", "getattr") + global("os", "system") +
                                 text("x") + "\x86R" + command);
  ASSERT_TRUE(chain.as_object());
  // A tensor's rebuild that smuggles another call.
  const Value smuggled = parse_body(global("torch._tensor", "_rebuild_from_type_v2") + "(" +
                                    global("os", "system") + "N" + text("x") + "\x85NtR");
  EXPECT_FALSE(smuggled.as_tensor());
}

TEST(pickle, opcodes_that_no_data_needs_are_refused) {
  using namespace std::string_literals;
  for (const char opcode : {'\x82', '\x83', '\x84', 'i', 'o', 'P', '\x97', '\x98', '\0', '\xff'}) {
    expect_refused(pickles::of(std::string(1, opcode) + "aaaa\naaaa\n"), "is not allowed in data");
  }
  expect_refused("\x80\x06N.", "protocol 5 at most");
}

TEST(pickle, malformed_programs_are_refused_with_the_place) {
  using namespace std::string_literals;
  const std::pair<std::string, std::string_view> attacks[] = {
      {"", "byte 0: truncated"},
      {"\x80", "truncated"},
      {"\x80\x02", "byte 2: truncated"},
      {".", "more or less than one value"},
      {"NN.", "more or less than one value"},
      {"(N.", "more or less than one value"},
      {"0.", "nothing on the stack"},
      {"(K\1"
       "00"
       "0.",
       "nothing on the stack"},
      {"t.", "no mark"},
      {"]N(a.", "nothing on the stack"},
      {"h\0."s, "memo 0 is asked for"},
      {"X\xff\xff\xff\xffz.", "truncated"},
      {"\x8d\xff\xff\xff\xff\xff\xff\xff\xffz.", "truncated"},
      {"\x8b\xff\xff\xff\xff.", "truncated"},
      {"cos\nsystem", "truncated in a line"},
      {"I1x\n.", "expected a whole number"},
      {"I99999999999999999999\n.", "expected a whole number"},
      {"Fabc\n.", "expected a number"},
      {"Sabc\n.", "in quotes"},
      {"g-1\n.", "memo index"},
      {"K\1K\2a.", "expected a container"},
      {")K\2a.", "no list"},
      {"](K\1u.", "a key without a value"},
      {"](K\1K\2u.", "no dictionary"},
      {"}K\1K\2s"
       "K\1N}K\1R.",
       "arguments are no tuple"},
      {"K\1K\2\x93.", "no text"},
      {"]Nb.", "no object"},
      {"(K\1K\2tQ.", "expected a storage"},
      {"](((" + std::string(500, ')') + "l.", "more or less"},
      {"}(" + text("a") + "K\1" + text("a") + "K\2u.", "the key 'a' twice"},
  };
  for (const auto& [bytes, reason] : attacks) expect_refused(bytes, reason);
}

TEST(pickle, cycles_depth_and_bombs_are_refused) {
  using namespace std::string_literals;
  expect_refused("]q\0h\0a."s, "contains itself");
  expect_refused("}q\0K\1h\0s."s, "contains itself");
  expect_refused(global("a", "B") + ")Rq\0h\0b."s, "contains itself");
  expect_refused(std::string(300, ']') + std::string(299, 'a') + ".", "containers in each other");
  // Two hundred thousand nested tuples, kept and thrown away.
  expect_refused(")" + std::string(200000, '\x85') + ".", "containers in each other");
  EXPECT_EQ(parse(")" + std::string(200000, '\x85') + "0K\1.").as_int(), 1);
  EXPECT_EQ(parse(std::string(150, ']') + std::string(149, 'a') + ".").items()->size(), 1u);
  // Each list holds the one before twice: 2^60 values when written out.
  std::string laughs = "](K\1K\1e";
  for (int i = 0; i < 60; ++i)
    laughs +=
        "q\0"
        "0](h\0h\0e"s;
  expect_refused(laughs + ".", "too many values");
  expect_error(kCode, "too many values",
               [] { parse("(" + std::string(1000, 'N') + "t.", {.max_values = 100}); });
  // One byte that copies a long text, many times.
  std::string copies = global("_codecs", "encode") + "q\0"s + text(std::string(30000, 'a')) +
                       text("latin1") + "\x86q\1";
  for (int i = 0; i < 30000; ++i) copies += "0h\0h\1R"s;
  expect_refused(copies + ".", "its calls copy too much");
}

TEST(pickle, tensors_must_be_within_their_storage) {
  using pickles::tensor;
  const auto ok = [](const std::string& body) { return parse_body(body); };
  const Value good = ok(tensor("0", 6, 0, "K\2K\3\x86", "K\3K\1\x86"));
  ASSERT_TRUE(good.as_tensor());
  EXPECT_EQ(good.as_tensor()->shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(good.as_tensor()->storage.key, "0");
  EXPECT_TRUE(ok(tensor("0", 0, 0, integer(0) + "K\3\x86", "K\3K\1\x86")).as_tensor());
  EXPECT_TRUE(ok(tensor("0", 1, 0, ")", ")")).as_tensor());
  const std::string sizes = "K\2K\3\x86";
  const auto refused = [](const std::string& body, std::string_view reason) {
    expect_refused(pickles::of(body), reason);
  };
  refused(tensor("0", 6, 1, sizes, "K\3K\1\x86"), "leaves its storage");
  refused(tensor("0", 5, 0, sizes, "K\3K\1\x86"), "leaves its storage");
  refused(tensor("0", 6, -1, sizes, "K\3K\1\x86"), "before its storage");
  refused(tensor("0", 6, 0, sizes, "K\3" + integer(-1) + "\x86"), "negative stride");
  refused(tensor("0", 6, 0, sizes, "K\3\x85"), "differ in number");
  refused(tensor("0", -6, 0, sizes, "K\3K\1\x86"), "impossible size");
  const std::string large = "\x8a\x08" + bytes_of(INT64_MAX);
  refused(tensor("0", 6, 0, large + large + "\x86", large + large + "\x86"), "overflows");
  refused(tensor("0", 6, 0, "K\2K\2\x86", large + large + "\x86"), "leaves its storage");
  const std::string huge = "\x8a\x05" + std::string("\0\0\0\0\1", 5);
  refused(tensor("0", 6, 0, huge + "\x85", integer(0) + "\x85"), "repeats its storage");
  refused(tensor("0", 6, 0, "(" + std::string(100, '\x88') + "t", ")"), "too many dimensions");
}

}  // namespace
}  // namespace qianli::formats
