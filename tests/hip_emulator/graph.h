// Graphs: what a capture leaves behind. Nodes keep their edges and nothing of the streams that
// they were captured from.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "handles.h"
#include "scheduler.h"

namespace emulator {

// One thing a device can be asked to do, before it is known whether it will be queued or captured.
struct Operation {
    hipGraphNodeType type;
    std::string label;
    std::function<void()> work;
    bool unlocked = false;
};

struct Node {
    Operation operation;
    std::vector<std::size_t> predecessors;  // indices into Graph::nodes, all smaller than its own
    hipGraphNode_t handle;
};

struct Graph {
    std::vector<Node> nodes;

    Graph() = default;
    Graph(const Graph&) = delete;
    ~Graph();

    std::size_t add(Operation operation, std::vector<std::size_t> predecessors);
    // Whether every node of `inner` is one of `outer` or comes before one of them.
    bool covered(const std::vector<std::size_t>& inner,
                 const std::vector<std::size_t>& outer) const;
};

struct Exec {
    std::shared_ptr<const Graph> graph;
    CommandPtr last_launch;  // two launches of one exec never overlap
};

using GraphTable = Table<Kind::graph, hipGraph_t, Graph>;
using ExecTable = Table<Kind::exec, hipGraphExec_t, Exec>;
using NodeTable = Table<Kind::node, hipGraphNode_t, hipGraphNodeType>;
GraphTable& graphs();
ExecTable& execs();
NodeTable& nodes();

}  // namespace emulator
