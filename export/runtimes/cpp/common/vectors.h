// A bundle's test vectors, and how far a program's answers are from theirs.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "array.h"
#include "manifest.h"

namespace arraylstm {

struct Vector {
  std::string name;
  Array<int64_t> items;                // (B) of a step, (B, S) of a sequence
  Array<int64_t> lengths;              // (B) of a sequence
  std::vector<Array<float>> state;     // in the manifest's order, as is
  std::vector<Array<float>> expected;  // what the graph gives
};

// Reads the vectors of a graph, "step" or "sequence"; there is one at least.
// Throws std::runtime_error, which says in a sentence what is wrong with the bundle.
std::vector<Vector> read_vectors(const std::filesystem::path& bundle, const Manifest& manifest,
                                 const std::string& graph);

// The largest |a - b| / max(1, |b|), infinite where a is NaN or of another shape, and the tensor it was found in.
struct Difference {
  double largest = 0;
  std::string where;

  void compare(const Vector& vector, const Manifest& manifest, const std::vector<Array<float>>& found);
};

}  // namespace arraylstm
