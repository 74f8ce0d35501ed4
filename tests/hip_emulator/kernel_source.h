// From preprocessed HIP C++ to C++ that g++ compiles into a kernel module.
#pragma once

#include <string>
#include <vector>

namespace emulator {

struct KernelSource {
    std::string text;                // what to compile
    std::vector<std::string> names;  // the kernels that are not templates
};

// `name_expressions` name further kernels, such as instances of templates.
KernelSource translate(const std::string& preprocessed,
                       const std::vector<std::string>& name_expressions);

}  // namespace emulator
