// The chart of `mnemo profile`: SVG 1.1, text and rectangles only.
#include <algorithm>
#include <cmath>

#include "client/bench/profile.h"

namespace mnemo::bench {
namespace {

// Lengths are in user units (pixels at scale 1).
constexpr double kBarLeft = 350, kBarsWidth = 560, kNoteWidth = 170;
constexpr double kTop = 78, kRowHeight = 26, kBarHeight = 18, kAxisHeight = 46;
constexpr double kWidth = kBarLeft + kBarsWidth + kNoteWidth;

// Colours distinct in the common forms of colour blindness (Okabe and Ito 2008); the last one is for the time
// outside the steps.
constexpr std::array<const char*, kMemorySteps + 1> kColours = {"#e69f00", "#56b4e9", "#009e73", "#cc79a7",
                                                                "#c8c8c8"};

std::string Escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&apos;";
        break;
      default:
        // XML has no way to write the other control characters.
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string Text(double x, double y, const char* anchor, std::string_view text) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", x, y, anchor,
                     Escape(text));
}

std::string Rectangle(double x, double y, double width, double height, const char* colour,
                      std::string_view title) {
  return fmt::format(
      "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" "
      "fill=\"{}\"><title>{}</title></rect>\n",
      x, y, width, height, colour, Escape(title));
}

// The smallest of 1, 2, 5 x 10^n that divides `most` into at most six.
double TickStep(double most) {
  const double power = std::pow(10.0, std::floor(std::log10(most / 6)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (most / (factor * power) <= 6) return factor * power;
  }
  return 10 * power;
}

std::string Legend() {
  std::string svg = "<g class=\"legend\">\n";
  double x = kBarLeft;
  for (size_t i = 0; i < kColours.size(); ++i) {
    const char* const name = i < kMemorySteps ? kMemoryStepNames[i] : "rest of decoding";
    svg += Rectangle(x, 48, 12, 12, kColours[i], name);
    svg += Text(x + 17, 58, "start", name);
    x += 90;
  }
  return svg + "</g>\n";
}

std::string Axis(double most_ms, double bottom) {
  std::string svg = "<g class=\"axis\">\n";
  const double step = TickStep(most_ms);
  for (int i = 0; i * step <= most_ms * (1 + 1e-9); ++i) {
    const double x = kBarLeft + i * step / most_ms * kBarsWidth;
    svg += fmt::format(
        "<line x1=\"{0:.1f}\" y1=\"{1:.1f}\" x2=\"{0:.1f}\" y2=\"{2:.1f}\" stroke=\"#dddddd\"/>\n", x,
        kTop - 4, bottom);
    svg += Text(x, bottom + 15, "middle", fmt::format("{:.6g}", i * step));
  }
  svg += Text(kBarLeft + kBarsWidth / 2, bottom + 34, "middle", "decode time a token, ms");
  return svg + "</g>\n";
}

std::string Bar(const ProfileRow& row, double y, double most_ms) {
  const double ms = row.decode_seconds_per_token * 1e3;
  const ProfileCase& of = row.of;
  std::string svg = "<g class=\"bar\">\n";
  svg += Text(kBarLeft - 8, y + 13, "end", CaseName(of));
  double x = kBarLeft;
  double rest = 1;
  const auto part = [&](double share, const char* colour, const std::string& name) {
    const double width = share * ms / most_ms * kBarsWidth;
    svg += Rectangle(x, y, width, kBarHeight, colour,
                     fmt::format("{}: {:.3g} ms, {:.1f} %", name, share * ms, share * 100));
    x += width;
    rest -= share;
  };
  for (size_t i = 0; row.steps && i < kMemorySteps; ++i) {
    const StepFigure& step = (*row.steps)[i];
    part(step.share, kColours[i],
         step.device.empty() ? kMemoryStepNames[i]
                             : fmt::format("{} on {}", kMemoryStepNames[i], step.device));
  }
  part(std::max(0.0, rest), kColours[kMemorySteps], "rest");
  std::string note = fmt::format("{:.2f} ms", ms);
  if (row.steps) note += fmt::format(", memory {:.1f} %", row.memory_share * 100);
  svg += Text(x + 6, y + 13, "start", note);
  return svg + "</g>\n";
}

}  // namespace

std::string ProfileSvg(const Profile& profile) {
  double most_ms = 1e-6;
  for (const ProfileRow& row : profile.rows) most_ms = std::max(most_ms, row.decode_seconds_per_token * 1e3);
  const double bottom = kTop + kRowHeight * static_cast<double>(profile.rows.size());
  const double height = bottom + kAxisHeight;
  std::string svg = fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" viewBox=\"0 0 {0:.0f} "
      "{1:.0f}\" font-family=\"sans-serif\" font-size=\"12\">\n",
      kWidth, height);
  svg += fmt::format("<rect width=\"{:.0f}\" height=\"{:.0f}\" fill=\"#ffffff\"/>\n", kWidth, height);
  svg += Text(kWidth / 2, 24, "middle",
              fmt::format("Where decoding spends its time: {}, budget {} tokens, {} tokens generated",
                          profile.model, profile.token_budget, profile.output_tokens));
  svg += Legend();
  svg += Axis(most_ms, bottom);
  double y = kTop;
  for (const ProfileRow& row : profile.rows) {
    svg += Bar(row, y, most_ms);
    y += kRowHeight;
  }
  return svg + "</svg>\n";
}

}  // namespace mnemo::bench
