#pragma once

namespace emulator {

// Launches are numbered for the seed's decisions; starts over.
void reset_launches();

}  // namespace emulator
