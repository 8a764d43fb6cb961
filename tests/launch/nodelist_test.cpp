#include "qianli/launch/nodelist.h"

#include <gtest/gtest.h>

#include "qianli/base/error.h"

namespace qianli::launch {
namespace {

using Hosts = std::vector<std::string>;

TEST(Nodelist, expands_ranges_as_slurm_does) {
  EXPECT_EQ(expand_nodelist("node1", 10), (Hosts{"node1"}));
  EXPECT_EQ(expand_nodelist("node[003-005,7],gpu1", 10),
            (Hosts{"node003", "node004", "node005", "node7", "gpu1"}));
  EXPECT_EQ(expand_nodelist("n[08-11].cluster.org", 10),
            (Hosts{"n08.cluster.org", "n09.cluster.org", "n10.cluster.org", "n11.cluster.org"}));
  EXPECT_EQ(expand_nodelist("rack[1-2]n[7,9]", 10),
            (Hosts{"rack1n7", "rack1n9", "rack2n7", "rack2n9"}));
  EXPECT_EQ(expand_nodelist("10.0.0.7", 1), (Hosts{"10.0.0.7"}));
}

TEST(Nodelist, makes_no_more_than_asked_for) {
  EXPECT_EQ(expand_nodelist("a[0-65535]b[0-65535]c[0-65535]", 3),
            (Hosts{"a0b0c0", "a0b0c1", "a0b0c2"}));
  EXPECT_EQ(expand_nodelist("a[1-2],b", 1), (Hosts{"a1"}));
}

TEST(Nodelist, refuses_what_is_none) {
  for (const std::string text :
       {"", ",", "a,", "a[", "a]", "a[]", "a[1", "a[[1]]", "a[2-1]", "a[1-]", "a[-1]", "a[x]",
        "a[1-70000]", "a[0-9999999999]", "a b", "a;rm", "a[1-2]]", "a,,b", "ä"}) {
    EXPECT_THROW(expand_nodelist(text, 10), ConfigError) << text;
  }
  EXPECT_THROW(expand_nodelist(std::string(70000, 'a'), 10), ConfigError);
  // What is wrong behind the first host is still seen.
  EXPECT_THROW(expand_nodelist("a[1-2],b[", 1), ConfigError);
}

TEST(TasksPerNode, counts_repeated_nodes) {
  const std::string text = "8(x2),4,2(x1000000)";
  EXPECT_EQ(tasks_on_node(text, 0), 8);
  EXPECT_EQ(tasks_on_node(text, 1), 8);
  EXPECT_EQ(tasks_on_node(text, 2), 4);
  EXPECT_EQ(tasks_on_node(text, 1000002), 2);
  EXPECT_THROW(tasks_on_node(text, 1000003), ConfigError);
}

TEST(TasksPerNode, refuses_what_is_none) {
  for (const std::string text : {"", "8(x2", "8(2)", "x", "8(x)", "8,,4", "8(x2)9", "-1"})
    EXPECT_THROW(tasks_on_node(text, 0), ConfigError) << text;
}

}  // namespace
}  // namespace qianli::launch
