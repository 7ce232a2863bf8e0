// The GPU bundle: the suites that run on a GPU and the program mlxn in one executable. docs/gpu_testing.md says how to use it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "cli/commands.h"
#include "tests/bundle/launched.h"
#include "tests/bundle/parts.h"
#include "tests/bundle/sanitize.h"

namespace mlxn::test {
namespace {

constexpr int kPassed = 0, kFailed = 1, kBadUsage = 2;

struct Part {
  std::string_view name;
  int (*run)(int* argc, char** argv);
};
constexpr Part kParts[] = {
    {"cuda", mlxn_part_cuda},         {"conformance", mlxn_part_conformance}, {"property", mlxn_part_property},
    {"seed", mlxn_part_seed},         {"models", mlxn_part_models},
};

int usage() {
  std::string names;
  for (const Part& part : kParts) names.append(" ").append(part.name);
  std::fprintf(stderr,
               "usage: mlxn_gpu test PART [GoogleTest's flags]   the tests of a part:%s\n"
               "       mlxn_gpu test all                         of every part, each in a process of its own\n"
               "       mlxn_gpu sanitize                         the subset that compute-sanitizer runs over\n"
               "       mlxn_gpu sanitize I N FILE                the I-th (from 1) of N shares of it; FILE gets the names of the kernels\n"
               "       mlxn_gpu launched FILE...                 whether the shares together launched every kernel\n"
               "       mlxn_gpu mlxn ARGS                        the program mlxn\n"
               "MLXN_TEST_DEVICES  kinds of devices that the tests run on (default cuda)\n"
               "MLXN_SOURCE_DIR    the folder with tests/golden and data/demo (default: the nearest above the working folder or this file)\n",
               names.c_str());
  return kBadUsage;
}

bool has_sources(const std::filesystem::path& folder) {
  std::error_code ignored;
  return std::filesystem::is_directory(folder / "tests" / "golden", ignored) &&
         std::filesystem::is_directory(folder / "data" / "demo", ignored);
}

/// Tells the tests where goldens and models are; false if they are nowhere.
bool find_sources() {
  if (std::getenv("MLXN_SOURCE_DIR") != nullptr) return true;
  std::error_code error;
  for (std::filesystem::path folder : {std::filesystem::current_path(error), std::filesystem::read_symlink("/proc/self/exe", error).parent_path()}) {
    for (; !folder.empty(); folder = folder.parent_path()) {
      if (has_sources(folder)) return setenv("MLXN_SOURCE_DIR", folder.c_str(), 1) == 0;
      if (folder == folder.root_path()) break;
    }
  }
  return false;
}

const Part* part_named(std::string_view name) {
  const auto* const part = std::find_if(std::begin(kParts), std::end(kParts), [&](const Part& p) { return p.name == name; });
  return part == std::end(kParts) ? nullptr : part;
}

/// Runs a part with the whole command line, which GoogleTest gives to the processes of its death tests again.
int run_part(const Part& part, std::vector<std::string> arguments) {
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  int argc = static_cast<int>(arguments.size());
  const int code = part.run(&argc, argv.data());
  std::fflush(nullptr);
  return code == 0 ? kPassed : kFailed;
}

int run_all(const std::string& program) {
  int result = kPassed;
  std::string report;
  for (const Part& part : kParts) {
    const auto begin = std::chrono::steady_clock::now();
    const int code = std::system(("'" + program + "' test " + std::string(part.name)).c_str());
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    char line[100];
    std::snprintf(line, sizeof line, "%-12s %s in %.1f s\n", std::string(part.name).c_str(), code == 0 ? "passed" : "FAILED", seconds);
    report += line;
    if (code != 0) result = kFailed;
  }
  std::fputs(report.c_str(), stdout);
  return result;
}

/// Says which kernels were not launched (sorted names); whether there are none.
bool all_launched(const std::vector<std::string>& launched) {
  const std::vector<std::string> built = built_kernels();
  std::vector<std::string> missing;
  std::set_difference(built.begin(), built.end(), launched.begin(), launched.end(), std::back_inserter(missing));
  for (const std::string& name : missing) std::fprintf(stderr, "sanitize: %s was not launched\n", name.c_str());
  std::printf("sanitize: %zu of %zu kernels launched\n", built.size() - missing.size(), built.size());
  return missing.empty();
}

int launched_by_shares(const std::vector<std::string>& files) {
  std::vector<std::string> launched;
  for (const std::string& file : files) {
    std::ifstream in(file);
    std::string name;
    if (!in) std::fprintf(stderr, "mlxn_gpu: %s: cannot be read\n", file.c_str());
    while (std::getline(in, name)) launched.push_back(name);
  }
  std::sort(launched.begin(), launched.end());
  return all_launched(launched) ? kPassed : kFailed;
}

/// The subset for compute-sanitizer, or a share of it, and whether every kernel was among it.
int sanitize(const std::string& program, const std::vector<std::string>& share) {
  setenv("MLXN_TEST_SIZES", "small", 1);
  if (!share.empty()) {
    const int index = std::atoi(share[0].c_str()), count = std::atoi(share[1].c_str());
    if (index < 1 || index > count) return usage();
    setenv("GTEST_SHARD_INDEX", std::to_string(index - 1).c_str(), 1);
    setenv("GTEST_TOTAL_SHARDS", std::to_string(count).c_str(), 1);
  }
  int result = kPassed;
  for (const Subset& subset : kSanitized) {
    const Part* const part = part_named(subset.part);
    const std::string filter = "--gtest_filter=" + std::string(subset.filter);
    result = std::max(result, run_part(*part, {program, "test", std::string(subset.part), filter}));
  }
  if (share.empty()) return all_launched(launched_kernels()) ? result : kFailed;
  std::ofstream out(share[2]);
  for (const std::string& name : launched_kernels()) out << name << '\n';
  if (!out.flush()) {
    std::fprintf(stderr, "mlxn_gpu: %s: cannot be written\n", share[2].c_str());
    return kFailed;
  }
  return result;
}

int run(int argc, char** argv) {
  const std::vector<std::string> arguments(argv, argv + argc);
  const std::string_view command = argc > 1 ? std::string_view(argv[1]) : "";
  if (command == "mlxn") return cli::run_command_line(argc - 1, argv + 1);
  const std::string_view name = argc > 2 ? std::string_view(argv[2]) : "";
  if (command == "launched" && argc > 2) return launched_by_shares({arguments.begin() + 2, arguments.end()});
  if (command != "test" && command != "sanitize") return usage();
  if (!find_sources()) {
    std::fprintf(stderr, "mlxn_gpu: no folder with tests/golden and data/demo above this one or the program's; MLXN_SOURCE_DIR names it\n");
    return kBadUsage;
  }
  setenv("MLXN_TEST_DEVICES", "cuda", 0);
  const Part* const part = part_named(name);
  if (command == "sanitize" && (argc == 2 || argc == 5)) return sanitize(argv[0], {arguments.begin() + 2, arguments.end()});
  if (command == "test" && name == "all") return run_all(std::filesystem::read_symlink("/proc/self/exe"));
  if (command == "test" && part != nullptr) return run_part(*part, arguments);
  return usage();
}

}  // namespace
}  // namespace mlxn::test

int main(int argc, char** argv) { return mlxn::test::run(argc, argv); }
