// The rewriting is by words, not by grammar. It runs after the preprocessor, so comments, macros
// and disabled code are gone. What it knows:
//
//   __global__                  exported; `void NAME(` after it makes NAME a kernel
//   __launch_bounds__(N, …)     dropped; N is the kernel's limit of threads a block
//   extern __shared__ T x[];    a pointer to the block's dynamic shared memory
//   __shared__                  a static variable in the section that each block finds undefined
#include "kernel_source.h"

#include <cctype>

namespace emulator {
namespace {

bool starts_word(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)); }
bool continues_word(char c) { return starts_word(c) || is_digit(c); }

struct Kernel {
    std::string name;
    std::string bounds;  // the first argument of __launch_bounds__, as text
};

class Translator {
public:
    explicit Translator(const std::string& text) : in_(text) {}

    void run() {
        while (at_ < in_.size()) {
            if (starts_word(in_[at_])) {
                take_word();
            } else {
                take_other();
            }
        }
    }

    std::string out;
    std::vector<Kernel> kernels;

private:
    // Anything but a word. Literals and line markers are copied whole: they may contain words.
    void take_other() {
        const char c = in_[at_];
        if (c == '"' || c == '\'') {
            copy_literal(c);
        } else if (c == '#' && (out.empty() || out.back() == '\n')) {
            copy_until_newline();
        } else {
            if (c == '{' || c == '}' || c == ';') is_template_ = false;
            if (c == '<' && previous_ == "template") is_template_ = true;
            if (c == '(') open_parenthesis();
            if (is_digit(c)) return copy_number();
            out += in_[at_++];
        }
    }

    void take_word() {
        const std::string word = read_word();
        if (word == "__global__") {
            out += "__attribute__((visibility(\"default\")))";
            in_kernel_head_ = true;
            pending_ = {};
        } else if (word == "__launch_bounds__") {
            pending_.bounds = first_argument();
        } else if (word == "extern" && next_word_is("__shared__")) {
            take_dynamic_shared();
        } else if (word == "__shared__") {
            out += shared_variable;
        } else if (word == "static" && next_word_is("__shared__")) {
            skip_to_word();
            read_word();
            out += shared_variable;
        } else {
            out += word;
        }
        previous_ = word;
    }

    // `NAME(` after __global__: parentheses of attributes come after their own words.
    void open_parenthesis() {
        if (!in_kernel_head_ || previous_ == "__attribute__" || previous_ == "alignas") return;
        in_kernel_head_ = false;
        pending_.name = previous_;
        if (!is_template_) kernels.push_back(pending_);
    }

    // extern __shared__ [attributes] T name[];
    void take_dynamic_shared() {
        skip_to_word();
        read_word();
        std::string declaration;
        while (at_ < in_.size() && in_[at_] != ';') declaration += in_[at_++];
        const std::size_t bracket = declaration.rfind('[');
        std::string type = without_attributes(declaration.substr(0, bracket));
        std::size_t name = type.find_last_not_of(" \t\n");
        while (name > 0 && continues_word(type[name - 1])) --name;
        out += "static " + type.substr(0, name) + "* const " + type.substr(name) +
               " = (decltype(" + type.substr(name) + "))(void*)__emulator_dynamic_shared";
    }

    static std::string without_attributes(std::string text) {
        for (const char* attribute : {"__attribute__", "alignas"}) {
            for (std::size_t start; (start = text.find(attribute)) != std::string::npos;) {
                std::size_t end = text.find('(', start);
                int depth = 0;
                do {
                    depth += text[end] == '(' ? 1 : text[end] == ')' ? -1 : 0;
                    ++end;
                } while (depth > 0 && end < text.size());
                text.erase(start, end - start);
            }
        }
        return text;
    }

    // The text up to the first comma of the parentheses that follow, which are consumed.
    std::string first_argument() {
        std::string result;
        int depth = 0;
        bool in_first = true;
        at_ = in_.find('(', at_);
        do {
            const char c = in_[at_++];
            if (c == ')') --depth;
            if (c == ',' && depth == 1) in_first = false;
            if (depth > 0 && in_first) result += c;
            if (c == '(') ++depth;
        } while (at_ < in_.size() && depth > 0);
        return result;
    }

    std::string read_word() {
        const std::size_t start = at_;
        while (at_ < in_.size() && continues_word(in_[at_])) ++at_;
        return in_.substr(start, at_ - start);
    }

    bool next_word_is(const std::string& word) const {
        const std::size_t start = in_.find_first_not_of(" \t\n", at_);
        return start != std::string::npos && in_.compare(start, word.size(), word) == 0;
    }

    void skip_to_word() { at_ = in_.find_first_not_of(" \t\n", at_); }

    void copy_literal(char quote) {
        out += in_[at_++];
        while (at_ < in_.size() && in_[at_] != quote) {
            if (in_[at_] == '\\') out += in_[at_++];
            out += in_[at_++];
        }
        if (at_ < in_.size()) out += in_[at_++];
    }

    // A quote between digits (1'000) is no character literal.
    void copy_number() {
        const auto continues = [](char c) { return continues_word(c) || c == '\'' || c == '.'; };
        while (at_ < in_.size() && continues(in_[at_])) out += in_[at_++];
    }

    void copy_until_newline() {
        while (at_ < in_.size() && in_[at_] != '\n') out += in_[at_++];
    }

    static constexpr const char* shared_variable =
        "static __attribute__((section(\"emulator_shared\")))";

    const std::string& in_;
    std::size_t at_ = 0;
    std::string previous_;         // the last word
    bool is_template_ = false;     // since the last `;`, `{` or `}`
    bool in_kernel_head_ = false;  // between __global__ and its parameters
    Kernel pending_;
};

}  // namespace

KernelSource translate(const std::string& preprocessed,
                       const std::vector<std::string>& name_expressions) {
    Translator translator(preprocessed);
    translator.run();
    KernelSource result;
    std::string table;
    for (const Kernel& kernel : translator.kernels) {
        result.names.push_back(kernel.name);
        table += "    __emulator_describe<&" + kernel.name + ">(\"" + kernel.name + "\"" +
                 (kernel.bounds.empty() ? "" : ", (" + kernel.bounds + ")") + "),\n";
    }
    for (const std::string& expression : name_expressions) {
        const std::string kernel = expression[0] == '&' ? expression : '&' + expression;
        table += "    __emulator_describe<" + kernel + ">(\"" + expression + "\"),\n";
    }
    result.text = std::move(translator.out) +
                  "\n# 1 \"kernel table\"\n"
                  "extern \"C\" __attribute__((visibility(\"default\"))) const EmulatorModule*\n"
                  "emulator_module(const EmulatorRuntime* runtime) {\n"
                  "    static const EmulatorKernel kernels[] = {\n" +
                  table +
                  "    {}};\n"
                  "    return __emulator_bind(runtime, kernels,\n"
                  "                           sizeof kernels / sizeof *kernels - 1);\n"
                  "}\n";
    return result;
}

}  // namespace emulator
