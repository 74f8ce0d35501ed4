// RCCL for ranks that are processes of one machine, over files in shared memory.
//
// A rank's part in a collective is a file in the communicator's folder, which appears when the
// command runs and not when it is issued. Ranks arrive after pauses that follow from the seed. A
// collective waits for the others like a kernel that occupies the whole device. What real ranks
// would answer with a hang or with wrong numbers is an error here, with a line on stderr: another
// kind, count, type or reduction at the same place in the order, and a rank that has ended or does
// not come. Sums of halves are rounded at each step, and begin with another rank each time.
#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <thread>

#include "capture.h"
#include "gemm.h"
#include "memory.h"

namespace emulator {

template <>
ncclResult_t status_from(hipError_t status) {
    return status == hipErrorInvalidHandle ? ncclInvalidArgument : ncclUnhandledCudaError;
}
std::string status_name(ncclResult_t status) { return "nccl:" + std::to_string(status); }

namespace {

enum class What : std::uint32_t { all_reduce, reduce_scatter, all_gather, point };
enum Reduction { sum, prod, max, min };

const char* const kind_names[] = {"all_reduce", "reduce_scatter", "all_gather", "send"};
const char* const type_names[] = {"i8",  "u8",  "i32", "u32", "i64",
                                  "u64", "f16", "f32", "f64", "bf16"};
const char* const reduction_names[] = {"sum", "prod", "max", "min"};
constexpr std::size_t type_sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
constexpr int types = 10;
constexpr std::uint32_t none = ~0u;

// What all who meet must agree on; it stands before the data.
struct Header {
    What kind;
    std::uint32_t type;
    std::uint32_t reduction;
    std::uint32_t padding = 0;
    std::uint64_t count;

    bool operator==(const Header&) const = default;
    std::string text() const {
        std::string found = kind_names[static_cast<int>(kind)];
        if (reduction != none) found += std::string(" ") + reduction_names[reduction];
        return found + " of " + std::to_string(count) + ' ' + type_names[type];
    }
};

struct Comm {
    std::string folder;
    int rank;
    int ranks;
    std::vector<pid_t> processes;
    std::uint64_t meetings = 0;  // that have run
    std::map<int, std::uint64_t> sent;      // by the other rank, which may be this one
    std::map<int, std::uint64_t> received;

