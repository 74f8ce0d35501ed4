// hiprtc: programs, their options and logs.
#include <algorithm>
#include <cstring>
#include <map>

#include "call.h"
#include "code_object.h"
#include "compiler.h"
#include "handles.h"
#include "program.h"

namespace emulator {

ProgramTable& programs() {
    static ProgramTable instance;
    return instance;
}

namespace {

template <class Body, class... Args>
hiprtcResult rtc_call(const char* name, Body body, const Args&... args) {
    return api_call<hiprtcResult>(name, body, args...);
}

bool begins(const std::string& text, const std::string& start) {
    return text.compare(0, start.size(), start) == 0;
}

template <std::size_t n>
bool begins_with_one_of(const std::string& text, const char* const (&starts)[n]) {
    return std::any_of(starts, starts + n, [&](const char* start) { return begins(text, start); });
}

constexpr const char* passed_on[] = {"-D", "-U", "-I", "-O", "-g"};
constexpr const char* taken_as_two_words[] = {"-D", "-U", "-I", "-include"};
// Options of clang and of the AMD back end that mean nothing to the host's compiler.
constexpr const char* ignored[] = {
    "--gpu-architecture", "--offload-arch", "-march=", "-mcpu=",  "-m",     "-f",     "-W", "-w",
    "-nogpu",             "--hip-",         "--rocm-", "--cuda-", "-Xarch", "-pipe", "-v", "--std=",
    "-ggdb",
};
constexpr const char* ignored_with_a_word[] = {"-mllvm", "-Xclang", "-target"};

// The standards that the prelude compiles in; older ones are raised to 17.
std::string standard_option(const std::string& option) {
    static const std::map<std::string, std::string> raised = {
        {"-std=c++11", "-std=c++17"},   {"-std=c++14", "-std=c++17"},
        {"-std=gnu++11", "-std=gnu++17"}, {"-std=gnu++14", "-std=gnu++17"},
    };
    const auto found = raised.find(option);
    return found == raised.end() ? option : found->second;
}

template <std::size_t n>
bool is_one_of(const std::string& text, const char* const (&words)[n]) {
    return std::find(words, words + n, text) != words + n;
}

// False, with the reason in the log, when an option is no compiler's.
bool take_options(const std::vector<std::string>& given, std::vector<std::string>& options,
                  std::string& log) {
    for (std::size_t i = 0; i < given.size(); ++i) {
        const std::string& option = given[i];
        const bool has_word = i + 1 < given.size();
        if (is_one_of(option, taken_as_two_words) && has_word) {
            options.push_back(option);
            options.push_back(given[++i]);
        } else if (is_one_of(option, ignored_with_a_word) && has_word) {
            ++i;
        } else if (begins(option, "-std=")) {
            options.push_back(standard_option(option));
        } else if (begins_with_one_of(option, passed_on)) {
            options.push_back(option);
        } else if (!begins_with_one_of(option, ignored)) {
            log = "error: unknown argument: '" + option + "'\n";
            return false;
        }
    }
    return true;
}

hiprtcResult compile(Program& program, int count, const char* const* given) {
    std::vector<std::string> options;
    program.log.clear();
    program.code.clear();
    const std::vector<std::string> words(given, given + count);
    if (!take_options(words, options, program.log)) return HIPRTC_ERROR_INVALID_OPTION;
    // A plain name names a kernel that is in the table anyway.
    std::vector<std::string> expressions;
    for (const std::string& name : program.name_expressions) {
        if (name.find_first_of("<>&:(") != std::string::npos) expressions.push_back(name);
    }
    Compilation compilation =
        compile_kernels(program.source, program.name, program.headers, options, expressions);
    program.log = std::move(compilation.log);
    program.kernels = std::move(compilation.kernels);
    if (!compilation.succeeded) return HIPRTC_ERROR_COMPILATION;
    for (const std::string& name : program.name_expressions) {
        const bool plain = std::count(expressions.begin(), expressions.end(), name) == 0;
        const auto& known = program.kernels;
        if (plain && std::count(known.begin(), known.end(), name) == 0) {
            program.log += "error: no kernel is called " + name + '\n';
            return HIPRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
        }
    }
    program.code = wrap_code(compilation.library);
    return HIPRTC_SUCCESS;
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT hiprtcResult hiprtcVersion(int* major, int* minor) {
    return rtc_call(
        "hiprtcVersion",
        [&] {
            if (!major || !minor) return HIPRTC_ERROR_INVALID_INPUT;
            *major = 9;
            *minor = 0;
            return HIPRTC_SUCCESS;
        },
        out(major), out(minor));
}

EMULATOR_EXPORT hiprtcResult hiprtcCreateProgram(hiprtcProgram* program, const char* source,
                                                 const char* name, int header_count,
                                                 const char* const* headers,
                                                 const char* const* header_names) {
    return rtc_call(
        "hiprtcCreateProgram",
        [&] {
            if (!program || !source || header_count < 0) return HIPRTC_ERROR_INVALID_INPUT;
            if (header_count && (!headers || !header_names)) return HIPRTC_ERROR_INVALID_INPUT;
            const auto created = std::make_shared<Program>();
            created->source = source;
            created->name = name && *name ? name : "program";
            for (int i = 0; i < header_count; ++i) {
                created->headers.push_back({header_names[i], headers[i]});
            }
            *program = programs().add(created);
            return HIPRTC_SUCCESS;
        },
        out(program), name);
}

EMULATOR_EXPORT hiprtcResult hiprtcDestroyProgram(hiprtcProgram* program) {
    return rtc_call(
        "hiprtcDestroyProgram",
        [&] {
            if (!program || !programs().find(*program)) return HIPRTC_ERROR_INVALID_PROGRAM;
            programs().remove(*program);
            return HIPRTC_SUCCESS;
        },
        out(program));
}

EMULATOR_EXPORT hiprtcResult hiprtcAddNameExpression(hiprtcProgram program, const char* name) {
    return rtc_call(
        "hiprtcAddNameExpression",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!name || !*name) return HIPRTC_ERROR_INVALID_INPUT;
            if (!found->code.empty()) return HIPRTC_ERROR_NO_NAME_EXPRESSIONS_AFTER_COMPILATION;
            found->name_expressions.insert(name);
            return HIPRTC_SUCCESS;
        },
        program, name);
}

EMULATOR_EXPORT hiprtcResult hiprtcGetLoweredName(hiprtcProgram program, const char* name,
                                                  const char** lowered) {
    return rtc_call(
        "hiprtcGetLoweredName",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!name || !lowered) return HIPRTC_ERROR_INVALID_INPUT;
            if (found->code.empty()) return HIPRTC_ERROR_NO_LOWERED_NAMES_BEFORE_COMPILATION;
            const auto expression = found->name_expressions.find(name);
            if (expression == found->name_expressions.end()) {
                return HIPRTC_ERROR_NAME_EXPRESSION_NOT_VALID;
            }
            *lowered = expression->c_str();
            return HIPRTC_SUCCESS;
        },
        program, name);
}

