#include "compiler.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "kernel_source.h"
#include "settings.h"

extern char** environ;

namespace emulator {
namespace {

namespace fs = std::filesystem;

class TemporaryFolder {
public:
    TemporaryFolder() {
        std::string pattern = (fs::temp_directory_path() / "hip_emulator_XXXXXX").string();
        path_ = mkdtemp(pattern.data()) ? pattern : "";
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        fs::remove_all(path_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;

    const fs::path& path() const { return path_; }

private:
    fs::path path_;
};

std::string read(const fs::path& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}

void write(const fs::path& path, const std::string& text) {
    fs::create_directories(path.parent_path());
    std::ofstream(path, std::ios::binary) << text;
}

// The process's environment with messages in plain English and ASCII, as logs are bytes.
std::vector<char*> plain_environment() {
    static char plain[] = "LC_ALL=C";
    std::vector<char*> result;
    for (char** entry = environ; *entry; ++entry) {
        if (std::strncmp(*entry, "LC_ALL=", 7) != 0) result.push_back(*entry);
    }
    result.insert(result.end(), {plain, nullptr});
    return result;
}

// Standard output and error go to `log`. False when the command fails or cannot be run.
bool run(const std::vector<std::string>& command, const fs::path& log) {
    std::vector<char*> argv;
    for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    pid_t child = 0;
    const int failed = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(),
                                    plain_environment().data());
    posix_spawn_file_actions_destroy(&actions);
    if (failed) {
        write(log, "cannot run " + command[0] + '\n');
        return false;
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// build.py puts the headers that kernels see beside the folder of the libraries.
fs::path include_folder() {
    Dl_info info{};
    dladdr(reinterpret_cast<void*>(&include_folder), &info);
    return fs::canonical(info.dli_fname).parent_path().parent_path() / "include";
}

void append(std::vector<std::string>& to, const std::vector<std::string>& more) {
    to.insert(to.end(), more.begin(), more.end());
}

// A line marker, so that messages name the user's source and not a temporary file.
std::string named(const std::string& source, const std::string& name) {
    return "# 1 \"" + name + "\"\n" + source;
}

}  // namespace

Compilation compile_kernels(const std::string& source, const std::string& source_name,
                            const std::vector<Header>& headers,
                            const std::vector<std::string>& options,
                            const std::vector<std::string>& name_expressions) {
    const TemporaryFolder folder;
    const fs::path log = folder.path() / "log";
    const fs::path input = folder.path() / "kernel.hip";
    const fs::path translated = folder.path() / "kernel.ii";
    const fs::path library = folder.path() / "kernel.so";
    write(input, named(source, source_name));
    for (const Header& header : headers) {
        write(folder.path() / "headers" / header.name, header.text);
    }

    std::vector<std::string> preprocess = {EMULATOR_CXX, "-E", "-x", "c++", "-std=c++17"};
    append(preprocess, options);
    append(preprocess, {"-D__AMDGCN_WAVEFRONT_SIZE=" + std::to_string(settings().wavefront),
                        "-I" + (folder.path() / "headers").string(),
                        "-I" + include_folder().string(), "-include", "prelude.h", input.string(),
                        "-o", translated.string()});
    Compilation result;
    if (run(preprocess, log)) {
        KernelSource kernels = translate(read(translated), name_expressions);
        result.kernels = std::move(kernels.names);
        write(translated, kernels.text);
        std::vector<std::string> compile = {EMULATOR_CXX, "-x", "c++-cpp-output", "-std=c++17",
                                            "-O2"};
        append(compile, options);
        append(compile, {"-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-Bsymbolic",
                         "-fno-strict-aliasing", "-ffp-contract=off", translated.string(), "-o",
                         library.string()});
        result.succeeded = run(compile, log);
    }
    result.log = read(log);
    if (result.succeeded) result.library = read(library);
    return result;
}

}  // namespace emulator