    std::string part(std::uint64_t meeting, int of) const {
        return folder + "/m" + std::to_string(meeting) + '.' + std::to_string(of);
    }
};
using CommPtr = std::shared_ptr<Comm>;

std::map<void*, CommPtr>& comms() {
    static std::map<void*, CommPtr> instance;
    return instance;
}

struct Absent {
    std::string why;
};

double patience() {
    const char* text = std::getenv("GRAPHEXEC_EMULATOR_RCCL_PATIENCE");
    return text ? std::atof(text) : 20.0;
}

void write_whole(const std::string& path, const void* head, std::size_t head_bytes,
                 const void* data, std::size_t bytes) {
    const std::string draft = path + ".draft";
    std::ofstream file(draft, std::ios::binary);
    file.write(static_cast<const char*>(head), static_cast<std::streamsize>(head_bytes));
    file.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
    file.close();
    if (!file || std::rename(draft.c_str(), path.c_str())) throw Absent{"cannot write " + path};
}

bool ended(pid_t process) {
    std::ifstream file("/proc/" + std::to_string(process) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    const std::size_t end = text.rfind(')');
    return end == std::string::npos || text.compare(end, 3, ") Z") == 0;
}

// The content of a file when it is there.
std::vector<char> await(const std::string& path, const Comm& comm, int rank) {
    const auto until = std::chrono::steady_clock::now() +
                       std::chrono::microseconds(static_cast<std::int64_t>(patience() * 1e6));
    for (int looks = 0;; ++looks) {
        // Whether it has ended is asked first: its part may come just before.
        const bool gone = !comm.processes.empty() && looks % 64 == 63 && ended(comm.processes[rank]);
        std::ifstream file(path, std::ios::binary);
        if (file) return {std::istreambuf_iterator<char>(file), {}};
        if (gone) throw Absent{"rank " + std::to_string(rank) + " has ended"};
        if (std::chrono::steady_clock::now() > until) {
            throw Absent{"rank " + std::to_string(rank) + " does not come"};
        }
        std::this_thread::sleep_for(std::chrono::microseconds(looks < 64 ? 10 : 500));
    }
}

std::vector<char> await_part(const std::string& path, const Comm& comm, int rank,
                             const Header& mine) {
    std::vector<char> found = await(path, comm, rank);
    Header theirs{};
    std::memcpy(&theirs, found.data(), sizeof theirs);
    if (theirs != mine) {
        throw Absent{"rank " + std::to_string(comm.rank) + " has " + mine.text() + ", rank " +
                     std::to_string(rank) + " has " + theirs.text()};
    }
    found.erase(found.begin(), found.begin() + sizeof theirs);
    return found;
}

template <class T>
T combine(T a, T b, std::uint32_t reduction) {
    switch (reduction) {
        case sum: return static_cast<T>(a + b);
        case prod: return static_cast<T>(a * b);
        case max: return a != a || a > b ? a : b;
        default: return a != a || a < b ? a : b;
    }
}

template <class T>
void add(char* into, const char* from, std::uint64_t count, std::uint32_t reduction) {
    for (std::uint64_t i = 0; i < count; ++i) {
        T a, b;
        std::memcpy(&a, into + i * sizeof(T), sizeof(T));
        std::memcpy(&b, from + i * sizeof(T), sizeof(T));
        a = combine(a, b, reduction);
        std::memcpy(into + i * sizeof(T), &a, sizeof(T));
    }
}

template <float load(std::uint16_t), std::uint16_t store(float)>
void add_halves(char* into, const char* from, std::uint64_t count, std::uint32_t reduction) {
    for (std::uint64_t i = 0; i < count; ++i) {
        std::uint16_t a, b;
        std::memcpy(&a, into + 2 * i, 2);
        std::memcpy(&b, from + 2 * i, 2);
        a = store(combine(load(a), load(b), reduction));
        std::memcpy(into + 2 * i, &a, 2);
    }
}

using Add = void (*)(char*, const char*, std::uint64_t, std::uint32_t);
constexpr Add additions[] = {
    add<std::int8_t>,   add<std::uint8_t>,
    add<std::int32_t>,  add<std::uint32_t>,
    add<std::int64_t>,  add<std::uint64_t>,
    add_halves<load_half, store_half>, add<float>,
    add<double>,        add_halves<load_bfloat, store_bfloat>,
};

void pause_before_arrival(const Comm& comm) {
    if (settings().schedule == Schedule::eager) return;
    const std::uint64_t drawn = mix(mix(settings().seed, comm.rank), comm.meetings);
    std::this_thread::sleep_for(std::chrono::microseconds(drawn % 3000));
}

void meet(Comm& comm, const Header& header, const char* src, char* dst) {
    const std::uint64_t meeting = comm.meetings++;
    const auto ranks = static_cast<std::uint64_t>(comm.ranks);
    const std::size_t bytes = header.count * type_sizes[header.type];
    const bool cut = header.kind == What::reduce_scatter;
    pause_before_arrival(comm);
    write_whole(comm.part(meeting, comm.rank), &header, sizeof header, src,
                cut ? bytes * ranks : bytes);
    std::vector<std::vector<char>> parts;
    for (int rank = 0; rank < comm.ranks; ++rank) {
        parts.push_back(await_part(comm.part(meeting, rank), comm, rank, header));
    }
    // Who has come here has read all parts of the meeting before.
    if (meeting) std::remove(comm.part(meeting - 1, comm.rank).c_str());
    if (header.kind == What::all_gather) {
        for (int rank = 0; rank < comm.ranks; ++rank) {
            std::memcpy(dst + static_cast<std::size_t>(rank) * bytes, parts[rank].data(), bytes);
        }
        return;
    }
    const std::size_t from = cut ? bytes * static_cast<std::size_t>(comm.rank) : 0;
    const std::uint64_t first = meeting % ranks;
    std::memcpy(dst, parts[first].data() + from, bytes);
    for (std::uint64_t next = 1; next < ranks; ++next) {
        additions[header.type](dst, parts[(first + next) % ranks].data() + from, header.count,
                               header.reduction);
    }
}

// A send or a recv.
struct Point {
    bool sends;
    int peer;
    Header header;
    char* data;
};

std::string pair_path(const Comm& comm, int from, int to, std::uint64_t number) {
    return comm.folder + "/s" + std::to_string(from) + '-' + std::to_string(to) + '.' +
           std::to_string(number);
}

void pass(Comm& comm, const std::vector<Point>& points) {
    pause_before_arrival(comm);
    for (const Point& point : points) {
        if (!point.sends) continue;
        const std::uint64_t number = comm.sent[point.peer]++;
        write_whole(pair_path(comm, comm.rank, point.peer, number), &point.header,
                    sizeof point.header, point.data,
                    point.header.count * type_sizes[point.header.type]);
    }
    for (const Point& point : points) {
        if (point.sends) continue;
        const std::uint64_t number = comm.received[point.peer]++;
        const std::string path = pair_path(comm, point.peer, comm.rank, number);
        const std::vector<char> found = await_part(path, comm, point.peer, point.header);
        std::memcpy(point.data, found.data(), found.size());
        std::remove(path.c_str());
    }
}

void queue(hipStream_t handle, const std::string& label, std::function<void()> work, Lock& lock) {
    submit(*stream_of(handle),
           {hipGraphNodeTypeKernel, label,
            [label, work] {
                try {
                    work();
                } catch (const Absent& absent) {
                    complain(label + ": " + absent.why);
                    scheduler().fail(hipErrorLaunchFailure, label + ": " + absent.why);
                }
            }},
           lock);
}

// Sends and recvs between ncclGroupStart and ncclGroupEnd.
thread_local int depth = 0;
struct Grouped {
    CommPtr comm;
    hipStream_t stream;
    std::vector<Point> points;
};
thread_local std::vector<Grouped> grouped;

template <class Body>
ncclResult_t call(const char* name, Body body) {
    return api_call<ncclResult_t>(name, body);
}

bool lies_on_device(const void* pointer, std::size_t bytes) {
    if (memory().is_device(pointer) && memory().holds(pointer, bytes)) return true;
    explain("a collective's buffer is no device memory of that size: " +
            memory().describe(pointer));
    return false;
}

ncclResult_t collective(const char* name, Header header, const void* src, void* dst, void* handle,
                        hipStream_t stream) {
    return call(name, [&](Lock& lock) {
        const auto found = comms().find(handle);
        if (found == comms().end() || header.type >= types) return ncclInvalidArgument;
        if (header.reduction != none && header.reduction > min) return ncclInvalidArgument;
        if (depth) return ncclInvalidUsage;  // we group sends and recvs only
        const CommPtr comm = found->second;
        const std::size_t bytes = header.count * type_sizes[header.type];
        const std::size_t all = bytes * static_cast<std::size_t>(comm->ranks);
        const bool cut = header.kind == What::reduce_scatter;
        const bool wide = header.kind == What::all_gather;
        if (!lies_on_device(src, cut ? all : bytes) || !lies_on_device(dst, wide ? all : bytes)) {
            return ncclInvalidArgument;
        }
        queue(stream, header.text(), [comm, header, src, dst] {
            meet(*comm, header, static_cast<const char*>(src), static_cast<char*>(dst));
        }, lock);
        return ncclSuccess;
    });
}

void queue_points(const Grouped& group, Lock& lock) {
    const std::string label = std::to_string(group.points.size()) + " sends and recvs";
    queue(group.stream, label, [comm = group.comm, points = group.points] { pass(*comm, points); },
          lock);
}

ncclResult_t point(const char* name, bool sends, const void* data, std::size_t count, int type,
                   int peer, void* handle, hipStream_t stream) {
    return call(name, [&](Lock& lock) {
        const auto found = comms().find(handle);
        if (found == comms().end() || type < 0 || type >= types) return ncclInvalidArgument;
        const CommPtr comm = found->second;
        if (peer < 0 || peer >= comm->ranks) return ncclInvalidArgument;
        if (!lies_on_device(data, count * type_sizes[type])) return ncclInvalidArgument;
        const Header header{What::point, static_cast<std::uint32_t>(type), none, 0, count};
        const Point one{sends, peer, header, static_cast<char*>(const_cast<void*>(data))};
        if (!depth) {
            queue_points({comm, stream, {one}}, lock);
            return ncclSuccess;
        }
        const auto same = [&](const Grouped& g) { return g.comm == comm && g.stream == stream; };
        auto group = std::find_if(grouped.begin(), grouped.end(), same);
        if (group == grouped.end()) group = grouped.insert(group, Grouped{comm, stream, {}});
        group->points.push_back(one);
        return ncclSuccess;
    });
}

void remove_folder(const std::string& folder) {
    if (DIR* entries = opendir(folder.c_str())) {
        while (const dirent* entry = readdir(entries)) {
            std::remove((folder + '/' + entry->d_name).c_str());
        }
        closedir(entries);
        rmdir(folder.c_str());
    }
}

// The folders of processes that were killed.
void remove_forgotten() {
    const std::string root = "/dev/shm", begin = "graphexec-rccl-";
    std::vector<std::string> forgotten;
    if (DIR* entries = opendir(root.c_str())) {
        while (const dirent* entry = readdir(entries)) {
            const std::string name = entry->d_name;
            if (name.rfind(begin, 0)) continue;
            if (ended(std::atoi(name.c_str() + begin.size()))) forgotten.push_back(name);
        }
        closedir(entries);
    }
    for (const std::string& name : forgotten) remove_folder(root + '/' + name);
}

}  // namespace
}  // namespace emulator

using namespace emulator;

EMULATOR_EXPORT ncclResult_t ncclGetVersion(int* version) {
    if (!version) return ncclInvalidArgument;
    *version = 22703;
    return ncclSuccess;
}

EMULATOR_EXPORT const char* ncclGetErrorString(ncclResult_t status) {
    switch (status) {
        case ncclSuccess: return "no error";
        case ncclUnhandledCudaError: return "unhandled cuda error";
        case ncclSystemError: return "unhandled system error";
        case ncclInvalidArgument: return "invalid argument";
        case ncclInvalidUsage: return "invalid usage";
        case ncclRemoteError: return "remote process exited or there was a network error";
        default: return "internal error";
    }
}

EMULATOR_EXPORT ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
    return call("ncclGetUniqueId", [&] {
        static int count = 0;
        remove_forgotten();
        const std::string folder = "/dev/shm/graphexec-rccl-" + std::to_string(getpid()) + '-' +
                                   std::to_string(count++);
        remove_folder(folder);
        if (mkdir(folder.c_str(), 0700)) return ncclSystemError;
        std::memset(id->internal, 0, sizeof id->internal);
        std::memcpy(id->internal, folder.data(), folder.size());
        return ncclSuccess;
    });
}