EMULATOR_EXPORT hiprtcResult hiprtcCompileProgram(hiprtcProgram program, int option_count,
                                                  const char* const* options) {
    return rtc_call(
        "hiprtcCompileProgram",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (option_count < 0 || (option_count && !options)) return HIPRTC_ERROR_INVALID_INPUT;
            return compile(*found, option_count, options);
        },
        program, option_count);
}

EMULATOR_EXPORT hiprtcResult hiprtcGetProgramLogSize(hiprtcProgram program, std::size_t* bytes) {
    return rtc_call(
        "hiprtcGetProgramLogSize",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!bytes) return HIPRTC_ERROR_INVALID_INPUT;
            *bytes = found->log.size() + 1;
            return HIPRTC_SUCCESS;
        },
        program, out(bytes));
}

EMULATOR_EXPORT hiprtcResult hiprtcGetProgramLog(hiprtcProgram program, char* log) {
    return rtc_call(
        "hiprtcGetProgramLog",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!log) return HIPRTC_ERROR_INVALID_INPUT;
            std::memcpy(log, found->log.c_str(), found->log.size() + 1);
            return HIPRTC_SUCCESS;
        },
        program);
}

EMULATOR_EXPORT hiprtcResult hiprtcGetCodeSize(hiprtcProgram program, std::size_t* bytes) {
    return rtc_call(
        "hiprtcGetCodeSize",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found || found->code.empty()) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!bytes) return HIPRTC_ERROR_INVALID_INPUT;
            *bytes = found->code.size();
            return HIPRTC_SUCCESS;
        },
        program, out(bytes));
}

EMULATOR_EXPORT hiprtcResult hiprtcGetCode(hiprtcProgram program, char* code) {
    return rtc_call(
        "hiprtcGetCode",
        [&] {
            const std::shared_ptr<Program> found = programs().find(program);
            if (!found || found->code.empty()) return HIPRTC_ERROR_INVALID_PROGRAM;
            if (!code) return HIPRTC_ERROR_INVALID_INPUT;
            std::memcpy(code, found->code.data(), found->code.size());
            return HIPRTC_SUCCESS;
        },
        program);
}
