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

}  // namespace

std::vector<Vector> read_vectors(const std::filesystem::path& bundle, const Manifest& manifest,
                                 const std::string& graph) {
  std::vector<Vector> vectors;
  for (const auto& path : files(bundle / "vectors" / graph)) {
    const Npz npz(path);
    Vector vector{path.filename(), npz.get<int64_t>("items"), {}, {}, {}};
    if (graph == "sequence") {
      vector.lengths = npz.get<int64_t>("lengths");
    }
    for (const auto& state : manifest.states) {
      vector.state.push_back(npz.get<float>("state_" + state.name));
    }
    for (const auto& output : manifest.outputs) {
      vector.expected.push_back(npz.get<float>(output));
    }
    vectors.push_back(std::move(vector));
  }
  return vectors;
}

void Difference::compare(const Vector& vector, const std::vector<std::string>& names,
                         const std::vector<Array<float>>& found) {
  for (std::size_t i = 0; i < names.size(); ++i) {
    const double here =
        i < found.size() ? difference(found[i], vector.expected[i]) : std::numeric_limits<double>::infinity();
    if (where.empty() || here > largest) {
      largest = here;
      where = names[i] + " of " + vector.name;
    }
  }
}

}  // namespace arraylstm
