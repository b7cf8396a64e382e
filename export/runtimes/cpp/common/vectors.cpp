#include "vectors.h"

#include <cmath>
#include <limits>
#include <stdexcept>

#include "npz.h"

namespace arraylstm {
namespace {

std::vector<std::filesystem::path> files(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> found;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator(folder, missing)) {
    if (entry.path().extension() == ".npz") {
      found.push_back(entry.path());
    }
  }
  if (found.empty()) {
    throw std::runtime_error(folder.string() + ": has no vectors (*.npz)");
  }
  std::sort(found.begin(), found.end());
  return found;
}

double difference(const Array<float>& found, const Array<float>& expected) {
  if (found.shape != expected.shape) {
    return std::numeric_limits<double>::infinity();
  }
  double largest = 0;
  for (std::size_t i = 0; i < found.values.size(); ++i) {
    const double a = found.values[i];
    const double b = expected.values[i];
    const double relative = std::abs(a - b) / std::max(1.0, std::abs(b));
    largest = std::max(largest, std::isnan(relative) ? std::numeric_limits<double>::infinity() : relative);
  }
  return largest;
}

void check_lengths(const std::filesystem::path& path, const std::vector<int64_t>& lengths, int64_t steps) {
  for (const auto length : lengths) {
    if (length < 0 || length > steps) {
      throw std::runtime_error(path.string() + ": lengths must lie between 0 and " + std::to_string(steps) + ", but " +
                               std::to_string(length) + " is among them");
    }
  }
}

// Axes of items: (B) of a step, (B, S) of a sequence. The states of a sequence have one row each for the whole of it.
Vector read_vector(const std::filesystem::path& path, const Manifest& manifest, std::size_t axes) {
  const Npz npz(path);
  Vector vector{path.filename(), npz.get<int64_t>("items"), {}, {}, {}};
  const Shape lead = vector.items.shape;
  if (lead.size() != axes) {
    throw std::runtime_error(path.string() + ": items has " + std::to_string(lead.size()) + " axes, but has to have " +
                             std::to_string(axes));
  }
  const Shape batch{lead.front()};
  if (axes == 2) {
    vector.lengths = npz.get<int64_t>("lengths", batch);
    check_lengths(path, vector.lengths.values, lead.back());
  }
  for (const auto& state : manifest.states) {
    vector.state.push_back(npz.get<float>("state_" + state.name, batch + state.shape));
  }
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    const auto& [name, row] = manifest.outputs[i];
    vector.expected.push_back(npz.get<float>(name, (manifest.is_state(i) ? batch : lead) + row));
  }
  return vector;
}

}  // namespace

std::vector<Vector> read_vectors(const std::filesystem::path& bundle, const Manifest& manifest,
                                 const std::string& graph) {
  std::vector<Vector> vectors;
  for (const auto& path : files(bundle / "vectors" / graph)) {
    vectors.push_back(read_vector(path, manifest, graph == "sequence" ? 2 : 1));
  }
  return vectors;
}

void Difference::compare(const Vector& vector, const Manifest& manifest, const std::vector<Array<float>>& found) {
  for (std::size_t i = 0; i < manifest.outputs.size(); ++i) {
    const double here = difference(found.at(i), vector.expected[i]);
    if (where.empty() || here > largest) {
      largest = here;
      where = manifest.outputs[i].name + " of " + vector.name;
    }
  }
}

}  // namespace arraylstm
