// Things that all ranks of a group have done, or none: where one fails, all throw.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "qianli/dist/group.h"

namespace qianli::dist {

using TextAction = std::function<std::string()>;

// Rank 0 of the group runs `action`; all return what it returned. Where it threw, rank 0 rethrows
// and the others throw a LostRankError with its message.
std::string first_rank(const Group& group, const TextAction& action);

// Every rank runs `action`; rank 0 returns what each returned, the others nothing. Where any threw,
// it rethrows, and the others throw a LostRankError that names the first of them and its message.
std::vector<std::string> every_rank(const Group& group, const TextAction& action);

// Throws ConfigError on all ranks where `text`, for which messages say `what`, is not that of rank
// 0, showing the first line that differs.
void expect_same(const Group& group, const std::string& what, const std::string& text);

}  // namespace qianli::dist