EMULATOR_EXPORT ncclResult_t ncclCommInitRank(void** handle, int ranks, ncclUniqueId id,
                                              int rank) {
    return call("ncclCommInitRank", [&] {
        if (!handle || rank < 0 || rank >= ranks) return ncclInvalidArgument;
        const auto comm = std::make_shared<Comm>(Comm{id.internal, rank, ranks, {}, 0, {}, {}});
        const std::uint64_t mine[2] = {static_cast<std::uint64_t>(getpid()),
                                       static_cast<std::uint64_t>(ranks)};
        try {
            const std::string begin = comm->folder + "/init.";
            write_whole(begin + std::to_string(rank), mine, sizeof mine, nullptr, 0);
            std::vector<pid_t> processes;
            for (int other = 0; other < ranks; ++other) {
                const auto found = await(begin + std::to_string(other), *comm, other);
                std::uint64_t theirs[2];
                std::memcpy(theirs, found.data(), sizeof theirs);
                if (theirs[1] != mine[1]) throw Absent{"the ranks differ on how many there are"};
                processes.push_back(static_cast<pid_t>(theirs[0]));
            }
            comm->processes = processes;
        } catch (const Absent& absent) {
            complain("ncclCommInitRank: " + absent.why);
            return ncclRemoteError;
        }
        *handle = comm.get();
        comms()[*handle] = comm;
        return ncclSuccess;
    });
}

