// Running the host's C++ compiler on kernel sources.
#pragma once

#include <string>
#include <vector>

namespace emulator {

struct Header {
    std::string name;
    std::string text;
};

struct Compilation {
    bool succeeded = false;
    std::string library;  // the shared library's bytes
    std::string log;
    std::vector<std::string> kernels;
};

// `options` are g++'s. Messages name the source `source_name`.
Compilation compile_kernels(const std::string& source, const std::string& source_name,
                            const std::vector<Header>& headers,
                            const std::vector<std::string>& options,
                            const std::vector<std::string>& name_expressions);

}  // namespace emulator
