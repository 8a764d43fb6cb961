// The parts of ModelSpec::validate, and what they are written in. All throw ConfigError. Internal
// to the room.
#pragma once

#include <fmt/core.h>

#include <cstdint>
#include <optional>
#include <string>

#include "qianli/model/spec.h"

namespace qianli::model {

inline constexpr int64_t kMaxCount = (int64_t{1} << 31) - 1;  // of any one size
inline constexpr int64_t kMaxLayers = 100000;
inline constexpr int64_t kMaxHeadDim = 65536;
inline constexpr int64_t kMaxExperts = 65536;
inline constexpr int64_t kMaxPattern = 100000;
inline constexpr double kMaxParameters = 1e13;

void expect(bool holds, const std::string& problem, const std::string& hint = {});
void check_count(const char* name, int64_t value, int64_t limit = kMaxCount, int64_t least = 1);
void check_multiple(const char* name, int64_t value, const char* of, int64_t divisor);
void check_product(const char* name, int64_t a, int64_t b);
void check_positive(const char* name, double value);
void check_positive(const char* name, const std::optional<double>& value);
void check_not_negative(const char* name, double value);

bool uses(const ModelSpec& spec, MixerKind kind);
bool uses_attention(const ModelSpec& spec);
bool uses_compressed_keys(const ModelSpec& spec);

void check_positions(const ModelSpec& spec);
void check_moe(const ModelSpec& spec);
void check_latent_attention(const ModelSpec& spec);
void check_compressed_attention(const ModelSpec& spec);
void check_hyper_connections(const ModelSpec& spec);

}  // namespace qianli::model