EMULATOR_EXPORT ncclResult_t ncclCommDestroy(void* handle) {
    return call("ncclCommDestroy", [&] {
        const auto found = comms().find(handle);
        if (found == comms().end()) return ncclInvalidArgument;
        const CommPtr comm = found->second;
        comms().erase(found);
        try {  // the last one to leave removes what is left
            const std::string bye = comm->folder + "/bye.";
            write_whole(bye + std::to_string(comm->rank), nullptr, 0, nullptr, 0);
            for (int rank = 0; rank < comm->ranks; ++rank) {
                if (access((bye + std::to_string(rank)).c_str(), F_OK)) return ncclSuccess;
            }
            remove_folder(comm->folder);
        } catch (const Absent&) {  // removed by another one already
        }
        return ncclSuccess;
    });
}

EMULATOR_EXPORT ncclResult_t ncclCommAbort(void* handle) {
    return call("ncclCommAbort", [&] {
        const auto found = comms().find(handle);
        if (found == comms().end()) return ncclInvalidArgument;
        remove_folder(found->second->folder);
        comms().erase(found);
        return ncclSuccess;
    });
}

EMULATOR_EXPORT ncclResult_t ncclAllReduce(const void* src, void* dst, std::size_t count, int type,
                                           int op, void* comm, hipStream_t stream) {
    const Header header{What::all_reduce, static_cast<std::uint32_t>(type),
                        static_cast<std::uint32_t>(op), 0, count};
    return collective("ncclAllReduce", header, src, dst, comm, stream);
}

