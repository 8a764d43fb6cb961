#include "qianli/train/report.h"

#include <fmt/core.h>

#include <string>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/base/strings.h"
#include "qianli/train/report_page.h"

namespace qianli::train {
namespace {

// A "</script>" inside the data must not end the script.
std::string for_script(const Json& data) {
  std::string text;
  for (const char c : data.dump()) {
    if (c == '<') {
      text += "\\u003c";
    } else {
      text += c;
    }
  }
  return text;
}

std::string escaped(const std::string& text) {
  std::string html;
  for (const char c : text) {
    switch (c) {
      case '<':
        html += "&lt;";
        break;
      case '>':
        html += "&gt;";
        break;
      case '&':
        html += "&amp;";
        break;
      default:
        html += c;
    }
  }
  return html;
}

struct Curves {
  Json steps = Json::array();  // [step, loss, lr, grad norm, tokens/s, mfu, memory bytes, seconds,
                               // tokens seen]
  Json validation = Json::array();  // [step, loss]
};

Curves read_curves(const std::filesystem::path& path) {
  Curves curves;
  if (!fs::exists(path)) return curves;
  for (const auto& line : split(read_file(path, FileRole::kData), '\n')) {
    const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!record.is_object() || !record.contains("step")) continue;
    if (record.contains("validation_loss"))
      curves.validation.push_back({record["step"], record["validation_loss"]});
    Json row = Json::array();
    for (const char* key : {"step", "loss", "lr", "grad_norm", "tokens_per_second", "mfu",
                            "memory_bytes", "step_seconds", "tokens_seen"}) {
      row.push_back(record.value(key, Json()));
    }
    curves.steps.push_back(row);
  }
  return curves;
}

std::string summary(const Curves& curves) {
  if (curves.steps.empty()) return "<p>No steps yet.</p>";
  double seconds = 0;
  for (const auto& row : curves.steps) seconds += row[7].is_number() ? row[7].get<double>() : 0;
  const Json& first = curves.steps.front();
  const Json& last = curves.steps.back();
  const auto number = [](const Json& value) {
    return value.is_number() ? value.get<double>() : 0.0;
  };
  const auto tile = [](const std::string& value, const char* label) {
    return fmt::format("<div class=tile><b>{}</b><span>{}</span></div>", value, label);
  };
  std::string html = "<div class=tiles>";
  html += tile(fmt::format("{:.0f}", number(last[0])), "steps");
  html += tile(fmt::format("{:.3f} → {:.3f}", number(first[1]), number(last[1])), "training loss");
  if (!curves.validation.empty()) {
    html += tile(fmt::format("{:.3f}", number(curves.validation.back()[1])), "validation loss");
  }
  html += tile(human_count(number(last[8])), "tokens seen");
  html += tile(human_seconds(seconds), "in steps");
  // The first step also warms up; a rate needs tokens and seconds of the same steps.
  const double later_seconds = seconds - number(first[7]);
  const double later_tokens = number(last[8]) - number(first[8]);
  html += tile(later_seconds > 0 ? human_count(later_tokens / later_seconds) : "-",
               "tokens per second");
  html += tile(human_bytes(static_cast<uint64_t>(number(last[6]))), "peak tensor memory");
  return html + "</div>";
}

}  // namespace

void write_report(const std::filesystem::path& run_folder) {
  const Curves curves = read_curves(run_folder / "metrics.jsonl");
  const std::string name = run_folder.lexically_normal().filename().string();
  const auto config = run_folder / "config.yaml";
  std::string page;
  page += fmt::format("<!doctype html><html lang=en><meta charset=utf-8><title>{}</title>",
                      escaped(name));
  page += kReportStyle;
  page += fmt::format("<h1>{}</h1>", escaped(name));
  page += summary(curves);
  page += "<div id=charts></div>";
  if (fs::exists(config)) {
    page += fmt::format("<details><summary>Configuration</summary><pre>{}</pre></details>",
                        escaped(read_file(config, FileRole::kConfig)));
  }
  page += fmt::format("<script>const steps={},validation={};</script>", for_script(curves.steps),
                      for_script(curves.validation));
  page += kReportScript;
  page += "</html>\n";
  write_file_atomically(run_folder / "report.html", page, FileRole::kData);
}

}  // namespace qianli::train
