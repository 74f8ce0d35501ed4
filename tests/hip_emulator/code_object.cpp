#include "code_object.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <vector>

#include "settings.h"

namespace emulator {
namespace {

struct Header {
    char magic[8];
    std::uint32_t wavefront;
    std::uint32_t header_check;  // over the rest of the header
    std::uint64_t bytes;
    std::uint64_t checksum;
};

constexpr char magic[8] = {'H', 'I', 'P', 'E', 'M', 'U', '0', '1'};

std::uint64_t fnv1a(const void* data, std::size_t bytes) {
    std::uint64_t hash = 0xCBF29CE484222325;
    for (std::size_t i = 0; i < bytes; ++i) {
        hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001B3;
    }
    return hash;
}

std::uint32_t check_of(Header header) {
    header.header_check = 0;
    return static_cast<std::uint32_t>(fnv1a(&header, sizeof header));
}

bool write_all(int file, const void* data, std::size_t bytes) {
    const auto* at = static_cast<const char*>(data);
    while (bytes > 0) {
        const ssize_t written = write(file, at, bytes);
        if (written <= 0) return false;  // EFAULT: the memory ends early
        at += written;
        bytes -= static_cast<std::size_t>(written);
    }
    return true;
}

bool intact(int file, const Header& header) {
    std::vector<char> bytes(header.bytes);
    const ssize_t got = pread(file, bytes.data(), bytes.size(), 0);
    return got == static_cast<ssize_t>(bytes.size()) &&
           fnv1a(bytes.data(), bytes.size()) == header.checksum;
}

// The header through the kernel as well: even its first byte may be missing.
bool read_header(const void* pointer, Header& header) {
    const int file = memfd_create("hip code header", MFD_CLOEXEC);
    const bool readable = file >= 0 && write_all(file, pointer, sizeof header) &&
                          pread(file, &header, sizeof header, 0) == ssize_t{sizeof header};
    if (file >= 0) close(file);
    return readable && std::memcmp(header.magic, magic, sizeof magic) == 0 &&
           header.header_check == check_of(header);
}

}  // namespace

std::string wrap_code(const std::string& library) {
    Header header{};
    std::memcpy(header.magic, magic, sizeof magic);
    header.wavefront = settings().wavefront;
    header.bytes = library.size();
    header.checksum = fnv1a(library.data(), library.size());
    header.header_check = check_of(header);
    return std::string(reinterpret_cast<const char*>(&header), sizeof header) + library;
}

int unwrap_code(const void* pointer, unsigned& wavefront) {
    Header header;
    if (!read_header(pointer, header)) return -1;
    wavefront = header.wavefront;
    const int file = memfd_create("hip code", MFD_CLOEXEC);
    if (file < 0) return -1;
    const char* library = static_cast<const char*>(pointer) + sizeof header;
    if (write_all(file, library, header.bytes) && intact(file, header)) return file;
    close(file);
    return -1;
}

}  // namespace emulator
