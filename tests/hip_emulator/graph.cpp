#include "graph.h"

#include <algorithm>

namespace emulator {

std::size_t Graph::add(Operation operation, std::vector<std::size_t> predecessors) {
    const auto type = std::make_shared<hipGraphNodeType>(operation.type);
    nodes.push_back({std::move(operation), std::move(predecessors), emulator::nodes().add(type)});
    return nodes.size() - 1;
}

Graph::~Graph() {
    for (const Node& node : nodes) emulator::nodes().remove(node.handle);
}

bool Graph::covered(const std::vector<std::size_t>& inner,
                    const std::vector<std::size_t>& outer) const {
    std::vector<bool> reached(nodes.size());
    for (const std::size_t node : outer) reached[node] = true;
    // Predecessors have smaller indices, so one pass from the back reaches all of them.
    for (std::size_t i = nodes.size(); i-- > 0;) {
        if (!reached[i]) continue;
        for (const std::size_t predecessor : nodes[i].predecessors) reached[predecessor] = true;
    }
    return std::all_of(inner.begin(), inner.end(), [&](std::size_t i) { return reached[i]; });
}

GraphTable& graphs() {
    static GraphTable instance;
    return instance;
}

ExecTable& execs() {
    static ExecTable instance;
    return instance;
}

NodeTable& nodes() {
    // Never destroyed: graphs take their nodes out of it, some of them as the process ends.
    static NodeTable& instance = *new NodeTable;
    return instance;
}

}  // namespace emulator
