// Graphs that have been captured: looking into them, instantiating and launching them.
#include <algorithm>

#include "capture.h"

using namespace emulator;

namespace {

std::shared_ptr<Graph> graph_of(hipGraph_t handle) {
    std::shared_ptr<Graph> graph = graphs().find(handle);
    if (!graph) reject(hipErrorInvalidValue, "no such graph: " + describe_pointer(handle));
    return graph;
}

std::shared_ptr<Exec> exec_of(hipGraphExec_t handle) {
    std::shared_ptr<Exec> exec = execs().find(handle);
    if (!exec) reject(hipErrorInvalidValue, "no such exec: " + describe_pointer(handle));
    return exec;
}

// HIP's convention: without an array only the count is given; with one, `count` is its capacity.
// Entries beyond the last node are not touched: hip-python passes a capacity it never set.
hipError_t give(const std::vector<hipGraphNode_t>& found, hipGraphNode_t* array,
                std::size_t* count) {
    if (!count) return hipErrorInvalidValue;
    if (array) {
        *count = std::min(*count, found.size());
        std::copy_n(found.begin(), *count, array);
    } else {
        *count = found.size();
    }
    return hipSuccess;
}

hipError_t instantiate(hipGraphExec_t* handle, hipGraph_t graph) {
    if (!handle) return hipErrorInvalidValue;
    const auto exec = std::make_shared<Exec>();
    exec->graph = graph_of(graph);
    *handle = execs().add(exec);
    return hipSuccess;
}

// The branches of the graph become commands with the graph's edges only, each in a lane of its
// own: the streams they were captured from order nothing any more.
void launch(Exec& exec, const std::string& name, Stream& stream, Lock& lock) {
    const CommandPtr start =
        issue(stream, {hipGraphNodeTypeEmpty, "begin " + name, {}}, lock, {exec.last_launch});
    std::vector<CommandPtr> commands;
    for (const Node& node : exec.graph->nodes) {
        std::vector<CommandPtr> after{start};
        for (const std::size_t i : node.predecessors) after.push_back(commands[i]);
        Command command;
        command.lane = scheduler().new_lane();
        command.label = name + ' ' + node.operation.label;
        command.work = node.operation.work;
        command.unlocked = node.operation.unlocked;
        commands.push_back(scheduler().enqueue(std::move(command), after, lock));
    }
    exec.last_launch =
        issue(stream, {hipGraphNodeTypeEmpty, "end " + name, {}}, lock, std::move(commands));
}

}  // namespace

EMULATOR_EXPORT hipError_t hipGraphGetNodes(hipGraph_t graph, hipGraphNode_t* array,
                                            std::size_t* count) {
    return hip_call(
        "hipGraphGetNodes",
        [&] {
            std::vector<hipGraphNode_t> found;
            for (const Node& node : graph_of(graph)->nodes) found.push_back(node.handle);
            return give(found, array, count);
        },
        graph, out(count));
}

EMULATOR_EXPORT hipError_t hipGraphGetRootNodes(hipGraph_t graph, hipGraphNode_t* array,
                                                std::size_t* count) {
    return hip_call(
        "hipGraphGetRootNodes",
        [&] {
            std::vector<hipGraphNode_t> found;
            for (const Node& node : graph_of(graph)->nodes) {
                if (node.predecessors.empty()) found.push_back(node.handle);
            }
            return give(found, array, count);
        },
        graph, out(count));
}

EMULATOR_EXPORT hipError_t hipGraphGetEdges(hipGraph_t graph, hipGraphNode_t* from,
                                            hipGraphNode_t* to, std::size_t* count) {
    return hip_call(
        "hipGraphGetEdges",
        [&] {
            if (!count || !from != !to) return hipErrorInvalidValue;
            const std::shared_ptr<Graph> found = graph_of(graph);
            std::vector<hipGraphNode_t> sources;
            std::vector<hipGraphNode_t> targets;
            for (const Node& node : found->nodes) {
                for (const std::size_t predecessor : node.predecessors) {
                    sources.push_back(found->nodes[predecessor].handle);
                    targets.push_back(node.handle);
                }
            }
            std::size_t capacity = *count;
            give(sources, from, &capacity);
            return give(targets, to, count);
        },
        graph, out(count));
}

EMULATOR_EXPORT hipError_t hipGraphNodeGetType(hipGraphNode_t node, hipGraphNodeType* type) {
    return hip_call(
        "hipGraphNodeGetType",
        [&] {
            const std::shared_ptr<hipGraphNodeType> found = nodes().find(node);
            if (!found || !type) return hipErrorInvalidValue;
            *type = *found;
            return hipSuccess;
        },
        node, out(type));
}

EMULATOR_EXPORT hipError_t hipGraphInstantiate(hipGraphExec_t* exec, hipGraph_t graph,
                                               hipGraphNode_t* error_node, char* log,
                                               std::size_t log_bytes) {
    return hip_call(
        "hipGraphInstantiate",
        [&] {
            if (error_node) *error_node = nullptr;
            if (log && log_bytes) *log = '\0';
            return instantiate(exec, graph);
        },
        out(exec), graph);
}

EMULATOR_EXPORT hipError_t hipGraphInstantiateWithFlags(hipGraphExec_t* exec, hipGraph_t graph,
                                                        unsigned long long flags) {
    return hip_call(
        "hipGraphInstantiateWithFlags",
        [&] {
            // 1 auto-free on launch, 2 upload, 4 device launch, 8 node priorities
            if (flags & ~0xFull) return hipErrorInvalidValue;
            return instantiate(exec, graph);
        },
        out(exec), graph, flags);
}

EMULATOR_EXPORT hipError_t hipGraphUpload(hipGraphExec_t exec, hipStream_t stream) {
    return hip_call(
        "hipGraphUpload",
        [&] {
            exec_of(exec);
            stream_of(stream);
            return hipSuccess;
        },
        exec, stream);
}

EMULATOR_EXPORT hipError_t hipGraphLaunch(hipGraphExec_t exec, hipStream_t stream) {
    return hip_call(
        "hipGraphLaunch",
        [&](Lock& lock) {
            const std::shared_ptr<Exec> found = exec_of(exec);
            const StreamPtr into = stream_of(stream);
            require_valid_capture(*into);
            if (into->capture) {
                reject(hipErrorNotSupported, "the emulator has no child graph nodes");
            }
            if (scheduler().failure() != hipSuccess) return scheduler().failure();
            launch(*found, describe_pointer(exec), *into, lock);
            return hipSuccess;
        },
        exec, stream);
}

EMULATOR_EXPORT hipError_t hipGraphExecDestroy(hipGraphExec_t exec) {
    return hip_call(
        "hipGraphExecDestroy",
        [&] {
            exec_of(exec);
            execs().remove(exec);
            return hipSuccess;
        },
        exec);
}

EMULATOR_EXPORT hipError_t hipGraphDestroy(hipGraph_t graph) {
    return hip_call(
        "hipGraphDestroy",
        [&] {
            graph_of(graph);
            graphs().remove(graph);
            return hipSuccess;
        },
        graph);
}
