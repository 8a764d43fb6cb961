#include "qianli/train/report.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "qianli/base/file.h"
#include "qianli/base/json.h"
#include "qianli/base/progress.h"
#include "qianli/runs/metrics_reader.h"
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

// More points than a screen has columns make the page slow, not finer.
constexpr size_t kMostPoints = 8192;

struct Curves {
  Json steps = Json::array();  // [step, loss, lr, grad norm, tokens/s, mfu, memory bytes, seconds,
                               // tokens seen]
  Json validation = Json::array();  // [step, loss]
  Json first, last;                 // of all steps
  double seconds = 0;
};

Json row_of(const runs::MetricsRecord& record) {
  const auto value = [&](const char* key) -> Json {
    const auto place = std::ranges::find(record.values, key, [](const auto& v) { return v.first; });
    if (place == record.values.end() || std::isnan(place->second)) return nullptr;
    return place->second;
  };
  Json row = Json::array({record.step});
  for (const char* key : {"loss", "lr", "grad_norm", "tokens_per_second", "mfu", "memory_bytes",
                          "step_seconds", "tokens_seen", "validation_loss"}) {
    row.push_back(value(key));
  }
  return row;
}

// Of long runs every so many steps, and the last.
Curves read_curves(const std::filesystem::path& path) {
  Curves curves;
  auto reader = runs::MetricsReader::open(path);
  int64_t every = 1, place = 0;
  while (const auto record = reader.next()) {
    Json row = row_of(*record);
    if (row[9].is_number()) curves.validation.push_back({record->step, row[9]});
    row.erase(9);
    if (row[7].is_number()) curves.seconds += row[7].get<double>();
    if (place == 0) curves.first = row;
    if (place++ % every == 0) curves.steps.push_back(row);
    curves.last = std::move(row);
    if (curves.steps.size() < kMostPoints) continue;
    Json fewer = Json::array();
    for (size_t i = 0; i < curves.steps.size(); i += 2) fewer.push_back(curves.steps[i]);
    curves.steps = std::move(fewer);
    every *= 2;
  }
  if (!curves.steps.empty() && curves.steps.back() != curves.last)
    curves.steps.push_back(curves.last);
  return curves;
}

std::string summary(const Curves& curves) {
  if (curves.steps.empty()) return "<p>No steps yet.</p>";
  const double seconds = curves.seconds;
  const Json &first = curves.first, &last = curves.last;
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
  const Curves curves = read_curves(run_folder / runs::kMetricsName);
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