EMULATOR_EXPORT ncclResult_t ncclReduceScatter(const void* src, void* dst, std::size_t count,
                                               int type, int op, void* comm, hipStream_t stream) {
    const Header header{What::reduce_scatter, static_cast<std::uint32_t>(type),
                        static_cast<std::uint32_t>(op), 0, count};
    return collective("ncclReduceScatter", header, src, dst, comm, stream);
}

EMULATOR_EXPORT ncclResult_t ncclAllGather(const void* src, void* dst, std::size_t count, int type,
                                           void* comm, hipStream_t stream) {
    const Header header{What::all_gather, static_cast<std::uint32_t>(type), none, 0, count};
    return collective("ncclAllGather", header, src, dst, comm, stream);
}

EMULATOR_EXPORT ncclResult_t ncclSend(const void* data, std::size_t count, int type, int peer,
                                      void* comm, hipStream_t stream) {
    return point("ncclSend", true, data, count, type, peer, comm, stream);
}

EMULATOR_EXPORT ncclResult_t ncclRecv(void* data, std::size_t count, int type, int peer,
                                      void* comm, hipStream_t stream) {
    return point("ncclRecv", false, data, count, type, peer, comm, stream);
}

EMULATOR_EXPORT ncclResult_t ncclGroupStart() {
    ++depth;
    return ncclSuccess;
}

EMULATOR_EXPORT ncclResult_t ncclGroupEnd() {
    return call("ncclGroupEnd", [&](Lock& lock) {
        if (!depth) return ncclInvalidUsage;
        if (--depth) return ncclSuccess;
        const std::vector<Grouped> groups = std::move(grouped);
        grouped.clear();
        for (const Grouped& group : groups) queue_points(group, lock);
        return ncclSuccess;
    });
}
